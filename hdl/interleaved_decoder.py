"""Decodes rows of several units from store words."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from gossamer.golden.spec import CODEC_CHUNK
from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.compressor import RATE_BITS
from gossamer.hdl.decompressor import Decompressor

__all__ = ["InterleavedDecoder"]


class InterleavedDecoder(wiring.Component):
    """Decodes the units of a row side by side: a decoder for each, in lockstep.

    Unit ``s`` of ``S = streams`` has the values ``i`` of the row with ``i % S == s``, as
    :func:`gossamer.golden.codec.encode_units` codes them, and in the store the chunks ``c`` of ``max(8, S)`` bytes with
    ``c % S == s``. What :class:`RowDecoder` is for one unit, this is for several: ``S`` values a cycle, if their bits are
    there.

    ``start`` begins a row. The decoders take turns at the store, a cycle each in which the store is ``ready``, the first in
    the cycle after ``start``: ``want`` says that the one whose turn it is wants the word ``offset`` behind the row's first,
    which stands at ``word`` in the cycle after one in which the store is ``ready``; with ``outside`` there is no such word.
    A decoder has two registers for chunks and wants a word while one is empty, and behind them one for the halfword that is
    taken next; each is filled in the cycle after that in which the one before is, so that the first values are found
    three cycles after the first turn of the last decoder.

    While ``run`` is high values are found, and appear together in the cycle after that in which the last of them is:
    ``found`` is high then, and they become the last bytes of ``data``, the last ``store_bytes`` bytes that were found, in
    the next cycle. With the row's last values ``final`` must be high, from the cycle on after those before were found; behind
    them ``run`` must be low for at least one cycle. ``lost`` and ``left`` are high if those of any unit's
    :class:`Decompressor` are.

    ``want``, ``offset`` and ``found`` depend on no port.

    Parameters
    ----------
    lanes : int
        Values per pixel, a multiple of ``streams``.
    streams : int
        A power of two, 2 to ``store_bytes``.
    store_bytes, store_words : int
        See :class:`Store`; ``store_bytes`` 8 or 16.
    bounded, budgets : bool
        See :class:`Decompressor`.

    Members
    -------
    start, ready, outside : ``In(1)``
    word : ``In(8 * store_bytes)``
    want : ``Out(1)``
    offset : ``Out``
    run, final, signed : ``In(1)``
    rate : ``In(7)``
        With ``budgets``.
    found, left, lost : ``Out(1)``
    data : ``Out(8 * store_bytes)``
        The first value is the lowest byte.
    """

    def __init__(
        self,
        *,
        lanes: int,
        streams: int,
        store_bytes: int,
        store_words: int,
        bounded: bool = True,
        budgets: bool = False,
    ):
        require(store_bytes in (8, 16), f"store_bytes must be 8 or 16, not {store_bytes}")
        require_powers_of_two(streams=streams)
        require(2 <= streams <= store_bytes, f"streams must be 2 to {store_bytes}, not {streams}")
        require(lanes > 0 and lanes % streams == 0, f"lanes must be a multiple of streams ({streams}), not {lanes}")
        self._streams, self._store_bytes, self._budgets = streams, store_bytes, budgets
        self._chunk = max(CODEC_CHUNK, streams)
        self._words = streams * self._chunk // store_bytes  # those with a chunk of each unit
        self._chunks = bits_for(-(-store_words // self._words))
        self._decompressors = [
            Decompressor(lanes=lanes // streams, values=1, bounded=bounded, budgets=budgets) for _ in range(streams)
        ]
        super().__init__(
            {
                "start": In(1),
                "ready": In(1),
                "outside": In(1),
                "word": In(8 * store_bytes),
                "want": Out(1),
                "offset": Out(exact_log2(self._words) + self._chunks),
                "run": In(1),
                "final": In(1),
                "signed": In(1),
                "found": Out(1),
                "left": Out(1),
                "lost": Out(1),
                "data": Out(8 * store_bytes),
                **({"rate": In(RATE_BITS)} if budgets else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        turn, came = Signal(self._streams, init=1), Signal()  # whose turn it is; the word for the one before is there
        wants, offsets, there, values = [], [], [], []
        for unit, decompressor in enumerate(self._decompressors):
            m.submodules[f"decompressor_{unit}"] = decompressor
            m.d.comb += [
                decompressor.run.eq(self.run & ~(self.final & decompressor.o.valid)),
                decompressor.signed.eq(self.signed),
                *([decompressor.rate.eq(self.rate)] if self._budgets else []),
                decompressor.o.ready.eq(self.found),
            ]
            asked = turn[unit] & self.want & self.ready
            arrives = came & turn[(unit + 1) % self._streams]
            want, chunk = self._elaborate_unit(m, unit, asked, arrives)
            wants.append(turn[unit] & want)
            first = Const(unit * self._chunk // self._store_bytes, exact_log2(self._words))
            offsets.append(Mux(turn[unit], Cat(first, chunk), 0))
            there.append(decompressor.o.valid)
            values.append(decompressor.o.p.data)
        m.d.comb += [
            self.want.eq(Cat(wants).any()),
            self.offset.eq(reduce(or_, offsets)),
            self.found.eq(Cat(there).all()),
            self.lost.eq(Cat(decompressor.lost for decompressor in self._decompressors).any()),
            self.left.eq(Cat(decompressor.left for decompressor in self._decompressors).any()),
        ]
        m.d.sync += came.eq(self.want & self.ready)
        with m.If(self.ready):
            m.d.sync += turn.eq(turn.rotate_left(1))
        with m.If(self.found):
            m.d.sync += self.data.eq(Cat(self.data, *values)[-len(self.data) :])
        with m.If(self.start):
            m.d.sync += [turn.eq(1), came.eq(0)]
        return m

    def _elaborate_unit(self, m, unit, asked, arrives):
        """What is in front of a decoder. Returns whether it wants a word, and of which chunk."""
        i = self._decompressors[unit].i
        chunk_bits = 8 * self._chunk
        chunks = Signal(2 * chunk_bits, name=f"chunks_{unit}", reset_less=True)
        filled, fill = Signal(2, name=f"filled_{unit}"), Signal(name=f"fill_{unit}")  # of the registers; the next to be filled
        chunk = Signal(self._chunks, name=f"chunk_{unit}")  # the next
        # What comes is outside, and what is in the registers.
        beyond, outside = Signal(name=f"beyond_{unit}"), Signal(2, name=f"outside_{unit}")
        place = Signal(exact_log2(self._chunk), name=f"place_{unit}")  # of the next halfword in the registers
        empty, move, there = (Signal(name=f"{name}_{unit}") for name in ("empty", "move", "there"))
        m.d.comb += [
            there.eq(filled.bit_select(place[-1], 1)),
            empty.eq(~i.valid | i.ready),
            move.eq(there & empty),
        ]
        with m.If(asked):
            m.d.sync += [beyond.eq(self.outside), chunk.eq(chunk + 1)]
        for n in range(2):
            with m.If(arrives & (fill == n)):
                at = unit * self._chunk % self._store_bytes // self._chunk
                m.d.sync += [
                    chunks.word_select(n, chunk_bits).eq(self.word.word_select(at, chunk_bits)),
                    filled[n].eq(1),
                    outside[n].eq(beyond),
                    fill.eq(~fill),
                ]
            with m.If(move & place[:-1].all() & (place[-1] == n)):
                m.d.sync += filled[n].eq(0)
        with m.If(empty):
            m.d.sync += i.valid.eq(there)
        with m.If(move):
            m.d.sync += [
                i.p.data.eq(chunks.word_select(place, 16)),
                i.p.outside.eq(outside.bit_select(place[-1], 1)),
                place.eq(place + 1),
            ]
        with m.If(self.start):
            m.d.sync += [filled.eq(0), fill.eq(0), chunk.eq(0), place.eq(0), i.valid.eq(0)]
        return ~filled.bit_select(fill, 1), chunk
