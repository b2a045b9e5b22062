"""Drivers and monitors of streams, on small components with and without faults."""

import itertools
import re

import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.sim.streams import Bench, StreamError, never, plain, randomly


class Colour(enum.Enum, shape=2):
    RED = 1


LAYOUT = data.StructLayout({"a": data.ArrayLayout(4, 2), "colour": Colour, "inner": data.StructLayout({"b": 1})})


class Register(wiring.Component):
    """A stream register; ``fault`` breaks it."""

    def __init__(self, shape=8, fault=None):
        self.fault = fault
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        age = Signal(4)
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        m.d.sync += age.eq(Mux(self.o.ready, 0, age + self.o.valid))
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.p.eq(self.i.p)]
        with m.Elif(age == 2):
            if self.fault == "falls":
                m.d.sync += self.o.valid.eq(0)
            if self.fault == "changes":
                m.d.sync += self.o.p.eq(self.o.p + 1)
        return m


@pytest.mark.parametrize("stalls", [(0, 0), (0.8, 0), (0, 0.8), (0.5, 0.5)])
def test_everything_arrives_in_order(rng, stalls):
    values = rng.integers(0, 256, 100).tolist()
    register = Register()
    bench = Bench(register)
    bench.source(register.i, values, randomly(rng, stalls[0]))
    output = bench.sink(register.o, randomly(rng, stalls[1]))
    bench.run()
    assert output.payloads == values
    assert output.cycles == sorted(set(output.cycles))


def test_cycles_count_from_the_first_edge():
    register = Register()
    bench = Bench(register)
    bench.source(register.i, [1, 2], iter([True, True, False, True, False]))
    output = bench.sink(register.o, itertools.chain([False] * 3, [True, True], never()))
    i = bench.monitor(register.i)
    bench.run()
    assert i.transfers == [(2, 1), (5, 2)]
    assert output.transfers == [(5, 1), (6, 2)]
    assert output.offers == [3, 6]


@pytest.mark.parametrize(
    "fault, message",
    [
        ("falls", "o.valid must not fall before the transfer, but did in cycle 4"),
        ("changes", "o.payload must not change before the transfer, but went from 0x7 to 0x8 in cycle 4"),
    ],
)
def test_monitor_finds(fault, message):
    register = Register(fault=fault)
    bench = Bench(register)
    bench.source(register.i, [7])
    bench.sink(register.o, itertools.repeat(True))
    with pytest.raises(StreamError, match=f"^{re.escape(message)}$"):
        bench.run()


@pytest.mark.parametrize("fault", [None, "falls", "changes"])
def test_monitor_lets_a_reset_break_promises(fault):
    register = Register(fault=fault)
    bench = Bench(register)
    source = bench.source(register.i, [7, 8])
    output = bench.sink(register.o, itertools.chain([True] * 4, never()))
    bench.run(resets={3: lambda: source.restart([9])})
    assert output.transfers == [(5, 9)]


def test_payload_is_no_constant_while_nothing_is_offered():
    register = Register(shape=12)
    bench = Bench(register)
    bench.source(register.i, [1], iter([True, False]))
    seen = []

    async def watch(ctx):
        while True:
            _, _, payload = await ctx.tick().sample(register.i.p)
            seen.append(payload)

    bench.process(watch)
    bench.sink(register.o)
    bench.run(cycles=5)
    assert seen == [0xA5A, 1, 0xFFF, 0x5A5, 0x000]


def test_payloads_are_plain():
    register = Register(shape=LAYOUT)
    bench = Bench(register)
    payload = {"a": [3, 12], "colour": Colour.RED, "inner": {"b": 1}}
    bench.source(register.i, [payload])
    output = bench.sink(register.o)
    bench.run()
    assert output.payloads == [payload]
    assert plain(5) == 5


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_pauses_have_their_share(rng, share):
    pauses = list(itertools.islice(randomly(rng, share), 4000))
    assert sum(pauses) == pytest.approx(share * 4000, abs=150)


def test_a_hang_is_an_error():
    register = Register()
    bench = Bench(register)
    bench.source(register.i, [1, 2, 3])  # and nobody takes them
    with pytest.raises(StreamError, match=r"^the simulation must end within 100 cycles$"):
        bench.run(limit=100)
