"""The operand fetch, against look-ups in lists of bytes."""

import dataclasses
import itertools

import pytest

from gossamer.hdl.operand_fetch import OperandFetch
from gossamer.sim.streams import Bench, Monitor, never, randomly

SIZES = [(1, 1, 1), (2, 8, 4), (8, 4, 16), (16, 32, 8), (64, 2, 2)]
"""``(lanes, words, vectors)``."""


def element(**fields):
    tag = {"partial": 0, "group_last": 0, "row_last": 0}
    return {"address": 0, "lane": 0, "index": 0, "zero": 0, "clamp": 0, "last": 0, "tag": tag, **fields}


def random_elements(rng, number, lanes, words, vectors):
    def bit():
        return int(rng.integers(2))

    return [
        element(
            address=int(rng.integers(words)),
            lane=int(rng.integers(lanes)),
            index=int(rng.integers(vectors)),
            zero=int(rng.random() < 0.3),
            clamp=bit(),
            last=bit(),
            tag={"partial": bit(), "group_last": bit(), "row_last": bit()},
        )
        for _ in range(number)
    ]


def beat(item, rows, weights, word_mode):
    """The operands of an element."""
    word = rows[item["address"]]
    x = word if word_mode else [word[item["lane"]]] * len(word)
    x = [0] * len(word) if item["zero"] or item["clamp"] else x
    return {"x": x, "w": weights[item["index"]], "clamp": item["clamp"], "last": item["last"], "tag": item["tag"]}


@dataclasses.dataclass
class Run:
    """Monitors of both streams; the reads of both memories as ``(cycle, address)``."""

    i: Monitor
    o: Monitor
    row_reads: list
    weight_reads: list


def run(elements, rows, weights, *, word_mode=0, pauses=None, stalls=None, reset=None, restart=()):
    lanes = len(rows[0])
    dut = OperandFetch(lanes=lanes, words=len(rows), vectors=len(weights))
    bench = Bench(dut)
    source = bench.source(dut.i, elements, pauses)
    result = Run(bench.monitor(dut.i), bench.sink(dut.o, stalls), [], [])

    async def mode(ctx):
        ctx.set(dut.word_mode, word_mode)

    def memory(port, contents, reads):
        async def answer(ctx):
            for cycle in itertools.count():
                _, _, en, address = await ctx.tick().sample(port.en, port.address)
                if en:
                    reads.append((cycle, address))
                    ctx.set(port.data, int.from_bytes(bytes(contents[address]), "little"))

        return answer

    bench.process(mode)
    bench.process(memory(dut.rows, rows, result.row_reads))
    bench.process(memory(dut.weights, weights, result.weight_reads))
    bench.run(quiet=10, resets={} if reset is None else {reset: lambda: source.restart(restart)})
    return result


def contents(rng, lanes, words, vectors):
    """A row buffer and a weight buffer."""
    return rng.integers(0, 256, (words, lanes)).tolist(), rng.integers(0, 256, (vectors, lanes)).tolist()


@pytest.mark.parametrize("lanes, words, vectors", SIZES)
@pytest.mark.parametrize("word_mode", [0, 1])
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.7, 0), (0, 0.7), (0.4, 0.6)])
def test_matches_look_ups_in_each_cycle(rng, lanes, words, vectors, word_mode, pauses, stalls):
    """Throughput and latency too: a beat leaves in the second ready cycle after its element's transfer."""
    rows, weights = contents(rng, lanes, words, vectors)
    elements = random_elements(rng, 100, lanes, words, vectors)
    stalled = list(itertools.islice(randomly(rng, stalls), 5000))
    result = run(
        elements, rows, weights, word_mode=word_mode, pauses=randomly(rng, pauses), stalls=itertools.chain(stalled, never())
    )
    ready = [cycle for cycle, stall in enumerate(stalled) if not stall]
    places = [ready.index(cycle) for cycle in result.i.cycles]
    assert result.i.payloads == elements
    assert result.o.payloads == [beat(item, rows, weights, word_mode) for item in elements]
    assert result.o.cycles == [ready[place + 2] for place in places]
    assert result.o.offers == [ready[place + 1] + 1 for place in places]
    assert result.row_reads == [(cycle, item["address"]) for cycle, item in zip(result.i.cycles, elements)]
    assert result.weight_reads == [(ready[place + 1], item["index"]) for place, item in zip(places, elements)]


def test_an_element_per_cycle_two_cycles_later(rng):
    rows, weights = contents(rng, 4, 4, 4)
    result = run(random_elements(rng, 20, 4, 4, 4), rows, weights)
    assert result.i.cycles == list(range(20))
    assert result.o.cycles == list(range(2, 22))


def test_the_distance_between_elements_is_kept(rng):
    rows, weights = contents(rng, 4, 4, 4)
    gaps = iter([False, True, True, False, False, True])
    result = run(random_elements(rng, 4, 4, 4, 4), rows, weights, pauses=itertools.chain(gaps, never()))
    assert result.i.cycles == [0, 3, 4, 6]
    assert result.o.cycles == [2, 5, 6, 8]


@pytest.mark.parametrize("lanes, words, vectors", SIZES)
@pytest.mark.parametrize("word_mode", [0, 1])
def test_corners(lanes, words, vectors, word_mode):
    """First and last of everything, with the smallest and largest byte."""
    rows, weights = [[1] * lanes for _ in range(words)], [[2] * lanes for _ in range(vectors)]
    rows[-1][-1], weights[-1][-1] = 0xFF, 0x80
    if lanes > 1:
        rows[-1][0], weights[-1][0] = 0x00, 0x7F
    elements = [
        element(address=address, lane=lane, index=index, zero=zero)
        for address in (0, words - 1)
        for lane in (0, lanes - 1)
        for index in (0, vectors - 1)
        for zero in (0, 1)
    ]
    result = run(elements, rows, weights, word_mode=word_mode)
    assert result.o.payloads == [beat(item, rows, weights, word_mode) for item in elements]


@pytest.mark.parametrize("field", ["clamp", "last", "partial", "group_last", "row_last"])
def test_flags_are_handed_through(field):
    zeros = {"partial": 0, "group_last": 0, "row_last": 0}
    fields = {"tag": {**zeros, field: 1}} if field in zeros else {field: 1}
    result = run([element(), element(**fields), element()], [[1]], [[2]])
    plain = beat(element(), [[1]], [[2]], 0)
    zero = {"x": [0]} if field == "clamp" else {}
    assert result.o.payloads == [plain, {**plain, **fields, **zero}, plain]


@pytest.mark.parametrize("cycle", range(8))
@pytest.mark.parametrize("stall", [False, True])
def test_reset_discards_what_is_in_work(rng, cycle, stall):
    """The consumer stalls until the reset, or never."""
    rows, weights = contents(rng, 4, 8, 8)
    first, second = random_elements(rng, 6, 4, 8, 8), random_elements(rng, 5, 4, 8, 8)
    stalls = itertools.chain([stall and n > 2 for n in range(cycle + 1)], never())
    result = run(first, rows, weights, stalls=stalls, reset=cycle, restart=second)
    assert [item for item in result.o.transfers if item[0] > cycle] == [
        (cycle + 3 + n, beat(item, rows, weights, 0)) for n, item in enumerate(second)
    ]


@pytest.mark.parametrize("name", ["lanes", "words", "vectors"])
def test_sizes_must_be_powers_of_two(name):
    with pytest.raises(ValueError, match=rf"^{name} must be a power of two, not 12$"):
        OperandFetch(**{"lanes": 8, "words": 8, "vectors": 8, name: 12})
