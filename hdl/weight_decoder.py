"""Makes bytes of weights that lie in the store in fewer bits."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.golden.spec import PALETTE_ENTRIES
from gossamer.hdl.checks import require, require_powers_of_two

__all__ = ["WeightDecoder"]


class WeightDecoder(wiring.Component):
    """Takes the words of a load as they come, and writes weight vectors in pairs of granules.

    ``start`` begins a load, which ``format`` and ``shared`` are for, at vector ``destination``; its first word comes in a
    later cycle. With ``format`` 0 word ``index`` is a granule of that number. With 1 a word has two granules, in signed numbers
    of four bits, the first in the lowest bits. With 2 these are numbers of palette entries. With 3 each word in front of four
    such has the fifth bits of their numbers, in the same order. What a word makes is written in the same cycle.

    A word with ``palette`` is granule ``index`` of the palette: an entry has a byte for every lane; in a load that is
    ``shared`` an entry is one granule, whose bytes are those of all lanes in turn.

    Throughput is one word per cycle, and so up to two granules of weights. Reset ends the load; the palette stays.

    Parameters
    ----------
    lanes : int
        Bytes per vector; at least two granules.
    granule : int
        Bytes per word.
    vectors : int
        Depth of the weight buffer; a power of two.
    palettes : bool
        Build it with formats 2 and 3.

    Members
    -------
    start, shared : ``In(1)``
    format : ``In(2)``
    destination : ``In(range(vectors))``
    i : ``In({en: 1, palette: 1, index, data})``
    o : ``Out({en: 2, address: number of the pair, data: 2*granule bytes})``
        ``en`` has a bit for each granule of the pair.
    """

    def __init__(self, *, lanes: int, granule: int, vectors: int, palettes: bool = False):
        require_powers_of_two(lanes=lanes, granule=granule, vectors=vectors)
        require(lanes >= 2 * granule, f"lanes must be at least 2 granules ({2 * granule}), not {lanes}")
        self._pairs, self._granule, self._palettes = lanes // granule // 2, granule, palettes
        pairs = self._pairs * vectors
        granules = 2 * max(pairs, PALETTE_ENTRIES * self._pairs)
        word = {"en": Out(1), "palette": Out(1), "index": Out(range(granules)), "data": Out(8 * granule)}
        super().__init__(
            {
                "start": In(1),
                "format": In(2),
                "shared": In(1),
                "destination": In(range(vectors)),
                "i": In(wiring.Signature(word)),
                "o": Out(wiring.Signature({"en": Out(2), "address": Out(range(pairs)), "data": Out(16 * granule)})),
            }
        )

    def elaborate(self, platform):
        m = Module()
        count = 2 * self._granule
        sub_bits = exact_log2(self._pairs)
        kind, shared = Signal(2, reset_less=True), Signal(reset_less=True)  # of the load in work
        pair = Signal.like(self.o.address, reset_less=True)  # that comes next
        phase = Signal(range(5), reset_less=True)
        weights = self.i.en & ~self.i.palette
        codes = [self.i.data.word_select(i, 4) for i in range(count)]

        m.d.comb += self.o.address.eq(pair)
        wide, high_word = [Cat(code, code[-1].replicate(4)) for code in codes], Const(0)
        if self._palettes:
            high_word = (kind == 3) & (phase == 0)
            entries = self._elaborate_palette(m, codes, weights & high_word, kind, shared, pair[:sub_bits], phase)
            wide = [Mux(kind == 1, number, entry) for number, entry in zip(wide, entries)]
        with m.If(kind == 0):
            m.d.comb += [
                self.o.address.eq(self.i.index >> 1),
                self.o.en.eq(weights << self.i.index[0]),
                self.o.data.eq(self.i.data.replicate(2)),
            ]
        with m.Else():
            m.d.comb += [self.o.en.eq((weights & ~high_word).replicate(2)), self.o.data.eq(Cat(wide))]
        with m.If(weights):
            m.d.sync += [phase.eq(Mux(phase == 4, 0, phase + 1)), pair.eq(pair + ~high_word)]
        with m.If(self.start):
            m.d.sync += [kind.eq(self.format), shared.eq(self.shared), phase.eq(0), pair.eq(self.destination << sub_bits)]
        return m

    def _elaborate_palette(self, m, codes, take_high, kind, shared, sub, phase):
        """The entries for the codes of a word: a memory for each, which has the bytes of the lanes that it serves."""
        half_bits = exact_log2(self._pairs)
        high = Signal(8 * self._granule, reset_less=True)  # the fifth bits of four words
        with m.If(take_high):
            m.d.sync += high.eq(self.i.data)
        fifth = high.word_select((phase - 1)[:2], 2 * self._granule)
        granule = self.i.index
        entry, place = Mux(shared, granule, granule >> (1 + half_bits))[:5], Mux(shared, 0, granule[1 : 1 + half_bits])
        found = []
        for i, code in enumerate(codes):
            half = i // self._granule
            m.submodules[f"palette{i}"] = memory = Memory(shape=8, depth=PALETTE_ENTRIES * self._pairs, init=[])
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.i.en & self.i.palette & (shared | (granule[0] == half))),
                write.addr.eq(Cat(entry, place)),
                write.data.eq(self.i.data.word_select(i % self._granule, 8)),
                read.addr.eq(Cat(code, fifth[i] & (kind == 3), Mux(shared, 0, sub))),
            ]
            found.append(read.data)
        return found
