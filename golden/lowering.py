"""Lowering: what each layer kind becomes on the machine."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

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
    Mean,
    Network,
    Pad,
    Rescale,
    Weighted,
    requantization,
)
from gossamer.golden.program import encode
from gossamer.golden.spec import ADD_TABLE, PARAMETER, PARAMETER_BYTES, SHIFT_BIAS, Config
from gossamer.golden.tiling import Kernel, Map

__all__ = ["channels_of_a_vector", "copies", "is_block_sparse", "lower", "works_on_words"]

Numbers = Sequence[int] | NDArray[np.int64]

UNITY = ((1 << 31) - 1, 0)
"""Multiplier and shift that leave every accumulator as it is."""

ZERO = (1 << 30, -31)
"""Multiplier and shift that turn every accumulator into 0."""


MOST_STORED = 0.9
"""The share of a layer's weight vectors that are not zero, up to which it is block-sparse."""


def works_on_words(layer: Layer, network: Network) -> bool:
    """Whether the layer reads ``lanes`` channels at a time."""
    if isinstance(layer, Depthwise):
        return _multiplier(layer, network) == 1
    if isinstance(layer, Pad):
        return layer.channels == (0, 0)
    return isinstance(layer, (Add, AveragePool, MaxPool, Mean, Rescale))


def is_block_sparse(layer: Layer, config: Config) -> bool:
    """Whether masks would pay for a convolution."""
    if not config.masks or not isinstance(layer, Conv):
        return False
    groups = range(0, len(layer.weights), config.lanes)
    stored = [layer.weights[group : group + config.lanes].any(0) for group in groups]
    return bool(np.mean(stored) <= MOST_STORED)


def channels_of_a_vector(layer: Conv | FullyConnected, config: Config) -> int:
    """The output channels in a weight vector: as many as lanes, or of weights of four bits twice as many."""
    fits = layer.weights.min() >= -8 and layer.weights.max() <= 7
    return config.lanes << int(config.int4 and fits and len(layer.weights) > config.lanes)


def _multiplier(layer: Depthwise, network: Network) -> int:
    return layer.weights.shape[2] // network.tensors[layer.inputs[0]].shape[2]


def lower(
    network: Network,
    layer: Layer,
    sources: Sequence[Map],
    target: Map,
    config: Config,
    refuse: Callable[[str], Exception],
) -> list[Kernel]:
    """Lower one layer. What cannot be done raises ``refuse(sentence)``."""
    lowering = _Lowering(network, layer, sources, target, config, refuse)
    for kind, method in (
        (FullyConnected, lowering.fully_connected),
        (Conv, lowering.conv),
        (Depthwise, lowering.depthwise),
        (Add, lowering.add),
        (AveragePool, lowering.average_pool),
        (MaxPool, lowering.max_pool),
        (Mean, lowering.mean),
        (Rescale, lowering.rescale),
        (Pad, lowering.pad_map),
    ):
        if isinstance(layer, kind):
            return [part for kernel in method() for part in _filled(kernel, config)]
    raise refuse(f"layer {layer.name!r}: the core cannot compute a {type(layer).__name__}")


def copies(
    network: Network, layer: Layer, source: Map, target: Map, config: Config, refuse: Callable[[str], Exception]
) -> list[Kernel]:
    """Copy a map, value by value in order, into one that may have another shape."""
    if (source.rows, source.columns, source.channels) == (target.rows, target.columns, target.channels):
        kernels = _Lowering(network, layer, [source], target, config, refuse).copy()
        return [part for kernel in kernels for part in _filled(kernel, config)]
    # Both as rows of pixels of as many channels as one of them has, or as divide both.
    for channels in (source.channels, target.channels, math.gcd(source.channels, target.channels)):
        maps = [_recut(given, channels) for given in (source, target)]
        if all(maps):
            break
    else:
        shapes = [(m.rows, m.columns, m.channels) for m in (source, target)]
        raise refuse(
            f"layer {layer.name!r}: a reshape of {shapes[0]} to {shapes[1]} must not be read or written by a layer that "
            f"works on words of {config.lanes} channels"
        )
    source, target = cast(list[Map], maps)
    kernels = []
    done, total = 0, source.rows * source.columns
    while done < total:
        (y, x), (row, column) = divmod(done, source.columns), divmod(done, target.columns)
        count = min(source.columns - x, target.columns - column)
        part = _Lowering(network, layer, [source], target, config, refuse).copy()
        kernels += [
            dataclasses.replace(k, origin=(y, x), place=(row, column), rows=1, columns=count) for k in part
        ]
        done += count
    return kernels


def _filled(kernel: Kernel, config: Config) -> list[Kernel]:
    """If a kernel on words shall write more bytes of a pixel than it reads, those behind are the zero point, by another one."""
    more = kernel.target.written - kernel.source.pitch
    if not kernel.word_mode or more <= 0:
        return [kernel]
    pitch, target = kernel.source.pitch, kernel.target
    groups = pitch // config.lanes
    own = dataclasses.replace(
        kernel,
        target=dataclasses.replace(target, written=pitch),
        weights=kernel.weights[:groups],
        parameters=kernel.parameters[:groups],
    )
    zero = encode(PARAMETER, {"bias": 0, "multiplier": ZERO[0] - (1 << 30), "shift": SHIFT_BIAS - ZERO[1]}, PARAMETER_BYTES)
    entries = np.frombuffer(zero * config.lanes, np.uint8).reshape(1, config.lanes, PARAMETER_BYTES)
    fill = dataclasses.replace(
        kernel,
        target=dataclasses.replace(target, offset=target.offset + pitch, channels=0, written=more),
        weights=np.zeros((1, 1, 1, config.lanes), np.int8),
        parameters=entries,
        fields={**kernel.fields, "maximum": 0, "add": 0, "repeat": 1},
    )
    return [own, fill]


def _recut(given: Map, channels: int) -> Map | None:
    """The same bytes as pixels of so many channels, if they lie behind each other."""
    if given.channels == channels:
        return given
    columns, rest = divmod(given.columns * given.channels, channels)
    if rest or (given.pitch, given.offset) != (given.channels, 0):
        return None
    return dataclasses.replace(given, columns=columns, channels=channels, pitch=channels, written=channels)


class _Lowering:
    def __init__(
        self,
        network: Network,
        layer: Any,
        sources: Sequence[Map],
        target: Map,
        config: Config,
        refuse: Callable[[str], Exception],
    ):
        self.network, self.layer, self.config = network, layer, config
        self.source, self.sources, self.target = sources[0], sources, target
        self._refuse = refuse
        self._use_groups(config.lanes)
        self.pad = self.source.outside + self.source.bias
        self.zero = self.source.zero_point + self.source.bias  # the byte that stands for 0

    def _use_groups(self, group: int) -> None:
        """Let groups have so many output channels."""
        self.group, self.groups = group, -(-self.target.written // group)
        self.channels = self.groups * group

    def refuse(self, sentence: str) -> Exception:
        return self._refuse(f"layer {self.layer.name!r}: {sentence}")

    # What the kinds have in common.

    def _kernel(
        self,
        weights: NDArray[np.int8],
        parameters: NDArray[np.uint8],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        rows: range | None = None,
        columns: range | None = None,
        **fields: int,
    ) -> Kernel:
        """A kernel for output ``rows`` and ``columns``, or all."""
        rows = range(self.target.rows) if rows is None else rows
        columns = range(self.target.columns) if columns is None else columns
        low, high = getattr(self.layer, "clamp", arithmetic.INT8)
        limits = {1: arithmetic.INT8, 2: arithmetic.INT4, 8: arithmetic.INT8}[self.target.per_byte]
        clamp = max(low, limits[0]), min(high, limits[1])
        if self.target.per_byte == 8:  # the sign is the value; the bytes of no channel are -1
            fields |= {"zero_point": -1}
            clamp = limits
        common = {
            "zero_point": self.target.zero_point,
            "pad": self.pad,
            "double_rounding": 1,
            "repeat": 1,
            "word_mode": 0,
            "maximum": 0,
            "add": 0,
            "small_multipliers": 0,
            "binary": 0,
            "int4": int(self.group > self.config.lanes),
            "clamp_min": clamp[0],
            "clamp_max": clamp[1],
        }
        return Kernel(
            name=self.layer.name,
            inputs=tuple(source.name for source in self.sources),
            source=self.source,
            target=self.target,
            weights=np.ascontiguousarray(weights),
            parameters=parameters,
            fields={**common, **fields},
            stride=stride,
            origin=(rows.start * stride[0] - padding[0], columns.start * stride[1] - padding[2]),
            place=(rows.start, columns.start),
            rows=len(rows),
            columns=len(columns),
        )

    def _parameters(
        self, biases: Numbers, multipliers: Numbers, shifts: Numbers, *, small: bool = False
    ) -> NDArray[np.uint8]:
        """``(groups, lanes, 8)``. Channels that only fill up a word get the output's zero point, or -1. ``small``: multipliers
        are less than 2**30. Of a binary output only the sign counts, which the zero point of -1 must not change."""
        if self.target.per_byte == 8:
            biases = np.asarray(biases) + 1
            multipliers, shifts = ([value] * len(biases) for value in UNITY)
        entries = np.zeros((self.channels, PARAMETER_BYTES), np.uint8)
        for channel in range(self.channels):
            bias, (multiplier, shift) = 0, (0, ZERO[1]) if small else ZERO
            if channel < len(biases):
                bias = int(biases[channel])
                if multipliers[channel]:
                    multiplier, shift = int(multipliers[channel]), int(shifts[channel])
            if not -(1 << 27) <= bias < 1 << 27:
                raise self.refuse(f"the bias of channel {channel} must fit 28 bits, not be {bias}")
            if shift > SHIFT_BIAS - 1:
                scale = multiplier / 2**31 * 2.0**shift
                raise self.refuse(f"the scale of channel {channel} must be less than {1 << SHIFT_BIAS - 1}, not {scale:g}")
            record = {"bias": bias, "multiplier": multiplier - (0 if small else 1 << 30), "shift": SHIFT_BIAS - shift}
            entries[channel] = np.frombuffer(encode(PARAMETER, record, PARAMETER_BYTES), np.uint8)
        return entries.reshape(self.groups, self.group, PARAMETER_BYTES)

    def _double(self, layer: Weighted) -> int:
        return int(getattr(layer, "rounding") == "double")  # noqa: B009

    def _weighted(self, weights: NDArray[np.int8], layer: Weighted) -> NDArray[np.uint8]:
        """Parameters for weights ``(channels, …)``."""
        flat = weights.reshape(len(weights), -1).astype(np.int64)
        biases = layer.bias.astype(np.int64) - self.zero * flat.sum(1)
        return self._parameters(biases, *requantization(self.network, layer))

    def _dense(self, weights: NDArray[np.int8], layer: Weighted, **geometry: Any) -> Kernel:
        """A convolution with weights ``(O, KH, KW, I)``: one vector per byte of the window."""
        if self.source.per_byte == 8 and (np.abs(weights) == 1).all():
            return self._binary(weights, layer, **geometry)
        fits = weights.min() >= -8 and weights.max() <= 7
        if self.config.int4 and fits and self.target.written > self.config.lanes:
            self._use_groups(2 * self.config.lanes)
        parameters = self._weighted(weights, layer)
        outputs, height, width, inputs = weights.shape
        padded = np.zeros((self.channels, height, width, self.source.pitch), np.int8)
        padded[:outputs, :, :, :inputs] = weights
        vectors = padded.reshape(self.groups, self.group, height, -1).transpose(0, 2, 3, 1)
        return self._bytewise(vectors, parameters, double_rounding=self._double(layer), **geometry)

    def _binary(self, weights: NDArray[np.int8], layer: Weighted, **geometry: Any) -> Kernel:
        """A convolution of -1 and +1 with weights of -1 and +1: a byte has eight of each, and the sum counts twice the places
        in which they agree. Bits between pixels are 0 in both."""
        outputs, height, width, inputs = weights.shape
        pitch = self.source.pitch
        padded = np.zeros((self.channels, height, width, pitch), bool)
        padded[:outputs, :, :, :inputs] = weights > 0
        vectors = np.packbits(padded, axis=3, bitorder="little").view(np.int8)
        vectors = vectors.reshape(self.groups, self.config.lanes, height, -1).transpose(0, 2, 3, 1)
        biases = layer.bias.astype(np.int64) - height * width * (inputs + 2 * (pitch - inputs))
        parameters = self._parameters(biases, *requantization(self.network, layer))
        kernel = self._kernel(vectors, parameters, double_rounding=self._double(layer), binary=1, **geometry)
        source = dataclasses.replace(self.source, channels=inputs // 8, pitch=pitch // 8, per_byte=1)
        return dataclasses.replace(kernel, source=source)

    def _bytewise(self, vectors: NDArray[np.int8], parameters: NDArray[np.uint8], **options: Any) -> Kernel:
        """A kernel with a weight vector per byte of the window, block-sparse if that is possible and worth the masks."""
        kernel = self._kernel(vectors, parameters, **options)
        # Masks belong to words of the row buffer, so all windows must begin in the same lane of one.
        aligned = kernel.columns == 1 or kernel.stride[1] * kernel.source.pitch % self.config.lanes == 0
        if not self.config.masks or not aligned or vectors.any(3).mean() > MOST_STORED:
            return kernel
        return dataclasses.replace(kernel, sparse=True)

    # The kinds.

    def conv(self) -> list[Kernel]:
        layer = self.layer
        return [self._dense(layer.weights, layer, stride=layer.stride, padding=layer.padding)]

    def fully_connected(self) -> list[Kernel]:
        """Its input, flattened by rows, is what a convolution sees whose window is the whole map."""
        layer, source = self.layer, self.source
        weights = layer.weights.reshape(len(layer.weights), source.rows, source.columns, source.channels)
        return [self._dense(weights, layer)]

    def depthwise(self) -> list[Kernel]:
        layer, lanes = self.layer, self.config.lanes
        height, width, outputs = layer.weights.shape
        multiplier = _multiplier(layer, self.network)
        geometry = {"stride": layer.stride, "padding": layer.padding}
        if multiplier > 1:  # a lane gets the channel of its own place only, so this is a convolution with zeros
            weights = np.zeros((outputs, height, width, self.source.channels), np.int8)
            channel = np.arange(outputs)
            weights[channel, :, :, channel // multiplier] = layer.weights.transpose(2, 0, 1)
            return [self._dense(weights, layer, **geometry)]
        padded = np.zeros((height, width, self.channels), np.int8)
        padded[:, :, :outputs] = layer.weights
        kernel = self._kernel(
            padded.reshape(height, width, self.groups, lanes).transpose(2, 0, 1, 3),
            self._weighted(layer.weights.transpose(2, 0, 1), layer),
            word_mode=1,
            double_rounding=self._double(layer),
            **geometry,
        )
        return [kernel]

    def average_pool(self) -> list[Kernel]:
        """A depthwise convolution with weights 1. TFLite rounds the quotient half away from zero.

        Padding does not count, so that windows at the border are smaller: there is a kernel for every size.
        """
        layer, source = self.layer, self.source
        kernels = []
        for rows, height, top in _window_sizes(source.rows, layer.kernel[0], layer.stride[0], layer.padding[:2]):
            for columns, width, left in _window_sizes(source.columns, layer.kernel[1], layer.stride[1], layer.padding[2:]):
                count = height * width
                multiplier, shift = self._quotient(count)
                channels = source.channels
                kernel = self._kernel(
                    np.ones((1, height, width, self.config.lanes), np.int8),
                    self._parameters([-source.bias * count] * channels, [multiplier] * channels, [shift] * channels),
                    stride=layer.stride,
                    padding=(layer.padding[0] - top, 0, layer.padding[2] - left, 0),
                    rows=rows, columns=columns,
                    word_mode=1, zero_point=0, double_rounding=0,
                )  # fmt: skip
                kernels.append(kernel)
        return kernels

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

    def max_pool(self) -> list[Kernel]:
        """``max(a, x) = max(a - x, 0) + x``: three beats per tap. Stored padding 0 is the smallest value."""
        bias = self.source.bias
        layer = self.layer
        height, width = layer.kernel
        beats = np.tile(np.array([-1, 0, 1], np.int8), (1, height, width))
        channels = self.source.channels
        biases = [-bias if self.source.per_byte == 8 else 0] * channels
        parameters = self._parameters(biases, [UNITY[0]] * channels, [UNITY[1]] * channels)
        kernel = self._kernel(
            np.repeat(beats[..., None], self.config.lanes, axis=3),
            parameters,
            stride=layer.stride,
            padding=layer.padding,
            word_mode=1, repeat=3, maximum=1, pad=0, zero_point=-bias,
        )  # fmt: skip
        return [kernel]

    def mean(self) -> list[Kernel]:
        """A depthwise convolution with weights 1 whose window is the map."""
        source, channels = self.source, self.source.channels
        count = source.rows * source.columns
        multiplier, shift = self.layer.multiplier(self.network)
        small = multiplier < 1 << 30  # TFLite divides it by the count, and leaves it so
        bias = -self.zero * count
        kernel = self._kernel(
            np.ones((1, source.rows, source.columns, self.config.lanes), np.int8),
            self._parameters([bias] * channels, [multiplier] * channels, [shift] * channels, small=small),
            word_mode=1,
            small_multipliers=int(small),
        )
        return [kernel]

    def rescale(self) -> list[Kernel]:
        """Scales too large for a shift are split off into the weight. Above 2**11 every value but the zero point saturates."""
        multiplier, shift = self.layer.multiplier(self.network)
        more = min(max(shift - (SHIFT_BIAS - 1), 0), 6)
        return [self._pointwise(multiplier, min(shift, SHIFT_BIAS - 1), weight=1 << more)]

    def copy(self) -> list[Kernel]:
        """The same values; the source may have more pixels than the target."""
        if self.source.pitch % self.config.lanes == 0:
            return [self._pointwise(*UNITY)]
        return [self._spread(0)]

    def pad_map(self) -> list[Kernel]:
        layer = self.layer
        if layer.channels == (0, 0):
            return [self._pointwise(*UNITY, padding=layer.padding)]
        return [self._spread(layer.channels[0], padding=layer.padding)]

    def _pointwise(self, multiplier: int, shift: int, *, weight: int = 1, **geometry: Any) -> Kernel:
        """A depthwise convolution of one pixel: every value less the zero point, times the weight, scaled."""
        channels = self.source.channels
        bias = -self.zero * weight
        return self._kernel(
            np.full((1, 1, 1, self.config.lanes), weight, np.int8),
            self._parameters([bias] * channels, [multiplier] * channels, [shift] * channels),
            word_mode=1,
            **geometry,
        )

    def _spread(self, front: int, **geometry: Any) -> Kernel:
        """A convolution of one pixel that takes channel ``c`` to ``c + front``; other channels get the zero point."""
        source, outputs = self.source, self.target.channels
        weights = np.zeros((self.channels, source.pitch), np.int8)
        weights[front + np.arange(source.channels), np.arange(source.channels)] = 1
        biases = np.zeros(outputs, np.int64)
        biases[front : front + source.channels] = -self.zero
        vectors = weights.reshape(self.groups, self.config.lanes, 1, -1).transpose(0, 2, 3, 1)
        parameters = self._parameters(biases, [UNITY[0]] * outputs, [UNITY[1]] * outputs)
        return self._bytewise(vectors, parameters, **geometry)

    def add(self) -> list[Kernel]:
        """The accumulator becomes ``a + 256*b``, two indices into tables of the scaled inputs."""
        a, b = self.sources
        network, target = self.network, self.target
        scales = [network.tensors[s.name].scale for s in (a, b)]
        # Ref: TFLite kernels/add.cc, Prepare, and reference/integer_ops/add.h.
        twice = 2 * max(scales)
        stored = np.arange(256)
        tables = [
            arithmetic.multiply_by_quantized_multiplier(
                (stored - source.bias - source.zero_point) << 20, *arithmetic.quantize_multiplier(scale / twice)
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
        beats = np.array([[1, 0, 0], [127, 127, 2]], np.int8)
        self.source = dataclasses.replace(a, rows=2 * a.rows)
        kernel = self._kernel(
            np.repeat(beats[None, ..., None], self.config.lanes, axis=3),
            np.frombuffer(entries, np.uint8).reshape(1, 256, PARAMETER_BYTES),
            stride=(2, 1),
            word_mode=1, repeat=3, add=1, add_multiplier=multiplier - (1 << 30), add_shift=SHIFT_BIAS - shift,
        )  # fmt: skip
        return [kernel]


def _window_sizes(size: int, kernel: int, stride: int, padding: tuple[int, int]) -> list[tuple[range, int, int]]:
    """Along one axis: ranges of windows of which the same part lies inside the map, how many pixels that is, and how many
    pixels of the window lie in front of it."""
    found: list[tuple[range, int, int]] = []
    for window in range(arithmetic.output_size(size, kernel, stride, padding)):
        start = window * stride - padding[0]
        before = max(-start, 0)
        inside = min(start + kernel, size) - max(start, 0)
        if found and found[-1][1:] == (inside, before):
            found[-1] = (range(found[-1][0].start, window + 1), inside, before)
        else:
            found.append((range(window, window + 1), inside, before))
    return found
