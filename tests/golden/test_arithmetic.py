"""Answers worked out by hand, and the definitions written as loops. TFLite itself is the oracle of ``test_network``."""

import itertools

import numpy as np
import pytest

from gossamer.golden import arithmetic

HALF = 1 << 30
"""A multiplier that, with shift 0, stands for 1/2."""


@pytest.mark.parametrize(
    "real, expected",
    [
        (0.0, (0, 0)),
        (0.5, (HALF, 0)),
        (0.75, (3 << 29, 0)),
        (1.0, (HALF, 1)),
        (6.0, (3 << 29, 3)),
        (1 - 2.0**-33, (HALF, 1)),  # the fraction rounds up to 1
        (2.0**-32, (HALF, -31)),
        (2.0**-33, (0, 0)),  # all bits would be shifted out
        (0.5 + 2.0**-32, (HALF + 1, 0)),  # half a unit rounds up
    ],
)
def test_quantize_multiplier(real, expected):
    assert arithmetic.quantize_multiplier(real) == expected


@pytest.mark.parametrize("real", [-1.0, float("inf"), float("nan")])
def test_quantize_multiplier_refuses(real):
    with pytest.raises(ValueError, match=rf"^a real multiplier must be finite and not negative, not {real}$"):
        arithmetic.quantize_multiplier(real)


@pytest.mark.parametrize(
    "acc, multiplier, shift, double, single",
    [
        (3, HALF, 0, 2, 2),  # 1.5
        (1, HALF, 0, 1, 1),  # 0.5: ties of the product go up,
        (-1, HALF, 0, 0, 0),  # -0.5: also below zero
        (-3, HALF, 0, -1, -1),  # -1.5
        (1, HALF, -1, 1, 0),  # 0.25, by way of 1
        (-2, HALF, -1, -1, 0),  # -0.5: ties of the right shift go away from zero
        (2, HALF, -1, 1, 1),  # 0.5
        (-6, HALF, -1, -2, -1),  # -1.5
        (6, HALF, -1, 2, 2),  # 1.5
        (-5, HALF, 3, -20, -20),  # left shift: times 4
        (5, 3 << 29, 2, 15, 15),  # times 3
        (12345, 0, 0, 0, 0),
        ((1 << 31) - 1, (1 << 31) - 1, 0, (1 << 31) - 2, (1 << 31) - 2),
        (-(1 << 31), (1 << 31) - 1, 0, -(1 << 31) + 1, -(1 << 31) + 1),
        ((1 << 31) - 1, (1 << 31) - 1, -31, 1, 1),
        (-(1 << 31), HALF, -31, -1, 0),  # -2**-1 exactly
    ],
)
def test_multiply_by_quantized_multiplier(acc, multiplier, shift, double, single):
    assert arithmetic.multiply_by_quantized_multiplier(acc, multiplier, shift) == double
    assert arithmetic.multiply_by_quantized_multiplier(acc, multiplier, shift, "single") == single


def test_roundings_are_the_adders_and_shifts_of_the_design(rng):
    acc = rng.integers(-(1 << 24), 1 << 24, 20000)
    multiplier = rng.integers(1 << 30, 1 << 31, 20000)
    e = rng.integers(1, 32, 20000)
    t = (acc * multiplier + (1 << 30)) >> 31
    double = arithmetic.multiply_by_quantized_multiplier(acc, multiplier, -e)
    np.testing.assert_array_equal(double, (t + (1 << (e - 1)) - (t < 0)) >> e)
    exact = [(int(a) * int(m) * 2 + (1 << (31 + int(n)))) >> (32 + int(n)) for a, m, n in zip(acc, multiplier, e)]
    np.testing.assert_array_equal(arithmetic.multiply_by_quantized_multiplier(acc, multiplier, -e, "single"), exact)


def test_multiply_by_quantized_multiplier_broadcasts():
    result = arithmetic.multiply_by_quantized_multiplier([[8, 8], [-8, 16]], [HALF, 3 << 29], [0, -1])
    assert result.tolist() == [[4, 3], [-4, 6]]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1 << 31, HALF, 0), "an accumulator must fit a signed 32-bit number, not 2147483648"),
        ((1 << 30, HALF, 1), "an accumulator after its left shift must fit a signed 32-bit number, not 2147483648"),
        ((1, HALF, 31), r"a shift must be in -31\.\.30, not 31"),
        ((1, HALF, -32), r"a shift must be in -31\.\.30, not -32"),
        ((1, HALF, 0, "up"), "rounding must be 'double' or 'single', not 'up'"),
    ],
)
def test_multiply_by_quantized_multiplier_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        arithmetic.multiply_by_quantized_multiplier(*arguments)


def test_requantize_saturates_and_clamps():
    acc = np.array([[1 << 20, -(1 << 20), 20, -20]])
    assert arithmetic.requantize(acc, HALF, 0, 5).tolist() == [[127, -128, 15, -5]]
    assert arithmetic.requantize(acc, HALF, 0, 5, (0, 10)).tolist() == [[10, 0, 10, 0]]


@pytest.mark.parametrize(
    "kind, scale, zero_point, expected",
    [
        ("none", 0.1, 3, (-128, 127)),
        ("relu", 0.1, 3, (3, 127)),
        ("relu", 0.1, -128, (-128, 127)),
        ("relu6", 0.05, -10, (-10, 110)),
        ("relu6", 6 / 255, -128, (-128, 127)),
        ("relu6", 4.0, 0, (0, 2)),  # 1.5 rounds away from zero
        ("relu6", 1e-44, 5, (5, 127)),
        ("relu_n1_to_1", 0.0625, -20, (-36, -4)),
        ("relu_n1_to_1", 2.0, 7, (6, 8)),  # 0.5 and -0.5 as well
        ("relu_n1_to_1", 0.001, 7, (-128, 127)),
    ],
)
def test_activation_range(kind, scale, zero_point, expected):
    assert arithmetic.activation_range(kind, scale, zero_point) == expected


def test_activation_range_refuses():
    with pytest.raises(ValueError, match=r"^an activation must be 'none', 'relu', 'relu6' or 'relu_n1_to_1', not 'tanh'$"):
        arithmetic.activation_range("tanh", 1.0, 0)


@pytest.mark.parametrize(
    "size, kernel, stride, expected",
    [(8, 3, 1, (1, 1)), (8, 5, 1, (2, 2)), (5, 2, 2, (0, 1)), (4, 1, 2, (0, 0)), (49, 10, 2, (4, 5))],
)
def test_same_padding(size, kernel, stride, expected):
    assert arithmetic.same_padding(size, kernel, stride) == expected
    assert arithmetic.output_size(size, kernel, stride, expected) == -(-size // stride)


def convolution_by_loops(x, weights, bias, zero_point, stride, padding):
    """CONV_2D as the reference kernel writes it: pixels outside the map are left out."""
    n, height, width, _ = x.shape
    o, kh, kw, _ = weights.shape
    rows = (height + padding[0] + padding[1] - kh) // stride[0] + 1
    columns = (width + padding[2] + padding[3] - kw) // stride[1] + 1
    out = np.tile(bias.astype(np.int64), (n, rows, columns, 1))
    for b, r, c, ky, kx in itertools.product(range(n), range(rows), range(columns), range(kh), range(kw)):
        y, z = r * stride[0] + ky - padding[0], c * stride[1] + kx - padding[2]
        if 0 <= y < height and 0 <= z < width:
            for channel in range(o):
                out[b, r, c, channel] += np.sum((x[b, y, z].astype(int) - zero_point) * weights[channel, ky, kx])
    return out


WINDOWS = [
    ((1, 1), (1, 1), (0, 0, 0, 0)),
    ((3, 3), (1, 1), (1, 1, 1, 1)),
    ((3, 2), (2, 1), (0, 1, 1, 0)),
    ((2, 4), (1, 3), (1, 0, 0, 3)),
    ((5, 5), (3, 2), (2, 2, 2, 2)),
]


@pytest.mark.parametrize("kernel, stride, padding", WINDOWS)
def test_convolution_is_its_definition(rng, kernel, stride, padding):
    x = rng.integers(-128, 128, (2, 5, 6, 3), dtype=np.int8)
    weights = rng.integers(-128, 128, (4, *kernel, 3), dtype=np.int8)
    bias = rng.integers(-(1 << 20), 1 << 20, 4, dtype=np.int32)
    expected = convolution_by_loops(x, weights, bias, -7, stride, padding)
    np.testing.assert_array_equal(arithmetic.conv2d_accumulate(x, weights, bias, -7, stride, padding), expected)


@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("kernel, stride, padding", WINDOWS)
def test_depthwise_is_a_convolution_with_one_input_channel(rng, kernel, stride, padding, multiplier):
    x = rng.integers(-128, 128, (2, 5, 6, 3), dtype=np.int8)
    weights = rng.integers(-128, 128, (*kernel, 3 * multiplier), dtype=np.int8)
    bias = rng.integers(-(1 << 20), 1 << 20, 3 * multiplier, dtype=np.int32)
    got = arithmetic.depthwise_conv2d_accumulate(x, weights, bias, 9, stride, padding)
    for o in range(3 * multiplier):
        alone = weights[np.newaxis, :, :, o : o + 1]
        source = x[..., o // multiplier : o // multiplier + 1]
        expected = convolution_by_loops(source, alone, bias[o : o + 1], 9, stride, padding)
        np.testing.assert_array_equal(got[..., o : o + 1], expected)


def test_kernels_requantize_per_channel():
    x = np.full((1, 1, 1, 2), 10, np.int8)
    # (10 - 4) * weights + bias, times 1/2 and 1/4, plus 1
    constants = (np.array([100, -4], np.int32), [HALF, HALF], [0, -1], 4, 1)
    weights = np.array([[2, 3], [-5, 4]], np.int8)
    assert arithmetic.conv2d(x, weights.reshape(2, 1, 1, 2), *constants).tolist() == [[[[66, -2]]]]  # 130/2, -10/4
    assert arithmetic.fully_connected(x, weights, *constants).tolist() == [[66, -1]]  # -2.5 rounded once
    depthwise = arithmetic.depthwise_conv2d(x, np.array([[[2, -5]]], np.int8), *constants)
    assert depthwise.tolist() == [[[[57, -8]]]]  # 112/2, -34/4 = -8.5


def test_an_accumulator_beyond_32_bits_is_refused():
    x, weights = np.full((1, 2), 127, np.int8), np.full((1, 2), 127, np.int8)
    bias = np.array([(1 << 31) - 1], np.int32)
    with pytest.raises(ValueError, match=r"^an accumulator must fit a signed 32-bit number, not 2147515905$"):
        arithmetic.fully_connected_accumulate(x, weights, bias, 0)


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^a 3x3 kernel must fit the padded input of \(2, 2\) pixels$"):
        arithmetic.max_pool(np.zeros((1, 2, 2, 1), np.int8), (3, 3), (1, 1))


@pytest.mark.parametrize(
    "values, expected",
    [([1, 2], 2), ([-1, -2], -2), ([0, 1], 1), ([0, -1], -1), ([127, 127], 127), ([-128, -128], -128), ([2, 2, 3], 2)],
)
def test_average_pool_rounds_ties_away_from_zero(values, expected):
    x = np.array(values, np.int8).reshape(1, 1, -1, 1)
    assert arithmetic.average_pool(x, (1, len(values)), (1, 1)).item() == expected


def test_pools_leave_padding_out():
    x = np.array([[-3, -8], [-5, -10]], np.int8).reshape(1, 2, 2, 1)
    averages = arithmetic.average_pool(x, (2, 2), (1, 1), (1, 0, 1, 0))
    assert averages.reshape(2, 2).tolist() == [[-3, -6], [-4, -7]]  # -3, -5.5, -4, -6.5
    assert arithmetic.max_pool(x, (2, 2), (1, 1), (1, 0, 1, 0)).reshape(2, 2).tolist() == [[-3, -3], [-3, -3]]
    assert arithmetic.max_pool(x, (2, 2), (2, 2), clamp=(-2, 5)).item() == -2


@pytest.mark.parametrize(
    "a, b, output, expected",
    [
        (3, 4, (1.0, 0), 7),
        (3, 4, (2.0, 0), 4),  # 3.5
        (-3, -4, (2.0, 0), -4),  # -3.5
        (100, 100, (1.0, 0), 127),
        (-100, -100, (1.0, 0), -128),
        (1, 2, (1.0, 10), 13),
    ],
)
def test_add(a, b, output, expected):
    x, y = np.array([[a]], np.int8), np.array([[b]], np.int8)
    assert arithmetic.add(x, y, (1.0, 0), (1.0, 0), output).item() == expected


def test_add_aligns_scales_and_zero_points(rng):
    x, y = rng.integers(-128, 128, (2, 1, 1000), dtype=np.int8)
    got = arithmetic.add(x, y, (0.02, -128), (0.05, 7), (0.06, -3), (-100, 90))
    real = (0.02 * (x.astype(float) + 128) + 0.05 * (y.astype(float) - 7)) / 0.06 - 3
    assert np.max(np.abs(got - np.clip(real, -100, 90))) < 0.5001


def test_softmax_known_answers():
    assert arithmetic.softmax(np.array([[5, 5, 5, 5]], np.int8), 0.1).tolist() == [[-64] * 4]
    assert arithmetic.softmax(np.array([[9]], np.int8), 0.1).tolist() == [[127]]  # 256/256 saturates
    assert arithmetic.softmax(np.array([[127, -128]], np.int8), 1.0).tolist() == [[127, -128]]


@pytest.mark.parametrize("scale", [1e-4, 0.01, 0.1446925, 1.0, 40.0])
def test_softmax_is_within_one_step_of_the_real_one(rng, scale):
    x = rng.integers(-128, 128, (500, 12), dtype=np.int8)
    real = np.exp(scale * (x - x.max(axis=1, keepdims=True).astype(float)))
    real = 256 * real / real.sum(axis=1, keepdims=True) - 128
    assert np.max(np.abs(arithmetic.softmax(x, scale) - np.clip(real, -128, 127))) < 1


def test_fixed_point_exponential_and_reciprocal(rng):
    # gemmlowp's own tests ask for 3e-7 of the exponential. An int8 softmax would hide most errors of either.
    a = np.concatenate([[0, -1], -(1 << np.arange(20, 31)), -rng.integers(0, 1 << 31, 5000)])
    assert np.max(np.abs(arithmetic._exp_negative(a) / 2**31 - np.exp(a / 2**26))) < 3e-7
    total = np.concatenate([[1 << 19, (1 << 31) - 1], rng.integers(1 << 19, 1 << 31, 5000)])
    reciprocal, bits = arithmetic._reciprocal(total)
    assert np.max(np.abs(reciprocal / 2.0 ** (31 + bits) * (total / 2**19) - 1)) < 1e-8


def test_softmax_refuses():
    with pytest.raises(ValueError, match=r"^the last axis of a softmax must have 1\.\.4095 values, not 4096$"):
        arithmetic.softmax(np.zeros((1, 4096), np.int8), 1.0)
    message = r"^the scale of a softmax input, times beta, must be above 2\*\*-26, not 1e-09$"
    with pytest.raises(ValueError, match=message):
        arithmetic.softmax(np.zeros((1, 4), np.int8), 1e-9)


# Known answers of BUILTIN_REF, ai-edge-litert 2.3.0

X = np.array([[-128, -100, -17, -16, -15, 0, 1, 64, 127]], np.int8)


def single(value):
    return float(np.float32(value))


@pytest.mark.parametrize(
    "source, target, activation, expected",
    [
        ((0.1, -16), (0.0625, -20), "none", [-128, -128, -22, -20, -18, 6, 7, 108, 127]),
        ((0.03, 5), (0.3, 100), "none", [87, 89, 98, 98, 98, 99, 100, 106, 112]),
        ((0.3, 3), (0.01, -128), "none", [-128, -128, -128, -128, -128, -128, -128, 127, 127]),
        ((0.1, -16), (0.0625, -20), "relu", [-20, -20, -20, -20, -18, 6, 7, 108, 127]),
        ((0.03, 5), (0.3, 100), "relu6", [100, 100, 100, 100, 100, 100, 100, 106, 112]),
        ((0.1, -16), (0.0625, -20), "relu6", [-20, -20, -20, -20, -18, 6, 7, 76, 76]),
        ((0.03, 5), (0.3, 100), "relu_n1_to_1", [97, 97, 98, 98, 98, 99, 100, 103, 103]),
        ((0.3, 3), (0.01, -128), "relu_n1_to_1", [-128, -128, -128, -128, -128, -128, -128, -28, -28]),
    ],
)
def test_rescale(source, target, activation, expected):
    multiplier = arithmetic.quantize_multiplier(single(source[0]) / single(target[0]))
    clamp = arithmetic.activation_range(activation, target[0], target[1])
    result = arithmetic.rescale(X, *multiplier, source[1], target[1], clamp)
    assert result.dtype == np.int8
    assert result.tolist() == [expected]


def test_rescale_from_and_to_uint8():
    x = (X.astype(int) + 128).astype(np.uint8)
    multiplier = arithmetic.quantize_multiplier(single(0.1) / single(0.2))
    assert arithmetic.rescale(x, *multiplier, 3, -7).tolist() == [[-8, 6, 47, 48, 48, 56, 56, 88, 119]]
    multiplier = arithmetic.quantize_multiplier(single(0.2) / single(0.1))
    back = arithmetic.rescale(X, *multiplier, -7, 3, arithmetic.UINT8)
    assert back.dtype == np.uint8
    assert back.tolist() == [[0, 0, 0, 0, 0, 17, 19, 145, 255]]


@pytest.mark.parametrize(
    "scale, zero_point, expected",
    [
        (0.5, 0, [-128, -3, -1, 0, 1, 2, 3, 64, 127]),
        (0.1, -20, [-128, -35, -23, -20, -17, -12, -7, 127, 127]),
        (0.25, 127, [-128, 121, 126, 127, 127, 127, 127, 127, 127]),  # the last is undefined in the kernel
        (1e-40, 0, [-128, -128, -128, 0, 127, 127, 127, 127, 127]),
    ],
)
def test_quantize(scale, zero_point, expected):
    x = np.array([[-100, -1.5, -0.25, -0.0, 0.25, 0.75, 1.25, 31.9, 1e9]], np.float32)
    assert arithmetic.quantize(x, single(scale), zero_point).tolist() == [expected]


def test_dequantize_rounds_the_product_to_float32():
    expected = [
        "-0x1.3200000000000p+6", "-0x1.1066680000000p+6", "-0x1.59999a0000000p+5", "-0x1.5733340000000p+5",
        "-0x1.54ccce0000000p+5", "-0x1.30ccce0000000p+5", "-0x1.2e66680000000p+5", "-0x1.2e66680000000p+4", "0x0.0p+0",
    ]  # fmt: skip
    result = arithmetic.dequantize(X, single(0.3), 127)
    assert result.dtype == np.float32
    assert [float(value).hex() for value in result[0]] == expected


@pytest.mark.parametrize(
    "scale, zero_point, expected",
    [
        (0.05, 0, [-128, -126, -51, -49, -46, 0, 3, 118, 127]),
        (0.3, -50, [-128, -128, 127, 127, 127, 127, 127, 127, 127]),
        (0.001, 127, [-16, -14, -9, -9, -9, -8, -8, -4, 0]),
        (20.0, 0, [-128, -128, -128, -128, -128, 0, 127, 127, 127]),
        (5.149335861206055, -14, [-128, -128, -128, -128, -127, 127, 127, 127, 127]),
    ],
)
def test_logistic(scale, zero_point, expected):
    assert arithmetic.logistic(X, single(scale), zero_point).tolist() == [expected]


@pytest.mark.parametrize("scale, zero_point, x, expected", [
    ("0x1.1e4a4ap-8", -100, 117, 57),  # 56.49999, in double
    ("0x1.65d048p-8", 127, 94, -11),
    ("0x1p-7", 0, 1, 0),
])  # fmt: skip
def test_logistic_is_computed_in_float32(scale, zero_point, x, expected):
    result = arithmetic.logistic(np.array([[x]], np.int8), float.fromhex(scale), zero_point)
    assert result.tolist() == [[expected]]


def test_logistic_is_a_logistic(rng):
    x = np.arange(-128, 128, dtype=np.int8).reshape(1, -1)
    for _ in range(50):
        scale, zero_point = single(2.0 ** rng.uniform(-14, 3)), int(rng.integers(-128, 128))
        real = 128 * np.tanh(scale * (x.astype(float) - zero_point) / 2)
        assert np.max(np.abs(arithmetic.logistic(x, scale, zero_point) - np.clip(real, -128, 127))) < 1


MEANS = [[-128, 127, 3, -9], [-127, 126, 4, -9], [-126, 127, 3, 7], [-128, 125, 3, 5], [5, 5, 5, 5], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    "source, target, expected",
    [
        ((0.1, 0), (0.1, 0), [-84, 86, 4, 1]),
        ((0.1, 7), (0.0625, -20), [-128, 106, -26, -31]),
        ((2.0, -128), (0.004, 127), [127, 127, 127, 127]),
        ((1e-4, 3), (2.0, 5), [5, 5, 5, 5]),
    ],
)
def test_mean(source, target, expected):
    multiplier = arithmetic.mean_multiplier(single(source[0]) / single(target[0]), 6)
    x = np.array(MEANS, np.int8).reshape(1, 2, 3, 4)
    assert arithmetic.mean(x, *multiplier, source[1], target[1]).tolist() == [expected]


@pytest.mark.parametrize(
    "real, pixels, expected",
    [
        (1.0, 1, (HALF, 1)),
        (1.0, 4, (HALF, -1)),
        (1.0, 6, (2 * HALF // 3, -1)),  # below 2**30
        (2.0**-31, 5, (2 * HALF // 5, -31)),  # the shift leaves one bit of two
        (0.0, 5, (0, -2)),
    ],
)
def test_mean_multiplier(real, pixels, expected):
    assert arithmetic.mean_multiplier(real, pixels) == expected


def test_pad_surrounds_the_map_and_its_channels():
    x = np.array([[[[-128, 5], [127, -9]]]], np.int8)
    seven = [7, 7, 7, 7]
    expected = [[[seven] * 5, [seven, [7, 7, -128, 5], [7, 7, 127, -9], seven, seven]]]
    assert arithmetic.pad(x, (1, 0, 1, 2), (2, 0), 7).tolist() == expected
