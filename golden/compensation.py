"""Weights that make up for what others lose: least squares on the inputs that a layer sees.

A layer's output is linear in its weights, so the squared error that weights ``v`` cause instead of ``w`` is
``(v - w) S (v - w)`` with the second moments ``S`` of the inputs in its windows, about their mean, which the bias takes care
of. For pruned weights the others make up as well as they can; rounding goes weight by weight and moves what each loses to
those that are still to be rounded. Ref: Frantar & Alistarh, Optimal Brain Compression, 2022; Frantar et al., GPTQ, 2023.

Weights are ``(G, R, K)`` here: a layer has one group of all its output channels, a depthwise layer one for each.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import arithmetic, network

__all__ = ["Moments", "moments", "pruned", "retargeted", "rounded", "rows_of", "weights_of"]

Array = NDArray[Any]

DAMPING = 0.1
"""Added to each second moment, as a share of their mean: what hardly differs in the calibration may elsewhere."""

RETARGET_DAMPING = 0.3
"""The same for :func:`retargeted`, which has more freedom to fit what only the calibration inputs have."""

BATCH = 16

WINDOWS = 1 << 16
"""About so many windows of a batch count at most, of larger maps those in every so many rows."""


def rows_of(layer: network.Weighted, weights: Array) -> Array:
    """Weights in the layer's order as (G, R, K)."""
    rows = np.moveaxis(weights, layer.channel_axis, 0)
    return rows.reshape(len(rows), 1, -1) if isinstance(layer, network.Depthwise) else rows.reshape(1, len(rows), -1)


def weights_of(layer: network.Weighted, rows: Array) -> Array:
    """Weights (G, R, K) in the layer's order."""
    shape = np.moveaxis(layer.weights, layer.channel_axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape), 0, layer.channel_axis))


def _windows(layer: Any, x: Array) -> Array:
    """The real inputs of a layer's windows, or of so many as count, as (G, windows, K)."""
    if isinstance(layer, network.FullyConnected):
        return x.reshape(1, len(x), -1)
    shape = layer.weights.shape
    kernel = shape[:2] if isinstance(layer, network.Depthwise) else shape[1:3]
    views = [v for _, _, v in arithmetic.windows(x, kernel, layer.stride, layer.padding, 0)]
    step = -(-math.prod(views[0].shape[:3]) // WINDOWS)
    found = np.stack([view[:, ::step] for view in views], axis=3)
    if isinstance(layer, network.Conv):
        return found.reshape(1, -1, layer.weights[0].size)
    repeated = np.repeat(found, shape[2] // x.shape[3], axis=4)
    return np.moveaxis(repeated, 4, 0).reshape(shape[2], -1, kernel[0] * kernel[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Of the values ``x`` in a layer's windows, and ``y``, what they should be: the means (G, K), and about these the second
    moments ``seconds`` of ``x`` and ``cross`` of ``y`` with ``x`` (G, K, K)."""

    mean: Array
    wanted: Array
    seconds: Array
    cross: Array


def moments(layer: network.Weighted, x: Array, y: Array) -> Moments:
    """Of the windows of ``layer`` on real inputs ``x`` that should be ``y``; a few of them are in memory at a time."""
    sums: list[Any] = [0.0, 0.0, 0.0, 0.0]
    count = 0
    for start in range(0, len(x), BATCH):
        have, want = (_windows(layer, values[start : start + BATCH]) for values in (x, y))
        count += have.shape[1]
        for i, part in enumerate((have.sum(1), want.sum(1), have.transpose(0, 2, 1) @ have, want.transpose(0, 2, 1) @ have)):
            sums[i] = sums[i] + part
    mean, wanted, seconds, cross = (np.asarray(one) / count for one in sums)
    beside = mean[:, np.newaxis, :]
    return Moments(mean, wanted, seconds - mean[:, :, np.newaxis] * beside, cross - wanted[:, :, np.newaxis] * beside)


def _damping(seconds: Array, share: float) -> Array:
    size = seconds.shape[-1]
    return (share * np.trace(seconds) / size or 1.0) * np.eye(size)


def _damped(seconds: Array) -> Array:
    return seconds + _damping(seconds, DAMPING)


def retargeted(rows: Array, seen: Moments) -> Array:
    """The weights (G, R, K) that give for ``x`` most nearly what ``rows`` give for ``y``: they undo what layers before lost."""
    return np.stack(
        [
            np.linalg.solve((one + extra).T, (weights @ (cross + extra)).T).T
            for weights, one, cross in zip(rows, seen.seconds, seen.cross)
            for extra in (_damping(one, RETARGET_DAMPING),)
        ]
    )


def pruned(rows: Array, mask: Array, seconds: Array) -> Array:
    """Of weights (G, R, K) those that ``mask`` keeps, each row changed so that the error is the least."""
    result = np.where(mask, rows, 0.0)
    for exact, kept, masks, square in zip(rows, result, mask, seconds):
        damped = _damped(square)
        for weights, left, keep in zip(exact, kept, masks):
            if keep.any() and not keep.all():
                left[keep] += np.linalg.solve(damped[np.ix_(keep, keep)], damped[np.ix_(keep, ~keep)] @ weights[~keep])
    return result


def rounded(rows: Array, mask: Array, seconds: Array, rounding: Callable[[Array], Array]) -> Array:
    """Weights (G, R, K) as ``rounding`` allows them, which takes and gives (G, R); those that ``mask`` does not keep are 0.

    In a group the inputs with the largest second moments come first, so that their weights lose least.
    """
    size = rows.shape[-1]
    order = np.argsort(-np.diagonal(seconds, axis1=1, axis2=2), axis=1, kind="stable")
    left, result = rows.astype(np.float64), np.zeros(rows.shape)
    # Row i of the upper Cholesky factor of the inverse tells how weight i's error spreads over those behind it.
    spread = np.stack(
        [np.linalg.cholesky(np.linalg.inv(_damped(one)[np.ix_(chosen, chosen)])).T for one, chosen in zip(seconds, order)]
    )
    groups = np.arange(len(rows))
    for step in range(size):
        at = order[:, step]
        chosen = np.where(mask[groups, :, at], rounding(left[groups, :, at]), 0.0)
        result[groups, :, at] = chosen
        error = (left[groups, :, at] - chosen) / spread[:, step, step, np.newaxis]
        change = error[:, :, np.newaxis] * spread[:, step, np.newaxis, step + 1 :]
        for group, behind in enumerate(order[:, step + 1 :]):
            left[group][:, behind] -= change[group]
    return result
