"""The schedule: run steps, and in front of each the loads of what it needs that is not there."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from gossamer.golden.buffers import Load, loads_of
from gossamer.golden.layout import Layout
from gossamer.golden.program import Record
from gossamer.golden.spec import PARAMETER_BYTES, Config, Opcode
from gossamer.golden.tiling import Kernel, Piece, descriptor

__all__ = ["FETCHED", "PARTIAL_SUMS", "Area", "LayerRun", "Schedule", "Work", "partial_sums"]

Work = tuple[Kernel, Piece]

FETCHED, PARTIAL_SUMS = "(fetched, ", " (partial sums)"
"""How the names of areas of fetched words begin, and those of areas of partial sums end."""


@dataclasses.dataclass(frozen=True)
class LayerRun:
    """A run step and the network layer whose output channels ``channels`` it computes."""

    step: int
    layer: str
    output: str
    channels: range


@dataclasses.dataclass(frozen=True)
class Area:
    """Bytes of the store that hold something from time ``first`` to time ``last``, both in :meth:`Schedule.timeline`."""

    name: str
    size: int
    first: int
    last: int


def partial_sums(kernel: Kernel) -> str:
    """What the area of a layer's partial sums is called."""
    return kernel.name + PARTIAL_SUMS


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
    pieces : sequence of (Kernel, Piece)
        The run steps, in order.
    config : Config
    streamed : set of int
        Numbers in ``loads`` whose data lie in the external memory.
    segment : int
        Bytes that are fetched together, if a single load is not larger.

    Attributes
    ----------
    loads : sequence
        What is loaded, in order.
    table, steps : int
        Entries of the layer table, and steps without the end.
    warm : int
        The number of the first step of a warm start.
    cold : int
        Fetches in front of it.
    external : bytes
        The contents of the external memory.
    """

    def __init__(self, pieces: Sequence[Work], config: Config, streamed: frozenset[int] = frozenset(), segment: int = 0):
        self._pieces, self._config = pieces, config
        cold, found = loads_of(pieces, config)
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
        self.table = len({_entry(work, bases) for work, bases in zip(pieces, self._bases)})
        self.warm = sum(len(load.parts) for load in cold) + self.cold
        self.steps = len(pieces) + sum(len(load.parts) for load in self.loads) + len(self._segments)

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
                before = self._pieces[load.piece - 1] if load.piece else None
                hidden[number] = guess(before, config) / len(load.data) if before else 0.0
                if load.piece is None:
                    hidden[number] = float("inf")
        return sorted(hidden, key=lambda number: -hidden[number])

    def timeline(self) -> list[tuple[int | None, int | None]]:
        """Loads and run steps in their order, as ``(load, None)`` and ``(None, piece)``."""
        found: list[tuple[int | None, int | None]] = []
        for piece in (None, *range(len(self._pieces))):
            found += [(number, None) for number, load in enumerate(self.loads) if load.piece == piece]
            found += [] if piece is None else [(None, piece)]
        return found

    def areas(self) -> Iterator[Area]:
        """Where partial sums and fetched words wait."""
        times = {entry: time for time, entry in enumerate(self.timeline())}
        found: dict[str, Area] = {}
        for number, (kernel, piece) in enumerate(self._pieces):
            name, time = partial_sums(kernel), times[None, number]
            if piece.partial_out or (name in found and piece.partial_in):
                stop = (piece.partial_at + piece.windows) * self._config.lanes * PARAMETER_BYTES
                area = found.get(name, Area(name, 0, time, time))
                found[name] = dataclasses.replace(area, size=max(area.size, stop), last=time)
        yield from found.values()
        for number, seg in enumerate(self._segments):
            # A fetch begins when the first load of the segment before is done, or at the start.
            first = times[self._segments[number - 1].loads[0], None] if number else 0
            yield Area(_stream(number), seg.size, first, times[seg.loads[-1], None])

    def blob(self, address: int) -> tuple[bytes, dict[bytes, int]]:
        """The data of all loads that are not streamed, equal data once, and the store word of each if the first is at byte
        ``address``."""
        blob = bytearray()
        offsets: dict[bytes, int] = {}
        for number, load in enumerate(self.loads):
            if load.data is not None and number not in self._streamed and load.data not in offsets:
                blob.extend(bytes(-len(blob) % self._config.store_bytes))
                offsets[load.data] = (address + len(blob)) // self._config.store_bytes
                blob.extend(load.data)
        return bytes(blob), offsets

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
        for piece, work in enumerate(self._pieces):
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
        self, layout: Layout, addresses: Mapping[str, int], offsets: Mapping[bytes, int], refuse: Callable[[str], Exception]
    ) -> tuple[tuple[Record, ...], tuple[Record, ...], tuple[LayerRun, ...]]:
        """The layer table, the steps, and what the run steps compute. ``addresses`` are bytes, of tensors and areas;
        ``offsets`` are of :meth:`blob`."""
        config = self._config
        table: dict[tuple, Record] = {}
        numbers: dict[tuple, int] = {}
        steps: list[Record] = []
        runs: list[LayerRun] = []
        if self.cold:
            steps.append(self._fetch(0, 1, addresses))
        steps += self._load_steps(None, 1, addresses, offsets)
        if self.cold < len(self._segments):
            steps.append(self._fetch(self.cold, 1, addresses))
        for i, (work, bases) in enumerate(zip(self._pieces, self._bases)):
            kernel, piece = work
            fields, step = descriptor(kernel, piece, layout.place(kernel.inputs[0]).row_words(config), config)
            _check_limits(kernel, {**fields, **step}, refuse)
            entry = _entry(work, bases)
            layer = numbers.setdefault(entry, len(numbers) + 1)
            row_steps = _row_steps(kernel, layout, addresses, config)
            table.setdefault(entry, {**fields, **row_steps, "weight_base": bases[0], "parameter_base": bases[1]})
            steps += self._load_steps(i, layer, addresses, offsets)
            stop = min(piece.groups.stop * config.lanes, kernel.target.channels)
            channels = range(piece.groups.start * config.lanes, stop)
            runs.append(LayerRun(len(steps), kernel.name, kernel.target.name, channels))
            step["in_address"] += addresses[kernel.inputs[0]] // config.store_bytes
            step["out_address"] += addresses[partial_sums(kernel) if piece.partial_out else kernel.target.name]
            steps.append({"opcode": Opcode.RUN, "layer": layer, **step})
        return tuple(table.values()), tuple(steps), tuple(runs)

    def _load_steps(
        self, piece: int | None, layer: int, addresses: Mapping[str, int], offsets: Mapping[bytes, int]
    ) -> list[Record]:
        """The loads in front of a run step, and the fetches for which they make way. Those that need not wait come first."""
        size = self._config.store_bytes
        fetched: list[Record] = []
        others: list[Record] = []
        for number, load in enumerate(self.loads):
            if load.piece != piece:
                continue
            segment, place = self._streamed.get(number, (None, 0))
            if segment is not None:
                before = sum(len(self._padded(self.loads[n])) for n in self._segments[segment].loads[:place])
                at = (addresses[_stream(segment)] + before) // size
            elif load.data is None:
                assert piece is not None
                at = addresses[partial_sums(self._pieces[piece][0])] // size
            else:
                at = offsets[load.data]
            for i, part in enumerate(load.parts):
                first = segment is not None and place == i == 0
                step = {
                    "opcode": load.opcode,
                    "wait": part.wait,
                    "fetched": int(first),
                    "layer": layer,
                    "destination": part.destination,
                    "count": (part.stop - part.start) // size,
                    "in_address": at + part.start // size,
                }
                (others if segment is None else fetched).append(step)
                after = self._next(number) if first else None
                if after is not None:
                    fetched.append(self._fetch(after, layer, addresses))
        return [*fetched, *sorted(others, key=lambda step: step["wait"])]

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


def guess(work: Work, config: Config) -> int:
    """A rough guess of the cycles of a run step: half of all activations are zero."""
    kernel, piece = work
    beats = piece.windows * len(piece.kernel_rows) * len(piece.beats)
    return max(beats if kernel.word_mode else beats // 2, piece.windows * config.lanes)


def _stream(segment: int) -> str:
    return f"{FETCHED}{segment})"


def _entry(work: Work, bases: tuple[int, int]) -> tuple:
    """What tells two entries of the layer table apart."""
    kernel, piece = work
    return id(kernel), len(piece.rows), piece.groups, piece.columns, piece.kernel_rows, piece.beats, bases


def _row_steps(kernel: Kernel, layout: Layout, addresses: Mapping[str, int], config: Config) -> dict[str, int]:
    """How the input rows follow each other in the store; those of an addition come from its two inputs in turn."""
    words = layout.place(kernel.inputs[0]).row_words(config)
    if len(kernel.inputs) == 1:
        return {"row_step": words, "row_step_odd": words}
    over = (addresses[kernel.inputs[1]] - addresses[kernel.inputs[0]]) // config.store_bytes
    return {"row_step": over, "row_step_odd": words - over}


def _check_limits(kernel: Kernel, fields: Record, refuse: Callable[[str], Exception]) -> None:
    """What the fields of the sequencer can hold, gossamer.hdl.sequencer.descriptor_layout, where cutting does not see to it."""
    for field, most, what in (
        ("left_granules", 255, "padding words per row"),
        ("kernel_rows", 63, "kernel rows"),
        ("stride_rows", 15, "rows of stride"),
        ("lead_rows", 63, "padding rows"),
        ("out_x_step", 4095, "bytes per output pixel"),
        ("rows", 2047, "output rows"),
        ("in_rows", 2047, "input rows"),
    ):
        if fields[field] > most:
            raise refuse(f"layer {kernel.name!r} must have at most {most} {what}, not {fields[field]}")
