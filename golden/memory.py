"""Where feature maps lie in the store, and when."""

import dataclasses
from collections.abc import Mapping, Sequence

__all__ = ["Arena", "Plan"]

Life = Sequence[range]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Addresses of tensors in an arena.

    ``lives[name]`` are the ranges of steps, in order and apart, in which something of the tensor exists; ``layers[i]`` is the
    layer of which step ``i`` computes a part. ``peak`` is the arena's size and ``bound`` the most that exists at once, in
    bytes: no plan needs less.
    """

    addresses: Mapping[str, int]
    sizes: Mapping[str, int]
    lives: Mapping[str, Life]
    peak: int
    bound: int
    layers: tuple[str, ...]


class Arena:
    """Places tensors by their live ranges, the largest first, each at the lowest address that is free throughout its life.

    Ref: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020 (greedy by size).

    Parameters
    ----------
    alignment : int
        Addresses are multiples of this.
    """

    def __init__(self, alignment: int):
        self._alignment = alignment

    def plan(self, sizes: Mapping[str, int], lives: Mapping[str, Life], layers: Sequence[str]) -> Plan:
        """Plan tensors of ``sizes`` bytes; ``lives`` and ``layers`` are those of the :class:`Plan`."""
        rounded = {name: -(-size // self._alignment) * self._alignment for name, size in sizes.items()}
        addresses: dict[str, int] = {}
        for name in sorted(sizes, key=lambda n: (-rounded[n], lives[n][0].start)):
            near = sorted(
                (addresses[other], addresses[other] + rounded[other])
                for other in addresses
                if _meet(lives[name], lives[other])
            )
            address = 0
            for start, stop in near:
                if address + rounded[name] <= start:
                    break
                address = max(address, stop)
            addresses[name] = address
        changes: dict[int, int] = {}
        for name, life in lives.items():
            for span in life:
                changes[span.start] = changes.get(span.start, 0) + rounded[name]
                changes[span.stop] = changes.get(span.stop, 0) - rounded[name]
        bound = now = 0
        for step in sorted(changes):
            now += changes[step]
            bound = max(bound, now)
        peak = max(addresses[n] + rounded[n] for n in sizes)
        return Plan(addresses, dict(sizes), dict(lives), peak, bound, tuple(layers))


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
