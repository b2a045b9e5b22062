"""Packs bytes into the variable-length codes of compressed rows."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.golden.spec import (
    CODEC_BUDGET_CREDIT,
    CODEC_CREDIT,
    CODEC_CREDIT_FULL,
    CODEC_CREDIT_LEAST,
    CODEC_ORDER,
    CODEC_SHIFTS,
    DESCRIPTOR,
)
from gossamer.hdl.checks import require

__all__ = ["CODE_BITS", "RATE_BITS", "BudgetCredit", "Compressor", "context"]

CODE_BITS = 13
"""Of the longest code."""


def context(size):
    """What is remembered of a value, in two bits: its size, but for those up to 3 and those from 6 on, which are one each."""
    low, middle, high = size
    return Cat(high & (middle | ~low), high & (middle | low))


RATE_BITS = DESCRIPTOR["out_rate"].width


class BudgetCredit(wiring.Component):
    """The credit of a unit with a budget, and how many low bits of the next value are dropped.

    Bit-exact with :func:`gossamer.golden.codec.encode_units`. A ``rate`` of 0 is no budget: nothing is dropped then.

    Members
    -------
    rate : ``In(7)``
        What a value may cost on average, in sixteenths of a bit, at least 48. Must not change while a unit is in work.
    length : ``In(4)``
        Bits of the value's code.
    spend, restart : ``In(1)``
        The value has been coded; the next is a unit's first.
    shift : ``Out(4)``
        0 to 8, of the value that is to be coded.
    """

    rate: In(RATE_BITS)
    length: In(4)
    spend: In(1)
    restart: In(1)
    shift: Out(4)

    def elaborate(self, platform):
        m = Module()
        start = 16 * CODEC_BUDGET_CREDIT
        credit, there = Signal(12, init=start), Signal(12)  # in sixteenths of a bit
        cost = self.length << 4
        m.d.comb += there.eq(credit + self.rate)
        with m.If(self.rate != 0):
            for shift, least in enumerate(CODEC_SHIFTS, 1):
                with m.If(there[4:] < least):
                    m.d.comb += self.shift.eq(shift)
        with m.If(self.spend & ((credit < 16 * CODEC_CREDIT_FULL) | (self.rate < cost))):
            m.d.sync += credit.eq(there - cost)
        with m.If(self.restart):
            m.d.sync += credit.eq(start)
        return m


class Compressor(wiring.Component):
    """Codes units of bytes; a unit comes out as halfwords, its first bit lowest in the first halfword, zeros behind its last.

    Bit-exact with :func:`gossamer.golden.codec.encode`.

    Throughput is one value per cycle, also where a unit follows another: ``i.ready`` is high whenever ``o.ready`` is. Then a
    halfword appears two cycles after the transfer of the value that fills it, and the unit's last two after that of its last
    value; but three, if one appears after two already: if the code of the last value fills a halfword and begins another, or
    if the unit has but one value and comes directly behind one whose last halfword appears after three cycles. ``o`` is
    registered. ``i.ready`` depends combinationally on ``o.ready``.

    ``signed`` and ``rate`` must not change from a unit's first value to its last. Reset discards what is in work.

    Parameters
    ----------
    lanes : int
        Values per pixel, at least 1: a value's context is the value so many before it.
    bounded, budgets : bool
        Units are bounded: incompressible values are left plain. Units can have budgets. Not both.

    Members
    -------
    i : ``In(stream.Signature({data: 8, last: 1}))``
        ``last`` marks the last value of a unit.
    o : ``Out(stream.Signature({data: 16, last: 1}))``
    signed : ``In(1)``
        The unit's bytes are around 128.
    rate : ``In(7)``
        With ``budgets``: the rate of the unit's budget, or 0.
    """

    def __init__(self, *, lanes: int = 16, bounded: bool = True, budgets: bool = False):
        require(lanes >= 1, f"lanes must be at least 1, not {lanes}")
        require(not (bounded and budgets), "units must not be both bounded and with budgets")
        self._lanes, self._bounded, self._budgets = lanes, bounded, budgets
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"data": 8, "last": 1}))),
                "o": Out(stream.Signature(data.StructLayout({"data": 16, "last": 1}))),
                "signed": In(1),
                **({"rate": In(RATE_BITS)} if budgets else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step, take = Signal(), Signal()  # the stages move; a value enters the first

        # The first stage makes the code. Its prefix says which of the context's sizes the value has, and the bits below the
        # highest one follow; of the last size all do.
        value, size = Signal(8), Signal(3)
        kept = self.i.p.data ^ self.signed << 7  # two's complement if the unit is signed
        if self._budgets:
            m.submodules.credit = budget = BudgetCredit()
            extended = Cat(kept, (self.signed & kept[7]).replicate(8))
            m.d.comb += budget.rate.eq(self.rate)
            kept = Mux(budget.shift[3], 0, extended >> budget.shift[:3])[:8]
        m.d.comb += value.eq(Mux(self.signed, Cat(kept[7], kept[:7] ^ kept[7].replicate(7)), kept))
        for n in range(1, 8):
            with m.If(value[n - 1 :].any() if n == 7 else value[n - 1]):
                m.d.comb += size.eq(n)
        low = Cat(*(value[n] & value[n + 1 :].any() for n in range(6)), value[6:])
        credit = Signal(7, init=CODEC_CREDIT)
        plain = Const(self._bounded) & (credit < CODEC_CREDIT_LEAST)
        pixel = Signal(2 * self._lanes)
        code, length = Signal(CODE_BITS), Signal(4)
        with m.Switch(Cat(size, pixel[:2], plain)):
            for before, order in enumerate(CODEC_ORDER):
                for number, this in enumerate(order):
                    low_bits = 8 if this == 7 else max(this - 1, 0)
                    with m.Case(this | before << 3):
                        if number == 0:
                            m.d.comb += [code.eq(low << 1), length.eq(1 + low_bits)]
                        elif number < 4:
                            m.d.comb += [code.eq(1 | number - 1 << 1 | low << 3), length.eq(3 + low_bits)]
                        else:
                            m.d.comb += [code.eq(7 | number - 4 << 3 | low << 5), length.eq(5 + low_bits)]
            with m.Default():
                m.d.comb += [code.eq(value), length.eq(8)]
        if self._budgets:
            m.d.comb += [budget.length.eq(length), budget.spend.eq(take), budget.restart.eq(take & self.i.p.last)]
        with m.If(take):
            m.d.sync += pixel.eq(Cat(pixel[2:], context(size)))
            with m.If((credit < CODEC_CREDIT_FULL) | length[3]):
                m.d.sync += credit.eq(credit + 8 - length)
            with m.If(self.i.p.last):
                m.d.sync += [pixel.eq(0), credit.eq(CODEC_CREDIT)]

        # The second stage lays it behind the bits that there are. A full word stands at the output, and the bits beyond it
        # are carried to the next. Those that a unit's last code leaves over, the rest, are a full word too: the next unit's
        # first code is laid behind 16 bits.
        made, made_length, made_last = Signal(CODE_BITS), Signal(4), Signal()
        word, carried, bits, full = Signal(16), Signal(CODE_BITS), Signal(4), Signal()
        last, rest = Signal(), Signal()  # the word is the unit's last; what is carried is, and there are no `bits`
        m.d.comb += [
            step.eq(~full | self.o.ready),
            self.i.ready.eq(step),
            take.eq(step & self.i.valid),
            self.o.valid.eq(full),
            self.o.p.data.eq(word),
            self.o.p.last.eq(last),
        ]
        shifted = made & ~rest.replicate(CODE_BITS)
        for n in range(4):
            shifted = Mux(bits[n], shifted << (1 << n), shifted)
        laid, total = Signal(16 + CODE_BITS), Signal(5)
        m.d.comb += [
            laid.eq(Mux(full, carried, word) | shifted | Mux(rest, made, 0) << 16),
            total.eq(Cat(bits, rest) + made_length),
        ]
        with m.If(step):
            m.d.sync += [
                Cat(made, made_length).eq(Mux(take, Cat(code, length), 0)),
                made_last.eq(take & self.i.p.last),
                Cat(word, carried).eq(laid),
                bits.eq(Mux(made_last, 0, total)),
                full.eq(total[4] | made_last),
                last.eq(made_last & (total <= 16) | rest),
                rest.eq(made_last & (total > 16)),
            ]
        return m
