"""What a user may call a model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.cli.files import InputError, load_samples
from gossamer.golden import arithmetic, denoise, digits
from gossamer.golden.network import Network, Quantize
from gossamer.golden.tflite_import import load_tflite

__all__ = ["BUILT_IN", "VARIANTS", "Samples", "labels", "load_model", "models_in", "samples", "samples_file"]

BUILT_IN: dict[str, Callable[[], Network]] = {"digits": digits.load, "denoise": denoise.load}

VARIANTS = {f"digits_{name}": name for name in digits.VARIANTS if name != "int8"}
"""Names of the digits networks with fewer bits or fewer weights, which need a core for them."""


def load_model(name: str) -> Network:
    """The built-in network ``name``, or the one in the TFLite model or network file ``name``."""
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if name in VARIANTS:
        return digits.load(VARIANTS[name])
    path = Path(name)
    if not path.is_file():
        known = ", ".join([*BUILT_IN, *VARIANTS])
        raise InputError(f"a model must be a .tflite file, a network file or one of {known}, not {name!r}")
    with open(path, "rb") as file:
        identifier = file.read(8)[4:]
    return load_tflite(path) if identifier == b"TFL3" or path.suffix == ".tflite" else Network.load(path)


@dataclasses.dataclass(frozen=True)
class Samples:
    """Inputs ``x`` to measure with, where they came from, and if known the network's outputs, in the user's shape."""

    x: NDArray[Any]
    source: str
    output: NDArray[Any] | None = None


def samples(name: str, network: Network, count: int) -> Samples:
    """Inputs to measure with, at most ``count``: the first real ones if there are some, else random ones, the same every time.

    Real ones are the held-out data of a built-in network, and for ``NAME.tflite`` or ``NAME.gsm`` those in
    ``NAME_samples.npz`` beside it, where NAME may lack an ``_int8`` or ``_fp32`` at its end. Random inputs of a float32
    model are the values that its quantization can tell apart.
    """
    if name == "digits" or name in VARIANTS:
        return Samples(digits.test_set()[0][:count], "held-out samples")
    if name in BUILT_IN:
        return Samples(denoise.to_input(denoise.noisy(denoise.photograph()))[:count], "held-out samples")
    file = samples_file(name)
    if file:
        x, output = load_samples(file, network)
        return Samples(x[:count], f"samples of {file.name}", None if output is None else output[:count])
    return Samples(_random(network, count), "random inputs")


def samples_file(name: str) -> Path | None:
    """The file of samples beside a model, if there is one."""
    path = Path(name)
    stems = (path.stem, path.stem.removesuffix("_int8"), path.stem.removesuffix("_fp32"))
    files = (path.with_name(f"{stem}_samples.npz") for stem in stems)
    return next((file for file in files if file.is_file()), None)


def labels(name: str, network: Network, count: int) -> NDArray[np.int64]:
    """The classes of the first inputs that :func:`samples` gives, where they are known, else -1: of a
    built-in network, or in the array ``y`` beside a model. Empty if the network does not classify."""
    if network.tensors[network.output].shape == network.tensors[network.input].shape:
        return np.zeros(0, np.int64)
    if name == "digits" or name in VARIANTS:
        return np.asarray(digits.test_set()[1][:count], np.int64)
    file = samples_file(name)
    if file:
        with np.load(file) as arrays:
            if "y" in arrays:
                return np.asarray(arrays["y"][:count], np.int64)
    return np.full(count, -1)


def _random(network: Network, count: int) -> NDArray[Any]:
    tensor, random = network.tensors[network.input], np.random.default_rng(0)
    x = random.integers(-128, 128, (count, *tensor.shape)).astype(np.int8)
    if tensor.dtype == "uint8":
        return x.view(np.uint8)
    if tensor.dtype == "float32":
        (first, *_) = (layer for layer in network.layers if isinstance(layer, Quantize))
        return arithmetic.dequantize(x, *network.tensors[first.output].quantization)
    return x


def models_in(folder: Path) -> list[str]:
    """The models in a folder: its ``.tflite`` and ``.gsm`` files."""
    if not folder.is_dir():
        raise InputError(f"the models must be in a folder that exists, not {str(folder)!r}")
    found = sorted(str(path) for path in folder.iterdir() if path.suffix in (".tflite", ".gsm"))
    if not found:
        raise InputError(f"the folder {folder} must have .tflite or .gsm files, and it has none")
    return found
