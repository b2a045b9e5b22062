"""Maps of four bits and of one, weights of four, one and from palettes: Verilog against golden network and models."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden.network import Conv, FullyConnected
from gossamer.golden.spec import CONFIGS, Config, Opcode
from gossamer.sim.rtl import Simulator
from tests.networks import deep, four_bits, narrow, narrow_weights, one_bit
from tests.sim.test_rtl import compare, random_networks

PACKED = {
    config.name: config
    for config in (
        dataclasses.replace(
            CONFIGS["up5k"], name="packed16", masks=256, binary=True, nibbles=True, decoder="nibbles"
        ),
        Config(
            "packed8", lanes=8, row_words=512, masks=256, binary=True, nibbles=True, int4=True, fetch_latency=3,
            fetch_interval=2,
        ),
        *(
            Config(
                f"packed{lanes}", lanes=lanes, store_bytes=16, store_ports=1, store_words=32768, masks=256, binary=True,
                nibbles=True, int4=True, decoder="palettes",
            )
            for lanes in (32, 64)
        ),
    )
}  # fmt: skip


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] if name == "packed64" else []) for name in PACKED]
)
def core(request):
    return Simulator(PACKED[request.param])


@pytest.mark.parametrize("kind", [four_bits, one_bit], ids=lambda kind: kind.__name__)
def test_networks_with_packed_maps_equal_golden_in_value_and_cycle(core, kind, rng):
    for compiled, x in random_networks(kind, core.config, rng, 6):
        compare(compiled, core, x, seed=int(rng.integers(1, 1 << 31)))


def deep_and_narrow(rng):
    return narrow(deep(rng), rng)


@pytest.mark.parametrize("kind", [narrow_weights, deep_and_narrow], ids=lambda kind: kind.__name__)
def test_weights_of_four_bits_equal_golden_in_value_and_cycle(core, kind, rng):
    used = 0
    for compiled, x in random_networks(kind, core.config, rng, 6):
        compare(compiled, core, x, seed=int(rng.integers(1, 1 << 31)))
        used += any(layer["int4"] for layer in compiled.program.layers)
    assert used > 0 or not core.config.int4 or kind is deep_and_narrow


def few_values(network, rng):
    """The network with weights of few different values in most layers, in all of it or in each output channel."""

    def chosen(layer):
        if not isinstance(layer, (Conv, FullyConnected)) or rng.random() < 0.2:
            return layer
        count, weights = int(rng.integers(1, 33)), np.empty_like(layer.weights)
        for channel in range(len(weights)):
            if channel == 0 or count % 2:
                values = rng.choice(256, count, replace=False) - 128
            weights[channel] = rng.choice(values, weights[channel].shape)
        return dataclasses.replace(layer, weights=weights)

    return dataclasses.replace(network, layers=tuple(chosen(layer) for layer in network.layers))


@pytest.mark.parametrize("kind", [narrow_weights, deep, one_bit], ids=lambda kind: kind.__name__)
def test_weights_from_palettes_equal_golden_in_value_and_cycle(core, kind, rng):
    used = set()
    for compiled, x in random_networks(lambda rng: few_values(kind(rng), rng), core.config, rng, 8):
        compare(compiled, core, x, seed=int(rng.integers(1, 1 << 31)))
        used |= {(step["format"], step["shared"]) for step in compiled.program.steps if step["opcode"] == Opcode.LOAD_WEIGHTS}
    assert len(used) > 1 or core.config.decoder != "palettes"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [four_bits, one_bit], ids=lambda kind: kind.__name__)
def test_many_networks_with_packed_maps_equal_golden_in_value_and_cycle(core, kind, rng):
    for compiled, x in random_networks(kind, core.config, rng, 100):
        compare(compiled, core, x, seed=int(rng.integers(1, 1 << 31)))
