"""Copies store words to where they are used."""

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from gossamer.golden.spec import DESCRIPTOR_BYTES, STEP_BYTES
from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.compressor import RATE_BITS
from gossamer.hdl.counter import counted
from gossamer.hdl.interleaved_decoder import InterleavedDecoder
from gossamer.hdl.row_decoder import RowDecoder
from gossamer.hdl.store import read_signature

__all__ = ["Loader", "Target", "command_layout"]


class Target(enum.Enum, shape=3):
    """Where the words go."""

    STEP = 0
    DESCRIPTOR = 1
    WEIGHTS = 2
    PARAMETERS = 3
    ROWS = 4
    MASKS = 5
    PALETTE = 6


def command_layout(*, store_words: int, count: int) -> data.StructLayout:
    """Store words from ``address`` on to ``target`` from granule ``index`` on, ``count`` being the granules of the deepest
    target. ``address`` has one bit more than the store needs. A ``blank`` row is padding only; of others ``coded`` says
    that they are compressed, ``signed`` that their bytes are around 128, and ``rate`` is that of their budget, or 0.
    ``group_end`` is handed through."""
    return data.StructLayout(
        {
            "target": Target,
            "address": (store_words - 1).bit_length() + 1,
            "index": range(count),
            "blank": 1,
            "group_end": 1,
            "coded": 1,
            "signed": 1,
            "rate": RATE_BITS,
        }
    )


class Loader(wiring.Component):
    """Reads store words, pads them and hands them on, one per cycle.

    The target decides how many words there are: those of a step or header (16 bytes) or of a descriptor (64 bytes); ``count``
    for weights, masks and parameters; and for rows ``slot_words`` words of the row buffer, of which only the granules from
    ``left_granules`` up to ``right_granule`` are read, the others being padding. In the last that is read the bytes from
    ``tail`` on are padding too.

    A word appears on ``write`` two cycles after the transfer of the command, and then every cycle in which the store is
    ready. ``i.ready`` is high from the cycle after the last word has been asked for.

    A read behind the store raises ``error`` in the next cycle, and while the store is not ready in those that follow; what
    it returns means nothing. No count may be 0. Reset drops the command in work.

    With ``in_nibbles`` or ``in_bits`` each word that is read makes two or eight words: each byte has the next four bits, or the
    double of the next bit. The word is read again for each.

    A compressed row is one unit of :func:`gossamer.golden.codec.encode`, of the granules that are not padding: group for
    group of ``lanes`` channels, in each pixel for pixel. It begins at the first granule behind the padding. From the last
    granule of a row buffer word it goes on ``pixel_step`` granules further; but ``turn_step`` granules further, if that granule
    is ``turn`` or one behind it; until it has come to the one in front of ``right_granule``, in which ``tail`` must have all
    bytes. The store is read in all cycles in which the row is in work, also ahead of what is needed. A value that is found is
    written in the next cycle, in which ``left`` is high too if behind a unit's last value there are bits that are not zero, see
    :class:`Decompressor`: with ``byte_writes`` on its own, by a ``mask`` that has just its byte; otherwise the granule is
    written with its last. If a value has bits from behind the store, ``error`` is high two cycles
    after it was found.

    With ``streams`` a compressed row has so many units, see :class:`InterleavedDecoder`, of each of which a value is found in
    a cycle, and granules are written two cycles after their last values are found.

    Parameters
    ----------
    lanes : int
        Bytes per row buffer word; a multiple of ``store_bytes``.
    store_bytes, store_words : int
        See :class:`Store`; ``store_bytes`` at most 16, so that a step has whole words.
    count : int
        Granules of the deepest target, at least the words of a descriptor.
    codec : str
        One of :data:`gossamer.golden.spec.CODECS`: how rows may be compressed.
    byte_writes : bool
        Values of compressed rows are written one by one, which spares a granule of registers; only if they have one unit.
    streams : int
        Units of a compressed row, a power of two up to ``store_bytes``. Without a codec it does not matter.
    nibbles, bits : bool
        Build it with ``in_nibbles``, ``in_bits``.

    Members
    -------
    i : ``In(stream.Signature(command_layout(...)))``
    read : ``Out(read_signature(...))``
    write : ``Out({en: 1, target: Target, index, data, row_data, mask, group_end: 1})``
        ``data`` is the store word; for rows ``row_data`` takes its place, with the padding, and ``mask`` has the bytes that are
        to be written. ``group_end`` is the command's, with its last word.
    error : ``Out(1)``
    left : ``Out(1)``
        Unless ``codec`` is ``off``.
    count : ``In(range(count + 1))``
        Must not change while a command for weights, masks or parameters is in work.
    left_granules, right_granule, slot_words, pad, tail, in_nibbles, in_bits : ``In``
        Fields of the layer descriptor; they must not change while a command for rows is in work. Unless ``codec`` is ``off``
        ``right_granule`` must not be 0.
    pixel_step, turn, turn_step : ``In``
        The same, unless ``codec`` is ``off``.
    """

    def __init__(
        self,
        *,
        lanes: int,
        store_bytes: int,
        store_words: int,
        count: int,
        codec: str = "off",
        byte_writes: bool = False,
        streams: int = 1,
        nibbles: bool = False,
        bits: bool = False,
    ):
        require_powers_of_two(store_bytes=store_bytes)
        require(store_bytes <= STEP_BYTES, f"store_bytes must be at most {STEP_BYTES}, not {store_bytes}")
        require(store_words >= 1, f"store_words must be at least 1, not {store_words}")
        require(
            lanes > 0 and lanes % store_bytes == 0, f"lanes must be a multiple of store_bytes ({store_bytes}), not {lanes}"
        )
        words = DESCRIPTOR_BYTES // store_bytes
        require(count >= words, f"count must be at least the words of a descriptor ({words}), not {count}")
        self._store_bytes, self._store_words = store_bytes, store_words
        self._granules = lanes // store_bytes
        self._decoder, self._byte_writes = None, byte_writes
        places = {}
        self._streams = streams
        if codec != "off":
            require(streams == 1 or not byte_writes, f"byte_writes must be for one stream, not {streams}")
            kind = {"lanes": lanes, "store_bytes": store_bytes, "bounded": codec == "bounded", "budgets": codec == "budgeted"}
            if streams == 1:
                self._decoder = RowDecoder(**kind, values=1 if byte_writes else store_bytes)
            else:
                self._decoder = InterleavedDecoder(**kind, streams=streams, store_words=store_words)
            wide = bits_for(count)
            places = {"left": Out(1), "pixel_step": In(8), "turn": In(wide), "turn_step": In(signed(wide))}
        # Values per byte, by the field that says that there are so many.
        self._packed = {name: count for name, count, there in (("in_nibbles", 2, nibbles), ("in_bits", 8, bits)) if there}
        places |= {name: In(1) for name in self._packed}
        super().__init__(
            {
                "i": In(stream.Signature(command_layout(store_words=store_words, count=count))),
                "read": Out(read_signature(store_bytes=store_bytes, store_words=store_words)),
                "write": Out(
                    wiring.Signature(
                        {
                            "en": Out(1),
                            "target": Out(Target),
                            "index": Out(range(count)),
                            "data": Out(8 * store_bytes),
                            "row_data": Out(8 * store_bytes),
                            "mask": Out(store_bytes),
                            "group_end": Out(1),
                        }
                    )
                ),
                "error": Out(1),
                "count": In(range(count + 1)),
                "left_granules": In(8),
                "right_granule": In(range(count + 1)),
                "slot_words": In(range(count // self._granules + 1)),
                "pad": In(8),
                "tail": In(5),
                **places,
            }
        )

    def elaborate(self, platform):
        m = Module()
        decoder = self._decoder
        active = Signal()
        command = Signal.like(self.i.p, reset_less=True)
        position, after, size = (Signal.like(self.count, name=name) for name in ("position", "after", "size"))
        # row_body: among the words of a row that are read
        rows, at_right, row_body = (Signal(name=name) for name in ("rows", "at_right", "row_body"))
        body, last, step = (Signal(name=name) for name in ("body", "last", "step"))
        start, outside, go_on = (Signal(name=name) for name in ("start", "outside", "go_on"))

        with m.Switch(command.target):
            for target, count in (
                (Target.STEP, STEP_BYTES // self._store_bytes),
                (Target.DESCRIPTOR, DESCRIPTOR_BYTES // self._store_bytes),
                (Target.ROWS, self.slot_words * self._granules),
            ):
                with m.Case(target):
                    m.d.comb += size.eq(count)
            with m.Default():
                m.d.comb += size.eq(self.count)
        m.d.comb += [
            start.eq(self.i.valid & self.i.ready),
            rows.eq(command.target == Target.ROWS),
            after.eq(position + 1),
            last.eq(after == size),
            body.eq(~rows | (row_body & ~command.blank)),
            outside.eq(command.address >= self._store_words),
            self.read.en.eq(active & body),
            self.read.address.eq(command.address),
            step.eq(active & (~body | self.read.ready)),
            go_on.eq(step & body),
            self.i.ready.eq(~active),
        ]
        first = Signal(reset_less=True)  # no word has been asked for
        with m.If(step):
            m.d.sync += [position.eq(after), first.eq(0)]
            with m.If(last):
                m.d.sync += active.eq(0)
        with m.If(start):
            m.d.sync += [active.eq(1), command.eq(self.i.p), position.eq(0), first.eq(1)]
        word, part_last = self._elaborate_unpacking(m, start, go_on, rows)
        with m.If(start | (go_on & part_last)):
            m.d.sync += command.address.eq(counted(command.address, start, self.i.p.address))

        # One cycle later the word is there, the position is that behind it, and the command is still the same.
        all_pad, tail_pad = Signal(), Signal()
        filling = Signal.like(self.pad)
        m.d.comb += [
            self.write.target.eq(command.target),
            self.write.mask.eq(~0),
            tail_pad.eq(rows & at_right),
            filling.eq(self.pad),
        ]
        m.d.sync += [
            self.write.en.eq(step),
            self.write.group_end.eq(last & command.group_end),
            self.error.eq(self.read.en & outside),
            all_pad.eq(~body),
        ]
        # Equalities, because a comparison would become an adder.
        behind_tail = [Cat(self.tail == tail for tail in range(byte + 1)).any() for byte in range(self._store_bytes)]
        pads = [all_pad | (tail_pad & behind) for behind in behind_tail]
        m.d.comb += self.write.data.eq(self.read.data)
        m.d.comb += self.write.row_data.eq(
            Cat(Mux(pads[b], filling, word.word_select(b, 8)) for b in range(self._store_bytes))
        )

        # Where the next position is, so that what depends on it begins with registers.
        to_right, coming, begins = Signal(), Signal(), Signal()
        empty = self.right_granule == 0 if decoder is None else Const(0)
        m.d.comb += [
            to_right.eq(after == self.right_granule),
            coming.eq((row_body | (after == self.left_granules)) & ~to_right),
            begins.eq((self.left_granules == 0) & ~empty),
        ]
        with m.If(step):
            m.d.sync += [at_right.eq(to_right), row_body.eq(coming)]
        with m.If(start):
            m.d.sync += [at_right.eq(empty), row_body.eq(begins)]

        if decoder is None:
            with m.If(start | (step & ~first)):
                m.d.sync += self.write.index.eq(counted(self.write.index, start, self.i.p.index))
        else:
            m.submodules.decoder = decoder
            # Of the next value, or the next ones, in their granule.
            several = self._store_bytes > self._streams
            number = Signal(range(self._store_bytes // self._streams)) if several else Const(0, 1)
            number_last = number.all() if several else decoder.found
            coded, final, jump = Signal(), Signal(), Signal()
            m.d.sync += self.write.index.eq(command.index + position)
            with m.If(start):
                m.d.sync += command.coded.eq(self.i.p.coded & ~self.i.p.blank)
            if several:
                with m.If(decoder.found):
                    m.d.sync += number.eq(number + 1)
            # The granule has several values: whether it is the row's last is found while they come, with the same adder as
            # then the place of the next granule.
            if several:
                with m.If(~number_last):
                    m.d.sync += final.eq(to_right)
            else:
                m.d.comb += final.eq(position + 1 == self.right_granule)
            # What the decoder's long way begins with is a register: whether a unit is in work in this cycle.
            run = Signal()
            with m.If(step):
                m.d.sync += run.eq(coming & coded & ~last)
            with m.If(start):
                m.d.sync += run.eq(begins & self.i.p.coded & ~self.i.p.blank)
            word_end = position[: exact_log2(self._granules)].all()
            m.d.comb += [
                jump.eq(number_last & word_end & ~final),
                after.eq(position + Mux(jump, Mux(position >= self.turn, self.turn_step, self.pixel_step), 1)),
                coded.eq(command.coded),
                self.left.eq(decoder.left),
                decoder.start.eq(start),
                decoder.word.eq(self.read.data),
                decoder.run.eq(run),
                decoder.signed.eq(command.signed),
                *([decoder.rate.eq(command.rate)] if hasattr(decoder, "rate") else []),
            ]
            with m.If(coded):
                m.d.comb += step.eq(active & (~body | (decoder.found & number_last)))
            self._elaborate_reading(m, active, coded, command.address, outside, go_on)
            if self._streams > 1:
                m.d.comb += decoder.final.eq(final & (number_last if several else 1))
                with m.If(coded & ~all_pad):
                    m.d.comb += self.write.row_data.eq(decoder.data)
            elif self._byte_writes:
                m.d.comb += [
                    filling.eq(Mux(decoder.valid, decoder.data, self.pad)),
                    self.write.mask.eq(Cat(~decoder.valid | (number == b) for b in (*range(1, self._store_bytes), 0))),
                ]
                m.d.sync += [
                    self.write.en.eq(step | decoder.found),
                    self.write.group_end.eq(last & step & command.group_end),
                    all_pad.eq(coded | ~body),
                ]
            else:
                with m.If(decoder.valid):
                    m.d.comb += self.write.row_data.eq(decoder.data)

        if platform is None:
            with m.If(active):
                m.d.sync += Assert(size != 0, "a command must be for at least one word")
        return m

    def _elaborate_unpacking(self, m, start, go_on, rows):
        """The word that was read, or what its next part becomes; and whether the part that is asked for is the word's last."""
        word, part_last = Signal(8 * self._store_bytes), Signal(init=1)
        m.d.comb += word.eq(self.read.data)
        if not self._packed:
            return word, Const(1)
        asked, part = Signal(3), Signal(3)  # the part that is asked for, and that which is there
        m.d.comb += part_last.eq(1)
        with m.If(start):
            m.d.sync += asked.eq(0)
        with m.Elif(go_on):
            m.d.sync += asked.eq(asked + 1)
        m.d.sync += part.eq(asked)
        for name, count in self._packed.items():
            size, number = 8 // count, exact_log2(count)
            part_bits = self.read.data.word_select(part[:number], len(word) // count)
            spread = (part_bits.word_select(b, size) << int(count == 8) for b in range(self._store_bytes))
            with m.If(getattr(self, name) & rows):
                m.d.comb += part_last.eq(asked[:number].all())
                m.d.comb += word.eq(Cat((Const(0, 8) | bits)[:8] for bits in spread))
        return word, part_last

    def _elaborate_reading(self, m, active, coded, address, outside, go_on):
        """Which words of a compressed row are read."""
        decoder = self._decoder
        if self._streams == 1:
            m.d.comb += [decoder.asked.eq(self.read.en & self.read.ready), decoder.outside.eq(outside)]
            with m.If(coded):
                m.d.comb += [self.read.en.eq(active), go_on.eq(decoder.next_word)]
                m.d.sync += self.error.eq(decoder.lost)
            return
        wanted = address + decoder.offset
        m.d.comb += [
            decoder.ready.eq(self.read.ready),
            decoder.outside.eq(wanted >= self._store_words),
        ]
        with m.If(coded):
            m.d.comb += [self.read.en.eq(active & decoder.want), self.read.address.eq(wanted), go_on.eq(0)]
            m.d.sync += self.error.eq(decoder.lost)
