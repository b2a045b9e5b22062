"""The network-level golden against the TFLite reference kernels; the checks of a network; its file."""

import dataclasses
import io
import json
import re
import zipfile

import numpy as np
import pytest

from gossamer.golden import arithmetic
from gossamer.golden.network import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Depthwise,
    Dequantize,
    FullyConnected,
    Logistic,
    MaxPool,
    Mean,
    Network,
    NetworkError,
    Pad,
    Quantize,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
    requantization,
)
from tests.golden import tflite

COMPARED = {"kws_dscnn": 20, "ic_resnet8": 10, "vww_96": 8, "ad01": 20}
"""Samples whose every intermediate tensor is compared."""


@pytest.mark.parametrize("model", tflite.MODELS)
def test_every_tensor_equals_the_reference_kernels(model):
    network = tflite.network_of(model)
    x = tflite.samples(model)["x"][: COMPARED[model]].reshape(-1, *network.tensors[network.input].shape)
    got = network.run(x)
    for index, sample in enumerate(x):
        for name, expected in tflite.tensors_of(model, sample).items():
            np.testing.assert_array_equal(got[name][index], expected[0], f"sample {index}, tensor {name}")


@pytest.mark.parametrize("model", tflite.MODELS)
def test_every_output_equals_the_stored_one(model):
    network = tflite.network_of(model)
    samples = tflite.samples(model)
    x = samples["x"].reshape(-1, *network.tensors[network.input].shape)
    np.testing.assert_array_equal(network.run(x)[network.output], samples["output"].reshape(len(x), -1))


MACS = {"kws_dscnn": 2_656_768, "ic_resnet8": 12_501_632, "vww_96": 7_489_664, "ad01": 264_192}
"""As published with the networks."""


@pytest.mark.parametrize("model", tflite.MODELS)
def test_multiply_accumulates_are_the_published_ones(model):
    assert tflite.network_of(model).macs == MACS[model]


def weights(rng, *shape):
    return rng.integers(-127, 128, shape, dtype=np.int8)


def weighted(rng, o, *shape):
    constants = {"weights": weights(rng, *shape), "bias": rng.integers(-999, 1000, o, dtype=np.int32)}
    return constants | {"weight_scales": rng.uniform(0.001, 0.01, o)}


@pytest.fixture
def network(rng):
    """One layer of each kind."""
    tensors = [
        Tensor("x", (4, 4, 2), 0.5, 131, "uint8"),
        Tensor("quantized", (4, 4, 2), 0.5, -3),
        Tensor("conv", (4, 4, 3), 0.25, -128),
        Tensor("depthwise", (4, 4, 3), 0.125, 7),
        Tensor("add", (4, 4, 3), 0.5, 0),
        Tensor("rescaled", (4, 4, 3), 0.125, 7),
        Tensor("concat", (4, 4, 6), 0.125, 7),
        Tensor("padded", (5, 4, 7), 0.125, 7),
        Tensor("mean", (7,), 0.25, 0),
        Tensor("logistic", (7,), 1 / 256, -128),
        Tensor("long", (12,), 1 / 256, -128),
        Tensor("y", (12,), 1.0, 0, "float32"),
        Tensor("max", (2, 2, 3), 0.5, 0),
        Tensor("average", (1, 1, 3), 0.5, 0),
        Tensor("flat", (3,), 0.5, 0),
        Tensor("dense", (5,), 0.1, 1),
        Tensor("softmax", (5,), 1 / 256, -128),
    ]
    same = (1, 1, 1, 1)
    layers = (
        Quantize("0", ("x",), "quantized"),
        Conv("1", ("quantized",), "conv", **weighted(rng, 3, 3, 3, 3, 2), padding=same, clamp=(-128, 100)),
        Depthwise("2", ("conv",), "depthwise", **weighted(rng, 3, 3, 3, 3), padding=same, rounding="single"),
        Add("3", ("conv", "depthwise"), "add", (0, 127)),
        MaxPool("4", ("add",), "max", (2, 2), (2, 2)),
        AveragePool("5", ("max",), "average", (2, 2), (1, 1)),
        Reshape("6", ("average",), "flat"),
        FullyConnected("7", ("flat",), "dense", **weighted(rng, 5, 5, 3)),
        Softmax("8", ("dense",), "softmax"),
        Rescale("9", ("add",), "rescaled", (7, 127), "float32"),
        Concat("10", ("rescaled", "depthwise"), "concat"),
        Pad("11", ("concat",), "padded", (1, 0, 0, 0), (0, 1)),
        Mean("12", ("padded",), "mean"),
        Logistic("13", ("mean",), "logistic"),
        Concat("14", ("logistic", "softmax"), "long"),
        Dequantize("15", ("long",), "y"),
    )
    return Network("all kinds", {t.name: t for t in tensors}, layers, "x", "y")


def test_multiply_accumulates_are_one_per_weight_and_output_pixel(network):
    found = {type(layer).__name__: layer.macs(network) for layer in network.layers if layer.macs(network)}
    assert found == {"Conv": 4 * 4 * 3 * (3 * 3 * 2), "Depthwise": 4 * 4 * 3 * (3 * 3), "FullyConnected": 5 * 3}
    assert network.macs == 864 + 432 + 15


def test_run_returns_every_tensor(network, rng):
    x = rng.integers(0, 256, (3, 4, 4, 2), dtype=np.uint8)
    values = network.run(x)
    assert {name: (v.dtype, v.shape) for name, v in values.items()} == {
        name: (np.dtype(tensor.dtype), (3, *tensor.shape)) for name, tensor in network.tensors.items()
    }
    for index in range(3):  # the samples of a batch do not meet
        for name, alone in network.run(x[index : index + 1]).items():
            np.testing.assert_array_equal(values[name][index], alone[0])


def test_requantization_is_the_quotient_of_the_scales(network):
    multipliers, shifts = requantization(network, network.layers[1])
    real = 0.5 * network.layers[1].weight_scales / 0.25
    assert [*zip(multipliers, shifts)] == [arithmetic.quantize_multiplier(value) for value in real]
    assert multipliers.dtype == shifts.dtype == np.int64


def test_scales_are_multiplied_in_double():
    # These float32 scales put some accumulators on a tie. BUILTIN_REF of ai-edge-litert 2.3.0 gave -94, -67 and 13 for
    # them (the last layer of the AD model, its scales replaced); a product rounded to float32 gives -95, -68 and 14.
    input_scale, weight_scale = float.fromhex("0x1.962c88p-6"), float.fromhex("0x1.40788cp-4")
    output_scale = float.fromhex("0x1.7e60d8p-2")
    tensors = {"x": Tensor("x", (1,), input_scale, 0), "y": Tensor("y", (3,), output_scale, 0)}
    bias = np.array([-18193, -12995, 2599], np.int32)
    layer = FullyConnected("fc", ("x",), "y", np.zeros((3, 1), np.int8), bias, np.full(3, weight_scale))
    network = Network("fc", tensors, (layer,), "x", "y")
    assert network.run(np.zeros((1, 1), np.int8))["y"].tolist() == [[-94, -67, 13]]


@pytest.mark.parametrize("division, expected", [("float64", -86), ("float32", -85)])
def test_rescale_divides_as_its_operator(division, expected):
    # BUILTIN_REF of ai-edge-litert 2.3.0 gave -86 for QUANTIZE and -85 for RELU
    scales = float.fromhex("0x1.e471dap+1"), float.fromhex("0x1.0bde94p+2")
    tensors = {name: Tensor(name, (4,), scale, -128) for name, scale in zip("xy", scales)}
    network = Network("rescale", tensors, (Rescale("l", ("x",), "y", (-128, 127), division),), "x", "y")
    assert network.run(np.array([[-128, -28, -81, 127]], np.int8))["y"].tolist() == [[-128, -38, expected, 103]]


def test_mean_divides_in_double():
    # as above: BUILTIN_REF gave what QUANTIZE gives
    scales = float.fromhex("0x1.e471dap+1"), float.fromhex("0x1.0bde94p+2")
    tensors = {"x": Tensor("x", (1, 1, 4), scales[0], -128), "y": Tensor("y", (4,), scales[1], -128)}
    network = Network("mean", tensors, (Mean("l", ("x",), "y"),), "x", "y")
    assert network.run(np.array([[[[-128, -28, -81, 127]]]], np.int8))["y"].tolist() == [[-128, -38, -86, 103]]


def test_a_tensor_read_twice_may_be_concatenated_with_itself():
    tensors = {"x": Tensor("x", (1, 1, 2), 0.5, 3), "y": Tensor("y", (1, 1, 6), 0.5, 3)}
    network = Network("concat", tensors, (Concat("l", ("x", "x", "x"), "y"),), "x", "y")
    assert network.run(np.array([[[[1, 2]]]], np.int8))["y"].tolist() == [[[[1, 2, 1, 2, 1, 2]]]]


def test_uint8_and_float32_borders():
    tensors = [
        Tensor("x", (2,), 1.0, 0, "float32"), Tensor("a", (2,), 0.5, 3), Tensor("y", (2,), 0.25, 131, "uint8"),
    ]  # fmt: skip
    layers = (Quantize("q", ("x",), "a"), Dequantize("d", ("a",), "y"))
    values = Network("n", {t.name: t for t in tensors}, layers, "x", "y").run(np.array([[1.25, -np.inf]], np.float32))
    assert values["a"].tolist() == [[6, -128]]
    assert values["y"].dtype == np.uint8
    assert values["y"].tolist() == [[137, 0]]


def test_run_refuses_nan():
    tensors = {"x": Tensor("x", (1,), 1.0, 0, "float32"), "a": Tensor("a", (1,), 0.5, 3)}
    network = Network("n", tensors, (Quantize("q", ("x",), "a"),), "x", "a")
    with pytest.raises(NetworkError, match=r"^the input must be numbers, and it has NaN$"):
        network.run(np.array([[np.nan]], np.float32))


def test_run_names_the_layer_that_overflows():
    constants = np.full((1, 1), 127, np.int8), np.full(1, (1 << 31) - 1, np.int32), np.ones(1)
    tensors = {name: Tensor(name, (1,), 1.0, 0) for name in "xy"}
    network = Network("n", tensors, (FullyConnected("fc", ("x",), "y", *constants),), "x", "y")
    message = r"^layer 'fc': an accumulator must fit a signed 32-bit number, not 2147483774$"
    with pytest.raises(NetworkError, match=message):
        network.run(np.ones((1, 1), np.int8))


def test_weights_are_frozen_copies(network):
    with pytest.raises(dataclasses.FrozenInstanceError):
        network.layers[1].stride = (2, 2)
    with pytest.raises(ValueError, match="read-only"):
        network.layers[1].weights[0] = 0
    mine = np.ones((1, 1), np.int8)
    layer = FullyConnected("fc", ("x",), "y", mine, np.zeros(1, np.int32), np.ones(1))
    mine[0] = 5
    assert layer.weights[0, 0] == 1


@pytest.mark.parametrize(
    "x, found",
    [
        (np.zeros((1, 4, 4, 2), np.int8), "int8 of shape (1, 4, 4, 2)"),
        (np.zeros((4, 4, 2), np.uint8), "uint8 of shape (4, 4, 2)"),
        (np.zeros((0, 4, 4, 2), np.uint8), "uint8 of shape (0, 4, 4, 2)"),
        (np.int8(3), "int8"),
        ([1, 2], "list"),
    ],
)
def test_run_refuses_other_inputs(network, x, found):
    message = re.escape(f"the input must be uint8 of shape (N, 4, 4, 2), not {found}")
    with pytest.raises(NetworkError, match=f"^{message}$"):
        network.run(x)


CONV = {"weights": np.ones((2, 1, 1, 3), np.int8), "bias": np.zeros(2, np.int32), "weight_scales": np.ones(2)}


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Tensor("", (1,), 1.0, 0), "a tensor's name must be a non-empty text, not ''"),
        (lambda: Tensor("t", (1, 2), 1.0, 0), "tensor 't': shape must be (H, W, C) or (N,), not (1, 2)"),
        (lambda: Tensor("t", (0,), 1.0, 0), "tensor 't': shape must be 1 integer in 1..16777216, not (0,)"),
        (lambda: Tensor("t", (1,), 0.0, 0), "tensor 't': scale must be a finite float above 0, not 0.0"),
        (lambda: Tensor("t", (1,), 1.0, 128), "tensor 't': zero_point must be an integer in -128..127, not 128"),
        (lambda: Tensor("t", (1,), 1.0, -1, "uint8"), "tensor 't': zero_point must be an integer in 0..255, not -1"),
        (
            lambda: Tensor("t", (1,), 1.0, 0, "int16"),
            "tensor 't': dtype must be one of int8, int4, binary, uint8, float32, not 'int16'",
        ),
        (lambda: Tensor("t", (1,), 0.5, 0, "float32"), "tensor 't': a float32 tensor must have scale 1.0, not 0.5"),
        (lambda: Tensor("t", (1,), 1.0, 1, "float32"), "tensor 't': zero_point must be an integer in 0..0, not 1"),
        (lambda: Concat("c", (), "y"), "layer 'c': a Concat layer must have at least 1 input, not ()"),
        (lambda: Rescale("r", ("x",), "y", (5, 4)), "layer 'r': clamp must be (minimum, maximum), not (5, 4)"),
        (
            lambda: Rescale("r", ("x",), "y", division="float16"),
            "layer 'r': division must be 'float64' or 'float32', not 'float16'",
        ),
        (lambda: Pad("p", ("x",), "y", (1, 1)), "layer 'p': padding must be 4 integers in 0..65536, not (1, 1)"),
        (
            lambda: Pad("p", ("x",), "y", (0, 0, 0, 0), (-1, 0)),
            "layer 'p': channels must be 2 integers in 0..65536, not (-1, 0)",
        ),
        (lambda: Add("a", ("x",), "y"), "layer 'a': an Add layer must have 2 inputs, not ('x',)"),
        (lambda: Add("a", ("x", "x"), "y", (5, 4)), "layer 'a': clamp must be (minimum, maximum), not (5, 4)"),
        (
            lambda: Add("a", ("x", "x"), "y", (0, 128)),
            "layer 'a': clamp must be 2 integers in -128..127, not (0, 128)",
        ),
        (
            lambda: Conv("c", ("x",), "y", **CONV | {"weights": np.ones((2, 3))}),
            "layer 'c': weights must be int8 of 4 dimensions, not float64 of shape (2, 3)",
        ),
        (
            lambda: Conv("c", ("x",), "y", **CONV | {"bias": np.zeros(3, np.int32)}),
            "layer 'c': bias must have 2 values, not 3",
        ),
        (
            lambda: Conv("c", ("x",), "y", **CONV | {"weight_scales": np.array([1.0, -1.0])}),
            "layer 'c': weight_scales must be finite floats of at least 0, not [1.0, -1.0]",
        ),
        (
            lambda: Conv("c", ("x",), "y", **CONV, rounding="up"),
            "layer 'c': rounding must be 'double' or 'single', not 'up'",
        ),
        (
            lambda: Conv("c", ("x",), "y", **CONV, stride=(1, 0)),
            "layer 'c': stride must be 2 integers in 1..65536, not (1, 0)",
        ),
        (
            lambda: MaxPool("p", ("x",), "y", (2, 2), (1, 1), (2, 0, 0, 0)),
            "layer 'p': padding must be smaller than the kernel (2, 2), not (2, 0, 0, 0)",
        ),
        (lambda: Softmax("s", ("x",), "y", 0), "layer 's': beta must be a finite number above 0, not 0"),
    ],
)
def test_tensors_and_layers_refuse(build, message):
    with pytest.raises(NetworkError, match=f"^{re.escape(message)}$"):
        build()


MAP, VECTOR = Tensor("x", (4, 4, 3), 0.5, 0), Tensor("x", (6,), 0.5, 0)
VECTOR_Y, SMALL, SMALL_Y = Tensor("y", (6,), 0.5, 0), Tensor("x", (6,), 0.5, 0, "int4"), Tensor("y", (6,), 0.5, 0, "int4")


@pytest.mark.parametrize(
    "x, y, layer, message",
    [
        (
            MAP, ((4, 4, 2), 1.0, 0), Conv("l", ("z",), "y", **CONV),
            "input 'z' must be the network's input or an earlier output",
        ),
        (MAP, ((4, 4, 2), 1.0, 0), Conv("l", ("x",), "z", **CONV), "output 'z' must be a tensor of the network"),
        (MAP, ((4, 4, 2), 1.0, 0), Conv("l", ("x",), "x", **CONV), "output 'x' must not be written twice"),
        (
            MAP, ((4, 4, 3), 1.0, 0), Conv("l", ("x",), "y", **CONV),
            "output 'y' must have shape (4, 4, 2), not (4, 4, 3)",
        ),
        (VECTOR, ((2,), 1.0, 0), Conv("l", ("x",), "y", **CONV), "input 'x' must have 3 axes, not shape (6,)"),
        (
            Tensor("x", (4, 4, 2), 0.5, 0), ((4, 4, 2), 1.0, 0), Conv("l", ("x",), "y", **CONV),
            "the input must have 3 channels, not 2",
        ),
        (
            MAP, ((4, 4, 4), 1.0, 0),
            Depthwise("l", ("x",), "y", np.ones((1, 1, 4), np.int8), np.zeros(4, np.int32), np.ones(4)),
            "4 channels must be a multiple of the input's 3",
        ),
        (
            VECTOR, ((2,), 1.0, 0),
            FullyConnected("l", ("x",), "y", np.ones((2, 7), np.int8), np.zeros(2, np.int32), np.ones(2)),
            "the input must have 7 values, not 6",
        ),
        (
            MAP, ((1, 1, 3), 0.5, 0), MaxPool("l", ("x",), "y", (5, 5), (1, 1)),
            "a kernel of (5, 5) must fit the padded input, not (4, 4) + (0, 0, 0, 0)",
        ),
        (
            MAP, ((2, 2, 3), 0.25, 0), MaxPool("l", ("x",), "y", (2, 2), (2, 2)),
            "input and output must have one scale and zero point, not (0.5, 0) and (0.25, 0)",
        ),
        (
            MAP, ((47,), 0.5, 0), Reshape("l", ("x",), "y"),
            "a reshape must keep the number of values, not (4, 4, 3) to (47,)",
        ),
        (
            VECTOR, ((6,), 0.5, 0), Softmax("l", ("x",), "y"),
            "a softmax output must have scale 1/256 and zero point -128, not (0.5, 0)",
        ),
        (
            VECTOR, ((6,), 1 / 256, 0), Logistic("l", ("x",), "y"),
            "a logistic output must have scale 1/256 and zero point -128, not (0.00390625, 0)",
        ),
        (VECTOR, ((6,), 1.0, 0), Mean("l", ("x",), "y"), "input 'x' must have 3 axes, not shape (6,)"),
        (
            MAP, ((1, 3, 1), 1.0, 0), Mean("l", ("x",), "y"),
            "output 'y' must have shape (3,) or (1, 1, 3), not (1, 3, 1)",
        ),
        (
            MAP, ((4, 5, 3), 0.5, 1), Pad("l", ("x",), "y", (0, 0, 0, 1)),
            "input and output must have one scale and zero point, not (0.5, 0) and (0.5, 1)",
        ),
        (
            MAP, ((4, 4, 3), 0.5, 0), Pad("l", ("x",), "y", (0, 0, 0, 0), (0, 1)),
            "output 'y' must have shape (4, 4, 4), not (4, 4, 3)",
        ),
        (
            VECTOR, ((12,), 0.25, 0), Concat("l", ("x", "x"), "y"),
            "input and output must have one scale and zero point, not (0.5, 0) and (0.25, 0)",
        ),
        (
            VECTOR, ((6,), 0.5, 0, "int4"), Reshape("l", ("x",), "y"),
            "input and output must have one type, not int8 and int4",
        ),
        (VECTOR, ((8,), 0.5, 0, "binary"), Rescale("l", ("x",), "y"), "output 'y' must be int8 or int4, not binary"),
        (VECTOR, ((6,), 1 / 256, 0, "int4"), Softmax("l", ("x",), "y"), "output 'y' must be int8, not int4"),
        (MAP, ((3,), 0.5, 0, "int4"), Mean("l", ("x",), "y"), "output 'y' must be int8, not int4"),
        (
            VECTOR, ((6,), 0.5, 0, "int4"), Rescale("l", ("x",), "y"),
            "the clamp of an int4 output must lie in -8..7, not (-128, 127)",
        ),
        (
            VECTOR, ((6,), 0.5, 0, "int4"), Rescale("l", ("x",), "y", (-9, 7)),
            "the clamp of an int4 output must lie in -8..7, not (-9, 7)",
        ),
        (
            VECTOR, ((6,), 0.5, 0, "int4"), Rescale("l", ("x",), "y", (-8, 8)),
            "the clamp of an int4 output must lie in -8..7, not (-8, 8)",
        ),
        (
            VECTOR, ((8,), 0.5, 0, "binary"),
            FullyConnected("l", ("x",), "y", np.ones((8, 6), np.int8), np.zeros(8, np.int32), np.ones(8), (0, 127)),
            "the clamp of a binary output must hold -1 and 1, not (0, 127)",
        ),
        (VECTOR, ((6,), 0.5, 0), Quantize("l", ("x",), "y"), "input 'x' must be float32 or uint8, not int8"),
        (VECTOR, ((6,), 0.5, 0), Dequantize("l", ("x",), "y"), "output 'y' must be float32 or uint8, not int8"),
        (VECTOR, ((6,), 1.0, 0, "float32"), Rescale("l", ("x",), "y"), "output 'y' must be int8 or int4, not float32"),
        (
            Tensor("x", (6,), 0.5, 0, "uint8"), ((6,), 0.5, 0, "uint8"), Reshape("l", ("x",), "y"),
            "input 'x' must be int8, int4 or binary, not uint8",
        ),
    ],
)  # fmt: skip
def test_networks_refuse_layers(x, y, layer, message):
    message = re.escape(f"layer 'l': {message}")
    with pytest.raises(NetworkError, match=f"^{message}$"):
        Network("n", {"x": x, "y": Tensor("y", *y)}, (layer,), "x", "y")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"input": "z"}, "the network's input must be one of its tensors, not 'z'"),
        ({"output": "z"}, "the network's output must be one of its tensors, not 'z'"),
        ({"layers": ()}, "every tensor must be written by a layer, and y is not"),
        (
            {"input_shape": (2, 4)},
            "the network: input_shape must have as many values as 'x' of (6,), not shape (2, 4)",
        ),
        ({"output_shape": (6, 0)}, "the network: output_shape must be 2 integers in 1..16777216, not (6, 0)"),
        ({"output_shape": 6}, "the network: output_shape must be 1 integer in 1..16777216, not 6"),
        ({"tensors": {"z": VECTOR}}, "a tensor's key must be its name 'x', not 'z'"),
        (
            {"tensors": {"x": SMALL, "y": VECTOR_Y}, "layers": (Rescale("l", ("x",), "y"),)},
            "the network's input 'x' must be int8, uint8 or float32, not int4",
        ),
        (
            {"tensors": {"x": VECTOR, "y": SMALL_Y}, "layers": (Rescale("l", ("x",), "y", (-8, 7)),)},
            "the network's output 'y' must be int8, uint8 or float32, not int4",
        ),
    ],
)
def test_networks_refuse(change, message):
    good = Network("n", {"x": VECTOR, "y": Tensor("y", (6,), 0.5, 0)}, (Reshape("l", ("x",), "y"),), "x", "y")
    with pytest.raises(NetworkError, match=f"^{re.escape(message)}$"):
        dataclasses.replace(good, **change)


def test_concat_refuses_other_shapes():
    tensors = [Tensor("x", (4, 4, 3), 0.5, 0), Tensor("a", (2, 2, 3), 0.5, 0), Tensor("y", (4, 4, 6), 0.5, 0)]
    layers = (MaxPool("p", ("x",), "a", (2, 2), (2, 2)), Concat("l", ("x", "a"), "y"))
    given = "(4, 4, 3) and (2, 2, 3)"
    message = re.escape(f"layer 'l': the inputs must differ in the last axis alone, not have shapes {given}")
    with pytest.raises(NetworkError, match=f"^{message}$"):
        Network("n", {t.name: t for t in tensors}, layers, "x", "y")


def test_only_borders_are_not_int8():
    tensors = {"x": VECTOR, "f": Tensor("f", (6,), 1.0, 0, "float32"), "y": Tensor("y", (6,), 0.5, 0)}
    layers = (Dequantize("d", ("x",), "f"), Quantize("q", ("f",), "y"))
    message = r"^layer 'd': output 'f' must be int8, int4 or binary, or the network's output, not float32$"
    with pytest.raises(NetworkError, match=message):
        Network("n", tensors, layers, "x", "y")


def test_what_is_not_int8_is_read_at_the_input_alone():
    tensors = {"x": VECTOR, "y": Tensor("y", (6,), 1.0, 0, "float32"), "z": Tensor("z", (6,), 0.5, 0)}
    layers = (Dequantize("d", ("x",), "y"), Quantize("q", ("y",), "z"))
    message = r"^layer 'q': input 'y' of float32 must be the network's, not another layer's$"
    with pytest.raises(NetworkError, match=message):
        Network("n", tensors, layers, "x", "y")


def test_layer_names_are_unique():
    tensors = {name: Tensor(name, (6,), 0.5, 0) for name in "xyz"}
    with pytest.raises(NetworkError, match=r"^a layer's name must be its own, and 'l' is used twice$"):
        Network("n", tensors, (Reshape("l", ("x",), "y"), Reshape("l", ("y",), "z")), "x", "z")


def test_file_round_trip(network, rng, tmp_path):
    network.save(tmp_path / "a.gsm")
    read = Network.load(tmp_path / "a.gsm")
    assert (read.name, read.tensors, read.input, read.output) == ("all kinds", network.tensors, "x", "y")
    for ours, theirs in zip(network.layers, read.layers, strict=True):
        assert type(ours) is type(theirs)
        for field in dataclasses.fields(ours):
            np.testing.assert_array_equal(getattr(theirs, field.name), getattr(ours, field.name))
    x = rng.integers(0, 256, (2, 4, 4, 2), dtype=np.uint8)
    np.testing.assert_array_equal(read.run(x)["y"], network.run(x)["y"])
    read.save(tmp_path / "b.gsm")
    assert (tmp_path / "a.gsm").read_bytes() == (tmp_path / "b.gsm").read_bytes()


def rewritten(path, change):
    """Rewrite the file at ``path`` with ``change`` applied to its members, a dict of bytes."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def header(**changes):
    def change(members):
        members["network.json"] = json.dumps(json.loads(members["network.json"]) | changes).encode()

    return change


def pickled(members):
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    members["1.bias.npy"] = buffer.getvalue()


NOT_OURS = "a network file must be as Network.save writes it, but "


@pytest.mark.parametrize(
    "change, message",
    [
        (header(version=2), "a network file must be ('gossamer network', 1), not ('gossamer network', 2)"),
        (header(tensors=3), NOT_OURS),
        (header(layers=[{"kind": "Tanh"}]), NOT_OURS + "'Tanh'"),
        (header(layers=[{"kind": "Softmax"}]), NOT_OURS),
        (lambda members: members.pop("1.bias.npy"), NOT_OURS),
        (lambda members: members.update({"network.json": b"{"}), NOT_OURS),
        (pickled, NOT_OURS + "Object arrays cannot be loaded"),
    ],
)
def test_load_refuses_other_content(network, tmp_path, change, message):
    path = tmp_path / "n.gsm"
    network.save(path)
    rewritten(path, change)
    with pytest.raises(NetworkError, match=f"^{re.escape(f'{path}: {message}')}"):
        Network.load(path)


def test_load_survives_damage(network, rng, tmp_path):
    path = tmp_path / "n.gsm"
    network.save(path)
    good = path.read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(good)
        damaged[rng.integers(len(good))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged if rng.random() < 0.7 else damaged[: rng.integers(len(good))])
        try:
            Network.load(path)  # a time stamp, for example, matters to nobody
        except NetworkError:
            refused += 1
    assert refused > 200
