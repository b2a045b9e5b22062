"""Weights that make up for what others lose: least squares on the inputs that a layer sees.

A layer's output is linear in its weights, so the squared error that weights ``v`` cause instead of ``w`` is
``(v - w) S (v - w)`` with the second moments ``S`` of the inputs in its windows. For pruned weights the others make up as
well as they can; rounding goes weight by weight and moves what each loses to those that are still to be rounded. Ref: Frantar
& Alistarh, Optimal Brain Compression, 2022; Frantar et al., GPTQ, 2023.

Weights are ``(G, R, K)`` here: a layer has one group of all its output channels, a depthwise layer one for each.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import arithmetic, network

__all__ = ["Moments", "moments", "pruned", "rounded", "rows_of", "weights_of"]

Array = NDArray[Any]

DAMPING = 0.01
"""Added to each second moment, as a share of their mean: some inputs never differ in the calibration, and may elsewhere."""

BATCH = 16


def rows_of(layer: network.Weighted, weights: Array) -> Array:
    """Weights in the layer's order as (G, R, K)."""
    rows = np.moveaxis(weights, layer.channel_axis, 0)
    return rows.reshape(len(rows), 1, -1) if isinstance(layer, network.Depthwise) else rows.reshape(1, len(rows), -1)


def weights_of(layer: network.Weighted, rows: Array) -> Array:
    """Weights (G, R, K) in the layer's order."""
    shape = np.moveaxis(layer.weights, layer.channel_axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape), 0, layer.channel_axis))


def _windows(layer: Any, x: Array) -> Array:
    """The real inputs of a layer's windows as (G, windows, K)."""
    if isinstance(layer, network.FullyConnected):
        return x.reshape(1, len(x), -1)
    shape = layer.weights.shape
    kernel = shape[:2] if isinstance(layer, network.Depthwise) else shape[1:3]
    found = np.stack([v for _, _, v in arithmetic.windows(x, kernel, layer.stride, layer.padding, 0)], axis=3)
    if isinstance(layer, network.Conv):
        return found.reshape(1, -1, layer.weights[0].size)
    repeated = np.repeat(found, shape[2] // x.shape[3], axis=4)
    return np.moveaxis(repeated, 4, 0).reshape(shape[2], -1, kernel[0] * kernel[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Of the values in a layer's windows: the ``mean`` (G, K) and, about it, the second moments ``seconds`` (G, K, K)."""

    mean: Array
    seconds: Array


def moments(layer: network.Weighted, x: Array) -> Moments:
    """Of the windows of ``layer`` on the real inputs ``x``, a few of which are in memory at a time."""
    count, total, square = 0, 0.0, 0.0
    for start in range(0, len(x), BATCH):
        windows = _windows(layer, x[start : start + BATCH])
        count += windows.shape[1]
        total = total + windows.sum(axis=1)
        square = square + windows.transpose(0, 2, 1) @ windows
    mean = np.asarray(total) / count
    return Moments(mean, np.asarray(square) / count - mean[:, :, np.newaxis] * mean[:, np.newaxis, :])


def _damped(seconds: Array) -> Array:
    size = seconds.shape[-1]
    return seconds + (DAMPING * np.trace(seconds) / size or 1.0) * np.eye(size)


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
    """Weights (G, R, K) as ``rounding`` allows them, which takes one (G, R) for all rows; those that ``mask`` does not keep are 0.

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
