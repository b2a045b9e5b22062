"""Puts output bytes, or partial sums, where they belong in the store."""

from amaranth.hdl import Array, Assert, Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.golden.spec import CODEC_CHUNK, CODEC_SLOT, PARAMETER_BYTES
from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.compressor import RATE_BITS, Compressor
from gossamer.hdl.counter import counted
from gossamer.hdl.interleaved_compressor import InterleavedCompressor
from gossamer.hdl.requantizer import output_layout
from gossamer.hdl.store import write_signature

__all__ = ["Writer"]

ROWS = 31
"""Rows whose outputs may be under way to the writer. There are fewer places between the row buffer and it."""


class Writer(wiring.Component):
    """Packs output bytes into store words and writes them.

    The bytes of a window go to consecutive addresses. The first row's first window begins at ``out_address``; the next window
    of a group ``out_x_step`` behind the one before; the next group behind where the group before began by as many bytes as a
    group has: ``lanes``, with ``int4`` twice as many, with ``out_nibbles`` half as many, with ``out_bits`` an eighth; the next
    row ``out_row_step`` behind where the last group of the row before began. The tag ``row_last`` comes only together with
    ``group_last``.

    With ``partial_out`` each transfer brings an ``entry`` of 8 bytes instead, and every window begins ``out_x_step`` behind the
    one before.

    A word is written in the cycle after its last byte has come, or the last byte of the window; bytes that did not come are
    masked. ``i.ready`` is always high, and the store must take every write at once.

    With ``out_coded`` the bytes of a row become one unit of :func:`gossamer.golden.codec.encode`, written halfword by halfword,
    the next ``out_x_step`` behind the one before; ``out_row_step`` is then also the size of a row's slot in bytes. A halfword
    is written three cycles after the byte that fills it has come, or the row's last byte; if the code of that fills one and
    begins another, this follows one cycle later. A halfword that is behind its slot is not written, and neither are those of
    the row that follow; each raises ``overflow`` for one cycle instead.

    With ``streams`` a row has so many units, see :class:`InterleavedCompressor`; the bytes that belong to each of its last
    window's last ``streams`` are their last ones. The units take turns in the slot, in chunks of ``max(8, streams)`` bytes, and
    what is said of a row and its slot is so of each unit and its part of the slot. Where units end, halfwords may be written
    later, one per cycle; ``i.ready`` is always high still.

    ``start`` begins a run at ``out_address``; its first transfer comes two cycles later at the earliest. ``row_done``
    announces a row; ``idle`` is high from the cycle after the announced rows have been written to the next announcement. A
    row must be announced at the latest with its last byte; not more than :data:`ROWS` may be under way. A word outside the
    store, or below ``image_words``, is not written and raises ``error`` for one cycle.

    ``host`` is a way to the store for others: the word goes out one cycle later, wherever it is. It must not be used during
    a run. Reset ends the run.

    Parameters
    ----------
    lanes : int
        Bytes from one group to the next, at least 1.
    store_bytes, store_words : int
        See :class:`Store`.
    codec : str
        One of :data:`gossamer.golden.spec.CODECS`.
    streams : int
        Units of a compressed row, a power of two up to ``store_bytes`` of which ``lanes`` is a multiple. Without a codec it
        does not matter.
    nibbles, bits, int4 : bool
        Build it with ``out_nibbles``, ``out_bits``, ``int4``.

    Members
    -------
    i : ``In(stream.Signature(output_layout()))``
    entry : ``In(64)``
        With ``partial_out``, the data of a transfer.
    write : ``Out(write_signature(...))``
    host : ``In(write_signature(...))``
    start : ``In(1)``
    idle, error, overflow : ``Out(1)``
    out_address : ``In``
        Byte; one bit more than the store needs, so that an address behind it is seen. Sampled at start.
    row_done : ``In(1)``
    image_words, partial_out, out_x_step, out_row_step : ``In``
        Must not change during a run.
    out_coded, out_signed : ``In(1)``
        The same, unless ``codec`` is ``off``. With ``out_coded`` slots are whole halfwords, up to ``CODEC_SLOT`` bytes, and
        begin at one; those of several units are whole chunks of each, and begin at a store word.
    last_lanes : ``In``
        With ``streams``, the same: bytes of the last window of a row; with ``out_coded`` a multiple of ``streams``.
    out_nibbles, out_bits, int4 : ``In(1)``
        The same, if it is built with them.
    out_rate : ``In(7)``
        The same, if ``codec`` is ``budgeted``.
    """

    def __init__(
        self,
        *,
        lanes: int,
        store_bytes: int,
        store_words: int,
        codec: str = "off",
        streams: int = 1,
        nibbles: bool = False,
        bits: bool = False,
        int4: bool = False,
    ):
        require(lanes >= 1, f"lanes must be at least 1, not {lanes}")
        require_powers_of_two(store_bytes=store_bytes)
        require(store_words >= 1, f"store_words must be at least 1, not {store_words}")
        self._lanes, self._store_bytes, self._store_words = lanes, store_bytes, store_words
        self._compressor, self._streams = None, streams if codec != "off" else 1
        if codec != "off":
            kind = {"lanes": lanes, "bounded": codec == "bounded", "budgets": codec == "budgeted"}
            self._compressor = Compressor(**kind) if streams == 1 else InterleavedCompressor(**kind, streams=streams)
        address_bits = exact_log2(store_bytes) + (store_words - 1).bit_length() + 1
        self._packed = {name: count for name, count, there in (("out_nibbles", 2, nibbles), ("out_bits", 8, bits)) if there}
        self._int4 = int4
        super().__init__(
            {
                "i": In(stream.Signature(output_layout())),
                "entry": In(8 * PARAMETER_BYTES),
                "write": Out(write_signature(store_bytes=store_bytes, store_words=store_words)),
                "host": In(write_signature(store_bytes=store_bytes, store_words=store_words)),
                "start": In(1),
                "idle": Out(1),
                "error": Out(1),
                "overflow": Out(1),
                "out_address": In(address_bits),
                "row_done": In(1),
                "image_words": In(range(store_words)),
                "partial_out": In(1),
                "out_x_step": In(12),
                "out_row_step": In(address_bits),
                **({} if codec == "off" else {"out_coded": In(1), "out_signed": In(1)}),
                **({"out_rate": In(RATE_BITS)} if codec == "budgeted" else {}),
                **{name: In(1) for name in self._packed},
                **({"int4": In(1)} if int4 else {}),
                **({"last_lanes": In(range(lanes + 1))} if self._streams > 1 else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        byte_bits, entry_bits = exact_log2(self._store_bytes), exact_log2(PARAMETER_BYTES)

        # Where the first window of the group and this window begin.
        group, window = Signal.like(self.out_address, reset_less=True), Signal.like(self.out_address, reset_less=True)
        lane = Signal(range(self._lanes << self._int4), reset_less=True)
        byte = Signal.like(self.out_address)  # where the next byte goes
        under_way = Signal(range(ROWS + 1))
        # The word that is being packed; `full` says that it goes to the store now.
        data, mask = Signal(8 * self._store_bytes, reset_less=True), Signal(self._store_bytes)
        word = Signal(len(self.out_address) - byte_bits, reset_less=True)
        full, allowed = Signal(), Signal()
        # What comes: bytes, entries or halfwords.
        valid, last, group_last, row_last = (Signal(name=name) for name in ("valid", "last", "group_last", "row_last"))
        plain, over, refused = Signal(16), Signal(), Signal()
        coded = Const(0) if self._compressor is None else self.out_coded

        m.d.comb += [
            valid.eq(self.i.valid),
            last.eq(self.i.p.last),
            group_last.eq(self.i.p.tag.group_last),
            row_last.eq(self.i.p.tag.row_last),
            plain.eq(self.i.p.data.replicate(2)),
            self.i.ready.eq(1),
            byte.eq(window + Mux(self.partial_out, lane << entry_bits, lane)),
            self.write.en.eq(full & allowed),
            self.write.address.eq(word),
            self.write.data.eq(data),
            self.write.mask.eq(mask),
            self.error.eq(full & ~allowed & ~refused),
            self.overflow.eq(full & ~allowed & refused),
            self.idle.eq((under_way == 0) & ~full),
        ]

        position = byte[:byte_bits]
        step = Signal.like(byte)  # to the next window
        if self._compressor is not None:
            self._elaborate_codec(m, valid, last, group_last, row_last, plain, over, byte)
        row_moves, group_moves = row_last & ~self.partial_out, group_last & ~self.partial_out
        group_step = Mux(self.int4, 2 * self._lanes, self._lanes) if self._int4 else Const(self._lanes)
        for name, count in self._packed.items():
            group_step = Mux(getattr(self, name), group_step // count, group_step)
        m.d.comb += step.eq(Mux(row_moves, self.out_row_step, Mux(group_moves, group_step, self.out_x_step)))
        moved = Mux(group_moves, group, window) + step  # a row's last window is its last group's last
        row_end = valid & last & row_last
        m.d.sync += under_way.eq(under_way + self.row_done - row_end)

        m.d.sync += full.eq(0)
        with m.If(full):
            m.d.sync += mask.eq(0)
        # What goes into the word: a byte or an entry at its position, or a whole word of the host's.
        parts = self._store_bytes // PARAMETER_BYTES
        given = Mux(self.host.en, self.host.data, plain.replicate((self._store_bytes + 1) // 2))
        given = Mux(self.partial_out & valid, self.entry.replicate(parts), given)
        there = Cat(
            Mux(
                self.partial_out,
                position[entry_bits:] == k // PARAMETER_BYTES,
                Mux(coded, position[1:] == k // 2, position == k),
            )
            for k in range(self._store_bytes)
        )
        for k in range(self._store_bytes):
            with m.If(self.host.en | (valid & there[k])):
                m.d.sync += data.word_select(k, 8).eq(given.word_select(k, 8))
        with m.If(valid):
            m.d.sync += [
                mask.eq(Mux(full, 0, mask) | there),
                word.eq(byte[byte_bits:]),
                allowed.eq((byte[byte_bits:] >= self.image_words) & (byte[byte_bits:] < self._store_words) & ~over),
                refused.eq(over),
                full.eq(last | there[-1]),
                lane.eq(lane + 1),
            ]
            with m.If(last):
                m.d.sync += [window.eq(moved), lane.eq(0)]
                with m.If(group_last):
                    m.d.sync += group.eq(moved)
        # The first window begins where its group does; that is known a cycle later.
        started = Signal()
        m.d.sync += started.eq(self.start)
        with m.If(self.start):
            m.d.sync += [group.eq(self.out_address), lane.eq(0)]
        with m.If(started):
            m.d.sync += window.eq(group)
        with m.If(self.host.en):
            m.d.sync += [word.eq(self.host.address), mask.eq(self.host.mask)]
            m.d.sync += [full.eq(1), allowed.eq(1)]

        if platform is None:
            with m.If(self.row_done & ~row_end):
                m.d.sync += Assert(under_way != ROWS, f"not more than {ROWS} rows may be under way")
            with m.If(row_end & ~self.row_done):
                m.d.sync += Assert(under_way != 0, "a row must be announced before it has ended")
            with m.If(self.i.valid):
                m.d.sync += [
                    Assert(~self.start & ~started, "the first transfer must come two cycles after start"),
                    Assert(self.i.p.last | (~lane.all()), f"a window must have at most {1 << len(lane)} bytes"),
                    Assert(group_last | ~row_last, "a row's last window must be its group's last"),
                ]
            with m.If(self.host.en):
                m.d.sync += Assert((under_way == 0) & ~self.i.valid, "the host must not write during a run")
        return m

    def _elaborate_codec(self, m, valid, last, group_last, row_last, plain, over, byte):
        """With ``out_coded``, halfwords take the place of what comes; ``over`` if there is no room for one in its slot."""
        m.submodules.compressor = compressor = self._compressor
        m.d.comb += [
            compressor.signed.eq(self.out_signed),
            *([compressor.rate.eq(self.out_rate)] if hasattr(self, "out_rate") else []),
            compressor.i.valid.eq(self.i.valid & self.out_coded),
            compressor.i.p.data.eq(self.i.p.data),
        ]
        with m.If(self.out_coded):
            m.d.comb += [
                valid.eq(compressor.o.valid),
                plain.eq(compressor.o.p.data),
                last.eq(1),
                group_last.eq(row_last),
            ]
        if self._streams > 1:
            self._elaborate_units(m, byte, row_last, over)
            return
        gone = Signal(range(CODEC_SLOT // 2 + 1), reset_less=True)  # the complement of the halfwords that the slot has left
        m.d.comb += [
            compressor.o.ready.eq(1),
            compressor.i.p.last.eq(self.i.p.last & self.i.p.tag.row_last),
            over.eq(self.out_coded & gone.all()),
        ]
        with m.If(self.out_coded):
            m.d.comb += row_last.eq(compressor.o.p.last)
        begin = self.start | (compressor.o.valid & compressor.o.p.last)
        with m.If(begin | (compressor.o.valid & ~gone.all())):
            m.d.sync += gone.eq(counted(gone, begin, ~self.out_row_step[1 : 1 + len(gone)]))

    def _elaborate_units(self, m, byte, row_last, over):
        """Of rows of several units: the place of the halfword that comes, its unit's row and what the unit has of it."""
        compressor, streams = self._compressor, self._streams
        unit_bits, chunk_bits = exact_log2(streams), exact_log2(max(CODEC_CHUNK, streams)) - 1  # of halfwords
        starts = Array(Signal.like(self.out_address, name=f"start_{unit}", reset_less=True) for unit in range(streams))
        counts = Array(Signal(range(CODEC_SLOT // 2 + 1), name=f"count_{unit}", reset_less=True) for unit in range(streams))
        number = Signal(range(self._lanes))  # of the byte that comes, in its window
        ended = Signal(unit_bits)  # units of the row
        o = compressor.o
        start, count = Signal.like(self.out_address), Signal.like(counts[0])
        m.d.comb += [
            start.eq(starts[o.p.unit]),
            count.eq(counts[o.p.unit]),
            compressor.i.p.last.eq(
                self.i.p.tag.row_last & (number[unit_bits:] + 1 == self.last_lanes[unit_bits:])
            ),
            over.eq(self.out_coded & (count == self.out_row_step[1 + unit_bits :][: len(count)])),
        ]
        with m.If(self.out_coded):
            place = Cat(count[:chunk_bits], o.p.unit, count[chunk_bits:]) << 1
            m.d.comb += [byte.eq(start + place), row_last.eq(o.p.last & ended.all())]
        with m.If(self.i.valid):
            m.d.sync += number.eq(Mux(self.i.p.last, 0, number + 1))
        with m.If(o.valid):
            m.d.sync += counts[o.p.unit].eq(Mux(o.p.last, 0, count + ~over))
            with m.If(o.p.last):
                m.d.sync += [starts[o.p.unit].eq(start + self.out_row_step), ended.eq(ended + 1)]
        with m.If(self.start):
            m.d.sync += [number.eq(0), ended.eq(0)]
            m.d.sync += [each.eq(self.out_address) for each in starts]
            m.d.sync += [each.eq(0) for each in counts]
