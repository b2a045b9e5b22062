"""The writer, against a list of bytes."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from gossamer.golden import codec
from gossamer.hdl.writer import ROWS, Writer
from gossamer.sim.streams import Bench
from tests.hdl.rows import code_ends, random_unit


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run's outputs go, and their shape."""

    out_address: int = 0
    out_x_step: int = 0
    out_row_step: int = 0
    image_words: int = 0
    rows: int = 1
    groups: int = 1
    width: int = 1
    last_bytes: int | None = None  # in a window of the last group, if fewer than lanes
    partial_out: int = 0
    out_coded: int = 0
    out_signed: int = 0
    out_nibbles: int = 0
    out_bits: int = 0
    int4: int = 0

    def group(self, lanes):
        """Bytes of a group."""
        return (2 * lanes if self.int4 else lanes) // (2 if self.out_nibbles else 8 if self.out_bits else 1)


def windows(place, lanes):
    """``(address, bytes, tag)`` of each window."""
    row, group = place.out_address, place.group(lanes)
    for n, (_, g, x) in enumerate(itertools.product(range(place.rows), range(place.groups), range(place.width))):
        last_group, last_x = g == place.groups - 1, x == place.width - 1
        number = group if place.last_bytes is None or not last_group else place.last_bytes
        tag = {"partial": int(last_group), "group_last": int(last_x), "row_last": int(last_group and last_x)}
        if place.partial_out:
            yield place.out_address + n * place.out_x_step, number, tag
            continue
        yield row + g * group + x * place.out_x_step, number, tag
        if last_group and last_x:
            row += g * group + place.out_row_step


def stream(rng, place, lanes):
    """``(address, payload)`` of each byte, or entry."""
    size = 8 if place.partial_out else 1
    return [
        (address + size * i, {"data": int(rng.integers(256)), "last": int(i == number - 1), "tag": tag})
        for address, number, tag in windows(place, lanes)
        for i in range(number)
    ]


@dataclasses.dataclass
class Run:
    """``writes`` are ``(cycle, {byte address: byte})``, ``errors``, ``idle`` and ``overflows`` cycles."""

    writes: list
    errors: list
    idle: list
    overflows: list = dataclasses.field(default_factory=list)


def run(dut, place, payloads, cycles, announced, *, hosts=None, reset=None, extra=4, entries=()):
    """Start a run in the cycle before cycle 0; ``cycles`` are those of the ``payloads``, ``announced`` those of ``row_done``;
    ``hosts`` has ``(address, data, mask)`` by cycle; ``entries`` are those of the payloads. After the cycle of ``reset`` the
    run starts again, with the first payload."""
    bench, hosts = Bench(dut), hosts or {}
    total = max([*cycles, *announced, *hosts, 0]) + extra
    source = bench.source(dut.i, payloads, iter([cycle not in cycles for cycle in range(-1, total)]))
    result = Run([], [], [])
    store_bytes = dut.write.mask.shape().width

    async def drive(ctx):
        for name in (field.name for field in dataclasses.fields(place)):
            if name != "out_address" and hasattr(dut, name):
                ctx.set(getattr(dut, name), getattr(place, name))
        for cycle in range(-1, total):
            start = cycle == -1 or cycle - 1 == reset
            ctx.set(dut.start, start)
            ctx.set(dut.out_address, place.out_address if start else -1)
            ctx.set(dut.row_done, cycle in announced)
            ctx.set(dut.entry, dict(zip(cycles, entries)).get(cycle, 0xE7 * cycle))
            host = hosts.get(cycle)
            ctx.set(dut.host.en, host is not None)
            address, data, mask = (0, 0, -1) if host is None else host
            ctx.set(dut.host.address, address)
            ctx.set(dut.host.data, data)
            ctx.set(dut.host.mask, mask)
            signals = (dut.write.en, dut.write.address, dut.write.data, dut.write.mask, dut.error, dut.idle, dut.i.ready)
            _, _, en, address, data, mask, error, idle, ready, overflow = await ctx.tick().sample(*signals, dut.overflow)
            assert ready
            if en:
                base = address * store_bytes
                result.writes.append((cycle, {base + b: data >> 8 * b & 0xFF for b in range(store_bytes) if mask >> b & 1}))
            if error:
                result.errors.append(cycle)
            if overflow:
                result.overflows.append(cycle)
            if idle and cycle >= 0:
                result.idle.append(cycle)

    bench.process(drive)
    bench.run(cycles=total + 1, resets={} if reset is None else {reset + 1: lambda: source.restart(payloads)})
    return result


def expect(place, items, cycles, announced, *, store_bytes, store_words, extra=4, entries=()):
    """The same, of bytes that go to a list."""
    result, pending, done = Run([], [], []), {}, []
    for n, ((address, payload), cycle) in enumerate(zip(items, cycles)):
        if place.partial_out:
            pending |= dict(enumerate(entries[n].to_bytes(8, "little"), address))
            address += 7
        else:
            pending[address] = payload["data"]
        word = address // store_bytes
        if payload["last"] or (address + 1) % store_bytes == 0:
            if place.image_words <= word < store_words:
                result.writes.append((cycle + 1, pending))
            else:
                result.errors.append(cycle + 1)
            pending = {}
        if payload["last"] and payload["tag"]["row_last"]:
            done.append(cycle)
    busy = {cycle for cycle, _ in result.writes} | set(result.errors)
    for now in range(max([*cycles, *announced]) + extra):
        if sum(c < now for c in announced) == sum(c < now for c in done) and now not in busy:
            result.idle.append(now)
    return result


def spaced(rng, number, share):
    """Cycles of ``number`` transfers, the first in cycle 1, ``share`` of the cycles being empty."""
    return (1 + rng.geometric(1 - share, number).cumsum() - 1).tolist() if share else list(range(1, number + 1))


def row_ends(items, cycles):
    return [cycle for (_, p), cycle in zip(items, cycles) if p["last"] and p["tag"]["row_last"]]


@pytest.mark.parametrize("lanes, store_bytes", [(1, 1), (1, 8), (8, 8), (16, 4), (16, 16), (64, 8)])
@pytest.mark.parametrize("share", [0, 0.6])
@pytest.mark.parametrize("announce", ["early", "at the end"])
def test_matches_a_list_of_bytes_in_each_cycle(rng, lanes, store_bytes, share, announce):
    for store_words in (300, 512):
        place = Place(
            out_address=int(rng.integers(20 * store_bytes, 40 * store_bytes)),
            out_x_step=int(rng.integers(0, 3 * lanes + 2)),
            out_row_step=int(rng.integers(0, 4 * lanes + 2)),
            image_words=int(rng.integers(0, 20)),
            rows=int(rng.integers(1, 4)),
            groups=int(rng.integers(1, 4)),
            width=int(rng.integers(1, 5)),
            last_bytes=int(rng.integers(1, lanes + 1)),
        )
        items = stream(rng, place, lanes)
        cycles = spaced(rng, len(items), share)
        announced = list(range(1, place.rows + 1)) if announce == "early" else row_ends(items, cycles)
        if announced[0] > cycles[-1] or any(a > end for a, end in zip(announced, row_ends(items, cycles))):
            announced = row_ends(items, cycles)  # rows too short to be announced one per cycle
        dut = Writer(lanes=lanes, store_bytes=store_bytes, store_words=store_words)
        seen = run(dut, place, [p for _, p in items], cycles, announced)
        assert seen == expect(place, items, cycles, announced, store_bytes=store_bytes, store_words=store_words)


@pytest.mark.parametrize("lanes, store_bytes", [(8, 8), (16, 4), (64, 16)])
@pytest.mark.parametrize("int4", [0, 1])
@pytest.mark.parametrize("field", ["out_nibbles", "out_bits", None])
@pytest.mark.parametrize("share", [0, 0.6])
def test_a_group_begins_where_the_bytes_of_the_one_before_end(rng, lanes, store_bytes, int4, field, share):
    """Twice as many with int4, half as many or an eighth with several values per byte; rows and groups follow."""
    place = Place(
        out_address=int(rng.integers(20, 400)),
        out_row_step=int(rng.integers(0, 200)),
        rows=3,
        groups=int(rng.integers(2, 5)),
        width=int(rng.integers(1, 4)),
        int4=int4,
        **({field: 1} if field else {}),
    )
    size = place.group(lanes)
    place = dataclasses.replace(place, out_x_step=place.groups * size, last_bytes=int(rng.integers(1, size + 1)))
    items = stream(rng, place, lanes)
    cycles = spaced(rng, len(items), share)
    ends = row_ends(items, cycles)
    dut = Writer(lanes=lanes, store_bytes=store_bytes, store_words=1024, nibbles=True, bits=True, int4=True)
    seen = run(dut, place, [p for _, p in items], cycles, ends)
    assert seen == expect(place, items, cycles, ends, store_bytes=store_bytes, store_words=1024)


def test_steps_of_groups_by_hand(rng):
    """Two groups of 16 lanes, two pixels of 24 channels in four bits: groups of 8 and 4 bytes, pixels of 12."""
    place = Place(out_address=100, out_x_step=12, out_row_step=16, rows=2, groups=2, width=2, last_bytes=4, out_nibbles=1)
    items = stream(rng, place, 16)
    dut = Writer(lanes=16, store_bytes=4, store_words=64, nibbles=True)
    cycles = list(range(1, len(items) + 1))
    seen = run(dut, place, [p for _, p in items], cycles, row_ends(items, cycles))
    words = [min(data) for _, data in seen.writes]
    assert words == [100, 104, 112, 116, 108, 120, 124, 128, 136, 140, 132, 144]


@pytest.mark.parametrize("last", [1, 15, 16])
def test_a_window_of_int4_has_up_to_twice_as_many_partial_sums(rng, last):
    place = Place(out_address=64, out_x_step=128, width=3, groups=2, last_bytes=last, partial_out=1, int4=1)
    items = stream(rng, place, 8)
    entries = [int.from_bytes(rng.bytes(8), "little") for _ in items]
    cycles = list(range(1, len(items) + 1))
    ends = row_ends(items, cycles)
    dut = Writer(lanes=8, store_bytes=8, store_words=300, int4=True)
    seen = run(dut, place, [p for _, p in items], cycles, ends, entries=entries)
    assert seen == expect(place, items, cycles, ends, entries=entries, store_bytes=8, store_words=300)


def test_a_window_is_not_longer_than_twice_the_lanes_with_int4():
    payloads = [MORE] * 15 + [ROW]
    run(Writer(lanes=8, store_bytes=4, store_words=64, int4=True), Place(int4=1), payloads, range(1, 17), [1])
    with pytest.raises(AssertionError, match=r"^Assertion violated: a window must have at most 16 bytes$"):
        run(Writer(lanes=8, store_bytes=4, store_words=64, int4=True), Place(int4=1), [MORE] * 16, range(1, 17), [1])


def test_a_word_is_written_in_the_cycle_after_its_last_byte(rng):
    place = Place(out_address=6, out_x_step=5, width=2, last_bytes=5)
    items = [(a, {**p, "data": a}) for a, p in stream(rng, place, 8)]
    seen = run(Writer(lanes=8, store_bytes=4, store_words=64), place, [p for _, p in items], list(range(1, 11)), [10])
    assert seen.writes == [
        (3, {6: 6, 7: 7}),
        (6, {8: 8, 9: 9, 10: 10}),
        (7, {11: 11}),
        (11, {12: 12, 13: 13, 14: 14, 15: 15}),
    ]
    assert seen.idle == [0, 1, 2, 4, 5, 8, 9, 10, 12, 13]


def check(place, *, rng, lanes=8, store_bytes=4, store_words=64):
    """Run at full rate; returns the writes' addresses, for what is to be looked at besides."""
    items = stream(rng, place, lanes)
    cycles = list(range(1, len(items) + 1))
    ends = row_ends(items, cycles)
    dut = Writer(lanes=lanes, store_bytes=store_bytes, store_words=store_words)
    seen = run(dut, place, [p for _, p in items], cycles, ends)
    assert seen == expect(place, items, cycles, ends, store_bytes=store_bytes, store_words=store_words)
    return [sorted(data) for _, data in seen.writes], seen.errors


def test_the_last_byte_of_the_store(rng):
    assert check(Place(out_address=255, last_bytes=1), rng=rng) == ([[255]], [])


@pytest.mark.parametrize("store_words", [63, 64])
def test_a_word_behind_the_store_is_an_error(rng, store_words):
    place = Place(out_address=4 * store_words - 4, out_row_step=16, rows=2)
    writes, errors = check(place, rng=rng, store_words=store_words)
    assert writes == [list(range(4 * store_words - 4, 4 * store_words))]
    assert len(errors) == 3


def test_the_highest_address_is_an_error(rng):
    assert check(Place(out_address=511, last_bytes=1), rng=rng) == ([], [2])


def test_a_word_of_the_image_is_an_error(rng):
    writes, errors = check(Place(out_address=4 * 62 + 2, image_words=63, last_bytes=4), rng=rng)
    assert writes == [[252, 253]]
    assert errors == [3]


@pytest.mark.parametrize("step", [0, 1, 4095])
def test_steps_of_all_sizes(rng, step):
    place = Place(out_address=5, out_x_step=step, out_row_step=10_000 if step else 0, width=3, groups=2, rows=2)
    check(place, rng=rng, store_words=1 << 13)


def test_as_many_rows_as_may_be_under_way(rng):
    place = Place(rows=ROWS, last_bytes=1, out_row_step=1)
    items = stream(rng, place, 8)
    announced, cycles = list(range(1, ROWS + 1)), list(range(ROWS + 1, 2 * ROWS + 1))
    seen = run(Writer(lanes=8, store_bytes=4, store_words=64), place, [p for _, p in items], cycles, announced)
    assert seen == expect(place, items, cycles, announced, store_bytes=4, store_words=64)
    assert seen.idle[:3] == [0, 1, 2 * ROWS + 2]


def test_a_row_may_be_announced_while_another_ends(rng):
    place = Place(rows=3, last_bytes=2, out_row_step=2)
    items = stream(rng, place, 8)
    cycles, announced = [1, 2, 3, 4, 5, 6], [1, 2, 4]
    seen = run(Writer(lanes=8, store_bytes=4, store_words=64), place, [p for _, p in items], cycles, announced)
    assert seen == expect(place, items, cycles, announced, store_bytes=4, store_words=64)
    assert seen.idle == [0, 1, 8, 9]


# Partial sums


def check_partial(place, rng, *, lanes=8, store_bytes=8, store_words=300, share=0.0):
    """Compare a run with the list of bytes; returns the addresses of what was written, and errors."""
    items = stream(rng, place, lanes)
    entries = [int.from_bytes(rng.bytes(8), "little") for _ in items]
    cycles = spaced(rng, len(items), share)
    ends = row_ends(items, cycles)
    dut = Writer(lanes=lanes, store_bytes=store_bytes, store_words=store_words)
    seen = run(dut, place, [p for _, p in items], cycles, ends, entries=entries)
    sizes = {"store_bytes": store_bytes, "store_words": store_words}
    assert seen == expect(place, items, cycles, ends, entries=entries, **sizes)
    return [(min(data), len(data)) for _, data in seen.writes], seen.errors


@pytest.mark.parametrize("lanes, last", [(8, 8), (8, 7), (8, 1), (16, 13), (64, 1)])
@pytest.mark.parametrize("store_bytes", [8, 16])
@pytest.mark.parametrize("share", [0, 0.6])
def test_partial_sums_are_entries_one_behind_the_other(rng, lanes, last, store_bytes, share):
    """Rows, groups and pixels do not matter: the steps that are for bytes are far away."""
    place = Place(
        out_address=16 * int(rng.integers(10)) + 8 * int(rng.integers(2)), out_x_step=8 * lanes, out_row_step=1 << 13,
        rows=2, groups=2, width=int(rng.integers(1, 4)), last_bytes=last, partial_out=1,
    )  # fmt: skip
    writes, errors = check_partial(place, rng, lanes=lanes, store_bytes=store_bytes, store_words=4096, share=share)
    assert not errors
    sums = 2 * (lanes + last) * place.width
    assert sum(length for _, length in writes) == 8 * sums


def test_a_word_of_one_entry_is_masked(rng):
    # three entries from 24 on: the second half of word 1, both of word 2; then again, from 48 on, words 3 and 4
    place = Place(out_address=24, out_x_step=24, width=2, last_bytes=3, partial_out=1)
    assert check_partial(place, rng, store_bytes=16)[0] == [(24, 8), (32, 16), (48, 16), (64, 8)]


def test_entries_come_in_every_cycle(rng):
    place = Place(out_x_step=64, width=3, partial_out=1)
    writes, _ = check_partial(place, rng)
    assert writes == [(8 * n, 8) for n in range(24)]


@pytest.mark.parametrize("store_bytes, store_words", [(8, 63), (16, 64)])
def test_partial_sums_behind_the_store_are_errors(rng, store_bytes, store_words):
    place = Place(out_address=store_bytes * (store_words - 1), out_x_step=64, width=1, partial_out=1)
    writes, errors = check_partial(place, rng, store_bytes=store_bytes, store_words=store_words)
    assert writes == [(store_bytes * (store_words - 1), store_bytes)]
    assert len(errors) == 8 * 8 // store_bytes - 1


def test_partial_sums_in_the_image_are_errors(rng):
    writes, errors = check_partial(Place(image_words=3, out_x_step=64, partial_out=1), rng)
    assert writes[0] == (24, 8)
    assert len(errors) == 3


def test_the_host_writes_anywhere_a_cycle_later(rng):
    """A word per cycle, below ``image_words`` too; what the mask leaves out stays."""
    hosts = {
        cycle: (int(rng.integers(64)), int(rng.integers(1 << 32)), int(rng.integers(16))) for cycle in [*range(1, 20), 25, 27]
    }
    hosts |= {30: (0, 0, 0b1111), 31: (63, 0xFFFFFFFF, 0b1111)}
    seen = run(Writer(lanes=8, store_bytes=4, store_words=64), Place(image_words=63), [], [], [], hosts=hosts)
    assert seen.errors == []
    assert seen.writes == [
        (cycle + 1, {4 * address + b: data >> 8 * b & 0xFF for b in range(4) if mask >> b & 1})
        for cycle, (address, data, mask) in hosts.items()
    ]


def test_a_run_after_the_host_writes_its_own_bytes(rng):
    place = Place(out_address=17, last_bytes=2, image_words=4)
    items = stream(rng, place, 8)
    hosts = {0: (1, 0x11223344, 0b1111)}
    seen = run(Writer(lanes=8, store_bytes=4, store_words=64), place, [p for _, p in items], [3, 4], [4], hosts=hosts)
    assert seen.writes == [(1, dict(zip(range(4, 8), [0x44, 0x33, 0x22, 0x11]))), (5, {a: p["data"] for a, p in items})]


@pytest.mark.parametrize("cycle", range(1, 13))
def test_reset_ends_the_run(rng, cycle):
    """Of two rows of six bytes some have come; afterwards the rest is a run of its own."""
    place = Place(out_address=3, out_row_step=7, rows=2, last_bytes=6)
    items = stream(rng, place, 8)
    cycles = [*range(1, min(len(items), cycle) + 1), *range(cycle + 3, cycle + 3 + len(items))]
    announced = [c for c in (1, 2) if c < cycle] + [cycle + 2 + 6, cycle + 2 + 12]
    dut = Writer(lanes=8, store_bytes=4, store_words=64)
    seen = run(dut, place, [p for _, p in items], cycles, announced, reset=cycle)
    fresh = expect(place, items, list(range(1, 1 + len(items))), [6, 12], store_bytes=4, store_words=64)
    assert [(c - cycle - 2, data) for c, data in seen.writes if c > cycle] == fresh.writes
    assert [c - cycle - 2 for c in seen.idle if c > cycle + 1] == fresh.idle


MORE, ROW = ({"data": 0, "last": last, "tag": {"partial": 1, "group_last": 1, "row_last": 1}} for last in (0, 1))
ODD = {"data": 0, "last": 1, "tag": {"partial": 1, "group_last": 0, "row_last": 1}}


@pytest.mark.parametrize(
    "payloads, cycles, announced, hosts, message",
    [
        ([], [], range(1, ROWS + 2), (), "not more than 31 rows may be under way"),
        ([ROW], [1], [2], (), "a row must be announced before it has ended"),
        ([MORE] * 8, range(1, 9), [1], (), "a window must have at most 8 bytes"),
        ([ODD], [1], [1], (), "a row's last window must be its group's last"),
        ([], [], [1], [2], "the host must not write during a run"),
        ([MORE], [1], [], [1], "the host must not write during a run"),
        ([MORE], [0], [], [], "the first transfer must come two cycles after start"),
        ([MORE], [-1], [], [], "the first transfer must come two cycles after start"),
    ],
)
def test_broken_rules(payloads, cycles, announced, hosts, message):
    dut = Writer(lanes=8, store_bytes=4, store_words=64)
    with pytest.raises(AssertionError, match=rf"^Assertion violated: {message}$"):
        run(dut, Place(), payloads, cycles, announced, hosts=dict.fromkeys(hosts, (0, 0, 0)))


def test_a_row_may_end_while_as_many_as_may_be_are_under_way_and_another_is_announced():
    dut = Writer(lanes=8, store_bytes=4, store_words=64)
    run(dut, Place(), [ROW] * (ROWS + 1), range(ROWS + 1, 2 * ROWS + 2), range(1, ROWS + 2))


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"lanes": 0}, "lanes must be at least 1, not 0"),
        ({"store_bytes": 12}, "store_bytes must be a power of two, not 12"),
        ({"store_words": 0}, "store_words must be at least 1, not 0"),
    ],
)
def test_constructor_messages(sizes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Writer(**{"lanes": 8, "store_bytes": 4, "store_words": 64, **sizes})


def coded_stream(rows, width, lanes):
    """``(address, payload)`` of each byte of rows that are compressed, group for group; they have no addresses."""
    items = []
    for row in rows:
        groups = [row[at : at + lanes * width] for at in range(0, len(row), lanes * width)]
        for g, group in enumerate(groups):
            size = len(group) // width
            for n, value in enumerate(group):
                last, last_group = n % size == size - 1, g == len(groups) - 1
                group_last = n >= len(group) - size
                tag = {"partial": int(last_group), "group_last": int(group_last), "row_last": int(group_last and last_group)}
                items.append((None, {"data": int(value), "last": int(last), "tag": tag}))
    return items


def expect_coded(place, rows, cycles, announced, *, lanes, store_bytes, store_words, extra=8):
    """A halfword is written three cycles after the value that fills it or is the last; one behind that, four."""
    result, done, busy, cycles = Run([], [], []), [], set(), iter(cycles)
    for number, row in enumerate(rows):
        data = codec.encode(row, lanes=lanes, signed=bool(place.out_signed), bounded=False)
        filled, at = 0, place.out_address + number * place.out_row_step
        for n, end in enumerate(code_ends(row, lanes, place.out_signed)):
            cycle, now = next(cycles), len(data) // 2 if n == len(row) - 1 else end // 16
            for later, k in enumerate(range(filled, now)):
                write = cycle + 3 + later
                if 2 * k >= place.out_row_step:
                    result.overflows.append(write)
                elif place.image_words <= (at + 2 * k) // store_bytes < store_words:
                    result.writes.append((write, {at + 2 * k: data[2 * k], at + 2 * k + 1: data[2 * k + 1]}))
                else:
                    result.errors.append(write)
                busy.add(write)
            filled = now
        done.append(max(busy) - 1)
    for now in range(max([*announced, *done]) + extra):
        if sum(c < now for c in announced) == sum(c < now for c in done) and now not in busy:
            result.idle.append(now)
    return result


def run_coded(rng, rows, *, width, lanes, store_bytes, slot, share=0, announce="early", **place):
    """Rows of ``width`` pixels into slots; returns what was seen and what is expected."""
    store_words = 4096 // store_bytes
    place = Place(out_x_step=2, out_row_step=slot, out_coded=1, **place)
    items = coded_stream(rows, width, lanes)
    cycles = spaced(rng, len(items), share)
    announced = list(range(1, len(rows) + 1)) if announce == "early" else row_ends(items, cycles)
    dut = Writer(lanes=lanes, store_bytes=store_bytes, store_words=store_words, codec="lossless")
    seen = run(dut, place, [p for _, p in items], cycles, announced, extra=8)
    sizes = {"lanes": lanes, "store_bytes": store_bytes, "store_words": store_words}
    expected = expect_coded(place, rows, cycles, announced, **sizes)
    last = max(cycles) + 8
    expected.idle = [cycle for cycle in expected.idle if cycle < last]
    return seen, expected


@pytest.mark.parametrize("lanes, store_bytes", [(8, 8), (16, 8), (16, 16), (64, 8), (64, 16)])
@pytest.mark.parametrize("share", [0, 0.6])
@pytest.mark.parametrize("announce", ["early", "at the end"])
def test_compressed_rows_in_each_cycle(rng, lanes, store_bytes, share, announce):
    for signed in (0, 1):
        width, groups = int(rng.integers(1, 5)), int(rng.integers(1, 3))
        rows = [random_unit(rng, width * groups * lanes) for _ in range(1 if lanes == 64 else 3)]
        options = {"width": width, "lanes": lanes, "store_bytes": store_bytes, "share": share, "announce": announce}
        place = {"out_address": store_bytes * int(rng.integers(20)), "out_signed": signed}
        seen, expected = run_coded(rng, rows, slot=1024, **options, **place)
        assert seen == expected


def test_rows_of_one_value(rng):
    """Codes of 13 bits, of 1 bit."""
    rows = [[value] for value in (255, 0, 0, 255, 255, 1)]
    seen, expected = run_coded(rng, rows, width=1, lanes=8, store_bytes=8, slot=8)
    assert seen == expected
    assert [cycle for cycle, _ in seen.writes] == [4, 5, 6, 7, 8, 9]


def test_the_last_code_may_begin_a_halfword(rng):
    """26 bits; then 1 bit."""
    seen, expected = run_coded(rng, [[255, 255], [0, 0]], width=2, lanes=1, store_bytes=8, slot=16)
    assert seen == expected


@pytest.mark.parametrize("room", [0, -1, -2, 1])
@pytest.mark.parametrize("signed", [0, 1])
def test_a_slot_may_be_full_but_not_overflow(rng, room, signed):
    """``room`` halfwords more than the longest of the rows takes."""
    rows = [rng.integers(0, 256, 16), rng.integers(100, 160, 16), np.full(16, 128 * signed)]
    most = max(len(codec.encode(row, lanes=8, signed=bool(signed), bounded=False)) for row in rows) + 2 * room
    seen, expected = run_coded(rng, rows, width=2, lanes=8, store_bytes=8, slot=most, out_address=80, out_signed=signed)
    assert seen == expected
    assert bool(seen.overflows) == (room < 0)


@pytest.mark.parametrize("halfwords", [1022, 1023])
def test_the_largest_slots(halfwords):
    """The row takes 1024 halfwords: 13 bits, and then 1488 codes of 11."""
    place = Place(out_x_step=2, out_row_step=2 * halfwords, out_coded=1)
    items = [payload for _, payload in coded_stream([[255] * 1489], 1489, 1)]
    dut = Writer(lanes=1, store_bytes=8, store_words=512, codec="lossless")
    seen = run(dut, place, items, range(1, 1490), [1], extra=8)
    assert (len(seen.writes), len(seen.overflows)) == (halfwords, 1024 - halfwords)


@pytest.mark.parametrize("place", [{"out_address": 4096 - 8}, {"out_address": 4096}, {"out_address": 40, "image_words": 6}])
def test_halfwords_outside_the_store_or_in_the_image_are_errors(rng, place):
    seen, expected = run_coded(rng, [[255] * 16], width=2, lanes=8, store_bytes=8, slot=64, **place)
    assert seen == expected
    assert seen.errors
    assert seen.overflows == []


@pytest.mark.parametrize("cycle", range(1, 13))
def test_reset_ends_compressed_rows(cycle):
    """Of two rows of eight bytes some have come; then they come again."""
    rows = [[255, 3, 90, 7] * 2, [200, 0] * 4]
    items = [payload for _, payload in coded_stream(rows, 1, 8)]
    place = Place(out_x_step=2, out_row_step=64, out_coded=1)
    cycles = [*range(1, cycle + 1), *range(cycle + 3, cycle + 3 + len(items))]
    announced = [c for c in (1, 2) if c < cycle] + [cycle + 3, cycle + 4]
    seen = run(Writer(lanes=8, store_bytes=8, store_words=64, codec="lossless"), place, items, cycles, announced, reset=cycle)
    fresh = expect_coded(place, rows, range(1, 17), [1, 2], lanes=8, store_bytes=8, store_words=64)
    assert [(c - cycle - 2, data) for c, data in seen.writes if c > cycle] == fresh.writes
