"""Decodes rows of several units; in each cycle, in tests/hdl/test_loader.py."""

import re

import numpy as np
import pytest

from gossamer.golden import codec
from gossamer.hdl.interleaved_decoder import InterleavedDecoder
from gossamer.sim.streams import Bench
from tests.hdl.rows import random_unit


def slot_of(row, lanes, streams, store_bytes, **options):
    """The store words of a row, by chunks in turn."""
    size = max(8, streams)
    codes = [codec.encode_units([row[unit::streams]], lanes=lanes // streams, **options)[0] for unit in range(streams)]
    chunks = max(-(-len(code) // size) for code in codes)
    data = b"".join(code.ljust(size * chunks, b"\xff")[size * c : size * c + size] for c in range(chunks) for code in codes)
    return [int.from_bytes(data[at : at + store_bytes], "little") for at in range(0, len(data), store_bytes)]


def decode(dut, words, count, *, streams, store_bytes, signed=0, rate=0, ready=lambda cycle: True, cycles=400):
    """The bytes that are found, the cycles in which they are, and those in which a value has bits from outside."""
    bench, data, found, lost = Bench(dut), bytearray(), [], []

    async def drive(ctx):
        ctx.set(dut.signed, signed)
        if rate:
            ctx.set(dut.rate, rate)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        word, joined = 0xA5, 0
        for cycle in range(1, cycles):
            ctx.set(dut.word, word)
            ctx.set(dut.ready, ready(cycle))
            ctx.set(dut.final, joined == count - 1)
            ctx.set(dut.run, joined < count)
            offset = ctx.get(dut.offset)
            ctx.set(dut.outside, offset >= len(words))
            asked = ctx.get(dut.want) and ready(cycle) and offset < len(words)
            word = words[offset] if asked else 0xA5
            if ctx.get(dut.found):
                found.append(cycle)
                joined += 1
            if ctx.get(dut.lost):
                lost.append(cycle)
            await ctx.tick()
            if found and found[-1] == cycle:
                data.extend(ctx.get(dut.data).to_bytes(store_bytes, "little")[-streams:])
        return

    bench.process(drive)
    bench.run(cycles=cycles)
    return data, found, lost


SIZES = [(8, 2, 8), (16, 4, 16), (16, 8, 8), (64, 8, 16), (16, 16, 16)]


@pytest.mark.parametrize("lanes, streams, store_bytes", SIZES)
@pytest.mark.parametrize("kind", ["lossless", "bounded", "signed"])
def test_matches_golden(rng, lanes, streams, store_bytes, kind):
    count = int(rng.integers(3, 20))
    row = random_unit(rng, streams * count)
    options = {"signed": kind == "signed", "bounded": kind == "bounded"}
    words = slot_of(row, lanes, streams, store_bytes, **options)
    store_words = int(rng.choice([len(words), 512]))
    dut = InterleavedDecoder(
        lanes=lanes, streams=streams, store_bytes=store_bytes, store_words=store_words, bounded=kind == "bounded"
    )
    pace = rng.random(400) < rng.choice([0.4, 1])
    ports = {"signed": int(kind == "signed"), "ready": lambda cycle: bool(pace[cycle])}
    data, _, lost = decode(dut, words, count, streams=streams, store_bytes=store_bytes, **ports)
    assert bytes(data) == bytes(row.tolist())
    assert lost == []


def test_units_may_have_budgets(rng):
    row = random_unit(rng, 4 * 30)
    words = slot_of(row, 16, 4, 8, per_value=60)
    dut = InterleavedDecoder(lanes=16, streams=4, store_bytes=8, store_words=512, bounded=False, budgets=True)
    data, _, _ = decode(dut, words, 30, streams=4, store_bytes=8, rate=60)
    codes = [codec.encode_units([row[unit::4]], lanes=4, per_value=60)[0] for unit in range(4)]
    values = np.stack([codec.decode_prefix(code, 30, lanes=4, per_value=60)[0] for code in codes], axis=1)
    assert bytes(data) == values.tobytes()


@pytest.mark.parametrize("lanes, streams, store_bytes", SIZES)
def test_values_of_all_units_in_each_cycle_from_the_fourth_behind_the_last_units_turn_on(lanes, streams, store_bytes):
    row = np.zeros(streams * 20, np.uint8)
    words = slot_of(row, lanes, streams, store_bytes, bounded=False)
    dut = InterleavedDecoder(lanes=lanes, streams=streams, store_bytes=store_bytes, store_words=512, bounded=False)
    _, found, _ = decode(dut, words, 20, streams=streams, store_bytes=store_bytes)
    assert found == [*range(streams + 4, streams + 24)]


@pytest.mark.parametrize("unit", range(4))
def test_a_unit_whose_bits_are_outside_is_lost(unit):
    """The store ends with the chunk in front of one of the unit; codes have 13 bits, then 11."""
    row = np.full(4 * 30, 255)
    words = slot_of(row, 8, 4, 8, bounded=False)[: 8 + unit]
    dut = InterleavedDecoder(lanes=8, streams=4, store_bytes=8, store_words=512, bounded=False)
    _, found, lost = decode(dut, words, 30, streams=4, store_bytes=8, cycles=120)
    assert len(found) == 30
    assert lost[0] == found[sum(13 * min(n, 2) + 11 * max(n - 2, 0) <= 128 for n in range(1, 31))]


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"store_bytes": 4}, "store_bytes must be 8 or 16, not 4"),
        ({"streams": 3}, "streams must be a power of two, not 3"),
        ({"streams": 1}, "streams must be 2 to 8, not 1"),
        ({"streams": 16}, "streams must be 2 to 8, not 16"),
        ({"lanes": 12}, "lanes must be a multiple of streams (8), not 12"),
    ],
)
def test_constructor_messages(sizes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        InterleavedDecoder(**{"lanes": 16, "streams": 8, "store_bytes": 8, "store_words": 64, **sizes})
