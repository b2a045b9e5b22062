"""Exact int8 integer arithmetic of the TensorFlow Lite reference kernels.

Activations are int8 arrays with a leading batch axis: ``(N, H, W, C)`` for maps, ``(N, C)`` for vectors. An
activation ``a`` of scale ``s`` and zero point ``z`` stands for ``s * (a - z)``. Weights are symmetric (zero point 0).
Every function equals the kernel that the TFLite interpreter selects with ``BUILTIN_REF``, to the last bit; where that
kernel overflows an int32 (undefined in C++), the functions here raise :class:`ValueError`.

A ``padding`` is ``(top, bottom, left, right)`` in pixels, a ``stride`` or ``kernel`` is ``(rows, columns)``, and a
``clamp`` is an inclusive ``(minimum, maximum)`` of the int8 result.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "activation_range",
    "add",
    "average_pool",
    "binarize",
    "conv2d",
    "conv2d_accumulate",
    "depthwise_conv2d",
    "depthwise_conv2d_accumulate",
    "dequantize",
    "fully_connected",
    "fully_connected_accumulate",
    "logistic",
    "max_pool",
    "mean",
    "mean_multiplier",
    "multiply_by_quantized_multiplier",
    "output_size",
    "pad",
    "quantize",
    "quantize_multiplier",
    "requantize",
    "rescale",
    "same_padding",
    "softmax",
    "windows",
]

Array = NDArray[Any]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]

INT8 = (-128, 127)
INT4 = (-8, 7)
BINARY = (-1, 1)
UINT8 = (0, 255)
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


# Fixed-point multiplication. Ref: gemmlowp ``fixedpoint/fixedpoint.h``, TFLite ``kernels/internal/common.h``.


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Split ``real`` >= 0 into ``(multiplier, shift)`` with ``real ~ multiplier * 2**(shift - 31)``.

    ``multiplier`` is in ``[2**30, 2**31)``, or both are 0 where ``real`` is 0 or ``shift`` would be below -31. A
    positive ``shift`` is a left shift. Equals ``QuantizeMultiplier`` of ``kernels/internal/quantization_util.cc``.
    """
    if not (math.isfinite(real) and real >= 0):
        raise ValueError(f"a real multiplier must be finite and not negative, not {real}")
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * (1 << 31) + 0.5)
    if multiplier == 1 << 31:
        multiplier, shift = 1 << 30, shift + 1
    if multiplier == 0 or shift < -31:
        return 0, 0
    return multiplier, shift


def _int32(values: Array, what: str) -> Array:
    """Return ``values`` as int64 after a check that each fits 32 bits."""
    if values.size and (values.min() < INT32_MIN or values.max() > INT32_MAX):
        worst = values.flat[np.argmax(np.abs(values))]
        raise ValueError(f"{what} must fit a signed 32-bit number, not {int(worst)}")
    return values.astype(np.int64)


def _high_mul(a: ArrayLike, b: ArrayLike) -> Array:
    """``a * b / 2**31`` rounded to nearest, ties up: ``SaturatingRoundingDoublingHighMul`` of gemmlowp."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.minimum((product + (1 << 30)) >> 31, INT32_MAX)


def _divide_by_power(values: Array, exponent: ArrayLike) -> Array:
    """``values / 2**exponent`` rounded to nearest, ties away from zero: ``RoundingDivideByPOT`` of gemmlowp."""
    exponent = np.asarray(exponent, np.int64)
    half = (1 << exponent) >> 1
    return np.sign(values) * ((np.abs(values) + half) >> exponent)


def multiply_by_quantized_multiplier(
    acc: ArrayLike, multiplier: ArrayLike, shift: ArrayLike, rounding: str = "double"
) -> Array:
    """``acc * multiplier * 2**(shift - 31)``, rounded, as int64. The arguments broadcast.

    ``"double"`` rounds twice, as convolutions and additions do: the high half of the product to nearest (ties up), then
    the right shift to nearest (ties away from zero); a left shift comes before the product. ``"single"`` rounds once,
    to nearest with ties up, as FULLY_CONNECTED does. Raises :class:`ValueError` if ``acc``, or with ``"double"``
    ``acc`` after the left shift, does not fit 32 bits, or if ``shift`` is outside -31..30.
    """
    acc = _int32(np.asarray(acc, np.int64), "an accumulator")
    multiplier, shift = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
    if shift.size and (shift.min() < -31 or shift.max() > 30):
        raise ValueError(f"a shift must be in -31..30, not {int(shift.flat[np.argmax(np.abs(shift))])}")
    if rounding == "single":
        return (acc * multiplier + (1 << (30 - shift))) >> (31 - shift)
    if rounding != "double":
        raise ValueError(f"rounding must be 'double' or 'single', not {rounding!r}")
    shifted = _int32(acc << np.maximum(shift, 0), "an accumulator after its left shift")
    return _divide_by_power(_high_mul(shifted, multiplier), np.maximum(-shift, 0))


def requantize(
    acc: ArrayLike,
    multipliers: ArrayLike,
    shifts: ArrayLike,
    zero_point: int,
    clamp: Pair = INT8,
    rounding: str = "double",
) -> Array:
    """Scale accumulators (last axis: channels), add the output's zero point, clamp. Returns int8."""
    scaled = multiply_by_quantized_multiplier(acc, multipliers, shifts, rounding) + zero_point
    return np.clip(scaled, *clamp).astype(np.int8)


def activation_range(kind: str, scale: float, zero_point: int) -> Pair:
    """The int8 clamp of an activation: ``"none"``, ``"relu"``, ``"relu6"`` or ``"relu_n1_to_1"``.

    Equals ``CalculateActivationRangeQuantized`` of TFLite ``kernels/kernel_util.cc``, float32 division included.
    """

    def quantized(value: float) -> int:
        quotient = np.float32(min(abs(value) / float(np.float32(scale)), 2.0**31))
        return zero_point + int(math.copysign(math.floor(float(quotient) + 0.5), value))

    if kind == "none":
        return INT8
    if kind == "relu":
        return max(INT8[0], quantized(0.0)), INT8[1]
    if kind == "relu6":
        return max(INT8[0], quantized(0.0)), min(INT8[1], quantized(6.0))
    if kind == "relu_n1_to_1":
        return max(INT8[0], quantized(-1.0)), min(INT8[1], quantized(1.0))
    raise ValueError(f"an activation must be 'none', 'relu', 'relu6' or 'relu_n1_to_1', not {kind!r}")


# Windows


def same_padding(size: int, kernel: int, stride: int) -> Pair:
    """Padding ``(before, after)`` along one axis for TFLite's ``SAME``; an odd pixel goes behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def output_size(size: int, kernel: int, stride: int, padding: Pair) -> int:
    """Number of window positions along one axis; at most 0 if the kernel does not fit."""
    return (size + sum(padding) - kernel) // stride + 1


def windows(x: Array, kernel: Pair, stride: Pair, padding: Padding, fill: float) -> Iterator[tuple[int, int, Array]]:
    """Yield ``(ky, kx, values)``: for each kernel position, the padded input's value at every window (N, OH, OW, C)."""
    top, bottom, left, right = padding
    rows = output_size(x.shape[1], kernel[0], stride[0], (top, bottom))
    columns = output_size(x.shape[2], kernel[1], stride[1], (left, right))
    if rows < 1 or columns < 1:
        raise ValueError(f"a {kernel[0]}x{kernel[1]} kernel must fit the padded input of {x.shape[1:3]} pixels")
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            yield ky, kx, padded[:, ky :: stride[0], kx :: stride[1]][:, :rows, :columns]


def conv2d_accumulate(
    x: Array, weights: Array, bias: Array, input_zero_point: int, stride: Pair = (1, 1), padding: Padding = (0, 0, 0, 0),
    outside: int = 0,
) -> Array:  # fmt: skip
    """Accumulators (N, OH, OW, O), int64 that fit 32 bits, of a convolution with ``weights`` (O, KH, KW, I).

    Padding pixels hold ``outside`` more than the input's zero point: with 0 they add nothing.
    """
    # float64 holds every partial sum exactly (they stay far below 2**53) and brings the fast matrix product
    centred = x.astype(np.float64) - input_zero_point
    total: Array = np.asarray(bias, np.float64)
    for ky, kx, values in windows(centred, (weights.shape[1], weights.shape[2]), stride, padding, outside):
        part = values.reshape(-1, values.shape[3]) @ weights[:, ky, kx].T.astype(np.float64)
        total = total + part.reshape(*values.shape[:3], -1)
    return _int32(total, "an accumulator")


def depthwise_conv2d_accumulate(
    x: Array, weights: Array, bias: Array, input_zero_point: int, stride: Pair = (1, 1), padding: Padding = (0, 0, 0, 0),
    outside: int = 0,
) -> Array:  # fmt: skip
    """Accumulators (N, OH, OW, O) of a depthwise convolution with ``weights`` (KH, KW, O).

    ``O`` is a multiple ``m`` of the input channels; output channel ``o`` reads input channel ``o // m``. Padding pixels hold
    ``outside`` more than the input's zero point.
    """
    total: Array = np.asarray(bias, np.int64)
    repeated = np.repeat(x.astype(np.int64) - input_zero_point, weights.shape[2] // x.shape[3], axis=3)
    for ky, kx, values in windows(repeated, (weights.shape[0], weights.shape[1]), stride, padding, outside):
        total = total + values * weights[ky, kx].astype(np.int64)
    return _int32(total, "an accumulator")


def fully_connected_accumulate(x: Array, weights: Array, bias: Array, input_zero_point: int) -> Array:
    """Accumulators (N, O) of ``weights`` (O, I) applied to ``x``, whose axes behind the first are flattened."""
    centred = x.reshape(len(x), -1).astype(np.float64) - input_zero_point
    return _int32(centred @ weights.T.astype(np.float64) + np.asarray(bias, np.float64), "an accumulator")


def binarize(acc: Array) -> Array:
    """The value of a binary tensor for accumulators, bias and all: +1 where they are at least 0, else -1; int8."""
    return np.where(acc >= 0, 1, -1).astype(np.int8)


# Kernels. Ref: TFLite ``kernels/internal/reference/integer_ops``.


def conv2d(
    x: Array,
    weights: Array,
    bias: Array,
    multipliers: ArrayLike,
    shifts: ArrayLike,
    input_zero_point: int,
    output_zero_point: int,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    clamp: Pair = INT8,
    rounding: str = "double",
) -> Array:
    """CONV_2D: :func:`conv2d_accumulate`, then :func:`requantize` per output channel."""
    acc = conv2d_accumulate(x, weights, bias, input_zero_point, stride, padding)
    return requantize(acc, multipliers, shifts, output_zero_point, clamp, rounding)


def depthwise_conv2d(
    x: Array,
    weights: Array,
    bias: Array,
    multipliers: ArrayLike,
    shifts: ArrayLike,
    input_zero_point: int,
    output_zero_point: int,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    clamp: Pair = INT8,
    rounding: str = "double",
) -> Array:
    """DEPTHWISE_CONV_2D: :func:`depthwise_conv2d_accumulate`, then :func:`requantize` per output channel."""
    acc = depthwise_conv2d_accumulate(x, weights, bias, input_zero_point, stride, padding)
    return requantize(acc, multipliers, shifts, output_zero_point, clamp, rounding)


def fully_connected(
    x: Array,
    weights: Array,
    bias: Array,
    multipliers: ArrayLike,
    shifts: ArrayLike,
    input_zero_point: int,
    output_zero_point: int,
    clamp: Pair = INT8,
    rounding: str = "single",
) -> Array:
    """FULLY_CONNECTED: :func:`fully_connected_accumulate`, then :func:`requantize`, rounding once."""
    acc = fully_connected_accumulate(x, weights, bias, input_zero_point)
    return requantize(acc, multipliers, shifts, output_zero_point, clamp, rounding)


def add(
    a: Array, b: Array, a_quantization: tuple[float, int], b_quantization: tuple[float, int],
    output_quantization: tuple[float, int], clamp: Pair = INT8,
) -> Array:  # fmt: skip
    """ADD of two maps of one shape; each ``*_quantization`` is ``(scale, zero_point)``.

    Both inputs are shifted left by 20 and brought to twice their larger scale, added, and the sum is brought to the
    output's scale: three rounded multiplications. Ref: TFLite ``kernels/add.cc`` and ``integer_ops/add.h``.
    """
    twice_larger = 2 * max(a_quantization[0], b_quantization[0])

    def aligned(x: Array, scale: float, zero_point: int) -> Array:
        return multiply_by_quantized_multiplier(
            (x.astype(np.int64) - zero_point) << 20, *quantize_multiplier(scale / twice_larger)
        )

    total = aligned(a, *a_quantization) + aligned(b, *b_quantization)
    output_scale, output_zero_point = output_quantization
    multiplier, shift = quantize_multiplier(twice_larger / ((1 << 20) * output_scale))
    return requantize(total, multiplier, shift, output_zero_point, clamp)


def average_pool(x: Array, kernel: Pair, stride: Pair, padding: Padding = (0, 0, 0, 0), clamp: Pair = INT8) -> Array:
    """AVERAGE_POOL_2D: mean of the int8 values inside the map, ties away from zero. Input and output scale agree."""
    ones = np.ones((1, *x.shape[1:3], 1), np.int64)
    count = sum(values for _, _, values in windows(ones, kernel, stride, padding, 0))
    total = sum(values for _, _, values in windows(x.astype(np.int64), kernel, stride, padding, 0))
    mean = np.sign(total) * ((np.abs(total) + count // 2) // count)
    return np.clip(mean, *clamp).astype(np.int8)


def max_pool(x: Array, kernel: Pair, stride: Pair, padding: Padding = (0, 0, 0, 0), clamp: Pair = INT8) -> Array:
    """MAX_POOL_2D: largest int8 value inside the map. Input and output scale agree."""
    largest = np.max([values for _, _, values in windows(x, kernel, stride, padding, INT8[0])], axis=0)
    return np.clip(largest, *clamp).astype(np.int8)


def mean_multiplier(real: float, pixels: int) -> tuple[int, int]:
    """``(multiplier, shift)`` of ``real / pixels`` as MEAN has it: the quotient of the multiplier of ``real``, cut off.

    ``real`` is input scale / output scale. The multiplier may be below ``2**30``.
    """
    multiplier, shift = quantize_multiplier(real)
    bits = min(pixels.bit_length() - 1, 32, 31 + shift)
    return (multiplier << bits) // pixels, shift - bits


def mean(x: Array, multiplier: int, shift: int, input_zero_point: int, output_zero_point: int) -> Array:
    """MEAN of ``x`` (N, H, W, C) over H and W with :func:`mean_multiplier`; (N, C). Ref: ``internal/reference/reduce.h``."""
    acc = (x.astype(np.int64) - input_zero_point).sum(axis=(1, 2))
    return requantize(acc, multiplier, shift, output_zero_point)


def pad(x: Array, padding: Padding, channels: Pair, fill: int) -> Array:
    """PAD: ``padding`` pixels around the map and ``channels`` (front, back) beside its channels, of value ``fill``."""
    top, bottom, left, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), channels), constant_values=fill)


def rescale(
    x: Array, multiplier: int, shift: int, input_zero_point: int, output_zero_point: int, clamp: Pair = INT8
) -> Array:
    """QUANTIZE of integers, and RELU and its kin: ``multiplier * (x - input_zero_point) + output_zero_point``.

    ``x`` is int8 or uint8. The result is int8, or uint8 if ``clamp`` reaches above 127.
    """
    centred = x.astype(np.int64) - input_zero_point
    scaled = multiply_by_quantized_multiplier(centred, multiplier, shift) + output_zero_point
    return np.clip(scaled, *clamp).astype(np.uint8 if clamp[1] > INT8[1] else np.int8)


def quantize(x: Array, scale: float, zero_point: int) -> Array:
    """QUANTIZE of float32: ``x / scale`` in float32, rounded half away from zero, plus ``zero_point``; int8.

    Saturates, also where the kernel's conversion to int32 is undefined in C++. ``x`` must not have NaN.
    """
    with np.errstate(over="ignore"):
        quotient = (x.astype(np.float32) / np.float32(scale)).astype(np.float64)
    rounded = np.copysign(np.floor(np.abs(quotient) + 0.5), quotient)
    return np.clip(rounded + zero_point, *INT8).astype(np.int8)


def dequantize(x: Array, scale: float, zero_point: int) -> Array:
    """DEQUANTIZE: ``scale * (x - zero_point)`` in float32."""
    return np.float32(scale) * (x.astype(np.float32) - np.float32(zero_point))


# Logistic. Ref: TFLite ``kernels/activations.cc``, ``LUTPopulate`` of ``kernels/internal/common.h``.


def logistic(x: Array, scale: float, zero_point: int) -> Array:
    """LOGISTIC of an input of ``scale`` and ``zero_point``; the output's scale is 1/256, its zero point -128.

    The kernel has a table of the 256 results in float32 arithmetic; here too each operation rounds to float32.
    """
    real = dequantize(x, scale, zero_point)
    with np.errstate(over="ignore"):
        exponential = np.exp(-real.astype(np.float64)).astype(np.float32)
    result = np.float32(1) / (np.float32(1) + exponential)
    return np.clip(np.floor(result.astype(np.float64) * 256 + 0.5) - 128, *INT8).astype(np.int8)


# Softmax. Ref: TFLite ``kernels/internal/reference/softmax.h``, gemmlowp ``fixedpoint/fixedpoint.h``. ``Qk`` is a
# 32-bit fixed-point number with k integer bits, a sign, and 31 - k fractional bits.


def softmax(x: Array, scale: float, beta: float = 1.0) -> Array:
    """SOFTMAX over the last axis of an input of ``scale``; the output's scale is 1/256, its zero point -128.

    The last axis must be shorter than 4096: the sum of exponentials has 12 integer bits.
    """
    if not 0 < x.shape[-1] < 4096:
        raise ValueError(f"the last axis of a softmax must have 1..4095 values, not {x.shape[-1]}")
    multiplier, left_shift = quantize_multiplier(min(beta * scale * (1 << 26), float(INT32_MAX)))
    if left_shift < 0:
        raise ValueError(f"the scale of a softmax input, times beta, must be above 2**-26, not {beta * scale}")
    smallest = -math.floor(31 * (1 << 26) / (1 << left_shift))
    difference = x.astype(np.int64) - x.max(axis=-1, keepdims=True)
    counted = difference >= smallest
    exponential = _exp_negative(_high_mul(np.where(counted, difference, 0) << left_shift, multiplier))
    total = np.where(counted, _divide_by_power(exponential, 12), 0).sum(axis=-1, keepdims=True)
    reciprocal, bits_over_one = _reciprocal(total)
    scaled = _divide_by_power(_high_mul(reciprocal, exponential), bits_over_one + 31 - 8)
    return np.clip(np.where(counted, scaled, 0) - 128, *INT8).astype(np.int8)


def _exp_negative(a: Array) -> Array:
    """exp(a) in Q0 of ``a`` <= 0 in Q5: ``exp_on_negative_values``."""
    quarter = 1 << 24
    fraction = (a & (quarter - 1)) - quarter
    # Taylor series around -1/8 of the part in [-1/4, 0)
    x = (fraction << 5) + (1 << 28)
    x2 = _high_mul(x, x)
    x3, x4 = _high_mul(x2, x), _high_mul(x2, x2)
    series = _divide_by_power(_high_mul(_divide_by_power(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + _high_mul(1895147668, x + series)
    # exp(-2**k) in Q0 for k = -2..4, each applied if its bit is set in the rest
    for bit, factor in enumerate((1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242), start=24):
        result = np.where((fraction - a) >> bit & 1, _high_mul(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


def _reciprocal(total: Array) -> tuple[Array, Array]:
    """``(r, n)``: 1/total = r * 2**-n for ``total`` in Q12, ``r`` in Q0; ``one_over_one_plus_x_for_x_in_0_1``."""
    headroom = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    half_denominator = ((total << headroom) - (1 << 31) + INT32_MAX + 1) >> 1
    x = 1515870810 + _high_mul(half_denominator, -1010580540)
    for _ in range(3):  # Newton and Raphson, in Q2
        x = x + np.clip(_high_mul(x, (1 << 29) - _high_mul(half_denominator, x)) << 2, INT32_MIN, INT32_MAX)
    return np.clip(x << 1, INT32_MIN, INT32_MAX), 12 - headroom
