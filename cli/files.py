"""Files that are written whole or not at all, and inputs that are checked."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.network import Network
from gossamer.golden.spec import UserError
from gossamer.golden.tflite_float import FloatModel

__all__ = ["InputError", "load_floats", "load_inputs", "load_samples", "output_file", "output_folder"]


class InputError(UserError, ValueError):
    """A file that the user gave breaks a rule; one sentence."""


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the output's folder {path} must be one that can be made: {error.strerror}") from None


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place if the block ends well."""
    if path.is_dir():
        raise InputError(f"the output must be a file, and {path} is a folder")
    _make_folder(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".gossamer-") as folder:
        temporary = Path(folder, path.name)
        yield temporary
        temporary.replace(path)


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """A temporary folder whose files move to ``path`` if the block ends well; files of other names stay there."""
    if path.exists() and not path.is_dir():
        raise InputError(f"the output must be a folder, and {path} is a file")
    _make_folder(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".gossamer-") as name:
        yield Path(name)
        path.mkdir(exist_ok=True)
        for file in Path(name).iterdir():
            target = path / file.name
            if target.is_dir():
                shutil.rmtree(target)
            shutil.move(file, target)


def _array(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            return np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"the input file {path} must exist") from None
    except Exception as error:  # numpy does not say which; damaged headers alone raise five kinds
        reason = str(error).partition("\n")[0]
        raise InputError(f"the input file {path} must be a .npy file: {reason}") from None


def load_inputs(path: Path, network: Network) -> NDArray[Any]:
    """The inputs in a ``.npy`` file, batch first, of the model's own type and shape; returned in the tensor's shape."""
    return _checked(_array(path), path, network)


def load_floats(path: Path, model: FloatModel) -> NDArray[Any]:
    """The inputs of a float model in a ``.npy`` file, batch first, float32 of the model's own shape, or, in a ``.npz`` file, in
    its array ``x``; returned in the shape of the float layers."""
    x = _samples(path)["x"] if path.suffix == ".npz" else _array(path)
    x = _suiting(x, model.name, "float32", model.borders[0] or model.shape)
    if not np.isfinite(x).all():
        raise InputError(f"the input of {model.name!r} must be finite numbers, and some in {path} are not")
    return x.reshape(len(x), *model.shape)


def _samples(path: Path) -> dict[str, Any]:
    """The arrays in a ``.npz`` file that has an ``x``."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {"x": file["x"], **file}
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the samples {path} must be a .npz file with an array x: {reason}") from None


def load_samples(path: Path, network: Network) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The inputs ``x`` in a ``.npz`` file, as those of :func:`load_inputs`, and the network's outputs ``output``, if they are
    there."""
    arrays = _samples(path)
    x, output = arrays["x"], arrays.get("output")
    x = _checked(x, path, network)
    tensor = network.tensors[network.output]
    shape = (len(x), *(network.output_shape or tensor.shape))
    if output is not None and (output.dtype != tensor.dtype or output.shape != shape):
        raise InputError(
            f"the output in {path} must be {tensor.dtype} of shape {shape}, not {output.dtype} of shape {output.shape}"
        )
    return x, output


def _checked(x: Any, path: Path, network: Network) -> NDArray[Any]:
    """The inputs ``x``, found in the file ``path``, in the shape of the network's input tensor."""
    tensor = network.tensors[network.input]
    x = _suiting(x, network.name, tensor.dtype, network.input_shape or tensor.shape)
    if x.dtype == np.float32 and np.isnan(x).any():
        raise InputError(f"the input of {network.name!r} must be numbers, and some in {path} are NaN")
    return x.reshape(len(x), *tensor.shape)


def _suiting(x: Any, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if not isinstance(x, np.ndarray) or x.dtype != dtype or x.shape[1:] != shape or not len(x):
        found = f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else "an archive"
        wanted = f"{dtype} of shape (N, {', '.join(map(str, shape))}), N > 0"
        raise InputError(f"the input of {name!r} must be {wanted}, not {found}")
    return x
