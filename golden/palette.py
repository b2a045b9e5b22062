"""Palettes: the few int8 values that stand best for many, by exact clustering in one dimension."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["nearest", "palette"]

Array = NDArray[Any]

LIMIT = 127


def palette(values: Array, entries: int = 16) -> Array:
    """At most ``entries`` integers in -127..127, rising, with the least sum of squared distances to the real ``values``.

    Values that round to the same integer share an entry; under that condition the result is optimal. Clusters of numbers on
    a line are intervals, so dynamic programming over their ends finds them. Ref: Wang & Song, Ckmeans.1d.dp, The R Journal
    3/2, 2011.
    """
    values = np.asarray(values, np.float64).reshape(-1)
    bins = np.clip(np.rint(values), -LIMIT, LIMIT).astype(np.int64) + LIMIT
    size = 2 * LIMIT + 1
    used = np.flatnonzero(np.bincount(bins, minlength=size))
    if not len(used):
        return np.zeros(1, np.int64)
    sums = [np.bincount(bins, values**power, minlength=size)[used] for power in (0, 1, 2)]
    count, total, square = (np.concatenate([[0.0], np.cumsum(one)]) for one in sums)
    # cost[i, j]: of one entry for the bins i..j-1, the integer nearest to their mean
    n, first, second = (one[np.newaxis, :] - one[:, np.newaxis] for one in (count, total, square))
    upper = np.triu(np.ones(n.shape, bool), 1)
    centre = np.clip(np.rint(np.divide(first, n, where=upper, out=np.zeros_like(n))), -LIMIT, LIMIT)
    cost = np.where(upper, second - 2 * centre * first + centre**2 * n, np.inf)
    best, cuts = cost[0], []
    for _ in range(min(entries, len(used)) - 1):
        through = best[:, np.newaxis] + cost
        cuts.append(through.argmin(axis=0))
        best = through.min(axis=0)
    found, end = [], len(used)
    for cut in reversed(cuts):
        found.append(int(centre[cut[end], end]))
        end = int(cut[end])
    found.append(int(centre[0, end]))
    return np.unique(found)


def nearest(values: Array, entries: Array) -> Array:
    """The nearest of the rising ``entries`` for each of ``values``, the lower one of two."""
    return entries[np.searchsorted((entries[1:] + entries[:-1]) / 2, values, side="left")]
