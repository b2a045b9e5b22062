"""Sipeed Tang Nano 9K: Gowin GW1NR-9C, 27 MHz oscillator, USB serial port.

The core has no external memory: the flash is connected by one data line in each direction, and the core reads over four.
"""

from gossamer.boards.board import Board, CoreOnBoard, prepare, without_memory
from gossamer.boards.families import GOWIN
from gossamer.boards.plls import gowin_pll
from gossamer.golden.spec import CONFIGS, Config

__all__ = ["BOARD", "CLOCK_MHZ", "CONFIG", "sources"]

CONFIG = without_memory(CONFIGS["gw1n9"])
CLOCK_MHZ = 27


def sources(name: str, config: Config = CONFIG, *, clock_mhz: int = CLOCK_MHZ) -> dict[str, str]:
    """Contents by file name: the board as RTLIL, top module ``name``, and the pin constraints."""
    from amaranth_boards.tang_nano_9k import TangNano9kPlatform

    top = CoreOnBoard(config, clock_mhz=clock_mhz, pll=gowin_pll(27, clock_mhz, device="GW1NR-9C"))
    return prepare(TangNano9kPlatform(), top, name, GOWIN.constraints)


BOARD = Board(
    name="tang_nano_9k",
    family=GOWIN,
    part="GW1NR-LV9QN88PC6/I5",
    config=CONFIG,
    clock_mhz=CLOCK_MHZ,
    sources=sources,
    program="openFPGALoader -b tangnano9k {bitstream}",
    synthesis=("-family", "gw1n"),
    nextpnr=("--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C"),
    pack=("-d", "GW1N-9C", "--sspi_as_gpio", "--mspi_as_gpio"),
)
