"""Tensors of four bits and of one: hand-calculated values, what layers may read and write them, and their file."""

import re

import numpy as np
import pytest

from gossamer.golden.network import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Depthwise,
    FullyConnected,
    Logistic,
    MaxPool,
    Mean,
    Network,
    NetworkError,
    Pad,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
)


def constants(weights, channels, bias=0, scale=1.0):
    return {
        "weights": np.asarray(weights, np.int8),
        "bias": np.broadcast_to(np.array(bias, np.int32), channels).copy(),
        "weight_scales": np.full(channels, scale),
    }


def chain(*pairs):
    """A network of (tensor, layer) in a row; the first pair's layer is None."""
    tensors = {tensor.name: tensor for tensor, _ in pairs}
    return Network("n", tensors, tuple(layer for _, layer in pairs[1:]), pairs[0][0].name, pairs[-1][0].name)


def test_int4_saturates_at_its_clamp():
    # 8 bits to 4, of the same scale: 3 * x + 2 is rounded at the ends of -8..7 alone
    network = chain(
        (Tensor("x", (5,), 1.0, 0), None),
        (Tensor("a", (5,), 3.0, 2, "int4"), FullyConnected("0", ("x",), "a", **constants(np.eye(5) * 3, 5), clamp=(-8, 7))),
        (Tensor("y", (5,), 3.0, 0), Rescale("1", ("a",), "y")),
    )
    values = network.run(np.array([[-128, -10, 0, 5, 127]], np.int8))
    assert values["a"].dtype == np.int8
    assert values["a"].tolist() == [[-8, -8, 2, 7, 7]]
    assert values["y"].tolist() == [[-10, -10, 0, 5, 5]]  # the real values, over 3


def test_int4_is_read_with_its_zero_point_and_padded_by_it():
    # one row of [3, 7] less the zero point 7 is [-4, 0]; with weights [1, 10, 100] and padding of 0 on both sides
    network = chain(
        (Tensor("x", (1, 2, 1), 1.0, 0), None),
        (Tensor("a", (1, 2, 1), 1.0, 7, "int4"), Rescale("0", ("x",), "a", (-8, 7))),
        (Tensor("y", (1, 2, 1), 4.0, 1), Conv("1", ("a",), "y", **constants([[[[1], [10], [100]]]], 1), padding=(0, 0, 1, 1))),
    )
    values = network.run(np.array([[[[-4], [0]]]], np.int8))
    assert values["a"].ravel().tolist() == [3, 7]
    assert values["y"].ravel().tolist() == [-40 // 4 + 1, -4 // 4 + 1]


def test_int4_through_every_layer_that_reads_it():
    def small(name, shape):
        return Tensor(name, shape, 1.0, 0, "int4")

    network = chain(
        (Tensor("x", (2, 2, 1), 1.0, 0), None),
        (small("a", (2, 2, 1)), Rescale("0", ("x",), "a", (-8, 7))),
        (small("b", (2, 2, 1)), Add("1", ("a", "a"), "b", (-8, 7))),
        (small("c", (2, 2, 2)), Concat("2", ("a", "b"), "c")),
        (small("d", (2, 3, 2)), Pad("3", ("c",), "d", (0, 0, 1, 0))),
        (small("e", (1, 1, 2)), MaxPool("4", ("d",), "e", (2, 3), (1, 1), clamp=(-8, 7))),
        (small("f", (1, 1, 2)), AveragePool("5", ("d",), "f", (2, 3), (1, 1), clamp=(-8, 7))),
        (small("g", (1, 1, 2)), Add("6", ("e", "f"), "g", (-8, 7))),
        (small("h", (2,)), Reshape("7", ("g",), "h")),
        (Tensor("y", (2,), 1 / 256, -128), Logistic("8", ("h",), "y")),
    )
    values = network.run(np.array([[[[5], [-5]], [[3], [100]]]], np.int8))
    assert values["a"].ravel().tolist() == [5, -5, 3, 7]
    assert values["b"].ravel().tolist() == [7, -8, 6, 7]
    assert values["d"][0, :, :, 0].tolist() == [[0, 5, -5], [0, 3, 7]]
    assert values["e"].ravel().tolist() == [7, 7]
    assert values["f"].ravel().tolist() == [2, 2]  # 10/6 and 12/6
    assert values["h"].tolist() == [[7, 7]]  # 9 is too large
    assert values["y"].tolist() == [[127, 127]]  # of sigmoid(7) = 0.9991


def test_a_binary_output_is_1_from_0_on():
    # the sum is x + bias; scale, clamp and zero points of the layer do not matter
    weights = np.zeros((8, 1))
    weights[:, 0] = [1, -1] * 4
    layer = FullyConnected("0", ("x",), "a", **constants(weights, 8, [0, 0, 1, 1, -1, -1, 5, -5], 77.0))
    network = chain(
        (Tensor("x", (1,), 1.0, 3), None),
        (Tensor("a", (8,), 0.5, 0, "binary"), layer),
        (Tensor("y", (8,), 1.0, 0), FullyConnected("1", ("a",), "y", **constants(np.eye(8), 8))),
    )
    values = network.run(np.array([[3], [4], [2]], np.int8))  # 0, 1 and -1 without the zero point
    assert values["a"].tolist() == [
        [1, 1, 1, 1, -1, -1, 1, -1],
        [1, -1, 1, 1, 1, -1, 1, -1],
        [-1, 1, 1, 1, -1, 1, 1, -1],
    ]
    assert values["a"].dtype == np.int8


@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_outside_its_map_a_binary_tensor_counts_minus_1(kind):
    # a pixel of +1 in eight channels; the 3x3 window has the weights 1..9, of which 5 meets the pixel and 40 the padding
    ones, window = np.ones((8, 1, 1, 1)), np.arange(1, 10).reshape(3, 3)
    weights = np.repeat(window[..., np.newaxis], 8, 2) if kind == "depthwise" else np.zeros((8, 3, 3, 8))
    if kind == "conv":
        for channel in range(8):
            weights[channel, :, :, channel] = window
    layer = Depthwise if kind == "depthwise" else Conv
    network = chain(
        (Tensor("x", (1, 1, 1), 1.0, 0), None),
        (Tensor("a", (1, 1, 8), 1.0, 0, "binary"), Conv("0", ("x",), "a", **constants(ones, 8))),
        (Tensor("y", (1, 1, 8), 1.0, 2), layer("1", ("a",), "y", **constants(weights, 8), padding=(1, 1, 1, 1))),
    )
    assert network.run(np.full((1, 1, 1, 1), 9, np.int8))["y"].ravel().tolist() == [5 - 40 + 2] * 8
    assert network.run(np.full((1, 1, 1, 1), -9, np.int8))["y"].ravel().tolist() == [-45 + 2] * 8


def test_binary_pooling_takes_the_larger_and_reshape_keeps():
    binary = {"scale": 0.5, "zero_point": 0, "dtype": "binary"}
    network = chain(
        (Tensor("x", (2, 2, 1), 1.0, 0), None),
        (Tensor("a", (2, 2, 8), **binary), Conv("0", ("x",), "a", **constants(np.ones((8, 1, 1, 1)), 8, bias=-3))),
        (Tensor("b", (2, 1, 8), **binary), MaxPool("1", ("a",), "b", (2, 2), (1, 2), (0, 1, 0, 0))),
        (Tensor("c", (16,), **binary), Reshape("2", ("b",), "c")),
        (Tensor("y", (1,), 0.5, 0), FullyConnected("3", ("c",), "y", **constants(np.ones((1, 16)), 1, bias=20))),
    )
    values = network.run(np.array([[[[3], [0]], [[0], [2]]]], np.int8))
    assert values["a"][0, :, :, 0].tolist() == [[1, -1], [-1, -1]]
    assert values["b"][0, :, :, 7].tolist() == [[1], [-1]]
    assert values["y"].tolist() == [[20]]


BINARY = {"scale": 1.0, "zero_point": 0, "dtype": "binary"}
X, SIGNED = Tensor("x", (4, 4, 3), 1.0, 0), Tensor("a", (4, 4, 8), **BINARY)
SIGNS = Conv("0", ("x",), "a", **constants(np.ones((8, 1, 1, 3)), 8))


@pytest.mark.parametrize(
    "layer, shape",
    [
        (Add("l", ("a", "a"), "y"), (4, 4, 8)),
        (AveragePool("l", ("a",), "y", (2, 2), (2, 2)), (2, 2, 8)),
        (Mean("l", ("a",), "y"), (8,)),
        (Rescale("l", ("a",), "y"), (4, 4, 8)),
        (Pad("l", ("a",), "y"), (4, 4, 8)),
        (Concat("l", ("a",), "y"), (4, 4, 8)),
        (Softmax("l", ("a",), "y"), (4, 4, 8)),
        (Logistic("l", ("a",), "y"), (4, 4, 8)),
    ],
)
def test_other_layers_refuse_binary(layer, shape):
    message = re.escape("layer 'l': input 'a' must be int8 or int4, not binary")
    with pytest.raises(NetworkError, match=f"^{message}$"):
        chain((X, None), (SIGNED, SIGNS), (Tensor("y", shape, 1.0, 0), layer))


@pytest.mark.parametrize(
    "fields, message",
    [
        (((4, 4, 12), 1.0, 0, "binary"), "the channels of a binary tensor must be a multiple of 8, not 12"),
        (((8,), 1.0, 1, "binary"), "zero_point must be an integer in 0..0, not 1"),
        (((4,), 1.0, 8, "int4"), "zero_point must be an integer in -8..7, not 8"),
        (((4,), 1.0, -9, "int4"), "zero_point must be an integer in -8..7, not -9"),
    ],
)
def test_tensors_refuse(fields, message):
    with pytest.raises(NetworkError, match=f"^tensor 't': {re.escape(message)}$"):
        Tensor("t", *fields)


def test_the_file_keeps_the_types(rng, tmp_path):
    network = chain(
        (X, None),
        (SIGNED, SIGNS),
        (Tensor("b", (4, 4, 2), 0.5, -8, "int4"), Conv("1", ("a",), "b", **constants(np.ones((2, 1, 1, 8)), 2), clamp=(-8, 7))),
        (Tensor("y", (4, 4, 2), 0.5, 0), Rescale("2", ("b",), "y")),
    )
    network.save(tmp_path / "n.gsm")
    loaded = Network.load(tmp_path / "n.gsm")
    assert loaded.tensors == network.tensors
    x = rng.integers(-128, 128, (3, 4, 4, 3), dtype=np.int8)
    for name, values in network.run(x).items():
        np.testing.assert_array_equal(loaded.run(x)[name], values)
