"""What every test may use."""

import zlib

import numpy as np
import pytest


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test's name alone; a failing test shows the seed."""
    seed = zlib.crc32(request.node.nodeid.encode())
    request.node.add_report_section("setup", "rng", f"numpy.random.default_rng({seed})")
    return np.random.default_rng(seed)
