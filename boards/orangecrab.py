"""OrangeCrab r0.2: Lattice ECP5 LFE5U-25F, 48 MHz oscillator.

Its USB port leads to the FPGA and to nothing else: the serial port is on the pins 0 (from the host) and 1 (to the host), 3.3 V,
for an adapter; SPI is on the pins 10 (chip select), COPI, CIPO and SCK. The LED is green while a program runs and red after an
error. The core has no external memory: the flash's clock is the pin of the configuration logic, which has no register of an IO
cell.
"""

from amaranth.build import Attrs, Platform
from amaranth.lib import io

from gossamer.boards.board import LINKS, Board, CoreOnBoard, prepare, spi_host, without_memory
from gossamer.boards.families import ECP5
from gossamer.boards.plls import ecp5_pll
from gossamer.golden.spec import CONFIGS, Config

__all__ = ["BOARD", "CLOCK_MHZ", "CONFIG", "sources"]

CONFIG = without_memory(CONFIGS["ecp5_25"])
CLOCK_MHZ = 84


def _leds(platform: Platform) -> tuple[io.PortLike, io.PortLike]:
    led = platform.request("rgb_led", 0, dir="-")
    return led.g, led.r


def sources(name: str, config: Config = CONFIG, *, clock_mhz: int = CLOCK_MHZ, link: str = "uart") -> dict[str, str]:
    """Contents by file name: the board as RTLIL, top module ``name``, and the pin constraints."""
    from amaranth_boards.orangecrab_r0_2 import OrangeCrabR0_2_25FPlatform
    from amaranth_boards.resources import UARTResource

    platform = OrangeCrabR0_2_25FPlatform()
    header = {"conn": ("io", 0), "attrs": Attrs(IO_TYPE="LVCMOS33")}
    platform.add_resources([UARTResource(0, rx="0", tx="1", **header), spi_host("10", "copi", "cipo", "sck", **header)])
    top = CoreOnBoard(config, clock_mhz=clock_mhz, pll=ecp5_pll(48, clock_mhz), leds=_leds, link=link)
    return prepare(platform, top, name, ECP5.constraints)


BOARD = Board(
    name="orangecrab",
    family=ECP5,
    part="LFE5U-25F-8MG285C",
    config=CONFIG,
    clock_mhz=CLOCK_MHZ,
    sources=sources,
    program="dfu-suffix -v 1209 -p 5af0 -a {bitstream} && dfu-util -a 0 -D {bitstream}",
    nextpnr=("--25k", "--package", "CSFBGA285", "--speed", "8"),
    links=LINKS,
    pack=("--freq", "38.8"),
)
