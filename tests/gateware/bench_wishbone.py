"""The core behind Wishbone, on the emitted Verilog, with the bus models of cocotbext-wishbone; test_wishbone.py runs this.

Those wait for each answer, on the pipelined bus too. Requests in every cycle come from here.
"""

import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, with_timeout
from cocotbext.wishbone.driver import WBOp, WishboneMaster

from gossamer.golden import digits
from gossamer.golden.spec import STORE_WINDOW, VERSION
from gossamer.sim.cocotb_runner import bench_config
from tests.gateware.bench_core import BUSY, CONTROL, CYCLES, DONE, IDENT, INTERRUPT_ENABLE, START, STATUS, STORE_WORDS, Case

CONFIG = bench_config()
PERIOD = 10  # ns
SIZE = CONFIG.store_size
ACK, ERR = 1, 2
NOWHERE = (0x18, STORE_WINDOW - 4, STORE_WINDOW + SIZE, 0xFFFFFC)


class Master(WishboneMaster):
    _optional_signals = ("sel", "err", "stall")

    def __init__(self, dut):
        names = {name: name for name in ("cyc", "stb", "we", "adr", "ack")}
        super().__init__(dut, "wb", dut.clk, timeout=50, signals_dict={**names, "datwr": "dat_w", "datrd": "dat_r"})


class TB:
    """Clock, reset, the model of a master, and one that asks in every cycle."""

    def __init__(self, dut):
        self.dut = dut
        self.pipelined = hasattr(dut, "wb_stall")
        self.master = Master(dut)
        Clock(dut.clk, PERIOD, "ns", impl="gpi").start()

    @classmethod
    async def reset(cls, dut):
        tb = cls(dut)
        await tb.pulse_reset()
        return tb

    async def pulse_reset(self):
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 3)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 1)

    async def access(self, operations):
        """``(address, data or None, sel)``, one after the other; returns the answers, and for reads the data."""
        ops = [WBOp(address >> 2, data, sel=sel, acktimeout=20) for address, data, sel in operations]
        answers = await self.master.send_cycle(ops)
        assert len(answers) == len(ops)
        return [(answer.ack, None if op.dat is not None else int(answer.datrd)) for op, answer in zip(ops, answers)]

    async def read(self, address):
        [(answer, data)] = await self.access([(address, None, 15)])
        assert answer == ACK
        return data

    async def write(self, address, data):
        assert await self.access([(address, data, 15)]) == [(ACK, None)]

    async def stream(self, operations, gaps=None):
        """The same as :meth:`access`, but a request in every cycle in which it is not stalled; also the number of cycles from
        the first request to the last answer. ``gaps()`` says when to pause."""
        dut, todo, waiting, answers = self.dut, list(operations), [], []
        asking, begin, cycle = False, None, 0
        while todo or waiting or asking:
            await FallingEdge(dut.clk)
            cycle += 1
            ack, err = int(dut.wb_ack.value), int(dut.wb_err.value)
            assert ack + err == len(waiting), "a request must be answered in the cycle behind it, and nothing else"
            if waiting:
                answers.append((ACK if ack else ERR, None if waiting.pop() else int(dut.wb_dat_r.value)))
            if not asking and todo and not (gaps and gaps()):
                asking = True
                address, data, sel = todo.pop(0)
                dut.wb_adr.value, dut.wb_we.value, dut.wb_sel.value = address >> 2, data is not None, sel
                dut.wb_dat_w.value = data or 0
            dut.wb_cyc.value, dut.wb_stb.value = 1, asking
            await RisingEdge(dut.clk)  # signals are still those before it
            if asking and not dut.wb_stall.value:
                begin = cycle if begin is None else begin
                waiting, asking = [dut.wb_we.value], False
        dut.wb_cyc.value = dut.wb_stb.value = 0
        await FallingEdge(dut.clk)
        assert not dut.wb_ack.value
        assert not dut.wb_err.value
        return answers, cycle - begin + 1

    async def write_bytes(self, address, data, streamed):
        words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
        operations = [(address + 4 * at, word, 15) for at, word in enumerate(words)]
        if streamed:
            answers, cycles = await self.stream(operations)
            assert cycles == len(operations) + 1
        else:
            answers = await self.access(operations)
        assert answers == [(ACK, None)] * len(operations)

    async def read_bytes(self, address, size, streamed):
        operations = [(address + at, None, 15) for at in range(0, size, 4)]
        if streamed:
            answers, cycles = await self.stream(operations)
            assert cycles == len(operations) + 1
        else:
            answers = await self.access(operations)
        return b"".join(data.to_bytes(4, "little") for answer, data in answers if answer == ACK)

    async def run(self, case, streamed):
        await self.write_bytes(STORE_WINDOW, case.program.assemble(), streamed)
        place = case.program.input.address
        await self.write_bytes(STORE_WINDOW + place, case.compiled.input_bytes(case.x).tobytes(), streamed)
        await self.write(CONTROL, START | INTERRUPT_ENABLE)
        if not self.dut.irq.value:
            await with_timeout(RisingEdge(self.dut.irq), 200_000 * PERIOD, "ns")
        assert await self.read(STATUS) & 0xFF00 | DONE == DONE
        place = case.program.output
        data = await self.read_bytes(STORE_WINDOW + place.address, place.size(CONFIG), streamed)
        np.testing.assert_array_equal(case.compiled.output_values(np.frombuffer(data, np.uint8)), case.output)
        assert await self.read(CYCLES) == case.cycles


@cocotb.test()
async def registers_match_the_configuration(dut):
    tb = await TB.reset(dut)
    assert await tb.read(IDENT) == VERSION | CONFIG.lanes << 16 | CONFIG.store_bytes << 24
    assert await tb.read(STORE_WORDS) == CONFIG.store_words


@cocotb.test()
async def digits_equal_golden_in_the_predicted_cycles(dut):
    tb = await TB.reset(dut)
    case = Case(digits.load(), digits.test_set()[0][0])
    await tb.run(case, streamed=False)
    if tb.pipelined:
        await tb.run(Case(case.network, digits.test_set()[0][1]), streamed=True)


def operations(rng, count):
    """Random ones with what must be answered, from a model: reads soon behind writes to the same place, registers, errors."""
    words = [region + 4 * n for region in (0, SIZE // 2, SIZE - 64) for n in range(16)]
    model = {word: rng.getrandbits(32) for word in words}
    found = [(STORE_WINDOW + word, value, 15) for word, value in model.items()]
    answers = [(ACK, None)] * len(found)
    word = words[0]
    for _ in range(count):
        word = rng.choice([word, rng.choice(words)])
        kind = rng.choice(["write", "write", "read", "read", "register", "nowhere"])
        value, sel = rng.getrandbits(32), rng.randrange(16)
        if kind == "write":
            mask = sum(0xFF << 8 * byte for byte in range(4) if sel >> byte & 1)
            model[word] = model[word] & ~mask | value & mask
            found.append((STORE_WINDOW + word, value, sel))
            answers.append((ACK, None))
        elif kind == "read":
            found.append((STORE_WINDOW + word, None, 15))
            answers.append((ACK, model[word]))
        elif kind == "register":
            found.append((STORE_WORDS, None, 15))
            answers.append((ACK, CONFIG.store_words))
        else:
            found.append((rng.choice(NOWHERE), rng.choice([value, None]), 15))
            answers.append((ERR, None))
    return found, answers


def same(found, expected):
    """The data of a read that ended with an error are not defined."""
    assert [answer for answer, _ in found] == [answer for answer, _ in expected]
    for n, ((answer, data), (_, value)) in enumerate(zip(found, expected)):
        assert answer == ERR or data == value, f"access {n}"


@cocotb.test()
@cocotb.parametrize(seed=[1, 2])
async def answers_equal_a_model(dut, seed):
    tb = await TB.reset(dut)
    given, expected = operations(random.Random(seed), 400)
    same(await tb.access(given), expected)


@cocotb.test()
@cocotb.parametrize(share=[0, 0.2, 0.8])
async def answers_to_requests_in_every_cycle_equal_a_model(dut, share):
    """With pauses, and without: then every request takes a cycle, and one more if it reads behind a write to the store."""
    tb = await TB.reset(dut)
    if not tb.pipelined:
        return
    rng = random.Random(share)
    given, expected = operations(rng, 1500)
    found, cycles = await tb.stream(given, gaps=(lambda: rng.random() < share) if share else None)
    same(found, expected)
    if not share:
        waits = 0
        for (before, data, _), (_, after, _), (answer, _) in zip(given, given[1:], expected):
            waits += data is not None and before >= STORE_WINDOW and answer == ACK and after is None
        assert cycles == len(given) + 1 + waits


@cocotb.test()
async def the_store_is_an_error_while_the_core_is_busy(dut):
    """Also in the cycle behind the start, and a word written in the cycle before it is there."""
    tb = await TB.reset(dut)
    case = Case(digits.load(), digits.test_set()[0][0])
    image = case.program.assemble()
    await tb.write_bytes(STORE_WINDOW, image, streamed=False)
    first = int.from_bytes(image[:4], "little")
    last = STORE_WINDOW + SIZE - 4
    given = [(STORE_WINDOW, 0, 15), (STORE_WINDOW, first, 15), (CONTROL, START, 15), (last, 0, 15), (STATUS, None, 15)]
    answers = (await tb.stream(given))[0] if tb.pipelined else await tb.access(given)
    assert [answer for answer, _ in answers] == [ACK, ACK, ACK, ERR, ACK]
    assert answers[-1][1] & 0xF == BUSY | 4
    while await tb.read(STATUS) & BUSY:
        await ClockCycles(dut.clk, 500)
    assert await tb.read(STATUS) & 0xFF00 | DONE == DONE


@cocotb.test()
async def writes_without_the_lowest_byte_do_not_change_control(dut):
    tb = await TB.reset(dut)
    for sel in (0, 0b1110):
        assert await tb.access([(CONTROL, 0xFFFFFFFF, sel)]) == [(ACK, None)]
        assert (await tb.read(CONTROL), await tb.read(STATUS)) == (0, 0)
    assert await tb.access([(CONTROL, INTERRUPT_ENABLE, 1)]) == [(ACK, None)]
    assert await tb.read(CONTROL) == INTERRUPT_ENABLE


@cocotb.test()
@cocotb.parametrize(cycles=[0, 1, 2, 3])
async def a_cycle_or_a_reset_may_end_at_any_time(dut, cycles):
    """The answers that are missing come at most in the cycle in which `cyc` falls, and not in the next bus cycle."""
    tb = await TB.reset(dut)
    await tb.write(STORE_WINDOW, 0x01020304)
    for end in ("cyc", "rst"):
        await FallingEdge(dut.clk)
        dut.wb_cyc.value = dut.wb_stb.value = 1
        dut.wb_we.value, dut.wb_adr.value = 0, STORE_WINDOW >> 2
        await ClockCycles(dut.clk, cycles)
        await FallingEdge(dut.clk)
        dut.wb_cyc.value = dut.wb_stb.value = 0
        dut.rst.value = end == "rst"
        await FallingEdge(dut.clk)
        dut.rst.value = 0
        assert (dut.wb_ack.value, dut.wb_err.value) == (0, 0)
        assert await tb.read(STORE_WORDS) == CONFIG.store_words
        assert await tb.read(STORE_WINDOW) == 0x01020304
