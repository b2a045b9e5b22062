"""The C driver as a shared library."""

import functools
import subprocess
from pathlib import Path

import pytest

FIRMWARE = Path(__file__).parents[2] / "firmware"
# A trap ends the test run where C leaves the behaviour open.
OPTIONS = [
    *("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-ffreestanding", "-O2", "-g"),
    *("-shared", "-fPIC", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"),
]


@pytest.fixture(scope="session")
def shared_library(tmp_path_factory):
    """A function of the access, "memory" or "functions", that builds the driver and returns the file."""

    @functools.cache
    def build(access):
        target = tmp_path_factory.mktemp("firmware") / f"{access}.so"
        flags = ["-DGOSSAMER_ACCESS_FUNCTIONS"] if access == "functions" else []
        sources = [FIRMWARE / "gossamer.c", FIRMWARE / "gossamer_operators.c"]
        subprocess.run(["gcc", *OPTIONS, *flags, *sources, "-o", target], check=True)
        return target

    return build
