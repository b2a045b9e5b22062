"""Lowering: what each layer kind becomes on the machine."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import arithmetic
from gossamer.golden.network import (
    Add,
    AveragePool,
    Conv,
    Depthwise,
    FullyConnected,
    Layer,
    MaxPool,
    Network,
    Weighted,
    requantization,
)
from gossamer.golden.program import Record, TensorPlace, encode
from gossamer.golden.spec import ADD_TABLE, PARAMETER, PARAMETER_BYTES, SHIFT_BIAS, Config, Opcode

__all__ = ["Kernel", "Source", "lower"]

Numbers = Sequence[int] | NDArray[np.int64]

UNITY = ((1 << 31) - 1, 0)
"""Multiplier and shift that leave every accumulator as it is."""

ZERO = (1 << 30, -31)
"""Multiplier and shift that turn every accumulator into 0."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A feature map as a layer sees it. ``pitch`` is the number of bytes from one pixel to the next."""

    name: str
    rows: int
    columns: int
    channels: int
    pitch: int
    zero_point: int


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A layer in the machine's terms, for all output channels.

    ``weights`` is ``(groups, vectors, lanes)`` int8, ``groups`` being 1 if they are shared; ``parameters`` is
    ``(groups, lanes, 8)`` or, for an addition, ``(1, 256, 8)`` uint8. ``descriptor`` lacks what placement decides.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    descriptor: Record
    weights: NDArray[np.int8]
    parameters: NDArray[np.uint8]
    groups: int
    last_lanes: int
    lead_rows: int
    in_rows: int
    out_rows: int
    macs: int

    @staticmethod
    def works_on_words(layer: Layer, network: Network) -> bool:
        """Whether the layer reads ``lanes`` channels at a time."""
        if isinstance(layer, Depthwise):
            return _multiplier(layer, network) == 1
        return isinstance(layer, (Add, AveragePool, MaxPool))

    @property
    def word_mode(self) -> bool:
        """Whether the kernel reads whole words."""
        return bool(self.descriptor["word_mode"])

    @property
    def vectors(self) -> int:
        """Weight vectors per group."""
        return self.weights.shape[1]

    def passes(self, config: Config) -> Iterator[range]:
        """Split the groups into run steps. If the weights or parameters of all do not fit their buffer, each step gets those
        that fit half of it, so that the next step's can be loaded meanwhile."""
        most = self.groups
        for size, each in (
            (config.weight_vectors, 0 if self.descriptor["shared_weights"] else self.vectors),
            (config.parameters, 0 if self.descriptor["add"] else config.lanes),
        ):
            if self.groups * each > size:
                most = min(most, max(1, size // 2 // each))
        for start in range(0, self.groups, most):
            yield range(start, min(start + most, self.groups))

    def loads(self, groups: range) -> list[tuple[int, bytes]]:
        """Opcode and data of the load steps in front of a run step for ``groups``."""
        part = slice(groups.start, groups.stop)
        weights = self.weights if self.descriptor["shared_weights"] else self.weights[part]
        parameters = self.parameters if self.descriptor["add"] else self.parameters[part]
        return [(Opcode.LOAD_WEIGHTS, weights.tobytes()), (Opcode.LOAD_PARAMETERS, parameters.tobytes())]

    def row_steps(self, places: Sequence[TensorPlace], config: Config) -> Record:
        """How the input rows follow each other in the store; those of an addition come from its two inputs in turn."""
        words = places[0].row_words(config)
        if len(places) == 1:
            return {"row_step": words, "row_step_odd": words}
        over = (places[1].address - places[0].address) // config.store_bytes
        return {"row_step": over, "row_step_odd": words - over}


def _multiplier(layer: Depthwise, network: Network) -> int:
    return layer.weights.shape[2] // network.tensors[layer.inputs[0]].shape[2]


def lower(
    network: Network,
    layer: Layer,
    sources: Sequence[Source],
    target: Source,
    config: Config,
    refuse: Callable[[str], Exception],
) -> Kernel:
    """Lower one layer. What cannot be done raises ``refuse(sentence)``."""
    lowering = _Lowering(network, layer, sources, target, config, refuse)
    for kind, method in (
        (FullyConnected, lowering.fully_connected),
        (Conv, lowering.conv),
        (Depthwise, lowering.depthwise),
        (Add, lowering.add),
        (AveragePool, lowering.average_pool),
        (MaxPool, lowering.max_pool),
    ):
        if isinstance(layer, kind):
            return method()
    raise refuse(f"layer {layer.name!r}: the core cannot compute a {type(layer).__name__}")


class _Lowering:
    def __init__(
        self,
        network: Network,
        layer: Any,
        sources: Sequence[Source],
        target: Source,
        config: Config,
        refuse: Callable[[str], Exception],
    ):
        self.network, self.layer, self.config = network, layer, config
        self.source, self.sources, self.target = sources[0], sources, target
        self._refuse = refuse
        self.groups = -(-target.pitch // config.lanes)
        self.channels = self.groups * config.lanes
        self.pad = self.source.zero_point + 128

    def refuse(self, sentence: str) -> Exception:
        return self._refuse(f"layer {self.layer.name!r}: {sentence}")

    # What the kinds have in common.

    def _kernel(
        self,
        weights: NDArray[np.int8],
        parameters: NDArray[np.uint8],
        *,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int, int, int],
        macs: int,
        repeat: int = 1,
        in_rows: int | None = None,
        **fields: int,
    ) -> Kernel:
        config, source = self.config, self.source
        lanes, pitch = config.lanes, source.pitch
        word_mode = fields.get("word_mode", 0)
        left = -(-padding[2] * pitch // lanes)  # words
        offset = left * lanes - padding[2] * pitch
        row_bytes = source.columns * pitch
        window = kernel[1] * pitch
        end = max(offset + (self.target.columns - 1) * stride[1] * pitch + window, left * lanes + row_bytes)
        slot = -(-end // lanes)
        data = -(-row_bytes // config.store_bytes)
        # The ring has a multiple of the stride's rows, so that the row in front comes back to its start.
        slots = -(-(kernel[0] + stride[0]) // stride[0]) * stride[0]
        ahead = int(slots * slot <= config.row_words and self.target.rows > 1)
        if not ahead:
            slots = -(-kernel[0] // stride[0]) * stride[0]
        descriptor = {
            "zero_point": self.target.zero_point,
            "pad": self.pad,
            "double_rounding": 1,
            "shared_weights": int(len(weights) < self.groups),
            "ahead": ahead,
            "repeat": repeat,
            "groups": self.groups,
            "left_granules": left * config.granules,
            "right_granule": left * config.granules + data,
            "tail": row_bytes - (data - 1) * config.store_bytes,
            "slot_words": slot,
            "kernel_rows": kernel[0],
            "stride_rows": stride[0],
            "ring_words": slots * slot,
            "advance_words": stride[0] * slot,
            "offset": offset,
            "width": self.target.columns,
            "x_step": stride[1] * pitch,
            "range_last": (kernel[1] * repeat if word_mode else window) - 1,
            "tap_step": pitch // lanes if word_mode else 0,
            "out_x_step": self.target.pitch if self.target.columns > 1 else 0,
            "word_mode": 0,
            "maximum": 0,
            "add": 0,
            **dict(zip(("clamp_min", "clamp_max"), getattr(self.layer, "clamp", arithmetic.INT8))),
            **fields,
        }
        return Kernel(
            self.layer.name,
            tuple(s.name for s in self.sources),
            self.target.name,
            descriptor,
            weights,
            parameters,
            self.groups,
            self.target.pitch - (self.groups - 1) * lanes,
            padding[0],
            source.rows if in_rows is None else in_rows,
            self.target.rows,
            macs,
        )

    def _parameters(self, biases: Numbers, multipliers: Numbers, shifts: Numbers) -> NDArray[np.uint8]:
        """``(groups, lanes, 8)``. Channels that only fill up a word get the output's zero point."""
        entries = np.zeros((self.channels, PARAMETER_BYTES), np.uint8)
        for channel in range(self.channels):
            bias, (multiplier, shift) = 0, ZERO
            if channel < len(biases):
                bias = int(biases[channel])
                if multipliers[channel]:
                    multiplier, shift = int(multipliers[channel]), int(shifts[channel])
            if not -(1 << 27) <= bias < 1 << 27:
                raise self.refuse(f"the bias of channel {channel} must fit 28 bits, not be {bias}")
            if shift > SHIFT_BIAS - 1:
                scale = multiplier / 2**31 * 2.0**shift
                raise self.refuse(f"the scale of channel {channel} must be less than {1 << SHIFT_BIAS - 1}, not {scale:g}")
            record = {"bias": bias, "multiplier": multiplier - (1 << 30), "shift": SHIFT_BIAS - shift}
            entries[channel] = np.frombuffer(encode(PARAMETER, record, PARAMETER_BYTES), np.uint8)
        return entries.reshape(self.groups, self.config.lanes, PARAMETER_BYTES)

    def _double(self, layer: Weighted) -> int:
        return int(getattr(layer, "rounding") == "double")  # noqa: B009

    def _check_sums(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> None:
        """No sum may leave the accumulator; on the way it may, because wrapping twice is exact."""
        bits = self.config.acc_bits
        limit = 1 << bits - 1
        for worst, fits in ((low.min(), low.min() >= -limit), (high.max(), high.max() < limit)):
            if not fits:
                raise self.refuse(f"its sums must fit the {bits} bits of an accumulator, and can reach {worst}")

    def _weighted(self, weights: NDArray[np.int8], layer: Weighted) -> NDArray[np.uint8]:
        """Parameters for weights ``(channels, …)``, after a check of their sums. Stored bytes are activations plus 128."""
        flat = weights.reshape(len(weights), -1).astype(np.int64)
        self._check_sums(255 * np.minimum(flat, 0).sum(1), 255 * np.maximum(flat, 0).sum(1))
        biases = layer.bias.astype(np.int64) - (128 + self.source.zero_point) * flat.sum(1)
        return self._parameters(biases, *requantization(self.network, layer))

    def _dense(self, weights: NDArray[np.int8], layer: Weighted, **geometry: Any) -> Kernel:
        """A convolution with weights ``(O, KH, KW, I)``: one vector per byte of the window."""
        parameters = self._weighted(weights, layer)
        outputs, height, width, inputs = weights.shape
        padded = np.zeros((self.channels, height, width, self.source.pitch), np.int8)
        padded[:outputs, :, :, :inputs] = weights
        vectors = padded.reshape(self.groups, self.config.lanes, -1).transpose(0, 2, 1)
        return self._kernel(
            np.ascontiguousarray(vectors),
            parameters,
            kernel=(height, width),
            macs=self.target.rows * self.target.columns * outputs * height * width * inputs,
            double_rounding=self._double(layer),
            **geometry,
        )

    def _words(self, vectors: NDArray[np.int8], parameters: NDArray[np.uint8], **geometry: Any) -> Kernel:
        """A kernel that works on words: weights ``(groups or 1, beats, lanes)``."""
        return self._kernel(np.ascontiguousarray(vectors), parameters, word_mode=1, **geometry)

    # The kinds.

    def conv(self) -> Kernel:
        layer = self.layer
        return self._dense(layer.weights, layer, stride=layer.stride, padding=layer.padding)

    def fully_connected(self) -> Kernel:
        """Its input, flattened by rows, is what a convolution sees whose window is the whole map."""
        layer, source = self.layer, self.source
        weights = layer.weights.reshape(len(layer.weights), source.rows, source.columns, source.channels)
        return self._dense(weights, layer, stride=(1, 1), padding=(0, 0, 0, 0))

    def depthwise(self) -> Kernel:
        layer, lanes = self.layer, self.config.lanes
        height, width, outputs = layer.weights.shape
        multiplier = _multiplier(layer, self.network)
        geometry = {"stride": layer.stride, "padding": layer.padding}
        if multiplier > 1:  # a lane gets the channel of its own place only, so this is a convolution with zeros
            weights = np.zeros((outputs, height, width, self.source.channels), np.int8)
            channel = np.arange(outputs)
            weights[channel, :, :, channel // multiplier] = layer.weights.transpose(2, 0, 1)
            return self._dense(weights, layer, **geometry)
        padded = np.zeros((height, width, self.channels), np.int8)
        padded[:, :, :outputs] = layer.weights
        vectors = padded.reshape(height * width, self.groups, lanes).transpose(1, 0, 2)
        return self._words(
            vectors,
            self._weighted(layer.weights.transpose(2, 0, 1), layer),
            kernel=(height, width),
            macs=self.target.rows * self.target.columns * layer.weights.size,
            double_rounding=self._double(layer),
            **geometry,
        )

    def average_pool(self) -> Kernel:
        """A depthwise convolution with weights 1. TFLite rounds the quotient half away from zero."""
        layer, source, target = self.layer, self.source, self.target
        height, width = layer.kernel
        if any(layer.padding):
            raise self.refuse(f"an average pool must not be padded, as its windows then differ in size: {layer.padding}")
        count = height * width
        self._check_sums(np.array([0]), np.array([255 * count]))
        multiplier, shift = self._quotient(count)
        channels = source.channels
        parameters = self._parameters([-128 * count] * channels, [multiplier] * channels, [shift] * channels)
        return self._words(
            np.ones((1, count, self.config.lanes), np.int8),
            parameters,
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            macs=target.rows * target.columns * target.channels * count,
            zero_point=0, double_rounding=0,
        )

    def _quotient(self, count: int) -> tuple[int, int]:
        """Multiplier and shift that divide every possible sum by ``count`` as TFLite does; checked for all of them."""
        sums = np.arange(-128 * count, 127 * count + 1)
        wanted = np.sign(sums) * ((np.abs(sums) + count // 2) // count)
        # A multiplier a little too large pushes halves away from zero, where rounding once would round them up.
        exact, shift = arithmetic.quantize_multiplier(1 / count)
        for multiplier in range(exact, exact + 4):
            if multiplier < 1 << 31:
                got = arithmetic.multiply_by_quantized_multiplier(sums, multiplier, shift, "single")
                if (got == wanted).all():
                    return multiplier, shift
        raise self.refuse(f"no multiplier divides all sums of {count} values as TFLite does")

    def max_pool(self) -> Kernel:
        """``max(a, x) = max(a - x, 0) + x``: three beats per tap. Stored padding 0 is the smallest value."""
        layer, target = self.layer, self.target
        height, width = layer.kernel
        beats = np.tile(np.array([-1, 0, 1], np.int8), height * width)
        channels = self.source.channels
        parameters = self._parameters([0] * channels, [UNITY[0]] * channels, [UNITY[1]] * channels)
        return self._words(
            np.repeat(beats[:, None], self.config.lanes, axis=1)[None],
            parameters,
            kernel=layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            macs=target.rows * target.columns * target.channels * height * width,
            repeat=3,
            maximum=1, pad=0, zero_point=-128,
        )

    def add(self) -> Kernel:
        """The accumulator becomes ``a + 256*b``, two indices into tables of the scaled inputs."""
        a, b = self.sources
        network, target = self.network, self.target
        scales = [network.tensors[s.name].scale for s in (a, b)]
        # Ref: TFLite kernels/add.cc, Prepare, and reference/integer_ops/add.h.
        twice = 2 * max(scales)
        stored = np.arange(256)
        tables = [
            arithmetic.multiply_by_quantized_multiplier(
                (stored - 128 - source.zero_point) << 20, *arithmetic.quantize_multiplier(scale / twice)
            )
            for source, scale in zip((a, b), scales)
        ]
        entries = b"".join(
            encode(ADD_TABLE, {"first": int(first), "second": int(second)}, PARAMETER_BYTES) for first, second in zip(*tables)
        )
        multiplier, shift = arithmetic.quantize_multiplier(twice / ((1 << 20) * network.tensors[target.name].scale))
        if multiplier == 0:
            multiplier, shift = ZERO
        if shift > SHIFT_BIAS - 1:
            scale, most = max(scales) / network.tensors[target.name].scale, 1 << SHIFT_BIAS + 18
            raise self.refuse(f"the inputs' scale must be less than {most} times the output's, not {scale:.9g} times")
        beats = np.array([1, 0, 0, 127, 127, 2], np.int8)
        return self._words(
            np.repeat(beats[:, None], self.config.lanes, axis=1)[None],
            np.frombuffer(entries, np.uint8).reshape(1, 256, PARAMETER_BYTES),
            kernel=(2, 1),
            stride=(2, 1),
            padding=(0, 0, 0, 0),
            macs=target.rows * target.columns * target.channels * 2,
            repeat=3,
            in_rows=2 * a.rows,
            add=1, add_multiplier=multiplier - (1 << 30), add_shift=SHIFT_BIAS - shift,
        )
