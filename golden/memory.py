"""Where feature maps lie in the store, and when."""

import dataclasses
from collections.abc import Mapping, Sequence

__all__ = ["Arena", "Plan"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Addresses of tensors in an arena.

    ``lives[name]`` is the range of steps in which the tensor exists; ``layers[i]`` is the layer of which step ``i`` computes
    a part. ``peak`` is the arena's size and ``bound`` the most that exists at once, in bytes: no plan needs less.
    """

    addresses: Mapping[str, int]
    sizes: Mapping[str, int]
    lives: Mapping[str, range]
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

    def plan(
        self,
        sizes: Mapping[str, int],
        layers: Sequence[tuple[str, Sequence[str], Sequence[str]]],
        first: str,
        last: str,
        keep: bool = False,
    ) -> Plan:
        """Plan the tensors of ``layers``, (name, inputs, outputs) of each step; ``first`` exists from the start and ``last`` to
        the end. With ``keep`` all tensors exist to the end."""
        born = {first: 0}
        dies = {first: 0}
        for i, (_, inputs, outputs) in enumerate(layers):
            for name in outputs:
                born.setdefault(name, i)
            for name in (*inputs, *outputs):
                dies[name] = i
        dies[last] = len(layers) - 1
        end = len(layers)
        lives = {name: range(born[name], end if keep else dies[name] + 1) for name in sizes}
        rounded = {name: -(-size // self._alignment) * self._alignment for name, size in sizes.items()}
        order = {name: i for i, name in enumerate(born)}
        addresses: dict[str, int] = {}
        for name in sorted(sizes, key=lambda n: (-rounded[n], order[n])):
            near = sorted(
                (addresses[other], addresses[other] + rounded[other])
                for other in addresses
                if lives[other].start < lives[name].stop and lives[name].start < lives[other].stop
            )
            address = 0
            for start, stop in near:
                if address + rounded[name] <= start:
                    break
                address = max(address, stop)
            addresses[name] = address
        bound = max(sum(rounded[n] for n in sizes if step in lives[n]) for step in range(max(len(layers), 1)))
        peak = max(addresses[n] + rounded[n] for n in sizes)
        return Plan(addresses, dict(sizes), lives, peak, bound, tuple(name for name, _, _ in layers))
