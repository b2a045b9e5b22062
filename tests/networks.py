"""Small random networks that together use every operator and many shapes."""

import dataclasses

import numpy as np

from gossamer.golden import arithmetic
from gossamer.golden.network import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Depthwise,
    Dequantize,
    FullyConnected,
    MaxPool,
    Mean,
    Network,
    Pad,
    Quantize,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
)
from gossamer.golden.spec import Config

LESS = {"int4": 16, "binary": 70}
"""How much smaller than those of int8 the values of a type are."""


class Builder:
    """Appends layers with random weights; scales keep the outputs in range."""

    def __init__(self, rng: np.random.Generator, shape, *, zero_point=None, dtype="int8"):
        self.rng = rng
        self.tensors = {}
        self.layers = []
        self.input = self.tensor(shape, zero_point=zero_point, dtype=dtype)

    def tensor(self, shape, *, scale=None, zero_point=None, dtype="int8"):
        name = f"t{len(self.tensors)}"
        scale = float(np.float32(self.rng.uniform(0.01, 0.2))) if scale is None else scale
        low, high = {"uint8": (0, 255), "int4": (-8, 7), "binary": (0, 0)}.get(dtype, (-128, 127))
        zero_point = int(self.rng.integers(low, high + 1)) if zero_point is None else max(low, min(high, zero_point))
        if dtype == "float32":
            scale, zero_point = 1.0, 0
        self.tensors[name] = Tensor(name, tuple(int(n) for n in shape), scale, zero_point, dtype)
        return name

    def like(self, x, shape):
        """A tensor with the type, the scale and the zero point of another."""
        given = self.tensors[x]
        return self.tensor(shape, scale=given.scale, zero_point=given.zero_point, dtype=given.dtype)

    def _append(self, kind, inputs, output, **fields):
        self.layers.append(kind(f"l{len(self.layers)}_{kind.__name__.lower()}", inputs, output, **fields))
        return output

    def _padding(self, x, kernel, stride, same):
        h, w = self.tensors[x].shape[:2]
        if not same:
            return (0, 0, 0, 0)
        return (*arithmetic.same_padding(h, kernel[0], stride[0]), *arithmetic.same_padding(w, kernel[1], stride[1]))

    def _mapped(self, x, kernel, stride, padding, channels, zero_point):
        h, w = self.tensors[x].shape[:2]
        rows = arithmetic.output_size(h, kernel[0], stride[0], padding[:2])
        columns = arithmetic.output_size(w, kernel[1], stride[1], padding[2:])
        return rows, columns, channels

    def _numbers(self, x, shape, count, taps, relu):
        weights = self.rng.integers(-127, 128, shape).astype(np.int8)
        bias = self.rng.integers(-5000, 5000, count).astype(np.int32)
        scales = self.rng.uniform(0.5, 1.5, count).astype(np.float32).astype(float) / 127
        less = LESS.get(self.tensors[x].dtype, 1)
        spread = self.tensors[x].scale * 70 / 127 * 70 / less * np.sqrt(taps)
        return weights, bias // less, scales, float(np.float32(spread / 50))

    def conv(
        self, x, channels, kernel=(3, 3), stride=(1, 1), *, same=True, relu=True, zero_point=None, rounding="double", like=None,
        dtype="int8", signs=False,
    ):
        """With ``signs`` weights are -1 and +1."""
        padding = self._padding(x, kernel, stride, same)
        inputs = self.tensors[x].shape[2]
        weights, bias, scales, scale = self._numbers(
            x, (channels, *kernel, inputs), channels, kernel[0] * kernel[1] * inputs, relu
        )
        zero_point = -128 if relu and zero_point is None else zero_point
        shape = self._mapped(x, kernel, stride, padding, channels, zero_point)
        if signs:
            weights, bias, scale = np.where(weights > 0, 1, -1).astype(np.int8), bias // 70, scale / 70
        if dtype == "int4":
            scale *= 16
        out = self.like(like, shape) if like else self.tensor(shape, scale=scale, zero_point=zero_point, dtype=dtype)
        low, high = (-8, 7) if dtype == "int4" else (-128, 127)
        clamp = (self.tensors[out].zero_point, high) if relu and dtype != "binary" else (low, high)
        return self._append(
            Conv, (x,), out, weights=weights, bias=bias, weight_scales=scales, stride=stride, padding=padding, clamp=clamp,
            rounding=rounding,
        )  # fmt: skip

    def depthwise(self, x, kernel=(3, 3), stride=(1, 1), *, multiplier=1, same=True, relu=True, dtype="int8"):
        padding = self._padding(x, kernel, stride, same)
        channels = self.tensors[x].shape[2] * multiplier
        weights, bias, scales, scale = self._numbers(x, (*kernel, channels), channels, kernel[0] * kernel[1], relu)
        zero_point = -128 if relu else None
        shape = self._mapped(x, kernel, stride, padding, channels, zero_point)
        out = self.tensor(shape, scale=16 * scale if dtype == "int4" else scale, zero_point=zero_point, dtype=dtype)
        low, high = (-8, 7) if dtype == "int4" else (-128, 127)
        clamp = (self.tensors[out].zero_point if relu and dtype != "binary" else low, high)
        return self._append(
            Depthwise, (x,), out, weights=weights, bias=bias, weight_scales=scales, stride=stride, padding=padding,
            clamp=clamp, rounding="double",
        )  # fmt: skip

    def fully_connected(self, x, outputs, *, rounding="single"):
        flat = self.reshape(x, (int(np.prod(self.tensors[x].shape)),)) if len(self.tensors[x].shape) > 1 else x
        count = self.tensors[flat].shape[0]
        weights, bias, scales, scale = self._numbers(flat, (outputs, count), outputs, count, False)
        out = self.tensor((outputs,), scale=scale)
        return self._append(
            FullyConnected, (flat,), out, weights=weights, bias=bias, weight_scales=scales, clamp=(-128, 127),
            rounding=rounding,
        )  # fmt: skip

    def add(self, a, b, *, relu=False, dtype="int8"):
        spread = sum(self.tensors[x].scale / LESS.get(self.tensors[x].dtype, 1) for x in (a, b))
        scale = float(np.float32(spread * LESS.get(dtype, 1)))
        out = self.tensor(self.tensors[a].shape, scale=scale, dtype=dtype)
        low, high = (-8, 7) if dtype == "int4" else (-128, 127)
        clamp = (self.tensors[out].zero_point if relu else low, high)
        return self._append(Add, (a, b), out, clamp=clamp)

    def pool(self, kind, x, kernel=(2, 2), stride=(2, 2), *, same=False):
        padding = self._padding(x, kernel, stride, same)
        tensor = self.tensors[x]
        shape = self._mapped(x, kernel, stride, padding, tensor.shape[2], None)
        clamp = (-8, 7) if tensor.dtype == "int4" else (-128, 127)
        return self._append(kind, (x,), self.like(x, shape), kernel=kernel, stride=stride, padding=padding, clamp=clamp)

    def average_pool(self, x, kernel=(2, 2), stride=(2, 2), *, same=False):
        return self.pool(AveragePool, x, kernel, stride, same=same)

    def max_pool(self, x, kernel=(2, 2), stride=(2, 2), *, same=False):
        return self.pool(MaxPool, x, kernel, stride, same=same)

    def reshape(self, x, shape):
        return self._append(Reshape, (x,), self.like(x, shape))

    def rescale(self, x, like=None):
        """To another scale and zero point: random ones, or those of ``like``."""
        shape = self.tensors[x].shape
        scale = self.tensors[x].scale * float(self.rng.uniform(0.5, 2))
        out = self.tensor(shape, scale=scale) if like is None else self.like(like, shape)
        low = int(self.rng.integers(-128, 0))
        return self._append(Rescale, (x,), out, clamp=(low, 127) if like is None else (-128, 127))

    def pad(self, x, padding=(0, 0, 0, 0), channels=(0, 0)):
        h, w, c = self.tensors[x].shape
        out = self.like(x, (h + sum(padding[:2]), w + sum(padding[2:]), c + sum(channels)))
        return self._append(Pad, (x,), out, padding=padding, channels=channels)

    def mean(self, x, *, keep=False):
        channels = self.tensors[x].shape[2]
        scale = self.tensors[x].scale * float(self.rng.uniform(0.2, 0.9))
        return self._append(Mean, (x,), self.tensor((1, 1, channels) if keep else (channels,), scale=scale))

    def concat(self, *inputs):
        shape = self.tensors[inputs[0]].shape
        out = self.like(inputs[0], (*shape[:-1], sum(self.tensors[x].shape[-1] for x in inputs)))
        return self._append(Concat, inputs, out)

    def quantize(self, x):
        return self._append(Quantize, (x,), self.tensor(self.tensors[x].shape))

    def dequantize(self, x, dtype="float32"):
        return self._append(Dequantize, (x,), self.tensor(self.tensors[x].shape, dtype=dtype))

    def softmax(self, x):
        return self._append(Softmax, (x,), self.tensor(self.tensors[x].shape, scale=1 / 256, zero_point=-128))

    def network(self, name="random"):
        return Network(name, self.tensors, tuple(self.layers), self.input, self.layers[-1].output)


def _single(kind):
    def build(rng):
        b = Builder(rng, (int(rng.integers(3, 9)), int(rng.integers(3, 9)), int(rng.choice([1, 3, 5, 16, 20]))))
        kind(b, rng)
        return b.network(kind.__name__)

    build.__name__ = kind.__name__
    return build


def _kernel(rng):
    return int(rng.integers(1, 4)), int(rng.integers(1, 4))


def _stride(rng):
    return int(rng.integers(1, 3)), int(rng.integers(1, 3))


@_single
def conv(b, rng):
    same, relu = bool(rng.integers(2)), bool(rng.integers(2))
    b.conv(b.input, int(rng.integers(1, 40)), _kernel(rng), _stride(rng), same=same, relu=relu)


@_single
def depthwise(b, rng):
    b.depthwise(b.input, _kernel(rng), _stride(rng), same=bool(rng.integers(2)), relu=bool(rng.integers(2)))


@_single
def depthwise_multiplied(b, rng):
    b.depthwise(b.input, _kernel(rng), _stride(rng), multiplier=2)


@_single
def fully_connected(b, rng):
    b.fully_connected(b.input, int(rng.integers(1, 40)), rounding=str(rng.choice(["single", "double"])))


@_single
def add(b, rng):
    x = b.conv(b.input, 8, (1, 1), relu=False)
    y = b.conv(b.input, 8, (1, 1), relu=True)
    b.add(x, y, relu=bool(rng.integers(2)))


@_single
def average_pool(b, rng):
    b.average_pool(b.input, _kernel(rng), _stride(rng))


@_single
def max_pool(b, rng):
    b.max_pool(b.input, _kernel(rng), _stride(rng), same=bool(rng.integers(2)))


def residual(rng):
    """Every operator in one network."""
    b = Builder(rng, (8, 9, 3), zero_point=83)
    x = b.conv(b.input, 16, (3, 3))
    y = b.conv(x, 16, (3, 3), relu=False)
    x = b.add(x, y, relu=True)
    x = b.max_pool(x, (2, 2), (2, 2), same=True)
    x = b.depthwise(x, (3, 3), (1, 1))
    x = b.conv(x, 24, (1, 1))
    x = b.depthwise(x, (3, 3), (2, 2), relu=False)
    x = b.average_pool(x, (2, 3), (1, 1))
    b.softmax(b.fully_connected(x, 10))
    return b.network("residual")


@_single
def padded_average_pool(b, rng):
    b.average_pool(b.input, _kernel(rng), _stride(rng), same=True)


@_single
def pad(b, rng):
    x = b.conv(b.input, int(rng.choice([3, 8, 20])), (1, 1), relu=False) if rng.integers(2) else b.input
    padding = tuple(int(n) for n in rng.integers(0, 3, 4))
    x = b.pad(x, padding, tuple(int(n) for n in rng.integers(0, 20, 2)) if rng.integers(2) else (0, 0))
    if rng.integers(2):
        b.max_pool(x, (2, 2), (1, 1))


@_single
def rescale(b, rng):
    x = b.rescale(b.conv(b.input, int(rng.integers(1, 40)), (1, 1), relu=False))
    b.depthwise(b.rescale(x))


def mean(rng):
    """Over a power of two of pixels, and others, for which the multiplier may be a small one."""
    height, width = ((2, 2), (1, 8), (3, 5), (7, 7))[int(rng.integers(4))]
    b = Builder(rng, (height, width, int(rng.choice([1, 5, 20]))))
    x = b.mean(b.conv(b.input, int(rng.choice([4, 16, 33])), (3, 3)), keep=bool(rng.integers(2)))
    if rng.integers(2):
        b.fully_connected(x, 5)
    return b.network("mean")


@_single
def concat(b, rng):
    """Some inputs are written where they belong, others copied: the network's, one that comes twice, one that is used again."""

    def part():
        return b.rescale(b.conv(b.input, int(rng.integers(1, 24)), (1, 1), relu=False), like=b.input)

    again = part()
    inner = b.concat(part(), part())
    parts = [b.input, part(), again, inner, again]
    x = b.concat(*(parts[i] for i in rng.permutation(5)[: int(rng.integers(2, 6))]))
    x = b.max_pool(x, (2, 2), (1, 1), same=True) if rng.integers(2) else b.conv(x, 9, (1, 1))
    b.concat(x, b.rescale(b.conv(again, 5, (1, 1)), like=x), b.rescale(b.conv(inner, 7, (1, 1)), like=x))


def reshapes(rng):
    """Between maps of different shapes, also of the network's input."""
    b = Builder(rng, (4, 6, 4))
    x = b.conv(b.reshape(b.input, (6, 2, 8)), 12, (1, 1))
    y = b.conv(b.reshape(x, (3, 8, 6)), 8, (3, 3), (1, 2))
    z = b.conv(b.reshape(b.input, (3, 4, 8)), 8, (1, 1), relu=False)
    z = b.conv(b.concat(y, b.rescale(z, like=y)), 5, (1, 1))
    b.fully_connected(b.reshape(z, (2, 5, 6)) if rng.integers(2) else z, 7)
    return b.network("reshapes")


@_single
def fork(b, rng):
    """One map that several layers read, each in its way."""
    x = b.conv(b.input, int(rng.choice([8, 12, 20])), (1, 1))
    channels = b.tensors[x].shape[2]
    a = b.add(x, b.conv(x, channels, (1, 2), relu=False))
    c = b.add(b.max_pool(x, (2, 2), (1, 1), same=True), b.depthwise(x))
    b.add(a, b.concat(b.conv(x, 3, (1, 1), like=c), b.conv(c, channels - 3, (1, 1), like=c)))


def borders(rng):
    """Float or uint8 outside, int8 inside."""
    b = Builder(rng, (4, 5, 3), dtype=str(rng.choice(["float32", "uint8"])))
    x = b.conv(b.reshape(b.quantize(b.input), (5, 4, 3)), 6, (3, 3))
    x = b.fully_connected(x, 6)
    b.dequantize(b.softmax(x) if rng.integers(2) else x, str(rng.choice(["float32", "uint8"])))
    return b.network("borders")


def four_bits(rng):
    """Maps of int4 between all kinds of layers."""
    b = Builder(rng, (6, int(rng.integers(5, 10)), int(rng.choice([1, 3, 16]))))
    channels = int(rng.integers(1, 40))
    x = b.conv(b.input, channels, (3, 3), _stride(rng), dtype="int4")
    y = b.conv(x, channels, (1, 1), relu=False, dtype="int4")
    x = b.add(x, y, relu=bool(rng.integers(2)), dtype=str(rng.choice(["int4", "int8"])))
    x = b.max_pool(x, (2, 2), (1, 1), same=True)
    x = b.depthwise(x, (3, 3), (1, 1), dtype="int4")
    if rng.integers(2):
        x = b.average_pool(x, (2, 2), (1, 1), same=True)
    x = b.conv(x, int(rng.integers(1, 20)), (2, 3), dtype="int4")
    b.fully_connected(x, 10)
    return b.network("four_bits")


def one_bit(rng):
    """Binary maps between all kinds of layers, with binary weights and others."""
    b = Builder(rng, (6, int(rng.integers(5, 10)), int(rng.choice([1, 3, 16]))))

    def channels():
        return 8 * int(rng.integers(1, 6))

    x = b.conv(b.input, channels(), (3, 3), _stride(rng), dtype="binary")
    x = b.conv(x, channels(), _kernel(rng), _stride(rng), dtype="binary", signs=True)
    if rng.integers(2):
        x = b.max_pool(x, (2, 2), (1, 1), same=True)
    x = b.conv(x, channels(), (2, 3), dtype="binary", signs=bool(rng.integers(2)))
    if rng.integers(2):
        x = b.depthwise(x, (3, 3), dtype="binary")
    x = b.conv(x, channels(), (3, 1), dtype="binary", signs=True) if rng.integers(2) else x
    x = b.conv(x, int(rng.integers(1, 20)), (1, 1), signs=True) if rng.integers(2) else x
    b.fully_connected(x, 10)
    return b.network("one_bit")


def pruned(network, rng, lanes, density):
    """The network with all but a share of the weight vectors of its convolutions zero."""

    def prune(layer):
        if not isinstance(layer, (Conv, FullyConnected)):
            return layer
        weights = layer.weights.copy()
        for group in range(0, len(weights), lanes):
            weights[group : group + lanes, rng.random(weights.shape[1:]) >= density] = 0
        return dataclasses.replace(layer, weights=weights)

    return dataclasses.replace(network, layers=tuple(prune(layer) for layer in network.layers))


def pyramid(rng, lanes=16):
    """Convolutions of strides 1 and 2, on maps whose pixels are words of the row buffer and on others, and a dense layer."""
    b = Builder(rng, (7, int(rng.integers(5, 9)), int(rng.choice([3, lanes, 2 * lanes]))))
    x = b.conv(b.input, int(rng.choice([lanes, 2 * lanes])), (3, 3), (1, int(rng.integers(1, 3))))
    x = b.conv(x, int(rng.integers(1, 2 * lanes + 2)), (int(rng.integers(1, 4)), 3), (2, 1))
    x = b.conv(x, lanes, (1, 1), same=False, relu=False)
    b.fully_connected(x, int(rng.integers(1, lanes + 3)))
    return b.network()


def block_sparse(rng):
    """Half of the weight vectors of 16 lanes are zero."""
    return pruned(pyramid(rng), rng, 16, 0.5)


def narrow(network, rng):
    """The network with weights of four bits in most layers, and zero vectors in some."""

    def narrowed(layer):
        if not isinstance(layer, (Conv, FullyConnected)) or rng.random() < 0.2:
            return layer
        weights = layer.weights >> 4
        if rng.random() < 0.5:
            weights[:, rng.random(weights.shape[1:]) < 0.4] = 0
        return dataclasses.replace(layer, weights=weights, bias=layer.bias // 16, weight_scales=layer.weight_scales * 16)

    return dataclasses.replace(network, layers=tuple(narrowed(layer) for layer in network.layers))


def narrow_weights(rng):
    """Weights of four bits, and more channels than lanes."""
    b = Builder(rng, (5, int(rng.integers(3, 7)), int(rng.choice([3, 16]))))
    x = b.conv(b.input, int(rng.integers(9, 150)), (3, 3))
    x = b.conv(x, int(rng.integers(9, 150)), (1, 1), relu=False, dtype=str(rng.choice(["int8", "int4"])))
    x = b.max_pool(x) if rng.integers(2) else x
    b.fully_connected(x, int(rng.integers(5, 150)))
    return narrow(b.network("narrow_weights"), rng)


MODES = (four_bits, one_bit, block_sparse, narrow_weights)
"""Functions as in :data:`NETWORKS`, to networks that a configuration with masks, nibbles, binary and int4 treats as such."""


# Networks whose layers must be cut on a core of small buffers.


def deep(rng):
    """Windows of 360 weight vectors, in rows and columns of them."""
    b = Builder(rng, (4, 5, 40))
    b.conv(b.input, int(rng.choice([5, 20])), (3, 3), _stride(rng), same=bool(rng.integers(2)))
    return b.network("deep")


def long(rng):
    """A window of hundreds of weight vectors, which is one row."""
    b = Builder(rng, (1, 1, int(rng.choice([300, 700]))))
    b.fully_connected(b.fully_connected(b.input, int(rng.integers(1, 40))), 3)
    return b.network("long")


def wide(rng):
    """Rows that do not fit the row buffer."""
    b = Builder(rng, (int(rng.integers(1, 4)), int(rng.integers(250, 400)), 12))
    kernel = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    if rng.integers(2):
        b.conv(b.input, 4, kernel, (1, int(rng.integers(1, 3))))
    else:
        b.max_pool(b.input, kernel, (1, 2), same=True)
    return b.network("wide")


def wide_and_deep(rng):
    """Rows that do not fit the row buffer, and windows that do not fit the weight buffer."""
    b = Builder(rng, (2, 60, 50))
    b.conv(b.input, 9, (2, 3), (1, 2), relu=False)
    return b.network("wide_and_deep")


def large_windows(rng):
    """Windows of up to 312 pixels, which are words."""
    height, width = int(rng.integers(5, 9)), int(rng.choice([20, 39]))
    b = Builder(rng, (height + int(rng.integers(0, 3)), width + 2, int(rng.choice([3, 20]))))
    if rng.integers(2):
        b.depthwise(b.input, (height, width), (2, 3))
    else:
        b.average_pool(b.input, (height, width), (2, 1))
    return b.network("large_windows")


def many_channels(rng):
    """More channels than there are parameters."""
    b = Builder(rng, (2, 2, 3))
    b.depthwise(b.conv(b.input, 300, (1, 1)), (2, 2))
    return b.network("many_channels")


NETWORKS = (
    conv, depthwise, depthwise_multiplied, fully_connected, add, average_pool, padded_average_pool, max_pool, pad, rescale,
    mean, concat, reshapes, fork, residual, deep, long, wide, wide_and_deep, large_windows, many_channels,
)  # fmt: skip
"""Functions from a generator of random numbers to a network of int8 input and output; :func:`borders` is one of others."""

SMALL = tuple(
    Config(f"small{lanes}x{store}", lanes=lanes, store_bytes=store, row_words=256, weight_vectors=256, parameters=256)
    for lanes in (8, 16, 32, 64)
    for store in (8, 16)
    if store <= lanes
)
"""Configurations with the smallest buffers."""


def full_groups(rng):
    """Maps whose channels fill the groups of 8 or 16 lanes, so that their rows can be compressed: convolutions, depthwise ones
    with strides, additions and pools."""
    b = Builder(rng, (int(rng.integers(3, 12)), 2 * int(rng.integers(1, 6)), int(rng.choice([1, 3, 16]))))
    x = b.conv(b.input, int(rng.choice([8, 16, 32, 48])), (3, 3), relu=bool(rng.integers(2)))
    for _ in range(int(rng.integers(1, 4))):
        channels = int(rng.choice([8, 16, 32, 64]))
        kind = rng.integers(5)
        if kind == 0:
            x = b.conv(x, channels, (1, 1), (int(rng.integers(1, 3)),) * 2, relu=bool(rng.integers(2)))
        elif kind == 1:
            x = b.depthwise(x, (3, 3), (int(rng.integers(1, 3)),) * 2)
        elif kind == 2:
            y = b.conv(x, b.tensors[x].shape[2], (3, 3), relu=False)
            x = b.add(x, y, relu=bool(rng.integers(2)))
        elif kind == 3:
            x = b.conv(x, channels, (3, 3), (1, 2))
        else:
            x = b.max_pool(x, (2, 2), (1, 1), same=True)
    x = b.conv(x, 16, (1, 1))
    b.fully_connected(x, 10)
    return b.network("full_groups")


def larger_than_a_store(rng):
    """320 kB of weights, more than the stores of the small configurations."""
    b = Builder(rng, (1, 1, 640))
    x = b.fully_connected(b.input, 256)
    x = b.fully_connected(x, 256)
    b.fully_connected(x, 320)
    return b.network("larger_than_a_store")


def inputs(rng: np.random.Generator, network: Network, count: int) -> np.ndarray:
    """Random inputs ``(count, …)``, half of whose values are the zero point or -128."""
    tensor = network.tensors[network.input]
    shape = (count, *tensor.shape)
    if tensor.dtype == "float32":
        return rng.normal(0, 8, shape).astype(np.float32)
    if tensor.dtype == "uint8":
        return rng.integers(0, 256, shape).astype(np.uint8)
    x = rng.integers(-128, 128, shape)
    return np.where(rng.random(shape) < 0.5, rng.choice([-128, tensor.zero_point], shape), x).astype(np.int8)
