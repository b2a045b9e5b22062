"""The picture of the denoising network: what goes in, what comes out, what is left of the noise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.denoise import psnr

__all__ = ["error_image", "picture"]

Array = NDArray[Any]

GAIN = 4
"""How much larger than it is an error is drawn."""


def error_image(image: Array, clean: Array) -> Array:
    """``image - clean``, :data:`GAIN` times, about the grey 128; errors that are too large for it are cut. uint8."""
    return np.clip(128 + GAIN * (image.astype(np.int64) - clean), 0, 255).astype(np.uint8)


def picture(path: Path, noisy: Array, denoised: Array, clean: Array, memory: Mapping[str, int] | None = None) -> None:
    """Three uint8 images side by side: the noisy one, the denoised one, and the error that the latter still has.

    ``memory`` are bytes of activations by what needs them; below the images they are bars.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = clean.shape[:2]
    width, bars = 5.0, 0.3 * len(memory) + 0.6 if memory else 0.0  # inches: of an image, of all bars
    high = width * rows / columns + 0.5
    figure = Figure(figsize=(3 * width, high + bars), layout="constrained")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(2, 1, height_ratios=[high, bars]) if memory else [figure]
    panels = [
        (noisy, f"noisy, {psnr(noisy, clean):.2f} dB"),
        (denoised, f"denoised, {psnr(denoised, clean):.2f} dB"),
        (error_image(denoised, clean), f"denoised − original, ×{GAIN}"),
    ]
    for axes, (image, title) in zip(parts[0].subplots(1, 3), panels):
        axes.imshow(image)
        axes.set_title(title, fontsize=11)
        axes.axis("off")
    if memory:
        axes = parts[1].subplots()
        largest = max(memory.values())
        drawn = axes.barh(list(memory), list(memory.values()), color="#4477aa", height=0.6)
        axes.bar_label(drawn, [_label(size, largest) for size in memory.values()], padding=4, fontsize=9)
        axes.set_xlim(0, largest * 1.2)
        axes.invert_yaxis()  # the first on top
        axes.xaxis.set_visible(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_title("bytes of activations", fontsize=10, loc="left")
    figure.savefig(path, dpi=120)


def _label(size: int, largest: int) -> str:
    return f"{size:,}" if size == largest else f"{size:,}, {largest / size:.1f} times fewer"
