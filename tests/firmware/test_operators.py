"""The host's layers in C, against the golden arithmetic."""

import ctypes
import inspect
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from gossamer.golden import arithmetic, digits
from gossamer.golden.network import Softmax
from gossamer.golden.program import TensorPlace
from gossamer.golden.spec import CONFIGS

FIRMWARE = Path(__file__).parents[2] / "firmware"
SCALES = [1e-6, 0.001, 0.0047, 1 / 256, 1 / 16, 0.1, 0.3, 1.0, 3.7, 1000.0]


class Multiplier(ctypes.Structure):
    _fields_ = [("multiplier", ctypes.c_int32), ("shift", ctypes.c_int)]


class Place(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("address", "rows", "columns", "channels", "pitch", "offset")]


@pytest.fixture(scope="module")
def c(shared_library):
    library = ctypes.CDLL(shared_library("memory"))
    library.gossamer_multiplier.restype = Multiplier
    library.gossamer_multiplier.argtypes = [ctypes.c_double]
    library.gossamer_softmax.restype = ctypes.c_bool
    library.gossamer_place_bytes.restype = ctypes.c_size_t
    library.gossamer_crc.restype = ctypes.c_uint32
    return library


def pointer(array):
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def softmax(c, x, scale, beta=1.0):
    y = np.zeros_like(x)
    ok = c.gossamer_softmax(pointer(x), ctypes.c_size_t(len(x)), ctypes.c_double(scale), ctypes.c_double(beta), pointer(y))
    return y if ok else None


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 4095])
@pytest.mark.parametrize("scale", [0.0001, 0.003, 0.05, 0.2, 1.0, 9.0])
def test_softmax_matches_golden(c, rng, count, scale):
    for spread in (1, 20, 256):
        for _ in range(2 if count > 1000 else 12):
            x = np.clip(rng.integers(0, spread, count) + rng.integers(-128, 129 - spread), -128, 127).astype(np.int8)
            beta = float(rng.choice([1.0, 0.5, 1.7]))
            np.testing.assert_array_equal(softmax(c, x, scale, beta), arithmetic.softmax(x, scale, beta))


def test_softmax_of_all_pairs_matches_golden(c):
    scale = 0.07
    pairs = np.stack(np.meshgrid(np.arange(-128, 128, 3), np.arange(-128, 128))).reshape(2, -1).T.astype(np.int8).copy()
    expected = arithmetic.softmax(pairs, scale)
    for x, y in zip(pairs, expected):
        np.testing.assert_array_equal(softmax(c, x, scale), y)


def test_softmax_of_the_digits_matches_the_network(c):
    network = digits.load()
    layer = network.layers[-1]
    assert isinstance(layer, Softmax)
    x = digits.test_set()[0][:50]
    tensors = network.run(x)
    logits = tensors[layer.inputs[0]]
    scale = network.tensors[layer.inputs[0]].scale
    for one, expected in zip(logits, tensors[network.output]):
        np.testing.assert_array_equal(softmax(c, one.copy(), scale, getattr(layer, "beta", 1.0)), expected)


@pytest.mark.parametrize("count, scale", [(0, 0.1), (4096, 0.1), (3, 2**-27.001), (3, -1.0), (3, float("nan"))])
def test_softmax_refuses_what_golden_refuses(c, count, scale):
    x = np.zeros(count, np.int8)
    with pytest.raises(ValueError, match=r"softmax|multiplier"):
        arithmetic.softmax(x, scale)
    assert softmax(c, x, scale) is None


def test_softmax_takes_the_smallest_scale(c):
    x = np.array([-128, 127, 3], np.int8)
    np.testing.assert_array_equal(softmax(c, x, 2**-27), arithmetic.softmax(x, 2**-27))


def test_constants_of_softmax_are_goldens():
    """Their last bits do not show in 8 bits of output."""
    source = (FIRMWARE / "gossamer_operators.c").read_text()
    for function in (arithmetic._exp_negative, arithmetic._reciprocal):
        numbers = re.findall(r"\d{3,}", inspect.getsource(function))
        assert len(numbers) >= 2
        assert all(re.search(rf"\b{number}\b", source) for number in numbers)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("zero_point", [-128, -7, 0, 127])
def test_logistic_matches_golden_for_all_inputs(c, scale, zero_point):
    table = np.zeros(256, np.int8)
    c.gossamer_logistic(ctypes.c_double(scale), zero_point, pointer(table))
    np.testing.assert_array_equal(table, arithmetic.logistic(np.arange(-128, 128).astype(np.int8), scale, zero_point))


def test_logistic_matches_golden_for_random_scales(c, rng):
    x, table = np.arange(-128, 128).astype(np.int8), np.zeros(256, np.int8)
    for _ in range(1000):
        scale, zero_point = float(np.exp(rng.uniform(-9, 3))), int(rng.integers(-128, 128))
        c.gossamer_logistic(ctypes.c_double(scale), zero_point, pointer(table))
        np.testing.assert_array_equal(table, arithmetic.logistic(x, scale, zero_point))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("zero_point", [-128, -7, 0, 127])
def test_quantize_matches_golden(c, rng, scale, zero_point):
    halves = (np.arange(-300, 301) * 0.5 * scale).astype(np.float32)
    near = np.nextafter(halves, np.float32(np.inf))
    wide = (rng.standard_normal(2000) * 100 * scale).astype(np.float32)
    extremes = np.array([0, -0.0, np.inf, -np.inf, 3e38, -3e38, 1e-45, -1e-45], np.float32)
    x = np.concatenate([halves, near, -near, wide, extremes])
    y = np.zeros(len(x), np.int8)
    c.gossamer_quantize(pointer(x), ctypes.c_size_t(len(x)), ctypes.c_double(scale), zero_point, pointer(y))
    np.testing.assert_array_equal(y, arithmetic.quantize(x, scale, zero_point))


@pytest.mark.parametrize("scale", SCALES)
def test_dequantize_matches_golden_for_all_inputs(c, scale):
    x, y = np.arange(-128, 128).astype(np.int8), np.zeros(256, np.float32)
    for zero_point in (-128, -3, 0, 127):
        c.gossamer_dequantize(pointer(x), ctypes.c_size_t(256), ctypes.c_double(scale), zero_point, pointer(y))
        np.testing.assert_array_equal(y, arithmetic.dequantize(x, scale, zero_point))


def test_multiplier_matches_golden(c, rng):
    reals = [0.0, 1.0, 0.5, 2**-32, 2**-33, 1 - 2**-53, 2.0**29, 1e-300, 5e-324, 1e-9, *np.exp(rng.uniform(-25, 20, 5000))]
    for real in map(float, reals):
        found = c.gossamer_multiplier(real)
        assert (found.multiplier, found.shift) == arithmetic.quantize_multiplier(real), real


def test_rescale_matches_golden_for_all_inputs(c, rng):
    x, y = np.arange(-128, 128).astype(np.int8), np.zeros(256, np.int8)
    for real in [1.0, 0.5, 2.0, 1e-6, 100.0, *np.exp(rng.uniform(-8, 5, 300))]:
        first, second = (int(point) for point in rng.integers(-128, 128, 2))
        by = arithmetic.quantize_multiplier(float(real))
        c.gossamer_rescale(pointer(x), ctypes.c_size_t(256), Multiplier(*by), first, second, pointer(y))
        np.testing.assert_array_equal(y, arithmetic.rescale(x, *by, first, second))


@pytest.mark.parametrize("name", ["up5k", "ecp5_25"])
@pytest.mark.parametrize("channels, pitch, offset", [(1, 1, 0), (3, 3, 0), (3, 16, 0), (5, 16, 7), (16, 16, 0)])
def test_maps_lie_in_the_store_as_golden_has_them(c, rng, name, channels, pitch, offset):
    config = CONFIGS[name]
    place = TensorPlace(64, 4, 5, channels, pitch, offset)
    twin = Place(64, 4, 5, channels, pitch, offset)
    values = rng.integers(-128, 128, (4, 5, channels)).astype(np.int8)
    size = c.gossamer_place_bytes(ctypes.byref(twin), config.store_bytes)
    assert size == place.size(config)
    stored, back = np.full(size, 0x55, np.uint8), np.zeros_like(values)
    c.gossamer_to_store(ctypes.byref(twin), config.store_bytes, pointer(values), ctypes.c_int8(-9), pointer(stored))
    np.testing.assert_array_equal(stored, place.to_store(values, -9, config))
    c.gossamer_from_store(ctypes.byref(twin), config.store_bytes, pointer(stored), pointer(back))
    np.testing.assert_array_equal(back, values)


def test_crc_is_that_of_zlib(c, rng):
    data = rng.integers(0, 256, 1000).astype(np.uint8)
    crc = 0
    for part in (data[:0], data[:7], data[7:600], data[600:]):
        crc = c.gossamer_crc(ctypes.c_uint32(crc), pointer(part), ctypes.c_size_t(len(part)))
    assert crc == zlib.crc32(data)
