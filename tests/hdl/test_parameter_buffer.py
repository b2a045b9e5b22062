"""The parameter buffer, against a list of entries."""

import itertools
import re

import pytest

from gossamer.golden.program import encode
from gossamer.golden.spec import ADD_TABLE, PARAMETER
from gossamer.hdl.parameter_buffer import ParameterBuffer
from gossamer.sim.streams import Bench, never, randomly

MOST = (1 << 27) - 1  # largest bias, and largest of 28 accumulator bits
NO_TAG = {"partial": 0, "group_last": 0, "row_last": 0}


def random_number(rng, most):
    """Of at most so many bits, and any number of them."""
    half = 1 << int(rng.integers(most))
    return int(rng.integers(-half, half))


def random_entry(rng):
    return {
        "multiplier": int(rng.integers(1 << 30)),
        "shift": int(rng.integers(64)),
        "bias": random_number(rng, 28),
    }


def random_table_entry(rng):
    return {name: int(rng.integers(-MOST - 1, MOST + 1)) for name in ("first", "second")}


def row(rng, *, lanes, groups, width, last_lanes, acc_bits=24):
    """``(sums of an output row, channel of each)``."""
    sums, channels = [], []
    for group, x in itertools.product(range(groups), range(width)):
        partial, group_last = group == groups - 1, x == width - 1
        tag = {"partial": int(partial), "group_last": int(group_last), "row_last": int(partial and group_last)}
        count = last_lanes if partial else lanes
        for lane in range(count):
            sums.append({"acc": random_number(rng, acc_bits), "last": int(lane == count - 1), "tag": tag})
            channels.append(group * lanes + lane)
    return sums, channels


def scaled(sums, entries):
    return [
        {
            "acc": s["acc"] + entry["bias"],
            "small": int(all(-(1 << 14) <= part < 1 << 14 for part in (s["acc"], entry["bias"]))),
            "multiplier": entry["multiplier"] + (1 << 30),
            "shift": entry["shift"],
            "last": s["last"],
            "tag": s["tag"],
        }
        for s, entry in zip(sums, entries)
    ]


def writes(entries, layout, granule):
    """``(granule number, data)`` that write the entries ``{number: fields}``, whole granules of them."""
    per_write = granule // 8
    for address in sorted({number // per_write for number in entries}):
        numbers = range(address * per_write, (address + 1) * per_write)
        data = b"".join(encode(layout, entries.get(number, {}), 8) for number in numbers)
        yield address, int.from_bytes(data, "little")


def rig(
    written, sums, *, base=0, add=0, partial_in=0, scale=None, stalls=(None, None), lanes=8, entries=256, granule=8,
    acc_bits=24, int4=None,
):  # fmt: skip
    """``(bench, source, i, o)``: writes, then ``scale`` for additions, then the sums. ``int4`` is its port, if there is one."""
    dut = ParameterBuffer(lanes=lanes, acc_bits=acc_bits, entries=entries, granule=granule, int4=int4 is not None)
    bench = Bench(dut)
    written = [*writes(written, ADD_TABLE if add else PARAMETER, granule)]

    async def prepare(ctx):
        ctx.set(dut.base, base)
        if int4 is not None:
            ctx.set(dut.int4, int4)
        ctx.set(dut.add, add)
        ctx.set(dut.partial_in, partial_in)
        ctx.set(dut.write.en, 1)
        for address, data in written:
            ctx.set(dut.write.address, address)
            ctx.set(dut.write.data, data)
            await ctx.tick()
        ctx.set(dut.write.en, 0)
        ctx.set(dut.write.data, 0)
        if scale is not None:
            ctx.set(dut.add_scale.en, 1)
        ctx.set(dut.add_scale.multiplier, scale[0] if scale else 0x2AAA_AAAA)
        ctx.set(dut.add_scale.shift, scale[1] if scale else 0x2A)
        await ctx.tick()
        ctx.set(dut.add_scale.en, 0)
        ctx.set(dut.add_scale.multiplier, 0x1555_5555)
        ctx.set(dut.add_scale.shift, 0x15)

    bench.process(prepare)
    source = bench.source(dut.i, sums, itertools.chain([True] * (len(written) + 1), stalls[0] or never()))
    return bench, source, bench.monitor(dut.i), bench.sink(dut.o, stalls[1]), dut


SHAPES = [
    # lanes, groups, width, last_lanes, entries, granule, base
    (8, 1, 3, 8, 256, 8, 0),
    (8, 3, 2, 1, 256, 8, 256 - 17),
    (8, 2, 1, 5, 512, 16, 301),
    (16, 2, 3, 15, 256, 16, 8),
    (64, 2, 1, 33, 256, 16, 159),
]


@pytest.mark.parametrize("lanes, groups, width, last_lanes, entries, granule, base", SHAPES)
@pytest.mark.parametrize("stalls", [(0, 0), (0.1, 0.7), (0.7, 0.1)])
def test_each_sum_gets_the_entry_of_its_channel(rng, lanes, groups, width, last_lanes, entries, granule, base, stalls):
    sums, channels = [], []
    for _ in range(3):
        row_sums, row_channels = row(rng, lanes=lanes, groups=groups, width=width, last_lanes=last_lanes)
        sums += row_sums
        channels += row_channels
    table = {base + channel: random_entry(rng) for channel in {*channels}}
    sizes = {"lanes": lanes, "entries": entries, "granule": granule, "base": base}
    bench, _, _, o, _ = rig(table, sums, stalls=[randomly(rng, share) for share in stalls], **sizes)
    bench.run()
    assert o.payloads == scaled(sums, [table[base + channel] for channel in channels])


@pytest.mark.parametrize("int4", [0, 1])
@pytest.mark.parametrize("lanes, groups, width, last, base", [(8, 1, 3, 16, 0), (8, 3, 2, 9, 256 - 41), (16, 2, 3, 15, 8)])
@pytest.mark.parametrize("stalls", [(0, 0), (0.1, 0.7), (0.7, 0.1)])
def test_a_group_of_int4_has_twice_as_many_channels(rng, int4, lanes, groups, width, last, base, stalls):
    size = 2 * lanes if int4 else lanes
    sums, channels = [], []
    for _ in range(2):
        row_sums, row_channels = row(rng, lanes=size, groups=groups, width=width, last_lanes=min(last, size))
        sums += row_sums
        channels += row_channels
    table = {base + channel: random_entry(rng) for channel in {*channels}}
    options = {"lanes": lanes, "base": base, "int4": int4}
    bench, _, _, o, _ = rig(table, sums, stalls=[randomly(rng, share) for share in stalls], **options)
    bench.run()
    assert o.payloads == scaled(sums, [table[base + channel] for channel in channels])


@pytest.mark.parametrize("int4", [0, 1])
@pytest.mark.parametrize("stalls", [(0, 0), (0.1, 0.7)])
def test_a_window_of_int4_has_twice_as_many_entries_of_its_own(rng, int4, stalls):
    size = 16 if int4 else 8
    sums = [s for _ in range(2) for s in row(rng, lanes=size, groups=2, width=2, last_lanes=size - 3)[0]]
    numbers = [64 + n for n in windows_of(sums, size)]
    table = {number: random_entry(rng) for number in numbers}
    options = {"base": 64, "partial_in": 1, "int4": int4}
    bench, _, _, o, _ = rig(table, sums, stalls=[randomly(rng, share) for share in stalls], **options)
    bench.run()
    assert o.payloads == scaled(sums, [table[number] for number in numbers])


@pytest.mark.parametrize("cycle", range(0, 24, 5))
def test_after_a_reset_int4_begins_again_with_the_first_channel(rng, cycle):
    table = {n: random_entry(rng) for n in range(48)}
    sums, channels = row(rng, lanes=16, groups=3, width=1, last_lanes=16)
    bench, source, _, o, _ = rig(table, sums, int4=1)
    reset = len([*writes(table, PARAMETER, 8)]) + 1 + cycle
    bench.run(resets={reset: lambda: source.restart(sums)})
    assert [payload for at, payload in o.transfers if at > reset] == scaled(sums, [table[channel] for channel in channels])


def windows_of(sums, lanes):
    """The entry of each sum if every window has its own: that of its lane, ``lanes`` from window to window."""
    window = lane = 0
    for s in sums:
        yield window * lanes + lane
        window, lane = (window + 1, 0) if s["last"] else (window, lane + 1)


@pytest.mark.parametrize("lanes, groups, width, last_lanes, entries, granule, base", SHAPES)
@pytest.mark.parametrize("stalls", [(0, 0), (0.1, 0.7), (0.7, 0.1)])
def test_each_sum_gets_an_entry_of_its_own(rng, lanes, groups, width, last_lanes, entries, granule, base, stalls):
    """Windows count on over groups, pixels and rows; the end of a row restarts nothing."""
    rows = max(min(3, (entries - base) // (lanes * groups * width)), 1)
    base = min(base, entries - rows * groups * width * lanes) // 2 * 2
    sums = [s for _ in range(rows) for s in row(rng, lanes=lanes, groups=groups, width=width, last_lanes=last_lanes)[0]]
    numbers = [base + n for n in windows_of(sums, lanes)]
    assert len({*numbers}) == len(numbers)
    table = {number: random_entry(rng) for number in numbers}
    sizes = {"lanes": lanes, "entries": entries, "granule": granule, "base": base}
    bench, _, _, o, _ = rig(table, sums, partial_in=1, stalls=[randomly(rng, share) for share in stalls], **sizes)
    bench.run()
    assert o.payloads == scaled(sums, [table[number] for number in numbers])


@pytest.mark.parametrize("before, after", [(1, 1), (1, 0), (0, 1)])
def test_add_scale_begins_again_with_the_first_entry(rng, before, after):
    """Two runs; in the first only a part of a row comes, so that no end of a row restarts anything."""
    sums, channels = row(rng, lanes=8, groups=2, width=2, last_lanes=5)
    first = sums[:8]
    table = {16 + number: random_entry(rng) for number in range(32)}
    bench, source, _, o, dut = rig(table, first, base=16, partial_in=before)

    async def later(ctx):
        await ctx.tick().repeat(60)
        ctx.set(dut.partial_in, after)
        ctx.set(dut.add_scale.en, 1)
        await ctx.tick()
        ctx.set(dut.add_scale.en, 0)
        source.queue.extend(sums)

    bench.process(later)
    bench.run(cycles=120)
    numbers = [*windows_of(sums, 8)] if after else channels
    assert o.payloads == scaled(first, [table[16 + n] for n in range(8)]) + scaled(sums, [table[16 + n] for n in numbers])


def test_extreme_sums_and_entries():
    values = list(itertools.product((-MOST - 1, -1, 0, MOST), (-MOST - 1, -1, 0, MOST)))
    sums = [{"acc": acc, "last": 0, "tag": NO_TAG} for acc, _ in values]
    scales = itertools.cycle([(0, 0), ((1 << 30) - 1, 63), (0, 63), (1, 1)])
    table = {
        number: {"bias": bias, "multiplier": multiplier, "shift": shift}
        for number, ((_, bias), (multiplier, shift)) in enumerate(zip(values, scales))
    }
    bench, _, _, o, _ = rig(table, sums, lanes=16, acc_bits=28)
    bench.run()
    assert o.payloads == scaled(sums, table.values())
    assert o.payloads[0]["acc"] == -(1 << 28)
    assert o.payloads[-1]["acc"] == (1 << 28) - 2


@pytest.mark.parametrize("acc_bits", [16, 28])
def test_a_small_sum_is_of_two_numbers_of_15_bits(acc_bits):
    edges = [-(1 << 14) - 1, -(1 << 14), -1, 0, (1 << 14) - 1, 1 << 14]
    values = [*itertools.product(edges, edges)]
    sums = [{"acc": acc, "last": int(n % 8 == 7), "tag": NO_TAG} for n, (acc, _) in enumerate(values)]
    table = {n: {"bias": bias, "multiplier": 0, "shift": 0} for n, (_, bias) in enumerate(values)}
    bench, _, _, o, _ = rig(table, sums, partial_in=1, acc_bits=acc_bits)
    bench.run()
    assert [payload["small"] for payload in o.payloads] == ([0] * 6 + [0, 1, 1, 1, 1, 0] * 4 + [0] * 6)
    assert o.payloads == scaled(sums, table.values())


@pytest.mark.parametrize("entries, granule, base", [(256, 8, 0), (512, 16, 256), (1024, 16, 512)])
@pytest.mark.parametrize("stalls", [(0, 0), (0.1, 0.7), (0.7, 0.1)])
def test_additions_look_both_bytes_up(rng, entries, granule, base, stalls):
    sums, _ = row(rng, lanes=8, groups=2, width=4, last_lanes=3, acc_bits=18)
    for s, (u, v) in zip(sums, itertools.product((0, 1, 127, 128, 255), repeat=2)):
        s["acc"] = s["acc"] >> 16 << 16 | v << 8 | u
    table = {base + number: random_table_entry(rng) for number in range(256)}
    scale = int(rng.integers(1 << 30)), int(rng.integers(64))
    sizes = {"entries": entries, "granule": granule, "base": base, "acc_bits": 18}
    bench, _, _, o, _ = rig(table, sums, add=1, scale=scale, stalls=[randomly(rng, share) for share in stalls], **sizes)
    bench.run()
    expected = [
        {
            "acc": table[base + (s["acc"] & 255)]["first"] + table[base + (s["acc"] >> 8 & 255)]["second"],
            "small": 0,
            "multiplier": scale[0] + (1 << 30),
            "shift": scale[1],
            "last": s["last"],
            "tag": s["tag"],
        }
        for s in sums
    ]
    assert o.payloads == expected


def test_extreme_additions():
    table = {0: {"first": -MOST - 1, "second": MOST}, 255: {"first": MOST, "second": -MOST - 1}}
    sums = [{"acc": acc, "last": 0, "tag": NO_TAG} for acc in (255 << 8, 255, 0, 255 << 8 | 255)]
    bench, _, _, o, _ = rig(table, sums, add=1, scale=((1 << 30) - 1, 63))
    bench.run()
    assert [payload["acc"] for payload in o.payloads] == [-(1 << 28), (1 << 28) - 2, -1, -1]
    assert {(payload["multiplier"], payload["shift"]) for payload in o.payloads} == {((1 << 31) - 1, 63)}


def test_after_additions_each_channel_has_its_own_scale_again(rng):
    sums, channels = row(rng, lanes=8, groups=1, width=1, last_lanes=8)
    table = {channel: random_entry(rng) for channel in channels}
    bench, source, _, o, dut = rig(table, sums)

    async def later(ctx):
        await ctx.tick().repeat(40)
        ctx.set(dut.add, 1)
        ctx.set(dut.add_scale.en, 1)
        await ctx.tick()
        ctx.set(dut.add_scale.en, 0)
        source.queue.extend({"acc": 0, "last": 1, "tag": NO_TAG} for _ in range(2))
        await ctx.tick().repeat(10)
        ctx.set(dut.add, 0)
        source.queue.extend(sums)

    bench.process(later)
    bench.run(cycles=80)
    before, addition, after = o.payloads[:8], o.payloads[8:10], o.payloads[10:]
    assert before == after == scaled(sums, table.values())
    assert [(payload["multiplier"], payload["shift"]) for payload in addition] == [(0x1555_5555 + (1 << 30), 0x15)] * 2


@pytest.mark.parametrize("add", [0, 1])
def test_one_sum_per_cycle_two_cycles_later(add):
    sums = [{"acc": n, "last": 0, "tag": NO_TAG} for n in range(8)]
    bench, _, i, o, _ = rig({0: {}}, sums, add=add, scale=(1, 1) if add else None)
    bench.run()
    assert i.cycles == [*range(2, 10)]
    assert o.offers == o.cycles == [*range(4, 12)]


def test_the_input_waits_only_while_an_output_waits():
    """A full buffer takes a sum in the very cycle in which it gives one away."""
    sums = [{"acc": n, "last": 0, "tag": NO_TAG} for n in range(8)]
    bench, _, i, o, _ = rig({0: {}}, sums, stalls=(None, itertools.chain([True] * 10, [False, True] * 4, never())))
    bench.run()
    assert i.cycles == [2, 3, 10, 12, 14, 16, 18, 19]
    assert o.cycles == [10, 12, 14, 16, 18, 19, 20, 21]


def test_an_entry_is_used_in_the_cycle_after_its_write():
    sums = [{"acc": 0, "last": 0, "tag": NO_TAG}] * 2
    dut = ParameterBuffer(lanes=8, acc_bits=24, entries=256, granule=8)
    bench = Bench(dut)
    bench.source(dut.i, sums, iter([True, False, False]))
    o = bench.sink(dut.o)

    async def write(ctx):
        ctx.set(dut.write.en, 1)
        for address in range(2):
            ctx.set(dut.write.address, address)
            ctx.set(dut.write.data, 7 + address)
            await ctx.tick()
        ctx.set(dut.write.en, 0)

    bench.process(write)
    bench.run()
    assert [payload["multiplier"] for payload in o.payloads] == [(1 << 30) + 7, (1 << 30) + 8]


def test_writes_of_other_entries_do_not_disturb(rng):
    sums, channels = row(rng, lanes=8, groups=2, width=2, last_lanes=8)
    table = {channel: random_entry(rng) for channel in channels}
    bench, _, _, o, dut = rig(table, sums, stalls=(None, randomly(rng, 0.5)))

    async def write(ctx):
        await ctx.tick().repeat(len(table) + 1)
        for address in itertools.cycle(range(16, 256)):
            ctx.set(dut.write.en, 1)
            ctx.set(dut.write.address, address)
            ctx.set(dut.write.data, int.from_bytes(rng.bytes(8), "little"))
            await ctx.tick()

    bench.process(write)
    bench.run()
    assert o.payloads == scaled(sums, [table[channel] for channel in channels])


@pytest.mark.parametrize("after", [1, 2, 9, 13, 17, 20])
def test_reset_discards_sums_and_restarts_the_channels(rng, after):
    """In the first group, in the second, with a held output and without."""
    old, channels = row(rng, lanes=8, groups=3, width=1, last_lanes=8)
    new, _ = row(rng, lanes=8, groups=3, width=1, last_lanes=8)
    table = {5 + channel: random_entry(rng) for channel in channels}
    cycle = len(table) + 1 + after
    bench, source, _, o, _ = rig(table, old, base=5, stalls=(None, randomly(rng, 0.2)))
    bench.run(resets={cycle: lambda: source.restart(new)})
    assert [payload for at, payload in o.transfers if at > cycle] == scaled(new, table.values())


@pytest.mark.parametrize("at, works", [(2, True), (3, False), (4, False), (5, True)])
def test_add_scale_must_come_while_no_sum_is_in_work(at, works):
    """The sum's transfer is in cycle 2."""
    bench, _, i, o, dut = rig({0: {}}, [{"acc": 0, "last": 1, "tag": NO_TAG}], add=1, scale=(1, 1))

    async def again(ctx):
        await ctx.tick().repeat(at)
        ctx.set(dut.add_scale.en, 1)
        await ctx.tick()
        ctx.set(dut.add_scale.en, 0)

    bench.process(again)
    if works:
        bench.run()
        assert i.cycles == [2]
        assert o.cycles == [4]
        return
    with pytest.raises(AssertionError, match=r"^Assertion violated: add_scale must come while no sum is in work$"):
        bench.run()


@pytest.mark.parametrize("base", [1, 128, 384])
def test_base_must_be_a_multiple_of_256_in_an_addition(base):
    bench, *_ = rig({}, [{"acc": 0, "last": 1, "tag": NO_TAG}], base=base, add=1, entries=512)
    with pytest.raises(AssertionError, match=r"^Assertion violated: base must be a multiple of 256 in an addition$"):
        bench.run()


@pytest.mark.parametrize("add, base, acc, address", [(0, 38, 0, 19), (0, 39, 0, 19), (1, 0, 38, 19), (1, 0, 39 << 8, 19)])
def test_an_entry_must_not_be_written_while_it_is_being_read(add, base, acc, address):
    """Nor that beside it in its granule."""
    bench, *_, dut = rig({}, [{"acc": acc, "last": 1, "tag": NO_TAG}], base=base, add=add, granule=16)

    async def write(ctx):
        await ctx.tick()
        ctx.set(dut.write.en, 1)
        ctx.set(dut.write.address, address)

    bench.process(write)
    with pytest.raises(AssertionError, match=r"^Assertion violated: an entry must not be written while it is being read$"):
        bench.run()


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"lanes": 0}, "lanes must be at least 1, not 0"),
        ({"acc_bits": 15}, "acc_bits must be 16 to 28, not 15"),
        ({"acc_bits": 29}, "acc_bits must be 16 to 28, not 29"),
        ({"entries": 384}, "entries must be a power of two, not 384"),
        ({"entries": 128}, "entries must be at least 256, not 128"),
        ({"granule": 4}, "granule must be 8 or 16, not 4"),
    ],
)
def test_constructor_messages(sizes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ParameterBuffer(**{"lanes": 8, "acc_bits": 24, "entries": 256, "granule": 8, **sizes})
