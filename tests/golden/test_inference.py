"""Inferences on the interpreter: what they give, and to what every cycle went."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.cycles import CycleModel
from gossamer.golden.inference import infer
from gossamer.golden.interpreter import Machine
from gossamer.golden.spec import CONFIGS, Config
from tests.networks import NETWORKS, Builder, inputs

CATEGORIES = ("compute", "requantize", "load", "weights")
STREAMING = Config("streaming", lanes=8, store_words=640, fetch_latency=9, fetch_interval=5, weight_vectors=256)
"""From whose external memory the weights of :func:`streamed` come."""


def streamed(rng):
    """A network whose 5,200 bytes of weights are more than the store of STREAMING holds."""
    b = Builder(rng, (1, 1, 64), zero_point=-128)
    b.fully_connected(b.fully_connected(b.input, 40), 66)
    return b.network("streamed")


def row(rng, columns, *, channels=1, outputs=16, stride=1, rows=1):
    """A convolution of one pixel over rows, without zeros, whose sums fit 16 bits."""
    b = Builder(rng, (rows, columns, channels), zero_point=-128)
    b.conv(b.input, outputs, (1, 1), (1, stride), relu=False)
    network = b.network("row")
    (layer,) = network.layers
    small = dataclasses.replace(layer, weights=np.ones_like(layer.weights), bias=np.zeros_like(layer.bias))
    return dataclasses.replace(network, layers=(small,))


def ones(network):
    """An input that has no zeros, stored."""
    return np.full(network.tensors[network.input].shape, -127, np.int8)


def took(network, x, config):
    """The cycles of each category, of all layers."""
    found = infer(compile_network(network, config), x)
    return {category: sum(getattr(layer, category) for layer in found.layers) for category in CATEGORIES}


@pytest.mark.parametrize("config", [CONFIGS["up5k"], CONFIGS["ecp5_85"], STREAMING], ids=lambda config: config.name)
@pytest.mark.parametrize("kind", [*NETWORKS, streamed], ids=lambda kind: kind.__name__)
def test_every_cycle_belongs_to_a_layer_and_a_category(kind, config, rng):
    network = kind(rng)
    try:
        compiled = compile_network(network, config)
    except CompileError:
        assert config is STREAMING
        return
    x = inputs(rng, network, 1)[0]
    for warm in (True, False):
        found = infer(compiled, x, warm=warm)
        assert found.cycles == sum(layer.cycles for layer in found.layers)
        assert all(getattr(layer, category) >= 0 for layer in found.layers for category in CATEGORIES)
        assert [layer.layer for layer in found.layers] == [run.layer for run in compiled.runs]
        assert (found.output == network.run(x[np.newaxis])[compiled.device_output][0]).all()


def test_streamed_network_does_not_fit_the_store(rng):
    assert len(compile_network(streamed(rng), STREAMING).program.external) > 1000


@pytest.mark.parametrize("config", [CONFIGS["ecp5_85"], STREAMING], ids=lambda config: config.name)
def test_a_cold_start_is_that_of_the_first_inference(config, rng):
    """Its cycles are those of all steps, and what it takes longer goes to the first layer's weights."""
    network = streamed(rng)
    compiled = compile_network(network, config)
    x = inputs(rng, network, 1)[0]
    cold, warm = infer(compiled, x, warm=False), infer(compiled, x)
    machine = Machine(config)
    program = compiled.program
    machine.store[: program.size] = np.frombuffer(program.assemble(), np.uint8)
    given = compiled.input_bytes(x)
    machine.store[program.input.address : program.input.address + len(given)] = given
    assert cold.cycles == CycleModel(config).run(machine.execute(program))
    assert (cold.output == warm.output).all()
    if program.warm:
        assert cold.cycles > warm.cycles
        assert cold.layers[0].weights - warm.layers[0].weights == cold.cycles - warm.cycles
        assert cold.layers[1:] == warm.layers[1:]


def test_a_slower_external_memory_only_costs_weights(rng):
    network = streamed(rng)
    x = inputs(rng, network, 1)[0]
    fast, slow = (took(network, x, dataclasses.replace(STREAMING, fetch_interval=interval)) for interval in (1, 50))
    assert slow["weights"] > 10 * fast["weights"]
    for category in ("compute", "requantize", "load"):
        assert slow[category] == fast[category]


@pytest.mark.parametrize("name", ["up5k", "ecp5_25"])
@pytest.mark.parametrize("columns", [2, 7, 30])
def test_windows_smaller_than_the_drain_wait_for_it(columns, name, rng):
    """A window of one element is issued in one cycle, and its 16 sums drain in 16: the array waits 15 for every further."""
    config = CONFIGS[name]
    one, many = (took(network, ones(network), config) for network in (row(rng, 1), row(rng, columns)))
    assert one["compute"] == 1
    assert many["compute"] == columns
    assert many["requantize"] - one["requantize"] == 15 * (columns - 1)


@pytest.mark.parametrize("channels", [40, 100])
def test_windows_larger_than_the_drain_do_not_wait(channels, rng):
    """Only the last window's sums are on their way when its last element has been issued."""
    config = CONFIGS["ecp5_25"]
    one, many = (took(network, ones(network), config) for network in (row(rng, n, channels=channels) for n in (1, 8)))
    assert many["compute"] == 8 * channels == 8 * one["compute"]
    assert many["requantize"] == one["requantize"]


@pytest.mark.parametrize("name", ["up5k", "ecp5_25"])
@pytest.mark.parametrize("outputs", [1, 8, 16])
def test_the_last_sums_are_on_their_way_as_long_as_the_latencies_say(name, outputs, rng):
    """From the issue of the last element, by docs/architecture.md: 5 cycles to the drain registers, 2 to the requantizer, one
    per further sum, 9 to the packing register, and 1 to the store."""
    config = CONFIGS[name]
    network = row(rng, 1, channels=50, outputs=outputs)
    assert took(network, ones(network), config)["requantize"] == 5 + 2 + (outputs - 1) + 9 + 1 - 1


def test_zeros_cost_no_compute(rng):
    """Of the eleven elements of a window five are zero; all are in one word."""
    network = row(rng, 9, channels=11, outputs=4)
    x = ones(network)
    dense = took(network, x, CONFIGS["up5k"])
    x[..., 2:7] = -128
    assert dense["compute"] == 9 * 11
    assert took(network, x, CONFIGS["up5k"])["compute"] == 9 * 6


def test_rows_that_are_read_for_two_pixels_cost_load(rng):
    """The row behind loads meanwhile, but its words are many more than the cycles that the first and last pixel take."""
    config = CONFIGS["ecp5_25"]
    short, long = (
        took(network, ones(network), config)
        for network in (row(rng, columns, outputs=1, stride=columns - 1, rows=3) for columns in (257, 1025))
    )
    words = (1025 - 257) // config.store_bytes
    assert long["load"] - short["load"] == 3 * words
    assert long["compute"] == short["compute"] == 3 * 2
    assert long["requantize"] == short["requantize"]
