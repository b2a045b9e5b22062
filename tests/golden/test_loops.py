"""Loops in programs: what is folded is unrolled by a naive interpreter."""

import itertools

import numpy as np
import pytest

from gossamer.golden.loops import fold
from gossamer.golden.spec import MOST_TURNS, Opcode

AT = (100, 2)
"""Word of the first step, and words of a step."""


def step(number):
    return {"opcode": Opcode.RUN, "layer": number}


def steps(*numbers):
    return [step(number) for number in numbers]


def unrolled(folded):
    """The steps in the order in which a machine with one turn counter takes them."""
    found, turns, i = [], 0, 0
    while i < len(folded):
        if folded[i]["opcode"] != Opcode.LOOP:
            found.append(folded[i])
        elif turns < folded[i]["count"]:
            turns += 1
            i = (folded[i]["in_address"] - AT[0]) // AT[1]
            continue
        else:
            turns = 0
        i += 1
    return found


def bodies(folded):
    """First and last step of each loop."""
    return [((s["in_address"] - AT[0]) // AT[1], i) for i, s in enumerate(folded) if s["opcode"] == Opcode.LOOP]


def planted(rng):
    """Random steps, some parts of which come several times in a row."""
    found = []
    for _ in range(int(rng.integers(1, 8))):
        part = [step(int(n)) for n in rng.integers(1, 6, int(rng.integers(1, 9)))]
        found += part * int(rng.integers(1, 7))
    return found


def test_folded_steps_do_what_the_steps_did(rng):
    saved = 0
    for _ in range(400):
        given = planted(rng)
        folded, kept = fold(given, AT)
        assert unrolled(folded) == given
        assert len(folded) <= len(given)
        assert [folded[new] for new in kept.values()] == [given[old] for old in kept]
        assert sorted(kept.values()) == [i for i, s in enumerate(folded) if s["opcode"] != Opcode.LOOP]
        saved += len(given) - len(folded)
    assert saved > 1000


def test_loops_are_not_nested(rng):
    for _ in range(400):
        found = bodies(fold(planted(rng), AT)[0])
        assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(found))


def test_a_period_by_hand():
    folded, kept = fold(steps(9, 1, 2, 3, 1, 2, 3, 1, 2, 3, 8), AT)
    assert folded == [*steps(9, 1, 2, 3), {"opcode": Opcode.LOOP, "count": 2, "in_address": 102}, *steps(8)]
    assert kept == {0: 0, 1: 1, 2: 2, 3: 3, 10: 5}


def test_a_loop_that_saves_nothing_is_not_made():
    assert fold(steps(1, 1), AT) == (steps(1, 1), {0: 0, 1: 1})
    assert len(fold(steps(1, 1, 1), AT)[0]) == 2


def test_the_longer_saving_wins():
    """One step twice in the part that comes three times: the loop is around the part."""
    folded, _ = fold(steps(*[1, 1, 2, 3] * 3), AT)
    assert folded == [*steps(1, 1, 2, 3), {"opcode": Opcode.LOOP, "count": 2, "in_address": 100}]


def test_steps_in_front_of_the_first_are_left_alone():
    given = steps(*[1, 2] * 6)
    folded, _ = fold(given, AT, 4)
    assert folded[:4] == given[:4]
    assert bodies(folded) == [(4, 6)]
    assert unrolled(folded) == given


@pytest.mark.parametrize("more", [-1, 0, 1, 700])
def test_a_loop_has_no_more_turns_than_the_counter(more):
    given = steps(*[1, 2] * (MOST_TURNS + 1 + more))
    folded, _ = fold(given, AT)
    counts = [s["count"] for s in folded if s["opcode"] == Opcode.LOOP]
    assert max(counts) <= MOST_TURNS
    assert more > 0 or counts == [MOST_TURNS + more]
    assert unrolled(folded) == given


def test_many_steps_are_folded_fast_enough_to_be_used():
    part = [step(int(n)) for n in np.random.default_rng(5).integers(1, 50, 300)]
    folded, _ = fold(part * 100, AT)
    assert len(folded) == 301
