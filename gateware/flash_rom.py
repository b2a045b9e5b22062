"""A serial flash as memory that a processor reads, and runs its program from."""

import math

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gossamer.gateware.flash_memory import WAKE_US
from gossamer.gateware.wishbone import wishbone_signature
from gossamer.hdl.flash_reader import FlashReader

__all__ = ["FlashRom"]

LINE_BYTES = 8


class FlashRom(wiring.Component):
    """A read-only slave: the word at byte address ``a`` is the four bytes of the flash from ``a`` on.

    The reader reads eight bytes at once, of which the word is a half; the other half is answered from there, in the second
    cycle of its access, until other bytes are read. If an access begins in cycle ``t`` and the reader is ready, its answer is
    in cycle ``t + 40`` when nothing has been read before, and in cycle ``t + 41`` otherwise. After reset the flash is woken up
    first; see :class:`FlashReader`, also for the pins. Writes end with ``err``.

    Parameters
    ----------
    clock_mhz : float

    Members
    -------
    bus : ``In(wishbone_signature())``
    sck, cs_n : ``Out(1)``
    dq : ``Out({o: 4, oe: 1, i: 4})``
    """

    def __init__(self, *, clock_mhz: float):
        self._reader = FlashReader(max_words=1, word_bytes=LINE_BYTES, wake_cycles=math.ceil(WAKE_US * clock_mhz))
        super().__init__(
            {
                "bus": In(wishbone_signature()),
                "sck": Out(1),
                "cs_n": Out(1, init=1),
                "dq": Out(wiring.Signature({"o": Out(4), "oe": Out(1), "i": In(4)})),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        m.submodules.reader = reader = self._reader
        # The reader keeps a line until it is taken: it is taken when another one is wanted.
        line, opened = Signal(len(bus.adr) - 1, reset_less=True), Signal()
        request, same = Signal(), Signal()
        m.d.comb += [
            request.eq(bus.cyc & bus.stb & ~bus.ack & ~bus.err),
            same.eq(line == bus.adr[1:]),
            reader.command.p.address.eq(Cat(Const(0, 3), bus.adr[1:])),
            reader.command.valid.eq(request & ~bus.we & ~opened),
            reader.o.ready.eq(request & ~bus.we & opened & ~same),
            bus.dat_r.eq(reader.o.p.word_select(bus.adr[0], 32)),
            self.sck.eq(reader.sck),
            self.cs_n.eq(reader.cs_n),
            self.dq.o.eq(reader.dq.o),
            self.dq.oe.eq(reader.dq.oe),
            reader.dq.i.eq(self.dq.i),
        ]
        with m.If(reader.command.valid & reader.command.ready):
            m.d.sync += [opened.eq(1), line.eq(bus.adr[1:])]
        with m.If(reader.o.valid & reader.o.ready):
            m.d.sync += opened.eq(0)
        m.d.sync += [bus.ack.eq(request & ~bus.we & opened & same & reader.o.valid), bus.err.eq(request & bus.we)]
        return m
