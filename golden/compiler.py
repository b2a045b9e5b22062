"""The compiler: from a network to a program."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.coding import codings
from gossamer.golden.folding import fold
from gossamer.golden.layout import Layout, map_shape
from gossamer.golden.lowering import channels_of_a_vector, copies, lower
from gossamer.golden.memory import Area, Arena, Plan
from gossamer.golden.network import (
    Concat,
    Conv,
    Dequantize,
    FullyConnected,
    Layer,
    Logistic,
    Network,
    Quantize,
    Reshape,
    Softmax,
)
from gossamer.golden.permutation import permuted
from gossamer.golden.program import ImageError, Program, TensorPlace
from gossamer.golden.rolling import Group, Item, Lowered, Order, Places, Transfer, order, stored
from gossamer.golden.schedule import LayerRun, Schedule
from gossamer.golden.spec import EXTERNAL_WORDS, MOST_FETCHED, Config, UserError
from gossamer.golden.strips import Strips
from gossamer.golden.tiling import Coding, Kernel

__all__ = ["CompileError", "Compiled", "Frontend", "LayerRun", "Strategy", "compile_network"]


LEAST_SPARED = 0.01
"""The share of all vectors that another order of channels must spare. Palettes, which depend on what lies together, may lose
more than less would gain."""


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

    ``network`` is what was compiled: ``folded``, which is ``source`` with constant channels folded, with channels in another
    order if that leaves fewer weight vectors. All compute the same output, and so does the program, but for what budgets of
    compressed rows lose. ``orders`` are the indices of the channels in ``folded``, by tensor, where they are others.
    ``places`` are the feature maps in the store by tensor name, but for those in rings and compressed ones; ``runs`` the run
    steps in order, ``plan`` the memory plan. ``head`` and ``tail`` are the layers that the host computes in front of the
    device's input and behind its output; ``strategy`` orders those in between; ``coded`` are the tensors whose rows it
    compresses.
    """

    source: Network
    folded: Network
    network: Network
    orders: Mapping[str, NDArray[np.int64]]
    program: Program
    places: dict[str, TensorPlace]
    runs: tuple[LayerRun, ...]
    plan: Plan
    head: tuple[Layer, ...]
    tail: tuple[Layer, ...]
    device_input: str
    device_output: str
    strategy: "Strategy"
    coded: Mapping[str, Coding]

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


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How the work of a network is ordered, and what of its tensors is in the store.

    ``groups`` are the layers that the device computes, see :class:`Group`; without any they are computed one by one. With
    ``stream`` the host writes the input, and takes an output of several rows, row by row, where it is otherwise there as a
    whole from the start and until the end. All that is done for each of ``strips`` of the maps (see
    :mod:`gossamer.golden.strips`), of which more than one need ``stream``. The rows of tensors in ``slots`` are compressed, in
    slots of so many bytes, if the order allows it (see :mod:`gossamer.golden.coding`); not in strips. The slots of ``budgeted``
    tensors are budgets, which change what the network computes.
    """

    groups: tuple[Group, ...] = ()
    stream: bool = False
    strips: int = 1
    slots: Mapping[str, int] = dataclasses.field(default_factory=dict)
    budgeted: frozenset[str] = frozenset()


def compile_network(
    source: Network,
    config: Config,
    *,
    keep: bool = False,
    folding: bool = True,
    permuting: bool = True,
    strategy: Strategy = Strategy(),
    progress: Callable[[str], None] | None = None,
) -> Compiled:
    """Compile a network.

    Without ``folding`` constant channels stay, see :mod:`gossamer.golden.folding`; without ``permuting`` channels stay in
    order, see :mod:`gossamer.golden.permutation`. With ``keep`` no tensor takes the place of
    another, so that all can be read after an inference. ``progress`` is called with the name of each layer. Raises
    :class:`CompileError`.
    """
    return Frontend(source, config, folding=folding, permuting=permuting, progress=progress).compile(strategy, keep=keep)


class Frontend:
    """A network in the machine's terms, before the order of the work is decided. See :func:`compile_network`.

    Attributes
    ----------
    folded, network : Network
        See :class:`Compiled`.
    orders : dict
    layers : list
        Those that the device computes.
    layout : Layout
    """

    def __init__(
        self,
        source: Network,
        config: Config,
        *,
        folding: bool = True,
        permuting: bool = True,
        progress: Callable[[str], None] | None = None,
    ):
        self.source, self.config = source, config
        self.folded = fold(source).network if folding else source
        self.orders: dict[str, NDArray[np.int64]] = {}
        self._take(self.folded, progress)
        if config.masks and permuting:
            # What comes in a vector, and whether a layer may leave vectors out, does not depend on the order of channels.
            sparse = [layer for layer in self.layers if isinstance(layer, (Conv, FullyConnected))]
            network, orders = permuted(self.folded, {layer.name: channels_of_a_vector(layer, config) for layer in sparse})
            if orders:
                before = self.lowered
                self._take(network)
                self.orders = orders
                if _issued(self.lowered) > (1 - LEAST_SPARED) * _issued(before):
                    self._take(self.folded)
                    self.orders = {}

    def _take(self, network: Network, progress: Callable[[str], None] | None = None) -> None:
        """Lower a network."""
        config = self.config
        self.network = network
        self._head, self.layers, self._tail = _split(network)
        self.first = self._head[-1].output if self._head else network.input
        self.output = self.layers[-1].output
        _check_types(network, self.layers, self.first, self.output, config)
        self.layout = Layout.of(network, self.layers, self.output, config)
        self.lowered: Lowered = []
        for layer in self.layers:
            if progress:
                progress(layer.name)
            self.lowered.append((layer, _lower(network, layer, self.layout, config)))

    def work(self, strategy: Strategy, *, keep: bool = False) -> Order:
        """The order of the work, and the memory that it needs. With ``keep`` no tensor shares the rows of another."""
        layout: Places = self.layout
        lowered, given, taken = self.lowered, *self._streamed(strategy)
        groups = strategy.groups or (Group(len(self.layers), 0),)
        if strategy.strips > 1:
            if not strategy.stream:
                raise CompileError(f"{strategy.strips} strips need an input and an output that are streamed")
            layout = strips = Strips(lowered, self.layout, self.first, self.output, strategy.strips, CompileError)
            lowered, given, taken = strips.lowered, strips.given, strips.taken
            groups = tuple(
                Group(group.stop + strip * len(self.layers), group.rows)
                for strip in range(strategy.strips)
                for group in groups
            )
        items = order(lowered, layout, groups, self.config, CompileError, given, taken)
        return self.stored(items, layout, strategy, keep=keep)

    def stored(self, items: list[Item], layout: Places, strategy: Strategy, *, keep: bool = False) -> Order:
        """The memory that an order of the work needs, which a strategy but for its ``slots`` has led to."""
        output = self.layout.root(self.output)[0]
        given, taken = self._streamed(strategy)
        ends = [] if strategy.strips > 1 else [self.first, output]
        names: dict[str, None] = dict.fromkeys(ends)
        for item in items:
            found = [item.tensor] if isinstance(item, Transfer) else [*item[0].inputs, item[0].target.name]
            names |= dict.fromkeys(found)
        first = [name for name in ends[:1] if name not in given]
        last = [name for name in ends[1:] if name not in taken]
        slots = strategy.slots if strategy.strips == 1 else {}
        coded = codings(items, layout, slots, strategy.budgeted, {self.first, output}, self.config)
        return stored(items, layout, names, first, last, self.config, share=not keep, coded=coded)

    def _streamed(self, strategy: Strategy) -> tuple[dict[str, int], dict[str, int]]:
        """What the host writes and takes row by row, with the columns where it begins."""
        output = self.layout.root(self.output)[0]
        rows = strategy.stream and self.layout.place(output).rows > 1
        return {self.first: 0} if strategy.stream else {}, {output: 0} if rows else {}

    def compile(self, strategy: Strategy = Strategy(), *, keep: bool = False) -> Compiled:
        """See :func:`compile_network`."""
        network, layout, config, first, output = self.network, self.layout, self.config, self.first, self.output
        work = self.work(strategy, keep=keep)
        placed = _place(network.name, work, keep, config)
        schedule, plan, image = placed.schedule, placed.plan, placed.image
        addresses = {name: image + address for name, address in placed.addresses.items()}
        own = (layout.pitches.keys() & work.rings.keys()) - {*work.shares} - {*work.coded}
        whole = {name for name in own if work.rings[name] == layout.place(name).rows}
        places = {
            name: layout.place(name, addresses[layout.root(name)[0]])
            for name in dict.fromkeys([first, *(layer.output for layer in self.layers)])
            if layout.homes[name] == name and layout.root(name)[0] in whole
        }
        table, steps, runs = schedule.records(addresses, placed.offsets, CompileError)
        ends = [
            layout.place(layout.homes[name], addresses.get(layout.root(name)[0], image))
            for name in (first, output)
        ]
        program = Program(
            config, table, steps, placed.blob, ends[0], ends[1], placed.needed, schedule.warm, schedule.external
        )
        assert placed.image - config.store_bytes < program.size <= placed.image
        try:
            program.assemble()
        except ImageError as error:
            raise CompileError(f"network {network.name!r} cannot be encoded: {error}") from None
        head, tail = tuple(self._head), tuple(self._tail)
        return Compiled(
            self.source, self.folded, network, self.orders, program, places, runs, plan, head, tail, first, output, strategy,
            work.coded,
        )


def _issued(lowered: Lowered) -> int:
    return sum(kernel.vectors_issued for _, kernels in lowered for kernel in kernels)


def _check_types(network: Network, device: Sequence[Layer], first: str, output: str, config: Config) -> None:
    """Whether the core can store the tensors of its layers."""
    for name in (first, output):
        kind = network.tensors[name].dtype
        if kind != "int8":
            raise CompileError(f"the core's input and output must be int8, and tensor {name!r} is {kind}")
    for layer in device:
        kind = network.tensors[layer.output].dtype
        if not {"int4": config.nibbles, "binary": config.binary}.get(kind, True):
            raise CompileError(
                f"tensor {layer.output!r} is {kind}, and configuration {config.name!r} has no maps of that type"
            )
        if isinstance(layer, Concat) and kind == "int4" and any(network.tensors[name].shape[-1] % 2 for name in layer.inputs):
            raise CompileError(f"layer {layer.name!r}: a concatenation of int4 maps must be of even numbers of channels")


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
    """A schedule, with the bytes of the image and of the activations that it needs, and where they lie behind the image."""

    schedule: Schedule
    blob: bytes
    offsets: dict[bytes, int]
    image: int
    plan: Plan
    addresses: dict[str, int]

    @property
    def needed(self) -> int:
        return self.image + self.plan.peak


def _place(name: str, work: Order, keep: bool, config: Config) -> _Placed:
    """All weights in the store, or if they do not fit and there is an external memory, as many of them there as must be."""

    def place(streamed: Sequence[int] = (), segment: int = 0) -> _Placed:
        schedule = Schedule(
            work.items, work.layout, work.rings, work.row_bytes, config, frozenset(streamed), segment, work.coded
        )
        plan = _plan(work, schedule, keep, bool(streamed), config)
        # Which steps and which entries of the table are equal depends on how far apart things lie, and so on the plan.
        addresses = {**plan.addresses} | {name: plan.addresses[other] for name, other in work.shares.items()}
        address = Program.blob_address(*schedule.sizes(addresses, CompileError))
        blob, offsets = schedule.blob(address)
        image = -(-(address + len(blob)) // config.store_bytes) * config.store_bytes
        return _Placed(schedule, blob, offsets, image, plan, addresses)

    placed = place()
    # Fetches do not make room for activations.
    if placed.needed > config.store_size > placed.plan.peak and config.fetch_interval and not placed.schedule.folded:
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


def _plan(work: Order, schedule: Schedule, keep: bool, quick: bool, config: Config) -> Plan:
    """The memory plan: tensors by their roots, partial sums, and fetched words. A step of it is half of an entry of the
    schedule's timeline."""
    areas: dict[str, Area] = {}
    layers: list[str] = []
    at: list[int] = []  # where each item is in the timeline
    for time, (load, item) in enumerate(schedule.timeline()):
        owner = schedule.loads[load].piece if load is not None else item
        given = None if owner is None else work.items[owner]
        layers.append("(start)" if given is None else given.tensor if isinstance(given, Transfer) else given[0].name)
        if item is not None:
            at.append(time)
    at.append(len(layers))

    def moment(of_items: int) -> int:
        item, half = divmod(of_items, 2)
        return 2 * at[item] + half

    # What a run step uses in its second half it may still be using when the loads behind it begin.
    for name, life in work.lives.items():
        slots = [[range(moment(span.start) if span.start else 0, moment(span.stop)) for span in slot] for slot in life]
        areas[name] = Area(work.row_bytes[name], slots)
    for waiting in schedule.areas():
        size = -(-waiting.size // config.store_bytes) * config.store_bytes
        areas[waiting.name] = Area(size, [[range(2 * waiting.first, 2 * waiting.last + 2)]])
    layers = [layer for layer in layers for _ in range(2)]
    if keep:
        areas = {
            name: Area(area.bytes, [[range(area.life.start, len(layers))]]) for name, area in areas.items()
        }
    return Arena(config.store_bytes).plan(areas, layers, quick=quick)
