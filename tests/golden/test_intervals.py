"""Interval arithmetic against all inputs there are."""

import dataclasses
import itertools

import numpy as np
import pytest

from gossamer.golden.intervals import Bounds, bounds
from gossamer.golden.network import (
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
    Quantize,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
)
from tests.networks import NETWORKS, inputs

VALUES = np.arange(-128, 128, dtype=np.int8)
PAIRS = np.array([*itertools.product(VALUES, VALUES)], np.int8)
"""Every input of two bytes."""


def weighted(rng, outputs, *shape):
    return {
        "weights": rng.integers(-127, 128, shape, dtype=np.int8),
        "bias": rng.integers(-9000, 9000, outputs, dtype=np.int32),
        "weight_scales": rng.choice([0, 1e-12, 1e-3, 3e-3, 1e-2, 1.0], outputs),
    }


SINGLE = {
    "conv": ((1, 2, 1), (1, 2, 5), lambda r: Conv("l", ("x",), "y", **weighted(r, 5, 5, 3, 3, 1), padding=(1, 1, 1, 1))),
    "conv_clamped": ((1, 1, 2), (1, 1, 5), lambda r: Conv("l", ("x",), "y", **weighted(r, 5, 5, 1, 1, 2), clamp=(-20, 9))),
    "depthwise": ((1, 1, 2), (1, 1, 4), lambda r: Depthwise("l", ("x",), "y", **weighted(r, 4, 1, 1, 4))),
    "depthwise_padded": (
        (2, 1, 1), (1, 1, 3),
        lambda r: Depthwise("l", ("x",), "y", **weighted(r, 3, 3, 2, 3), stride=(2, 2), padding=(0, 1, 1, 0)),
    ),
    "fully_connected": ((2,), (6,), lambda r: FullyConnected("l", ("x",), "y", **weighted(r, 6, 6, 2))),
    "fully_connected_of_map": ((2, 1, 1), (6,), lambda r: FullyConnected("l", ("x",), "y", **weighted(r, 6, 6, 2))),
    "max_pool": ((1, 2, 1), (1, 2, 1), lambda r: MaxPool("l", ("x",), "y", (1, 2), (1, 1), (0, 0, 1, 0), (-90, 100))),
    "average_pool": ((2, 1, 1), (2, 1, 1), lambda r: AveragePool("l", ("x",), "y", (2, 1), (1, 1), (0, 1, 0, 0), (-9, 100))),
    "rescale": ((2,), (2,), lambda r: Rescale("l", ("x",), "y", (-100, 90))),
    "pad": ((1, 1, 2), (2, 1, 5), lambda r: Pad("l", ("x",), "y", (1, 0, 0, 0), (1, 2))),
    "mean": ((2, 1, 1), (1,), lambda r: Mean("l", ("x",), "y")),
    "concat": ((1, 1, 2), (1, 1, 4), lambda r: Concat("l", ("x", "x"), "y")),
    "reshape": ((1, 1, 2), (2,), lambda r: Reshape("l", ("x",), "y")),
}  # fmt: skip


@pytest.mark.parametrize("kind", SINGLE)
def test_ends_of_one_layer_are_reached(kind, rng):
    for seed in range(6):
        shape, output, build = SINGLE[kind]
        x = Tensor("x", shape, 0.05, int(rng.integers(-128, 128)))
        layer = build(rng)
        quantization = x.quantization if layer.keeps_quantization else (0.04, int(rng.integers(-128, 128)))
        y = Tensor("y", output, *quantization)
        if seed % 2 and hasattr(layer, "rounding"):
            layer = dataclasses.replace(layer, rounding="single" if layer.rounding == "double" else "double")
        network = Network("n", {"x": x, "y": y}, (layer,), "x", "y")
        values = network.run(PAIRS.reshape(-1, *shape))["y"]
        found = bounds(network)["y"]
        np.testing.assert_array_equal(found.low, values.min(axis=0))
        np.testing.assert_array_equal(found.high, values.max(axis=0))
        assert found.low.dtype == found.high.dtype == np.int8


def test_ends_of_an_addition_are_reached(rng):
    """Two inputs that do not depend on each other: the two channels, each alone."""
    for _ in range(6):
        tensors = {"x": Tensor("x", (1, 1, 2), 0.05, 3)}
        parts = []
        for index, name in enumerate("ab"):
            weights = np.zeros((1, 1, 1, 2), np.int8)
            weights[..., index] = 100
            tensors[name] = Tensor(name, (1, 1, 1), float(rng.uniform(0.01, 0.1)), int(rng.integers(-128, 128)))
            parts.append(Conv(name, ("x",), name, weights, np.array([40], np.int32), np.array([0.01])))
        tensors["y"] = Tensor("y", (1, 1, 1), 0.1, int(rng.integers(-100, 100)))
        network = Network("n", tensors, (*parts, Add("l", ("a", "b"), "y", (-100, 90))), "x", "y")
        values = network.run(PAIRS.reshape(-1, 1, 1, 2))["y"]
        found = bounds(network)["y"]
        assert (found.low.item(), found.high.item()) == (values.min(), values.max())


@pytest.mark.parametrize("build", NETWORKS)
def test_intervals_hold_every_value(build, rng):
    network = build(rng)
    found = bounds(network)
    shape = network.tensors[network.input].shape
    ends = np.stack([np.full(shape, value, np.int8) for value in (-128, -1, 0, 127)])
    noise = rng.choice(np.array([-128, 127], np.int8), (20, *shape))
    for name, values in network.run(np.concatenate([ends, noise, inputs(rng, network, 20)])).items():
        assert (found[name].low <= values).all(), name
        assert (values <= found[name].high).all(), name


def one_weight(weight, bias, scale, *, clamp=(-128, 127), rounding="double"):
    """Bounds of ``weight * x + bias`` with an output zero point of 0 and input and output scales of 1."""
    tensors = {"x": Tensor("x", (1,), 1.0, 0), "y": Tensor("y", (1,), 1.0, 0)}
    numbers = np.array([[weight]], np.int8), np.array([bias], np.int32), np.array([scale])
    network = Network("n", tensors, (FullyConnected("l", ("x",), "y", *numbers, clamp, rounding),), "x", "y")
    found = bounds(network)["y"]
    return found.low.item(), found.high.item(), bool(found.constant.item())


@pytest.mark.parametrize(
    "numbers, clamp, expected",
    [
        ((0, 1 << 30, 2.0**-25), (-128, 127), (32, 32, True)),
        ((0, -77, 0.0), (-128, 127), (0, 0, True)),
        ((1, 254, 1.0), (-128, 127), (126, 127, False)),  # -128 alone does not saturate
        ((1, 255, 1.0), (-128, 127), (127, 127, True)),
        ((1, -256, 1.0), (-100, 127), (-100, -100, True)),
        ((127, 0, 1.0), (5, 5), (5, 5, True)),
    ],
)
@pytest.mark.parametrize("rounding", ["single", "double"])
def test_known_ends(numbers, clamp, expected, rounding):
    assert one_weight(*numbers, clamp=clamp, rounding=rounding) == expected


@pytest.mark.parametrize(
    "rounding, weight, bias, expected",
    [  # a 256th, and no negative values
        ("single", 1, 1, (0, 1, False)),  # 127 alone reaches 128/256, which rounds up
        ("single", 1, 0, (0, 0, True)),
        ("single", -1, 0, (0, 1, False)),
        ("double", 1, 0, (0, 1, False)),  # 127/256 is first rounded to 64/128
        ("double", 1, -1, (0, 0, True)),
    ],
)
def test_last_step_of_the_rounding_decides(rounding, weight, bias, expected):
    assert one_weight(weight, bias, 2.0**-8, clamp=(0, 127), rounding=rounding) == expected


def test_ends_beyond_32_bits_are_the_clamp():
    assert one_weight(1, (1 << 31) - 1, 1.0) == (-128, 127, False)
    assert one_weight(1, (1 << 31) - 1 - 127, 2.0**-24) == (127, 127, True)
    assert one_weight(1, 1 << 30, 4.0, clamp=(-7, 9)) == (-7, 9, False)  # the left shift is what does not fit
    assert one_weight(1, 1 << 30, 4.0, clamp=(-7, 9), rounding="single") == (9, 9, True)
    size = 70_000  # 70000 * 255 * 127 needs 33 bits
    tensors = {"x": Tensor("x", (size,), 1.0, -128), "y": Tensor("y", (2,), 1.0, 0)}
    numbers = np.full((2, size), 127, np.int8), np.zeros(2, np.int32), np.ones(2)
    found = bounds(Network("n", tensors, (FullyConnected("l", ("x",), "y", *numbers, (-5, 6)),), "x", "y"))["y"]
    assert (found.low.tolist(), found.high.tolist()) == ([-5, -5], [6, 6])


def test_rescaling_beyond_32_bits_may_give_anything():
    tensors = {"x": Tensor("x", (1,), 1.0, 0), "y": Tensor("y", (1,), 2.0**-26, 0)}
    found = bounds(Network("n", tensors, (Rescale("l", ("x",), "y", (5, 6)),), "x", "y"))["y"]
    assert (found.low.item(), found.high.item()) == (-128, 127)


def test_ends_of_four_bits_and_of_one_are_reached(rng):
    binary = {"scale": 1.0, "zero_point": 0, "dtype": "binary"}
    tensors = [
        Tensor("x", (1, 2, 1), 0.05, 3),
        Tensor("a", (1, 2, 8), **binary),
        Tensor("b", (1, 1, 8), **binary),
        Tensor("s", (1, 2, 1), 1.0, 2, "int4"),
        Tensor("y", (1, 2, 5), 1.0, 0),
    ]
    layers = (
        Conv("0", ("x",), "a", **weighted(rng, 8, 8, 1, 1, 1)),
        MaxPool("1", ("a",), "b", (1, 2), (1, 1)),
        Rescale("2", ("x",), "s", (-8, 7)),
        Conv("3", ("s",), "y", **weighted(rng, 5, 5, 3, 3, 1), padding=(1, 1, 1, 1)),
    )
    network = Network("n", {tensor.name: tensor for tensor in tensors}, layers, "x", "y")
    values, found = network.run(PAIRS.reshape(-1, 1, 2, 1)), bounds(network)
    for name in "absy":
        np.testing.assert_array_equal(found[name].low, values[name].min(axis=0), name)
        np.testing.assert_array_equal(found[name].high, values[name].max(axis=0), name)
    assert 0 < found["a"].constant.sum() < 8


def test_outside_its_map_a_binary_tensor_has_one_value():
    """A channel that is always +1, with weights 1..9: 5 less 40."""
    ones = np.ones((3, 3, 8), np.int8) * np.arange(1, 10, dtype=np.int8).reshape(3, 3, 1)
    tensors = [Tensor("x", (1, 1, 1), 1.0, 0), Tensor("a", (1, 1, 8), 1.0, 0, "binary"), Tensor("y", (1, 1, 8), 1.0, 0)]
    layers = (
        Conv("0", ("x",), "a", np.zeros((8, 1, 1, 1), np.int8), np.zeros(8, np.int32), np.ones(8)),
        Depthwise("1", ("a",), "y", ones, np.zeros(8, np.int32), np.ones(8), padding=(1, 1, 1, 1)),
    )
    found = bounds(Network("n", {tensor.name: tensor for tensor in tensors}, layers, "x", "y"))["y"]
    assert found.low.ravel().tolist() == found.high.ravel().tolist() == [-35] * 8


def test_only_int8_tensors_have_intervals():
    tensors = {"x": Tensor("x", (1,), 1.0, 0, "float32"), "y": Tensor("y", (1,), 0.5, 0)}
    assert set(bounds(Network("n", tensors, (Quantize("q", ("x",), "y"),), "x", "y"))) == {"y"}


def test_fixed_channels_may_differ_between_positions():
    """Ones over a padded 3x3 map of the constant 5 with zero point 2: 9, 6 and 4 times 3."""
    tensors = {
        "x": Tensor("x", (3, 3, 1), 1.0, 0),
        "c": Tensor("c", (3, 3, 2), 1.0, 2),
        "y": Tensor("y", (3, 3, 2), 1.0, 0),
    }
    weights = np.array([0, 1], np.int8).reshape(2, 1, 1, 1)
    same = np.ones(2)
    layers = (
        Conv("1", ("x",), "c", weights, np.array([3, 0], np.int32), same),
        Depthwise("2", ("c",), "y", np.ones((3, 3, 2), np.int8), np.zeros(2, np.int32), same, padding=(1, 1, 1, 1)),
    )
    found = bounds(Network("n", tensors, layers, "x", "y"))
    assert found["c"].constant.tolist() == found["c"].fixed.tolist() == [True, False]
    assert (found["y"].constant.tolist(), found["y"].fixed.tolist()) == ([False, False], [True, False])
    assert found["y"].low[..., 0].tolist() == [[12, 18, 12], [18, 27, 18], [12, 18, 12]]


def test_constant_is_one_value_everywhere():
    """Four channels at two positions: 4; 4 and 5; 3 to 4 and 4 to 5; 4 and 4 to 5."""
    found = Bounds(np.int8([[4, 4, 3, 4], [4, 5, 4, 4]]), np.int8([[4, 4, 4, 4], [4, 5, 5, 5]]))
    assert found.fixed.tolist() == [True, True, False, False]
    assert found.constant.tolist() == [True, False, False, False]


def test_unknown_kinds_may_give_anything():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Novel(Conv):
        """A kind that is derived from a known one is not known for that."""

    tensors = {"x": Tensor("x", (1, 1, 1), 1.0, 0), "y": Tensor("y", (1, 1, 2), 1.0, 0)}
    tensors["z"] = Tensor("z", (1, 1, 2), 1 / 256, -128)
    numbers = np.zeros((2, 1, 1, 1), np.int8), np.zeros(2, np.int32), np.ones(2)
    layers: tuple[Layer, ...] = (Novel("n", ("x",), "y", *numbers), Softmax("s", ("y",), "z"))
    for name, found in bounds(Network("n", tensors, layers, "x", "z")).items():
        assert (found.low == -128).all(), name
        assert (found.high == 127).all(), name
        assert not found.fixed.any(), name
