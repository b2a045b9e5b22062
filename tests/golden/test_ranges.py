"""Ranges: what each method leaves out, and that the search finds what trying finds."""

import numpy as np
import pytest

from gossamer.golden import floating, ranges
from gossamer.golden.ranges import Histogram, weight_limits


def histogram(values):
    counts, edges = np.histogram(values, ranges.BINS)
    return Histogram(float(edges[0]), float(edges[-1]), counts)


def test_minmax_holds_every_value_and_zero():
    assert histogram([2.0, 5.0]).range("minmax") == (0, 5)
    assert histogram([-2.0, -1.0]).range("minmax") == (-2, 0)
    assert Histogram(0.0, 0.0, np.zeros(4)).range("mse") == (0, 0)


def test_percentile_leaves_out_a_ten_thousandth_at_each_end(rng):
    values = np.concatenate([rng.uniform(-1, 1, 99_990), [-50, -40, -30, 20, 30, 40, 50, 60, 70, 80]])
    low, high = histogram(values).range("percentile")
    assert low == pytest.approx(-1, abs=0.06)
    assert high == pytest.approx(1, abs=0.06)


def error(values, low, high):
    scale, zero_point = ranges.activation_quantization(low, high)
    steps = np.clip(np.rint(values / scale) + zero_point, -128, 127) - zero_point
    return np.mean((steps * scale - values) ** 2)


def test_fewer_steps_clip_more(rng):
    """Of the unit normal distribution 16 steps are best over +-2.55, 256 over +-3.92. Ref: Banner et al., 2019."""
    normal = histogram(np.tile(rng.normal(size=100_000), 40))
    low, high = normal.range("mse", (-8, 7))
    assert -2.9 < low < -2.3
    assert 2.3 < high < 2.9
    assert normal.range("mse")[1] > 3.5
    assert ranges.activation_quantization(0.0, 30.0, (-8, 7)) == (2.0, -8)
    assert ranges.activation_quantization(-16.0, 14.0, (-8, 7)) == (2.0, 0)


def test_mse_clips_what_is_rare_and_keeps_what_is_not(rng):
    rare = np.concatenate([np.tile(rng.normal(size=100_000), 40), [40.0]])
    low, high = histogram(rare).range("mse")
    assert -6 < low < -3
    assert high == pytest.approx(0.3 * 40)  # as far as the search goes
    often = rng.uniform(-1, 2, 100_000)
    assert histogram(often).range("mse") == pytest.approx((-1, 2), abs=0.07)


def test_mse_is_better_than_the_others_and_than_nearby_ranges(rng):
    values = rng.standard_t(3, 50_000)
    found = histogram(values)
    low, high = found.range("mse")
    best = error(values, low, high)
    assert best < 0.95 * error(values, *found.range("minmax"))
    assert best < error(values, *found.range("percentile"))
    assert all(best < error(values, low * a, high * b) for a, b in ((0.8, 1), (1.25, 1), (1, 0.8), (1, 1.25)))


def test_observe_sees_every_value_of_every_batch(rng):
    x = rng.normal(size=(2 * ranges.BATCH + 3, 2, 2, 1))
    x[0, 0, 0, 0], x[-1, -1, -1, -1] = -9, 11
    seen = ranges.observe([floating.Add("twice", ("input", "input"), "relu")], x)
    assert (seen["input"].low, seen["input"].high) == (-9, 11)
    assert (seen["twice"].low, seen["twice"].high) == (0, 22)
    assert seen["input"].counts.sum() == seen["twice"].counts.sum() == x.size


def test_weight_limits(rng):
    weights = np.concatenate([rng.normal(size=(20, 60)), np.zeros((1, 60)), 5 * rng.laplace(size=(20, 60))])
    largest = weight_limits(weights, 7, "minmax")
    np.testing.assert_array_equal(largest, np.abs(weights).max(axis=1))
    best = weight_limits(weights, 7, "mse")

    def loss(limits):
        scales = np.where(limits > 0, limits / 7, 1)[:, None]
        return ((np.clip(np.rint(weights / scales), -7, 7) * scales - weights) ** 2).sum(axis=1)

    assert loss(best).sum() < 0.9 * loss(largest).sum()
    for share in (0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 1):
        assert np.all(loss(best) <= loss(share * largest) + 1e-9)
    assert best[20] == 0
    assert np.all(weight_limits(weights, 127, "percentile") <= largest)
