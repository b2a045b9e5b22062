"""The denoising network: a photograph with noise goes in, the photograph comes out, of any size.

Six 3x3 convolutions predict a correction that is added to the input. Trained by :mod:`gossamer.golden.train_denoise`. An
int8 value ``a`` of the input and of the output is the pixel ``a + 128``: stored bytes are pixels.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.network import Network

__all__ = ["COLUMNS", "PIXELS", "ROWS", "SIGMA", "load", "noisy", "photograph", "psnr", "resized", "to_image", "to_input"]

Array = NDArray[Any]

DATA = Path(__file__).parent / "data"
ROWS, COLUMNS = 427, 640
"""The size of the test photograph."""
SIGMA = 25
"""The standard deviation of the noise, in pixel steps of 0..255."""
PIXELS = (float(np.float32(1 / 255)), -128)
"""Scale and zero point of the network's input and output: 0..1 in the steps of a pixel."""


def resized(network: Network, rows: int, columns: int) -> Network:
    """The fully convolutional ``network``, whose maps are all of the input's size, for images of another size.

    Raises :class:`~gossamer.golden.network.NetworkError` if a layer needs maps of its own size.
    """
    tensors = {
        name: dataclasses.replace(tensor, shape=(rows, columns, tensor.shape[-1])) for name, tensor in network.tensors.items()
    }
    return dataclasses.replace(network, tensors=tensors)


def load(rows: int = ROWS, columns: int = COLUMNS) -> Network:
    """Return the trained int8 network: input and output (rows, columns, 3)."""
    return resized(Network.load(DATA / "denoise.gsm"), rows, columns)


def photograph() -> Array:
    """Return the test photograph, on which the network was not trained: uint8 (427, 640, 3)."""
    from PIL import Image

    with Image.open(DATA / "flower.jpg") as image:
        return np.asarray(image.convert("RGB"))


def noisy(image: Array, seed: int = 0) -> Array:
    """Return the uint8 ``image`` with Gaussian noise of :data:`SIGMA`, rounded and cut to 0..255; ``seed`` is the noise's."""
    noise = np.random.default_rng(seed).normal(0, SIGMA, image.shape)
    return np.clip(np.rint(_checked(image) + noise), 0, 255).astype(np.uint8)


def psnr(a: Array, b: Array) -> float:
    """Peak signal-to-noise ratio in dB of images with pixels 0..255; infinite if they are the same."""
    if np.shape(a) != np.shape(b):
        raise ValueError(f"images to compare must have one shape, not {np.shape(a)} and {np.shape(b)}")
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def to_input(image: Array) -> Array:
    """Return the network's input (1, rows, columns, 3), int8, for a uint8 image (rows, columns, 3)."""
    return (_checked(image) ^ 0x80).view(np.int8)[np.newaxis]


def to_image(output: Array) -> Array:
    """Return the uint8 image (rows, columns, 3) of a network's int8 output (1, rows, columns, 3)."""
    good = output.dtype == np.int8 and output.ndim == 4 and output.shape[0] == 1 and output.shape[3] == 3
    if not good:
        raise ValueError(f"an output must be int8 of shape (1, rows, columns, 3), not {output.dtype} of {output.shape}")
    return output[0].view(np.uint8) ^ 0x80


def _checked(image: Array) -> Array:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 of shape (rows, columns, 3), not {image.dtype} of {image.shape}")
    return image
