"""Units and streams of compressed rows."""

import numpy as np

__all__ = ["blocks", "halfwords", "hold_signed", "random_unit"]


def random_unit(rng, length):
    """Values of a random range, with zeros; sometimes incompressible."""
    scale = rng.choice([0.5, 3, 10, 40, 300])
    values = np.abs(rng.normal(0, scale, length)) * (rng.random(length) < rng.choice([0.2, 0.6, 1]))
    return np.where(values > 255, 255 - values.astype(int) % 64, values).astype(np.uint8)


def halfwords(data):
    return np.frombuffer(data, "<u2").tolist()


def blocks(unit, values=8):
    """The payloads of a unit's blocks, or parts of them."""
    data = [int.from_bytes(bytes(unit[at : at + values]), "little") for at in range(0, len(unit), values)]
    return [{"data": block, "last": int(n == len(data) - 1)} for n, block in enumerate(data)]


def hold_signed(bench, dut, signed):
    """Set a component's port for the whole run."""

    async def hold(ctx):
        ctx.set(dut.signed, signed)
        while True:
            await ctx.tick()

    bench.process(hold)
