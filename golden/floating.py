"""A network in floating point: a list of layers with numpy weights, and what it computes.

It is what a trained network is before :mod:`gossamer.golden.quantize` makes int8 of it. Maps are ``(N, H, W, C)``, vectors
``(N, C)``; the arithmetic is float64.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import arithmetic
from gossamer.golden.network import Padding, Pair, Shape

__all__ = [
    "ACTIVATIONS",
    "Add",
    "AveragePool",
    "Conv",
    "Depthwise",
    "FloatLayer",
    "FullyConnected",
    "MaxPool",
    "Mean",
    "Pad",
    "Pool",
    "Reshape",
    "Softmax",
    "Weighted",
    "outputs",
    "run",
]

Array = NDArray[Any]

ACTIVATIONS = {"none": (-math.inf, math.inf), "relu": (0, math.inf), "relu6": (0, 6), "relu_n1_to_1": (-1, 1)}
"""The activations that can be fused to a layer, with the range that they clamp to."""


@dataclasses.dataclass(frozen=True, eq=False)
class FloatLayer:
    """A float layer. It writes the tensor that bears its own name; ``inputs`` name other layers, or the input, ``"input"``."""

    name: str
    inputs: tuple[str, ...]

    keeps_quantization: ClassVar[bool] = False

    def run(self, *inputs: Array) -> Array:
        """Return the float output for float inputs with a batch axis."""
        raise NotImplementedError


def _clamped(values: Array, activation: str) -> Array:
    return values if activation == "none" else np.clip(values, *ACTIVATIONS[activation])


@dataclasses.dataclass(frozen=True, eq=False)
class Weighted(FloatLayer):
    """A float layer with ``weights`` in the order of its int8 twin, a ``bias`` (O,) and an optional activation."""

    weights: Array
    bias: Array

    channel_axis: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True, eq=False)
class _Windowed(Weighted):
    """A convolution; without a ``padding`` (top, bottom, left, right), which is with zeros, it has TFLite's SAME."""

    stride: Pair = (1, 1)
    activation: str = "none"
    padding: Padding | None = None

    @property
    def kernel(self) -> Pair:
        """Rows and columns."""
        raise NotImplementedError

    def padding_of(self, shape: Sequence[int]) -> Padding:
        """The padding of an input of ``shape``, (H, W, …)."""
        if self.padding is not None:
            return self.padding
        top, bottom = arithmetic.same_padding(shape[0], self.kernel[0], self.stride[0])
        left, right = arithmetic.same_padding(shape[1], self.kernel[1], self.stride[1])
        return top, bottom, left, right

    def _windows(self, x: Array) -> Iterator[tuple[int, int, Array]]:
        return arithmetic.windows(x, self.kernel, self.stride, self.padding_of(x.shape[1:]), 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Conv(_Windowed):
    """Convolution with ``weights`` (O, KH, KW, I)."""

    @property
    def kernel(self) -> Pair:
        return self.weights.shape[1], self.weights.shape[2]

    def run(self, *inputs: Array) -> Array:
        total: Array = np.asarray(self.bias, np.float64)
        for ky, kx, values in self._windows(inputs[0]):
            total = total + values @ self.weights[:, ky, kx].T
        return _clamped(total, self.activation)


@dataclasses.dataclass(frozen=True, eq=False)
class Depthwise(_Windowed):
    """Depthwise convolution with ``weights`` (KH, KW, O), O a multiple of the input's channels."""

    channel_axis = 2

    @property
    def kernel(self) -> Pair:
        return self.weights.shape[0], self.weights.shape[1]

    def run(self, *inputs: Array) -> Array:
        repeated = np.repeat(inputs[0], self.weights.shape[2] // inputs[0].shape[3], axis=3)
        total: Array = np.asarray(self.bias, np.float64)
        for ky, kx, values in self._windows(repeated):
            total = total + values * self.weights[ky, kx]
        return _clamped(total, self.activation)


@dataclasses.dataclass(frozen=True, eq=False)
class FullyConnected(Weighted):
    """``weights`` (O, I) applied to the input, whose axes behind the batch are flattened."""

    activation: str = "none"

    def run(self, *inputs: Array) -> Array:
        return _clamped(inputs[0].reshape(len(inputs[0]), -1) @ self.weights.T + self.bias, self.activation)


@dataclasses.dataclass(frozen=True, eq=False)
class Add(FloatLayer):
    """Sum of two tensors."""

    activation: str = "none"

    def run(self, *inputs: Array) -> Array:
        return _clamped(inputs[0] + inputs[1], self.activation)


@dataclasses.dataclass(frozen=True, eq=False)
class Pool(FloatLayer):
    """Pooling of the pixels of each window that lie inside the map."""

    keeps_quantization = True

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    activation: str = "none"

    def _windows(self, x: Array) -> Array:
        """(kernel positions, N, OH, OW, C), NaN outside the map."""
        return np.stack([v for _, _, v in arithmetic.windows(x, self.kernel, self.stride, self.padding, math.nan)])


class AveragePool(Pool):
    """Mean of each window."""

    def run(self, *inputs: Array) -> Array:
        return _clamped(np.nanmean(self._windows(inputs[0]), axis=0), self.activation)


class MaxPool(Pool):
    """Maximum of each window."""

    def run(self, *inputs: Array) -> Array:
        return _clamped(np.nanmax(self._windows(inputs[0]), axis=0), self.activation)


@dataclasses.dataclass(frozen=True, eq=False)
class Mean(FloatLayer):
    """Mean over rows and columns: (N, C), or (N, 1, 1, C) with ``keep``."""

    keep: bool = False

    def run(self, *inputs: Array) -> Array:
        return np.mean(inputs[0], axis=(1, 2), keepdims=self.keep)


@dataclasses.dataclass(frozen=True, eq=False)
class Pad(FloatLayer):
    """Zeros around the map: ``padding`` (top, bottom, left, right) and ``channels`` (front, back)."""

    keeps_quantization = True

    padding: Padding
    channels: Pair = (0, 0)

    def run(self, *inputs: Array) -> Array:
        top, bottom, left, right = self.padding
        return np.pad(inputs[0], ((0, 0), (top, bottom), (left, right), self.channels))


@dataclasses.dataclass(frozen=True, eq=False)
class Reshape(FloatLayer):
    """The same values in another ``shape``, without batch; by default all axes behind the batch are flattened."""

    keeps_quantization = True

    shape: Shape = (-1,)

    def run(self, *inputs: Array) -> Array:
        return inputs[0].reshape(len(inputs[0]), *self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Softmax(FloatLayer):
    """Softmax of ``beta`` times the values, over the last axis."""

    beta: float = 1.0

    def run(self, *inputs: Array) -> Array:
        exponential = np.exp(self.beta * (inputs[0] - inputs[0].max(axis=-1, keepdims=True)))
        return exponential / exponential.sum(axis=-1, keepdims=True)


BATCH = 16


def run(layers: Sequence[FloatLayer], x: Array) -> dict[str, Array]:
    """Return every float tensor by name, the input ``x`` (with batch axis) as ``"input"``."""
    values: dict[str, Array] = {"input": np.asarray(x, np.float64)}
    for layer in layers:
        values[layer.name] = layer.run(*(values[name] for name in layer.inputs))
    return values


def outputs(layers: Sequence[FloatLayer], x: Array) -> Array:
    """Return the last layer's values for the inputs ``x``; the tensors of a few of them are in memory at a time."""
    parts = (run(layers, x[start : start + BATCH])[layers[-1].name] for start in range(0, len(x), BATCH))
    return np.concatenate([*parts])
