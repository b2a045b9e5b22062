"""The window generator, against the loops of its docstring."""

import dataclasses
import itertools

import pytest

from gossamer.hdl.window_generator import WindowGenerator
from gossamer.sim.streams import Bench, Monitor, never, randomly

SIZES = [(1, 1, 1), (1, 16, 8), (2, 8, 2), (8, 32, 64), (16, 64, 16), (64, 8, 128)]
"""``(lanes, words, vectors)``."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Fields of a layer descriptor."""

    word_mode: int = 0
    shared_weights: int = 0
    offset: int = 0
    width: int = 1
    x_step: int = 0
    range_last: int = 0
    groups: int = 1
    kernel_rows: int = 1
    slot_words: int = 1
    ring_words: int = 1
    advance_words: int = 1
    weight_base: int = 0
    sparse: int = 0


def ranges(s, row_slot, lanes, vectors):
    """The ranges of a row whose first slot is slot number ``row_slot``. ``final`` means nothing in word mode."""
    slots, length = s.ring_words // s.slot_words, s.range_last + 1
    if s.sparse:  # masks: one for each word that a range touches, the windows being all in one phase
        length = (s.offset % lanes + s.range_last) // lanes + 1
    found = []
    for group, x, ky in itertools.product(range(s.groups), range(s.width), range(s.kernel_rows)):
        begin = s.offset + x * s.x_step + (group * lanes if s.word_mode else 0)
        lane = begin % lanes
        weights = ky * length + (0 if s.shared_weights else group * s.kernel_rows * length)
        found.append(
            {
                "address": (row_slot + ky) % slots * s.slot_words + begin // lanes,
                "first": lane,
                "words": s.range_last if s.word_mode else (begin + s.range_last) // lanes - begin // lanes,
                "final": None if s.word_mode else (begin + s.range_last) % lanes,
                "index": (s.weight_base + weights - (0 if s.sparse else lane)) % vectors,
                "last": int(ky == s.kernel_rows - 1),
                "tag": {
                    "partial": int(group == s.groups - 1),
                    "group_last": int(x == s.width - 1),
                    "row_last": int(x == s.width - 1 and group == s.groups - 1),
                },
            }
        )
    return found


def row_ranges(s, firsts, lanes, vectors):
    """The ranges of each of some rows, whose ``first`` are given."""
    slots, stride, slot = s.ring_words // s.slot_words, s.advance_words // s.slot_words, 0
    rows = []
    for first in firsts:
        slot = 0 if first else (slot + stride) % slots
        rows.append(ranges(s, slot, lanes, vectors))
    return rows


@dataclasses.dataclass
class Run:
    rows: Monitor
    o: Monitor

    def ranges(self, word_mode):
        """What came out, without what means nothing."""
        return [{**item, "final": None if word_mode else item["final"]} for item in self.o.payloads]


def run(sizes, settings, firsts, *, pauses=None, stalls=None, reset=None, restart=(), limit=20_000, settle=True, masked=False):
    lanes, words, vectors = sizes
    dut = WindowGenerator(lanes=lanes, words=words, vectors=vectors, masked=bool(settings.sparse) or masked)
    bench = Bench(dut)

    async def set_up(ctx):
        for field in dataclasses.fields(settings):
            if hasattr(dut, field.name):
                ctx.set(getattr(dut, field.name), getattr(settings, field.name))

    bench.process(set_up)
    settling, pauses = [settle], never() if pauses is None else pauses

    def pauses_after_reset():
        while True:
            yield settling.pop() if settling else next(pauses)

    def restarted():
        settling.append(settle)
        source.restart([{"first": first} for first in restart])

    source = bench.source(dut.rows, [{"first": first} for first in firsts], pauses_after_reset())
    result = Run(bench.monitor(dut.rows), bench.sink(dut.o, stalls))
    bench.run(quiet=10, resets={} if reset is None else {reset: restarted}, limit=limit)
    return result


def random_settings(rng, lanes, words, vectors):
    slots = int(rng.integers(1, min(words, 6) + 1))
    slot_words = int(rng.integers(1, words // slots + 1))
    stride = int(rng.choice([n for n in range(1, slots + 1) if slots % n == 0]))
    word_mode, size = int(rng.integers(2)), slot_words * lanes
    groups = int(rng.integers(1, 4))
    if word_mode:
        groups = min(groups, slot_words)
        offset = lanes * int(rng.integers(0, slot_words - groups + 1))
        x_step = lanes * int(rng.integers(0, 3))
        width = 1 + min(4, (slot_words - groups - offset // lanes) // max(x_step // lanes, 1))
        range_last = int(rng.integers(0, min(words * lanes, 20)))
    else:
        range_last = int(rng.integers(0, size)) if rng.integers(2) else min(size, 3) - 1
        offset = int(rng.integers(0, size - range_last))
        x_step = int(rng.integers(0, 2 * lanes))
        width = 1 + min(4, (size - 1 - range_last - offset) // max(x_step, 1))
    return Settings(
        word_mode=word_mode,
        shared_weights=int(rng.integers(2)),
        offset=offset,
        width=width,
        x_step=min(x_step, words * lanes - 1),
        range_last=range_last,
        groups=groups,
        kernel_rows=int(rng.integers(1, 5)),
        slot_words=slot_words,
        ring_words=slots * slot_words,
        advance_words=stride * slot_words,
        weight_base=int(rng.integers(vectors)),
    )


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.7, 0), (0, 0.7), (0.9, 0.4)])
def test_matches_the_loops_in_each_cycle(rng, sizes, pauses, stalls):
    """Throughput and latency too: a row's ranges fill the ready cycles from the one after its transfer on."""
    lanes, _, vectors = sizes
    for _ in range(4):
        settings = random_settings(rng, *sizes)
        firsts = [1, *(rng.random(5) < 0.2).astype(int).tolist()]
        stalled = list(itertools.islice(randomly(rng, stalls), 8000))
        ready = [cycle for cycle, stall in enumerate(stalled) if not stall]
        result = run(sizes, settings, firsts, pauses=randomly(rng, pauses), stalls=itertools.chain(stalled, never()))
        expected = row_ranges(settings, firsts, lanes, vectors)
        assert result.ranges(settings.word_mode) == list(itertools.chain(*expected)), settings
        transfers, cycles, free = [], [], 0
        for offer, row in zip(result.rows.offers, expected):
            transfers.append(max(offer, free))
            begin = sum(cycle <= transfers[-1] for cycle in ready)
            cycles += ready[begin : begin + len(row)]
            free = cycles[-1] + 1
        assert result.rows.cycles == transfers
        assert result.o.cycles == cycles
        assert len(result.rows.cycles) == len(firsts)


@pytest.mark.parametrize("sizes", SIZES[2:], ids=str)
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.7, 0.2), (0.2, 0.7)])
def test_sparse_ranges_count_masks(rng, sizes, pauses, stalls):
    """The same ranges, but for the index; built with masks, those without them are as ever."""
    lanes, _, vectors = sizes
    for sparse in (1, 1, 0):
        settings = random_settings(rng, *sizes)
        if sparse:
            settings = dataclasses.replace(settings, sparse=1, word_mode=0, shared_weights=0)
            step = -(-settings.x_step // lanes) * lanes  # all windows begin in one lane
            span = settings.slot_words * lanes - 1 - settings.offset - settings.range_last
            width = 1 + min(3, span // max(step, 1)) if span >= 0 else 1
            settings = dataclasses.replace(settings, width=width, x_step=min(step, sizes[1] * lanes - lanes))
        firsts, stalling = [1, 0, 0], {"pauses": randomly(rng, pauses), "stalls": randomly(rng, stalls)}
        result = run(sizes, settings, firsts, masked=True, **stalling)
        assert result.ranges(settings.word_mode) == list(itertools.chain(*row_ranges(settings, firsts, lanes, vectors)))


def test_masks_of_a_hand_made_convolution():
    """A 2 × 3 kernel over rows of 8 channels and 8 lanes, one channel aside: three bytes short of four words."""
    settings = Settings(
        sparse=1, width=2, x_step=8, range_last=20, offset=5, kernel_rows=2, slot_words=5, ring_words=15, advance_words=5,
        groups=2, weight_base=30,
    )  # fmt: skip
    result = run((8, 16, 64), settings, [1])
    found = [tuple(item[name] for name in ("address", "first", "words", "final", "index")) for item in result.o.payloads]
    assert found == [
        (word + x, 5, 3, 1, index)
        for rows in (((0, 30), (5, 34)), ((0, 38), (5, 42)))  # of each group
        for x in range(2)
        for word, index in rows
    ]


def test_a_range_per_cycle_and_a_cycle_between_rows():
    settings = Settings(width=3, groups=2, kernel_rows=2, x_step=1, slot_words=2, ring_words=4, advance_words=2)
    result = run((8, 8, 16), settings, [1, 0])
    assert result.rows.cycles == [1, 14]
    assert result.o.cycles == [*range(2, 14), *range(15, 27)]


def test_a_hand_made_convolution():
    """A 3 × 3 kernel over rows of 3 channels, 8 lanes: a kernel row is 9 bytes, a step 3 bytes, in a ring of three slots."""
    settings = Settings(
        width=3, x_step=3, range_last=8, kernel_rows=3, slot_words=2, ring_words=6, advance_words=2, weight_base=5
    )
    result = run((8, 8, 32), settings, [1, 0])
    fields = ("address", "first", "words", "final", "index", "last")
    found = [tuple(item[name] for name in fields) for item in result.o.payloads]
    window = [(5, 0), (14, 0), (23, 1)]  # weight vectors 5 … 31
    ends = [(0, 0, 1, 0), (0, 3, 1, 3), (0, 6, 1, 6)]  # bytes 0 … 8, 3 … 11, 6 … 14
    for row, slots in enumerate([(0, 2, 4), (2, 4, 0)]):
        expected = [
            (slot + address, first, words, final, (index - first) % 32, last)
            for address, first, words, final in ends
            for slot, (index, last) in zip(slots, window)
        ]
        assert found[9 * row : 9 * row + 9] == expected


@pytest.mark.parametrize(
    "settings",
    [
        Settings(width=1023, x_step=1, slot_words=128, ring_words=128, advance_words=128),
        Settings(groups=255),
        Settings(kernel_rows=63, slot_words=2, ring_words=126, advance_words=2),
        Settings(kernel_rows=63, slot_words=1, ring_words=3),
        Settings(range_last=1023, slot_words=128, ring_words=128, advance_words=128, weight_base=63),
        Settings(offset=1023, slot_words=128, ring_words=128, advance_words=128),
        Settings(x_step=1023, width=2, slot_words=128, ring_words=128, advance_words=128),
        Settings(word_mode=1, range_last=1023, groups=128, slot_words=128, ring_words=128, advance_words=128),
        Settings(word_mode=1, offset=1016, x_step=0, width=1023, slot_words=128, ring_words=128, advance_words=128),
        Settings(slot_words=1, ring_words=128, advance_words=128, kernel_rows=2),
    ],
    ids=lambda settings: " ".join(f"{k}={v}" for k, v in dataclasses.asdict(settings).items() if v not in (0, 1)),
)
def test_extremes(settings):
    lanes, words, vectors = 8, 128, 64
    result = run((lanes, words, vectors), settings, [1, 0])
    assert result.ranges(settings.word_mode) == list(itertools.chain(*row_ranges(settings, [1, 0], lanes, vectors)))


def test_the_ring_goes_round_often():
    settings = Settings(kernel_rows=2, slot_words=3, ring_words=12, advance_words=3)
    firsts = [1] + [0] * 10 + [1] + [0] * 5
    result = run((4, 16, 4), settings, firsts)
    assert [item["address"] // 3 for item in result.o.payloads] == [
        (row + ky) % 4 for row in [*range(11), *range(6)] for ky in range(2)
    ]


@pytest.mark.parametrize("cycle", range(16))
@pytest.mark.parametrize("stall", [False, True])
def test_reset_discards_the_row(cycle, stall):
    settings = Settings(
        width=2, groups=3, kernel_rows=2, x_step=5, range_last=6, slot_words=2, ring_words=8, advance_words=4, weight_base=3
    )
    stalls = itertools.chain([stall and n > 3 for n in range(cycle + 1)], never())
    result = run((8, 8, 16), settings, [1, 0], stalls=stalls, reset=cycle, restart=[1, 0])
    fresh = run((8, 8, 16), settings, [1, 0])
    assert [(at - cycle - 1, item) for at, item in result.o.transfers if at > cycle] == fresh.o.transfers


@pytest.mark.parametrize("name", ["width", "groups", "kernel_rows"])
def test_counts_must_not_be_0(name):
    with pytest.raises(AssertionError, match=rf"^Assertion violated: {name} must not be 0$"):
        run((8, 8, 16), Settings(**{name: 0}), [1])


@pytest.mark.parametrize("reset", [None, 3])
def test_a_row_must_not_be_taken_in_the_first_cycle_after_reset(reset):
    with pytest.raises(AssertionError, match=r"^Assertion violated: a row must not be taken in the first cycle after reset$"):
        run((8, 8, 16), Settings(), [] if reset else [1], reset=reset, restart=[1], settle=False)


def test_counts_may_be_0_while_there_is_no_row():
    assert run((8, 8, 16), Settings(width=0, groups=0, kernel_rows=0), []).o.payloads == []


@pytest.mark.parametrize("name", ["lanes", "words", "vectors"])
def test_sizes_must_be_powers_of_two(name):
    with pytest.raises(ValueError, match=rf"^{name} must be a power of two, not 12$"):
        WindowGenerator(**{"lanes": 8, "words": 8, "vectors": 8, name: 12})
