"""What the boards have in common: their description, and the core behind its host bridge."""

import dataclasses
from collections.abc import Callable
from typing import Any

from amaranth.build import Attrs, Platform, Resource
from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, Signature, flipped

from gossamer.boards.families import Family
from gossamer.gateware.flash_memory import FlashMemory
from gossamer.gateware.flash_rom import FlashRom
from gossamer.gateware.generate import TOP
from gossamer.gateware.soc import TOP as SOC_TOP
from gossamer.gateware.soc import Soc
from gossamer.gateware.soc_registers import RAM, ROM
from gossamer.gateware.spi_target import SpiTarget
from gossamer.gateware.uart_bridge import UartBridge
from gossamer.gateware.wishbone import wishbone_signature
from gossamer.golden.spec import Config, UserError

__all__ = [
    "BAUD",
    "LINKS",
    "SOC_BAUD",
    "Board",
    "CoreOnBoard",
    "SocOnBoard",
    "prepare",
    "silence",
    "spi_host",
    "two_leds",
    "without_memory",
]

LINKS = ("uart", "spi")
"""Ways from a host to the bus."""

BAUD = 1_000_000
"""Bits per second on the serial line."""

SOC_BAUD = 115_200
"""Bits per second on the serial line of a SoC: those of MLPerf Tiny's runner."""

SILENCE_MS = 30
SETTLING = 512
"""Clock cycles of reset after the PLL has locked: block RAM of an iCE40 reads as zero for some 3 us after configuration."""


@dataclasses.dataclass(frozen=True)
class SocOnBoard:
    """A board with a processor as the core's host, :class:`gossamer.gateware.soc.Soc`.

    Parameters
    ----------
    cpu : str
    config : Config
        Of the core.
    clock_mhz : int
        Of all, unless the build is told another.
    ram_bytes : int
        Of the processor; with code in the flash those for data, else those for all.
    flash : int
        Byte of the flash with which the firmware begins; 0 if it is in RAM, as contents of the bitstream.
    sources : callable
        As those of :class:`Board`.
    program : str
        Further commands that load the firmware, with ``{firmware}``; may be empty.
    """

    cpu: str
    config: Config
    clock_mhz: int
    ram_bytes: int
    flash: int
    sources: Callable[..., dict[str, str]]
    program: str = ""

    @property
    def reset_address(self) -> int:
        """Where the firmware begins on the processor's bus."""
        return ROM + self.flash if self.flash else RAM

    def component(self, clock_mhz: int) -> Soc:
        """The processor and what surrounds it."""
        return Soc(
            cpu=self.cpu,
            ram_words=self.ram_bytes // 4,
            divisor=_divisor(clock_mhz, SOC_BAUD),
            clock_mhz=clock_mhz,
            rom=self.flash > 0,
            reset_address=self.reset_address,
        )


@dataclasses.dataclass(frozen=True)
class Board:
    """What the build needs to know of a board.

    Parameters
    ----------
    name : str
        Of its module, too.
    family : Family
    part : str
        Of the FPGA, for people.
    config : Config
        Of the core, unless the build is told another.
    clock_mhz : int
        Clock of core and bridge, unless the build is told another.
    sources : callable
        Contents by file name, for the name of the top module and a configuration: the board as RTLIL, and the pin constraints.
        By name it takes ``clock_mhz``, and if there are several links ``link``, too.
    program : str
        The command that loads a bitstream, with ``{bitstream}``.
    synthesis, nextpnr, pack : tuple
        Options of the synthesis command, of nextpnr and of the packer that name the device.
    links : tuple
        Those of :data:`LINKS` that the board has pins for.
    soc : SocOnBoard
        The board with a processor, if there is one for it.
    margin : float
        The tools are asked for a clock so many times as fast.
    seeds : int
        So many does ``gossamer bench boards`` try, unless it is told another number.
    files : callable
        Contents by file name of what the tools read besides, made when the tools are there.
    """

    name: str
    family: Family
    part: str
    config: Config
    clock_mhz: int
    sources: Callable[..., dict[str, str]]
    program: str
    nextpnr: tuple[str, ...]
    synthesis: tuple[str, ...] = ()
    pack: tuple[str, ...] = ()
    links: tuple[str, ...] = ("uart",)
    soc: SocOnBoard | None = None
    margin: float = 1.0
    seeds: int = 8
    files: Callable[[], dict[str, bytes]] = dict

    @property
    def asked_mhz(self) -> float:
        """The clock that the tools are asked for."""
        return self.clock_mhz * self.margin


def silence(baud: int) -> int:
    """Bits of silence that end a command: the least power of two that takes 30 ms; see :class:`UartBridge`."""
    return 1 << (SILENCE_MS * baud // 1000 - 1).bit_length()


def without_memory(config: Config) -> Config:
    """``config`` for a board without a flash that the core can read: no port to an external memory."""
    return dataclasses.replace(config, name=f"{config.name}-nofetch", fetch_latency=0, fetch_interval=0)


def two_leds(platform: Platform) -> tuple[io.PortLike, io.PortLike]:
    """The first two of several LEDs."""
    return platform.request("led", 0, dir="-"), platform.request("led", 1, dir="-")


def spi_host(cs_n: str, copi: str, cipo: str, clk: str, *, conn: tuple[str, int], attrs: Attrs) -> Resource:
    """Pins of a connector on which the board is a target of a host's SPI."""
    from amaranth_boards.resources import SPIResource

    resource: Resource = SPIResource(
        "spi_host", 0, cs_n=cs_n, copi=copi, cipo=cipo, clk=clk, conn=conn, attrs=attrs, role="peripheral"
    )
    return resource


def _divisor(clock_mhz: int, baud: int) -> int:
    """Clock cycles per bit."""
    divisor = round(clock_mhz * 1e6 / baud)
    if abs(clock_mhz * 1e6 / divisor / baud - 1) >= 0.01:
        raise UserError(f"baud must be within 1 % of {clock_mhz} MHz over an integer, not {baud}")
    return divisor


class CoreOnBoard(Elaboratable):
    """The core on a board: a host reaches its bus through a serial port, or through SPI, or is a processor beside it.

    One LED is on while a program runs, one when the last has ended with an error, or the processor's state shows one. The core
    is an instance of the Verilog module that :func:`gossamer.gateware.generate.emit_verilog` writes, and the processor with its
    RAM of the one by :func:`gossamer.gateware.soc.emit_soc`.

    Parameters
    ----------
    config : Config
    clock_mhz : int
    pll : callable
        ``pll(platform, clock, locked)`` gives what drives the two signals.
    leds : callable
        ``leds(platform)`` requests the ports for busy and error.
    baud : int
        Must divide the clock to a remainder of less than 1 %.
    external : int
        Byte of the flash with which the core's external memory begins, if ``config`` has one.
    link : str
        One of :data:`LINKS`; "spi" needs the resource :func:`spi_host`.
    flash_rom : bool
        There is a processor, and the flash holds its program. Not with ``fetch_interval``: the flash has one reader.
    soc : bool
        There is a processor.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock_mhz: int,
        pll: Callable[[Platform, Any, Signal], Elaboratable],
        leds: Callable[[Platform], tuple[io.PortLike, io.PortLike]] = two_leds,
        baud: int = BAUD,
        external: int = 0,
        link: str = "uart",
        soc: bool = False,
        flash_rom: bool = False,
    ):
        if flash_rom and config.fetch_interval:
            raise ValueError(f"fetch_interval must be 0 where the flash holds the firmware, not {config.fetch_interval}")
        self._config, self._clock_mhz, self._pll, self._leds = config, clock_mhz, pll, leds
        self._baud, self._divisor, self._external, self._link = baud, _divisor(clock_mhz, baud), external, link
        self._soc, self._flash_rom = soc, flash_rom

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        self._elaborate_clock(m, platform)
        elaborate_host = self._elaborate_spi if self._link == "spi" else self._elaborate_uart
        host: Any = self._elaborate_soc(m, platform) if self._soc else elaborate_host(m, platform)

        memory: dict[str, Any] = {}
        if self._config.fetch_interval:
            m.submodules.flash = flash = FlashMemory(self._config, base=self._external, clock_mhz=self._clock_mhz)
            _elaborate_flash(m, platform, flash)
            memory = _ports("memory", flash.memory)

        busy, failed = Signal(), Signal()
        m.submodules.core = Instance(
            TOP,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            **_ports("wb", host.bus),
            **memory,
            **({"o_irq": host.irq} if self._soc else {}),
            o_busy=busy,
            o_failed=failed,
        )

        green, red = (io.Buffer("o", port) for port in self._leds(platform))
        m.submodules.green, m.submodules.red = green, red
        m.d.comb += [green.o.eq(busy), red.o.eq(failed | host.failed if self._soc else failed)]
        return m

    def _elaborate_uart(self, m: Module, platform: Platform) -> UartBridge:
        m.submodules.bridge = bridge = UartBridge(divisor=self._divisor, silence=silence(self._baud))
        rx, tx = _elaborate_line(m, platform)
        m.d.comb += [bridge.rx.eq(rx.i), tx.o.eq(bridge.tx)]
        return bridge

    def _elaborate_spi(self, m: Module, platform: Platform) -> SpiTarget:
        """The inputs' first registers are those of IO cells."""
        m.submodules.bridge = bridge = SpiTarget()
        pins = platform.request("spi_host", 0, dir="-")
        m.submodules.host_cs = cs = io.FFBuffer("i", pins.cs)
        m.submodules.host_sck = sck = io.FFBuffer("i", pins.clk)
        m.submodules.mosi = mosi = io.FFBuffer("i", pins.copi)
        m.submodules.miso = miso = io.Buffer("o", pins.cipo)
        m.d.comb += [
            bridge.cs_n.eq(~cs.i),  # the platform's pin is inverted
            bridge.sck.eq(sck.i),
            bridge.mosi.eq(mosi.i),
            miso.o.eq(bridge.miso),
        ]
        return bridge

    def _elaborate_soc(self, m: Module, platform: Platform) -> Any:
        """The processor with all that is its: on the side of the core ``bus``, ``irq`` and ``failed``."""
        host: Any = Signature({"bus": Out(wishbone_signature()), "irq": In(1), "failed": Out(1)}).create()
        rom: dict[str, Any] = {}
        if self._flash_rom:
            m.submodules.rom = flash_rom = FlashRom(clock_mhz=self._clock_mhz)
            _elaborate_flash(m, platform, flash_rom)
            rom = _ports("rom", flash_rom.bus)
        rx, tx = _elaborate_line(m, platform)
        m.submodules.soc = Instance(
            SOC_TOP,
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            **_ports("wb", flipped(host.bus)),
            **rom,
            i_rx=rx.i,
            o_tx=tx.o,
            i_irq=host.irq,
            o_failed=host.failed,
        )
        return host

    def _elaborate_clock(self, m: Module, platform: Platform) -> None:
        """The PLL, and a reset until it has locked and block RAM is there."""
        m.domains.sync = ClockDomain()
        m.domains.start = start = ClockDomain(local=True, reset_less=True)
        locked = Signal()
        m.submodules.pll = self._pll(platform, ClockSignal(), locked)
        m.d.comb += start.clk.eq(ClockSignal())
        stable = Signal()
        m.submodules.stable = FFSynchronizer(locked, stable, o_domain="start")
        settling = Signal(range(SETTLING), init=SETTLING - 1)
        m.d.start += ResetSignal().eq(settling != 0)
        with m.If(stable & (settling != 0)):
            m.d.start += settling.eq(settling - 1)


def _elaborate_line(m: Module, platform: Platform) -> tuple[io.Buffer, io.Buffer]:
    """The pins of the serial line."""
    uart = platform.request("uart", 0, dir="-")
    m.submodules.rx = rx = io.Buffer("i", uart.rx)
    m.submodules.tx = tx = io.Buffer("o", uart.tx)
    return rx, tx


def _elaborate_flash(m: Module, platform: Platform, flash: FlashMemory | FlashRom) -> None:
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


def _ports(prefix: str, interface: Any) -> dict[str, Any]:
    """Connections of an instance's ports ``prefix_…`` to an interface."""
    return {
        f"{'i' if member.flow == Out else 'o'}_{prefix}_{name}": getattr(interface, name)
        for name, member in interface.signature.members.items()
    }


def prepare(platform: Platform, top: Elaboratable, name: str, constraints: str) -> dict[str, str]:
    """Contents by file name: the board as RTLIL, top module ``name``, and the pin constraints, whose suffix is given."""
    files = platform.prepare(top, name=name).files
    return {file: _text(files[file]) for file in (f"{name}.il", f"{name}.{constraints}")}


def _text(content: str | bytes) -> str:
    return content if isinstance(content, str) else content.decode()
