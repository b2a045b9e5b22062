"""Exact folding of constant channels, and removal of weights and channels that change nothing.

Two stages, each of which leaves every byte as it was. :func:`_simplified` keeps all shapes: a constant channel of a
weighted layer loses its weights and gets small numbers, and what inputs that do not depend on the network's input add
to an accumulator moves into the bias. :func:`_alive` then finds the channels that are still read, and :func:`select`
removes the others with their weights. ``docs/folding.md`` has the argument.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import arithmetic
from gossamer.golden.intervals import Bounds, accumulate, bounds, window_weights
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
    Weighted,
)

__all__ = ["Folded", "fold", "select"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Masks = dict[str, Mask]

BIAS_LIMIT = 1 << 27
"""Biases below it, in magnitude, fit the 28 bits that the core has for them."""


@dataclasses.dataclass(frozen=True)
class Folded:
    """A network that computes the same bytes.

    ``channels`` has, for each tensor that is left, the indices of its channels (last axis) in the original's tensor;
    ``constants`` the value of each constant channel of the original, by int8 tensor and channel.
    """

    network: Network
    channels: dict[str, NDArray[np.int64]]
    constants: dict[str, dict[int, int]]


def fold(network: Network) -> Folded:
    """Fold constant channels and remove what is not used. The network's input and output keep name, shape and bytes.

    Every tensor that is left holds ``original[..., channels[name]]`` for every input. Folding twice changes nothing more.
    """
    known = bounds(network)
    constants = {
        name: {int(c): int(x.low.reshape(-1, len(x.constant))[0, c]) for c in np.flatnonzero(x.constant)}
        for name, x in known.items()
    }
    simple = dataclasses.replace(network, layers=tuple(_simplified(network, layer, known) for layer in network.layers))
    channels = {name: np.flatnonzero(mask) for name, mask in _alive(simple, known).items()}
    return Folded(select(simple, channels), channels, constants)


def _binary(network: Network, name: str) -> bool:
    return network.tensors[name].dtype == "binary"


# Stage 1: simpler numbers in the same shapes.


def _simplified(network: Network, layer: Any, known: dict[str, Bounds]) -> Layer:
    if type(layer) not in (Conv, Depthwise, FullyConnected) or _binary(network, layer.inputs[0]):
        return layer  # weights of -1 and +1 must stay so
    if not _binary(network, layer.output):
        layer = _constants_plain(network, layer, known[layer.output])
    return layer if type(layer) is Depthwise else _inputs_folded(network, layer, known[layer.inputs[0]])


def _constants_plain(network: Network, layer: Any, y: Bounds) -> Weighted:
    """The layer with weights 0 in constant channels, and a bias and a scale of 1 that give their value.

    A channel that would not get its value that way, its tensors' scales being out of all proportion, stays as it is.
    """
    x, out = (network.tensors[name] for name in (layer.inputs[0], layer.output))
    values = y.low.reshape(-1, y.low.shape[-1])[0].astype(np.int64)
    bias, scale = values - out.zero_point, out.scale / x.scale
    unit = x.scale * scale / out.scale
    if not (y.constant.any() and 0.5 < unit < 2):
        return layer
    numbers = arithmetic.quantize_multiplier(unit)
    plain = y.constant & (arithmetic.requantize(bias, *numbers, out.zero_point, layer.clamp, layer.rounding) == values)
    weights = np.moveaxis(layer.weights.copy(), layer.channel_axis, 0)
    weights[plain] = 0
    return dataclasses.replace(
        layer,
        weights=np.moveaxis(weights, 0, layer.channel_axis),
        bias=np.where(plain, bias, layer.bias).astype(np.int32),
        weight_scales=np.where(plain, scale, layer.weight_scales),
    )


def _inputs_folded(network: Network, layer: Any, x: Bounds) -> Weighted:
    """The layer without the weights of inputs that add the same number to an accumulator at every position.

    Such a number moves into the bias, unless the bias would then need more than 28 bits.
    """
    weights, bias = window_weights(network, layer).copy(), layer.bias.astype(np.int64)
    for channel in np.flatnonzero(x.fixed & weights.any(axis=(0, 1, 2))):
        one = np.s_[..., channel : channel + 1]
        try:
            added = accumulate(network, layer, x.low[one], weights[one])
        except ValueError:  # more than 32 bits
            continue
        total = bias + added[0]
        fits = ((total >= -BIAS_LIMIT) & (total < BIAS_LIMIT)) | (np.abs(total) <= np.abs(bias))
        same = (added == added[0]).all(axis=0) & fits
        bias[same] = total[same]
        weights[same, ..., channel] = 0
    shape = layer.weights.shape
    return dataclasses.replace(layer, weights=weights.reshape(shape), bias=bias.astype(np.int32))


# Stage 2: which channels are read, and the layers without the others.


def _alive(network: Network, known: dict[str, Bounds]) -> Masks:
    """The channels that must stay, by tensor; tensors that no path leads to the output from are left out.

    The least set that has the network's input and output, and binary tensors, whose channels come in eights, and obeys
    each kind's rule: a fixed point, found by going backwards through the layers until nothing is added. A tensor that
    would be left empty keeps one channel, a constant one if it has any, because a tensor cannot be empty.
    """
    needed = {network.output}
    for layer in reversed(network.layers):
        if layer.output in needed:
            needed.update(layer.inputs)
    needed.add(network.input)
    alive = {name: np.zeros(network.tensors[name].shape[-1], bool) for name in network.tensors if name in needed}
    for name, mask in alive.items():
        mask[:] = name in (network.input, network.output) or _binary(network, name)
    layers = [layer for layer in reversed(network.layers) if layer.output in needed]
    while True:
        before = sum(int(mask.sum()) for mask in alive.values())
        for layer in layers:
            inputs = [alive[name] for name in layer.inputs]
            RULES.get(type(layer), UNKNOWN).mark(network, layer, inputs, alive[layer.output])
        if before == sum(int(mask.sum()) for mask in alive.values()):
            empty = [name for name, mask in alive.items() if not mask.any()]
            if not empty:
                return alive
            alive[empty[-1]][np.argmax(known[empty[-1]].constant)] = True


def select(network: Network, channels: dict[str, NDArray[np.int64]]) -> Network:
    """The network with those channels only, in that order. Layers must allow it."""
    tensors = {}
    for name, kept in channels.items():
        tensor = network.tensors[name]
        tensors[name] = dataclasses.replace(tensor, shape=(*tensor.shape[:-1], len(kept)))
    layers = tuple(
        RULES.get(type(layer), UNKNOWN).cut(network, layer, [channels[name] for name in layer.inputs], channels[layer.output])
        for layer in network.layers
        if layer.output in channels
    )
    return dataclasses.replace(network, tensors=tensors, layers=layers)


def _mark_all(network: Network, layer: Layer, inputs: list[Mask], output: Mask) -> None:
    """Nothing is known about the layer: all its channels stay."""
    for mask in (*inputs, output):
        mask[:] = True


def _mark_same(network: Network, layer: Layer, inputs: list[Mask], output: Mask) -> None:
    """The layer has the same channels in all its tensors."""
    for mask in inputs:
        output |= mask
    for mask in inputs:
        mask |= output


def _mark_read(network: Network, layer: Any, inputs: list[Mask], output: Mask) -> None:
    """What is left of the weights reads the input."""
    inputs[0] |= window_weights(network, layer)[output].any(axis=(0, 1, 2))


def _mark_depthwise(network: Network, layer: Any, inputs: list[Mask], output: Mask) -> None:
    """The outputs of an input channel stay or go together, so that their number per input channel remains."""
    inputs[0] |= output.reshape(len(inputs[0]), -1).any(axis=1)
    output |= np.repeat(inputs[0], len(output) // len(inputs[0]))


def _mark_reshape(network: Network, layer: Layer, inputs: list[Mask], output: Mask) -> None:
    """Where one tensor has ``n`` times the channels of the other, it has each of them ``n`` times, in turns.

    So a flattened map has the map's channels at each position. Channels that do not divide each other all stay.
    """
    narrow, wide = sorted((inputs[0], output), key=len)
    if len(wide) % len(narrow):
        return _mark_all(network, layer, inputs, output)
    narrow |= wide.reshape(-1, len(narrow)).any(axis=0)
    wide |= np.tile(narrow, len(wide) // len(narrow))


def _mark_pad(network: Network, layer: Any, inputs: list[Mask], output: Mask) -> None:
    """Channels in front and behind depend on nothing."""
    front = layer.channels[0]
    _mark_same(network, layer, inputs, output[front : front + len(inputs[0])])


def _mark_concat(network: Network, layer: Layer, inputs: list[Mask], output: Mask) -> None:
    """Each input has its part of the output."""
    ends = np.cumsum([len(mask) for mask in inputs])
    for mask, part in zip(inputs, np.split(output, ends[:-1]), strict=True):
        _mark_same(network, layer, [mask], part)


def _cut_nothing(network: Network, layer: Layer, inputs: list[Array], output: Array) -> Layer:
    return layer


def _cut_read(network: Network, layer: Any, inputs: list[Array], output: Array) -> Layer:
    weights = window_weights(network, layer)[output][..., inputs[0]]
    if isinstance(layer, FullyConnected):
        weights = weights.reshape(len(output), -1)
    return _cut_numbers(layer, weights, output)


def _cut_depthwise(network: Network, layer: Any, inputs: list[Array], output: Array) -> Layer:
    return _cut_numbers(layer, layer.weights[..., output], output)


def _cut_pad(network: Network, layer: Any, inputs: list[Array], output: Array) -> Layer:
    front = int((output < layer.channels[0]).sum())
    changed: Layer = dataclasses.replace(layer, channels=(front, len(output) - len(inputs[0]) - front))
    return changed


def _cut_numbers(layer: Any, weights: Array, output: Array) -> Weighted:
    changed: Weighted = dataclasses.replace(
        layer, weights=weights, bias=layer.bias[output], weight_scales=layer.weight_scales[output]
    )
    return changed


class Rule(NamedTuple):
    """What a kind means for channels.

    ``mark`` adds to the masks of its inputs and its output what must stay because of what stays already; ``cut`` makes
    the layer of the channels that are left.
    """

    mark: Callable[[Network, Any, list[Mask], Mask], None]
    cut: Callable[[Network, Any, list[Array], Array], Layer] = _cut_nothing


UNKNOWN = Rule(_mark_all)

RULES: dict[type[Layer], Rule] = {
    Conv: Rule(_mark_read, _cut_read),
    Depthwise: Rule(_mark_depthwise, _cut_depthwise),
    FullyConnected: Rule(_mark_read, _cut_read),
    Add: Rule(_mark_same),
    AveragePool: Rule(_mark_same),
    MaxPool: Rule(_mark_same),
    Reshape: Rule(_mark_reshape),
    Rescale: Rule(_mark_same),
    Pad: Rule(_mark_pad, _cut_pad),
    Mean: Rule(_mark_same),
    Concat: Rule(_mark_concat),
    Logistic: Rule(_mark_same),
}
"""The rule of each kind; a kind that is not here, such as Softmax, keeps all its channels."""
