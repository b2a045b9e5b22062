"""The serial bridge, against a naive model of its protocol and a naive memory."""

import dataclasses
import re
from pathlib import Path

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from gossamer.gateware.core import Core
from gossamer.gateware.uart_bridge import BUS_ERROR, DONE, READ, SYNC, UNKNOWN, WRITE, UartBridge
from gossamer.golden.spec import Config

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "uart.md"
DIVISOR = 8
BYTE = 10 * DIVISOR  # cycles
SILENCE = 256
LIMIT = 0x100  # words at and above this address answer with an error, words at DEAF not at all
DEAF = 0x3FFF00


def command(opcode, address, words, data=()):
    """Bytes of a command; ``data`` are words."""
    header = bytes([SYNC, opcode, *address.to_bytes(3, "little"), words - 1])
    return header + b"".join(word.to_bytes(4, "little") for word in data)


def model(opcode, address, words, data, memory):
    """Answer to a command; changes ``memory``, a list of ``LIMIT`` words."""
    answer = b""
    for i in range(words):
        word = address // 4 + i
        if address % 4 or word >= LIMIT:
            return answer + bytes([BUS_ERROR])
        if opcode == WRITE:
            memory[word] = data[i]
        else:
            answer += bytes([DONE]) + memory[word].to_bytes(4, "little")
    return answer if opcode == READ else bytes([DONE])


@dataclasses.dataclass
class Host:
    """A PC: sends bytes with pauses, and records.

    ``script`` holds bytes to send (a ``bytes``), pauses in cycles (an ``int``), ``("break", cycles)`` for a low line, or
    ``("answer", n)``, which waits for the next ``n`` bytes of answer.
    """

    script: list
    memory: list
    mismatch: float = 1.0
    latency: object = lambda: 1  # cycles from request to acknowledge
    reset_at: int = -1
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
        if self._left >= 0 or word == DEAF:
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


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("mismatch", [0.98, 1.0, 1.02])
def test_matches_the_model(rng, memory, slow, mismatch):
    expected_memory, expected, script = [*memory], b"", [100]
    for _ in range(12):
        opcode = int(rng.choice([READ, WRITE]))
        words = int(rng.choice([1, 1, 2, 3, 5]))
        address = int(rng.integers(0, LIMIT)) * 4 if rng.random() < 0.8 else int(rng.integers(0, 1 << 24))
        if address // 4 in range(DEAF - 8, DEAF + 1):
            address = 0
        data = [int(word) for word in rng.integers(0, 1 << 32, words)]
        answer = model(opcode, address, words, data, expected_memory)
        sent = command(opcode, address, words, data if opcode == WRITE else ())
        cut = int(rng.integers(0, len(sent)))
        script += [sent[:cut], int(rng.integers(0, BYTE)), sent[cut:], ("answer", len(answer)), int(rng.integers(0, 50))]
        expected += answer
    latency = (lambda: int(rng.integers(1, 40))) if slow else (lambda: 1)
    host = Host([*script, 20 * BYTE], memory, mismatch=mismatch, latency=latency)
    assert host.run() == expected
    assert host.memory == expected_memory


def test_a_write_has_up_to_256_words(rng, memory):
    words = [int(word) for word in rng.integers(0, 1 << 32, 256)]
    host = Host([command(WRITE, 0, 256, words), ("answer", 1), 20 * BYTE], memory)
    assert host.run() == bytes([DONE])
    assert host.accesses == [*enumerate(words)]


def test_a_read_has_up_to_256_words(memory):
    host = Host([command(READ, 0, 256), ("answer", 5 * 256), 20 * BYTE], memory)
    assert host.run() == b"".join(bytes([DONE]) + word.to_bytes(4, "little") for word in memory)
    assert host.accesses == [(word, None) for word in range(256)]


@pytest.mark.parametrize("address", [1, 2, 3, 0x81])
@pytest.mark.parametrize("opcode", [READ, WRITE])
def test_an_unaligned_address_is_a_bus_error_without_an_access(memory, address, opcode):
    data = [1, 2] if opcode == WRITE else []
    host = Host([command(opcode, address, 2, data), ("answer", 1), 20 * BYTE], memory)
    assert host.run() == bytes([BUS_ERROR])
    assert host.requests == []


def test_a_bus_error_ends_a_write_but_takes_its_words(memory):
    data = [SYNC, 2, 3, 4]
    script = [command(WRITE, 4 * (LIMIT - 1), 4, data), ("answer", 1), command(READ, 0, 1), ("answer", 5), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == bytes([BUS_ERROR, DONE]) + memory[0].to_bytes(4, "little")
    assert host.accesses == [(LIMIT - 1, SYNC), (LIMIT, 2), (0, None)]
    assert len(host.requests) == 3


def test_a_status_is_not_mixed_with_that_of_the_command_before(memory):
    script = [command(READ, 4 * LIMIT, 1), ("answer", 1), bytes([SYNC, 2]), ("answer", 1), 2 * SILENCE]
    script += [command(READ, 0, 1), ("answer", 5), 20 * BYTE]
    assert Host(script, memory).run() == bytes([BUS_ERROR, UNKNOWN, DONE]) + memory[0].to_bytes(4, "little")


def test_the_bus_may_answer_in_the_first_cycle(memory):
    script = [command(WRITE, 8, 2, [6, 7]), ("answer", 1), command(READ, 8, 3), ("answer", 15), 20 * BYTE]
    host = Host(script, memory, latency=lambda: 0)
    assert host.run() == bytes([DONE]) + model(READ, 8, 3, [], memory)
    assert host.accesses == [(2, 6), (3, 7), (2, None), (3, None), (4, None)]


@pytest.mark.parametrize("opcode", [READ, WRITE])
def test_a_bus_that_does_not_answer_is_a_bus_error(memory, opcode):
    script = [command(opcode, 4 * DEAF, 1, [7] if opcode == WRITE else []), ("answer", 1)]
    script += [command(READ, 4, 1), ("answer", 5), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == bytes([BUS_ERROR, DONE]) + memory[1].to_bytes(4, "little")


@pytest.mark.parametrize("opcode", [2, 0x03, 0x80, 0xFF, SYNC])
def test_an_unknown_opcode_is_answered_and_its_command_dropped(memory, opcode):
    trap = command(WRITE, 0, 1, [0])
    script = [bytes([SYNC, opcode]) + trap, ("answer", 1), 2 * SILENCE, command(READ, 0, 1), ("answer", 5), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == bytes([UNKNOWN, DONE]) + memory[0].to_bytes(4, "little")
    assert host.accesses == [(0, None)]


@pytest.mark.parametrize("length", range(1, 14))
def test_silence_drops_a_command(memory, length):
    half = command(WRITE, 0, 2, [5, 6])[:length]
    script = [half, SILENCE + BYTE, command(READ, 4, 1), ("answer", 5), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == bytes([DONE]) + memory[1].to_bytes(4, "little")
    assert host.accesses == [(0, 5)] * (length >= 10) + [(1, None)]


def test_a_pause_shorter_than_silence_drops_nothing(memory):
    sent = command(WRITE, 8, 1, [0x12345678])
    script = [item for byte in sent for item in (bytes([byte]), SILENCE - BYTE - 4)] + [("answer", 1), 20 * BYTE]
    assert Host(script, memory).run() == bytes([DONE])
    assert memory[2] == 0x12345678


def test_garbage_is_ignored_until_silence(rng, memory):
    garbage = [int(byte) for byte in rng.integers(0, 256, 20)]
    garbage[0] = SYNC ^ 1
    trap = command(WRITE, 0, 1, [0])
    script = [bytes(garbage), trap, SILENCE - BYTE, trap, 2 * SILENCE, command(READ, 0, 1), ("answer", 5), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == bytes([DONE]) + memory[0].to_bytes(4, "little")
    assert host.accesses == [(0, None)]


@pytest.mark.parametrize("length", range(10))
def test_a_framing_error_drops_the_command(memory, length):
    sent = command(WRITE, 0, 1, [5])
    script = [sent[:length], ("break", 2 * BYTE), 20, sent, 2 * SILENCE, command(READ, 4, 1), ("answer", 5), 20 * BYTE]
    host = Host(script, memory)
    assert host.run() == bytes([DONE]) + memory[1].to_bytes(4, "little")
    assert host.accesses == [(1, None)]


@pytest.mark.parametrize("cycle", range(70, 30 * BYTE, 2 * BYTE + 7))
def test_reset_in_mid_operation(memory, cycle):
    """The rest of the command is garbage, or, if the reset was behind it, there is no more of the answer."""
    before = [*memory]
    sent = command(WRITE, 0, 3, [SYNC, 6, 7]) if cycle < 15 * BYTE else command(READ, 0, 6)
    script = [100, sent, 40 * BYTE, command(READ, 16, 1), 20 * BYTE]
    host = Host(script, memory, reset_at=100 + cycle)
    expected = bytes([DONE]) + before[4].to_bytes(4, "little")
    assert host.run().endswith(expected)
    assert [value for _, value in host.accesses] in ([None], [SYNC, None], [SYNC, 6, None], [None] * len(host.accesses))


def test_latency_of_the_access(memory):
    received = 9 * DIVISOR + DIVISOR // 2 + 1  # cycle of a byte in which the receiver has it
    host = Host([command(WRITE, 0, 2, [1, 2]), ("answer", 1), 20], memory)
    assert host.run() == bytes([DONE])
    assert host.requests == [9 * BYTE + received + 1, 13 * BYTE + received + 1]
    host = Host([command(READ, 0, 1), ("answer", 5), 20], memory)
    host.run()
    assert host.requests == [5 * BYTE + received + 2]


def test_the_answer_to_a_read_has_no_pauses(memory):
    host = Host([command(READ, 0, 4), ("answer", 20), 20], memory)
    assert len(host.run()) == 20
    assert host.answered == [host.answered[0] + n * BYTE for n in range(20)]


def test_a_slow_bus_is_asserted_for_writes(memory):
    host = Host([command(WRITE, 0, 2, [1, 2]), ("answer", 1)], memory, latency=lambda: BYTE + 20)
    with pytest.raises(AssertionError, match=r"^Assertion violated: a bus access must end within a byte time$"):
        host.run()


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


@pytest.mark.parametrize("silence", [0, 100, 160, 257, 300])
def test_silence_must_be_a_power_of_two(silence):
    message = f"silence must be a power of two of more than 160 cycles (20 bits), not {silence}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        UartBridge(divisor=8, silence=silence)


def test_divisor_must_be_8():
    with pytest.raises(ValueError, match=r"^divisor must be at least 8, not 7$"):
        UartBridge(divisor=7, silence=256)
