"""Turns an output row into the byte ranges of its windows."""

from amaranth.hdl import Assert, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from gossamer.hdl.checks import require_powers_of_two
from gossamer.hdl.counter import counted

__all__ = ["WindowGenerator", "range_layout", "tag_layout"]


def tag_layout() -> data.StructLayout:
    """What travels with a window: is its group the last, is it the group's last window, is it the row's last window."""
    return data.StructLayout({"partial": 1, "group_last": 1, "row_last": 1})


def range_layout(*, lanes: int, words: int, vectors: int) -> data.StructLayout:
    """One kernel row of one window.

    ``address`` is the row buffer word of its first byte and ``first`` that byte's lane; ``words`` more words follow;
    ``final`` is the lane of the last byte in the last word. ``index`` is the weight vector of lane 0 of the first word
    (modulo ``vectors``). ``last`` marks the window's last range. ``lanes``, ``words`` and ``vectors`` are powers of two.
    """
    return data.StructLayout(
        {
            "address": range(words),
            "first": range(lanes),
            "words": bits_for(words * lanes - 1),
            "final": range(lanes),
            "index": range(vectors),
            "last": 1,
            "tag": tag_layout(),
        }
    )


class WindowGenerator(wiring.Component):
    """The windows of an output row as ranges of the row buffer.

    For each transfer on ``rows`` the ranges of one output row, in the order ::

        for group in range(groups):
            for x in range(width):
                for ky in range(kernel_rows):
                    bytes offset + x*x_step + (0 .. range_last) of slot (row's first slot + ky) mod slots

    In word mode a range counts beats instead of bytes, and group ``g`` starts ``g`` words further. The weight index runs
    on from range to range; each window of a group starts at the same index, and each group behind the one before,
    unless ``shared_weights``. With ``sparse`` the index counts row buffer words instead of bytes: that of a range is its first
    word's, and that of the next range is behind all of its words.

    Throughput is one range per cycle without gaps, the first one cycle after the transfer on ``rows``. ``rows.ready`` is
    high only while no row is in work. ``rows.p.first`` restarts the ring at word 0; otherwise the row's first slot lies
    ``advance_words`` behind that of the row before. ``ring_words`` must be a multiple of ``slot_words`` and ``advance_words``.

    The settings must be there in the cycle before a row is taken and not change while it is in work; ``width``, ``groups``
    and ``kernel_rows`` must not be 0. Reset discards the row. No row may be taken in the first cycle after it.

    Parameters
    ----------
    lanes : int
        Bytes per row buffer word; a power of two.
    words : int
        Words of the row buffer; a power of two.
    vectors : int
        Weight vectors; a power of two.
    masked : bool
        Build it with ``sparse``.

    Members
    -------
    rows : ``In(stream.Signature({first: 1}))``
    o : ``Out(stream.Signature(range_layout(...)))``
    word_mode, shared_weights, offset, width, x_step, range_last, groups, kernel_rows, slot_words, ring_words,
    advance_words, weight_base, sparse : ``In``
        Fields of the layer descriptor.
    """

    def __init__(self, *, lanes: int, words: int, vectors: int, masked: bool = False):
        require_powers_of_two(lanes=lanes, words=words, vectors=vectors)
        self._lanes, self._words, self._vectors = lanes, words, vectors
        position = bits_for(words * lanes - 1)
        pointer = bits_for(words)
        super().__init__(
            {
                "rows": In(stream.Signature(data.StructLayout({"first": 1}))),
                "o": Out(stream.Signature(range_layout(lanes=lanes, words=words, vectors=vectors))),
                "word_mode": In(1),
                "shared_weights": In(1),
                "offset": In(position),
                "width": In(10),
                "x_step": In(position),
                "range_last": In(position),
                "groups": In(8),
                "kernel_rows": In(6),
                "slot_words": In(pointer),
                "ring_words": In(range(words)),
                "advance_words": In(range(words)),
                "weight_base": In(range(vectors)),
                **({"sparse": In(1)} if masked else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lane_bits = exact_log2(self._lanes)

        active = Signal()
        offset = Signal.like(self.offset, reset_less=True)  # of this window in its slot
        group_offset = Signal.like(self.offset, reset_less=True)  # of the group's first window
        slot = Signal.like(self.ring_words, reset_less=True)  # first word of the kernel row's slot
        row_slot = Signal.like(self.ring_words, reset_less=True)  # first word of the output row's first slot
        index = Signal.like(self.weight_base, reset_less=True)  # weight vector of the range's first byte
        group_index = Signal.like(self.weight_base, reset_less=True)  # of the window's first byte

        start, step, window_end, group_end = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [start.eq(self.rows.valid & self.rows.ready), step.eq(self.o.valid & self.o.ready)]

        def countdown(count, enable, name):
            """Whether what is left of ``count`` is the last; all registers here depend on it, so it is found a step ahead."""
            gone, last = Signal.like(count, name=f"{name}_gone", reset_less=True), Signal(name=f"{name}_last", reset_less=True)
            load = start | last
            with m.If(start | enable):
                m.d.sync += gone.eq(counted(gone, load, ~count))
                m.d.sync += last.eq(Mux(load, count == 1, gone == ~Const(2, len(count))))
            return last

        ky_last = countdown(self.kernel_rows, step, "ky")
        x_last = countdown(self.width, window_end, "x")
        g_last = countdown(self.groups, group_end, "g")
        m.d.comb += [window_end.eq(step & ky_last), group_end.eq(window_end & x_last)]

        # A range of `range_last + 1` bytes that starts in lane `first` ends `first + range_last` behind lane 0.
        first = offset[:lane_bits]
        end = Signal(self.range_last.shape().width + 1)
        sparse = getattr(self, "sparse", Const(0))
        m.d.comb += [
            end.eq(first + self.range_last),
            self.o.valid.eq(active),
            self.o.p.address.eq(slot + offset[lane_bits:]),
            self.o.p.first.eq(first),
            self.o.p.words.eq(Mux(self.word_mode, self.range_last, end[lane_bits:])),
            self.o.p.final.eq(end[:lane_bits]),
            self.o.p.index.eq(index - Mux(sparse, 0, first)),
            self.o.p.last.eq(ky_last),
            self.o.p.tag.partial.eq(g_last),
            self.o.p.tag.group_last.eq(x_last),
            self.o.p.tag.row_last.eq(x_last & g_last),
            self.rows.ready.eq(~active),
        ]

        # The next slot, around the ring. Between rows `slot` is the first of the row before.
        next_slot, sum_ = Signal.like(slot), Signal.like(slot)
        next_index = Signal.like(index)
        m.d.comb += [
            sum_.eq(slot + Mux(active, self.slot_words, self.advance_words)),
            next_slot.eq(Mux((sum_ == self.ring_words) | (~active & self.rows.p.first), 0, sum_)),
            next_index.eq(index + Mux(sparse, end[lane_bits:], self.range_last) + 1),
        ]
        next_offset = group_offset + Mux(self.word_mode, self._lanes, 0)
        # What comes next does not depend on `step`, which comes late: it is only an enable.
        with m.If(step | start):
            with m.If(~active):
                m.d.sync += [active.eq(1), slot.eq(next_slot), row_slot.eq(next_slot)]
                m.d.sync += [offset.eq(group_offset), index.eq(group_index)]
            with m.Elif(~ky_last):
                m.d.sync += [slot.eq(next_slot), index.eq(next_index)]
            with m.Elif(~x_last):
                m.d.sync += [slot.eq(row_slot), offset.eq(offset + self.x_step), index.eq(group_index)]
            with m.Else():
                m.d.sync += [slot.eq(row_slot), offset.eq(next_offset), group_offset.eq(next_offset)]
                m.d.sync += index.eq(Mux(self.shared_weights, group_index, next_index))
                with m.If(~self.shared_weights):
                    m.d.sync += group_index.eq(next_index)
                with m.If(g_last):  # the first group waits for the next row
                    m.d.sync += [active.eq(0), group_offset.eq(self.offset), group_index.eq(self.weight_base)]
        with m.If(~active):
            m.d.sync += [group_offset.eq(self.offset), group_index.eq(self.weight_base)]
        if platform is None:
            settled = Signal()
            m.d.sync += settled.eq(1)
            with m.If(start):
                m.d.sync += Assert(settled, "a row must not be taken in the first cycle after reset")
                for setting in (self.width, self.groups, self.kernel_rows):
                    m.d.sync += Assert(setting != 0, f"{setting.name} must not be 0")
        return m
