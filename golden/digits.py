"""The example network: handwritten digits, 8x8 pixels, ten classes. Trained by :mod:`gossamer.golden.train_digits`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.network import Network

__all__ = ["load", "quantize_images", "test_set"]

Array = NDArray[Any]

DATA = Path(__file__).parent / "data"
WHITE = 16
"""The brightest pixel of the data set; the network's input is pixel / WHITE."""


def load() -> Network:
    """Return the trained int8 network: input (8, 8, 1), output softmax (10,)."""
    return Network.load(DATA / "digits.gsm")


def quantize_images(images: Array) -> Array:
    """Return int8 inputs (N, 8, 8, 1) for ``images`` (N, 8, 8) with pixels 0..16."""
    images = np.asarray(images)
    if images.ndim != 3 or images.shape[1:] != (8, 8):
        raise ValueError(f"digit images must have shape (N, 8, 8), not {images.shape}")
    if images.size and not (images.min() >= 0 and images.max() <= WHITE):
        raise ValueError(f"digit pixels must be in 0..{WHITE}, not {images.min()}..{images.max()}")
    network = load()
    scale, zero_point = network.tensors[network.input].quantization
    quantized = np.rint(images / WHITE / scale) + zero_point
    return np.clip(quantized, -128, 127).astype(np.int8)[..., np.newaxis]


def test_set() -> tuple[Array, Array]:
    """Return ``(x, y)``: the 500 held-out images as int8 inputs (500, 8, 8, 1), and their labels."""
    with np.load(DATA / "digits_test.npz", allow_pickle=False) as file:
        return quantize_images(file["images"]), file["labels"]
