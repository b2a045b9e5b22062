"""The flash as read-only memory, on a model of the flash that checks the protocol."""

from amaranth.sim import Simulator

from gossamer.gateware.flash_rom import FlashRom
from gossamer.sim.flash import Flash

READ = 0xEB
IMAGE = bytes((7 * i ^ i >> 4) & 255 for i in range(256))


def word(address):
    return int.from_bytes(IMAGE[address : address + 4], "little")


def simulate(script):
    """Accesses ``(address, writes, pause)``; returns ``(err, word, cycles)`` of each, and the addresses that the flash was
    asked for."""
    dut = FlashRom(clock_mhz=1)
    flash = Flash(dut, IMAGE, clock_mhz=1)
    bus, answers = dut.bus, []

    async def bench(ctx):
        await ctx.tick().repeat(200)  # it wakes up
        for address, writes, pause in script:
            for signal, value in ((bus.cyc, 1), (bus.stb, 1), (bus.adr, address >> 2), (bus.we, writes), (bus.sel, 15)):
                ctx.set(signal, value)
            cycles = ack = err = found = 0
            while not ack and not err and cycles < 100:
                _, _, ack, err, found = await ctx.tick().sample(bus.ack, bus.err, bus.dat_r)
                cycles += 1
            assert ack + err == 1
            answers.append((err, found, cycles))
            ctx.set(bus.cyc, 0)
            ctx.set(bus.stb, 0)
            _, _, *again = await ctx.tick().sample(bus.ack, bus.err)
            assert again == [0, 0], "an answer must take one cycle"
            for _ in range(pause):
                await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(flash.run, background=True)
    simulator.run()
    return answers, [address for _, instruction, address, _ in flash.log if instruction == READ]


def test_words_are_those_of_the_flash(rng):
    script = [(4 * int(rng.integers(60)), 0, int(rng.integers(5)) * int(rng.integers(9))) for _ in range(60)]
    answers, _ = simulate(script)
    assert [(err, found) for err, found, _ in answers] == [(0, word(address)) for address, _, _ in script]


def test_both_halves_of_a_line_are_read_at_once():
    """First read, other half, first half again; another line, and back."""
    answers, read = simulate([(8, 0, 0), (12, 0, 0), (8, 0, 3), (16, 0, 0), (8, 0, 0), (0, 0, 0)])
    assert [found for _, found, _ in answers] == [word(address) for address in (8, 12, 8, 16, 8, 0)]
    assert [cycles for _, _, cycles in answers] == [41, 2, 2, 42, 42, 42]
    assert read == [8, 16, 8, 0]


def test_writes_are_refused_and_change_nothing():
    answers, read = simulate([(4, 1, 0), (0, 0, 0), (8, 1, 0), (4, 0, 0), (8, 0, 0)])
    assert [(err, cycles) for err, _, cycles in answers] == [(1, 2), (0, 41), (1, 2), (0, 2), (0, 42)]
    assert [answers[i][1] for i in (1, 3, 4)] == [word(0), word(4), word(8)]
    assert read == [0, 8]


def test_addresses_have_24_bits():
    """Those that differ from that of the line before in one bit; behind the image the flash is erased."""
    far = [1 << bit for bit in range(8, 24)]
    answers, _ = simulate([(address, 0, 0) for pair in ((0, at) for at in far) for address in pair])
    assert [found for _, found, _ in answers] == [word(0), 0xFFFFFFFF] * len(far)
