"""The compiler: from a network to a program."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.lowering import Kernel, Source, lower
from gossamer.golden.memory import Arena, Plan
from gossamer.golden.network import FullyConnected, Network, Reshape, Softmax
from gossamer.golden.program import ImageError, Program, Record, TensorPlace
from gossamer.golden.spec import Config, Opcode, UserError

__all__ = ["CompileError", "Compiled", "LayerRun", "compile_network"]


class CompileError(UserError, ValueError):
    """The network does not fit the configuration, or uses what it cannot do; one sentence with the rule and the value."""


@dataclasses.dataclass(frozen=True)
class LayerRun:
    """A run step and the network layer whose output channels ``channels`` it computes."""

    step: int
    layer: str
    output: str
    channels: range
    macs: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program and what is known about it.

    ``places`` are the feature maps in the store by tensor name, ``runs`` the run steps in order, ``plan`` the memory plan,
    ``host`` the names of the layers behind the device's output that the host computes.
    """

    network: Network
    program: Program
    places: dict[str, TensorPlace]
    runs: tuple[LayerRun, ...]
    plan: Plan
    host: tuple[str, ...]
    device_output: str

    def input_bytes(self, x: NDArray[np.int8]) -> NDArray[np.uint8]:
        """One input as it lies in the store from ``program.input.address`` on."""
        tensor = self.network.tensors[self.network.input]
        return self.program.input.to_store(x, tensor.zero_point, self.program.config)

    def output_values(self, data: NDArray[np.uint8]) -> NDArray[np.int8]:
        """The device's output tensor from its bytes in the store."""
        shape = self.network.tensors[self.device_output].shape
        return self.program.output.from_store(data, self.program.config).reshape(shape)

    def finish(self, values: NDArray[np.int8]) -> NDArray[np.int8]:
        """The network's outputs ``(N, …)`` from the device's: what the host computes."""
        for layer in self.network.layers:
            if layer.name in self.host:
                values = layer.run(self.network, values)
        return values


def compile_network(
    network: Network, config: Config, *, keep: bool = False, progress: Callable[[str], None] | None = None
) -> Compiled:
    """Compile a network layer by layer.

    With ``keep`` no tensor takes the place of another, so that all can be read after an inference. ``progress`` is called
    with the name of each layer. Raises :class:`CompileError`.
    """
    device, host = _split(network)
    kernels: list[Kernel] = []
    alias: dict[str, str] = {}
    pitches = _pitches(network, device, config)
    for layer in device:
        if progress:
            progress(layer.name)
        if isinstance(layer, Reshape):
            alias[layer.output] = alias.get(layer.inputs[0], layer.inputs[0])
            continue
        for name in layer.inputs:
            was, shape = network.tensors[alias.get(name, name)].shape, network.tensors[name].shape
            if _map_shape(was) != _map_shape(shape) and not isinstance(layer, FullyConnected):
                raise CompileError(
                    f"layer {layer.name!r}: only a fully connected layer can use a map of another shape than it was computed "
                    f"in, and its input {name!r} is a reshape of {was} to {shape}"
                )
        sources = [_source(network, alias.get(name, name), pitches) for name in layer.inputs]
        target = network.tensors[layer.output]
        kernels.append(lower(network, layer, sources, _source(network, target.name, pitches), config, CompileError))

    output = device[-1].output if device else network.input
    output = alias.get(output, output)
    names = dict.fromkeys([network.input, *(k.output for k in kernels)])  # a set's order is another in every process
    places = {name: _place(network, name, pitches) for name in names}
    for kernel in kernels:
        _check_limits(kernel, config)

    # The size of the image is known before the addresses in it are.
    passes = [(kernel, chunk) for kernel in kernels for chunk in kernel.passes(config)]
    loads = _loads(passes, config)
    blob_at = Program.blob_address(len(passes), sum(1 + len(pieces) for _, pieces in loads))
    blob, offsets = _blob(passes, blob_at, config)
    image = -(-(blob_at + len(blob)) // config.store_bytes) * config.store_bytes
    plan = Arena(config.store_bytes).plan(
        {name: place.size(config) for name, place in places.items()},
        [(kernel.name, kernel.inputs, kernel.output) for kernel in kernels],
        network.input,
        output,
        keep,
    )
    needed = image + plan.peak
    if needed > config.store_size:
        raise CompileError(
            f"network {network.name!r} needs {needed} bytes of store ({image} of program and weights, {plan.peak} of "
            f"activations), and configuration {config.name!r} has {config.store_size}: {needed - config.store_size} are missing"
        )
    places = {
        name: dataclasses.replace(place, address=image + plan.addresses[name]) for name, place in places.items()
    }
    layers, program_steps, runs = _schedule(passes, loads, places, offsets, config)
    program = Program(config, layers, program_steps, blob, places[network.input], places[output], needed)
    try:
        program.assemble()
    except ImageError as error:
        raise CompileError(f"network {network.name!r} cannot be encoded: {error}") from None
    device_output = device[-1].output if device else network.input
    return Compiled(network, program, places, runs, plan, tuple(layer.name for layer in host), device_output)


def _split(network: Network) -> tuple[list, list]:
    """The layers that the device runs, and those behind them that the host runs: a last softmax, and reshapes."""
    host: list = []
    device = list(network.layers)
    output = network.output
    while device and isinstance(device[-1], (Softmax, Reshape)) and device[-1].output == output:
        host.insert(0, device.pop())
        output = host[0].inputs[0]
    for layer in device:
        if isinstance(layer, Softmax):
            raise CompileError(f"layer {layer.name!r}: a softmax must be the network's last layer, not followed by others")
    if not device:
        names = " and ".join(layer.name for layer in host)
        raise CompileError(f"network {network.name!r} must have a layer that the core computes, not only {names}")
    if device[-1].output != output:
        raise CompileError(
            f"the network's last layer must compute its output {output!r}, not {device[-1].output!r}, which nothing uses"
        )
    return device, host


def _map_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    return (1, 1, shape[0]) if len(shape) == 1 else (shape[0], shape[1], shape[2])


def _pitches(network: Network, device: Sequence, config: Config) -> dict[str, int]:
    """Bytes from pixel to pixel: a multiple of the lanes where whole words are worked on, else the channels."""
    pitches = {name: _map_shape(tensor.shape)[2] for name, tensor in network.tensors.items()}
    alias: dict[str, str] = {}
    for layer in device:
        if isinstance(layer, Reshape):
            alias[layer.output] = alias.get(layer.inputs[0], layer.inputs[0])
        elif Kernel.works_on_words(layer, network):
            for name in layer.inputs:
                pitches[alias.get(name, name)] = -(-pitches[alias.get(name, name)] // config.lanes) * config.lanes
    return pitches


def _source(network: Network, name: str, pitches: dict[str, int]) -> Source:
    tensor = network.tensors[name]
    return Source(name, *_map_shape(tensor.shape), pitch=pitches[name], zero_point=tensor.zero_point)


def _place(network: Network, name: str, pitches: dict[str, int]) -> TensorPlace:
    return TensorPlace(0, *_map_shape(network.tensors[name].shape), pitch=pitches[name])


def _check_limits(kernel: Kernel, config: Config) -> None:
    """What the fields and buffers of a configuration can hold."""
    layer = {**kernel.descriptor, "rows": kernel.out_rows, "in_rows": kernel.in_rows, "lead_rows": kernel.lead_rows}
    # The widths of gossamer.hdl.sequencer.descriptor_layout that do not follow from memory sizes.
    for field, most, what in (
        ("width", 1023, "output pixels per row"),
        ("groups", 255, "output channel groups"),
        ("left_granules", 255, "padding words per row"),
        ("kernel_rows", 63, "kernel rows"),
        ("stride_rows", 15, "rows of stride"),
        ("x_step", config.row_words * config.lanes - 1, "bytes of stride"),
        ("lead_rows", 63, "padding rows"),
        ("out_x_step", 4095, "bytes per output pixel"),
        ("rows", 2047, "output rows"),
        ("in_rows", 2047, "input rows"),
    ):
        if layer[field] > most:
            raise CompileError(f"layer {kernel.name!r} must have at most {most} {what}, not {layer[field]}")
    if layer["ring_words"] > config.row_words:
        raise CompileError(
            f"layer {kernel.name!r} needs {layer['ring_words']} words of {config.lanes} bytes for its input rows, and the row "
            f"buffer of configuration {config.name!r} has {config.row_words}"
        )
    if kernel.vectors > config.weight_vectors:
        raise CompileError(
            f"layer {kernel.name!r} needs {kernel.vectors} weight vectors per {config.lanes} output channels, and the weight "
            f"buffer of configuration {config.name!r} has {config.weight_vectors}"
        )


def _blob(passes: Sequence, address: int, config: Config) -> tuple[bytes, dict[bytes, int]]:
    """The data of all loads, equal data once, and the store word of each."""
    blob = bytearray()
    offsets: dict[bytes, int] = {}
    for kernel, chunk in passes:
        for _, data in kernel.loads(chunk):
            if data not in offsets:
                blob.extend(bytes(-len(blob) % config.store_bytes))
                offsets[data] = (address + len(blob)) // config.store_bytes
                blob.extend(data)
    return bytes(blob), offsets


@dataclasses.dataclass(frozen=True)
class _Load:
    """A load step: bytes ``start`` to ``stop`` of ``data`` into the buffer's entries from ``destination`` on."""

    opcode: int
    destination: int
    data: bytes
    start: int
    stop: int
    wait: int


class _Ring:
    """Places the entries of consecutive run steps behind each other in a buffer, and from its start again at its end."""

    def __init__(self, size: int):
        self._size, self._used = size, range(0)

    def place(self, count: int, align: int = 1) -> tuple[int, list[tuple[range, int]]]:
        """Where ``count`` entries go, and the parts to load, with whether to wait until the step before is done with them."""
        used = self._used
        start = -(-used.stop // align) * align
        if start + count > self._size:
            start = 0
        stop = start + count
        self._used = range(start, stop)
        common = range(max(start, used.start), min(stop, used.stop))
        if not common:
            return start, [(self._used, 0)]
        parts = ((range(start, common.start), 0), (range(common.stop, stop), 0), (common, 1))
        return start, [(part, wait) for part, wait in parts if part]


def _loads(passes: Sequence, config: Config) -> list[tuple[dict[int, int], list[_Load]]]:
    """Per run step: the first entries of its weights and parameters by opcode, and the loads in front of it.

    What the step before does not use is loaded while it runs.
    """
    rings = {Opcode.LOAD_WEIGHTS: _Ring(config.weight_vectors), Opcode.LOAD_PARAMETERS: _Ring(config.parameters)}
    entry = {Opcode.LOAD_WEIGHTS: config.lanes, Opcode.LOAD_PARAMETERS: 8}
    found = []
    for kernel, chunk in passes:
        bases: dict[int, int] = {}
        loads = []
        for opcode, data in kernel.loads(chunk):
            size = entry[opcode]
            count = len(data) // size
            tables = kernel.descriptor["add"] and opcode == Opcode.LOAD_PARAMETERS
            bases[opcode], parts = rings[opcode].place(count, count if tables else 1)
            for part, wait in parts:
                start, stop = ((at - bases[opcode]) * size for at in (part.start, part.stop))
                loads.append(_Load(opcode, part.start, data, start, stop, wait))
        found.append((bases, sorted(loads, key=lambda load: load.wait)))
    return found


def _schedule(
    passes: Sequence,
    loads: Sequence[tuple[dict[int, int], list[_Load]]],
    places: dict[str, TensorPlace],
    offsets: dict[bytes, int],
    config: Config,
) -> tuple[tuple[Record, ...], tuple[Record, ...], tuple[LayerRun, ...]]:
    layers: list[Record] = []
    steps: list[Record] = []
    runs: list[LayerRun] = []
    for (kernel, chunk), (bases, pieces) in zip(passes, loads):
        steps += [
            {
                "opcode": load.opcode,
                "wait": load.wait,
                "layer": len(layers) + 1,
                "destination": load.destination,
                "count": (load.stop - load.start) // config.store_bytes,
                "in_address": offsets[load.data] + load.start // config.store_bytes,
            }
            for load in pieces
        ]
        place = places[kernel.output]
        words = place.row_words(config)
        layers.append(
            {
                **kernel.descriptor,
                **kernel.row_steps([places[name] for name in kernel.inputs], config),
                "groups": len(chunk),
                "last_lanes": kernel.last_lanes if chunk.stop == kernel.groups else config.lanes,
                "weight_base": bases[Opcode.LOAD_WEIGHTS],
                "parameter_base": bases[Opcode.LOAD_PARAMETERS],
                "out_row_step": words * config.store_bytes - (len(chunk) - 1) * config.lanes,
                "offset": kernel.descriptor["offset"] + (chunk.start * config.lanes if kernel.word_mode else 0),
            }
        )
        runs.append(
            LayerRun(
                len(steps),
                kernel.name,
                kernel.output,
                range(chunk.start * config.lanes, min(chunk.stop * config.lanes, place.channels)),
                kernel.macs * len(chunk) // kernel.groups,
            )
        )
        steps.append(
            {
                "opcode": Opcode.RUN,
                "layer": len(layers),
                "rows": place.rows,
                "in_rows": kernel.in_rows,
                "in_address": places[kernel.inputs[0]].address // config.store_bytes,
                "lead_rows": kernel.lead_rows,
                "out_address": place.address + chunk.start * config.lanes,
            }
        )
    return tuple(layers), tuple(steps), tuple(runs)
