"""The fetcher, between a memory that stalls and a store that others write to, against copies of a list of words."""

import dataclasses
import itertools

import pytest

from gossamer.golden.spec import EXTERNAL_WORDS
from gossamer.hdl.fetcher import Fetcher
from gossamer.sim.streams import Bench, never, randomly


def make(*, store_bytes=8, store_words=300):
    return Fetcher(store_bytes=store_bytes, store_words=store_words)


def word(address, store_bytes=8):
    """What the external memory has at an address: all bytes count, and no two words of three bytes or more are the same."""
    return sum((address >> 8 * (place % 3) & 0xFF ^ 0x1D * place) % 256 << 8 * place for place in range(store_bytes))


def command(address, destination, words):
    return {"address": address, "destination": destination, "more": words - 1}


@dataclasses.dataclass
class Run:
    """A simulation, everything with its cycle: ``requests`` ``(cycle, (address, words less one))``, ``writes``
    ``(cycle, (address, data))``. ``offers`` are the cycles from which the memory offered each word, ``errors`` those of
    ``error``; ``idle``, ``hold`` and ``ready``, of the memory's requests, are of every cycle. ``input`` is the monitor of the
    commands."""

    input: object
    requests: list = dataclasses.field(default_factory=list)
    offers: list = dataclasses.field(default_factory=list)
    writes: list = dataclasses.field(default_factory=list)
    errors: list = dataclasses.field(default_factory=list)
    idle: list = dataclasses.field(default_factory=list)
    hold: list = dataclasses.field(default_factory=list)
    ready: list = dataclasses.field(default_factory=list)

    def after(self, cycle):
        """What can be seen behind a cycle, from there."""
        late = [[(at - cycle - 1, *what) for at, *what in found if at > cycle] for found in (self.requests, self.writes)]
        return [*late, [at - cycle - 1 for at in self.errors if at > cycle], self.idle[cycle + 1 :][:30]]


def run(dut, commands, *, image_words=0, pauses=None, busy=None, slow=None, holds=None, drops=(), resets=(), restart=()):
    """Send ``commands``. ``busy`` says when the memory takes no request, ``slow`` when it has no next word yet, ``holds`` when
    the store is someone else's. A reset, which the memory gets too, drops what is yet to be sent, and sends ``restart``."""
    bench = Bench(dut)
    busy, slow, holds = (never() if pauses is None else pauses for pauses in (busy, slow, holds))
    source = bench.source(dut.i, commands, pauses)
    result = Run(bench.monitor(dut.i))
    memory, write = dut.memory, dut.write
    size = len(memory.data) // 8
    todo = []  # addresses of the words to come

    async def surroundings(ctx):
        offered, asked = False, None
        ctx.set(dut.image_words, image_words)
        for cycle in itertools.count():
            ready, hold = not next(busy), bool(next(holds))
            if todo and not offered and not next(slow):
                offered = True
                result.offers.append(cycle)
            for port, value in (
                (memory.request_ready, ready),
                (memory.valid, offered),
                (memory.data, word(todo[0], size) if offered else (1 << 8 * size) - 1 - cycle % 2),
                (dut.hold, hold),
                (dut.drop, cycle in drops),
            ):
                ctx.set(port, value)
            request = (memory.request_valid, memory.request_address, memory.request_words)
            answer = (memory.ready, write.en, write.address, write.data, write.mask, dut.error, dut.idle)
            sampled = await ctx.tick().sample(*request, *answer)
            _, _, valid, address, words, taken, written, at, data, mask, error, idle = sampled
            reset = cycle in resets
            assert asked in (None, (valid, address, words)), "a request must stay until it is taken"
            assert not (hold and (written or taken)), "while someone else writes no word must be taken"
            assert not (written or error) or (taken and offered), "only a word that is taken can be written or wrong"
            asked = (valid, address, words) if valid and not ready and not reset else None
            for found, happened, what in (
                (result.requests, valid and ready, (cycle, (address, words))),
                (result.writes, written, (cycle, (at, data))),
                (result.errors, error, cycle),
            ):
                if happened and not reset:
                    found.append(what)
            if written:
                assert mask == (1 << size) - 1
            for found, what in ((result.idle, idle), (result.hold, hold), (result.ready, ready)):
                found.append(what)
            if offered and taken:
                todo.pop(0)
                offered = False
            if valid and ready:
                todo.extend(range(address, address + words + 1))
            if reset:
                todo.clear()
                offered = False
            if todo:
                bench.stay()

    bench.process(surroundings)
    bench.run(quiet=10, resets={cycle: lambda: source.restart(restart) for cycle in resets})
    return result


def expect(result, commands, store_words, image_words, size):
    """Transfers of the commands, writes, errors and idle cycles, from when commands and words were offered."""
    transfers, writes, errors, free = [], [], [], 0
    idle = [1] * len(result.idle)
    offers = iter(result.offers)
    for offer, item in zip(result.input.offers, commands):
        cycle = max(offer, free)
        while not result.ready[cycle]:
            cycle += 1
        transfers.append(cycle)
        for number in range(item["more"] + 1):
            at = next(offers)
            while result.hold[at]:
                at += 1
            destination = item["destination"] + number
            if image_words <= destination < store_words:
                writes.append((at, (destination, word(item["address"] + number, size))))
            else:
                errors.append(at)
        free = at + 1
        idle[cycle + 1 : free] = [0] * (free - cycle - 1)
    return transfers, writes, errors, idle


def check(result, commands, *, store_words=300, image_words=0, size=8):
    transfers, writes, errors, idle = expect(result, commands, store_words, image_words, size)
    assert result.input.payloads == commands
    assert result.input.cycles == transfers
    assert result.requests == [(at, (item["address"], item["more"])) for at, item in zip(transfers, commands)]
    assert result.writes == writes
    assert result.errors == errors
    assert result.idle == idle


@pytest.mark.parametrize("store_bytes, store_words", [(8, 300), (16, 256), (4, 257), (1, 17)])
@pytest.mark.parametrize(
    "pauses, busy, slow, holds",
    [(0, 0, 0, 0), (0.7, 0, 0, 0), (0, 0.8, 0, 0), (0, 0, 0.8, 0), (0, 0, 0, 0.8), (0.3, 0.3, 0.6, 0.6), (0, 0, 0.7, 0.2)],
)
def test_matches_copies_of_words_in_each_cycle(rng, store_bytes, store_words, pauses, busy, slow, holds):
    """Of the store's words, and of some in front of and behind those that it may write."""
    commands = []
    image_words = int(rng.integers(0, store_words))
    for _ in range(12):
        words = int(rng.integers(1, 9))
        edge = int(rng.choice([image_words, store_words, int(rng.integers(store_words))]))
        destination = max(edge - int(rng.integers(0, 9)), 0)
        commands.append(command(int(rng.integers(EXTERNAL_WORDS - 9)), destination % (2 * store_words), words))
    result = run(
        make(store_bytes=store_bytes, store_words=store_words),
        commands,
        image_words=image_words,
        pauses=randomly(rng, pauses),
        busy=randomly(rng, busy),
        slow=randomly(rng, slow, 12),
        holds=randomly(rng, holds),
    )
    check(result, commands, store_words=store_words, image_words=image_words, size=store_bytes)


def test_a_word_per_cycle_and_a_cycle_between_commands():
    commands = [command(5, 10, 3), command(100, 20, 1), command(7, 30, 2)]
    result = run(make(), commands)
    assert result.input.cycles == [0, 4, 6]
    assert result.requests == [(0, (5, 2)), (4, (100, 0)), (6, (7, 1))]
    written = [(1, 10, 5), (2, 11, 6), (3, 12, 7), (5, 20, 100), (7, 30, 7), (8, 31, 8)]
    assert result.writes == [(cycle, (to, word(at))) for cycle, to, at in written]
    assert result.idle[:12] == [1, 0, 0, 0, 1, 0, 1, 0, 0, 1, 1, 1]
    assert result.errors == []


def test_a_request_goes_out_with_its_command_and_waits_for_the_memory():
    busy = itertools.chain([True] * 5, never())
    result = run(make(), [command(1, 2, 1)], busy=busy)
    assert result.input.offers == [0]
    assert result.input.cycles == [5]
    assert result.requests == [(5, (1, 0))]
    assert result.idle[:8] == [1, 1, 1, 1, 1, 1, 0, 1]


def test_a_word_is_written_in_the_first_cycle_that_is_left():
    holds = itertools.chain([True, True, True, True, False, True, False, False, True, True], never())
    result = run(make(), [command(0, 0, 4)], holds=holds)
    assert [cycle for cycle, _ in result.writes] == [4, 6, 7, 10]
    assert result.idle[:13] == [1] + [0] * 10 + [1, 1]


def test_hold_does_not_keep_a_command_waiting():
    result = run(make(), [command(0, 0, 1)], holds=itertools.chain([True] * 4, never()))
    assert result.input.cycles == [0]
    assert [cycle for cycle, _ in result.writes] == [4]


# Errors


@pytest.mark.parametrize(
    "store_words, destination, wrong",
    [(256, 254, [2, 3]), (300, 298, [2, 3]), (300, 296, []), (256, 256, [0, 1, 2, 3]), (300, 300, [0, 1, 2, 3]),
     (256, 511 - 3, [0, 1, 2, 3]), (300, 1023 - 3, [0, 1, 2, 3])],
)  # fmt: skip
def test_a_word_behind_the_store_is_an_error_and_is_not_written(store_words, destination, wrong):
    result = run(make(store_words=store_words), [command(9, destination, 4)])
    assert result.errors == [1 + number for number in wrong]
    assert result.writes == [(1 + n, (destination + n, word(9 + n))) for n in range(4) if n not in wrong]


@pytest.mark.parametrize(
    "image_words, destination, wrong",
    [(0, 0, []), (1, 0, [0]), (50, 48, [0, 1]), (50, 49, [0]), (50, 50, []), (299, 296, [0, 1, 2]), (256, 0, [0, 1, 2, 3])],
)
def test_a_word_in_the_image_is_an_error_and_is_not_written(image_words, destination, wrong):
    result = run(make(), [command(9, destination, 4), command(3, 299, 1)], image_words=image_words)
    assert result.errors == [1 + number for number in wrong]
    assert result.writes == [
        *((1 + n, (destination + n, word(9 + n))) for n in range(4) if n not in wrong), (6, (299, word(3)))
    ]  # fmt: skip


def test_an_error_lasts_as_long_as_the_transfer():
    """Not while the word waits: it may still be dropped."""
    holds = itertools.chain([True] * 5, never())
    assert run(make(), [command(0, 300, 1)], holds=holds).errors == [5]


# Drop


@pytest.mark.parametrize("stall", [{"slow": [True, False, True]}, {"holds": [True, True, False]}], ids=["slow", "holds"])
@pytest.mark.parametrize("cycle", range(13))
def test_words_after_a_drop_are_taken_but_not_written(cycle, stall):
    """A drop counts for the command in work, from the next cycle on: nothing changes but the writes and the errors that would
    have been."""
    commands = [command(10, 298, 4), command(20, 30, 3)]  # the first one's third and fourth word are wrong

    def go(drops):
        return run(make(), commands, drops=drops, **{name: itertools.cycle(pattern) for name, pattern in stall.items()})

    clean, result = go([]), go([cycle])
    begin, _ = clean.input.cycles
    words = sorted([at for at, _ in clean.writes] + clean.errors)
    assert (begin, words[:4], len(words)) == (0, [2, 5, 8, 11], 7)
    lost = [at for at in words[:4] if 0 < cycle < at]
    assert result.writes == [what for what in clean.writes if what[0] not in lost]
    assert result.errors == [at for at in clean.errors if at not in lost]
    assert (result.input.cycles, result.requests, result.offers) == (clean.input.cycles, clean.requests, clean.offers)
    assert result.idle == clean.idle


def test_a_drop_lasts_to_the_end_of_the_command():
    slow = itertools.chain([False, True, True, True, True, False, True, True, True], never())
    result = run(make(), [command(0, 0, 8), command(5, 200, 1), command(0, 299, 2)], slow=slow, drops=[3])
    (_, first), (_, second), (_, third) = result.writes
    assert (first, second, third) == ((0, word(0)), (200, word(5)), (299, word(0)))
    assert len(result.errors) == 1


# Reset


@pytest.mark.parametrize("cycle", range(10))
@pytest.mark.parametrize("drops", [(), (2,), range(10)], ids=["", "dropped in cycle 2", "dropped always"])
def test_reset_forgets_the_command_in_work(cycle, drops):
    """Also one whose words are dropped. The command is taken in cycle 1, the words in the cycles 2 to 7."""
    first, second = [command(10, 298, 6), command(50, 60, 2)], [command(20, 30, 3), command(40, 50, 1)]
    drops = [drop for drop in drops if drop <= cycle]
    busy = itertools.chain([True], never())
    result = run(make(), first, busy=busy, drops=drops, resets=[cycle], restart=second)
    assert result.input.cycles[-2:] == [max(cycle + 1, 1) + n for n in (0, 4)]
    assert result.after(cycle) == run(make(), second).after(-1)


# Extremes


def test_the_longest_command_takes_a_cycle_per_word():
    words = 4095
    result = run(make(store_words=4096), [command(EXTERNAL_WORDS - words, 1, words), command(0, 0, 1)])
    assert result.writes[:-1] == [(1 + n, (1 + n, word(EXTERNAL_WORDS - words + n))) for n in range(words)]
    assert result.requests == [(0, (EXTERNAL_WORDS - words, words - 1)), (words + 1, (0, 0))]
    assert result.writes[-1] == (words + 2, (0, word(0)))
    assert result.errors == []


@pytest.mark.parametrize("store_words", [1, 2, 3, 256, 300])
def test_the_last_words_of_both_memories(store_words):
    result = run(make(store_words=store_words), [command(EXTERNAL_WORDS - 1, store_words - 1, 1)], image_words=store_words - 1)
    assert result.writes == [(1, (store_words - 1, word(EXTERNAL_WORDS - 1)))]
    assert result.errors == []


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"store_bytes": 3}, "store_bytes must be a power of two, not 3"),
        ({"store_bytes": 0}, "store_bytes must be a power of two, not 0"),
        ({"store_words": 0}, "store_words must be at least 1, not 0"),
    ],
)
def test_constructor_messages(sizes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(**sizes)
