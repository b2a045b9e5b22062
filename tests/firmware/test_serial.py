"""Both drivers against the simulated board: core and bridge in Verilator, the line on a pseudo-terminal."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gossamer.cli.main import main
from gossamer.firmware.host import Board, CoreError, Link, open_port
from gossamer.golden import digits
from gossamer.golden.compiler import Strategy, compile_network
from gossamer.golden.inference import infer
from gossamer.golden.spec import Config, Error
from gossamer.sim.serial import SerialBoard
from tests import networks
from tests.programs import Streaming

FIRMWARE = Path(__file__).parents[2] / "firmware"
CONFIG = Config("serial", lanes=8, store_words=4096)


@pytest.fixture(scope="module")
def port():
    with SerialBoard(CONFIG) as board:
        yield board.port


@pytest.fixture
def board(port):
    """The board, whatever the test before has left."""
    line = open_port(port, 1_000_000)
    yield Board(Link(line, silence=0.03, patience=0.5))
    line.close()


def expect(board, compiled, inputs):
    """Run all and compare outputs and cycles with the golden model's."""
    for i, x in enumerate(inputs):
        found = board.run(compiled.input_bytes(x).tobytes())
        assert found.warm == (i > 0 and compiled.program.warm > 0)
        inference = infer(compiled, x, warm=found.warm)
        np.testing.assert_array_equal(compiled.output_values(np.frombuffer(found.output, np.uint8)), inference.output)
        assert found.cycles == inference.cycles


def test_digits_end_to_end(board):
    compiled = compile_network(digits.load(), CONFIG)
    board.load(compiled.program.assemble())
    expect(board, compiled, digits.test_set()[0][:3])
    assert board.link.troubles == 0


def test_warm_starts_behind_the_failure_that_the_driver_provokes(board, rng):
    compiled = compile_network(networks.residual(rng), CONFIG)
    assert compiled.program.warm
    board.load(compiled.program.assemble())
    expect(board, compiled, networks.inputs(rng, compiled.network, 3))
    assert board.link.troubles == 0


def test_host_steps_in_strips(board, rng):
    network = networks.conv(rng)
    compiled = compile_network(network, CONFIG, strategy=Strategy(stream=True))
    board.load(compiled.program.assemble())
    expect(board, compiled, networks.inputs(rng, compiled.network, 2))


def test_host_steps_in_a_loop(board, rng):
    streaming = Streaming.random(CONFIG, rng)
    whole = streaming.whole
    x = rng.integers(-128, 128, (14, 7, 3)).astype(np.int8)
    board.load(streaming.program.assemble())
    parts = board.run(streaming.input_bytes(x).tobytes()).output
    board.load(whole.assemble())
    found = board.run(whole.input.to_store(x[:, 1:6], 0, CONFIG).tobytes()).output
    np.testing.assert_array_equal(
        streaming.output_values(np.frombuffer(parts, np.uint8))[:, 1:5],
        whole.output.from_store(np.frombuffer(found, np.uint8), CONFIG),
    )


def test_an_error_of_the_core(board, rng):
    """The first step reads behind the store."""
    compiled = compile_network(networks.mean(rng), CONFIG)


    program = compiled.program
    steps = ({**program.steps[0], "in_address": CONFIG.store_words}, *program.steps[1:])
    board.load(dataclasses.replace(program, steps=steps).assemble())
    x = compiled.input_bytes(networks.inputs(rng, compiled.network, 1)[0]).tobytes()
    with pytest.raises(CoreError, match=Error.TEXT[Error.READ]):
        board.run(x)
    board.load(program.assemble())
    assert not board.run(x).warm


def test_faults_on_the_line(port, rng):
    """Of the bytes in either direction one in 1000 is changed, does not come, or comes twice."""
    compiled = compile_network(networks.depthwise(rng), CONFIG)
    line = open_port(port, 1_000_000)

    class Noisy:
        timeout = property(lambda self: line.timeout, lambda self, value: setattr(line, "timeout", value))
        in_waiting = property(lambda self: line.in_waiting)
        flush = staticmethod(line.flush)

        def spoiled(self, data):
            kinds = rng.random(len(data))
            flips = [byte ^ (1 << int(rng.integers(8)) if kind < 0.0004 else 0) for byte, kind in zip(data, kinds)]
            times = [0 if 0.0004 <= kind < 0.0007 else 2 if 0.0007 <= kind < 0.001 else 1 for kind in kinds]
            return b"".join(bytes([byte]) * count for byte, count in zip(flips, times))

        def write(self, data):
            return line.write(self.spoiled(data))

        def read(self, size):
            return self.spoiled(line.read(size))

    board = Board(Link(Noisy(), silence=0.03, patience=0.05))
    board.load(compiled.program.assemble())
    for x in networks.inputs(rng, compiled.network, 3):
        found = board.run(compiled.input_bytes(x).tobytes())
        expected = infer(compiled, x, count=False).output
        np.testing.assert_array_equal(compiled.output_values(np.frombuffer(found.output, np.uint8)), expected)
    assert board.link.troubles > 0
    line.close()


def test_the_command(port, tmp_path, monkeypatch, capsys):
    """`gossamer run --backend serial`, which writes what the golden backend does."""
    (tmp_path / "config.toml").write_text('name = "serial"\nlanes = 8\nstore_words = 4096\n')
    np.save(tmp_path / "x.npy", digits.test_set()[0][:2])
    for backend in (["golden"], ["serial", "--port", port]):
        options = ["--input", tmp_path / "x.npy", "--config", tmp_path / "config.toml", "-o", tmp_path / f"{backend[0]}.npy"]
        options += ["--json", tmp_path / f"{backend[0]}.json", "--backend", *backend]
        monkeypatch.setattr(sys, "argv", ["gossamer", "run", "digits", *map(str, options)])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0, capsys.readouterr().err
    np.testing.assert_array_equal(np.load(tmp_path / "serial.npy"), np.load(tmp_path / "golden.npy"))
    reports = [json.loads((tmp_path / f"{backend}.json").read_text()) for backend in ("golden", "serial")]
    assert reports[0].pop("backend") != reports[1].pop("backend")
    assert reports[0] == reports[1]


def test_the_c_driver_over_the_line(port, tmp_path, rng):
    """The demo, which reaches the core through functions."""
    compiled = compile_network(networks.mean(rng), CONFIG)
    x = networks.inputs(rng, compiled.network, 1)[0]
    program = tmp_path / "demo"
    sources = [FIRMWARE / name for name in ("demo_serial.c", "gossamer.c", "gossamer_operators.c")]
    subprocess.run(["gcc", "-std=c99", "-DGOSSAMER_ACCESS_FUNCTIONS", "-O1", *sources, "-o", program], check=True)
    (tmp_path / "image.bin").write_bytes(compiled.program.assemble())
    (tmp_path / "input.bin").write_bytes(x.tobytes())
    zero_point = compiled.network.tensors[compiled.device_input].zero_point
    command = [program, port, *(tmp_path / name for name in ("image.bin", "input.bin", "output.bin")), str(zero_point)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    inference = infer(compiled, x, warm=False)
    assert done.stdout == f"{inference.cycles} cycles\n"
    output = np.frombuffer((tmp_path / "output.bin").read_bytes(), np.int8)
    np.testing.assert_array_equal(output, inference.output.reshape(-1))
