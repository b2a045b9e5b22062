"""The schedule: run steps, and in front of each the loads of what it needs that is not there."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from gossamer.golden.buffers import Load, loads_of
from gossamer.golden.loops import fold
from gossamer.golden.program import Program, Record
from gossamer.golden.rolling import MOST_RING, Item, Places, Transfer, partial_sums
from gossamer.golden.spec import PARAMETER_BYTES, Config, Opcode
from gossamer.golden.tiling import Coding, Kernel, Piece, Position, descriptor

__all__ = ["FETCHED", "LayerRun", "Schedule", "Waiting"]

FETCHED = "(fetched, "
"""How the names of areas of fetched words begin."""


@dataclasses.dataclass(frozen=True)
class LayerRun:
    """A run step and the network layer whose output channels ``channels`` it computes."""

    step: int
    layer: str
    output: str
    channels: range


@dataclasses.dataclass(frozen=True)
class Waiting:
    """Bytes of the store that hold something from time ``first`` to time ``last``, both in :meth:`Schedule.timeline`."""

    name: str
    size: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Loads whose data are fetched together from word ``external`` of the external memory."""

    loads: tuple[int, ...]
    external: int
    size: int


class Schedule:
    """The steps of a program.

    Parameters
    ----------
    items : sequence of (Kernel, Piece) or Transfer
        The run steps and the host's transfers, in order.
    layout : Places
    rings : mapping
        The rows that the store has of each tensor.
    row_bytes : mapping
        The bytes from one to the next.
    config : Config
    streamed : set of int
        Numbers in ``loads`` whose data lie in the external memory.
    segment : int
        Bytes that are fetched together, if a single load is not larger.
    coded : mapping
        The tensors of compressed rows.

    Attributes
    ----------
    loads : sequence
        What is loaded, in order.
    warm : int
        The number of the first step of a warm start.
    cold : int
        Fetches in front of it.
    external : bytes
        The contents of the external memory.
    """

    def __init__(
        self,
        items: Sequence[Item],
        layout: Places,
        rings: Mapping[str, int],
        row_bytes: Mapping[str, int],
        config: Config,
        streamed: frozenset[int] = frozenset(),
        segment: int = 0,
        coded: Mapping[str, Coding] = MappingProxyType({}),
    ):
        self._items, self._config, self._coded = items, config, coded
        self._layout, self._rings, self._row_bytes = layout, rings, row_bytes
        cold, found = loads_of(items, config)
        self._bases = [bases for bases, _ in found]
        self.loads = [*cold, *(load for _, loads in found for load in loads if load.parts)]
        self._segments: list[_Segment] = []
        words: dict[bytes, int] = {}  # where the data of segments are in the external memory
        self.external = b""
        for early in (True, False):
            for loads in self._runs([n for n in sorted(streamed) if (n < len(cold)) == early], segment):
                data = b"".join(self._padded(self.loads[load]) for load in loads)
                if data not in words:
                    words[data] = len(self.external) // config.store_bytes
                    self.external += data
                self._segments.append(_Segment(loads, words[data], len(data)))
            if early:
                self.cold = len(self._segments)
        self._streamed = {load: (i, j) for i, seg in enumerate(self._segments) for j, load in enumerate(seg.loads)}
        works = [(item, bases) for item, bases in zip(items, self._bases) if not isinstance(item, Transfer)]
        self.warm = sum(len(load.parts) * (1 + bool(load.palette)) for load in cold) + self.cold
        # Where rows lie in rings, steps repeat.
        self.folded = any(rows < layout.place(name).rows for name, rows in rings.items()) or len(works) < len(items)

    def _next(self, load: int) -> int | None:
        """The segment that is fetched while that of ``load``, its first, is used."""
        after = self._streamed[load][0] + 1
        return after if after not in (self.cold, len(self._segments)) else None

    def _runs(self, streamed: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
        """Cut the streamed loads into runs of at most ``most`` bytes, or single ones."""
        found: list[int] = []
        total = 0
        for number in streamed:
            size = len(self._padded(self.loads[number]))
            if found and total + size > most:
                yield tuple(found)
                found, total = [], 0
            found.append(number)
            total += size
        if found:
            yield tuple(found)

    def _padded(self, load: Load) -> bytes:
        assert load.data is not None
        return load.data + bytes(-len(load.data) % self._config.store_bytes)

    def streamable(self) -> list[int]:
        """Numbers of the loads that may be streamed, those first whose fetch is most easily hidden behind the run step before;
        what stays in the buffers is fetched only once."""
        config = self._config
        hidden = {}
        for number, load in enumerate(self.loads):
            if load.data is not None:
                before = self._items[load.piece - 1] if load.piece else None
                hidden[number] = guess(before, config) / len(load.data) if before else 0.0
                if load.piece is None:
                    hidden[number] = float("inf")
        return sorted(hidden, key=lambda number: -hidden[number])

    def timeline(self) -> list[tuple[int | None, int | None]]:
        """Loads and items in their order, as ``(load, None)`` and ``(None, item)``."""
        found: list[tuple[int | None, int | None]] = []
        loads = self._by_item()
        for item in (None, *range(len(self._items))):
            found += [(number, None) for number in loads.get(item, ())]
            found += [] if item is None else [(None, item)]
        return found

    def _by_item(self) -> dict[int | None, list[int]]:
        """The numbers of the loads in front of each item."""
        found: dict[int | None, list[int]] = {}
        for number, load in enumerate(self.loads):
            found.setdefault(load.piece, []).append(number)
        return found

    def areas(self) -> Iterator[Waiting]:
        """Where partial sums and fetched words wait."""
        times = {entry: time for time, entry in enumerate(self.timeline())}
        found: dict[str, Waiting] = {}
        for number, item in enumerate(self._items):
            if isinstance(item, Transfer):
                continue
            kernel, piece = item
            name, time = partial_sums(kernel), times[None, number]
            if piece.partial_out or (name in found and piece.partial_in):
                stop = (piece.partial_at + piece.windows) * kernel.group * PARAMETER_BYTES
                area = found.get(name, Waiting(name, 0, time, time))
                found[name] = dataclasses.replace(area, size=max(area.size, stop), last=time)
        yield from found.values()
        for number, seg in enumerate(self._segments):
            # A fetch begins when the first load of the segment before is done, or at the start.
            first = times[self._segments[number - 1].loads[0], None] if number else 0
            yield Waiting(_stream(number), seg.size, first, times[seg.loads[-1], None])

    def blob(self, address: int) -> tuple[bytes, dict[bytes, int]]:
        """The data of all loads that are not streamed, equal data once, and the store word of each if the first is at byte
        ``address``."""
        blob = bytearray()
        offsets: dict[bytes, int] = {}
        for number, load in enumerate(self.loads):
            for data in (load.palette, b"" if number in self._streamed else load.data):
                if data and data not in offsets:
                    blob.extend(bytes(-len(blob) % self._config.store_bytes))
                    offsets[data] = (address + len(blob)) // self._config.store_bytes
                    blob.extend(data)
        return bytes(blob), offsets

    def sizes(self, addresses: Mapping[str, int], refuse: Callable[[str], Exception]) -> tuple[int, int]:
        """Entries of the layer table, and steps without the end, if areas lie at ``addresses``, or all as far behind them."""
        behind = 2 * self._config.store_size  # where no loads' data lie
        moved = {name: behind + address for name, address in addresses.items()}
        table, steps, _ = self._steps(moved, self.blob(0)[1], refuse)
        return len(table), len(steps)

    def cost(self) -> int:
        """A rough guess of the cycles of an inference, fetches included: half of all activations are zero."""
        config = self._config
        now = free = 0
        ready: dict[int, int] = {}

        def fetch(number: int) -> None:
            nonlocal free
            words = self._segments[number].size // config.store_bytes
            free = ready[number] = max(now, free) + config.fetch_latency + words * config.fetch_interval

        if self.cold < len(self._segments):
            fetch(self.cold)
        waiting = iter(enumerate(self.loads))
        pending = next(waiting, None)
        for piece, work in enumerate(self._items):
            while pending is not None and (pending[1].piece is None or pending[1].piece <= piece):
                number = pending[0]
                if number in self._streamed and pending[1].piece is not None:
                    segment, place = self._streamed[number]
                    now = max(now, ready[segment])
                    after = self._next(number)
                    if place == 0 and after is not None:
                        fetch(after)
                pending = next(waiting, None)
            now += guess(work, config)
        return now

    def records(
        self, addresses: Mapping[str, int], offsets: Mapping[bytes, int], refuse: Callable[[str], Exception]
    ) -> tuple[tuple[Record, ...], tuple[Record, ...], tuple[LayerRun, ...]]:
        """The layer table, the steps, and what the run steps compute. ``addresses`` are bytes, of tensors and areas;
        ``offsets`` are of :meth:`blob`."""
        table, steps, runs = self._steps(addresses, offsets, refuse)
        return table, tuple(steps), tuple(dataclasses.replace(run, step=number) for number, run in runs.items())

    def _steps(
        self, addresses: Mapping[str, int], offsets: Mapping[bytes, int], refuse: Callable[[str], Exception]
    ) -> tuple[tuple[Record, ...], list[Record], dict[int, LayerRun]]:
        config = self._config
        table: list[Record] = []
        numbers: dict[tuple, int] = {}
        steps: list[Record] = []
        runs: dict[int, LayerRun] = {}
        loads = self._by_item()
        if self.cold:
            steps.append(self._fetch(0, 1, addresses))
        steps += self._load_steps(loads.get(None, ()), 1, addresses, offsets)
        if self.cold < len(self._segments):
            steps.append(self._fetch(self.cold, 1, addresses))
        for i, (item, bases) in enumerate(zip(self._items, self._bases)):
            if isinstance(item, Transfer):
                self._transfer(item, addresses, steps)
                continue
            kernel, piece = item
            fields, step, position = descriptor(kernel, piece, config, self._coded)
            step |= self._addresses(kernel, piece, position, addresses)
            row_steps = self._row_steps(kernel, piece, addresses)
            entry = {**fields, **row_steps, **bases}
            layer = numbers.setdefault(tuple(entry.values()), len(numbers) + 1)
            if layer > len(table):
                table.append(entry)
            _check_limits(kernel, {**fields, **step}, refuse)
            steps += self._load_steps(loads.get(i, ()), layer, addresses, offsets)
            stop = min(piece.groups.stop * kernel.group, kernel.target.channels)
            channels = range(piece.groups.start * kernel.group, stop)
            runs[len(steps)] = LayerRun(len(steps), kernel.name, kernel.target.name, channels)
            steps.append({"opcode": Opcode.RUN, "layer": layer, **step})
        if self.folded:
            steps, kept = fold(steps, Program.step_words(len(table), config), self.warm)
            runs = {new: runs[old] for old, new in kept.items() if old in runs}
        return tuple(table), steps, runs

    def _slot(self, name: str, row: int, addresses: Mapping[str, int]) -> int:
        """The byte at which a row of a tensor lies."""
        return addresses[name] + row % self._rings[name] * self._row_bytes[name]

    def _addresses(
        self, kernel: Kernel, piece: Piece, position: Position, addresses: Mapping[str, int]
    ) -> dict[str, int]:
        """Where a run step finds its input rows, and where its output rows go."""
        size = self._config.store_bytes
        name, row = kernel.inputs[0], position.in_row
        start = self._slot(name, row, addresses) // size + position.in_word
        wrap_rows = wrap_address = 0
        if len(kernel.inputs) > 1 and len(piece.rows) == 1:
            other = kernel.inputs[1]
            wrap_rows = 1
            wrap_address = self._slot(other, row, addresses) // size + position.in_word
            wrap_address += kernel.second * self._layout.map(other).pitch // size
        elif row % self._rings[name] + position.in_rows > self._rings[name]:
            wrap_rows = self._rings[name] - row % self._rings[name]
            wrap_address = addresses[name] // size + position.in_word
        if piece.partial_out:
            out = addresses[partial_sums(kernel)]
        else:
            out = self._slot(kernel.target.name, position.out_row, addresses)
        return {
            "in_address": start,
            "wrap_rows": wrap_rows,
            "wrap_address": wrap_address,
            "out_address": out + position.out_byte,
        }

    def _row_steps(self, kernel: Kernel, piece: Piece, addresses: Mapping[str, int]) -> dict[str, int]:
        """How the input rows follow each other in the store; those of an addition come from its two inputs in turn."""
        words = self._row_bytes[kernel.inputs[0]] // self._config.store_bytes
        if len(kernel.inputs) == 1 or len(piece.rows) == 1:
            return {"row_step": words, "row_step_odd": words}
        over = (addresses[kernel.inputs[1]] - addresses[kernel.inputs[0]]) // self._config.store_bytes
        return {"row_step": over, "row_step_odd": words - over}

    def _transfer(self, item: Transfer, addresses: Mapping[str, int], steps: list[Record]) -> None:
        """A step for each part of a ring; one that goes on where the step before has ended lengthens that."""
        place = self._layout.place(item.tensor)
        rows, words = self._rings[item.tensor], place.row_words(self._config)
        y = item.rows.start
        while y < item.rows.stop:
            stop = min(item.rows.stop, y - y % rows + rows)
            record = {
                "opcode": Opcode.HOST,
                "take": int(item.take),
                "first": int(y == 0),
                "rows": stop - y,
                "columns": place.columns,
                "in_address": self._slot(item.tensor, y, addresses) // self._config.store_bytes,
                "row_words": words,
                "column": item.column,
            }
            before = steps[-1] if steps else {}
            same = all(before.get(key) == record[key] for key in ("opcode", "take", "columns", "row_words", "column"))
            if same and y % rows and before["in_address"] + before["rows"] * words == record["in_address"]:
                steps[-1] = {**before, "rows": before["rows"] + stop - y}
            else:
                steps.append(record)
            y = stop

    def _load_steps(
        self, numbers: Sequence[int], layer: int, addresses: Mapping[str, int], offsets: Mapping[bytes, int]
    ) -> list[Record]:
        """Loads, and the fetches for which they make way. Those that need not wait come first."""
        size = self._config.store_bytes
        fetched: list[Record] = []
        others: list[list[Record]] = []  # each in one go
        for number in numbers:
            load = self.loads[number]
            segment, place = self._streamed.get(number, (None, 0))
            if segment is not None:
                before = sum(len(self._padded(self.loads[n])) for n in self._segments[segment].loads[:place])
                at = (addresses[_stream(segment)] + before) // size
            elif load.data is None:
                assert load.piece is not None
                work = self._items[load.piece]
                assert not isinstance(work, Transfer)
                at = addresses[partial_sums(work[0])] // size
            else:
                at = offsets[load.data]
            for i, part in enumerate(load.parts):
                first = segment is not None and place == i == 0
                step = {
                    "opcode": load.opcode,
                    "wait": part.wait,
                    "fetched": int(first),
                    "format": load.format,
                    "shared": int(load.shared),
                    "layer": layer,
                    "destination": part.destination,
                    "count": (part.stop - part.start) // size,
                    "in_address": at + part.start // size,
                }
                together: list[Record] = [step]
                if load.palette:
                    own = {"opcode": Opcode.LOAD_PALETTE, "format": 0, "destination": 0, "fetched": 0, "wait": 0}
                    words = {"count": len(load.palette) // size, "in_address": offsets[load.palette]}
                    together.insert(0, {**step, **own, **words})
                if segment is None:
                    others.append(together)
                else:
                    fetched += together
                after = self._next(number) if first else None
                if after is not None:
                    fetched.append(self._fetch(after, layer, addresses))
        last = sorted(others, key=lambda together: together[-1]["wait"])
        return [*fetched, *(step for together in last for step in together)]

    def _fetch(self, number: int, layer: int, addresses: Mapping[str, int]) -> Record:
        size, segment = self._config.store_bytes, self._segments[number]
        return {
            "opcode": Opcode.FETCH,
            "wait": 0,
            "layer": layer,
            "count": segment.size // size,
            "in_address": addresses[_stream(number)] // size,
            "external": segment.external,
        }


def guess(item: Item, config: Config) -> int:
    """A rough guess of the cycles of a run step: half of all activations are zero."""
    if isinstance(item, Transfer):
        return 0
    kernel, piece = item
    beats = piece.windows * kernel.vectors(piece.kernel_rows, piece.beats)
    return max(beats if kernel.word_mode else beats // 2, piece.windows * kernel.group)


def _stream(segment: int) -> str:
    return f"{FETCHED}{segment})"


def _check_limits(kernel: Kernel, fields: Record, refuse: Callable[[str], Exception]) -> None:
    """What the fields of the sequencer can hold, gossamer.hdl.sequencer.descriptor_layout, where cutting does not see to it."""
    for field, most, what in (
        ("left_granules", 255, "padding words per row"),
        ("kernel_rows", 63, "kernel rows"),
        ("stride_rows", 15, "rows of stride"),
        ("lead_rows", 63, "padding rows"),
        ("wrap_rows", MOST_RING, "rows of a ring"),
        ("out_x_step", 4095, "bytes per output pixel"),
        ("rows", 2047, "output rows"),
        ("in_rows", 2047, "input rows"),
    ):
        if fields[field] > most:
            raise refuse(f"layer {kernel.name!r} must have at most {most} {what}, not {fields[field]}")
