"""Interval arithmetic on a network: which values each byte of each tensor can take.

For every position and channel of a tensor, :func:`bounds` gives an interval that holds the value for *every* int8 input
of the network. The ends go through the layers' own exact arithmetic: a requantization does not decrease with its
accumulator, so the ends of an accumulator give the ends of the byte. Positions are kept apart, so that a window that
touches the padding is as exact as any other.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import arithmetic
from gossamer.golden.network import (
    LIMITS,
    Add,
    AveragePool,
    Concat,
    Conv,
    Depthwise,
    FullyConnected,
    Layer,
    MaxPool,
    Mean,
    Network,
    Pad,
    Rescale,
    Reshape,
    Tensor,
    requantization,
)

__all__ = ["Bounds", "accumulate", "bounds", "window_weights"]

Array = NDArray[Any]


class Bounds(NamedTuple):
    """The least and the largest value, int8 of the tensor's shape: at each position of each channel."""

    low: NDArray[np.int8]
    high: NDArray[np.int8]

    @property
    def fixed(self) -> NDArray[np.bool_]:
        """Which channels do not depend on the input; their value may differ from position to position."""
        return (self.low == self.high).reshape(-1, self.low.shape[-1]).all(axis=0)

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Which channels have a single value, at all positions and for all inputs."""
        low, high = (end.reshape(-1, end.shape[-1]) for end in self)
        return low.min(axis=0) == high.max(axis=0)


def bounds(network: Network) -> dict[str, Bounds]:
    """An interval for each value of each tensor of int8, int4 or bits. A layer of a kind without a rule may give any value."""
    known = {name: _anything(tensor) for name, tensor in network.tensors.items() if tensor.dtype in LIMITS}
    for layer in network.layers:
        if type(layer) in RULES:
            known[layer.output] = RULES[type(layer)](network, layer, *(known[name] for name in layer.inputs))
    return known


def window_weights(network: Network, layer: Any) -> Array:
    """Weights (O, KH, KW, I) of a convolution or, its window being the whole map, of a fully connected layer."""
    if isinstance(layer, Conv):
        return layer.weights
    shape = network.tensors[layer.inputs[0]].shape
    return layer.weights.reshape(len(layer.weights), *(shape if len(shape) == 3 else (1, 1, *shape)))


def accumulate(network: Network, layer: Any, x: Array, weights: Array) -> NDArray[np.int64]:
    """What ``x``, without batch, adds to the accumulators (positions, O) of a weighted layer, with other weights.

    The weights have the layout of :func:`window_weights`, or of a depthwise layer. The accumulators are without bias.
    Raises :class:`ValueError` if one of them does not fit 32 bits.
    """
    zero_point, outside = network.tensors[layer.inputs[0]].zero_point, layer.outside(network)
    if isinstance(layer, Depthwise):
        bias = np.zeros(weights.shape[2], np.int32)
        acc = arithmetic.depthwise_conv2d_accumulate(
            x[np.newaxis], weights, bias, zero_point, layer.stride, layer.padding, outside
        )
    elif isinstance(layer, Conv):
        bias = np.zeros(len(weights), np.int32)
        acc = arithmetic.conv2d_accumulate(x[np.newaxis], weights, bias, zero_point, layer.stride, layer.padding, outside)
    else:
        bias = np.zeros(len(weights), np.int32)
        acc = arithmetic.fully_connected_accumulate(x[np.newaxis], weights.reshape(len(weights), -1), bias, zero_point)
    return acc.reshape(-1, acc.shape[-1])


def _anything(tensor: Tensor) -> Bounds:
    low, high = LIMITS[tensor.dtype]
    return Bounds(np.full(tensor.shape, low, np.int8), np.full(tensor.shape, high, np.int8))


def _weighted(network: Network, layer: Any, x: Bounds) -> Bounds:
    """Positive weights bring an end of the input to the same end of the sum, negative ones to the other."""
    output = network.tensors[layer.output]
    clamp = LIMITS["binary"] if output.dtype == "binary" else layer.clamp
    weights = layer.weights if isinstance(layer, Depthwise) else window_weights(network, layer)
    rising, falling = np.maximum(weights, 0), np.minimum(weights, 0)
    try:
        low, high = (
            accumulate(network, layer, x[end], rising) + accumulate(network, layer, x[1 - end], falling) + layer.bias
            for end in (0, 1)
        )
    except ValueError:  # more than 32 bits
        return Bounds(np.full(output.shape, clamp[0], np.int8), np.full(output.shape, clamp[1], np.int8))
    if output.dtype == "binary":
        return Bounds(*(arithmetic.binarize(acc).reshape(output.shape) for acc in (low, high)))
    multipliers, shifts = requantization(network, layer)
    # An end that 32 bits do not hold is no end the arithmetic is made for: the clamp is what remains.
    left = np.maximum(shifts, 0) if layer.rounding == "double" else 0 * shifts
    exact = ((low << left).min(axis=0) >= arithmetic.INT32_MIN) & ((high << left).max(axis=0) <= arithmetic.INT32_MAX)
    low, high = (
        arithmetic.requantize(np.where(exact, acc, 0), multipliers, shifts, output.zero_point, clamp, layer.rounding)
        for acc in (low, high)
    )
    return Bounds(
        np.where(exact, low, np.int8(clamp[0])).reshape(output.shape),
        np.where(exact, high, np.int8(clamp[1])).reshape(output.shape),
    )


def _rising(network: Network, layer: Layer, *inputs: Bounds) -> Bounds:
    """A layer whose every output value does not decrease with any input value: it brings ends to ends."""
    try:
        low, high = (layer.run(network, *(x[end][np.newaxis] for x in inputs))[0] for end in (0, 1))
    except ValueError:  # more than 32 bits
        return _anything(network.tensors[layer.output])
    return Bounds(low, high)


RULES: dict[type[Layer], Callable[..., Bounds]] = {
    Conv: _weighted,
    Depthwise: _weighted,
    FullyConnected: _weighted,
    Add: _rising,
    AveragePool: _rising,
    MaxPool: _rising,
    Reshape: _rising,
    Rescale: _rising,
    Pad: _rising,
    Mean: _rising,
    Concat: _rising,
}
"""The rule of each kind: from the bounds of the inputs to those of the output."""
