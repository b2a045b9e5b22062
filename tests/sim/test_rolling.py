"""Programs that compute row by row, in rings and strips, with the host's rows, on RTL."""

import numpy as np
import pytest

from gossamer.golden import digits
from gossamer.golden.compiler import Frontend, Strategy
from gossamer.golden.inference import infer
from gossamer.golden.planner import fit
from gossamer.golden.rolling import Group
from gossamer.golden.spec import CONFIGS
from gossamer.sim.rtl import Simulator
from tests.networks import Builder

UP5K = CONFIGS["up5k"]


@pytest.fixture(scope="module")
def simulator():
    return Simulator(UP5K)


def assert_equal(simulator, compiled, x):
    """Outputs are the network's, and cycles the cycle model's."""
    result = simulator.run(compiled, x, seed=1)
    wanted = compiled.network.run(x)[compiled.device_output]
    assert (np.stack([compiled.output_values(data) for data in result.outputs]) == wanted).all()
    assert result.cycles == [infer(compiled, one).cycles for one in x]


@pytest.mark.parametrize("memory", [1100, 1500, 2100])
def test_digits_in_little_memory(simulator, memory):
    compiled = fit(Frontend(digits.load(), UP5K), memory)
    assert compiled.plan.peak <= memory
    assert_equal(simulator, compiled, digits.test_set()[0][:3])


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("strips", [1, 3])
def test_streamed_images(simulator, rng, rows, strips):
    b = Builder(rng, (17, 70, 3), zero_point=-128)
    x = b.conv(b.conv(b.input, 16), 16)
    b.add(b.conv(x, 3, relu=False), b.input)
    frontend = Frontend(b.network(), UP5K, folding=False)
    compiled = frontend.compile(Strategy((Group(len(frontend.layers), rows),), True, strips))
    assert_equal(simulator, compiled, rng.integers(-128, 128, (2, 17, 70, 3)).astype(np.int8))


def test_a_streamed_input_of_a_network_with_strides(simulator, rng):
    b = Builder(rng, (24, 24, 1), zero_point=-128)
    x = b.conv(b.input, 16, (5, 5), (2, 2))
    x = b.depthwise(x)
    x = b.conv(x, 24, (1, 1))
    x = b.depthwise(x, stride=(2, 2))
    x = b.average_pool(x, (6, 6), (6, 6))
    b.fully_connected(b.reshape(x, (24,)), 5)
    frontend = Frontend(b.network(), UP5K, folding=False)
    compiled = frontend.compile(Strategy((Group(len(frontend.layers), 1),), True))
    assert_equal(simulator, compiled, rng.integers(-128, 128, (2, 24, 24, 1)).astype(np.int8))
