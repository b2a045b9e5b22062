"""What a user may call a model."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gossamer.cli.files import InputError
from gossamer.golden import digits
from gossamer.golden.network import Network

__all__ = ["BUILT_IN", "load_model", "sample_inputs"]

BUILT_IN = {"digits": digits.load}


def load_model(name: str) -> Network:
    """The built-in network ``name``, or the one in the network file ``name``."""
    if name in BUILT_IN:
        return BUILT_IN[name]()
    path = Path(name)
    if not path.is_file():
        raise InputError(f"a model must be a network file or one of {', '.join(BUILT_IN)}, not {name!r}")
    return Network.load(path)


def sample_inputs(name: str, network: Network, count: int) -> NDArray[np.int8]:
    """Inputs to measure with: real ones of a built-in network, else random ones, the same every time."""
    if name == "digits":
        return digits.test_set()[0][:count]
    shape = (count, *network.tensors[network.input].shape)
    return np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
