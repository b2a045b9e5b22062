"""Float TensorFlow Lite models as the layers of :mod:`gossamer.golden.floating`, to be quantized here.

The operators keep the rules of :mod:`gossamer.golden.tflite_import` that are not about quantization. Layers are called by
their place and kind, ``"0 CONV_2D"``, as in an int8 model. Weights may be int8 with scales (dynamic-range quantization):
what counts is the numbers that they stand for. The reference kernels round the inputs of such layers too; here nothing is.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.golden import floating
from gossamer.golden import tflite_import as rules
from gossamer.golden.floating import FloatLayer
from gossamer.golden.network import NetworkError, Shape
from gossamer.golden.tflite_file import Graph, Operator, read_tflite
from gossamer.golden.tflite_import import activations_of, constant_of, padding_of, shape_of, window_of

__all__ = ["OPERATORS", "FloatModel", "is_float", "load_float"]

Array = floating.Array
Inputs = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FloatModel:
    """A float network: ``shape`` of the input, and the ``borders``, the shapes in which users see input and output where
    they are others than those of the tensors."""

    name: str
    layers: tuple[FloatLayer, ...]
    shape: Shape
    borders: tuple[Shape | None, Shape | None]


# Rules


def operator_is_known(op: Operator) -> str | None:
    """an operator of a float model must be one of those that can be quantized"""
    return None if op.kind in OPERATORS else f"{op.kind}; these are {', '.join(OPERATORS)}"


def activations_are_float32(op: Operator) -> str | None:
    """inputs and outputs of a float model must be float32"""
    return next((value.dtype for value in activations_of(op) if value.dtype != "float32"), None)


def weights_are_numbers(op: Operator) -> str | None:
    """the weights must be a dense constant of finite float32, or of int8 with scales"""
    weights = op.input(1)
    if weights is None or weights.data is None:
        return "none" if weights is None else f"{weights.dtype} that {'is not read' if weights.constant else 'is computed'}"
    if weights.sparse or weights.dtype not in ("float32", "int8") or (weights.dtype == "int8" and not len(weights.scales)):
        return f"{'sparse ' if weights.sparse else ''}{weights.dtype}"
    if weights.dtype == "float32":
        return None if np.isfinite(weights.data).all() else "infinity or NaN"
    return rules.weights_are_symmetric(op) or rules.weights_have_one_scale_or_one_per_channel(op)


def bias_is_float32(op: Operator) -> str | None:
    """the bias must be a constant of one finite float32 per output channel, or left out"""
    bias = op.input(2)
    channels = op.weights.shape[3 if op.kind == "DEPTHWISE_CONV_2D" else 0]
    if bias is None:
        return None
    if bias.dtype != "float32" or bias.data is None or bias.shape != (channels,):
        return f"{'' if bias.constant else 'computed '}{bias.dtype} of shape {bias.shape}"
    return None if np.isfinite(bias.data).all() else "infinity or NaN"


def input_is_one_vector(op: Operator) -> str | None:
    """the input must have as many values as a row of weights, the output one for each row"""
    outputs, depth = constant_of(op, 1).shape
    given, made = shape_of(op.source), shape_of(op.outputs[0])
    return None if given and math.prod(given) == depth and made == (outputs,) else f"{given} and {made}"


def beta_is_positive(op: Operator) -> str | None:
    """beta must be a finite number above 0"""
    beta = op.options.get("Beta", 0.0)
    return None if math.isfinite(beta) and beta > 0 else str(beta)


EVERY_OPERATOR = (
    operator_is_known, rules.operands_are_complete, activations_are_float32, rules.activations_are_plain,
    rules.shapes_are_maps_or_vectors,
)  # fmt: skip
WEIGHTS = (
    weights_are_numbers, rules.weights_have_their_axes, bias_is_float32, rules.fused_activation_is_a_clamp,
)  # fmt: skip
CONVOLUTION = (
    rules.map_has_four_axes, *WEIGHTS, rules.window_moves, rules.dilated_kernel_is_of_reasonable_size, rules.window_fits,
)  # fmt: skip
POOL = (
    rules.map_has_four_axes, rules.window_moves, rules.pool_window_is_of_reasonable_size, rules.window_fits,
    rules.fused_activation_is_a_clamp,
)  # fmt: skip


# Operators: from the names of the layer and its inputs to the layer.


def _activation(op: Operator) -> str:
    return rules.ACTIVATIONS[op.options.get("FusedActivationFunction", 0)]


def _real(op: Operator) -> dict[str, Any]:
    """Weights, in the file's order of axes, bias and activation."""
    weights, bias, channel_axis = op.weights, op.input(2), 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
    values = constant_of(op, 1).astype(np.float64)
    if weights.dtype == "int8":
        axes = [1] * values.ndim
        axes[channel_axis] = -1
        values = values * weights.scales.astype(np.float64).reshape(axes)
    zeros = np.zeros(values.shape[channel_axis])
    return {
        "weights": values,
        "bias": zeros if bias is None else constant_of(op, 2).astype(np.float64),
        "activation": _activation(op),
    }


def _spread(op: Operator, weights: Array) -> Array:
    return rules.dilated(weights, op.options["DilationHFactor"], op.options["DilationWFactor"])


def _convolution(op: Operator, name: str, inputs: Inputs) -> FloatLayer:
    fields = _real(op)
    fields["weights"] = _spread(op, rules.dense(fields["weights"], op.source.shape[3]))
    return floating.Conv(name, inputs, **fields, stride=window_of(op)[1], padding=padding_of(op))


def _depthwise(op: Operator, name: str, inputs: Inputs) -> FloatLayer:
    fields = _real(op)
    fields["weights"] = _spread(op, fields["weights"])[0]
    return floating.Depthwise(name, inputs, **fields, stride=window_of(op)[1], padding=padding_of(op))


def _pool(kind: Callable[..., FloatLayer]) -> Callable[..., FloatLayer]:
    return lambda op, name, inputs: kind(name, inputs, *window_of(op), padding_of(op), _activation(op))


def _reshape(op: Operator, name: str, inputs: Inputs) -> FloatLayer:
    return floating.Reshape(name, inputs, shape_of(op.outputs[0]) or (-1,))


def _pad(op: Operator, name: str, inputs: Inputs) -> FloatLayer:
    rows, columns, channels = (tuple(pair) for pair in constant_of(op, 1).tolist()[-3:])
    return floating.Pad(name, inputs, (*rows, *columns), channels)


OPERATORS: dict[str, tuple[Callable[..., FloatLayer], tuple[rules.Rule, ...]]] = {
    "ADD": (
        lambda op, name, inputs: floating.Add(name, inputs, _activation(op)),
        (rules.shapes_are_equal, rules.fused_activation_is_a_clamp),
    ),
    "AVERAGE_POOL_2D": (_pool(floating.AveragePool), POOL),
    "CONV_2D": (_convolution, CONVOLUTION),
    "DEPTHWISE_CONV_2D": (_depthwise, CONVOLUTION),
    "EXPAND_DIMS": (_reshape, (rules.size_is_kept,)),
    "FULLY_CONNECTED": (
        lambda op, name, inputs: floating.FullyConnected(name, inputs, **_real(op)),
        (*WEIGHTS, rules.weights_are_not_shuffled, input_is_one_vector),
    ),
    "MAX_POOL_2D": (_pool(floating.MaxPool), POOL),
    "MEAN": (
        lambda op, name, inputs: floating.Mean(name, inputs, keep=len(shape_of(op.outputs[0]) or ()) == 3),
        (rules.map_has_rows_and_columns, rules.mean_is_over_rows_and_columns),
    ),
    "PAD": (_pad, (rules.map_has_rows_and_columns, rules.pads_are_constant)),
    "RESHAPE": (_reshape, (rules.size_is_kept, rules.new_shape_is_constant)),
    "SOFTMAX": (
        lambda op, name, inputs: floating.Softmax(name, inputs, op.options["Beta"]),
        (rules.shapes_are_equal, beta_is_positive),
    ),
    "SQUEEZE": (_reshape, (rules.size_is_kept,)),
}
"""The supported operators by name: what makes the layer, and the rules."""


def _is_quantized(graph: Graph) -> bool:
    return any(value.dtype in ("int8", "uint8") for op in graph.operators for value in op.outputs)


def is_float(path: str | Path) -> bool:
    """Whether a ``.tflite`` file is a float model: no operator writes int8 or uint8."""
    try:
        return not _is_quantized(read_tflite(path))
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from error


def load_float(path: str | Path) -> FloatModel:
    """Read a float ``.tflite`` file. Raises :class:`NetworkError`, with the path, for one that is damaged or not supported."""
    try:
        graph = read_tflite(path)
        rules.require(graph, (rules.model_has_operators, rules.model_has_one_input_and_output, rules.borders_have_batch_one))
        (x,), (y,) = graph.inputs, graph.outputs
        names = {x.name: "input"}
        layers = []
        for op in graph.operators:
            rules.require(op, EVERY_OPERATOR)
            build, kept = OPERATORS[op.kind]
            rules.require(op, kept)
            *inputs, output = (value.name for value in activations_of(op))
            if output in names or not {*inputs} <= {*names}:
                raise NetworkError(f"{op}: it must read what is there already, and write a tensor that is not")
            names[output] = f"{op.position} {op.kind}"
            layers.append(build(op, names[output], tuple(names[name] for name in inputs)))
        if names.get(y.name) != layers[-1].name:
            raise NetworkError(f"the last operator must write the model's output, not {op.outputs[0].name!r}")
        shape = shape_of(x)
        assert shape is not None
        return FloatModel(Path(path).stem, tuple(layers), shape, (rules.border_of(x), rules.border_of(y)))
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from error
