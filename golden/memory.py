"""Where feature maps lie in the store, and when."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Area", "Arena", "Plan", "most_at_once"]

TURNS = 6
"""How often an order is changed without gain."""

Life = Sequence[range]
"""Ranges of steps, in order and apart."""


Neighbours = Mapping[str, Mapping[str, NDArray[np.int64]]]
"""By area, and by other area that exists at the same time, where the one must not begin if the other begins at 0: between the
two numbers of each row, which are allowed."""


@dataclasses.dataclass(frozen=True)
class Area:
    """Parts of ``size`` bytes each, one behind the other; ``lives[i]`` are the steps in which part ``i`` holds something."""

    size: int
    lives: Sequence[Life]

    @property
    def bytes(self) -> int:
        """Of all parts."""
        return self.size * len(self.lives)

    @property
    def life(self) -> range:
        """From the first step in which there is something to the last."""
        return range(min(life[0].start for life in self.lives), max(life[-1].stop for life in self.lives))


@dataclasses.dataclass(frozen=True)
class Plan:
    """Addresses of areas in an arena.

    ``layers[i]`` is the layer of which step ``i`` computes a part. ``peak`` is the arena's size and ``bound`` the most that
    exists at once, in bytes: no plan needs less.
    """

    addresses: Mapping[str, int]
    areas: Mapping[str, Area]
    peak: int
    bound: int
    layers: tuple[str, ...]


class Arena:
    """Places areas by the live ranges of their parts, each at the lowest address at which no part meets another that lives at
    the same time. So a map may begin in rows of another that have been read. The areas are placed from the largest to the
    smallest, from the first to the last and from the last to the first, and again with those in front that ended highest;
    the best of these plans counts.

    Ref: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020 (greedy by size).

    Parameters
    ----------
    alignment : int
        Addresses, and bytes of parts, are multiples of this.
    """

    def __init__(self, alignment: int):
        self._alignment = alignment

    def plan(self, areas: Mapping[str, Area], layers: Sequence[str], *, quick: bool = False) -> Plan:
        """Plan ``areas``; ``layers`` is the plan's. ``quick``: once, from the largest to the smallest."""
        near = _neighbours(areas)
        orders: tuple[Callable[[Area], tuple[int, int]], ...] = (
            lambda area: (-area.bytes, area.life.start),
            lambda area: (-area.bytes, -area.life.start),
            lambda area: (area.life.start, -area.bytes),
            lambda area: (-area.life.start, -area.bytes),
            lambda area: (-area.life.stop, -area.bytes),
        )
        bound = most_at_once((span, area.size) for area in areas.values() for life in area.lives for span in life)
        best, addresses = 0, dict[str, int]()
        for key in orders[: 1 if quick else None]:
            order = sorted(areas, key=lambda name: key(areas[name]))
            left = TURNS
            while left and (best != bound or not addresses):
                left -= 1
                found = self._place(areas, order, near)
                peak = max(found[name] + area.bytes for name, area in areas.items())
                if not addresses or peak < best:
                    best, addresses, left = peak, found, TURNS
                top = [name for name in order if found[name] + areas[name].bytes == peak]
                if quick or order[: len(top)] == top:
                    break
                order = [*top, *(name for name in order if name not in top)]
        return Plan(addresses, dict(areas), best, bound, tuple(layers))

    def _place(self, areas: Mapping[str, Area], order: Sequence[str], near: Neighbours) -> dict[str, int]:
        addresses: dict[str, int] = {}
        for name in order:
            ranges = [there + addresses[other] for other, there in near[name].items() if other in addresses]
            address = 0
            both = np.concatenate([np.zeros((0, 2), np.int64), *ranges])
            for start, stop in both[np.argsort(both[:, 0])].tolist():
                if start >= address:
                    break
                address = max(address, -(-stop // self._alignment) * self._alignment)
            addresses[name] = address
        return addresses


def most_at_once(spans: Iterable[tuple[range, int]]) -> int:
    """The largest sum of bytes of spans that have a step in common."""
    changes: dict[int, int] = {}
    for span, size in spans:
        changes[span.start] = changes.get(span.start, 0) + size
        changes[span.stop] = changes.get(span.stop, 0) - size
    most = now = 0
    for step in sorted(changes):
        now += changes[step]
        most = max(most, now)
    return most


def _neighbours(areas: Mapping[str, Area]) -> Neighbours:
    found: dict[str, dict[str, NDArray[np.int64]]] = {name: {} for name in areas}
    names = list(areas)
    lives = np.array([[area.life.start, area.life.stop] for area in areas.values()])
    together = (lives[:, None, 0] < lives[None, :, 1]) & (lives[None, :, 0] < lives[:, None, 1])
    for i, j in np.argwhere(np.triu(together, 1)).tolist():
        there = _forbidden(areas[names[i]], areas[names[j]])
        found[names[i]][names[j]] = there
        found[names[j]][names[i]] = -there[:, ::-1]
    return found


def _forbidden(one: Area, other: Area) -> NDArray[np.int64]:
    if len(one.lives) == len(other.lives) == 1 and len(one.lives[0]) == len(other.lives[0]) == 1:
        return np.array([[-one.size, other.size]])
    i, j = np.nonzero([[_meet(a, b) for b in other.lives] for a in one.lives])
    found = np.stack([j * other.size - (i + 1) * one.size, (j + 1) * other.size - i * one.size], axis=1)
    return np.unique(found.astype(np.int64), axis=0)


def _meet(one: Life, other: Life) -> bool:
    """Whether two lives have a step in common."""
    i = j = 0
    while i < len(one) and j < len(other):
        if one[i].start < other[j].stop and other[j].start < one[i].stop:
            return True
        if one[i].stop <= other[j].stop:
            i += 1
        else:
            j += 1
    return False
