"""Random TFLite models: real files, of the operators that the importer supports, from a generator of random numbers."""

import dataclasses
import math
from collections.abc import Callable

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from gossamer.golden import arithmetic

KINDS = (
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS", "FULLY_CONNECTED",
    "LOGISTIC", "MAX_POOL_2D", "MEAN", "PAD", "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "SOFTMAX",
    "SQUEEZE",
)  # fmt: skip
"""What :func:`random_model` chooses from; DEQUANTIZE, and QUANTIZE of other types, come as borders."""

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


class Writer:
    """Builds a model. Tensors and operators are appended; nothing is checked, so that bad models can be made."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, "test"
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs, self.model.operatorCodes = [self.graph], []
        self.model.buffers = [schema.BufferT()]

    def tensor(self, shape, dtype="int8", scales=(), zero_points=(), axis=0, data=None, name=None) -> int:
        """Append a tensor, constant if it has ``data``; returns its index."""
        tensor = schema.TensorT()
        tensor.name = f"tensor{len(self.graph.tensors)}" if name is None else name
        tensor.shape, tensor.type = [int(size) for size in shape], getattr(schema.TensorType, np.dtype(dtype).name.upper())
        if len(np.atleast_1d(scales)):
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [float(scale) for scale in np.atleast_1d(scales)]
            tensor.quantization.zeroPoint = [int(point) for point in np.atleast_1d(zero_points)]
            tensor.quantization.quantizedDimension = axis
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, data: np.ndarray, **fields) -> int:
        """Append a constant; returns its index."""
        return self.tensor(data.shape, data.dtype, data=data, **fields)

    def operator(self, kind: str, inputs, outputs, options=None, **fields) -> None:
        """Append an operator; ``options`` is the name of its table, whose ``fields`` follow."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 2 if kind == "MEAN" else 1
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for field, value in fields.items():
                setattr(operator.builtinOptions, field, value)
        self.graph.operators.append(operator)

    def prune(self, y: int) -> None:
        """Remove the operators that tensor ``y`` does not depend on. Their tensors stay, unused."""
        needed, kept = {y}, []
        for operator in reversed(self.graph.operators):
            if needed & {*operator.outputs}:
                needed |= {*operator.inputs}
                kept.append(operator)
        self.graph.operators = kept[::-1]

    def finish(self, x: int, y: int) -> bytes:
        """The file, with input ``x`` and output ``y``."""
        self.graph.inputs, self.graph.outputs = [x], [y]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


@dataclasses.dataclass(frozen=True)
class Activation:
    """A tensor of the model under construction, with its batch axis."""

    index: int
    shape: tuple[int, ...]
    scale: float
    zero_point: int


ACTIVATIONS = (0, 0, 1, 1, 2, 3)


class RandomModel:
    """Appends random operators. A method for a kind returns the output, or None if it does not suit the input."""

    def __init__(self, rng: np.random.Generator, acc_bits: int = 32, plain: bool = False) -> None:
        """Accumulators have at most ``acc_bits``; scales and multipliers are narrower if ``plain``."""
        self.rng, self.writer = rng, Writer()
        self.acc_bits, self.largest = acc_bits, -0.1 if plain else 5.0
        self.scales = (-4.0, 1.0) if plain else (-8.0, 2.0)
        self.available: list[Activation] = []

    # Random numbers

    def integer(self, low: int, high: int) -> int:
        """An integer in ``low..high``."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return bool(self.rng.random() < probability)

    def scale(self) -> float:
        """A float32 between two powers of two; every fourth is a power itself."""
        exponent = self.rng.uniform(*self.scales)
        return float(np.float32(2.0 ** (round(exponent) if self.chance(0.25) else exponent)))

    def zero_point(self) -> int:
        """Often one of the extremes."""
        return int(self.rng.choice([-128, -128, 0, 127, self.integer(-128, 127), self.integer(-128, 127)]))

    # Parts

    def activation(self, shape, scale: float | None = None, zero_point: int | None = None, dtype="int8") -> Activation:
        """A new tensor."""
        scale = self.scale() if scale is None else scale
        zero_point = self.zero_point() if zero_point is None else zero_point
        index = self.writer.tensor(shape, dtype, scale, zero_point)
        return Activation(index, tuple(int(size) for size in shape), scale, zero_point)

    def like(self, x: Activation, shape=None) -> Activation:
        """A new tensor of the same quantization."""
        return self.activation(x.shape if shape is None else shape, x.scale, x.zero_point)

    def weighted(self, x: Activation, y: Activation, shape, channel_axis: int) -> list[int]:
        """Weights of ``shape``, their scales and biases, such that no accumulator leaves int32, be it shifted left."""
        channels, fan = shape[channel_axis], math.prod(shape) // shape[channel_axis]
        sparse = self.rng.random(shape) < self.rng.choice([0.2, 0.7, 1.0])
        weights = (self.rng.integers(-127, 128, shape) * sparse).astype(np.int8)
        if self.chance(0.3):  # channels of zeros, and the smallest number
            weights.flat[self.integer(0, weights.size - 1)] = -128
            weights[(slice(None),) * channel_axis + (0,)] = 0
        reach = np.abs(weights.astype(np.int64)).sum(axis=tuple(a for a in range(len(shape)) if a != channel_axis))
        reach = reach * 255
        per_channel = self.chance(0.5)
        count = channels if per_channel else 1
        if self.chance(0.5):  # outputs of all sizes
            log = self.rng.normal(math.log2(1 / (40 * math.sqrt(fan))), 1.5, count)
        else:  # all shifts, and beyond
            log = self.rng.uniform(-34, self.largest, count)
        headroom = self.acc_bits - 1.1 - np.log2(np.maximum(reach.max() if count == 1 else reach, 1) + 2)  # left shift and all
        log = np.minimum(log, np.minimum(headroom - 1, self.largest))
        scales = (2.0**log * y.scale / x.scale).astype(np.float32)
        if self.chance(0.1):
            scales[0] = 0
        real = np.broadcast_to(x.scale * scales.astype(np.float64) / y.scale, (channels,))
        left = np.array([max(arithmetic.quantize_multiplier(value)[1], 0) for value in real])
        room = np.minimum((1 << 31) - 1 >> left, (1 << self.acc_bits - 1) - 1) - reach
        wanted = np.minimum(room, np.ceil(200 / np.maximum(real, 1e-12))) if self.chance(0.7) else room
        bias = (self.rng.uniform(-1, 1, channels) * np.minimum(wanted, room)).astype(np.int32)
        inputs = [self.writer.constant(weights, scales=scales, zero_points=[0] * count, axis=channel_axis)]
        if len(shape) == 4 or self.chance(0.8):
            bias_scales = (np.float32(x.scale) * scales).astype(np.float32)
            inputs.append(self.writer.constant(bias, scales=bias_scales, zero_points=[0] * count))
        elif self.chance(0.5):
            inputs.append(-1)
        return inputs

    def window(self, x: Activation, largest: int, dilated: bool):
        """Kernel, strides, dilations, padding and the size of the output."""
        padding = self.integer(0, 1)
        kernel, stride, dilation, size = [], [], [], []
        for length in x.shape[1:3]:
            step = self.integer(2, 3) if dilated and self.chance(0.15) else 1
            limit = largest if padding == 0 else min(largest, (length - 1) // step + 1)
            k, s = self.integer(1, limit), self.integer(1, 3)
            reach = (k - 1) * step + 1
            kernel.append(k)
            stride.append(s)
            dilation.append(step)
            size.append(-(-length // s) if padding == 0 else (length - reach) // s + 1)
        return kernel, stride, dilation, padding, size

    def fused(self) -> int:
        """A fused activation."""
        return int(self.rng.choice(ACTIVATIONS))

    # Operators

    def CONV_2D(self, x: Activation) -> Activation | None:
        if len(x.shape) != 4:
            return None
        kernel, stride, dilation, padding, size = self.window(x, 4, True)
        groups = int(self.rng.choice([g for g in range(1, x.shape[3] + 1) if x.shape[3] % g == 0]))
        groups = groups if self.chance(0.2) else 1
        outputs = groups * self.integer(1, max(1, 10 // groups))
        y = self.activation((1, *size, outputs))
        constants = self.weighted(x, y, (outputs, *kernel, x.shape[3] // groups), 0)
        self.writer.operator(
            "CONV_2D", [x.index, *constants], [y.index], "Conv2DOptions", padding=padding, strideH=stride[0],
            strideW=stride[1], dilationHFactor=dilation[0], dilationWFactor=dilation[1], fusedActivationFunction=self.fused(),
        )  # fmt: skip
        return y

    def DEPTHWISE_CONV_2D(self, x: Activation) -> Activation | None:
        if len(x.shape) != 4 or x.shape[3] > 24:
            return None
        kernel, stride, dilation, padding, size = self.window(x, 4, True)
        multiplier = self.integer(1, 3) if self.chance(0.3) else 1
        y = self.activation((1, *size, x.shape[3] * multiplier))
        constants = self.weighted(x, y, (1, *kernel, y.shape[3]), 3)
        self.writer.operator(
            "DEPTHWISE_CONV_2D", [x.index, *constants], [y.index], "DepthwiseConv2DOptions", padding=padding,
            strideH=stride[0], strideW=stride[1], dilationHFactor=dilation[0], dilationWFactor=dilation[1],
            depthMultiplier=multiplier, fusedActivationFunction=self.fused(),
        )  # fmt: skip
        return y

    def FULLY_CONNECTED(self, x: Activation) -> Activation | None:
        outputs, keep = self.integer(1, 12), self.chance(0.4)
        flat = math.prod(x.shape) if self.chance(0.5) and not keep else x.shape[-1]
        y = self.activation((*x.shape[:-1], outputs) if keep else (math.prod(x.shape) // flat, outputs))
        constants = self.weighted(x, y, (outputs, flat), 0)
        self.writer.operator(
            "FULLY_CONNECTED", [x.index, *constants], [y.index], "FullyConnectedOptions", keepNumDims=keep,
            fusedActivationFunction=self.fused(),
        )  # fmt: skip
        return y

    def ADD(self, x: Activation) -> Activation | None:
        other = self.rng.choice([a.index for a in self.available if a.shape == x.shape])
        y = self.activation(x.shape)
        self.writer.operator("ADD", [x.index, int(other)], [y.index], "AddOptions", fusedActivationFunction=self.fused())
        return y

    def _pool(self, x: Activation, kind: str) -> Activation | None:
        if len(x.shape) != 4:
            return None
        kernel, stride, _, padding, size = self.window(x, 5, False)
        if self.chance(0.2):
            kernel, stride, padding, size = x.shape[1:3], x.shape[1:3], 1, (1, 1)
        y = self.like(x, (1, *size, x.shape[3]))
        self.writer.operator(
            kind, [x.index], [y.index], "Pool2DOptions", padding=padding, strideH=stride[0], strideW=stride[1],
            filterHeight=kernel[0], filterWidth=kernel[1], fusedActivationFunction=self.fused(),
        )  # fmt: skip
        return y

    def AVERAGE_POOL_2D(self, x: Activation) -> Activation | None:
        return self._pool(x, "AVERAGE_POOL_2D")

    def MAX_POOL_2D(self, x: Activation) -> Activation | None:
        return self._pool(x, "MAX_POOL_2D")

    def MEAN(self, x: Activation) -> Activation | None:
        if len(x.shape) not in (3, 4):
            return None
        first = len(x.shape) - 3 if x.shape[0] == 1 else 0
        axes, keep = [*range(first, len(x.shape) - 1)], self.chance(0.5)
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes]
        axes = [axis - len(x.shape) if self.chance(0.5) else axis for axis in self.rng.permutation(axes)]
        y = self.activation(shape) if self.chance(0.7) else self.like(x, shape)
        constant = self.writer.constant(np.array(axes, np.int32))
        self.writer.operator("MEAN", [x.index, constant], [y.index], "ReducerOptions", keepDims=keep)
        return y

    def PAD(self, x: Activation) -> Activation | None:
        if len(x.shape) != 4:
            return None
        pads = np.zeros((4, 2), np.int64 if self.chance(0.2) else np.int32)
        pads[1:3] = self.rng.integers(0, 3, (2, 2))
        pads[3] = self.rng.integers(0, 3, 2) if self.chance(0.3) else 0
        y = self.like(x, [size + int(pair.sum()) for size, pair in zip(x.shape, pads)])
        self.writer.operator("PAD", [x.index, self.writer.constant(pads)], [y.index], "PadOptions")
        return y

    def CONCATENATION(self, x: Activation) -> Activation | None:
        same = [a for a in self.available if a.shape[:-1] == x.shape[:-1] and a.shape[-1] < 20]
        parts = [x] + [same[self.integer(0, len(same) - 1)] for _ in range(self.integer(0, 3)) if same]
        parts = [
            part if (part.scale, part.zero_point) == (x.scale, x.zero_point) else self._requantized("QUANTIZE", part, x)
            for part in parts
        ]
        y = self.like(x, (*x.shape[:-1], sum(part.shape[-1] for part in parts)))
        axis = -1 if self.chance(0.5) else len(x.shape) - 1
        indices = [part.index for part in parts]
        self.writer.operator("CONCATENATION", indices, [y.index], "ConcatenationOptions", axis=axis)
        return y

    def _requantized(self, kind: str, x: Activation, target: Activation | None = None) -> Activation:
        y = self.like(target, x.shape) if target else self.activation(x.shape)
        self.writer.operator(kind, [x.index], [y.index], "QuantizeOptions" if kind == "QUANTIZE" else None)
        return y

    def QUANTIZE(self, x: Activation) -> Activation | None:
        return self._requantized("QUANTIZE", x, x if self.chance(0.1) else None)

    def RELU(self, x: Activation) -> Activation | None:
        return self._requantized("RELU", x, x if self.chance(0.3) else None)

    def RELU6(self, x: Activation) -> Activation | None:
        return self._requantized("RELU6", x, x if self.chance(0.3) else None)

    def RELU_N1_TO_1(self, x: Activation) -> Activation | None:
        return self._requantized("RELU_N1_TO_1", x, x if self.chance(0.3) else None)

    def SOFTMAX(self, x: Activation) -> Activation | None:
        y = self.activation(x.shape, 1 / 256, -128)
        beta = float(self.rng.choice([0.25, 1.0, 1.0, 1.7]))
        self.writer.operator("SOFTMAX", [x.index], [y.index], "SoftmaxOptions", beta=beta)
        return y

    def LOGISTIC(self, x: Activation) -> Activation | None:
        y = self.activation(x.shape, 1 / 256, -128)
        self.writer.operator("LOGISTIC", [x.index], [y.index])
        return y

    def RESHAPE(self, x: Activation) -> Activation | None:
        n, last = math.prod(x.shape), x.shape[-1]
        shapes = [(1, n), (n,), (1, 1, 1, n), (1, n // last, last), (1, n // last, 1, last), (n // last, last), (1, 1, n, 1)]
        shape = shapes[self.integer(0, len(shapes) - 1)]
        y = self.like(x, shape)
        given = np.array(shape, np.int32)
        if self.chance(0.3):
            given[self.integer(0, len(shape) - 1)] = -1
        how = self.integer(0, 2)  # a constant, an option, both
        inputs = [x.index] if how == 1 else [x.index, self.writer.constant(given)]
        fields = {} if how == 0 else {"options": "ReshapeOptions", "newShape": given.tolist()}
        self.writer.operator("RESHAPE", inputs, [y.index], **fields)
        return y

    def EXPAND_DIMS(self, x: Activation) -> Activation | None:
        if len(x.shape) not in (2, 3) or x.shape[0] != 1:
            return None
        axis = self.integer(0, len(x.shape))
        shape = [*x.shape]
        shape.insert(axis, 1)
        y = self.like(x, shape)
        constant = self.writer.constant(np.array(axis, np.int32).reshape(1))
        self.writer.operator("EXPAND_DIMS", [x.index, constant], [y.index])
        return y

    def SQUEEZE(self, x: Activation) -> Activation | None:
        axes = [axis for axis, size in enumerate(x.shape) if size == 1 and 0 < axis < len(x.shape) - 1]
        if not axes:
            return None
        y = self.like(x, [size for axis, size in enumerate(x.shape) if axis not in axes])
        self.writer.operator("SQUEEZE", [x.index], [y.index], "SqueezeOptions", squeezeDims=axes)
        return y

    # The whole

    def input(self, dtype: str) -> int:
        """The model's input, and the first int8 tensor; returns the input's index."""
        shape = (1, self.integer(1, 9), self.integer(1, 9), self.integer(1, 6))
        if self.chance(0.15):
            shape = (1, self.integer(1, 40))
        elif self.chance(0.1):
            shape = shape[:1] + shape[2:]
        if dtype == "int8":
            self.available.append(self.activation(shape))
            return self.available[0].index
        if dtype == "uint8":
            index = self.writer.tensor(shape, dtype, self.scale(), self.integer(0, 255))
        else:
            index = self.writer.tensor(shape, dtype)
        self.available.append(self.activation(shape))
        self.writer.operator("QUANTIZE", [index], [self.available[0].index], "QuantizeOptions")
        return index

    def grow(self, wanted: int, kinds: tuple[str, ...]) -> bool:
        """Append ``wanted`` operators of ``kinds``; returns whether that many suited."""
        for _ in range(20 * wanted):
            # mostly the newest tensor; sometimes an older one, which is then read several times
            chances = np.array([3.0**n for n in range(len(self.available))])
            source = self.available[int(self.rng.choice(len(self.available), p=chances / chances.sum()))]
            method: Callable[[Activation], Activation | None] = getattr(self, str(self.rng.choice(kinds)))
            result = method(source)
            if result is not None:
                self.available.append(result)
                wanted -= 1
            if wanted == 0:
                return True
        return False

    def output(self, x: Activation, dtype: str) -> int:
        """The model's output; returns its index."""
        if dtype == "int8":
            return x.index
        if dtype == "uint8":
            index = self.writer.tensor(x.shape, dtype, self.scale(), self.integer(0, 255))
            self.writer.operator("QUANTIZE", [x.index], [index], "QuantizeOptions")
        else:
            index = self.writer.tensor(x.shape, dtype)
            self.writer.operator("DEQUANTIZE", [x.index], [index], "DequantizeOptions")
        return index


def random_model(
    rng: np.random.Generator,
    depth: int | None = None,
    kinds: tuple[str, ...] = KINDS,
    borders: bool = True,
    acc_bits: int = 32,
    plain: bool = False,
) -> bytes:
    """A random model of ``depth`` operators, 1 to 8 if None, each of one of ``kinds``, and what they need besides.

    With ``borders``, one of three has a uint8 or float32 input or output. No accumulator needs more than ``acc_bits``.
    A ``plain`` model is like a trained one: every operator counts for the output, SOFTMAX and LOGISTIC are the last if
    there are any, multipliers of weighted operators are below 1, and no two scales differ by a factor above 32.
    """
    types = ["int8"] * 4 + ["uint8", "float32"] if borders else ["int8"]
    wanted = depth or int(rng.integers(1, 9))
    kinds = (*kinds, *(kind for kind in (*WEIGHTED, "CONV_2D", "CONV_2D", "ADD") if kind in kinds))
    last_kinds = tuple(kind for kind in kinds if plain and kind in ("SOFTMAX", "LOGISTIC"))
    kinds = tuple(kind for kind in kinds if kind not in last_kinds) or kinds
    for _ in range(100):  # not every input suits every kind
        model = RandomModel(rng, acc_bits, plain)
        x = model.input(str(rng.choice(types)))
        if model.grow(wanted, kinds):
            break
    last = model.available[-1]
    good = [a for a in model.available[1:] if a.shape[0] == 1 or len(a.shape) == 1] or model.available[:1]
    last = last if last in good else good[-1]
    if last is model.available[0]:  # nothing suited: at least one operator
        last = model.QUANTIZE(last) or last
    if last_kinds and model.chance(0.3):
        last = getattr(model, str(rng.choice(last_kinds)))(last)
    y = model.output(last, str(rng.choice(types)))
    if plain:
        model.writer.prune(y)
    return model.writer.finish(x, y)


def random_input(rng: np.random.Generator, data: bytes, count: int) -> np.ndarray:
    """``count`` inputs of a model's own type and shape, batch first: extremes first, then random ones."""
    details = reference(data).get_input_details()[0]
    shape, dtype = (count, *details["shape"][1:]), np.dtype(details["dtype"])
    if dtype == np.float32:
        return (rng.normal(0, 1, shape) * 2.0 ** rng.uniform(-4, 8, (count,) + (1,) * (len(shape) - 1))).astype(dtype)
    limits = np.iinfo(dtype)
    x = rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
    x[0], x[-1] = limits.min, limits.max
    return x


def reference(data: bytes) -> Interpreter:
    """An interpreter of the reference kernels that keeps every tensor."""
    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def reference_tensors(interpreter: Interpreter, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor that the model computes, by name and with the batch axis, for one input ``x`` without it."""
    details = interpreter.get_input_details()[0]
    interpreter.set_tensor(details["index"], x.reshape(details["shape"]))
    interpreter.invoke()
    names = {entry["index"]: entry["name"] for entry in interpreter.get_tensor_details()}
    written = [int(index) for op in interpreter._get_ops_details() for index in op["outputs"]]
    return {names[index]: interpreter.get_tensor(index) for index in written}
