"""The compiler: from a network to a program."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.folding import fold
from gossamer.golden.layout import Layout, map_shape
from gossamer.golden.lowering import copies, lower
from gossamer.golden.memory import Arena, Plan
from gossamer.golden.network import (
    Concat,
    Dequantize,
    Layer,
    Logistic,
    Network,
    Quantize,
    Reshape,
    Softmax,
)
from gossamer.golden.program import ImageError, Program, TensorPlace
from gossamer.golden.schedule import LayerRun, Schedule, Work
from gossamer.golden.spec import EXTERNAL_WORDS, MOST_FETCHED, Config, UserError
from gossamer.golden.tiling import Kernel, cut

__all__ = ["CompileError", "Compiled", "LayerRun", "compile_network"]


class CompileError(UserError, ValueError):
    """The network does not fit the configuration, or uses what it cannot do; one sentence with the rule and the value.

    ``missing`` are the bytes of store that are missing, if that is the reason.
    """

    def __init__(self, sentence: str, missing: int = 0):
        super().__init__(sentence)
        self.missing = missing


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program and what is known about it.

    ``network`` is what was compiled: ``source`` with constant channels folded. Both compute the same output. ``places`` are
    the feature maps in the store by tensor name, ``runs`` the run steps in order, ``plan`` the memory plan. ``head`` and
    ``tail`` are the layers that the host computes in front of the device's input and behind its output.
    """

    source: Network
    network: Network
    program: Program
    places: dict[str, TensorPlace]
    runs: tuple[LayerRun, ...]
    plan: Plan
    head: tuple[Layer, ...]
    tail: tuple[Layer, ...]
    device_input: str
    device_output: str

    def input_bytes(self, x: NDArray[Any]) -> NDArray[np.uint8]:
        """One input of the network as it lies in the store from ``program.input.address`` on."""
        values = x[np.newaxis]
        for layer in self.head:
            values = layer.run(self.network, values)
        zero_point = self.network.tensors[self.device_input].zero_point
        return self.program.input.to_store(values[0], zero_point, self.program.config)

    def output_values(self, data: NDArray[np.uint8]) -> NDArray[np.int8]:
        """The device's output tensor from its bytes in the store."""
        shape = self.network.tensors[self.device_output].shape
        return self.program.output.from_store(data, self.program.config).reshape(shape)

    def finish(self, values: NDArray[np.int8]) -> NDArray[Any]:
        """The network's outputs ``(N, …)`` from the device's."""
        for layer in self.tail:
            values = layer.run(self.network, values)
        return values

    @property
    def host(self) -> tuple[str, ...]:
        """Names of the layers that the host computes."""
        return tuple(layer.name for layer in (*self.head, *self.tail))


def compile_network(
    source: Network,
    config: Config,
    *,
    keep: bool = False,
    folding: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Compiled:
    """Compile a network layer by layer.

    Without ``folding`` constant channels stay, see :mod:`gossamer.golden.folding`. With ``keep`` no tensor takes the place of
    another, so that all can be read after an inference. ``progress`` is called with the name of each layer. Raises
    :class:`CompileError`.
    """
    network = fold(source).network if folding else source
    head, device, tail = _split(network)
    first = head[-1].output if head else network.input
    output = device[-1].output
    layout = Layout.of(network, device, output, config)
    kernels: list[Kernel] = []
    for layer in device:
        if progress:
            progress(layer.name)
        kernels += _lower(network, layer, layout, config)
    pieces = [(kernel, piece) for kernel in kernels for piece in cut(kernel, config, CompileError)]

    placed = _place(network.name, pieces, layout, first, output, keep, config)
    schedule, plan, blob, offsets, image = placed.schedule, placed.plan, placed.blob, placed.offsets, placed.image
    addresses = {name: image + address for name, address in plan.addresses.items()}
    places = {
        name: layout.place(name, addresses[layout.root(name)[0]])
        for name in dict.fromkeys([first, *(layer.output for layer in device)])
        if layout.homes[name] == name
    }
    table, steps, runs = schedule.records(layout, addresses, offsets, CompileError)
    program = Program(
        config, table, steps, blob, places[first], places[layout.homes[output]], placed.needed, schedule.warm, schedule.external
    )
    try:
        program.assemble()
    except ImageError as error:
        raise CompileError(f"network {network.name!r} cannot be encoded: {error}") from None
    return Compiled(source, network, program, places, runs, plan, tuple(head), tuple(tail), first, output)


HOST = (Softmax, Logistic, Quantize, Dequantize, Reshape)
"""What the host computes in front of the device's layers and behind them."""


def _split(network: Network) -> tuple[list[Layer], list[Layer], list[Layer]]:
    """The layers in front, those that the device runs, and those behind: both a chain of kinds that the host computes."""
    head: list[Layer] = []
    tail: list[Layer] = []
    device = list(network.layers)
    first, output = network.input, network.output
    while device and isinstance(device[-1], HOST) and device[-1].output == output:
        tail.insert(0, device.pop())
        output = tail[0].inputs[0]
    while device and isinstance(device[0], (Quantize, Reshape)) and device[0].inputs[0] == first != output:
        if sum(layer.inputs.count(first) for layer in device) > 1:
            break
        head.append(device.pop(0))
        first = head[-1].output
    for layer in device:
        if isinstance(layer, HOST) and not isinstance(layer, Reshape):
            where = "the network's first layer" if isinstance(layer, Quantize) else "the network's last layer"
            kind = type(layer).__name__.lower()
            raise CompileError(f"layer {layer.name!r}: a {kind} must be {where}, not in between")
    if not device:
        names = " and ".join(layer.name for layer in (*head, *tail))
        raise CompileError(f"network {network.name!r} must have a layer that the core computes, not only {names}")
    if device[-1].output != output:
        raise CompileError(
            f"the network's last layer must compute its output {output!r}, not {device[-1].output!r}, which nothing uses"
        )
    return head, device, tail


def _lower(network: Network, layer: Layer, layout: Layout, config: Config) -> list[Kernel]:
    if isinstance(layer, Concat):
        kernels, offset = [], 0
        for name in layer.inputs:
            if layout.homes[name] not in layout.views or layout.views[layout.homes[name]] != (layer.output, offset):
                source, target = layout.map(name), layout.slice(name, layer.output, offset)
                kernels += copies(network, layer, source, target, config, CompileError)
            offset += map_shape(network.tensors[name].shape)[2]
        return kernels
    sources, target = [layout.map(name) for name in layer.inputs], layout.map(layer.output)
    if isinstance(layer, Reshape):
        if layout.homes[layer.output] != layer.output:
            return []
        return copies(network, layer, sources[0], target, config, CompileError)
    return lower(network, layer, sources, target, config, CompileError)


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A schedule, with the bytes of the image and of the activations that it needs."""

    schedule: Schedule
    blob: bytes
    offsets: dict[bytes, int]
    image: int
    plan: Plan

    @property
    def needed(self) -> int:
        return self.image + self.plan.peak


def _place(
    name: str, pieces: Sequence[Work], layout: Layout, first: str, output: str, keep: bool, config: Config
) -> _Placed:
    """All weights in the store, or if they do not fit and there is an external memory, as many of them there as must be."""

    def place(streamed: Iterable[int] = (), segment: int = 0) -> _Placed:
        schedule = Schedule(pieces, config, frozenset(streamed), segment)
        # The size of the image is known before the addresses in it are.
        address = Program.blob_address(schedule.table, schedule.steps)
        blob, offsets = schedule.blob(address)
        image = -(-(address + len(blob)) // config.store_bytes) * config.store_bytes
        return _Placed(schedule, blob, offsets, image, _plan(pieces, schedule, layout, first, output, keep, config))

    placed = place()
    if placed.needed > config.store_size and config.fetch_interval:
        order = placed.schedule.streamable()
        found = []
        for size in (min(config.store_size >> shift, MOST_FETCHED * config.store_bytes) for shift in (6, 5, 4, 3)):
            low, high = 1, len(order)  # the least number that fits
            while low < high:
                middle = (low + high) // 2
                if place(order[:middle], size).needed <= config.store_size:
                    high = middle
                else:
                    low = middle + 1
            found.append(place(order[:low], size))
        least = min(found, key=lambda one: one.needed)
        fit = [one for one in found if one.needed <= config.store_size]
        placed = min(fit, key=lambda one: one.schedule.cost()) if fit else least
        external = len(placed.schedule.external) // config.store_bytes
        if external > EXTERNAL_WORDS:
            raise CompileError(
                f"network {name!r} needs {external} words of external memory, and a core can address {EXTERNAL_WORDS}"
            )
    if placed.needed > config.store_size:
        missing = placed.needed - config.store_size
        there = f" and {len(placed.schedule.external)} bytes of external memory" if placed.schedule.external else ""
        raise CompileError(
            f"network {name!r} needs {placed.needed} bytes of store ({placed.image} of program and weights, {placed.plan.peak} "
            f"of activations){there}, and configuration {config.name!r} has {config.store_size}: "
            f"{missing} are missing",
            missing,
        )
    return placed


def _plan(
    pieces: Sequence[Work], schedule: Schedule, layout: Layout, first: str, output: str, keep: bool, config: Config
) -> Plan:
    """The memory plan: tensors by their roots, partial sums, and fetched words."""
    sizes = {first: layout.place(first).size(config)}
    steps: list[tuple[str, list[str], list[str]]] = []
    held: list[str] = []  # what the run step before may still be using when the loads behind it begin
    for load, piece in schedule.timeline():
        owner = schedule.loads[load].piece if load is not None else piece
        name = "(start)" if owner is None else pieces[owner][0].name
        if piece is None:
            steps.append((name, list(held), []))
        else:
            kernel = pieces[piece][0]
            held = [*kernel.inputs, kernel.target.name]
            steps.append((name, list(kernel.inputs), [kernel.target.name]))
            sizes[kernel.target.name] = layout.place(kernel.target.name).size(config)
    for area in schedule.areas():
        sizes[area.name] = area.size
        steps[area.first][2].append(area.name)
        steps[area.last][1].append(area.name)
    return Arena(config.store_bytes).plan(sizes, steps, first, layout.root(output)[0], keep)
