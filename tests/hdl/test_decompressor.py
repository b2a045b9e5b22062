"""Unpacks compressed rows."""

import numpy as np
import pytest

from gossamer.golden import codec
from gossamer.hdl.decompressor import Decompressor
from gossamer.sim.streams import Bench, randomly
from tests.hdl.rows import hold_signed, random_unit, transfers

NOISE = 0x96A5


class Runner:
    """Holds ``run`` high for units of ``counts`` values, and low for ``gap`` cycles behind each.

    ``found`` has the cycles in which a value is found, ``left`` those in which bits are left, ``lost`` those in which there
    were none.
    """

    def __init__(self, dut, counts, gap=1):
        self.found, self.left, self.lost, self._dut, self._gap = [], [], [], dut, gap
        self.restart(counts)

    def restart(self, counts):
        self._queue, self._left = [step for count in counts for step in (count, -self._gap)], 0

    async def run(self, ctx):
        now = 0
        while True:
            if self._left == 0 and self._queue:
                self._left = self._queue.pop(0)
            ctx.set(self._dut.run, self._left > 0)
            _, _, found, left, lost = await ctx.tick().sample(self._dut.found, self._dut.left, self._dut.lost)
            self.found.extend([now] * found)
            self.left.extend([now] * left)
            self.lost.extend([now] * lost)
            self._left += 1 if self._left < 0 else -found
            now += 1


def run(
    counts, data, *, lanes=16, signed=False, bounded=True, rate=None, values=1, gap=1, pauses=None, stalls=None, cycles=None
):
    """Units of so many values; ``data`` are the halfwords that there are."""
    budgets = rate is not None
    dut = Decompressor(lanes=lanes, values=values, bounded=bounded and not budgets, budgets=budgets)
    bench = Bench(dut)
    source = bench.source(dut.i, data, pauses)
    o = bench.sink(dut.o, stalls)
    runner = Runner(dut, counts, gap)
    bench.process(runner.run)
    hold_signed(bench, dut, signed, rate)
    bench.run(quiet=40, cycles=cycles)
    o.found, o.left, o.behind, o.lost = runner.found, len(source.queue), runner.left, runner.lost
    return o


def random_units(rng, count, values=1):
    return [random_unit(rng, values * int(rng.integers(1, 1 + 60 // values))) for _ in range(count)]


def halfwords(data, outside=0):
    return [{"data": halfword, "outside": outside} for halfword in np.frombuffer(data, "<u2").tolist()]


def taken(data, count, **options):
    """How many halfwords the unit takes that ``data`` begins with: those that the values before its last have bits of, and
    one."""
    return codec.decode_prefix(data, count - 1, **options)[1] // 2 + 1


def encode(units, **options):
    """The halfwords that are taken, which may be one more than a unit has."""
    found = []
    for unit in units:
        (data,) = codec.encode_units([unit], **options)
        ahead = taken(data, len(unit), **options) - len(data) // 2
        found += halfwords(data) + ahead * [{"data": NOISE, "outside": 1}]
    return found


def sizes(units):
    return [len(unit) for unit in units]


def expected(units, values=1):
    return [transfer for unit in units for transfer in transfers(unit, values)]


@pytest.mark.parametrize("lanes", [1, 3, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("pause", "stall"), [(0, 0), (0.8, 0), (0, 0.7), (0.3, 0.5)])
def test_matches_golden(rng, lanes, signed, pause, stall):
    units = random_units(rng, 8)
    data = encode(units, lanes=lanes, signed=signed)
    pauses, stalls = randomly(rng, pause), randomly(rng, stall)
    o = run(sizes(units), data, lanes=lanes, signed=signed, pauses=pauses, stalls=stalls)
    assert o.payloads == expected(units)
    assert o.lost == []


@pytest.mark.parametrize("values", [2, 4, 8, 16])
@pytest.mark.parametrize(("pause", "stall"), [(0, 0), (0.5, 0), (0, 0.6)])
def test_transfers_may_be_of_several_values(rng, values, pause, stall):
    units = random_units(rng, 4, values)
    pauses, stalls = randomly(rng, pause), randomly(rng, stall)
    o = run(sizes(units), encode(units), values=values, pauses=pauses, stalls=stalls)
    assert o.payloads == expected(units, values)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("rate", "values"), [(0, 1), (48, 1), (55, 8), (70, 1), (100, 2), (127, 1)])
def test_units_may_have_budgets(rng, signed, rate, values):
    """Units long enough to lose bits, to win them back, and to have more than they need."""
    units = [random_unit(rng, 56), rng.integers(0, 256, 48), [0] * 90 + [255] * 22, [128] * 90 + [0] * 22, [0, 255] * 24]
    options = {"signed": signed, "bounded": False, "per_value": rate}
    data = encode(units, **options)
    back = [codec.decode_prefix(codec.encode_units([unit], **options)[0], len(unit), **options)[0] for unit in units]
    o = run(sizes(units), data, signed=signed, rate=rate, values=values, pauses=randomly(rng, 0.2), stalls=randomly(rng, 0.2))
    assert o.payloads == expected(back, values)


def test_values_short_of_a_transfer_are_dropped():
    units = [[9] * 3, [1, 2, 3, 4, 5], [6, 7, 8, 9]]
    o = run(sizes(units), encode(units), values=4)
    assert o.payloads == expected([[1, 2, 3, 4], [6, 7, 8, 9]], 4)


def test_every_value_in_every_context():
    """Of two channels one sets the context of the other's next."""
    units = [[value for pair in zip(np.full(256, before), range(256)) for value in pair] for before in (0, 8, 16, 32)]
    parts = [unit[at : at + 64] for unit in units for at in range(0, 512, 64)]
    assert run(sizes(parts), encode(parts, lanes=2), lanes=2).payloads == expected(parts)


@pytest.mark.parametrize("zeros", [0, 1, 12, 13, 14, 40])
def test_incompressible_values_are_plain_when_the_credit_is_used_up(zeros):
    units = [[*first, *[0] * zeros, *[255] * 40] for first in ([], [5], [5, 16])] + [[255] * 3]
    assert run(sizes(units), encode(units, lanes=64), lanes=64).payloads == expected(units)


def test_units_may_be_unbounded(rng):
    units = [rng.integers(0, 256, 40, np.uint8), [255] * 20]
    assert run(sizes(units), encode(units, bounded=False), bounded=False).payloads == expected(units)


@pytest.mark.parametrize("ends", [range(1, 8), range(8, 14), range(14, 19)])
@pytest.mark.parametrize("stall", [0, 0.5])
def test_a_unit_may_end_at_any_bit(rng, ends, stall):
    """Zeros take a bit, and 63 after them ten. Nothing of a unit is left for the next, though it waits at the output."""
    units = [unit for end in ends for unit in ([0] * end, [0] * end + [63], [255] * end, [1])]
    assert run(sizes(units), encode(units, lanes=1), lanes=1, stalls=randomly(rng, stall)).payloads == expected(units)


@pytest.mark.parametrize("stall", [0, 0.5])
def test_takes_one_halfword_ahead_and_no_more(rng, stall):
    units = random_units(rng, 5)
    o = run(sizes(units), [*encode(units), *halfwords(bytes(18))], stalls=randomly(rng, stall), cycles=700)
    assert o.left == 9
    assert o.payloads == expected(units)


@pytest.mark.parametrize("gap", [1, 3])
def test_finds_a_value_per_cycle_and_shows_it_in_the_next(rng, gap):
    units = [random_unit(rng, length) for length in (40, 1, 2)] + [np.full(40, 255)]
    o = run(sizes(units), encode(units), gap=gap)
    starts = np.cumsum([0] + [len(unit) + gap for unit in units])
    assert o.found == [start + n for unit, start in zip(units, starts.tolist()) for n in range(len(unit))]
    assert o.offers == [cycle + 1 for cycle in o.found]


def test_a_transfer_appears_with_its_last_value(rng):
    units = [random_unit(rng, 16), random_unit(rng, 8)]
    o = run(sizes(units), encode(units), values=8)
    assert o.found == [*range(16), *range(17, 25)]
    assert o.offers == [8, 16, 25]


@pytest.mark.parametrize(("pause", "stall"), [(0.5, 0), (0, 0.5)])
def test_found_tells_each_value(rng, pause, stall):
    """It is at the output in the cycle behind, whatever holds it up."""
    units = random_units(rng, 4)
    o = run(sizes(units), encode(units), pauses=randomly(rng, pause), stalls=randomly(rng, stall))
    assert o.offers == [cycle + 1 for cycle in o.found]


def test_waits_for_a_halfword_only_if_it_takes_one():
    """16 zeros are a halfword. The second takes one ahead, which comes in cycle 30; and so does the 18th, in cycle 40."""
    o = run([16, 18], halfwords(bytes(10)), pauses=iter([False, *[True] * 29, *[False] * 99]), cycles=80)
    assert o.found == [0, *range(30, 45), *range(46, 64)]
    o = run([18], halfwords(bytes(6)), pauses=iter([False, False, *[True] * 38, *[False] * 99]), cycles=80)
    assert o.found == [*range(17), 40]


def test_takes_nothing_between_units():
    o = run([], halfwords(bytes(10)), cycles=30)
    assert (o.left, o.found, o.payloads) == (5, [], [])


@pytest.mark.parametrize("inside", [1, 2, 3])
@pytest.mark.parametrize("pause", [0, 0.5])
def test_bits_from_outside_are_told(rng, inside, pause):
    """In the cycle behind each value with the first bit of a halfword that is outside, also behind the last value."""
    data = rng.integers(0, 256, 40, np.uint8).tobytes()
    ends = [codec.decode_bits(data, count)[1] for count in range(17)]
    first = [n for n in range(16) if -(-ends[n + 1] // 16) > max(-(-ends[n] // 16), inside)]
    for count in range(1, 17):
        payloads = (halfwords(data[: 2 * inside]) + halfwords(data[2 * inside :], outside=1))[: taken(data, count)]
        o = run([count], payloads, pauses=randomly(rng, pause), gap=4)
        begun = [o.found[n] for n in first if n < count]
        assert {cycle + 1 for cycle in begun} <= set(o.lost)
        assert bool(o.lost) == bool(begun)
        if o.lost:
            assert begun[0] < o.lost[0] <= o.lost[-1] <= o.found[-1] + 1


@pytest.mark.parametrize("cycle", range(0, 24, 2))
@pytest.mark.parametrize("stall", [False, True])
def test_reset_discards_what_is_in_work(rng, cycle, stall):
    """The consumer stalls until the reset, or never."""
    second = random_units(rng, 2)
    first = [200, 9, 30, 8, 4, 0, 1, 255] * 4
    dut = Decompressor(lanes=4, values=1)
    bench = Bench(dut)
    i = bench.source(dut.i, encode([first, first], lanes=4))
    o = bench.sink(dut.o, iter([stall] * (cycle + 1) + [False] * 1000))
    runner = Runner(dut, [32, 32])
    bench.process(runner.run)

    def restart():
        runner.restart([-1, *sizes(second)])
        i.restart(encode(second, lanes=4))

    bench.run(resets={cycle: restart}, quiet=40)
    assert [beat for at, beat in o.transfers if at > cycle] == expected(second)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_any_bits_are_values(rng, bounded, share):
    """Even those that no value is coded in: bits of random ones and zeros, as golden decodes them."""
    for _ in range(4):
        counts = [int(count) for count in rng.integers(1, 40, 4)]
        data = np.packbits(rng.random(16 * (sum(counts) + 8)) < share).tobytes()
        stream, want, used = data, [], 0
        for count in counts:
            values = codec.decode_prefix(stream, count, bounded=bounded)[0]
            used += taken(stream, count, bounded=bounded)
            stream, want = data[2 * used :], want + transfers(values)
        o = run(counts, halfwords(data), bounded=bounded, pauses=randomly(rng, 0.3), cycles=400)
        assert o.payloads == want
        assert 2 * o.left == len(stream)


@pytest.mark.parametrize("zeros", range(1, 17))
def test_bits_behind_the_last_value_are_told(zeros):
    """Zeros have one bit each. A bit is looked at up to 13 behind the last, and the next halfword not at all."""
    for bit in range(zeros, 16):
        ahead = [b"\xff\xff"] * (zeros > 1)
        o = run([zeros, 1], halfwords(b"".join([(1 << bit).to_bytes(2, "little"), *ahead, b"\x01\x00"])), bounded=False)
        assert o.behind == ([o.found[zeros - 1] + 1] if bit < zeros + 13 else [])


@pytest.mark.parametrize("gap", [1, 4])
def test_what_the_compressor_writes_has_no_bits_behind_it(rng, gap):
    units = random_units(rng, 12)
    assert run(sizes(units), encode(units, bounded=False), bounded=False, gap=gap).behind == []


def test_lanes_must_be_positive():
    with pytest.raises(ValueError, match=r"^lanes must be at least 1, not 0$"):
        Decompressor(lanes=0)


@pytest.mark.parametrize("values", [0, 3, 32])
def test_values_must_be_a_small_power_of_two(values):
    with pytest.raises(ValueError, match=rf"^values must be 1, 2, 4, 8 or 16, not {values}$"):
        Decompressor(values=values)
