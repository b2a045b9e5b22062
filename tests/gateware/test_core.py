"""The core on the emitted Verilog, through its bus: runs the cocotb bench."""

import pytest

from gossamer.golden.spec import CONFIGS
from gossamer.sim.cocotb_runner import run_bench


@pytest.mark.parametrize("name", ["gw1n9", "up5k"])
def test_bench(name, tmp_path):
    results = run_bench(CONFIGS[name], "tests.gateware.bench_core", tmp_path)
    assert len(results) > 30
    failures = [f"{test}: {message}" for test, message in results.items() if message]
    if failures:
        pytest.fail("\n".join([*failures, f"Log: {tmp_path / 'bench.log'}"]), pytrace=False)
