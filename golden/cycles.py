"""The cycle model: how many clock cycles a program takes, exactly.

Four things go on at once, and this module follows each by the cycle in which its next event happens:

* the *sequencer* fetches steps and descriptors and commands the loader;
* the *loader* moves one store word per cycle, but with a one-port store not in a cycle in which the writer writes; of
  compressed rows it decodes one value of each unit per cycle, if the bits are there;
* the *front* (window generator to array) issues one element per cycle, and stands still only while a window's sums wait for
  those of the window before to drain;
* the *drain* moves one sum per cycle, but with ``interval`` 2 stands still for a cycle behind a sum that takes the requantizer
  two.

Nothing else takes time that depends on data. The constants are latencies of :mod:`gossamer.hdl`; the tests hold the sum
against RTL, cycle for cycle.

In steady state a row of windows takes ``sum(max(n[i], 1 + m[i + 1]))`` cycles per channel group, over the row buffer words
that are not dropped: ``n[i]`` non-zero bytes (at least 1) in the window, ``m[i]`` empty words dropped in front.
"""

import bisect
import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import codec
from gossamer.golden.interpreter import Code, Run, input_codes, output_code, output_rows, row_order, values_per_byte
from gossamer.golden.program import Record
from gossamer.golden.spec import DESCRIPTOR_BYTES, PARAMETER_BYTES, STEP_BYTES, Config, Opcode

__all__ = ["CycleModel", "StepCycles", "Words", "words"]

FOREVER = 1 << 62

LOADS = (Opcode.LOAD_WEIGHTS, Opcode.LOAD_PARAMETERS, Opcode.LOAD_MASKS, Opcode.LOAD_PALETTE)

LAST_TO_DRAIN = 4
"""From the issue of a window's last element to the cycle in which its sums move to the drain registers."""

SCALE_TO_WRITE = 9
"""From the cycle in which the requantizer takes a sum to the store write of its byte, if that completes a word."""

CODE_TO_WRITE = 2
"""How much later a halfword of a compressed row is written than a raw word would be that ends with the same value."""


@dataclasses.dataclass(frozen=True)
class Words:
    """The row buffer words of an output row's windows, in order.

    ``bits`` is ``(rows, words)``: the non-zero bytes in the window, of block-sparse layers those that meet a vector that is
    not zero. ``last`` marks each window's last word. ``final_range`` is the number of words in the row's last range,
    ``ranges`` the number of ranges.
    """

    bits: NDArray[np.int64]
    last: NDArray[np.bool_]
    final_range: int
    ranges: int


def words(run: Run, config: Config) -> Words:
    """The words that the row buffer yields for a run step. In word mode they are its beats."""
    layer, lanes = run.layer, config.lanes
    rows, width, kernel_rows, groups = run.step["rows"], layer["width"], layer["kernel_rows"], layer["groups"]
    ranges = width * kernel_rows
    if layer["word_mode"]:
        beats = layer["range_last"] + 1
        last = np.zeros(ranges * beats, bool)
        last[kernel_rows * beats - 1 :: kernel_rows * beats] = True
        last = np.tile(last, groups)
        return Words(np.ones((rows, len(last)), np.int64), last, beats, ranges * groups)
    start = np.repeat(layer["offset"] + np.arange(width) * layer["x_step"], kernel_rows)
    stop = start + layer["range_last"] + 1
    ky = np.tile(np.arange(kernel_rows), width)
    count = -(-stop // lanes) - start // lanes  # words of each range
    owner = np.repeat(np.arange(ranges), count)
    index = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)  # of the word in its range
    word = start[owner] // lanes + index
    low, high = np.maximum(word * lanes, start[owner]), np.minimum((word + 1) * lanes, stop[owner])
    ones = np.zeros((len(run.rows), run.rows.shape[1] + 1), np.int64)
    np.cumsum((run.rows != 0) | layer["binary"], axis=1, out=ones[:, 1:])
    row = np.arange(rows)[:, None] * layer["stride_rows"] + ky[owner]
    last = (ky[owner] == kernel_rows - 1) & (index == count[owner] - 1)
    bits = np.tile(ones[row, high] - ones[row, low], groups) if run.stored is None else _sparse_bits(run, run.stored, lanes)
    return Words(bits, np.tile(last, groups), int(count[-1]), ranges * groups)


def _sparse_bits(run: Run, stored: NDArray[np.bool_], lanes: int) -> NDArray[np.int64]:
    """Of a block-sparse run step, :attr:`Words.bits`."""
    layer = run.layer
    columns = layer["offset"] + np.arange(layer["width"])[:, None] * layer["x_step"] + np.arange(layer["range_last"] + 1)
    first = -layer["offset"] % lanes  # byte of the range with which its second word begins
    words = np.unique([0, *range(first, layer["range_last"] + 1, lanes)])
    found = []
    for y in range(run.step["rows"]):
        window = run.rows[y * layer["stride_rows"] :][: layer["kernel_rows"], columns] != 0  # (ky, x, byte)
        pairs = window.transpose(1, 0, 2) & stored[:, None]  # (group, x, ky, byte)
        found.append(np.add.reduceat(pairs, words, axis=3, dtype=np.int64).reshape(-1))
    return np.stack(found)


@dataclasses.dataclass(frozen=True)
class StepCycles:
    """What a step took. ``start`` and ``end`` are cycles since the program's start; for a run step ``end`` is when all is
    written, for a load step when the last word has been asked for.

    The cycles of a run step are those in which the front had work (``issue``), those in which it had none because input rows
    were not there or because it was about to take the next (``load``), and those in which it stood still because sums
    waited for the drain, with the drain's last ones (``stall``).
    """

    start: int
    end: int
    issue: int = 0
    load: int = 0
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
        # Fetches: cycles in which words were written, words to come, the cycle from which the next is there, and the first in
        # which the fetcher is idle again, if no words are to come.
        self._fetched = np.zeros(0, np.int64)
        self._coming, self._next_word, self._fetcher = 0, 0, 0
        # Header: the command goes out in cycle 1, its last word is there one cycle after it was asked for, and then checked.
        self._now = self._fetch(1, 16) + 1  # the cycle in which the sequencer is about to ask for the next step

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
        if step["opcode"] == Opcode.LOOP:
            self._now = dispatch + 1
            return
        if step["opcode"] == Opcode.HOST:
            self._follow_fetch(FOREVER)
            self._now = max(dispatch, self._idle, self._fetcher) + 1
            return
        if step["wait"]:
            dispatch = max(dispatch, self._idle)
        if step["opcode"] == Opcode.FETCH:
            self._follow_fetch(FOREVER)
            taken = max(dispatch + 1, self._loader, self._fetcher)
            self._coming, self._next_word = step["count"], taken + self.config.fetch_latency
            self._now = taken + 1
            self.steps.append(StepCycles(dispatch, taken))
            return
        if step["opcode"] not in LOADS:
            raise ValueError(f"a step's opcode must be a load, a fetch or a run, not {step['opcode']}")
        if step["fetched"]:
            self._follow_fetch(FOREVER)
            dispatch = max(dispatch, self._fetcher)
        asked = self._command(dispatch + 1, 0, step["count"], step["count"])
        self._now = self._accepted + 1
        self.steps.append(StepCycles(dispatch, asked))

    def finish(self) -> int:
        """Follow the end step; returns the cycles."""
        self._follow_fetch(FOREVER)
        self.cycles = max(self._fetch(self._now, STEP_BYTES), self._idle, self._fetcher)
        return self.cycles

    def _follow_fetch(self, until: int) -> None:
        """The fetched words that are written before cycle ``until``: each in the first cycle that the writer leaves."""
        found = []
        while self._coming and self._next_word < until:
            at = int(np.searchsorted(self._writes, self._next_word))
            if at < len(self._writes) and self._writes[at] == self._next_word:
                self._next_word += 1
                continue
            found.append(self._next_word)
            self._fetcher = self._next_word + 1
            self._next_word += self.config.fetch_interval
            self._coming -= 1
        if found:
            self._fetched = np.concatenate([self._fetched, np.array(found, np.int64)])

    def _command(self, cycle: int, left: int, body: int, count: int, code: "_Code | None" = None) -> int:
        """A command to the loader that is offered from ``cycle`` on; returns the cycle in which its last word is asked for.

        ``left`` words of padding, ``body`` words of the store, padding up to ``count`` words. With ``code`` the body is made of
        a compressed row.
        """
        self._accepted = max(cycle, self._loader)
        asked = self._accepted + left
        if body:
            asked = self._decode(asked + 1, code) if code else self._read(asked + 1, body)
        asked += count - left - body
        self._loader = asked + 1
        return asked

    def _read(self, cycle: int, words: int) -> int:
        """Read ``words`` words from ``cycle`` on; returns the cycle in which the last is asked for."""
        if self.config.store_ports == 2:
            return cycle + words - 1
        self._fetched = self._fetched[np.searchsorted(self._fetched, cycle) :]
        last = cycle + words - 1
        while True:
            self._follow_fetch(last + 1)
            conflicts = sum(
                int(np.searchsorted(writes, last, side="right") - np.searchsorted(writes, cycle))
                for writes in (self._writes, self._fetched)
            )
            if last == cycle + words - 1 + conflicts:
                return last
            last = cycle + words - 1 + conflicts

    def _decode(self, first: int, code: "_Code") -> int:
        """Decode a row whose first value can be found from cycle ``first`` on; returns the cycle in which the last is."""
        last = first + code.values
        while True:
            self._follow_fetch(last + 1)
            found = self._decoded(first, code, self._blocked(self._accepted, last))
            if found <= last:
                return found
            last = found

    def _blocked(self, start: int, stop: int) -> set[int]:
        """The cycles from ``start`` to ``stop`` in which nothing can be read."""
        if self.config.store_ports == 2:
            return set()
        writes = np.concatenate([self._writes, self._fetched])
        return set(writes[(writes >= start) & (writes <= stop)].tolist())

    def _decoded(self, first: int, code: "_Code", blocked: set[int]) -> int:
        """See :meth:`_decode`."""
        decoded = self._decoded_units if self.config.codec_streams > 1 else self._decoded_unit
        return decoded(first, code, blocked)

    def _decoded_units(self, first: int, code: "_Code", blocked: set[int]) -> int:
        """Of several units: they take turns at the store, a cycle each, and each asks for the next chunk while one of its two
        registers for chunks is empty. In front of its decoder is a register for a halfword."""
        streams, asked = self.config.codec_streams, self._accepted + 1
        halfwords = self.config.codec_chunk // 2
        last = first + code.values + streams + len(blocked)
        while True:
            turns = [cycle for cycle in range(asked, last + 4 * streams) if cycle not in blocked]
            found = self._joined(first, code, [_Unit(turns[unit::streams], halfwords) for unit in range(streams)])
            if found is not None:
                return found
            last += code.values + len(blocked)

    @staticmethod
    def _joined(first: int, code: "_Code", units: "list[_Unit]") -> int | None:
        """When the last values of all units are there. A value is found at the earliest when those before are all there."""
        joined = first
        for needed in code.taken_by():
            found = joined
            for unit in needed:
                taken = units[unit].take(joined)
                if taken is None:
                    return None
                found = max(found, taken)
            joined = found + 1
        return joined

    def _decoded_unit(self, first: int, code: "_Code", blocked: set[int]) -> int:
        """Of one unit. The halfword register is filled from the store, which is asked for the next halfword in every
        cycle, and has it in the one after."""
        asked = self._accepted + 1
        while asked in blocked:
            asked += 1
        full = asked + 2  # the first cycle in which the register is full, and the halfword behind its is asked for
        late = 0
        for value in code.takes:
            cycle = first + value + late
            if cycle < full:
                late += full - cycle
                cycle = full
            if cycle == full or cycle - 1 in blocked:  # the next halfword is not there yet
                cycle += 1
                while cycle - 1 in blocked:
                    cycle += 1
            full = cycle + 1
        return first + code.values - 1 + late

    def _fetch(self, cycle: int, size: int) -> int:
        """Fetch control words; returns the cycle in which the sequencer acts on them."""
        words = size // self.config.store_bytes
        return self._command(cycle, 0, words, words) + 2

    def _run(self, run: Run, dispatch: int) -> None:
        layer, step, config = run.layer, run.step, self.config
        self._follow_fetch(dispatch)
        self._writes = np.zeros(0, np.int64)
        begin = self._fetch(dispatch + 1, DESCRIPTOR_BYTES) + 1  # the cycle of ROW WAIT
        front = _Front(run, config)
        codes = _codes(run, config)
        granules = layer["slot_words"] * config.granules
        data = layer["right_granule"] - layer["left_granules"]
        loaded = 0
        for y in range(step["rows"]):
            # Row y may begin to load when at most `ahead` rows have begun and are not computed.
            other = y - 1 - layer["ahead"]
            if other >= 0:
                begin = max(begin, front.finished[other])
            rows = range(loaded, loaded + (layer["stride_rows"] if y else layer["kernel_rows"]))
            cycle = begin + 1
            for row in rows:
                body = 0 if run.blank[row] else data
                asked = self._command(cycle, layer["left_granules"], body, granules, codes.get(row))
                cycle = self._accepted + 1
            loaded = rows.stop
            begin = cycle
            front.compute(y, asked + 2)
            self._writes = front.writes
        self._now = begin
        self._idle = front.idle
        # The front's last element is issued in logical time: the waits of the array are not in it.
        load = front.end - dispatch - front.issued
        self.steps.append(StepCycles(dispatch, front.idle, front.issued, load, front.idle - front.end))


@dataclasses.dataclass(frozen=True)
class _Code:
    """A compressed row: the values of each of its units, and those of them, in order, that take a halfword from the register:
    the first, and each behind one that has the first bit of the halfword that was taken last. Of several units, the values of
    unit ``s`` are ``s``, ``s + streams``, …"""

    values: int
    takes: list[int]
    streams: int = 1

    def taken_by(self) -> list[list[int]]:
        """For each value of a unit, the units that take a halfword for it."""
        found: list[list[int]] = [[] for _ in range(self.values)]
        for take in self.takes:
            value, unit = divmod(take, self.streams)
            found[value].append(unit)
        return found


class _Unit:
    """The halfwords of a unit of a compressed row, of which there are several: ``turns`` are the cycles in which it may ask for
    a chunk of ``halfwords``."""

    def __init__(self, turns: list[int], halfwords: int):
        self._turns, self._halfwords = turns, halfwords
        self._asked = self._halfword = 0  # turns that have passed, halfwords that have been taken
        # The first cycles in which there is room for the next chunk, and for the one behind; in which the chunk in use is
        # there, and the one behind; and in which the register is empty.
        self._room = [0, 0]
        self._there: list[int] = []
        self._empty = 0

    def _ask(self) -> bool:
        """Ask for the next chunk."""
        self._asked = bisect.bisect_left(self._turns, self._room[0], self._asked)
        if self._asked == len(self._turns):
            return False
        self._there.append(self._turns[self._asked] + 2)
        self._asked += 1
        del self._room[0]
        return True

    def take(self, cycle: int) -> int | None:
        """Take the next halfword, from ``cycle`` on; returns when it is taken."""
        if self._halfword % self._halfwords == 0 and not self._there and not self._ask():
            return None
        moved = max(self._there[0], self._empty)
        self._halfword += 1
        if self._halfword % self._halfwords == 0:
            del self._there[0]
            self._room.append(moved + 1)
        self._empty = max(cycle, moved + 1)
        return self._empty


def _codes(run: Run, config: Config) -> dict[int, _Code]:
    """The compressed rows among those that a run step reads."""
    layer, found = run.layer, dict[int, _Code]()
    codes = input_codes(layer)
    if not any(codes):
        return found
    order = row_order(layer, config)
    real = np.flatnonzero(~run.blank)
    for odd, code in enumerate(codes):
        rows = real[odd::2]
        if code and len(rows):
            ends = _code_ends(run.rows[rows][:, order], code, config)
            begun = np.diff(-(-ends[:, :-1] // 16), axis=1, prepend=0) > 0
            taken = np.pad(begun, ((0, 0), (1, 0), (0, 0)), constant_values=True).reshape(len(rows), -1)
            values, streams = ends.shape[1], config.codec_streams
            found |= {row: _Code(values, np.flatnonzero(takes).tolist(), streams) for row, takes in zip(rows.tolist(), taken)}
    return found


def _code_ends(rows: NDArray[np.uint8], code: Code, config: Config) -> NDArray[np.int64]:
    """The bits behind each value in its unit, ``(rows, values of a unit, units)``."""
    streams = config.codec_streams
    lengths = codec.code_lengths(codec.units_of(rows, streams), **code.options(config))
    return lengths.cumsum(1).reshape(len(rows), streams, -1).swapaxes(1, 2)


class _Front:
    """The front and the drain during one run step.

    *Logical* time counts only cycles in which the array steps. The sums of a window whose last element was issued in
    logical cycle ``t`` move in logical cycle ``t + LAST_TO_DRAIN``, and may have to wait there with everything behind.
    """

    def __init__(self, run: Run, config: Config):
        layer = run.layer
        self._words = words(run, config)
        self._group = run.sums.shape[3]  # channels of a group
        outputs = np.full((layer["groups"], layer["width"]), self._group)
        outputs[-1] = layer["last_lanes"]
        self._outputs = outputs.reshape(-1).tolist()
        self._slow = self._slow_sums(run, config)
        self._writes_word = self._word_ends(run, config)
        self._code_ends = self._halfword_ends(run, config) if layer["out_coded"] else None
        self._scale_to_write = 1 if layer["partial_out"] else SCALE_TO_WRITE
        self._free = -1  # the first cycle in which the drain registers can be loaded
        self._written = -1  # the cycle in which the last halfword of compressed rows is written
        self._pauses: list[int] = []  # the last cycles in which the drain stands still because the requantizer is busy
        # The waits: logical cycle, and cycles waited up to then; those before.
        self._points = np.zeros(0, np.int64)
        self._waited = np.zeros(1, np.int64)
        # Logical cycles in which: the last row's last range left the generator; its last word was found; left for the skipper;
        # and the skipper was done with it.
        self._generated = self._found = self._left = self._skipped = -1
        self.finished: list[int] = []  # per row, the first cycle in which the sequencer knows that it is done
        self.writes = np.zeros(0, np.int64)
        self.issued = 0  # cycles in which there was an element to issue
        self.end = 0  # the logical cycle behind the last one's
        self.idle = 0

    def _slow_sums(self, run: Run, config: Config) -> list[list[list[bool]]]:
        """By row, window and lane: whether the requantizer takes two cycles."""
        layer = run.layer
        relu = layer["clamp_min"] == layer["zero_point"]
        slow = ~run.small & ((run.sums >= 0) | (not relu))
        if config.interval == 1 or layer["partial_out"]:
            slow[:] = False
        return slow.reshape(len(slow), -1, self._group).tolist()

    def _word_ends(self, run: Run, config: Config) -> list[list[list[bool]]]:
        """By row, window and lane: whether a word goes to the store when this byte has come."""
        step, layer = run.step, run.layer
        y, g, x, lane = np.ogrid[: step["rows"], : layer["groups"], : layer["width"], : self._group]
        outputs = np.where(g == layer["groups"] - 1, layer["last_lanes"], self._group)
        if layer["partial_out"]:
            byte = lane * PARAMETER_BYTES + PARAMETER_BYTES - 1
            ends = (byte % config.store_bytes == config.store_bytes - 1) | (lane == outputs - 1) | (y + x < 0)
            return ends.reshape(step["rows"], -1, self._group).tolist()
        per_byte = values_per_byte(layer, "out")
        group = self._group // per_byte
        row_step = layer["out_row_step"] + (layer["groups"] - 1) * group
        address = step["out_address"] + y * row_step + g * group + x * layer["out_x_step"] + lane // per_byte
        ends = (address % config.store_bytes == config.store_bytes - 1) | (lane == outputs - 1)
        ends &= lane % per_byte == per_byte - 1
        return ends.reshape(step["rows"], -1, self._group).tolist()

    def _halfword_ends(self, run: Run, config: Config) -> NDArray[np.int64]:
        """Of each output row the bits behind each value in its unit, if rows are compressed."""
        return _code_ends(output_rows(run.layer, run.output), output_code(run.layer), config)

    def _actual(self, logical: int) -> int:
        """The cycle of a logical cycle."""
        return logical + int(self._waited[np.searchsorted(self._points, logical, side="right")])

    def _logical(self, actual: int) -> int:
        """The first logical cycle that is not before a cycle."""
        low, high = actual - int(self._waited[-1]), actual - int(self._waited[0])
        while low < high:
            middle = (low + high) // 2
            if self._actual(middle) >= actual:
                high = middle
            else:
                low = middle + 1
        return low

    def compute(self, y: int, ready: int) -> None:
        """Row ``y``, whose input rows are there in cycle ``ready``."""
        taken = max(self._logical(ready), self._generated + 1)  # by the generator
        walked = max(taken + 1, self._found)  # its first range, by the row buffer

        def moves(cycle: int) -> int:
            """The row buffer's next step: it stands still while the last row's last words wait for the skipper."""
            return next((at for at in (self._found, self._left) if cycle <= at), cycle)

        found_first = moves(walked + 1)  # its first word
        bits, last = self._words.bits[y], self._words.last
        kept = np.flatnonzero((bits > 0) | last)
        cost = np.maximum(bits[kept], 1)
        # A kept word leaves for the skipper when the skipper is done with the one before, a dropped one at once.
        leave = np.empty(len(kept), np.int64)
        leave[0] = max(found_first + int(kept[0]) + 1, self._skipped)
        leave[1:] = leave[0] + np.cumsum(np.maximum(cost[:-1], np.diff(kept)))

        def left(word: int) -> int:
            """When word ``word`` left; the stages behind it move then. Below 0: when those moved to make room for the first."""
            before = int(np.searchsorted(kept, word, side="right")) - 1
            if before >= 0:
                return int(leave[before]) + word - int(kept[before])
            if word >= 0:  # dropped in front of the first that is kept
                return found_first + word + 1
            return found_first if word == -1 else walked

        # A range leaves the generator when the last word of the range before it is found, one word behind the one that
        # leaves.
        final = len(bits) - self._words.final_range
        self._generated = left(final - 2) if self._words.ranges > 1 else walked
        self._found = left(len(bits) - 2)
        self._left = int(leave[-1])
        self._skipped = int(leave[-1] + cost[-1])
        self._drain(y, (leave + cost)[last[kept]])
        self.finished.append(self._actual(self._skipped) + 1)
        self.issued += self._skipped - int(leave[0])
        self.end = self._skipped + 1

    def _drain(self, y: int, ends: NDArray[np.int64]) -> None:
        """The sums of windows whose last elements are issued in logical cycles ``ends`` move and are written."""
        waited = int(self._waited[-1])
        moves, writes, scales = [], [], []
        for window, (end, outputs) in enumerate(zip(ends.tolist(), self._outputs)):
            move = max(end + LAST_TO_DRAIN + waited, self._free)
            waited = move - end - LAST_TO_DRAIN
            moves.append(move)
            self._free = move
            for slow, word_ends in zip(self._slow[y][window][:outputs], self._writes_word[y][window]):
                self._free = self._unpaused(self._free)
                scaled = self._scale(self._free, slow)
                scales.append(scaled)
                if word_ends:
                    writes.append(scaled + self._scale_to_write)
        if self._code_ends is not None:
            written = np.array(scales) + self._scale_to_write + CODE_TO_WRITE
            writes = self._code_writes(self._code_ends[y], written).tolist()
        points = ends + LAST_TO_DRAIN
        # What happens from now on is behind the last range's leaving of the generator.
        old = int(np.searchsorted(self._points, self._generated))
        self._points = np.concatenate([self._points[old:], points])
        self._waited = np.concatenate([self._waited[old:], np.array(moves) - points])
        self.idle = writes[-1] + 1
        self.writes = np.concatenate([self.writes, np.array(writes)])

    def _code_writes(self, ends: NDArray[np.int64], written: NDArray[np.int64]) -> NDArray[np.int64]:
        """When the halfwords of a row are written, if one that a value fills could be in the cycle ``written`` of that value.
        With those that are left over at the ends of units there can be two in a cycle, and all that follow wait."""
        full = np.diff(ends // 16, axis=0, prepend=0) > 0
        left = written.reshape(full.shape)[-1] + full[-1]
        there = np.sort(np.concatenate([written[full.reshape(-1)], left[ends[-1] % 16 > 0]]))
        number = np.arange(len(there))
        writes = np.maximum(np.maximum.accumulate(there - number), self._written + 1) + number
        self._written = int(writes[-1])
        return writes

    def _unpaused(self, cycle: int) -> int:
        """The first cycle behind ``cycle`` in which the drain does not stand still."""
        cycle += 1
        while cycle in self._pauses:
            cycle += 1
        return cycle

    def _scale(self, shifted: int, slow: bool) -> int:
        """A sum leaves the drain in cycle ``shifted``; returns the cycle in which the requantizer takes it."""
        taken = self._unpaused(shifted) + 1
        if slow:  # it stands at the requantizer's door for a cycle
            self._pauses = [taken, *self._pauses[:1]]
            taken += 1
        return taken
