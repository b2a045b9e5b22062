"""Tiling: a layer in the machine's terms, cut into run steps that fit the buffers of a configuration.

A kernel is computed in one run step if everything fits. Otherwise it is cut, in this order of preference:

* output channel *groups*, until the weights and the parameters of a step fit;
* output *columns*, until the input rows that their windows cover fit the row buffer;
* the *window* itself, its kernel rows first and then the bytes of a kernel row, until what is left fits. The sums of all parts
  but the last go to the store as *partial sums*: entries of the parameter buffer, whose biases they are in the next part.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.program import Record
from gossamer.golden.spec import PARAMETER, PARAMETER_BYTES, Config

__all__ = ["Coding", "Kernel", "Map", "Piece", "Position", "cut", "cut_window", "descriptor", "rows_read", "whole_rows"]

Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Map:
    """A feature map in the bytes of tensor ``name``: ``pitch`` values from one pixel to the next, of which ``offset`` lie in
    front of the map's, and the layer that computes it writes ``written``. A byte of the store holds ``per_byte`` values, one of
    the row buffer a single one."""

    name: str
    rows: int
    columns: int
    channels: int
    pitch: int
    offset: int
    written: int
    zero_point: int
    per_byte: int = 1

    @property
    def bias(self) -> int:
        """What a byte of the row buffer is greater than the value for which it stands."""
        return {1: 128, 2: 8, 8: 1}[self.per_byte]

    @property
    def outside(self) -> int:
        """The value in front of and behind the map."""
        return -1 if self.per_byte == 8 else self.zero_point


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A layer, or a part of its outputs, in the machine's terms.

    The window of output pixel ``(y, x)`` starts at pixel ``origin + (y, x)*stride`` of ``source``, and the output goes to pixel
    ``place + (y, x)`` of ``target``. ``weights`` is ``(groups, kernel_rows, beats, group)`` int8, ``groups`` being 1 if they
    are shared: a kernel row has a beat for each of its bytes, or in word mode ``repeat`` for each of its pixels.
    ``parameters`` is ``(groups, group, 8)`` or, for an addition, ``(1, 256, 8)`` uint8. ``fields`` are the descriptor's that
    say what is computed.

    The rows of an addition's ``source`` are those of its two inputs in turn; its window in the second starts ``second`` pixels
    further to the right than in the first. Of ``sparse`` weights the vectors that are zero in all lanes are left out, and masks
    say which; then all windows must begin in the same lane of the row buffer.
    """

    name: str
    inputs: tuple[str, ...]
    source: Map
    target: Map
    weights: NDArray[np.int8]
    parameters: NDArray[np.uint8]
    fields: Record
    stride: Pair
    origin: Pair
    place: Pair
    rows: int
    columns: int
    second: int = 0
    sparse: bool = False

    @property
    def group(self) -> int:
        """Output channels of a group: as many as there are lanes, with weights of four bits twice as many."""
        return self.weights.shape[3]

    @property
    def lanes(self) -> int:
        return self.group >> self.fields["int4"]

    @property
    def groups(self) -> int:
        """Output channel groups."""
        return -(-self.target.written // self.group)

    @property
    def kernel_rows(self) -> int:
        return self.weights.shape[1]

    @property
    def beats(self) -> int:
        """Weight vectors of a kernel row."""
        return self.weights.shape[2]

    @property
    def word_mode(self) -> bool:
        """Whether it reads whole words."""
        return bool(self.fields["word_mode"])

    @property
    def shared(self) -> bool:
        """Whether all groups use the same weights."""
        return len(self.weights) < self.groups

    @property
    def divisible(self) -> bool:
        """Whether its windows can be cut."""
        return not self.fields["maximum"] and not self.fields["add"]

    @property
    def vectors_issued(self) -> int:
        """Weight vectors that all windows together issue, if no activation is zero."""
        stored = int(self._nonzero.sum()) if self.sparse else self.groups * self.kernel_rows * self.beats
        return self.rows * self.columns * stored

    def weights_of(self, piece: "Piece") -> bytes:
        """The weights that a piece needs, in the order in which they lie in the buffer."""
        groups = slice(0, 1) if self.shared else _slice(piece.groups)
        weights = self.weights[groups, _slice(piece.kernel_rows), _slice(piece.beats)]
        if self.sparse:
            weights = weights[self._stored(piece.groups, piece.kernel_rows, piece.beats)]
        if self.fields["int4"]:
            weights = weights[..., : self.lanes] & 15 | weights[..., self.lanes :] << 4
        return weights.tobytes()

    def group_vectors(self, piece: "Piece") -> list[int]:
        """How many of the weight vectors that a piece needs each of its groups has; of shared ones there is one group."""
        if self.sparse:
            return [int(count) for count in self._stored(piece.groups, piece.kernel_rows, piece.beats).sum((1, 2))]
        return [len(piece.kernel_rows) * len(piece.beats)] * (1 if self.shared else len(piece.groups))

    @functools.cached_property
    def _nonzero(self) -> NDArray[np.bool_]:
        return np.asarray(self.weights.any(3))

    def _stored(self, groups: range, kernel_rows: range, beats: range) -> NDArray[np.bool_]:
        """Of a part of sparse weights, ``(groups, kernel_rows, beats)``: whether a vector is not zero."""
        return self._nonzero[_slice(groups), _slice(kernel_rows), _slice(beats)]

    def vectors(self, kernel_rows: range, beats: range) -> int:
        """Weight vectors of a part of the window, in the group that has most."""
        if self.sparse:
            return int(self._stored(range(self.groups), kernel_rows, beats).sum((1, 2)).max())
        return len(kernel_rows) * len(beats)

    def phase(self, columns: range, beats: range) -> int:
        """The lane of the row buffer in which a part of the window begins, if the map's rows begin in lane 0."""
        first = (self.origin[1] + columns.start * self.stride[1]) * self.source.pitch
        return (first + beats.start) % self.lanes

    def masks(self, columns: range, kernel_rows: range, beats: range) -> int:
        """Masks of a part of the window: one for each word of the row buffer that it touches."""
        return len(kernel_rows) * ((self.phase(columns, beats) + len(beats) - 1) // self.lanes + 1) if self.sparse else 0

    def masks_of(self, piece: "Piece", config: Config) -> bytes:
        """The masks that a piece needs, in the order in which they lie in the buffer."""
        stored = self._stored(piece.groups, piece.kernel_rows, piece.beats)
        phase = self.phase(piece.columns, piece.beats)
        behind = -(phase + len(piece.beats)) % self.lanes
        words = np.pad(stored, ((0, 0), (0, 0), (phase, behind))).reshape(-1, self.lanes)
        counts = words.sum(1)
        entries = np.zeros((len(words), config.mask_bytes), np.uint8)
        entries[:, : self.lanes // 8] = np.packbits(words, axis=1, bitorder="little")
        first = (counts.cumsum() - counts).astype("<u2")
        entries[:, self.lanes // 8 : self.lanes // 8 + 2] = first[:, None].view(np.uint8)
        return entries.tobytes()

    def parameters_of(self, piece: "Piece") -> bytes:
        """The same of parameters, if they are not partial sums."""
        return self.parameters[slice(None) if self.fields["add"] else _slice(piece.groups)].tobytes()


@dataclasses.dataclass(frozen=True)
class Piece:
    """What one run step computes of a kernel: output ``groups``, ``rows`` and ``columns``, and of each window ``kernel_rows``
    and ``beats``. With ``partial_in`` the sums of the windows' other parts are its biases, with ``partial_out`` its sums are
    such; ``partial_at`` counts the windows that lie in front of its own in the area of partial sums."""

    groups: range
    rows: range
    columns: range
    kernel_rows: range
    beats: range
    partial_in: bool = False
    partial_out: bool = False
    partial_at: int = 0

    @property
    def windows(self) -> int:
        """Windows of ``lanes`` sums."""
        return len(self.groups) * len(self.rows) * len(self.columns)


def _slice(numbers: range) -> slice:
    return slice(numbers.start, numbers.stop)


def _parts(numbers: range, most: int) -> list[range]:
    """Cut into as few parts as possible of at most ``most``, of about one size."""
    count = -(-len(numbers) // most)
    size = -(-len(numbers) // count)
    return [range(start, min(start + size, numbers.stop)) for start in range(numbers.start, numbers.stop, size)]


# Limits of the sequencer's counters, gossamer.hdl.sequencer.descriptor_layout.
MOST_COLUMNS = 1023
MOST_ROWS = 2047
MOST_KERNEL_ROWS = 63
MOST_GROUPS = 255


def cut(kernel: Kernel, config: Config, refuse: Callable[[str], Exception], rows: int | None = None) -> list[Piece]:
    """The run steps of a kernel, or of its first ``rows`` output rows, in order. What cannot be cut to fit raises
    ``refuse(sentence)``."""
    rows = kernel.rows if rows is None else rows
    whole = Piece(range(kernel.groups), range(rows), range(kernel.columns), range(kernel.kernel_rows), range(kernel.beats))
    worst = None
    for kernel_rows, beats in _windows(kernel, config):
        partial = len(kernel_rows) * len(beats) > 1
        worst = _overflow(kernel, kernel_rows, beats, config)
        if worst is not None:
            continue
        most = min(kernel.columns, MOST_COLUMNS)
        if partial:
            most = min(most, config.parameters // kernel.group)
        while most > 1 and not _fits(kernel, whole, kernel_rows, beats, most, config):
            most = -(-most // 2)
        if _fits(kernel, whole, kernel_rows, beats, most, config):
            _check_partial_sums(kernel, kernel_rows, beats, refuse)
            return list(_pieces(kernel, whole, kernel_rows, beats, _parts(whole.columns, most), config))
    if worst is not None:
        raise refuse(
            f"layer {kernel.name!r}: its sums must fit the {config.acc_bits} bits of an accumulator, and can reach {worst}"
        )
    vectors = kernel.vectors(whole.kernel_rows, whole.beats)
    if vectors > config.weight_vectors and not kernel.divisible:
        raise refuse(
            f"layer {kernel.name!r} needs {vectors} weight vectors per {kernel.group} output channels, and the weight buffer "
            f"of configuration {config.name!r} has {config.weight_vectors}"
        )
    if kernel.kernel_rows > MOST_KERNEL_ROWS and not kernel.divisible:
        raise refuse(f"layer {kernel.name!r} must have at most {MOST_KERNEL_ROWS} kernel rows, not {kernel.kernel_rows}")
    needed = _ring(kernel, dataclasses.replace(whole, columns=range(1), rows=range(1)), config)["ring_words"]
    raise refuse(
        f"layer {kernel.name!r} needs {needed} words of {config.lanes} bytes for the input rows of a window, and the row "
        f"buffer of configuration {config.name!r} has {config.row_words}"
    )


def cut_window(kernel: Kernel, config: Config, refuse: Callable[[str], Exception], most: int) -> list[list[Piece]]:
    """The run steps of a kernel with one output pixel, in order, in lists that read at most ``most`` input rows each. Empty if
    there is nothing to gain, or something does not fit."""
    whole = Piece(range(kernel.groups), range(1), range(1), range(kernel.kernel_rows), range(kernel.beats))
    if (kernel.rows, kernel.columns) != (1, 1) or not kernel.divisible or most >= kernel.kernel_rows:
        return []
    most = min(most, config.weight_vectors // kernel.beats)
    if not most:
        return []
    parts, beats = _parts_of(whole.kernel_rows, most), [whole.beats]
    if _overflow(kernel, parts, beats, config) is not None or not _fits(kernel, whole, parts, beats, 1, config):
        return []
    _check_partial_sums(kernel, parts, beats, refuse)
    vectors = 0 if kernel.shared else max(kernel.vectors(part, whole.beats) for part in parts)
    groups = min(config.parameters // 2 // kernel.group, config.weight_vectors // 2 // max(vectors, 1), MOST_GROUPS)
    masks = max(kernel.masks(whole.columns, part, whole.beats) for part in parts)
    if masks > config.masks:
        return []
    groups = min(groups, config.masks // 2 // masks if masks else groups)
    return [
        [
            dataclasses.replace(
                whole,
                groups=some,
                kernel_rows=part,
                partial_in=part.start > 0,
                partial_out=part.stop < kernel.kernel_rows,
                partial_at=some.start,
            )
            for some in _parts(whole.groups, max(groups, 1))
        ]
        for part in parts
    ]


def _windows(kernel: Kernel, config: Config) -> Iterator[tuple[list[range], list[range]]]:
    """Ways to cut a window, the coarsest first: ranges of kernel rows, and of beats."""
    rows, beats = range(kernel.kernel_rows), range(kernel.beats)

    def fits(some_rows: list[range], some_beats: list[range]) -> bool:
        masks = max(kernel.masks(range(1), rows, beats) for rows in some_rows for beats in some_beats)
        vectors = max(kernel.vectors(rows, beats) for rows in some_rows for beats in some_beats)
        return vectors <= config.weight_vectors and masks <= config.masks

    for size in range(min(len(rows), MOST_KERNEL_ROWS), 0, -1):
        if (size == len(rows) or kernel.divisible) and fits(_parts(rows, size), [beats]):
            yield _parts(rows, size), [beats]
    if not kernel.divisible:
        return
    # A kernel row is cut at a word of the row buffer; in word mode every beat is one.
    unit = 1 if kernel.word_mode else config.lanes
    for size in range(-(-kernel.beats // unit), 0, -1):
        if fits(_parts(rows, 1), _parts_of(beats, size * unit)):
            yield _parts(rows, 1), _parts_of(beats, size * unit)


def _parts_of(beats: range, size: int) -> list[range]:
    return [range(start, min(start + size, beats.stop)) for start in range(0, beats.stop, size)]


def _overflow(kernel: Kernel, kernel_rows: list[range], beats: list[range], config: Config) -> int | None:
    """A sum of a part of a window that does not fit an accumulator. On the way it may leave it, because wrapping twice is
    exact."""
    if not kernel.divisible:
        return None
    limit = 1 << config.acc_bits - 1
    if kernel.fields["binary"]:
        most = 16 * len(kernel_rows[0]) * len(beats[0])
        return most if most >= limit else None
    if 255 * 128 * len(kernel_rows[0]) * len(beats[0]) < limit:
        return None
    for rows in kernel_rows:
        for part in beats:
            some = 255 * kernel.weights[:, _slice(rows), _slice(part)].astype(np.int64)
            low, high = int(np.minimum(some, 0).sum((1, 2)).min()), int(np.maximum(some, 0).sum((1, 2)).max())
            if low < -limit:
                return low
            if high >= limit:
                return high
    return None


def _check_partial_sums(
    kernel: Kernel, kernel_rows: list[range], beats: list[range], refuse: Callable[[str], Exception]
) -> None:
    """With their biases the sums of all parts but the last must fit an entry of the parameter buffer."""
    if len(kernel_rows) * len(beats) == 1 or kernel.fields["binary"]:
        return
    bias = PARAMETER["bias"]
    limit = 1 << bias.width - 1
    biases = np.ascontiguousarray(kernel.parameters).view("<i8")[..., 0] >> bias.offset  # the highest bits of an entry
    weights = 255 * kernel.weights.astype(np.int64)
    weights[:, _slice(kernel_rows[-1]), _slice(beats[-1])] = 0
    low = int((biases + np.minimum(weights, 0).sum((1, 2))).min())
    high = int((biases + np.maximum(weights, 0).sum((1, 2))).max())
    if low < -limit or high >= limit:
        worst = low if low < -limit else high
        raise refuse(f"layer {kernel.name!r}: its partial sums must fit {bias.width} bits, and can reach {worst}")


def _fits(
    kernel: Kernel, whole: Piece, kernel_rows: list[range], beats: list[range], columns: int, config: Config
) -> bool:
    """Whether the row buffer holds the input rows of all pieces with so many output columns."""
    for tile in _parts(whole.columns, columns):
        for taps in beats:
            piece = dataclasses.replace(whole, columns=tile, kernel_rows=kernel_rows[0], beats=taps)
            if _ring(kernel, piece, config)["ring_words"] > config.row_words:
                return False
    return True


def _pieces(
    kernel: Kernel, whole: Piece, kernel_rows: list[range], beats: list[range], columns: list[range], config: Config
) -> Iterator[Piece]:
    vectors = 0 if kernel.shared else max(kernel.vectors(rows, part) for rows in kernel_rows for part in beats)
    entries = 0 if kernel.fields["add"] else kernel.group
    masks = max(kernel.masks(tile, rows, part) for tile in columns for rows in kernel_rows for part in beats)
    stride = kernel.stride[0]
    most_rows = max((MOST_ROWS - len(kernel_rows[0])) // stride, 1)
    taps = [(rows, part) for rows in kernel_rows for part in beats]
    if len(taps) == 1:
        # If not all weights or parameters fit, each step gets those that fit half of their buffer, so that the next step's
        # can be loaded meanwhile.
        most = min(kernel.groups, MOST_GROUPS)
        for size, each in ((config.weight_vectors, vectors), (config.parameters, entries), (config.masks, masks)):
            if kernel.groups * each > size:
                most = min(most, max(1, size // 2 // each))
        for start in range(0, kernel.groups, most):
            groups = range(start, min(start + most, kernel.groups))
            for tile in columns:
                for rows in _parts(whole.rows, most_rows):
                    yield Piece(groups, rows, tile, *taps[0])
        return
    # The partial sums of a step's windows must fit the parameter buffer, with those of the next step if possible.
    width = max(len(tile) for tile in columns) * kernel.group
    most = min(config.parameters // 2 // width, config.weight_vectors // 2 // max(vectors, 1), MOST_GROUPS)
    most = max(min(most, config.masks // 2 // masks if masks else most), 1)
    for groups in _parts(whole.groups, most):
        for tile in columns:
            windows = len(groups) * len(tile)
            area = max(config.store_size // 8 // (windows * kernel.group * PARAMETER_BYTES), 1)  # rows
            for block in _parts(whole.rows, min(area, most_rows)):
                entries = windows * kernel.group
                at_once = max(config.parameters // 2 // entries, 1)
                for i, (rows, part) in enumerate(taps):
                    piece = Piece(groups, block, tile, rows, part, i > 0, i + 1 < len(taps))
                    for some in _parts(block, at_once if i else len(block)):
                        yield dataclasses.replace(piece, rows=some, partial_at=(some.start - block.start) * windows)


def _ring(kernel: Kernel, piece: Piece, config: Config, *, whole: bool = False) -> dict[str, int]:
    """How the input rows of a piece lie in the row buffer: fields of the descriptor, and ``start``, the byte of a map's row
    with which the data begin. With ``whole`` rows are read to their end, which must be a store word's."""
    lanes, source = config.lanes, kernel.source
    pitch, repeat = source.pitch, max(kernel.fields["repeat"], 1)
    step = kernel.stride[1] * pitch
    # The bytes of a row that the windows cover, counted from the map's first.
    first = (kernel.origin[1] + piece.columns.start * kernel.stride[1]) * pitch
    last = first + (len(piece.columns) - 1) * step
    if kernel.word_mode:
        first, last = first + piece.beats.start // repeat * pitch, last + -(-piece.beats.stop // repeat) * pitch
    else:
        first, last = first + piece.beats.start, last + piece.beats.stop
    # The slot starts with a word, also of the store; at least one byte of the map is in it.
    row_bytes = source.columns * pitch
    word = max(lanes, config.store_bytes * source.per_byte)
    base = min(first // word, (row_bytes - 1) // word) * word
    start = max(base, 0)
    stop = row_bytes if whole else min(max(last, start + 1), row_bytes)
    data = -(-(stop - start) // config.store_bytes)
    left = (start - base) // config.store_bytes
    slot = -(-(max(last, stop) - base) // lanes)
    # The ring has a multiple of the stride's rows, so that the row in front comes back to its start.
    rows, stride = len(piece.kernel_rows), kernel.stride[0] if len(piece.rows) > 1 else 1
    slots = -(-(rows + stride) // stride) * stride
    ahead = int(slots * slot <= config.row_words and len(piece.rows) > 1)
    if not ahead:
        slots = -(-rows // stride) * stride
    return {
        "ahead": ahead,
        "left_granules": left,
        "right_granule": left + data,
        "tail": stop - start - (data - 1) * config.store_bytes,
        "slot_words": slot,
        "stride_rows": stride,
        "ring_words": slots * slot,
        "advance_words": stride * slot,
        "offset": first - base,
        "x_step": step if len(piece.columns) > 1 else 0,
        "start": start,
    }


@dataclasses.dataclass(frozen=True)
class Position:
    """Where the data of a piece begin: row ``in_row`` of the inputs, word ``in_word`` of it, and row ``out_row`` of the output,
    byte ``out_byte`` of it; of partial sums byte ``out_byte`` of their area. ``in_rows`` are the rows that are read."""

    in_row: int
    in_rows: int
    in_word: int
    out_row: int
    out_byte: int


def rows_read(kernel: Kernel, piece: Piece) -> tuple[int, int, int]:
    """Of the input rows that a piece's windows cover: those in front of the map, the first in the map, and those in it; an
    addition's rows are those of its inputs in turn."""
    first = kernel.origin[0] + piece.rows.start * kernel.stride[0] + piece.kernel_rows.start
    needed = (len(piece.rows) - 1) * kernel.stride[0] + len(piece.kernel_rows)
    lead = min(max(-first, 0), needed)
    exist = max(min(kernel.source.rows - max(first, 0), needed - lead), 0)
    return lead, min(max(first, 0), kernel.source.rows - 1), exist


@dataclasses.dataclass(frozen=True)
class Coding:
    """Compressed rows: the bytes of a row's slot, whether values are around 128, and the rate of the row's budget, or 0."""

    slot: int
    signed: bool
    rate: int = 0


def whole_rows(kernel: Kernel, piece: Piece, config: Config) -> bool:
    """Whether a piece could read whole rows, as compressed ones are."""
    ring = _ring(kernel, piece, config, whole=True)
    source = kernel.source
    return (
        (ring["start"], kernel.second, source.offset, source.channels) == (0, 0, 0, source.pitch)
        and ring["ring_words"] <= config.row_words
    )


def _codes(kernel: Kernel, piece: Piece, ring: Record, coded: Mapping[str, Coding], config: Config) -> dict[str, int]:
    """The fields of the descriptor for compressed rows."""
    fields: dict[str, int] = {}
    for field, name in (("", kernel.inputs[0]), ("_odd", kernel.inputs[-1])):
        fields |= _code(f"in_{{}}{field}", coded.get(name))
    target = None if piece.partial_out else coded.get(kernel.target.name)
    fields |= _code("out_{}", target)
    if target:
        fields |= {"out_x_step": 2, "out_row_step": target.slot}
    if fields["in_coded"] or fields["in_coded_odd"]:
        # A pixel's granules of a group, and all of a pixel.
        group, pixel = config.granules, kernel.source.pitch // config.store_bytes
        skips = kernel.source.pitch > config.lanes
        step = pixel - group + 1 if skips else 1
        data = ring["right_granule"] - ring["left_granules"]
        fields |= {
            "pixel_step": step,
            "turn": ring["right_granule"] - (pixel if skips else 0),
            "turn_step": step - data + group if skips else 1,
        }
    return fields


def _code(name: str, coding: Coding | None) -> dict[str, int]:
    values = (1, int(coding.signed), coding.rate) if coding else (0, 0, 0)
    return {name.format(what): value for what, value in zip(("coded", "signed", "rate"), values)}


def descriptor(
    kernel: Kernel, piece: Piece, config: Config, coded: Mapping[str, Coding] = MappingProxyType({})
) -> tuple[dict[str, int], dict[str, int], Position]:
    """The fields of a piece's layer descriptor and of its run step that do not depend on where maps and weights lie, and where
    in those maps it begins. ``coded`` are the tensors of compressed rows."""
    lanes, group, source, target = config.lanes, kernel.group, kernel.source, kernel.target
    ring = _ring(kernel, piece, config, whole=any(name in coded for name in kernel.inputs))
    start = ring.pop("start")
    lead, first, exist = rows_read(kernel, piece)
    pair = len(kernel.inputs)  # an addition's rows come from two maps in turn
    last_lanes = target.written - (kernel.groups - 1) * group if piece.groups.stop == kernel.groups else group
    out_row_words = -(-target.columns * target.pitch // (config.store_bytes * target.per_byte))
    fields = {
        **kernel.fields,
        **ring,
        "shared_weights": int(kernel.shared),
        "sparse": int(kernel.sparse),
        "groups": len(piece.groups),
        "last_lanes": last_lanes,
        "kernel_rows": len(piece.kernel_rows),
        "width": len(piece.columns),
        "offset": ring["offset"] + (piece.groups.start * lanes if kernel.word_mode else 0),
        "range_last": len(piece.beats) - 1,
        "tap_step": source.pitch // lanes if kernel.word_mode else 0,
        "in_nibbles": int(source.per_byte == 2),
        "in_bits": int(source.per_byte == 8),
        "out_nibbles": int(target.per_byte == 2 and not piece.partial_out),
        "out_bits": int(target.per_byte == 8 and not piece.partial_out),
        "out_x_step": target.pitch // target.per_byte if len(piece.columns) > 1 else 0,
        "out_row_step": out_row_words * config.store_bytes - (len(piece.groups) - 1) * (group // target.per_byte),
        "partial_in": int(piece.partial_in),
        "partial_out": int(piece.partial_out),
    }
    out_row = kernel.place[0] + piece.rows.start
    out_byte = (kernel.place[1] + piece.columns.start) * target.pitch + target.offset + piece.groups.start * group
    out_byte //= target.per_byte
    if piece.partial_out:
        fields |= {"out_x_step": group * PARAMETER_BYTES, "out_row_step": 0}
        out_row, out_byte = 0, piece.partial_at * group * PARAMETER_BYTES
    fields |= {"pixel_step": 0, "turn": 0, "turn_step": 0, **_codes(kernel, piece, ring, coded, config)}
    step = {"rows": len(piece.rows), "in_rows": exist, "lead_rows": lead}
    return fields, step, Position(
        first // pair, -(-exist // pair), start // (config.store_bytes * source.per_byte), out_row, out_byte
    )
