"""The row buffer, against look-ups in a list of bytes."""

import dataclasses
import itertools
import re
from types import SimpleNamespace

import pytest
from amaranth.back import rtlil

from gossamer.hdl.row_buffer import RowBuffer
from gossamer.sim.streams import Bench, Monitor, never, randomly

SIZES = [(1, 1, 1, 1), (1, 1, 16, 8), (2, 1, 8, 2), (8, 8, 4, 16), (16, 4, 8, 64), (64, 16, 2, 128)]
"""``(lanes, granule, words, vectors)``."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Fields of the layer descriptor."""

    word_mode: int = 0
    maximum: int = 0
    repeat: int = 1
    tap_step: int = 0
    sparse: int = 0
    vector_base: int = 0
    binary: int = 0


def make_range(address=0, first=0, words=0, final=0, index=0, last=1, tag=0):
    """A range; ``tag`` as a number of three bits."""
    tags = {"partial": tag & 1, "group_last": tag >> 1 & 1, "row_last": tag >> 2}
    return {"address": address, "first": first, "words": words, "final": final, "index": index, "last": last, "tag": tags}


def look_up(item, settings, memory, lanes, words, vectors, masks=()):
    """The words of a range, with ``None`` for those that are dropped; ``memory`` is a list of bytes, ``masks`` one of
    ``(stored lanes, first vector)``, if the buffer knows such."""
    found = []
    for i in range(item["words"] + 1):
        last = int(item["last"] and i == item["words"])
        clamp = 0
        if settings.word_mode:
            address, mask, step = item["address"] + i // settings.repeat * settings.tap_step, 1, 1
            clamp = int(settings.maximum and i % settings.repeat == 1)
        else:
            address, step = item["address"] + i, lanes
            begin = item["first"] if i == 0 else 0
            end = item["final"] if i == item["words"] else lanes - 1
            counts = [settings.binary or memory[address * lanes + lane] for lane in range(lanes)]
            mask = sum(1 << lane for lane in range(begin, end + 1) if counts[lane])
        word = {"mask": mask, "address": address % words, "index": (item["index"] + i * step) % vectors}
        if masks:
            word["stored"] = (1 << lanes) - 1
        if settings.sparse:
            stored, vector = masks[(item["index"] + i) % vectors % len(masks)]
            mask &= stored
            word |= {"mask": mask, "stored": stored, "index": (settings.vector_base + vector) % vectors}
        keep = mask or last
        found.append({**word, "last": last, "clamp": clamp, "tag": item["tag"]} if keep else None)
    return found


@dataclasses.dataclass
class Run:
    """``i`` and ``o`` are monitors, ``enabled`` and ``moving`` cycles: those in which no word waits at the output;
    ``read`` is ``read.data`` of each cycle."""

    i: Monitor
    o: Monitor
    enabled: list = dataclasses.field(default_factory=list)
    moving: list = dataclasses.field(default_factory=list)
    read: list = dataclasses.field(default_factory=list)


def run(
    sizes, settings, ranges, table, *, pauses=None, stalls=None, disables=None, reset=None, restart=(), wait=True,
    masks=(), **kind,
):  # fmt: skip
    """Drive a row of ``table`` per cycle, ``(word to read or None, (granule, data[, mask]) or None)``; then, or with ``wait``
    false at once, send ``ranges``. ``enable`` is low where the iterator ``disables`` says so. The mask buffer has ``masks``."""
    lanes, granule, words, vectors = sizes
    dut = RowBuffer(lanes=lanes, granule=granule, words=words, vectors=vectors, masks=len(masks), **kind)
    bench = Bench(dut)
    pauses = never() if pauses is None else pauses
    source = bench.source(dut.i, ranges, itertools.chain([True] * len(table) if wait else [], pauses))
    bench.sink(dut.o, stalls)
    counted = SimpleNamespace(valid=dut.o.valid, ready=dut.o.ready & dut.enable, payload=dut.o.payload)
    result = Run(bench.monitor(dut.i), bench.monitor(counted))

    async def drive(ctx):
        for field in dataclasses.fields(settings):
            if hasattr(dut, field.name):
                ctx.set(getattr(dut, field.name), getattr(settings, field.name))
        for cycle in itertools.count():
            read, write = table[cycle] if cycle < len(table) else (None, None)
            ctx.set(dut.read.en, read is not None)
            ctx.set(dut.read.address, read or 0)
            ctx.set(dut.write.en, write is not None)
            ctx.set(dut.write.address, 0 if write is None else write[0])
            ctx.set(dut.write.data, -1 if write is None else write[1])
            ctx.set(dut.write.mask, -1 if write is None or len(write) == 2 else write[2])
            enable = disables is None or not next(disables)
            ctx.set(dut.enable, enable)
            _, _, valid, ready, data = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.read.data)
            result.read.append(data)
            if enable:
                result.enabled.append(cycle)
                if ready or not valid:
                    result.moving.append(cycle)
            if cycle < len(table) or not enable:
                bench.stay()

    async def mask_buffer(ctx):
        while True:
            _, _, en, address = await ctx.tick().sample(dut.stored.en, dut.stored.address)
            if en:
                stored, vector = masks[address]
                ctx.set(dut.stored.data, stored | vector << lanes)

    bench.process(drive)
    if masks:
        bench.process(mask_buffer)
    resets = {} if reset is None else {reset: lambda: source.restart(restart)}
    bench.run(quiet=10 + max(item["words"] for item in ranges), resets=resets)  # all of a range may be dropped
    return result


def fill(memory, granule):
    """A table that writes all of ``memory``, a list of bytes."""
    data = [int.from_bytes(bytes(memory[i : i + granule]), "little") for i in range(0, len(memory), granule)]
    return [(None, write) for write in enumerate(data)]


def contents(rng, lanes, words, zeros):
    return (rng.integers(1, 256, lanes * words) * (rng.random(lanes * words) >= zeros)).tolist()


def random_range(rng, settings, lanes, words, vectors):
    address, number = int(rng.integers(words)), int(rng.integers(min(words * lanes, 12)))
    if not settings.word_mode:
        number = int(rng.integers(words - address))
    first, final = (int(lane) for lane in rng.integers(0, lanes, 2))
    if number == 0 and first > final:
        first, final = final, first
    last, tag = int(rng.integers(2)), int(rng.integers(8))
    return make_range(address, first, number, final, int(rng.integers(vectors)), last, tag)


def check(result, ranges, settings, memory, sizes, masks=()):
    """All of ``o``, and every cycle in which something is transferred or offered."""
    lanes, _, words, vectors = sizes
    expected = [look_up(item, settings, memory, lanes, words, vectors, masks) for item in ranges]
    assert result.o.payloads == [word for found in expected for word in found if word]
    transfers, offers, free = [], [], 0
    moving = result.moving
    for offer, found in zip(result.i.offers, expected):
        free = max(offer, free)
        transfers.append(next(cycle for cycle in result.enabled if cycle >= free))
        begin = sum(cycle <= transfers[-1] for cycle in moving)
        for place, word in enumerate(found, begin):
            if word:
                offers.append(moving[place] + 1)
        free = moving[begin + len(found) - 1]
    assert result.i.cycles == transfers
    assert result.o.offers == offers


MODES = [
    Settings(),
    Settings(maximum=1, repeat=2, tap_step=1),  # which mean nothing
    Settings(word_mode=1, repeat=1, tap_step=1),
    Settings(word_mode=1, repeat=2, tap_step=1),
    Settings(word_mode=1, maximum=1, repeat=2, tap_step=3),
    Settings(word_mode=1, maximum=1, repeat=3, tap_step=2),
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("settings", MODES, ids=lambda s: "".join(map(str, dataclasses.astuple(s))))
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.8, 0), (0, 0.8), (0.4, 0.6)])
def test_matches_look_ups_in_each_cycle(rng, sizes, settings, pauses, stalls):
    """Throughput and latency too: a word leaves, or is dropped, in every cycle in which none waits at the output."""
    lanes, granule, words, vectors = sizes
    settings = dataclasses.replace(settings, tap_step=settings.tap_step % words)
    memory = contents(rng, lanes, words, rng.choice([0, 0.7, 0.97]))
    ranges = [random_range(rng, settings, lanes, words, vectors) for _ in range(10)]
    table = fill(memory, granule)
    result = run(sizes, settings, ranges, table, pauses=randomly(rng, pauses), stalls=randomly(rng, stalls))
    check(result, ranges, settings, memory, sizes)


@pytest.mark.parametrize("settings", [MODES[0], MODES[4]], ids=["bytes", "words"])
@pytest.mark.parametrize("stalls", [0, 0.6])
def test_stands_still_while_not_enabled(rng, settings, stalls):
    sizes = (8, 4, 8, 32)
    memory = contents(rng, 8, 8, 0.8)
    ranges = [random_range(rng, settings, 8, 8, 32) for _ in range(12)]
    disables = itertools.chain(itertools.islice(randomly(rng, 0.5), 250), never())
    result = run(sizes, settings, ranges, fill(memory, 4), stalls=randomly(rng, stalls), disables=disables)
    assert len(result.enabled) < 0.9 * len(result.read)
    check(result, ranges, settings, memory, sizes)


def random_masks(rng, lanes, number, density):
    """Of any vectors, as the buffer takes them."""
    return [
        (sum(1 << lane for lane in range(lanes) if rng.random() < density), int(rng.integers(1 << 16))) for _ in range(number)
    ]


@pytest.mark.parametrize("sizes, number", [((8, 4, 8, 64), 64), ((16, 8, 8, 128), 32), ((64, 16, 4, 128), 128)], ids=str)
@pytest.mark.parametrize("density", [0, 0.3, 1])
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.8, 0), (0, 0.8), (0.4, 0.6)])
def test_sparse_words_have_the_stored_lanes_and_their_first_vector(rng, sizes, number, density, pauses, stalls):
    """In the very cycles in which they come without masks."""
    lanes, granule, words, vectors = sizes
    settings = Settings(sparse=1, vector_base=int(rng.integers(vectors)), repeat=3, tap_step=1)
    masks = random_masks(rng, lanes, number, density)
    memory = contents(rng, lanes, words, rng.choice([0, 0.7]))
    ranges = [random_range(rng, settings, lanes, words, vectors) for _ in range(10)]
    stalling = {"pauses": randomly(rng, pauses), "stalls": randomly(rng, stalls)}
    result = run(sizes, settings, ranges, fill(memory, granule), masks=masks, **stalling)
    check(result, ranges, settings, memory, sizes, masks)


@pytest.mark.parametrize("settings", [MODES[0], MODES[4]], ids=["bytes", "words"])
def test_without_sparse_all_lanes_are_stored(rng, settings):
    sizes, masks = (8, 4, 8, 64), random_masks(rng, 8, 64, 0.3)
    memory = contents(rng, 8, 8, 0.5)
    ranges = [random_range(rng, settings, 8, 8, 64) for _ in range(10)]
    result = run(sizes, settings, ranges, fill(memory, 4), masks=masks, stalls=randomly(rng, 0.3))
    check(result, ranges, settings, memory, sizes, masks)


@pytest.mark.parametrize("stalls", [0, 0.5])
def test_masks_stand_still_while_not_enabled(rng, stalls):
    sizes, masks, settings = (8, 4, 8, 64), random_masks(rng, 8, 64, 0.5), Settings(sparse=1, vector_base=5)
    memory = contents(rng, 8, 8, 0.4)
    ranges = [random_range(rng, settings, 8, 8, 64) for _ in range(12)]
    disables = itertools.chain(itertools.islice(randomly(rng, 0.5), 250), never())
    result = run(sizes, settings, ranges, fill(memory, 4), masks=masks, stalls=randomly(rng, stalls), disables=disables)
    check(result, ranges, settings, memory, sizes, masks)


def test_a_sparse_word_by_hand():
    """Masks 5 and 6, of which the second word has none in its part of the range: it is kept only as the last."""
    masks = [(0, 0)] * 5 + [(0b1010_0110, 40), (0b0111_0000, 44), (0, 47)] + [(0, 0)] * 8
    ranges = [make_range(0, 2, 1, 3, index=5, last=last) for last in (0, 1)]
    result = run((8, 8, 4, 64), Settings(sparse=1, vector_base=10), ranges, fill([7] * 32, 8), masks=masks)
    fields = ("address", "mask", "stored", "index", "last")
    first, second = (0, 0b1010_0100, 0b1010_0110, 50, 0), (1, 0, 0b0111_0000, 54, 1)
    assert [tuple(word[name] for name in fields) for word in result.o.payloads] == [first, first, second]


@pytest.mark.parametrize("cycle", range(12, 24, 2))
def test_reset_discards_sparse_words(rng, cycle):
    memory, masks, settings = contents(rng, 8, 8, 0.6), random_masks(rng, 8, 64, 0.5), Settings(sparse=1, vector_base=3)
    first = [make_range(0, 2, 5, 6, last=0), make_range(3, 1, 3, 7, index=9), make_range(1, 0, 2, 4)]
    second = [make_range(4, 3, 2, 5, index=9, tag=3), make_range(0, 0, 7, 0, index=20)]
    table = fill(memory, 8)
    result = run((8, 8, 8, 64), settings, first, table, masks=masks, reset=cycle, restart=second)
    expected = [word for item in second for word in look_up(item, settings, memory, 8, 8, 64, masks) if word]
    assert [word for at, word in result.o.transfers if at > cycle] == expected


@pytest.mark.parametrize("stalls", [0, 0.6])
def test_no_byte_of_a_binary_layer_counts_as_zero(rng, stalls):
    sizes, settings = (8, 4, 8, 64), Settings(binary=1)
    memory = contents(rng, 8, 8, 0.7)
    ranges = [random_range(rng, settings, 8, 8, 64) for _ in range(12)]
    result = run(sizes, settings, ranges, fill(memory, 4), stalls=randomly(rng, stalls), bits=True)
    check(result, ranges, settings, memory, sizes)
    result = run(sizes, Settings(), ranges, fill(memory, 4), stalls=randomly(rng, stalls), bits=True)
    check(result, ranges, Settings(), memory, sizes)


def test_words_follow_without_gaps_from_range_to_range():
    """Three ranges of 2, 1 and 3 words, all of which are kept."""
    ranges = [make_range(0, 0, 1, 7), make_range(1, 2, 0, 3), make_range(2, 7, 2, 0)]
    result = run((8, 8, 8, 64), Settings(), ranges, fill([1] * 64, 8))
    assert result.i.cycles == [8, 10, 11]
    assert result.o.cycles == list(range(10, 16))
    assert [word["mask"] for word in result.o.payloads] == [0xFF, 0xFF, 0x0C, 0x80, 0xFF, 0x01]
    assert [word["index"] for word in result.o.payloads] == [0, 8, 0, 0, 8, 16]


def test_a_dropped_word_takes_a_cycle():
    memory = [0] * 8 + [0, 5, 0, 0, 0, 0, 0, 0] + [0] * 16
    result = run((8, 8, 4, 64), Settings(), [make_range(0, 0, 3, 7)], fill(memory, 8))
    assert [(cycle, word["mask"], word["last"]) for cycle, word in result.o.transfers] == [(7, 2, 0), (9, 0, 1)]


def test_a_range_without_anything_is_dropped_unless_it_is_the_last():
    ranges = [make_range(0, 0, 3, 7, last=0), make_range(0, 0, 3, 7, last=0), make_range(0, 0, 3, 7, last=1)]
    result = run((8, 8, 4, 64), Settings(), ranges, fill([0] * 32, 8))
    assert [(cycle, word["address"], word["mask"], word["last"]) for cycle, word in result.o.transfers] == [(17, 3, 0, 1)]


def test_bytes_outside_the_range_do_not_count():
    memory = [9, 9, 9, 0, 0, 9, 9, 9] + [0, 9, 9, 9, 9, 9, 9, 9]
    ranges = [make_range(0, 3, 0, 4, last=0), make_range(0, 3, 1, 0, last=1), make_range(0, 2, 0, 5)]
    result = run((8, 8, 2, 64), Settings(), ranges, fill(memory, 8))
    assert [word["mask"] for word in result.o.payloads] == [0b1110_0000, 0, 0b0010_0100]


def test_a_maximum_takes_each_word_twice():
    settings = Settings(word_mode=1, maximum=1, repeat=2, tap_step=3)
    result = run((8, 8, 8, 64), settings, [make_range(1, 0, 5, 0, index=62, tag=5)], fill([0] * 64, 8))
    fields = ("address", "mask", "index", "clamp", "last")
    assert [tuple(word[name] for name in fields) for word in result.o.payloads] == [
        *((1, 1, 62, 0, 0), (1, 1, 63, 1, 0)),
        *((4, 1, 0, 0, 0), (4, 1, 1, 1, 0)),
        *((7, 1, 2, 0, 0), (7, 1, 3, 1, 1)),
    ]


@pytest.mark.parametrize("word_mode", [0, 1])
def test_the_longest_range(rng, word_mode):
    sizes = (8, 8, 32, 256)
    memory = contents(rng, 8, 32, 0.5)
    settings = Settings(word_mode=word_mode, tap_step=31)
    ranges = [make_range(0, 0, 255 if word_mode else 31, 7, index=255, tag=7)] * 2
    check(run(sizes, settings, ranges, fill(memory, 8)), ranges, settings, memory, sizes)


@pytest.mark.parametrize("value", [1, 0x80, 0xFF])
@pytest.mark.parametrize("lane", [0, 5, 15])
def test_any_bit_makes_a_byte_count(lane, value):
    memory = [0] * 16
    memory[lane] = value
    result = run((16, 4, 1, 16), Settings(), [make_range(0, 0, 0, 15)], fill(memory, 4))
    assert [word["mask"] for word in result.o.payloads] == [1 << lane]


@pytest.mark.parametrize("lag, mask", [(-2, 0), (0, 0xF0), (1, 0xF0)])
def test_a_granule_is_seen_from_the_next_cycle(lag, mask):
    """A range's first word is looked up in the cycle after its transfer, here ``lag`` cycles behind that of a write."""
    table = [*fill([0] * 32, 4), (None, None), (None, None), (None, (3, 0x01010101))]
    transfer = len(table) - 1 + lag
    pauses = itertools.chain([True] * transfer, never())
    result = run((8, 4, 4, 8), Settings(), [make_range(1, 0, 0, 7)], table, pauses=pauses, wait=False)
    assert result.i.cycles == [transfer]
    assert [word["mask"] for word in result.o.payloads] == [mask]


@pytest.mark.parametrize("lanes, granule, words", [(1, 1, 2), (8, 8, 4), (16, 4, 4), (64, 1, 2)])
@pytest.mark.parametrize("disabled", [0, 0.5])
def test_read_port_matches_a_list_of_bytes(rng, lanes, granule, words, disabled):
    """Writes and reads at once, enabled or not, and ranges among them, of the words that are not written."""
    memory = contents(rng, lanes, words, 0.5)
    table = fill(memory, granule)
    expected, now, granules = [None] * (len(table) + 1), None, lanes * words // granule
    for _ in range(100):
        read = int(rng.integers(words)) if rng.random() < 0.6 else None
        write = int(rng.integers(granules // 2, granules)), int.from_bytes(rng.bytes(granule), "little")
        if rng.random() < 0.3 or read == write[0] * granule // lanes:
            write = None
        table.append((read, write))
        if read is not None:
            now = int.from_bytes(bytes(memory[read * lanes : (read + 1) * lanes]), "little")
        if write is not None:
            memory[write[0] * granule : (write[0] + 1) * granule] = write[1].to_bytes(granule, "little")
        expected.append(now)
    ranges = [make_range(0, 0, words // 2 - 1, lanes - 1)] * 40
    sizes, pauses = (lanes, granule, words, 8), itertools.chain([True] * granules, never())
    disables = itertools.chain(itertools.islice(randomly(rng, disabled), len(table)), never())
    result = run(sizes, Settings(), ranges, table, wait=False, pauses=pauses, disables=disables)
    assert [data for data, known in zip(result.read, expected) if known is not None] == [e for e in expected if e is not None]
    check(result, ranges, Settings(), memory, sizes)


@pytest.mark.parametrize("cycle", range(8, 24))
@pytest.mark.parametrize("stall", [False, True])
def test_reset_discards_ranges_and_keeps_the_memory(rng, cycle, stall):
    memory = contents(rng, 8, 8, 0.6)
    first = [make_range(0, 2, 5, 6, last=0), make_range(3, 1, 3, 7), make_range(1, 0, 2, 4)]
    second = [make_range(4, 3, 2, 5, index=9, tag=3), make_range(0, 0, 7, 0)]
    stalls = itertools.chain([stall and n > 12 for n in range(cycle + 1)], never())
    table = fill(memory, 8)
    result = run((8, 8, 8, 64), Settings(), first, table, stalls=stalls, reset=cycle, restart=second)
    fresh = run((8, 8, 8, 64), Settings(), second, table)
    assert [(at - cycle - 1, word) for at, word in result.o.transfers if at > cycle] == [
        (at - len(table), word) for at, word in fresh.o.transfers
    ]


def test_repeat_must_not_be_0_in_word_mode():
    with pytest.raises(AssertionError, match=r"^Assertion violated: repeat must not be 0 in word mode$"):
        run((8, 8, 4, 8), Settings(word_mode=1, repeat=0), [make_range()], fill([1] * 32, 8))
    result = run((8, 8, 4, 8), Settings(word_mode=0, repeat=0), [make_range(0, 0, 0, 7)], fill([1] * 32, 8))
    assert [word["mask"] for word in result.o.payloads] == [0xFF]


@pytest.mark.parametrize("read, ranges, granule", [(1, [], 2), (1, [], 3), (None, [make_range(1)], 2)])
def test_a_word_must_not_be_written_while_it_is_being_read(read, ranges, granule):
    """By the read port, or to look for zeros, in the cycle after the transfer of a range."""
    table = [(None, None), (read, (granule, 0))]
    message = "a word must not be written while it is being read"
    with pytest.raises(AssertionError, match=rf"^Assertion violated: {message}$"):
        run((8, 4, 4, 8), Settings(), ranges or [make_range(0)], table, wait=bool(read))


@pytest.mark.parametrize("lanes, granule", [(8, 8), (16, 8), (16, 16), (8, 1), (64, 8)])
def test_bytes_are_written_one_by_one(rng, lanes, granule):
    """And any others of a granule; what is found not to be zero follows."""
    words = 8
    memory = contents(rng, lanes, words, 0.5)
    table = fill(memory, granule)
    for _ in range(60):
        number, data = int(rng.integers(words * lanes // granule)), rng.integers(0, 256, granule) * rng.integers(0, 2, granule)
        mask = [int(bit) for bit in rng.integers(0, 2, granule)] if rng.random() < 0.5 else [0] * granule
        mask[int(rng.integers(granule))] = 1
        table.append((None, (number, int.from_bytes(bytes(data.tolist()), "little"), sum(m << b for b, m in enumerate(mask)))))
        for byte in range(granule):
            if mask[byte]:
                memory[number * granule + byte] = int(data[byte])
    table += [(word, None) for word in range(words)] + [(None, None)]
    ranges = [make_range(word, final=lanes - 1, last=1) for word in range(words)]
    result = run((lanes, granule, words, 8), Settings(), ranges, table, byte_writes=True)
    content = [memory[word * lanes : (word + 1) * lanes] for word in range(words)]
    read = [data.to_bytes(lanes, "little") for data in result.read[len(table) - words : len(table)]]
    assert read == [bytes(word) for word in content]
    masks = [payload["mask"] for payload in result.o.payloads]
    assert masks == [sum((byte != 0) << lane for lane, byte in enumerate(word)) for word in content]


def test_without_byte_writes_a_granule_must_be_written_as_a_whole():
    with pytest.raises(AssertionError, match=r"^Assertion violated: a granule must be written as a whole$"):
        run((8, 4, 4, 8), Settings(), [make_range(0)], [(None, (2, 0, 0b0111))])


@pytest.mark.parametrize("name", ["lanes", "granule", "words", "vectors"])
def test_sizes_must_be_powers_of_two(name):
    with pytest.raises(ValueError, match=rf"^{name} must be a power of two, not 12$"):
        RowBuffer(**{"lanes": 16, "granule": 8, "words": 8, "vectors": 8, name: 12})


def test_a_granule_must_not_be_larger_than_a_word():
    with pytest.raises(ValueError, match=rf"^{re.escape('granule must be at most lanes (8), not 16')}$"):
        RowBuffer(lanes=8, granule=16, words=8, vectors=8)


@pytest.mark.parametrize("words, style", [(16, True), (128, True), (256, False), (512, False)])
def test_memories_of_few_words_are_made_of_luts(words, style):
    """Those of the bytes and of the bits that say which are zero."""
    text = rtlil.convert(RowBuffer(lanes=4, granule=2, words=words, vectors=4), emit_src=False, platform="verilog")
    memories = re.findall(r"((?:  attribute .*\n)*)  memory width (\d+) size (\d+)", text)
    assert sorted((int(width), int(size)) for _, width, size in memories) == [(4, words), (32, words)]
    assert ['ram_style "distributed"' in attributes for attributes, _, _ in memories] == [style, style]
