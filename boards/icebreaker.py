"""1BitSquared iCEBreaker: Lattice iCE40UP5K, 12 MHz oscillator, USB serial port."""

from typing import Any

from amaranth.build import Platform
from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Out

from gossamer.gateware.flash_memory import FlashMemory
from gossamer.gateware.generate import TOP
from gossamer.gateware.uart_bridge import UartBridge
from gossamer.golden.spec import CONFIGS

__all__ = ["BAUD", "CLOCK_MHZ", "CONFIG", "EXTERNAL", "NEXTPNR", "SILENCE", "IceBreaker", "pll_settings", "sources"]

CONFIG = CONFIGS["up5k"]
"""Configuration of the core."""

CLOCK_MHZ = 24
"""Clock of core and bridge."""

BAUD = 1_000_000
"""Bits per second on the serial line."""

SILENCE = 1 << 20
"""Clock cycles of silence that end a command, 44 ms; see :class:`UartBridge`."""

EXTERNAL = 2 << 20
"""Byte of the flash with which the core's external memory begins; the bitstream lies in front."""

NEXTPNR = ("--up5k", "--package", "sg48")
"""Options of nextpnr-ice40 that name the device."""

OSCILLATOR_MHZ = 12
SETTLING = 512
"""Clock cycles of reset after the PLL has locked, 21 us: block RAM reads as zero for some 3 us after configuration."""


def pll_settings(mhz: int) -> dict[str, int]:
    """Parameters with which SB_PLL40 makes ``mhz`` from the oscillator: ``mhz = OSCILLATOR_MHZ*(DIVF + 1) / 2**DIVQ``.

    Ref: Lattice TN1251, "iCE40 sysCLOCK PLL Design and Usage Guide": the VCO runs at 533 to 1066 MHz.
    """
    for divq in range(1, 7):
        vco = mhz << divq
        if 533 <= vco <= 1066 and vco % OSCILLATOR_MHZ == 0:
            return {"DIVR": 0, "DIVF": vco // OSCILLATOR_MHZ - 1, "DIVQ": divq, "FILTER_RANGE": 1}
    raise ValueError(f"the clock must be one that the PLL can make from {OSCILLATOR_MHZ} MHz, not {mhz} MHz")


class IceBreaker(Elaboratable):
    """The core on the board: a PC reaches its bus through the USB serial port (second channel of the USB chip), and the core's
    external memory is the flash, from byte :data:`EXTERNAL` on.

    The green LED is on while a program runs, the red one when the last has ended with an error. The core is an instance
    of the Verilog module that :func:`gossamer.gateware.generate.emit_verilog` writes.

    Parameters
    ----------
    clock_mhz : int
    baud : int
        Must divide the clock to a remainder of less than 1 %.
    """

    def __init__(self, *, clock_mhz: int = CLOCK_MHZ, baud: int = BAUD):
        self._pll = pll_settings(clock_mhz)
        divisor = round(clock_mhz * 1e6 / baud)
        if abs(clock_mhz * 1e6 / divisor / baud - 1) >= 0.01:
            raise ValueError(f"baud must be within 1 % of {clock_mhz} MHz over an integer, not {baud}")
        self._divisor, self._clock_mhz = divisor, clock_mhz

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        self._elaborate_clock(m, platform)
        m.submodules.bridge = bridge = UartBridge(divisor=self._divisor, silence=SILENCE)

        m.submodules.flash = flash = FlashMemory(CONFIG, base=EXTERNAL, clock_mhz=self._clock_mhz)
        self._elaborate_flash(m, platform, flash)

        busy, failed = Signal(), Signal()
        m.submodules.core = Instance(
            TOP,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            **_ports("wb", bridge.bus),
            **_ports("memory", flash.memory),
            o_busy=busy,
            o_failed=failed,
        )

        uart = platform.request("uart", 0, dir="-")
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.submodules.green = green = io.Buffer("o", platform.request("led_g", 0, dir="-"))
        m.submodules.red = red = io.Buffer("o", platform.request("led_r", 0, dir="-"))
        m.d.comb += [bridge.rx.eq(rx.i), tx.o.eq(bridge.tx), green.o.eq(busy), red.o.eq(failed)]
        return m

    def _elaborate_flash(self, m: Module, platform: Platform, flash: FlashMemory) -> None:
        """The flash's pins, registers of IO cells; see ``docs/flash.md``."""
        pins = platform.request("spi_flash_4x", 0, dir={"cs": "-", "clk": "-", "dq": "-"})
        m.submodules.cs = cs = io.FFBuffer("o", pins.cs)
        m.submodules.sck = sck = io.DDRBuffer("o", pins.clk)
        m.submodules.dq = dq = io.FFBuffer("io", pins.dq)
        m.d.comb += [
            cs.o.eq(~flash.cs_n),  # the platform's pin is inverted
            sck.o[0].eq(0),
            sck.o[1].eq(flash.sck),
            dq.o.eq(flash.dq.o),
            dq.oe.eq(flash.dq.oe),
            flash.dq.i.eq(dq.i),
        ]

    def _elaborate_clock(self, m: Module, platform: Platform) -> None:
        """The PLL, and a reset until it has locked and block RAM is there."""
        m.domains.sync = ClockDomain()
        m.domains.start = start = ClockDomain(local=True, reset_less=True)
        locked = Signal()
        m.submodules.pll = Instance(
            "SB_PLL40_PAD",
            p_FEEDBACK_PATH="SIMPLE",
            **{f"p_{name}": value for name, value in self._pll.items()},
            i_PACKAGEPIN=platform.request(platform.default_clk, dir="-").io,
            i_RESETB=1,
            i_BYPASS=0,
            o_PLLOUTGLOBAL=ClockSignal(),
            o_LOCK=locked,
        )
        m.d.comb += start.clk.eq(ClockSignal())
        stable = Signal()
        m.submodules.stable = FFSynchronizer(locked, stable, o_domain="start")
        settling = Signal(range(SETTLING), init=SETTLING - 1)
        m.d.start += ResetSignal().eq(settling != 0)
        with m.If(stable & (settling != 0)):
            m.d.start += settling.eq(settling - 1)


def _ports(prefix: str, interface: Any) -> dict[str, Any]:
    """Connections of an instance's ports ``prefix_…`` to an interface."""
    return {
        f"{'i' if member.flow == Out else 'o'}_{prefix}_{name}": getattr(interface, name)
        for name, member in interface.signature.members.items()
    }


def sources(name: str) -> dict[str, str]:
    """Contents by file name: the board as RTLIL, top module ``name``, and the pin constraints."""
    from amaranth_boards.icebreaker import ICEBreakerPlatform

    files = ICEBreakerPlatform().prepare(IceBreaker(), name=name).files
    return {file: _text(files[file]) for file in (f"{name}.il", f"{name}.pcf")}


def _text(content: str | bytes) -> str:
    return content if isinstance(content, str) else content.decode()
