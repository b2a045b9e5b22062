"""Inferences on the interpreter, with the cycle model and the statistics of what was skipped."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.compiler import Compiled
from gossamer.golden.cycles import CycleModel
from gossamer.golden.interpreter import Machine, Run
from gossamer.golden.spec import Config

__all__ = ["Inference", "LayerStatistics", "infer", "products"]


@dataclasses.dataclass(frozen=True)
class LayerStatistics:
    """One run step: clock ``cycles`` from dispatch to the last write, of which in ``issue`` the front had work and in
    ``stall`` it waited for the drain; ``macs`` multiply-accumulates that the layer means, ``executed`` that were done."""

    layer: str
    cycles: int
    issue: int
    stall: int
    macs: int
    executed: int


@dataclasses.dataclass(frozen=True)
class Inference:
    """``output`` is the device's output tensor; ``cycles`` is exact, of a warm start."""

    output: NDArray[np.int8]
    cycles: int
    layers: tuple[LayerStatistics, ...]


def products(run: Run, config: Config) -> int:
    """Multiply-accumulates per output channel that a run step executes: in word mode all, else those of non-zero bytes."""
    layer = run.layer
    if layer["word_mode"]:
        return run.step["rows"] * layer["width"] * layer["kernel_rows"] * (layer["range_last"] + 1) // layer["repeat"]
    ones = np.zeros((len(run.rows), run.rows.shape[1] + 1), np.int64)
    np.cumsum(run.rows != 0, axis=1, out=ones[:, 1:])
    start = layer["offset"] + np.arange(layer["width"]) * layer["x_step"]
    per_row = (ones[:, start + layer["range_last"] + 1] - ones[:, start]).sum(1)
    first = np.arange(run.step["rows"]) * layer["stride_rows"]
    return int(sum(per_row[first + ky].sum() for ky in range(layer["kernel_rows"])))


def infer(compiled: Compiled, x: NDArray[np.int8]) -> Inference:
    """Run one input, shaped as the network's input tensor, on the interpreter."""
    program = compiled.program
    config = program.config
    machine = Machine(config)
    for address, data in (
        (0, np.frombuffer(program.assemble(), np.uint8)),
        (program.input.address, compiled.input_bytes(x)),
    ):
        machine.store[address : address + len(data)] = data
    if program.warm:  # the run before
        for _ in zip(range(program.warm), machine.execute(program)):
            pass
    model = CycleModel(config)
    layers = []
    runs = iter(compiled.runs)
    for step in machine.execute(program, warm=True):
        model.step(step)
        if isinstance(step, Run):
            run, took = next(runs), model.steps[-1]
            layers.append(
                LayerStatistics(
                    run.layer,
                    took.end - took.start,
                    took.issue,
                    took.stall,
                    run.macs,
                    products(step, config) * len(run.channels),
                )
            )
    place = program.output
    output = compiled.output_values(machine.store[place.address : place.address + place.size(config)])
    return Inference(output, model.finish(), tuple(layers))
