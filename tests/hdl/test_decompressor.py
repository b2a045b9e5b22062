"""Unpacks compressed rows."""

import numpy as np
import pytest

from gossamer.golden import codec
from gossamer.hdl.decompressor import Decompressor
from gossamer.sim.streams import Bench, randomly
from tests.hdl.rows import blocks, halfwords, hold_signed, random_unit


def run(units, data, *, lanes=16, signed=False, pauses=None, stalls=None, most=15, values=8, bounded=True, **options):
    """``units`` are their blocks; ``data`` the halfwords that there are."""
    dut = Decompressor(lanes=lanes, blocks=most, values=values, bounded=bounded)
    bench = Bench(dut)
    bench.source(dut.start, [{"blocks": count} for count in units])
    source = bench.source(dut.i, data, pauses)
    o = bench.sink(dut.o, stalls)
    hold_signed(bench, dut, signed)
    bench.run(**options)
    o.left = len(source.queue)
    return o


def random_units(rng, count):
    return [random_unit(rng, 8 * int(rng.integers(1, 8))) for _ in range(count)]


def encode(units, **options):
    return [halfword for unit in units for halfword in halfwords(codec.encode(unit, **options))]


@pytest.mark.parametrize("lanes", [1, 3, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("pause", "stall"), [(0, 0), (0.8, 0), (0, 0.7), (0.3, 0.5)])
def test_matches_golden(rng, lanes, signed, pause, stall):
    units = random_units(rng, 8)
    data = encode(units, lanes=lanes, signed=signed)
    pauses, stalls = randomly(rng, pause), randomly(rng, stall)
    o = run([len(unit) // 8 for unit in units], data, lanes=lanes, signed=signed, pauses=pauses, stalls=stalls)
    assert o.payloads == [block for unit in units for block in blocks(unit)]


@pytest.mark.parametrize("values", [1, 2, 4])
@pytest.mark.parametrize("stall", [0, 0.6])
def test_transfers_may_be_parts_of_blocks(rng, values, stall):
    units = random_units(rng, 4)
    o = run([len(unit) // 8 for unit in units], encode(units), values=values, stalls=randomly(rng, stall))
    assert o.payloads == [part for unit in units for part in blocks(unit, values)]


def test_every_value_in_every_context():
    """Of two channels one sets the context of the other's next."""
    units = [[value for pair in zip(np.full(256, before), range(256)) for value in pair] for before in (0, 8, 16, 32)]
    parts = [unit[at : at + 64] for unit in units for at in range(0, 512, 64)]
    o = run([8] * len(parts), encode(parts, lanes=2), lanes=2)
    assert o.payloads == [block for part in parts for block in blocks(part)]


@pytest.mark.parametrize("zeros", [0, 1, 12, 13, 14, 40])
def test_incompressible_values_are_plain_when_the_credit_is_used_up(zeros):
    units = [[*first, *[0] * zeros, *[255] * 48] for first in ([], [5], [5, 16])]
    units = [unit[: len(unit) // 8 * 8] for unit in units]
    o = run([len(unit) // 8 for unit in units], encode(units, lanes=64), lanes=64)
    assert o.payloads == [block for unit in units for block in blocks(unit)]


def test_units_may_be_unbounded(rng):
    units = [rng.integers(0, 256, 40, np.uint8), [255] * 24]
    o = run([5, 3], encode(units, bounded=False), bounded=False)
    assert o.payloads == [block for unit in units for block in blocks(unit)]


@pytest.mark.parametrize("count", range(1, 16))
def test_units_may_end_at_any_bit(count):
    units = [[0] * 8, [0] * 8 * count, [0] * (8 * count - 1) + [63], [255] * 8, [0] * 8]
    o = run([len(unit) // 8 for unit in units], encode(units))
    assert o.payloads == [block for unit in units for block in blocks(unit)]


@pytest.mark.parametrize("stall", [0, 0.5])
def test_takes_the_halfwords_of_its_units_and_no_more(rng, stall):
    units = random_units(rng, 5)
    o = run([len(unit) // 8 for unit in units], [*encode(units), *[0] * 9], stalls=randomly(rng, stall), cycles=900)
    assert o.left == 9
    assert len(o.payloads) == sum(len(unit) // 8 for unit in units)


def test_decodes_a_value_per_cycle_and_starts_in_one(rng):
    units = [random_unit(rng, 40) for _ in range(4)] + [np.full(40, 255)]
    o = run([5] * 5, encode(units))
    assert o.offers == [41 * unit + 10 + 8 * block for unit in range(5) for block in range(5)]


def test_a_value_appears_two_cycles_after_it_was_read():
    o = run([1, 1], encode([[9] * 8] * 2), values=1)
    assert o.offers == [*range(3, 11), *range(12, 20)]


def test_waits_for_a_halfword_only_if_it_needs_one():
    """16 zeros are a halfword."""
    o = run([2, 2, 2], [0, 0], cycles=200)
    assert o.payloads == blocks([0] * 16) * 2


def test_a_unit_of_no_blocks_does_nothing():
    assert run([0, 1, 0, 0, 1], [0, 0]).payloads == blocks([0] * 8) * 2


@pytest.mark.parametrize("cycle", range(24))
@pytest.mark.parametrize("stall", [False, True])
def test_reset_discards_the_unit_in_work(rng, cycle, stall):
    """The consumer stalls until the reset, or never."""
    second = random_units(rng, 2)
    first = [200, 9, 30, 8, 4, 0, 1, 255] * 4
    dut = Decompressor(lanes=4, blocks=7)
    bench = Bench(dut)
    starts, i = bench.source(dut.start, [{"blocks": 4}] * 2), bench.source(dut.i, encode([first, first], lanes=4))
    o = bench.sink(dut.o, iter([stall] * (cycle + 1) + [False] * 1000))

    def restart():
        starts.restart([{"blocks": len(unit) // 8} for unit in second])
        i.restart(encode(second, lanes=4))

    bench.run(resets={cycle: restart})
    assert [beat for at, beat in o.transfers if at > cycle] == [block for unit in second for block in blocks(unit)]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_any_bits_give_the_blocks_that_were_asked_for(rng, share):
    """Even those that no value is coded in: bits of random ones and zeros, as golden decodes them."""
    for _ in range(4):
        counts = [int(count) for count in rng.integers(1, 6, 4)]
        data = (rng.random((8 * sum(counts) * 2, 16)) < share) @ (1 << np.arange(16))
        o = run(counts, data.tolist(), pauses=randomly(rng, 0.3), cycles=700)
        stream, want = data.astype("<u2").tobytes(), []
        for count in counts:
            values, used = codec.decode_prefix(stream, 8 * count)
            stream, want = stream[used:], want + blocks(values)
        assert o.payloads == want
        assert 2 * o.left == len(stream)


def test_lanes_must_be_positive():
    with pytest.raises(ValueError, match=r"^lanes must be at least 1, not 0$"):
        Decompressor(lanes=0)


@pytest.mark.parametrize("values", [0, 3, 16])
def test_values_must_divide_a_block(values):
    with pytest.raises(ValueError, match=rf"^values must be 1, 2, 4 or 8, not {values}$"):
        Decompressor(values=values)


def test_blocks_must_be_positive():
    with pytest.raises(ValueError, match=r"^blocks must be at least 1, not 0$"):
        Decompressor(blocks=0)
