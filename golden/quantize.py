"""Post-training quantization: a float network and calibration inputs become a :class:`Network`.

:func:`quantize` gives the layers of :mod:`gossamer.golden.floating`

- weights: int8 in -127..127, symmetric, one scale per output channel;
- biases: int32 with scale ``input scale * weight scale``;
- activations: int8, one scale and zero point per tensor from a range of the calibration values
  (:mod:`gossamer.golden.ranges`), widened to hold 0 and nudged so that 0 is exact. The output of a fused ReLU begins at 0,
  its zero point is -128;
- pooling, padding and reshape keep their input's quantization; softmax has scale 1/256 and zero point -128.

Scales are rounded to float32, so that TFLite would compute the same multipliers.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import arithmetic, floating, network
from gossamer.golden.network import Network, Pair, Shape, Tensor
from gossamer.golden.ranges import BINS, Histogram, activation_quantization, observe, weight_limits

__all__ = ["least_scales", "narrowed", "quantize", "quantize_weights"]

Array = NDArray[Any]

BIAS_LIMIT = 1 << 26
"""No bias is larger: the core has 28 bits, and what the input's zero point adds needs some of them."""


def least_scales(bias: Array, input_scale: float) -> Array:
    """The smallest weight scales with which the real ``bias`` stays below :data:`BIAS_LIMIT`. Weights that are so small
    beside their bias that this matters hardly do."""
    return np.abs(np.asarray(bias, np.float64)) / (input_scale * BIAS_LIMIT)


def quantize_weights(
    weights: Array,
    channel_axis: int,
    *,
    levels: int = 127,
    method: str = "minmax",
    per_tensor: bool = False,
    least: Array | float = 0.0,
) -> tuple[Array, Array]:
    """``(int8 weights in -levels..levels, float64 scales (O,) of float32 values)``, the scales at least ``least``.

    A scale of 0, as an all-zero channel would get, is 1. With ``per_tensor`` all scales are the largest of them.
    """
    rows = np.moveaxis(np.asarray(weights, np.float64), channel_axis, 0)
    flat = rows.reshape(len(rows), -1)
    limits = weight_limits(flat.reshape(1, -1) if per_tensor else flat, levels, method)
    scales = np.maximum(limits / levels, np.max(least) if per_tensor else least)
    scales = np.broadcast_to(scales, len(rows)).astype(np.float32).astype(np.float64)
    scales = np.where(scales == 0, 1.0, scales)
    integers = np.clip(np.rint(flat / scales[:, np.newaxis]), -levels, levels).astype(np.int8)
    return np.ascontiguousarray(np.moveaxis(integers.reshape(rows.shape), 0, channel_axis)), scales


def _weighted(layer: Any, x: Tensor, clamp: Pair, method: str) -> network.Layer:
    least = least_scales(layer.bias, x.scale)
    weights, scales = quantize_weights(layer.weights, layer.channel_axis, method=method, least=least)
    bias = np.rint(np.asarray(layer.bias, np.float64) / (x.scale * scales))
    common: dict[str, Any] = {"name": layer.name, "inputs": layer.inputs, "output": layer.name, "clamp": clamp}
    common |= {"weights": weights, "bias": bias.astype(np.int32), "weight_scales": scales}
    if isinstance(layer, floating.FullyConnected):
        return network.FullyConnected(**common)
    kind = network.Conv if isinstance(layer, floating.Conv) else network.Depthwise
    return kind(stride=layer.stride, padding=layer.padding_of(x.shape), **common)


def _twin(layer: floating.FloatLayer, x: Tensor, clamp: Pair, method: str) -> network.Layer:
    """The int8 layer that computes ``layer``, whose first input is ``x``."""
    common = layer.name, layer.inputs, layer.name
    if isinstance(layer, floating.Weighted):
        return _weighted(layer, x, clamp, method)
    if isinstance(layer, floating.Add):
        return network.Add(*common, clamp)
    if isinstance(layer, floating.Pool):
        pool = network.MaxPool if isinstance(layer, floating.MaxPool) else network.AveragePool
        return pool(*common, layer.kernel, layer.stride, layer.padding, clamp)
    if isinstance(layer, floating.Pad):
        return network.Pad(*common, layer.padding, layer.channels)
    if isinstance(layer, floating.Softmax):
        return network.Softmax(*common, layer.beta)
    return (network.Mean if isinstance(layer, floating.Mean) else network.Reshape)(*common)


def quantize(
    name: str,
    layers: Sequence[floating.FloatLayer],
    calibration: Array,
    quantizations: Mapping[str, tuple[float, int]] | None = None,
    *,
    method: str = "minmax",
    borders: tuple[Shape | None, Shape | None] = (None, None),
) -> Network:
    """Quantize ``layers`` with the ranges that ``method`` gives every tensor for ``calibration``, a batch of inputs.

    The int8 tensors bear the names of the float ones; the input is ``"input"``, the output is the last layer's. Tensors in
    ``quantizations`` get the scale and zero point that is there, whatever their values are. ``borders`` are the shapes in
    which users see input and output, where they are others.
    """
    given = dict(quantizations or {})
    seen = observe(layers, calibration)
    shapes = {key: value.shape[1:] for key, value in floating.run(layers, calibration[:1]).items()}
    tensors: dict[str, Tensor] = {}

    def declare(key: str, quantization: tuple[float, int] | None = None) -> Tensor:
        found = given.get(key) or quantization or activation_quantization(*seen[key].range(method))
        tensors[key] = Tensor(key, shapes[key], *found)
        return tensors[key]

    declare("input")
    twins: list[network.Layer] = []
    for layer in layers:
        x = tensors[layer.inputs[0]]
        kept = x.quantization if layer.keeps_quantization else None
        tensor = declare(layer.name, (1 / 256, -128) if isinstance(layer, floating.Softmax) else kept)
        clamp = arithmetic.activation_range(getattr(layer, "activation", "none"), *tensor.quantization)
        twins.append(_twin(layer, x, clamp, method))
    return Network(name, tensors, tuple(twins), "input", layers[-1].name, *borders)


def _moved(value: int, before: Tensor, after: Tensor) -> int:
    """An integer of ``before`` as the nearest one of ``after``, which is int4."""
    nearest = round((value - before.zero_point) * before.scale / after.scale) + after.zero_point
    return min(max(nearest, arithmetic.INT4[0]), arithmetic.INT4[1])


def narrowed(whole: Network, reference: Mapping[str, Array], keep: Collection[str] = ()) -> Network:
    """The network with int4 tensors in place of int8 ones, in the ranges with the least squared error for the real values
    ``reference``, by tensor.

    The input, the output, what a softmax or a logistic layer reads, the tensors in ``keep`` and those of layers that write int8
    alone stay, and with them those that must have the same quantization. A clamp at a real value stays there, as a ReLU's at 0.
    """
    tied = {name: {name} for name in whole.tensors}
    stays = {whole.input, whole.output, *keep}
    for layer in whole.layers:
        if layer.keeps_quantization:
            together = set().union(*(tied[name] for name in (*layer.inputs, layer.output)))
            for name in together:
                tied[name] = together
        if "int4" not in layer.output_types:
            stays.add(layer.output)
        if isinstance(layer, (network.Softmax, network.Logistic)):
            stays.update(layer.inputs)
    tensors = dict(whole.tensors)
    for name, tensor in whole.tensors.items():
        if tied[name] & stays or tensor.dtype != "int8":
            continue
        values = np.concatenate([reference[other].reshape(-1) for other in sorted(tied[name])])
        ends = float(values.min()), float(values.max())
        histogram = Histogram(*ends, np.histogram(values, BINS, ends if ends[0] < ends[1] else None)[0])
        found = activation_quantization(*histogram.range("mse", arithmetic.INT4), arithmetic.INT4)
        tensors[name] = Tensor(name, tensor.shape, *found, "int4")
    layers = []
    for layer in whole.layers:
        before, after = whole.tensors[layer.output], tensors[layer.output]
        if after is not before and hasattr(layer, "clamp"):
            low, high = (
                limit if own == end else _moved(own, before, after)
                for own, end, limit in zip(layer.clamp, arithmetic.INT8, arithmetic.INT4)
            )
            layer = dataclasses.replace(cast("Any", layer), clamp=(low, high))
        layers.append(layer)
    return dataclasses.replace(whole, tensors=tensors, layers=tuple(layers))
