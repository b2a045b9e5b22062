"""The SPI target, against a naive model of its protocol and a naive memory."""

import dataclasses
from collections.abc import Callable

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from gossamer.gateware.spi_target import SpiTarget
from tests.firmware.core_model import BusError
from tests.firmware.spi_model import SpiModel, bits, seed, value

LIMIT = 0x40  # words at and above this address answer with an error
ASK = b"\0\0\0\1"  # for a word of a read


def header(write, address):
    """Six bytes; the address counts words."""
    info = write << 22 | address
    return seed(info).to_bytes(2, "big") + info.to_bytes(4, "big")


def writing(address, words):
    return header(1, address) + b"".join(word.to_bytes(4, "big") for word in words)


def reading(address, count):
    """The words are ``found`` in the answer."""
    return header(0, address) + ASK * count + bytes(5)


def found(answer):
    """Words of the answer to ``reading``."""
    return [value(answer[at : at + 32]) for at in range(81, len(answer) - 7, 32)]


class Memory:
    """What the model has in place of a core."""

    def __init__(self, words):
        self.words = [*words]

    def read(self, address):
        if address // 4 >= LIMIT:
            raise BusError
        return self.words[address // 4]

    def write(self, address, word):
        self.read(address)
        self.words[address // 4] = word


@dataclasses.dataclass
class Bench:
    """A controller with a clock of its own, a bus, and the target.

    ``commands`` are lists of bits, or bytes. ``period`` of SCK and the ``phase`` of the first command are in clock cycles.
    """

    memory: list
    period: float = 6.0
    phase: float = 0.0
    pause: float = 6.0  # for which CS is high
    latency: Callable[[], int] = lambda: 1  # cycles from request to acknowledge; the core takes one
    reset_at: float = -1.0
    core: object = None  # instead of the memory
    answers: list = dataclasses.field(default_factory=list)
    accesses: list = dataclasses.field(default_factory=list)  # (word address, written word or None)

    def run(self, *commands):
        self.commands = [bits(one) if isinstance(one, bytes) else one for one in commands]
        self.dut = SpiTarget()
        self.reset = Signal()
        m = Module()
        m.submodules.dut = ResetInserter(self.reset)(self.dut)
        if self.core is not None:
            m.submodules.core = self.core
            connect(m, self.dut.bus, self.core.bus)
        simulator = Simulator(m)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self._testbench)
        simulator.run()
        return self.answers

    def _events(self):
        """Yields (time, pin, value); the pin ``None`` is when the controller looks at MISO."""
        now = 10 + self.phase
        for command in self.commands:
            yield now, "cs_n", 0
            self.answers.append([])
            for bit in command:
                yield now, "mosi", bit
                now += self.period / 2
                yield now - 1, None, 0  # MISO must be there one cycle early
                yield now, "sck", 1
                now += self.period / 2
                yield now, "sck", 0
            yield now, "cs_n", 1
            yield now, "mosi", 1
            now += self.pause
        yield now + 20, "mosi", 0

    def _memory(self, ctx):
        """Answers on the bus, for one cycle, after ``latency`` cycles."""
        bus = self.dut.bus
        assert ctx.get(bus.cyc) == ctx.get(bus.stb)
        for signal, level in ((bus.ack, 0), (bus.err, 0), (bus.dat_r, 0xDEADBEEF)):
            ctx.set(signal, level)
        if self._answered or not ctx.get(bus.stb):
            self._answered, self._left = False, None
            return
        write = ctx.get(bus.we)
        word, written = ctx.get(bus.adr), ctx.get(bus.dat_w) if write else None
        if self._left is None:
            self._left, self._asked = self.latency(), (word, written)
        self._left -= 1
        assert (word, written) == self._asked  # all the time
        if self._left >= 0:
            return
        assert ctx.get(bus.sel) == 0b1111
        self.accesses.append((word, written))
        self._answered = True
        ctx.set(bus.err if word >= LIMIT else bus.ack, 1)
        if word < LIMIT and write:
            self.memory[word] = written
        elif word < LIMIT:
            ctx.set(bus.dat_r, self.memory[word])

    async def _testbench(self, ctx):
        dut, cycle = self.dut, 0
        self._answered, self._left = False, None
        ctx.set(dut.cs_n, 1)
        for time, pin, level in self._events():
            while cycle + 1 <= time:  # the register of the pin takes what is there at the edge
                if self.core is None:
                    self._memory(ctx)
                ctx.set(self.reset, cycle == int(self.reset_at))
                await ctx.tick()
                cycle += 1
                self._pins(ctx)
            if pin is None:
                self.answers[-1].append(ctx.get(dut.miso))
            else:
                self._levels[pin] = level

    _levels: dict = dataclasses.field(default_factory=lambda: {"cs_n": 1, "sck": 0, "mosi": 0})

    def _pins(self, ctx):
        for pin, level in self._levels.items():
            ctx.set(getattr(self.dut, pin), level)


@pytest.fixture
def memory(rng):
    return [int(word) for word in rng.integers(0, 1 << 32, LIMIT)]


def agree(bench, *commands):
    """Target and model do and say the same; their memories are the same afterwards."""
    model = SpiModel(Memory(bench.memory))
    for at, (command, seen) in enumerate(zip(commands, bench.run(*commands))):
        expected = model.command(bits(command) if isinstance(command, bytes) else command, seen.__getitem__)
        assert seen == expected, at
    assert bench.memory == model.core.words


def random_commands(rng, count):
    for _ in range(count):
        address = int(rng.integers(0, LIMIT)) if rng.random() < 0.8 else int(rng.integers(0, 1 << 22))
        words = [int(word) for word in rng.integers(0, 1 << 32, int(rng.choice([1, 1, 2, 4])))]
        yield writing(address, words) if rng.random() < 0.5 else reading(address, len(words))
    yield bytes(3)


def test_example(memory):
    bench = Bench([*memory])
    answers = bench.run(writing(5, [0x12345678, 0x9ABCDEF0]), reading(4, 4), bytes(3))
    assert found(answers[1]) == [memory[4], 0x12345678, 0x9ABCDEF0, memory[7]]
    assert [answers[0][0], answers[1][0], answers[2][0]] == [1, 0, 0]


@pytest.mark.parametrize("period", [6.0, 6.03, 7.37, 40.0])
@pytest.mark.parametrize("slow", [False, True])
def test_matches_the_model(rng, memory, period, slow):
    latency = (lambda: int(rng.integers(0, 3))) if slow else (lambda: 1)
    bench = Bench(memory, period=period, phase=float(rng.random()), latency=latency)
    agree(bench, *random_commands(rng, 8 if period < 40 else 2))
