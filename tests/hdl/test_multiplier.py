"""The multipliers, against ``*``. Variants that instantiate vendor cells are in tests/sim/test_ice40_cells.py."""

import itertools
import re

import pytest
from amaranth.hdl import Const, Value

from gossamer.hdl.multiplier import ProductArray, WideMultiplier
from gossamer.sim.streams import Bench

BYTES = [0, 1, 2, 127, 128, 129, 254, 255]
KINDS = {"generic": {}, "luts": {"technology": "ice40", "lut_lanes": True}}
A = [-(1 << 28), -(1 << 28) + 1, -(1 << 15) - 1, -(1 << 15), -1, 0, 1, (1 << 15) - 1, 1 << 15, (1 << 28) - 1]
B = [0, 1, (1 << 15) - 1, 1 << 15, 1 << 30, (1 << 31) - 1]


def play(dut, output, table, resets=()):
    """Drive one row of ``table``, inputs by name as bit patterns, per cycle; returns ``output`` of each cycle."""
    bench = Bench(dut)
    seen = []

    async def drive(ctx):
        for row in table:
            for name, bits in row.items():
                ctx.set(Value.cast(getattr(dut, name)), bits)
            seen.append((await ctx.tick().sample(output))[2])

    bench.process(drive)
    bench.run(cycles=len(table) + 1, resets={cycle: lambda: None for cycle in resets})
    return seen


def with_pauses(rng, rows, share):
    """``(table, position)``: the rows with ``en``, noise in the cycles between, and the place of each row in the table."""
    table, positions = [], []
    for row in rows:
        while rng.random() < share:
            table.append({"en": 0} | {name: int(rng.integers(1 << 63)) for name in row})
        positions.append(len(table))
        table.append({"en": 1} | row)
    return table, positions


def product_array(lanes, kind):
    options = dict(KINDS[kind])
    if options:
        options["lut_lanes"] = lanes
    return ProductArray(lanes=lanes, **options)


def product_rows(pairs, lanes):
    """The ``pairs`` of bytes, in rows of ``lanes``."""
    pairs = [*pairs]
    pairs += [(0, 0)] * (-len(pairs) % lanes)
    for i in range(0, len(pairs), lanes):
        x, w = zip(*pairs[i : i + lanes])
        yield {"x": int.from_bytes(bytes(x), "little"), "w": int.from_bytes(bytes(w), "little")}


def products(row, lanes):
    """``p`` as bits."""
    x, w = (row[name].to_bytes(lanes, "little") for name in ("x", "w"))
    lane = [x[i] * int.from_bytes(w[i : i + 1], signed=True) & 0xFFFF for i in range(lanes)]
    return sum(p << 16 * i for i, p in enumerate(lane))


@pytest.mark.parametrize("kind, lanes", [("generic", 1), ("generic", 3), ("generic", 8), ("luts", 2), ("luts", 6)])
@pytest.mark.parametrize("share", [0, 0.3, 0.8])
def test_products_of_random_bytes(rng, kind, lanes, share):
    rows = [*product_rows(rng.integers(0, 256, (150, 2)).tolist(), lanes)]
    table, _ = with_pauses(rng, rows, share)
    dut = product_array(lanes, kind)
    seen = play(dut, Value.cast(dut.p), [*table, {"en": 0}, {"en": 0}])
    count, expected = 0, []
    for row in [*table, {"en": 0}, {"en": 0}]:
        expected.append(products(rows[count - 1], lanes) if count else None)
        count += row["en"]
    assert [found for found, wanted in zip(seen, expected) if wanted is not None] == [e for e in expected if e is not None]


@pytest.mark.parametrize("lanes", [16])
def test_luts_multiply_all_bytes(lanes):
    rows = [*product_rows(itertools.product(range(256), range(256)), lanes)]
    dut = product_array(lanes, "luts")
    seen = play(dut, Value.cast(dut.p), [*({"en": 1} | row for row in rows), {}])
    assert seen[1:] == [products(row, lanes) for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_extreme_bytes_a_cycle_later(kind):
    rows = [*product_rows(itertools.product(BYTES, BYTES), 2)]
    dut = product_array(2, kind)
    seen = play(dut, Value.cast(dut.p), [*({"en": 1} | row for row in rows), {}])
    assert seen[1:] == [products(row, 2) for row in rows]
    x, w = 255 << 8 | 255, 0x80 << 8 | 0x7F
    assert products({"x": x, "w": w}, 2) == (-255 * 128 & 0xFFFF) << 16 | 255 * 127


@pytest.mark.parametrize("kind", KINDS)
def test_products_survive_a_reset(kind):
    rows = [*product_rows([(200, 100)] * 6, 2)]
    dut = product_array(2, kind)
    seen = play(dut, Value.cast(dut.p), [*({"en": 1} | row for row in rows), {}], resets=[1, 2, 4])
    assert seen[1:] == [20000 << 16 | 20000] * len(seen[1:])


# Modes


def binary_products(row, lanes):
    """Twice the agreements of the bits of two bytes, written as they are meant: products of -1 and +1, plus 8."""
    found = 0
    for lane in range(lanes):
        x, w = (row[name] >> 8 * lane for name in ("x", "w"))
        signs = [(2 * (x >> bit & 1) - 1) * (2 * (w >> bit & 1) - 1) for bit in range(8)]
        found |= (sum(signs) + 8) << 16 * lane
    return found


def int4_products(row, lanes):
    """Those with the low halves of the weights, then those with the high ones."""
    found = []
    for shift in (0, 4):
        for lane in range(lanes):
            x, half = row["x"] >> 8 * lane & 255, row["w"] >> 8 * lane + shift & 15
            found.append(x * (half - 16 if half > 7 else half) & 0xFFFF)
    return sum(p << 16 * i for i, p in enumerate(found))


MEANINGS = {"binary": binary_products, "int4": int4_products}


def play_mode(dut, mode, rows, lanes):
    """Products of all rows, ``lanes`` of them or, of ``int4``, twice as many."""
    table = [{"en": 1, **({mode: 1} if mode else {}), **row} for row in rows]
    return [bits & (1 << 16 * (lanes << (mode == "int4"))) - 1 for bits in play(dut, Value.cast(dut.p), [*table, {}])[1:]]


@pytest.mark.parametrize("options", [{}, {"int4": True}, {"technology": "ice40", "lut_lanes": 16}], ids=str)
def test_binary_counts_the_agreements_of_all_bytes(options):
    lanes = 16
    rows = [*product_rows(itertools.product(range(256), range(256)), lanes)][:: 1 if not options else 7]
    dut = ProductArray(lanes=lanes, bits=True, **options)
    assert play_mode(dut, "binary", rows, lanes)[2:] == [binary_products(row, lanes) for row in rows][2:]
    assert binary_products({"x": 0x0FF0, "w": 0xFF00}, 2) == 8 << 16 | 8


@pytest.mark.parametrize("bits", [False, True])
def test_int4_multiplies_by_both_halves_of_every_byte(bits):
    """All pairs of halves times extreme numbers: none spills over into the other's product."""
    rows = [*product_rows(itertools.product([*range(18), 85, 127, 128, 129, 170, *range(238, 256)], range(256)), 8)]
    dut = ProductArray(lanes=8, int4=True, bits=bits)
    assert play_mode(dut, "int4", rows, 8)[2:] == [int4_products(row, 8) for row in rows][2:]
    assert int4_products({"x": 255, "w": 0x87}, 1) == (-255 * 8 & 0xFFFF) << 16 | 255 * 7


@pytest.mark.parametrize("options", [{"bits": True}, {"int4": True}, {"bits": True, "int4": True}], ids=str)
def test_bytes_are_multiplied_as_ever_by_an_array_with_modes(options):
    rows = [*product_rows(itertools.product([*BYTES, 15, 16, 136], range(256)), 8)]
    dut = ProductArray(lanes=8, **options)
    assert play_mode(dut, None, rows, 8) == [products(row, 8) for row in rows]


@pytest.mark.parametrize("mode, options", [("binary", {"bits": True}), ("int4", {"int4": True})])
@pytest.mark.parametrize("share", [0, 0.5])
def test_modes_change_from_the_third_cycle_on(rng, mode, options, share):
    """And products wait with ``en``, as they do in bytes."""
    rows = [*product_rows(rng.integers(0, 256, (160, 2)).tolist(), 4)]
    modes = [n // 10 % 2 for n in range(len(rows))]
    table, positions = with_pauses(rng, rows, share)
    mode_of = dict(zip(positions, modes))
    now = 0
    for place, row in enumerate(table):
        now = mode_of.get(place, now)
        row |= {mode: now}
    dut = ProductArray(lanes=4, **options)
    seen = play(dut, Value.cast(dut.p), [*table, {"en": 1}, {"en": 1}, {"en": 0}])
    checked = 0
    for n, row in enumerate(rows):
        if n % 10 >= 3 and n % 10 < 8:  # neither just behind a change, nor just in front of one
            meaning, lanes = (MEANINGS[mode], 8 if mode == "int4" else 4) if modes[n] else (products, 4)
            assert seen[positions[n] + 1] & (1 << 16 * lanes) - 1 == meaning(row, 4)
            checked += 1
    assert checked > 15


def test_int4_must_be_false_with_ice40():
    with pytest.raises(ValueError, match=r"^int4 must be false with 'ice40', not True$"):
        ProductArray(lanes=2, technology="ice40", int4=True)


@pytest.mark.parametrize("lanes, lut_lanes", [(4, 1), (4, 3), (4, 6), (4, -2), (3, 4)])
def test_lut_lanes_must_be_even_and_not_more_than_lanes(lanes, lut_lanes):
    message = f"lut_lanes must be an even number from 0 to lanes ({lanes}), not {lut_lanes}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ProductArray(lanes=lanes, technology="ice40", lut_lanes=lut_lanes)


def wide_row(a, b, second=0, short=0, nudge=0):
    return {"a": int(a) & (1 << 29) - 1, "b": int(b), "second": int(second), "short": int(short), "nudge": int(nudge) & 3}


def noise(rng):
    a, nudge = -rng.integers(1, 1 << 28), rng.integers(-1, 2)
    return wide_row(a, rng.integers(1 << 31), short=rng.integers(2), nudge=nudge)


def operation(rng, a, b, interval, short=False, nudge=None):
    """What one pair of operands takes, as ``(row, result or None)`` per cycle."""
    nudge = rng.integers(-1 if a <= 0 else 0, 2 if a >= 0 else 1) if nudge is None else nudge
    result = (int(a) * int(b) + (int(nudge) << 30)) // (1 << 23)
    if interval == 1:
        return [(wide_row(a, b, second=rng.integers(2), short=rng.integers(2), nudge=nudge), result)]
    if short:
        cut = (a & 0x7FFF) - (0x8000 if a < 0 else 0)
        return [(wide_row(a, b, short=1, nudge=nudge), (int(cut) * int(b) + (int(nudge) << 30)) // (1 << 23))]
    return [(wide_row(a, b, nudge=nudge), None), (wide_row(a, b, second=1, nudge=nudge), result)]


def check_wide(rng, interval, cycles, share):
    """Run ``cycles`` with pauses; each result must be on ``o`` for as long as it is not pushed out."""
    dut = WideMultiplier(interval=interval)
    assert dut.latency == 4
    flush = [(noise(rng), None)] * (dut.latency + 1)
    table, positions = with_pauses(rng, [row for row, _ in [*cycles, *flush]], share)
    seen = play(dut, dut.o, table)
    checked = 0
    for number, (_, result) in enumerate(cycles):
        if result is not None:
            # From behind the edge of the row `latency - 1` further to that of the next.
            first, last = positions[number + dut.latency - 1] + 1, positions[number + dut.latency]
            assert {*seen[first : last + 1]} == {result}
            checked += 1
    return checked


@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("share", [0, 0.3, 0.8])
def test_wide_products_of_random_numbers(rng, interval, share):
    cycles = []
    for _ in range(150):
        a, b = rng.integers(-(1 << 28), 1 << 28) >> rng.integers(28), rng.integers(1 << 31) >> rng.integers(31)
        cycles += operation(rng, int(a), b, interval, short=rng.random() < 0.5)
        if rng.random() < 0.2:
            cycles.append((noise(rng), None))
    assert check_wide(rng, interval, cycles, share) == 150


@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("short", [False, True])
def test_wide_products_of_extreme_numbers(rng, interval, short):
    nudged = [(a, b, nudge) for a in A for b in B for nudge in (-1, 0, 1) if nudge >= 0 or a <= 0]
    cycles = [cycle for a, b, nudge in nudged for cycle in operation(rng, a, b, interval, short, nudge)]
    assert check_wide(rng, interval, cycles, 0) == len(nudged)


@pytest.mark.parametrize("interval", [1, 2])
def test_wide_products_survive_a_reset(interval):
    dut = WideMultiplier(interval=interval)
    rows = [wide_row(3 << 20, 5 << 20), wide_row(3 << 20, 5 << 20, second=1), *[wide_row(0, 0, short=1)] * 8]
    seen = play(dut, dut.o, [{"en": 1, **row} for row in rows], resets=range(2, 8))
    assert seen[dut.latency + 1] == 15 << 17
    assert not any(seen[dut.latency + 2 :])


@pytest.mark.parametrize("interval", [0, 3])
def test_interval_must_be_1_or_2(interval):
    with pytest.raises(ValueError, match=f"^{re.escape(f'interval must be 1 or 2, not {interval}')}$"):
        WideMultiplier(interval=interval)


@pytest.mark.parametrize("first", [wide_row(1, 1, short=1), wide_row(1, 1, second=1)])
def test_second_must_come_behind_a_first_cycle(first):
    rows = [wide_row(1, 1), wide_row(1, 1, second=1), first, wide_row(1, 1, second=1)]
    message = "second must come behind a first cycle"
    with pytest.raises(AssertionError, match=rf"^Assertion violated: {message}$"):
        play(WideMultiplier(interval=2), Const(0), [*({"en": 1, **row} for row in rows), {}])


@pytest.mark.parametrize("changed", [wide_row(2, 1, 1), wide_row(1, 2, 1), wide_row(1, 1, 1, nudge=1)])
@pytest.mark.parametrize("between", [[], [{"en": 0, "a": 7}]])
def test_operands_must_stay_the_same_in_their_second_cycle(changed, between):
    table = [{"en": 1, **wide_row(1, 1)}, *between, {"en": 1, **changed}, {}]
    message = "operands must stay the same in their second cycle"
    with pytest.raises(AssertionError, match=rf"^Assertion violated: {message}$"):
        play(WideMultiplier(interval=2), Const(0), table)


@pytest.mark.parametrize("interval", [1, 2])
def test_nudge_must_not_be_negative_if_a_is_positive(interval):
    dut = WideMultiplier(interval=interval)
    with pytest.raises(AssertionError, match=r"^Assertion violated: nudge must not be -1 if a is positive$"):
        play(dut, dut.o, [{"en": 1, **wide_row(1, 1, nudge=-1)}, {}, {}])


def test_a_reset_is_the_end_of_a_pair():
    rows = [wide_row(1, 1), wide_row(2, 1), wide_row(1, 1, second=1)]
    message = "second must come behind a first cycle"
    with pytest.raises(AssertionError, match=rf"^Assertion violated: {message}$"):
        play(WideMultiplier(interval=2), Const(0), [{"en": 1, **rows[0]}, {"en": 0}, {"en": 1, **rows[2]}, {}], resets=[1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lanes": 0}, "lanes must be at least 1, not 0"),
        ({"lanes": 3, "technology": "ice40"}, "lanes must be even with 'ice40', not 3"),
        ({"lanes": 2, "technology": "ecp5"}, "technology must be 'generic' or 'ice40', not 'ecp5'"),
    ],
)
def test_product_array_constructor_messages(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ProductArray(**options)


def test_technology_of_a_wide_multiplier_must_be_known():
    with pytest.raises(ValueError, match=r"^technology must be 'generic' or 'ice40', not 'ecp5'$"):
        WideMultiplier(technology="ecp5")
