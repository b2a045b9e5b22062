"""The multiply-accumulate array."""

from amaranth.hdl import Assert, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.multiplier import ProductArray
from gossamer.hdl.operand_fetch import beat_layout
from gossamer.hdl.window_generator import tag_layout

__all__ = ["MacArray", "sum_layout"]


def sum_layout(*, acc_bits: int) -> data.StructLayout:
    """One lane's sum; ``last`` marks the window's last, and ``tag`` belongs to the window."""
    return data.StructLayout({"acc": signed(acc_bits), "last": 1, "tag": tag_layout()})


class MacArray(wiring.Component):
    """``lanes`` multipliers and accumulators, with a second set of registers from which the sums drain.

    For each window, that is, each run of beats up to one with ``last`` ::

        acc[l] = 0
        for beat in window:
            if beat.clamp: acc[l] = max(acc[l], 0)
            else:          acc[l] += x[l] * w[l]      (modulo 2**acc_bits)
        the sums acc[0], acc[1], … go out on ``o``

    ``lanes`` sums go out, or ``last_lanes`` if the tag is ``partial``. With ``int4`` they are twice as many: ``acc[lanes+l]``
    sums the products with the high halves of ``w[l]``, ``acc[l]`` those with the low ones. With ``binary`` what is summed is
    twice the number of bits in which ``x[l]`` and ``w[l]`` agree. A product with ``x >= 0`` and weight -1, a ``clamp`` and
    a product with weight 1 together compute ``acc[l] = max(acc[l], x[l])``, which is max pooling.

    Throughput is one beat per cycle, also from window to window. The first sum appears three cycles after the transfer of
    ``last``, the others follow one per cycle. A window's sums wait in the accumulators until those of the window before have
    gone, and everything behind them waits too; ``i.ready`` then depends combinationally on ``o.ready``.

    A window must not begin with a clamp, and with ``clamp`` all ``x`` must be 0. Reset discards all windows in work.

    Parameters
    ----------
    lanes : int
        Multipliers; a power of two, at least 2.
    acc_bits : int
        Accumulator width, at least 16.
    technology, lut_lanes, bits, int4 :
        See :class:`ProductArray`.

    Members
    -------
    i : ``In(stream.Signature(beat_layout(lanes)))``
    o : ``Out(stream.Signature(sum_layout(acc_bits)))``
    last_lanes : ``In(range(lanes + 1))``, or twice as many
        Sums of a window whose tag is ``partial``, 1 to ``lanes``, or with ``int4`` to twice as many; must not change while a
        window is in work.
    binary, int4 : ``In(1)``
        If it is built with them; must not change while a window is in work.
    """

    def __init__(
        self,
        *,
        lanes: int,
        acc_bits: int,
        technology: str = "generic",
        lut_lanes: int = 0,
        bits: bool = False,
        int4: bool = False,
    ):
        require_powers_of_two(lanes=lanes)
        require(lanes >= 2, f"lanes must be at least 2, not {lanes}")
        require(acc_bits >= 16, f"acc_bits must be at least 16 to hold a product, not {acc_bits}")
        self._lanes, self._sums, self._acc_bits = lanes, lanes << int4, acc_bits
        self._products = ProductArray(lanes=lanes, technology=technology, lut_lanes=lut_lanes, bits=bits, int4=int4)
        super().__init__(
            {
                "i": In(stream.Signature(beat_layout(lanes=lanes))),
                "o": Out(stream.Signature(sum_layout(acc_bits=acc_bits))),
                "last_lanes": In(range(self._sums + 1)),
                **{name: In(1) for name, there in (("binary", bits), ("int4", int4)) if there},
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.products = products = self._products

        # What a beat does, when its products are there.
        now = Signal(data.StructLayout({"valid": 1, "clamp": 1, "last": 1, "tag": tag_layout()}))
        step = Signal()
        m.d.comb += [
            self.i.ready.eq(step),
            products.en.eq(step),
            products.x.eq(self.i.p.x),
            products.w.eq(self.i.p.w),
        ]
        for mode in ("binary", "int4"):
            if hasattr(self, mode):
                m.d.comb += getattr(products, mode).eq(getattr(self, mode))
        all_sums = Mux(self.int4, self._sums, self._lanes) if hasattr(self, "int4") else self._lanes
        with m.If(step):
            m.d.sync += now.valid.eq(self.i.valid)
            for name in ("clamp", "last", "tag"):
                m.d.sync += now[name].eq(self.i.p[name])

        acc = [Signal(signed(self._acc_bits), name=f"acc{lane}", reset_less=True) for lane in range(self._sums)]
        drain = [Signal(signed(self._acc_bits), name=f"drain{lane}", reset_less=True) for lane in range(self._sums)]
        first = Signal(init=1)  # the next beat begins a window
        complete, tag = Signal(), Signal(tag_layout(), reset_less=True)  # the accumulators hold a window's sums
        left = Signal(range(self._sums + 1), reset_less=True)  # sums still in `drain`
        busy, last = Signal(), Signal(reset_less=True)  # left != 0, left == 1
        drain_tag = Signal(tag_layout(), reset_less=True)

        shift, load = Signal(), Signal()
        m.d.comb += [
            self.o.valid.eq(busy),
            self.o.p.acc.eq(drain[0]),
            self.o.p.last.eq(last),
            self.o.p.tag.eq(drain_tag),
            shift.eq(busy & self.o.ready),
            step.eq(~complete | ~busy | (last & shift)),
            load.eq(complete & step),
        ]

        with m.If(step):
            m.d.sync += [complete.eq(now.valid & now.last), tag.eq(now.tag)]
            with m.If(now.valid):
                m.d.sync += first.eq(now.last)
        for lane in range(self._sums):
            # The sum is one LUT and carry per bit, its choice against the product fits the same LUT, and the clamp is a
            # reset of the register: otherwise zero is added.
            with m.If(step & now.valid):
                m.d.sync += acc[lane].eq(Mux(first, products.p[lane], acc[lane] + products.p[lane]))
                with m.If(now.clamp & acc[lane][-1]):
                    m.d.sync += acc[lane].eq(0)
        with m.If(load | shift):
            for lane in range(self._sums):
                after = drain[lane + 1] if lane + 1 < self._sums else drain[lane]
                m.d.sync += drain[lane].eq(Mux(load, acc[lane], after))
        with m.If(shift):
            m.d.sync += [left.eq(left - 1), last.eq(left == 2), busy.eq(~last)]
        with m.If(load):
            m.d.sync += [
                left.eq(Mux(tag.partial, self.last_lanes, all_sums)),
                last.eq(tag.partial & (self.last_lanes == 1)),
                busy.eq(1),
                drain_tag.eq(tag),
            ]

        if platform is None:
            with m.If(now.valid & first):
                m.d.comb += Assert(~now.clamp, "a window must not begin with a clamp")
            with m.If(self.i.valid & self.i.ready & self.i.p.clamp):
                m.d.sync += Assert(~self.i.p.x.as_value().any(), "x must be 0 with clamp")
            with m.If(load & tag.partial):
                twice = ", with int4 to twice as many" if hasattr(self, "int4") else ""
                m.d.sync += Assert(
                    (self.last_lanes != 0) & (self.last_lanes <= all_sums), f"last_lanes must be 1 to {self._lanes}{twice}"
                )
        return m
