"""Sipeed Tang Primer 20K with dock: Gowin GW2A-18C, 27 MHz oscillator, USB serial port.

The core has no external memory: the platform knows one data line of the flash in each direction, and the core reads over four.
"""

from gossamer.boards.board import Board, CoreOnBoard, prepare, without_memory
from gossamer.boards.families import GOWIN
from gossamer.boards.gowin_database import database, without_segments
from gossamer.boards.plls import gowin_pll
from gossamer.golden.spec import CONFIGS, Config

__all__ = ["BOARD", "CLOCK_MHZ", "CONFIG", "sources"]

CONFIG = without_memory(CONFIGS["gw2a18"])
CLOCK_MHZ = 36


def sources(name: str, config: Config = CONFIG, *, clock_mhz: int = CLOCK_MHZ) -> dict[str, str]:
    """Contents by file name: the board as RTLIL, top module ``name``, and the pin constraints."""
    from amaranth_boards.tang_primer_20k import TangPrimer20kDockPlatform

    top = CoreOnBoard(config, clock_mhz=clock_mhz, pll=gowin_pll(27, clock_mhz, device="GW2A-18C"))
    return prepare(TangPrimer20kDockPlatform(), top, name, GOWIN.constraints)


def files() -> dict[str, bytes]:
    """nextpnr's database as it is routed with."""
    return {"chipdb.bin": without_segments(database("GW2A-18C"))}


BOARD = Board(
    name="tang_primer_20k",
    family=GOWIN,
    part="GW2A-LV18PG256C8/I7",
    config=CONFIG,
    clock_mhz=CLOCK_MHZ,
    sources=sources,
    program="openFPGALoader -b tangprimer20k {bitstream}",
    synthesis=("-family", "gw2a"),
    nextpnr=("--device", "GW2A-LV18PG256C8/I7", "--vopt", "family=GW2A-18C", "--chipdb", "chipdb.bin"),
    pack=("-d", "GW2A-18C", "--sspi_as_gpio", "--mspi_as_gpio", "--ready_as_gpio", "--done_as_gpio"),
    margin=1.5,
    seeds=1,  # of which it takes nextpnr the better part of an hour
    files=files,
)
