"""Reads the operands of each step of the array."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.hdl.checks import require_powers_of_two
from gossamer.hdl.window_generator import tag_layout
from gossamer.hdl.zero_skipper import element_layout

__all__ = ["OperandFetch", "beat_layout"]


def beat_layout(*, lanes: int) -> data.StructLayout:
    """One step of the array with its operands: unsigned activations ``x``, signed weights ``w``, one pair per lane. With
    ``clamp`` it is a clamp, and all ``x`` are 0; ``last`` marks the window's last step."""
    return data.StructLayout(
        {
            "x": data.ArrayLayout(8, lanes),
            "w": data.ArrayLayout(8, lanes),
            "clamp": 1,
            "last": 1,
            "tag": tag_layout(),
        }
    )


class OperandFetch(wiring.Component):
    """Elements in, operands out.

    ``x[l]`` is byte ``lane`` of row buffer word ``address``, the same for all lanes; in word mode it is byte ``l`` of that
    word; with ``zero`` or ``clamp`` it is 0. ``w`` is weight vector ``index``.

    Throughput is one element per cycle; latency two cycles. ``i.ready`` is ``o.ready``: the stages move together, so that
    the distance between elements is kept, and only then, so that ``o.ready`` must not wait for ``o.valid``. Reset discards
    what is in work.

    Parameters
    ----------
    lanes, words, vectors : int
        See :func:`range_layout`.

    Members
    -------
    i : ``In(stream.Signature(element_layout(...)))``
    o : ``Out(stream.Signature(beat_layout(...)))``
    rows, weights : ``Out({en: 1, address, data: In(8*lanes)})``
        Read ports of the row buffer and the weight buffer.
    word_mode : ``In(1)``
        Field of the layer descriptor.
    """

    def __init__(self, *, lanes: int, words: int, vectors: int):
        require_powers_of_two(lanes=lanes, words=words, vectors=vectors)
        self._lanes = lanes
        self._element = element_layout(lanes=lanes, words=words, vectors=vectors)
        super().__init__(
            {
                "i": In(stream.Signature(self._element)),
                "o": Out(stream.Signature(beat_layout(lanes=lanes))),
                "rows": Out(wiring.Signature({"en": Out(1), "address": Out(range(words)), "data": In(8 * lanes)})),
                "weights": Out(wiring.Signature({"en": Out(1), "address": Out(range(vectors)), "data": In(8 * lanes)})),
                "word_mode": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step = Signal()
        # The byte's word arrives in stage 1, where the byte is chosen; its weights in stage 2.
        valid1, valid2 = Signal(), Signal()
        element1 = Signal(self._element, reset_less=True)
        flags2 = Signal(data.StructLayout({"clamp": 1, "last": 1, "tag": tag_layout()}), reset_less=True)
        x2 = Signal(data.ArrayLayout(8, self._lanes), reset_less=True)

        m.d.comb += [
            step.eq(self.o.ready),
            self.i.ready.eq(step),
            self.rows.en.eq(step & self.i.valid),
            self.rows.address.eq(self.i.p.address),
            self.weights.en.eq(step & valid1),
            self.weights.address.eq(element1.index),
        ]
        byte = self.rows.data.word_select(element1.lane, 8)
        with m.If(step):
            m.d.sync += [valid1.eq(self.i.valid), element1.eq(self.i.p), valid2.eq(valid1)]
            for name in ("clamp", "last", "tag"):
                m.d.sync += flags2[name].eq(element1[name])
            for lane in range(self._lanes):
                # The zero is a reset of the register, not a LUT in front of it.
                m.d.sync += x2[lane].eq(Mux(self.word_mode, self.rows.data.word_select(lane, 8), byte))
            with m.If(element1.zero | element1.clamp):
                m.d.sync += x2.eq(0)

        m.d.comb += [self.o.valid.eq(valid2), self.o.p.x.eq(x2), self.o.p.w.eq(self.weights.data)]
        for name in ("clamp", "last", "tag"):
            m.d.comb += self.o.p[name].eq(flags2[name])
        return m
