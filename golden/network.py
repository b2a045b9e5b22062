"""The description of an integer network, its meaning, and its file.

A :class:`Network` is a list of layers over named tensors of int8; its input and its output may be float32 or uint8, the
tensors between them int4 or binary.
:meth:`Network.run` is the network-level golden: the TFLite reference kernels of :mod:`gossamer.golden.arithmetic`, layer
by layer. Everything is checked at construction and frozen, so a Network that exists is sound; :class:`NetworkError`
names the rule that was broken, and the value.
"""

import dataclasses
import io
import json
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gossamer.golden import arithmetic
from gossamer.golden.spec import UserError

__all__ = [
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Depthwise",
    "Dequantize",
    "FullyConnected",
    "Layer",
    "Logistic",
    "MaxPool",
    "Mean",
    "Network",
    "NetworkError",
    "Pad",
    "Quantize",
    "Rescale",
    "Reshape",
    "Softmax",
    "Tensor",
    "requantization",
]

Array = NDArray[Any]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
Shape = tuple[int, ...]

FORMAT = "gossamer network"
VERSION = 1

ZERO_POINTS = {
    "int8": arithmetic.INT8, "int4": arithmetic.INT4, "binary": (0, 0), "uint8": arithmetic.UINT8, "float32": (0, 0),
}  # fmt: skip
"""The types of a tensor, and the range of their zero points."""

LIMITS = {"int8": arithmetic.INT8, "int4": arithmetic.INT4, "binary": arithmetic.BINARY}
"""The types of the tensors between layers, and the least and the largest value of each. They are arrays of int8 all."""

PACKED = 8
"""The channels of a binary tensor come in so many."""

MALFORMED = (
    zipfile.BadZipFile, zlib.error, struct.error, KeyError, TypeError, ValueError, AttributeError, EOFError,
    RuntimeError, MemoryError, OverflowError, tokenize.TokenError,
)  # fmt: skip
"""What the standard library and numpy raise for a damaged file. A missing file stays an :class:`OSError`."""


class NetworkError(UserError, ValueError):
    """A network, its file or its input breaks a rule. The message is one sentence with the rule and the value."""


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise NetworkError(rule)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _article(noun: str) -> str:
    return ("an " if noun[0] in "AEIOU" else "a ") + noun


def _choice(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _integers(owner: str, what: str, values: Any, count: int, low: int, high: int) -> Shape:
    """Return ``values`` as a tuple of ``count`` ints in ``low..high``."""
    good = isinstance(values, (tuple, list)) and len(values) == count
    good = good and all(_is_integer(value) and low <= value <= high for value in values)
    _require(good, f"{owner}: {what} must be {_plural(count, 'integer')} in {low}..{high}, not {values!r}")
    return tuple(int(value) for value in values)


def _array(owner: str, what: str, values: Any, dtype: DTypeLike, dimensions: int) -> Array:
    """Return a read-only copy of ``values``, which must be a non-empty array of ``dtype`` and ``dimensions``."""
    good = isinstance(values, np.ndarray) and values.dtype == dtype and values.ndim == dimensions and values.size > 0
    found = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
    _require(good, f"{owner}: {what} must be {np.dtype(dtype)} of {_plural(dimensions, 'dimension')}, not {found}")
    copy = np.array(values, order="C")
    copy.setflags(write=False)
    return copy


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor: ``shape`` without batch, (H, W, C) or (N,); ``a`` stands for ``scale * (a - zero_point)``.

    ``dtype`` is

    - "int8";
    - for the network's input and output alone, "uint8" or "float32" (of scale 1, zero point 0);
    - for tensors between layers, "int4", whose values are in -8..7, or "binary": values are -1 or +1, the zero point is 0,
      and the channels (last axis) are a multiple of 8. Outside its map a binary tensor is -1, any other its zero point.
    """

    name: str
    shape: Shape
    scale: float
    zero_point: int
    dtype: str = "int8"

    def __post_init__(self) -> None:
        owner = f"tensor {self.name!r}"
        good = isinstance(self.name, str) and self.name != ""
        _require(good, f"a tensor's name must be a non-empty text, not {self.name!r}")
        rank = len(self.shape) if isinstance(self.shape, (tuple, list)) else 0
        _require(rank in (1, 3), f"{owner}: shape must be (H, W, C) or (N,), not {self.shape!r}")
        object.__setattr__(self, "shape", _integers(owner, "shape", self.shape, rank, 1, 1 << 24))
        good = isinstance(self.scale, (float, np.floating)) and math.isfinite(self.scale) and self.scale > 0
        _require(good, f"{owner}: scale must be a finite float above 0, not {self.scale!r}")
        good = isinstance(self.dtype, str) and self.dtype in ZERO_POINTS
        _require(good, f"{owner}: dtype must be one of {', '.join(ZERO_POINTS)}, not {self.dtype!r}")
        low, high = ZERO_POINTS[self.dtype]
        good = _is_integer(self.zero_point) and low <= self.zero_point <= high
        _require(good, f"{owner}: zero_point must be an integer in {low}..{high}, not {self.zero_point!r}")
        good = self.dtype != "float32" or self.scale == 1
        _require(good, f"{owner}: a float32 tensor must have scale 1.0, not {self.scale!r}")
        good = self.dtype != "binary" or self.shape[-1] % PACKED == 0
        _require(good, f"{owner}: the channels of a binary tensor must be a multiple of {PACKED}, not {self.shape[-1]}")
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "zero_point", int(self.zero_point))

    @property
    def quantization(self) -> tuple[float, int]:
        """``(scale, zero_point)``."""
        return self.scale, self.zero_point


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """What all layers have. Sub-classes set ``operands``, ``output_shape`` and ``run``, and ``check`` what they add.

    ``operands`` is the number of inputs, None for one or more.
    """

    operands: ClassVar[int | None] = 1
    input_types: ClassVar[tuple[str, ...]] = ("int8", "int4")
    output_types: ClassVar[tuple[str, ...]] = ("int8", "int4")
    rank: ClassVar[int | None] = None
    keeps_quantization: ClassVar[bool] = False

    name: str
    inputs: tuple[str, ...]
    output: str

    def __post_init__(self) -> None:
        count = len(self.inputs) if isinstance(self.inputs, (tuple, list)) else 0
        good = count == self.operands if self.operands is not None else count > 0
        wanted = "at least 1 input" if self.operands is None else _plural(self.operands, "input")
        _require(good, f"{self.owner}: {_article(type(self).__name__)} layer must have {wanted}, not {self.inputs!r}")
        object.__setattr__(self, "inputs", tuple(self.inputs))
        self.check()

    @property
    def owner(self) -> str:
        """How messages call this layer."""
        return f"layer {self.name!r}"

    def check(self) -> None:
        """Check and normalise the fields that need no tensor."""

    def output_shape(self, *inputs: Tensor) -> Shape:
        """Shape of the output, after a check that the inputs' shapes suit this layer."""
        raise NotImplementedError

    def run(self, network: "Network", *inputs: Array) -> Array:
        """Return the output, with the batch axis of the inputs."""
        raise NotImplementedError

    def macs(self, network: "Network") -> int:
        """Multiply-accumulates of one input: of a convolution, depthwise convolution or fully connected layer one per
        weight and output pixel, whatever the values are and also where the window lies in the padding; of others none."""
        return 0

    def _set_integers(self, field: str, count: int, low: int, high: int) -> None:
        object.__setattr__(self, field, _integers(self.owner, field, getattr(self, field), count, low, high))

    def _check_clamp(self) -> None:
        self._set_integers("clamp", 2, -128, 127)
        clamp: Pair = getattr(self, "clamp")  # noqa: B009
        _require(clamp[0] <= clamp[1], f"{self.owner}: clamp must be (minimum, maximum), not {clamp}")

    def _zero_points(self, network: "Network") -> Pair:
        return network.tensors[self.inputs[0]].zero_point, network.tensors[self.output].zero_point

    def _real_multiplier(self, network: "Network") -> float:
        return network.tensors[self.inputs[0]].scale / network.tensors[self.output].scale

    def _window_shape(self, x: Tensor, kernel: Pair, stride: Pair, padding: Padding) -> Pair:
        rows = arithmetic.output_size(x.shape[0], kernel[0], stride[0], padding[:2])
        columns = arithmetic.output_size(x.shape[1], kernel[1], stride[1], padding[2:])
        fits = rows >= 1 and columns >= 1
        _require(fits, f"{self.owner}: a kernel of {kernel} must fit the padded input, not {x.shape[:2]} + {padding}")
        return rows, columns


@dataclasses.dataclass(frozen=True, eq=False)
class Weighted(Layer):
    """A layer with weights: int32 accumulators of scale ``input scale * weight_scales``, requantized per channel.

    A binary output is +1 where the accumulator, bias included, is at least 0, else -1, whatever scales, rounding and clamp are.
    """

    input_types = output_types = tuple(LIMITS)

    weights: Array
    bias: Array
    weight_scales: Array

    weight_axes: ClassVar[int]
    channel_axis: ClassVar[int] = 0

    def check(self) -> None:
        for field, dtype, axes in (("weights", np.int8, self.weight_axes), ("bias", np.int32, 1)):
            object.__setattr__(self, field, _array(self.owner, field, getattr(self, field), dtype, axes))
        scales = np.asarray(self.weight_scales)
        object.__setattr__(self, "weight_scales", _array(self.owner, "weight_scales", scales, scales.dtype, 1))
        channels = self.weights.shape[self.channel_axis]
        for field in ("bias", "weight_scales"):
            count = len(getattr(self, field))
            _require(count == channels, f"{self.owner}: {field} must have {channels} values, not {count}")
        good = scales.dtype.kind == "f" and bool(np.all(np.isfinite(scales) & (scales >= 0)))
        _require(good, f"{self.owner}: weight_scales must be finite floats of at least 0, not {scales.tolist()}")
        rounding = getattr(self, "rounding")  # noqa: B009
        good = rounding in ("double", "single")
        _require(good, f"{self.owner}: rounding must be 'double' or 'single', not {rounding!r}")
        self._check_clamp()
        if hasattr(self, "stride"):
            self._set_integers("stride", 2, 1, 1 << 16)
            self._set_integers("padding", 4, 0, 1 << 16)

    def accumulate(self, network: "Network", x: Array) -> Array:
        """The accumulators, (N, ...) int64 that fit 32 bits, bias included. Raises ValueError where one does not fit."""
        raise NotImplementedError

    def outside(self, network: "Network") -> int:
        """What the input is outside its map, less its zero point."""
        return -1 if network.tensors[self.inputs[0]].dtype == "binary" else 0

    def run(self, network: "Network", *inputs: Array) -> Array:
        acc, output = self.accumulate(network, inputs[0]), network.tensors[self.output]
        if output.dtype == "binary":
            return arithmetic.binarize(acc)
        clamp, rounding = getattr(self, "clamp"), getattr(self, "rounding")  # noqa: B009
        return arithmetic.requantize(acc, *requantization(network, self), output.zero_point, clamp, rounding)

    def macs(self, network: "Network") -> int:
        return self.weights.size * math.prod(network.tensors[self.output].shape[:-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Conv(Weighted):
    """CONV_2D: ``weights`` (O, KH, KW, I); ``padding`` (top, bottom, left, right) of what the input is outside its map."""

    weight_axes = 4
    rank = 3

    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    clamp: Pair = (-128, 127)
    rounding: str = "double"

    def output_shape(self, *inputs: Tensor) -> Shape:
        channels, *kernel, depth = self.weights.shape
        given = inputs[0].shape[2]
        _require(depth == given, f"{self.owner}: the input must have {_plural(depth, 'channel')}, not {given}")
        return (*self._window_shape(inputs[0], (kernel[0], kernel[1]), self.stride, self.padding), channels)

    def accumulate(self, network: "Network", x: Array) -> Array:
        zero_point, outside = self._zero_points(network)[0], self.outside(network)
        return arithmetic.conv2d_accumulate(x, self.weights, self.bias, zero_point, self.stride, self.padding, outside)


@dataclasses.dataclass(frozen=True, eq=False)
class Depthwise(Weighted):
    """DEPTHWISE_CONV_2D: ``weights`` (KH, KW, O), ``O`` = m * I; channel ``o`` reads the input's channel ``o // m``."""

    weight_axes = 3
    channel_axis = 2
    rank = 3

    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    clamp: Pair = (-128, 127)
    rounding: str = "double"

    def output_shape(self, *inputs: Tensor) -> Shape:
        *kernel, channels = self.weights.shape
        given = inputs[0].shape[2]
        _require(channels % given == 0, f"{self.owner}: {channels} channels must be a multiple of the input's {given}")
        return (*self._window_shape(inputs[0], (kernel[0], kernel[1]), self.stride, self.padding), channels)

    def accumulate(self, network: "Network", x: Array) -> Array:
        constants = self.weights, self.bias, self._zero_points(network)[0]
        return arithmetic.depthwise_conv2d_accumulate(x, *constants, self.stride, self.padding, self.outside(network))


@dataclasses.dataclass(frozen=True, eq=False)
class FullyConnected(Weighted):
    """FULLY_CONNECTED: ``weights`` (O, N) applied to the flattened input; the reference kernel rounds once."""

    weight_axes = 2

    clamp: Pair = (-128, 127)
    rounding: str = "single"

    def output_shape(self, *inputs: Tensor) -> Shape:
        channels, values = self.weights.shape
        given = math.prod(inputs[0].shape)
        _require(values == given, f"{self.owner}: the input must have {_plural(values, 'value')}, not {given}")
        return (channels,)

    def accumulate(self, network: "Network", x: Array) -> Array:
        return arithmetic.fully_connected_accumulate(x, self.weights, self.bias, self._zero_points(network)[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Add(Layer):
    """ADD of two tensors of one shape."""

    operands = 2

    clamp: Pair = (-128, 127)

    def check(self) -> None:
        self._check_clamp()

    def output_shape(self, *inputs: Tensor) -> Shape:
        a, b = inputs
        _require(a.shape == b.shape, f"{self.owner}: the inputs must have one shape, not {a.shape} and {b.shape}")
        return a.shape

    def run(self, network: "Network", *inputs: Array) -> Array:
        a, b, output = (network.tensors[name].quantization for name in (*self.inputs, self.output))
        return arithmetic.add(inputs[0], inputs[1], a, b, output, self.clamp)


@dataclasses.dataclass(frozen=True, eq=False)
class _Pool(Layer):
    """A pooling layer; input and output have one type, scale and zero point. Every window touches the map."""

    rank = 3
    keeps_quantization = True

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    clamp: Pair = (-128, 127)

    def check(self) -> None:
        self._set_integers("kernel", 2, 1, 1 << 16)
        self._set_integers("stride", 2, 1, 1 << 16)
        self._set_integers("padding", 4, 0, 1 << 16)
        self._check_clamp()
        top, bottom, left, right = self.padding
        inside = max(top, bottom) < self.kernel[0] and max(left, right) < self.kernel[1]
        _require(inside, f"{self.owner}: padding must be smaller than the kernel {self.kernel}, not {self.padding}")

    def output_shape(self, *inputs: Tensor) -> Shape:
        return (*self._window_shape(inputs[0], self.kernel, self.stride, self.padding), inputs[0].shape[2])


class AveragePool(_Pool):
    """AVERAGE_POOL_2D over the pixels inside the map, ties away from zero."""

    def run(self, network: "Network", *inputs: Array) -> Array:
        return arithmetic.average_pool(inputs[0], self.kernel, self.stride, self.padding, self.clamp)


class MaxPool(_Pool):
    """MAX_POOL_2D over the pixels inside the map."""

    input_types = output_types = tuple(LIMITS)

    def run(self, network: "Network", *inputs: Array) -> Array:
        return arithmetic.max_pool(inputs[0], self.kernel, self.stride, self.padding, self.clamp)


class Reshape(Layer):
    """RESHAPE: the same values in the shape of the output tensor."""

    input_types = output_types = tuple(LIMITS)
    keeps_quantization = True

    def run(self, network: "Network", *inputs: Array) -> Array:
        return inputs[0].reshape(len(inputs[0]), *network.tensors[self.output].shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Softmax(Layer):
    """SOFTMAX over the last axis; the output has scale 1/256 and zero point -128."""

    output_types = ("int8",)

    beta: float = 1.0

    def check(self) -> None:
        good = isinstance(self.beta, (int, float)) and math.isfinite(self.beta) and self.beta > 0
        _require(good, f"{self.owner}: beta must be a finite number above 0, not {self.beta!r}")

    def output_shape(self, *inputs: Tensor) -> Shape:
        return inputs[0].shape

    def run(self, network: "Network", *inputs: Array) -> Array:
        return arithmetic.softmax(inputs[0], network.tensors[self.inputs[0]].scale, self.beta)


class Logistic(Layer):
    """LOGISTIC; the output has scale 1/256 and zero point -128."""

    output_types = ("int8",)

    def output_shape(self, *inputs: Tensor) -> Shape:
        return inputs[0].shape

    def run(self, network: "Network", *inputs: Array) -> Array:
        return arithmetic.logistic(inputs[0], *network.tensors[self.inputs[0]].quantization)


@dataclasses.dataclass(frozen=True, eq=False)
class Rescale(Layer):
    """QUANTIZE of integers to integers, RELU, RELU6 and RELU_N1_TO_1: from the input's scale and zero point to the output's.

    ``division`` is how the kernel divides the scales: "float64" (QUANTIZE) or "float32" (RELU and its kin).
    """

    clamp: Pair = (-128, 127)
    division: str = "float64"

    def check(self) -> None:
        self._check_clamp()
        good = self.division in ("float64", "float32")
        _require(good, f"{self.owner}: division must be 'float64' or 'float32', not {self.division!r}")

    def output_shape(self, *inputs: Tensor) -> Shape:
        return inputs[0].shape

    def multiplier(self, network: "Network") -> Pair:
        """``(multiplier, shift)`` of input scale / output scale; the rounding is "double"."""
        real = self._real_multiplier(network)
        return arithmetic.quantize_multiplier(real if self.division == "float64" else float(np.float32(real)))

    def run(self, network: "Network", *inputs: Array) -> Array:
        return arithmetic.rescale(inputs[0], *self.multiplier(network), *self._zero_points(network), self.clamp)


@dataclasses.dataclass(frozen=True, eq=False)
class Pad(Layer):
    """PAD with the zero point: ``padding`` (top, bottom, left, right) and ``channels`` (front, back)."""

    rank = 3
    keeps_quantization = True

    padding: Padding = (0, 0, 0, 0)
    channels: Pair = (0, 0)

    def check(self) -> None:
        self._set_integers("padding", 4, 0, 1 << 16)
        self._set_integers("channels", 2, 0, 1 << 16)

    def output_shape(self, *inputs: Tensor) -> Shape:
        height, width, depth = inputs[0].shape
        return height + sum(self.padding[:2]), width + sum(self.padding[2:]), depth + sum(self.channels)

    def run(self, network: "Network", *inputs: Array) -> Array:
        return arithmetic.pad(inputs[0], self.padding, self.channels, network.tensors[self.output].zero_point)


class Mean(Layer):
    """MEAN over the rows and columns; the output has shape (C,) or (1, 1, C)."""

    output_types = ("int8",)
    rank = 3

    def multiplier(self, network: "Network") -> Pair:
        """``(multiplier, shift)`` of the sum of (x - zero point) over the map; the rounding is "double"."""
        height, width, _ = network.tensors[self.inputs[0]].shape
        return arithmetic.mean_multiplier(self._real_multiplier(network), height * width)

    def run(self, network: "Network", *inputs: Array) -> Array:
        values = arithmetic.mean(inputs[0], *self.multiplier(network), *self._zero_points(network))
        return values.reshape(len(values), *network.tensors[self.output].shape)


class Concat(Layer):
    """CONCATENATION along the last axis; every input has the type, scale and zero point of the output."""

    operands = None
    keeps_quantization = True

    def output_shape(self, *inputs: Tensor) -> Shape:
        first = inputs[0].shape[:-1]
        good = all(x.shape[:-1] == first and len(x.shape) == len(inputs[0].shape) for x in inputs)
        given = " and ".join(str(x.shape) for x in inputs)
        _require(good, f"{self.owner}: the inputs must differ in the last axis alone, not have shapes {given}")
        return (*first, sum(x.shape[-1] for x in inputs))

    def run(self, network: "Network", *inputs: Array) -> Array:
        return np.concatenate(inputs, axis=-1)


class Quantize(Layer):
    """QUANTIZE of the network's float32 or uint8 input to int8."""

    input_types = ("float32", "uint8")
    output_types = ("int8",)

    def output_shape(self, *inputs: Tensor) -> Shape:
        return inputs[0].shape

    def run(self, network: "Network", *inputs: Array) -> Array:
        if network.tensors[self.inputs[0]].dtype == "float32":
            return arithmetic.quantize(inputs[0], *network.tensors[self.output].quantization)
        multiplier = arithmetic.quantize_multiplier(self._real_multiplier(network))
        return arithmetic.rescale(inputs[0], *multiplier, *self._zero_points(network))


class Dequantize(Layer):
    """DEQUANTIZE of int8 to the network's float32 output, or QUANTIZE to its uint8 output."""

    output_types = ("float32", "uint8")

    def output_shape(self, *inputs: Tensor) -> Shape:
        return inputs[0].shape

    def run(self, network: "Network", *inputs: Array) -> Array:
        if network.tensors[self.output].dtype == "float32":
            return arithmetic.dequantize(inputs[0], *network.tensors[self.inputs[0]].quantization)
        multiplier = arithmetic.quantize_multiplier(self._real_multiplier(network))
        return arithmetic.rescale(inputs[0], *multiplier, *self._zero_points(network), arithmetic.UINT8)


KINDS = {
    kind.__name__: kind
    for kind in (
        Conv, Depthwise, FullyConnected, Add, AveragePool, MaxPool, Reshape, Softmax,
        Logistic, Rescale, Pad, Mean, Concat, Quantize, Dequantize,
    )
}  # fmt: skip


def requantization(network: "Network", layer: Weighted) -> tuple[Array, Array]:
    """``(multipliers, shifts)``, int64 (O,), of ``input scale * weight scale / output scale``.

    The product and the quotient are doubles. (TFLite once rounded the product of FULLY_CONNECTED to float32; its
    kernels of today do not.)
    """
    input_scale, output_scale = (network.tensors[name].scale for name in (layer.inputs[0], layer.output))
    real = (input_scale * float(scale) / output_scale for scale in layer.weight_scales)
    pairs = [arithmetic.quantize_multiplier(value) for value in real]
    multipliers, shifts = np.array(pairs, np.int64).T
    return multipliers, shifts


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """Layers in topological order over named tensors; each tensor but ``input`` is written by exactly one layer.

    ``input_shape`` and ``output_shape`` are the shapes in which users see the two, without batch, where they are not those
    of the tensors: a model's (W, C) is the tensor (1, W, C).
    """

    name: str
    tensors: dict[str, Tensor]
    layers: tuple[Layer, ...]
    input: str
    output: str
    input_shape: Shape | None = None
    output_shape: Shape | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", dict(self.tensors))
        object.__setattr__(self, "layers", tuple(self.layers))
        for name, tensor in self.tensors.items():
            _require(name == tensor.name, f"a tensor's key must be its name {tensor.name!r}, not {name!r}")
        _require(self.input in self.tensors, f"the network's input must be one of its tensors, not {self.input!r}")
        names: set[str] = set()
        written = {self.input}
        for layer in self.layers:
            _require(layer.name not in names, f"a layer's name must be its own, and {layer.name!r} is used twice")
            names.add(layer.name)
            self._check_layer(layer, written)
            written.add(layer.output)
            kind = self.tensors[layer.output].dtype
            good = kind in LIMITS or layer.output == self.output
            rule = f"output {layer.output!r} must be {_choice(LIMITS)}, or the network's output, not {kind}"
            _require(good, f"{layer.owner}: {rule}")
        unwritten = sorted(set(self.tensors) - written)
        _require(not unwritten, f"every tensor must be written by a layer, and {', '.join(unwritten)} is not")
        good = self.output in written
        _require(good, f"the network's output must be one of its tensors, not {self.output!r}")
        for what, border in (("input", self.input), ("output", self.output)):
            kind = self.tensors[border].dtype
            good = kind not in ("int4", "binary")
            _require(good, f"the network's {what} {border!r} must be int8, uint8 or float32, not {kind}")
        for field, border in (("input_shape", self.input), ("output_shape", self.output)):
            shape, own = getattr(self, field), self.tensors[border].shape
            if shape is not None:
                rank = len(shape) if isinstance(shape, (tuple, list)) else 1
                object.__setattr__(self, field, _integers("the network", field, shape, rank, 1, 1 << 24))
                rule = f"{field} must have as many values as {border!r} of {own}, not shape {tuple(shape)}"
                _require(math.prod(shape) == math.prod(own), f"the network: {rule}")

    def _check_layer(self, layer: Layer, written: set[str]) -> None:
        owner = layer.owner
        for name in layer.inputs:
            _require(name in written, f"{owner}: input {name!r} must be the network's input or an earlier output")
        _require(layer.output in self.tensors, f"{owner}: output {layer.output!r} must be a tensor of the network")
        _require(layer.output not in written, f"{owner}: output {layer.output!r} must not be written twice")
        inputs = [self.tensors[name] for name in layer.inputs]
        output = self.tensors[layer.output]
        for tensor in inputs:
            good = layer.rank in (None, len(tensor.shape))
            _require(good, f"{owner}: input {tensor.name!r} must have {layer.rank} axes, not shape {tensor.shape}")
        borders = [("input", tensor, layer.input_types) for tensor in inputs] + [("output", output, layer.output_types)]
        for what, tensor, types in borders:
            good = tensor.dtype in types
            _require(good, f"{owner}: {what} {tensor.name!r} must be {_choice(types)}, not {tensor.dtype}")
            good = what == "output" or tensor.dtype in LIMITS or tensor.name == self.input
            _require(good, f"{owner}: {what} {tensor.name!r} of {tensor.dtype} must be the network's, not another layer's")
        if isinstance(layer, Mean):
            channels = inputs[0].shape[2]
            good = output.shape in ((channels,), (1, 1, channels))
            wanted = f"({channels},) or (1, 1, {channels})"
            _require(good, f"{owner}: output {output.name!r} must have shape {wanted}, not {output.shape}")
        elif isinstance(layer, Reshape):
            good = math.prod(inputs[0].shape) == math.prod(output.shape)
            given = f"{inputs[0].shape} to {output.shape}"
            _require(good, f"{owner}: a reshape must keep the number of values, not {given}")
        else:
            shape = layer.output_shape(*inputs)
            good = shape == output.shape
            _require(good, f"{owner}: output {output.name!r} must have shape {shape}, not {output.shape}")
        if layer.keeps_quantization:
            for tensor in inputs:
                good = tensor.dtype == output.dtype
                _require(good, f"{owner}: input and output must have one type, not {tensor.dtype} and {output.dtype}")
                good = tensor.quantization == output.quantization
                given = f"{tensor.quantization} and {output.quantization}"
                _require(good, f"{owner}: input and output must have one scale and zero point, not {given}")
        if isinstance(layer, (Softmax, Logistic)):
            good = output.quantization == (1 / 256, -128)
            kind, given = type(layer).__name__.lower(), f"{output.quantization}"
            _require(good, f"{owner}: a {kind} output must have scale 1/256 and zero point -128, not {given}")

        if hasattr(layer, "clamp") and output.dtype == "int4":
            low, high = LIMITS["int4"]
            good = low <= layer.clamp[0] and layer.clamp[1] <= high
            _require(good, f"{owner}: the clamp of an int4 output must lie in {low}..{high}, not {layer.clamp}")
        if hasattr(layer, "clamp") and output.dtype == "binary":
            good = layer.clamp[0] <= -1 and layer.clamp[1] >= 1
            _require(good, f"{owner}: the clamp of a binary output must hold -1 and 1, not {layer.clamp}")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one input, of all layers."""
        return sum(layer.macs(self) for layer in self.layers)

    def run(self, x: Array) -> dict[str, Array]:
        """Return every tensor by name, (N, *shape), for the input ``x`` (N, *shape of the input tensor).

        Raises :class:`NetworkError` for another shape or type, for NaN, and where a reference kernel would overflow.
        """
        shape, dtype = self.tensors[self.input].shape, self.tensors[self.input].dtype
        good = isinstance(x, np.ndarray) and x.dtype == dtype and x.shape[1:] == shape and x.ndim > 0 and len(x) > 0
        found = f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        _require(good, f"the input must be {dtype} of shape (N, {', '.join(map(str, shape))}), not {found}")
        _require(dtype != "float32" or not np.isnan(x).any(), "the input must be numbers, and it has NaN")
        values = {self.input: x}
        for layer in self.layers:
            try:
                values[layer.output] = layer.run(self, *(values[name] for name in layer.inputs))
            except ValueError as error:
                raise NetworkError(f"{layer.owner}: {error}") from error
        return values

    def save(self, path: str | Path) -> None:
        """Write a zip of ``network.json`` and one ``.npy`` per array. The same network gives the same bytes."""
        members: dict[str, bytes] = {}
        layers = []
        for index, layer in enumerate(self.layers):
            fields: dict[str, Any] = {"kind": type(layer).__name__}
            for field in dataclasses.fields(layer):
                value = getattr(layer, field.name)
                if isinstance(value, np.ndarray):
                    buffer = io.BytesIO()
                    np.lib.format.write_array(buffer, value, allow_pickle=False)
                    members[f"{index}.{field.name}.npy"] = buffer.getvalue()
                else:
                    fields[field.name] = value
            layers.append(fields)
        header = {
            "format": FORMAT, "version": VERSION, "name": self.name, "input": self.input, "output": self.output,
            "tensors": [dataclasses.asdict(tensor) for tensor in self.tensors.values()], "layers": layers,
        }  # fmt: skip
        header |= {
            field: shape
            for field in ("input_shape", "output_shape")
            if (shape := getattr(self, field)) is not None
        }
        members["network.json"] = json.dumps(header, indent=1).encode()
        with zipfile.ZipFile(path, "w") as file:
            for name in sorted(members):
                file.writestr(zipfile.ZipInfo(name), members[name], zipfile.ZIP_DEFLATED)

    @classmethod
    def load(cls, path: str | Path) -> "Network":
        """Read what :meth:`save` wrote. Raises :class:`NetworkError` for any other content."""
        try:
            with zipfile.ZipFile(path) as file:
                header = json.loads(file.read("network.json"))
                found = (header["format"], header["version"])
                _require(found == (FORMAT, VERSION), f"{path}: a network file must be {(FORMAT, VERSION)}, not {found}")
                tensors = {entry["name"]: Tensor(**entry) for entry in header["tensors"]}
                layers = []
                for index, entry in enumerate(header["layers"]):
                    kind = KINDS[entry.pop("kind")]
                    for field in ("weights", "bias", "weight_scales") if issubclass(kind, Weighted) else ():
                        buffer = io.BytesIO(file.read(f"{index}.{field}.npy"))
                        entry[field] = np.lib.format.read_array(buffer, allow_pickle=False)
                    layers.append(kind(**entry))
                borders = (header.get("input_shape"), header.get("output_shape"))
                return cls(header["name"], tensors, tuple(layers), header["input"], header["output"], *borders)
        except NetworkError:
            raise
        except MALFORMED as error:
            raise NetworkError(f"{path}: a network file must be as Network.save writes it, but {error}") from error
