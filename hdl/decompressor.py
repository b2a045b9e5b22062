"""Unpacks compressed rows."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.golden.spec import CODEC_CREDIT, CODEC_CREDIT_FULL, CODEC_CREDIT_LEAST, CODEC_ORDER
from gossamer.hdl.checks import require
from gossamer.hdl.compressor import CODE_BITS, context

__all__ = ["Decompressor"]


class Decompressor(wiring.Component):
    """Decodes units of bytes from halfwords.

    Bit-exact with :func:`gossamer.golden.codec.decode`, whatever the bits are: there are no illegal codes. Every unit takes
    as many halfwords as it has and not one more, and gives as many blocks of 8 values as were asked for.

    A unit of ``n`` blocks takes ``8 * n + 1`` cycles while ``i.valid`` and ``o.ready`` are high: one for its start. A value is
    read in each of the others, and appears, if it is the last of its transfer, two cycles after. ``o`` is registered.
    ``i.ready`` depends combinationally on ``o.ready`` and on ``i.payload``.

    ``signed`` must not change while a unit is in work. Reset discards the unit in work.

    Parameters
    ----------
    lanes : int
        Values per pixel, at least 1: a value's context is the value so many before it.
    blocks : int
        Most blocks of a unit, at least 1.
    values : int
        Values of a transfer on ``o``: 1, 2, 4 or 8. Each but the first is a byte of registers.
    bounded : bool
        Units are bounded: incompressible values were left plain.

    Members
    -------
    start : ``In(stream.Signature({blocks: range(blocks + 1)}))``
        A unit; one of no blocks does nothing.
    i : ``In(stream.Signature(16))``
    o : ``Out(stream.Signature({data: 8 * values, last: 1}))``
        The first value is the lowest byte; ``last`` marks the last transfer of a unit.
    signed : ``In(1)``
        The unit's bytes are around 128.
    """

    def __init__(self, *, lanes: int = 16, blocks: int = 255, values: int = 8, bounded: bool = True):
        require(blocks >= 1, f"blocks must be at least 1, not {blocks}")
        require(values in (1, 2, 4, 8), f"values must be 1, 2, 4 or 8, not {values}")
        require(lanes >= 1, f"lanes must be at least 1, not {lanes}")
        self._lanes, self._blocks, self._values, self._bounded = lanes, blocks, values, bounded
        super().__init__(
            {
                "start": In(stream.Signature(data.StructLayout({"blocks": range(blocks + 1)}))),
                "i": In(stream.Signature(16)),
                "o": Out(stream.Signature(data.StructLayout({"data": 8 * values, "last": 1}))),
                "signed": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        blocks = Signal(range(self._blocks + 1))  # to be read, with the one in work
        number = Signal(3, reset_less=True)  # of the value, in its block
        advance, step = Signal(), Signal()  # the first stage moves; the second can take a value
        idle = blocks == 0

        # The first stage finds where a value's code ends. Bits of two halfwords lie side by side, and those of `half` up to
        # `used` are done with. The second is at the port, and is taken when a code uses bits of it: where a code within the
        # first ends does not depend on it.
        half, used = Signal(16, reset_less=True), Signal(4, init=15, reset_less=True)
        credit, plain = Signal(7, init=CODEC_CREDIT, reset_less=True), Signal()
        pixel, history = Signal(2 * self._lanes - 2, reset_less=True), Signal(2 * self._lanes)
        before = history[:2]
        window, length, total = Signal(CODE_BITS), Signal(4), Signal(5)
        m.d.comb += [plain.eq(Const(self._bounded) & (credit < CODEC_CREDIT_LEAST)), window.eq(Cat(half[1:], self.i.p) >> used)]
        # A plain value is as long as size 6 in context 2. Lengths of codes with short and with long prefixes are found side by
        # side.
        prefix, near, far = Signal(5), Signal(4), Signal(4)
        assumed = Signal(2)
        m.d.comb += [prefix.eq(Mux(plain, 0b101, window)), assumed.eq(Mux(plain, 2, before))]
        with m.Switch(Cat(prefix[1:3], assumed)):
            for this, order in enumerate(CODEC_ORDER):
                for n in range(3):
                    with m.Case(n | this << 2):
                        m.d.comb += near.eq(3 + _low_bits(order[1 + n]))
        with m.Switch(Cat(prefix[3:5], assumed)):
            for this, order in enumerate(CODEC_ORDER):
                for n in range(4):
                    with m.Case(n | this << 2):
                        m.d.comb += far.eq(5 + _low_bits(order[4 + n]))
        with m.If(prefix[0]):
            m.d.comb += length.eq(Mux(prefix[1:3] == 3, far, near))
        with m.Else():
            with m.Switch(assumed):
                for this, order in enumerate(CODEC_ORDER):
                    with m.Case(this):
                        m.d.comb += length.eq(1 + _low_bits(order[0]))
        m.d.comb += [
            total.eq(used + length),
            advance.eq(step & (idle | ~total[4] | self.i.valid)),
            self.i.ready.eq(step & ~idle & total[4]),
            self.start.ready.eq(step & idle),
        ]
        busy = Signal()
        found = Signal(CODE_BITS, reset_less=True)
        found_plain, found_before = Signal(reset_less=True), Signal(2, reset_less=True)
        found_end, found_last = Signal(reset_less=True), Signal(reset_less=True)
        with m.If(step):
            m.d.sync += busy.eq(advance & ~idle)
        with m.If(advance):
            m.d.sync += [
                Cat(found, found_plain, found_before).eq(Cat(window, plain, before)),
                number.eq(number + 1),
                found_end.eq(number % self._values == self._values - 1),
                found_last.eq((blocks == 1) & (number >= 8 - self._values)),
                blocks.eq(blocks - (number == 7)),
                pixel.eq(history[2:]),
                used.eq(total),
            ]
            with m.If(total[4]):
                m.d.sync += half.eq(self.i.p)
            with m.If((credit < CODEC_CREDIT_FULL) | length[3]):
                m.d.sync += credit.eq(credit + 8 - length)
            with m.If(idle):  # between units; nothing was before
                m.d.sync += [
                    number.eq(0),
                    blocks.eq(Mux(self.start.valid, self.start.p.blocks, 0)),
                    used.eq(15),
                    credit.eq(CODEC_CREDIT),
                    Cat(found, found_plain, found_before, pixel).eq(0),
                ]

        # The second stage makes the value.
        size, low, value, byte = Signal(3), Signal(8), Signal(8), Signal(8)
        with m.If(found_plain):
            m.d.comb += low.eq(found)
        with m.Elif(~found[0]):
            m.d.comb += low.eq(found[1:])
        with m.Elif(found[1:3] != 3):
            m.d.comb += low.eq(found[3:])
        with m.Else():
            m.d.comb += low.eq(found[5:])
        with m.Switch(Cat(found[:5], found_before, found_plain)):
            for pattern, this in _codes():
                with m.Case(f"0{pattern}"):
                    m.d.comb += size.eq(this)
            with m.Default():
                m.d.comb += size.eq(7)
        for n in range(8):
            with m.If((size == 7) | (n + 1 < size)):
                m.d.comb += value[n].eq(low[n])
            with m.Else():
                m.d.comb += value[n].eq(n + 1 == size)
        m.d.comb += byte.eq(Mux(self.signed, Cat(value[1:] ^ value[0].replicate(7), ~value[0]), value))

        # The value that was found is the nearest in the history: it goes there when the next is.
        m.d.comb += history.eq(Cat(pixel, context(size)))

        block, valid, last = Signal(8 * self._values, reset_less=True), Signal(), Signal(reset_less=True)
        m.d.comb += step.eq(~busy | ~valid | self.o.ready)
        with m.If(~valid | self.o.ready):
            m.d.sync += valid.eq(busy & found_end)
            with m.If(busy):
                m.d.sync += [block.eq(Cat(block[8:], byte)), last.eq(found_last)]
        m.d.comb += [self.o.valid.eq(valid), self.o.p.data.eq(block), self.o.p.last.eq(last)]
        return m


def _low_bits(size):
    """How many of a value's bits follow the prefix."""
    return 8 if size == 7 else max(size - 1, 0)


def _codes():
    """Pattern of context and prefix, and size."""
    for before, order in enumerate(CODEC_ORDER):
        for prefix, size in zip(("0", "001", "011", "101", "00111", "01111", "10111", "11111"), order):
            yield f"{before:02b}{prefix:->5}", size
