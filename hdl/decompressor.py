"""Unpacks compressed rows."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.golden.spec import CODEC_CREDIT, CODEC_CREDIT_FULL, CODEC_CREDIT_LEAST, CODEC_ORDER
from gossamer.hdl.checks import require
from gossamer.hdl.compressor import CODE_BITS, RATE_BITS, BudgetCredit, context

__all__ = ["HALFWORD_LAYOUT", "Decompressor"]

HALFWORD_LAYOUT = data.StructLayout({"data": 16, "outside": 1})
"""A halfword of a unit; one that is ``outside`` stands for none."""


class Decompressor(wiring.Component):
    """Decodes units of bytes from halfwords.

    Bit-exact with :func:`gossamer.golden.codec.decode`, whatever the bits are: there are no illegal codes. Every unit begins
    with a halfword; bits that are left of its last one are dropped. The first 13 of these should be zeros, as a compressor
    makes them; if not, ``left`` is high in the cycle behind that in which the last value is found.

    A unit is in work while ``run`` is high. In each such cycle in which ``found`` is high too a value is found: in every one,
    but for those in which a halfword must be taken that is not there, or a value before waits at ``o``. The first value takes a
    halfword, and so does each value behind one that has the first bit of the halfword that was taken last: one halfword is
    taken ahead, so that it is known from the beginning of a cycle whether one is taken. So the one behind a unit's last may be
    taken too. It may be ``outside``; should a value have the first bit of such a one, ``lost`` is high in the next cycle, and
    while the value behind it is not found.

    A value appears in the cycle behind that in which it is found; of a transfer of several values the last does. ``run`` must
    be low in one cycle at least between units; values short of a transfer are dropped then.

    ``found`` and ``i.ready`` depend combinationally on ``run`` and ``o.ready``, ``found`` on ``i.valid`` too; ``left`` on
    ``run``.

    ``signed`` and ``rate`` must not change before the last value of a unit is taken. Reset discards what is in work.

    Parameters
    ----------
    lanes : int
        Values per pixel, at least 1: a value's context is the value so many before it.
    values : int
        Values of a transfer on ``o``: 1, 2, 4, 8 or 16. Each but the last is a byte of registers.
    bounded, budgets : bool
        Units are bounded: incompressible values were left plain. Units can have budgets. Not both.

    Members
    -------
    i : ``In(stream.Signature(HALFWORD_LAYOUT))``
    o : ``Out(stream.Signature({data: 8 * values}))``
        The first value is the lowest byte.
    run : ``In(1)``
    found, left, lost : ``Out(1)``
    signed : ``In(1)``
        The unit's bytes are around 128.
    rate : ``In(7)``
        With ``budgets``: the rate of the unit's budget, or 0.
    """

    def __init__(self, *, lanes: int = 16, values: int = 8, bounded: bool = True, budgets: bool = False):
        require(values in (1, 2, 4, 8, 16), f"values must be 1, 2, 4, 8 or 16, not {values}")
        require(lanes >= 1, f"lanes must be at least 1, not {lanes}")
        require(not (bounded and budgets), "units must not be both bounded and with budgets")
        self._lanes, self._values, self._bounded, self._budgets = lanes, values, bounded, budgets
        super().__init__(
            {
                "i": In(stream.Signature(HALFWORD_LAYOUT)),
                "o": Out(stream.Signature(data.StructLayout({"data": 8 * values}))),
                "run": In(1),
                "found": Out(1),
                "left": Out(1),
                "lost": Out(1),
                "signed": In(1),
                **({"rate": In(RATE_BITS)} if budgets else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step = Signal()  # the second stage can take a value

        # The first stage finds where a value's code ends. Bits of two halfwords lie side by side, and those of the first up to
        # `used` are done with; if that is all of it, the two are the second and the one at the port, which then is taken.
        # The wide shifts come first, so that least is shifted.
        halves, used = [Signal(16, name=f"half{n}", reset_less=True) for n in range(2)], Signal(5, init=31)
        outside = Signal()  # the second is
        credit, plain = Signal(7, init=CODEC_CREDIT), Signal()
        history = Signal(2 * self._lanes)
        before = history[:2]
        window, length = Signal(CODE_BITS), Signal(4)
        low, high = (Mux(used[4], after, half) for half, after in zip(halves, (halves[1], self.i.p.data)))
        shifted = Cat(low[1:], high & self.run.replicate(16))  # behind a unit's end, what is left of its last
        for n in reversed(range(4)):
            shifted = Mux(used[n], shifted[1 << n :], shifted)[: CODE_BITS + (1 << n) - 1]
        m.d.comb += [plain.eq(Const(self._bounded) & (credit < CODEC_CREDIT_LEAST)), window.eq(shifted)]

        # Codes by the length of their prefix: 1, 3 and 5; `index` is the two bits that tell those of a length apart, and 3 if
        # there are none.
        one, five, index, size = Signal(), Signal(), Signal(2), Signal(3)
        m.d.comb += [
            one.eq(~window[0]),
            five.eq(window[:3].all()),
            index.eq(Mux(one, 3, Mux(window[1:3].all(), window[3:5], window[1:3]))),
        ]
        with m.Switch(Cat(index, five, before)):
            for this, order in enumerate(CODEC_ORDER):
                for n, each in enumerate((*order[1:4], order[0], *order[4:])):
                    with m.Case(n | this << 3):
                        m.d.comb += [size.eq(each), length.eq((1 if n == 3 else 3 if n < 3 else 5) + _low_bits(each))]
        with m.If(plain):
            m.d.comb += [length.eq(8), size.eq(7)]
        m.d.comb += [
            self.i.ready.eq(step & self.run & used[4]),
            self.found.eq(step & self.run & (~used[4] | self.i.valid)),
            self.left.eq(~self.run & window.any()),
            self.lost.eq(used[4] & outside),
        ]

        # The value: that of a short code has five bits at most.
        bits, value = Signal(8), Signal(8)
        m.d.comb += bits.eq(Mux(plain, window, Mux(one, window[1:6], Mux(five, window[5:], window[3:]))))
        below = Cat(*(n < size for n in range(7)), (size == 7).replicate(2))  # of the last size all bits follow
        m.d.comb += value.eq(bits & below[1:] | below[:8] & ~below[1:])

        with m.If(step & used[4] & self.i.valid):  # between units it does not matter
            m.d.sync += [halves[0].eq(halves[1]), halves[1].eq(self.i.p.data), outside.eq(self.i.p.outside)]
        with m.If(self.found):
            m.d.sync += [used.eq(used[:4] + length), history.eq(Cat(history[2:], context(size)))]
            with m.If((credit < CODEC_CREDIT_FULL) | length[3]):
                m.d.sync += credit.eq(credit + 8 - length)
        with m.If(~self.run):
            m.d.sync += [used.eq(31), history.eq(0), credit.eq(CODEC_CREDIT), outside.eq(0)]

        # The second stage holds it.
        several = self._values > 1
        magnitude, byte = Signal(8, reset_less=True), Signal(8)
        number = Signal(range(self._values)) if several else Const(0, 1)
        earlier = Signal(8 * (self._values - 1), reset_less=True) if several else Const(0, 0)
        kept = Mux(self.signed, Cat(magnitude[1:], Const(0, 1)) ^ magnitude[0].replicate(8), magnitude)
        m.d.comb += [
            step.eq(~self.o.valid | self.o.ready),
            byte.eq(kept ^ self.signed << 7),
            self.o.p.data.eq(Cat(earlier, byte)),
        ]
        hold = self.found if several else step  # of one, it does not matter what it is if it is not valid
        if self._budgets:
            # In the place of the bits that were dropped comes the middle, unless the value stands for zero.
            m.submodules.credit = budget = BudgetCredit()
            shift, nothing = Signal(4, reset_less=True), Signal()
            m.d.comb += [
                budget.rate.eq(self.rate),
                budget.length.eq(length),
                budget.spend.eq(self.found),
                budget.restart.eq(~self.run),
                nothing.eq(shift[3] | ~(self.signed | magnitude.any())),
                byte.eq(((kept << shift[:3] | (1 << shift[:3]) >> 1) & ~nothing.replicate(8)) ^ self.signed << 7),
            ]
            with m.If(hold):
                m.d.sync += shift.eq(budget.shift)
        with m.If(step):
            m.d.sync += self.o.valid.eq(self.found & (number == self._values - 1))
        with m.If(hold):
            m.d.sync += magnitude.eq(value)
        if several:
            with m.If(self.found):
                m.d.sync += [earlier.eq(self.o.p.data[8:]), number.eq(number + 1)]
            with m.If(~self.run):
                m.d.sync += number.eq(0)
        return m


def _low_bits(size):
    """How many of a value's bits follow the prefix."""
    return 8 if size == 7 else max(size - 1, 0)
