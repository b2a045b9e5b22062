"""The SoC's bus and peripherals, without a processor: against naive models."""

import re

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.sim import Simulator

from gossamer.gateware.generate import with_contents
from gossamer.gateware.soc import Interconnect, Peripherals, Ram, Soc, emit_soc, hex_words
from gossamer.gateware.soc_registers import CORE, PERIPHERALS, RAM, ROM, SOC_REGISTERS, WINDOWS

DIVISOR = 8
BYTE = 10 * DIVISOR
UART, STATE, TIMER, CLOCK = (register.address for register in SOC_REGISTERS)
VALID = 0x100
IRQ, OVERFLOW, FRAMING, FAULT = 1, 2, 4, 8
MOST = 200  # cycles of an access


def simulate(dut, *benches, background=()):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    for bench in background:
        simulator.add_testbench(bench, background=True)
    simulator.run()


async def access(ctx, bus, address, *, data=None, sel=0b1111):
    """``(err, word, cycles)`` of an access; a cycle without one is behind it."""
    ctx.set(bus.cyc, 1)
    ctx.set(bus.stb, 1)
    ctx.set(bus.adr, address >> 2)
    ctx.set(bus.we, data is not None)
    ctx.set(bus.dat_w, 0xDEADBEEF if data is None else data)
    ctx.set(bus.sel, sel)
    cycles = ack = err = word = 0
    while not ack and not err and cycles < MOST:
        _, _, ack, err, word = await ctx.tick().sample(bus.ack, bus.err, bus.dat_r)
        cycles += 1
    assert ack + err == 1, f"an access to {address:#x} must end, with one answer"
    ctx.set(bus.cyc, 0)
    ctx.set(bus.stb, 0)
    _, _, *again = await ctx.tick().sample(bus.ack, bus.err)
    assert again == [0, 0], "an answer must take one cycle"
    return err, word, cycles


async def read(ctx, bus, address):
    _, word, _ = await access(ctx, bus, address)
    return word


async def write(ctx, bus, address, data, sel=0b1111):
    await access(ctx, bus, address, data=data, sel=sel)


# Ram


def test_ram_is_the_bytes_that_were_written(rng):
    words = 37
    dut, model = Ram(words=words), bytearray(4 * words)

    async def bench(ctx):
        for _ in range(300):
            word, data, sel = int(rng.integers(words)), int(rng.integers(1 << 32)), int(rng.integers(16))
            if rng.integers(2):
                answer = await access(ctx, dut.bus, 4 * word, data=data, sel=sel)
                for lane in range(4):
                    if sel >> lane & 1:
                        model[4 * word + lane] = data >> 8 * lane & 255
                assert (answer[0], answer[2]) == (0, 2)
            else:
                expected = int.from_bytes(model[4 * word : 4 * word + 4], "little")
                assert await access(ctx, dut.bus, 4 * word, sel=sel) == (0, expected, 2)

    simulate(dut, bench)


@pytest.mark.parametrize("words", [1, 3, 4, 768])
def test_behind_the_ram_is_nothing(words):
    """Every address whose upper bits differ in one place, and those next to the end."""
    dut = Ram(words=words)
    behind = {words, words + 1, *(1 << bit for bit in range(22) if 1 << bit >= words), (1 << 22) - 1}

    async def bench(ctx):
        for word in range(min(words, 4)):
            await write(ctx, dut.bus, 4 * word, 0x1000 + word)
        for word in sorted(behind):
            assert (await access(ctx, dut.bus, 4 * word, data=0xFFFFFFFF))[::2] == (1, 2)
            assert (await access(ctx, dut.bus, 4 * word))[::2] == (1, 2)
        for word in range(min(words, 4)):
            assert await read(ctx, dut.bus, 4 * word) == 0x1000 + word

    simulate(dut, bench)


@pytest.mark.parametrize("words", [0, (1 << 22) + 1])
def test_ram_has_limits(words):
    with pytest.raises(ValueError, match=f"^words must be 1 to 4194304, not {words}$"):
        Ram(words=words)


# Interconnect


class Slave:
    """Answers after some cycles, and says what it saw; its data tell which it is."""

    def __init__(self, bus, number, rng):
        self.bus, self.number, self.rng, self.seen = bus, number, rng, []
        self.err = False

    async def run(self, ctx):
        bus = self.bus
        while True:
            _, _, stb, adr, we, dat_w, sel = await ctx.tick().sample(
                bus.cyc & bus.stb, bus.adr, bus.we, bus.dat_w, bus.sel
            )
            if stb:
                self.seen.append((4 * adr, we, dat_w, sel))
                for _ in range(int(self.rng.integers(4))):
                    await ctx.tick()
                self.err = bool(self.rng.integers(2))
                ctx.set(bus.dat_r, self.number << 24 | adr)
                ctx.set(bus.err if self.err else bus.ack, 1)
                await ctx.tick()
                ctx.set(bus.err, 0)
                ctx.set(bus.ack, 0)


@pytest.mark.parametrize("rom", [False, True])
def test_accesses_reach_the_slave_of_their_window_and_no_other(rng, rom):
    dut = Interconnect(rom=rom)
    names = [name for name in WINDOWS if rom or name != "rom"]
    slaves = {name: Slave(getattr(dut, name), number + 1, rng) for number, name in enumerate(names)}
    bases = sorted(WINDOWS.values())
    edges = [base + at for base in bases for at in (0, 4, 0xFFFFFC)]
    outside = [base + at for base in bases for at in (-4, 1 << 24, 1 << 25, 1 << 28)]
    flipped_bits = [base ^ 1 << bit for base in bases for bit in range(24, 32)]
    anywhere = [int(word) * 4 for word in rng.integers(1 << 30, size=40)]
    addresses = [address % (1 << 32) for address in (*edges, *outside, *flipped_bits, *anywhere)]

    async def bench(ctx):
        cpu = dut.cpu
        for address in addresses:
            home = next((name for name in names if address >> 24 == WINDOWS[name] >> 24), None)
            writes, data, sel = int(rng.integers(2)), int(rng.integers(1 << 32)), int(rng.integers(1, 16))
            for signal, value in ((cpu.cyc, 1), (cpu.stb, 1), (cpu.adr, address >> 2), (cpu.we, writes)):
                ctx.set(signal, value)
            ctx.set(cpu.dat_w, data)
            ctx.set(cpu.sel, sel)
            cycles = ack = fault = word = 0
            while not ack and cycles < 20:
                assert not fault
                _, _, ack, err, fault, word = await ctx.tick().sample(cpu.ack, cpu.err, dut.fault, cpu.dat_r)
                assert not err
                cycles += 1
            assert ack, f"{address:#x} must be answered"
            ctx.set(cpu.cyc, 0)
            ctx.set(cpu.stb, 0)
            seen = {name: slave.seen for name, slave in slaves.items() if slave.seen}
            if home is None:
                assert (seen, fault, cycles) == ({}, 1, 2), f"{address:#x}"
            else:
                slave = slaves[home]
                assert seen == {home: [(address & 0xFFFFFC, writes, data, sel)]}, f"{address:#x}"
                assert fault == slave.err
                if not slave.err:
                    assert word == slave.number << 24 | (address & 0xFFFFFC) >> 2
                slave.seen.clear()
            _, _, *idle = await ctx.tick().sample(cpu.ack, dut.fault)
            assert idle == [0, 0]

    simulate(dut, bench, background=[slave.run for slave in slaves.values()])


# Peripherals


def peripherals(**changes):
    return Peripherals(**{"divisor": DIVISOR, "clock_mhz": 24, **changes})


async def send(ctx, pin, data, *, stop=1):
    """Bytes on the line to the SoC."""
    for byte in data:
        for bit in (0, *(byte >> i & 1 for i in range(8)), stop):
            ctx.set(pin, bit)
            await ctx.tick().repeat(DIVISOR)
    ctx.set(pin, 1)


def test_sent_bytes_are_on_the_line_one_behind_the_other():
    dut, data, found = peripherals(), b"\x00\xffU\xaa!", bytearray()

    async def bench(ctx):
        waits = [(await access(ctx, dut.bus, UART, data=byte | 0xABCDEF00))[2] for byte in data]
        assert waits[0] == 2
        assert all(BYTE - 10 <= cycles <= BYTE + 2 for cycles in waits[1:])
        await ctx.tick().repeat(BYTE + 2)
        assert bytes(found) == data

    async def line(ctx):
        while True:
            while ctx.get(dut.tx):
                await ctx.tick()
            await ctx.tick().repeat(DIVISOR // 2)
            bits = []
            for _ in range(10):
                bits.append(ctx.get(dut.tx))
                if len(bits) < 10:
                    await ctx.tick().repeat(DIVISOR)
            assert (bits[0], bits[9]) == (0, 1)
            found.append(sum(bit << i for i, bit in enumerate(bits[1:9])))

    simulate(dut, bench, background=[line])


def test_a_byte_that_is_not_written_is_not_sent():
    dut = peripherals()

    async def bench(ctx):
        for sel in (0, 0b1110):
            assert (await access(ctx, dut.bus, UART, data=0, sel=sel))[2] == 2
        for _ in range(2 * BYTE):
            assert ctx.get(dut.tx)
            await ctx.tick()

    simulate(dut, bench)


def test_received_bytes_wait_in_their_order():
    dut, data = peripherals(), bytes(range(7, 47))

    async def bench(ctx):
        assert not await read(ctx, dut.bus, UART) & VALID
        await send(ctx, dut.rx, data)
        await ctx.tick().repeat(4)
        await write(ctx, dut.bus, UART + 4, 0)
        assert [await read(ctx, dut.bus, UART) for _ in data] == [VALID | byte for byte in data]
        assert not await read(ctx, dut.bus, UART) & VALID
        assert await read(ctx, dut.bus, STATE) == 0

    simulate(dut, bench)


def test_bytes_are_read_while_they_come(rng):
    """Again and again around the ring: none is lost, doubled, or seen before it is there."""
    dut, data, found = peripherals(), bytes(rng.integers(0, 256, 300, dtype="uint8")), bytearray()

    async def pc(ctx):
        await send(ctx, dut.rx, data)

    async def bench(ctx):
        while len(found) < len(data):
            word = await read(ctx, dut.bus, UART)
            if word & VALID:
                found.append(word & 255)
            await ctx.tick().repeat(int(rng.integers(1, 150)))
        assert bytes(found) == data

    simulate(dut, pc, bench)


def test_a_byte_is_valid_when_it_is_there():
    """Reads that end in each of the cycles around its arrival, which is that of half a stop bit, and the synchroniser's two."""
    dut, found = peripherals(), []

    async def pc(ctx):
        for byte in range(1, 21):
            await send(ctx, dut.rx, bytes([11 * byte]))
            await ctx.tick().repeat(2 * BYTE)

    async def bench(ctx):
        for byte in range(1, 21):
            await ctx.tick().repeat(BYTE - 18 + byte)
            words = [await read(ctx, dut.bus, UART)]
            await ctx.tick().repeat(BYTE + 12 - byte)
            words.append(await read(ctx, dut.bus, UART))
            found.append([word & 255 for word in words if word & VALID])
            await ctx.tick().repeat(BYTE)

    simulate(dut, pc, bench)
    assert found == [[11 * byte] for byte in range(1, 21)]


def test_the_256th_byte_that_waits_is_lost_and_that_shows():
    dut, data = peripherals(), bytes(i % 251 for i in range(258))

    async def bench(ctx):
        await send(ctx, dut.rx, data[:255])
        await ctx.tick().repeat(4)
        assert await read(ctx, dut.bus, STATE) == 0
        await send(ctx, dut.rx, data[255:257])
        await ctx.tick().repeat(4)
        assert await read(ctx, dut.bus, STATE) == OVERFLOW
        assert await read(ctx, dut.bus, UART) == VALID | data[0]
        await send(ctx, dut.rx, data[257:])
        await ctx.tick().repeat(4)
        kept = data[1:255] + data[257:]
        assert [await read(ctx, dut.bus, UART) for _ in kept] == [VALID | byte for byte in kept]
        assert not await read(ctx, dut.bus, UART) & VALID
        await write(ctx, dut.bus, STATE, 0)
        assert await read(ctx, dut.bus, STATE) == 0

    simulate(dut, bench)


def test_state_shows_errors_until_it_is_written():
    dut = peripherals()

    async def bench(ctx):
        ctx.set(dut.irq, 1)
        assert await read(ctx, dut.bus, STATE) == IRQ
        ctx.set(dut.irq, 0)
        ctx.set(dut.fault, 1)
        await ctx.tick()
        ctx.set(dut.fault, 0)
        assert ctx.get(dut.faulty)
        await send(ctx, dut.rx, b"x", stop=0)
        await ctx.tick().repeat(2 * BYTE)
        assert await read(ctx, dut.bus, STATE) == FAULT | FRAMING
        assert not await read(ctx, dut.bus, UART) & VALID
        await write(ctx, dut.bus, STATE, 0xFFFFFFFF)
        assert await read(ctx, dut.bus, STATE) == 0
        assert not ctx.get(dut.faulty)

    simulate(dut, bench)


def test_a_fault_while_state_is_cleared_is_not_forgotten():
    dut = peripherals()

    async def bench(ctx):
        ctx.set(dut.fault, 1)
        await write(ctx, dut.bus, STATE, 0)
        ctx.set(dut.fault, 0)
        assert await read(ctx, dut.bus, STATE) == FAULT

    simulate(dut, bench)


def test_the_timer_counts_cycles_and_is_not_written():
    dut = peripherals(clock_mhz=0x1234)

    async def bench(ctx):
        first = await read(ctx, dut.bus, TIMER)
        await write(ctx, dut.bus, TIMER, 0)
        await ctx.tick().repeat(100)
        assert await read(ctx, dut.bus, TIMER) - first == 106  # two accesses of three cycles
        await write(ctx, dut.bus, CLOCK, 0)
        assert await read(ctx, dut.bus, CLOCK) == 0x1234

    simulate(dut, bench)


def test_there_are_four_registers():
    dut = peripherals()

    async def bench(ctx):
        for address in (0x10, 0x14, *(1 << bit for bit in range(5, 24)), 0xFFFFFC):
            for data in (None, 0x55):
                assert (await access(ctx, dut.bus, address, data=data))[::2] == (1, 2)
        for _ in range(BYTE):
            assert ctx.get(dut.tx)
            await ctx.tick()
        assert await read(ctx, dut.bus, STATE) == 0

    simulate(dut, bench)


def test_reset_drops_what_is_on_its_way():
    dut, reset = peripherals(), Signal()
    m = Module()
    m.submodules.dut = ResetInserter(reset)(dut)

    async def bench(ctx):
        await send(ctx, dut.rx, b"ab")
        ctx.set(dut.fault, 1)
        await write(ctx, dut.bus, UART, 0)
        ctx.set(dut.fault, 0)
        assert not ctx.get(dut.tx)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        assert ctx.get(dut.tx)
        assert await read(ctx, dut.bus, TIMER) == 1
        assert not await read(ctx, dut.bus, UART) & VALID
        assert await read(ctx, dut.bus, STATE) == 0

    simulate(m, bench)


def test_clock_mhz_has_16_bits():
    with pytest.raises(ValueError, match=r"^clock_mhz must be 0 to 65535, not 65536$"):
        peripherals(clock_mhz=1 << 16)


# The whole


def soc(**changes):
    return Soc(**{"cpu": "picorv32", "ram_words": 5, "divisor": DIVISOR, "clock_mhz": 24, **changes})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cpu": "z80"}, "cpu must be one of picorv32, serv, not 'z80'"),
        ({"reset_address": 2}, "reset_address must be a multiple of 4 of 32 bits, not 0x2"),
        ({"cpu": "serv", "reset_address": 1 << 32}, "reset_address must be a multiple of 4 of 32 bits, not 0x100000000"),
        ({"divisor": 7}, "divisor must be at least 8, not 7"),
    ],
)
def test_each_message(changes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        soc(**changes)


def test_windows_do_not_overlap():
    assert sorted({base >> 24 for base in (RAM, ROM, CORE, PERIPHERALS)}) == [0x00, 0x20, 0x40, 0x80]
    assert list(WINDOWS.values()) == [RAM, ROM, CORE, PERIPHERALS]


def test_the_ram_begins_with_the_contents():
    """And nothing else of the Verilog changes."""
    plain, filled = emit_soc(soc(), ""), emit_soc(soc(), 'initial $readmemh("x", memory);')
    assert filled.replace('  initial $readmemh("x", memory);\n', "") == plain
    module = re.search(r"^module \\gossamer_soc\.ram .*?^endmodule", filled, re.DOTALL | re.MULTILINE)[0]
    assert '  initial $readmemh("x", memory);\n' in module
    assert "for (" not in module
    with pytest.raises(AssertionError, match="what is filled must be one memory"):
        with_contents(filled, "ram", "")


def test_hex_words_are_little_endian():
    assert hex_words(b"\x01\x02\x03\x04\xff") == "04030201\n000000ff\n"
    assert hex_words(b"") == ""


@pytest.mark.parametrize("cpu", ["picorv32", "serv"])
def test_the_verilog_names_its_processor(cpu):
    """And where it starts, and has the ports of a SoC."""
    verilog = emit_soc(soc(cpu=cpu, rom=True, reset_address=ROM + (1 << 20)), "")
    instance = re.search(r"^  (\w+) #\((.*?)\) cpu \(", verilog, re.DOTALL | re.MULTILINE)
    parameter = {"picorv32": "PROGADDR_RESET", "serv": "RESET_PC"}[cpu]
    assert instance[1] == {"picorv32": "picorv32", "serv": "serv_rf_top"}[cpu]
    assert re.search(rf"\.{parameter}\((32'h20100000|32'd{0x20100000})\)", instance[2]), instance[2]
    for port in ("wb_cyc", "wb_err", "rom_adr", "rx", "tx", "irq", "failed"):
        assert re.search(rf"^  (input|output) (\[.*\] )?{port};", verilog, re.MULTILINE), port
