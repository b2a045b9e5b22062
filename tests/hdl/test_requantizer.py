"""The requantizer, against the golden arithmetic."""

import itertools
import re

import numpy as np
import pytest

from gossamer.golden.arithmetic import multiply_by_quantized_multiplier
from gossamer.hdl.requantizer import Requantizer
from gossamer.sim.streams import Bench, never, randomly

INTERVALS = (1, 2)
SMALLEST, LARGEST = -(1 << 28), (1 << 28) - 1  # of an accumulator
EDGES = [SMALLEST, SMALLEST + 1, -(1 << 15) - 1, -(1 << 15), -1, 0, 1, (1 << 15) - 1, 1 << 15, LARGEST - 1, LARGEST]
MULTIPLIERS = [0, 1, (1 << 15) - 1, 1 << 15, 1 << 30, (1 << 30) + 1, (1 << 31) - 1]
UNCLAMPED = {"zero_point": 0, "clamp_min": -128, "clamp_max": 127, "double_rounding": 0}


def sum_(acc, multiplier=1 << 30, shift=7, last=0, tag=0, small=None):
    """``small`` if it may be, unless it is given."""
    tags = {"partial": tag & 1, "group_last": tag >> 1 & 1, "row_last": tag >> 2}
    small = -(1 << 15) <= acc < 1 << 15 if small is None else small
    scale = {"multiplier": int(multiplier), "shift": int(shift)}
    return {"acc": int(acc), "small": int(small), **scale, "last": int(last), "tag": tags}


def random_sums(rng, count):
    """Sums of all magnitudes, most with a shift that leaves something between the clamps."""
    for _ in range(count):
        bits = int(rng.integers(1, 30))
        acc = int(rng.integers(-(1 << bits - 1), 1 << bits - 1))
        shift = int(np.clip(bits + rng.integers(-2, 9), 1, 38)) if rng.random() < 0.9 else int(rng.integers(1, 39))
        small = bits <= 16 and rng.random() < 0.7
        yield sum_(acc, rng.integers(1 << 30, 1 << 31), shift, rng.integers(2), int(rng.integers(8)), small)


def byte(s, settings):
    """What a sum ends as."""
    e = s["shift"] - 7
    scaled = 0  # as abs(acc * multiplier) < 2**59 is less than half of 2**31 * 2**e
    if e <= 31:
        rounding = "double" if settings["double_rounding"] and e > 0 else "single"
        scaled = int(multiply_by_quantized_multiplier(s["acc"], s["multiplier"], -e, rounding))
    return min(max(scaled + settings["zero_point"], settings["clamp_min"]), settings["clamp_max"]) + 128


def expect(sums, settings):
    return [{"data": byte(s, settings), "last": s["last"], "tag": s["tag"]} for s in sums]


def rig(interval, sums, settings, stalls=(None, None)):
    """``(bench, source, monitor of i, monitor of o, requantizer)``."""
    dut = Requantizer(interval=interval)
    bench = Bench(dut)

    async def configure(ctx):
        for name, value in settings.items():
            ctx.set(getattr(dut, name), value)

    bench.process(configure)
    source = bench.source(dut.i, sums, stalls[0])
    return bench, source, bench.monitor(dut.i), bench.sink(dut.o, stalls[1]), dut


def run(interval, sums, settings, stalls=(None, None)):
    """Monitors of ``i`` and ``o``, after all sums have gone through."""
    bench, _, i, o, _ = rig(interval, sums, settings, stalls)
    bench.run()
    return i, o


def takes_two(s, relu):
    return not s["small"] and not (relu and s["acc"] < 0)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("double_rounding", [0, 1])
@pytest.mark.parametrize("zero_point, clamp_min, clamp_max", [(0, -128, 127), (-128, -128, 127), (-3, -3, 90), (60, -90, 100)])
@pytest.mark.parametrize("stalls", [(0, 0), (0.1, 0.8), (0.8, 0.1)])
def test_random_sums_match_golden(rng, interval, double_rounding, zero_point, clamp_min, clamp_max, stalls):
    settings = {
        "zero_point": zero_point,
        "clamp_min": clamp_min,
        "clamp_max": clamp_max,
        "double_rounding": double_rounding,
    }
    sums = [*random_sums(rng, 100)]
    _, o = run(interval, sums, settings, [randomly(rng, share) for share in stalls])
    assert o.payloads == expect(sums, settings)
    assert len({payload["data"] for payload in o.payloads}) > 10


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("double_rounding", [0, 1])
def test_every_shift_at_both_extremes_of_the_sum(interval, double_rounding):
    settings = UNCLAMPED | {"double_rounding": double_rounding}
    largest = (1 << 31) - 1
    sums = [sum_(acc, largest, shift) for shift in range(1, 39) for acc in (SMALLEST, -1, LARGEST)]
    _, o = run(interval, sums, settings)
    assert o.payloads == expect(sums, settings)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("double_rounding", [0, 1])
def test_extreme_sums_and_multipliers(interval, double_rounding):
    """Shifted to where each is just larger than a byte, just fits, and is rounded to 0 or 1."""
    settings = UNCLAMPED | {"double_rounding": double_rounding}
    sums = []
    for acc, multiplier in itertools.product(EDGES, MULTIPLIERS):
        size = (abs(acc) * multiplier).bit_length() - 31
        sums += [sum_(acc, multiplier, np.clip(size + 7 - left, 1, 38)) for left in (9, 8, 0, -1)]
    _, o = run(interval, sums, settings)
    assert o.payloads == expect(sums, settings)


HALVES = [
    *[(1, 0, 1, 1), (-1, 0, 0, 0), (3, 0, 2, 2), (-3, 0, -1, -1)],  # 1/2, -1/2, 3/2, -3/2
    *[(2, 1, 1, 1), (-2, 1, 0, -1), (6, 1, 2, 2), (-6, 1, -1, -2)],  # the same
    *[(1, 1, 0, 1), (-1, 1, 0, 0), (3, 1, 1, 1), (-3, 1, -1, -1)],  # 1/4, -1/4, 3/4, -3/4
    *[(-5, 1, -1, -1), (5, 1, 1, 2), (-7, 1, -2, -2), (7, 1, 2, 2)],  # -5/4, 5/4, -7/4, 7/4
    *[(3 << 20, 20, 2, 2), (-3 << 20, 20, -1, -2), (-(3 << 20) + 2, 20, -1, -1)],  # 3/2, -3/2, almost -3/2
    *[(1, -1, 1, 1), (-1, -1, -1, -1), (-1, -6, -32, -32), (2, -6, 64, 64), (1, 56, 0, 0), (-1, 56, 0, 0)],
]
"""``(acc, e, single, double)``: what ``acc * 2**30 / 2**31 / 2**e`` is rounded to, by hand."""


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("double_rounding", [0, 1])
def test_halves_by_hand(interval, double_rounding):
    sums = [sum_(acc, 1 << 30, e + 7) for acc, e, *_ in HALVES]
    _, o = run(interval, sums, UNCLAMPED | {"double_rounding": double_rounding})
    assert [payload["data"] - 128 for payload in o.payloads] == [results[double_rounding] for _, _, *results in HALVES]


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("zero_point, clamp_min, clamp_max", [*itertools.product((-128, 127), repeat=3)])
def test_extreme_settings(interval, zero_point, clamp_min, clamp_max):
    if clamp_min > clamp_max:
        clamp_min = clamp_max
    settings = {"zero_point": zero_point, "clamp_min": clamp_min, "clamp_max": clamp_max, "double_rounding": 1}
    results = [0, 1, -1, 127, 128, -128, -129, 254, 255, 256, -254, -255, -256, 510, 511, 512, -511, -512, -513, 1 << 20]
    sums = [sum_(4 * result, 1 << 30, 8) for result in [*results, -1 << 20]]
    _, o = run(interval, sums, settings)
    assert o.payloads == expect(sums, settings)


@pytest.mark.parametrize("interval", INTERVALS)
def test_latency(interval):
    assert Requantizer(interval=interval).latency == 8
    accs = [1, 1 << 20, -1 << 20, -1]
    i, o = run(interval, [sum_(acc) for acc in accs], UNCLAMPED, [itertools.cycle([True] * 15 + [False]), None])
    assert o.offers == [cycle + 8 for cycle in i.cycles]


@pytest.mark.parametrize("relu", [False, True])
def test_every_sum_takes_one_cycle_with_interval_1(relu):
    settings = UNCLAMPED | {"zero_point": -5, "clamp_min": -5 if relu else -128}
    sums = [sum_(acc) for acc in EDGES * 2]
    i, o = run(1, sums, settings)
    assert i.cycles == [*range(len(sums))]
    assert o.offers == [*range(8, 8 + len(sums))]


@pytest.mark.parametrize("zero_point, clamp_min", [(-5, -5), (-5, -6), (-5, -4), (-128, -128), (0, -128)])
def test_long_sums_take_two_cycles_with_interval_2(zero_point, clamp_min):
    settings = UNCLAMPED | {"zero_point": zero_point, "clamp_min": clamp_min}
    accs = [*EDGES, *EDGES[::-1], *(sign << bit for bit in range(28) for sign in (1, -1)), 0]
    sums = [sum_(acc) for acc in accs] + [sum_(acc, small=False) for acc in (-(1 << 15), -1, 0, 1, (1 << 15) - 1)]
    i, o = run(2, sums, settings, [itertools.chain([True], never()), None])
    times = [1 + takes_two(s, relu=zero_point == clamp_min) for s in sums]
    assert i.cycles == [*itertools.accumulate(times)]
    assert o.offers == [cycle + 8 for cycle in i.cycles]
    assert o.payloads == expect(sums, settings)


def test_a_small_sum_must_have_16_bits():
    with pytest.raises(AssertionError, match=r"a small sum must have 16 bits$"):
        run(2, [sum_(1 << 15, small=True)], UNCLAMPED)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("stalls", [(0.1, 0.7), (0.5, 0.3)])
def test_the_second_cycle_of_a_sum_waits_for_the_output_too(rng, interval, stalls):
    accs = rng.choice(EDGES, 60).tolist()
    pauses = [randomly(rng, share, burst=2) for share in stalls]
    bench, _, _, o, dut = rig(interval, [sum_(acc) for acc in accs], UNCLAMPED, pauses)
    ready = []

    async def watch(ctx):
        second = False
        while True:
            _, _, valid, s, i_ready, o_valid, o_ready = await ctx.tick().sample(
                dut.i.valid, dut.i.p, dut.i.ready, dut.o.valid, dut.o.ready
            )
            moves = o_ready or not o_valid
            first = interval == 2 and not second and takes_two({"small": s.small, "acc": s.acc}, relu=False)
            ready.append((i_ready, moves and not first))
            if moves:
                second = valid and first

    bench.process(watch)
    bench.run()
    assert [found for found, _ in ready] == [expected for _, expected in ready]
    assert len(o.payloads) == 60


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("clamp_max", [127, 20])
def test_negative_sums_end_at_the_cut_of_relu(rng, interval, clamp_max):
    settings = {"zero_point": 7, "clamp_min": 7, "clamp_max": clamp_max, "double_rounding": 1}
    sums = [sum_(acc, multiplier, shift) for acc in EDGES for multiplier in MULTIPLIERS for shift in (1, 8, 30, 38)]
    sums += [sum_(-acc, rng.integers(1 << 31), rng.integers(1, 39)) for acc in rng.integers(1, 1 << 28, 50)]
    _, o = run(interval, sums, settings)
    assert o.payloads == expect(sums, settings)
    assert all(payload["data"] == 7 + 128 for s, payload in zip(sums, o.payloads) if s["acc"] < 0)


@pytest.mark.parametrize("interval", INTERVALS)
def test_the_input_waits_only_while_an_output_waits(interval):
    """A full pipeline takes a sum in the very cycle in which it gives one away."""
    latency = 8
    sums = [sum_(n) for n in range(40)]
    i, o = run(interval, sums, UNCLAMPED, [None, itertools.chain([True] * 20, [False, True] * 5, never())])
    assert i.cycles[:latency] == [*range(latency)]
    assert i.cycles[latency:] == o.cycles[: 40 - latency]
    assert o.cycles[:7] == [20, 22, 24, 26, 28, 30, 31]


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("cycle", [1, 2, 3, 9, 10])
def test_reset_discards_what_is_in_work(interval, slow, cycle):
    """Also in a second cycle of a sum."""
    old = [sum_(100 << 13, 1 << 30, 20) for _ in range(30)]
    new = [sum_(acc, 1 << 30, 8, last=1, tag=5) for acc in (4, -8, 1 << 20, 12)]
    pauses = itertools.chain([True] * (cycle + 1), never()) if slow else None
    bench, source, i, o, _ = rig(interval, old, UNCLAMPED, (None, pauses))
    bench.run(resets={cycle: lambda: source.restart(new)})
    after = [(at, payload) for at, payload in o.transfers if at > cycle]
    assert [payload for _, payload in after] == expect(new, UNCLAMPED)
    assert after[0][0] == cycle + 1 + 8
    assert next(at for at in i.cycles if at > cycle) == cycle + 1


@pytest.mark.parametrize("interval", [0, 3])
def test_interval_must_be_1_or_2(interval):
    with pytest.raises(ValueError, match=f"^{re.escape(f'interval must be 1 or 2, not {interval}')}$"):
        Requantizer(interval=interval)


@pytest.mark.parametrize("interval", INTERVALS)
def test_shift_must_be_at_least_1(interval):
    with pytest.raises(AssertionError, match=r"^Assertion violated: shift must be at least 1$"):
        run(interval, [sum_(1, shift=1), sum_(1, shift=0)], UNCLAMPED)


def test_technology_must_be_known():
    with pytest.raises(ValueError, match=r"^technology must be 'generic' or 'ice40', not 'ecp5'$"):
        Requantizer(technology="ecp5")
