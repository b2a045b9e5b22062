"""Radiona ULX3S-85F: Lattice ECP5 LFE5U-85F, 25 MHz oscillator, USB serial port.

The core has no external memory: the flash's clock is the pin of the configuration logic, which has no register of an IO cell.
"""

from amaranth.build import Attrs

from gossamer.boards.board import LINKS, SOC_BAUD, Board, CoreOnBoard, SocOnBoard, prepare, spi_host, without_memory
from gossamer.boards.families import ECP5
from gossamer.boards.plls import ecp5_pll
from gossamer.golden.spec import CONFIGS, Config

__all__ = ["BOARD", "CLOCK_MHZ", "CONFIG", "sources"]

CONFIG = without_memory(CONFIGS["ecp5_85"])
CLOCK_MHZ = 50

SOC_CONFIG = without_memory(CONFIGS["ecp5_25"])
"""Configuration of the core beside a processor: images for 16 lanes are a quarter as large, and lie in its RAM."""

SOC_CLOCK_MHZ = 40


def sources(name: str, config: Config = CONFIG, *, clock_mhz: int = CLOCK_MHZ, link: str = "uart") -> dict[str, str]:
    """Contents by file name: the board as RTLIL, top module ``name``, and the pin constraints."""
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    platform = ULX3S_85F_Platform()
    platform.add_resources([spi_host("0+", "0-", "1+", "1-", conn=("gpio", 0), attrs=Attrs(IO_TYPE="LVCMOS33"))])
    top = CoreOnBoard(config, clock_mhz=clock_mhz, pll=ecp5_pll(25, clock_mhz), link=link)
    return prepare(platform, top, name, ECP5.constraints)


def soc_sources(name: str, config: Config = SOC_CONFIG, *, clock_mhz: int = SOC_CLOCK_MHZ) -> dict[str, str]:
    """As :func:`sources`, with a processor."""
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    top = CoreOnBoard(config, clock_mhz=clock_mhz, pll=ecp5_pll(25, clock_mhz), baud=SOC_BAUD, soc=True)
    return prepare(ULX3S_85F_Platform(), top, name, ECP5.constraints)


BOARD = Board(
    name="ulx3s_85f",
    family=ECP5,
    part="LFE5U-85F-6BG381C",
    config=CONFIG,
    clock_mhz=CLOCK_MHZ,
    sources=sources,
    program="openFPGALoader -b ulx3s {bitstream}",
    nextpnr=("--85k", "--package", "CABGA381", "--speed", "6"),
    links=LINKS,
    soc=SocOnBoard(
        cpu="picorv32",
        config=SOC_CONFIG,
        clock_mhz=SOC_CLOCK_MHZ,
        ram_bytes=64 << 10,
        flash=0,
        sources=soc_sources,
    ),
)
