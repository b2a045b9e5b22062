"""Where areas lie: a naive check of each byte in each step over random areas, and plans by hand."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden.memory import Area, Arena

STEPS = 12


def area(size, *lives):
    """An area of parts of ``size`` bytes, each with ranges of steps."""
    return Area(size, [[life] if isinstance(life, range) else life for life in lives])


def random_life(rng):
    """One to three ranges of steps, in order and apart."""
    cuts = sorted(rng.choice(STEPS + 1, 2 * int(rng.integers(1, 4)), replace=False).tolist())
    return [range(start, stop) for start, stop in zip(cuts[::2], cuts[1::2])]


def random_areas(rng, count, alignment):
    """Some of one part, some of many of which each lives a little later, as the rows of a map do, some of any."""
    found = {}
    for i in range(count):
        size, kind = alignment * int(rng.integers(1, 6)), int(rng.integers(3))
        if kind == 0:
            lives = [random_life(rng)]
        elif kind == 1:
            start, length = int(rng.integers(STEPS - 4)), int(rng.integers(1, 5))
            lives = [[range(start + y, min(start + y + length, STEPS))] for y in range(int(rng.integers(1, 5)))]
        else:
            lives = [random_life(rng) for _ in range(int(rng.integers(1, 5)))]
        found[f"a{i}"] = Area(size, lives)
    return found


def occupied(plan):
    """How many areas hold something in each byte, by step."""
    count = np.zeros((STEPS, plan.peak), int)
    for name, some in plan.areas.items():
        for i, life in enumerate(some.lives):
            start = plan.addresses[name] + i * some.size
            for span in life:
                for step in span:
                    count[step, start : start + some.size] += 1
    return count


@pytest.mark.parametrize("alignment", [1, 8, 16])
def test_parts_that_live_at_once_never_overlap(alignment, rng):
    for _ in range(100):
        areas = random_areas(rng, int(rng.integers(1, 9)), alignment)
        plan = Arena(alignment).plan(areas, ["l"] * STEPS)
        assert plan.addresses.keys() == plan.areas.keys() == areas.keys()
        assert all(address >= 0 and address % alignment == 0 for address in plan.addresses.values())
        assert plan.peak == max(plan.addresses[name] + some.bytes for name, some in areas.items())
        count = occupied(plan)
        assert count.max() == 1
        assert plan.bound == count.sum(1).max()
        assert plan.bound <= plan.peak <= sum(some.bytes for some in areas.values())


def test_an_area_has_the_bytes_and_the_life_of_its_parts():
    some = area(5, range(3, 4), [range(2, 3), range(6, 9)], range(4, 5))
    assert (some.bytes, some.life) == (15, range(2, 9))


def test_a_chain_by_hand():
    areas = {"a": area(32, range(1)), "b": area(24, range(2)), "c": area(16, range(1, 3)), "d": area(8, range(2, 3))}
    plan = Arena(8).plan(areas, ["1", "2", "3"])
    # a and b live in step 1, b and c in step 2, c and d in step 3: the largest two decide
    assert (plan.peak, plan.bound) == (56, 56)
    assert plan.addresses == {"a": 0, "b": 32, "c": 0, "d": 16}  # c and d in the place of a
    assert plan.layers == ("1", "2", "3")
    assert dict(plan.areas) == areas


def test_an_area_goes_into_a_hole_that_fits():
    # a and c live throughout; b between them dies, and d takes its place
    areas = {
        "a": area(100, range(4)), "b": area(50, range(2)), "c": area(40, range(1, 4)), "d": area(50, range(2, 4)),
        "e": area(1, range(3, 4)),
    }  # fmt: skip
    plan = Arena(1).plan(areas, "1234")
    assert plan.addresses["d"] == plan.addresses["b"] == 100
    assert plan.peak == plan.bound == 191


def test_a_map_takes_the_place_of_rows_that_have_been_read():
    # In step i row i of x is read for the last time, and row i of y written: in the same place.
    x = Area(10, [[range(i + 1)] for i in range(6)])
    y = Area(10, [[range(i + 1, 7)] for i in range(6)])
    plan = Arena(1).plan({"x": x, "y": y}, "l" * 7)
    assert plan.addresses == {"x": 0, "y": 0}
    assert plan.peak == plan.bound == 60


def test_a_map_begins_behind_the_rows_that_are_still_read():
    # As a convolution of three rows does it: rows 0 to i + 1 of x are needed when row i of y is written, so that y begins
    # one row, of the same size, in front of x.
    x = Area(10, [[range(i + 2)] for i in range(6)])
    y = Area(10, [[range(i + 1, 8)] for i in range(6)])
    plan = Arena(1).plan({"x": x, "y": y}, "l" * 8)
    assert plan.addresses["x"] - plan.addresses["y"] == 10
    assert plan.peak == plan.bound == 70


def test_narrower_rows_are_written_over_wider_ones_that_have_been_read():
    x = Area(16, [[range(i + 1)] for i in range(4)])
    y = Area(8, [[range(i + 1, 6)] for i in range(4)])
    assert Arena(8).plan({"x": x, "y": y}, "l" * 6).peak == 64


def test_a_part_that_lives_twice_leaves_its_place_in_between():
    twice = area(10, [range(1), range(3, 4)])
    assert Arena(1).plan({"a": twice, "b": area(10, range(1, 3))}, "1234").peak == 10
    assert Arena(1).plan({"a": twice, "b": area(10, range(2, 4))}, "1234").peak == 20


@pytest.mark.parametrize("alignment", [1, 8])
def test_addresses_are_aligned(alignment):
    plan = Arena(alignment).plan({"a": area(8, range(2)), "b": area(3, range(2))}, "12")
    assert sorted(plan.addresses.values()) == [0, 8]
    assert plan.peak == 11


# Areas, and the peak that only one of the orders reaches, or only an order that has been changed.
NEEDED = {
    "from the largest, the first first": (8, {
        "a": area(1, range(9, 10), range(3, 4), [range(4), range(6, 10)]),
        "b": area(2, [range(1, 7), range(8, 9)], [range(7, 8), range(10, 12)]),
        "c": area(3, [range(1, 6), range(11, 12)]),
    }),
    "from the largest, the last first": (15, {
        "a": area(4, [range(1), range(3, 5), range(6, 11)]),
        "b": area(5, [range(2, 3), range(6, 7)]),
        "c": area(1, range(4, 6), range(5, 7), range(6, 8), range(7, 9)),
        "d": area(4, [range(1, 7), range(9, 11)]),
    }),
    "from the first": (21, {
        "a": area(5, [range(2, 5), range(6, 8), range(10, 12)], range(2, 7)),
        "b": area(4, [range(1, 3), range(4, 11)]),
        "c": area(3, range(7, 9), range(8, 10), range(9, 11), range(10, 12)),
    }),
    "from the last to begin": (16, {
        "a": area(3, [range(5), range(8, 10), range(11, 12)]),
        "b": area(4, range(6, 9), range(7, 10), range(8, 11)),
        "c": area(5, range(9, 10)),
    }),
    "from the last to end": (16, {
        "a": area(3, range(2), range(6)),
        "b": area(4, [range(1), range(2, 3), range(6, 12)]),
        "c": area(3, range(11, 12), [range(1, 3), range(5, 12)], [range(1), range(8, 9), range(10, 11)]),
    }),
    "changed": (9, {
        "a": area(3, range(5), [range(1, 7), range(11, 12)]),
        "b": area(1, [range(1, 7), range(9, 12)]),
        "c": area(5, range(5, 6)),
    }),
}  # fmt: skip


@pytest.mark.parametrize("order", NEEDED)
def test_each_order_is_needed(order):
    peak, areas = NEEDED[order]
    plan = Arena(1).plan(areas, ())
    assert plan.peak == peak
    assert occupied(plan).max() == 1


def test_a_quick_plan_is_a_plan(rng):
    for _ in range(50):
        areas = random_areas(rng, 6, 8)
        quick, plan = Arena(8).plan(areas, (), quick=True), Arena(8).plan(areas, ())
        assert occupied(quick).max() == 1
        assert plan.bound == quick.bound <= plan.peak <= quick.peak


def test_plans_do_not_depend_on_the_order_of_names(rng):
    areas = random_areas(rng, 8, 8)
    # Equally large areas that begin together are placed in the order of their names.
    areas = {name: dataclasses.replace(some, size=some.size + 8 * i) for i, (name, some) in enumerate(areas.items())}
    one, other = (Arena(8).plan(some, ()) for some in (areas, dict(reversed(areas.items()))))
    assert one.peak == other.peak
