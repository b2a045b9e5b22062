"""The SoC with its firmware, simulated: what it prints, and MLPerf Tiny's protocol on a pseudo-terminal."""

import json
import os
import select
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gossamer.cli.soc import soc_network
from gossamer.firmware.soc_build import COMPILER, FOLDER, LIBRARY, Memory, build_firmware
from gossamer.gateware.cpu import CpuError, cpu_sources
from gossamer.gateware.soc_registers import RAM, ROM
from gossamer.golden import digits
from gossamer.golden.compiler import compile_network
from gossamer.golden.inference import infer
from gossamer.golden.spec import Config
from gossamer.golden.tflite_import import load_tflite
from gossamer.sim.cocotb_runner import run_soc_bench
from gossamer.sim.serial import SocBoard
from gossamer.sim.soc import SimulatedSoc
from tests import networks

CONFIG = Config("soc", lanes=8, store_words=8192)
SOC = SimulatedSoc(CONFIG)
MEMORY = Memory.in_ram(SOC.ram_bytes)
# As on iCEBreaker: little RAM, and the program elsewhere.
SERV = SimulatedSoc(CONFIG, "serv", ram_bytes=4 << 10, rom_bytes=64 << 10)
ELSEWHERE = Memory(ROM, SERV.rom_bytes, RAM, SERV.ram_bytes)
PATIENCE = 120  # seconds


def _missing():
    if shutil.which(COMPILER) is None or not LIBRARY.exists():
        return f"{COMPILER} and picolibc are not here"
    try:
        for cpu in ("picorv32", "serv"):
            cpu_sources(cpu)
    except CpuError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing() or "all is here")


def program(name, compiled, label="digits", samples=(), memory=MEMORY):
    return build_firmware(name, soc_network(compiled, label, samples), memory)


def expected_lines(compiled, inputs):
    """What the program `classes` prints."""
    lines = []
    for i, x in enumerate(inputs):
        inference = infer(compiled, x, warm=i > 0)
        best = int(np.argmax(compiled.finish(inference.output[np.newaxis])))
        lines.append(f"class {best}, {inference.cycles} cycles")
    return [*lines, "done"]


class Line:
    """The PC's end of the line. Nothing that has come before it was opened is lost, as pyserial would have it."""

    def __init__(self, port):
        self.file = os.open(port, os.O_RDWR | os.O_NOCTTY)
        self.bytes = b""

    def write(self, data):
        assert os.write(self.file, data) == len(data)

    def read_line(self):
        """Without its end."""
        while b"\r\n" not in self.bytes:
            assert select.select([self.file], [], [], PATIENCE)[0], f"a line must end, not stop after {self.bytes!r}"
            self.bytes += os.read(self.file, 4096)
        line, _, self.bytes = self.bytes.partition(b"\r\n")
        return line.decode()

    def read_lines(self, last):
        """All up to one that is ``last``."""
        lines = [self.read_line()]
        while lines[-1] != last:
            lines.append(self.read_line())
        return lines

    def close(self):
        os.close(self.file)


def lines_of(soc, firmware):
    """All that it prints, up to "done"."""
    with SocBoard(soc, firmware) as board:
        line = Line(board.port)
        lines = line.read_lines("done")
        line.close()
    return lines


def test_it_prints_the_classes_of_digits_in_cocotb(tmp_path):
    """Verilator through cocotb, with random bits in all registers."""
    compiled = compile_network(digits.load(), CONFIG)
    inputs, labels = digits.test_set()
    firmware = program("classes", compiled, samples=inputs[:3])
    lines = expected_lines(compiled, inputs[:3])
    assert [int(line.split()[1].strip(",")) for line in lines[:-1]] == list(labels[:3])
    results = run_soc_bench(
        SOC, firmware, "tests.firmware.bench_soc", tmp_path, environment={"SOC_EXPECTED": json.dumps(lines)}
    )
    assert results == {"test_the_lines_that_are_expected": ""}


def test_serv_runs_a_network(rng):
    b = networks.Builder(rng, (3, 4, 3))
    b.fully_connected(b.conv(b.input, 4, (3, 3)), 5)
    compiled = compile_network(b.network(), CONFIG)
    inputs = networks.inputs(rng, compiled.network, 2)
    firmware = program("classes", compiled, samples=inputs, memory=ELSEWHERE)
    assert lines_of(SERV, firmware) == expected_lines(compiled, inputs)


@pytest.mark.parametrize("soc, memory", [(SOC, MEMORY), (SERV, ELSEWHERE)], ids=["picorv32", "serv"])
def test_nothing_that_a_program_does_hangs_the_bus(soc, memory, tmp_path):
    settings = {
        "BUILD": tmp_path,
        "SOC_PROGRAM": "probe",
        "SOC_SOURCE": Path(__file__).with_name("probe.c"),
        "SOC_NETWORK": "",
        "SOC_LINK": memory.link,
    }
    command = ["make", "-s", "-C", FOLDER, "soc", *(f"{name}={value}" for name, value in settings.items())]
    subprocess.run(command, check=True, capture_output=True)
    claims = lines_of(soc, (tmp_path / "probe.bin").read_bytes())[:-1]
    assert [claim for claim in claims if not claim.endswith(": 1")] == []
    assert len(claims) == 13


class Runner:
    """What the public runner does: a command ends with %, an answer with m-ready."""

    def __init__(self, port):
        self.line = Line(port)

    def answer(self):
        return self.line.read_lines("m-ready")[:-1]

    def command(self, text):
        self.line.write(f"{text}%".encode())
        return self.answer()

    def load(self, data):
        """In commands of 31 bytes."""
        answers = [self.command(f"db load {len(data)}")]
        answers += [self.command(f"db {data[at : at + 31].hex()}") for at in range(0, len(data), 31)]
        return answers


@pytest.fixture(scope="module")
def protocol():
    """A board with a small network, for what needs no real one; and its network."""
    compiled = compile_network(networks.mean(np.random.default_rng(7)), CONFIG)
    with SocBoard(SOC, program("mlperf", compiled, "small")) as board:
        runner = Runner(board.port)
        greeting = runner.answer()
        yield runner, compiled, greeting
        runner.line.close()


def test_it_says_that_it_is_there(protocol):
    runner, _, greeting = protocol
    assert greeting[0] == "m-timestamp-mode-performance"
    assert greeting[1].startswith("m-lap-us-")
    assert greeting[2:] == ["m-init-done"]
    assert runner.command("name") == ["m-name-dut-[gossamer]"]
    assert runner.command("profile") == ["m-profile-[ULPMark for tinyML Firmware V0.0.1]", "m-model-[small]"]
    assert any(line.startswith("infer") for line in runner.command("help"))


def test_timestamps_are_microseconds(protocol):
    """The simulated clock has 1 MHz, and a byte takes 80 cycles. The second command has come when the first is done."""
    runner, *_ = protocol
    runner.line.write(b"timestamp%timestamp%")
    first, second = runner.answer()[0], runner.answer()[0]
    between = 80 * len(f"{first}\r\nm-ready\r\n")
    assert between <= int(second.removeprefix("m-lap-us-")) - int(first.removeprefix("m-lap-us-")) < between + 20_000


@pytest.mark.parametrize(
    "command, answer",
    [
        ("", []),
        ("\r\n", []),
        ("nonsense 1 2", ["e-[Unknown command: nonsense]"]),
        ("x" * 200, [f"e-[Unknown command: {'x' * 80}]"]),
        ("db", ["e-[Command 'db' requires a subcommand]"]),
        ("db load", ["e-[Command 'db load' requires the # of bytes]"]),
        ("db load 0", ["e-[Command 'db load' must be >0 bytes]"]),
        ("db load -1", ["e-[Command 'db load' must be >0 bytes]"]),
        ("db 1", ["e-[Insufficent number of hex digits]"]),
        ("infer 0", ["e-[Inference iterations must be >0]"]),
        ("infer 1 -1", ["e-[Inference warmup must be >=0]"]),
    ],
)
def test_mistakes_are_answered_as_the_reference_does(protocol, command, answer):
    runner, *_ = protocol
    assert runner.command(command) == answer


def test_the_buffer_takes_what_was_announced_and_no_more(protocol):
    runner, compiled, _ = protocol
    values = int(np.prod(compiled.network.tensors[compiled.network.input].shape))
    assert runner.command("db load 10") == ["m-[Expecting 10 bytes]"]
    assert runner.command("db 00017F80ff") == []
    assert runner.command("db 12G4") == ["e-[Invalid hex digit 'G4']"]  # what is in front of it counts
    assert runner.command("db 0a0b0c0d") == ["m-load-done"]
    assert runner.command("db print") == ["m-buffer-00-01-7f-80-ff-12-0a-0b", "m-buffer-0c-0d"]
    assert runner.command("db 55") == ["e-[Command 'db' has more bytes than the 10 of 'db load']"]
    assert runner.command("infer 1 0") == [f"e-[Input db has 10 elements, expected {values}]"]
    answer = runner.command("db load 99999999")
    assert len(answer) == 1
    assert answer[0].startswith("e-[Supplied buffer size 99999999 exceeds maximum of ")
    assert runner.command("db load 2") == ["m-[Expecting 2 bytes]"]
    assert runner.command("db 0102030405") == ["m-load-done"]
    assert runner.command("db print") == ["m-buffer-01-02"]


def results_line(output):
    """Of int8 outputs with scale 1/256 and zero point -128: three decimals, cut off."""
    thousandths = [(int(value) + 128) * 1000 // 256 for value in output.reshape(-1)]
    return f"m-results-[{','.join(f'0.{value:03d}' for value in thousandths)}]"


def test_an_inference(protocol, rng):
    """Several on the same input, which the network's own maps may have overwritten in the store."""
    runner, compiled, _ = protocol
    x = networks.inputs(rng, compiled.network, 1)[0]
    assert runner.load(x.tobytes())[-1] == ["m-load-done"]
    answer = runner.command("infer 3 2")
    starts, ends = answer[3:5]
    assert answer[:3] == ["m-warmup-start-2", "m-warmup-done", "m-infer-start-3"]
    assert int(ends.removeprefix("m-lap-us-")) > int(starts.removeprefix("m-lap-us-"))
    expected = results_line(compiled.finish(infer(compiled, x, count=False).output[np.newaxis])[0])
    assert answer[5:] == ["m-infer-done", expected]
    assert runner.command("results") == [expected]


@pytest.mark.skipif("GOSSAMER_DATA" not in os.environ, reason="GOSSAMER_DATA, the folder of real networks, is not set")
def test_keyword_spotting_through_the_protocol():
    """As the public runner drives a board; the results are those of TFLite's reference kernels."""
    folder = Path(os.environ["GOSSAMER_DATA"]) / "mlperf_tiny"
    compiled = compile_network(load_tflite(folder / "kws_dscnn_int8.tflite"), CONFIG)
    with np.load(folder / "kws_dscnn_samples.npz") as file:
        inputs, outputs = file["x"][:4], file["output"][:4]
    with SocBoard(SOC, program("mlperf", compiled, "kws_dscnn")) as board:
        runner = Runner(board.port)
        runner.answer()
        assert runner.command("profile")[1] == "m-model-[kws01]"
        for x, output in zip(inputs, outputs):
            assert runner.load(x.tobytes())[-1] == ["m-load-done"]
            answer = runner.command("infer 1 0")
            laps = [int(line.removeprefix("m-lap-us-")) for line in answer if line.startswith("m-lap-us-")]
            assert laps[1] - laps[0] > infer(compiled, x, warm=False).cycles  # at 1 MHz
            assert answer[-1] == results_line(output)
        runner.line.close()
