# Each job sets itself up: a virtual environment in .venv, then the packages it needs.
# The operating system supplies python3 (with venv), g++, make and perl.

PYTHON ?= python3
JOBS ?= 2

FOLDERS := boards cli firmware gateware golden hdl sim
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet --quiet
SETUP := pyproject.toml setup.py

# Amaranth and the simulations call their tools by name.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.NOTPARALLEL:
.PHONY: demo test lint clean

demo: $(VENV)/base.stamp
	gossamer demo

test: lint
	pytest -n $(JOBS)

lint: $(VENV)/dev.stamp
	rm -rf .typing
	mkdir -p .typing/gossamer
	for folder in $(FOLDERS); do ln -s ../../$$folder .typing/gossamer/$$folder; done
	ruff check .
	mypy

clean:
	rm -rf $(VENV) .typing build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(VENV)/base.stamp: $(VENV)/venv.stamp $(SETUP)
	@echo "Installing Gossamer into $(VENV) ..."
	$(PIP) install --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/venv.stamp $(SETUP)
	@echo "Installing Gossamer and the tools of its tests into $(VENV) ..."
	$(PIP) install --editable ".[dev,fpga,soc]"
	@touch $@ $(VENV)/base.stamp

$(VENV)/venv.stamp:
	$(PYTHON) -m venv $(VENV)
	@touch $@
