"""Float layers against loops over single numbers."""

import numpy as np
import pytest

from gossamer.golden import floating


def naive(x, weights, bias, stride, padding, depthwise):
    """A convolution of one map by its definition; ``weights`` (O, KH, KW, I), or of each channel alone (KH, KW, O)."""
    top, bottom, left, right = padding
    kernel = weights.shape[:2] if depthwise else weights.shape[1:3]
    channels = weights.shape[2] if depthwise else weights.shape[0]
    rows = (x.shape[0] + top + bottom - kernel[0]) // stride[0] + 1
    columns = (x.shape[1] + left + right - kernel[1]) // stride[1] + 1
    y = np.zeros((rows, columns, channels))
    for oy, ox, o in np.ndindex(y.shape):
        total = bias[o]
        for ky, kx in np.ndindex(*kernel):
            row, column = oy * stride[0] + ky - top, ox * stride[1] + kx - left
            if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                if depthwise:
                    total += weights[ky, kx, o] * x[row, column, o // (channels // x.shape[2])]
                else:
                    total += (weights[o, ky, kx] * x[row, column]).sum()
        y[oy, ox, o] = total
    return y


@pytest.mark.parametrize("padding", [(1, 0, 2, 1), (0, 0, 0, 0), None])
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions_by_their_definition(rng, padding, depthwise):
    x, bias = rng.normal(size=(2, 5, 5, 2)), rng.normal(size=4)
    weights = rng.normal(size=(2, 3, 4) if depthwise else (4, 2, 3, 2))
    kind = floating.Depthwise if depthwise else floating.Conv
    got = kind("n", ("input",), weights, bias, stride=(2, 1), activation="relu6", padding=padding).run(x)
    made = padding or (0, 1, 1, 1)  # SAME: the odd row is behind
    for one, expected in zip(got, x):
        np.testing.assert_allclose(one, np.clip(naive(expected, weights, bias, (2, 1), made, depthwise), 0, 6), atol=1e-12)


def test_pools_leave_out_what_is_outside_the_map():
    x = np.array([[1.0, -2.0], [3.0, 8.0]]).reshape(1, 2, 2, 1)
    common = "n", ("input",), (2, 2), (1, 1), (1, 0, 1, 0)
    assert floating.AveragePool(*common).run(x).reshape(-1).tolist() == [1, -0.5, 2, 2.5]
    assert floating.MaxPool(*common).run(-x).reshape(-1).tolist() == [-1, 2, -1, 2]
    assert floating.AveragePool(*common, "relu").run(x).reshape(-1).tolist() == [1, 0, 2, 2.5]


def test_small_layers_by_hand():
    x = np.arange(12.0).reshape(1, 2, 3, 2) - 5
    assert floating.Mean("n", ("input",)).run(x).tolist() == [[0, 1]]
    assert floating.Mean("n", ("input",), keep=True).run(x).shape == (1, 1, 1, 2)
    padded = floating.Pad("n", ("input",), (1, 0, 0, 2), (0, 1)).run(x)
    assert padded.shape == (1, 3, 5, 3)
    assert padded[0, 1:, :3, :2].tolist() == x[0].tolist()
    assert np.abs(padded).sum() == np.abs(x).sum()
    assert floating.Reshape("n", ("input",)).run(x).shape == (1, 12)
    assert floating.Reshape("n", ("input",), (3, 2, 2)).run(x).shape == (1, 3, 2, 2)
    assert floating.Add("n", ("input", "input"), "relu_n1_to_1").run(x, x).reshape(-1)[4:7].tolist() == [-1, 0, 1]
    assert floating.FullyConnected("n", ("input",), np.ones((1, 12)), np.ones(1), "relu").run(x).tolist() == [[7]]
    half = floating.Softmax("n", ("input",), 0.5).run(np.array([[0.0, np.log(9)]]))
    np.testing.assert_allclose(half, [[0.25, 0.75]])


def test_outputs_are_those_of_the_last_layer_for_every_input(rng):
    layers = [floating.Reshape("flat", ("input",)), floating.FullyConnected("fc", ("flat",), np.eye(4), np.ones(4))]
    x = rng.normal(size=(2 * floating.BATCH + 3, 2, 1, 2))
    np.testing.assert_array_equal(floating.outputs(layers, x), x.reshape(-1, 4) + 1)
