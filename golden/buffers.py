"""What the weight and parameter buffers hold in each run step, and what must be loaded for that."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

from gossamer.golden.program import Record
from gossamer.golden.rolling import Item, Transfer
from gossamer.golden.spec import PARAMETER_BYTES, STEP_BYTES, Config, Opcode
from gossamer.golden.tiling import Kernel, Piece
from gossamer.golden.weight_formats import Encoded, encode

__all__ = ["Load", "Part", "loads_of"]


@dataclasses.dataclass(frozen=True)
class Part:
    """A load step: bytes ``start`` to ``stop`` of a load's data, into the buffer's entries from ``destination`` on."""

    destination: int
    start: int
    stop: int
    wait: int


@dataclasses.dataclass(frozen=True)
class Load:
    """What a run step needs in a buffer: ``data``, or if None the partial sums from ``start`` on in their area.

    ``piece`` is the number of the run step, or None if it stays in the buffer from one inference to the next. Weights may be
    in a ``format``, with a ``palette``, see :class:`gossamer.golden.weight_formats.Encoded`."""

    opcode: int
    data: bytes | None
    parts: tuple[Part, ...]
    piece: int | None
    format: int = 0
    palette: bytes = b""
    shared: bool = False


class _Buffer:
    """Places the entries of consecutive run steps in a buffer.

    What stays from one inference to the next lies at its start. The others lie behind each other in what is left, and
    from its start again at its end; what is still there is not loaded again, and what is loaded again goes to where it was.

    A load has at most ``longest`` bytes, which ``encode`` makes shorter; ``groups`` has the numbers of entries of the channel
    groups in data that may take fewer bytes if not all of them are loaded in one go.
    """

    def __init__(
        self,
        opcode: int,
        size: int,
        entry: int,
        longest: int,
        encode: Callable[[bytes], Encoded] = Encoded,
        groups: Mapping[bytes, Sequence[int]] | None = None,
    ):
        self.opcode, self._size, self._entry, self._longest, self._encode = opcode, size, entry, longest, encode
        self._groups = {} if groups is None else groups
        self._stretches: dict[bytes, list[range]] = {}
        self._start = 0
        self._resident: dict[bytes, int] = {}
        self._used = range(0)
        self._held: list[tuple[range, bytes]] = []
        self._before: dict[bytes, int] = {}

    def keep(self, needed: Mapping[bytes, int]) -> Iterator[Load]:
        """Keep as much of ``needed``, data and the alignment of their first entries, as leaves room for the rest; the loads.

        If much had to be left out nothing is kept, so that loads can go on beside runs in the whole buffer.
        """
        sizes = {data: -(-len(data) // self._entry // align) * align for data, align in needed.items()}
        order = sorted(needed, key=lambda data: (-needed[data], -sizes[data]))
        for kept in range(len(order), 0, -1):
            rest = sorted(sizes[data] for data in order[kept:])
            if 4 * sum(rest) > sum(sizes.values()):
                return
            stop = sum(sizes[data] for data in order[:kept])
            if stop + sum(rest[-2:]) <= self._size and all(needed[data] == 1 for data in order[kept:]):
                for data in order[:kept]:
                    self._resident[data] = self._start
                    entries = range(self._start, self._start + len(data) // self._entry)
                    yield from self.load(data, self._start, [(entries, 0)], None)
                    self._start += sizes[data]
                self._used = range(self._start, self._start)
                return

    def load(
        self, data: bytes, base: int, parts: Sequence[tuple[range, int]], piece: int | None
    ) -> Iterator[Load]:
        """Load ``parts`` of the entries of ``data``, whose first is ``base``, each with whether to wait."""
        for stretch in self._cut(data):
            start, some = stretch.start, data[stretch.start : stretch.stop]
            first, stop = base + start // self._entry, base + (start + len(some)) // self._entry
            found = []
            for entries, wait in parts:
                common = range(max(entries.start, first), min(entries.stop, stop))
                if common:
                    low, high = ((at - first) * self._entry for at in (common.start, common.stop))
                    found.append(Part(common.start, low, high, wait))
            if not found:
                continue
            stored = self._encode(some)
            if stored.divisible:
                ratio = len(some) // len(stored.data)
                found = [dataclasses.replace(p, start=p.start // ratio, stop=p.stop // ratio) for p in found]
            else:
                found = [Part(first, 0, len(stored.data), max(part.wait for part in found))]
            yield Load(self.opcode, stored.data, tuple(found), piece, stored.format, stored.palette, stored.shared)

    def _cut(self, data: bytes) -> list[range]:
        """The stretches of data that are loads."""
        if data in self._stretches:
            return self._stretches[data]

        def size(stretch: range) -> int:
            stored = self._encode(data[stretch.start : stretch.stop])
            return len(stored.data) + len(stored.palette) + STEP_BYTES * (1 + bool(stored.palette))

        def cut(whole: range) -> Iterator[range]:
            for start in range(whole.start, whole.stop, self._longest):
                yield range(start, min(start + self._longest, whole.stop))

        longest = list(cut(range(len(data))))
        by_groups: list[range] = []
        at = 0
        for entries in self._groups.get(data, ()):
            for stretch in cut(range(at, at + entries * self._entry)):
                joined = range(by_groups[-1].start if by_groups else 0, stretch.stop)
                if by_groups and len(joined) <= self._longest and size(joined) <= size(by_groups[-1]) + size(stretch):
                    by_groups[-1] = joined
                else:
                    by_groups.append(stretch)
            at += entries * self._entry
        shorter = by_groups and sum(map(size, by_groups)) < sum(map(size, longest))
        self._stretches[data] = by_groups if shorter else longest
        return self._stretches[data]

    def place(self, data: bytes | None, count: int, align: int = 1) -> tuple[int, list[tuple[range, int]]]:
        """Where ``count`` entries go, and the parts to load, with whether to wait until the step before is done with them."""
        if data in self._resident:
            return self._resident[data], []
        for held, there in self._held:
            if data is not None and there == data:
                self._used = held
                return held.start, []
        used = self._used
        start = self._before.get(data, -1) if data is not None else -1
        if start < 0 or (start < used.stop and used.start < start + count):
            start = -(-used.stop // align) * align
            if start + count > self._size:
                start = -(-self._start // align) * align
        stop = start + count
        self._used = range(start, stop)
        self._held = [(held, there) for held, there in self._held if held.stop <= start or stop <= held.start]
        if data is not None:
            self._held.append((self._used, data))
            self._before[data] = start
        common = range(max(start, used.start), min(stop, used.stop))
        if not common:
            return start, [(self._used, 0)]
        parts = ((range(start, common.start), 0), (range(common.stop, stop), 0), (common, 1))
        return start, [(part, wait) for part, wait in parts if part]


def loads_of(
    items: Sequence[Item], config: Config
) -> tuple[list[Load], list[tuple[Record, list[Load]]]]:
    """The loads of what stays in the buffers; and per item the fields of its descriptor that say where its weights, masks and
    parameters begin, and the loads in front of it. What the run step before does not use is loaded while it runs."""
    pieces = [item for item in items if not isinstance(item, Transfer)]
    made: dict[tuple[object, ...], bytes] = {}
    groups: dict[bytes, Sequence[int]] = {}

    def once(make: Callable[[], bytes], *key: object) -> bytes:
        if key not in made:
            made[key] = make()
        return made[key]

    def weights_of(kernel: Kernel, piece: Piece) -> bytes:
        data = once(lambda: kernel.weights_of(piece), id(kernel), piece.groups, piece.kernel_rows, piece.beats)
        if config.decoder == "palettes" and data not in groups:
            groups[data] = kernel.group_vectors(piece)
        return data

    def masks_of(kernel: Kernel, piece: Piece) -> bytes:
        part = piece.groups, piece.kernel_rows, piece.beats, kernel.phase(piece.columns, piece.beats)
        return once(lambda: kernel.masks_of(piece, config), id(kernel), *part)

    sparse = [(kernel, piece) for kernel, piece in pieces if kernel.sparse]

    # What is fetched at a time must leave room in the store.
    longest = min(8192, max(512, 1 << (config.store_size // 16).bit_length() - 1))
    encoded = functools.cache(lambda raw: encode(raw, config))
    weights = _Buffer(Opcode.LOAD_WEIGHTS, config.weight_vectors, config.lanes, longest, encoded, groups)
    masks = _Buffer(Opcode.LOAD_MASKS, config.masks, config.mask_bytes, longest)
    parameters = _Buffer(Opcode.LOAD_PARAMETERS, config.parameters, PARAMETER_BYTES, longest)
    sums = any(piece.partial_in for _, piece in pieces)  # which need the whole parameter buffer
    cold = [*weights.keep({weights_of(kernel, piece): 1 for kernel, piece in pieces})]
    cold += masks.keep({masks_of(kernel, piece): 1 for kernel, piece in sparse})
    if not sums:
        tables = {kernel.parameters_of(piece): 256 if kernel.fields["add"] else 1 for kernel, piece in pieces}
        cold += parameters.keep(tables)
    found: list[tuple[Record, list[Load]]] = []
    before: Piece | None = None
    for number, item in enumerate(items):
        if isinstance(item, Transfer):
            found.append(({}, []))
            continue
        kernel, piece = item
        data = weights_of(kernel, piece)
        base, parts = weights.place(data, len(data) // config.lanes)
        loads = [*weights.load(data, base, parts, number)]
        bases = {"weight_base": base, "vector_base": 0}
        if kernel.sparse:
            data = masks_of(kernel, piece)
            first, parts = masks.place(data, len(data) // config.mask_bytes)
            loads += masks.load(data, first, parts, number)
            bases = {"weight_base": first, "vector_base": base}
        if piece.partial_in:
            first, parts = parameters.place(None, piece.windows * kernel.group)
            # The first sums are those of the run step before.
            fresh = before is None or (before.kernel_rows, before.beats) != (piece.kernel_rows, piece.beats)
            shift = piece.partial_at * kernel.group - first
            partial = tuple(
                Part(
                    part.start,
                    (part.start + shift) * PARAMETER_BYTES,
                    (part.stop + shift) * PARAMETER_BYTES,
                    wait or int(fresh),
                )
                for part, wait in parts
            )
            loads.append(Load(Opcode.LOAD_PARAMETERS, None, partial, number))
        else:
            data = kernel.parameters_of(piece)
            first, parts = parameters.place(data, len(data) // PARAMETER_BYTES, 256 if kernel.fields["add"] else 1)
            loads += parameters.load(data, first, parts, number)
        bases["parameter_base"] = first
        found.append((bases, sorted(loads, key=lambda load: any(part.wait for part in load.parts))))
        before = piece
    return cold, found
