"""The host's driver over SPI: right or an error, whatever the wires do."""

import re
from pathlib import Path

import numpy as np
import pytest

from gossamer.boards import icebreaker, orangecrab, ulx3s_85f
from gossamer.firmware import host
from gossamer.firmware.host import Board, LinkError, SpiLink, Trouble
from gossamer.gateware import spi_target
from gossamer.golden import digits
from gossamer.golden.compiler import compile_network
from gossamer.golden.inference import infer
from gossamer.golden.spec import CONFIGS, STORE_WINDOW, Error
from tests.firmware.core_model import CoreModel
from tests.firmware.spi_model import Wires, bits, divided, seed
from tests.firmware.test_host import case

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "spi.md"


def session(one, wires):
    """Load, run all, and compare. Errors go through."""
    board = Board(SpiLink(wires), limit=5.0)
    board.load(one.image)
    for x, (output, cold, warm) in zip(one.given, one.expected, strict=True):
        found = board.run(x)
        assert found.output == output
        assert found.cycles == (warm if found.warm else cold)
    return board


def test_digits_end_to_end():
    """And commands and bytes are those of the documentation: of loading, and of the second inference."""
    config = CONFIGS["up5k"]
    compiled = compile_network(digits.load(), config)
    wires = Wires(CoreModel(config, patience=0))
    board = Board(SpiLink(wires))
    image, x = compiled.program.assemble(), digits.test_set()[0][0]
    costs = []
    for action in (lambda: board.load(image), *2 * [lambda: board.run(compiled.input_bytes(x).tobytes())]):
        wires.transfers.clear()
        found = action()
        costs.append((len(wires.transfers) // 2, sum(map(len, wires.transfers))))
    values = compiled.output_values(np.frombuffer(found.output, np.uint8))
    np.testing.assert_array_equal(values, infer(compiled, x, count=False).output)
    assert board.link.troubles == 0
    text = re.sub(r"\s+", " ", DOCUMENTATION.read_text())
    rate = 1e3 * int(re.search(r"At (\d+) MHz \(iCEBreaker\)", text)[1])  # bits per ms
    said = re.findall(r"takes (\d+) commands of together ([\d,]+) bytes, that is ([\d.]+) ms", text)
    assert [(int(count), int(size.replace(",", ""))) for count, size, _ in said] == [costs[0], costs[2]]
    assert [float(time) for *_, time in said] == [round(size * 8 / rate, 1 if size < 5000 else None) for _, size in costs[::2]]
    assert f"({len(image):,} bytes)" in text


def test_documented_speeds_are_those_of_the_boards_clocks():
    """A bit takes six cycles, as docs/spi.md says."""
    text = DOCUMENTATION.read_text()
    said = {name: float(mhz) for name, mhz in re.findall(r"^\| `(\w+)` \|.* ([\d.]+) MHz \|$", text, re.MULTILINE)}
    boards = (icebreaker.BOARD, ulx3s_85f.BOARD, orangecrab.BOARD)
    assert said == {board.name: board.clock_mhz * 10 // 6 / 10 for board in boards}
    assert re.findall(r"At (\d+) MHz \((\w+)\)", text) == [(f"{said['icebreaker']:g}", "iCEBreaker")]


@pytest.mark.parametrize("name", ["mean", "rows"])
def test_good_wires_need_no_retry(name):
    one = case(name)
    core = one.core()
    assert session(one, Wires(core)).link.troubles == 0
    assert not core.refused


@pytest.mark.parametrize("address", [0, 4, 0x1234, STORE_WINDOW, 0xFFFFFC])
@pytest.mark.parametrize("write", [False, True])
def test_a_header_is_what_the_target_takes_for_right(address, write):
    header = host._spi_header(address, write)
    assert header == seed(write << 22 | address // 4).to_bytes(2, "big") + (write << 22 | address // 4).to_bytes(4, "big")
    assert divided(bits(header)) == spi_target.RESIDUE


def test_words_have_their_least_significant_byte_first_in_the_store():
    core = case("mean").core()
    link = SpiLink(Wires(core))
    data = bytes(range(1, 21))
    link.write(STORE_WINDOW + 8, data)
    assert core.machine.store[8:28].tobytes() == data
    assert link.read(STORE_WINDOW + 8, 20) == data
    assert link.read(STORE_WINDOW + 12, 4) == data[4:8]


@pytest.mark.parametrize("write", [False, True])
def test_a_bus_error_is_told(write):
    core = case("mean").core()
    link = SpiLink(Wires(core), retries=3)
    if write:
        with pytest.raises(Trouble, match=r"^the status of a command was a bus error$"):
            link.write(STORE_WINDOW - 4, bytes(4))
    else:
        message = (
            r"^the board must answer as docs/spi.md says, and has not in 3 attempts: the status of a command was a bus error$"
        )
        with pytest.raises(LinkError, match=message):
            link.read(STORE_WINDOW - 4, 4)
    assert link.read(0, 4)


FAULTS = ("mosi", "miso", "lost", "doubled")


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("name", ["mean", "rows"])
def test_one_fault_anywhere_is_mended(name, kind, rng):
    one = case(name)
    wires = Wires(one.core())
    session(one, wires)
    for at in rng.integers(0, wires.edges, 4).tolist():
        board = session(one, Wires(one.core(), lambda number, at=at: kind * (number == at)))
        assert board.link.troubles <= 2, at


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_in_each_edge_of_a_command_shows_or_does_nothing(kind):
    """Of a write, a read and the status behind each: no other words are read or written than those that were meant."""
    for at in range(80 + 24 + 120 + 24):
        core = case("mean").core()
        link = SpiLink(Wires(core, lambda number, at=at: kind * (number == at)), retries=2)
        before = core.machine.store.copy()
        data = b"\x00\x00\x00\x81"
        for _ in range(2):
            try:
                link.write(STORE_WINDOW + 16, data)
                break
            except Trouble:
                assert at < 80 + 24
        assert core.machine.store[16:20].tobytes() == data
        assert link.read(STORE_WINDOW + 16, 4) == data
        core.machine.store[16:20] = before[16:20]
        np.testing.assert_array_equal(core.machine.store, before)


@pytest.mark.parametrize("rate", [0.00001, 0.0003, 0.02])
def test_noisy_wires_end_in_the_right_result_or_an_error(rate, rng):
    one, outcomes = case("mean"), []
    for _ in range(3):
        wires = Wires(one.core(), lambda number: str(rng.choice(FAULTS)) if rng.random() < rate else "")
        try:
            session(one, wires)
            outcomes.append("right")
        except LinkError:
            outcomes.append("error")
    assert "right" in outcomes or rate > 0.0005
    assert "error" in outcomes or rate < 0.0005


@pytest.mark.parametrize("line", ["mosi", "miso"])
@pytest.mark.parametrize("level", [0, 1])
def test_a_stuck_line_is_an_error(line, level):
    class Stuck(Wires):
        def transfer(self, data):
            constant = bytes([255 * level]) * len(data)
            return super().transfer(constant if line == "mosi" else data) if line == "mosi" else constant

    with pytest.raises(LinkError):
        Board(SpiLink(Stuck(case("mean").core())))


@pytest.mark.parametrize("status", [False, True])
def test_an_answer_of_another_length_is_an_error(status):
    class Short(Wires):
        def transfer(self, data):
            return super().transfer(data)[(len(data) == 3) == status :]

    with pytest.raises(LinkError, match=r"another length than what was sent$"):
        Board(SpiLink(Short(case("mean").core())))


def test_errors_of_the_core_go_through():
    one, core = case("mean"), case("mean").core()
    board = Board(SpiLink(Wires(core)))
    board.load(one.image)
    core.failure = 5, 3
    with pytest.raises(host.CoreError, match=re.escape(Error.TEXT[5])):
        board.run(one.given[0])
