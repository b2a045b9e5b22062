"""What layers become: weights in lane order by hand, folded biases, what is exact, and what is refused."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from gossamer.golden.compiler import CompileError
from gossamer.golden.layout import map_shape
from gossamer.golden.lowering import copies, lower
from gossamer.golden.network import (
    Add,
    AveragePool,
    Conv,
    Depthwise,
    FullyConnected,
    MaxPool,
    Mean,
    Pad,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
)
from gossamer.golden.program import decode
from gossamer.golden.spec import ADD_TABLE, CONFIGS, PARAMETER, SHIFT_BIAS, Config
from gossamer.golden.tiling import Map

UP5K = CONFIGS["up5k"]


def place(tensor, pitch=None):
    """The map of a tensor that shares its bytes with no other."""
    rows, columns, channels = map_shape(tensor.shape)
    pitch = pitch or channels
    per_byte = {"int4": 2, "binary": 8}.get(tensor.dtype, 1)
    return Map(tensor.name, rows, columns, channels, pitch, 0, pitch, tensor.zero_point, per_byte)


def kernels(layer, inputs, output, *, config=UP5K, pitch=None, out_pitch=None):
    """Lower a single layer; tensors are ``(shape, scale, zero_point)``. ``pitch`` is that of the inputs."""
    tensors = {name: Tensor(name, *t) for name, t in (*zip(layer.inputs, inputs), (layer.output, output))}
    network = SimpleNamespace(tensors=tensors)  # lowering looks at nothing else, and an addition has two inputs
    sources, target = [place(tensors[name], pitch) for name in layer.inputs], place(tensors[layer.output], out_pitch)
    return lower(network, layer, sources, target, config, CompileError)


def kernel(*args, **kwargs):
    """The same of a layer that becomes one kernel."""
    (lowered,) = kernels(*args, **kwargs)
    return lowered


def conv(weights, bias=None, *, scales=None, **fields):
    count = len(weights)
    bias = np.zeros(count, np.int32) if bias is None else np.array(bias, np.int32)
    return Conv("c", ("x",), "y", weights, bias, np.ones(count) / 64 if scales is None else np.array(scales), **fields)


def dense(weights, bias, scales, **fields):
    return FullyConnected("f", ("x",), "y", np.array(weights, np.int8), np.array(bias, np.int32), np.array(scales), **fields)


def parameters(lowered):
    return [decode(PARAMETER, bytes(entry)) for entry in lowered.parameters.reshape(-1, 8)]


# Modes

MODAL = Config("modal", masks=256, nibbles=True, binary=True, int4=True)


def signs(rng, *shape):
    return rng.choice([-1, 1], shape).astype(np.int8)


def test_weights_of_minus_one_and_one_on_a_binary_map_are_bits(rng):
    """A vector per byte; the map has the pitch of its bytes, and so have the weights, with 0 between pixels."""
    weights = signs(rng, 20, 2, 3, 16)
    layer = conv(weights, bias=[5] * 20)
    lowered = kernel(layer, [((4, 5, 16), 1.0, 0, "binary")], ((3, 3, 20), 1.0, 0), config=MODAL, pitch=32)
    assert (lowered.fields["binary"], lowered.fields["int4"], lowered.fields["pad"], lowered.sparse) == (1, 0, 0, False)
    assert (lowered.source.per_byte, lowered.source.pitch, lowered.source.channels) == (1, 4, 2)
    assert lowered.weights.shape == (2, 2, 3 * 4, 16)
    for group, row, pixel, byte, lane in np.ndindex(2, 2, 3, 4, 16):
        channel = 16 * group + lane
        bits = [channel < 20 and byte < 2 and weights[channel, row, pixel, 8 * byte + bit] > 0 for bit in range(8)]
        assert lowered.weights[group, row, 4 * pixel + byte, lane].astype(np.uint8) == sum(b << n for n, b in enumerate(bits))
    # every product is one less than what is counted, and 0 and 0 between pixels count 2
    assert [p["bias"] for p in parameters(lowered)][:20] == [5 - 6 * (16 + 2 * 16)] * 20


def test_other_weights_on_a_binary_map_see_bytes_of_0_and_2(rng):
    weights = signs(rng, 3, 1, 1, 8)
    weights[2, 0, 0, 5] = 2
    lowered = kernel(conv(weights), [((4, 5, 8), 1.0, 0, "binary")], ((4, 5, 3), 1.0, 0), config=MODAL)
    assert (lowered.fields["binary"], lowered.source.per_byte, lowered.source.bias, lowered.fields["pad"]) == (0, 8, 1, 0)
    assert [p["bias"] for p in parameters(lowered)][:3] == (-weights.reshape(3, 8).sum(1)).tolist()


def test_a_binary_output_is_the_sign_of_the_sum():
    """Whatever its scales are; the bytes behind its channels are -1."""
    layer = conv(np.full((8, 1, 1, 4), 3, np.int8), bias=[*range(-4, 4)], scales=[1e-9] * 8, clamp=(-1, 1))
    lowered = kernel(layer, [((2, 2, 4), 1.0, -128)], ((2, 2, 8), 1.0, 0, "binary"), config=MODAL, out_pitch=16)
    found = parameters(lowered)
    assert [p["bias"] for p in found] == [*range(-3, 5), *[0] * 8]  # one more, and a zero point of -1
    assert (lowered.fields["zero_point"], lowered.fields["clamp_min"], lowered.fields["clamp_max"]) == (-1, -128, 127)
    assert all(unmoved(p) for p in found[:8])


def test_the_bias_takes_the_zero_point_of_four_bits():
    layer = conv(np.full((2, 1, 1, 3), 50, np.int8), bias=[1, 2])
    lowered = kernel(layer, [((2, 2, 3), 1.0, -3, "int4")], ((2, 2, 2), 1.0, 0, "int4"), config=MODAL)
    assert [p["bias"] for p in parameters(lowered)][:2] == [1 - 5 * 150, 2 - 5 * 150]
    assert (lowered.fields["pad"], lowered.fields["clamp_min"], lowered.fields["clamp_max"]) == (5, -8, 7)


@pytest.mark.parametrize("dtype, zero, lift", [("int8", -128, 0), ("int4", -8, 0), ("binary", -1, -1)])
def test_a_maximum_begins_with_the_smallest_value(dtype, zero, lift):
    """Byte 0 of the row buffer; a binary output is the sign of the largest value, which is 0 or 2 there."""
    layer = MaxPool("p", ("x",), "y", (2, 2), (1, 1))
    lowered = kernel(layer, [((3, 3, 16), 1.0, 0, dtype)], ((2, 2, 16), 1.0, 0, dtype), config=MODAL)
    assert (lowered.fields["pad"], lowered.fields["zero_point"]) == (0, zero)
    assert {p["bias"] for p in parameters(lowered)} == {lift + (dtype == "binary")}


@pytest.mark.parametrize(
    "low, high, outputs, int4, chosen",
    [
        *[(-8, 7, 17, True, True), (-8, 7, 16, True, False), (-8, 7, 17, False, False)],
        *[(-9, 7, 17, True, False), (-8, 8, 17, True, False)],
    ],
)
def test_weights_of_four_bits_are_used_for_more_channels_than_lanes(low, high, outputs, int4, chosen):
    weights = np.full((outputs, 1, 1, 2), low, np.int8)
    weights[1] = high
    config = dataclasses.replace(MODAL, int4=int4)
    lowered = kernel(conv(weights), [((2, 2, 2), 1.0, 0)], ((2, 2, outputs), 1.0, 0), config=config)
    assert lowered.fields["int4"] == chosen
    groups, group = (1, 32) if chosen else (-(-outputs // 16), 16)
    assert (lowered.groups, lowered.weights.shape) == (groups, (groups, 1, 2, group))


def test_depthwise_layers_have_no_modes():
    """Their weights belong to words."""
    layer = Depthwise("d", ("x",), "y", np.zeros((2, 2, 40), np.int8), np.zeros(40, np.int32), np.ones(40) / 64)
    lowered = kernel(layer, [((3, 3, 40), 1.0, 0)], ((2, 2, 40), 1.0, 0), config=MODAL, pitch=48)
    assert (lowered.fields["int4"], lowered.fields["binary"], lowered.sparse) == (0, 0, False)


# Weights


def test_convolution_weights_lie_in_lane_order():
    # 18 outputs are two groups of 16 lanes; a window of 1x2 pixels of 2 channels is 4 vectors, one per byte in a row
    weights = np.arange(18 * 4).reshape(18, 1, 2, 2).astype(np.int8)
    lowered = kernel(conv(weights), [((1, 3, 2), 1.0, 0)], ((1, 2, 18), 1.0, 0))
    assert lowered.weights.shape == (2, 1, 4, 16)
    assert lowered.weights.dtype == np.int8
    first = [[4 * lane + byte for lane in range(16)] for byte in range(4)]
    second = [[64 + byte, 68 + byte] + [0] * 14 for byte in range(4)]
    assert lowered.weights.tolist() == [[first], [second]]
    assert (lowered.groups, lowered.kernel_rows, lowered.beats, lowered.word_mode) == (2, 1, 4, False)
    assert (lowered.rows, lowered.columns) == (1, 2)


def test_bytes_between_pixels_get_no_weight():
    weights = np.array([1, 2, 3, 4, 5, 6], np.int8).reshape(1, 1, 2, 3)
    lowered = kernel(conv(weights), [((1, 2, 3), 1.0, 0)], ((1, 1, 1), 1.0, 0), pitch=5)
    assert lowered.weights[0, 0, :, 0].tolist() == [1, 2, 3, 0, 0, 4, 5, 6, 0, 0]


def test_a_fully_connected_layer_sees_the_rows_of_its_map():
    weights = np.arange(8).reshape(1, 8)
    lowered = kernel(dense(weights, [0], [1.0]), [((2, 2, 2), 1.0, 0)], ((1,), 1.0, 0), pitch=3)
    assert lowered.weights[0, :, :, 0].tolist() == [[0, 1, 0, 2, 3, 0], [4, 5, 0, 6, 7, 0]]
    assert (lowered.kernel_rows, lowered.columns, lowered.rows) == (2, 1, 1)


def test_depthwise_weights_lie_in_lane_order():
    weights = np.arange(2 * 1 * 18).reshape(2, 1, 18).astype(np.int8)
    layer = Depthwise("d", ("x",), "y", weights, np.zeros(18, np.int32), np.ones(18))
    lowered = kernel(layer, [((2, 1, 18), 1.0, 0)], ((1, 1, 18), 1.0, 0), pitch=32)
    assert lowered.word_mode
    assert lowered.weights.tolist() == [
        [[[*range(16)]], [[*range(18, 34)]]],
        [[[16, 17] + [0] * 14], [[34, 35] + [0] * 14]],
    ]


def test_a_depthwise_multiplier_becomes_a_convolution_with_zeros():
    weights = np.array([1, 2, 3, 4], np.int8).reshape(1, 1, 4)
    layer = Depthwise("d", ("x",), "y", weights, np.zeros(4, np.int32), np.ones(4))
    lowered = kernel(layer, [((1, 1, 2), 1.0, 0)], ((1, 1, 4), 1.0, 0))
    assert not lowered.word_mode
    assert lowered.weights[0, 0, :, :4].tolist() == [[1, 2, 0, 0], [0, 0, 3, 4]]


def test_pools_share_their_weights_between_groups():
    average = AveragePool("p", ("x",), "y", (2, 1), (1, 1))
    lowered = kernel(average, [((2, 1, 40), 1.0, 0)], ((1, 1, 40), 1.0, 0), pitch=48)
    assert (lowered.groups, lowered.shared, lowered.divisible) == (3, True, True)
    assert lowered.weights.tolist() == [[[[1] * 16]] * 2]
    largest = MaxPool("p", ("x",), "y", (2, 1), (1, 1))
    lowered = kernel(largest, [((2, 1, 40), 1.0, 0)], ((1, 1, 40), 1.0, 0), pitch=48)
    assert lowered.weights.tolist() == [[[[-1] * 16, [0] * 16, [1] * 16]] * 2]
    assert (lowered.groups, lowered.shared, lowered.divisible) == (3, True, False)


# Parameters


def test_the_bias_takes_the_zero_point_of_the_stored_bytes():
    # stored bytes are 128 + a, and a - zero_point is meant: bias - (128 - 28) * (1 + 2 - 5)
    layer = dense([[1, 2, -5], [0, 0, 1]], [1000, -7], [1.0, 1.0])
    first, second, *_ = parameters(kernel(layer, [((3,), 0.5, -28)], ((2,), 1.0, 0)))
    assert (first["bias"], second["bias"]) == (1200, -107)


def test_scales_are_multiplier_and_shift():
    layer = dense(np.ones((3, 1)), [0, 0, 0], [0.25, 0.75, 0.0])
    entries = parameters(kernel(layer, [((1,), 1.0, 0)], ((3,), 2.0, 0)))
    # 1/8 = 2**30 * 2**(-2 - 31), 3/8 = 3*2**29 * 2**(-1 - 31)
    assert (entries[0]["multiplier"], entries[0]["shift"]) == (0, SHIFT_BIAS + 2)
    assert (entries[1]["multiplier"], entries[1]["shift"]) == (1 << 29, SHIFT_BIAS + 1)
    # 0, like the lanes without a channel, becomes the smallest scale there is
    assert len(entries) == 16
    assert all((entry["multiplier"], entry["shift"]) == (0, SHIFT_BIAS + 31) for entry in entries[2:])


@pytest.mark.parametrize("rounding", ["double", "single"])
def test_rounding_is_that_of_the_layer(rounding):
    layer = dense([[1]], [0], [1.0], rounding=rounding)
    assert kernel(layer, [((1,), 1.0, 0)], ((1,), 1.0, 0)).fields["double_rounding"] == (rounding == "double")


# Geometry


def test_windows_start_in_the_padding_in_front():
    layer = conv(np.ones((2, 3, 3, 3), np.int8), stride=(2, 3), padding=(1, 0, 2, 1))
    lowered = kernel(layer, [((6, 6, 3), 1.0, -5)], ((3, 3, 2), 1.0, 9))
    assert (lowered.origin, lowered.stride, lowered.place) == ((-1, -2), (2, 3), (0, 0))
    assert (lowered.rows, lowered.columns, lowered.kernel_rows, lowered.beats) == (3, 3, 3, 9)
    assert (lowered.fields["pad"], lowered.fields["zero_point"]) == (123, 9)


def test_a_padded_average_has_a_kernel_for_every_size_of_window():
    # along each axis windows of 3 by 2 over 5 pixels, one of padding on both sides: -1 to 1, 1 to 3, 3 to 5
    pool = AveragePool("p", ("x",), "y", (3, 3), (2, 2), (1, 1, 1, 1))
    lowered = kernels(pool, [((5, 5, 4), 1.0, 0)], ((3, 3, 4), 1.0, 0), pitch=16)
    found = {k.place: (k.origin, k.weights.shape[1:3]) for k in lowered}
    assert found == {
        (0, 0): ((0, 0), (2, 2)), (0, 1): ((0, 1), (2, 3)), (0, 2): ((0, 3), (2, 2)),
        (1, 0): ((1, 0), (3, 2)), (1, 1): ((1, 1), (3, 3)), (1, 2): ((1, 3), (3, 2)),
        (2, 0): ((3, 0), (2, 2)), (2, 1): ((3, 1), (2, 3)), (2, 2): ((3, 3), (2, 2)),
    }  # fmt: skip
    assert all((k.rows, k.columns, k.groups) == (1, 1, 1) for k in lowered)


def test_windows_of_one_size_share_a_kernel():
    pool = AveragePool("p", ("x",), "y", (2, 2), (2, 2), (0, 1, 0, 1))
    lowered = kernels(pool, [((7, 7, 4), 1.0, 0)], ((4, 4, 4), 1.0, 0), pitch=16)
    assert [(k.place, k.rows, k.columns) for k in lowered] == [
        ((0, 0), 3, 3), ((0, 3), 3, 1), ((3, 0), 1, 3), ((3, 3), 1, 1),
    ]  # fmt: skip


def test_an_addition_takes_rows_of_its_inputs_in_turn():
    shape = (3, 2, 16)
    lowered = kernel(Add("a", ("x", "y"), "z"), [(shape, 1.0, 0)] * 2, (shape, 1.0, 0))
    assert (lowered.source.rows, lowered.rows, lowered.stride, lowered.kernel_rows) == (6, 3, (2, 1), 2)
    # the accumulator becomes a + 256 * b
    assert lowered.weights[0, :, :, 0].tolist() == [[1, 0, 0], [127, 127, 2]]
    assert lowered.inputs == ("x", "y")
    assert not lowered.divisible


# Layers that only move values


def unmoved(entry):
    """Multiplier and shift that keep every sum: ``2**31 - 1`` and none."""
    return entry["multiplier"] + (1 << 30) == (1 << 31) - 1 and entry["shift"] == SHIFT_BIAS


def test_a_rescaling_is_a_window_of_one_pixel():
    lowered = kernel(Rescale("r", ("x",), "y"), [((2, 3, 18), 0.5, 7)], ((2, 3, 18), 1.0, -3), pitch=32)
    assert (lowered.word_mode, lowered.shared, lowered.weights.tolist()) == (True, True, [[[[1] * 16]]])
    entries = parameters(lowered)
    assert [entry["bias"] for entry in entries] == [-135] * 18 + [0] * 14
    assert all((entry["multiplier"], entry["shift"]) == (0, SHIFT_BIAS) for entry in entries[:18])  # 2**30 / 2**31
    assert lowered.fields["zero_point"] == -3


def test_a_mean_is_a_window_of_the_whole_map():
    lowered = kernel(Mean("m", ("x",), "y"), [((2, 4, 4), 1.0, 2)], ((4,), 1.0, 0), pitch=16)
    assert lowered.weights.tolist() == [[[[1] * 16] * 4] * 2]
    assert parameters(lowered)[0]["bias"] == -8 * 130
    assert (parameters(lowered)[0]["multiplier"], parameters(lowered)[0]["shift"]) == (0, SHIFT_BIAS + 2)  # 2**30 / 2**33
    assert (lowered.rows, lowered.columns) == (1, 1)


def test_padding_by_pixels_is_a_window_of_one_pixel():
    lowered = kernel(Pad("p", ("x",), "y", (1, 2, 3, 4)), [((2, 2, 5), 1.0, 6)], ((5, 9, 5), 1.0, 6), pitch=16)
    assert (lowered.origin, lowered.rows, lowered.columns) == ((-1, -3), 5, 9)
    assert (lowered.word_mode, lowered.fields["pad"], parameters(lowered)[0]["bias"]) == (True, 134, -134)
    assert unmoved(parameters(lowered)[0])


def test_padding_of_channels_moves_them():
    layer = Pad("p", ("x",), "y", (0, 1, 0, 0), (2, 3))
    lowered = kernel(layer, [((1, 1, 2), 1.0, 6)], ((2, 1, 7), 1.0, 6))
    # byte 0 to channel 2, byte 1 to channel 3; the other channels have a sum of 0, which is the zero point
    assert not lowered.word_mode
    assert lowered.weights[0, 0, :, :7].tolist() == [[0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0]]
    entries = parameters(lowered)
    assert [entry["bias"] for entry in entries[:7]] == [0, 0, -134, -134, 0, 0, 0]
    assert all(unmoved(entry) for entry in entries[:7])


def reshaped(shape, other, pitch=None, out_pitch=None):
    tensors = {"x": Tensor("x", shape, 1.0, 5), "y": Tensor("y", other, 1.0, 5)}
    maps = [place(tensors["x"], pitch), place(tensors["y"], out_pitch)]
    return copies(SimpleNamespace(tensors=tensors), Reshape("r", ("x",), "y"), *maps, UP5K, CompileError)


def test_a_copy_to_the_same_shape_is_one_kernel():
    (words,) = reshaped((2, 3, 16), (2, 3, 16))
    (values,) = reshaped((2, 3, 4), (2, 3, 4))
    assert (words.word_mode, values.word_mode) == (True, False)
    assert np.array_equal(values.weights[0, 0, :4, :4], np.eye(4))


def test_a_reshape_moves_runs_of_values_that_stay_together():
    # 2 rows of 6 values become 3 rows of 4; pixels of 2 channels divide both
    lowered = reshaped((2, 3, 2), (3, 1, 4))
    assert [(k.origin, k.place, k.columns) for k in lowered] == [
        ((0, 0), (0, 0), 2), ((0, 2), (1, 0), 1), ((1, 0), (1, 1), 1), ((1, 1), (2, 0), 2),
    ]  # fmt: skip
    assert all((k.source.channels, k.target.channels, k.rows) == (2, 2, 1) for k in lowered)


def test_a_reshape_between_pixels_with_gaps_is_refused():
    message = (
        "layer 'r': a reshape of (2, 3, 2) to (3, 1, 4) must not be read or written by a layer that works on words of 16 "
        "channels"
    )
    reshaped((2, 3, 2), (3, 1, 4), 16, None)  # two channels at a time
    for pitches in ((16, 16), (None, 16)):
        with pytest.raises(CompileError) as caught:
            reshaped((2, 3, 2), (3, 1, 4), *pitches)
        assert str(caught.value) == message


# Refusals


def refusal(*args, **kwargs):
    with pytest.raises(CompileError) as caught:
        kernels(*args, **kwargs)
    return str(caught.value)


def test_biases_fit_their_field():
    most = (1 << 27) - 1
    ends = dense(np.zeros((2, 1)), [most, -most - 1], [1.0, 1.0])
    assert [p["bias"] for p in parameters(kernel(ends, [((1,), 1.0, 0)], ((2,), 1.0, 0)))[:2]] == [most, -most - 1]
    for bias in (most + 1, -most - 2):
        layer = dense(np.zeros((2, 1)), [0, bias], [1.0, 1.0])
        message = f"layer 'f': the bias of channel 1 must fit 28 bits, not be {bias}"
        assert refusal(layer, [((1,), 1.0, 0)], ((2,), 1.0, 0)) == message


def test_the_folded_bias_counts():
    layer = dense([[127]], [-(1 << 27)], [1.0])
    message = f"layer 'f': the bias of channel 0 must fit 28 bits, not be {-(1 << 27) - 255 * 127}"
    assert refusal(layer, [((1,), 1.0, 127)], ((1,), 1.0, 0)) == message


def test_scales_fit_their_field():
    below = float(np.nextafter(np.float32(64), np.float32(0)))
    kernel(dense([[1]], [0], [below]), [((1,), 1.0, 0)], ((1,), 1.0, 0))
    message = "layer 'f': the scale of channel 0 must be less than 64, not 64"
    assert refusal(dense([[1]], [0], [64.0]), [((1,), 1.0, 0)], ((1,), 1.0, 0)) == message
    message = "layer 'f': the scale of channel 1 must be less than 64, not 200"
    assert refusal(dense([[1], [1]], [0, 0], [1.0, 50.0]), [((1,), 1.0, 0)], ((2,), 0.25, 0)) == message


def test_scales_of_additions_are_limited():
    layer = Add("a", ("x", "y"), "z")
    shape = (1, 1, 16)

    def tensors(scale):
        return [(shape, 0.5, 0), (shape, scale, 0)], (shape, 1.0, 0)

    limit = float(1 << 25)
    lowered = kernel(layer, *tensors(limit - 4))
    assert lowered.fields["add_shift"] == 1
    message = "layer 'a': the inputs' scale must be less than 33554432 times the output's, not 33554432 times"
    assert refusal(layer, *tensors(limit)) == message


def test_tables_of_an_addition_are_its_scaled_inputs():
    # half of (byte - 128 - zero point) * 2**20 for the larger scale, an eighth for a quarter of it
    shape = (1, 1, 16)
    lowered = kernel(Add("a", ("x", "y"), "z"), [(shape, 1.0, 3), (shape, 0.25, -9)], (shape, 1.0, 0))
    assert lowered.parameters.shape == (1, 256, 8)
    table = [decode(ADD_TABLE, bytes(entry)) for entry in lowered.parameters[0]]
    assert [entry["first"] for entry in table] == [(byte - 131) << 19 for byte in range(256)]
    assert [entry["second"] for entry in table] == [(byte - 119) << 17 for byte in range(256)]
    # 2 / 2**20 of the sum
    assert (lowered.fields["add_multiplier"], lowered.fields["add_shift"]) == (0, SHIFT_BIAS + 18)


def test_a_vanishing_sum_of_additions_is_zero():
    shape = (1, 1, 16)
    lowered = kernel(Add("a", ("x", "y"), "z"), [(shape, 1e-9, 0)] * 2, (shape, 1e9, 0))
    assert (lowered.fields["add_multiplier"], lowered.fields["add_shift"]) == (0, SHIFT_BIAS + 31)


def test_other_kinds_are_refused():
    layer = Softmax("s", ("x",), "y")
    message = "layer 's': the core cannot compute a Softmax"
    assert refusal(layer, [((4,), 1.0, 0)], ((4,), 1 / 256, -128)) == message
