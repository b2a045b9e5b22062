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
                noise = [NOISE] * store_bytes
                ctx.set(dut.word, int.from_bytes(bytes(noise if fresh is None else words[fresh]), "little"))
                running += started
                ctx.set(dut.run, running > 0 and left > 0)
                next_word, value, valid, data = (ctx.get(p) for p in (dut.next_word, dut.found, dut.valid, dut.data))
                assert not (value and ctx.get(dut.starved))
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


def test_is_starved_when_there_are_no_halfwords():
    dut = RowDecoder(lanes=8, store_bytes=8)
    bench, seen = Bench(dut), []

    async def drive(ctx):
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(8):
            ctx.set(dut.run, cycle >= 1)
            ctx.set(dut.asked, cycle == 4)
            seen.append(ctx.get(dut.starved) + 2 * ctx.get(dut.found))
            await ctx.tick()

    bench.process(drive)
    bench.run(cycles=12)
    assert seen == [0, 1, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("store_bytes, rule", [(1, "at least 2"), (6, "a power of two")])
def test_constructor_messages(store_bytes, rule):
    with pytest.raises(ValueError, match=f"^store_bytes must be {rule}, not {store_bytes}$"):
        RowDecoder(lanes=8, store_bytes=store_bytes)
