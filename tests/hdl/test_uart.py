"""The serial receiver and transmitter, against a line that is computed in exact time."""

import re

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.sim import Simulator

from gossamer.hdl.uart import FRAME_BITS, UartReceiver, UartTransmitter

DIVISORS = [8, 9, 24, 33]


def frame(byte, stop=1):
    """Levels of one byte on the line, bit by bit."""
    return [0, *((byte >> i) & 1 for i in range(8)), stop]


def waveform(bits, cycles_per_bit, start=0.0):
    """Level in each clock cycle of a line whose bits take ``cycles_per_bit``, any real number; idle before and after."""
    total = int(start + len(bits) * cycles_per_bit) + 1
    position = ((cycle - start) / cycles_per_bit for cycle in range(total))
    return [bits[int(p)] if 0 <= p < len(bits) else 1 for p in position]


def decode(line, divisor):
    """Bytes on a line, as ``(first cycle of the start bit, byte)``, with every bit of its exact length."""
    found, cycle = [], 0
    while cycle < len(line):
        if line[cycle]:
            cycle += 1
            continue
        levels = line[cycle : cycle + FRAME_BITS * divisor]
        if len(levels) < FRAME_BITS * divisor:
            break  # the recording ends within a byte
        bits = levels[::divisor]
        assert levels == [bit for bit in bits for _ in range(divisor)], "all bits must have the same length"
        assert bits[0] == 0
        assert bits[9] == 1
        found.append((cycle, sum(bit << i for i, bit in enumerate(bits[1:9]))))
        cycle += FRAME_BITS * divisor
    return found


def run(dut, testbench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def receive(divisor, line):
    """``(cycle, byte)``, or ``(cycle, None)`` for a framing error, of what the receiver makes of ``line``."""
    dut = UartReceiver(divisor=divisor)
    found = []

    async def testbench(ctx):
        for cycle, level in enumerate([*line, *[1] * 3 * FRAME_BITS * divisor]):
            ctx.set(dut.pin, level)
            if ctx.get(dut.o.valid):
                found.append((cycle, ctx.get(dut.o.p)))
            if ctx.get(dut.error):
                found.append((cycle, None))
            await ctx.tick()

    run(dut, testbench)
    return found


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("mismatch", [0.98, 1.0, 1.02])
def test_receiver_takes_a_sender_two_percent_off(rng, divisor, mismatch):
    data = [0x00, 0xFF, 0x55, 0xAA, *rng.integers(0, 256, 12).tolist()]
    line = []
    for byte in data:  # back to back, each with an edge at another fraction of a cycle
        line += waveform(frame(byte), divisor * mismatch, rng.random())
    assert [byte for _, byte in receive(divisor, line)] == data


@pytest.mark.parametrize("divisor", DIVISORS)
def test_receiver_delivers_in_the_centre_of_the_stop_bit(divisor):
    line = [1] * 5 + waveform(frame(0x5A), divisor)
    assert receive(divisor, line) == [(5 + 9 * divisor + divisor // 2 + 1, 0x5A)]


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x80, 0x01])
def test_receiver_drops_a_byte_with_a_low_stop_bit(divisor, byte):
    line = waveform(frame(byte, stop=0), divisor) + [1] * divisor + waveform(frame(0x42), divisor)
    assert [found for _, found in receive(divisor, line)] == [None, 0x42]


def test_receiver_reports_a_line_held_low_once():
    line = [0] * 500 + [1] * 20 + waveform(frame(0x42), 8)
    assert [found for _, found in receive(8, line)] == [None, 0x42]


@pytest.mark.parametrize("divisor", DIVISORS)
def test_receiver_takes_a_short_low_level_for_noise(divisor):
    noise = [0] * (divisor // 2 - 1) + [1] * 3
    assert [byte for _, byte in receive(divisor, [*noise * 3, *waveform(frame(0x42), divisor)])] == [0x42]


def test_receiver_takes_half_a_bit_for_a_start_bit():
    assert [byte for _, byte in receive(8, [1, 1, *[0] * 4, *[1] * 100])] == [0xFF]


@pytest.mark.parametrize("bit", range(FRAME_BITS - 1))
def test_reset_drops_the_byte_that_is_being_received(bit):
    divisor = 8
    dut, reset = UartReceiver(divisor=divisor), Signal()
    found = []

    async def testbench(ctx):
        first = waveform(frame(0xFF), divisor)  # high from the second bit: nothing that could be a new start bit
        for cycle, level in enumerate([*first, *[1] * divisor, *waveform(frame(0x42), divisor), *[1] * divisor]):
            ctx.set(dut.pin, level)
            ctx.set(reset, cycle == bit * divisor + 7)
            if ctx.get(dut.o.valid | dut.error):
                found.append(ctx.get(dut.o.p))
            await ctx.tick()

    run(ResetInserter(reset)(dut), testbench)
    assert found == [0x42]


@pytest.mark.parametrize("cycle", range(103, 150))
def test_reset_ends_the_wait_for_a_high_line(cycle):
    """The line is high from cycle 100, behind the synchroniser from 102."""
    dut, reset = UartReceiver(divisor=8), Signal()
    found = []

    async def testbench(ctx):
        for now, level in enumerate([0] * 100 + [1] * 60 + waveform(frame(0x42), 8) + [1] * 20):
            ctx.set(dut.pin, level)
            ctx.set(reset, now == cycle)
            if ctx.get(dut.o.valid):
                found.append(ctx.get(dut.o.p))
            await ctx.tick()

    run(ResetInserter(reset)(dut), testbench)
    assert found == [0x42]


def transmit(divisor, data, gaps):
    """The line, cycle by cycle, and the cycles of the transfers; ``gaps`` are cycles without ``valid`` before each byte."""
    dut = UartTransmitter(divisor=divisor)
    line, transfers = [], []

    async def testbench(ctx):
        queue, gap = list(data), [*gaps, 0]
        for cycle in range(sum(gaps) + (len(data) + 1) * FRAME_BITS * divisor):
            valid = bool(queue) and gap[0] == 0
            gap[0] = max(gap[0] - 1, 0)
            ctx.set(dut.i.valid, valid)
            ctx.set(dut.i.p, queue[0] if valid else 0x5A)
            line.append(ctx.get(dut.pin))
            if valid and ctx.get(dut.i.ready):
                transfers.append(cycle)
                queue.pop(0)
                gap.pop(0)
            await ctx.tick()
        assert not queue

    run(dut, testbench)
    return line, transfers


@pytest.mark.parametrize("divisor", DIVISORS)
def test_transmitter_matches_the_naive_decoder(rng, divisor):
    data = [0x00, 0xFF, *rng.integers(0, 256, 10).tolist()]
    line, transfers = transmit(divisor, data, rng.integers(0, 15 * divisor, len(data)).tolist())
    assert decode(line, divisor) == [(cycle + 1, byte) for cycle, byte in zip(transfers, data)]


@pytest.mark.parametrize("divisor", DIVISORS)
def test_transmitter_sends_a_byte_per_ten_bits(divisor):
    _, transfers = transmit(divisor, [1, 2, 3, 4], [0] * 4)
    assert transfers == [n * FRAME_BITS * divisor for n in range(4)]


def test_reset_of_the_transmitter_makes_the_line_idle():
    dut, reset = UartTransmitter(divisor=8), Signal()
    line = []

    async def testbench(ctx):
        ctx.set(dut.i.p, 0x00)
        for cycle in range(200):
            ctx.set(dut.i.valid, cycle in (0, 50))
            ctx.set(reset, cycle == 30)
            line.append(ctx.get(dut.pin))
            await ctx.tick()

    run(ResetInserter(reset)(dut), testbench)
    assert not any(line[1:31])
    assert all(line[31:51])
    assert decode(line[31:], 8) == [(20, 0x00)]


@pytest.mark.parametrize("divisor", DIVISORS)
def test_loopback(rng, divisor):
    transmitter, receiver = UartTransmitter(divisor=divisor), UartReceiver(divisor=divisor)
    data = rng.integers(0, 256, 20).tolist()
    found = []

    async def testbench(ctx):
        queue, gap = list(data), 0
        while len(found) < len(data):
            ctx.set(transmitter.i.valid, bool(queue) and gap == 0)
            ctx.set(transmitter.i.p, queue[0] if queue and gap == 0 else 0x5A)
            gap = max(gap - 1, 0)
            assert not ctx.get(receiver.error)
            if ctx.get(receiver.o.valid):
                found.append(ctx.get(receiver.o.p))
            if ctx.get(transmitter.i.valid & transmitter.i.ready):
                queue.pop(0)
                gap = int(rng.choice([0, 0, 1, 10 * divisor, 11 * divisor]))
            await ctx.tick()

    m = Module()
    m.submodules.transmitter, m.submodules.receiver = transmitter, receiver
    m.d.comb += receiver.pin.eq(transmitter.pin)
    run(m, testbench)
    assert found == data


@pytest.mark.parametrize("component", [UartReceiver, UartTransmitter])
@pytest.mark.parametrize("divisor", [0, 7])
def test_divisor_must_be_8(component, divisor):
    with pytest.raises(ValueError, match=f"^{re.escape(f'divisor must be at least 8, not {divisor}')}$"):
        component(divisor=divisor)
