"""Formats of weights: which numbers they have, the bits they take, and the options that are refused."""

import numpy as np
import pytest

from gossamer.golden.network import NetworkError
from gossamer.golden.weights import Options, bits, grid

FULL = np.ones((4, 30), bool)


def test_int8_and_int4_have_their_levels(rng):
    rows = rng.normal(size=(4, 30))
    for name, levels in (("int8", 127), ("int4", 7)):
        found = grid(rows, FULL, Options(name), method="minmax").round(rows)
        assert np.abs(found).max() == levels
        assert np.all(found == np.rint(found))


def test_int4_clips_where_that_loses_less(rng):
    rows = np.concatenate([rng.normal(size=(1, 300)), [[6.0]]], axis=1)
    assert grid(rows, np.ones(rows.shape, bool), Options("int4"), method="minmax").scales[0] < 0.8 * 6 / 7


def test_per_tensor_scales_are_all_the_same(rng):
    rows = rng.normal(size=(4, 30)) * np.array([[1], [2], [3], [4]])
    assert len({*grid(rows, FULL, Options(), per_tensor=True).scales}) == 1
    assert len({*grid(rows, FULL, Options(), per_tensor=False).scales}) == 4


def test_given_scales_are_kept_in_eight_bits_and_palettes_but_not_in_four(rng):
    rows, scales = rng.normal(size=(4, 30)), np.full(4, 0.25)
    assert grid(rows, FULL, Options(), scales=scales).scales.tolist() == [0.25] * 4
    assert grid(rows, FULL, Options("palette16"), scales=scales).scales.tolist() == [0.25] * 4
    assert 0.25 not in grid(rows, FULL, Options("int4"), scales=scales).scales


@pytest.mark.parametrize("name, most", [("palette16", 16), ("palette32", 32)])
@pytest.mark.parametrize("of", ["layer", "channel"])
def test_palettes_have_their_values_with_zero_if_pruned(rng, of, name, most):
    rows, mask = rng.normal(size=(4, 200)), rng.random((4, 200)) < 0.6
    for chosen in (np.ones(mask.shape, bool), mask):
        found = np.where(chosen, grid(rows, chosen, Options(name, palette=of)).round(rows), 0)
        sets = [{*row} for row in found]
        assert most - 2 <= max(len(one) for one in sets) <= most
        assert (len(set.union(*sets)) == most) == (of == "layer")


def test_binary_weights_are_signs_of_the_mean_magnitude():
    rows = np.array([[0.5, -1.5, 1.0], [-3.0, -3.0, -3.0], [0.0, 0.0, 0.0]])
    found = grid(rows, np.ones(rows.shape, bool), Options("binary"))
    assert found.scales.tolist() == [1.0, 3.0, 1.0]
    assert found.round(rows)[:2].tolist() == [[1, -1, 1], [-1, -1, -1]]
    assert {*found.round(rows)[2]} <= {-1, 1}


def test_a_palette_per_channel_is_nearer(rng):
    rows = rng.normal(size=(4, 300)) * rng.uniform(0.2, 3, (4, 300))
    losses = []
    for of in ("layer", "channel"):
        found = grid(rows, np.ones(rows.shape, bool), Options("palette16", palette=of))
        losses.append(((found.round(rows) * found.scales[:, None] - rows) ** 2).sum())
    assert losses[1] < 0.95 * losses[0]


def test_bits_by_hand():
    full = np.ones((10, 1, 1, 8), bool)
    half = full.copy()
    half[..., ::2] = False
    some = full.copy()
    some[0, 0, 0, 0] = False
    lanes = full.copy()
    lanes[8:, ..., :3] = False
    assert bits(full, 0, Options(), 8) == 640
    assert bits(full, 0, Options("int4"), 8) == 320
    assert bits(full, 0, Options("palette16"), 8) == 320 + 128
    assert bits(full, 0, Options("palette32"), 8) == 640  # 400 and a palette of 256 take more
    assert bits(full, 0, Options("binary"), 8) == 80
    assert bits(full, 0, Options("palette16", palette="channel"), 8) == 640  # ten palettes would take more
    assert bits(half, 0, Options(prune=0.5), 8) == 40 * 8 + 80
    assert bits(half, 0, Options("int4", prune=0.5), 8) == 40 * 4 + 80
    assert bits(some, 0, Options(prune=0.1), 8) == 640  # a bit for each place would take more
    assert bits(lanes, 0, Options(prune=0.1, block="lanes"), 8) == 74 * 8 + 2 * 8
    assert bits(half, 0, Options(block="nm:2:4"), 8) == 40 * (8 + 2)
    assert bits(half, 0, Options("int4", block="nm:2:4"), 8) == 40 * (4 + 2)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"weights": "binary", "prune": 0.5},
            "binary weights must not be pruned, and prune is 0.5 with block unstructured",
        ),
        ({"weights": "int5"}, "weights must be one of int8, int4, palette16, palette32, binary, not 'int5'"),
        ({"palette": 3}, "palette must be one of layer, channel, not 3"),
        ({"prune": 1}, "prune must be a number of at least 0 and below 1, not 1"),
        ({"prune": "half"}, "prune must be a number of at least 0 and below 1, not 'half'"),
        ({"prune": float("nan")}, "prune must be a number of at least 0 and below 1, not nan"),
        ({"prune": 0.5, "block": "nm:2:4"}, "prune must be 0 with block nm:2:4, which says how many to prune, not 0.5"),
        ({"block": 4}, "the block of pruned weights must be unstructured, lanes or nm:N:M with 0 < N < M <= 16, not 4"),
    ],
)
def test_refused_options(fields, message):
    with pytest.raises(NetworkError, match=f"^{message}$"):
        Options(**fields)
