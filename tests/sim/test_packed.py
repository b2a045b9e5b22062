"""Feature maps of four bits and of one, and binary weights: the emitted Verilog against network, interpreter and cycle model."""

import dataclasses

import pytest

from gossamer.golden.spec import CONFIGS, Config
from gossamer.sim.rtl import Simulator
from tests.networks import four_bits, one_bit
from tests.sim.test_rtl import compare, random_networks

PACKED = {
    config.name: config
    for config in (
        dataclasses.replace(CONFIGS["up5k"], name="packed16", binary=True, nibbles=True),
        Config(
            "packed8", lanes=8, store_bytes=8, row_words=512, binary=True, nibbles=True, fetch_latency=3, fetch_interval=2
        ),
        Config("packed64", lanes=64, store_bytes=16, store_ports=1, store_words=32768, binary=True, nibbles=True, masks=256),
    )
}


@pytest.fixture(scope="module", params=PACKED)
def core(request):
    return Simulator(PACKED[request.param])


@pytest.mark.parametrize("kind", [four_bits, one_bit], ids=lambda kind: kind.__name__)
def test_networks_with_packed_maps_equal_golden_in_value_and_cycle(core, kind, rng):
    for compiled, x in random_networks(kind, core.config, rng, 6):
        compare(compiled, core, x, seed=int(rng.integers(1, 1 << 31)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [four_bits, one_bit], ids=lambda kind: kind.__name__)
def test_many_networks_with_packed_maps_equal_golden_in_value_and_cycle(core, kind, rng):
    for compiled, x in random_networks(kind, core.config, rng, 100):
        compare(compiled, core, x, seed=int(rng.integers(1, 1 << 31)))
