"""The store, against a list of bytes. The ice40 variant is vendor cells: here only its constructor's check."""

import re

import pytest

from gossamer.hdl.store import Store
from gossamer.sim.streams import Bench

SHAPES = [(1, 1), (1, 33), (4, 3), (8, 16), (16, 7)]


def play(dut, table, resets=()):
    """Drive one row of ``table`` per cycle: ``(read address or None, (write address, data, mask) or None)``.

    Returns ``(ready, data)`` of each cycle. What is not asked for is noise."""
    bench = Bench(dut)
    seen = []

    async def drive(ctx):
        last = dut.write.data.shape().width
        for read, write in table:
            ctx.set(dut.read.en, read is not None)
            ctx.set(dut.read.address, 0 if read is None else read)
            ctx.set(dut.write.en, write is not None)
            address, data, mask = (0, (1 << last) - 1, -1) if write is None else write
            ctx.set(dut.write.address, address)
            ctx.set(dut.write.data, data)
            ctx.set(dut.write.mask, mask)
            seen.append((await ctx.tick().sample(dut.read.ready, dut.read.data))[2:])

    bench.process(drive)
    bench.run(cycles=len(table) + 1, resets={cycle: lambda: None for cycle in resets})
    return seen


def expect(table, store_bytes, store_words, ports):
    """``(ready, data or None)`` of each cycle, from a memory of bytes; the memory must begin with a write to every word."""
    memory = [None] * (store_bytes * store_words)
    expected, data = [], None
    for read, write in table:
        ready = ports == 2 or write is None
        expected.append((ready, data))
        data = None
        if read is not None and ready:
            data = memory[read * store_bytes : (read + 1) * store_bytes]
        if write is not None:
            address, word, mask = write
            for byte in range(store_bytes):
                if mask >> byte & 1:
                    memory[address * store_bytes + byte] = word >> 8 * byte & 0xFF
    return expected


def check(seen, expected):
    assert len(seen) == len(expected)
    for cycle, ((ready, data), (expected_ready, expected_data)) in enumerate(zip(seen, expected)):
        assert ready == expected_ready, f"cycle {cycle}"
        if expected_data is not None:
            assert data == int.from_bytes(bytes(expected_data), "little"), f"cycle {cycle}"


def word(rng, store_bytes):
    return int.from_bytes(rng.bytes(store_bytes), "little")


def fill(rng, store_bytes, store_words):
    """A write to each word."""
    return [(None, (address, word(rng, store_bytes), (1 << store_bytes) - 1)) for address in range(store_words)]


@pytest.mark.parametrize("ports", [1, 2])
@pytest.mark.parametrize("store_bytes, store_words", SHAPES)
@pytest.mark.parametrize("reads, writes", [(0.9, 0.2), (0.2, 0.9), (1, 0.5)])
def test_matches_a_list_of_bytes(rng, ports, store_bytes, store_words, reads, writes):
    table = fill(rng, store_bytes, store_words)
    for _ in range(150):
        read = int(rng.integers(store_words)) if rng.random() < reads else None
        write = None
        if rng.random() < writes:
            write = int(rng.integers(store_words)), word(rng, store_bytes), int(rng.integers(1 << store_bytes))
            if ports == 2 and read == write[0]:
                read = None  # undefined
        table.append((read, write))
    dut = Store(store_bytes=store_bytes, store_words=store_words, ports=ports)
    check(play(dut, table), expect(table, store_bytes, store_words, ports))


@pytest.mark.parametrize("ports", [1, 2])
def test_each_mask_bit_writes_its_byte(ports):
    table = [(None, (1, 0, 0xFF)), (None, (1, 0, 0xFF)), (None, (0, 0, 0xFF))]
    for byte in range(8):
        table += [(None, (1, 0xFFFF_FFFF_FFFF_FFFF, 1 << byte)), (1, None)]
    seen = play(Store(store_bytes=8, store_words=2, ports=ports), [*table, (None, None)])
    assert [data for _, data in seen[5::2]] == [(1 << 8 * (byte + 1)) - 1 for byte in range(8)]


@pytest.mark.parametrize("ports", [1, 2])
def test_a_word_is_read_in_the_cycle_after_its_write(ports):
    store = Store(store_bytes=2, store_words=4, ports=ports)
    seen = play(store, [(None, (3, 0x1234, 3)), (3, None), (None, (3, 0x5678, 3)), (3, None), (None, None)])
    assert (seen[2][1], seen[4][1]) == (0x1234, 0x5678)


def test_two_ports_read_and_write_every_cycle():
    table = [(None, (0, 0x100, 3)), *((n, (n + 1, 0x101 + n, 3)) for n in range(15)), (15, None), (None, None)]
    seen = play(Store(store_bytes=2, store_words=16, ports=2), table)
    assert all(ready for ready, _ in seen)
    assert [data for _, data in seen[2:]] == [0x100 + n for n in range(16)]


def test_one_port_writes_first():
    table = [(None, (0, 7, 1)), (None, (1, 8, 1)), *[(1, (0, 9, 1))] * 3, (1, None), (0, None), (None, None)]
    seen = play(Store(store_bytes=1, store_words=2, ports=1), table)
    assert [ready for ready, _ in seen] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert [data for _, data in seen[6:]] == [8, 9]


def test_one_port_is_not_ready_in_the_cycle_of_a_write_whatever_its_mask():
    seen = play(Store(store_bytes=1, store_words=2, ports=1), [(0, (1, 0, 0)), (0, None)])
    assert [ready for ready, _ in seen] == [0, 1]


@pytest.mark.parametrize("ports", [1, 2])
def test_reset_keeps_the_contents(rng, ports):
    table = [*fill(rng, 4, 8), *[(None, None)] * 3, *((address, None) for address in range(8)), (None, None)]
    dut = Store(store_bytes=4, store_words=8, ports=ports)
    check(play(dut, table, resets=[9, 10, 14]), expect(table, 4, 8, ports))


@pytest.mark.parametrize("ports", [0, 3])
def test_ports_must_be_1_or_2(ports):
    with pytest.raises(ValueError, match=f"^{re.escape(f'ports must be 1 or 2, not {ports}')}$"):
        Store(store_bytes=8, store_words=16, ports=ports)


@pytest.mark.parametrize("store_bytes, store_words, ports", [(4, 16384, 1), (8, 8192, 1), (8, 16384, 2)])
def test_an_ice40_store_has_one_shape(store_bytes, store_words, ports):
    message = (
        f"an ice40 store must have 16384 words of 8 bytes and 1 port, not {store_words} words of {store_bytes} bytes "
        f"and {ports} ports"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Store(store_bytes=store_bytes, store_words=store_words, ports=ports, technology="ice40")
    Store(store_bytes=8, store_words=16384, ports=1, technology="ice40")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"store_bytes": 6}, "store_bytes must be a power of two, not 6"),
        ({"store_words": 0}, "store_words must be at least 1, not 0"),
        ({"technology": "ecp5"}, "technology must be 'generic' or 'ice40', not 'ecp5'"),
    ],
)
def test_constructor_messages(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Store(**{"store_bytes": 8, "store_words": 16, **options})
