"""The core on the emitted Verilog, through its bus; test_core.py runs this in the simulator."""

import copy
import dataclasses
import enum
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, Timer, with_timeout

from gossamer.golden import digits
from gossamer.golden.compiler import compile_network
from gossamer.golden.cycles import CycleModel
from gossamer.golden.host import Host
from gossamer.golden.inference import infer
from gossamer.golden.interpreter import Machine
from gossamer.golden.program import LAYOUTS, decode
from gossamer.golden.spec import MAGIC, STEP_BYTES, STORE_WINDOW, VERSION, Error, Opcode
from gossamer.sim.cocotb_runner import bench_config
from gossamer.sim.wishbone import BusError, WishboneMaster
from tests.networks import Builder, residual
from tests.programs import Streaming, with_fetch

CONFIG = bench_config()
IDENT, CONTROL, STATUS, CYCLES, STORE_WORDS, STEP = range(0, 24, 4)
START, INTERRUPT_ENABLE, WARM, RESUME = 1, 2, 4, 8
BUSY, DONE, REFUSED, PAUSED = 1, 2, 4, 8
PERIOD = 10  # ns


def one_layer(rng):
    """A network whose weights stay in the buffer."""
    b = Builder(rng, (4, 5, 3), zero_point=-20)
    b.conv(b.input, 6, (3, 3), relu=False)
    return b.network("one_layer")


def two_layers(rng):
    """A network of two convolutions, the second of which loads its weights while the first runs."""
    b = Builder(rng, (6, 7, 3), zero_point=-20)
    b.conv(b.conv(b.input, 20, (3, 3)), 6, (1, 1), relu=False)
    return b.network("two_layers")


@dataclasses.dataclass(repr=False)
class Case:
    """A compiled network, an input and what golden says about it; ``cycles`` is of a cold start, ``warm`` of a warm one."""

    network: object
    x: np.ndarray

    def __post_init__(self):
        self.compiled = compile_network(self.network, CONFIG)
        self.program = self.compiled.program
        self.output = self.network.run(self.x[None])[self.compiled.device_output][0]
        self.cycles = infer(self.compiled, self.x, warm=False).cycles
        self.warm = infer(self.compiled, self.x).cycles

    def fetching(self):
        """The same with a fetch."""
        case = copy.copy(self)
        case.program = with_fetch(self.program)
        machine = Machine(CONFIG)
        inputs = self.compiled.input_bytes(self.x).tobytes()
        for address, data in ((0, case.program.assemble()), (case.program.input.address, inputs)):
            machine.store[address : address + len(data)] = np.frombuffer(data, np.uint8)
        case.cycles = CycleModel(CONFIG).run(machine.execute(case.program))
        return case

    @classmethod
    def random(cls, kind, seed=1):
        rng = np.random.default_rng(seed)
        network = kind(rng)
        x = rng.integers(-128, 128, network.tensors[network.input].shape).astype(np.int8)
        return cls(network, np.where(rng.random(x.shape) < 0.4, np.int8(-128), x))


class StreamingCase:
    """The program by hand, an input, and what golden says about it, from a cold start."""

    def __init__(self, seed=1):
        rng = np.random.default_rng(seed)
        self.streaming = Streaming.random(CONFIG, rng)
        self.program = self.streaming.program
        x = rng.integers(-128, 128, (14, 7, 3)).astype(np.int8)
        self.x = self.streaming.input_bytes(x)
        host, machine, model = Host(self.program, self.x), Machine(CONFIG), CycleModel(CONFIG)
        image = self.program.assemble()
        machine.store[: len(image)] = np.frombuffer(image, np.uint8)
        self.stops = []  # the words behind the host steps, in the order of execution
        for step in machine.execute(self.program):
            if isinstance(step, dict) and step["opcode"] == Opcode.HOST:
                host.serve(step, machine.store)
                self.stops.append(self.program.step_word(machine.step + 1))
            model.step(step)
        self.output, self.cycles = host.output(), model.finish()


class Shadow:
    """A store at the host's end of the bus, for :class:`Host`; of it a host step uses only what it reads or writes."""

    def __init__(self, bus):
        self._bus = bus
        self.host, self._store = None, np.zeros(CONFIG.store_size, np.uint8)

    async def serve(self):
        """Do the step that the core has stopped at; returns the store word behind it."""
        word = await self._bus.read(STEP)
        at = STORE_WINDOW + word * CONFIG.store_bytes - STEP_BYTES
        step = decode(LAYOUTS[Opcode.HOST], await self._bus.read_bytes(at, STEP_BYTES))
        assert step["opcode"] == Opcode.HOST
        start = step["in_address"] * CONFIG.store_bytes
        size = step["rows"] * step["row_words"] * CONFIG.store_bytes
        if step["take"]:
            data = await self._bus.read_bytes(STORE_WINDOW + start, size)
            self._store[start : start + size] = np.frombuffer(data, np.uint8)
        self.host.serve(step, self._store)
        if not step["take"]:
            await self._bus.write_bytes(STORE_WINDOW + start, self._store[start : start + size].tobytes())
        return word


class TB:
    """Clock, bus master and what a driver does."""

    def __init__(self, dut):
        self.dut = dut
        self.bus = WishboneMaster(dut)
        Clock(dut.clk, PERIOD, "ns", impl="gpi").start()

    @classmethod
    async def reset(cls, dut):
        tb = cls(dut)
        await tb.pulse_reset()
        return tb

    async def pulse_reset(self):
        await FallingEdge(self.dut.clk)
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 2)
        await FallingEdge(self.dut.clk)
        self.dut.rst.value = 0

    def memory(self, data):
        """Put an external memory of these contents at the core's port."""
        words = [int.from_bytes(data[at : at + CONFIG.store_bytes], "little") for at in range(0, len(data), CONFIG.store_bytes)]
        cocotb.start_soon(self._memory(words))

    async def _memory(self, words):
        dut = self.dut
        todo, wait = [], 0
        while True:
            await FallingEdge(dut.clk)
            offered = bool(todo) and wait == 0
            dut.memory_request_ready.value = not todo
            dut.memory_valid.value = offered
            dut.memory_data.value = words[todo[0]] if offered and todo[0] < len(words) else 0
            await Timer(1, "ns")
            wait = max(wait - 1, 0)
            if not todo and dut.memory_request_valid.value:
                address = int(dut.memory_request_address.value)
                todo = [*range(address, address + int(dut.memory_request_words.value) + 1)]
                wait = CONFIG.fetch_latency - 1
            elif offered and dut.memory_ready.value:
                todo.pop(0)
                wait = CONFIG.fetch_interval - 1

    async def load(self, image):
        await self.bus.write_bytes(STORE_WINDOW, bytes(image))

    async def give(self, case):
        """Write the input."""
        await self.bus.write_bytes(STORE_WINDOW + case.program.input.address, case.compiled.input_bytes(case.x).tobytes())

    async def start(self, case, control=START | INTERRUPT_ENABLE):
        """Write the input, and start."""
        await self.give(case)
        await self.bus.write(CONTROL, control)

    async def interrupt(self):
        """Sleep until the interrupt."""
        if not self.dut.irq.value:
            await with_timeout(RisingEdge(self.dut.irq), 200_000 * PERIOD, "ns")

    async def check(self, case, cycles=None):
        """Status, output and cycles after a run; ``cycles`` are others than those of a cold start."""
        assert await self.bus.read(STATUS) & 0xFF00 | DONE == DONE
        place = case.program.output
        data = await self.bus.read_bytes(STORE_WINDOW + place.address, place.size(CONFIG))
        np.testing.assert_array_equal(case.compiled.output_values(np.frombuffer(data, np.uint8)), case.output)
        assert await self.bus.read(CYCLES) == (case.cycles if cycles is None else cycles)

    async def run(self, case):
        await self.start(case)
        await self.interrupt()
        await self.check(case)

    async def run_warm(self, case):
        await self.start(case, START | INTERRUPT_ENABLE | WARM)
        await self.interrupt()
        await self.check(case, case.warm)

    async def run_streaming(self, case, control=INTERRUPT_ENABLE):
        """From the start to the end with all host steps; returns the words behind those."""
        shadow, stops = Shadow(self.bus), []
        shadow.host = Host(case.program, case.x)
        await self.bus.write(CONTROL, START | control)
        await self.interrupt()
        while await self.bus.read(STATUS) & PAUSED:
            stops.append(await shadow.serve())
            await self.bus.write(CONTROL, RESUME | control)
            await self.interrupt()
        assert await self.bus.read(STATUS) & 0xFF0F == DONE
        np.testing.assert_array_equal(shadow.host.output(), case.output)
        assert await self.bus.read(CYCLES) == case.cycles
        return stops

    async def refused(self, access):
        try:
            await access
        except BusError:
            return True
        return False


@cocotb.test()
async def registers_match_the_configuration(dut):
    tb = await TB.reset(dut)
    assert await tb.bus.read(IDENT) == VERSION | CONFIG.lanes << 16 | CONFIG.store_bytes << 24
    assert await tb.bus.read(STORE_WORDS) == CONFIG.store_words
    for register in (CONTROL, STATUS, CYCLES, STEP):
        assert await tb.bus.read(register) == 0
    assert (dut.irq.value, dut.busy.value, dut.failed.value) == (0, 0, 0)


@cocotb.test()
async def read_only_registers_are_read_only(dut):
    tb = await TB.reset(dut)
    registers = (IDENT, STATUS, CYCLES, STORE_WORDS, STEP)
    before = [await tb.bus.read(register) for register in registers]
    for register in registers:
        await tb.bus.write(register, 0xFFFFFFFF)
    assert [await tb.bus.read(register) for register in registers] == before
    assert not dut.busy.value


@cocotb.test()
async def access_outside_registers_and_store_is_an_error(dut):
    tb = await TB.reset(dut)
    size = CONFIG.store_size
    first, last = STORE_WINDOW, STORE_WINDOW + size - 4
    await tb.bus.write(first, 0x01234567)
    await tb.bus.write(last, 0x89ABCDEF)
    for address in (0x18, 0x1C, 0x20, STORE_WINDOW - 4, STORE_WINDOW // 2, STORE_WINDOW + size, 0xFFFFFC):
        assert await tb.refused(tb.bus.read(address))
        assert await tb.refused(tb.bus.write(address, 0xFFFFFFFF))
    assert await tb.bus.read(first) == 0x01234567
    assert await tb.bus.read(last) == 0x89ABCDEF
    assert await tb.bus.read(CONTROL) == 0
    assert await tb.bus.read(STATUS) == 0


@cocotb.test()
async def store_takes_the_selected_bytes(dut):
    """All selections at all places in a store word, at both ends and around the middle, in random order."""
    tb = await TB.reset(dut)
    rng = random.Random(3)
    regions = (0, CONFIG.store_size // 2 - 2 * CONFIG.store_bytes, CONFIG.store_size - 4 * CONFIG.store_bytes)
    words = [region + 4 * i for region in regions for i in range(CONFIG.store_bytes)]
    model = {}
    for word in words:
        model[word] = rng.getrandbits(32)
        await tb.bus.write(STORE_WINDOW + word, model[word])
    accesses = [(word, sel) for word in words for sel in range(16)]
    rng.shuffle(accesses)
    for word, sel in accesses:
        value = rng.getrandbits(32)
        await tb.bus.write(STORE_WINDOW + word, value, sel)
        mask = sum(0xFF << 8 * byte for byte in range(4) if sel >> byte & 1)
        model[word] = model[word] & ~mask | value & mask
        other = rng.choice([word, rng.choice(words)])
        assert await tb.bus.read(STORE_WINDOW + other) == model[other]
    for word in words:
        assert await tb.bus.read(STORE_WINDOW + word) == model[word]


@cocotb.test()
async def nothing_happens_without_cycle_and_strobe(dut):
    tb = await TB.reset(dut)
    await tb.bus.write(STORE_WINDOW, 0x11111111)
    for cyc, stb in ((0, 1), (1, 0)):
        for address, value in ((STORE_WINDOW, 0x22222222), (CONTROL, START)):
            await FallingEdge(dut.clk)
            dut.wb_cyc.value, dut.wb_stb.value, dut.wb_we.value, dut.wb_sel.value = cyc, stb, 1, 15
            dut.wb_adr.value, dut.wb_dat_w.value = address >> 2, value
            for _ in range(3):
                await FallingEdge(dut.clk)
                assert (dut.wb_ack.value, dut.wb_err.value, dut.busy.value) == (0, 0, 0)
            dut.wb_cyc.value = dut.wb_stb.value = 0
    assert await tb.bus.read(STORE_WINDOW) == 0x11111111


@cocotb.test()
async def digits_equal_golden_in_the_predicted_cycles(dut):
    tb = await TB.reset(dut)
    images, _ = digits.test_set()
    cases = [Case(digits.load(), x) for x in images[:3]]
    await tb.load(cases[0].program.assemble())
    for case in cases:
        await tb.run(case)
        assert (dut.irq.value, dut.busy.value, dut.failed.value) == (1, 0, 0)


@cocotb.test()
async def every_operator_equals_golden_in_the_predicted_cycles(dut):
    tb = await TB.reset(dut)
    case = Case.random(residual)
    await tb.load(case.program.assemble())
    await tb.run(case)


@cocotb.test()
async def warm_starts_take_the_predicted_cycles(dut):
    tb = await TB.reset(dut)
    case = Case.random(one_layer)
    assert case.program.warm
    assert case.warm < case.cycles
    await tb.load(case.program.assemble())
    await tb.run(case)
    for x in (case.x, case.x[::-1], case.x):
        again = Case(case.network, x)
        await tb.run_warm(again)
    await tb.run(case)
    await tb.run_warm(case)
    assert await tb.bus.read(CONTROL) == INTERRUPT_ENABLE


@cocotb.test()
async def warm_without_start_does_nothing(dut):
    tb = await TB.reset(dut)
    case = Case.random(one_layer)
    await tb.load(case.program.assemble())
    await tb.bus.write(CONTROL, WARM)
    assert not dut.busy.value
    await tb.run(case)  # a cold start


@cocotb.test()
async def a_fetch_brings_weights_in_the_predicted_cycles(dut):
    tb = await TB.reset(dut)
    case = Case.random(one_layer).fetching()
    tb.memory(case.program.external)
    await tb.load(case.program.assemble())
    await tb.run(case)
    await tb.run(case)


@cocotb.test()
async def words_of_a_fetch_are_not_written_after_an_error(dut):
    """The step behind the fetch is none; the next program finds the memory still busy."""
    tb = await TB.reset(dut)
    case = Case.random(one_layer).fetching()
    tb.memory(case.program.external)
    program = case.program
    fetch, second, *others = program.steps
    image = bytearray(dataclasses.replace(program, steps=(fetch, second, *others)).assemble())
    at = 64 * (1 + len(program.layers)) + 16
    image[at] = 15
    await tb.load(bytes(image))
    place = STORE_WINDOW + fetch["in_address"] * CONFIG.store_bytes
    await tb.bus.write_bytes(place, bytes(range(100, 132)))
    await tb.bus.write(CONTROL, START | INTERRUPT_ENABLE)
    await tb.interrupt()
    assert await tb.bus.read(STATUS) == DONE | Error.OPCODE << 8 | second["layer"] << 16
    await ClockCycles(dut.clk, CONFIG.fetch_latency + fetch["count"] * CONFIG.fetch_interval // 2)
    assert await tb.bus.read_bytes(place, 32) == bytes(range(100, 132))
    await tb.load(program.assemble())
    await tb.start(case)  # waits for the memory
    await tb.interrupt()
    await tb.bus.write(CONTROL, 0)
    await tb.run(case)


@cocotb.test()
async def host_steps_pause_the_core_and_take_no_cycles(dut):
    tb = await TB.reset(dut)
    case = StreamingCase()
    tb.memory(case.program.external)
    await tb.load(case.program.assemble())
    assert await tb.run_streaming(case) == case.stops
    assert await tb.run_streaming(case) == case.stops


@cocotb.test()
async def in_a_pause_the_core_is_the_hosts(dut):
    """Registers, interrupt and store; and a resume that is none changes nothing."""
    tb = await TB.reset(dut)
    case = StreamingCase()
    tb.memory(case.program.external)
    await tb.load(case.program.assemble())
    await tb.bus.write(CONTROL, START | INTERRUPT_ENABLE)
    assert (dut.irq.value, dut.busy.value) == (0, 1)
    await tb.bus.write(CONTROL, RESUME | INTERRUPT_ENABLE)
    await tb.interrupt()
    for pause in (0, 50):
        await ClockCycles(dut.clk, pause)
        assert (dut.irq.value, dut.busy.value, dut.failed.value) == (1, 0, 0)
        assert await tb.bus.read(STATUS) == PAUSED
        assert await tb.bus.read(STEP) == case.stops[0]
    cycles = await tb.bus.read(CYCLES)
    assert 0 < cycles < case.cycles
    await tb.bus.write(CONTROL, 0)
    assert not dut.irq.value
    assert await tb.bus.read(CONTROL) == 0
    await tb.bus.write(CONTROL, INTERRUPT_ENABLE)
    assert dut.irq.value
    assert await tb.bus.read(CYCLES) == cycles
    last = STORE_WINDOW + CONFIG.store_size - 4
    await tb.bus.write(last, 0x12345678)
    assert await tb.bus.read(last) == 0x12345678
    await tb.bus.write(CONTROL, RESUME)  # without the interrupt
    assert await tb.bus.read(CONTROL) == 0
    await ClockCycles(dut.clk, 100 + CONFIG.fetch_latency + 18 * CONFIG.granules * CONFIG.fetch_interval)
    assert await tb.bus.read(STATUS) & (PAUSED | DONE | BUSY) == PAUSED
    assert await tb.bus.read(STEP) == case.stops[1]
    assert await tb.bus.read(CYCLES) > cycles
    assert not dut.irq.value


@cocotb.test()
async def a_start_in_a_pause_begins_anew(dut):
    tb = await TB.reset(dut)
    case = StreamingCase()
    tb.memory(case.program.external)
    await tb.load(case.program.assemble())
    for resumes in (0, 1, 5):
        await tb.bus.write(CONTROL, START | INTERRUPT_ENABLE)
        for _ in range(resumes):
            await tb.interrupt()
            await tb.bus.write(CONTROL, RESUME | INTERRUPT_ENABLE)
        await tb.interrupt()
        assert await tb.bus.read(STATUS) & (PAUSED | DONE) == PAUSED
        # with everything at once: the start counts
        await tb.bus.write(CONTROL, START | RESUME | INTERRUPT_ENABLE)
        assert await tb.bus.read(STATUS) & (PAUSED | DONE | BUSY) == BUSY
        await tb.interrupt()
        assert await tb.bus.read(STEP) == case.stops[0]
        assert await tb.run_streaming(case) == case.stops


@cocotb.test()
async def reset_in_a_pause_leaves_a_core_that_works(dut):
    tb = await TB.reset(dut)
    case = StreamingCase()
    tb.memory(case.program.external)
    await tb.load(case.program.assemble())
    await tb.bus.write(CONTROL, START | INTERRUPT_ENABLE)
    await tb.interrupt()
    await tb.pulse_reset()
    assert (dut.irq.value, dut.busy.value, dut.failed.value) == (0, 0, 0)
    await tb.bus.write(CONTROL, RESUME)
    assert [await tb.bus.read(register) for register in (STATUS, CYCLES)] == [0, 0]
    await tb.run_streaming(case)


@cocotb.test()
async def store_is_refused_while_busy(dut):
    tb = await TB.reset(dut)
    case = Case.random(two_layers)
    image = case.program.assemble()
    await tb.load(image)
    await tb.start(case)
    for _ in range(2):
        assert await tb.bus.read(STATUS) & (BUSY | DONE | REFUSED) in (BUSY, BUSY | REFUSED)
        assert await tb.refused(tb.bus.write(STORE_WINDOW, 0xFFFFFFFF))
        assert await tb.bus.read(STATUS) & (BUSY | DONE | REFUSED) == BUSY | REFUSED
        assert await tb.refused(tb.bus.read(STORE_WINDOW + len(image) - 4))
        assert await tb.refused(tb.bus.write(STORE_WINDOW + CONFIG.store_size - 4, 0))
    assert await tb.bus.read(IDENT) & 0xFFFF == VERSION
    assert dut.busy.value
    await tb.interrupt()
    assert await tb.bus.read(STATUS) & (BUSY | DONE | REFUSED) == DONE | REFUSED
    await tb.check(case)
    assert await tb.bus.read_bytes(STORE_WINDOW, len(image)) == image
    await tb.start(case)
    assert await tb.bus.read(STATUS) & (BUSY | DONE | REFUSED) == BUSY
    await tb.interrupt()
    assert await tb.bus.read(STATUS) & (BUSY | DONE | REFUSED) == DONE
    await tb.check(case)


@cocotb.test()
async def start_while_busy_is_ignored(dut):
    tb = await TB.reset(dut)
    case = Case.random(two_layers)
    await tb.load(case.program.assemble())
    await tb.start(case)
    for pause in (1, 10, 100):
        await ClockCycles(dut.clk, pause)
        assert dut.busy.value
        await tb.bus.write(CONTROL, START | INTERRUPT_ENABLE)
    await tb.interrupt()
    await tb.check(case)


@cocotb.test()
async def interrupt_enable_gates_the_interrupt(dut):
    tb = await TB.reset(dut)
    case = Case.random(two_layers)
    await tb.load(case.program.assemble())
    await tb.start(case, START)
    await ClockCycles(dut.clk, case.cycles + 10)
    assert await tb.bus.read(STATUS) & (BUSY | DONE) == DONE
    for enable in (0, 1, 0, 1):
        await tb.bus.write(CONTROL, enable * INTERRUPT_ENABLE)
        assert await tb.bus.read(CONTROL) == enable * INTERRUPT_ENABLE
        assert dut.irq.value == enable
    await tb.bus.write(CONTROL, START | INTERRUPT_ENABLE)
    assert not dut.irq.value
    assert await tb.bus.read(STATUS) & (BUSY | DONE) == BUSY
    await tb.interrupt()
    await tb.bus.write(CONTROL, START)
    await ClockCycles(dut.clk, case.cycles + 10)
    assert not dut.irq.value


@cocotb.test()
async def reset_in_mid_run_leaves_a_core_that_works(dut):
    tb = await TB.reset(dut)
    case = Case(digits.load(), digits.test_set()[0][7])
    await tb.load(case.program.assemble())
    rng = random.Random(5)
    for after in (1, *(rng.randrange(case.cycles) for _ in range(6)), case.cycles - 2):
        await tb.start(case)
        await ClockCycles(dut.clk, after)
        await tb.pulse_reset()
        assert (dut.irq.value, dut.busy.value, dut.failed.value) == (0, 0, 0)
        assert [await tb.bus.read(register) for register in (CONTROL, STATUS, CYCLES)] == [0, 0, 0]
        await tb.run(case)


def patched(image, at, value):
    """The image with another byte at ``at``."""
    return image[:at] + bytes([value]) + image[at + 1 :]


def header(at, value):
    return lambda case: patched(case.program.assemble(), at, value)


def first_opcode(value):
    """An opcode that no assembler would write."""
    return lambda case: patched(case.program.assemble(), 64 * (1 + len(case.program.layers)), value)


def changed_step(case, number, **fields):
    steps = list(case.program.steps)
    steps[number] = {**steps[number], **fields}
    return dataclasses.replace(case.program, steps=tuple(steps)).assemble()


def new_step(case, **fields):
    """In the place of the first."""
    return dataclasses.replace(case.program, steps=(fields, *case.program.steps[1:])).assemble()


def changed_layer(case, **fields):
    first, *others = case.program.layers
    return dataclasses.replace(case.program, layers=({**first, **fields}, *others)).assemble()


def first_run(case):
    return next(i for i, step in enumerate(case.program.steps) if "rows" in step)


def run_step(**fields):
    return lambda case: changed_step(case, first_run(case), **fields)


def layer(**fields):
    return lambda case: changed_layer(case, **fields)


def fetch(**fields):
    return lambda case: with_fetch(case.program, **fields).assemble()


WORDS, SIZE = CONFIG.store_words, CONFIG.store_size
FAULTS = {
    "magic": (Error.MAGIC, 0, header(3, 0)),
    "empty_store": (Error.MAGIC, 0, lambda case: bytes(64)),
    "version": (Error.VERSION, 0, header(4, VERSION + 1)),
    "version_above_255": (Error.VERSION, 0, header(5, 1)),
    "lanes": (Error.CONFIG, 0, header(6, 2 * CONFIG.lanes)),
    "store_bytes": (Error.CONFIG, 0, header(7, 24 - CONFIG.store_bytes)),
    "opcode_7": (Error.OPCODE, 1, first_opcode(7)),
    "opcode_15": (Error.OPCODE, 1, first_opcode(15)),
    "steps_behind_the_store": (Error.READ, 0, header(10, 255)),
    "load_behind_the_store": (Error.READ, 1, lambda case: changed_step(case, 0, in_address=WORDS)),
    "load_far_behind_the_store": (Error.READ, 1, lambda case: changed_step(case, 0, in_address=(1 << 20) - 1)),
    "load_over_the_end": (Error.READ, 1, lambda case: changed_step(case, 0, in_address=WORDS - 1)),
    "row_behind_the_store": (Error.READ, 1, run_step(in_address=WORDS)),
    "last_row_behind_the_store": (Error.READ, 1, run_step(in_address=WORDS - 5)),
    "row_behind_the_wrap_behind_the_store": (Error.READ, 1, run_step(wrap_rows=1, wrap_address=WORDS)),
    "loop_behind_the_store": (Error.READ, 0, lambda case: new_step(case, opcode=Opcode.LOOP, count=1, in_address=WORDS)),
    "loop_to_the_magic": (Error.OPCODE, MAGIC >> 20, lambda case: new_step(case, opcode=Opcode.LOOP, count=1, in_address=0)),
    "write_behind_the_store": (Error.WRITE, 1, run_step(out_address=SIZE)),
    "write_far_behind_the_store": (Error.WRITE, 1, run_step(out_address=0xFFFF00)),
    "write_into_the_header": (Error.WRITE, 1, run_step(out_address=0)),
    "write_into_the_image": (Error.WRITE, 1, lambda case: run_step(out_address=case.program.size - 1)(case)),
    "no_columns": (Error.EMPTY, 1, layer(width=0)),
    "no_groups": (Error.EMPTY, 1, layer(groups=0)),
    "no_kernel": (Error.EMPTY, 1, layer(kernel_rows=0)),
    "no_slot": (Error.EMPTY, 1, layer(slot_words=0)),
    "no_rows": (Error.EMPTY, 1, run_step(rows=0)),
    "no_words": (Error.EMPTY, 1, lambda case: changed_step(case, 0, count=0)),
    "fetch_of_no_words": (Error.EMPTY, 1, fetch(count=0)),
    "fetch_behind_the_store": (Error.WRITE, 1, fetch(in_address=WORDS)),
    "fetch_far_behind_the_store": (Error.WRITE, 1, fetch(in_address=(1 << 20) - 1)),
    "fetch_into_the_header": (Error.WRITE, 1, fetch(in_address=0)),
    "fetch_into_the_image": (
        Error.WRITE, 1, lambda case: fetch(in_address=with_fetch(case.program).size // CONFIG.store_bytes - 1, count=1)(case)
    ),
}  # fmt: skip


async def snapshot(tb, case):
    """Image, activations and what is around; and the end of the store, where overflows would go."""
    end = case.program.end_address + 64
    return [await tb.bus.read_bytes(STORE_WINDOW + at, size) for at, size in ((0, end), (SIZE // 2, 64), (SIZE - 64, 64))]


@cocotb.test()
@cocotb.parametrize(fault=list(enum.Enum("Fault", list(FAULTS))))
async def fault_stops_the_core_and_writes_nothing(dut, fault):
    tb = await TB.reset(dut)
    code, layer, image = FAULTS[fault.name]
    case = Case.random(two_layers)
    if fault.name.startswith("fetch"):
        tb.memory(bytes(1000))
    good = case.program.assemble()
    bad = image(case)
    assert bad != good
    await tb.load(bad.ljust(len(good), b"\0"))
    before = await snapshot(tb, case)
    await tb.bus.write(CONTROL, START | INTERRUPT_ENABLE)
    await tb.interrupt()
    assert (dut.irq.value, dut.busy.value, dut.failed.value) == (1, 0, 1)
    assert await tb.bus.read(STATUS) == DONE | code << 8 | layer << 16
    assert await snapshot(tb, case) == before
    assert await tb.bus.read(STATUS) == DONE | code << 8 | layer << 16
    await tb.load(good)
    await tb.run(case)
    assert not dut.failed.value


@cocotb.test()
async def overflow_in_mid_layer_stays_in_the_store(dut):
    """All of the first layer's output but the last word fits."""
    tb = await TB.reset(dut)
    case = Case.random(two_layers)
    size = case.compiled.places[case.compiled.runs[0].output].size(CONFIG)
    await tb.load(run_step(out_address=SIZE - size + CONFIG.store_bytes)(case))
    await tb.give(case)
    before = await snapshot(tb, case)
    await tb.bus.write(CONTROL, START | INTERRUPT_ENABLE)
    await tb.interrupt()
    assert await tb.bus.read(STATUS) == DONE | Error.WRITE << 8 | 1 << 16  # though the next layer's loads have been fetched
    after = await snapshot(tb, case)
    assert after[0] == before[0]
    assert after[2] != before[2]
