"""The serial bridge, against the naive model of its protocol that the driver is tested with, and a naive memory."""

import dataclasses
import re
from pathlib import Path

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from gossamer.gateware.core import Core
from gossamer.gateware.uart_bridge import BUS_ERROR, DONE, UartBridge
from gossamer.golden.spec import Config
from tests.firmware.bridge_model import BridgeModel, checked, crc
from tests.firmware.core_model import BusError

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "uart.md"
DIVISOR = 8
BYTE = 10 * DIVISOR  # cycles
SILENCE = 32  # bits
AGAIN = (SILENCE + 12) * DIVISOR  # cycles behind which a command is taken
LIMIT = 0x100  # words at and above this address answer with an error, those from DEAF on not at all
DEAF = 0x3FFF00


def read(address, words, tag=0):
    """The bytes of a command, and how many answer it."""
    header = (256 - words << 24 & 0xFF000000 | address | tag).to_bytes(4, "little")
    return checked(b"", header), ("answer", 4 * words + 3)


def write(address, data, tag=0):
    """The same; ``data`` are words."""
    header = (256 - len(data) << 24 & 0xFF000000 | address | 2 | tag).to_bytes(4, "little")
    return checked(b"", header) + checked(header, b"".join(word.to_bytes(4, "little") for word in data)), ("answer", 3)


class Words:
    """What :class:`Host` has on its bus, for the model."""

    def __init__(self, memory):
        self.memory, self.accesses = memory, []

    def read(self, address):
        return self._access(address // 4, None)

    def write(self, address, value):
        self._access(address // 4, value)

    def _access(self, word, value):
        if word < DEAF:
            self.accesses.append((word, value))
        if word >= LIMIT:
            raise BusError
        if value is not None:
            self.memory[word] = value
        return self.memory[word]


def answered(memory, *sent):
    """What the model answers to bytes and to silences, each of which is a ``None``; and what it does on the bus."""
    words, answer = Words(memory), b""
    model = BridgeModel(words)
    model.silence()
    for item in sent:
        if item is None:
            model.silence()
        else:
            answer += b"".join(model.feed(byte) for byte in item)
    return answer, words.accesses


@dataclasses.dataclass
class Host:
    """A PC: sends bytes with pauses, and records.

    ``script`` holds bytes to send (a ``bytes``), pauses in cycles (an ``int``), ``("break", cycles)`` for a low line, or
    ``("answer", n)``, which waits for the next ``n`` bytes of answer. A silence comes in front of it, unless it is ``cold``.
    """

    script: list
    memory: list
    mismatch: float = 1.0
    latency: object = lambda: 1  # cycles from request to acknowledge
    reset_at: int = -1
    cold: bool = False
    core: object = None  # instead of the memory
    answer: bytes = b""
    accesses: list = dataclasses.field(default_factory=list)  # (word address, written word or None)
    requests: list = dataclasses.field(default_factory=list)  # cycles in which an access begins
    answered: list = dataclasses.field(default_factory=list)  # cycles in which a byte of the answer begins

    def run(self):
        self.dut = UartBridge(divisor=DIVISOR, silence=SILENCE)
        self.reset = Signal()
        m = Module()
        m.submodules.dut = ResetInserter(self.reset)(self.dut)
        if self.core is not None:
            m.submodules.core = self.core
            connect(m, self.dut.bus, self.core.bus)
        self.simulator = Simulator(m)
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self._testbench)
        self.simulator.run()
        return self.answer

    def _levels(self):
        """Yields the level of the line to the bridge, cycle by cycle."""
        expected = 0
        yield from [1] * (0 if self.cold else AGAIN)
        for item in self.script:
            match item:
                case int():
                    yield from [1] * item
                case "break", cycles:
                    yield from [0] * cycles
                case "answer", number:
                    expected += number
                    for _ in range(1200 + number * (BYTE + 50)):
                        if len(self.answer) >= expected:
                            break
                        yield 1
                    yield from [1] * DIVISOR  # the rest of the stop bit
                case _:
                    for byte in item:
                        bits = [0, *((byte >> i) & 1 for i in range(8)), 1]
                        length = DIVISOR * self.mismatch
                        yield from (bits[int(cycle / length)] for cycle in range(int(10 * length)))

    def _memory(self, ctx, cycle):
        """Answers on the bus, for one cycle, after ``latency`` cycles."""
        bus = self.dut.bus
        assert ctx.get(bus.cyc) == ctx.get(bus.stb)
        ctx.set(bus.ack, 0)
        ctx.set(bus.err, 0)
        ctx.set(bus.dat_r, 0xDEADBEEF)  # must not be looked at
        if self._answered or not ctx.get(bus.stb):
            self._answered, self._left = False, None
            return
        if self._left is None:
            self.requests.append(cycle)
            self._left = self.latency()
        self._left -= 1
        word = ctx.get(bus.adr)
        if self._left >= 0 or word >= DEAF:
            return
        assert ctx.get(bus.sel) == 0b1111
        value = ctx.get(bus.dat_w) if ctx.get(bus.we) else None
        self.accesses.append((word, value))
        self._answered = True
        ctx.set(bus.err if word >= LIMIT else bus.ack, 1)
        if word < LIMIT and value is not None:
            self.memory[word] = value
        elif word < LIMIT:
            ctx.set(bus.dat_r, self.memory[word])

    async def _testbench(self, ctx):
        dut = self.dut
        self._answered, self._left = False, None  # the memory has just answered; cycles until it will
        samples, countdown = [], 0
        for cycle, level in enumerate(self._levels()):
            ctx.set(dut.rx, level)
            ctx.set(self.reset, cycle == self.reset_at)
            if self.core is None:
                self._memory(ctx, cycle)
            # The receiver of the PC samples in the centre of the bits.
            if samples or not ctx.get(dut.tx):
                if not samples:
                    self.answered.append(cycle)
                    samples, countdown = [0], DIVISOR + DIVISOR // 2 - 1
                elif countdown:
                    countdown -= 1
                else:
                    samples.append(ctx.get(dut.tx))
                    countdown = DIVISOR - 1
                if len(samples) == 10:
                    assert samples[9], "stop bit"
                    self.answer += bytes([sum(bit << i for i, bit in enumerate(samples[1:9]))])
                    samples = []
            await ctx.tick()


@pytest.fixture
def memory(rng):
    return [int(word) for word in rng.integers(0, 1 << 32, LIMIT)]


def test_the_crc_is_the_one_that_the_catalogue_calls_mcrf4xx():
    assert crc(b"123456789") == 0x6F91


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("mismatch", [0.98, 1.0, 1.02])
def test_matches_the_model(rng, memory, slow, mismatch):
    copy, sent, script = [*memory], [], [100]
    for _ in range(10):
        words, tag = int(rng.choice([1, 1, 2, 3, 5])), int(rng.integers(2))
        address = int(rng.integers(0, LIMIT - 5)) * 4
        if rng.integers(2):
            command, answer = read(address, words, tag)
        else:
            command, answer = write(address, [int(word) for word in rng.integers(0, 1 << 32, words)], tag)
        cut = int(rng.integers(0, len(command)))
        script += [command[:cut], int(rng.integers(0, BYTE)), command[cut:], answer, int(rng.integers(0, 50))]
        sent.append(command)
    latency = (lambda: int(rng.integers(DIVISOR // 2))) if slow else (lambda: 1)
    host = Host([*script, 20 * BYTE], memory, mismatch=mismatch, latency=latency)
    assert (host.run(), host.accesses) == answered(copy, *sent)
    assert host.memory == copy


def faulty(rng, command):
    """The same with a byte lost, doubled, changed or put in, or with all changed behind some place."""
    at = int(rng.integers(len(command)))
    front, byte, behind = command[:at], command[at : at + 1], command[at + 1 :]
    other = bytes([int(rng.integers(256))])
    return {
        "none": command,
        "lost": front + behind,
        "doubled": front + byte + byte + behind,
        "flipped": front + bytes([byte[0] ^ 1 << int(rng.integers(8))]) + behind,
        "other": front + other + behind,
        "more": front + other + byte + behind,
        "cut": front,
        "swapped": front + behind[:1] + byte + behind[1:],
        "garbage": front + bytes(rng.integers(0, 256, len(behind) + 1, dtype="u1")),
    }[str(rng.choice(["none", "none", "lost", "doubled", "flipped", "other", "more", "cut", "swapped", "garbage"]))]


@pytest.mark.parametrize("samples", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_matches_the_model_on_a_bad_line(rng, memory, samples):
    """Which does not end an answer early: the bytes that come meanwhile are ignored."""
    for _ in range(samples // 10):
        copy, sent, script = [*memory], [], []
        for _ in range(10):
            address, words = int(rng.integers(0, LIMIT - 3)) * 4, int(rng.choice([1, 1, 2, 3]))
            data = [int(rng.choice([0, 1, 0xFFFFFFFF, rng.integers(1 << 32)])) for _ in range(words)]
            command = faulty(rng, write(address, data)[0] if rng.integers(3) else read(address, words)[0])
            model = BridgeModel(Words([0] * LIMIT))
            model.silence()
            for length, byte in enumerate(command, 1):
                if model.feed(byte):
                    command = command[:length]
                    break
            answer = answered([*copy], command)[0]
            script += [command, ("answer", len(answer))] if answer else [command, AGAIN + BYTE]
            sent += [command, None]
            script += [AGAIN]
        host = Host([*script, 20 * BYTE], [*memory])
        assert (host.run(), host.accesses) == answered(copy, *sent)
        assert host.memory == copy


def flips(command):
    return [(int.from_bytes(command, "little") ^ 1 << bit).to_bytes(len(command), "little") for bit in range(8 * len(command))]


def misses(command):
    return [command[:at] + command[at + 1 :] for at in range(len(command))]


def doubles(command):
    return [command[: at + 1] + command[at:] for at in range(len(command) - 1)]  # the last comes during the answer


some = pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])


@some
@pytest.mark.parametrize("faults", [flips, misses, doubles])
def test_one_fault_in_a_write_of_one_word_leaves_it_undone_and_unanswered(memory, faults, every):
    command = write(0x84, [0x0400BEEF])[0]
    script = [item for wrong in faults(command)[::every] for item in (wrong, AGAIN)]
    host = Host(script, memory)
    assert host.run() == b""
    assert host.requests == []


@some
@pytest.mark.parametrize("faults", [flips, misses, doubles])
def test_one_fault_in_a_write_of_two_words_shows_and_touches_nothing_else(memory, faults, every):
    command, before = write(0x84, [0x0400BEEF, 7])[0], [*memory]
    script = [item for wrong in faults(command)[::every] for item in (wrong, AGAIN)]
    host = Host(script, memory)
    assert host.run() == b""
    assert {word for word, _ in host.accesses} <= {0x21}
    assert memory[:0x21] + memory[0x22:] == before[:0x21] + before[0x22:]


@some
@pytest.mark.parametrize("faults", [flips, misses, doubles])
def test_one_fault_in_a_read_leaves_it_unanswered(memory, faults, every):
    command = read(0x84, 2)[0]
    script = [item for wrong in faults(command)[::every] for item in (wrong, AGAIN)]
    host = Host(script, memory)
    assert host.run() == b""
    assert host.requests == []


@pytest.mark.slow
def test_a_write_has_up_to_256_words(rng, memory):
    words = [int(word) for word in rng.integers(0, 1 << 32, 256)]
    host = Host([*write(0, words), 20 * BYTE], memory)
    assert host.run() == answered([*memory], write(0, words)[0])[0]
    assert host.accesses == [*enumerate(words)]


def test_a_read_has_up_to_256_words(memory):
    host = Host([*read(0, 256), 20 * BYTE], memory)
    assert host.run() == checked(read(0, 256)[0][:4], b"".join(word.to_bytes(4, "little") for word in memory) + bytes([DONE]))
    assert host.accesses == [(word, None) for word in range(256)]


def test_the_crc_of_an_answer_has_what_was_asked(memory):
    """The first bit of a command does nothing else."""
    memory[2] = 5
    answers = [Host([*command, 20 * BYTE], memory).run() for tag in (0, 1) for command in (read(8, 1, tag), write(8, [5], tag))]
    assert answers[0][:-2] == answers[2][:-2] == bytes([5, 0, 0, 0, DONE])
    assert answers[1][:-2] == answers[3][:-2] == bytes([DONE])
    assert len({answer[-2:] for answer in answers}) == 4


@pytest.mark.parametrize("beyond", [4 * LIMIT, 4 * DEAF])
def test_a_bus_error_ends_a_write_but_takes_its_words(memory, beyond):
    first = beyond - 4 if beyond == 4 * LIMIT else beyond
    script = [*write(first, [1, 2, 3, 4]), *read(0, 1), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == answered([*memory], script[0], script[2])[0]
    done = [(LIMIT - 1, 1), (LIMIT, 2)] if beyond == 4 * LIMIT else []
    assert host.accesses == [*done, (0, None)]
    assert len(host.requests) == len(done or [0]) + 1


@pytest.mark.parametrize("beyond", [4 * LIMIT, 4 * DEAF, 0xFFFFFC])
def test_a_bus_error_ends_the_accesses_of_a_read_but_not_its_answer(memory, beyond):
    script = [*read(beyond, 4), *read(0, 1), 20 * BYTE]
    host = Host(script, memory)
    answer = host.run()
    assert answer[:19] == checked(script[0][:4], answer[:16] + bytes([BUS_ERROR]))
    assert answer[19:] == answered([*memory], script[2])[0]
    assert len(host.requests) == 2


@pytest.mark.parametrize("latency", [0, DIVISOR // 2 - 1])
def test_the_bus_may_answer_at_once_or_in_half_a_bit(memory, latency):
    script = [*write(8, [6, 7]), *read(8, 3), 20 * BYTE]
    host = Host(script, memory, latency=lambda: latency)
    assert host.run() == answered([*memory], script[0], script[2])[0]
    assert host.accesses == [(2, 6), (3, 7), (2, None), (3, None), (4, None)]


@pytest.mark.parametrize("length", range(1, 16))
def test_silence_drops_a_command(memory, length):
    half = write(0, [5, 6])[0][:length]
    script = [half, AGAIN, *read(4, 1), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == answered([*memory], script[2])[0]
    assert host.accesses == [(0, 5)] * (length >= 10) + [(1, None)]


def test_a_pause_shorter_than_silence_drops_nothing(memory):
    command, answer = write(8, [0x12345678])
    script = [item for byte in command for item in (bytes([byte]), (SILENCE - 2) * DIVISOR)]
    host = Host([*script, answer, 20 * BYTE], memory)
    assert host.run() == answered([*memory], command)[0]
    assert memory[2] == 0x12345678


def test_garbage_is_ignored_until_silence(rng, memory):
    garbage = bytes(rng.integers(0, 256, 20, dtype="u1"))
    trap = write(0, [0])[0]
    script = [garbage, trap, (SILENCE - 2) * DIVISOR, trap, AGAIN, *read(0, 1), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == answered([*memory], script[5])[0]
    assert host.accesses == [(0, None)]


@pytest.mark.parametrize("length", range(12))
def test_a_framing_error_drops_the_command(memory, length):
    """Whichever byte's stop bit is missing, the last one's as well. A low line is not silent."""
    command = write(0, [5])[0]
    script = [command[:length], ("break", 3 * AGAIN), 20, command, AGAIN, *read(4, 1), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == answered([*memory], script[5])[0]
    assert host.accesses == [(1, None)]


@pytest.mark.parametrize("length", range(12))
def test_a_byte_without_a_stop_bit_drops_the_command(memory, length):
    command, levels = write(0, [5])[0], []
    for at, byte in enumerate(command):
        bits = [0, *(byte >> bit & 1 for bit in range(8)), at != length]
        levels += [item for bit in bits for item in ([DIVISOR] if bit else [("break", DIVISOR)])] + [DIVISOR]
    host = Host([*levels, AGAIN, *read(4, 1), 20 * BYTE], memory)
    assert host.run() == answered([*memory], read(4, 1)[0])[0]
    assert host.accesses == [(1, None)]


def test_a_short_low_level_is_noise(memory):
    script = [("break", DIVISOR // 2 - 1), 20, *read(4, 1), ("break", DIVISOR // 2 - 1), 20, *read(8, 1), 20 * BYTE]
    assert Host(script, memory).run() == answered([*memory], script[2], script[6])[0]


@pytest.mark.parametrize("pause", [DIVISOR + 3, 2 * DIVISOR + 3])
def test_what_comes_during_an_answer_is_ignored(memory, pause):
    """Whichever of the answer's bits meet an edge."""
    trap = write(0, [0])[0] + 20 * b"\x55"
    script = [read(8, 8)[0], pause, trap, read(8, 8)[1], AGAIN, *read(4, 1), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == answered([*memory], script[0], script[5])[0]
    assert host.answered[:35] == [host.answered[0] + at * BYTE for at in range(35)]
    assert host.accesses == [(word, None) for word in (*range(2, 10), 1)]


def test_what_comes_behind_a_reset_is_ignored_until_silence(memory):
    script = [100, read(0, 1)[0], AGAIN, *read(4, 1), 20 * BYTE]
    assert Host(script, memory, cold=True).run() == answered([*memory], script[3])[0]


@pytest.mark.parametrize("cycle", range(70, 40 * BYTE, 2 * BYTE + 7))
def test_reset_in_mid_operation(memory, cycle):
    """The rest of the command is ignored, or, if the reset was behind it, there is no more of the answer."""
    command = write(0, [5, 6, 7])[0] if cycle < 20 * BYTE else read(0, 6)[0]
    script = [command, 40 * BYTE, *read(16, 1), 20 * BYTE]
    host = Host(script, memory, reset_at=AGAIN + cycle)
    expected = answered([*memory], script[2])[0]
    assert host.run().endswith(expected)
    assert [value for _, value in host.accesses] in ([None], [5, None], [5, 6, None], [None] * len(host.accesses))


def test_latency_of_the_access(memory):
    latency = 9 * DIVISOR + DIVISOR // 2 + 4
    host = Host([*write(0, [1, 2, 3]), 20], memory)
    host.run()
    assert host.requests == [AGAIN + at * BYTE + latency for at in (9, 13, 19)]
    host = Host([*read(0, 1), 20], memory)
    host.run()
    assert host.requests == [AGAIN + 5 * BYTE + latency]


@pytest.mark.parametrize("command, length", [(read(0, 4), 6), (write(0, [1]), 12)])
def test_an_answer_begins_at_once_and_has_no_pauses(memory, command, length):
    host = Host([*command, 20], memory)
    assert len(host.run()) == command[1][1]
    assert host.answered == [host.answered[0] + at * BYTE for at in range(command[1][1])]
    assert host.answered[0] - (AGAIN + length * BYTE - DIVISOR) <= 2 * DIVISOR


def test_the_example_of_the_documentation():
    """Bridge and core together. An ``x`` stands for any digit."""
    lines = re.findall(r"^(to|from) the board +([0-9A-Fx ]+)$", DOCUMENTATION.read_text(), re.MULTILINE)
    assert [direction for direction, _ in lines] == ["to", "from"] * 3
    script, expected = [], ""
    for direction, text in lines:
        if direction == "to":
            script.append(bytes.fromhex(text))
        else:
            script.append(("answer", len(text.split())))
            expected += text.replace(" ", "").lower()
    host = Host([*script, 20 * BYTE], [], core=Core(Config("example", lanes=16, store_bytes=8, store_words=16384)))
    assert re.fullmatch(expected.replace("x", "."), host.run().hex())


@pytest.mark.parametrize("silence", [0, 16, 20, 33, 100])
def test_silence_must_be_a_power_of_two(silence):
    message = f"silence must be a power of two of more than 20 bits, not {silence}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        UartBridge(divisor=8, silence=silence)


def test_divisor_must_be_8():
    with pytest.raises(ValueError, match=r"^divisor must be at least 8, not 7$"):
        UartBridge(divisor=7, silence=256)
