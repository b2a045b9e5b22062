"""Programs that are made of compiled ones."""

import dataclasses

from gossamer.golden.program import Program
from gossamer.golden.spec import STEP_BYTES, Opcode


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
