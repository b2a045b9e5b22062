"""The cycle model: how many clock cycles a program takes, exactly.

Three things go on at once, and this module follows each by the cycle in which its next event happens:

* the *sequencer* fetches steps and descriptors and commands the loader;
* the *loader* moves one store word per cycle, but with a one-port store not in a cycle in which the writer writes;
* the *front* (window generator to array) issues one element per cycle, and waits only at a window's end, for the sums of
  the window before to drain, one per cycle.

Nothing else takes time that depends on data. The constants are latencies of :mod:`gossamer.hdl`; the tests hold the sum
against RTL, cycle for cycle.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.interpreter import Run
from gossamer.golden.program import Record
from gossamer.golden.spec import DESCRIPTOR_BYTES, STEP_BYTES, Config, Opcode

__all__ = ["CycleModel", "StepCycles", "issue_cycles"]

FILL = 4
"""From the transfer of a row's start to its first element."""

END_TO_DRAIN = 4
"""From the issue of a window's end to the cycle in which its sums move to the drain registers."""

DRAIN_TO_WRITE = 12
"""From there to the store write that the first sum completes, were its word full."""


def issue_cycles(run: Run, config: Config) -> NDArray[np.int64]:
    """Cycles that the zero skipper takes per window, ``(rows, width)``, the same for every group.

    A word with ``n`` non-zero bytes in the window takes ``max(n, 1)`` cycles, the window's last word ``n + 1``. In word mode a
    beat takes one cycle and the last one two.
    """
    layer, lanes = run.layer, config.lanes
    count = run.step["rows"]
    if layer["word_mode"]:
        beats = layer["kernel_rows"] * (layer["range_last"] + 1)
        return np.full((count, layer["width"]), beats + 1, np.int64)
    ones = np.zeros((len(run.rows), run.rows.shape[1] + 1), np.int64)
    np.cumsum(run.rows != 0, axis=1, out=ones[:, 1:])
    start = layer["offset"] + np.arange(layer["width"]) * layer["x_step"]
    stop = start + layer["range_last"] + 1
    cycles = np.zeros((count, layer["width"]), np.int64)
    first = np.arange(count) * layer["stride_rows"]
    for ky in range(layer["kernel_rows"]):
        row = ones[first + ky]
        word = start // lanes
        while (word * lanes < stop).any():
            low, high = np.clip(word * lanes, start, stop), np.clip((word + 1) * lanes, start, stop)
            bits = row[:, high] - row[:, low]
            last = (ky == layer["kernel_rows"] - 1) & ((word + 1) * lanes >= stop)
            cycles += np.where(word * lanes < stop, np.where(last, bits + 1, np.maximum(bits, 1)), 0)
            word = word + 1
    return cycles


@dataclasses.dataclass(frozen=True)
class StepCycles:
    """What a step took. ``start`` and ``end`` are cycles since the program's start; for a run step ``end`` is when all is
    written, for a load step when the last word has been asked for. ``issue`` counts cycles in which the front had an
    element or an empty word, ``stall`` those in which a window's end waited for the drain."""

    start: int
    end: int
    issue: int = 0
    stall: int = 0


class CycleModel:
    """Follows a program's steps as :meth:`Machine.execute` yields them.

    Parameters
    ----------
    config : Config

    Attributes
    ----------
    steps : list of StepCycles
    cycles : int
        After :meth:`finish`: clock cycles from start to done, as the ``cycles`` register counts them.
    """

    def __init__(self, config: Config):
        self.config = config
        self.steps: list[StepCycles] = []
        self.cycles = 0
        self._writes = np.zeros(0, np.int64)  # cycles in which the writer writes, sorted
        self._loader = 0  # first cycle in which the loader can take a command
        self._idle = 0  # first cycle in which all that has been computed is written
        # Header: the command goes out in cycle 1, its last word is there one cycle after it was asked for.
        self._now = self._fetch(1, 16)  # the cycle in which the sequencer is about to ask for the next step

    def run(self, steps: Iterable[Record | Run]) -> int:
        """Follow all steps and the end; returns the cycles."""
        for step in steps:
            self.step(step)
        return self.finish()

    def step(self, step: Record | Run) -> None:
        """Follow one step."""
        dispatch = self._fetch(self._now, STEP_BYTES)
        if isinstance(step, Run):
            self._run(step, max(dispatch, self._idle))
            return
        if step["wait"]:
            dispatch = max(dispatch, self._idle)
        asked = self._command(dispatch + 1, 0, step["count"], step["count"])
        self._now = self._accepted + 1
        self.steps.append(StepCycles(dispatch, asked))
        if step["opcode"] not in (Opcode.LOAD_WEIGHTS, Opcode.LOAD_PARAMETERS):
            raise ValueError(f"a step's opcode must be a load or a run, not {step['opcode']}")

    def finish(self) -> int:
        """Follow the end step; returns the cycles."""
        self.cycles = max(self._fetch(self._now, STEP_BYTES), self._idle)
        return self.cycles

    def _command(self, cycle: int, left: int, body: int, count: int) -> int:
        """A command to the loader that is offered from ``cycle`` on; returns the cycle in which its last word is asked for.

        ``left`` words of padding, ``body`` words of the store, padding up to ``count`` words.
        """
        self._accepted = max(cycle, self._loader)
        asked = self._accepted + left
        if body:
            asked = self._read(asked + 1, body)
        asked += count - left - body
        self._loader = asked
        return asked

    def _read(self, cycle: int, words: int) -> int:
        """Read ``words`` words from ``cycle`` on; returns the cycle in which the last is asked for."""
        if self.config.store_ports == 2:
            return cycle + words - 1
        before = int(np.searchsorted(self._writes, cycle))
        last = cycle + words - 1
        while True:
            conflicts = int(np.searchsorted(self._writes, last, side="right")) - before
            if last == cycle + words - 1 + conflicts:
                return last
            last = cycle + words - 1 + conflicts

    def _fetch(self, cycle: int, size: int) -> int:
        """Fetch control words; returns the cycle in which the sequencer acts on them."""
        words = size // self.config.store_bytes
        return self._command(cycle, 0, words, words) + 2

    def _run(self, run: Run, dispatch: int) -> None:
        layer, step, config = run.layer, run.step, self.config
        self._writes = np.zeros(0, np.int64)
        begin = self._fetch(dispatch + 1, DESCRIPTOR_BYTES) + 1  # the cycle of ROW WAIT
        front = _Front(run, config)
        granules = layer["slot_words"] * config.granules
        loaded = 0
        for y in range(step["rows"]):
            # Row y may begin to load when at most `ahead` rows have begun and are not computed.
            other = y - 1 - layer["ahead"]
            if other >= 0:
                begin = max(begin, front.finished[other])
            rows = range(loaded, loaded + (layer["stride_rows"] if y else layer["kernel_rows"]))
            cycle = begin + 1
            for row in rows:
                body = 0 if run.blank[row] else layer["data_granules"]
                asked = self._command(cycle, layer["left_granules"], body, granules)
                cycle = self._accepted + 1
            loaded = rows.stop
            begin = cycle
            front.compute(y, asked + 2)
            self._writes = front.writes
        self._now = begin
        self._idle = front.idle
        self.steps.append(StepCycles(dispatch, front.idle, front.issued, front.stalled))


class _Front:
    """The front and the drain during one run step.

    *Logical* time counts only cycles in which the array steps. A window's end that was issued in logical cycle ``t`` reaches
    the array ``END_TO_DRAIN`` logical cycles later and may have to wait there; everything behind it waits too.
    """

    def __init__(self, run: Run, config: Config):
        layer = run.layer
        self._windows = np.tile(issue_cycles(run, config), layer["groups"])  # (rows, groups * width)
        outputs = np.full((layer["groups"], layer["width"]), config.lanes)
        outputs[-1] = layer["last_lanes"]
        self._outputs = outputs.reshape(-1)
        self._addresses = self._places(run, config)
        self._store_bytes = config.store_bytes
        self._free = -1  # the first cycle in which the drain registers can be loaded
        self._waited = 0  # cycles waited so far
        self._recent: list[tuple[int, int]] = []  # logical end and wait of the last windows
        self.finished: list[int] = []  # per row, the first cycle in which the sequencer knows that it is done
        self.writes = np.zeros(0, np.int64)
        self.issued = self.stalled = 0
        self.idle = 0

    def _places(self, run: Run, config: Config) -> NDArray[np.int64]:
        """Byte offset in its store word of each window's first output, ``(rows, groups * width)``."""
        step, layer = run.step, run.layer
        y, g, x = np.ogrid[: step["rows"], : layer["groups"], : layer["width"]]
        address = step["out_address"] + y * layer["out_row_step"] + g * config.lanes + x * layer["out_x_step"]
        return (address % config.store_bytes).reshape(step["rows"], -1)

    def _actual(self, logical: int) -> int:
        """The cycle of a logical cycle."""
        return logical + self._waited - sum(wait for end, wait in self._recent if end + END_TO_DRAIN > logical)

    def compute(self, y: int, ready: int) -> None:
        """Row ``y``, whose input rows are there in cycle ``ready``."""
        start = max(ready, self.finished[-1] if self.finished else 0)
        first = start + FILL - self._waited
        while self._actual(first - 1) >= start + FILL:
            first -= 1
        while self._actual(first) < start + FILL:
            first += 1
        cost = self._windows[y]
        ends = first - 1 + np.cumsum(cost)  # logical
        # A window's sums move when its end has come and the sums before have gone.
        come = ends + END_TO_DRAIN + self._waited
        moves = np.empty_like(come)
        moves[0] = max(int(come[0]), self._free)
        moves[1:] = moves[0] + np.cumsum(np.maximum(cost[1:], self._outputs[:-1]))
        waits = np.diff(moves - come, prepend=0)
        self._free = int(moves[-1] + self._outputs[-1])
        self._waited += int(waits.sum())
        self._recent = [
            *(item for item in self._recent if item[0] + 2 * END_TO_DRAIN > ends[-1]),
            *zip(ends[-2 * END_TO_DRAIN :].tolist(), waits[-2 * END_TO_DRAIN :].tolist()),
        ]
        self.finished.append(self._actual(int(ends[-1])) + 2)
        self.idle = int(moves[-1] + self._outputs[-1]) + DRAIN_TO_WRITE
        self.issued += int(cost.sum())
        self.stalled += int(waits.sum())
        self._write(y, moves)

    def _write(self, y: int, moves: NDArray[np.int64]) -> None:
        """A word is written when its last byte has come, or the window's last."""
        position = np.arange(self._outputs.max())
        last = position == self._outputs[:, None] - 1
        full = (self._addresses[y][:, None] + position) % self._store_bytes == self._store_bytes - 1
        written = (last | full) & (position < self._outputs[:, None])
        cycles = (moves[:, None] + DRAIN_TO_WRITE + position)[written]
        self.writes = np.concatenate([self.writes, np.sort(cycles)])
