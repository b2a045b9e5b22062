"""The schedule: run steps, and in front of each the loads of what it needs that is not there."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from gossamer.golden.layout import Layout
from gossamer.golden.program import Record
from gossamer.golden.spec import PARAMETER_BYTES, Config, Opcode
from gossamer.golden.tiling import Kernel, Piece, descriptor

__all__ = ["LayerRun", "Schedule", "Work", "partial_sums"]

Work = tuple[Kernel, Piece]


@dataclasses.dataclass(frozen=True)
class LayerRun:
    """A run step and the network layer whose output channels ``channels`` it computes."""

    step: int
    layer: str
    output: str
    channels: range
    macs: int


def partial_sums(kernel: Kernel) -> str:
    """What the area of a layer's partial sums is called."""
    return f"{kernel.name} (partial sums)"


class Schedule:
    """The steps of a program.

    Parameters
    ----------
    pieces : sequence of (Kernel, Piece)
        The run steps, in order.
    config : Config

    Attributes
    ----------
    layers, steps : int
        Entries of the layer table, and steps without the end.
    """

    def __init__(self, pieces: Sequence[Work], config: Config):
        self._pieces, self._config = pieces, config
        self._loads = [*_loads(pieces, config)]
        self.layers = len({_entry(work, bases) for work, (bases, _) in zip(pieces, self._loads)})
        self.steps = sum(1 + len(parts) for _, parts in self._loads)

    def blob(self, address: int) -> tuple[bytes, dict[bytes, int]]:
        """The data of all loads, equal data once, and the store word of each if the first is at byte ``address``."""
        blob = bytearray()
        offsets: dict[bytes, int] = {}
        for _, parts in self._loads:
            for load in parts:
                if load.data is not None and load.data not in offsets:
                    blob.extend(bytes(-len(blob) % self._config.store_bytes))
                    offsets[load.data] = (address + len(blob)) // self._config.store_bytes
                    blob.extend(load.data)
        return bytes(blob), offsets

    def records(
        self, layout: Layout, addresses: Mapping[str, int], offsets: Mapping[bytes, int], refuse: Callable[[str], Exception]
    ) -> tuple[tuple[Record, ...], tuple[Record, ...], tuple[LayerRun, ...]]:
        """The layer table, the steps, and what the run steps compute. ``addresses`` are bytes, of tensors and areas of partial
        sums; ``offsets`` are of :meth:`blob`."""
        config = self._config
        table: dict[tuple, Record] = {}
        numbers: dict[tuple, int] = {}
        steps: list[Record] = []
        runs: list[LayerRun] = []
        done: dict[int, int] = {}  # beats of a kernel's windows that have been computed
        for work, (bases, parts) in zip(self._pieces, self._loads):
            kernel, piece = work
            row_steps = _row_steps(kernel, layout, addresses, config)
            fields, step = descriptor(kernel, piece, layout.place(kernel.inputs[0]).row_words(config), config)
            _check_limits(kernel, {**fields, **step}, refuse)
            entry = _entry(work, bases)
            number = numbers.setdefault(entry, len(numbers) + 1)
            table.setdefault(entry, {**fields, **row_steps, "weight_base": bases[0], "parameter_base": bases[1]})
            partial = addresses.get(partial_sums(kernel), 0)
            for load in parts:
                at = partial // config.store_bytes if load.data is None else offsets[load.data]
                steps.append(
                    {
                        "opcode": load.opcode,
                        "wait": load.wait,
                        "layer": number,
                        "destination": load.destination,
                        "count": (load.stop - load.start) // config.store_bytes,
                        "in_address": at + load.start // config.store_bytes,
                    }
                )
            before = done.get(id(kernel), 0)
            done[id(kernel)] = after = before + piece.windows * len(piece.kernel_rows) * len(piece.beats)
            whole = kernel.groups * kernel.rows * kernel.columns * kernel.kernel_rows * kernel.beats
            stop = min(piece.groups.stop * config.lanes, kernel.target.channels)
            channels = range(piece.groups.start * config.lanes, stop)
            macs = kernel.macs * after // whole - kernel.macs * before // whole
            runs.append(LayerRun(len(steps), kernel.name, kernel.target.name, channels, macs))
            step["in_address"] += addresses[kernel.inputs[0]] // config.store_bytes
            step["out_address"] += partial if piece.partial_out else addresses[kernel.target.name]
            steps.append({"opcode": Opcode.RUN, "layer": number, **step})
        return tuple(table.values()), tuple(steps), tuple(runs)


@dataclasses.dataclass(frozen=True)
class _Load:
    """A load step: bytes ``start`` to ``stop`` of ``data``, or of the area of partial sums, into the buffer's entries from
    ``destination`` on."""

    opcode: int
    destination: int
    data: bytes | None
    start: int
    stop: int
    wait: int


class _Ring:
    """Places the entries of consecutive run steps behind each other in a buffer, and from its start again at its end. What is
    still there is not loaded again."""

    def __init__(self, size: int):
        self._size, self._used = size, range(0)
        self._held: list[tuple[range, bytes]] = []

    def place(self, count: int, data: bytes | None, align: int = 1) -> tuple[int, list[tuple[range, int]]]:
        """Where ``count`` entries go, and the parts to load, with whether to wait until the step before is done with them."""
        for held, there in self._held:
            if data is not None and there == data:
                self._used = held
                return held.start, []
        used = self._used
        start = -(-used.stop // align) * align
        if start + count > self._size:
            start = 0
        stop = start + count
        self._used = range(start, stop)
        self._held = [(held, there) for held, there in self._held if held.stop <= start or stop <= held.start]
        if data is not None:
            self._held.append((self._used, data))
        common = range(max(start, used.start), min(stop, used.stop))
        if not common:
            return start, [(self._used, 0)]
        parts = ((range(start, common.start), 0), (range(common.stop, stop), 0), (common, 1))
        return start, [(part, wait) for part, wait in parts if part]


def _loads(pieces: Sequence[Work], config: Config) -> Iterator[tuple[tuple[int, int], list[_Load]]]:
    """Per run step: the first entries of its weights and parameters, and the loads in front of it.

    What the step before does not use is loaded while it runs.
    """
    weights, parameters = _Ring(config.weight_vectors), _Ring(config.parameters)
    before: Piece | None = None
    for kernel, piece in pieces:
        loads = []
        data = kernel.weights_of(piece)
        base, parts = weights.place(len(data) // config.lanes, data)
        for part, wait in parts:
            start, stop = ((at - base) * config.lanes for at in (part.start, part.stop))
            loads.append(_Load(Opcode.LOAD_WEIGHTS, part.start, data, start, stop, wait))
        if piece.partial_in:
            # The first sums are those of the run step before.
            fresh = before is None or (before.kernel_rows, before.beats) != (piece.kernel_rows, piece.beats)
            entries, count, at = None, piece.windows * config.lanes, piece.partial_at * config.lanes
        else:
            entries, fresh, at = kernel.parameters_of(piece), False, 0
            count = len(entries) // PARAMETER_BYTES
        first, parts = parameters.place(count, entries, count if kernel.fields["add"] else config.store_bytes // 8)
        for part, wait in parts:
            start, stop = ((entry - first + at) * PARAMETER_BYTES for entry in (part.start, part.stop))
            loads.append(_Load(Opcode.LOAD_PARAMETERS, part.start, entries, start, stop, wait or int(fresh)))
        yield (base, first), sorted(loads, key=lambda load: load.wait)
        before = piece


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
