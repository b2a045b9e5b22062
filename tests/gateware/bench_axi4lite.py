"""The core behind AXI4-Lite, on the emitted Verilog, with the bus models of cocotbext-axi; test_axi4lite.py runs this."""

import itertools
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, with_timeout
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp
from cocotbext.axi.axil_channels import (
    AxiLiteARSource,
    AxiLiteAWSource,
    AxiLiteBSink,
    AxiLiteRSink,
    AxiLiteWSource,
)

from gossamer.golden import digits
from gossamer.golden.spec import STORE_WINDOW, VERSION
from gossamer.sim.cocotb_runner import bench_config
from tests.gateware.bench_core import BUSY, CONTROL, CYCLES, DONE, IDENT, INTERRUPT_ENABLE, START, STATUS, STORE_WORDS, Case

CONFIG = bench_config()
PERIOD = 10  # ns
CHANNELS = {
    "aw": ("awaddr", "awprot"),
    "w": ("wdata", "wstrb"),
    "b": ("bresp",),
    "ar": ("araddr", "arprot"),
    "r": ("rdata", "rresp"),
}
SIZE = CONFIG.store_size
NOWHERE = (0x18, STORE_WINDOW - 4, STORE_WINDOW + SIZE, 0xFFFFFC)


class Monitor:
    """The transfers of each channel, with their cycles; checks the rules of AXI on all five."""

    def __init__(self, dut):
        self.transfers = {channel: [] for channel in CHANNELS}
        self.asked = {channel: [] for channel in CHANNELS}  # the cycles in which something became valid
        cocotb.start_soon(self._watch(dut))

    async def _watch(self, dut):
        waiting, cycle = {}, 0
        while True:
            await RisingEdge(dut.aclk)
            cycle += 1
            if not dut.aresetn.value:
                waiting = {}
                self.transfers = {channel: [] for channel in CHANNELS}
                continue
            for channel, names in CHANNELS.items():
                valid, ready = (int(getattr(dut, f"s_axi_{channel}{name}").value) for name in ("valid", "ready"))
                payload = tuple(int(getattr(dut, f"s_axi_{name}").value) for name in names)
                if channel in waiting:
                    assert valid, f"{channel} must stay valid until it is taken"
                    assert payload == waiting.pop(channel), f"{channel} must not change until it is taken"
                elif valid:
                    self.asked[channel].append(cycle)
                if valid and ready:
                    self.transfers[channel].append((cycle, payload))
                elif valid:
                    waiting[channel] = payload
            count = {channel: len(found) for channel, found in self.transfers.items()}
            assert count["b"] <= min(count["aw"], count["w"]), "an answer must come behind address and data"
            assert count["r"] <= count["ar"], "an answer must come behind the address"


class TB:
    """Clock, reset and monitor; the master, or all channels on their own."""

    def __init__(self, dut, alone=False):
        self.dut = dut
        bus = AxiLiteBus.from_prefix(dut, "s_axi")
        domain = {"clock": dut.aclk, "reset": dut.aresetn, "reset_active_level": False}
        if alone:
            self.aw, self.w = AxiLiteAWSource(bus.write.aw, **domain), AxiLiteWSource(bus.write.w, **domain)
            self.b = AxiLiteBSink(bus.write.b, **domain)
            self.ar, self.r = AxiLiteARSource(bus.read.ar, **domain), AxiLiteRSink(bus.read.r, **domain)
        else:
            self.master = AxiLiteMaster(bus, **domain)
            write, read = self.master.write_if, self.master.read_if
            self.aw, self.w, self.b = write.aw_channel, write.w_channel, write.b_channel
            self.ar, self.r = read.ar_channel, read.r_channel
        self.channels = {"aw": self.aw, "w": self.w, "b": self.b, "ar": self.ar, "r": self.r}
        dut.aresetn.value = 0
        self.monitor = Monitor(dut)
        Clock(dut.aclk, PERIOD, "ns", impl="gpi").start()

    @classmethod
    async def reset(cls, dut, **options):
        tb = cls(dut, **options)
        await tb.pulse_reset()
        return tb

    async def pulse_reset(self):
        self.dut.aresetn.value = 0
        await ClockCycles(self.dut.aclk, 3)
        for channel in CHANNELS:
            name = "valid" if channel in "br" else "ready"
            assert not getattr(self.dut, f"s_axi_{channel}{name}").value
        self.dut.aresetn.value = 1
        await ClockCycles(self.dut.aclk, 2)

    def stall(self, rng, **shares):
        """Pause each channel in such a share of the cycles."""
        for name, share in shares.items():
            self.channels[name].set_pause_generator(iter(lambda share=share: rng.random() < share, None))

    async def read(self, address, size=4):
        """Bytes, or None if the answer is an error."""
        answer = await with_timeout(self.master.read(address, size), 1000 * PERIOD + 400 * PERIOD * size, "ns")
        assert answer.resp in (AxiResp.OKAY, AxiResp.SLVERR)
        return bytes(answer.data) if answer.resp == AxiResp.OKAY else None

    async def write(self, address, data):
        """Whether it was done."""
        answer = await with_timeout(self.master.write(address, data), 1000 * PERIOD + 400 * PERIOD * len(data), "ns")
        assert answer.resp in (AxiResp.OKAY, AxiResp.SLVERR)
        return answer.resp == AxiResp.OKAY

    async def word(self, address):
        return int.from_bytes(await self.read(address), "little")

    async def control(self, value):
        assert await self.write(CONTROL, value.to_bytes(4, "little"))

    async def run(self, case):
        place = case.program.input.address
        assert await self.write(STORE_WINDOW + place, case.compiled.input_bytes(case.x).tobytes())
        await self.control(START | INTERRUPT_ENABLE)
        if not self.dut.irq.value:
            await with_timeout(RisingEdge(self.dut.irq), 200_000 * PERIOD, "ns")
        assert await self.word(STATUS) & 0xFF00 | DONE == DONE
        place = case.program.output
        data = await self.read(STORE_WINDOW + place.address, place.size(CONFIG))
        np.testing.assert_array_equal(case.compiled.output_values(np.frombuffer(data, np.uint8)), case.output)
        assert await self.word(CYCLES) == case.cycles


@cocotb.test()
async def registers_match_the_configuration(dut):
    tb = await TB.reset(dut)
    assert await tb.word(IDENT) == VERSION | CONFIG.lanes << 16 | CONFIG.store_bytes << 24
    assert await tb.word(STORE_WORDS) == CONFIG.store_words


@cocotb.test()
async def digits_equal_golden_in_the_predicted_cycles(dut):
    tb = await TB.reset(dut)
    images, _ = digits.test_set()
    cases = [Case(digits.load(), x) for x in images[:2]]
    assert await tb.write(STORE_WINDOW, cases[0].program.assemble())
    await tb.run(cases[0])
    tb.stall(random.Random(1), aw=0.5, w=0.3, b=0.6, ar=0.2, r=0.7)
    await tb.run(cases[1])


STALLS = {
    "none": {},
    "all": {"aw": 0.5, "w": 0.5, "b": 0.5, "ar": 0.5, "r": 0.5},
    "late_addresses": {"aw": 0.9, "ar": 0.9},
    "late_data": {"w": 0.9, "r": 0.2},
    "answers_not_taken": {"b": 0.9, "r": 0.9},
    "reads_not_taken": {"r": 0.95},
    "writes_not_taken": {"b": 0.95},
}


@cocotb.test()
@cocotb.parametrize(stalls=list(STALLS))
async def bytes_equal_a_model(dut, stalls):
    """Any number of bytes from any address on, reads beside writes; canaries are around what is written."""
    tb = await TB.reset(dut)
    rng = random.Random(stalls)
    size = 256
    regions = (STORE_WINDOW, STORE_WINDOW + SIZE // 2 - size // 2, STORE_WINDOW + SIZE - size)
    model = {region: bytearray(rng.randbytes(size)) for region in regions}
    for region, data in model.items():
        assert await tb.write(region, bytes(data))
    tb.stall(rng, **STALLS[stalls])

    async def access(region, number):
        """Each of these has a third of each region to itself."""
        for _ in range(40):
            count = rng.randrange(1, 10)
            at = rng.randrange(80 * number + 8, 80 * number + 80 - count)
            if rng.random() < 0.5:
                data = rng.randbytes(count)
                assert await tb.write(region + at, data)
                model[region][at : at + count] = data
            else:
                assert await tb.read(region + at, count) == model[region][at : at + count]

    tasks = [cocotb.start_soon(access(region, number)) for region, number in zip(regions, range(3))]
    for task in tasks:
        await task
    for region, data in model.items():
        assert await tb.read(region, size) == data


@cocotb.test()
async def every_strobe_writes_its_bytes(dut):
    """Also none, and those that are not adjacent, in the store and in a register; low bits of the address change nothing."""
    tb = await TB.reset(dut, alone=True)
    rng = random.Random(2)

    async def write(address, data, strobes):
        await tb.aw.send(tb.aw._transaction_obj(awaddr=address, awprot=rng.randrange(8)))
        await tb.w.send(tb.w._transaction_obj(wdata=data, wstrb=strobes))
        assert (await tb.b.recv()).bresp == AxiResp.OKAY

    async def read(address):
        await tb.ar.send(tb.ar._transaction_obj(araddr=address, arprot=rng.randrange(8)))
        answer = await tb.r.recv()
        assert answer.rresp == AxiResp.OKAY
        return int(answer.rdata)

    expected = 0
    await write(STORE_WINDOW + 8, expected, 15)
    for strobes in rng.sample(range(16), 16):
        data = rng.getrandbits(32)
        await write(STORE_WINDOW + 8 + rng.randrange(4), data, strobes)
        mask = sum(0xFF << 8 * byte for byte in range(4) if strobes >> byte & 1)
        expected = expected & ~mask | data & mask
        assert await read(STORE_WINDOW + 8 + rng.randrange(4)) == expected
    for strobes in (0, 0b1110):
        await write(CONTROL, 0xFFFFFFFF, strobes)
        assert (await read(CONTROL), await read(STATUS)) == (0, 0)
    await write(CONTROL, INTERRUPT_ENABLE, 0b0001)
    assert await read(CONTROL) == INTERRUPT_ENABLE


@cocotb.test()
@cocotb.parametrize(first=["aw", "w", "both"])
async def address_and_data_come_in_any_order_and_answers_in_three_cycles(dut, first):
    tb = await TB.reset(dut, alone=True)
    for _ in range(3):
        if first != "w":
            await tb.aw.send(tb.aw._transaction_obj(awaddr=STORE_WINDOW, awprot=0))
        if first != "aw":
            await tb.w.send(tb.w._transaction_obj(wdata=0x12345678, wstrb=15))
        if first != "both":
            await ClockCycles(dut.aclk, 7)
            transfers = tb.monitor.transfers
            assert len(transfers["aw"]) == len(transfers["w"]) == len(transfers["b"])
        if first == "w":
            await tb.aw.send(tb.aw._transaction_obj(awaddr=STORE_WINDOW, awprot=0))
        elif first == "aw":
            await tb.w.send(tb.w._transaction_obj(wdata=0x12345678, wstrb=15))
        await tb.b.recv()
        await tb.ar.send(tb.ar._transaction_obj(araddr=STORE_WINDOW, arprot=0))
        assert int((await tb.r.recv()).rdata) == 0x12345678
    monitor = tb.monitor
    for n in range(3):
        begin = max(monitor.asked["aw"][n], monitor.asked["w"][n])
        assert [monitor.transfers[name][n][0] - begin for name in ("aw", "w", "b")] == [2, 2, 3]
        assert [monitor.transfers[name][n][0] - monitor.asked["ar"][n] for name in ("ar", "r")] == [2, 3]


@cocotb.test()
async def reads_and_writes_take_turns_every_three_cycles(dut):
    tb = await TB.reset(dut, alone=True)
    for n in range(8):
        tb.aw.send_nowait(tb.aw._transaction_obj(awaddr=STORE_WINDOW + 4 * n, awprot=0))
        tb.w.send_nowait(tb.w._transaction_obj(wdata=n, wstrb=15))
        tb.ar.send_nowait(tb.ar._transaction_obj(araddr=IDENT, arprot=0))
    for _ in range(8):
        await tb.b.recv()
        await tb.r.recv()
    transfers = tb.monitor.transfers
    order = sorted((cycle, name) for name in ("aw", "ar") for cycle, _ in transfers[name])
    assert [name for _, name in order] == ["aw", "ar"] * 8
    assert {after - before for (before, _), (after, _) in itertools.pairwise(order)} == {3}


@cocotb.test()
async def an_answer_not_taken_stops_its_own_kind_only(dut):
    tb = await TB.reset(dut)
    tb.b.pause = True
    write = cocotb.start_soon(tb.write(STORE_WINDOW, bytes(range(8))))
    await ClockCycles(dut.aclk, 10)
    assert len(tb.monitor.transfers["aw"]) == 1
    assert await tb.word(STORE_WORDS) == CONFIG.store_words
    tb.b.pause, tb.r.pause = False, True
    assert await write
    read = cocotb.start_soon(tb.read(STORE_WINDOW, 8))
    await ClockCycles(dut.aclk, 10)
    before = len(tb.monitor.transfers["ar"])
    assert await tb.write(STORE_WINDOW, bytes(8))
    await ClockCycles(dut.aclk, 10)
    assert len(tb.monitor.transfers["ar"]) == before
    tb.r.pause = False
    assert await read == bytes([0, 1, 2, 3, 0, 0, 0, 0])


@cocotb.test()
async def accesses_outside_registers_and_store_are_slave_errors(dut):
    tb = await TB.reset(dut)
    tb.stall(random.Random(4), aw=0.3, w=0.3, b=0.3, ar=0.3, r=0.3)
    canary = bytes(range(1, 5))
    ends = (STORE_WINDOW, STORE_WINDOW + SIZE - 4)
    for end in ends:
        assert await tb.write(end, canary)
    for address in NOWHERE:
        assert await tb.read(address) is None
        assert not await tb.write(address, b"\xff" * 4)
        for end in ends:
            assert await tb.read(end) == canary
    assert await tb.word(CONTROL) == 0


@cocotb.test()
async def the_store_is_a_slave_error_while_the_core_is_busy(dut):
    tb = await TB.reset(dut)
    case = Case(digits.load(), digits.test_set()[0][0])
    assert await tb.write(STORE_WINDOW, case.program.assemble())
    await tb.control(START)
    assert await tb.read(STORE_WINDOW) is None
    assert not await tb.write(STORE_WINDOW, b"\xff" * 4)
    assert await tb.word(STATUS) & (BUSY | DONE | 4) == BUSY | 4
    while await tb.word(STATUS) & BUSY:
        await ClockCycles(dut.aclk, 500)
    assert await tb.read(STORE_WINDOW, 4) == case.program.assemble()[:4]
    await tb.run(case)


@cocotb.test()
@cocotb.parametrize(kind=["write", "read"], cycle=list(range(7)))
async def reset_drops_the_transaction(dut, kind, cycle):
    """At any point in it, with its answer stalled or not."""
    tb = await TB.reset(dut)
    assert await tb.write(STORE_WINDOW, bytes(range(16)))
    for stalled in (False, True):
        tb.b.pause = tb.r.pause = stalled
        access = tb.master.write(STORE_WINDOW, bytes(range(100, 104))) if kind == "write" else tb.master.read(STORE_WINDOW, 4)
        task = cocotb.start_soon(access)
        await ClockCycles(dut.aclk, cycle)
        await FallingEdge(dut.aclk)
        await tb.pulse_reset()
        task.cancel()
        tb.b.pause = tb.r.pause = False
        assert await tb.write(STORE_WINDOW + 4, b"abcd")
        assert await tb.read(STORE_WINDOW, 4) in (bytes(range(4)), *([bytes(range(100, 104))] if kind == "write" else []))
        assert await tb.read(STORE_WINDOW + 4, 12) == b"abcd" + bytes(range(8, 16))
        assert await tb.write(STORE_WINDOW, bytes(range(16)))
