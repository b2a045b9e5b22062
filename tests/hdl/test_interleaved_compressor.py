"""Packs bytes into the codes of compressed rows of several units."""

import re

import pytest

from gossamer.golden import codec
from gossamer.hdl.interleaved_compressor import InterleavedCompressor
from gossamer.sim.streams import Bench, randomly
from tests.hdl.rows import code_ends, halfwords, hold_signed, random_unit


def send(row, streams):
    return [{"data": int(value), "last": int(n >= len(row) - streams)} for n, value in enumerate(row)]


def run(rows, *, lanes, streams, signed=False, bounded=False, rate=0, pauses=None, reset=None, restart=()):
    dut = InterleavedCompressor(lanes=lanes, streams=streams, bounded=bounded and not rate, budgets=rate > 0)
    bench = Bench(dut)
    source = bench.source(dut.i, [beat for row in rows for beat in send(row, streams)], pauses)
    i, o = bench.monitor(dut.i), bench.monitor(dut.o)
    hold_signed(bench, dut, signed, rate)
    again = [beat for row in restart for beat in send(row, streams)]
    bench.run(resets={} if reset is None else {reset: lambda: source.restart(again)})
    return i, o


def of_units(payloads, streams):
    """The payloads of each unit."""
    return [[(p["data"], p["last"]) for p in payloads if p["unit"] == unit] for unit in range(streams)]


def expected(rows, streams, *, lanes, **options):
    found = []
    for unit in range(streams):
        codes = [halfwords(codec.encode_units([row[unit::streams]], lanes=lanes // streams, **options)[0]) for row in rows]
        found.append([(word, int(n == len(code) - 1)) for code in codes for n, word in enumerate(code)])
    return found


@pytest.mark.parametrize("lanes, streams", [(2, 2), (8, 4), (16, 8)])
@pytest.mark.parametrize("pause", [0, 0.5])
def test_matches_golden(rng, lanes, streams, pause):
    rows = [random_unit(rng, streams * int(rng.integers(1, 12))) for _ in range(6)]
    options = {"lanes": lanes, "signed": bool(rng.integers(2)), "bounded": bool(rng.integers(2))}
    _, o = run(rows, streams=streams, **options, pauses=randomly(rng, pause))
    assert of_units(o.payloads, streams) == expected(rows, streams, **options)


@pytest.mark.parametrize("rate", [48, 100])
def test_units_may_have_budgets(rng, rate):
    rows = [random_unit(rng, 4 * 30) for _ in range(2)]
    _, o = run(rows, lanes=8, streams=4, rate=rate)
    assert of_units(o.payloads, 4) == expected(rows, 4, lanes=8, per_value=rate)


def arrivals(rows, cycles, lanes, streams):
    """When the halfwords of rows are there, whose values are transferred in ``cycles``."""
    cycles = iter(cycles)
    for row in rows:
        came = [next(cycles) for _ in row]
        for unit in range(streams):
            filled, ends = 0, code_ends(row[unit::streams], lanes // streams, False)
            for end, cycle in zip(ends, came[unit::streams]):
                now = end // 16 if end != ends[-1] or cycle != came[unit::streams][-1] else -(-end // 16)
                yield from range(cycle + 2, cycle + 2 + now - filled)
                filled = now


def one_per_cycle(there):
    """When they come out."""
    free = 0
    for cycle in sorted(there):
        free = max(cycle, free)
        yield free
        free += 1


@pytest.mark.parametrize("pause", [0, 0.2])
@pytest.mark.parametrize("lanes, streams", [(2, 2), (8, 4), (16, 16)])
def test_a_value_per_cycle_whatever_comes(rng, lanes, streams, pause):
    """Long codes, short rows and rows of one value of each unit too; and a halfword per cycle, as soon as one is there."""
    for kind in range(2 if streams == 16 else 3):
        rows = [random_unit(rng, streams * int(rng.integers(1, 2 + 2 * kind))) for _ in range(4)]
        if kind == 1:
            rows = [[255] * (streams * (1 + n % 3)) for n in range(4)]
        i, o = run(rows, lanes=lanes, streams=streams, pauses=randomly(rng, pause))
        assert [offer - 1 for offer in i.cycles[1:]] == [*i.cycles[:-1]] or pause
        assert i.cycles == i.offers
        assert o.cycles == [*one_per_cycle(arrivals(rows, i.cycles, lanes, streams))]


@pytest.mark.parametrize("cycle", range(1, 40, 6))
def test_reset_discards_what_is_in_work(rng, cycle):
    rows, again = [random_unit(rng, 32) for _ in range(2)], [random_unit(rng, 16) for _ in range(2)]
    _, o = run(rows, lanes=8, streams=4, reset=cycle, restart=again)
    after = [payload for at, payload in o.transfers if at > cycle]
    assert of_units(after, 4) == expected(again, 4, lanes=8, bounded=False)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"streams": 3}, "streams must be a power of two, not 3"),
        ({"streams": 1}, "streams must be at least 2, not 1"),
        ({"lanes": 12}, "lanes must be a multiple of streams (8), not 12"),
        ({"lanes": 0}, "lanes must be a multiple of streams (8), not 0"),
    ],
)
def test_constructor_messages(sizes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        InterleavedCompressor(**{"lanes": 16, "streams": 8, **sizes})
