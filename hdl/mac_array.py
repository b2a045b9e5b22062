"""The multiply-accumulate array."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.hdl.multiplier import ProductArray
from gossamer.hdl.operand_fetch import beat_layout
from gossamer.hdl.window_generator import tag_layout

__all__ = ["MacArray", "sum_layout"]


def sum_layout(*, acc_bits: int) -> data.StructLayout:
    """One lane's sum; ``last`` marks the window's last, and ``tag`` belongs to the window."""
    return data.StructLayout({"acc": signed(acc_bits), "last": 1, "tag": tag_layout()})


class MacArray(wiring.Component):
    """``lanes`` multipliers and accumulators, with a second set of registers from which the sums drain.

    For each window, that is, each run of beats up to one with ``end`` ::

        for beat in window:
            if beat.product: acc[l] += x[l] * w[l]      (modulo 2**acc_bits)
            if beat.clamp:   acc[l] = max(acc[l], 0)
        the sums acc[0], acc[1], … go out on ``o``; acc = 0

    ``lanes`` sums go out, or ``last_lanes`` if the tag is ``partial``. A product with ``x >= 0``, weight -1, a ``clamp`` and
    a product with weight 1 together compute ``acc[l] = max(acc[l], x[l])``, which is max pooling.

    Throughput is one beat per cycle. The first sum appears four cycles after the transfer of ``end``, the others follow
    one per cycle. An ``end`` waits in the array until the sums of the window before have gone; ``i.ready`` then depends
    combinationally on ``o.ready``.

    The end must be the window's only beat without product or clamp. Reset discards all windows in work.

    Parameters
    ----------
    lanes : int
        Multipliers; a power of two, at least 2.
    acc_bits : int
        Accumulator width, at least 16.
    technology, lut_lanes :
        See :class:`ProductArray`.

    Members
    -------
    i : ``In(stream.Signature(beat_layout(lanes)))``
    o : ``Out(stream.Signature(sum_layout(acc_bits)))``
    last_lanes : ``In(range(lanes + 1))``
        Sums of a window whose tag is ``partial``, 1 to ``lanes``; must not change while a window is in work.
    """

    def __init__(self, *, lanes: int, acc_bits: int, technology: str = "generic", lut_lanes: int = 0):
        if acc_bits < 16:
            raise ValueError(f"acc_bits must be at least 16 to hold a product, not {acc_bits}")
        self._lanes, self._acc_bits = lanes, acc_bits
        self._products = {"lanes": lanes, "technology": technology, "lut_lanes": lut_lanes}
        super().__init__(
            {
                "i": In(stream.Signature(beat_layout(lanes=lanes))),
                "o": Out(stream.Signature(sum_layout(acc_bits=acc_bits))),
                "last_lanes": In(range(lanes + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.products = products = ProductArray(**self._products)

        # What the beats do, one and two cycles behind their transfer; then the products are there.
        does = data.StructLayout({"product": 1, "clamp": 1, "end": 1, "tag": tag_layout()})
        first, now = Signal(does), Signal(does)
        step = Signal()
        m.d.comb += [
            self.i.ready.eq(step),
            products.en.eq(step),
            products.x.eq(self.i.p.x),
            products.w.eq(self.i.p.w),
        ]
        with m.If(step):
            m.d.sync += now.eq(first)
            for name in ("product", "clamp", "end"):
                m.d.sync += first[name].eq(self.i.valid & self.i.p[name])
            m.d.sync += first.tag.eq(self.i.p.tag)

        acc = [Signal(signed(self._acc_bits), name=f"acc{lane}") for lane in range(self._lanes)]
        drain = [Signal(signed(self._acc_bits), name=f"drain{lane}") for lane in range(self._lanes)]
        left = Signal(range(self._lanes + 1))  # sums still in `drain`
        drain_tag = Signal(tag_layout())

        shift, load = Signal(), Signal()
        m.d.comb += [
            self.o.valid.eq(left != 0),
            self.o.p.acc.eq(drain[0]),
            self.o.p.last.eq(left == 1),
            self.o.p.tag.eq(drain_tag),
            shift.eq(self.o.valid & self.o.ready),
            step.eq(~now.end | ~self.o.valid | (shift & self.o.p.last)),
            load.eq(now.end & step),
        ]

        # Clearing is worth a cycle of its own (the one of `end`): it uses the registers' reset, not a LUT per bit.
        for lane in range(self._lanes):
            clear = now.end | (now.clamp & acc[lane][-1])
            with m.If(step & (now.product | clear)):
                m.d.sync += acc[lane].eq(Mux(clear, 0, acc[lane] + products.p[lane]))
        with m.If(load | shift):
            for lane in range(self._lanes):
                after = drain[lane + 1] if lane + 1 < self._lanes else drain[lane]
                m.d.sync += drain[lane].eq(Mux(load, acc[lane], after))
        with m.If(shift):
            m.d.sync += left.eq(left - 1)
        with m.If(load):
            m.d.sync += [left.eq(Mux(now.tag.partial, self.last_lanes, self._lanes)), drain_tag.eq(now.tag)]

        if platform is None:
            from amaranth.hdl import Assert

            with m.If(self.i.valid):
                m.d.comb += Assert(
                    Cat(self.i.p.product, self.i.p.clamp, self.i.p.end).any(),
                    "a beat must be a product, a clamp or an end",
                )
        return m
