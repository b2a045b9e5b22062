"""Which weights to keep: by magnitude, one by one or in blocks that hardware can skip.

``weights`` are in the order of their layer, ``channel_axis`` is that of the output channels.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.network import NetworkError

__all__ = ["BLOCKS", "found_pattern", "groups_of", "kept", "pattern"]

Array = NDArray[Any]
Mask = NDArray[np.bool_]

LEAST_GROUPS = 16

BLOCKS = "unstructured, lanes or nm:N:M with 0 < N < M <= 16"
"""How a block can be written."""


def pattern(block: str) -> tuple[int, int] | None:
    """``(N, M)`` of a block ``nm:N:M``, None for the others. Raises :class:`NetworkError` for what is no block."""
    found = re.fullmatch(r"nm:(\d{1,2}):(\d{1,2})", block)
    if found and 0 < int(found[1]) < int(found[2]) <= 16:
        return int(found[1]), int(found[2])
    if block not in ("unstructured", "lanes"):
        raise NetworkError(f"the block of pruned weights must be {BLOCKS}, not {block!r}")
    return None


def found_pattern(weights: Array) -> str | None:
    """The block ``nm:N:M`` that weights have been pruned in, if any: of M = 2, 4 or 8 consecutive input channels none has more
    than N weights, and most have N. Of several patterns that with the fewest weights, and of those with the smallest M. A
    few groups say nothing."""
    found = []
    for size in (2, 4, 8):
        if weights.shape[-1] % size == 0 and weights.size >= LEAST_GROUPS * size:
            counts = (weights.reshape(-1, size) != 0).sum(axis=1)
            most = int(counts.max())
            if 0 < most < size and (counts == most).mean() > 0.5:
                found.append((most / size, size, most))
    return f"nm:{min(found)[2]}:{min(found)[1]}" if found else None


def groups_of(weights: Array, channel_axis: int, lanes: int) -> Array:
    """``weights`` as (groups, lanes, positions); a last group that is not full has NaN."""
    rows = np.moveaxis(np.asarray(weights, np.float64), channel_axis, 0)
    rows = rows.reshape(len(rows), -1)
    filled = np.pad(rows, ((0, -len(rows) % lanes), (0, 0)), constant_values=np.nan)
    return filled.reshape(-1, lanes, rows.shape[1])


def _largest(magnitudes: Array, prune: float) -> Mask:
    """The mask of all but the smallest ``prune``; of equal ones the first are kept."""
    count = magnitudes.size - int(prune * magnitudes.size + 0.5)
    mask = np.zeros(magnitudes.size, bool)
    mask[np.argsort(-magnitudes.reshape(-1), kind="stable")[:count]] = True
    return mask.reshape(magnitudes.shape)


def kept(weights: Array, channel_axis: int, prune: float, block: str, lanes: int) -> Mask:
    """The mask of the weights to keep.

    ``unstructured`` prunes the share ``prune`` of the weights. ``lanes`` prunes that share of the blocks of ``lanes`` output
    channels at one position of the window, those with the smallest mean magnitude. ``nm:N:M`` keeps the ``N`` largest of
    each ``M`` consecutive input channels, whatever ``prune`` is; a depthwise layer, which has one, stays as it is.
    """
    chosen, magnitudes = pattern(block), np.abs(weights)
    if chosen:
        if channel_axis:  # depthwise
            return np.ones(weights.shape, bool)
        count, size = chosen
        depth = weights.shape[-1]
        rows = np.pad(magnitudes.reshape(-1, depth), ((0, 0), (0, -depth % size)), constant_values=-1.0)
        rank = np.argsort(np.argsort(-rows.reshape(-1, size), axis=1, kind="stable"), axis=1, kind="stable")
        return (rank < count).reshape(rows.shape)[:, :depth].reshape(weights.shape)
    if block == "unstructured":
        return _largest(magnitudes, prune)
    mask = _largest(np.nanmean(groups_of(magnitudes, channel_axis, lanes), axis=1), prune)
    rows = np.moveaxis(weights, channel_axis, 0)
    return np.moveaxis(np.repeat(mask, lanes, axis=0)[: len(rows)].reshape(rows.shape), 0, channel_axis)
