"""Proofs about compressor and decompressor: for all values, all stalls and all garbage, up to a number of cycles."""

from itertools import accumulate

import pytest
from amaranth.hdl import Array, Assert, Assume, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from gossamer.golden.codec import bound
from gossamer.hdl.compressor import Compressor
from gossamer.hdl.decompressor import Decompressor
from tests.formal import prove


def transfers(port):
    return port.valid & port.ready


def rules(m, port, check):
    """Once high, ``valid`` must not fall and the payload must not change before the transfer; ``check`` asserts or assumes."""
    before, waited = Signal(len(port.payload.as_value() if hasattr(port.payload, "as_value") else port.payload)), Signal()
    payload = port.payload.as_value() if hasattr(port.payload, "as_value") else port.payload
    m.d.sync += [before.eq(payload), waited.eq(port.valid & ~port.ready)]
    with m.If(waited):
        m.d.comb += check(port.valid & (payload == before))


class RoundTrip(wiring.Component):
    """Units of so many values through a compressor, a link that stalls at will, and a decompressor.

    ``offer`` says when to offer the next value, ``open`` when the link lets a halfword pass, ``take`` when the sink is ready.
    """

    def __init__(self, lengths, *, patient=True, wrong=False, alphabet=()):
        self._lengths, self._patient, self._wrong, self._alphabet = lengths, patient, wrong, alphabet
        super().__init__({"value": In(8), "signed": In(1), "offer": In(1), "open": In(1), "take": In(1), "noise": In(16)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.compressor = compressor = Compressor(lanes=2)
        m.submodules.decompressor = decompressor = Decompressor(lanes=2, values=1)
        count, ends = sum(self._lengths), list(accumulate(self._lengths))
        signed, started = Signal(), Signal()
        with m.If(~started):  # the same in all units
            m.d.sync += signed.eq(self.signed)
        kind = Mux(started, signed, self.signed)
        m.d.comb += [compressor.signed.eq(kind), decompressor.signed.eq(kind)]
        m.d.sync += started.eq(1)

        sent, given = Signal(range(count + 1)), Signal()
        values = Array(Signal(8, name=f"value{n}") for n in range(count))
        m.d.comb += [
            compressor.i.valid.eq((sent != count) & (self.offer | given)),
            compressor.i.p.data.eq(self.value),
            compressor.i.p.last.eq(one_of(sent + 1, ends)),
        ]
        if self._alphabet:
            m.d.comb += Assume(one_of(self.value, self._alphabet))
        m.d.sync += given.eq(compressor.i.valid & ~compressor.i.ready)
        rules(m, compressor.i, Assume)
        with m.If(transfers(compressor.i)):
            m.d.sync += [sent.eq(sent + 1), values[sent].eq(self.value)]

        # Behind a unit's last halfword comes noise.
        passing, ended, halfwords = Signal(), Signal(range(len(ends) + 1)), Signal(range(count + 2))
        found, between, behind = Signal(range(count + 1)), Signal(), Signal()
        m.d.comb += [
            behind.eq(Cat((ended == unit + 1) & (found < end) for unit, end in enumerate(ends)).any()),
            decompressor.i.valid.eq(behind | (compressor.o.valid & (self.open | passing))),
            decompressor.i.p.data.eq(Mux(behind, self.noise, compressor.o.p.data)),
            decompressor.i.p.outside.eq(behind),
            compressor.o.ready.eq(decompressor.i.ready & (self.open | passing) & ~behind),
            Assert(~decompressor.lost),
        ]
        m.d.sync += passing.eq(decompressor.i.valid & ~decompressor.i.ready & ~behind)
        with m.If(transfers(compressor.o)):
            m.d.sync += [ended.eq(ended + compressor.o.p.last), halfwords.eq(Mux(compressor.o.p.last, 0, halfwords + 1))]
            for unit, length in enumerate(self._lengths):
                with m.If(ended == unit):
                    m.d.comb += Assert(halfwords < bound(length) // 2)

        # The units are found one after the other, and then there is nothing left of their halfwords.
        m.d.comb += decompressor.run.eq((found != count) & ~between)
        m.d.sync += between.eq(decompressor.found & one_of(found + 1, ends))
        with m.If(decompressor.found):
            m.d.sync += found.eq(found + 1)
        for unit, end in enumerate(ends):
            with m.If(found == end):
                m.d.comb += Assert(ended == unit + 1)

        got, showing = Signal(range(count + 1)), Signal()
        m.d.comb += decompressor.o.ready.eq(self.take)
        m.d.sync += showing.eq(decompressor.found)
        for port in (compressor.o, decompressor.o):
            rules(m, port, Assert)
        with m.If(showing):
            m.d.comb += Assert(decompressor.o.valid & (found == got + 1))
        with m.If(decompressor.o.valid):
            m.d.comb += [Assert(got < sent), Assert(decompressor.o.p.data == values[got] ^ self._wrong)]
        with m.If(transfers(decompressor.o)):
            m.d.sync += got.eq(got + 1)

        # The last value comes in time, but for stalls: at worst those of the longest unit come when all of it is in.
        cycle, stalls = Signal(8), Signal(8)
        smooth = self.offer & self.open & self.take
        m.d.sync += [cycle.eq(cycle + 1), stalls.eq(stalls + ~smooth)]
        if not self._patient:
            m.d.comb += Assume(smooth)
        with m.If(got != count):
            m.d.comb += Assert(cycle <= stalls + count + max(self._lengths) + len(ends) + 1)
        return m


def one_of(signal, numbers):
    return Cat(signal == number for number in numbers).any()


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"lengths": (2, 1)}, 10),
        ({"lengths": (8,)}, 8),
        ({"lengths": (2, 1, 1), "patient": False}, 14),
        ({"lengths": (2, 1, 2), "alphabet": (0, 255)}, 12),
    ],
    ids=["any values and stalls", "the start of a longer unit", "any values", "shortest and longest codes, any stalls"],
)
def test_what_is_compressed_is_decompressed(tmp_path, options, steps):
    """The values come out, none is lost or added, none has bits from behind its unit, the length is within the bound, senders
    keep the rules, and a stall costs a cycle at most."""
    prove(RoundTrip(**options), tmp_path, steps=steps)


def test_the_proof_finds_a_wrong_bit(tmp_path):
    with pytest.raises(AssertionError, match="FAIL"):
        prove(RoundTrip((4,), wrong=True), tmp_path, steps=9)


class Garbage(wiring.Component):
    """A decompressor that is given anything."""

    def __init__(self):
        super().__init__({"run": In(1), "bits": In(16), "offer": In(1), "take": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.decompressor = dut = Decompressor(lanes=2, values=1)
        m.d.comb += [dut.run.eq(self.run), dut.i.valid.eq(self.offer), dut.i.p.data.eq(self.bits), dut.o.ready.eq(self.take)]
        first, showing = Signal(init=1), Signal()
        m.d.sync += [first.eq(~self.run | first & ~dut.found), showing.eq(dut.found)]
        with m.If(self.run & self.offer & self.take):
            m.d.comb += Assert(dut.found)
        with m.If(dut.found):
            m.d.comb += [Assert(self.run), Assert(~first | transfers(dut.i))]
        with m.If(transfers(dut.i)):
            m.d.comb += Assert(dut.found)
        with m.If(showing):
            m.d.comb += Assert(dut.o.valid)
        return m


def test_any_bits_are_a_value_in_every_cycle(tmp_path):
    """By induction; and a unit's first takes a halfword."""
    prove(Garbage(), tmp_path, steps=4, induction=True)


class Sender(wiring.Component):
    """A component whose inputs do what they like, but for ``signed``, which waits for the output."""

    def __init__(self, dut):
        self._dut = dut
        super().__init__({"inputs": In(64), "ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self._dut
        for name, member in dut.signature.members.items():
            if member.is_port and member.flow == In:
                m.d.comb += getattr(dut, name).eq(self.inputs[63])
            elif member.flow == In:
                port = getattr(dut, name)
                m.d.comb += [Value.cast(port.payload).eq(self.inputs), port.valid.eq(self.inputs[62 - len(name)])]
        m.d.comb += dut.o.ready.eq(self.ready)
        before, waited = Signal(), Signal()
        m.d.sync += [before.eq(dut.signed), waited.eq(dut.o.valid & ~dut.o.ready)]
        m.d.comb += Assume(~waited | (dut.signed == before))
        rules(m, dut.o, Assert)
        return m


@pytest.mark.parametrize(
    "dut",
    [lambda: Compressor(lanes=2), lambda: Decompressor(lanes=2, values=1), lambda: Decompressor(lanes=2, values=4)],
    ids=["compressor", "decompressor", "decompressor of four values"],
)
def test_senders_keep_the_rules_for_ever(tmp_path, dut):
    """By induction."""
    prove(Sender(dut()), tmp_path, steps=4, induction=True)
