/* The layers that the host computes; see gossamer.h. The model is golden/arithmetic.py. */

#include "gossamer.h"

/* Right shifts of negative numbers round down, which C leaves to the compiler. */
typedef char gossamer_shifts_are_arithmetic[(-3 >> 1) == -2 ? 1 : -1];

#define LARGEST INT32_MAX

static int64_t clip(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* a * b / 2**31, rounded to nearest, ties up. */
static int64_t high_mul(int64_t a, int64_t b)
{
    int64_t product = (a * b + (1 << 30)) >> 31;
    return product > LARGEST ? LARGEST : product;
}

/* value / 2**exponent, rounded to nearest, ties away from zero. */
static int64_t divide_by_power(int64_t value, int exponent)
{
    int64_t half = ((int64_t)1 << exponent) >> 1;
    return value < 0 ? -((-value + half) >> exponent) : (value + half) >> exponent;
}

struct gossamer_multiplier gossamer_multiplier(double real)
{
    struct gossamer_multiplier zero = {0, 0}, found = {0, 0};
    if (!(real > 0 && real < 4294967296.0 * 4294967296.0))
        return zero;
    /* real = fraction * 2**shift with a fraction in [1/2, 1). All of that is exact. */
    while (real >= 1) {
        real /= 2;
        ++found.shift;
    }
    while (real < 0.5 && found.shift >= -32) {
        real *= 2;
        --found.shift;
    }
    int64_t multiplier = (int64_t)(real * 2147483648.0 + 0.5);
    if (multiplier == (int64_t)1 << 31) {
        multiplier >>= 1;
        ++found.shift;
    }
    found.multiplier = (int32_t)multiplier;
    return found.shift < -31 ? zero : found;
}

/* Quantization */

void gossamer_quantize(const float *x, size_t count, double scale, int zero_point, int8_t *y)
{
    const double most = 1e6;
    float by = (float)scale;
    for (size_t i = 0; i < count; ++i) {
        float quotient = x[i] / by;
        double size = quotient < 0 ? -(double)quotient : (double)quotient;
        int32_t rounded = (int32_t)((size < most ? size : most) + 0.5);
        y[i] = (int8_t)clip((quotient < 0 ? -rounded : rounded) + zero_point, -128, 127);
    }
}

void gossamer_dequantize(const int8_t *x, size_t count, double scale, int zero_point, float *y)
{
    for (size_t i = 0; i < count; ++i)
        y[i] = (float)scale * ((float)x[i] - (float)zero_point);
}

void gossamer_rescale(
    const int8_t *x, size_t count, struct gossamer_multiplier by, int input_zero_point, int output_zero_point, int8_t *y)
{
    for (size_t i = 0; i < count; ++i) {
        int64_t centred = x[i] - input_zero_point;
        int64_t shifted = by.shift > 0 ? centred * ((int64_t)1 << by.shift) : centred;
        int64_t scaled = divide_by_power(high_mul(shifted, by.multiplier), by.shift < 0 ? -by.shift : 0);
        y[i] = (int8_t)clip(scaled + output_zero_point, -128, 127);
    }
}

/* Logistic */

/* exp(x) for -50 < x < 50, to a few units in the last place. */
static double exponential(double x)
{
    int power = (int)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5));
    /* What is left is at most ln(2)/2; the first part of ln(2) has so few bits that its multiples are exact. */
    double rest = x - power * 0.693147180369123816490 - power * 1.90821492927058770002e-10;
    double sum = 1;
    for (int n = 16; n > 0; --n)
        sum = 1 + sum * rest / n;
    for (; power > 0; --power)
        sum *= 2;
    for (; power < 0; ++power)
        sum /= 2;
    return sum;
}

void gossamer_logistic(double scale, int zero_point, int8_t table[256])
{
    for (int i = 0; i < 256; ++i) {
        int8_t x = (int8_t)(i - 128);
        float real;
        gossamer_dequantize(&x, 1, scale, zero_point, &real);
        /* Beyond that the result is 0 or 1. */
        double inner = real > 40 ? 40 : real < -40 ? -40 : (double)real;
        float denominator = 1.0f + (float)exponential(-inner);
        float result = 1.0f / denominator;
        table[i] = (int8_t)clip((int32_t)((double)result * 256 + 0.5) - 128, -128, 127);
    }
}

/* Softmax. Qk is a 32-bit fixed-point number with k integer bits, a sign, and 31 - k fractional bits. */

/* exp(a) in Q0 of a <= 0 in Q5. */
static int64_t exp_negative(int64_t a)
{
    static const int32_t factors[] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    const int64_t quarter = 1 << 24;
    if (a == 0)
        return LARGEST;
    int64_t fraction = (a & (quarter - 1)) - quarter, rest = fraction - a;
    /* Taylor series around -1/8 of the part in [-1/4, 0). */
    int64_t x = fraction * 32 + (1 << 28);
    int64_t x2 = high_mul(x, x), x3 = high_mul(x2, x), x4 = high_mul(x2, x2);
    int64_t series = divide_by_power(high_mul(divide_by_power(x4, 2) + x3, 715827883) + x2, 1);
    int64_t result = 1895147668 + high_mul(1895147668, x + series);
    /* exp(-2**k) for k = -2..4, each if its bit is set in the rest. */
    for (int i = 0; i < 7; ++i)
        if (rest >> (24 + i) & 1)
            result = high_mul(result, factors[i]);
    return result;
}

/* 1/total = result * 2**-bits for `total` in Q12, the result in Q0. */
static int64_t reciprocal(int64_t total, int *bits)
{
    int headroom = 0;
    while (!(total >> (31 - headroom)))
        ++headroom;
    int64_t half_denominator = total << headroom >> 1;
    int64_t x = 1515870810 + high_mul(half_denominator, -1010580540);
    for (int i = 0; i < 3; ++i) /* Newton and Raphson, in Q2 */
        x += clip(high_mul(x, (1 << 29) - high_mul(half_denominator, x)) * 4, INT32_MIN, LARGEST);
    *bits = 12 - headroom;
    return clip(x * 2, INT32_MIN, LARGEST);
}

bool gossamer_softmax(const int8_t *x, size_t count, double scale, double beta, int8_t *y)
{
    double scaled = beta * scale * 67108864.0;
    struct gossamer_multiplier by = gossamer_multiplier(scaled >= LARGEST ? LARGEST : scaled);
    if (count < 1 || count > 4095 || by.multiplier == 0 || by.shift < 0)
        return false;
    int64_t smallest = -(((int64_t)31 << 26) >> by.shift), total = 0;
    int most = -128, bits;
    for (size_t i = 0; i < count; ++i)
        most = x[i] > most ? x[i] : most;
    for (size_t i = 0; i < count; ++i) {
        int64_t difference = x[i] - most;
        if (difference >= smallest)
            total += divide_by_power(exp_negative(high_mul(difference * ((int64_t)1 << by.shift), by.multiplier)), 12);
    }
    int64_t inverse = reciprocal(total, &bits);
    for (size_t i = 0; i < count; ++i) {
        int64_t difference = x[i] - most, result = 0;
        if (difference >= smallest) {
            int64_t value = exp_negative(high_mul(difference * ((int64_t)1 << by.shift), by.multiplier));
            result = divide_by_power(high_mul(inverse, value), bits + 31 - 8);
        }
        y[i] = (int8_t)clip(result - 128, -128, 127);
    }
    return true;
}
