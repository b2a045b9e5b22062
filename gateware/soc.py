"""A processor beside the core: RAM, serial port, cycle counter, and the bus between them."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from gossamer.gateware.cpu import CPUS
from gossamer.gateware.generate import named_ports, translate, with_contents
from gossamer.gateware.soc_registers import RAM, SOC_REGISTERS, WINDOWS
from gossamer.gateware.wishbone import wishbone_signature
from gossamer.hdl.checks import require
from gossamer.hdl.store import UNCHECKED
from gossamer.hdl.uart import UartReceiver, UartTransmitter

__all__ = ["TOP", "Interconnect", "Peripherals", "Ram", "Soc", "emit_soc", "hex_words"]

TOP = "gossamer_soc"
"""Name of the Verilog module."""

RING = 256
"""Bytes of the ring in which those that have come wait; one is always free."""


class Interconnect(wiring.Component):
    """Leads the accesses of one master to the slave in whose window they are.

    The windows are those of :mod:`gossamer.gateware.soc_registers`: 16 MB each, in which a slave sees its own address. The
    master has a slave's ``ack`` and data in the same cycle, and never an ``err``: an access that a slave ends with ``err`` is
    answered with ``ack`` and any data, and so is one outside all windows, or in that of a slave that is not there, in its
    second cycle. ``fault`` is high in the cycle of such an answer. So no access lasts longer than a slave lets it.

    The master must hold an access until it is answered. Reset drops an answer to an access outside.

    Parameters
    ----------
    rom : bool
        There is a slave at :data:`gossamer.gateware.soc_registers.ROM`.

    Members
    -------
    cpu : ``In(wishbone_signature(address_bits=32))``
    ram, core, peripherals : ``Out(wishbone_signature())``
    rom : ``Out(wishbone_signature())``
        If there is one.
    fault : ``Out(1)``
    """

    def __init__(self, *, rom: bool):
        self._windows = {name: base for name, base in WINDOWS.items() if rom or name != "rom"}
        slaves = {name: Out(wishbone_signature()) for name in self._windows}
        super().__init__({"cpu": In(wishbone_signature(address_bits=32)), "fault": Out(1), **slaves})

    def elaborate(self, platform):
        m = Module()
        cpu = self.cpu
        slave_bits = len(cpu.adr) - 8
        request = cpu.cyc & cpu.stb
        lost, known = Signal(), Signal()
        slaves = {base: getattr(self, name) for name, base in self._windows.items()}
        for base, slave in slaves.items():
            here = cpu.adr[slave_bits:] == base >> 24
            m.d.comb += [
                slave.cyc.eq(request & here),
                slave.stb.eq(request & here),
                slave.adr.eq(cpu.adr[:slave_bits]),
                slave.we.eq(cpu.we),
                slave.sel.eq(cpu.sel),
                slave.dat_w.eq(cpu.dat_w),
            ]
        # One address bit tells a window from the others that there are.
        m.d.comb += [
            known.eq(Cat(slave.cyc for slave in slaves.values()).any()),
            cpu.dat_r.eq(self.ram.dat_r),
            self.fault.eq(lost | Cat(slave.err for slave in slaves.values()).any()),
            cpu.ack.eq(self.fault | Cat(slave.ack for slave in slaves.values()).any()),
        ]
        for base, slave in slaves.items():
            if base:
                with m.If(cpu.adr[base.bit_length() - 3]):
                    m.d.comb += cpu.dat_r.eq(slave.dat_r)
        m.d.sync += lost.eq(request & ~known & ~lost)
        return m


class Ram(wiring.Component):
    """Memory of 32-bit words. Each access takes two cycles; behind the last word it ends with ``err``, without effect.

    Parameters
    ----------
    words : int
        1 to 4194304. They begin as 0; see :func:`emit_soc` for other contents.

    Members
    -------
    bus : ``In(wishbone_signature())``
    """

    def __init__(self, *, words: int):
        require(1 <= words <= 1 << 22, f"words must be 1 to 4194304, not {words}")
        self._words = words
        super().__init__({"bus": In(wishbone_signature())})

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        m.submodules.memory = memory = Memory(shape=32, depth=self._words, init=[], attrs=UNCHECKED)
        read, write = memory.read_port(), memory.write_port(granularity=8)
        request, inside = Signal(), Signal()
        bits = len(read.addr)
        whole = 1 << bits == self._words
        m.d.comb += [
            request.eq(bus.cyc & bus.stb & ~bus.ack & ~bus.err),
            inside.eq(~bus.adr[bits:].any() if whole else bus.adr < self._words),
            read.addr.eq(bus.adr),
            read.en.eq(request & ~bus.we),
            write.addr.eq(bus.adr),
            write.data.eq(bus.dat_w),
            write.en.eq(Mux(request & bus.we & inside, bus.sel, 0)),
            bus.dat_r.eq(read.data),
        ]
        m.d.sync += [bus.ack.eq(request & inside), bus.err.eq(request & ~inside)]
        return m


class Peripherals(wiring.Component):
    """Serial port, cycle counter and state: :data:`gossamer.gateware.soc_registers.SOC_REGISTERS`.

    Each access takes two cycles, but that a write of byte 0 of ``uart`` waits in front of them until the transmitter is
    free: up to ten bits of the line. Accesses elsewhere than at the four registers end with ``err``, without effect. Writes
    of registers, or bytes, that cannot be written have no effect.

    255 bytes that have come wait to be read; the next ones are lost, and ``state.overflow`` says so. A read of ``uart`` may
    take a byte that came three cycles before its answer.

    Reset drops what is being sent, received or waits.

    Parameters
    ----------
    divisor : int
        Clock cycles per bit of the line, at least 8.
    clock_mhz : int
        What the register ``clock`` says; 0 to 65535.

    Members
    -------
    bus : ``In(wishbone_signature())``
    rx, tx : ``In(1)``, ``Out(1)``
        The line.
    irq, fault : ``In(1)``
        The core's interrupt; an access has failed.
    faulty : ``Out(1)``
        ``state.fault``.
    """

    def __init__(self, *, divisor: int, clock_mhz: int):
        require(0 <= clock_mhz < 1 << 16, f"clock_mhz must be 0 to 65535, not {clock_mhz}")
        self._receiver, self._transmitter = UartReceiver(divisor=divisor), UartTransmitter(divisor=divisor)
        self._clock_mhz = clock_mhz
        super().__init__(
            {
                "bus": In(wishbone_signature()),
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "irq": In(1),
                "fault": In(1),
                "faulty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        m.submodules.receiver = receiver = self._receiver
        m.submodules.transmitter = transmitter = self._transmitter
        m.d.comb += [receiver.pin.eq(self.rx), self.tx.eq(transmitter.pin)]

        request, here = Signal(), Signal()
        at = {register.name: bus.adr[:2] == register.address // 4 for register in SOC_REGISTERS}
        sends = at["uart"] & bus.we & bus.sel[0]
        m.d.comb += [
            request.eq(bus.cyc & bus.stb & ~bus.ack & ~bus.err),
            here.eq(~bus.adr[2:].any()),
            transmitter.i.valid.eq(request & here & sends),
            transmitter.i.p.eq(bus.dat_w[:8]),
        ]
        m.d.sync += [bus.ack.eq(request & here & (~sends | transmitter.i.ready)), bus.err.eq(request & ~here)]

        # The bytes that have come lie in a ring from `first` up to `behind`. The one at `first` is always read; what was
        # written there in one cycle is read in the next, and `seen`, which follows `behind`, tells when it is there.
        m.submodules.ring = ring = Memory(shape=8, depth=RING, init=[], attrs=UNCHECKED)
        read, write = ring.read_port(), ring.write_port()
        first, behind, seen = (Signal(range(RING), name=name) for name in ("first", "behind", "seen"))
        valid, full, take, store = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            valid.eq(first != seen),
            full.eq((behind + 1)[: len(behind)] == first),
            take.eq(bus.ack & at["uart"] & ~bus.we & valid),
            store.eq(receiver.o.valid & ~full),
            read.addr.eq(first + take),
            write.en.eq(store),
            write.addr.eq(behind),
            write.data.eq(receiver.o.p),
        ]
        m.d.sync += [first.eq(first + take), behind.eq(behind + store), seen.eq(behind)]

        overflow, framing, cycles = Signal(), Signal(), Signal(32)
        m.d.sync += cycles.eq(cycles + 1)
        with m.If(bus.ack & bus.we & at["state"]):
            m.d.sync += [overflow.eq(0), framing.eq(0), self.faulty.eq(0)]
        # What happens in the same cycle is not cleared.
        for flag, happens in ((overflow, receiver.o.valid & full), (framing, receiver.error), (self.faulty, self.fault)):
            with m.If(happens):
                m.d.sync += flag.eq(1)

        values = [Cat(read.data, valid), Cat(self.irq, overflow, framing, self.faulty), cycles, Const(self._clock_mhz, 16)]
        m.d.comb += bus.dat_r.eq(Array(values)[bus.adr[:2]])
        return m


class Soc(wiring.Component):
    """A processor as the core's host, in place of :class:`gossamer.gateware.uart_bridge.UartBridge`.

    It starts at ``reset_address`` and sees, in windows of 16 MB, RAM, read-only memory if there is some, the core, and
    the registers; see :class:`Interconnect` for what happens elsewhere. The core's ``err`` does not stop it.

    Parameters
    ----------
    cpu : str
        One of :data:`gossamer.gateware.cpu.CPUS`.
    ram_words : int
        See :class:`Ram`.
    divisor, clock_mhz : int
        See :class:`Peripherals`.
    rom : bool
        There is a slave at :data:`gossamer.gateware.soc_registers.ROM`.
    reset_address : int

    Members
    -------
    bus : ``Out(wishbone_signature())``
        To the core.
    rom : ``Out(wishbone_signature())``
        If there is one.
    rx, tx : ``In(1)``, ``Out(1)``
        The serial line.
    irq : ``In(1)``
        The core's interrupt, which the program can read.
    failed : ``Out(1)``
        The processor has stopped, or ``state.fault``.
    """

    def __init__(
        self, *, cpu: str, ram_words: int, divisor: int, clock_mhz: int, rom: bool = False, reset_address: int = RAM
    ):
        require(cpu in CPUS, f"cpu must be one of {', '.join(CPUS)}, not {cpu!r}")
        self._cpu = CPUS[cpu](reset_address=reset_address)
        self._peripherals = Peripherals(divisor=divisor, clock_mhz=clock_mhz)
        self._ram, self._rom = Ram(words=ram_words), rom
        members = {"bus": Out(wishbone_signature()), "rx": In(1, init=1), "tx": Out(1, init=1), "irq": In(1), "failed": Out(1)}
        if rom:
            members["rom"] = Out(wishbone_signature())
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.cpu = cpu = self._cpu
        m.submodules.interconnect = interconnect = Interconnect(rom=self._rom)
        m.submodules.peripherals = peripherals = self._peripherals
        m.submodules.ram = ram = self._ram
        connect(m, cpu.bus, interconnect.cpu)
        connect(m, interconnect.ram, ram.bus)
        connect(m, interconnect.peripherals, peripherals.bus)
        connect(m, interconnect.core, flipped(self.bus))
        if self._rom:
            connect(m, interconnect.rom, flipped(self.rom))
        m.d.comb += [
            peripherals.rx.eq(self.rx),
            self.tx.eq(peripherals.tx),
            peripherals.irq.eq(self.irq),
            peripherals.fault.eq(interconnect.fault),
            self.failed.eq(cpu.trap | peripherals.faulty),
        ]
        return m


def emit_soc(soc: Soc, contents: str) -> str:
    """The SoC without core as Verilog, module :data:`TOP`, with ports as those of :class:`Soc`, but ``wb_…`` for ``bus``. The
    processor is an instance of what :func:`gossamer.gateware.cpu.cpu_sources` has. ``contents``
    fill the RAM, see :func:`gossamer.gateware.generate.with_contents`."""
    return with_contents(translate(soc, named_ports(soc, "wb"), name=TOP), "ram", contents)


def hex_words(data: bytes) -> str:
    """Bytes as ``$readmemh`` reads them: 32-bit words, little endian."""
    padded = data + bytes(-len(data) % 4)
    return "".join(f"{int.from_bytes(padded[at : at + 4], 'little'):08x}\n" for at in range(0, len(padded), 4))
