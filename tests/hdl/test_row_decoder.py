"""The row decoder, between a list of words and one who counts the values."""

import pytest

from gossamer.golden import codec
from gossamer.hdl.row_decoder import RowDecoder
from gossamer.sim.streams import Bench, never, randomly
from tests.hdl.rows import random_unit

NOISE = 0x96


def run(dut, units, stalls, *, store_bytes, values, signed=0, wait=0):
    """Have ``units``, ``(words, number of values)``, decoded one behind the other, each ``wait`` cycles after its start.
    ``stalls`` say when the store is not ready. Returns the bytes of each."""
    bench, found = Bench(dut), []

    async def drive(ctx):
        ctx.set(dut.signed, signed)
        for words, count in units:
            got, address, left, running, fresh, started = b"", 0, count, -wait, None, False
            while left or running:
                ctx.set(dut.start, not started)
                ready = started and not next(stalls)
                ctx.set(dut.asked, ready)
                ctx.set(dut.outside, address >= len(words))
                noise = [NOISE] * store_bytes
                ctx.set(dut.word, int.from_bytes(bytes(noise if fresh is None else words[fresh]), "little"))
                running += started
                ctx.set(dut.run, running > 0 and left > 0)
                next_word, value, valid, data = (ctx.get(p) for p in (dut.next_word, dut.found, dut.valid, dut.data))
                assert not ctx.get(dut.lost)
                got += data.to_bytes(values, "little") if valid else b""
                fresh = address if ready and address < len(words) else None
                address += next_word
                if left == 0:
                    running = 0
                left -= value
                started = True
                bench.stay()
                await ctx.tick()
            found.append(got)

    bench.process(drive)
    bench.run(quiet=3)
    return found


def words(unit, store_bytes, **options):
    data = codec.encode(unit, bounded=False, **options)
    data += bytes([NOISE]) * (-len(data) % store_bytes)
    return [list(data[at : at + store_bytes]) for at in range(0, len(data), store_bytes)]


@pytest.mark.parametrize("lanes, store_bytes, values", [(1, 2, 1), (8, 8, 8), (16, 8, 1), (16, 16, 16), (64, 8, 1)])
@pytest.mark.parametrize("stalls", ["never", "often"])
@pytest.mark.parametrize("wait", [0, 3])
def test_matches_golden(rng, lanes, store_bytes, values, stalls, wait):
    signed = int(rng.integers(2))
    units = [random_unit(rng, int(rng.integers(1, 5)) * 16) for _ in range(4)]
    dut = RowDecoder(lanes=lanes, store_bytes=store_bytes, values=values, bounded=False)
    coded = [(words(unit, store_bytes, lanes=lanes, signed=bool(signed)), len(unit)) for unit in units]
    pauses = never() if stalls == "never" else randomly(rng, 0.6)
    found = run(dut, coded, pauses, store_bytes=store_bytes, values=values, signed=signed, wait=wait)
    assert found == [bytes(unit) for unit in units]


@pytest.mark.parametrize("count", range(14, 20))
def test_is_lost_when_a_value_has_bits_from_outside(count):
    """The first word has four halfwords of zeros, values of a bit each before which a code of 48."""
    unit = [255, 255, 255, 255] + [0] * (count - 4)
    dut = RowDecoder(lanes=16, store_bytes=8, bounded=False)
    data = codec.encode(unit, bounded=False).ljust(16, b"\0")
    bench, found, lost = Bench(dut), [], []

    async def drive(ctx):
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        address = asked = 0
        for cycle in range(40):
            ctx.set(dut.asked, 1)
            ctx.set(dut.outside, address > 0)
            ctx.set(dut.word, int.from_bytes(data[8 * asked : 8 * asked + 8], "little"))
            ctx.set(dut.run, len(found) < count)
            asked = address
            if ctx.get(dut.next_word):
                address = 1
            found.extend([cycle] * ctx.get(dut.found))
            lost.extend([cycle] * ctx.get(dut.lost))
            await ctx.tick()

    bench.process(drive)
    bench.run(cycles=45)
    ends = [codec.decode_bits(data, n + 1, bounded=False)[1] for n in range(count)]
    first = [n for n in range(count) if ends[n] > 64]
    assert lost[:1] == [found[n] + 1 for n in first[:1]]


@pytest.mark.parametrize("store_bytes, rule", [(1, "at least 2"), (6, "a power of two")])
def test_constructor_messages(store_bytes, rule):
    with pytest.raises(ValueError, match=f"^store_bytes must be {rule}, not {store_bytes}$"):
        RowDecoder(lanes=8, store_bytes=store_bytes)
