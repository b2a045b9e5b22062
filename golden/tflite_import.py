"""TensorFlow Lite models as a :class:`Network`, exactly as the reference kernels compute them.

Each operator is one function that makes layers, with the rules that the operator must keep. A rule is a small function
too: its docstring is both the sentence that the user reads when the rule is broken and the text of ``docs/operators.md``.
It returns None, or what was found instead.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.golden import arithmetic
from gossamer.golden.network import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Depthwise,
    Dequantize,
    FullyConnected,
    Layer,
    Logistic,
    MaxPool,
    Mean,
    Network,
    NetworkError,
    Pad,
    Pair,
    Quantize,
    Rescale,
    Reshape,
    Shape,
    Softmax,
    Tensor,
)
from gossamer.golden.tflite_file import Graph, Operator, Value, read_tflite

__all__ = [
    "EVERY_MODEL", "EVERY_OPERATOR", "OPERATORS", "Support", "activations_of", "border_of", "constant_of", "dense", "dilated",
    "load_tflite", "padding_of", "require", "sentence", "shape_of", "window_of",
]  # fmt: skip

Rule = Callable[[Operator], str | None]
Array = arithmetic.Array

PADDINGS = {0: "SAME", 1: "VALID"}
ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6"}
LARGEST_KERNEL = 1 << 26

HINT = (
    "quantize the model to full int8 first (tf.lite.TFLiteConverter with Optimize.DEFAULT, a representative_dataset "
    "and TFLITE_BUILTINS_INT8)"
)


@dataclasses.dataclass(frozen=True)
class Support:
    """What is known of an operator: the ``rules`` it must keep, and ``build``, which makes its layers."""

    build: Callable[["_Builder", Operator], None]
    rules: tuple[Rule, ...]
    inputs: tuple[int, int] = (1, 1)
    activations: slice = dataclasses.field(default_factory=lambda: slice(0, 1))
    input_types: tuple[str, ...] = ("int8",)
    output_types: tuple[str, ...] = ("int8",)


OPERATORS: dict[str, Support] = {}
"""The supported operators by name."""


def activations_of(op: Operator) -> list[Value]:
    """The inputs that the model computes, as opposed to weights and parameters, and the outputs."""
    return [*(value for value in op.inputs[OPERATORS[op.kind].activations] if value is not None), *op.outputs]


def _first(found: Iterator[str]) -> str | None:
    return next(found, None)


# Rules of every operator


def operator_is_known(op: Operator) -> str | None:
    """an operator must be one of the supported ones"""
    if op.kind in OPERATORS:
        return None
    return f"{op.kind}; supported are {', '.join(OPERATORS)}"


def operands_are_complete(op: Operator) -> str | None:
    """it must have one output and as many inputs as its kernel has"""
    low, high = OPERATORS[op.kind].inputs
    activations = op.inputs[OPERATORS[op.kind].activations]
    if len(op.outputs) == 1 and low <= len(op.inputs) <= high and None not in activations:
        return None
    given = sum(value is not None for value in op.inputs)
    return f"{len(op.outputs)} outputs and {given} inputs"


def activations_are_int8(op: Operator) -> str | None:
    """inputs and outputs must be int8; only the model's own may be float32 or uint8, beside QUANTIZE and DEQUANTIZE"""
    support = OPERATORS[op.kind]
    wanted = [support.input_types] * (len(activations_of(op)) - 1) + [support.output_types]
    for value, types in zip(activations_of(op), wanted):
        if value.dtype not in types:
            return value.dtype + (f"; {HINT}" if value.dtype in ("float32", "float16", "uint8") else "")
    return None


def activations_are_plain(op: Operator) -> str | None:
    """inputs and outputs must be dense tensors that the model computes anew for each inference"""
    for value in activations_of(op):
        for wrong, kind in ((value.constant, "constant"), (value.sparse, "sparse"), (value.variable, "variable")):
            if wrong:
                return f"{value.name!r}, which is {kind}"
    return None


def activations_have_one_scale(op: Operator) -> str | None:
    """int8 and uint8 inputs and outputs must have one scale, above 0, and one zero point"""
    for value in activations_of(op):
        good = len(value.scales) == 1 and len(value.zero_points) <= 1
        good = good and bool(np.isfinite(value.scales[0])) and value.scales[0] > 0
        if value.dtype != "float32" and not good:
            return f"{value.scales.tolist()[:4]} and {value.zero_points.tolist()[:4]} of {value.name!r}"
    return None


def shapes_are_maps_or_vectors(op: Operator) -> str | None:
    """inputs and outputs must have shape (1, H, W, C), (H, W, C), (N, C) or (N), of sizes that are known beforehand"""
    for value in activations_of(op):
        known = all(axis == 0 and value.shape[:1] == (1,) for axis in value.unknown_sizes)
        if not known:
            sizes = ", ".join("?" if axis in value.unknown_sizes else str(n) for axis, n in enumerate(value.shape))
            return f"({sizes}) of {value.name!r}"
        if shape_of(value) is None:
            return f"{value.shape} of {value.name!r}"
    return None


EVERY_OPERATOR: tuple[Rule, ...] = (
    operator_is_known, operands_are_complete, activations_are_int8, activations_are_plain, activations_have_one_scale,
    shapes_are_maps_or_vectors,
)  # fmt: skip


# Rules of some operators


def fused_activation_is_a_clamp(op: Operator) -> str | None:
    """the fused activation must be NONE, RELU, RELU6 or RELU_N1_TO_1"""
    number = op.options.get("FusedActivationFunction", 0)
    return None if number in ACTIVATIONS else {4: "TANH", 5: "SIGN_BIT"}.get(number, f"number {number}")


def nothing_is_fused(op: Operator) -> str | None:
    """there must be no fused activation"""
    number = op.options.get("FusedActivationFunction", 0)
    return None if number == 0 else ACTIVATIONS.get(number, f"number {number}").upper()


def map_has_four_axes(op: Operator) -> str | None:
    """input and output must have four axes, the batch axis of size 1"""
    return _first(str(value.shape) for value in activations_of(op) if len(value.shape) != 4 or value.shape[0] != 1)


def map_has_rows_and_columns(op: Operator) -> str | None:
    """the input must have shape (1, H, W, C) or (1, W, C)"""
    shape = op.source.shape
    return None if len(shape) in (3, 4) else str(shape)


def weights_are_int8(op: Operator) -> str | None:
    """the weights must be a dense int8 constant"""
    weights = op.input(1)
    if weights is None:
        return "none"
    if weights.sparse:
        return "sparse"
    if weights.dtype != "int8":
        return weights.dtype
    return None if weights.data is not None else "computed ones"


def weights_have_their_axes(op: Operator) -> str | None:
    """the weights' shape must be that of the operator and suit its input's"""
    shape, given = constant_of(op, 1).shape, op.source.shape
    if op.kind == "FULLY_CONNECTED":
        good = len(shape) == 2 and math.prod(given) % shape[1] == 0
    elif op.kind == "CONV_2D":
        good = len(shape) == 4 and given[3] % shape[3] == 0 and shape[0] % (given[3] // shape[3]) == 0
    else:
        good = len(shape) == 4 and shape[0] == 1 and shape[3] % given[3] == 0
    return None if good else f"{shape} for an input of {given}"


def weights_are_symmetric(op: Operator) -> str | None:
    """the weights' zero points must be 0"""
    points = op.weights.zero_points
    return _first(str(point) for point in points.tolist() if point != 0)


def weights_have_one_scale_or_one_per_channel(op: Operator) -> str | None:
    """the weights must have one scale, or one for each output channel; each finite and at least 0"""
    weights = op.weights
    channel_axis = 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
    count, channels = len(weights.scales), weights.shape[channel_axis]
    if not (np.isfinite(weights.scales).all() and (weights.scales >= 0).all()):
        return str(weights.scales.tolist()[:4])
    if count == 1 or (count == channels and weights.axis == channel_axis):
        return None
    return f"{count} along axis {weights.axis} for {channels} channels"


def bias_is_int32(op: Operator) -> str | None:
    """the bias must be a constant of one int32 per output channel, or left out"""
    bias = op.input(2)
    channels = op.weights.shape[3 if op.kind == "DEPTHWISE_CONV_2D" else 0]
    if bias is None or (bias.dtype == "int32" and bias.data is not None and bias.shape == (channels,)):
        return None
    return f"{'' if bias.constant else 'computed '}{bias.dtype} of shape {bias.shape}"


def window_moves(op: Operator) -> str | None:
    """the strides must be 1 to 65536, the padding SAME or VALID"""
    stride = [op.options.get(field, 0) for field in ("StrideH", "StrideW")]
    padding = op.options.get("Padding", 0)
    if all(1 <= step <= 1 << 16 for step in stride) and padding in PADDINGS:
        return None
    return f"{stride} and {PADDINGS.get(padding, padding)}"


def dilated_kernel_is_of_reasonable_size(op: Operator) -> str | None:
    """dilations must be at least 1, and the weights at most 67,108,864 with the zeros that dilation and groups insert"""
    dilation = [op.options.get(field, 0) for field in ("DilationHFactor", "DilationWFactor")]
    if min(dilation) < 1:
        return str(dilation)
    outputs, *kernel, _ = op.weights.shape
    depth = op.source.shape[3]
    dense = depth * outputs * math.prod((size - 1) * step + 1 for size, step in zip(kernel, dilation))
    return None if dense <= LARGEST_KERNEL else f"{dilation} and {dense}"


def pool_window_is_of_reasonable_size(op: Operator) -> str | None:
    """the window must have 1 to 65536 rows and columns"""
    kernel = [op.options.get(field, 0) for field in ("FilterHeight", "FilterWidth")]
    return None if all(1 <= size <= 1 << 16 for size in kernel) else str(kernel)


def window_fits(op: Operator) -> str | None:
    """the output's rows and columns must be those that input, window, stride and padding give"""
    (top, bottom, left, right), (kernel, stride) = padding_of(op), window_of(op)
    shape, output = op.source.shape, op.outputs[0].shape
    wanted = (
        arithmetic.output_size(shape[1], kernel[0], stride[0], (top, bottom)),
        arithmetic.output_size(shape[2], kernel[1], stride[1], (left, right)),
    )
    return None if wanted == output[1:3] else f"{output[1:3]}, with {wanted} given"


def quantization_is_kept(op: Operator) -> str | None:
    """inputs and output must have the same scale and zero point"""
    pairs = [(float(value.scales[0]), _zero_point(value)) for value in activations_of(op)]
    return _first(f"{pair} and {pairs[-1]}" for pair in pairs if pair != pairs[-1])


def weights_are_not_shuffled(op: Operator) -> str | None:
    """the weights' format must be DEFAULT"""
    number = op.options.get("WeightsFormat", 0)
    return None if number == 0 else "SHUFFLED4x16INT8" if number == 1 else f"number {number}"


def output_has_a_row_per_vector(op: Operator) -> str | None:
    """the output must have a channel for each row of weights, and a vector for each vector of the input"""
    weights, given, output = constant_of(op, 1), op.source.shape, op.outputs[0].shape
    wanted = math.prod(given) // weights.shape[1] * weights.shape[0]
    return None if math.prod(output) == wanted and output[-1] == weights.shape[0] else str(output)


def shapes_are_equal(op: Operator) -> str | None:
    """inputs and output must have one shape, without broadcasting"""
    shapes = [value.shape for value in activations_of(op)]
    return None if len(set(shapes)) == 1 else " and ".join(map(str, shapes))


def size_is_kept(op: Operator) -> str | None:
    """input and output must have equally many values"""
    shapes = [value.shape for value in activations_of(op)]
    return None if math.prod(shapes[0]) == math.prod(shapes[1]) else f"{shapes[0]} and {shapes[1]}"


def new_shape_is_constant(op: Operator) -> str | None:
    """the new shape must be a constant or an option, and be that of the output"""
    given = op.input(1)
    if given is not None and (given.data is None or given.dtype != "int32"):
        return f"{'' if given.constant else 'computed '}{given.dtype}"
    wanted = given.data.reshape(-1).tolist() if given is not None and given.data is not None else None
    wanted = wanted if wanted is not None else op.options.get("NewShape")
    output = op.outputs[0].shape
    good = wanted is None or (len(wanted) == len(output) and all(a in (-1, b) for a, b in zip(wanted, output)))
    return None if good else f"{wanted} for {output}"


def axis_is_the_last(op: Operator) -> str | None:
    """the axis must be the last one, that of the channels, and the other axes must agree"""
    rank, axis = len(op.outputs[0].shape), op.options.get("Axis", 0)
    if axis not in (-1, rank - 1):
        return f"axis {axis} of {rank}"
    shapes = [value.shape for value in activations_of(op)]
    good = len({shape[:-1] for shape in shapes}) == 1 and sum(s[-1] for s in shapes[:-1]) == shapes[-1][-1]
    return None if good else " and ".join(map(str, shapes))


def mean_is_over_rows_and_columns(op: Operator) -> str | None:
    """the axes must be a constant: the rows and columns, of which those of size 1 may be left out"""
    axes = op.input(1)
    if axes is None or axes.data is None or axes.dtype != "int32":
        return "computed axes"
    rank, shape = len(op.source.shape), op.source.shape
    chosen = {axis % rank for axis in axes.data.reshape(-1).tolist() if -rank <= axis < rank}
    rest = [axis for axis in range(rank - 1) if axis not in chosen]
    batch = rank == 4 and 0 in chosen
    good = rank - 1 not in chosen and not batch and all(shape[axis] == 1 for axis in rest)
    good = good and math.prod(op.outputs[0].shape) == shape[-1] == op.outputs[0].shape[-1]
    return None if good else f"{axes.data.reshape(-1).tolist()} of {shape}"


def pads_are_constant(op: Operator) -> str | None:
    """the paddings must be a constant, at most 65536 each, and none along the batch axis"""
    pads = op.input(1)
    if pads is None or pads.data is None or pads.dtype not in ("int32", "int64"):
        return "computed ones"
    value, shape = pads.data, op.source.shape
    good = value.shape == (len(shape), 2) and value.min() >= 0 and value.max() <= 1 << 16
    good = good and (len(shape) == 3 or not value[0].any())
    good = good and tuple(size + sum(pair) for size, pair in zip(shape, value.tolist())) == op.outputs[0].shape
    return None if good else f"{value.tolist()} from {shape} to {op.outputs[0].shape}"


def output_is_a_probability(op: Operator) -> str | None:
    """the output must have scale 1/256 and zero point -128"""
    found = float(op.outputs[0].scales[0]), _zero_point(op.outputs[0])
    return None if found == (1 / 256, -128) else str(found)


def softmax_is_in_range(op: Operator) -> str | None:
    """the last axis must have 1 to 4095 values, and beta times the input's scale must be above 2**-26"""
    beta, count = op.options.get("Beta", 0.0), op.outputs[0].shape[-1]
    scale = beta * float(op.source.scales[0])
    return None if count < 4096 and math.isfinite(scale) and scale > 2.0**-26 else f"{count} and {scale}"


# What the rules and the operators share


def shape_of(value: Value) -> Shape | None:
    """The shape in a :class:`Network`, or None. Rows of one vector each are a map of one row."""
    shape = value.shape
    if not shape or min(shape) < 1 or max(shape) > 1 << 24:
        return None
    if len(shape) == 4:
        return shape[1:] if shape[0] == 1 else None
    if len(shape) == 2:
        return shape[1:] if shape[0] == 1 else (1, *shape)
    return shape if len(shape) in (1, 3) else None


def _zero_point(value: Value) -> int:
    return int(value.zero_points[0]) if len(value.zero_points) else 0


def constant_of(op: Operator, index: int) -> Array:
    """The value of input ``index``, which is a constant."""
    value = op.input(index)
    assert value is not None
    assert value.data is not None
    return value.data


def window_of(op: Operator) -> tuple[Pair, Pair]:
    """Kernel, dilation included, and stride."""
    stride = (op.options["StrideH"], op.options["StrideW"])
    if "FilterHeight" in op.options:
        return (op.options["FilterHeight"], op.options["FilterWidth"]), stride
    rows, columns = constant_of(op, 1).shape[1:3]
    dilation = op.options["DilationHFactor"], op.options["DilationWFactor"]
    return ((rows - 1) * dilation[0] + 1, (columns - 1) * dilation[1] + 1), stride


def padding_of(op: Operator) -> tuple[int, int, int, int]:
    """(top, bottom, left, right)."""
    if PADDINGS[op.options.get("Padding", 0)] == "VALID":
        return 0, 0, 0, 0
    shape = op.source.shape
    kernel, stride = window_of(op)
    return (
        *arithmetic.same_padding(shape[1], kernel[0], stride[0]),
        *arithmetic.same_padding(shape[2], kernel[1], stride[1]),
    )


def _clamp(op: Operator, kind: str | None = None) -> Pair:
    """The clamp of an activation, which is the fused one unless ``kind`` names one."""
    kind = kind or ACTIVATIONS[op.options.get("FusedActivationFunction", 0)]
    return arithmetic.activation_range(kind, float(op.outputs[0].scales[0]), _zero_point(op.outputs[0]))


def dilated(weights: Array, rows: int, columns: int) -> Array:
    """``weights`` (O, KH, KW, I) with zeros between the kernel's rows and columns."""
    outputs, height, width, depth = weights.shape
    spread = np.zeros((outputs, (height - 1) * rows + 1, (width - 1) * columns + 1, depth), weights.dtype)
    spread[:, ::rows, ::columns] = weights
    return spread


def dense(weights: Array, depth: int) -> Array:
    """``weights`` (O, KH, KW, I / groups) of groups of channels as those of a convolution over all ``depth`` channels."""
    outputs, height, width, part = weights.shape
    groups = depth // part
    result = np.zeros((outputs, height, width, depth), weights.dtype)
    for group in range(groups):
        rows = slice(group * outputs // groups, (group + 1) * outputs // groups)
        result[rows, :, :, group * part : (group + 1) * part] = weights[rows]
    return result


class _Builder:
    """The layers and tensors made so far."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.tensors: dict[str, Tensor] = {}

    def tensor(self, value: Value) -> Tensor:
        """The tensor of ``value``."""
        if value.name not in self.tensors:
            shape = shape_of(value)
            assert shape is not None
            if value.dtype == "float32":
                tensor = Tensor(value.name, shape, 1.0, 0, "float32")
            else:
                tensor = Tensor(value.name, shape, float(value.scales[0]), _zero_point(value), value.dtype)
            self.tensors[value.name] = tensor
        return self.tensors[value.name]

    def add(self, kind: Callable[..., Layer], op: Operator, *fields: Any, **named: Any) -> None:
        """The layer of ``kind`` that is ``op``; its inputs are the operator's activations."""
        *inputs, output = (self.tensor(value).name for value in activations_of(op))
        self.layers.append(kind(f"{op.position} {op.kind}", tuple(inputs), output, *fields, **named))

    def reshaped(self, op: Operator, source: str, target: Tensor) -> str:
        """A reshape of tensor ``source`` to ``target``, which is new or an output of ``op``; returns its name."""
        self.tensors.setdefault(target.name, target)
        self.layers.append(Reshape(f"{op.position} {op.kind} to {target.shape}", (source,), target.name))
        return target.name


def operator(name: str, *rules: Rule, **fields: Any) -> Callable[[Any], Any]:
    """Make a function the support of operator ``name``."""

    def enter(build: Callable[[_Builder, Operator], None]) -> Callable[[_Builder, Operator], None]:
        OPERATORS[name] = Support(build, rules, **fields)
        return build

    return enter


# Operators


WEIGHTS = (
    weights_are_int8, weights_have_their_axes, weights_are_symmetric, weights_have_one_scale_or_one_per_channel,
    bias_is_int32, fused_activation_is_a_clamp,
)  # fmt: skip


def _weighted(op: Operator, channels: int) -> dict[str, Any]:
    """Bias, scales and clamp. The bias' own scale does not count: kernels take input scale · weight scale for it."""
    weights, bias = op.weights, op.input(2)
    return {
        "bias": constant_of(op, 2) if bias is not None else np.zeros(channels, np.int32),
        "weight_scales": np.broadcast_to(weights.scales.astype(np.float64), (channels,)).copy(),
        "clamp": _clamp(op),
    }


@operator("ADD", shapes_are_equal, fused_activation_is_a_clamp, inputs=(2, 2), activations=slice(0, 2))
def addition(builder: _Builder, op: Operator) -> None:
    """`Add`"""
    builder.add(Add, op, _clamp(op))


POOL = (
    map_has_four_axes, quantization_is_kept, window_moves, pool_window_is_of_reasonable_size, window_fits,
    fused_activation_is_a_clamp,
)  # fmt: skip


@operator("AVERAGE_POOL_2D", *POOL)
def average_pool(builder: _Builder, op: Operator) -> None:
    """`AveragePool`"""
    builder.add(AveragePool, op, *window_of(op), padding_of(op), _clamp(op))


@operator(
    "CONCATENATION", axis_is_the_last, quantization_is_kept, nothing_is_fused, inputs=(1, 1 << 16),
    activations=slice(0, None),
)  # fmt: skip
def concatenation(builder: _Builder, op: Operator) -> None:
    """`Concat`"""
    builder.add(Concat, op)


@operator(
    "CONV_2D", map_has_four_axes, *WEIGHTS, window_moves, dilated_kernel_is_of_reasonable_size, window_fits, inputs=(2, 3)
)
def convolution(builder: _Builder, op: Operator) -> None:
    """`Conv`; a dilated kernel gets zeros between its weights, grouped convolutions get zeros for the other groups"""
    weights, depth = constant_of(op, 1), builder.tensor(activations_of(op)[0]).shape[-1]
    weights = dilated(dense(weights, depth), op.options["DilationHFactor"], op.options["DilationWFactor"])
    constants = _weighted(op, len(weights))
    builder.add(Conv, op, weights=weights, stride=window_of(op)[1], padding=padding_of(op), **constants)


@operator(
    "DEPTHWISE_CONV_2D", map_has_four_axes, *WEIGHTS, window_moves, dilated_kernel_is_of_reasonable_size, window_fits,
    inputs=(2, 3),
)  # fmt: skip
def depthwise_convolution(builder: _Builder, op: Operator) -> None:
    """`Depthwise`, of any depth multiplier; a dilated kernel gets zeros between its weights"""
    weights = dilated(constant_of(op, 1), op.options["DilationHFactor"], op.options["DilationWFactor"])[0]
    constants = _weighted(op, weights.shape[2])
    builder.add(Depthwise, op, weights=weights, stride=window_of(op)[1], padding=padding_of(op), **constants)


@operator("DEQUANTIZE", shapes_are_equal, output_types=("float32",))
def dequantization(builder: _Builder, op: Operator) -> None:
    """`Dequantize`, of the model's output"""
    builder.add(Dequantize, op)


@operator("EXPAND_DIMS", size_is_kept, quantization_is_kept, inputs=(2, 2))
@operator("SQUEEZE", size_is_kept, quantization_is_kept)
@operator("RESHAPE", size_is_kept, new_shape_is_constant, quantization_is_kept, inputs=(1, 2))
def reshape(builder: _Builder, op: Operator) -> None:
    """`Reshape`"""
    builder.add(Reshape, op)


@operator(
    "FULLY_CONNECTED", *WEIGHTS, weights_are_not_shuffled, output_has_a_row_per_vector, inputs=(2, 3)
)  # fmt: skip
def fully_connected(builder: _Builder, op: Operator) -> None:
    """`FullyConnected`; if it is applied to several vectors, `Conv` with a kernel of one pixel, rounding once"""
    weights = constant_of(op, 1)
    outputs, depth = weights.shape
    x, y = (builder.tensor(value) for value in activations_of(op))
    constants = _weighted(op, outputs)
    if math.prod(x.shape) == depth and len(y.shape) == 1:
        builder.add(FullyConnected, op, weights=weights, **constants)
        return
    source, pixels = x.name, x.shape[:-1] if len(x.shape) == 3 and x.shape[2] == depth else (1, math.prod(x.shape) // depth)
    if (*pixels, depth) != x.shape:
        part = dataclasses.replace(x, name=f"{y.name}#vectors", shape=(*pixels, depth))
        source = builder.reshaped(op, x.name, part)
    target = y if y.shape == (*pixels, outputs) else dataclasses.replace(y, name=f"{y.name}#rows", shape=(*pixels, outputs))
    builder.tensors.setdefault(target.name, target)
    kernel = weights.reshape(outputs, 1, 1, depth)
    builder.layers.append(
        Conv(f"{op.position} {op.kind}", (source,), target.name, weights=kernel, rounding="single", **constants)
    )
    if target is not y:
        builder.reshaped(op, target.name, y)


@operator("LOGISTIC", shapes_are_equal, output_is_a_probability)
def logistic(builder: _Builder, op: Operator) -> None:
    """`Logistic`"""
    builder.add(Logistic, op)


@operator("MAX_POOL_2D", *POOL)
def max_pool(builder: _Builder, op: Operator) -> None:
    """`MaxPool`"""
    builder.add(MaxPool, op, *window_of(op), padding_of(op), _clamp(op))


@operator("MEAN", map_has_rows_and_columns, mean_is_over_rows_and_columns, inputs=(2, 2))
def mean(builder: _Builder, op: Operator) -> None:
    """`Mean`"""
    builder.add(Mean, op)


@operator("PAD", map_has_rows_and_columns, pads_are_constant, quantization_is_kept, inputs=(2, 2))
def pad(builder: _Builder, op: Operator) -> None:
    """`Pad`"""
    rows, columns, channels = (tuple(pair) for pair in constant_of(op, 1).tolist()[-3:])
    builder.add(Pad, op, (*rows, *columns), channels)


@operator(
    "QUANTIZE", shapes_are_equal, input_types=("int8", "float32", "uint8"), output_types=("int8", "uint8")
)  # fmt: skip
def quantization(builder: _Builder, op: Operator) -> None:
    """`Rescale` from int8 to int8; `Quantize` of the model's input of float32 or uint8; `Dequantize` to its uint8 output"""
    x, y = activations_of(op)
    if x.dtype == y.dtype == "int8":
        builder.add(Rescale, op)
    else:
        builder.add(Quantize if y.dtype == "int8" else Dequantize, op)


@operator("RELU", shapes_are_equal)
@operator("RELU6", shapes_are_equal)
@operator("RELU_N1_TO_1", shapes_are_equal)
def rectifier(builder: _Builder, op: Operator) -> None:
    """`Rescale` with a clamp; its kernel divides the scales in float32"""
    builder.add(Rescale, op, _clamp(op, op.kind.lower()), "float32")


@operator("SOFTMAX", shapes_are_equal, output_is_a_probability, softmax_is_in_range)
def softmax(builder: _Builder, op: Operator) -> None:
    """`Softmax`"""
    builder.add(Softmax, op, op.options["Beta"])


for _name in sorted(OPERATORS):  # the page and the messages list them in this order
    OPERATORS[_name] = OPERATORS.pop(_name)


# Rules of the model


def model_has_operators(graph: Graph) -> str | None:
    """a model must have operators"""
    return None if graph.operators else "none"


def model_is_int8(graph: Graph) -> str | None:
    """a model must be quantized to int8, except for its own input and output"""
    computed = [value for op in graph.operators for value in op.outputs]
    if any(value.dtype == "int8" for value in computed) or any(op.kind not in OPERATORS for op in graph.operators):
        return None
    types = sorted({value.dtype for value in computed})
    return f"{' and '.join(types)}; {HINT}" if types else None


def model_has_one_input_and_output(graph: Graph) -> str | None:
    """a model must have one input and one output"""
    found = len(graph.inputs), len(graph.outputs)
    return None if found == (1, 1) else f"{found[0]} inputs and {found[1]} outputs"


def borders_have_batch_one(graph: Graph) -> str | None:
    """the model's input and output must have a batch axis of size 1, or one axis"""
    borders = (*graph.inputs, *graph.outputs)
    good = (len(v.shape) == 1 or v.shape[:1] == (1,) for v in borders)
    return _first(f"{v.shape} of {v.name!r}" for v, ok in zip(borders, good) if not ok)


EVERY_MODEL: tuple[Callable[[Graph], str | None], ...] = (
    model_has_operators, model_is_int8, model_has_one_input_and_output, borders_have_batch_one,
)  # fmt: skip


def sentence(rule: Callable[..., Any]) -> str:
    """The docstring of a rule."""
    return " ".join((rule.__doc__ or "").split())


def require(subject: Any, rules: Iterable[Callable[[Any], str | None]]) -> None:
    """Raise :class:`NetworkError` with the first of ``rules`` that an operator or a model breaks."""
    for rule in rules:
        found = rule(subject)
        if found is not None:
            owner = f"{subject}: " if isinstance(subject, Operator) else ""
            raise NetworkError(f"{owner}{sentence(rule)}, not {found}")


def load_tflite(path: str | Path) -> Network:
    """Read a ``.tflite`` file. Raises :class:`NetworkError`, with the path, for one that is damaged or not supported."""
    try:
        graph = read_tflite(path)
        require(graph, EVERY_MODEL)
        for op in graph.operators:
            require(op, EVERY_OPERATOR)
            require(op, OPERATORS[op.kind].rules)
        builder = _Builder()
        for value in graph.inputs:
            builder.tensor(value)
        for op in graph.operators:
            try:
                OPERATORS[op.kind].build(builder, op)
            except NetworkError as error:
                raise NetworkError(f"{op}: {error}") from None
        (x,), (y,) = graph.inputs, graph.outputs
        return Network(
            Path(path).stem, builder.tensors, tuple(builder.layers), x.name, y.name, border_of(x), border_of(y)
        )
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from error


def border_of(value: Value) -> Shape | None:
    """The model's own shape without batch, where the network's is another."""
    own = value.shape[1:] if len(value.shape) > 1 else value.shape
    return None if own == shape_of(value) else own
