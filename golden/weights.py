"""Formats of compressed weights: which numbers they allow, what the numbers of a layer become, and the bits that they take.

Whatever the format, the numbers are int8 times the scale of their output channel: int4 ones are in -7..7, those of a palette
have 16 or 32 values, binary ones are -1 and +1. So a network with such weights is an int8 network as any other.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import pruning
from gossamer.golden.network import NetworkError
from gossamer.golden.palette import nearest, palette
from gossamer.golden.quantize import quantize_weights

__all__ = ["ENTRIES", "FORMATS", "PALETTES", "Grid", "Options", "bits", "grid"]

Array = NDArray[Any]

FORMATS = {"int8": 8, "int4": 4, "palette16": 4, "palette32": 5, "binary": 1}
"""The bits of one weight."""

PALETTES = ("layer", "channel")
ENTRIES = {"palette16": 16, "palette32": 32}
"""The values of each palette."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How to compress a layer: the format of its ``weights``, the share of them to ``prune``, the ``block`` that is pruned as
    one (:mod:`gossamer.golden.pruning`), and whether a ``palette`` is that of the layer or of each output channel."""

    weights: str = "int8"
    prune: float = 0.0
    block: str = "unstructured"
    palette: str = "layer"

    def __post_init__(self) -> None:
        for field, known in (("weights", tuple(FORMATS)), ("palette", PALETTES)):
            value = getattr(self, field)
            if not isinstance(value, str) or value not in known:
                raise NetworkError(f"{field} must be one of {', '.join(known)}, not {value!r}")
        number = isinstance(self.prune, (int, float)) and not isinstance(self.prune, bool)
        if not (number and 0 <= self.prune < 1):
            raise NetworkError(f"prune must be a number of at least 0 and below 1, not {self.prune!r}")
        if not isinstance(self.block, str):
            raise NetworkError(f"the block of pruned weights must be {pruning.BLOCKS}, not {self.block!r}")
        if self.weights == "binary" and self.prunes:
            raise NetworkError(f"binary weights must not be pruned, and prune is {self.prune} with block {self.block}")
        if pruning.pattern(self.block) and self.prune:
            raise NetworkError(f"prune must be 0 with block {self.block}, which says how many to prune, not {self.prune}")

    @property
    def prunes(self) -> bool:
        """Whether weights are pruned at all."""
        return self.prune > 0 or self.block.startswith("nm")


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that the rows of weights may have: integers up to ``levels``, or the ``entries`` of a palette for each row,
    times the row's scale."""

    scales: Array
    levels: int
    entries: tuple[Array, ...] = ()

    def round(self, rows: Array) -> Array:
        """The nearest integers for real ``rows`` (O, K)."""
        exact = rows / self.scales[:, np.newaxis]
        if not self.entries:
            return np.clip(np.rint(exact), -self.levels, self.levels)
        return np.stack([nearest(row, entries) for row, entries in zip(exact, self.entries)])


def grid(
    rows: Array,
    mask: Array,
    options: Options,
    *,
    method: str = "mse",
    per_tensor: bool = False,
    least: Array | float = 0.0,
    scales: Array | None = None,
) -> Grid:
    """The grid for the real ``rows`` (O, K) of weights, of which ``mask`` tells those that are not pruned.

    int4 has a scale per channel with the least squared error, int8 the range of ``method``, over all channels if
    ``per_tensor``; given ``scales`` are taken for int8 and palettes. A palette has 0 only if pruned weights need it. The scale
    of binary weights is the mean magnitude of a channel. Ref: Rastegari et al., XNOR-Net, 2016, section 3.1.
    """
    rows = np.where(mask, rows, 0)
    if options.weights == "int4":
        _, scales = quantize_weights(rows, 0, levels=7, method="mse", least=least)
        return Grid(scales, 7)
    if options.weights == "binary":
        scales = np.maximum(np.abs(rows).mean(axis=1), least).astype(np.float32).astype(np.float64)
        return Grid(np.where(scales == 0, 1.0, scales), 1, (np.array([-1, 1]),) * len(rows))
    if scales is None:
        method, per_tensor = (method, per_tensor) if options.weights == "int8" else ("minmax", False)
        _, scales = quantize_weights(rows, 0, method=method, per_tensor=per_tensor, least=least)
    if options.weights == "int8":
        return Grid(scales, 127)
    exact, free = rows / scales[:, np.newaxis], ENTRIES[options.weights] - (not mask.all())
    if options.palette == "layer":
        return Grid(scales, 127, (palette(exact[mask], free),) * len(rows))
    return Grid(scales, 127, tuple(palette(row[chosen], free) for row, chosen in zip(exact, mask)))


def bits(mask: Array, channel_axis: int, options: Options, lanes: int) -> int:
    """The bits of a layer's weights in their format: those that are kept, palettes, and where they are.

    Palettes have 16 or 32 bytes. The places of pruned weights are a bit each; of pruned blocks a bit for each block; of
    ``nm:N:M`` so many bits for each kept weight as tell M places apart. Where places or palettes take more than they save there
    are none.
    """
    width = FORMATS[options.weights]
    if options.weights in ENTRIES:
        palettes = ENTRIES[options.weights] * 8 * (1 if options.palette == "layer" else mask.shape[channel_axis])
        return min(_bits(mask, channel_axis, options, lanes, width) + palettes, _bits(mask, channel_axis, options, lanes, 8))
    return _bits(mask, channel_axis, options, lanes, width)


def _bits(mask: Array, channel_axis: int, options: Options, lanes: int, width: int) -> int:
    """The bits with ``width`` for each weight."""
    dense = mask.size * width
    if mask.all():
        return dense
    count, pattern = int(mask.sum()), pruning.pattern(options.block)
    if pattern:
        groups = math.ceil(mask.shape[-1] / pattern[1]) * (mask.size // mask.shape[-1])
        sparse = groups * pattern[0] * (width + math.ceil(math.log2(pattern[1])))
    elif options.block == "lanes":
        places = math.ceil(mask.shape[channel_axis] / lanes) * (mask.size // mask.shape[channel_axis])
        sparse = count * width + places
    else:
        sparse = count * width + mask.size
    return min(dense, sparse)
