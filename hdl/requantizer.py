"""Scales a sum to an output byte, exactly as TFLite does."""

from amaranth.hdl import Array, Assert, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from gossamer.hdl.multiplier import WideMultiplier
from gossamer.hdl.parameter_buffer import scaling_layout
from gossamer.hdl.store import UNCHECKED
from gossamer.hdl.window_generator import tag_layout

__all__ = ["Requantizer", "output_layout"]


def output_layout() -> data.StructLayout:
    """A stored byte (the output plus 128); ``last`` marks the window's last, and ``tag`` belongs to the window."""
    return data.StructLayout({"data": 8, "last": 1, "tag": tag_layout()})


class Requantizer(wiring.Component):
    """Fixed-point multiplication, rounding, zero point and clamp.

    With ``e = shift - 7`` ::

        r = acc * multiplier / 2**31 / 2**e
        data = clamp(zero_point + round(r), clamp_min, clamp_max) + 128

    where ``round`` is to nearest, halves up. With ``double_rounding`` and ``e > 0`` it is gemmlowp's: first
    ``acc * multiplier / 2**31`` is rounded, halves up, then that over ``2**e``, halves away from zero. Bit-exact with
    :func:`gossamer.golden.arithmetic.multiply_by_quantized_multiplier`.

    Throughput is one output per cycle; latency :attr:`latency` cycles. ``i.ready`` depends combinationally on ``o.ready``.
    With ``interval`` 2 it is low in the first of the two cycles that some sums take: those that are not ``small``, unless they
    are negative and ``clamp_min == zero_point`` (ReLU), because then they end as ``clamp_min`` whatever they are. It depends
    combinationally on ``i.p`` then.

    ``shift`` must be 1 to 38 (from a left shift by 6 to a right shift by 31). Reset discards what is in work.

    Parameters
    ----------
    technology, interval :
        See :class:`WideMultiplier`.

    Members
    -------
    i : ``In(stream.Signature(scaling_layout()))``
    o : ``Out(stream.Signature(output_layout()))``
    zero_point, clamp_min, clamp_max, double_rounding : ``In``
        Fields of the layer descriptor; they must be there in the cycle before a sum comes, and not change while one is in
        work.
    """

    def __init__(self, *, technology: str = "generic", interval: int = 1):
        self._interval = interval
        self._multiplier = WideMultiplier(technology=technology, interval=interval)
        self.latency = 2 * self._multiplier.latency
        super().__init__(
            {
                "i": In(stream.Signature(scaling_layout())),
                "o": Out(stream.Signature(output_layout())),
                "zero_point": In(signed(8)),
                "clamp_min": In(signed(8)),
                "clamp_max": In(signed(8)),
                "double_rounding": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.multiplier = multiplier = self._multiplier
        step, second, short, taken = Signal(), Signal(), Signal(), Signal()
        acc = self.i.p.acc
        if self._interval == 2:
            relu = Signal(reset_less=True)  # the comparison would be on a long path
            m.d.sync += relu.eq(self.zero_point == self.clamp_min)
            m.d.comb += short.eq(self.i.p.small | (acc[-1] & relu))
            m.d.comb += taken.eq(short | second)
            with m.If(step):
                m.d.sync += second.eq(self.i.valid & ~taken)
        else:
            m.d.comb += taken.eq(1)
        # Round to a multiple of 2**31, by adding 2**30 to the product: the shifter's rounding is the second. For a negative
        # product that subtracts one; here it is folded into the first, where it can change sign and value only of a
        # product in (-1/2, 0], which ends as 0 either way.
        twice = self.double_rounding & self.i.p.shift[3:].any()
        m.d.comb += [
            step.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(step & taken),
            multiplier.en.eq(step),
            multiplier.second.eq(second),
            multiplier.short.eq(short),
            multiplier.a.eq(acc),
            multiplier.b.eq(self.i.p.multiplier),
            multiplier.nudge.eq(Cat(twice, twice & acc[-1]).as_signed()),
        ]

        # What travels beside the numbers waits for the product in a memory. There are as many stages behind the product: the
        # mark and the tag go through the memory once more.
        marks = data.StructLayout({"last": 1, "tag": tag_layout()})
        beside = data.StructLayout({"shift": 6, "before": marks, "behind": marks})
        wait = multiplier.latency - 1  # and a cycle to read
        m.submodules.waiting = waiting = Memory(shape=beside, depth=1 << bits_for(self.latency - 1), init=[], attrs=UNCHECKED)
        write, read = waiting.write_port(), waiting.read_port()
        place = Signal(range(waiting.depth))
        valid = Signal(self.latency)
        m.d.comb += [
            write.en.eq(step),
            write.addr.eq(place),
            write.data.shift.eq(self.i.p.shift),
            write.data.before.last.eq(self.i.p.last),
            write.data.before.tag.eq(self.i.p.tag),
            write.data.behind.eq(read.data.before),
            read.en.eq(step),
            read.addr.eq(place - wait),
        ]
        with m.If(step):
            m.d.sync += [place.eq(place + 1), valid.eq(Cat(self.i.valid & taken, valid))]
        product_shift, fine_shift = read.data.shift, Signal(3, reset_less=True)

        # Shift right by 0…4 bytes, then by 0…7 bits. The product counts in units of 2**23, so that a left shift finds its
        # bits. The result needs 10 bits; `over` tells that it has more.
        first = multiplier.o
        coarse = Signal(signed(18), reset_less=True)
        over1, sign1 = Signal(reset_less=True), Signal(reset_less=True)
        extended = Cat(first, first[-1].replicate(4 * 8 + 18 - 38))
        sign = first[-1]
        uniform = [(extended[start : start + 8] != sign.replicate(8)) for start in range(17, 38, 8)]
        overs = [Cat(uniform[c:]).any() if c < len(uniform) else 0 for c in range(5)]
        with m.If(step):
            m.d.sync += [
                fine_shift.eq(product_shift[:3]),
                coarse.eq(Array(extended[8 * c : 8 * c + 18] for c in range(5))[product_shift[3:]]),
                over1.eq(Array(overs)[product_shift[3:]]),
                sign1.eq(sign),
            ]
        fine = Signal(signed(11), reset_less=True)
        over2, sign2 = Signal(reset_less=True), Signal(reset_less=True)
        shifted = Signal(signed(18))
        m.d.comb += shifted.eq(coarse >> fine_shift)
        with m.If(step):
            m.d.sync += [
                fine.eq(shifted),
                over2.eq(over1 | (shifted[10:] != shifted[-1].replicate(8))),
                sign2.eq(sign1),
            ]

        # `fine` is the result with one bit more, still to be rounded.
        rounded, result = Signal(signed(11), reset_less=True), Signal(signed(8), reset_less=True)
        over3, sign3, below, above = Signal(reset_less=True), Signal(reset_less=True), Signal(), Signal()
        m.d.comb += [
            below.eq(Mux(over3, sign3, rounded < self.clamp_min)),
            above.eq(over3 | (rounded > self.clamp_max)),
        ]
        with m.If(step):
            m.d.sync += [
                rounded.eq((fine + Cat(1, self.zero_point).as_signed()) >> 1),
                over3.eq(over2),
                sign3.eq(sign2),
                result.eq(Mux(below, self.clamp_min, Mux(above, self.clamp_max, rounded))),
            ]

        m.d.comb += [
            self.o.valid.eq(valid[-1]),
            self.o.p.data.eq(result ^ 0x80),
            self.o.p.last.eq(read.data.behind.last),
            self.o.p.tag.eq(read.data.behind.tag),
        ]

        if platform is None:
            with m.If(self.i.valid & self.i.ready):
                m.d.sync += Assert(self.i.p.shift != 0, "shift must be at least 1")
                with m.If(self.i.p.small):
                    m.d.sync += Assert(acc == acc[:16].as_signed(), "a small sum must have 16 bits")
        return m
