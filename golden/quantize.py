"""Post-training quantization: a small float network and calibration inputs become a :class:`Network`.

The float network is a list of layers with numpy weights; :func:`run` executes it in float64. :func:`quantize` gives

- weights: int8 in -127..127, symmetric, one scale per output channel;
- biases: int32 with scale ``input scale * weight scale``;
- activations: int8, one scale and zero point per tensor from the smallest and largest calibration value, the range
  widened to hold 0 and nudged so that 0 is exact. A ReLU is fused: its output begins at 0, its zero point is -128;
- pooling and reshape keep their input's quantization; softmax has scale 1/256 and zero point -128.

Scales are rounded to float32, so that TFLite would compute the same multipliers. Maps are ``(N, H, W, C)``.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import arithmetic, network
from gossamer.golden.network import Network, NetworkError, Tensor

__all__ = [
    "Add",
    "AveragePool",
    "Conv",
    "Depthwise",
    "FloatLayer",
    "FullyConnected",
    "MaxPool",
    "Reshape",
    "Softmax",
    "activation_quantization",
    "quantize",
    "quantize_weights",
    "run",
]

Array = NDArray[Any]
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class FloatLayer:
    """A float layer. It writes the tensor that bears its own name; ``inputs`` name other layers, or the input."""

    name: str
    inputs: tuple[str, ...]

    keeps_quantization: ClassVar[bool] = False

    def run(self, *inputs: Array) -> Array:
        """Return the float output for float inputs with a batch axis."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class Weighted(FloatLayer):
    """A float layer with ``weights`` in the order of its int8 twin, a ``bias`` (O,) and an optional ReLU."""

    weights: Array
    bias: Array

    channel_axis: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Conv(Weighted):
    """Convolution with ``weights`` (O, KH, KW, I) and SAME padding."""

    stride: Pair = (1, 1)
    relu: bool = False

    def run(self, *inputs: Array) -> Array:
        kernel = (self.weights.shape[1], self.weights.shape[2])
        total: Array = np.asarray(self.bias, np.float64)
        for ky, kx, values in _same_windows(inputs[0], kernel, self.stride):
            total = total + values @ self.weights[:, ky, kx].T
        return np.maximum(total, 0) if self.relu else total


@dataclasses.dataclass(frozen=True, eq=False)
class Depthwise(Weighted):
    """Depthwise convolution with ``weights`` (KH, KW, O), O a multiple of the input's channels, and SAME padding."""

    channel_axis = 2

    stride: Pair = (1, 1)
    relu: bool = False

    def run(self, *inputs: Array) -> Array:
        repeated = np.repeat(inputs[0], self.weights.shape[2] // inputs[0].shape[3], axis=3)
        total: Array = np.asarray(self.bias, np.float64)
        for ky, kx, values in _same_windows(repeated, (self.weights.shape[0], self.weights.shape[1]), self.stride):
            total = total + values * self.weights[ky, kx]
        return np.maximum(total, 0) if self.relu else total


@dataclasses.dataclass(frozen=True, eq=False)
class FullyConnected(Weighted):
    """``weights`` (O, I) applied to the input, whose axes behind the batch are flattened."""

    relu: bool = False

    def run(self, *inputs: Array) -> Array:
        total = inputs[0].reshape(len(inputs[0]), -1) @ self.weights.T + self.bias
        return np.maximum(total, 0) if self.relu else total


@dataclasses.dataclass(frozen=True, eq=False)
class Add(FloatLayer):
    """Sum of two maps."""

    relu: bool = False

    def run(self, *inputs: Array) -> Array:
        total = inputs[0] + inputs[1]
        return np.maximum(total, 0) if self.relu else total


@dataclasses.dataclass(frozen=True, eq=False)
class _Pool(FloatLayer):
    """Pooling without padding."""

    keeps_quantization = True

    kernel: Pair
    stride: Pair

    def _windows(self, x: Array) -> Array:
        return np.stack([values for _, _, values in arithmetic.windows(x, self.kernel, self.stride, (0, 0, 0, 0), 0)])


class AveragePool(_Pool):
    """Mean of each window."""

    def run(self, *inputs: Array) -> Array:
        return np.mean(self._windows(inputs[0]), axis=0)


class MaxPool(_Pool):
    """Maximum of each window."""

    def run(self, *inputs: Array) -> Array:
        return np.max(self._windows(inputs[0]), axis=0)


class Reshape(FloatLayer):
    """Flatten all axes behind the batch."""

    keeps_quantization = True

    def run(self, *inputs: Array) -> Array:
        return inputs[0].reshape(len(inputs[0]), -1)


class Softmax(FloatLayer):
    """Softmax over the last axis."""

    def run(self, *inputs: Array) -> Array:
        exponential = np.exp(inputs[0] - inputs[0].max(axis=-1, keepdims=True))
        return exponential / exponential.sum(axis=-1, keepdims=True)


def _same_windows(x: Array, kernel: Pair, stride: Pair) -> Any:
    return arithmetic.windows(x, kernel, stride, _same(x.shape[1:], kernel, stride), 0)


def _same(shape: Sequence[int], kernel: Pair, stride: Pair) -> network.Padding:
    top, bottom = arithmetic.same_padding(shape[0], kernel[0], stride[0])
    left, right = arithmetic.same_padding(shape[1], kernel[1], stride[1])
    return top, bottom, left, right


def run(layers: Sequence[FloatLayer], x: Array) -> dict[str, Array]:
    """Return every float tensor by name, the input ``x`` (with batch axis) as ``"input"``."""
    values = {"input": np.asarray(x, np.float64)}
    for layer in layers:
        values[layer.name] = layer.run(*(values[name] for name in layer.inputs))
    return values


def activation_quantization(low: float, high: float) -> tuple[float, int]:
    """``(scale, zero_point)`` of int8 activations in ``low..high``, widened to hold 0; the scale is a float32 value.

    An all-zero range gets scale 1. Raises :class:`ValueError` if a bound is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"the range of an activation must be finite, not {low}..{high}")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255)) or 1.0
    return scale, min(127, max(-128, math.floor(-128 - low / scale + 0.5)))


def quantize_weights(weights: Array, channel_axis: int) -> tuple[Array, Array]:
    """``(int8 weights in -127..127, float64 scales (O,) of float32 values)``; an all-zero channel gets scale 1."""
    others = tuple(axis for axis in range(weights.ndim) if axis != channel_axis % weights.ndim)
    scales: Array = (np.abs(weights).max(axis=others) / 127).astype(np.float32).astype(np.float64)
    scales = np.where(scales == 0, 1.0, scales)
    shape = [1] * weights.ndim
    shape[channel_axis] = -1
    return np.clip(np.rint(weights / scales.reshape(shape)), -127, 127).astype(np.int8), scales


def _weighted(layer: Any, inputs: tuple[str, ...], x: Tensor, clamp: Pair) -> network.Layer:
    weights, scales = quantize_weights(np.asarray(layer.weights, np.float64), layer.channel_axis)
    bias = np.rint(np.asarray(layer.bias, np.float64) / (x.scale * scales))
    if np.abs(bias).max() >= 1 << 31:
        raise NetworkError(f"layer {layer.name!r}: a bias must fit 32 bits, not {bias[np.argmax(np.abs(bias))]:.0f}")
    common: dict[str, Any] = {"name": layer.name, "inputs": inputs, "output": layer.name, "clamp": clamp}
    common |= {"weights": weights, "bias": bias.astype(np.int32), "weight_scales": scales}
    if isinstance(layer, FullyConnected):
        return network.FullyConnected(**common)
    if isinstance(layer, Conv):
        padding = _same(x.shape, (weights.shape[1], weights.shape[2]), layer.stride)
        return network.Conv(stride=layer.stride, padding=padding, **common)
    padding = _same(x.shape, (weights.shape[0], weights.shape[1]), layer.stride)
    return network.Depthwise(stride=layer.stride, padding=padding, **common)


def quantize(
    name: str, layers: Sequence[FloatLayer], calibration: Array, quantizations: Mapping[str, tuple[float, int]] | None = None
) -> Network:
    """Quantize ``layers`` with the ranges that ``calibration``, a batch of inputs, gives every tensor.

    The int8 tensors bear the names of the float ones; the input is ``"input"``, the output is the last layer's. Tensors in
    ``quantizations`` get the scale and zero point that is there, whatever their values are.
    """
    given = dict(quantizations or {})
    values = run(layers, calibration)
    tensors: dict[str, Tensor] = {}

    def declare(key: str, quantization: tuple[float, int]) -> Tensor:
        tensors[key] = Tensor(key, values[key].shape[1:], *given.get(key, quantization))
        return tensors[key]

    declare("input", activation_quantization(float(values["input"].min()), float(values["input"].max())))
    twins: list[network.Layer] = []
    for layer in layers:
        x = tensors[layer.inputs[0]]
        output = values[layer.name]
        quantization = activation_quantization(float(output.min()), float(output.max()))
        if layer.keeps_quantization:
            quantization = x.quantization
        elif isinstance(layer, Softmax):
            quantization = (1 / 256, -128)
        tensor = declare(layer.name, quantization)
        clamp = arithmetic.activation_range("relu" if getattr(layer, "relu", False) else "none", *tensor.quantization)
        if isinstance(layer, Weighted):
            twins.append(_weighted(layer, layer.inputs, x, clamp))
        elif isinstance(layer, Add):
            twins.append(network.Add(layer.name, layer.inputs, layer.name, clamp))
        elif isinstance(layer, _Pool):
            pool = network.MaxPool if isinstance(layer, MaxPool) else network.AveragePool
            twins.append(pool(layer.name, layer.inputs, layer.name, layer.kernel, layer.stride))
        elif isinstance(layer, Reshape):
            twins.append(network.Reshape(layer.name, layer.inputs, layer.name))
        else:
            twins.append(network.Softmax(layer.name, layer.inputs, layer.name))
    return Network(name, tensors, tuple(twins), "input", layers[-1].name)
