"""The weight buffer, against a list of bytes."""

import re

import pytest

from gossamer.hdl.weight_buffer import WeightBuffer
from gossamer.sim.streams import Bench

SHAPES = [(1, 1, 1), (2, 1, 8), (8, 8, 16), (16, 8, 4), (16, 1, 2), (64, 16, 2)]
"""``(lanes, granule, vectors)``."""


def play(dut, table, resets=()):
    """Drive one row of ``table`` per cycle, ``(vector to read or None, (granule, data) or None)``; returns ``read.data`` of
    each cycle."""
    bench = Bench(dut)
    seen = []

    async def drive(ctx):
        for read, write in table:
            ctx.set(dut.read.en, read is not None)
            ctx.set(dut.read.address, read or 0)
            ctx.set(dut.write.en, write is not None)
            ctx.set(dut.write.address, 0 if write is None else write[0])
            ctx.set(dut.write.data, -1 if write is None else write[1])
            seen.append((await ctx.tick().sample(dut.read.data))[2])

    bench.process(drive)
    bench.run(cycles=len(table) + 1, resets={cycle: lambda: None for cycle in resets})
    return seen


def check(seen, table, granule, lanes):
    """``seen`` is what a memory of bytes would give; before the first read it is not looked at."""
    memory, expected = {}, None
    for cycle, (data, (read, write)) in enumerate(zip(seen, table)):
        assert expected is None or data == expected, f"cycle {cycle}"
        if read is not None:
            expected = int.from_bytes(bytes(memory[read * lanes + lane] for lane in range(lanes)), "little")
        if write is not None:
            memory.update(zip(range(write[0] * granule, (write[0] + 1) * granule), write[1].to_bytes(granule, "little")))


def fill(rng, lanes, granule, vectors):
    """A write to each granule, in any order."""
    return [(None, (int(g), int.from_bytes(rng.bytes(granule), "little"))) for g in rng.permutation(vectors * lanes // granule)]


@pytest.mark.parametrize("lanes, granule, vectors", SHAPES)
@pytest.mark.parametrize("reads, writes", [(1, 0.3), (0.3, 1), (0.6, 0.6)])
def test_matches_a_list_of_bytes(rng, lanes, granule, vectors, reads, writes):
    table = fill(rng, lanes, granule, vectors)
    for _ in range(150):
        read = int(rng.integers(vectors)) if rng.random() < reads else None
        write = None
        if rng.random() < writes:
            write = int(rng.integers(vectors * lanes // granule)), int.from_bytes(rng.bytes(granule), "little")
            if read == write[0] * granule // lanes:
                read = None  # must not be
        table.append((read, write))
    check(play(WeightBuffer(lanes=lanes, granule=granule, vectors=vectors), table), table, granule, lanes)


@pytest.mark.parametrize("lanes, granule, vectors", SHAPES)
def test_first_and_last_granules_have_their_places(lanes, granule, vectors):
    granules, ones = lanes // granule, (1 << 8 * granule) - 1
    table = [(None, (g, 0)) for g in range(vectors * granules)]
    table += [(None, (g, ones)) for g in {0, vectors * granules - 1}]
    table += [(0, None), (vectors - 1, None), (None, None)]
    seen = play(WeightBuffer(lanes=lanes, granule=granule, vectors=vectors), table)
    low, high = ones, ones << 8 * (lanes - granule)
    assert seen[-2:] == ([low | high] * 2 if vectors == 1 else [low, high])


def test_reads_and_writes_every_cycle():
    """Vectors are read in the cycle in which the next is written."""
    table = [(n - 1 if n else None, (n, 0xA000 + n)) for n in range(16)]
    seen = play(WeightBuffer(lanes=2, granule=2, vectors=16), [*table, (15, None), (None, None)])
    assert seen[2:] == [0xA000 + n for n in range(16)]


def test_data_holds_while_read_is_low():
    table = [(None, (0, 1)), (None, (1, 2)), (0, None), *[(None, (1, n)) for n in range(5)], *[(None, (0, 9))] * 2, (0, None)]
    seen = play(WeightBuffer(lanes=1, granule=1, vectors=2), [*table, (None, None)])
    assert seen[3:] == [1] * 8 + [9]


def test_reset_keeps_the_contents(rng):
    table = [*fill(rng, 4, 2, 4), *[(None, None)] * 4, (0, None), (1, None), (2, None), (3, None), (None, None)]
    check(play(WeightBuffer(lanes=4, granule=2, vectors=4), table, resets=[9, 10, 13]), table, 2, 4)


@pytest.mark.parametrize("name", ["lanes", "granule", "vectors"])
def test_sizes_must_be_powers_of_two(name):
    with pytest.raises(ValueError, match=rf"^{name} must be a power of two, not 12$"):
        WeightBuffer(**{"lanes": 16, "granule": 8, "vectors": 8, name: 12})


def test_a_granule_must_not_be_larger_than_a_vector():
    with pytest.raises(ValueError, match=rf"^{re.escape('granule must be at most lanes (8), not 16')}$"):
        WeightBuffer(lanes=8, granule=16, vectors=8)
