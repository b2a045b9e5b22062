"""Issues one non-zero activation per cycle."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.hdl.row_buffer import word_layout
from gossamer.hdl.window_generator import tag_layout

__all__ = ["ZeroSkipper", "element_layout"]


def element_layout(*, lanes: int, words: int, vectors: int) -> data.StructLayout:
    """One step of the array: exactly one of ``product`` (byte ``lane`` of row buffer word ``address`` times weight vector
    ``index``), ``clamp`` and ``end`` (of the window) is set."""
    return data.StructLayout(
        {
            "address": range(words),
            "lane": range(lanes),
            "index": range(vectors),
            "product": 1,
            "clamp": 1,
            "end": 1,
            "tag": tag_layout(),
        }
    )


class ZeroSkipper(wiring.Component):
    """Issues the set bits of each word's mask, lowest lane first, and an ``end`` behind each window.

    Equal to :func:`gossamer.golden.cycles.issue_cycles` in time: with ``o.ready`` high, a word with ``n`` bits takes ``n``
    cycles, an empty word one, and the last word of a window ``n + 1``. There are no gaps between words if ``i.valid``
    stays high. The first element appears one cycle after the word's transfer. ``i.ready`` depends combinationally on
    ``o.ready``; an empty word, too, passes only while ``o.ready`` is high.

    Reset discards the word in work.

    Parameters
    ----------
    lanes, words, vectors : int
        See :func:`range_layout`.

    Members
    -------
    i : ``In(stream.Signature(word_layout(...)))``
    o : ``Out(stream.Signature(element_layout(...)))``
    idle : ``Out(1)``
        No word is in work.
    """

    def __init__(self, *, lanes: int, words: int, vectors: int):
        self._lanes = lanes
        self._sizes = {"lanes": lanes, "words": words, "vectors": vectors}
        super().__init__(
            {
                "i": In(stream.Signature(word_layout(**self._sizes))),
                "o": Out(stream.Signature(element_layout(**self._sizes))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        valid = Signal()
        word = Signal(word_layout(**self._sizes))

        rest = word.mask & (word.mask - 1)  # without the lowest set bit
        lowest = word.mask & ~rest
        empty = ~word.mask.any()
        lane = Cat(
            Cat(lowest[i] for i in range(self._lanes) if i >> bit & 1).any() for bit in range(exact_log2(self._lanes))
        )
        finished = Signal()  # nothing is left of the word once this cycle's element, if any, is taken
        m.d.comb += [
            self.o.valid.eq(valid & (~empty | word.last)),
            self.o.p.address.eq(word.address),
            self.o.p.lane.eq(lane),
            self.o.p.index.eq(word.index + lane),
            self.o.p.product.eq(~empty & ~word.clamp),
            self.o.p.clamp.eq(~empty & word.clamp),
            self.o.p.end.eq(empty),
            self.o.p.tag.eq(word.tag),
            finished.eq(empty | (~rest.any() & ~word.last)),
            self.i.ready.eq(~valid | (finished & self.o.ready)),
            self.idle.eq(~valid),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += word.mask.eq(rest)
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), word.eq(self.i.p)]
        return m
