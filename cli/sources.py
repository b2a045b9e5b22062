"""What ``gossamer compress`` takes: a float or an int8 model, inputs to calibrate with, and others to judge the result by."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.cli.files import InputError, load_floats, load_inputs, load_samples
from gossamer.cli.models import BUILT_IN, labels, load_model, samples, samples_file
from gossamer.golden import arithmetic, floating, network
from gossamer.golden.compress import Source, from_float, from_int8, real
from gossamer.golden.network import Network
from gossamer.golden.tflite_float import is_float, load_float
from gossamer.golden.tflite_import import load_tflite

__all__ = ["Given", "Set", "load"]

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Set:
    """Inputs of the int8 network, what the network that is compressed gives for them, and their classes, -1 for unknown; none
    if it does not classify."""

    x: Array
    reference: Array
    known: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """What is compressed: ``source``, the bytes that its weights have now, and ``sets`` of inputs by what they are for."""

    source: Source
    own_bytes: int
    inputs: str
    sets: Mapping[str, Set]


class _Int8:
    """An int8 model."""

    def __init__(self, model: str, method: str) -> None:
        self.network = load_model(model)
        real_samples = model in BUILT_IN or samples_file(model)
        self.samples = samples(model, self.network, 1 << 30).x if real_samples else None
        self.own_bytes = sum(one.weights.nbytes for one in self.network.layers if isinstance(one, network.Weighted))

    def read(self, path: Path) -> Array:
        return load_inputs(path, self.network)

    def source(self, x: Array) -> Source:
        return from_int8(self.network, x)

    def integers(self, source: Source, x: Array) -> Array:
        return x

    def outputs(self, x: Array) -> Array:
        return real(self.network.tensors[self.network.output], self.network.run(x)[self.network.output])


class _Float:
    """A float model. Its samples may be int8 if NAME_int8.tflite is beside it, which says what they stand for; then the
    network's input is quantized as there."""

    def __init__(self, model: str, method: str) -> None:
        self.model, self.method = load_float(model), method
        self.samples, self.quantization = None, None
        file, twin = samples_file(model), Path(model).with_name(f"{Path(model).stem.removesuffix('_fp32')}_int8.tflite")
        if file and twin.is_file():
            published = load_tflite(twin)
            tensor = published.tensors[published.input]
            integers = load_samples(file, published)[0]
            self.samples = real(tensor, integers).reshape(len(integers), *self.model.shape)
            self.quantization = tensor.quantization if tensor.dtype == "int8" else None
        elif file:
            self.samples = load_floats(file, self.model)
        weighted = [layer for layer in self.model.layers if isinstance(layer, floating.Weighted)]
        self.own_bytes = sum(4 * layer.weights.size for layer in weighted)

    def read(self, path: Path) -> Array:
        return load_floats(path, self.model)

    def source(self, x: Array) -> Source:
        return from_float(
            self.model.name, self.model.layers, x, method=self.method, input_quantization=self.quantization,
            borders=self.model.borders,
        )  # fmt: skip

    def integers(self, source: Source, x: Array) -> Array:
        return arithmetic.quantize(x.astype(np.float32), *source.network.tensors["input"].quantization)

    def outputs(self, x: Array) -> Array:
        return floating.outputs(self.model.layers, x)


def load(model: str, calibrate: Path | None, method: str) -> Given:
    """A float or an int8 model with inputs: to calibrate with those of ``calibrate``, and held out the samples that are not
    among them; or every other one of the samples each. ``method`` gives the ranges of activations of a float model."""
    path = Path(model)
    plain = model not in BUILT_IN and path.suffix == ".tflite" and path.is_file() and is_float(path)
    found = (_Float if plain else _Int8)(model, method)
    own = found.samples
    if calibrate is not None:
        x, where = found.read(calibrate), calibrate.name
    elif own is not None:
        x, where = own[::2], "every other sample"
    else:
        raise InputError(f"inputs must be given with --calibrate, or be in a file NAME_samples.npz beside the model {model}")
    source = found.source(x)
    sets = {"calibration": x}
    if own is not None:
        used = {_key(one) for one in x}
        rest = [one for one in own if _key(one) not in used]
        sets |= {"held_out": np.stack(rest)} if rest else {}
    known = labels(model, source.network, 1 << 30 if own is None else len(own))
    classes = {} if own is None else {_key(one): label for one, label in zip(own, known)}
    return Given(
        source,
        found.own_bytes,
        where,
        {
            use: Set(
                found.integers(source, some),
                found.outputs(some),
                np.array([classes.get(_key(one), -1) for one in some] if _classifies(source.network) else [], np.int64),
            )
            for use, some in sets.items()
        },
    )


def _key(x: Array) -> bytes:
    return (x if x.dtype.kind != "f" else x.astype(np.float32)).tobytes()


def _classifies(found: Network) -> bool:
    return found.tensors[found.output].shape != found.tensors[found.input].shape
