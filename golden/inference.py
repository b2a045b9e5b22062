"""Inferences on the interpreter, with the cycle model and the statistics of what was skipped."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.compiler import Compiled
from gossamer.golden.cycles import CycleModel, words
from gossamer.golden.host import Host
from gossamer.golden.interpreter import Machine, Run
from gossamer.golden.spec import Config, Opcode

__all__ = ["Inference", "LayerStatistics", "infer", "products"]


@dataclasses.dataclass(frozen=True)
class LayerStatistics:
    """One run step. Its clock cycles, by what they went to; those of all run steps are those of the inference:

    * ``compute``: the front issued elements;
    * ``requantize``: it stood still because sums waited for the drain, or had issued its last and the drain had not;
    * ``load``: it waited for input rows, or was about to take them;
    * ``weights``: between the end of the run step before and the start of this one, in which steps are fetched, and loads of
      weights, parameters and partial sums and fetches are waited for. What is in front of the first is its, what is behind
      the last is the last's.

    ``executed`` are the multiply-accumulates that were done, also those of layers other than :meth:`Layer.macs` counts.
    """

    layer: str
    compute: int
    requantize: int
    load: int
    weights: int
    executed: int

    @property
    def cycles(self) -> int:
        """Of all four kinds."""
        return self.compute + self.requantize + self.load + self.weights


@dataclasses.dataclass(frozen=True)
class Inference:
    """``output`` is the device's output tensor; ``cycles`` is exact."""

    output: NDArray[np.int8]
    cycles: int
    layers: tuple[LayerStatistics, ...]


def products(run: Run, config: Config, channels: int) -> int:
    """Multiply-accumulates that a run step of so many output channels executes: in word mode all, else those of non-zero bytes
    and of weight vectors that are stored, and of binary layers eight for every byte."""
    layer = run.layer
    windows = run.step["rows"] * layer["width"] * layer["kernel_rows"] * (layer["range_last"] + 1)
    if layer["word_mode"]:
        return channels * (windows // layer["repeat"])
    if layer["binary"]:
        return channels * windows * 8
    if run.stored is not None:
        per_group = words(run, config).bits.reshape(run.step["rows"], layer["groups"], -1).sum((0, 2))
        group = run.sums.shape[3]
        return int(sum(per_group[:-1]) * group + per_group[-1] * (channels - group * (layer["groups"] - 1)))
    ones = np.zeros((len(run.rows), run.rows.shape[1] + 1), np.int64)
    np.cumsum(run.rows != 0, axis=1, out=ones[:, 1:])
    start = layer["offset"] + np.arange(layer["width"]) * layer["x_step"]
    per_row = (ones[:, start + layer["range_last"] + 1] - ones[:, start]).sum(1)
    first = np.arange(run.step["rows"]) * layer["stride_rows"]
    return channels * int(sum(per_row[first + ky].sum() for ky in range(layer["kernel_rows"])))


def infer(
    compiled: Compiled,
    x: NDArray[np.int8],
    *,
    warm: bool = True,
    count: bool = True,
    progress: Callable[[int], None] = lambda rows: None,
) -> Inference:
    """Run one input, shaped as the network's input tensor, on the interpreter. A start is warm if the program has warm
    starts, unless ``warm`` is false. Without ``count``, which takes most of the time, there are no cycles and no statistics.
    ``progress`` is told how many output rows the host has taken."""
    program = compiled.program
    config = program.config
    machine = Machine(config)
    given = compiled.input_bytes(x)
    host = Host(program, given)
    contents = [(0, np.frombuffer(program.assemble(), np.uint8))]
    if not host.gives:
        contents.append((program.input.address, given))
    for address, data in contents:
        machine.store[address : address + len(data)] = data
    if program.warm and warm:  # the run before
        for _ in zip(range(program.warm), machine.execute(program)):
            pass
    model = CycleModel(config)
    layers: list[LayerStatistics] = []
    runs = {run.step: run for run in compiled.runs}
    end = taken = 0
    for step in machine.execute(program, warm=warm):
        if count:
            model.step(step)
        if not isinstance(step, Run) and step["opcode"] == Opcode.HOST:
            host.serve(step, machine.store)
            taken += step["rows"] * step["take"]
            progress(taken)
        if isinstance(step, Run) and count:
            run, took = runs[machine.step], model.steps[-1]
            done = products(step, config, len(run.channels))
            layers.append(LayerStatistics(run.layer, took.issue, took.stall, took.load, took.start - end, done))
            end = took.end
    cycles = model.finish() if count else 0
    if count:
        layers[-1] = dataclasses.replace(layers[-1], weights=layers[-1].weights + cycles - end)
    place = program.output
    stored = machine.store[place.address : place.address + place.size(config)]
    output = compiled.output_values(host.output() if host.takes else stored)
    return Inference(output, cycles, tuple(layers))
