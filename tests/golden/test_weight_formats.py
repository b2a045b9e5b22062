"""Formats of weights in the store: what is encoded is what is decoded, in as few bytes as it should."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden import weight_formats
from gossamer.golden.spec import CONFIGS, PALETTE_ENTRIES, Config

CONFIG = CONFIGS["ecp5_25_compressed"]
WIDE = Config("wide", lanes=64, store_bytes=16, decoder="palettes")


def decoded(encoded, config):
    palette = np.full((PALETTE_ENTRIES, config.lanes), 77, np.int8)
    entries = np.frombuffer(encoded.palette, np.int8).reshape(-1, config.store_bytes if encoded.shared else config.lanes)
    if encoded.shared:
        entries = np.tile(entries, 2)
    palette[: len(entries), : entries.shape[1]] = entries
    if not encoded.format:
        return np.frombuffer(encoded.data, np.int8).reshape(-1, config.lanes)
    data = np.frombuffer(encoded.data, np.uint8)
    return weight_formats.decode(data, encoded.format, palette, encoded.shared, config)


@pytest.mark.parametrize("config", [CONFIG, WIDE], ids=lambda config: config.name)
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32])
@pytest.mark.parametrize("own", [False, True])
def test_few_values_come_back_from_a_palette(rng, config, count, own):
    weights = np.empty((40, config.lanes), np.int8)
    values = rng.choice(256, count, replace=False) - 128
    for lane in range(config.lanes):
        values = rng.choice(256, count, replace=False) - 128 if own else values
        weights[:, lane] = rng.choice(values, 40)
    encoded = weight_formats.encode(weights.tobytes(), config)
    np.testing.assert_array_equal(decoded(encoded, config), weights)
    bits = 4 if encoded.format == 2 else 5
    if encoded.format:
        words = 40 * config.lanes // config.store_bytes // 2
        assert len(encoded.data) == config.store_bytes * (words + (bits == 5) * -(-words // 4))
        assert len(encoded.data) + len(encoded.palette) < weights.size


@pytest.mark.parametrize("decoder", ["nibbles", "palettes"])
def test_weights_of_four_bits_take_half_the_bytes_and_no_palette(rng, decoder):
    config = dataclasses.replace(CONFIG, decoder=decoder)
    weights = rng.integers(-8, 8, (3, 16)).astype(np.int8)
    encoded = weight_formats.encode(weights.tobytes(), config)
    assert (encoded.format, len(encoded.data), encoded.palette) == (1, 24, b"")
    np.testing.assert_array_equal(decoded(encoded, config), weights)


@pytest.mark.parametrize("decoder", ["off", "nibbles", "palettes"])
def test_many_values_stay_bytes(rng, decoder):
    raw = rng.integers(0, 256, (100, 16)).astype(np.uint8).tobytes()
    encoded = weight_formats.encode(raw, dataclasses.replace(CONFIG, decoder=decoder))
    assert (encoded.format, encoded.data) == (0, raw)


def test_the_first_codes_of_a_word_are_in_its_lowest_bits():
    weights = np.array([[10, 20] * 8], np.int8)
    encoded = weight_formats.encode(np.tile(weights, (20, 1)).tobytes(), CONFIG)
    assert encoded.palette == bytes([10] * 8 + [20] * 8)
    assert encoded.data == bytes([0x10] * 8 * 20)
