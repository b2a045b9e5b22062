"""Ranges to quantize to: of activations from calibration inputs, of weights from themselves.

A range that holds every value (``minmax``) spends steps on values that hardly occur. ``percentile`` leaves out the outermost
0.01 % at each end, and ``mse`` looks for the range with the least mean squared error, clipping included. Ref: Wu et al.,
Integer Quantization for Deep Learning Inference, 2020; Nagel et al., A White Paper on Neural Network Quantization, 2021.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import floating
from gossamer.golden.arithmetic import INT8, Pair

__all__ = ["METHODS", "Histogram", "activation_quantization", "observe", "weight_limits"]

Array = NDArray[Any]

METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 99.99
BINS = 4096
BATCH = 16

SHARES = np.arange(100, 29, -1) / 100
"""The parts of the largest magnitude that the search tries as a limit."""


@dataclasses.dataclass(frozen=True, eq=False)
class Histogram:
    """How often values fall into each of equal parts of ``low..high``, the smallest and the largest of them."""

    low: float
    high: float
    counts: Array

    @property
    def centres(self) -> Array:
        """The middle of each part."""
        width = (self.high - self.low) / len(self.counts)
        return self.low + width * (np.arange(len(self.counts)) + 0.5)

    def range(self, method: str, limits: Pair = INT8) -> tuple[float, float]:
        """The range that ``method`` gives to values that become integers in ``limits``; it holds 0."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if method == "minmax" or low == high:
            return low, high
        if method == "percentile":
            part = np.cumsum(self.counts) / self.counts.sum()
            first, last = (self.centres[np.searchsorted(part, share)] for share in (1 - PERCENTILE / 100, PERCENTILE / 100))
            return max(low, min(float(first), 0.0)), min(high, max(float(last), 0.0))
        for _ in range(2):  # one end, then the other, and again
            high = min((share * max(self.high, 0.0) for share in SHARES), key=lambda end: self._error(low, end, limits))
            low = min((share * min(self.low, 0.0) for share in SHARES), key=lambda end: self._error(end, high, limits))
        return low, high

    def _error(self, low: float, high: float, limits: Pair) -> float:
        """Mean squared error of the centres, quantized to ``low..high``."""
        if low == high:
            return math.inf
        scale, zero_point = activation_quantization(low, high, limits)
        steps = np.clip(np.rint(self.centres / scale) + zero_point, *limits) - zero_point
        return float(((steps * scale - self.centres) ** 2 * self.counts).sum())


def activation_quantization(low: float, high: float, limits: Pair = INT8) -> tuple[float, int]:
    """``(scale, zero_point)`` with which ``low..high``, widened to hold 0, become ``limits``; the scale is a float32 value.

    An all-zero range gets scale 1. Raises :class:`ValueError` if a bound is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"the range of an activation must be finite, not {low}..{high}")
    low, high = min(low, 0.0), max(high, 0.0)
    first, last = limits
    scale = float(np.float32((high - low) / (last - first))) or 1.0
    return scale, min(last, max(first, math.floor(first - low / scale + 0.5)))


def observe(layers: Sequence[floating.FloatLayer], x: Array) -> dict[str, Histogram]:
    """The histogram of every tensor, by name, for the inputs ``x``, a few of which are in memory at a time."""
    ends: dict[str, tuple[float, float]] = {}
    for values in _batches(layers, x):
        for name, value in values.items():
            low, high = ends.get(name, (math.inf, -math.inf))
            ends[name] = min(low, float(value.min())), max(high, float(value.max()))
    counts = {name: np.zeros(BINS, np.int64) for name in ends}
    for values in _batches(layers, x):
        for name, value in values.items():
            low, high = ends[name]
            if math.isfinite(low) and low < high < math.inf:
                counts[name] += np.histogram(value, BINS, ends[name])[0]
    return {name: Histogram(*ends[name], counts[name]) for name in ends}


def _batches(layers: Sequence[floating.FloatLayer], x: Array) -> Iterator[dict[str, Array]]:
    return (floating.run(layers, x[start : start + BATCH]) for start in range(0, len(x), BATCH))


def weight_limits(weights: Array, levels: int, method: str) -> Array:
    """For each row of ``weights`` (O, K) the magnitude that becomes ``levels``, the largest integer of a symmetric format."""
    largest: Array = np.abs(weights).max(axis=1)
    if method == "percentile":
        return np.quantile(np.abs(weights), PERCENTILE / 100, axis=1)
    if method == "minmax":
        return largest
    best, least = largest, np.full(len(weights), np.inf)
    for share in SHARES:
        scales = np.where(largest > 0, share * largest / levels, 1.0)[:, np.newaxis]
        error = ((np.clip(np.rint(weights / scales), -levels, levels) * scales - weights) ** 2).sum(axis=1)
        best, least = np.where(error < least, share * largest, best), np.minimum(error, least)
    return best
