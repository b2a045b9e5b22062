"""Decodes rows from store words."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.compressor import RATE_BITS
from gossamer.hdl.decompressor import Decompressor

__all__ = ["RowDecoder"]


class RowDecoder(wiring.Component):
    """Takes the halfwords of a row out of store words as they come, and decodes them.

    ``start`` begins a row at halfword 0 of a word; ``asked`` must be low then. A halfword is in the store word that stands
    at ``word`` in the cycle after ``asked``, or with ``outside`` in none. It moves on, if the word is there, in a cycle in
    which the register before the decompressor is empty or is being emptied. ``next_word`` is high in the cycle in which a
    word's last halfword moves on: from the next cycle on the word behind has to be asked for. What was asked for in a cycle
    in which a halfword moves on is not looked at.

    ``run``, ``found``, ``left``, ``lost``, ``signed`` and ``rate`` are those of :class:`Decompressor`. ``valid`` is high in the
    cycle in which the last of ``values`` stands at ``data``, the one after that in which it was found.

    ``found``, ``left`` and ``next_word`` depend combinationally on ``run``.

    Parameters
    ----------
    lanes, values, bounded, budgets :
        See :class:`Decompressor`.
    store_bytes : int
        Bytes per store word, a power of two, at least 2.

    Members
    -------
    start, asked, outside : ``In(1)``
    word : ``In(8 * store_bytes)``
    next_word : ``Out(1)``
    run, signed : ``In(1)``
    rate : ``In(7)``
        With ``budgets``.
    found, left, lost : ``Out(1)``
    valid : ``Out(1)``
    data : ``Out(8 * values)``
        The first value is the lowest byte.
    """

    def __init__(self, *, lanes: int, store_bytes: int, values: int = 1, bounded: bool = True, budgets: bool = False):
        require_powers_of_two(store_bytes=store_bytes)
        require(store_bytes >= 2, f"store_bytes must be at least 2, not {store_bytes}")
        self._halfwords, self._budgets = store_bytes // 2, budgets
        self._decompressor = Decompressor(lanes=lanes, values=values, bounded=bounded, budgets=budgets)
        super().__init__(
            {
                "start": In(1),
                "asked": In(1),
                "outside": In(1),
                "word": In(8 * store_bytes),
                "next_word": Out(1),
                "run": In(1),
                "signed": In(1),
                "found": Out(1),
                "left": Out(1),
                "lost": Out(1),
                "valid": Out(1),
                "data": Out(8 * values),
                **({"rate": In(RATE_BITS)} if budgets else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.decompressor = decompressor = self._decompressor
        place = Signal(exact_log2(self._halfwords))  # of the next halfword in its word
        fresh, beyond, move, empty = Signal(), Signal(), Signal(), Signal()
        i = decompressor.i

        m.d.comb += [
            decompressor.run.eq(self.run),
            decompressor.signed.eq(self.signed),
            *([decompressor.rate.eq(self.rate)] if self._budgets else []),
            decompressor.o.ready.eq(1),
            self.found.eq(decompressor.found),
            self.left.eq(decompressor.left),
            self.lost.eq(decompressor.lost),
            self.valid.eq(decompressor.o.valid),
            self.data.eq(decompressor.o.p.data),
            empty.eq(~i.valid | i.ready),
            move.eq(fresh & empty),
            self.next_word.eq(move & place.all()),
        ]
        m.d.sync += [fresh.eq(self.asked & ~move), beyond.eq(self.outside)]
        with m.If(empty):
            m.d.sync += i.valid.eq(fresh)
        with m.If(move):
            m.d.sync += [i.p.data.eq(self.word.word_select(place, 16)), i.p.outside.eq(beyond), place.eq(place + 1)]
        with m.If(self.start):
            m.d.sync += [i.valid.eq(0), place.eq(0)]
        return m
