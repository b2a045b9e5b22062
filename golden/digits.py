"""The example network: handwritten digits, 8x8 pixels, ten classes. Trained by :mod:`gossamer.golden.train_digits`, in fewer
bits and with fewer weights by :mod:`gossamer.golden.train_variants`."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.network import Network, NetworkError

__all__ = ["VARIANTS", "load", "quantize_images", "test_set"]

Array = NDArray[Any]

DATA = Path(__file__).parent / "data"
WHITE = 16
"""The brightest pixel of the data set; the network's input is pixel / WHITE."""


VARIANTS = {
    "int8": "weights and activations in eight bits",
    "w4a8": "weights in four bits, -7..7, activations in eight",
    "w4a4": "weights and activations in four bits, the input and what the softmax reads in eight",
    "sparse75": "three quarters of the vectors of 16 output channels' weights are 0; eight bits",
    "palette": "nine tenths of the weights are 0, the others from a palette per layer of 16 values in all; eight bits",
    "binary": "wider layers whose weights and activations are -1 or +1 between a first and a last one of eight bits",
}
"""The trained networks, and what each is. Those but ``int8`` are by :mod:`gossamer.golden.train_variants`."""


def load(variant: str = "int8") -> Network:
    """Return a trained network of :data:`VARIANTS`: input (8, 8, 1), the same for all, output softmax (10,).

    Raises :class:`NetworkError` for another name.
    """
    if variant not in VARIANTS:
        raise NetworkError(f"a variant of the digits network must be one of {', '.join(VARIANTS)}, not {variant!r}")
    return Network.load(DATA / ("digits.gsm" if variant == "int8" else f"digits_{variant}.gsm"))


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
