"""Palettes against all possible ones, and their nearest entries."""

import itertools

import numpy as np
import pytest

from gossamer.golden.palette import nearest, palette


def cost(values, entries):
    return (np.abs(np.asarray(values)[:, None] - np.asarray(entries)[None]) ** 2).min(axis=1).sum()


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_no_other_palette_is_better(rng, entries):
    for _ in range(5):
        values = rng.integers(-6, 7, 12).astype(float)
        best = min(cost(values, chosen) for chosen in itertools.combinations(range(-6, 7), entries))
        assert cost(values, palette(values, entries)) == best


def test_few_values_are_all_there():
    assert palette(np.array([3, -5, 3, 127, 3.2])).tolist() == [-5, 3, 127]
    assert palette(np.array([200.0, -200.0])).tolist() == [-127, 127]
    assert palette(np.zeros(0)).tolist() == [0]


def test_entries_are_distinct_rising_int8(rng):
    values = 40 * rng.normal(size=3000)
    found = palette(values)
    assert len(found) == 16
    assert np.all(np.diff(found) > 0)
    assert np.abs(found).max() <= 127
    uniform = np.rint(np.linspace(values.min(), values.max(), 16))
    assert cost(values, found) < 0.7 * cost(values, uniform)


def test_nearest(rng):
    entries = np.array([-20, -3, 4, 90])
    values = rng.uniform(-130, 130, 500)
    np.testing.assert_array_equal(nearest(values, entries), entries[np.abs(values[:, None] - entries).argmin(axis=1)])
    assert nearest(np.array([0.5]), entries).tolist() == [-3]
    assert nearest(np.array([7.0]), np.array([2])).tolist() == [2]
