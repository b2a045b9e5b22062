"""Colorlight 5A-75B, version 7.0: Lattice ECP5 LFE5U-25F, 25 MHz oscillator.

The serial port is on J19 (LED pin to the host, key pin from the host), so busy and error are on the first two pins of J1. The
core has no external memory: where two lines of the flash are connected is not known.
"""

from amaranth.build import Attrs

from gossamer.boards.board import Board, CoreOnBoard, prepare, without_memory
from gossamer.boards.families import ECP5
from gossamer.boards.plls import ecp5_pll
from gossamer.golden.spec import CONFIGS, Config

__all__ = ["BOARD", "CLOCK_MHZ", "CONFIG", "sources"]

CONFIG = without_memory(CONFIGS["ecp5_25"])
CLOCK_MHZ = 65


def sources(name: str, config: Config = CONFIG, *, clock_mhz: int = CLOCK_MHZ) -> dict[str, str]:
    """Contents by file name: the board as RTLIL, top module ``name``, and the pin constraints."""
    from amaranth_boards.colorlight_5a75b_r7_0 import Colorlight_5A75B_R70Platform
    from amaranth_boards.resources import LEDResources

    platform = Colorlight_5A75B_R70Platform()
    del platform.resources["led", 0]  # the same pin as the serial port's
    platform.add_resources([*LEDResources(pins="1 2", conn=("j", 1), attrs=Attrs(IO_TYPE="LVCMOS33"))])
    top = CoreOnBoard(config, clock_mhz=clock_mhz, pll=ecp5_pll(25, clock_mhz))
    return prepare(platform, top, name, ECP5.constraints)


BOARD = Board(
    name="colorlight_5a75b",
    family=ECP5,
    part="LFE5U-25F-6BG256C",
    config=CONFIG,
    clock_mhz=CLOCK_MHZ,
    sources=sources,
    program="openFPGALoader -c ft232 -m {bitstream}",
    nextpnr=("--25k", "--package", "CABGA256", "--speed", "6"),
)
