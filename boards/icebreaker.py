"""1BitSquared iCEBreaker: Lattice iCE40UP5K, 12 MHz oscillator, USB serial port."""

import dataclasses
from typing import Any

from amaranth.build import Attrs, Platform
from amaranth.hdl import Instance, Signal
from amaranth.lib import io

from gossamer.boards.board import BAUD, LINKS, SOC_BAUD, Board, CoreOnBoard, SocOnBoard, prepare, spi_host
from gossamer.boards.families import ICE40
from gossamer.boards.plls import unreachable
from gossamer.golden.spec import CONFIGS, Config

__all__ = ["BOARD", "CLOCK_MHZ", "CONFIG", "EXTERNAL", "IceBreaker", "pll_settings", "sources"]

CONFIG = CONFIGS["up5k"]
"""Configuration of the core, unless the build is told another."""

CLOCK_MHZ = 30
"""Clock of core and bridge."""

EXTERNAL = 2 << 20
"""Byte of the flash with which the core's external memory begins; the bitstream lies in front."""

SOC_CONFIG = dataclasses.replace(CONFIG, name="up5k_soc", lanes=8, interval=1, lut_lanes=0, fetch_latency=0, fetch_interval=0)
"""Configuration of the core beside a processor, for which 16 lanes leave too little room; the flash is the processor's."""

SOC_CLOCK_MHZ = 24

FIRMWARE = 1 << 20
"""Byte of the flash with which the processor's firmware begins."""

OSCILLATOR_MHZ = 12


def pll_settings(mhz: int) -> dict[str, int]:
    """Parameters with which SB_PLL40 makes ``mhz`` from the oscillator: ``mhz = OSCILLATOR_MHZ*(DIVF + 1) / 2**DIVQ``.

    Ref: Lattice TN1251, "iCE40 sysCLOCK PLL Design and Usage Guide": the VCO runs at 533 to 1066 MHz.
    """
    for divq in range(1, 7):
        vco = mhz << divq
        if 533 <= vco <= 1066 and vco % OSCILLATOR_MHZ == 0:
            return {"DIVR": 0, "DIVF": vco // OSCILLATOR_MHZ - 1, "DIVQ": divq, "FILTER_RANGE": 1}
    raise unreachable(OSCILLATOR_MHZ, mhz)


class IceBreaker(CoreOnBoard):
    """The core on the board: a PC reaches its bus through the USB serial port (second channel of the USB chip), or a host with
    SPI through PMOD 1A, and the core's external memory is the flash, from byte :data:`EXTERNAL` on.

    The green LED is on while a program runs, the red one when the last has ended with an error.

    Parameters
    ----------
    config : Config
        Of the core.
    clock_mhz : int
    baud : int
        Must divide the clock to a remainder of less than 1 %.
    link : str
        "uart" or "spi".
    soc : bool
        A processor, whose program is in the flash, takes the place of the host.
    """

    def __init__(
        self,
        config: Config = CONFIG,
        *,
        clock_mhz: int = CLOCK_MHZ,
        baud: int = BAUD,
        link: str = "uart",
        soc: bool = False,
    ):
        settings = pll_settings(clock_mhz)

        def pll(platform: Platform, clock: Any, locked: Signal) -> Instance:
            return Instance(
                "SB_PLL40_PAD",
                p_FEEDBACK_PATH="SIMPLE",
                **{f"p_{name}": value for name, value in settings.items()},
                i_PACKAGEPIN=platform.request(platform.default_clk, dir="-").io,
                i_RESETB=1,
                i_BYPASS=0,
                o_PLLOUTGLOBAL=clock,
                o_LOCK=locked,
            )

        def leds(platform: Platform) -> tuple[io.PortLike, io.PortLike]:
            return platform.request("led_g", 0, dir="-"), platform.request("led_r", 0, dir="-")

        super().__init__(
            config,
            clock_mhz=clock_mhz,
            baud=baud,
            pll=pll,
            leds=leds,
            external=EXTERNAL,
            link=link,
            soc=soc,
            flash_rom=soc,
        )


def sources(name: str, config: Config = CONFIG, *, clock_mhz: int = CLOCK_MHZ, link: str = "uart") -> dict[str, str]:
    """Contents by file name: the board as RTLIL, top module ``name``, and the pin constraints."""
    from amaranth_boards.icebreaker import ICEBreakerPlatform

    platform = ICEBreakerPlatform()
    platform.add_resources([spi_host("1", "2", "3", "4", conn=("pmod", 0), attrs=Attrs(IO_STANDARD="SB_LVCMOS"))])
    return prepare(platform, IceBreaker(config, clock_mhz=clock_mhz, link=link), name, ICE40.constraints)


def soc_sources(name: str, config: Config = SOC_CONFIG, *, clock_mhz: int = SOC_CLOCK_MHZ) -> dict[str, str]:
    """As :func:`sources`, with a processor."""
    from amaranth_boards.icebreaker import ICEBreakerPlatform

    top = IceBreaker(config, clock_mhz=clock_mhz, baud=SOC_BAUD, soc=True)
    return prepare(ICEBreakerPlatform(), top, name, ICE40.constraints)


BOARD = Board(
    name="icebreaker",
    family=ICE40,
    part="iCE40UP5K-SG48",
    config=CONFIG,
    clock_mhz=CLOCK_MHZ,
    sources=sources,
    program="iceprog {bitstream}",
    nextpnr=("--up5k", "--package", "sg48"),
    links=LINKS,
    soc=SocOnBoard(
        cpu="serv",
        config=SOC_CONFIG,
        clock_mhz=SOC_CLOCK_MHZ,
        ram_bytes=4 << 10,
        flash=FIRMWARE,
        sources=soc_sources,
        program=f"iceprog -o {FIRMWARE >> 10}k {{firmware}}",
    ),
)
