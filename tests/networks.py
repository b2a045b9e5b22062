"""Small random networks that together use every operator and many shapes."""

import numpy as np

from gossamer.golden import arithmetic
from gossamer.golden.network import (
    Add,
    AveragePool,
    Conv,
    Depthwise,
    FullyConnected,
    MaxPool,
    Network,
    Reshape,
    Softmax,
    Tensor,
)


class Builder:
    """Appends layers with random weights; scales keep the outputs in range."""

    def __init__(self, rng: np.random.Generator, shape, *, zero_point=None):
        self.rng = rng
        self.tensors = {}
        self.layers = []
        self.input = self.tensor(shape, zero_point=zero_point)

    def tensor(self, shape, *, scale=None, zero_point=None):
        name = f"t{len(self.tensors)}"
        scale = float(np.float32(self.rng.uniform(0.01, 0.2))) if scale is None else scale
        zero_point = int(self.rng.integers(-128, 128)) if zero_point is None else zero_point
        self.tensors[name] = Tensor(name, tuple(int(n) for n in shape), scale, zero_point)
        return name

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
        spread = self.tensors[x].scale * 70 / 127 * 70 * np.sqrt(taps)
        return weights, bias, scales, float(np.float32(spread / 50))

    def conv(self, x, channels, kernel=(3, 3), stride=(1, 1), *, same=True, relu=True, zero_point=None, rounding="double"):
        padding = self._padding(x, kernel, stride, same)
        inputs = self.tensors[x].shape[2]
        weights, bias, scales, scale = self._numbers(
            x, (channels, *kernel, inputs), channels, kernel[0] * kernel[1] * inputs, relu
        )
        zero_point = -128 if relu and zero_point is None else zero_point
        out = self.tensor(self._mapped(x, kernel, stride, padding, channels, zero_point), scale=scale, zero_point=zero_point)
        clamp = (self.tensors[out].zero_point, 127) if relu else (-128, 127)
        return self._append(
            Conv, (x,), out, weights=weights, bias=bias, weight_scales=scales, stride=stride, padding=padding, clamp=clamp,
            rounding=rounding,
        )  # fmt: skip

    def depthwise(self, x, kernel=(3, 3), stride=(1, 1), *, multiplier=1, same=True, relu=True):
        padding = self._padding(x, kernel, stride, same)
        channels = self.tensors[x].shape[2] * multiplier
        weights, bias, scales, scale = self._numbers(x, (*kernel, channels), channels, kernel[0] * kernel[1], relu)
        zero_point = -128 if relu else None
        out = self.tensor(self._mapped(x, kernel, stride, padding, channels, zero_point), scale=scale, zero_point=zero_point)
        clamp = (self.tensors[out].zero_point, 127) if relu else (-128, 127)
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

    def add(self, a, b, *, relu=False):
        scale = float(np.float32(self.tensors[a].scale + self.tensors[b].scale))
        out = self.tensor(self.tensors[a].shape, scale=scale)
        clamp = (self.tensors[out].zero_point, 127) if relu else (-128, 127)
        return self._append(Add, (a, b), out, clamp=clamp)

    def pool(self, kind, x, kernel=(2, 2), stride=(2, 2), *, same=False):
        padding = self._padding(x, kernel, stride, same)
        tensor = self.tensors[x]
        shape = self._mapped(x, kernel, stride, padding, tensor.shape[2], None)
        out = self.tensor(shape, scale=tensor.scale, zero_point=tensor.zero_point)
        return self._append(kind, (x,), out, kernel=kernel, stride=stride, padding=padding, clamp=(-128, 127))

    def average_pool(self, x, kernel=(2, 2), stride=(2, 2)):
        return self.pool(AveragePool, x, kernel, stride)

    def max_pool(self, x, kernel=(2, 2), stride=(2, 2), *, same=False):
        return self.pool(MaxPool, x, kernel, stride, same=same)

    def reshape(self, x, shape):
        tensor = self.tensors[x]
        return self._append(Reshape, (x,), self.tensor(shape, scale=tensor.scale, zero_point=tensor.zero_point))

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


NETWORKS = (
    conv, depthwise, depthwise_multiplied, fully_connected, add, average_pool, max_pool, residual,
)  # fmt: skip
"""Functions from a generator of random numbers to a network."""


def inputs(rng: np.random.Generator, network: Network, count: int) -> np.ndarray:
    """Random inputs ``(count, …)``, half of whose values are the zero point or -128."""
    tensor = network.tensors[network.input]
    shape = (count, *tensor.shape)
    x = rng.integers(-128, 128, shape)
    return np.where(rng.random(shape) < 0.5, rng.choice([-128, tensor.zero_point], shape), x).astype(np.int8)
