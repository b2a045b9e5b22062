"""The planner: which layers to compute row by row, so that the activations take few bytes and the work few cycles.

The layers are cut into groups behind each other. Each is computed layer by layer, or in blocks of 1, 2, 4 or 8 rows (see
:mod:`gossamer.golden.rolling`); what one group leaves for another is there as a whole. What a group needs does not depend on
how the others are computed, so that dynamic programming finds the best cut: the least cycles among those that need no more than
a given number of bytes. The cycles are a guess here; the bytes are what exists at once, which the arena seldom exceeds.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from gossamer.golden.buffers import loads_of
from gossamer.golden.coding import codings
from gossamer.golden.compiler import Compiled, CompileError, Frontend, Strategy
from gossamer.golden.memory import most_at_once
from gossamer.golden.rolling import Cuts, Group, Item, Order, Transfer, order, stored
from gossamer.golden.schedule import guess
from gossamer.golden.spec import PARAMETER_BYTES, Config
from gossamer.golden.tiling import Coding, rows_read

__all__ = ["Planner", "Point", "affordable", "fit", "needed", "point", "strip_points", "too_little"]

BLOCKS = (0, 1, 2, 4, 8)
"""Rows that are computed at once; 0: all, layer by layer."""

STRIPS = (2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Strips that are tried where maps are too wide for the memory."""

STEP_CYCLES = 60
"""What a run step takes that nothing hides: its record, the descriptor, and the pipeline."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A strategy, with the activation bytes that it needs and a guess of its cycles."""

    peak: int
    cycles: int
    strategy: Strategy


class Planner:
    """Strategies for a network.

    Parameters
    ----------
    frontend : Frontend
    progress : function of two int
        Told how many groups out of how many have been looked at.
    slots, budgeted : mapping, frozenset
        Compress what can be compressed of these tensors, see :class:`Strategy`, if that helps.
    """

    def __init__(
        self,
        frontend: Frontend,
        progress: Callable[[int, int], None] = lambda done, total: None,
        slots: Mapping[str, int] = MappingProxyType({}),
        budgeted: frozenset[str] = frozenset(),
    ):
        self._frontend, self._slots, self._budgeted = frontend, slots, budgeted
        self._cuts: Cuts = {}
        layers = self._layers = len(frontend.layers)
        candidates = [
            (i, j, rows)
            for i in range(layers)
            for j in range(i + 1, layers + 1)
            for rows in BLOCKS
            if (rows == 0) == (j == i + 1) or (rows and j == layers)
        ]
        self._segments: dict[bool, dict[tuple[int, int, int], tuple[int, int]]] = {False: {}, True: {}}
        for done, (i, j, rows) in enumerate(candidates):
            progress(done, len(candidates))
            for stream in (False, True):
                if stream and not (i == 0 or j == layers):  # it has to do with neither input nor output
                    self._segments[stream][i, j, rows] = self._segments[False][i, j, rows]
                else:
                    self._segments[stream][i, j, rows] = self._evaluate(i, j, rows, stream)

    def points(self, *, streamed: bool = True) -> list[Point]:
        """The strategies that need fewer bytes than all that are faster, the smallest first; without ``streamed`` only of those
        whose input is in the store as a whole."""
        found: list[Point] = []
        streams = (False, True) if streamed else (False,)
        for stream in streams:
            for limit in sorted({peak for peak, _ in self._segments[stream].values()}):
                best = self._best(limit, stream)
                found += [best] if best else []
        least = min(one.peak for one in found)
        easiest = self._easiest(least, streams)
        found += [easiest] if easiest else []
        if streamed and least > self._frontend.config.store_size // 4:
            found += strip_points(self._frontend)
        if self._slots:
            found = [needed(self._frontend, one) for one in _unbeaten(found)]
        return _unbeaten(found)

    def _best(self, limit: int, stream: bool) -> Point | None:
        """The strategy of fewest cycles that needs at most ``limit`` bytes."""
        return self._search(limit, stream, lambda peak, cycles: cycles)

    def _easiest(self, limit: int, streams: Sequence[bool]) -> Point | None:
        """A strategy for ``limit`` bytes that leaves room in most groups, so that the arena is most likely to manage."""
        for stream in streams:
            found = self._search(limit, stream, lambda peak, cycles: peak * peak)
            if found:
                return dataclasses.replace(found, peak=limit - 1)
        return None

    def _search(self, limit: int, stream: bool, cost: Callable[[int, int], int]) -> Point | None:
        """The cut into groups of least cost, all of at most ``limit`` bytes."""
        best: list[tuple[int, int, int, tuple[Group, ...]] | None] = [(0, 0, 0, ())] + [None] * self._layers
        for (i, j, rows), (peak, cycles) in sorted(self._segments[stream].items(), key=lambda item: item[0][1]):
            before, now = best[i], best[j]
            if before is None or peak > limit:
                continue
            total = before[0] + cost(peak, cycles)
            if now is None or total < now[0]:
                best[j] = total, before[1] + cycles, max(before[2], peak), (*before[3], Group(j, rows))
        end = best[self._layers]
        return end and Point(end[2], end[1], Strategy(end[3], stream, slots=dict(self._slots), budgeted=self._budgeted))

    def _evaluate(self, i: int, j: int, rows: int, stream: bool) -> tuple[int, int]:
        """The bytes that exist at once while a group is computed, and a guess of the cycles."""
        frontend = self._frontend
        layout, config = frontend.layout, frontend.config
        home = layout.root
        given = {frontend.first: 0} if stream and i == 0 else {}
        output = home(frontend.output)[0]
        taken = {output: 0} if stream and layout.place(output).rows > 1 else {}
        items = order(frontend.lowered, layout, [Group(j, rows)], config, CompileError, given, taken, i, self._cuts)
        made = {home(layer.output)[0] for layer in frontend.layers[i:j]}
        needed = {home(name)[0] for layer in frontend.layers[i:j] for name in layer.inputs}
        later = {home(name)[0] for layer in frontend.layers[j:] for name in layer.inputs} | ({output} - {*taken})
        earlier = {home(layer.output)[0] for layer in frontend.layers[:i]} | {frontend.first}
        names = made | needed
        first = [name for name in needed & earlier if name not in given]
        last = [name for name in names & later if name not in given]
        coded = codings(items, layout, self._slots, self._budgeted, {frontend.first, output}, config)
        work = stored(items, layout, names, first, last, config, coded=coded)
        through = sum(self._size(name) for name in (later & earlier) - names)
        return through + _most(work, config), _cycles(items, config, coded)

    def _size(self, name: str) -> int:
        """Bytes of a whole tensor."""
        place = self._frontend.layout.place(name)
        return place.rows * self._slots[name] if name in self._slots else place.size(self._frontend.config)


def _unbeaten(points: Sequence[Point]) -> list[Point]:
    """Those that need fewer bytes than all that are faster, the smallest first."""
    front: list[Point] = []
    for one in sorted(points, key=lambda one: (one.peak, one.cycles)):
        if not front or one.cycles < front[-1].cycles:
            front.append(one)
    return front


def point(frontend: Frontend, strategy: Strategy) -> Point:
    """What a strategy needs. Raises :class:`CompileError` if it is not possible."""
    work = frontend.work(strategy)
    return Point(_most(work, frontend.config), _cycles(work.items, frontend.config, work.coded), strategy)


def needed(frontend: Frontend, one: Point) -> Point:
    """The same without the compression of tensors that does not help to need as few bytes, the slowest first. All that the
    strategy then has slots for are compressed."""
    config = frontend.config
    work = frontend.work(one.strategy)
    most, (_, costs) = _most(work, config), _costs(work, config)
    strategy = dataclasses.replace(one.strategy, slots={name: one.strategy.slots[name] for name in work.coded})
    for name in sorted(strategy.slots, key=lambda name: -costs[name]):
        less = dataclasses.replace(
            strategy, slots={other: slot for other, slot in strategy.slots.items() if other != name}
        )
        found = frontend.stored(work.items, work.layout, less)
        if _most(found, config) <= most:
            strategy, work = less, found
    strategy = dataclasses.replace(strategy, slots={name: strategy.slots[name] for name in work.coded})
    return Point(one.peak, _cycles(work.items, config, work.coded), strategy)


def _costs(work: Order, config: Config) -> tuple[int, dict[str, int]]:
    """A guess of the cycles without compression, and of those that the compression of each tensor adds."""
    plain = _cycles(work.items, config)
    return plain, {name: _cycles(work.items, config, {name: coding}) - plain for name, coding in work.coded.items()}


def strip_points(frontend: Frontend) -> list[Point]:
    """The whole network row by row, in strips; none if the maps cannot be cut."""
    found: list[Point] = []
    for strips in STRIPS:
        for rows in (1, 2):
            try:
                found.append(point(frontend, Strategy((Group(len(frontend.layers), rows),), True, strips)))
            except CompileError:
                return found
    return found


def _cycles(items: Sequence[Item], config: Config, coded: Mapping[str, Coding] = MappingProxyType({})) -> int:
    """A guess: run steps one behind the other, and beside each the loads for the next. Of ``coded`` tensors a value of each
    unit takes as long as a word of others."""
    _, found = loads_of(items, config)
    total = before = 0
    for item, (_, loads) in zip(items, found):
        if isinstance(item, Transfer):
            continue
        words = sum(part.stop - part.start for load in loads for part in load.parts) // config.store_bytes
        kernel, piece = item
        _, _, exist = rows_read(kernel, piece)
        per_cycle = config.codec_streams if coded.keys() & {*kernel.inputs} else config.store_bytes
        row = kernel.source.columns * kernel.source.pitch // per_cycle
        filled = row * min(exist, len(piece.kernel_rows))
        total += max(words - before, 0) + STEP_CYCLES + filled
        before = guess(item, config)
        total += max(before, row * exist - filled)
    return total


def affordable(
    frontend: Frontend, slots: Mapping[str, int], budgeted: frozenset[str] = frozenset(), share: float = 0.05
) -> Strategy:
    """Layer by layer, with the compression of those tensors that cost the fewest cycles for what they save, as long as all cost
    at most ``share`` of the cycles, by the planner's guess."""
    config, strategy = frontend.config, Strategy(slots=slots, budgeted=budgeted)
    work = frontend.work(strategy)
    plain, costs = _costs(work, config)
    costs_per_byte = {name: costs[name] / _saved(frontend, name, coding) for name, coding in work.coded.items()}
    while _cycles(work.items, config, work.coded) > (1 + share) * plain:
        worst = max(work.coded, key=lambda name: costs_per_byte[name])
        strategy = dataclasses.replace(strategy, slots={name: slots[name] for name in work.coded if name != worst})
        work = frontend.stored(work.items, work.layout, strategy)
    return strategy


def _saved(frontend: Frontend, name: str, coding: Coding) -> int:
    """The bytes that the compression of a tensor saves, at least one."""
    place = frontend.layout.place(name)
    return max(place.size(frontend.config) - place.rows * coding.slot, 1)


def _most(work: Order, config: Config) -> int:
    """The most bytes that exist at once. Slots of whole maps can be taken by others when they have been read, those of rings
    seldom."""
    spans: list[tuple[range, int]] = []
    for name, slots in work.lives.items():
        if work.rings[name] == work.layout.place(name).rows:
            spans += [(span, work.row_bytes[name]) for slot in slots for span in slot]
        else:
            spans += [(span, work.row_bytes[name] * work.rings[name]) for span in _union(slots)]
    sums: dict[int, tuple[int, int, int]] = {}
    for time, item in enumerate(work.items):
        if not isinstance(item, Transfer) and (item[1].partial_in or item[1].partial_out):
            size = (item[1].partial_at + item[1].windows) * item[0].group * PARAMETER_BYTES
            start, _, most = sums.get(id(item[0]), (time, 0, 0))
            sums[id(item[0])] = start, time, max(most, size)
    spans += [(range(2 * start, 2 * stop + 2), size) for start, stop, size in sums.values()]
    return most_at_once(spans)


def _union(slots: Sequence[Sequence[range]]) -> list[range]:
    """The ranges in which there is something in any slot."""
    found: list[range] = []
    for span in sorted((span for slot in slots for span in slot), key=lambda span: span.start):
        if found and span.start < found[-1].stop:
            found[-1] = range(found[-1].start, max(span.stop, found[-1].stop))
        else:
            found.append(span)
    return found


def fit(frontend: Frontend, memory: int, points: Sequence[Point] | None = None) -> Compiled:
    """The fastest program, by the planner's guess, whose activations take at most ``memory`` bytes. ``points`` are those of a
    planner. Raises :class:`CompileError` if there is none."""
    points = Planner(frontend).points() if points is None else points
    smallest = min(points, key=lambda one: one.peak)
    least: int | None = None
    refused: CompileError | None = None
    for candidate in sorted(points, key=lambda one: one.cycles):
        # The arena may need a little more, or less, than the planner thinks.
        if candidate is smallest or candidate.peak <= memory + memory // 8:
            try:
                compiled = frontend.compile(candidate.strategy)
            except CompileError as error:
                refused = error
                continue
            if compiled.plan.peak <= memory:
                return compiled
            least = compiled.plan.peak if least is None else min(least, compiled.plan.peak)
    if least is None and refused is not None:
        raise refused
    raise too_little(frontend, least, memory)


def too_little(frontend: Frontend, least: int | None, memory: int) -> CompileError:
    """What refuses a number of bytes."""
    return CompileError(
        f"the activations of network {frontend.network.name!r} on configuration {frontend.config.name!r} need at least {least} "
        f"bytes, not {memory}"
    )
