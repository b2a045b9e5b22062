"""The loader, against slices of a list of words."""

import dataclasses
import itertools
import re

import pytest

from gossamer.hdl.loader import Loader, Target
from gossamer.sim.streams import Bench, never, randomly

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


def command(target, address=0, index=0, blank=0, group_end=0, coded=0, signed=0):
    kind = {"blank": blank, "coded": coded, "signed": signed}
    return {"target": target, "address": address, "index": index, **kind, "group_end": group_end}


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
            address += 1
            if target == Target.ROWS and i == settings.right_granule - 1:
                data[settings.tail :] = [settings.pad] * len(data[settings.tail :])
        group_end = int(item["group_end"] and i == number - 1)
        found.append((asked, (target, item["index"] + i, int.from_bytes(bytes(data), "little"), group_end)))
    return found


@dataclasses.dataclass
class Run:
    """A simulation: ``writes`` are ``(cycle, (target, index, data, group_end))``; ``reads`` ``(cycle, address)`` of what the
    store took; ``errors`` cycles; ``ready`` that of the store in each cycle; ``input`` the monitor of the commands."""

    writes: list
    reads: list
    errors: list
    ready: list
    input: object


def run(dut, commands, settings, memory, *, pauses=None, stalls=None, resets=(), restart=()):
    """Send ``commands``; ``stalls`` are the store's. A reset drops what is yet to be sent, and sends ``restart``."""
    bench, stalls = Bench(dut), never() if stalls is None else stalls
    store_bytes = len(memory[0])
    source = bench.source(dut.i, commands, pauses)
    result = Run([], [], [], [], bench.monitor(dut.i))

    async def store(ctx):
        for field in dataclasses.fields(settings):
            ctx.set(getattr(dut, field.name), getattr(settings, field.name))
        write = (dut.write.target, dut.write.index, dut.write.data, dut.write.row_data, dut.write.group_end)
        data = [NOISE] * store_bytes
        for cycle in itertools.count():
            result.ready.append(not next(stalls))
            ctx.set(dut.read.ready, result.ready[-1])
            ctx.set(dut.read.data, int.from_bytes(bytes(data), "little"))
            sampled = await ctx.tick().sample(dut.read.en, dut.read.address, dut.error, dut.write.en, *write)
            _, _, en, address, error, written, target, index, word, row_word, group_end = sampled
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

    bench.process(store)
    bench.run(quiet=10, resets={cycle: lambda: source.restart(restart) for cycle in resets})
    return result


def make(*, lanes=8, store_bytes=4, store_words=32, count=32):
    return Loader(lanes=lanes, store_bytes=store_bytes, store_words=store_words, count=count)


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
