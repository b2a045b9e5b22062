"""The command, run in this process."""

import functools
import re
import sys

import numpy as np
import pytest

from gossamer.cli import main as module
from gossamer.golden import digits
from gossamer.sim import rtl

ONE_SENTENCE = re.compile(r"gossamer: [^\n]+\n")


@pytest.fixture(scope="module")
def emit_once():
    """Verilog of a configuration, emitted once for all simulators."""
    return functools.cache(rtl.emit_verilog)


@pytest.fixture
def gossamer(monkeypatch, capfd, emit_once):
    """A function that runs the command in this process; returns status, output and messages."""
    monkeypatch.setattr(rtl, "emit_verilog", emit_once)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gossamer", *map(str, arguments)])
        capfd.readouterr()
        try:
            module.main()
            status = 0
        except SystemExit as exit:
            status = exit.code or 0
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def refused(gossamer, tmp_path, monkeypatch):
    """A function that runs the command in an empty folder; it must refuse with one sentence, which is returned, and write
    nothing."""

    def run(*arguments):
        folder = tmp_path / "here"
        folder.mkdir()
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.chdir(folder)
        status, output, messages = gossamer(*arguments)
        assert (status, output) == (2, "")
        assert ONE_SENTENCE.fullmatch(messages)
        assert sorted(tmp_path.rglob("*")) == before
        return messages.removeprefix("gossamer: ").removesuffix("\n")

    return run


@pytest.fixture
def digits_file(tmp_path):
    """Two digits as an input file."""
    np.save(tmp_path / "x.npy", digits.test_set()[0][:2])
    return tmp_path / "x.npy"
