"""AXI4-Lite: the bridge alone, with proofs of its contract, and the core behind it with the bus models of others."""

from importlib.util import find_spec

import pytest
from amaranth.hdl import Assert, Assume, Cat, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from gossamer.gateware.axi4lite import OKAY, SLVERR, Axi4LiteBridge, axi4lite_signature
from gossamer.golden.spec import CONFIGS
from gossamer.sim.cocotb_runner import run_bench
from tests.formal import prove

INPUTS = {name: member.shape for name, member in axi4lite_signature().members.items() if member.flow == Out}
"""What a master drives."""
PAYLOADS = {"aw": ("addr", "prot"), "w": ("data", "strb"), "b": ("resp",), "ar": ("addr", "prot"), "r": ("data", "resp")}


def test_bench(tmp_path):
    assert find_spec("cocotbext.axi"), "the bench needs cocotbext-axi: pip install 'gossamer[dev]'"
    results = run_bench(CONFIGS["gw1n9"], "tests.gateware.bench_axi4lite", tmp_path, bus="axi4lite")
    assert len(results) > 30
    failures = [f"{test}: {message}" for test, message in results.items() if message]
    if failures:
        pytest.fail("\n".join([*failures, f"Log: {tmp_path / 'bench.log'}"]), pytrace=False)


# Proofs


class Contract(wiring.Component):
    """The bridge between a master and a bus that do what they may.

    ``prompt``: the bus answers in the second cycle, as the core does, and the master takes all answers at once. ``wrong``
    breaks one of the claims.
    """

    def __init__(self, *, prompt=False, wrong=False):
        self._prompt, self._wrong = prompt, wrong
        super().__init__({**{name: In(shape) for name, shape in INPUTS.items()}, "ack": In(1), "err": In(1), "dat_r": In(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge = bridge = Axi4LiteBridge()
        axi, bus = bridge.axi, bridge.bus
        m.d.comb += [getattr(axi, name).eq(getattr(self, name)) for name in INPUTS]
        m.d.comb += [bus.ack.eq(self.ack), bus.err.eq(self.err), bus.dat_r.eq(self.dat_r)]
        answer = bus.ack | bus.err
        m.d.comb += Assume(~(bus.ack & bus.err) & ~(answer & ~bus.stb))
        if self._prompt:
            second = Signal()
            m.d.sync += second.eq(bus.stb & ~answer)
            m.d.comb += [Assume(answer == (bus.stb & second)), Assume(axi.bready & axi.rready)]

        # What is valid stays so, and does not change, until it is taken: the master's channels, the answers, the bus.
        for channel, names in PAYLOADS.items():
            payload = Cat(getattr(axi, channel + name) for name in names)
            check = Assert if channel in ("b", "r") else Assume
            kept(m, getattr(axi, f"{channel}valid"), getattr(axi, f"{channel}ready"), payload, check)
        kept(m, bus.stb, answer, Cat(bus.adr, bus.we, bus.sel, Mux(bus.we, bus.dat_w, 0)), Assert)
        m.d.comb += Assert(bus.cyc == bus.stb)

        # Each answer of the bus is one transaction, and the bus was asked what the master asks.
        taken = {channel: getattr(axi, f"{channel}valid") & getattr(axi, f"{channel}ready") for channel in PAYLOADS}
        m.d.comb += [
            Assert(taken["aw"] == taken["w"]),
            Assert(taken["aw"] == (answer & bus.we)),
            Assert(taken["ar"] == (answer & ~bus.we)),
        ]
        with m.If(bus.stb & bus.we):
            m.d.comb += Assert(axi.awvalid & axi.wvalid & (bus.adr == axi.awaddr[2:]))
            m.d.comb += Assert((bus.dat_w == axi.wdata) & (bus.sel == axi.wstrb) & ~axi.bvalid)
        with m.If(bus.stb & ~bus.we):
            m.d.comb += Assert(axi.arvalid & (bus.adr == axi.araddr[2:]) & (bus.sel == 0b1111) & ~axi.rvalid)

        # Each transaction has one answer, and that is the bus's.
        for request, channel in (("aw", "b"), ("ar", "r")):
            due, failed, data = Signal(), Signal(), Signal(32)
            with m.If(taken[channel]):
                m.d.sync += due.eq(0)
            with m.If(taken[request]):
                m.d.sync += [due.eq(1), failed.eq(bus.err), data.eq(bus.dat_r ^ self._wrong)]
                m.d.comb += Assert(~due | taken[channel])
            m.d.comb += Assert(getattr(axi, f"{channel}valid") == due)
            with m.If(due):
                m.d.comb += Assert(getattr(axi, f"{channel}resp") == Mux(failed, SLVERR, OKAY))
                if channel == "r":
                    m.d.comb += Assert(axi.rdata == data)

        # Nobody waits longer than for one transaction of the other kind.
        if self._prompt:
            for name, waits in (("w", axi.awvalid & axi.wvalid & ~axi.awready), ("r", axi.arvalid & ~axi.arready)):
                waited = Signal(4, name=f"waited_{name}")
                m.d.sync += waited.eq(Mux(waits, waited + 1, 0))
                m.d.comb += Assert(waited <= 5)
        return m


def kept(m, valid, ready, payload, check):
    waited, before = Signal(), Signal.like(payload)
    m.d.sync += [waited.eq(valid & ~ready), before.eq(payload)]
    with m.If(waited):
        m.d.comb += check(valid & (payload == before))


@pytest.mark.parametrize("prompt", [False, True])
def test_the_contract_holds_for_ever(tmp_path, prompt):
    """By induction, for all masters that keep the rules, and any bus or one as fast as the core's."""
    prove(Contract(prompt=prompt), tmp_path, steps=8, induction=True)


def test_the_proof_finds_a_wrong_bit(tmp_path):
    with pytest.raises(AssertionError, match="FAIL"):
        prove(Contract(wrong=True), tmp_path, steps=6)


# In Amaranth's simulator


def simulate(process):
    dut = Axi4LiteBridge()
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def testbench(ctx):
        await process(ctx, dut)

    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("channel, name", [("aw", "valid"), ("aw", "addr"), ("w", "valid"), ("w", "strb"), ("ar", "valid")])
def test_masters_that_break_the_rules_are_found(channel, name):
    async def process(ctx, dut):
        axi = dut.axi
        ctx.set(getattr(axi, f"{channel}valid"), 1)
        await ctx.tick()
        ctx.set(getattr(axi, channel + name), name != "valid")
        await ctx.tick()
        await ctx.tick()

    message = rf"^Assertion violated: {channel} must stay valid, and the same, until it is taken$"
    with pytest.raises(AssertionError, match=message):
        simulate(process)


def test_no_output_depends_combinationally_on_an_input(rng):
    """In all states that a master and a bus as fast as the core's can bring about."""
    states = set()

    async def process(ctx, dut):
        axi, bus = dut.axi, dut.bus
        outputs = [name for name, member in axi4lite_signature().members.items() if member.flow == In]

        def observe():
            return [ctx.get(getattr(axi, name)) for name in outputs]

        asked = False
        valid = dict.fromkeys(("awvalid", "wvalid", "arvalid"), 0)
        for _ in range(300):
            asked = bool(ctx.get(bus.stb)) and not asked
            error = bool(rng.random() < 0.3)
            ctx.set(bus.ack, 0)
            ctx.set(bus.err, 0)
            valid = {name: old or int(rng.random() < 0.5) for name, old in valid.items()}
            inputs = {**valid, "bready": int(rng.random() < 0.5), "rready": int(rng.random() < 0.5)}
            if ctx.get(bus.stb) and not asked:
                ctx.set(bus.err if error else bus.ack, 1)
            before = observe()
            states.add(tuple(before))
            for name, shape in INPUTS.items():
                ctx.set(getattr(axi, name), int(rng.integers(1 << Shape.cast(shape).width)))
                assert observe() == before
            for name in INPUTS:
                ctx.set(getattr(axi, name), inputs.get(name, 0))
            valid = {name: value and not ctx.get(getattr(axi, name.replace("valid", "ready"))) for name, value in valid.items()}
            await ctx.tick()

    simulate(process)
    assert len(states) > 6
