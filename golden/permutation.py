"""Output channels in another order, so that zeros among weights meet in vectors that the core leaves out.

A vector is the weights of a group of output channels at one place of the window; it is neither stored nor issued if it is
zero in all of them (``docs/decisions/block-sparse.md``). Which channels are a group follows from their order in the output
tensor. The order of a tensor's channels may be any, if all who write and read it have the same: weights, biases and scales of
the layer that writes it go with their channel, and so do the weights with which others read it. Sums of integers do not
depend on the order, so every byte stays what it is, but for its place.

Tensors that are added, and those in front of and behind pools, are in one order, a *space*; a concatenation has those of its
inputs side by side. The network's input and output stay as they are, and so does what layers without a rule read and write.

In each space channels are put into groups so that few vectors are left (:func:`grouped`).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.folding import select
from gossamer.golden.intervals import window_weights
from gossamer.golden.network import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Depthwise,
    FullyConnected,
    Layer,
    Logistic,
    MaxPool,
    Mean,
    Network,
    Pad,
    Rescale,
    Reshape,
)

__all__ = ["Spaces", "block_density", "grouped", "permuted", "spaces", "vectors_left"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Order = NDArray[np.int64]

LEAST_ZEROS = 0.25
"""Layers with a smaller share of weights that are zero are left alone: there, hardly any eight channels have one in common."""

SWEEPS = 12
"""So often all pairs of groups are looked at for channels to exchange, at most."""


def vectors_left(nonzero: Mask, group: int) -> Mask:
    """Which vectors are not zero, (groups, places), if ``group`` rows of ``nonzero`` (channels, places) are a group each."""
    rows = np.pad(nonzero, ((0, -len(nonzero) % group), (0, 0)))
    return np.asarray(rows.reshape(-1, group, nonzero.shape[1]).any(axis=1))


def nonzero(network: Network, layer: Conv | FullyConnected) -> Mask:
    """Where the weights of a layer are not zero, (channels, places of the window)."""
    found: Mask = window_weights(network, layer).reshape(len(layer.weights), -1) != 0
    return found


def block_density(network: Network, layer: Conv | FullyConnected, group: int) -> float:
    """The share of vectors of ``group`` output channels that are not zero."""
    return float(vectors_left(nonzero(network, layer), group).mean())


# Which tensors are in one order.


class _Spaces:
    """Sets of channels that are in one order, joined as layers demand it."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._parents: list[int] = []
        self._fixed: set[int] = set()

    def new(self, size: int, *, fixed: bool = False) -> int:
        self._sizes.append(size)
        self._parents.append(len(self._parents))
        if fixed:
            self._fixed.add(len(self._parents) - 1)
        return len(self._parents) - 1

    def root(self, space: int) -> int:
        while self._parents[space] != space:
            space = self._parents[space]
        return space

    def size(self, space: int) -> int:
        return self._sizes[space]

    def fix(self, parts: Sequence[int]) -> None:
        self._fixed |= {self.root(part) for part in parts}

    def free(self, space: int) -> bool:
        return self.root(space) not in self._fixed

    def join(self, first: Sequence[int], second: Sequence[int]) -> None:
        """Two tensors have the same channels; if these are not made of equal parts their order is fixed."""
        if [self.size(part) for part in first] != [self.size(part) for part in second]:
            self.fix([*first, *second])
            return
        for a, b in zip(first, second):
            fixed = not (self.free(a) and self.free(b))
            self._parents[self.root(a)] = self.root(b)
            if fixed:
                self.fix([b])


@dataclasses.dataclass(frozen=True)
class Spaces:
    """``parts`` are by tensor the spaces that its channels consist of, in order; ``sizes`` by space its channels; ``writers``
    by space that may be permuted the layers with weights whose output it is."""

    parts: dict[str, tuple[int, ...]]
    sizes: dict[int, int]
    writers: dict[int, list[str]]


def spaces(network: Network) -> Spaces:
    """The spaces of a network."""
    found = _Spaces()
    parts: dict[str, tuple[int, ...]] = {}
    parts[network.input] = (found.new(network.tensors[network.input].shape[-1], fixed=True),)
    for layer in network.layers:
        parts[layer.output] = _output(network, layer, [parts[name] for name in layer.inputs], found)
    found.fix(parts[network.output])
    writers: dict[int, list[str]] = {}
    for layer in network.layers:
        if isinstance(layer, (Conv, FullyConnected)) and found.free(parts[layer.output][0]):
            writers.setdefault(found.root(parts[layer.output][0]), []).append(layer.name)
    roots = {name: tuple(found.root(part) for part in some) for name, some in parts.items()}
    return Spaces(roots, {part: found.size(part) for some in roots.values() for part in some}, writers)


def _output(network: Network, layer: Layer, inputs: list[tuple[int, ...]], found: _Spaces) -> tuple[int, ...]:
    """The spaces of a layer's output."""
    channels = network.tensors[layer.output].shape[-1]
    given = network.tensors[layer.inputs[0]].shape[-1]
    if isinstance(layer, (Conv, FullyConnected)):
        return (found.new(channels),)
    if isinstance(layer, (AveragePool, MaxPool, Mean, Rescale, Logistic)) or (
        isinstance(layer, Depthwise) and channels == given
    ):
        return inputs[0]
    if isinstance(layer, Add):
        found.join(*inputs)
        return inputs[0]
    if isinstance(layer, Concat):
        return tuple(part for some in inputs for part in some)
    if isinstance(layer, Pad):
        front, behind = (((found.new(count, fixed=True),) if count else ()) for count in layer.channels)
        return (*front, *inputs[0], *behind)
    if isinstance(layer, Reshape):
        if channels % given == 0:
            return inputs[0] * (channels // given)
        times, rest = divmod(given, channels)
        some = inputs[0][: len(inputs[0]) // times] if times and not rest else ()
        if some and some * times == inputs[0]:
            return some
    found.fix([part for some in inputs for part in some])
    return (found.new(channels, fixed=True),)


# The order of a space.


def grouped(nonzero: Mask, weights: Array, group: int) -> Order:
    """The order of channels in which the vectors that are left, ``vectors_left(nonzero[order], group)``, weigh least; a place
    of the window weighs ``weights``.

    Channels are put together one by one, each time that which adds least; then channels of two groups change places as long
    as that spares something. Of what comes of beginning with the given order, with the densest and with the sparsest
    channels the best is taken; one of them alone leaves about 1 % more. If nothing is spared the order stays as it is. The
    result is the same every time.
    """
    channels = np.arange(len(nonzero))
    if len(nonzero) <= group:
        return channels
    places, inverse = np.unique(nonzero, axis=1, return_inverse=True)  # equal places are one
    weigh = np.bincount(inverse.reshape(-1), weights=weights)

    def cost(order: Order) -> float:
        return float(vectors_left(places[order], group).sum(axis=0) @ weigh)

    best = channels
    for begin in (channels, _greedy(places, weigh, group, densest=True), _greedy(places, weigh, group, densest=False)):
        order = _exchanged(places, weigh, group, begin)
        if cost(order) < cost(best) * (1 - 1e-12):
            best = order
    if best is channels:
        return channels
    full = len(best) // group * group
    parts = [np.sort(part) for part in np.split(best, range(group, full + 1, group))]
    parts[: full // group] = sorted(parts[: full // group], key=lambda part: int(part[0]))
    return np.concatenate(parts).astype(np.int64)


def _greedy(nonzero: Mask, weights: Array, group: int, *, densest: bool) -> Order:
    """Groups one after the other: a channel with most, or fewest, weights, and then what adds least to the group's vectors."""
    heavy = nonzero * weights
    rest = list(range(len(nonzero)))
    order: list[int] = []
    sign = -1 if densest else 1
    while rest:
        first = min(rest, key=lambda channel: (sign * heavy[channel].sum(), channel))
        some, union = [first], nonzero[first].copy()
        rest.remove(first)
        while rest and len(some) < group:
            candidates = np.array(rest)
            added = heavy[candidates] @ ~union
            overlap = heavy[candidates] @ union
            chosen = int(candidates[np.lexsort((candidates, -overlap, added))[0]])
            some.append(chosen)
            union |= nonzero[chosen]
            rest.remove(chosen)
        order += some
    return np.array(order)


def _exchanged(nonzero: Mask, weights: Array, group: int, order: Order) -> Order:
    """The order with channels of two groups exchanged, the best pair of them first, as long as that spares something."""
    groups = [list(order[start : start + group]) for start in range(0, len(order), group)]
    counts = [nonzero[some].sum(axis=0) for some in groups]
    heavy = nonzero * weights
    for _ in range(SWEEPS):
        changed = False
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                while True:
                    left_a = (counts[a] - nonzero[groups[a]]) > 0  # (channel, place): what is left without a channel
                    left_b = (counts[b] - nonzero[groups[b]]) > 0
                    in_a = (left_a @ weights)[:, None] + (~left_a).astype(float) @ heavy[groups[b]].T
                    in_b = (left_b @ weights)[:, None] + (~left_b).astype(float) @ heavy[groups[a]].T
                    both = in_a + in_b.T
                    before = ((counts[a] > 0) @ weights) + ((counts[b] > 0) @ weights)
                    i, j = np.unravel_index(int(np.argmin(both)), both.shape)
                    if both[i, j] >= before - 1e-9 * max(before, 1.0):
                        break
                    groups[a][i], groups[b][j] = groups[b][j], groups[a][i]
                    counts[a], counts[b] = nonzero[groups[a]].sum(axis=0), nonzero[groups[b]].sum(axis=0)
                    changed = True
        if not changed:
            break
    return np.array([channel for some in groups for channel in some])


def permuted(network: Network, groups: Mapping[str, int]) -> tuple[Network, dict[str, Order]]:
    """The network with channels in the order of :func:`grouped`, and by tensor that order, if it is another: the tensor has the
    original's channels ``[..., order]``. ``groups`` are the output channels in a vector, by the layers that may
    leave vectors out; a vector weighs as many cycles as its layer has windows.
    """
    found = spaces(network)
    layers = {layer.name: layer for layer in network.layers if isinstance(layer, (Conv, FullyConnected))}
    orders: dict[int, Order] = {}
    for space, names in found.writers.items():
        masks = {name: nonzero(network, layers[name]) for name in names if name in groups}
        masks = {name: mask for name, mask in masks.items() if 1 - mask.mean() >= LEAST_ZEROS}
        if not masks:
            continue
        windows = [math.prod(network.tensors[layers[name].output].shape[:-1]) for name in masks]
        weights = np.repeat(np.array(windows, float), [mask.shape[1] for mask in masks.values()])
        order = grouped(np.hstack([*masks.values()]), weights, max(groups[name] for name in masks))
        if not np.array_equal(order, np.arange(len(order))):
            orders[space] = order
    if not orders:
        return network, {}
    channels = {}
    for name, some in found.parts.items():
        ends = np.cumsum([found.sizes[part] for part in some])
        starts = [0, *ends[:-1]]
        own = [orders.get(part, np.arange(found.sizes[part])) + start for part, start in zip(some, starts)]
        channels[name] = np.concatenate(own).astype(np.int64)
    changed = {name: order for name, order in channels.items() if not np.array_equal(order, np.arange(len(order)))}
    return select(network, channels), changed
