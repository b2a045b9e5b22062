"""What a user may call a model."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.cli.files import InputError
from gossamer.golden import arithmetic, digits
from gossamer.golden.network import Network, Quantize
from gossamer.golden.tflite_import import load_tflite

__all__ = ["BUILT_IN", "load_model", "sample_inputs"]

BUILT_IN = {"digits": digits.load}


def load_model(name: str) -> Network:
    """The built-in network ``name``, or the one in the TFLite model or network file ``name``."""
    if name in BUILT_IN:
        return BUILT_IN[name]()
    path = Path(name)
    if not path.is_file():
        known = ", ".join(BUILT_IN)
        raise InputError(f"a model must be a .tflite file, a network file or one of {known}, not {name!r}")
    with open(path, "rb") as file:
        identifier = file.read(8)[4:]
    return load_tflite(path) if identifier == b"TFL3" or path.suffix == ".tflite" else Network.load(path)


def sample_inputs(name: str, network: Network, count: int) -> NDArray[Any]:
    """Inputs to measure with: real ones of a built-in network, else random ones, the same every time.

    Random inputs of a float32 model are the values that its quantization can tell apart.
    """
    if name == "digits":
        return digits.test_set()[0][:count]
    tensor, random = network.tensors[network.input], np.random.default_rng(0)
    x = random.integers(-128, 128, (count, *tensor.shape)).astype(np.int8)
    if tensor.dtype == "uint8":
        return x.view(np.uint8)
    if tensor.dtype == "float32":
        (first, *_) = (layer for layer in network.layers if isinstance(layer, Quantize))
        return arithmetic.dequantize(x, *network.tensors[first.output].quantization)
    return x
