"""Issues one non-zero activation per cycle."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.hdl.row_buffer import word_layout
from gossamer.hdl.window_generator import tag_layout

__all__ = ["ZeroSkipper", "element_layout"]


def element_layout(*, lanes: int, words: int, vectors: int) -> data.StructLayout:
    """One step of the array: byte ``lane`` of row buffer word ``address`` times weight vector ``index``; with ``zero``, zero
    times anything; with ``clamp``, a clamp of the accumulators instead. ``last`` marks the window's last step."""
    return data.StructLayout(
        {
            "address": range(words),
            "lane": range(lanes),
            "index": range(vectors),
            "zero": 1,
            "clamp": 1,
            "last": 1,
            "tag": tag_layout(),
        }
    )


class ZeroSkipper(wiring.Component):
    """Issues the set bits of each word's mask, lowest lane first; for a word without one, a ``zero``.

    A word with ``n`` bits takes ``max(n, 1)`` cycles while ``o.ready`` is high. There are no gaps between words if ``i.valid``
    stays high. The first element appears one cycle after the word's transfer. ``i.ready`` depends combinationally on
    ``o.ready``.

    Reset discards the word in work.

    Parameters
    ----------
    lanes, words, vectors : int
        See :func:`range_layout`.

    Members
    -------
    i : ``In(stream.Signature(word_layout(...)))``
    o : ``Out(stream.Signature(element_layout(...)))``
    """

    def __init__(self, *, lanes: int, words: int, vectors: int):
        self._lanes = lanes
        self._sizes = {"lanes": lanes, "words": words, "vectors": vectors}
        super().__init__(
            {
                "i": In(stream.Signature(word_layout(**self._sizes))),
                "o": Out(stream.Signature(element_layout(**self._sizes))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        valid = Signal()
        word = Signal(word_layout(**self._sizes), reset_less=True)

        rest = word.mask & (word.mask - 1)  # without the lowest set bit
        lowest = word.mask & ~rest
        lane = Cat(
            Cat(lowest[i] for i in range(self._lanes) if i >> bit & 1).any() for bit in range(exact_log2(self._lanes))
        )
        finished = ~rest.any()  # this element is the word's last
        m.d.comb += [
            self.o.valid.eq(valid),
            self.o.p.address.eq(word.address),
            self.o.p.lane.eq(lane),
            self.o.p.index.eq(word.index + lane),
            self.o.p.zero.eq(~word.mask.any()),
            self.o.p.clamp.eq(word.clamp),
            self.o.p.last.eq(word.last & finished),
            self.o.p.tag.eq(word.tag),
            self.i.ready.eq(~valid | (finished & self.o.ready)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += word.mask.eq(rest)
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), word.eq(self.i.p)]
        return m
