"""Block-sparse weights: the emitted Verilog against the golden network, the interpreter and the cycle model."""

import pytest

from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.spec import Config
from gossamer.sim.rtl import Simulator
from tests.networks import inputs, pruned, pyramid
from tests.sim.test_packed import PACKED
from tests.sim.test_rtl import compare

TWO_WORDS = Config("sparse64", lanes=64, store_bytes=8, weight_vectors=1024, masks=1024, store_words=32768)
"""Its masks take two store words each."""

SPARSE = {**{name: PACKED[name] for name in ("packed8", "packed16")}, TWO_WORDS.name: TWO_WORDS}


@pytest.fixture(scope="module", params=SPARSE)
def core(request):
    return Simulator(SPARSE[request.param])


@pytest.mark.parametrize("density", [0, 0.1, 0.5, 0.85])
def test_block_sparse_networks_equal_golden_in_value_and_cycle(core, density, rng):
    config, found = core.config, 0
    for _ in range(20):
        network = pruned(pyramid(rng, config.lanes), rng, config.lanes, density)
        try:
            compiled = compile_network(network, config)
        except CompileError:
            continue
        assert any(layer["sparse"] for layer in compiled.program.layers)
        compare(compiled, core, inputs(rng, network, 1), seed=int(rng.integers(1, 1 << 31)))
        found += 1
        if found == 3:
            return
    pytest.fail("no network fits")
