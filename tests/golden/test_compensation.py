"""Weights that make up for others: against least squares on the inputs themselves."""

import numpy as np
import pytest

from gossamer.golden import compensation
from gossamer.golden.compensation import Moments, moments, pruned, retargeted, rounded, rows_of, weights_of
from gossamer.golden.network import Conv, Depthwise, FullyConnected


def layer(kind, shape, **fields):
    channels = shape[kind.channel_axis]
    constants = {"bias": np.zeros(channels, np.int32), "weight_scales": np.ones(channels)}
    return kind("n", ("x",), "y", weights=np.ones(shape, np.int8), **constants, **fields)


LAYERS = [
    (layer(Conv, (4, 2, 3, 2), stride=(2, 1), padding=(1, 0, 1, 1)), (6, 5, 2)),
    (layer(Depthwise, (3, 2, 4), stride=(1, 2), padding=(1, 1, 0, 0)), (6, 5, 2)),
    (layer(FullyConnected, (5, 12)), (3, 2, 2)),
]


@pytest.mark.parametrize("one, shape", LAYERS)
def test_means_and_moments_are_those_of_the_layers_sums(rng, one, shape):
    """The mean of a layer's sums is linear in the windows' mean, their variance quadratic in the second moments."""
    x, y = rng.normal(size=(37, *shape)), rng.normal(size=(37, *shape)) + 1
    weights = rng.integers(-9, 10, one.weights.shape)
    seen = moments(one, x, y)
    rows = rows_of(one, weights)
    np.testing.assert_array_equal(weights_of(one, rows), weights)
    sums = {}
    for name, values in (("x", x), ("y", y)):  # the layer's own arithmetic, on steps of a thousandth
        steps = np.rint(1000 * values)
        sums[name] = accumulated(one, steps, weights).reshape(-1, len(one.bias)) / 1000
    np.testing.assert_allclose((rows @ seen.mean[:, :, None]).reshape(-1), sums["x"].mean(axis=0), atol=0.05)
    np.testing.assert_allclose((rows @ seen.wanted[:, :, None]).reshape(-1), sums["y"].mean(axis=0), atol=0.05)
    variance = np.einsum("grk,gkl,grl->gr", rows, seen.seconds, rows).reshape(-1)
    np.testing.assert_allclose(variance, sums["x"].var(axis=0), rtol=0.02)
    covariance = np.einsum("grk,gkl,grl->gr", rows, seen.cross, rows).reshape(-1)
    both = (sums["x"] - sums["x"].mean(axis=0)) * (sums["y"] - sums["y"].mean(axis=0))
    np.testing.assert_allclose(covariance, both.mean(axis=0), atol=0.02 * variance.max())


def accumulated(one, steps, weights):
    from gossamer.golden import arithmetic

    if isinstance(one, FullyConnected):
        return arithmetic.fully_connected_accumulate(steps, weights, one.bias, 0)
    kind = arithmetic.conv2d_accumulate if isinstance(one, Conv) else arithmetic.depthwise_conv2d_accumulate
    return kind(steps, weights, one.bias, 0, one.stride, one.padding)


@pytest.fixture
def undamped(monkeypatch):
    monkeypatch.setattr(compensation, "DAMPING", 1e-9)
    monkeypatch.setattr(compensation, "RETARGET_DAMPING", 1e-9)


def correlated(rng, count, size):
    return rng.normal(size=(count, size)) @ rng.normal(size=(size, size))


def test_pruned_is_least_squares_on_what_is_left(rng, undamped):
    x, rows = correlated(rng, 200, 8), rng.normal(size=(1, 3, 8))
    mask = rng.random((1, 3, 8)) < 0.5
    mask[0, 1] = False
    result = pruned(rows, mask, (x.T @ x)[None])
    assert np.all(result[~mask] == 0)
    for row, exact, chosen in zip(result[0], rows[0], mask[0]):
        if chosen.any():
            best = np.linalg.lstsq(x[:, chosen], x @ exact, rcond=None)[0]
            np.testing.assert_allclose(row[chosen], best, atol=1e-5)


def test_retargeted_is_least_squares_from_the_inputs_that_are_to_those_that_should_be(rng, undamped):
    y = correlated(rng, 300, 6)
    x, rows = y + 0.3 * rng.normal(size=y.shape), rng.normal(size=(1, 4, 6))
    result = retargeted(rows, Moments(x.mean(0)[None], y.mean(0)[None], (x.T @ x)[None], (y.T @ x)[None]))
    best = np.linalg.lstsq(x, y @ rows[0].T, rcond=None)[0].T
    np.testing.assert_allclose(result[0], best, atol=1e-5)


def test_rounded_loses_less_than_rounding_each(rng):
    x, rows = correlated(rng, 400, 24), rng.normal(size=(2, 5, 24))
    seconds = np.stack([x.T @ x, np.diag(rng.uniform(1, 2, 24))])
    mask = rng.random(rows.shape) < 0.8
    rows = np.where(mask, rows, 0)
    seen = []

    def halves(values):
        seen.append(values.shape)
        return np.rint(2 * values) / 2

    result = rounded(rows, mask, seconds, halves)
    assert {*seen} == {(2, 5)}
    assert np.all(result[~mask] == 0)
    assert np.all(2 * result == np.rint(2 * result))

    def loss(weights):
        return np.einsum("grk,gkl,grl->g", weights - rows, seconds, weights - rows)

    assert loss(result)[0] < 0.8 * loss(np.where(mask, halves(rows), 0))[0]
    # inputs that have nothing to do with each other cannot make up for each other
    np.testing.assert_array_equal(result[1], np.where(mask[1], halves(rows[1]), 0))


def test_of_large_maps_some_rows_count(rng, monkeypatch):
    monkeypatch.setattr(compensation, "WINDOWS", 40)
    one, x = layer(Conv, (1, 1, 1, 2)), rng.normal(size=(3, 12, 5, 2))  # 180 windows: every fifth row
    seen = moments(one, x, 2 * x)
    np.testing.assert_allclose(seen.mean[0], x[:, ::5].mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(seen.wanted[0], 2 * x[:, ::5].mean(axis=(0, 1, 2)))


def test_inputs_that_are_always_the_same_are_no_trouble(rng):
    rows, mask = rng.normal(size=(1, 2, 3)), np.array([[[True, False, True], [True, True, True]]])
    nothing = np.zeros((1, 3, 3))
    assert pruned(rows, mask, nothing).tolist() == np.where(mask, rows, 0).tolist()
    assert rounded(rows, mask, nothing, np.rint).tolist() == np.where(mask, np.rint(rows), 0).tolist()
    np.testing.assert_allclose(retargeted(rows, Moments(rows[:, 0], rows[:, 0], nothing, nothing)), rows)
