"""The documentation: generated regions, links, commands and modules exist, and docs/formats.md is enough to run a program."""

import ast
import importlib
import importlib.util
import itertools
import re
import runpy
import shlex
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
import pytest

from gossamer.cli.main import cli
from gossamer.golden import weight_formats
from gossamer.golden.compiler import Compiled, CompileError, compile_network
from gossamer.golden.network import Network
from gossamer.golden.spec import CONFIGS, Config
from gossamer.golden.tflite_import import OPERATORS
from tests.measured import MEASURED
from tests.networks import NETWORKS, block_sparse, four_bits, inputs, larger_than_a_store, narrow_weights, one_bit

ROOT = Path(__file__).resolve().parent.parent
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FORMATS = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


# Generated regions


@every_document
def test_generated_regions_are_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == GENERATE["rewritten"](text), "run `python docs/generate.py`"


@every_document
def test_every_mark_belongs_to_a_region(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    regions = [match[1] for match in GENERATE["REGION"].finditer(text)]
    assert text.count("<!-- generated") == text.count("<!-- end") == len(regions)
    assert len(set(regions)) == len(regions)


def test_every_region_is_in_one_page() -> None:
    pages = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    regions = [match[1] for text in pages for match in GENERATE["REGION"].finditer(text)]
    assert sorted(regions) == sorted(GENERATE["REGIONS"])
    assert {*GENERATE["RECORDS"]} <= {match[1] for match in GENERATE["REGION"].finditer(FORMATS)}


def test_operators_and_rules_are_those_that_the_importer_checks() -> None:
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    for name, support in OPERATORS.items():
        assert f"\n| {name} | `" in page
        for rule in support.rules:
            row = re.search(rf"^\| {re.escape(' '.join(rule.__doc__.split()))} \| (.*) \|$", page, re.MULTILINE)
            assert row, rule
            assert name in row[1].split(", ")


def test_only_regions_are_rewritten() -> None:
    rewritten = GENERATE["rewritten"]
    before, after = "a\n<!-- generated: opcodes -->\n", "<!-- end -->\nb <!-- generated: opcodes -->\nc\n"
    assert rewritten(f"{before}old\n{after}") == before + GENERATE["opcodes"]() + after
    with pytest.raises(KeyError, match="nothing"):
        rewritten("<!-- generated: nothing -->\n<!-- end -->\n")


def test_boards_of_a_new_measurement_take_the_place_of_the_old_ones() -> None:
    merged = GENERATE["merged"]
    icebreaker, tang_nano, orangecrab = MEASURED["boards"]
    assert merged({"boards": []}, MEASURED) == {"boards": [icebreaker, orangecrab, tang_nano]}
    again = {**icebreaker, "key": "another"}
    assert merged(MEASURED, {"boards": [again]}) == {"boards": [again, orangecrab, tang_nano]}


def test_tested_values_are_a_few_or_a_range() -> None:
    tested = GENERATE["tested"]
    assert tested("step-run", "opcode") == "3"
    assert tested("descriptor", "maximum") == "0, 1"
    assert re.fullmatch(r"1 to \d+", tested("descriptor", "width"))


# Links


def anchors(path: Path) -> set[str]:
    """What GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_relative_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(file), f"{target} has no such heading"


def test_formats_leads_to_the_serial_bridge() -> None:
    assert "(uart.md)" in FORMATS


# Commands and code


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of the fenced blocks."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """Commands ``gossamer …``, and whether they must be complete: those in blocks must, those in the text are mentioned."""
    for language, block in blocks(text):
        if language in ("", "sh", "bash", "shell", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if re.match(r"(\$ )?gossamer( |$)", line):
                    yield line.removeprefix("$ "), True
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in re.findall(r"`(gossamer(?: [^`]*)?)`", text):
        yield " ".join(line.split()), False


def check_command(line: str, complete: bool) -> None:
    """Raise :class:`click.UsageError` unless there are such a subcommand and such options."""
    words = [word for word in shlex.split(line, comments=True)[1:] if word not in ("-h", "--help")]
    context = click.Context(cli, info_name="gossamer")
    if not words or words[0].startswith("-"):
        cli.make_parser(context).parse_args(words)
        return
    name, command, rest = cli.resolve_command(context, words)
    if complete and "-h" not in line and "--help" not in line:
        command.make_context(name, rest, parent=context)
    else:
        command.make_parser(click.Context(command, parent=context)).parse_args(rest)


@every_document
def test_commands_exist(path: Path) -> None:
    for line, complete in commands(path.read_text(encoding="utf-8")):
        check_command(line, complete)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```\ngossamer fly\n```\n", "No such command 'fly'"),
        ("```sh\n$ gossamer demo --speed 3\n```\n", "No such option"),
        ("```\ngossamer demo --count 0\n```\n", "not in the range"),
        ("```\ngossamer compile digits\n```\n", "Missing option"),
        ("as `gossamer run --fast` shows", "No such option"),
    ],
)
def test_wrong_commands_are_found(text: str, message: str) -> None:
    (found,) = commands(text)
    with pytest.raises(click.UsageError) as error:
        check_command(*found)
    assert message in error.value.format_message()


def test_right_commands_are_accepted() -> None:
    text = "```\ngossamer compile digits \\\n  -o build  # all\ngossamer -h\n```\n`gossamer run`, `gossamer demo --count 2`"
    found = list(commands(text))
    assert [complete for _, complete in found] == [True, True, False, False]
    for line, complete in found:
        check_command(line, complete)


@every_document
def test_python_blocks_are_python(path: Path) -> None:
    for language, block in blocks(path.read_text(encoding="utf-8")):
        if language in ("python", "py"):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module:
                    for alias in node.names:
                        check_name(f"{node.module}.{alias.name}")


# Modules


def check_name(name: str) -> None:
    """Assert that a dotted name is a module, or a member of one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.util.find_spec(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        if found is not None:
            value = importlib.import_module(".".join(parts[:count]))
            for part in parts[count:]:
                assert hasattr(value, part), f"{name} does not exist"
                value = getattr(value, part)
            return
    raise AssertionError(f"{name} does not exist")


@every_document
def test_modules_and_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"\bgossamer(?:\.[a-zA-Z_]\w*)+", text):
        if name not in ("gossamer.git", "gossamer.h", "gossamer.c"):
            check_name(name)
    folders = "|".join(entry.name for entry in ROOT.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
        assert name.startswith("build/") or (ROOT / name).exists(), f"{name} does not exist"


@pytest.mark.parametrize("name", ["gossamer.golden.nothing", "gossamer.golden.spec.NOTHING", "gossamer.nothing"])
def test_missing_names_are_found(name: str) -> None:
    with pytest.raises(AssertionError, match=f"^{re.escape(name)} does not exist"):
        check_name(name)


# A machine built from docs/formats.md alone: its tables give the layouts, its section on RUN the meaning.


def layout(region: str) -> dict[str, tuple[int, int, bool]]:
    """``{field: (lowest bit, width, signed)}`` of a table in the page."""
    body = re.search(rf"<!-- generated: {region} -->\n(.*?)<!-- end -->", FORMATS, re.DOTALL)
    assert body
    fields = {}
    for line in body[1].splitlines()[2:]:
        _, bits, name, signed, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        if name != "–":
            high, low = map(int, bits.split(":") if ":" in bits else (bits, bits))
            fields[name.strip("`")] = (low, high - low + 1, signed == "yes")
    return fields


RECORDS = ("header", "descriptor", "step-load", "step-run", "step-fetch", "parameter", "addition")
LAYOUTS = {name: layout(name) for name in RECORDS}


def read(region: str, data: bytes) -> dict[str, int]:
    total = int.from_bytes(data, "little")
    return {
        name: (total >> low & (1 << width) - 1) - (signed and total >> low + width - 1 & 1) * (1 << width)
        for name, (low, width, signed) in LAYOUTS[region].items()
    }


class Reader:
    """Executes an image in a store as the page says, one number at a time."""

    def __init__(self, store: bytearray, external: bytes, *, acc_bits: int, buffer: int):
        self.store, self.external, self.acc_bits = store, external, acc_bits
        self.header = read("header", store[:64])
        self.lanes, self.word = self.header["lanes"], self.header["store_bytes"]
        self.weights, self.entries, self.masks = bytearray(buffer), bytearray(buffer), bytearray(buffer)
        self.mask = -(-(self.lanes // 8 + 2) // self.word) * self.word
        self.palette = b""

    def execute(self) -> None:
        at = self.header["steps"] * self.word
        while opcode := self.store[at] & 15:
            record = bytes(self.store[at : at + 16])
            if opcode == 3:
                step = read("step-run", record)
                self.run(step, read("descriptor", self.store[64 * step["layer"] :][:64]))
            elif opcode == 4:
                step = read("step-fetch", record)
                start, source, count = (step[name] * self.word for name in ("in_address", "external", "count"))
                self.store[start : start + count] = self.external[source : source + count]
            else:
                step = read("step-load", record)
                data = bytes(self.store[step["in_address"] * self.word :][: step["count"] * self.word])
                if opcode == 8:
                    self.palette = data
                else:
                    target, size = {1: (self.weights, self.lanes), 2: (self.entries, 8), 7: (self.masks, self.mask)}[opcode]
                    data = bytes(self.decoded(step, data)) if step["format"] else data
                    target[step["destination"] * size : step["destination"] * size + len(data)] = data
            at += 16

    def decoded(self, step: dict[str, int], data: bytes) -> Iterator[int]:
        """The bytes of weights in fewer bits."""
        words, high, n = [data[i : i + self.word] for i in range(0, len(data), self.word)], 0, 0
        for number, word in enumerate(words):
            if step["format"] == 3 and number % 5 == 0:
                high = int.from_bytes(word, "little")
                continue
            for byte in word:
                for c in (byte % 16, byte // 16):
                    if step["format"] == 1:
                        yield (c - 16 * (c > 7)) % 256
                    else:
                        width = self.word if step["shared"] else self.lanes
                        c += 16 * (high & 1) if step["format"] == 3 else 0
                        high >>= 1
                        yield self.palette[c * width + n % width]
                    n += 1

    def rows(self, step: dict[str, int], d: dict[str, int]) -> list[bytes]:
        rows, address = [], step["in_address"]
        for r in range(d["kernel_rows"] + (step["rows"] - 1) * d["stride_rows"]):
            i = r - step["lead_rows"]
            row = bytearray([d["pad"]]) * (d["slot_words"] * self.lanes)
            if 0 <= i < step["in_rows"]:
                start = d["left_granules"] * self.word
                size = (d["right_granule"] - d["left_granules"] - 1) * self.word + d["tail"]
                row[start : start + size] = itertools.islice(self.unpacked(d, address * self.word), size)
                address += d["row_step_odd"] if i % 2 else d["row_step"]
            rows.append(bytes(row))
        return rows

    def unpacked(self, d: dict[str, int], address: int) -> Iterator[int]:
        for byte in self.store[address:]:
            if d["in_nibbles"]:
                yield from (byte % 16, byte // 16)
            elif d["in_bits"]:
                yield from (2 * (byte >> i & 1) for i in range(8))
            else:
                yield byte

    def vector(self, d: dict[str, int], g: int, k: int, b: int) -> int | None:
        """The weight vector of a byte of the window; none if it is zero."""
        beats = d["range_last"] + 1
        if not d["sparse"]:
            return d["weight_base"] + (0 if d["shared_weights"] else g * d["kernel_rows"] * beats) + k * beats + b
        phase = d["offset"] % self.lanes
        word, lane = divmod(phase + b, self.lanes)
        number = d["weight_base"] + (g * d["kernel_rows"] + k) * ((phase + d["range_last"]) // self.lanes + 1) + word
        entry = self.masks[number * self.mask :][: self.mask]
        stored = int.from_bytes(entry[: self.lanes // 8], "little")
        first = int.from_bytes(entry[self.lanes // 8 : self.lanes // 8 + 2], "little")
        in_front = (stored & (1 << lane) - 1).bit_count()
        return d["vector_base"] + first + in_front if stored >> lane & 1 else None

    def product(self, d: dict[str, int], v: int, vector: int, channel: int) -> int:
        byte = self.weights[vector * self.lanes + channel % self.lanes]
        if d["binary"]:
            return 2 * (8 - (v ^ byte).bit_count())
        if d["int4"]:
            half = byte >> 4 if channel >= self.lanes else byte & 15
            return v * (half - 16 * (half > 7))
        return v * (byte - 256 * (byte > 127))

    def sum(self, d: dict[str, int], rows: list[bytes], g: int, x: int, channel: int) -> int:
        total, first = 0, d["offset"] + x * d["x_step"]
        for k in range(d["kernel_rows"]):
            for b in range(d["range_last"] + 1):
                if d["word_mode"]:
                    v = rows[k][first + (g + b // d["repeat"] * d["tap_step"]) * self.lanes + channel]
                else:
                    v = rows[k][first + b]
                vector = self.vector(d, g, k, b)
                if d["maximum"] and b % d["repeat"] == 1:
                    total = max(total, 0)
                elif vector is not None:
                    total += self.product(d, v, vector, channel)
        return total

    def run(self, step: dict[str, int], d: dict[str, int]) -> None:
        rows, group = self.rows(step, d), 2 * self.lanes if d["int4"] else self.lanes
        per_byte = 2 if d["out_nibbles"] else 8 if d["out_bits"] else 1
        out, n = {}, 0
        for y in range(step["rows"]):
            window = rows[y * d["stride_rows"] :][: d["kernel_rows"]]
            for g in range(d["groups"]):
                for x in range(d["width"]):
                    for channel in range(d["last_lanes"] if g == d["groups"] - 1 else group):
                        total = self.sum(d, window, g, x, channel)
                        entry = (n if d["partial_in"] else g) * group + channel
                        size = group // per_byte
                        address = step["out_address"] + y * (d["out_row_step"] + (d["groups"] - 1) * size)
                        address += g * size + x * d["out_x_step"] + channel // per_byte
                        if d["partial_out"]:
                            address = step["out_address"] + n * d["out_x_step"] + 8 * channel
                            out |= enumerate(self.partial(d, total, entry), address)
                            continue
                        value = self.scale(d, total, entry)
                        if d["out_nibbles"]:
                            value = (value + 8) % 16 * 16 ** (channel % 2)
                        elif d["out_bits"]:
                            value = (value >= 0) << channel % 8
                        else:
                            value += 128
                        out[address] = value + (out[address] if channel % per_byte else 0)
                    n += 1
        for address, value in out.items():
            self.store[address] = value

    def scale(self, d: dict[str, int], total: int, channel: int) -> int:
        half = 1 << self.acc_bits - 1
        total = (total + half) % (2 * half) - half
        entry = d["parameter_base"] + channel
        if d["add"]:
            s = self.entry("addition", d["parameter_base"] + total % 256)["first"]
            s += self.entry("addition", d["parameter_base"] + total // 256 % 256)["second"]
            m, e = d["add_multiplier"] + 2**30, d["add_shift"] - 7
        else:
            p = self.entry("parameter", entry)
            hidden = 0 if d["small_multipliers"] else 2**30
            s, m, e = total + p["bias"], p["multiplier"] + hidden, p["shift"] - 7
        if not d["double_rounding"]:
            r = (s * m + 2 ** (30 + e)) // 2 ** (31 + e)
        elif e <= 0:
            r = (s * 2**-e * m + 2**30) // 2**31
        else:
            t = (s * m + 2**30) // 2**31
            r = (1 if t >= 0 else -1) * ((abs(t) + 2 ** (e - 1)) // 2**e)
        return min(max(d["zero_point"] + r, d["clamp_min"]), d["clamp_max"])

    def partial(self, d: dict[str, int], total: int, channel: int) -> bytes:
        half = 1 << self.acc_bits - 1
        entry = d["parameter_base"] + channel
        s = (total + half) % (2 * half) - half + self.entry("parameter", entry)["bias"]
        low, width, _ = LAYOUTS["parameter"]["bias"]
        number = int.from_bytes(self.entries[8 * entry : 8 * entry + 8], "little")
        number += (s - self.entry("parameter", entry)["bias"]) * 2**low
        assert abs(s) < 2 ** (width - 1)
        return (number % 2**64).to_bytes(8, "little")

    def entry(self, region: str, index: int) -> dict[str, int]:
        return read(region, self.entries[8 * index : 8 * index + 8])


def first_that_fits(
    build: Callable[[np.random.Generator], Network], config: Config, start: int = 0
) -> tuple[Network, Compiled, np.ndarray]:
    for seed in itertools.count(start):
        rng = np.random.default_rng(seed)
        network = build(rng)
        with suppress(CompileError):
            return network, compile_network(network, config), inputs(rng, network, 1)
    raise AssertionError


@pytest.mark.parametrize(
    "build, config",
    [*itertools.product(NETWORKS, ["gw1n9", "ecp5_25", "ecp5_85"]), (larger_than_a_store, "up5k")],
)
def test_page_is_enough_to_run_a_program(build, config: str) -> None:
    check_program(*first_that_fits(build, CONFIGS[config]))


@pytest.mark.parametrize("seed", [0, 100, 200])
@pytest.mark.parametrize(
    "build, config, fields",
    [
        (four_bits, "ecp5_25_compressed", {"in_nibbles", "out_nibbles"}),
        (one_bit, "ecp5_25_compressed", {"in_bits", "out_bits", "binary"}),
        (one_bit, "up5k_compressed", {"in_bits", "out_bits", "binary"}),
        (block_sparse, "ecp5_25_compressed", {"sparse"}),
        (block_sparse, "up5k_compressed", {"sparse"}),
        (narrow_weights, "ecp5_25_compressed", {"int4"}),
    ],
)
def test_page_is_enough_to_run_a_program_with_modes(build, config: str, fields: set[str], seed: int) -> None:
    network, compiled, x = first_that_fits(build, CONFIGS[config], seed)
    assert fields <= {name for layer in compiled.program.layers for name in fields if layer[name]}
    check_program(network, compiled, x)


@pytest.mark.parametrize("lanes, word", [(16, 8), (32, 16), (64, 8)])
@pytest.mark.parametrize("per_lane", [False, True])
@pytest.mark.parametrize("values, kind", [(2, 2), (16, 2), (17, 3), (32, 3)])
@pytest.mark.parametrize("vectors", [1, 7, 50])
def test_page_is_enough_to_read_weights_in_fewer_bits(rng, lanes, word, per_lane, values, kind, vectors) -> None:
    config = Config("c", lanes=lanes, store_bytes=word, decoder="palettes")
    palette = np.array([rng.permutation(np.arange(8, 128))[:values] for _ in range(lanes if per_lane else 1)]).T
    weights = np.take_along_axis(np.tile(palette, (1, lanes // palette.shape[1])), rng.integers(0, values, (vectors, lanes)), 0)
    raw = weights.astype(np.int8).tobytes()
    encoded = weight_formats.encode(raw, config)
    reader = Reader(bytearray(6) + bytes([lanes, word]) + bytes(56), b"", acc_bits=24, buffer=0)
    if encoded.format:
        reader.palette = encoded.palette
        assert bytes(reader.decoded({"format": encoded.format, "shared": int(encoded.shared)}, encoded.data)) == raw
    if vectors == 50 and not per_lane:
        assert (encoded.format, encoded.shared) == (kind, True)


def test_page_is_enough_to_read_a_palette_of_each_lane(rng) -> None:
    """Which is worth its bytes from some hundred vectors on."""
    config = Config("c", decoder="palettes")
    for values, kind in ((16, 2), (30, 3)):
        palette = np.array([rng.permutation(np.arange(-128, 128))[:values] for _ in range(16)])
        raw = palette[np.arange(16), rng.integers(0, values, (400, 16))].astype(np.int8).tobytes()
        encoded = weight_formats.encode(raw, config)
        assert (encoded.format, encoded.shared) == (kind, False)
        reader = Reader(bytearray(6) + bytes([16, 8]) + bytes(56), b"", acc_bits=24, buffer=0)
        reader.palette = encoded.palette
        assert bytes(reader.decoded({"format": kind, "shared": 0}, encoded.data)) == raw


def test_page_is_enough_to_read_numbers_of_four_bits(rng) -> None:
    raw = rng.integers(-8, 8, (20, 16)).astype(np.int8).tobytes()
    encoded = weight_formats.encode(raw, Config("c", decoder="nibbles"))
    reader = Reader(bytearray(6) + bytes([16, 8]) + bytes(56), b"", acc_bits=24, buffer=0)
    assert bytes(reader.decoded({"format": 1, "shared": 0}, encoded.data)) == raw


def check_program(network: Network, compiled: Compiled, x: np.ndarray) -> None:
    """Run a program as the page says, and compare with the network."""
    config = compiled.program.config
    image = compiled.program.assemble()
    header = read("header", image[:64])
    store = bytearray(header["end_address"])
    store[: len(image)] = image
    word = header["store_bytes"]

    def place(name: str) -> Iterator[tuple[tuple[int, int, int], int]]:
        pitch = header[f"{name}_pitch"]
        row = -(-header[f"{name}_columns"] * pitch // word) * word
        for index in np.ndindex(*(header[f"{name}_{axis}"] for axis in ("rows", "columns", "channels"))):
            yield index, header[f"{name}_address"] + index[0] * row + index[1] * pitch + index[2]

    shape = [header[f"input_{axis}"] for axis in ("rows", "columns", "channels")]
    for index, address in place("input"):
        store[address] = int(x.reshape(shape)[index]) + 128
    external = compiled.program.external
    assert len(external) == header["external_words"] * word
    assert zlib.crc32(external) == header["external_crc"]
    Reader(store, external, acc_bits=config.acc_bits, buffer=1 << 16).execute()
    got = [store[address] - 128 for _, address in place("output")]
    assert got == network.run(x)[compiled.device_output].reshape(-1).tolist()
