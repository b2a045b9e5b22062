"""The loader, against slices of a list of words."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from gossamer.golden import codec
from gossamer.hdl.loader import Loader, Target
from gossamer.sim.streams import Bench, never, randomly
from tests.hdl.rows import code_ends, random_unit

NOISE = 0xA5
"""What the store delivers when it was not asked."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Inputs of the loader besides the stream."""

    count: int = 3
    left_granules: int = 0
    right_granule: int = 0
    slot_words: int = 1
    pad: int = 0x80
    tail: int = 0
    pixel_step: int = 0
    turn: int = 0
    turn_step: int = 0
    in_nibbles: int = 0
    in_bits: int = 0

    @property
    def per_byte(self):
        """Values in each byte of a row."""
        return 2 if self.in_nibbles else 8 if self.in_bits else 1


def unpacked(word, part, settings):
    """The bytes that are made of one of the parts of a word."""
    per_byte = settings.per_byte
    if per_byte == 1:
        return list(word)
    number = int.from_bytes(bytes(word), "little")
    values = [number >> n * 8 // per_byte & (1 << 8 // per_byte) - 1 for n in range(len(word) * per_byte)]
    return [value * (2 if per_byte == 8 else 1) for value in values[part * len(word) : (part + 1) * len(word)]]


def command(target, address=0, index=0, blank=0, group_end=0, coded=0, signed=0):
    kind = {"blank": blank, "coded": coded, "signed": signed}
    return {"target": target, "address": address, "index": index, **kind, "rate": 0, "group_end": group_end}


def words(item, settings, memory, store_bytes, lanes):
    """What a command gives: ``(read address or None, what is written)`` per word."""
    target = item["target"]
    if target == Target.ROWS:
        number = settings.slot_words * lanes // store_bytes
        read = range(0) if item["blank"] else range(settings.left_granules, settings.right_granule)
    else:
        fixed = {Target.STEP: 16 // store_bytes, Target.DESCRIPTOR: 64 // store_bytes}
        number = fixed.get(target, settings.count)
        read = range(number)
    found, address = [], item["address"]
    for i in range(number):
        data, asked = [settings.pad] * store_bytes, None
        if i in read:
            asked, data = address, list(memory[address])
            part = (i - read.start) % settings.per_byte if target == Target.ROWS else 0
            if target == Target.ROWS:
                data = unpacked(data, part, settings)
            if target != Target.ROWS or part == settings.per_byte - 1:
                address += 1
            if target == Target.ROWS and i == settings.right_granule - 1:
                data[settings.tail :] = [settings.pad] * len(data[settings.tail :])
        group_end = int(item["group_end"] and i == number - 1)
        found.append((asked, (target, item["index"] + i, int.from_bytes(bytes(data), "little"), group_end)))
    return found


@dataclasses.dataclass
class Run:
    """A simulation: ``writes`` are ``(cycle, (target, index, data, group_end))`` and ``masks`` belong to them; ``reads``
    ``(cycle, address)`` of what the store took; ``errors`` cycles; ``ready`` that of the store in each cycle; ``input`` the
    monitor of the commands."""

    writes: list
    masks: list
    reads: list
    errors: list
    ready: list
    input: object


def run(dut, commands, settings, memory, *, pauses=None, stalls=None, resets=(), restart=(), cycles=None):
    """Send ``commands``; ``stalls`` are the store's. A reset drops what is yet to be sent, and sends ``restart``."""
    bench, stalls = Bench(dut), never() if stalls is None else stalls
    store_bytes = len(memory[0])
    source = bench.source(dut.i, commands, pauses)
    result = Run([], [], [], [], [], bench.monitor(dut.i))

    async def store(ctx):
        for field in dataclasses.fields(settings):
            if hasattr(dut, field.name):
                ctx.set(getattr(dut, field.name), getattr(settings, field.name))
        write = (dut.write.target, dut.write.index, dut.write.data, dut.write.row_data, dut.write.group_end)
        data = [NOISE] * store_bytes
        for cycle in itertools.count():
            result.ready.append(not next(stalls))
            ctx.set(dut.read.ready, result.ready[-1])
            ctx.set(dut.read.data, int.from_bytes(bytes(data), "little"))
            sampled = await ctx.tick().sample(dut.read.en, dut.read.address, dut.error, dut.write.en, dut.write.mask, *write)
            _, _, en, address, error, written, mask, target, index, word, row_word, group_end = sampled
            data = [NOISE] * store_bytes
            if en and result.ready[-1]:
                result.reads.append((cycle, address))
                data = memory[address] if address < len(memory) else data
            if error:
                result.errors.append(cycle)
            if en or written:
                bench.stay()
            if written:
                target = Target(target)
                result.writes.append((cycle, (target, index, row_word if target == Target.ROWS else word, group_end)))
                result.masks.append(mask)

    bench.process(store)
    bench.run(cycles=cycles, quiet=10, resets={cycle: lambda: source.restart(restart) for cycle in resets})
    return result


def make(*, lanes=8, store_bytes=4, store_words=32, count=32, **kind):
    return Loader(lanes=lanes, store_bytes=store_bytes, store_words=store_words, count=count, **kind)


def contents(rng, store_bytes, store_words):
    return rng.integers(0, 256, (store_words, store_bytes)).tolist()


def expect(result, per_command):
    """``reads`` and ``writes`` of commands, of which ``result`` gives the cycles of the offers and of the store's ready."""
    reads, writes, free = [], [], 0
    transfers = []
    for offer, steps in zip(result.input.offers, per_command):
        transfer = max(offer, free)
        transfers.append(transfer)
        cycle = transfer
        for address, write in steps:
            cycle += 1
            while address is not None and not result.ready[cycle]:
                cycle += 1
            if address is not None:
                reads.append((cycle, address))
            writes.append((cycle + 1, write))
        free = cycle + 1  # from the cycle after that in which the last word is asked for
    return transfers, reads, writes


@pytest.mark.parametrize("lanes, store_bytes, count", [(8, 8, 8), (16, 8, 32), (8, 1, 64), (16, 16, 5), (64, 4, 48)])
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.6, 0), (0, 0.6), (0.3, 0.8)])
def test_matches_slices_of_a_list_in_each_cycle(rng, lanes, store_bytes, count, pauses, stalls):
    """Throughput and latency too: each word comes when the docstring says."""
    store_words, granules = int(rng.choice([128, 129, 200])), lanes // store_bytes
    memory = contents(rng, store_bytes, store_words)
    for _ in range(3):
        slot_words = int(rng.integers(1, count // granules + 1))
        edges = sorted(rng.integers(0, slot_words * granules + 1, 2).tolist())
        settings = Settings(
            count=int(rng.integers(1, min(count, 10) + 1)),
            left_granules=edges[0],
            right_granule=edges[1],
            slot_words=slot_words,
            pad=int(rng.integers(256)),
            tail=int(rng.integers(0, store_bytes + 1)),
        )
        commands = []
        for _ in range(12):
            target = list(Target)[rng.integers(5)]
            item = command(target, blank=int(rng.random() < 0.2), group_end=int(rng.integers(2)))
            longest = len(words(item, settings, memory, store_bytes, lanes))
            item["index"] = int(rng.integers(0, max(count - longest, 0) + 1))
            item["address"] = int(rng.integers(0, store_words - longest + 1))
            commands.append(item)
        dut = make(lanes=lanes, store_bytes=store_bytes, store_words=store_words, count=count)
        result = run(dut, commands, settings, memory, pauses=randomly(rng, pauses), stalls=randomly(rng, stalls))
        transfers, reads, writes = expect(result, [words(c, settings, memory, store_bytes, lanes) for c in commands])
        assert result.input.payloads == commands
        assert result.input.cycles == transfers
        assert result.reads == reads
        assert result.writes == writes
        assert result.errors == []


@pytest.mark.parametrize("lanes, store_bytes, count", [(8, 8, 32), (16, 8, 64), (16, 16, 32), (64, 8, 64)])
@pytest.mark.parametrize("field", ["in_nibbles", "in_bits", "neither"])
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.6, 0), (0.3, 0.7)])
def test_packed_rows_match_shifts_of_numbers_in_each_cycle(rng, lanes, store_bytes, count, field, pauses, stalls):
    """With odd starts, padding and tails; what is no row is not unpacked."""
    memory, granules = contents(rng, store_bytes, 128), lanes // store_bytes
    for _ in range(2):
        slot_words = int(rng.integers(1, count // granules + 1))
        edges = sorted(rng.integers(0, slot_words * granules + 1, 2).tolist())
        settings = Settings(
            count=int(rng.integers(1, 10)),
            left_granules=edges[0],
            right_granule=edges[1],
            slot_words=slot_words,
            pad=int(rng.integers(256)),
            tail=int(rng.integers(0, store_bytes + 1)),
            **({} if field == "neither" else {field: 1}),
        )
        commands = []
        for n in range(8):
            item = command(Target.ROWS if n % 3 else list(Target)[rng.integers(6)], blank=int(rng.random() < 0.2))
            item |= {"address": int(rng.integers(0, 128 - 64)), "group_end": int(rng.integers(2))}
            commands.append(item)
        dut = make(lanes=lanes, store_bytes=store_bytes, store_words=128, count=max(count, 64), nibbles=True, bits=True)
        result = run(dut, commands, settings, memory, pauses=randomly(rng, pauses), stalls=randomly(rng, stalls))
        transfers, reads, writes = expect(result, [words(c, settings, memory, store_bytes, lanes) for c in commands])
        assert result.input.cycles == transfers
        assert result.reads == reads
        assert result.writes == writes


def row_bytes(result):
    return [list(write[2].to_bytes(4, "little")) for _, write in result.writes]


def test_a_word_of_nibbles_by_hand():
    """Words of four bytes; a granule of padding, three of data, of which the last has a single byte."""
    settings = Settings(left_granules=1, right_granule=4, slot_words=3, pad=9, tail=1, in_nibbles=1)
    memory = [[0x21, 0x43, 0x65, 0x87], [0xA9, 0xCB, 0xED, 0x0F]] * 16
    result = run(make(nibbles=True), [command(Target.ROWS)], settings, memory)
    assert row_bytes(result) == [[9] * 4, [1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9], [9] * 4, [9] * 4]
    assert result.reads == [(2, 0), (3, 0), (4, 1)]


def test_a_word_of_bits_by_hand():
    settings = Settings(right_granule=9, slot_words=5, pad=7, tail=4, in_bits=1)
    result = run(make(bits=True), [command(Target.ROWS)], settings, [[0x01, 0x80, 0xF0, 0x05], [0x0C] * 4] * 16)
    expected = [[2, 0, 0, 0], [0] * 4, [0] * 4, [0, 0, 0, 2], [0] * 4, [2] * 4, [2, 0, 2, 0], [0] * 4, [0, 0, 2, 2], [7] * 4]
    assert row_bytes(result) == expected
    assert [address for _, address in result.reads] == [0] * 8 + [1]


@pytest.mark.parametrize("field", ["in_nibbles", "in_bits"])
def test_only_rows_are_unpacked(field):
    settings, memory = Settings(count=4, **{field: 1}), [[n, n + 1, n + 2, n + 3] for n in range(32)]
    for target in (Target.STEP, Target.DESCRIPTOR, Target.WEIGHTS, Target.PARAMETERS, Target.MASKS):
        result = run(make(nibbles=True, bits=True), [command(target, 5)], settings, memory)
        assert [address for _, address in result.reads] == [5 + n for n in range(16 if target == Target.DESCRIPTOR else 4)]
        assert [write[2] for _, write in result.writes][:2] == [0x08070605, 0x09080706]


@pytest.mark.parametrize("field", ["in_nibbles", "in_bits"])
@pytest.mark.parametrize("cycle", range(1, 15, 2))
def test_reset_drops_the_packed_row_in_work(field, cycle):
    """The next begins with the first part of its first word."""
    settings = Settings(left_granules=1, right_granule=11, slot_words=6, tail=3, **{field: 1})
    memory = [[n + 1, 16 * n, 0x5A, 0xC3] for n in range(32)]
    second = [command(Target.ROWS, 9, 3), command(Target.STEP, 1, 5)]
    options = {"nibbles": True, "bits": True}
    result = run(make(**options), [command(Target.ROWS, 4)] * 2, settings, memory, resets=[cycle], restart=second)
    fresh = run(make(**options), second, settings, memory)
    assert [(at, what) for at, what in result.writes if at > cycle] == [(at + cycle + 1, what) for at, what in fresh.writes]
    assert [at for at in result.reads if at[0] > cycle] == [(at + cycle + 1, what) for at, what in fresh.reads]


@pytest.mark.parametrize("granules, errors", [(8, []), (9, [8])])
def test_a_part_of_a_word_behind_the_store_is_an_error(granules, errors):
    """Four words are eight granules of nibbles, the ninth lies behind the store."""
    settings = Settings(right_granule=granules, slot_words=5, tail=4, in_nibbles=1)
    found = run(make(nibbles=True), [command(Target.ROWS, 28)], settings, [[0] * 4] * 32).errors
    assert [cycle - 2 for cycle in found] == errors


def test_masks_go_where_they_are_said_to():
    result = run(make(), [command(Target.MASKS, 3, 9)], Settings(count=2), [[n] * 4 for n in range(32)])
    assert [write for _, write in result.writes] == [(Target.MASKS, 9, 0x03030303, 0), (Target.MASKS, 10, 0x04040404, 0)]


def test_a_word_per_cycle_and_a_cycle_between_commands():
    settings = Settings(count=3)
    commands = [command(Target.WEIGHTS), command(Target.PARAMETERS, 3), command(Target.STEP, 6)]
    result = run(make(), commands, settings, [[n] * 4 for n in range(32)])
    assert result.input.cycles == [0, 4, 8]
    assert [cycle for cycle, _ in result.reads] == [1, 2, 3, 5, 6, 7, 9, 10, 11, 12]
    assert [cycle for cycle, _ in result.writes] == [2, 3, 4, 6, 7, 8, 10, 11, 12, 13]


@pytest.mark.parametrize(
    "target, number", [(Target.STEP, 4), (Target.DESCRIPTOR, 16), (Target.WEIGHTS, 3), (Target.PARAMETERS, 3)]
)
def test_only_rows_are_padded(target, number):
    settings = Settings(left_granules=1, right_granule=2, tail=1)
    memory = [[n, n + 1, n + 2, n + 3] for n in range(32)]
    result = run(make(), [command(target, 5, 7, blank=1, group_end=1)], settings, memory)
    expected = [(target, 7 + n, int.from_bytes(bytes(memory[5 + n]), "little"), int(n == number - 1)) for n in range(number)]
    assert [write for _, write in result.writes] == expected


@pytest.mark.parametrize("tail", [0, 1, 3, 4, 5, 31])
@pytest.mark.parametrize("left, right", [(0, 0), (0, 1), (0, 6), (5, 6), (2, 4), (6, 6), (3, 3), (0, 7), (9, 9)])
def test_edges_of_a_row(left, right, tail):
    """Three words of 8 bytes in granules of 4."""
    settings = Settings(left_granules=left, right_granule=right, slot_words=3, pad=0xEE, tail=tail)
    result = run(make(), [command(Target.ROWS)], settings, [[n + 1] * 4 for n in range(32)])
    row = []
    for granule in range(6):
        inside = left <= granule < right
        valid = 0 if not inside else tail if granule == right - 1 else 4
        row += [granule - left + 1 if byte < valid else 0xEE for byte in range(4)]
    assert [write[2].to_bytes(4, "little") for _, write in result.writes] == [bytes(row[i : i + 4]) for i in range(0, 24, 4)]
    assert [cycle for cycle, _ in result.writes] == list(range(2, 8))


def test_padding_does_not_wait_for_the_store():
    settings = Settings(left_granules=2, right_granule=3, slot_words=2, tail=4)
    stalls = itertools.chain([True] * 9, never())
    result = run(make(), [command(Target.ROWS, 1), command(Target.ROWS, blank=1)], settings, [[7] * 4] * 32, stalls=stalls)
    assert [cycle for cycle, _ in result.writes] == [2, 3, 10, 11, 13, 14, 15, 16]
    assert result.reads == [(9, 1)]


@pytest.mark.parametrize("lanes, store_bytes, count", [(8, 8, 16), (16, 4, 64), (8, 1, 64)])
def test_the_longest_commands(lanes, store_bytes, count):
    settings = Settings(count=count, right_granule=count, slot_words=count * store_bytes // lanes, pad=0xFF, tail=store_bytes)
    memory = [[n] * store_bytes for n in range(count)]
    commands = [command(Target.WEIGHTS), command(Target.ROWS), command(Target.PARAMETERS, index=0, group_end=1)]
    dut = make(lanes=lanes, store_bytes=store_bytes, store_words=count, count=count)
    result = run(dut, commands, settings, memory)
    assert [write[1] for _, write in result.writes] == [*range(count)] * 3
    assert [write[2] & 0xFF for _, write in result.writes] == [*range(count)] * 3
    assert [cycle for cycle, _ in result.writes] == [2 + n * (count + 1) + i for n in range(3) for i in range(count)]


def test_the_last_granule_of_the_largest_target():
    settings = Settings(count=1)
    result = run(make(), [command(Target.WEIGHTS, 31, 31)], settings, [[n] * 4 for n in range(32)])
    assert result.writes == [(2, (Target.WEIGHTS, 31, 0x1F1F1F1F, 0))]


@pytest.mark.parametrize("store_words", [32, 33, 63])
def test_a_read_behind_the_store_is_an_error(store_words):
    settings = Settings(count=4)
    dut = make(store_words=store_words)
    result = run(dut, [command(Target.WEIGHTS, store_words - 2)], settings, [[0] * 4] * store_words)
    assert result.errors == [4, 5]


@pytest.mark.parametrize("store_words", [32, 33])
def test_the_highest_address_is_an_error(store_words):
    settings = Settings(count=1)
    highest = 2 * (1 << (store_words - 1).bit_length()) - 1
    commands = [command(Target.WEIGHTS, store_words - 1), command(Target.STEP, highest - 3), command(Target.WEIGHTS, 0)]
    assert run(make(store_words=store_words), commands, settings, [[0] * 4] * store_words).errors == [4, 5, 6, 7]


def test_an_error_lasts_while_the_store_is_not_ready():
    stalls = itertools.chain([True] * 5, never())
    result = run(make(), [command(Target.WEIGHTS, 32)], Settings(count=1), [[0] * 4] * 32, stalls=stalls)
    assert result.errors == [2, 3, 4, 5, 6]


def test_padding_behind_the_store_is_no_error():
    settings = Settings(left_granules=1, right_granule=2, slot_words=2, tail=4)
    result = run(make(), [command(Target.ROWS, 31), command(Target.ROWS, 40, blank=1)], settings, [[0] * 4] * 32)
    assert result.errors == []


@pytest.mark.parametrize("cycle", range(12))
def test_reset_drops_the_command_in_work(cycle):
    settings = Settings(left_granules=1, right_granule=5, slot_words=3, tail=2)
    memory = [[n + 1, n + 2, n + 3, n + 4] for n in range(32)]
    first = [command(Target.ROWS, 4, group_end=1), command(Target.DESCRIPTOR, 2)]
    second = [command(Target.ROWS, 9, 3), command(Target.STEP, 1, 5)]
    result = run(make(), first, settings, memory, resets=[cycle], restart=second)
    fresh = run(make(), second, settings, memory)
    assert [(at, what) for at, what in result.writes if at > cycle] == [(at + cycle + 1, what) for at, what in fresh.writes]
    assert [at for at in result.reads if at[0] > cycle] == [(at + cycle + 1, what) for at, what in fresh.reads]


def test_reset_while_the_store_stalls():
    stalls = itertools.chain([True] * 20, never())
    result = run(make(), [command(Target.WEIGHTS)] * 2, Settings(), [[1] * 4] * 32, stalls=stalls, resets=[5])
    assert result.writes == []
    assert result.reads == []


@pytest.mark.parametrize(
    "target, settings",
    [
        (Target.WEIGHTS, Settings(count=0)),
        (Target.PARAMETERS, Settings(count=0)),
        (Target.ROWS, Settings(slot_words=0)),
    ],
)
def test_a_command_must_be_for_at_least_one_word(target, settings):
    with pytest.raises(AssertionError, match=r"^Assertion violated: a command must be for at least one word$"):
        run(make(), [command(Target.STEP), command(target)], settings, [[0] * 4] * 32)


def test_a_count_of_0_does_not_matter_to_other_targets():
    result = run(make(), [command(Target.STEP), command(Target.ROWS)], Settings(count=0), [[0] * 4] * 32)
    assert len(result.writes) == 4 + 2


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"store_bytes": 3}, "store_bytes must be a power of two, not 3"),
        ({"store_bytes": 32, "lanes": 32}, "store_bytes must be at most 16, not 32"),
        ({"store_words": 0}, "store_words must be at least 1, not 0"),
        ({"lanes": 12, "store_bytes": 8}, "lanes must be a multiple of store_bytes (8), not 12"),
        ({"lanes": 0}, "lanes must be a multiple of store_bytes (4), not 0"),
        ({"count": 15}, "count must be at least the words of a descriptor (16), not 15"),
    ],
)
def test_constructor_messages(sizes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make(**sizes)


@dataclasses.dataclass(frozen=True)
class Row:
    """A compressed row: ``pixels[x]`` has the channels of a pixel, its code is in the store from ``address`` on."""

    pixels: np.ndarray
    address: int = 0
    signed: int = 0

    def values(self, lanes):
        """As the core computes them: group for group."""
        return np.concatenate([self.pixels[:, g : g + lanes].ravel() for g in range(0, self.pixels.shape[1], lanes)])

    def needed(self, lanes, unit=0, streams=1):
        """How many halfwords must have been taken before each value of a unit is found: one more than those before have bits
        of."""
        ends = code_ends(self.values(lanes)[unit::streams], lanes // streams, self.signed)
        return [-(-end // 16) + 1 for end in (0, *ends[:-1])]


def place(row, *, lanes, store_bytes, left_pixels=0, right_granules=0, pad=0x80):
    """Where the granules of a row lie in a slot, between padding."""
    width, channels = row.pixels.shape
    pixel, group = channels // store_bytes, min(channels, lanes) // store_bytes
    left = left_pixels * pixel
    right = left + width * pixel
    return Settings(
        left_granules=left,
        right_granule=right,
        slot_words=-(-(right + right_granules) * store_bytes // lanes),
        pad=pad,
        tail=store_bytes,
        pixel_step=pixel - group + 1,
        turn=left + (width - 1) * pixel,
        turn_step=1 - (width - 1) * pixel,
    )


def put(memory, row, lanes, noise, *, bounded=False):
    """Write the code of a row to the store, and ``noise`` behind it up to the end of its last word."""
    store_bytes = len(memory[0])
    data = codec.encode(row.values(lanes), lanes=lanes, signed=bool(row.signed), bounded=bounded)
    data += noise[: -len(data) % store_bytes]
    for n, at in enumerate(range(0, len(data), store_bytes), row.address):
        memory[n] = list(data[at : at + store_bytes])
    return -(-len(data) // store_bytes)


def founds(row, settings, ready, accepted, *, lanes):
    """The cycles in which the values are found, of a command that is accepted in cycle ``accepted``.

    Halfword by halfword: it is asked for when the one before has moved on, and moves on into a register when that is empty or
    is being emptied, in the cycle after one in which the store was ready. It is taken by the first value that needs it.
    """
    needed = row.needed(lanes)
    cycles, moved, taken = [], accepted, accepted
    earliest = accepted + 1 + settings.left_granules
    for n, count in enumerate(needed):
        if count > (needed[n - 1] if n else 0):
            moved = next(c for c in itertools.count(moved + 2) if ready[c - 1] and c >= taken)
            earliest = taken = max(earliest, moved + 1)
        cycles.append(earliest)
        earliest += 1
    return cycles


def expect_row(item, row, settings, found, accepted, *, lanes, store_bytes, byte_writes):
    """``(cycle, (index, {byte: value}, group_end))`` of what is written for a row, and when the loader is ready again."""
    width, channels = row.pixels.shape
    left, right, number = settings.left_granules, settings.right_granule, settings.slot_words * lanes // store_bytes
    writes, padding = [], dict.fromkeys(range(store_bytes), settings.pad)
    places = np.arange(width * channels).reshape(width, channels)  # in the order of the values
    places = np.concatenate([places[:, g : g + lanes].ravel() for g in range(0, channels, lanes)]).tolist()
    for granule in range(left):
        writes.append((accepted + 2 + granule, (item["index"] + granule, padding, 0)))
    for n, cycle in enumerate(found):
        granule, byte = divmod(places[n], store_bytes)
        group_end = int(item["group_end"] and right == number and n == len(found) - 1)
        content = {byte: int(row.pixels.ravel()[places[n]])}
        if not byte_writes:
            if byte != store_bytes - 1:
                continue
            content = dict(enumerate(row.pixels.ravel()[places[n] - byte : places[n] + 1].tolist()))
        writes.append((cycle + 1, (item["index"] + left + granule, content, group_end)))
    for n, granule in enumerate(range(right, number)):
        group_end = int(item["group_end"] and granule == number - 1)
        writes.append((found[-1] + 2 + n, (item["index"] + granule, padding, group_end)))
    return writes, found[-1] + 1 + number - right


def written(result, store_bytes):
    """The writes of a run in the same form."""
    return [
        (cycle, (index, {b: data >> 8 * b & 0xFF for b in range(store_bytes) if mask >> b & 1}, group_end))
        for (cycle, (_, index, data, group_end)), mask in zip(result.writes, result.masks)
    ]


STALLS = {
    "never": lambda rng: never(),
    "often": lambda rng: randomly(rng, 0.7),
    "in turn": lambda rng: itertools.cycle([False, True]),
    "two of three": lambda rng: itertools.cycle([True, False, True]),
}


@pytest.mark.parametrize(
    "lanes, store_bytes, channels, stalls",
    [
        *((8, 8, 24, stalls) for stalls in ("never", "often")),
        *((16, 8, 32, stalls) for stalls in STALLS),
        (8, 8, 8, "often"),
        (16, 8, 8, "in turn"),
        (16, 16, 16, "two of three"),
        (64, 8, 64, "never"),
        (64, 16, 128, "often"),
    ],
)
@pytest.mark.parametrize("byte_writes", [False, True])
def test_compressed_rows_in_each_cycle(rng, lanes, store_bytes, channels, stalls, byte_writes):
    """Rows of one and of several groups, between rows that are not compressed or blank."""
    width = 2 if channels > 32 else int(rng.integers(1, 4))
    sizes = {"lanes": lanes, "store_bytes": store_bytes}
    memory, rows, address = contents(rng, store_bytes, 512), [], 100
    for _ in range(2 if lanes == 64 else 3):
        pixels = random_unit(rng, width * channels).reshape(width, channels)
        rows.append(Row(pixels, address, int(rng.integers(2))))
        address += put(memory, rows[-1], lanes, rng.bytes(16)) + 1
    settings = place(rows[0], **sizes, left_pixels=int(rng.integers(3)), right_granules=int(rng.integers(4)), pad=0x3C)
    coded = [command(Target.ROWS, r.address, 5, coded=1, signed=r.signed, group_end=int(rng.integers(2))) for r in rows]
    other = [command(Target.ROWS, 3, 7), command(Target.ROWS, 600, 2, blank=1, coded=1, group_end=1)]
    commands = [coded[0], *other, *coded[1:]]
    dut = make(**sizes, store_words=512, count=256, codec="lossless", byte_writes=byte_writes)
    result = run(dut, commands, settings, memory, stalls=STALLS[stalls](rng))
    assert result.input.payloads == commands
    assert result.errors == []
    assert 600 not in [at for _, at in result.reads]
    writes = written(result, store_bytes)
    free = 0
    for item, row in zip(commands, (rows[0], None, None, *rows[1:])):
        transfer = result.input.cycles[0]
        assert transfer == free
        del result.input.transfers[0]
        if row is None:
            number = settings.slot_words * lanes // store_bytes
            expected = [write for _, write in words(item, settings, memory, store_bytes, lanes)]
            assert [index for _, (index, _, _) in writes[:number]] == [index for _, index, _, _ in expected]
            assert [bytes(content.values()) for _, (_, content, _) in writes[:number]] == [
                data.to_bytes(store_bytes, "little") for _, _, data, _ in expected
            ]
            assert [group_end for _, (_, _, group_end) in writes[:number]] == [group_end for *_, group_end in expected]
            free = writes[number - 1][0]
        else:
            found = founds(row, settings, result.ready, transfer, lanes=lanes)
            expected, free = expect_row(item, row, settings, found, transfer, **sizes, byte_writes=byte_writes)
            number = len(expected)
            assert writes[:number] == expected
        del writes[:number]
    assert writes == []


def zeros(width, channels):
    return Row(np.zeros((width, channels), np.uint8))


def test_a_value_in_the_third_cycle_and_a_value_per_cycle_from_the_fifth_on():
    row = zeros(5, 8)
    settings = place(row, lanes=8, store_bytes=8)
    memory = [[0] * 8 for _ in range(64)]
    commands = [command(Target.ROWS, coded=1), command(Target.STEP)]
    result = run(make(store_bytes=8, codec="lossless", byte_writes=True), commands, settings, memory)
    assert result.input.cycles == [0, 44]
    assert [cycle for cycle, _ in result.writes] == [4, *range(6, 45), 46, 47]


def test_the_first_halfword_is_fetched_during_the_padding():
    row = zeros(1, 8)
    settings = place(row, lanes=8, store_bytes=8, left_pixels=3)
    memory = [[0] * 8 for _ in range(64)]
    result = run(make(store_bytes=8, codec="lossless", byte_writes=True), [command(Target.ROWS, coded=1)], settings, memory)
    assert [cycle for cycle, _ in result.writes] == [2, 3, 4, 5, *range(6, 13)]


def test_a_halfword_in_two_cycles():
    """The longest codes, of 13 bits: 8 values take 7 halfwords."""
    row = Row(np.full((1, 8), 255, np.uint8))
    settings = place(row, lanes=8, store_bytes=8)
    memory = [[0] * 8 for _ in range(64)]
    put(memory, row, 8, bytes(8))
    result = run(make(store_bytes=8, codec="lossless", byte_writes=True), [command(Target.ROWS, coded=1)], settings, memory)
    assert [cycle for cycle, _ in result.writes] == [4, 6, 8, 10, 12, 14, 15, 16]


@pytest.mark.parametrize("byte_writes", [False, True])
@pytest.mark.parametrize("store_words", [64, 60])
def test_a_row_at_the_end_of_the_store_is_no_error(rng, store_words, byte_writes):
    """Reading ahead does not count."""
    for width in (1, 2, 5):
        row = Row(random_unit(rng, width * 16).reshape(width, 16))
        length = put([[0] * 8 for _ in range(64)], row, 16, bytes(8))
        row = dataclasses.replace(row, address=store_words - length)
        memory = contents(rng, 8, store_words)
        put(memory, row, 16, rng.bytes(8))
        dut = make(lanes=16, store_bytes=8, store_words=store_words, codec="lossless", byte_writes=byte_writes)
        settings = place(row, lanes=16, store_bytes=8, right_granules=8)
        result = run(dut, [command(Target.ROWS, row.address, coded=1)], settings, memory)
        assert result.errors == []
        assert sum(mask.bit_count() for mask in result.masks) == 8 * settings.slot_words * 2


@pytest.mark.parametrize("store_words", [64, 60])
def test_a_row_that_runs_on_behind_the_end_of_the_store_is_an_error(store_words):
    """Ones are codes of 13 bits: the last word, 64 bits, has 4 of them, and the fifth begins in it."""
    memory = [[255] * 8 for _ in range(store_words)]
    settings = place(zeros(9, 8), lanes=8, store_bytes=8)
    dut = make(store_bytes=8, store_words=store_words, codec="lossless", byte_writes=True)
    result = run(dut, [command(Target.ROWS, store_words - 1, coded=1)], settings, memory, cycles=40)
    assert [cycle for cycle, _ in result.writes][:5] == [4, 6, 8, 10, 12]
    assert result.errors[0] == 13


def test_a_row_behind_the_store_is_an_error():
    memory = [[255] * 8 for _ in range(64)]
    settings = place(zeros(1, 8), lanes=8, store_bytes=8, left_pixels=2)
    dut = make(store_bytes=8, store_words=64, codec="lossless", byte_writes=True)
    result = run(dut, [command(Target.ROWS, 64, coded=1)], settings, memory, cycles=20)
    assert [cycle for cycle, _ in result.writes][:3] == [2, 3, 4]
    assert result.errors[0] == 5


@pytest.mark.parametrize("byte_writes", [False, True])
@pytest.mark.parametrize("cycle", range(3, 36, 3))
def test_reset_drops_the_compressed_row_in_work(rng, cycle, byte_writes):
    row = Row(rng.integers(0, 256, (2, 16)), 20)
    memory = contents(rng, 8, 64)
    put(memory, row, 8, bytes(8))
    settings = place(row, lanes=8, store_bytes=8, left_pixels=1)
    item = command(Target.ROWS, 20, 3, coded=1)
    kind = {"store_bytes": 8, "store_words": 64, "codec": "lossless", "byte_writes": byte_writes}
    result = run(make(**kind), [item], settings, memory, resets=[cycle], restart=[item])
    fresh = run(make(**kind), [item], settings, memory)
    again = [(at, what) for at, what in written(result, 8) if at > cycle]
    assert again == [(at + cycle + 1, what) for at, what in written(fresh, 8)]


def test_the_bounded_code(rng):
    row = Row(rng.integers(0, 256, (3, 16)), 20, signed=1)
    memory = contents(rng, 8, 64)
    put(memory, row, 8, bytes(8), bounded=True)
    dut = make(store_bytes=8, store_words=64, codec="bounded", byte_writes=False)
    settings = place(row, lanes=8, store_bytes=8)
    result = run(dut, [command(Target.ROWS, 20, coded=1, signed=1)], settings, memory)
    found = {index: data.to_bytes(8, "little") for _, (_, index, data, _) in result.writes}
    assert b"".join(found[index] for index in range(6)) == row.pixels.astype(np.uint8).tobytes()


# Several units


def chunks_of(unit, address, streams, store_bytes):
    """The bytes of the store that a unit of the row at a word has, in order."""
    size = max(8, streams)
    for chunk in itertools.count(unit, streams):
        start = address * store_bytes + chunk * size
        yield from range(start, start + size)


def put_units(memory, row, lanes, streams):
    """Write the units of a row to the store; returns the word behind."""
    store_bytes, stop = len(memory[0]), 0
    for unit in range(streams):
        values = row.values(lanes)[unit::streams]
        data = codec.encode(values, lanes=lanes // streams, signed=bool(row.signed), bounded=False)
        for at, byte in zip(chunks_of(unit, row.address, streams, store_bytes), data):
            memory[at // store_bytes][at % store_bytes] = byte
            stop = max(stop, at // store_bytes + 1)
    return stop


def founds_units(row, settings, ready, accepted, *, lanes, streams):
    """The cycles in which the values of a row of several units are there, register by register: of each unit the halfwords in
    the two registers for chunks, and in that for a halfword, and whether a value waits for those of the others."""
    needed = [row.needed(lanes, unit, streams) for unit in range(streams)]
    chunk = max(8, streams) // 2
    buffers, half, waits = [[0, 0] for _ in range(streams)], [0] * streams, [0] * streams
    fills, drains, taken, found = [0] * streams, [0] * streams, [0] * streams, [0] * streams
    turn, coming, joined = 0, None, []
    for cycle in itertools.count(accepted + 1):
        if len(joined) == len(needed[0]):
            return [at for at in joined for _ in range(streams)]
        join = all(waits)
        if join:
            joined.append(cycle)
        asks = None if any(buffers[turn][fills[turn] :][:1]) else turn
        for unit in range(streams):
            last = len(joined) >= len(needed[0]) - (0 if join else 1) and waits[unit]
            takes = found[unit] < len(needed[unit]) and needed[unit][found[unit]] > taken[unit]
            runs = cycle > accepted + settings.left_granules and not last and found[unit] < len(needed[unit])
            finds = runs and (join or not waits[unit]) and (not takes or half[unit])
            empties = not half[unit] or (finds and takes)
            moves = empties and buffers[unit][drains[unit]]
            if finds:
                found[unit] += 1
                taken[unit] += takes
            waits[unit] = finds or (waits[unit] and not join)
            half[unit] = bool(moves) if empties else half[unit]
            if moves:
                buffers[unit][drains[unit]] -= 1
                drains[unit] ^= not buffers[unit][drains[unit]]
        if coming is not None:
            buffers[coming][fills[coming]] = chunk
            fills[coming] ^= 1
        coming = asks if ready[cycle] else None
        turn = (turn + ready[cycle]) % streams


@pytest.mark.parametrize(
    "lanes, store_bytes, streams, channels, stalls",
    [
        (8, 8, 2, 24, "often"),
        (8, 8, 8, 8, "never"),
        (16, 8, 4, 32, "in turn"),
        (16, 16, 8, 16, "two of three"),
        (16, 16, 2, 48, "never"),
        (16, 16, 16, 32, "often"),
        (64, 16, 8, 128, "never"),
    ],
)
def test_rows_of_several_units_in_each_cycle(rng, lanes, store_bytes, streams, channels, stalls):
    width = 2 if channels > 32 else int(rng.integers(1, 6))
    sizes = {"lanes": lanes, "store_bytes": store_bytes}
    memory, rows, address = contents(rng, store_bytes, 512), [], 100
    for _ in range(2 if lanes == 64 else 3):
        pixels = random_unit(rng, width * channels).reshape(width, channels)
        rows.append(Row(pixels, address, int(rng.integers(2))))
        address = put_units(memory, rows[-1], lanes, streams)
    settings = place(rows[0], **sizes, left_pixels=int(rng.integers(3)), right_granules=int(rng.integers(4)), pad=0x3C)
    commands = [command(Target.ROWS, r.address, 5, coded=1, signed=r.signed, group_end=int(rng.integers(2))) for r in rows]
    commands.insert(1, command(Target.ROWS, 600, 2, blank=1, coded=1, group_end=1))
    dut = make(**sizes, store_words=512, count=256, codec="lossless", streams=streams)
    result = run(dut, commands, settings, memory, stalls=STALLS[stalls](rng))
    assert result.errors == []
    writes, free = written(result, store_bytes), 0
    for item, row, (transfer, _) in zip(commands, (rows[0], None, *rows[1:]), result.input.transfers):
        assert transfer == free
        if row is None:
            number = settings.slot_words * lanes // store_bytes
            assert all({*content.values()} == {settings.pad} for _, (_, content, _) in writes[:number])
            free = writes[number - 1][0]
        else:
            found = founds_units(row, settings, result.ready, transfer, lanes=lanes, streams=streams)
            expected, free = expect_row(item, row, settings, found, transfer, **sizes, byte_writes=False)
            number = len(expected)
            assert writes[:number] == expected
        del writes[:number]
    assert writes == []
