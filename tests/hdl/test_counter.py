"""Counters that can be loaded."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gossamer.hdl.counter import counted
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
