"""Programs that are made of compiled ones, and one by hand."""

import dataclasses

import numpy as np

from gossamer.golden.program import Program, TensorPlace, encode
from gossamer.golden.spec import DESCRIPTOR, PARAMETER, STEP_BYTES, STEP_LOAD, Config, Opcode


def with_fetch(program: Program, **fields) -> Program:
    """The program with its first load's data also in the external memory, from where it is fetched before; ``fields`` has
    fields of the fetch that are other ones. One step more, so that all that lies behind the steps moves."""
    size = program.config.store_bytes
    load = program.steps[0]
    assert load["opcode"] in (Opcode.LOAD_WEIGHTS, Opcode.LOAD_PARAMETERS)
    image = program.assemble()
    steps = []
    for step in program.steps:
        moved = {"in_address": step["in_address"] + STEP_BYTES // size}
        if step["opcode"] == Opcode.RUN:
            moved["out_address"] = step["out_address"] + STEP_BYTES
        steps.append(step | moved)
    place = -(-program.end_address // size) + STEP_BYTES // size + 3
    fetch = {
        "opcode": Opcode.FETCH, "wait": 0, "layer": load["layer"], "count": load["count"], "in_address": place, "external": 2
    }  # fmt: skip
    steps[0] = steps[0] | {"in_address": place, "fetched": 1}
    data = image[load["in_address"] * size : (load["in_address"] + load["count"]) * size]
    return dataclasses.replace(
        program,
        steps=({**fetch, **fields}, *steps),
        input=dataclasses.replace(program.input, address=program.input.address + STEP_BYTES),
        output=dataclasses.replace(program.output, address=program.output.address + STEP_BYTES),
        end_address=program.end_address + STEP_BYTES,
        warm=program.warm + 1 if program.warm else 0,
        external=bytes(2 * size) + data,
    )


@dataclasses.dataclass(frozen=True)
class Streaming:
    """A convolution, 3x2 of three channels to five, by hand: a program whose input comes and whose output goes through host
    steps, in a loop that turns three times, and one that does the same at once.

    The input has 14 rows of 7 pixels, of which columns 1 to 5 are used; the output has 12 rows of 6, of which columns 1 to 4
    are written. The store holds four rows of the input, and two of the output; every second run begins in the middle of the
    four and wraps.
    """

    program: Program
    whole: Program

    @classmethod
    def random(cls, config: Config, rng: np.random.Generator) -> "Streaming":
        """With random weights; if the core can fetch, they are fetched in each turn."""
        size, lanes = config.store_bytes, config.lanes
        row, out_row = -(-15 // size), -(-20 // size)  # store words of five pixels of 3 bytes, and of four of 5
        weights = rng.integers(-128, 128, (18, lanes)).astype(np.int8).tobytes()
        parameters = b"".join(
            encode(PARAMETER, {"multiplier": int(rng.integers(1 << 30)), "shift": 7 + 8, "bias": int(bias)}, 8)
            for bias in rng.integers(-20000, 5000, lanes)
        )
        slot = -(-15 // lanes)
        layer = dict.fromkeys(DESCRIPTOR, 0) | {
            "zero_point": -9, "clamp_min": -128, "clamp_max": 127, "groups": 1, "last_lanes": 5,
            "ahead": 1, "repeat": 1, "right_granule": row, "tail": 15 - (row - 1) * size, "slot_words": slot, "kernel_rows": 3,
            "stride_rows": 1, "row_step": row, "row_step_odd": row, "ring_words": 4 * slot, "advance_words": slot, "width": 4,
            "x_step": 3, "range_last": 5, "out_x_step": 5, "out_row_step": out_row * size,
        }  # fmt: skip
        fetching = config.fetch_interval > 0
        count = 13 if fetching else 10  # steps
        at = Program.blob_address(1, count) // size
        words, entries = len(weights) // size, len(parameters) // size
        place = at + words + entries  # of the activations
        out = place + 4 * row
        fetched = out + 2 * out_row
        load = dict.fromkeys(STEP_LOAD, 0) | {"opcode": Opcode.LOAD_WEIGHTS, "layer": 1, "count": words}
        loads = (
            {**load, "in_address": at},
            {**load, "opcode": Opcode.LOAD_PARAMETERS, "count": entries, "in_address": at + words},
        )
        run = {
            "opcode": Opcode.RUN, "wait": 0, "lead_rows": 0, "wrap_rows": 0, "layer": 1, "rows": 2, "in_rows": 4,
            "in_address": place, "wrap_address": 0, "out_address": out * size,
        }  # fmt: skip
        wrapping = {**run, "in_address": place + 2 * row, "wrap_rows": 2, "wrap_address": place}
        host = {"opcode": Opcode.HOST, "take": 0, "first": 0, "rows": 2}
        give = {**host, "columns": 5, "column": 1, "in_address": place, "row_words": row}
        behind = {**give, "in_address": place + 2 * row}
        take = {**host, "take": 1, "columns": 4, "column": 1, "in_address": out, "row_words": out_row}
        again = (
            {"opcode": Opcode.FETCH, "wait": 0, "layer": 1, "count": words, "in_address": fetched, "external": 3},
            {**load, "in_address": fetched, "fetched": 1},
            {"opcode": Opcode.FETCH, "wait": 0, "layer": 1, "count": 9, "in_address": fetched, "external": 3},
        )
        before, beside = (again[:2], again[2:]) if fetching else ((), ())
        steps = (*loads, {**behind, "first": 1}, *before, give, *beside, wrapping, take, behind, run, take)
        back = {"opcode": Opcode.LOOP, "count": 2, "in_address": (128 + 3 * STEP_BYTES) // size}
        end = (fetched + words) * size
        places = TensorPlace(place * size, 14, 7, 3, 3), TensorPlace(out * size, 12, 6, 5, 5)
        external = bytes(3 * size) + weights if fetching else b""
        program = Program(config, (layer,), (*steps, back), weights + parameters, *places, end, 2, external)
        assert len(program.steps) == count
        whole_run = {**run, "rows": 12, "in_rows": 14, "out_address": (place + 14 * row) * size}
        in_place, out_place = TensorPlace(place * size, 14, 5, 3, 3), TensorPlace(whole_run["out_address"], 12, 4, 5, 5)
        shift = (count - 3) * STEP_BYTES // size  # fewer steps
        moved = tuple({**step, "in_address": step["in_address"] - shift} for step in loads)
        whole = Program(config, (layer,), (*moved, whole_run), weights + parameters, in_place, out_place, end)
        return cls(program, whole)

    def input_bytes(self, x: np.ndarray) -> np.ndarray:
        """As of a compiled network."""
        return self.program.input.to_store(x, 0, self.program.config)

    def output_values(self, data: np.ndarray) -> np.ndarray:
        """As of a compiled network."""
        return self.program.output.from_store(data, self.program.config)
