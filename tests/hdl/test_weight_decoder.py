"""The weight decoder, against weights that are packed here, one number at a time."""

import pytest

from gossamer.hdl.weight_decoder import WeightDecoder
from gossamer.sim.streams import Bench

SHAPES = [(16, 8, 16), (64, 16, 4), (8, 4, 8)]
"""``(lanes, granule, vectors)``."""


def play(dut, loads, rng, gaps):
    """Drive loads, ``(format, shared, destination, palette, [(index, word), …])``; the bytes that are written, by place.

    The start of a load comes in the cycle of the last word of the load before, which is the earliest."""
    bench, memory, ended = Bench(dut), {}, []
    granule = len(dut.i.data) // 8

    async def cycle(ctx, word=None, start=None, palette=0):
        ctx.set(dut.start, start is not None)
        for name, value in zip(("format", "shared", "destination"), start or (3, 1, 0)):
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.i.en, word is not None)
        ctx.set(dut.i.palette, palette)
        ctx.set(dut.i.index, word[0] if word else 1)
        ctx.set(dut.i.data, word[1] if word else -1)
        *_, enable, address, data = await ctx.tick().sample(dut.o.en, dut.o.address, dut.o.data)
        for half in range(2):
            if enable >> half & 1:
                for byte in range(granule):
                    place = (2 * address + half) * granule + byte
                    memory[place] = data >> 8 * (half * granule + byte) & 255

    async def drive(ctx):
        last = None  # the word that comes with the start of the next load
        for kind, shared, destination, palette, words in loads:
            await cycle(ctx, last and last[0], (kind, shared, destination), last[1] if last else 0)
            for word in words[:-1]:
                while rng.random() < gaps:
                    await cycle(ctx)
                await cycle(ctx, word, palette=palette)
            last = words[-1], palette
        await cycle(ctx, last[0], palette=last[1])
        ended.append(True)

    bench.process(drive)
    bench.run(cycles=50 + 5 * sum(len(words) for *_, words in loads))
    assert ended
    return memory


def words_of(numbers, bits, granule):
    """Numbers of so many bits, the first in the lowest, as words."""
    per_word = 8 * granule // bits
    return [
        sum((int(n) & (1 << bits) - 1) << bits * i for i, n in enumerate(numbers[at : at + per_word]))
        for at in range(0, len(numbers), per_word)
    ]


def indexed(words, first=0):
    return [(first + i, word) for i, word in enumerate(words)]


@pytest.mark.parametrize("lanes, granule, vectors", SHAPES)
@pytest.mark.parametrize("gaps", [0, 0.5])
def test_loads_of_all_formats_write_the_weights_that_were_packed(rng, lanes, granule, vectors, gaps):
    dut = WeightDecoder(lanes=lanes, granule=granule, vectors=vectors, palettes=True)
    loads, expected = [], {}
    for kind in [0, 1, 2, 3, *rng.integers(0, 4, 12).tolist()]:
        count = int(rng.integers(1, vectors + 1))
        destination = int(rng.integers(vectors - count + 1))
        if kind == 0:
            values = rng.integers(0, 256, count * lanes)
            loads.append((0, 0, destination, 0, indexed(words_of(values, 8, granule), destination * lanes // granule)))
        elif kind == 1:
            values = rng.integers(-8, 8, count * lanes)
            loads.append((1, 0, destination, 0, indexed(words_of(values, 4, granule))))
        else:
            entries, shared = 16 * (kind - 1), int(rng.integers(2))
            palette = rng.integers(0, 256, (entries, granule if shared else lanes))
            loads.append((0, shared, 0, 1, indexed(words_of(palette.reshape(-1), 8, granule))))
            codes = rng.integers(0, entries, count * lanes)
            values = [palette[code, i % palette.shape[1]] for i, code in enumerate(codes)]
            words, high = words_of(codes, 4, granule), words_of(codes >> 4, 1, granule)
            if kind == 3:  # a word of fifth bits in front of four words
                words = [word for at in range(0, len(words), 4) for word in (high[at // 4], *words[at : at + 4])]
            loads.append((kind, shared, destination, 0, indexed(words)))
        expected |= {destination * lanes + i: int(value) & 255 for i, value in enumerate(values)}
    assert play(dut, loads, rng, gaps) == expected


def test_without_palettes_numbers_of_four_bits_are_signed(rng):
    dut = WeightDecoder(lanes=16, granule=8, vectors=2)
    numbers = [*range(-8, 8), *range(7, -9, -1)]
    found = play(dut, [(1, 0, 0, 0, indexed(words_of(numbers, 4, 8)))], rng, 0)
    assert [found[i] for i in range(32)] == [number % 256 for number in numbers]


@pytest.mark.parametrize("lanes, granule", [(8, 8), (16, 16)])
def test_vectors_of_one_granule_are_refused(lanes, granule):
    with pytest.raises(ValueError, match=f"^lanes must be at least 2 granules \\({2 * granule}\\), not {lanes}$"):
        WeightDecoder(lanes=lanes, granule=granule, vectors=4)
