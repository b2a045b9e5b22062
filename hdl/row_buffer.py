"""The rows of the current windows, with a bit per byte that says whether it is zero."""

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.counter import counted
from gossamer.hdl.store import UNCHECKED
from gossamer.hdl.window_generator import range_layout, tag_layout

__all__ = ["RowBuffer", "word_layout"]

BLOCK_WORDS = 256
"""Words from which on a row buffer is worth block RAM: it takes one for every 2 to 4 bytes of its width, of any depth."""


def word_layout(*, lanes: int, words: int, vectors: int, masked: bool = False) -> data.StructLayout:
    """A row buffer word of a range: ``mask`` has the bytes that are in the range and not zero; ``index`` is the weight
    vector of lane 0; ``last`` marks the window's last word; ``clamp`` asks for a clamp of the accumulators instead of
    a product (max pooling). If ``masked``, only the lanes in ``stored`` have a weight vector, ``index`` is that of the first
    of them, and no other is in ``mask``."""
    return data.StructLayout(
        {
            **({"stored": lanes} if masked else {}),
            "mask": lanes,
            "address": range(words),
            "index": range(vectors),
            "last": 1,
            "clamp": 1,
            "tag": tag_layout(),
        }
    )


class RowBuffer(wiring.Component):
    """Memory of input rows that is written in granules and read in words, and tells zeros before it is read.

    A range on ``i`` comes out as its words on ``o``, ``mask[l] = (byte l is in the range) & (byte l != 0)``. Words without a
    set bit are dropped, but for the last of a window. In word mode a range comes out as its beats instead: each word
    ``repeat`` times, then the word ``tap_step`` further, all with mask 1 and the index one higher every beat; the second
    repeat has ``clamp`` set if ``maximum``. The bytes themselves are read at ``read``.

    With ``binary`` no byte counts as zero.

    With ``sparse`` the index of a word is the number of a mask, that of the next word of the range one higher. From that mask's
    entry at ``stored`` come the word's ``stored`` lanes and, with ``vector_base`` added, its ``index``; ``mask`` has the stored
    lanes only.

    Throughput is one word per cycle, dropped ones included, without gaps from range to range. ``o.valid`` rises two cycles
    after the transfer of a range on ``i`` that finds the buffer idle. ``i.ready`` depends combinationally on ``o.ready``.
    ``read.data`` follows ``read.address`` by one cycle and holds while ``read.en`` is low. A granule written in one cycle is
    seen from the next.

    Of a granule the bytes are written that ``write.mask`` has; unless ``byte_writes``, it must have all.

    A word must not be written while it is being read, and in word mode ``repeat`` must not be 0. Reset discards ranges; the
    memory keeps its contents.

    Parameters
    ----------
    lanes : int
        Bytes per word; a power of two.
    granule : int
        Bytes per write; a power of two up to ``lanes``.
    byte_writes : bool
        Build the memories so that single bytes can be written.
    words, vectors : int
        See :func:`range_layout`. With fewer than ``BLOCK_WORDS`` words memories are made of LUTs, where synthesis can do that.
    masks : int
        Entries of the mask buffer; 0: it is built without ``sparse``.
    bits : bool
        Build it with ``binary``.

    Members
    -------
    i : ``In(stream.Signature(range_layout(...)))``
    o : ``Out(stream.Signature(word_layout(...)))``
    write : ``In({en: 1, address: granule number, data: granule bytes, mask: granule})``
    read : ``In({en: 1, address: word number, data: Out(word bytes)})``
    enable : ``In(1)``
        While this is low ranges and words stand still, and no transfer on ``o`` counts. Writes and reads go on.
    stored : ``Out({en: 1, address, data: In(lanes + 16)})``
        Read port of the mask buffer, if there are ``masks``: a bit for each lane, then the number of the first vector.
    word_mode, maximum, repeat, tap_step, sparse, vector_base, binary : ``In``
        Fields of the layer descriptor; they must not change while a range is in work.
    """

    def __init__(
        self,
        *,
        lanes: int,
        granule: int,
        words: int,
        vectors: int,
        byte_writes: bool = False,
        masks: int = 0,
        bits: bool = False,
    ):
        require_powers_of_two(lanes=lanes, granule=granule, words=words, vectors=vectors)
        require(granule <= lanes, f"granule must be at most lanes ({lanes}), not {granule}")
        self._lanes, self._granule, self._words, self._vectors = lanes, granule, words, vectors
        self._byte_writes, self._masks = byte_writes, masks
        granules = lanes // granule
        entry = {"en": Out(1), "address": Out(range(masks)), "data": In(lanes + 16)}
        masked = {"stored": Out(wiring.Signature(entry)), "sparse": In(1), "vector_base": In(range(vectors))}
        super().__init__(
            {
                "i": In(stream.Signature(range_layout(lanes=lanes, words=words, vectors=vectors))),
                "o": Out(stream.Signature(word_layout(lanes=lanes, words=words, vectors=vectors, masked=masks > 0))),
                "write": In(
                    wiring.Signature(
                        {
                            "en": Out(1),
                            "address": Out(range(words * granules)),
                            "data": Out(8 * granule),
                            "mask": Out(granule, init=(1 << granule) - 1),
                        }
                    )
                ),
                "read": In(wiring.Signature({"en": Out(1), "address": Out(range(words)), "data": In(8 * lanes)})),
                "enable": In(1, init=1),
                "word_mode": In(1),
                "maximum": In(1),
                "repeat": In(2),
                "tap_step": In(range(words)),
                **(masked if masks else {}),
                **({"binary": In(1)} if bits else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sub_bits = exact_log2(self._lanes // self._granule)

        attributes = UNCHECKED | ({"ram_style": "distributed"} if self._words < BLOCK_WORDS else {})
        m.submodules.bytes = bytes_ = Memory(shape=8 * self._lanes, depth=self._words, init=[], attrs=attributes)
        m.submodules.masks = masks = Memory(shape=self._lanes, depth=self._words, init=[], attrs=attributes)
        unit = 1 if self._byte_writes else self._granule  # bytes that are written together
        byte_write = bytes_.write_port(granularity=8 * unit)
        mask_write = masks.write_port(granularity=unit)
        byte_read, mask_read = bytes_.read_port(), masks.read_port()

        there = self.write.mask if self._byte_writes else Const(1, 1)
        within = Const(0, exact_log2(len(there)))
        nonzero = Cat(self.write.data.word_select(i, 8).any() for i in range(self._granule))
        for port, value in ((byte_write, self.write.data), (mask_write, nonzero)):
            m.d.comb += [
                port.addr.eq(self.write.address[sub_bits:]),
                port.data.eq(value.replicate(1 << sub_bits)),
                port.en.eq((there & self.write.en.replicate(len(there))) << Cat(within, self.write.address[:sub_bits])),
            ]
        m.d.comb += [
            byte_read.addr.eq(self.read.address),
            byte_read.en.eq(self.read.en),
            self.read.data.eq(byte_read.data),
        ]

        # Two stages, which move together: `word` is being looked up, `found` has its mask, and is kept if that has a set bit.
        active, found_valid, kept = Signal(), Signal(), Signal()
        word = Signal(range_layout(lanes=self._lanes, words=self._words, vectors=self._vectors), reset_less=True)
        turn = Signal(2)
        beside = {name: shape for name, shape in self.o.p.shape().members.items() if name not in ("mask", "stored")}
        bounds = {"first": range(self._lanes), "final": range(self._lanes)}  # lanes of its first and last byte in the range
        found = Signal(data.StructLayout({**beside, **bounds}), reset_less=True)
        begun = Cat(*(found.first <= lane for lane in range(self._lanes - 1)), Const(1, 1))
        inside = begun & Cat(Const(1, 1), *(found.final >= lane for lane in range(1, self._lanes)))
        step, take, move = Signal(), Signal(), Signal()  # take: a range, or none
        words_gone = Signal.like(word.words, reset_less=True)  # the complement of the words left
        range_end = words_gone.all()

        m.d.comb += [
            step.eq(self.enable & (~kept | self.o.ready)),
            take.eq(~active | range_end),
            move.eq(self.enable & (~active | step)),
            self.i.ready.eq(move & take),
            mask_read.addr.eq(word.address),
            mask_read.en.eq(step),
        ]
        # What comes next does not depend on `move`, which comes late: it is only an enable.
        turn_last = turn == self.repeat - 1
        sparse, binary = (getattr(self, name, Const(0)) for name in ("sparse", "binary"))
        with m.If(move):
            with m.If(take):
                m.d.sync += [active.eq(self.i.valid), word.eq(self.i.p), turn.eq(0)]
            with m.Else():
                m.d.sync += word.first.eq(0)
                with m.If(self.word_mode):
                    m.d.sync += turn.eq(Mux(turn_last, 0, turn + 1))
                with m.If(~self.word_mode | turn_last):
                    m.d.sync += word.address.eq(word.address + Mux(self.word_mode, self.tap_step, 0) + ~self.word_mode)
            # As in `counted`, the second operand is mostly `take`.
            increment = Mux(self.word_mode | sparse, 1, self._lanes) | take.replicate(len(word.index))
            m.d.sync += word.index.eq(Mux(take, self.i.p.index, word.index + increment))
            m.d.sync += words_gone.eq(counted(words_gone, take, ~self.i.p.words))

        stored = Const(-1, self._lanes)
        if self._masks:
            stored = self.stored.data[: self._lanes] | ~sparse.replicate(self._lanes)
            m.d.comb += [self.stored.en.eq(step), self.stored.address.eq(word.index)]
        mask = Signal(self._lanes)
        m.d.comb += [
            mask.eq(Mux(self.word_mode, 1, (mask_read.data | binary.replicate(self._lanes)) & inside & stored)),
            kept.eq(found_valid & (mask.any() | found.last)),
            self.o.valid.eq(kept),
            self.o.p.mask.eq(mask),
            *(self.o.p[name].eq(found[name]) for name in beside),
        ]
        if self._masks:
            m.d.comb += self.o.p.stored.eq(stored)
            with m.If(sparse):
                m.d.comb += self.o.p.index.eq(self.stored.data[self._lanes :] + self.vector_base)
        with m.If(step):
            m.d.sync += [
                *(found_valid.eq(active), found.last.eq(word.last & range_end)),
                *(found[name].eq(word[name]) for name in ("address", "index", "tag")),
                found.first.eq(word.first),
                found.final.eq(Mux(range_end, word.final, self._lanes - 1)),
                found.clamp.eq(self.maximum & (turn == 1)),
            ]

        if platform is None:
            with m.If(active & self.word_mode):
                m.d.sync += Assert(self.repeat != 0, "repeat must not be 0 in word mode")
            if not self._byte_writes:
                with m.If(self.write.en):
                    m.d.sync += Assert(self.write.mask.all(), "a granule must be written as a whole")
            for port, asks in ((byte_read, self.read.en), (mask_read, active & step)):
                with m.If(self.write.en & asks):
                    m.d.sync += Assert(port.addr != byte_write.addr, "a word must not be written while it is being read")
        return m
