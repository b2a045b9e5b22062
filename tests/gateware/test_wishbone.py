"""Wishbone, classic and pipelined: the core behind it with the bus models of others."""

from importlib.util import find_spec

import pytest

from gossamer.golden.spec import CONFIGS
from gossamer.sim.cocotb_runner import run_bench


@pytest.mark.parametrize("name, bus", [("gw1n9", "wishbone"), ("up5k", "wishbone-pipelined")])
def test_bench(name, bus, tmp_path):
    """The store of up5k has one port, where a write comes before a read."""
    assert find_spec("cocotbext.wishbone"), "the bench needs cocotbext-wishbone: pip install 'gossamer[dev]'"
    results = run_bench(CONFIGS[name], "tests.gateware.bench_wishbone", tmp_path, bus=bus)
    assert len(results) > 12
    failures = [f"{test}: {message}" for test, message in results.items() if message]
    if failures:
        pytest.fail("\n".join([*failures, f"Log: {tmp_path / 'bench.log'}"]), pytrace=False)
