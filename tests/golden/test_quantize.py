"""Quantization: its rules one by one, and that an int8 network is close to the float one it came from."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden import floating, network, quantize, ranges


@pytest.mark.parametrize(
    "low, high, scale, zero_point",
    [
        (0.0, 255.0, 1.0, -128),
        (-255.0, 0.0, 1.0, 127),
        (-127.0, 128.0, 1.0, -1),
        (10.0, 51.0, 0.2, -128),  # widened down to 0
        (-51.0, -10.0, 0.2, 127),
        (-0.3, 254.7, 1.0, -128),  # 0 is nudged onto a step
        (0.0, 0.0, 1.0, -128),
    ],
)
def test_activation_quantization(low, high, scale, zero_point):
    got = ranges.activation_quantization(low, high)
    assert got == (float(np.float32(scale)), zero_point)


def test_activation_quantization_refuses():
    with pytest.raises(ValueError, match=r"^the range of an activation must be finite, not 0\.0\.\.inf$"):
        ranges.activation_quantization(0.0, float("inf"))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_weights_are_symmetric_per_channel(rng, axis):
    weights = rng.normal(size=(4, 5, 6))
    quantized, scales = quantize.quantize_weights(weights, axis)
    moved, real = np.moveaxis(quantized, axis, 0), np.moveaxis(weights, axis, 0)
    assert quantized.dtype == np.int8
    assert np.abs(moved).reshape(len(moved), -1).max(axis=1).tolist() == [127] * len(moved)
    assert np.all(scales == np.float32(scales))
    assert np.max(np.abs(moved - real / scales[:, None, None])) <= 0.5001


def test_a_channel_of_zeros_gets_scale_one():
    quantized, scales = quantize.quantize_weights(np.array([[0.0, 0.0], [127.0, -3.0]]), 0)
    assert (quantized.tolist(), scales.tolist()) == ([[0, 0], [127, -3]], [1.0, 1.0])


def random_network(rng):
    """One float layer of each kind."""

    def weighted(o, *shape):
        return rng.normal(size=shape) / np.sqrt(np.prod(shape) / o), rng.normal(size=o) / 10

    return [
        floating.Conv("conv", ("input",), *weighted(6, 6, 3, 3, 2), stride=(1, 2), activation="relu"),
        floating.Conv("linear", ("conv",), *weighted(6, 6, 1, 1, 6)),
        floating.Add("add", ("conv", "linear"), activation="relu"),
        floating.MaxPool("max", ("add",), (2, 2), (2, 2)),
        floating.Depthwise("depthwise", ("max",), *weighted(12, 3, 3, 12)),
        floating.AveragePool("average", ("depthwise",), (2, 2), (2, 2)),
        floating.Reshape("flat", ("average",)),
        floating.FullyConnected("dense", ("flat",), *weighted(5, 5, 48)),
        floating.Softmax("softmax", ("dense",)),
    ]


def test_int8_is_close_to_float_at_every_tensor(rng):
    layers = random_network(rng)
    x = rng.uniform(-1, 2, (50, 8, 16, 2))
    exact = floating.run(layers, x)
    result = quantize.quantize("n", layers, x)
    scale, zero_point = result.tensors["input"].quantization
    got = result.run(np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8))
    assert [*got] == [*exact]
    for name, tensor in result.tensors.items():
        error = tensor.scale * (got[name].astype(float) - tensor.zero_point) - exact[name]
        assert np.sqrt(np.mean(error**2)) < 0.02 * np.ptp(exact[name]), name


def test_rules_of_the_int8_network(rng):
    layers = random_network(rng)
    result = quantize.quantize("n", layers, rng.uniform(-1, 2, (20, 8, 16, 2)))
    assert (result.input, result.output) == ("input", "softmax")
    tensors, twins = result.tensors, {layer.name: layer for layer in result.layers}
    assert all(np.float32(tensor.scale) == tensor.scale for tensor in tensors.values())
    assert tensors["conv"].zero_point == tensors["add"].zero_point == -128
    assert tensors["softmax"].quantization == (1 / 256, -128)
    assert tensors["max"].quantization == tensors["add"].quantization
    conv, dense = twins["conv"], twins["dense"]
    assert (conv.padding, conv.stride, conv.rounding) == ((1, 1, 0, 1), (1, 2), "double")
    assert (dense.rounding, dense.weights.min() >= -127) == ("single", True)
    real = layers[0].bias / (tensors["input"].scale * conv.weight_scales)
    np.testing.assert_array_equal(conv.bias, np.rint(real))
    assert isinstance(twins["depthwise"], network.Depthwise)


def test_given_quantizations_are_taken(rng):
    layers = random_network(rng)
    x = rng.uniform(-1, 2, (20, 8, 16, 2))
    given = {"input": (0.25, 3), "conv": (0.125, -128), "add": (0.5, 7)}
    measured, result = quantize.quantize("n", layers, x), quantize.quantize("n", layers, x, given)
    for name, tensor in result.tensors.items():
        # pooling keeps the quantization of its input, also a given one
        expected = given.get("add" if name == "max" else name, measured.tensors[name].quantization)
        assert tensor.quantization == expected, name
    conv, add = result.layers[0], result.layers[2]
    # the bias is in units of the given input scale, and a ReLU begins at the given zero point
    np.testing.assert_array_equal(conv.bias, np.rint(layers[0].bias / (0.25 * conv.weight_scales)))
    assert (conv.clamp, add.clamp) == ((-128, 127), (7, 127))


def test_scales_leave_room_for_the_bias():
    layers = [floating.FullyConnected("fc", ("input",), np.array([[1e-9], [1.0]]), np.array([1.0, 2.0]))]
    result = quantize.quantize("n", layers, np.ones((1, 1)))
    fc, x = result.layers[0], result.tensors["input"]
    assert fc.bias[0] == pytest.approx(1 << 26, rel=1e-6)
    assert fc.weights.tolist() == [[0], [127]]
    np.testing.assert_allclose(fc.bias * x.scale * fc.weight_scales, [1, 2], rtol=1e-4)


def chain():
    """Conv with ReLU, a max pool, a sum of the pool and itself, a mean and a fully connected layer before a softmax."""
    shapes = {"x": (4, 4, 1), "a": (4, 4, 8), "b": (2, 2, 8), "c": (2, 2, 8), "m": (8,), "d": (3,)}
    zero_points = {"x": 0, "a": -128, "b": -128, "c": 0, "m": 0, "d": 0}
    tensors = {name: network.Tensor(name, shape, 0.1, zero_points[name]) for name, shape in shapes.items()}
    tensors["y"] = network.Tensor("y", (3,), 1 / 256, -128)

    def numbers(*shape):
        return np.ones(shape, np.int8), np.zeros(shape[0], np.int32), np.ones(shape[0])

    layers = (
        network.Conv("0", ("x",), "a", *numbers(8, 1, 1, 1), clamp=(-128, 100)),
        network.MaxPool("1", ("a",), "b", (2, 2), (2, 2)),
        network.Add("2", ("b", "b"), "c", (-28, 127)),
        network.Mean("3", ("c",), "m"),
        network.FullyConnected("4", ("m",), "d", *numbers(3, 8)),
        network.Softmax("5", ("d",), "y"),
    )
    return network.Network("n", tensors, layers, "x", "y")


def test_narrowed_tensors_have_four_bits_where_layers_can_write_them():
    whole = chain()
    values = {name: np.zeros(tensor.shape) for name, tensor in whole.tensors.items()}
    values["a"], values["b"] = np.linspace(0, 30, 128).reshape(4, 4, 8), np.linspace(15, 30, 32).reshape(2, 2, 8)
    values["c"] = np.linspace(-2, 10, 32).reshape(2, 2, 8)
    found = quantize.narrowed(whole, values)
    assert {name: tensor.dtype for name, tensor in found.tensors.items()} == {
        "x": "int8", "a": "int4", "b": "int4", "c": "int4", "m": "int8", "d": "int8", "y": "int8",
    }  # fmt: skip
    assert found.tensors["a"].quantization == found.tensors["b"].quantization == (pytest.approx(2.0, rel=0.1), -8)
    assert (found.layers[0].clamp, found.layers[1].clamp) == ((-8, 4), (-8, 7))  # 22.8 is 12 steps, 0 is none
    assert quantize.narrowed(whole, values, ["b", "c"]).tensors == whole.tensors


def test_a_clamp_of_a_narrowed_tensor_stays_at_its_real_value():
    whole = chain()
    values = {name: np.linspace(-5, 10, 32).reshape(2, 2, 8) for name in whole.tensors}
    cut = dataclasses.replace(
        whole, tensors={name: whole.tensors[name] for name in "xabc"}, layers=(*whole.layers[:2], whole.layers[2]), output="c"
    )
    cut = dataclasses.replace(
        cut, tensors=cut.tensors | {"z": network.Tensor("z", (2, 2, 8), 0.1, 0)}, output="z",
        layers=(*cut.layers, network.Rescale("6", ("c",), "z")),
    )  # fmt: skip
    found = quantize.narrowed(cut, values)
    tensor, clamp = found.tensors["c"], found.layers[2].clamp
    assert tensor.scale * (clamp[0] - tensor.zero_point) == pytest.approx(-2.8, abs=0.5)
    assert clamp[1] == 7
