"""Compressed maps: which tensors can lie in the store as compressed rows, and how large the slots of their rows must be.

A slot is as large as the longest row of the inputs that it is *calibrated* with, and a margin. A row of another input that
does not fit stops the core with ``Error.SLOT`` before anything else is overwritten. Or a slot is a *budget*: as many low bits
of a row's values are dropped as it takes to fit. With ``codec_streams`` this is so of each of a row's units, which have the
same part of the slot each.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import codec
from gossamer.golden.interpreter import Code
from gossamer.golden.layout import Layout, map_shape
from gossamer.golden.network import Network
from gossamer.golden.rolling import Item, Places, Transfer, Work
from gossamer.golden.spec import CODEC_SLOT, DESCRIPTOR, Config
from gossamer.golden.tiling import Coding, Kernel, Map, Piece, whole_rows

__all__ = ["budgets", "calibrate", "coded_order", "codings", "is_signed", "map_order"]

BATCH = 16

MOST_RATE = (1 << DESCRIPTOR["out_rate"].width) - 1


def is_signed(zero_point: int) -> bool:
    """Values are on both sides of the zero point: they are folded."""
    return zero_point >= -64


def coded_order(values: NDArray[np.int8], lanes: int) -> NDArray[np.uint8]:
    """The stored bytes of the rows of maps ``(N, rows, columns, channels)``, ``(N * rows, values)``, in the order in which they
    are coded: group by group of at most ``lanes`` channels."""
    maps, rows, _, channels = values.shape
    stored = (values.astype(np.int16) + 128).astype(np.uint8)
    groups = [stored[..., start : start + lanes].reshape(maps * rows, -1) for start in range(0, channels, lanes)]
    return np.concatenate(groups, axis=1)


def map_order(rows: NDArray[np.uint8], shape: Sequence[int], lanes: int) -> NDArray[np.int8]:
    """The maps ``(N, rows, columns, channels)`` in the order of :func:`coded_order`, the inverse of that."""
    values = np.empty((shape[0] * shape[1], *shape[2:]), np.int8)
    at = 0
    for start in range(0, shape[3], lanes):
        group = values[..., start : start + lanes]
        stop = at + group[0].size
        group[:] = (rows[:, at:stop].astype(np.int16) - 128).reshape(group.shape)
        at = stop
    return values.reshape(shape)


def calibrate(
    network: Network,
    layout: Layout,
    x: NDArray[Any],
    config: Config,
    margin: float = 0.1,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, int]:
    """The bytes of a slot for each tensor whose rows can be compressed at all, with some inputs ``(N, …)`` of the network:
    ``margin`` times more than the longest row takes, and less than a row that is not compressed. ``progress`` is told how many
    inputs have been looked at."""
    places, longest = _codable(layout, config), dict[str, int]()
    for start in range(0, len(x), BATCH):
        tensors = network.run(x[start : start + BATCH])
        for name in places.keys() & tensors.keys():
            values = tensors[name].reshape(-1, *map_shape(tensors[name].shape[1:]))
            options = Code(is_signed(places[name].zero_point), 0).options(config)
            units = codec.units_of(coded_order(values, config.lanes), config.codec_streams)
            lengths = codec.code_lengths(units, **options)
            longest[name] = max(longest.get(name, 0), int(lengths.sum(1).max()))
        progress(min(start + BATCH, len(x)))
    return _slots(places, {name: 2 * -(-round(bits * (1 + margin)) // 16) for name, bits in longest.items()}, config)


def _codable(layout: Layout, config: Config) -> dict[str, Map]:
    """The tensors whose rows are made of full groups, and of whole store words, and whose pixels have as many values of each
    unit."""
    found = {}
    for name in layout.pitches:
        place = layout.map(name)
        groups = place.channels <= config.lanes or place.channels % config.lanes == 0
        groups = groups and place.channels % config.codec_streams == 0
        whole = place.columns * place.pitch % config.store_bytes == 0
        if (place.channels, place.per_byte) == (place.pitch, 1) and groups and whole:
            found[name] = place
    return found


def _slots(places: Mapping[str, Map], needed: Mapping[str, int], config: Config) -> dict[str, int]:
    """Slots that hold units of as many bytes as are ``needed``, where rows become shorter and slots are not too large."""
    chunk, streams, found = config.codec_chunk, config.codec_streams, {}
    for name, place in places.items():
        if name in needed:
            part = -(-needed[name] // chunk) * chunk
            if streams * part < place.columns * place.pitch and part <= CODEC_SLOT:
                found[name] = streams * part
    return found


def budgets(layout: Layout, share: float, config: Config) -> dict[str, int]:
    """Slots of ``share`` bytes per value, or as many as a budget must have, for each tensor whose rows can be compressed."""
    places = _codable(layout, config)
    counts = {name: place.columns * place.pitch // config.codec_streams for name, place in places.items()}
    return _slots(places, {name: max(int(share * n), codec.least_budget(n)) for name, n in counts.items()}, config)


def codings(
    items: Sequence[Item],
    layout: Places,
    slots: Mapping[str, int],
    budgeted: Collection[str],
    kept: Collection[str],
    config: Config,
) -> dict[str, Coding]:
    """How the tensors with ``slots`` are compressed, those that this order of the work allows it: all rows of the tensor are
    computed and read as a whole, and by nobody else. The slots of ``budgeted`` tensors are budgets. ``kept`` are not
    compressed. The operands of an addition are both compressed, in slots of one size, or neither."""
    if config.codec == "off":
        return {}
    good = {name for name in slots if name not in kept}
    works: dict[tuple[Any, ...], Work] = {}
    for item in items:
        if isinstance(item, Transfer):
            good.discard(item.tensor)
            continue
        kernel, piece = item
        works[id(kernel), len(piece.rows), piece.groups, piece.columns, piece.kernel_rows, piece.beats] = item
    for kernel, piece in works.values():
        if not piece.partial_out and not _writes_rows(kernel, piece):
            good.discard(kernel.target.name)
        if not whole_rows(kernel, piece, config):
            good -= {*kernel.inputs}
    pairs = [{*kernel.inputs} for kernel, _ in works.values() if len(kernel.inputs) > 1]
    sizes = {name: slot for name, slot in slots.items() if name in good}
    for group in _joined(pairs):
        if group <= sizes.keys():
            sizes |= dict.fromkeys(group, max(sizes[name] for name in group))
        else:
            sizes = {name: size for name, size in sizes.items() if name not in group}
    found = {}
    for name, size in sizes.items():
        place = layout.map(name)
        # Of a higher rate than fits the field, which a slot as large as the row has, nothing is lost.
        count, part = place.columns * place.pitch // config.codec_streams, size // config.codec_streams
        rate = min(codec.rate(count, part), MOST_RATE) if name in budgeted else 0
        found[name] = Coding(size, is_signed(place.zero_point), rate)
    return found


def _writes_rows(kernel: Kernel, piece: Piece) -> bool:
    """Whether a piece computes whole rows of its target, and nothing else has a part in them."""
    target = kernel.target
    whole = (kernel.place[1], len(piece.columns), target.offset, target.written) == (0, target.columns, 0, target.pitch)
    return whole and kernel.group == kernel.lanes and len(piece.groups) == kernel.groups


def _joined(sets: Sequence[set[str]]) -> Iterator[set[str]]:
    """Unions of sets that have something in common."""
    left = [set(one) for one in sets]
    while left:
        one = left.pop()
        more = [other for other in left if other & one]
        if more:
            left = [other for other in left if not other & one] + [one.union(*more)]
        else:
            yield one
