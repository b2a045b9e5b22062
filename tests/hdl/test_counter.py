"""Counters that can be loaded, and counts of bits."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from gossamer.hdl.counter import counted, popcount
from gossamer.sim.streams import Bench


class Counter(wiring.Component):
    def __init__(self, width):
        super().__init__({"load": In(1), "value": In(width), "count": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(counted(self.count, self.load, self.value))
        return m


@pytest.mark.parametrize("width", [1, 2, 5])
def test_counts_around_and_takes_every_value(rng, width):
    dut, seen = Counter(width), []
    bench = Bench(dut)
    table = [(0, value) for value in range(3 << width)] + [(1, value) for value in range(1 << width)]
    table += [(int(rng.random() < 0.3), int(rng.integers(1 << width))) for _ in range(50)]

    async def drive(ctx):
        for load, value in table:
            ctx.set(dut.load, load)
            ctx.set(dut.value, value)
            seen.append((await ctx.tick().sample(dut.count))[2])

    bench.process(drive)
    bench.run(cycles=len(table) + 1)
    expected = [0]
    for load, value in table[:-1]:
        expected.append(value if load else (expected[-1] + 1) % (1 << width))
    assert seen == expected


class Population(wiring.Component):
    def __init__(self, width):
        super().__init__({"bits": In(width), "count": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.count.eq(popcount(self.bits))
        return m


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 16, 64])
def test_popcount_counts_the_bits_that_are_set(rng, width):
    dut, seen = Population(width), []
    numbers = [*range(min(1 << width, 256)), *(1 << bit for bit in range(width)), (1 << width) - 1]
    numbers += [int.from_bytes(rng.bytes(8), "little") >> 64 - width for _ in range(20)]

    async def drive(ctx):
        for number in numbers:
            ctx.set(dut.bits, number)
            await ctx.delay(1e-9)
            seen.append(ctx.get(dut.count))

    simulator = Simulator(dut)
    simulator.add_testbench(drive)
    simulator.run()
    assert seen == [number.bit_count() for number in numbers]
