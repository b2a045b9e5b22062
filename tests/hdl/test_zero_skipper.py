"""The zero skipper, against a loop over the bits of each mask."""

import itertools

import pytest

from gossamer.hdl.zero_skipper import ZeroSkipper
from gossamer.sim.streams import Bench, never, randomly

SIZES = [(1, 1, 1), (2, 8, 2), (8, 4, 16), (16, 32, 8), (64, 2, 128)]
"""``(lanes, words, vectors)``."""


def make_word(mask, address=0, index=0, last=0, clamp=0, tag=0):
    """A word; ``tag`` as a number of three bits."""
    tags = {"partial": tag & 1, "group_last": tag >> 1 & 1, "row_last": tag >> 2}
    return {"mask": mask, "address": address, "index": index, "last": last, "clamp": clamp, "tag": tags}


def elements(word, lanes, vectors):
    """The elements of a word. What a ``zero`` stands for means nothing. If there is ``stored`` only its lanes count."""
    found = []
    for lane in range(lanes):
        if word["mask"] >> lane & 1:
            in_front = sum(word.get("stored", -1) >> before & 1 for before in range(lane))
            place = {"address": word["address"], "lane": lane, "index": (word["index"] + in_front) % vectors}
            found.append({**place, "zero": 0, "clamp": word["clamp"], "last": 0, "tag": word["tag"]})
    if not found:
        place = {"address": None, "lane": None, "index": None}
        found.append({**place, "zero": 1, "clamp": word["clamp"], "last": 0, "tag": word["tag"]})
    found[-1]["last"] = word["last"]
    return found


def meaning(element):
    """An element without what means nothing."""
    return {**element, "address": None, "lane": None, "index": None} if element["zero"] else element


def run(sizes, words, *, pauses=None, stalls=None, reset=None, restart=()):
    """Monitors of both streams."""
    masked = any("stored" in word for word in words)
    dut = ZeroSkipper(**dict(zip(("lanes", "words", "vectors"), sizes)), masked=masked)
    bench = Bench(dut)
    source = bench.source(dut.i, words, pauses)
    monitors = bench.monitor(dut.i), bench.sink(dut.o, stalls)
    bench.run(resets={} if reset is None else {reset: lambda: source.restart(restart)})
    return monitors


def random_words(rng, number, sizes, density):
    lanes, words, vectors = sizes
    return [
        make_word(
            sum(1 << lane for lane in range(lanes) if rng.random() < density),
            int(rng.integers(words)),
            int(rng.integers(vectors)),
            int(rng.integers(2)),
            int(rng.integers(2)),
            int(rng.integers(8)),
        )
        for _ in range(number)
    ]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("density", [0.05, 0.5, 1])
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.8, 0), (0, 0.7), (0.5, 0.5)])
def test_matches_a_loop_over_bits_in_each_cycle(rng, sizes, density, pauses, stalls):
    """Throughput and latency too: a word's elements fill the ready cycles from the one after its transfer on, and the next
    word is taken in the last of them."""
    lanes, _, vectors = sizes
    words = random_words(rng, max(2, min(40, int(100 / lanes / density))), sizes, density)
    stalled = list(itertools.islice(randomly(rng, stalls), 5000))
    ready = [cycle for cycle, stall in enumerate(stalled) if not stall]
    i, o = run(sizes, words, pauses=randomly(rng, pauses), stalls=itertools.chain(stalled, never()))
    expected = [elements(word, lanes, vectors) for word in words]
    assert i.payloads == words
    assert [meaning(element) for element in o.payloads] == [element for found in expected for element in found]
    transfers, cycles, offers, free = [], [], [], 0
    for offer, found in zip(i.offers, expected):
        transfers.append(max(offer, free))
        begin = next(place for place, cycle in enumerate(ready) if cycle > transfers[-1])
        taken = ready[begin : begin + len(found)]
        offers += [transfers[-1] + 1, *(cycle + 1 for cycle in taken[:-1])]
        cycles += taken
        free = taken[-1]
    assert i.cycles == transfers
    assert o.cycles == cycles
    assert o.offers == offers


def masked(rng, words, lanes, density):
    """The words with ``stored`` lanes, and no others in their masks."""
    found = []
    for word in words:
        stored = sum(1 << lane for lane in range(lanes) if rng.random() < density)
        found.append({**word, "stored": stored, "mask": word["mask"] & stored})
    return found


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("density", [0.1, 0.5, 1])
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.8, 0), (0, 0.7)])
def test_the_index_counts_stored_lanes(rng, sizes, density, pauses, stalls):
    lanes, _, vectors = sizes
    words = masked(rng, random_words(rng, 20, sizes, 0.6), lanes, density)
    i, o = run(sizes, words, pauses=randomly(rng, pauses), stalls=randomly(rng, stalls))
    assert i.payloads == words
    assert [meaning(element) for element in o.payloads] == [e for word in words for e in elements(word, lanes, vectors)]


def test_stored_lanes_by_hand():
    """A stored vector whose byte is zero counts, a vector that is not stored does not."""
    _, o = run((8, 1, 64), [{**make_word(0b1001_0010, index=60), "stored": 0b1011_0110}])
    assert [(element["lane"], element["index"]) for element in o.payloads] == [(1, 60), (4, 62), (7, 0)]


def test_masked_words_take_no_more_cycles_than_others():
    words = [{**make_word(mask), "stored": 0b1111} for mask in (0b1011, 0, 0b1000, 0b1111)]
    i, o = run((4, 1, 16), words)
    assert i.cycles == [0, 3, 4, 5]
    assert o.cycles == list(range(1, 10))


@pytest.mark.parametrize("cycle", range(0, 9, 2))
def test_reset_discards_the_stored_lanes(rng, cycle):
    first = [{**make_word(0xEE, 1, 2, 1), "stored": 0xFE}] * 3
    second = masked(rng, random_words(rng, 4, (8, 4, 16), 0.6), 8, 0.6)
    _, o = run((8, 4, 16), first, reset=cycle, restart=second)
    expected = [e for word in second for e in elements(word, 8, 16)]
    assert [meaning(element) for at, element in o.transfers if at > cycle] == expected


def test_an_element_per_cycle_without_gaps_between_words():
    words = [make_word(0b1011), make_word(0), make_word(0b1000), make_word(0, last=1), make_word(0b1111)]
    i, o = run((4, 1, 16), words)
    assert i.cycles == [0, 3, 4, 5, 6]
    assert o.cycles == list(range(1, 11))
    assert [element["zero"] for element in o.payloads] == [0, 0, 0, 1, 0, 1, 0, 0, 0, 0]
    assert [element["last"] for element in o.payloads] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("lanes", [1, 2, 8, 64])
def test_each_single_bit(lanes):
    """And the highest address and index, which wraps around."""
    words = [make_word(1 << lane, 3, 127, last=1) for lane in range(lanes)]
    _, o = run((lanes, 4, 128), words)
    assert [(e["lane"], e["address"], e["index"], e["last"]) for e in o.payloads] == [
        (lane, 3, (127 + lane) % 128, 1) for lane in range(lanes)
    ]


@pytest.mark.parametrize("lanes", [1, 2, 8, 64])
def test_only_the_last_element_of_the_last_word_is_last(lanes):
    full = (1 << lanes) - 1
    _, o = run((lanes, 1, 1), [make_word(full), make_word(full, last=1), make_word(full)])
    assert [element["last"] for element in o.payloads] == [0] * (2 * lanes - 1) + [1] + [0] * lanes


@pytest.mark.parametrize("mask", [0, 1, 0b1010])
def test_flags_are_handed_through(mask):
    words = [make_word(mask, clamp=clamp, tag=tag) for clamp in (0, 1) for tag in range(8)]
    _, o = run((4, 1, 16), words)
    assert [meaning(element) for element in o.payloads] == [e for word in words for e in elements(word, 4, 16)]


@pytest.mark.parametrize("cycle", range(9))
@pytest.mark.parametrize("stall", [False, True])
def test_reset_discards_the_word_in_work(rng, cycle, stall):
    """The consumer stalls until the reset, or never."""
    sizes = (8, 4, 16)
    first = [make_word(0xEE, 1, 2, 1), make_word(0, 2, 3, 1), make_word(0xFF, 1, 1)]
    second = random_words(rng, 4, sizes, 0.4)
    stalls = itertools.chain([stall and n > 2 for n in range(cycle + 1)], never())
    _, o = run(sizes, first, stalls=stalls, reset=cycle, restart=second)
    assert [(at, meaning(element)) for at, element in o.transfers if at > cycle] == list(
        enumerate((e for word in second for e in elements(word, 8, 16)), cycle + 2)
    )


@pytest.mark.parametrize("name", ["lanes", "words", "vectors"])
def test_sizes_must_be_powers_of_two(name):
    with pytest.raises(ValueError, match=rf"^{name} must be a power of two, not 12$"):
        ZeroSkipper(**{"lanes": 8, "words": 8, "vectors": 8, name: 12})
