"""The host's driver over a serial line: right or an error, whatever the line does."""

import functools
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from gossamer.firmware import host
from gossamer.firmware.host import Board, CoreError, ImageError, Link, LinkError, Trouble, open_port
from gossamer.gateware import uart_bridge
from gossamer.golden import digits
from gossamer.golden.compiler import compile_network
from gossamer.golden.host import Host
from gossamer.golden.inference import infer
from gossamer.golden.interpreter import Machine
from gossamer.golden.program import decode
from gossamer.golden.spec import CONFIGS, HEADER, HEADER_BYTES, STORE_WINDOW, Config, Error, Opcode, UserError
from tests import networks
from tests.firmware.bridge_model import FakePort, PtyBoard, clean, crc
from tests.firmware.core_model import CoreModel, counted
from tests.programs import Streaming

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "driver.md"
SMALL = Config("small", lanes=8, store_words=1024)


class Case:
    """A program, its inputs in the store's form, and what must come out: outputs, and cycles of cold and warm starts."""

    def __init__(self, program, given):
        self.program, self.image, self.given = program, program.assemble(), given
        self.expected = [self._expected(x) for x in given]

    def _expected(self, x):
        machine, cycles = Machine(SMALL), []
        for warm in (False, True):
            around = Host(self.program, np.frombuffer(x, np.uint8))
            contents = [(0, self.image)] + [(self.program.input.address, x)] * (not around.gives)
            for address, data in contents:
                machine.store[address : address + len(data)] = np.frombuffer(data, np.uint8)
            cycles.append(0)
            for step in machine.execute(self.program, warm=warm):
                cycles[-1] += counted(step)
                if isinstance(step, dict) and step["opcode"] == Opcode.HOST:
                    around.serve(step, machine.store)
        place = self.program.output
        stored = machine.store[place.address : place.address + place.size(SMALL)]
        return (around.output() if around.takes else stored).tobytes(), *cycles

    def core(self):
        core = CoreModel(SMALL, patience=2)
        core.first_step = self.program.step_word(0)
        core.machine.store[:] = 0x5A
        return core


@functools.cache
def case(name):
    rng = np.random.default_rng(1)
    if name == "rows":
        streaming = Streaming.random(SMALL, rng)
        x = [rng.integers(-128, 128, (14, 7, 3)).astype(np.int8) for _ in range(2)]
        x[0][3:9] = 7  # rows that are equal do not hide writes that went elsewhere
        return Case(streaming.program, [streaming.input_bytes(one).tobytes() for one in x])
    compiled = compile_network(getattr(networks, name)(rng), SMALL)
    x = networks.inputs(rng, compiled.network, 2)
    x = [x[0], x[0], x[1]]
    found = Case(compiled.program, [compiled.input_bytes(one).tobytes() for one in x])
    for one, (output, *_) in zip(x, found.expected):
        values = compiled.output_values(np.frombuffer(output, np.uint8))
        np.testing.assert_array_equal(values, infer(compiled, one, count=False).output)
    return found


def connect(port, **options):
    return Board(Link(port, silence=0.05, patience=0.2), limit=5.0, **options)


def session(one, port, **options):
    """Load, run all, and compare. Errors go through."""
    board = connect(port, **options)
    board.load(one.image)
    for x, (output, cold, warm) in zip(one.given, one.expected):
        found = board.run(x)
        assert found.output == output
        assert found.cycles == (warm if found.warm else cold)
    return board


def test_constants_are_those_of_the_bridge():
    for name in ("DONE", "BUS_ERROR", "START"):
        assert getattr(host, name) == getattr(uart_bridge, name)


@pytest.mark.parametrize("name", ["depthwise", "mean", "rows", "average_pool"])
def test_a_good_line_needs_no_retry(name):
    one, core = case(name), case(name).core()
    board = session(one, FakePort(core))
    assert board.link.troubles == 0
    assert core.starts == ["cold"] + ["warm" if one.program.warm else "cold"] * (len(one.given) - 1)
    assert not core.refused


def test_a_cold_start_may_be_asked_for():
    one, core = case("mean"), case("mean").core()
    board = connect(FakePort(core))
    board.load(one.image)
    for x, (output, cold, _) in zip(one.given, one.expected):
        found = board.run(x, warm=False)
        assert (found.output, found.cycles, found.warm) == (output, cold, False)
    assert core.starts == ["cold"] * 3


def test_cycles_of_cold_and_warm_starts_differ_here():
    assert all(cold > warm for _, cold, warm in case("mean").expected)


KINDS = ("lost", "doubled", "flipped", "garbage", "late", "silence")


def single_fault(kind, direction, at, rng):
    bit, burst = 1 << int(rng.integers(8)), [int(byte) for byte in rng.integers(0, 256, 7)]

    def fault(where, number, byte):
        if where != direction or number < at:
            return [byte]
        if kind == "silence":  # nothing for a while
            return [] if number < at + 40 else [byte]
        if number > at:
            return [byte]
        answers = {"lost": [], "doubled": [byte, byte], "flipped": [byte ^ bit], "garbage": [byte, *burst]}
        answers["late"] = [byte, ~byte] if where == "from" else [*burst, byte]
        return answers[kind]

    return fault


thorough = pytest.mark.parametrize("samples", [8, pytest.param(300, marks=pytest.mark.slow)])


@thorough
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", ["to", "from"])
@pytest.mark.parametrize("name", ["mean", "rows"])
def test_one_fault_anywhere_is_mended(name, kind, direction, samples, rng):
    """A sample of the bytes of a session; a line with one fault must do in the end."""
    one = case(name)
    port = FakePort(one.core())
    session(one, port)
    total = port.counts[direction]
    for at in sorted({*rng.integers(0, 60, samples // 2).tolist(), *rng.integers(60, total, samples).tolist()}):
        board = session(one, FakePort(one.core(), single_fault(kind, direction, at, rng)))
        assert board.link.troubles <= (20 if kind == "silence" else 4)


def commands(one):
    """Where in what is sent the writes to the control register are."""
    port, found = FakePort(one.core()), []
    write = port.write

    def noted(data):
        if data[0] & 0xFE == 6 and data[1:3] == b"\0\0":
            found.append(port.counts["to"])
        return write(data)

    port.write = noted
    session(one, port)
    return found


@thorough
@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.parametrize("name", ["mean", "rows"])
def test_a_fault_in_a_command_that_starts_or_resumes_or_in_its_answer(name, kind, samples, rng):
    one = case(name)
    heads = commands(one)
    assert len(heads) == {"mean": 3, "rows": 28}[name]
    for head, byte in itertools.product(rng.choice(heads, min(len(heads), samples // 4), replace=False), range(12)):
        session(one, FakePort(one.core(), single_fault(kind, "to", head + byte, rng)))


class Recorded(CoreModel):
    """A core that tells what has been written."""

    def __init__(self):
        super().__init__(SMALL, patience=0)
        self.written = []

    def write(self, address, word):
        self.written.append((address, word))
        super().write(address, word)


def single_faults(direction, length):
    """Each byte lost, and doubled, and each bit flipped."""
    for at in range(length):
        flips = [lambda byte, bit=bit: [byte ^ 1 << bit] for bit in range(8)]
        for change in (lambda byte: [], lambda byte: [byte, byte], *flips):
            yield lambda where, number, byte, at=at, change=change: (
                change(byte) if (where, number) == (direction, at) else [byte]
            )


@pytest.mark.parametrize("words", [1, 3])
@pytest.mark.parametrize("direction", ["to", "from"])
def test_every_single_fault_of_a_write_shows_or_does_nothing(direction, words, rng):
    """A word that is the only one is written right, or not; and nothing is written elsewhere."""
    data = bytes(rng.integers(0, 256, 4 * words, dtype="u1"))
    wanted = [(STORE_WINDOW + 16 + at, int.from_bytes(data[at : at + 4], "little")) for at in range(0, 4 * words, 4)]
    for fault in single_faults(direction, 3 if direction == "from" else 8 + 4 * words):
        core = Recorded()
        link = Link(FakePort(core, fault))
        link.resynchronise()
        before = core.machine.store.copy()
        try:
            link.write(STORE_WINDOW + 16, data)
            assert core.written == wanted
        except Trouble:
            assert {address for address, _ in core.written} <= {address for address, _ in wanted}
            assert words > 1 or core.written in ([], wanted)
            assert direction == "to" or core.written == wanted
            assert link.troubles == 1
        core.machine.store[16 : 16 + len(data)] = before[16 : 16 + len(data)]
        np.testing.assert_array_equal(core.machine.store, before)


@pytest.mark.parametrize("words", [1, 3])
@pytest.mark.parametrize("direction", ["to", "from"])
def test_every_single_fault_of_a_read_is_mended(direction, words, rng):
    core = Recorded()
    core.machine.store[:] = rng.integers(0, 256, SMALL.store_size)
    for fault in single_faults(direction, 4 * words + 3 if direction == "from" else 6):
        link = Link(FakePort(core, fault))
        link.resynchronise()
        for start in (16, 32):
            data = core.machine.store[start : start + 4 * words].tobytes()
            assert link.read(STORE_WINDOW + start, 4 * words) == data
        assert link.troubles <= 1
    assert core.written == []


def test_up_to_three_flipped_bits_show(rng):
    """In a command or an answer of any length."""
    for size in (4, 40, 1024):
        data = bytes(rng.integers(0, 256, size, dtype="u1"))
        good = data + host._sent(host._crc(data, host.START))
        for count in (1, 2, 3) * 300:
            wrong = int.from_bytes(good, "little")
            for bit in rng.choice(8 * len(good), count, replace=False).tolist():
                wrong ^= 1 << bit
            wrong = wrong.to_bytes(len(good), "little")
            assert host._sent(host._crc(wrong[:-2], host.START)) != wrong[-2:]


def test_the_crc_is_that_of_the_model(rng):
    for size in (1, 4, 33):
        data = bytes(rng.integers(0, 256, size, dtype="u1"))
        assert host._sent(host._crc(data, host.START)) == crc(data).to_bytes(2, "little")


def test_a_late_answer_does_not_pass_for_one_to_the_same_command():
    """A register is asked for until it changes."""
    core = case("mean").core()
    port = FakePort(core)
    link = Link(port)
    link.resynchronise()
    answers = []
    write = port.write

    def kept(data):
        written = write(data)
        answers.append(port._received)
        return written

    port.write = kept
    assert link.read(4, 4) == b"\0\0\0\0"
    core.interrupt_enable = 1
    port._late = answers[0]
    assert link.read(4, 4) == b"\2\0\0\0"
    assert link.troubles == 1


def test_a_bus_error_is_told():
    link = Link(FakePort(case("mean").core()), retries=3)
    link.resynchronise()
    with pytest.raises(Trouble, match=r"^the status of a command was a bus error$"):
        link.write(STORE_WINDOW - 4, bytes(4))
    rule = "the board must answer as docs/uart.md says, and has not in 3 attempts"
    with pytest.raises(LinkError, match=f"^{rule}: the status of a command was a bus error$"):
        link.read(STORE_WINDOW - 4, 4)
    assert link.read(0, 4)


def test_a_late_byte_does_not_shift_what_is_read():
    """The last byte of an answer comes twice, the second time late."""
    port = FakePort(case("mean").core())
    link = Link(port)
    link.resynchronise()
    for word in (b"\x11\x22\x33\x44", b"\x50\x50\x50\x50", b"\x00\x50\x00\x50"):
        link.write(STORE_WINDOW, word)
        port._late = b"\x50"
        assert link.read(STORE_WINDOW, 4) == word
    assert link.troubles >= 2


def test_a_byte_that_waits_is_thrown_away():
    port = FakePort(case("mean").core())
    link = Link(port)
    link.resynchronise()
    link.write(STORE_WINDOW, b"\x11\x22\x33\x44")
    port._received = b"\x50"
    assert link.read(STORE_WINDOW, 4) == b"\x11\x22\x33\x44"
    assert link.troubles == 0


def noisy(rate, rng):
    """Each byte may be lost, doubled or changed, and garbage may come."""

    def fault(where, number, byte):
        if rng.random() >= rate:
            return [byte]
        kind = rng.integers(4)
        return [[], [byte, byte], [byte ^ 1 << int(rng.integers(8))], [int(rng.integers(256)), byte]][kind]

    return fault


@thorough
@pytest.mark.parametrize("rate", [0.0003, 0.001, 0.003, 0.01, 0.1])
@pytest.mark.parametrize("name", ["mean", "rows"])
def test_a_noisy_line_ends_in_the_right_result_or_an_error(name, rate, samples, rng):
    one, outcomes = case(name), []
    for _ in range(samples):
        port = FakePort(one.core(), noisy(rate, rng))
        try:
            session(one, port)
            outcomes.append("right")
        except LinkError:
            outcomes.append("error")
    assert ("right" in outcomes) or rate > 0.002
    assert ("error" in outcomes) or rate < 0.05


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("direction", ["to", "from"])
@pytest.mark.parametrize("stuck", [0, 1])
def test_a_stuck_bit_is_an_error(bit, direction, stuck):
    def fault(where, number, byte):
        return [(byte | 1 << bit if stuck else byte & ~(1 << bit)) if where == direction else byte]

    with pytest.raises((LinkError, CoreError, ImageError)):
        session(case("mean"), FakePort(case("mean").core(), fault))


def test_a_silent_board_is_an_error():
    with pytest.raises(LinkError, match=r"^the board must answer as docs/uart.md says, and has not in 10 attempts: an answer"):
        connect(FakePort(case("mean").core(), lambda where, number, byte: []))


def test_a_babbling_line_is_an_error():
    port = FakePort(case("mean").core())
    port.read = lambda size: b"x" * size
    with pytest.raises(LinkError, match=r"^the serial line must be silent when it is not asked, and brings byte after byte$"):
        connect(port)


def test_rubbish_in_front_is_thrown_away():
    one = case("mean")
    port = FakePort(one.core())
    port.bridge.silence()
    port.bridge.feed(0xA7)
    port.bridge.feed(0x01)
    port._received = b"\x50\x50\x51"
    session(one, port)


def test_commands_and_bytes_are_those_of_the_documentation():
    text = re.sub(r"\s+", " ", DOCUMENTATION.read_text())
    load = re.search(r"\(([\d,]+) bytes\) takes (\d+) commands and ([\d.]+) s on the line", text)
    run = re.search(r"an inference takes (\d+) commands of together (\d+) bytes, that is (\d+) ms on the line", text)
    compiled = compile_network(digits.load(), CONFIGS["up5k"])
    port = FakePort(CoreModel(CONFIGS["up5k"], patience=0))
    write, sent = port.write, []
    port.write = lambda data: sent.append(data) or write(data)
    board = connect(port)
    image = compiled.program.assemble()
    x = compiled.input_bytes(digits.test_set()[0][0]).tobytes()
    found = []
    for action in (lambda: board.load(image), lambda: board.run(x), lambda: board.run(x)):
        commands, before = len(sent), sum(port.counts.values())
        action()
        found.append((len(sent) - commands, sum(port.counts.values()) - before))
    assert len(image) == int(load[1].replace(",", ""))
    assert (found[0][0], round(found[0][1] / 1e5, 2)) == (int(load[2]), float(load[3]))
    assert (*found[2], round(found[2][1] / 1e2)) == tuple(map(int, run.groups()))


def test_what_is_there_is_not_written_again():
    one = case("mean")
    core, counts = one.core(), []
    for _ in range(2):
        port = FakePort(core)
        board = connect(port)
        before = port.counts["to"]
        board.load(one.image)
        counts.append(port.counts["to"] - before)
    assert counts[0] > len(one.image) > 3 * counts[1]


def test_behind_a_write_that_is_not_answered_the_image_is_mended_and_the_start_cold():
    """The bridge may have taken its header for another, with a probability of 1 in 65,536."""
    one, core = case("mean"), case("mean").core()
    port = FakePort(core)
    board = connect(port)
    board.load(one.image)
    board.run(one.given[0])
    write = port.write

    def astray(data):
        if not data[0] & 2:
            return write(data)
        port.write = write
        core.machine.store[len(one.image) - 8 :][:8] ^= 0x10
        return write(data[:-1])

    port.write = astray
    found = board.run(one.given[2])
    assert (found.output, found.cycles, found.warm) == (*one.expected[2][:2], False)
    assert core.starts == ["cold", "cold"]


@pytest.mark.parametrize("running", [False, True])
def test_a_board_that_has_been_reset_is_loaded_again(running):
    one, core = case("mean"), case("mean").core()
    board = connect(FakePort(core))
    board.load(one.image)
    board.run(one.given[0])
    start = core._start

    def reset(warm):
        core.machine.store[:] = 0
        core.done, core._start = 0, start
        if not running:
            start(warm)

    core._start = reset
    found = board.run(one.given[2])
    assert (found.output, found.cycles, found.warm) == (*one.expected[2][:2], False)
    assert core.starts == ["cold", "cold"]


def test_an_image_in_the_store_that_has_changed_is_mended():
    one = case("mean")
    core = one.core()
    session(one, FakePort(core))
    core.machine.store[len(one.image) - 8 :][:8] ^= 0x10
    session(one, FakePort(core))


@pytest.mark.parametrize("code", range(2, 9))
def test_errors_of_the_core(code):
    one, core = case("mean"), case("mean").core()
    board = connect(FakePort(core))
    board.load(one.image)
    board.run(one.given[0])
    core.failure = code, 3
    message = f"the core stopped with error {code} in layer 3: {Error.TEXT[code]}"
    with pytest.raises(CoreError, match=f"^{re.escape(message)}$") as caught:
        board.run(one.given[0])
    assert (caught.value.code, caught.value.layer) == (code, 3)
    assert isinstance(caught.value, UserError)
    core.failure = None
    found = board.run(one.given[0])
    assert (found.output, found.cycles, found.warm) == (*one.expected[0][:2], False)


def test_a_core_that_does_not_stop_is_an_error():
    one, core = case("mean"), case("mean").core()
    board = Board(Link(FakePort(core)), limit=0.05)
    board.load(one.image)
    core.patience = 10**9
    with pytest.raises(LinkError, match=r"^the core must stop within 0.05 s, and has not: reset the board$"):
        board.run(one.given[0])


def test_a_program_left_in_a_pause_is_given_up():
    one = case("rows")
    core = one.core()
    board = connect(FakePort(core))
    board.load(one.image)
    board._control(start=1)
    assert board._settle().paused
    session(one, FakePort(core))


def other(image, **fields):
    header = decode(HEADER, image[:HEADER_BYTES]) | fields
    from tests.firmware.test_driver import changed

    return changed(image, **{name: header[name] for name in fields})


def bad_images():
    image = case("mean").image
    return {
        "short": (image[:70], "an image must have at least 80 bytes, not 70"),
        "magic": (b"\0" + image[1:], "the image's magic must be 0x52534d47, not 0x52534d00"),
        "version": (other(image, version=2), "the image's version must be 0x3, not 0x2"),
        "lanes": (other(image, lanes=16), "the image's lanes must be 0x8, not 0x10"),
        "cut": (image[:-8], f"the image's image_words must be {len(image) // 8 - 1:#x}, not {len(image) // 8:#x}"),
        "odd": (image + b"\0", "the image's CRC must be "),
        "flip": (image[:-1] + bytes([image[-1] ^ 1]), "the image's CRC must be "),
        "large": (other(image, end_address=8200), "the image and its activations must fit 8192 bytes, not 8200"),
        "input": (other(image, input_address=8192), "a tensor must be within 8192 bytes, not from 8192 on"),
        "external": (other(image, external_words=3), "the board's flash must hold the 24 bytes of external.bin, and nobody"),
        "endless": (other(image, steps=len(image) // 8), "an image's steps must end with an END step, not with the image"),
    }


@pytest.mark.parametrize("name", bad_images())
def test_bad_images_are_refused(name):
    image, message = bad_images()[name]
    core = case("mean").core()
    board = connect(FakePort(core))
    with pytest.raises(ImageError, match=f"^{re.escape(message)}"):
        board.load(image)
    assert (core.machine.store == 0x5A).all()
    with pytest.raises(ImageError, match=r"^an image must be loaded before it can run$"):
        board.run(b"")


def test_an_input_of_another_size_is_refused():
    board = connect(FakePort(case("mean").core()))
    board.load(case("mean").image)
    with pytest.raises(ImageError, match=r"^the input must have \d+ bytes, not 3$"):
        board.run(b"abc")


def test_another_version_of_the_core_is_refused():
    core = case("mean").core()
    read = core.read
    core.read = lambda address: read(address) - (address == 0)
    with pytest.raises(LinkError, match=r"^the core must have image version 3, not 2$"):
        connect(FakePort(core))


# A real line


def test_a_pseudo_terminal():
    one = case("rows")
    with PtyBoard(one.core()) as pty:
        board = session(one, open_port(pty.port, 1_000_000))
    assert board.link.troubles == 0


@pytest.mark.parametrize("kind", KINDS[:4] + KINDS[5:])
@pytest.mark.parametrize("direction", ["to", "from"])
def test_a_pseudo_terminal_with_faults(kind, direction, rng):
    one = case("depthwise")
    with PtyBoard(one.core(), single_fault(kind, direction, int(rng.integers(0, 700)), rng)) as pty:
        board = session(one, open_port(pty.port, 1_000_000))
    assert board.link.troubles <= (20 if kind == "silence" else 4)


def test_a_port_that_is_not_there():
    with pytest.raises(LinkError, match=r"^the serial port /dev/nonsense must be one that can be opened: "):
        open_port("/dev/nonsense", 1_000_000)


def test_clean_lines_are_clean():
    assert clean("to", 3, 7) == [7]
