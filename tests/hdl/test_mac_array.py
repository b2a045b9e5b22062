"""The array, against sums of products."""

import itertools
import re

import pytest

from gossamer.hdl.mac_array import MacArray
from gossamer.sim.streams import Bench, never, randomly

TAGS = [{"partial": p, "group_last": g, "row_last": r} for p, g, r in itertools.product((0, 1), repeat=3)]
WHOLE, PARTIAL = TAGS[0], TAGS[-1]


def window(beats, tag=WHOLE):
    """Beats ``(x, w)`` or None for a clamp, ``x`` and ``w`` being lists of a number per lane, as payloads."""
    lanes = next(len(beat[0]) for beat in beats if beat is not None)
    noise = [0] * lanes, [95] * lanes
    payloads = []
    for number, beat in enumerate(beats):
        x, w = noise if beat is None else beat
        clamp, last = beat is None, number == len(beats) - 1
        payloads.append({"x": x, "w": [b & 255 for b in w], "clamp": int(clamp), "last": int(last), "tag": tag})
    return payloads


def constant(lanes, x, w, beats=1, tag=WHOLE):
    return window([([x] * lanes, [w] * lanes)] * beats, tag)


def random_window(rng, lanes, clamps, longest):
    x = rng.integers(0, 256, (rng.integers(1, longest + 1), lanes)) * rng.choice([0, 1, 1], (1, lanes))
    w = rng.integers(-128, 128, x.shape)
    beats = [*zip(x.tolist(), w.tolist())]
    beats = [None if number and rng.random() < clamps else beat for number, beat in enumerate(beats)]
    return window(beats, TAGS[rng.integers(8)])


def product(beat, number, mode):
    """Of sum ``number`` of a window."""
    x, w = (beat[name][number % len(beat["x"])] for name in ("x", "w"))
    if mode == "binary":
        return sum(2 for bit in range(8) if x >> bit & 1 == w >> bit & 1)
    if mode == "int4":
        w = w >> 4 if number >= len(beat["x"]) else w & 15
        return x * (w - 16 if w > 7 else w)
    return x * (w - 256 if w > 127 else w)


def sums(payloads, last_lanes, acc_bits, mode=None):
    """What goes out, one payload after the other."""
    out, beats = [], []
    for payload in payloads:
        beats.append(payload)
        if not payload["last"]:
            continue
        count = last_lanes if payload["tag"]["partial"] else len(payload["x"]) << (mode == "int4")
        for lane in range(count):
            acc = 0
            for beat in beats:
                if beat["clamp"]:
                    acc = max(acc, 0)
                else:
                    acc += product(beat, lane, mode)
                    acc = (acc + (1 << acc_bits - 1)) % (1 << acc_bits) - (1 << acc_bits - 1)
            out.append({"acc": acc, "last": int(lane == count - 1), "tag": payload["tag"]})
        beats = []
    return out


def rig(payloads, *, lanes=4, acc_bits=24, last_lanes=1, stalls=(None, None), mode=None, **options):
    """``(bench, source, i, o)``. With a ``mode`` the array is built with both."""
    options |= {"bits": True, "int4": True} if mode and not options else {}
    dut = MacArray(lanes=lanes, acc_bits=acc_bits, **options)
    bench = Bench(dut)

    async def configure(ctx):
        ctx.set(dut.last_lanes, last_lanes)
        if mode in ("binary", "int4"):
            ctx.set(getattr(dut, mode), 1)

    bench.process(configure)
    source = bench.source(dut.i, payloads, stalls[0])
    return bench, source, bench.monitor(dut.i), bench.sink(dut.o, stalls[1])


def run(payloads, **options):
    """Monitors of ``i`` and ``o``, after everything has gone through."""
    bench, _, i, o = rig(payloads, **options)
    bench.run()
    return i, o


@pytest.mark.parametrize(
    "lanes, last_lanes, acc_bits, luts",
    [(2, 1, 16, False), (4, 3, 18, True), (8, 8, 24, False), (8, 1, 28, False), (16, 9, 26, False)],
)
@pytest.mark.parametrize("longest", [1, 12])
@pytest.mark.parametrize("stalls", [(0, 0), (0, 0.7), (0.7, 0)])
def test_random_windows_match_sums_of_products(rng, lanes, last_lanes, acc_bits, luts, longest, stalls):
    windows = 60 // lanes + 8
    payloads = [beat for _ in range(windows) for beat in random_window(rng, lanes, rng.choice([0, 0.3]), longest)]
    options = {"technology": "ice40", "lut_lanes": lanes} if luts else {}
    sizes = {"lanes": lanes, "acc_bits": acc_bits, "last_lanes": last_lanes}
    _, o = run(payloads, stalls=[randomly(rng, share) for share in stalls], **sizes, **options)
    assert o.payloads == sums(payloads, last_lanes, acc_bits)


@pytest.mark.parametrize("mode", ["binary", "int4", "neither"])
@pytest.mark.parametrize("lanes, last", [(2, 1), (4, 3), (8, 8)])
@pytest.mark.parametrize("stalls", [(0, 0), (0, 0.7), (0.7, 0)])
def test_random_windows_of_bits_and_of_halves(rng, mode, lanes, last, stalls):
    """With ``int4`` windows have twice as many sums, and the last ones up to as many."""
    last += lanes * int(mode == "int4" and rng.integers(2))
    payloads = [beat for _ in range(60 // lanes + 8) for beat in random_window(rng, lanes, 0, 6)]
    sizes = {"lanes": lanes, "acc_bits": 18, "last_lanes": last, "mode": mode}
    _, o = run(payloads, stalls=[randomly(rng, share) for share in stalls], **sizes)
    assert o.payloads == sums(payloads, last, 18, mode)


def test_binary_in_luts(rng):
    payloads = [beat for _ in range(20) for beat in random_window(rng, 4, 0, 6)]
    _, o = run(payloads, last_lanes=3, mode="binary", technology="ice40", lut_lanes=4, bits=True)
    assert o.payloads == sums(payloads, 3, 24, "binary")


def test_sums_of_low_halves_come_before_those_of_high_ones():
    x, w = [1, 10, 100, 200], [0x21, 0x43, 0x65, 0xF7]
    _, o = run(window([(x, w)]) + window([(x, w)], PARTIAL), mode="int4", last_lanes=6)
    whole = [1, 30, 500, 1400, 2, 40, 600, -200]
    assert [payload["acc"] for payload in o.payloads] == whole + whole[:6]
    assert [payload["last"] for payload in o.payloads] == [0] * 7 + [1] + [0] * 5 + [1]


def test_a_drain_of_int4_takes_twice_as_many_cycles():
    i, o = run([beat for n in range(6) for beat in constant(4, n, n)], mode="int4")
    assert i.cycles == [0, 1, 2, 10, 18, 26]
    assert o.offers == o.cycles == [*range(3, 51)]


@pytest.mark.parametrize("cycle", range(1, 12))
def test_reset_discards_windows_of_halves(cycle):
    old = [beat for _ in range(4) for beat in constant(4, 100, 0x34, beats=3)]
    new = constant(4, 7, 0x2F, beats=2) + constant(4, 1, 0x11)
    bench, source, _, o = rig(old, mode="int4")
    bench.run(resets={cycle: lambda: source.restart(new)})
    assert [payload for at, payload in o.transfers if at > cycle] == sums(new, 1, 24, "int4")


@pytest.mark.parametrize("acc_bits", [16, 17, 28])
def test_extreme_products_and_sums_modulo_the_width(acc_bits):
    payloads = []
    for w, beats in itertools.product((-128, -1, 1, 127), (1, 2, 5)):
        payloads += constant(2, 255, w, beats)
    _, o = run(payloads, lanes=2, acc_bits=acc_bits)
    assert o.payloads == sums(payloads, 1, acc_bits)
    assert o.payloads[0]["acc"] == -32640
    assert o.payloads[2]["acc"] == (256 if acc_bits == 16 else -65280)


def test_clamps_by_hand():
    beats = [([3, 3], [-2, 2]), None, ([1, 1], [5, 5]), ([2, 2], [-4, -4]), None]
    _, o = run(window(beats) + window([([1, 1], [-1, 1]), None]), lanes=2)
    assert [payload["acc"] for payload in o.payloads] == [0, 3, 0, 1]


@pytest.mark.parametrize("stalls", [(0, 0), (0, 0.7), (0.7, 0)])
def test_three_beats_per_word_make_a_maximum(rng, stalls):
    words = rng.integers(0, 256, (6, 5, 4)).tolist()
    words[0] = [[255, 0, 0, 255], [0, 255, 0, 255], *[[0, 0, 0, 255]] * 3]
    payloads = []
    for taps in words:
        payloads += window([beat for x in taps for beat in ((x, [-1] * 4), None, (x, [1] * 4))])
    _, o = run(payloads, acc_bits=18, stalls=[randomly(rng, share) for share in stalls])
    assert [payload["acc"] for payload in o.payloads] == [max(lane) for taps in words for lane in zip(*taps)]


def test_latency_and_rate_of_windows_as_long_as_their_drain():
    """One beat per cycle, also from window to window; the first sum is there three cycles after the last beat."""
    i, o = run([beat for n in range(5) for beat in constant(4, n, n, beats=4)])
    assert i.cycles == [*range(20)]
    assert o.offers == o.cycles == [*range(6, 26)]


def test_rate_of_windows_longer_than_their_drain():
    i, o = run([beat for n in range(3) for beat in constant(4, n, n, beats=7)])
    assert i.cycles == [*range(21)]
    assert o.offers == [first + n for first in (9, 16, 23) for n in range(4)]


def test_short_windows_wait_for_the_drain():
    """The sums of one leave without a gap behind those of the other, and beats come in when a drain has ended."""
    i, o = run([beat for n in range(8) for beat in constant(4, n, n)])
    assert i.cycles == [0, 1, 2, 6, 10, 14, 18, 22]
    assert o.offers == o.cycles == [*range(3, 35)]


def test_short_windows_of_one_sum_do_not_wait():
    payloads = [beat for n in range(8) for beat in constant(4, n, n, tag=PARTIAL)]
    i, o = run(payloads, last_lanes=1)
    assert i.cycles == [*range(8)]
    assert o.offers == o.cycles == [*range(3, 11)]


def test_a_window_goes_on_while_the_one_before_drains():
    """Two windows' sums, one in the drain and one in the accumulators, and a beat behind them: then all stands still."""
    payloads = [beat for n in range(3) for beat in constant(4, n, 3, beats=6)]
    i, o = run(payloads, stalls=(None, itertools.chain([True] * 40, never())))
    assert i.cycles == [*range(6 + 6 + 1), 43, 44, 45, 46, 47]
    assert o.offers[0] == 8
    assert o.cycles == [*range(40, 40 + 8), *range(50, 54)]


def test_beats_move_in_the_very_cycle_in_which_the_drain_ends():
    pauses = itertools.chain([True] * 20, itertools.cycle([False, True]))
    i, o = run([beat for n in range(6) for beat in constant(2, n, n)], lanes=2, stalls=(None, pauses))
    assert o.cycles == [*range(20, 44, 2)]
    assert i.cycles == [0, 1, 2, 22, 26, 30]


@pytest.mark.parametrize("stalls", [(0, 0), (0, 0.8)])
def test_sums_of_two_windows_never_mix(rng, stalls):
    """Behind every window of large sums there is one of zeros, and of a lane that only the other uses."""
    payloads = []
    for lane in range(16):
        one = [255 * (n == lane % 4) for n in range(4)]
        payloads += window([(one, [127] * 4)] * (1 + lane % 5)) + constant(4, 0, 127, beats=1 + lane % 3)
    _, o = run(payloads, stalls=[randomly(rng, share) for share in stalls])
    expected = []
    for lane in range(16):
        expected += [255 * 127 * (1 + lane % 5) * (n == lane % 4) for n in range(4)] + [0] * 4
    assert [payload["acc"] for payload in o.payloads] == expected


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("cycle", range(1, 12))
def test_reset_discards_all_windows_in_work(cycle, slow):
    """Whether the sums are in the products, the accumulators or the drain, or a window has only begun."""
    old = [beat for _ in range(4) for beat in constant(4, 100, 100, beats=3)]
    new = constant(4, 7, -3, beats=2) + constant(4, 1, 1)
    pauses = itertools.chain([True] * (cycle + 1), never()) if slow else None
    bench, source, i, o = rig(old, stalls=(None, pauses))
    bench.run(resets={cycle: lambda: source.restart(new)})
    assert [payload for at, payload in o.transfers if at > cycle] == sums(new, 1, 24)
    assert [at for at in i.cycles if at > cycle] == [cycle + 1, cycle + 2, cycle + 3]
    assert next(at for at in o.cycles if at > cycle) == cycle + 2 + 3


@pytest.mark.parametrize("before", [0, 1])
def test_a_window_must_not_begin_with_a_clamp(before):
    payloads = constant(4, 1, 1) * before + window([None, ([1] * 4, [1] * 4)])
    with pytest.raises(AssertionError, match=r"a window must not begin with a clamp$"):
        run(payloads)


def test_the_activations_of_a_clamp_must_be_zero():
    payloads = window([([1] * 4, [1] * 4), None])
    payloads[1]["x"][3] = 128
    with pytest.raises(AssertionError, match=r"x must be 0 with clamp$"):
        run(payloads)


def test_acc_bits_must_hold_a_product():
    with pytest.raises(ValueError, match=f"^{re.escape('acc_bits must be at least 16 to hold a product, not 15')}$"):
        MacArray(lanes=8, acc_bits=15)


@pytest.mark.parametrize("last_lanes", [0, 5])
def test_last_lanes_must_be_1_to_lanes(last_lanes):
    with pytest.raises(AssertionError, match=r"^Assertion violated: last_lanes must be 1 to 4$"):
        run(constant(4, 1, 1, tag=PARTIAL), last_lanes=last_lanes)
    run(constant(4, 1, 1), last_lanes=last_lanes)


@pytest.mark.parametrize("mode, last_lanes", [("int4", 0), ("int4", 9), ("neither", 5)])
def test_last_lanes_of_int4_must_be_1_to_twice_the_lanes(mode, last_lanes):
    message = "last_lanes must be 1 to 4, with int4 to twice as many"
    with pytest.raises(AssertionError, match=f"^Assertion violated: {message}$"):
        run(constant(4, 1, 1, tag=PARTIAL), last_lanes=last_lanes, mode=mode)
    run(constant(4, 1, 1, tag=PARTIAL), last_lanes=8 if mode == "int4" else 4, mode=mode)


@pytest.mark.parametrize(
    "lanes, message", [(12, "lanes must be a power of two, not 12"), (1, "lanes must be at least 2, not 1")]
)
def test_lanes_must_be_a_power_of_two(lanes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        MacArray(lanes=lanes, acc_bits=24)
