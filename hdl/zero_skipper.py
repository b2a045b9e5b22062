"""Issues one non-zero activation per cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.hdl.checks import require_powers_of_two
from gossamer.hdl.counter import popcount
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

    If ``masked``, the index of an element counts only the lanes in ``stored`` that are in front of it.

    Reset discards the word in work.

    Parameters
    ----------
    lanes, words, vectors : int
        See :func:`range_layout`.
    masked : bool
        See :func:`word_layout`.

    Members
    -------
    i : ``In(stream.Signature(word_layout(...)))``
    o : ``Out(stream.Signature(element_layout(...)))``
    """

    def __init__(self, *, lanes: int, words: int, vectors: int, masked: bool = False):
        require_powers_of_two(lanes=lanes, words=words, vectors=vectors)
        self._lanes = lanes
        self._sizes = {"lanes": lanes, "words": words, "vectors": vectors}
        self._word = word_layout(**self._sizes, masked=masked)
        super().__init__(
            {
                "i": In(stream.Signature(self._word)),
                "o": Out(stream.Signature(element_layout(**self._sizes))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        valid, finished = Signal(), Signal()  # finished: the element is its word's last
        word = Signal(self._word, reset_less=True)  # its mask is that of the elements to come
        zero, lane = Signal(reset_less=True), Signal(range(self._lanes), reset_less=True)

        # The next element is looked for in this cycle, so that nothing waits for the search.
        fresh, mask = Signal(), Signal(self._lanes)
        m.d.comb += [fresh.eq(~valid | finished), mask.eq(Mux(fresh, self.i.p.mask, word.mask))]
        rest = Signal(self._lanes)  # without the lowest set bit
        m.d.comb += rest.eq(mask & Cat(_any_below(mask)))

        in_front = lane
        if "stored" in self._word.members:
            in_front = popcount(word.stored & ~(Const(-1, self._lanes) << lane))
        m.d.comb += [
            self.o.valid.eq(valid),
            self.o.p.address.eq(word.address),
            self.o.p.lane.eq(lane),
            self.o.p.index.eq(word.index + in_front),
            self.o.p.zero.eq(zero),
            self.o.p.clamp.eq(word.clamp),
            self.o.p.last.eq(word.last & finished),
            self.o.p.tag.eq(word.tag),
            self.i.ready.eq(~valid | (finished & self.o.ready)),
        ]
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), word.eq(self.i.p)]
        with m.If(self.i.ready | self.o.ready):
            m.d.sync += [word.mask.eq(rest), finished.eq(~_several(mask)), zero.eq(~mask.any()), lane.eq(_lowest(mask))]
        return m


def _any_below(bits):
    """For each bit, whether one below it is set, by halves."""
    if len(bits) == 1:
        return [Const(0, 1)]
    half = len(bits) // 2
    low = bits[:half].any()
    return [*_any_below(bits[:half]), *(low | below for below in _any_below(bits[half:]))]


def _several(bits):
    """Whether more than one bit is set, by halves."""
    if len(bits) == 1:
        return Const(0, 1)
    low, high = bits[: len(bits) // 2], bits[len(bits) // 2 :]
    return _several(low) | _several(high) | (low.any() & high.any())


def _lowest(bits):
    """Number of the lowest set bit, by halves; the bits are a power of two. Of a single bit there is nothing to number."""
    if len(bits) <= 2:
        return ~bits[0]
    half = len(bits) // 2
    low, high = bits[:half], bits[half:]
    return Cat(Mux(low.any(), _lowest(low), _lowest(high)), ~low.any())
