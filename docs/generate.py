"""Writes the generated regions of the documentation: ``python docs/generate.py``; with ``--check`` it only compares.

A region lies between the lines ``<!-- generated: NAME -->`` and ``<!-- end -->``. NAME is a key of :data:`REGIONS`. Some are
tables of :data:`MEASUREMENT`, into which ``--boards FILE`` puts the boards of a ``boards.json`` of ``gossamer bench boards``.
"""

import dataclasses
import inspect
import json
import re
import runpy
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.boards import BOARDS
from gossamer.cli import boards_page
from gossamer.gateware.registers import register_table
from gossamer.golden import codec, digits, spec
from gossamer.golden.compiler import Compiled, CompileError, compile_network
from gossamer.golden.inference import infer
from gossamer.golden.network import KINDS, FullyConnected, Layer, Network, Tensor, Weighted
from gossamer.golden.program import Program, decode, encode
from gossamer.golden.spec import Field, Opcode
from gossamer.golden.tflite_import import EVERY_MODEL, EVERY_OPERATOR, OPERATORS, Rule, sentence
from gossamer.hdl.sequencer import descriptor_layout

ROOT = Path(__file__).resolve().parent.parent
MEASUREMENT = ROOT / "docs" / "boards.json"
"""What has been measured of each board, as :mod:`gossamer.cli.boards` says: a board at a time, as all of them take hours."""

SEEDS = 4
"""Each function of ``tests/networks.py`` gives the tested values so many networks, but ``larger_than_a_store`` one."""

REGION = re.compile(r"(?<=^<!-- generated: )([\w-]+)( -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)

RECORDS: Mapping[str, tuple[Mapping[str, Field], int]] = {
    "header": (spec.HEADER, spec.HEADER_BYTES),
    "descriptor": (spec.DESCRIPTOR, spec.DESCRIPTOR_BYTES),
    "step-load": (spec.STEP_LOAD, spec.STEP_BYTES),
    "step-run": (spec.STEP_RUN, spec.STEP_BYTES),
    "step-fetch": (spec.STEP_FETCH, spec.STEP_BYTES),
    "step-host": (spec.STEP_HOST, spec.STEP_BYTES),
    "step-loop": (spec.STEP_LOOP, spec.STEP_BYTES),
    "parameter": (spec.PARAMETER, spec.PARAMETER_BYTES),
    "addition": (spec.ADD_TABLE, spec.PARAMETER_BYTES),
}
"""Layout and size of each record, by the name of its region."""

STEPS = {Opcode.RUN: "step-run", Opcode.FETCH: "step-fetch", Opcode.HOST: "step-host", Opcode.LOOP: "step-loop"}
"""The records of the opcodes but those of the loads."""

NOT_A_RANGE = {("header", "crc"): "any", ("header", "magic"): f"{spec.MAGIC:#x}"}
"""Tested values that smallest and largest would not describe."""


def table(columns: str, rows: list[list[object]]) -> str:
    """A Markdown table; ``columns`` are separated by bars."""
    head = columns.split("|")
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def markdown(text: str) -> str:
    """Of reStructuredText, what docstrings use: literals and roles."""
    return re.sub(r":\w+:`[^`]*?([\w]+)`", r"`\1`", text).replace("``", "`")


# Tested values


def test_programs() -> Iterator[Compiled]:
    """The digits network and those of ``tests/networks.py``, for each named configuration that they fit."""
    module = runpy.run_path(str(ROOT / "tests" / "networks.py"))
    builders = [*module["NETWORKS"], *module["MODES"]]
    random = (build(np.random.default_rng(seed)) for build in builders for seed in range(SEEDS))
    larger = module["larger_than_a_store"](np.random.default_rng(0))  # which takes a second for each configuration
    for network in chain([digits.load(), larger], random):
        for config in spec.CONFIGS.values():
            try:
                yield compile_network(network, config)
            except CompileError:
                continue


def entries(program: Program) -> Iterator[tuple[str, bytes]]:
    """The parameter entries that a program's run steps use, each with the name of its record; not partial sums."""
    image, buffer, word = program.assemble(), bytearray(8 * program.config.parameters), program.config.store_bytes
    for step in program.steps:
        if step["opcode"] == Opcode.LOAD_PARAMETERS:
            start, at = step["in_address"] * word, 8 * step["destination"]
            data = image[start : start + step["count"] * word]
            buffer[at : at + len(data)] = data
        elif step["opcode"] == Opcode.RUN:
            layer = program.layers[step["layer"] - 1]
            group = program.config.lanes << layer["int4"]
            count = 256 if layer["add"] else (layer["groups"] - 1) * group + layer["last_lanes"]
            if not layer["partial_in"]:
                name, start = "addition" if layer["add"] else "parameter", 8 * layer["parameter_base"]
                yield from ((name, bytes(buffer[at : at + 8])) for at in range(start, start + 8 * count, 8))


@cache
def tested_values() -> Mapping[tuple[str, str], set[int]]:
    """By record and field: the values in the images of :func:`test_programs`."""
    values: dict[tuple[str, str], set[int]] = defaultdict(set)
    seen: set[tuple[str, bytes]] = set()
    for compiled in test_programs():
        program = compiled.program
        seen.add(("header", program.assemble()[: spec.HEADER_BYTES]))
        seen.update(("descriptor", encode(spec.DESCRIPTOR, layer, spec.DESCRIPTOR_BYTES)) for layer in program.layers)
        for step in program.steps:
            record = STEPS.get(step["opcode"], "step-load")
            seen.add((record, encode(RECORDS[record][0], step, spec.STEP_BYTES)))
        seen.update(entries(program))
    for record, data in seen:
        for name, value in decode(RECORDS[record][0], data).items():
            values[record, name].add(value)
    return values


def tested(record: str, name: str) -> str:
    """The tested values of a field, in words."""
    if (record, name) in NOT_A_RANGE:
        return NOT_A_RANGE[record, name]
    values = sorted(tested_values().get((record, name), ()))
    if not values:
        return "none"
    return ", ".join(map(str, values)) if len(values) <= 4 else f"{values[0]} to {values[-1]}"


# Regions


def record_table(record: str) -> str:
    """The fields of a record, and the gaps between them."""
    layout, size = RECORDS[record]
    rows: list[list[object]] = []
    end = 0

    def place(start: int, stop: int) -> list[object]:
        first, last = start // 8, (stop - 1) // 8
        return [first if first == last else f"{first} to {last}", f"{stop - 1}:{start}" if stop - start > 1 else start]

    def gap(stop: int) -> None:
        if stop > end:
            rows.append([*place(end, stop), "–", "", "must be 0", ""])

    for name, field in sorted(layout.items(), key=lambda item: item[1].offset):
        gap(field.offset)
        end = field.offset + field.width
        signed = "yes" if field.signed else ""
        rows.append([*place(field.offset, end), f"`{name}`", signed, markdown(field.doc), tested(record, name)])
    gap(8 * size)
    return table("bytes|bits|field|signed|meaning|tested values", rows)


def constants() -> str:
    """Numbers that all images share."""
    docs = {
        "MAGIC": f"`{spec.MAGIC:#x}`, the bytes `{spec.MAGIC.to_bytes(4, 'little').decode()}`",
        "VERSION": spec.VERSION,
        "SHIFT_BIAS": spec.SHIFT_BIAS,
        "HEADER_BYTES": spec.HEADER_BYTES,
        "DESCRIPTOR_BYTES": spec.DESCRIPTOR_BYTES,
        "STEP_BYTES": spec.STEP_BYTES,
        "PARAMETER_BYTES": spec.PARAMETER_BYTES,
    }
    return table("constant|value", [[f"`{name}`", value] for name, value in docs.items()])


def configurations() -> str:
    """The parameters of the named configurations that a program depends on."""
    names = ["lanes", "store_bytes", "store_words", "granules", "row_words", "weight_vectors", "parameters", "acc_bits"]
    return table(
        "|".join(["configuration", *(f"`{name}`" for name in names)]),
        [[f"`{c.name}`", *(getattr(c, name) for name in names)] for c in spec.CONFIGS.values()],
    )


def modes() -> str:
    """What the named configurations have beyond bytes."""
    modes = ["binary", "nibbles", "int4"]
    rows: list[list[object]] = []
    for c in spec.CONFIGS.values():
        has = ["yes" if getattr(c, mode) else "" for mode in modes]
        if c.masks or any(has) or c.decoder != "off":
            rows.append([f"`{c.name}`", c.masks, c.mask_bytes if c.masks else "", *has, f"`{c.decoder}`"])
    names = ["masks", "mask_bytes", *modes, "decoder"]
    return table("|".join(["configuration", *(f"`{name}`" for name in names)]), rows)


def opcodes() -> str:
    """Opcodes by name."""
    meanings = {
        "END": "the program has ended",
        "LOAD_WEIGHTS": "copy store words to the weight buffer",
        "LOAD_PARAMETERS": "copy store words to the parameter buffer",
        "RUN": "compute the rows of a layer",
        "FETCH": "copy words of the external memory to the store",
        "HOST": "wait until the host has given input rows, or taken output rows",
        "LOOP": "go back a number of times",
        "LOAD_MASKS": "copy store words to the mask buffer, in a core that has one",
        "LOAD_PALETTE": "copy store words to the palette, in a core that has one",
    }
    return table("opcode|value|meaning", [[f"`{name}`", getattr(Opcode, name), text] for name, text in meanings.items()])


def limits() -> str:
    """Descriptor fields of which every core holds fewer bits than the format has, whatever its memory sizes."""
    layouts = [descriptor_layout(config) for config in spec.CONFIGS.values()]
    names = ("groups", "width", "kernel_rows", "stride_rows", "left_granules", "out_x_step")
    rows: list[list[object]] = [[f"`{name}`", min((1 << layout[name].width) - 1 for layout in layouts)] for name in names]
    return table("field|largest", rows)


def network_layers() -> str:
    """The layer kinds of a network file, their members and arrays."""
    common = {field.name for field in dataclasses.fields(Layer)}
    rows: list[list[object]] = []
    for name, kind in KINDS.items():
        members = []
        for field in dataclasses.fields(kind):
            if field.name not in common and field.name not in ("weights", "bias", "weight_scales"):
                default = "" if field.default is dataclasses.MISSING else f" ({field.default!s})"
                members.append(f"`{field.name}`{default}")
        doc = markdown(" ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split()))
        arrays = "yes" if issubclass(kind, Weighted) else ""
        rows.append([f"`{name}`", kind.operands or "any", arrays, ", ".join(members), doc])
    return table("kind|inputs|arrays|members (default)|meaning", rows)


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "".join(f"- {line}\n" for line in lines)


def operators() -> str:
    """The TFLite operators and the layers that they become."""
    rows: list[list[object]] = [[name, sentence(support.build)] for name, support in OPERATORS.items()]
    return table("operator|layer", rows)


def rules_of_operators() -> str:
    """Each rule that only some operators have, with those operators."""
    users: dict[Rule, list[str]] = defaultdict(list)
    for name, support in OPERATORS.items():
        for rule in support.rules:
            users[rule].append(name)
    return table("rule|operators", [[sentence(rule), ", ".join(names)] for rule, names in users.items()])


def example_network() -> Network:
    """``y = (2*x[0] - 3*x[1] + 10) / 4``."""
    tensors = {"x": Tensor("x", (2,), 1.0, 0), "y": Tensor("y", (1,), 4.0, 0)}
    weights, bias = np.array([[2, -3]], np.int8), np.array([10], np.int32)
    layer = FullyConnected("dense", ("x",), "y", weights, bias, np.array([1.0]))
    return Network("example", tensors, (layer,), "x", "y")


def example() -> str:
    """The image of :func:`example_network` with what its bytes are."""
    compiled = compile_network(example_network(), spec.CONFIGS["up5k"])
    program = compiled.program
    image = program.assemble()
    x = np.array([100, 20], np.int8)
    parts = {
        0: "header",
        spec.HEADER_BYTES: "layer 1",
        spec.HEADER_BYTES + spec.DESCRIPTOR_BYTES: "steps",
        program.blob_address(len(program.layers), len(program.steps)): "data of the loads",
    }
    lines = []
    for at in range(0, len(image), 16):
        if at in parts:
            lines.append(f"     {parts[at]}")
        elif image[at : at + 16] == image[at - 16 : at]:
            if lines[-1] != "     *":
                lines.append("     *")
            continue
        lines.append(f"{at:03x}  {image[at : at + 16].hex(' ')}")
    lines.append(f"{len(image):03x}")
    stored = compiled.input_bytes(x)
    output = infer(compiled, x).output
    place = program.output.address
    return (
        f"```\n{program.listing()}```\n\n```\n" + "\n".join(lines) + "\n```\n\n"
        f"For x = {x.tolist()} the host writes `{stored.tobytes().hex(' ')}` from byte {program.input.address:#x} on; the core "
        f"answers with the byte `{int(output[0]) + 128:02x}` at {place:#x}, that is, {int(output[0])}.\n"
    )


def codec_prefixes() -> str:
    """The prefixes of compressed rows, and the sizes that they stand for."""
    rows: list[list[object]] = []
    for number, (prefix, length) in enumerate(codec.PREFIXES):
        rows.append([f"`{prefix:0{length}b}`"[::-1], *(order[number] for order in spec.CODEC_ORDER)])
    return table("prefix|size in context 0|in context 1|in context 2|in context 3", rows)


def codec_example() -> str:
    """A unit of two pixels of eight channels, code by code."""
    values = [0, 5, 12, 16, 1, 3, 40, 200, 9, 0, 9, 31, 0, 0, 33, 255]
    rows: list[list[object]] = []
    for n, value in enumerate(values):
        before = int(codec.context(codec.size(values[n - 8]))) if n >= 8 else 0
        number, length = codec.code(before, value)
        size = int(codec.size(value))
        prefix = length - codec.LOW_BITS[size]
        bits = f"{number:0{length}b}"[::-1]
        rows.append([value, before, size, f"`{bits[:prefix]}`", f"`{bits[prefix:]}`" if prefix < length else ""])
    data = codec.encode(values, lanes=8)
    return (
        "Two pixels of eight channels, with `lanes` = 8:\n\n"
        + table("byte|context|size|prefix|low bits", rows)
        + f"\nThese are the {len(data)} bytes `{data.hex(' ')}`.\n"
    )


@cache
def measurement() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MEASUREMENT.read_text(encoding="utf-8"))
    return found


REGIONS: Mapping[str, Callable[[], str]] = {
    **{name: (lambda name=name: record_table(name)) for name in RECORDS},
    "constants": constants,
    "configurations": configurations,
    "modes": modes,
    "opcodes": opcodes,
    "limits": limits,
    "registers": register_table,
    "network-layers": network_layers,
    "model-rules": lambda: bullets(map(sentence, EVERY_MODEL)),
    "operator-rules": lambda: bullets(map(sentence, EVERY_OPERATOR)),
    "operators": operators,
    "rules-of-operators": rules_of_operators,
    "example": example,
    "codec-prefixes": codec_prefixes,
    "codec-example": codec_example,
    "published": boards_page.sources_markdown,
    **{name: (lambda write=write: write(measurement())) for name, write in boards_page.REGIONS.items()},
}
"""What writes a region, by its name."""


def documents() -> list[Path]:
    """The files that may have regions."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def rewritten(text: str) -> str:
    """A document's text with all regions written anew. A region of an unknown name raises :class:`KeyError`."""
    return REGION.sub(lambda region: f"{region[1]}{region[2]}{REGIONS[region[1]]()}", text)


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Two measurements in one; boards that are in both are those of the new one."""
    boards = {board["board"]: board for measured in (old, new) for board in measured["boards"]}
    return {"boards": [boards[name] for name in BOARDS if name in boards]}


def main(check: bool) -> int:
    """Write or check the regions of all documents; returns the exit status."""
    stale = 0
    for path in documents():
        text = path.read_text(encoding="utf-8")
        new = rewritten(text)
        if new != text and check:
            print(f"{path.relative_to(ROOT)} has an old generated region: run `python docs/generate.py`", file=sys.stderr)
            stale = 1
        elif new != text:
            path.write_text(new, encoding="utf-8")
    return stale


if __name__ == "__main__":
    match sys.argv[1:]:
        case [] | ["--check"]:
            sys.exit(main(len(sys.argv) > 1))
        case ["--boards", file]:
            old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (MEASUREMENT, Path(file)))
            MEASUREMENT.write_text(json.dumps(merged(old, new), indent=1) + "\n", encoding="utf-8")
            sys.exit(main(False))
        case _:
            sys.exit("usage: python docs/generate.py [--check | --boards FILE]")
