"""The denoising network's demonstration, and its picture: what goes in, what comes out, what is left of the noise."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import denoise
from gossamer.golden.compiler import Compiled, Frontend, Strategy
from gossamer.golden.denoise import psnr
from gossamer.golden.inference import infer
from gossamer.golden.planner import fit, point, strip_points
from gossamer.golden.spec import Config

__all__ = ["Demonstration", "demonstrate", "error_image", "picture"]

Progress = AbstractContextManager[Callable[..., None]]

CROP = (107, 160)
"""Rows and columns of the crop that is simulated."""

BAND = 64
"""Rows of the photograph whose cycles are compared."""

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


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """What was computed, and what it took.

    ``images`` are the noisy, the denoised and the original photograph; ``exact`` says whether the denoised one equals that of
    the network computed as a whole, and ``rtl`` whether the simulated core's crop and cycles equal the golden model's.
    ``layerwise`` are the bytes of activations layer by layer, ``cycles`` those of a band of rows as planned and layer by layer.
    """

    compiled: Compiled
    images: tuple[Array, Array, Array]
    exact: bool
    rtl: bool
    crop: tuple[int, int]
    crop_cycles: int
    layerwise: int
    cycles: tuple[int, int]


def demonstrate(config: Config, say: Callable[[str], None], progress: Callable[[str, int], Progress]) -> Demonstration:
    """Denoise the photograph row by row, and compare with what it is as a whole; and a crop of it on the simulated core."""
    from gossamer.sim.rtl import Simulator

    network = denoise.load()
    say("planning")
    frontend = Frontend(network, config, folding=False)
    compiled = fit(frontend, config.store_size, strip_points(frontend))
    strategy = compiled.strategy
    clean = denoise.photograph()
    noisy = denoise.noisy(clean)
    x = denoise.to_input(noisy)
    strips = strategy.strips
    with progress("interpreter", strips * len(clean)) as update:
        output = infer(compiled, x[0], count=False, progress=update).output
    say("the network as a whole")
    exact = bool((output == network.run(x)[network.output][0]).all())

    # A store that holds a band of the maps as wholes, to compare cycles.
    large = dataclasses.replace(config, name="large", technology="generic", store_words=1 << 19, lut_lanes=0)
    band = x[0, :BAND]
    part = Frontend(denoise.load(*band.shape[:2]), config, folding=False).compile(strategy)
    whole = Frontend(denoise.load(*band.shape[:2]), large, folding=False).compile()
    with progress("cycles", 2) as update:
        cycles = []
        for done, program in enumerate((part, whole), 1):
            cycles.append(infer(program, band).cycles)
            update(done)

    rows, columns = CROP
    crop = x[:, :rows, :columns]
    small = Frontend(denoise.load(rows, columns), config, folding=False).compile(dataclasses.replace(strategy, strips=2))
    predicted = infer(small, crop[0])
    simulator = Simulator(config, say)
    say(f"RTL of a crop of {columns}×{rows}")
    result = simulator.run(small, crop)
    same = bool((small.output_values(result.outputs[0]) == predicted.output).all())
    images = noisy, denoise.to_image(output[np.newaxis]), clean
    return Demonstration(
        compiled,
        images,
        exact,
        same and result.cycles == [predicted.cycles],
        CROP,
        result.cycles[0],
        point(frontend, Strategy()).peak,
        (cycles[0], cycles[1]),
    )
