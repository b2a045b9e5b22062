"""The order of the work: layer by layer, or row by row through a group of layers.

In a group that is computed row by row (depth-first) every layer computes a few output rows when the layer behind it needs them.
Of a tensor only the rows exist then that somebody still has to read, in a ring: row ``y`` lies in slot ``y % rows``. A layer
whose one output pixel depends on all rows, like a global pooling, adds each row to its partial sums when it comes.

Ref: Alwani et al., "Fused-Layer CNN Accelerators", 2016; Stoutchinin et al., "Optimally Scheduling CNN Convolutions for
Efficient Memory Access", 2019.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from gossamer.golden.network import Concat, Layer, Reshape
from gossamer.golden.program import TensorPlace
from gossamer.golden.spec import Config
from gossamer.golden.tiling import Coding, Kernel, Map, Piece, cut, cut_window, rows_read

__all__ = [
    "MOST_RING",
    "PARTIAL_SUMS",
    "Group",
    "Item",
    "Lowered",
    "Order",
    "Places",
    "Transfer",
    "Work",
    "order",
    "partial_sums",
    "stored",
]

Work = tuple[Kernel, Piece]
Cuts = dict[tuple[int, int], list[Piece]]


class Places(Protocol):
    """What the order and the schedule ask of a layout, see :class:`gossamer.golden.layout.Layout`."""

    @property
    def homes(self) -> Mapping[str, str]:
        """The tensor whose bytes a tensor shares."""

    def root(self, name: str) -> tuple[str, int]:
        """The tensor in whose bytes a tensor lies, and behind how many channels."""

    def map(self, name: str) -> Map:
        """A tensor as the layer that computes it, or reads it, sees it."""

    def place(self, name: str, address: int = 0) -> TensorPlace:
        """The place of a tensor in the store, if its root's is at ``address``."""

Lowered = Sequence[tuple[Layer, Sequence[Kernel]]]

MOST_RING = 255
"""Rows of the largest ring: what ``wrap_rows`` can count."""


@dataclasses.dataclass(frozen=True)
class Transfer:
    """The host writes ``rows`` of ``tensor`` into the store, or takes them from it; ``column`` is that of the network's tensor
    where the tensor begins."""

    tensor: str
    rows: range
    take: bool
    column: int = 0


Item = Work | Transfer


@dataclasses.dataclass(frozen=True)
class Group:
    """Layers up to ``stop`` that are computed together, ``rows`` output rows at a time; 0: layer by layer."""

    stop: int
    rows: int


PARTIAL_SUMS = " (partial sums)"


def partial_sums(kernel: Kernel) -> str:
    """What the area of a layer's partial sums is called."""
    return kernel.name + PARTIAL_SUMS


class _Order:
    """Makes rows when they are asked for, and those that they need before."""

    def __init__(
        self,
        lowered: Lowered,
        layout: Places,
        config: Config,
        refuse: Callable[[str], Exception],
        given: Mapping[str, int],
        start: int,
        cuts: Cuts,
    ):
        self.items: list[Item] = []
        self._lowered, self._layout, self._config, self._refuse = lowered, layout, config, refuse
        self._makers = {layout.homes[layer.output]: i for i, (layer, _) in reversed(list(enumerate(lowered)))}
        self._done = [self._total(i) if i < start else 0 for i in range(len(lowered))]
        self._given, self._columns = dict.fromkeys(given, 0), given
        self._cuts = cuts
        self._rows = 0  # of a block; 0: layer by layer

    def compute(self, start: int, group: Group, taken: Mapping[str, int]) -> None:
        """Compute the layers of a group, of which ``start`` is the first."""
        self._rows = group.rows
        for i in range(start, group.stop):
            if group.rows and self._has_readers_only_before(i, group.stop):
                continue  # they ask for its rows
            output = self._layout.homes[self._lowered[i][0].output]
            total = self._total(i)
            for stop in [*range(group.rows, total, group.rows), total] if group.rows else [total]:
                before = self._done[i]
                self._make(i, stop)
                if output in taken and self._done[i] > before:
                    self.items.append(Transfer(output, range(before, self._done[i]), True, taken[output]))

    def _has_readers_only_before(self, i: int, stop: int) -> bool:
        homes = self._layout.homes
        home = homes[self._lowered[i][0].output]
        readers = [j for j, (layer, _) in enumerate(self._lowered) if any(homes[name] == home for name in layer.inputs)]
        return bool(readers) and max(readers) < stop

    def _total(self, i: int) -> int:
        """Output rows of a layer."""
        return self._layout.map(self._lowered[i][0].output).rows

    def _make(self, i: int, upto: int) -> None:
        """See to it that a layer's output rows are there up to a row."""
        layer, kernels = self._lowered[i]
        total = self._total(i)
        barrier = isinstance(layer, Reshape) or (not kernels and not isinstance(layer, Concat))
        while self._done[i] < min(upto, total):
            start = self._done[i]
            stop = min(start + self._rows, total) if self._rows and not barrier else total
            self._done[i] = stop
            if barrier:
                self._need(layer, total_rows=True)
            if isinstance(layer, Concat):
                self._need(layer, stop)
            for kernel in kernels:
                if self._rows and self._by_parts(layer, kernel):
                    continue
                low, high = max(start - kernel.place[0], 0), min(stop - kernel.place[0], kernel.rows)
                if low < high:
                    self._run(layer, kernel, range(low, high), barrier)

    def _run(self, layer: Layer, kernel: Kernel, rows: range, barrier: bool) -> None:
        pair = len(kernel.inputs)
        # An addition's inputs may lie in rings of different lengths, or be strips of different columns: then each of its rows
        # is a step.
        apart = self._rows or kernel.second or len({self._layout.place(name).columns for name in kernel.inputs}) > 1
        for block in [range(y, y + 1) for y in rows] if pair > 1 and apart else [rows]:
            key = id(kernel), len(block)
            if key not in self._cuts:
                self._cuts[key] = cut(kernel, self._config, self._refuse, len(block))
            pieces = [
                dataclasses.replace(piece, rows=range(block.start + piece.rows.start, block.start + piece.rows.stop))
                for piece in self._cuts[key]
            ]
            if not barrier:
                self._need(layer, _last_row(kernel, pieces))
            self.items += [(kernel, piece) for piece in pieces]

    def _by_parts(self, layer: Layer, kernel: Kernel) -> bool:
        """Whether a kernel could be run part by part, as its input rows come."""
        parts = cut_window(kernel, self._config, self._refuse, self._rows)
        for part in parts:
            self._need(layer, _last_row(kernel, part))
            self.items += [(kernel, piece) for piece in part]
        return bool(parts)

    def _need(self, layer: Layer, rows: int = 0, *, total_rows: bool = False) -> None:
        """See to it that so many rows of a layer's inputs are there, or all."""
        for name in layer.inputs:
            home = self._layout.homes[name]
            upto = self._layout.map(name).rows if total_rows else rows
            if home in self._makers:
                self._make(self._makers[home], upto)
            elif self._given.get(home, upto) < upto:
                self.items.append(Transfer(home, range(self._given[home], upto), False, self._columns[home]))
                self._given[home] = upto


def _last_row(kernel: Kernel, pieces: Sequence[Piece]) -> int:
    """The input row behind the last that pieces read."""
    ends = [first + exist for _, first, exist in (rows_read(kernel, piece) for piece in pieces)]
    return -(-max(ends) // len(kernel.inputs))


def order(
    lowered: Lowered,
    layout: Places,
    groups: Sequence[Group],
    config: Config,
    refuse: Callable[[str], Exception],
    given: Mapping[str, int] | None = None,
    taken: Mapping[str, int] | None = None,
    start: int = 0,
    cuts: Cuts | None = None,
) -> list[Item]:
    """The run steps of all layers from ``start`` on, and the host's transfers, in order.

    ``given`` are the inputs that the host writes row by row, ``taken`` the outputs that it takes so, both with the columns of
    the network's tensors where they begin. ``cuts`` keeps what is found out about kernels for the next call with the same ones.
    """
    worker = _Order(lowered, layout, config, refuse, given or {}, start, {} if cuts is None else cuts)
    for group in groups:
        worker.compute(start, group, taken or {})
        start = group.stop
    return worker.items


def _touched(item: Item) -> tuple[list[tuple[str, range]], list[tuple[str, range]]]:
    """The rows that an item reads, and those that it writes, by tensor."""
    if isinstance(item, Transfer):
        rows = [(item.tensor, item.rows)]
        return (rows, []) if item.take else ([], rows)
    kernel, piece = item
    pair = len(kernel.inputs)
    _, first, exist = rows_read(kernel, piece)
    read = [(name, range(first // pair, -(-(first + exist) // pair))) for name in kernel.inputs]
    y = kernel.place[0]
    written = [] if piece.partial_out else [(kernel.target.name, range(y + piece.rows.start, y + piece.rows.stop))]
    return read, written


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The moments in which each row of a tensor is written first and used last, -1: never; and the ``blocks`` of rows that run
    steps write.

    Item ``i`` has two moments, ``2*i`` and ``2*i + 1``. A run step of one output row has read its input when it writes its
    first output, so that one can take the place of the other; everything else reads and writes in both.
    """

    written: list[int]
    used: list[int]
    blocks: set[range]


def _follow(items: Sequence[Item], sizes: Mapping[str, int], first: Sequence[str], last: Sequence[str]) -> dict[str, _Rows]:
    """When the rows of tensors of ``sizes`` rows exist; ``first`` from the start, ``last`` to the end."""
    found = {name: _Rows([-1] * rows, [-1] * rows, set()) for name, rows in sizes.items()}
    for name in first:
        found[name].written[:] = [0] * sizes[name]
    for i, item in enumerate(items):
        in_place = not isinstance(item, Transfer) and len(item[1].rows) == 1
        read, written = _touched(item)
        for name, some in read:
            for y in some:
                found[name].used[y] = 2 * i if in_place else 2 * i + 1
        for name, some in written:
            if not isinstance(item, Transfer):
                found[name].blocks.add(some)
            for y in some:
                if found[name].written[y] < 0:
                    found[name].written[y] = 2 * i + 1 if in_place else 2 * i
                found[name].used[y] = 2 * i + 1
    for name in last:
        found[name].used[:] = [2 * len(items) - 1] * sizes[name]
    return found


@dataclasses.dataclass(frozen=True)
class Order:
    """The run steps and transfers of a network in their order, and what the store has of each tensor of ``layout``: ``rings``,
    the rows, all of them if it is no ring; ``row_bytes``, the bytes of one; ``shares``, the tensor in whose ring its rows lie;
    and of the others ``lives``, when there is something in each slot of the ring: ranges of moments, of which every item has
    two. The rows of ``coded`` tensors are compressed."""

    items: list[Item]
    layout: Places
    rings: dict[str, int]
    row_bytes: dict[str, int]
    shares: dict[str, str]
    lives: dict[str, list[list[range]]]
    coded: Mapping[str, Coding]


def stored(
    items: list[Item],
    layout: Places,
    names: Collection[str],
    first: Sequence[str],
    last: Sequence[str],
    config: Config,
    *,
    share: bool = True,
    coded: Mapping[str, Coding] = MappingProxyType({}),
) -> Order:
    """What the store must have of the tensors ``names``, of which ``first`` exist from the start and ``last`` to the end; the
    rows of ``coded`` ones are compressed. Without ``share`` no tensor lies in the ring of another."""
    sizes = {name: layout.place(name).rows for name in names}
    row_bytes = {
        name: coded[name].slot if name in coded else layout.place(name).size(config) // sizes[name] for name in names
    }
    found = _follow(items, sizes, first, last)
    rings = _rings(found, sizes, {*first, *last}, row_bytes, len(items))
    shares = _shares(items, found, rings, {*first, *last}, row_bytes) if share else {}
    for name, other in shares.items():
        rings[name], row_bytes[name] = rings[other], row_bytes[other]
    return Order(items, layout, rings, row_bytes, shares, _lives(found, rings, shares), coded)


def _rings(
    found: Mapping[str, _Rows], sizes: Mapping[str, int], whole: Collection[str], row_bytes: Mapping[str, int], items: int
) -> dict[str, int]:
    """The rows that the ring of each tensor must have; those of ``whole`` tensors are all there."""
    least = {}
    for name, seen in found.items():
        low, high, most = 0, 0, 1
        for time, y in sorted((time, y) for y, time in enumerate(seen.written) if time >= 0):
            high = max(high, y + 1)
            while low < high and seen.used[low] < time:
                low += 1
            most = max(most, high - low)
        while most < sizes[name] and not _fits(seen.blocks, most):
            most += 1
        least[name] = sizes[name] if name in whole or most >= sizes[name] or most > MOST_RING else most
    return _periodic(least, sizes, {name: seen.blocks for name, seen in found.items()}, row_bytes, items)


def _fits(blocks: Collection[range], rows: int) -> bool:
    """Whether none of the blocks, which are written at once, goes on at the start of a ring."""
    return all(block.start % rows + len(block) <= rows for block in blocks)


def _periodic(
    least: dict[str, int],
    sizes: Mapping[str, int],
    blocks: Mapping[str, Collection[range]],
    bytes_of: Mapping[str, int],
    items: int,
) -> dict[str, int]:
    """Rings a little larger, so that the steps repeat after few rows: then they can be a loop in the program."""
    rings = {name: rows for name, rows in least.items() if rows < sizes[name]}
    if not rings or items * 16 < 8192:
        return least
    per_row = items / max(sizes[name] for name in rings)
    best, found = 0.0, least
    longest = max(rings.values())
    for period in range(longest, 2 * longest + 1):
        wider = {
            name: next(
                (n for n in range(rows, min(period, MOST_RING) + 1) if period % n == 0 and _fits(blocks[name], n)), None
            )
            for name, rows in rings.items()
        }
        if None in wider.values():
            continue
        cost = sum(rows * bytes_of[name] for name, rows in wider.items() if rows) + period * per_row * 16
        if not best or cost < best:
            best, found = cost, {**least, **{name: rows for name, rows in wider.items() if rows}}
    return found


def _shares(
    items: Sequence[Item],
    found: Mapping[str, _Rows],
    rings: Mapping[str, int],
    whole: Collection[str],
    row_bytes: Mapping[str, int],
) -> dict[str, str]:
    """Rings whose rows can lie where those of another tensor will: row ``y`` is read for the last time by the run step that
    writes row ``y`` of the other, which is not shorter."""
    shares: dict[str, str] = {}
    alone = {*whole}  # those that share nothing
    for item in items:
        if isinstance(item, Transfer):
            alone.add(item.tensor)
            continue
        kernel, piece = item
        target = kernel.target.name
        if len(piece.rows) > 1:
            alone.add(target)
        for name in kernel.inputs:
            row_by_row = (len(piece.rows), len(piece.kernel_rows)) == (1, 1) and not piece.partial_out
            if not row_by_row or len(kernel.inputs) > 1 or shares.setdefault(name, target) != target:
                alone.add(name)
    good = {}
    for name, other in shares.items():
        one, two = found[name], found[other]
        fits = len(one.used) == len(two.used) and row_bytes[name] <= row_bytes[other]
        fits = fits and rings[name] <= rings[other] and rings[name] < len(one.used)
        if name not in alone and fits and all(used < written for used, written in zip(one.used, two.written)):
            good[name] = other
    return {name: other for name, other in good.items() if other not in good}


def _lives(
    found: Mapping[str, _Rows], rings: Mapping[str, int], shares: Mapping[str, str]
) -> dict[str, list[list[range]]]:
    lives: dict[str, list[list[range]]] = {name: [[] for _ in range(rings[name])] for name in found if name not in shares}
    for name, rows in found.items():
        home = shares.get(name, name)
        for y, (written, used) in enumerate(zip(rows.written, rows.used)):
            if written >= 0:
                lives[home][y % rings[home]].append(range(written, used + 1))
    return {name: [sorted(slot, key=lambda span: span.start) or [range(1)] for slot in life] for name, life in lives.items()}
