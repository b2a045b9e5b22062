"""Compression of a network's weights: pruned, in fewer bits, or from palettes, and still a :class:`Network` as any other.

A :class:`Source` is what is compressed: an int8 network, the real weights of its layers, and what the network that it comes
from computes for calibration inputs. :func:`compress` goes through the layers in order; each is fitted to the inputs that it
has behind the layers that are compressed already:

1. weights are pruned (:mod:`gossamer.golden.pruning`);
2. those that are left get a format (:mod:`gossamer.golden.weights`), and make up for what pruning and rounding lose
   (:mod:`gossamer.golden.compensation`);
3. the bias gets the mean that is missing per output channel before the activation. Ref: Nagel et al., Data-Free
   Quantization through Weight Equalization and Bias Correction, 2019, section 4.2.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import arithmetic, floating, pruning, weights
from gossamer.golden.compensation import moments, pruned, retargeted, rounded, rows_of, weights_of
from gossamer.golden.network import FullyConnected, Network, NetworkError, Tensor, Weighted
from gossamer.golden.quantize import least_scales, narrowed, quantize
from gossamer.golden.weights import Options

__all__ = ["Compressed", "Fitting", "Source", "agreement", "compress", "from_float", "from_int8", "narrow", "real", "search"]

Array = NDArray[Any]

MOST = 256
"""So many calibration inputs are used for more than ranges; all their tensors are in memory."""


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What is compressed.

    ``network`` is int8, or in part int4 (:func:`narrow`); ``weights`` and ``biases`` are the real ones of its layers, by layer,
    ``scales`` those that weights keep if they stay in eight bits. ``x`` are calibration inputs, ``reference`` the real value of
    each tensor for them.
    """

    network: Network
    weights: Mapping[str, Array]
    biases: Mapping[str, Array]
    scales: Mapping[str, Array]
    x: Array
    reference: Mapping[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """``network`` with, by layer, the bits that its weights take in their format, and the mask of those that are not pruned.
    ``output`` is what it computes for the calibration inputs."""

    network: Network
    bits: dict[str, int]
    masks: dict[str, Array]
    output: Array


def real(tensor: Tensor, values: Array) -> Array:
    """What ``values`` stand for."""
    return tensor.scale * (values.astype(np.float64) - tensor.zero_point)


def from_float(
    name: str,
    layers: Sequence[floating.FloatLayer],
    calibration: Array,
    *,
    method: str = "mse",
    input_quantization: tuple[float, int] | None = None,
    borders: tuple[Any, Any] = (None, None),
) -> Source:
    """The source that is a float network, with activations in the ranges that ``method`` gives for ``calibration``."""
    given = {} if input_quantization is None else {"input": input_quantization}
    network = quantize(name, layers, calibration, given, method=method, borders=borders)
    few = calibration[:MOST]
    return Source(
        network,
        {layer.name: layer.weights for layer in layers if isinstance(layer, floating.Weighted)},
        {layer.name: layer.bias for layer in layers if isinstance(layer, floating.Weighted)},
        {},
        arithmetic.quantize(few.astype(np.float32), *network.tensors["input"].quantization),
        floating.run(layers, few),
    )


def from_int8(network: Network, calibration: Array) -> Source:
    """The source that is an int8 network; ``calibration`` are inputs of its own type."""
    layers = [layer for layer in network.layers if isinstance(layer, Weighted)]
    values = network.run(calibration[:MOST])
    reference = {name: real(network.tensors[name], value) for name, value in values.items()}
    scales = {layer.name: layer.weight_scales.astype(np.float64) for layer in layers}
    exact, biases = {}, {}
    for layer in layers:
        rows = np.moveaxis(layer.weights, layer.channel_axis, -1) * scales[layer.name]
        exact[layer.name] = np.moveaxis(rows, -1, layer.channel_axis)
        biases[layer.name] = layer.bias * network.tensors[layer.inputs[0]].scale * scales[layer.name]
    return Source(network, exact, biases, scales, calibration[:MOST], reference)


def narrow(source: Source) -> Source:
    """The source with int4 activations in place of int8 ones, where :func:`quantize.narrowed` has them."""
    return dataclasses.replace(source, network=narrowed(source.network, source.reference))


@dataclasses.dataclass(frozen=True)
class Fitting:
    """How layers are fitted: ``method`` gives the ranges of int8 weights, ``lanes`` is the number of output channels in a
    block. Without ``correct`` biases stay, without ``compensate`` weights are rounded to nearest and pruned ones are lost."""

    method: str = "mse"
    lanes: int = 16
    correct: bool = True
    compensate: bool = True


def compress(source: Source, options: Mapping[str, Options], fitting: Fitting = Fitting()) -> Compressed:
    """Compress each layer with its ``options``; those that have none stay in eight bits."""
    network, values = source.network, {source.network.input: source.x}
    layers, bits, masks = [], {}, {}
    changed = False
    for layer in network.layers:
        if layer.name in source.weights:
            x = real(network.tensors[layer.inputs[0]], values[layer.inputs[0]])
            chosen = options.get(layer.name, Options())
            changed = changed or chosen.prunes or chosen.weights != "int8"
            layer, mask = _compressed(source, layer, x, chosen, fitting, changed)
            masks[layer.name] = mask
            bits[layer.name] = weights.bits(mask, layer.channel_axis, chosen, fitting.lanes)
        values[layer.output] = layer.run(network, *(values[name] for name in layer.inputs))
        layers.append(layer)
    network = dataclasses.replace(network, layers=tuple(layers))
    return Compressed(network, bits, masks, values[network.output])


def _compressed(
    source: Source, layer: Any, x: Array, options: Options, fitting: Fitting, retarget: bool
) -> tuple[Weighted, Array]:
    """A layer of the source with the real inputs ``x``, and the mask of its weights. With ``retarget`` weights also make up for
    what the layers before lost; if these are in eight bits that does more harm than good, the calibration being small."""
    name, scale = layer.name, source.network.tensors[layer.inputs[0]].scale
    exact, bias = source.weights[name], source.biases[name]
    mask = np.ones(exact.shape, bool)
    if options.prunes:
        mask = pruning.kept(exact, layer.channel_axis, options.prune, options.block, fitting.lanes)
    rows, masks = rows_of(layer, exact), rows_of(layer, mask)
    seen = moments(layer, x, source.reference[layer.inputs[0]])
    left = np.where(masks, rows, 0.0)
    if fitting.compensate:
        left = pruned(retargeted(rows, seen) if retarget else rows, masks, seen.seconds)
    wanted = (rows @ seen.wanted[:, :, np.newaxis]).reshape(-1)
    flat = len(bias), rows.shape[-1]

    def corrected(real: Array) -> Array:
        return bias + wanted - (real @ seen.mean[:, :, np.newaxis]).reshape(-1) if fitting.correct else bias

    largest = np.maximum(np.abs(bias), np.abs(corrected(left)))  # pruned channels have little but their bias
    grid = weights.grid(
        left.reshape(flat), masks.reshape(flat), options, method=fitting.method, per_tensor=isinstance(layer, FullyConnected),
        least=least_scales(largest, scale), scales=source.scales.get(name),
    )  # fmt: skip

    def rounding(values: Array) -> Array:
        return (grid.round(values.reshape(len(bias), -1)) * grid.scales[:, np.newaxis]).reshape(values.shape)

    result = rounded(left, masks, seen.seconds, rounding) if fitting.compensate else np.where(masks, rounding(left), 0.0)
    integers = np.rint(result.reshape(flat) / grid.scales[:, np.newaxis]).astype(np.int8)
    steps = np.rint(corrected(result) / (scale * grid.scales))
    if np.abs(steps).max() >= 1 << 27:
        raise NetworkError(f"layer {name!r}: a bias must fit 28 bits, not {steps[np.argmax(np.abs(steps))]:.0f}")
    return dataclasses.replace(
        layer, weights=weights_of(layer, integers), bias=steps.astype(np.int32), weight_scales=grid.scales
    ), mask


def agreement(output: Array, reference: Array) -> float:
    """The share of inputs for which two networks' outputs are largest at the same place."""
    return float((output.reshape(len(output), -1).argmax(1) == reference.reshape(len(output), -1).argmax(1)).mean())


def search(
    source: Source,
    options: Mapping[str, Options],
    budget: float,
    fitting: Fitting = Fitting(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Options]:
    """The options with which layers in int8 become int4, one after the other, while the agreement with the source on its
    calibration inputs is at least ``budget``. Those come first that alone cost least: squared error of the output per weight.

    ``progress`` is told how many compressions are done, and of how many.
    """
    tensor, reference = source.network.tensors[source.network.output], source.reference[source.network.output]
    best = {name: options.get(name, Options()) for name in source.weights}
    free = [name for name, chosen in best.items() if chosen.weights == "int8"]

    def tried(name: str) -> tuple[dict[str, Options], Array]:
        changed = best | {name: dataclasses.replace(best[name], weights="int4")}
        return changed, compress(source, changed, fitting).output

    costs = {}
    for done, name in enumerate(free, 1):
        error = real(tensor, tried(name)[1]) - reference
        costs[name] = float((error**2).sum()) / source.weights[name].size
        progress(done, 2 * len(free))
    for done, name in enumerate(sorted(free, key=lambda name: costs[name]), len(free) + 1):
        changed, output = tried(name)
        if agreement(output, reference) >= budget:
            best = changed
        progress(done, 2 * len(free))
    return best
