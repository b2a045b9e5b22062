"""The packer, against shifts of Python integers."""

import itertools

import pytest

from gossamer.hdl.packer import Packer
from gossamer.sim.streams import Bench, never, randomly

TAGS = [{"partial": p, "group_last": g, "row_last": r} for p, g, r in itertools.product((0, 1), repeat=3)]
PER_BYTE = {"out_nibbles": 2, "out_bits": 8, None: 1}


def windows(values, size):
    """Stored bytes as payloads, in windows of so many values with a tag each."""
    return [
        {"data": value, "last": int(n % size == size - 1), "tag": TAGS[n // size % 8]} for n, value in enumerate(values)
    ]


def packed(payloads, mode):
    """What comes out: ``a + 8`` in four bits, or the sign of ``a`` in one, of stored bytes ``a + 128``."""
    found, size = [], PER_BYTE[mode]
    for at in range(0, len(payloads), size):
        values = [payload["data"] - 128 for payload in payloads[at : at + size]]
        if mode == "out_nibbles":
            data = sum((value + 8) % 16 * 16**n for n, value in enumerate(values))
        elif mode == "out_bits":
            data = sum((value >= 0) * 2**n for n, value in enumerate(values))
        else:
            data = values[0] + 128
        found.append({**payloads[at + size - 1], "data": data})
    return found


def run(payloads, mode, *, stalls=(None, None), reset=None, restart=(), **kind):
    """Monitors of both streams."""
    dut = Packer(**kind or {"nibbles": True, "bits": True})
    bench = Bench(dut)

    async def configure(ctx):
        for name in ("out_nibbles", "out_bits"):
            if hasattr(dut, name):
                ctx.set(getattr(dut, name), name == mode)

    bench.process(configure)
    source = bench.source(dut.i, payloads, stalls[0])
    monitors = bench.monitor(dut.i), bench.sink(dut.o, stalls[1])
    bench.run(resets={} if reset is None else {reset: lambda: source.restart(restart)})
    return monitors


@pytest.mark.parametrize("mode", PER_BYTE)
@pytest.mark.parametrize("stalls", [(0, 0), (0.1, 0.7), (0.7, 0.1)])
@pytest.mark.parametrize("size", [8, 24])
def test_matches_shifts_of_integers(rng, mode, stalls, size):
    payloads = windows(rng.integers(0, 256, 240).tolist(), size)
    i, o = run(payloads, mode, stalls=[randomly(rng, share) for share in stalls])
    assert i.payloads == payloads
    assert o.payloads == packed(payloads, mode)


def test_all_stored_bytes_in_both_halves():
    values = [value for n in range(256) for value in (n, 255 - n)]
    _, o = run(windows(values, 2), "out_nibbles")
    assert [payload["data"] for payload in o.payloads] == [
        (first - 120) % 16 | (second - 120) % 16 << 4 for first, second in zip(values[::2], values[1::2])
    ]
    assert o.payloads[120]["data"] == 0xF0  # -8 and 7


def test_the_first_value_is_in_the_lowest_bits():
    _, o = run(windows([121, 120], 2), "out_nibbles")
    assert [payload["data"] for payload in o.payloads] == [0x01]
    _, o = run(windows([128, 127, 0, 0, 0, 255, 0, 0], 8), "out_bits")
    assert [payload["data"] for payload in o.payloads] == [0x21]


@pytest.mark.parametrize("mode", PER_BYTE)
def test_a_byte_goes_out_with_its_last_value_in_the_same_cycle(mode):
    i, o = run(windows([0] * 32, 8), mode)
    assert i.cycles == [*range(32)]
    assert o.offers == o.cycles == i.cycles[PER_BYTE[mode] - 1 :: PER_BYTE[mode]]


@pytest.mark.parametrize("mode, waiting", [("out_nibbles", 1), ("out_bits", 7), (None, 0)])
def test_only_a_byte_s_last_value_waits_for_the_consumer(mode, waiting):
    i, _ = run(windows([0] * 8, 8), mode, stalls=(None, itertools.chain([True] * 20, never())))
    assert i.cycles[: waiting + 1] == [*range(waiting), 20]


@pytest.mark.parametrize("mode", ["out_nibbles", "out_bits"])
@pytest.mark.parametrize("cycle", range(9))
@pytest.mark.parametrize("slow", [False, True])
def test_reset_drops_the_values_of_an_incomplete_byte(mode, cycle, slow):
    new = windows([255, 0, 128, 127, 120, 135, 0, 200], 8)
    pauses = itertools.chain([True] * (cycle + 1), never()) if slow else None
    _, o = run(windows([255] * 16, 8), mode, stalls=(None, pauses), reset=cycle, restart=new)
    assert [payload for at, payload in o.transfers if at > cycle] == packed(new, mode)


@pytest.mark.parametrize(
    "kind, mode", [({"nibbles": True, "bits": False}, "out_nibbles"), ({"nibbles": False, "bits": True}, "out_bits")]
)
def test_it_has_only_the_modes_that_it_is_built_with(kind, mode):
    payloads = windows([*range(120, 136)], 8)
    assert run(payloads, mode, **kind)[1].payloads == packed(payloads, mode)
    assert [hasattr(Packer(**kind), name) for name in ("out_nibbles", "out_bits")] == [*kind.values()]


@pytest.mark.parametrize("mode, size", [("out_nibbles", 3), ("out_bits", 4), ("out_bits", 9)])
def test_a_window_must_have_whole_bytes_of_values(mode, size):
    with pytest.raises(AssertionError, match=r"^Assertion violated: a window must have whole bytes of values$"):
        run(windows([0] * 2 * size, size), mode)
