"""Loops: steps that repeat are written once."""

from collections.abc import Sequence

import numpy as np

from gossamer.golden.program import Record
from gossamer.golden.spec import MOST_TURNS, Opcode

__all__ = ["fold"]

LONGEST = 4096
"""Steps of the longest loop that is looked for."""


def fold(steps: Sequence[Record], at: tuple[int, int], first: int = 0) -> tuple[list[Record], dict[int, int]]:
    """The steps with loops where a sequence of them comes several times in a row; and where those that are left have gone.

    ``at`` are the store word of the first step, and the words from one to the next. Steps in front of ``first`` are left
    alone. Loops are not nested. Greedy: at each step the period that saves most.
    """
    numbers: dict[tuple, int] = {}
    ids = np.array([numbers.setdefault(tuple(sorted(step.items())), len(numbers)) for step in steps])
    following: dict[int, list[int]] = {}
    for i, number in enumerate(ids.tolist()):
        following.setdefault(number, []).append(i)
    places = {number: np.array(found) for number, found in following.items()}
    folded: list[Record] = []
    kept: dict[int, int] = {}
    i = 0
    while i < len(steps):
        period, turns = _best(ids, places[int(ids[i])], i) if i >= first else (1, 0)
        start = len(folded)
        for j in range(i, i + period):
            kept[j] = len(folded)
            folded.append(steps[j])
        i += period
        if turns:
            folded.append({"opcode": Opcode.LOOP, "count": turns, "in_address": at[0] + start * at[1]})
            i += period * turns
    return folded, kept


def _best(ids: np.ndarray, places: np.ndarray, i: int) -> tuple[int, int]:
    """The period from step ``i`` on that saves most steps, and how often it comes again; ``(1, 0)`` if none saves any."""
    best, found = 0, (1, 0)
    here = int(np.searchsorted(places, i))
    for j in places[here + 1 : here + 33].tolist():
        period = j - i
        if period > LONGEST or 2 * period > len(ids) - i or ids[j + period - 1] != ids[j - 1]:
            continue
        if (ids[i:j] != ids[j : j + period]).any():
            continue
        same = ids[i:-period] == ids[i + period :]
        length = len(same) if same.all() else int(same.argmin())
        turns = min(length // period, MOST_TURNS)
        if turns * period - 1 > best:
            best, found = turns * period - 1, (period, turns)
    return found
