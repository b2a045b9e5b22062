"""The external memory in a flash, on a model of the flash that checks the protocol."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect

from gossamer.boards import icebreaker
from gossamer.gateware.core import Core
from gossamer.gateware.flash_memory import FlashMemory
from gossamer.golden.compiler import compile_network
from gossamer.golden.cycles import CycleModel
from gossamer.golden.interpreter import Machine
from gossamer.golden.spec import CONFIGS, EXTERNAL_WORDS, REGISTERS, STORE_WINDOW, Config
from gossamer.sim.flash import Flash
from gossamer.sim.streams import Bench, never, randomly
from tests.networks import Builder, inputs
from tests.programs import with_fetch

UP5K = CONFIGS["up5k"]
WIDE = Config("wide", store_bytes=16, fetch_latency=55, fetch_interval=32)


@dataclasses.dataclass
class Answer:
    """``requested`` is when each request was taken; ``offered`` and ``taken`` when the words were, ``words`` what they were."""

    requested: list = dataclasses.field(default_factory=list)
    offered: list = dataclasses.field(default_factory=list)
    taken: list = dataclasses.field(default_factory=list)
    words: list = dataclasses.field(default_factory=list)


def ask(config, image, requests, *, base=0, clock_mhz=1, stalls=None):
    """Read ``(address, words)`` one after the other, each as soon as the words before have come."""
    dut = FlashMemory(config, base=base, clock_mhz=clock_mhz)
    bench = Bench(dut)
    flash = Flash(dut, image, clock_mhz=clock_mhz)
    stalls = never() if stalls is None else stalls
    answer = Answer()
    memory = dut.memory

    async def core(ctx):
        todo, left, offered = list(requests), 0, False
        for cycle in itertools.count():
            asks = bool(todo) and not left
            address, words = todo[0] if asks else (-1, 0)
            ctx.set(memory.request_valid, asks)
            ctx.set(memory.request_address, address % EXTERNAL_WORDS)
            ctx.set(memory.request_words, (words - 1) % 4096)
            ctx.set(memory.ready, not next(stalls))
            signals = (memory.request_ready, memory.valid, memory.ready, memory.data)
            _, _, granted, valid, ready, data = await ctx.tick().sample(*signals)
            assert not valid or left, "no word must come that was not asked for"
            if asks and granted:
                answer.requested.append(cycle)
                left = todo.pop(0)[1]
            if valid and not offered:
                answer.offered.append(cycle)
            offered = valid and not ready
            if valid and ready:
                answer.taken.append(cycle)
                answer.words.append(data)
                left -= 1
            if todo or left:
                bench.stay()

    bench.process(core)
    bench.process(flash.run)
    bench.run(quiet=20)
    reads = [address for _, instruction, address, _ in flash.log if instruction == 0xEB]
    assert reads == [base + config.store_bytes * address for address, _ in requests]
    return answer


def words_of(image, base, size, requests):
    places = [base + size * (address + n) for address, words in requests for n in range(words)]
    return [int.from_bytes(image[at : at + size].ljust(size, b"\xff"), "little") for at in places]


@pytest.mark.parametrize("config", [UP5K, WIDE], ids=lambda config: config.name)
@pytest.mark.parametrize("stalls", [0, 0.7])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_words_lie_behind_the_base_in_order(rng, config, stalls, place):
    """Byte 0 of a word is its lowest; behind the image the flash is erased."""
    size = config.store_bytes
    base = place * EXTERNAL_WORDS * size
    image = bytes(base) + rng.bytes(30 * size + 3)
    requests = [(5, 3), (0, 2), (28, 4), (EXTERNAL_WORDS - 1, 1)]
    answer = ask(config, image, requests, base=base, stalls=randomly(rng, stalls))
    assert answer.words == words_of(image, base, size, requests)
    assert len(answer.words) == 10


def test_one_word_by_hand():
    answer = ask(UP5K, bytes(range(40)), [(3, 1)])
    assert answer.words == [0x1F1E1D1C1B1A1918]


@pytest.mark.parametrize("config", [UP5K, WIDE], ids=lambda config: config.name)
def test_words_come_when_the_configuration_says(rng, config):
    """As soon as they can, if nobody stalls; and the first not before the flash is awake."""
    answer = ask(config, rng.bytes(200), [(0, 4), (9, 1), (2, 2)], clock_mhz=24)
    due = []
    for at, words in zip(answer.requested, (4, 1, 2)):
        due += [at + config.fetch_latency + config.fetch_interval * n for n in range(words)]
    assert answer.offered == answer.taken == due
    assert answer.requested[1:] == [due[3] + 1, due[4] + 1]
    waits = {8: 8, 16: 4}[config.store_bytes]  # the power of two with which 2*store_bytes*waits is at least 72, 3 us
    assert answer.requested[0] == 32 + 6 * config.store_bytes * waits


@pytest.mark.parametrize("config", [UP5K, WIDE], ids=lambda config: config.name)
def test_latency_and_interval_are_those_of_the_flash_reader(config):
    """``t + 23 + 2*word_bytes`` and ``u + 2*word_bytes``, as its docstring says."""
    assert (config.fetch_latency, config.fetch_interval) == (23 + 2 * config.store_bytes, 2 * config.store_bytes)


def test_the_interval_counts_from_the_transfer_of_the_word_before():
    stalls = itertools.chain([False] * 128 + [False] * 38, [True] * 12, never())
    answer = ask(UP5K, bytes(range(64)), [(0, 3)], stalls=stalls)
    begin = answer.requested[0]
    assert begin == 32 + 6 * 8 * 2
    assert answer.offered[0] == begin + 39
    assert answer.taken[0] > answer.offered[0]
    assert answer.offered[1:] == [at + 16 for at in answer.taken[:2]]


@pytest.mark.parametrize(
    "config, base, message",
    [
        (UP5K, 1 << 20, "base must be a multiple of the external memory's 2097152 bytes, not 1048576"),
        (WIDE, 1 << 21, "base must be a multiple of the external memory's 4194304 bytes, not 2097152"),
        (UP5K, 1, "base must be a multiple of the external memory's 2097152 bytes, not 1"),
        (UP5K, 1 << 24, "base must leave 2097152 bytes of the flash, and 16777216 does not"),
    ],
)
def test_constructor_messages(config, base, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FlashMemory(config, base=base, clock_mhz=24)


def test_the_last_place_is_not_refused():
    FlashMemory(UP5K, base=(1 << 24) - (1 << 21), clock_mhz=24)


def test_the_board_has_its_configuration_and_place():
    """The bitstream, 104090 bytes, lies in front."""
    assert icebreaker.CONFIG is UP5K
    assert icebreaker.EXTERNAL >= 104090
    FlashMemory(icebreaker.CONFIG, base=icebreaker.EXTERNAL, clock_mhz=icebreaker.CLOCK_MHZ)


# The core with its flash


class Board(wiring.Component):
    """A core whose external memory is in a flash."""

    def __init__(self, config, base):
        self._core = Core(config)
        self._flash = FlashMemory(config, base=base, clock_mhz=1)
        names = ("sck", "cs_n", "dq")
        pins = {name: self._flash.signature.members[name] for name in names}
        super().__init__({"bus": self._core.signature.members["bus"], "irq": Out(1), **pins})

    def elaborate(self, platform):
        m = Module()
        m.submodules.core, m.submodules.flash = core, flash = self._core, self._flash
        connect(m, core.memory, flash.memory)
        connect(m, wiring.flipped(self.bus), core.bus)
        m.d.comb += [
            self.irq.eq(core.irq),
            self.sck.eq(flash.sck),
            self.cs_n.eq(flash.cs_n),
            self.dq.o.eq(flash.dq.o),
            self.dq.oe.eq(flash.dq.oe),
            flash.dq.i.eq(self.dq.i),
        ]
        return m


def test_a_program_fetches_from_the_flash_in_the_predicted_cycles(rng):
    """Both of the core's memories are as wide as they are on the board, and there is little of the rest."""
    config = Config("board", lanes=8, store_words=512, fetch_latency=39, fetch_interval=16)
    b = Builder(rng, (2, 2, 3))
    b.conv(b.input, 5, (2, 2), same=False, relu=False)
    network = b.network()
    compiled = compile_network(network, config)
    program = with_fetch(compiled.program)
    x = inputs(rng, network, 1)
    given = compiled.input_bytes(x[0]).tobytes()
    machine = Machine(config)
    for at, data in ((0, program.assemble()), (program.input.address, given)):
        machine.store[at : at + len(data)] = np.frombuffer(data, np.uint8)
    cycles = CycleModel(config).run(machine.execute(program))
    base = EXTERNAL_WORDS * config.store_bytes
    dut = Board(config, base)
    bench = Bench(dut)
    flash = Flash(dut, bytes(base) + program.external, clock_mhz=1)
    registers = {register.name: register.address for register in REGISTERS}
    found = {}

    async def host(ctx):
        bus = dut.bus

        async def access(address, data=None):
            for port, value in (
                (bus.cyc, 1), (bus.stb, 1), (bus.we, data is not None), (bus.adr, address >> 2), (bus.sel, 15),
                (bus.dat_w, data or 0),
            ):  # fmt: skip
                ctx.set(port, value)
            await ctx.tick()
            assert ctx.get(bus.ack)
            result = ctx.get(bus.dat_r)
            await ctx.tick()
            ctx.set(bus.cyc, 0)
            return result

        for start, data in ((0, program.assemble()), (program.input.address, given)):
            for at in range(0, len(data), 4):
                bench.stay()
                await access(STORE_WINDOW + start + at, int.from_bytes(data[at : at + 4], "little"))
        await access(registers["control"], 3)
        while not ctx.get(dut.irq):
            bench.stay()
            await ctx.tick()
        bench.stay()
        found["status"] = await access(registers["status"])
        found["cycles"] = await access(registers["cycles"])
        size = program.output.size(config)
        words = [await access(STORE_WINDOW + program.output.address + at) for at in range(0, size, 4)]
        found["output"] = b"".join(word.to_bytes(4, "little") for word in words)

    bench.process(host)
    bench.process(flash.run)
    bench.run(quiet=40, limit=4000)
    assert (found["status"], found["cycles"]) == (1 << 16 | 2, cycles)
    output = compiled.output_values(np.frombuffer(found["output"], np.uint8))
    np.testing.assert_array_equal(output, network.run(x)[compiled.device_output][0])
    assert [entry[2] for entry in flash.log if entry[1] == 0xEB] == [base + 2 * config.store_bytes]
