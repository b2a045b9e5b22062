"""Units and streams of compressed rows."""

import itertools

import numpy as np

from gossamer.golden import codec

__all__ = ["code_ends", "halfwords", "hold_signed", "random_unit", "transfers"]


def random_unit(rng, length):
    """Values of a random range, with zeros; sometimes incompressible."""
    scale = rng.choice([0.5, 3, 10, 40, 300])
    values = np.abs(rng.normal(0, scale, length)) * (rng.random(length) < rng.choice([0.2, 0.6, 1]))
    return np.where(values > 255, 255 - values.astype(int) % 64, values).astype(np.uint8)


def code_ends(unit, lanes, signed):
    """The bit behind the code of each value, of a unit that is not bounded."""
    values = codec.fold(unit) if signed else np.asarray(unit)
    before = [0] * lanes + codec.context(codec.size(values)).tolist()
    return list(itertools.accumulate(codec.code(*pair)[1] for pair in zip(before, values.tolist())))


def halfwords(data):
    return np.frombuffer(data, "<u2").tolist()


def transfers(unit, values=1):
    """The payloads of a unit, with so many values in each."""
    return [{"data": int.from_bytes(bytes(unit[at : at + values]), "little")} for at in range(0, len(unit), values)]


def hold_signed(bench, dut, signed, rate=0):
    """Set a component's ports for the whole run."""

    async def hold(ctx):
        ctx.set(dut.signed, signed)
        if rate:
            ctx.set(dut.rate, rate)
        while True:
            await ctx.tick()

    bench.process(hold)
