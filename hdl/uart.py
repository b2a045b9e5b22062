"""Serial line, 8N1: a start bit, eight data bits from the least significant, a stop bit."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["FRAME_BITS", "UartReceiver", "UartTransmitter"]

FRAME_BITS = 10
"""Bits on the line per byte."""


def _check_divisor(divisor: int) -> None:
    if divisor < 8:
        raise ValueError(f"divisor must be at least 8, not {divisor}")


class UartReceiver(wiring.Component):
    """Receives bytes from a serial line.

    A start bit is a low level of ``divisor//2`` cycles; a shorter one is noise. Every later bit is sampled once, in its
    centre. The sender may be 2 % faster or slower than a bit in ``divisor`` cycles.

    ``o.valid`` is high for one cycle, ``9*divisor + divisor//2 + 1`` cycles after the first low level of the start bit:
    in the centre of the stop bit, with the delay of the synchroniser. If the stop bit is low there, the byte is dropped,
    ``error`` is high for that cycle instead, and nothing is received before the line is high in the centre of a bit: a line
    that is held low is one error, not a sequence of bytes.

    A line cannot wait: ``o`` is always ready. Reset drops the byte that is being received; a line that is low then may be
    taken for a start bit.

    Parameters
    ----------
    divisor : int
        Clock cycles per bit, at least 8.

    Members
    -------
    pin : ``In(1)``
        The line; any clock.
    o : ``Out(stream.Signature(8, always_ready=True))``
    error : ``Out(1)``
        Framing error.
    """

    def __init__(self, *, divisor: int):
        _check_divisor(divisor)
        self._divisor = divisor
        super().__init__(
            {"pin": In(1, init=1), "o": Out(stream.Signature(8, always_ready=True)), "error": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        pin = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.pin, pin, init=1)

        timer = Signal(range(self._divisor), reset_less=True)
        centre = timer == 0
        receiving, failed = Signal(), Signal()
        shift = Signal(9, reset_less=True)  # the zero that starts on the left is on the right after eight bits
        full = ~shift[0]
        stop = receiving & full & centre & ~failed
        m.d.comb += [
            self.o.p.eq(shift[1:]),
            self.o.valid.eq(stop & pin),
            self.error.eq(stop & ~pin),
        ]

        m.d.sync += timer.eq(timer - 1)
        with m.If(centre):
            m.d.sync += timer.eq(self._divisor - 1)
        with m.If(~receiving):
            m.d.sync += shift.eq(0x0FF)
            with m.If(pin):
                m.d.sync += timer.eq(self._divisor // 2 - 1)
            with m.Elif(centre):
                m.d.sync += receiving.eq(1)
        with m.Elif(centre):
            with m.If(~full):
                m.d.sync += shift.eq(Cat(shift[1:], pin))
            with m.Else():
                m.d.sync += [receiving.eq(~pin), failed.eq(~pin)]
        return m


class UartTransmitter(wiring.Component):
    """Sends bytes on a serial line.

    Throughput is a byte per ``10*divisor`` cycles. The start bit begins in the cycle after the transfer; ``i.ready`` is
    high again in the last cycle of the stop bit. Reset puts the line to its idle level, high.

    Parameters
    ----------
    divisor : int
        Clock cycles per bit, at least 8.

    Members
    -------
    i : ``In(stream.Signature(8))``
    pin : ``Out(1)``
        The line, from a register.
    """

    def __init__(self, *, divisor: int):
        _check_divisor(divisor)
        self._divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "pin": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        timer = Signal(range(self._divisor))
        shift = Signal(FRAME_BITS, init=1)  # zeros follow the stop bit
        stop = ~shift[1:].any()
        m.d.comb += [self.pin.eq(shift[0]), self.i.ready.eq((timer == 0) & stop)]
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(~stop | self.i.valid):
            m.d.sync += [timer.eq(self._divisor - 1), shift.eq(shift >> 1)]
            with m.If(stop):
                m.d.sync += shift.eq(Cat(Const(0, 1), self.i.p, Const(1, 1)))
        return m
