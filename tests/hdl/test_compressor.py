"""Packs bytes into the codes of compressed rows."""

import numpy as np
import pytest

from gossamer.golden import codec
from gossamer.hdl.compressor import Compressor
from gossamer.sim.streams import Bench, never, randomly
from tests.hdl.rows import halfwords, hold_signed, random_unit


def send(unit):
    return [{"data": int(value), "last": int(n == len(unit) - 1)} for n, value in enumerate(unit)]


def run(units, *, lanes=16, signed=False, bounded=True, rate=0, pauses=None, stalls=None, reset=None, restart=()):
    dut = Compressor(lanes=lanes, bounded=bounded and not rate, budgets=rate > 0)
    bench = Bench(dut)
    source = bench.source(dut.i, [beat for unit in units for beat in send(unit)], pauses)
    o = bench.sink(dut.o, stalls)
    hold_signed(bench, dut, signed, rate)
    again = [beat for unit in restart for beat in send(unit)]
    bench.run(resets={} if reset is None else {reset: lambda: source.restart(again)})
    return o


def expected(units, **options):
    streams = [halfwords(codec.encode_units([unit], **options)[0]) for unit in units]
    return [{"data": data, "last": int(n == len(s) - 1)} for s in streams for n, data in enumerate(s)]


@pytest.mark.parametrize("lanes", [1, 3, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("pause", "stall"), [(0, 0), (0.6, 0), (0, 0.7), (0.2, 0.5)])
def test_matches_golden(rng, lanes, signed, pause, stall):
    units = [random_unit(rng, int(rng.integers(1, 60))) for _ in range(10)]
    pauses, stalls = randomly(rng, pause), randomly(rng, stall)
    o = run(units, lanes=lanes, signed=signed, pauses=pauses, stalls=stalls)
    assert o.payloads == expected(units, lanes=lanes, signed=signed)


def test_every_value_in_every_context():
    """Of two channels one sets the context of the other's next."""
    units = [[value for pair in zip(np.full(256, before), range(256)) for value in pair] for before in (0, 8, 16, 32, 64)]
    parts = [unit[at : at + 64] for unit in units for at in range(0, 512, 64)]
    assert run(parts, lanes=1).payloads == expected(parts, lanes=1)


@pytest.mark.parametrize("end", range(1, 20))
def test_a_unit_may_end_at_any_bit(end):
    """Zeros take a bit, and 63 after them ten."""
    units = [[0] * end, [0] * end + [63], [255] * end, [1]]
    assert run(units).payloads == expected(units)


@pytest.mark.parametrize("zeros", [0, 1, 12, 13, 14, 40])
def test_incompressible_values_are_plain_when_the_credit_is_used_up(zeros):
    units = [[*first, *[0] * zeros, *[255] * 30] for first in ([], [5], [5, 16])] + [[0, 255] * 3]
    assert run(units, lanes=64).payloads == expected(units, lanes=64)


def test_units_may_be_unbounded(rng):
    units = [rng.integers(0, 256, 40), [255] * 20]
    assert run(units, bounded=False).payloads == expected(units, bounded=False)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rate", [48, 55, 70, 100, 127])
def test_units_may_have_budgets(rng, signed, rate):
    """Units long enough to lose bits, to win them back, and to have more than they need."""
    units = [random_unit(rng, 60), rng.integers(0, 256, 50), [0] * 90 + [255] * 20, [128] * 90 + [0] * 20, [0, 255] * 25]
    o = run(units, signed=signed, rate=rate, pauses=randomly(rng, 0.1), stalls=randomly(rng, 0.2))
    assert o.payloads == expected(units, signed=signed, per_value=rate)


def test_where_units_may_have_budgets_others_lose_nothing(rng):
    units = [random_unit(rng, 60), [255] * 30]
    dut = Compressor(bounded=False, budgets=True)
    bench = Bench(dut)
    bench.source(dut.i, [beat for unit in units for beat in send(unit)])
    o = bench.sink(dut.o)
    bench.run()
    assert o.payloads == expected(units, bounded=False)


@pytest.mark.parametrize("lengths", [[1] * 12, [2, 1, 1, 3, 1], [5, 5, 1, 5, 2], [16, 1, 64, 7]])
@pytest.mark.parametrize("incompressible", [False, True])
def test_takes_a_value_per_cycle(rng, lengths, incompressible):
    """Codes of 13 bits often leave a rest."""
    units = [np.full(length, 255) if incompressible else random_unit(rng, length) for length in lengths]
    dut = Compressor()
    bench = Bench(dut)
    bench.source(dut.i, [beat for unit in units for beat in send(unit)])
    i = bench.monitor(dut.i)
    o = bench.sink(dut.o)
    bench.run()
    assert i.cycles == list(range(sum(lengths)))
    assert o.payloads == expected(units)


@pytest.mark.parametrize("pause", [0, 0.5])
def test_units_may_be_as_short_as_they_like(rng, pause):
    units = [rng.choice([0, 3, 255], int(rng.integers(1, 4))) for _ in range(150)]
    assert run(units, pauses=randomly(rng, pause)).payloads == expected(units)


def test_a_halfword_appears_two_cycles_after_the_value_that_fills_it():
    """Codes of 13 bits: the second fills the first halfword, the third the second; one bit is left of the fifth."""
    o = run([[255] * 5])
    assert o.offers == [3, 4, 5, 6, 7]
    assert [beat["last"] for beat in o.payloads] == [0, 0, 0, 0, 1]


def test_the_last_halfword_appears_two_cycles_after_the_last_value():
    """Of 1, 13 and 26 bits, of which ten are left; the pauses are before each unit."""
    beats = [0, 255, 255, 255]
    pauses = iter([False, True, True, False, True, True, True, False, False] + [False] * 99)
    o = run([beats[:1], beats[1:2], beats[2:]], pauses=pauses)
    assert o.offers == [2, 5, 10, 11]
    assert [beat["last"] for beat in o.payloads] == [1, 1, 0, 1]


def test_a_rest_is_in_nobodys_way():
    """Two codes of 13 bits leave ten. The units behind are of one value, and their halfwords wait for those before them; that
    of four values and the last are in time again."""
    o = run([[255] * 2, [255], [0], [1], [0, 1, 0, 0], [0]])
    assert o.offers == [3, 4, 5, 6, 7, 10, 11]
    assert o.payloads == expected([[255] * 2, [255], [0], [1], [0, 1, 0, 0], [0]])


@pytest.mark.parametrize("lengths", [[2, 2, 2], [1, 2, 1, 1], [5, 1, 1]])
@pytest.mark.parametrize("stall", [0.3, 0.8])
def test_a_rest_waits_for_a_slow_consumer(rng, lengths, stall):
    units = [np.full(length, 255) for length in lengths * 4]
    assert run(units, stalls=randomly(rng, stall)).payloads == expected(units)


@pytest.mark.parametrize("cycle", range(12))
@pytest.mark.parametrize("stall", [False, True])
def test_reset_discards_the_unit_in_work(rng, cycle, stall):
    """The consumer stalls until the reset, or never."""
    second = [random_unit(rng, 24), random_unit(rng, 3)]
    stalls = iter([stall] * (cycle + 1) + [False] * 1000)
    o = run([[200, 9, 30, 8, 4] * 8], lanes=4, stalls=stalls, reset=cycle, restart=second)
    assert [beat for at, beat in o.transfers if at > cycle] == expected(second, lanes=4)


def test_lanes_must_be_positive():
    with pytest.raises(ValueError, match=r"^lanes must be at least 1, not 0$"):
        Compressor(lanes=0)


def test_streams_of_zeros_leave_in_whole_halfwords():
    o = run([[0] * 33], stalls=never())
    assert o.payloads == [{"data": 0, "last": 0}, {"data": 0, "last": 0}, {"data": 0, "last": 1}]
