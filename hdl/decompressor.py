"""Unpacks compressed rows."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.golden.spec import CODEC_CREDIT, CODEC_CREDIT_FULL, CODEC_CREDIT_LEAST, CODEC_ORDER
from gossamer.hdl.checks import require
from gossamer.hdl.compressor import CODE_BITS, History

__all__ = ["Decompressor"]


class Decompressor(wiring.Component):
    """Decodes units of bytes from halfwords, and puts out blocks of 8 of them.

    Bit-exact with :func:`gossamer.golden.codec.decode`, whatever the bits are: there are no illegal codes. Every unit takes
    as many halfwords as it has and not one more, and gives as many blocks as were asked for.

    A unit of ``n`` blocks takes ``8 * n + 1`` cycles while ``i.valid`` and ``o.ready`` are high: one for its start. A block
    appears in the cycle behind that of its last value. ``o`` is registered. ``i.ready`` depends combinationally on ``o.ready``
    and on ``i.payload``.

    ``signed`` must not change while a unit is in work. Reset discards the unit in work.

    Parameters
    ----------
    lanes : int
        Values per pixel, at least 1: a value's context is the value so many before it.
    blocks : int
        Most blocks of a unit, at least 1.

    Members
    -------
    start : ``In(stream.Signature({blocks: range(blocks + 1)}))``
        A unit; one of no blocks does nothing.
    i : ``In(stream.Signature(16))``
    o : ``Out(stream.Signature({data: 64, last: 1}))``
        The first value is the lowest byte; ``last`` marks the last block of a unit.
    signed : ``In(1)``
        The unit's bytes are around 128.
    """

    def __init__(self, *, lanes: int = 16, blocks: int = 255):
        require(blocks >= 1, f"blocks must be at least 1, not {blocks}")
        self._history = History(lanes=lanes)
        self._blocks = blocks
        super().__init__(
            {
                "start": In(stream.Signature(data.StructLayout({"blocks": range(blocks + 1)}))),
                "i": In(stream.Signature(16)),
                "o": Out(stream.Signature(data.StructLayout({"data": 64, "last": 1}))),
                "signed": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.history = history = self._history
        blocks = Signal(range(self._blocks + 1))  # to come, with the one in work
        number = Signal(3)  # of the value, in its block
        ready, valid, last = Signal(), Signal(), Signal()  # ready: there is room at the output
        m.d.comb += [ready.eq(~valid | self.o.ready), self.start.ready.eq(blocks == 0)]

        # Bits of two halfwords lie side by side, those of `half` up to `used + 1` are done with. The second is at the port, and
        # is taken when the first is used up and one of its own bits is: where the code ends does not depend on it otherwise.
        half, used = Signal(16), Signal(4, init=15)
        window = Signal(CODE_BITS)
        m.d.comb += window.eq(Cat(half[1:], self.i.p) >> used)

        credit = Signal(7, init=CODEC_CREDIT)
        plain = credit < CODEC_CREDIT_LEAST
        size, low, length = Signal(3), Signal(8), Signal(4)
        with m.If(plain):
            m.d.comb += low.eq(window)
        with m.Elif(~window[0]):
            m.d.comb += low.eq(window[1:])
        with m.Elif(window[1:3] != 3):
            m.d.comb += low.eq(window[3:])
        with m.Else():
            m.d.comb += low.eq(window[5:])
        with m.Switch(Cat(window[:5], history.o)):
            for before, order in enumerate(CODEC_ORDER):
                for prefix, this in zip(("0", "001", "011", "101", "00111", "01111", "10111", "11111"), order):
                    low_bits = 8 if this == 7 else max(this - 1, 0)
                    with m.Case(f"{before:02b}{prefix:->5}"):
                        m.d.comb += [size.eq(this), length.eq(len(prefix) + low_bits)]
        with m.If(plain):
            m.d.comb += [size.eq(7), length.eq(8)]

        value, byte = Signal(8), Signal(8)
        for n in range(8):
            with m.If((size == 7) | (n + 1 < size)):
                m.d.comb += value[n].eq(low[n])
            with m.Else():
                m.d.comb += value[n].eq(n + 1 == size)
        m.d.comb += byte.eq(Mux(self.signed, Cat(value[1:] ^ value[0].replicate(7), ~value[0]), value))

        go, end, total = Signal(), Signal(), Signal(5)  # a value is decoded; it is the unit's last
        m.d.comb += [
            total.eq(used + length),
            self.i.ready.eq(ready & (blocks != 0) & total[4]),
            go.eq(ready & (blocks != 0) & (~total[4] | self.i.valid)),
            end.eq((blocks == 1) & (number == 7)),
            history.step.eq(go),
            history.clear.eq(end),
            history.size.eq(size),
        ]
        block = Signal(64)
        with m.If(ready):
            m.d.sync += valid.eq(go & (number == 7))
        with m.If(go):
            m.d.sync += [
                block.eq(Cat(block[8:], byte)),
                number.eq(number + 1),
                blocks.eq(blocks - (number == 7)),
                last.eq(blocks == 1),
                used.eq(Mux(end, 15, total)),
            ]
            with m.If(total[4]):
                m.d.sync += half.eq(self.i.p)
            with m.If(end):
                m.d.sync += credit.eq(CODEC_CREDIT)
            with m.Elif((credit < CODEC_CREDIT_FULL) | length[3]):
                m.d.sync += credit.eq(credit + 8 - length)
        with m.If(self.start.ready & self.start.valid):
            m.d.sync += blocks.eq(self.start.p.blocks)
        m.d.comb += [self.o.valid.eq(valid), self.o.p.data.eq(block), self.o.p.last.eq(last)]
        return m
