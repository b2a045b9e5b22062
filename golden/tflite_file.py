"""The content of a ``.tflite`` file in plain Python: tensors, constants, operators with their options.

The file is a flatbuffer, read with the accessors that the package ``tflite`` generates from TensorFlow Lite's schema.
Nothing is interpreted here; :mod:`gossamer.golden.tflite_import` says what the operators mean. A damaged file raises
:class:`NetworkError`, whatever its bytes are.
"""

import dataclasses
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.network import NetworkError

__all__ = ["Graph", "Operator", "Value", "read_tflite"]

Array = NDArray[Any]
Shape = tuple[int, ...]

MALFORMED = (struct.error, IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError)
"""What the accessors raise where an offset or a length leads out of the file."""

NUMPY_TYPES = ("int8", "uint8", "int32", "int64", "float32")
"""Types of which constants are read; of others it is only known that there is one."""

OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": (
        "Pool2DOptions",
        ("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth", "FusedActivationFunction"),
    ),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "CONV_2D": (
        "Conv2DOptions",
        ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
    ),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
    ),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat")),
    "RESHAPE": ("ReshapeOptions", ("NewShape",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
}
OPTIONS["MAX_POOL_2D"] = OPTIONS["AVERAGE_POOL_2D"]
"""By operator: the table of its options and the fields that matter."""


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the file. ``name`` is unique: the file's, or, where that is empty or not unique, with ``#index``.

    ``data`` is the constant's value, in the tensor's shape, or None; ``constant`` is also true for constants of types
    that are not read. ``scales`` and ``zero_points`` are empty where the tensor is not quantized. ``unknown_sizes`` are
    the axes whose size is decided at run time.
    """

    index: int
    name: str
    shape: Shape
    dtype: str
    scales: Array
    zero_points: Array
    axis: int
    constant: bool
    data: Array | None
    sparse: bool
    variable: bool
    unknown_sizes: Shape


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """An operator at ``position``, from 0 on, in the order of execution. An input that is left out is None.

    ``options`` has the fields of :data:`OPTIONS`, numbers or, for ``NewShape``, a tuple; it is empty where the file has no
    such table.
    """

    position: int
    kind: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        written = " and ".join(repr(value.name) for value in self.outputs) or "nothing"
        return f"operator {self.position}, {self.kind}, which writes {written}"

    @property
    def source(self) -> Value:
        """The first input, of operators that have one."""
        assert self.inputs[0] is not None
        return self.inputs[0]

    @property
    def weights(self) -> Value:
        """The second input, of operators that have weights."""
        assert self.inputs[1] is not None
        return self.inputs[1]

    def input(self, index: int) -> Value | None:
        """Input ``index``, None if it is left out, be it at the end or by -1."""
        return self.inputs[index] if index < len(self.inputs) else None


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """The only subgraph of a file."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operators: tuple[Operator, ...]
    values: tuple[Value, ...]


def read_tflite(path: str | Path) -> Graph:
    """Read a file. Raises :class:`NetworkError`, without the path, for content that is no TFLite model of one subgraph."""
    data = Path(path).read_bytes()
    if data[4:8] != b"TFL3":
        raise NetworkError("a TFLite model must have the identifier TFL3 in its bytes 4 to 7, and this file has not")
    try:
        with np.errstate(all="ignore"):
            return _graph(data)
    except NetworkError:
        raise
    except MALFORMED as error:
        raise NetworkError(f"a TFLite model must be a sound flatbuffer, and this one is damaged: {error}") from error


def _numbers(vector: Any) -> tuple[int, ...]:
    """A vector of the accessors, which give 0 for none."""
    return () if isinstance(vector, int) else tuple(vector.tolist())


def _array(vector: Any, dtype: type) -> Array:
    return np.zeros(0, dtype) if isinstance(vector, int) else vector.astype(dtype)


def _bounded(count: int, data: bytes) -> int:
    """A vector's length, which is never above the file's; a damaged one would take for ever to walk along."""
    if not 0 <= count <= len(data):
        raise ValueError(f"a vector of {count} elements in a file of {len(data)} bytes")
    return count


def _graph(data: bytes) -> Graph:
    import tflite

    model = tflite.Model.GetRootAs(data, 0)
    if model.Version() != 3:
        raise NetworkError(f"a TFLite model must be of version 3 of the schema, not {model.Version()}")
    if model.SubgraphsLength() != 1:
        raise NetworkError(f"a TFLite model must have one subgraph, not {model.SubgraphsLength()}")
    subgraph = model.Subgraphs(0)
    types = {value: name.lower() for name, value in vars(tflite.TensorType).items() if not name.startswith("_")}
    raw = [subgraph.Tensors(index) for index in range(_bounded(subgraph.TensorsLength(), data))]
    names = [(tensor.Name() or b"").decode(errors="replace") for tensor in raw]
    values = []
    for index, tensor in enumerate(raw):
        own = names[index] if names[index] and names.count(names[index]) == 1 else f"{names[index]}#{index}"
        values.append(_value(model, tensor, index, own, types))

    def chosen(indices: Any) -> tuple[Value, ...]:
        return tuple(values[_index(index, len(values))] for index in _numbers(indices))

    operators = []
    for position in range(_bounded(subgraph.OperatorsLength(), data)):
        operator = subgraph.Operators(position)
        code = model.OperatorCodes(_index(operator.OpcodeIndex(), model.OperatorCodesLength()))
        kind = _kind(code, tflite.utils.BUILTIN_OPCODE2NAME)
        inputs = (None if i == -1 else values[_index(i, len(values))] for i in _numbers(operator.InputsAsNumpy()))
        outputs = chosen(operator.OutputsAsNumpy())
        operators.append(Operator(position, kind, tuple(inputs), outputs, _options(operator, kind, tflite)))
    return Graph(chosen(subgraph.InputsAsNumpy()), chosen(subgraph.OutputsAsNumpy()), tuple(operators), tuple(values))


def _index(index: int, count: int) -> int:
    if not 0 <= index < count:
        raise IndexError(f"index {index} of {count}")
    return index


def _value(model: Any, tensor: Any, index: int, name: str, types: dict[int, str]) -> Value:
    shape = _numbers(tensor.ShapeAsNumpy())
    signature = _numbers(tensor.ShapeSignatureAsNumpy())
    dtype = types[tensor.Type()]
    buffer = model.Buffers(_index(tensor.Buffer(), model.BuffersLength()))
    if buffer.Offset() or buffer.Size():
        raise NetworkError(f"constants must be inside the flatbuffer, and that of tensor {name!r} is behind it")
    content = b"" if isinstance(buffer.DataAsNumpy(), int) else buffer.DataAsNumpy().tobytes()
    constant = None
    if content and dtype in NUMPY_TYPES:
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        if len(content) != wanted or min(shape, default=1) < 1:
            raise NetworkError(
                f"tensor {name!r}, {dtype} of shape {shape}, must have {max(wanted, 0)} bytes of data, not {len(content)}"
            )
        constant = np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)
    quantization = tensor.Quantization()
    return Value(
        index,
        name,
        shape,
        dtype,
        scales=_array(quantization.ScaleAsNumpy() if quantization else 0, np.float32),
        zero_points=_array(quantization.ZeroPointAsNumpy() if quantization else 0, np.int64),
        axis=quantization.QuantizedDimension() if quantization else 0,
        constant=bool(content),
        data=constant,
        sparse=tensor.Sparsity() is not None,
        variable=bool(tensor.IsVariable()),
        unknown_sizes=tuple(axis for axis, size in enumerate(signature) if size < 0),
    )


def _kind(code: Any, names: dict[int, str]) -> str:
    # Old files have the number in one byte, new ones in a second field as well; the larger of the two counts. (The
    # package's accessor takes the first for the numbers that fit it, also where only the second is set.)
    offset = code._tab.Offset(10)
    second = struct.unpack_from("<i", code._tab.Bytes, code._tab.Pos + offset)[0] if offset else 0
    number = max(code.DeprecatedBuiltinCode(), second)
    if names.get(number) == "CUSTOM":
        return f"CUSTOM {(code.CustomCode() or b'').decode(errors='replace')!r}"
    return names.get(number, f"number {number}")


def _options(operator: Any, kind: str, tflite: Any) -> dict[str, Any]:
    table = operator.BuiltinOptions()
    if kind not in OPTIONS or table is None:
        return {}
    name, fields = OPTIONS[kind]
    if operator.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, name):
        return {}
    options = getattr(tflite, name)()
    options.Init(table.Bytes, table.Pos)
    return {
        field: _numbers(options.NewShapeAsNumpy()) if field == "NewShape" else getattr(options, field)()
        for field in fields
    }
