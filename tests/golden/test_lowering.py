"""What layers become: weights in lane order by hand, folded biases, run steps, and what is refused."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from gossamer.golden.compiler import CompileError
from gossamer.golden.lowering import Source, lower
from gossamer.golden.network import Add, AveragePool, Conv, Depthwise, FullyConnected, MaxPool, Softmax, Tensor
from gossamer.golden.program import decode
from gossamer.golden.spec import ADD_TABLE, CONFIGS, PARAMETER, SHIFT_BIAS, Config, Opcode

UP5K = CONFIGS["up5k"]


def shaped(shape):
    return (1, 1, *shape) if len(shape) == 1 else shape


def kernel(layer, inputs, output, *, config=UP5K, pitch=None):
    """Lower a single layer; tensors are ``(shape, scale, zero_point)``. ``pitch`` is that of the inputs."""
    tensors = {name: Tensor(name, *t) for name, t in (*zip(layer.inputs, inputs), (layer.output, output))}
    network = SimpleNamespace(tensors=tensors)  # lowering looks at nothing else, and an addition has two inputs

    def source(name, pitch):
        shape = shaped(tensors[name].shape)
        return Source(name, *shape, pitch=pitch or shape[2], zero_point=tensors[name].zero_point)

    return lower(network, layer, [source(n, pitch) for n in layer.inputs], source(layer.output, None), config, CompileError)


def conv(weights, bias=None, *, scales=None, **fields):
    count = len(weights)
    bias = np.zeros(count, np.int32) if bias is None else np.array(bias, np.int32)
    return Conv("c", ("x",), "y", weights, bias, np.ones(count) / 64 if scales is None else np.array(scales), **fields)


def dense(weights, bias, scales, **fields):
    return FullyConnected("f", ("x",), "y", np.array(weights, np.int8), np.array(bias, np.int32), np.array(scales), **fields)


def parameters(lowered):
    return [decode(PARAMETER, bytes(entry)) for entry in lowered.parameters.reshape(-1, 8)]


# Weights


def test_convolution_weights_lie_in_lane_order():
    # 18 outputs are two groups of 16 lanes; a window of 1x2 pixels of 2 channels is 4 vectors, one per byte in a row
    weights = np.arange(18 * 4).reshape(18, 1, 2, 2).astype(np.int8)
    lowered = kernel(conv(weights), [((1, 3, 2), 1.0, 0)], ((1, 2, 18), 1.0, 0))
    assert lowered.weights.shape == (2, 4, 16)
    assert lowered.weights.dtype == np.int8
    first = [[4 * lane + byte for lane in range(16)] for byte in range(4)]
    second = [[64 + byte, 68 + byte] + [0] * 14 for byte in range(4)]
    assert lowered.weights.tolist() == [first, second]
    assert (lowered.groups, lowered.last_lanes, lowered.vectors, lowered.word_mode) == (2, 2, 4, False)
    assert lowered.macs == 1 * 2 * 18 * 4


def test_bytes_between_pixels_get_no_weight():
    weights = np.array([1, 2, 3, 4, 5, 6], np.int8).reshape(1, 1, 2, 3)
    lowered = kernel(conv(weights), [((1, 2, 3), 1.0, 0)], ((1, 1, 1), 1.0, 0), pitch=5)
    assert lowered.weights[0, :, 0].tolist() == [1, 2, 3, 0, 0, 4, 5, 6, 0, 0]


def test_a_fully_connected_layer_sees_the_rows_of_its_map():
    weights = np.arange(8).reshape(1, 8)
    lowered = kernel(dense(weights, [0], [1.0]), [((2, 2, 2), 1.0, 0)], ((1,), 1.0, 0), pitch=3)
    assert lowered.weights[0, :, 0].tolist() == [0, 1, 0, 2, 3, 0, 4, 5, 0, 6, 7, 0]
    assert (lowered.descriptor["kernel_rows"], lowered.descriptor["width"], lowered.out_rows) == (2, 1, 1)


def test_depthwise_weights_lie_in_lane_order():
    weights = np.arange(2 * 1 * 18).reshape(2, 1, 18).astype(np.int8)
    layer = Depthwise("d", ("x",), "y", weights, np.zeros(18, np.int32), np.ones(18))
    lowered = kernel(layer, [((2, 1, 18), 1.0, 0)], ((1, 1, 18), 1.0, 0), pitch=32)
    assert lowered.word_mode
    assert lowered.weights.tolist() == [
        [[*range(16)], [*range(18, 34)]],
        [[16, 17] + [0] * 14, [34, 35] + [0] * 14],
    ]


def test_a_depthwise_multiplier_becomes_a_convolution_with_zeros():
    weights = np.array([1, 2, 3, 4], np.int8).reshape(1, 1, 4)
    layer = Depthwise("d", ("x",), "y", weights, np.zeros(4, np.int32), np.ones(4))
    lowered = kernel(layer, [((1, 1, 2), 1.0, 0)], ((1, 1, 4), 1.0, 0))
    assert not lowered.word_mode
    assert lowered.weights[0, :, :4].tolist() == [[1, 2, 0, 0], [0, 0, 3, 4]]


def test_pools_share_their_weights_between_groups():
    average = AveragePool("p", ("x",), "y", (2, 1), (1, 1))
    lowered = kernel(average, [((2, 1, 40), 1.0, 0)], ((1, 1, 40), 1.0, 0), pitch=48)
    assert (lowered.groups, lowered.descriptor["shared_weights"]) == (3, 1)
    assert lowered.weights.tolist() == [[[1] * 16] * 2]
    largest = MaxPool("p", ("x",), "y", (2, 1), (1, 1))
    lowered = kernel(largest, [((2, 1, 40), 1.0, 0)], ((1, 1, 40), 1.0, 0), pitch=48)
    assert lowered.weights.tolist() == [[[-1] * 16, [0] * 16, [1] * 16] * 2]


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
    assert kernel(layer, [((1,), 1.0, 0)], ((1,), 1.0, 0)).descriptor["double_rounding"] == (rounding == "double")


# Geometry


def test_geometry_by_hand():
    # 5 pixels of 3 channels, one of padding on the left: 15 bytes of which a window of 3 pixels has 9
    layer = conv(np.ones((2, 3, 3, 3), np.int8), stride=(2, 2), padding=(1, 0, 1, 1))
    lowered = kernel(layer, [((6, 5, 3), 1.0, -5)], ((3, 3, 2), 1.0, 9))
    expected = {
        "pad": 123, "zero_point": 9, "groups": 1, "kernel_rows": 3, "stride_rows": 2, "width": 3,
        "left_granules": 2,  # a word of 16 bytes in front, 2 store words
        "offset": 13,  # of whose bytes the last 3 are the padding pixel
        "right_granule": 4, "tail": 7,  # 15 bytes in words of 8
        "slot_words": 3,  # the last window ends with byte 13 + 2*6 + 9
        "ahead": 1, "ring_words": 6 * 3, "advance_words": 6,  # 3 + 2 rows, in twos
        "x_step": 6, "range_last": 8, "out_x_step": 2,
    }  # fmt: skip
    assert {name: lowered.descriptor[name] for name in expected} == expected
    assert (lowered.lead_rows, lowered.in_rows, lowered.out_rows) == (1, 6, 3)


def test_rows_are_loaded_ahead_only_where_they_fit():
    def ring(columns):
        layer = conv(np.ones((1, 3, 1, 16), np.int8))
        lowered = kernel(layer, [((9, columns, 16), 1.0, 0)], ((7, columns, 1), 1.0, 0))
        return lowered.descriptor["ahead"], lowered.descriptor["ring_words"]

    assert ring(64) == (1, 256)  # four rows of 64 words fill the row buffer
    assert ring(65) == (0, 3 * 65)


# Run steps


def test_passes_take_half_a_buffer_when_not_all_fits():
    def passes(outputs, inputs, **sizes):
        config = Config("c", **sizes)
        layer = dense(np.ones((outputs, inputs)), np.zeros(outputs), np.ones(outputs))
        return [*kernel(layer, [((inputs,), 1.0, 0)], ((outputs,), 1.0, 0), config=config).passes(config)]

    assert passes(48, 170) == [range(3)]  # 510 of 512 vectors
    assert passes(48, 171) == [range(1), range(1, 2), range(2, 3)]  # 513
    assert passes(48, 100, weight_vectors=256) == [range(1), range(1, 2), range(2, 3)]
    assert passes(80, 60, weight_vectors=256) == [range(2), range(2, 4), range(4, 5)]
    assert passes(256, 1) == [range(16)]  # 256 of 256 parameters
    assert passes(257, 1) == [range(8), range(8, 16), range(16, 17)]


def test_loads_hold_the_groups_of_their_pass():
    weights = np.arange(40).reshape(40, 1).astype(np.int8)
    lowered = kernel(dense(weights, np.arange(40), np.ones(40)), [((1,), 1.0, -128)], ((40,), 1.0, 0))
    (first, vectors), (second, entries) = lowered.loads(range(1, 3))
    assert (first, second) == (Opcode.LOAD_WEIGHTS, Opcode.LOAD_PARAMETERS)
    assert vectors == bytes([*range(16, 40), *[0] * 8])
    biases = [decode(PARAMETER, entries[i : i + 8])["bias"] for i in range(0, len(entries), 8)]
    assert biases == [*range(16, 40), *[0] * 8]


# Refusals


def refusal(*args, **kwargs):
    with pytest.raises(CompileError) as caught:
        kernel(*args, **kwargs)
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


@pytest.mark.parametrize(
    "weights, worst",
    [
        ([127] * 4 + [6], None),  # 255 * 514 = 131070 of 131071
        ([127] * 4 + [7], 131325),
        ([-127] * 4 + [-6] + [127] * 4, None),
        ([-127] * 4 + [-7], -131325),
        ([[1, 1, 1, 1, 1], [127] * 5], 161925),
    ],
)
def test_sums_fit_an_accumulator(weights, worst):
    weights = np.atleast_2d(weights)
    layer = dense(weights, np.zeros(len(weights)), np.ones(len(weights)))
    args = layer, [((weights.shape[1],), 1.0, 0)], ((len(weights),), 1.0, 0)
    config = dataclasses.replace(UP5K, acc_bits=18)
    if worst is None:
        kernel(*args, config=config)
    else:
        message = f"layer 'f': its sums must fit the 18 bits of an accumulator, and can reach {worst}"
        assert refusal(*args, config=config) == message


def test_sums_of_an_average_fit_an_accumulator():
    pool = AveragePool("p", ("x",), "y", (2, 258), (1, 1))
    args = [((2, 258, 1), 1.0, 0)], ((1, 1, 1), 1.0, 0)
    config = dataclasses.replace(UP5K, acc_bits=18)
    message = "layer 'p': its sums must fit the 18 bits of an accumulator, and can reach 131580"
    assert refusal(pool, *args, config=config, pitch=16) == message
    kernel(pool, *args, config=dataclasses.replace(UP5K, acc_bits=19), pitch=16)


def test_padded_average_pools_are_refused():
    pool = AveragePool("p", ("x",), "y", (2, 2), (2, 2), (0, 1, 0, 1))
    message = "layer 'p': an average pool must not be padded, as its windows then differ in size: (0, 1, 0, 1)"
    assert refusal(pool, [((3, 3, 1), 1.0, 0)], ((2, 2, 1), 1.0, 0), pitch=16) == message


def test_scales_of_additions_are_limited():
    layer = Add("a", ("x", "y"), "z")
    shape = (1, 1, 16)

    def tensors(scale):
        return [(shape, 0.5, 0), (shape, scale, 0)], (shape, 1.0, 0)

    limit = float(1 << 25)
    lowered = kernel(layer, *tensors(limit - 4))
    assert lowered.descriptor["add_shift"] == 1
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
    assert (lowered.descriptor["add_multiplier"], lowered.descriptor["add_shift"]) == (0, SHIFT_BIAS + 18)


def test_a_vanishing_sum_of_additions_is_zero():
    shape = (1, 1, 16)
    lowered = kernel(Add("a", ("x", "y"), "z"), [(shape, 1e-9, 0)] * 2, (shape, 1e9, 0))
    assert (lowered.descriptor["add_multiplier"], lowered.descriptor["add_shift"]) == (0, SHIFT_BIAS + 31)


def test_other_kinds_are_refused():
    layer = Softmax("s", ("x",), "y")
    message = "layer 's': the core cannot compute a Softmax"
    assert refusal(layer, [((4,), 1.0, 0)], ((4,), 1 / 256, -128)) == message
