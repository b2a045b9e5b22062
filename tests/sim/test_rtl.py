"""The emitted Verilog against the golden network, the interpreter and the cycle model."""

from functools import cache

import numpy as np
import pytest

from gossamer.golden import digits
from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.inference import infer
from gossamer.golden.spec import CONFIGS, Config
from gossamer.sim.rtl import RtlError, Simulator
from tests.networks import NETWORKS, borders, inputs

SMALL = (
    Config("lanes8", "ice40", lanes=8, store_ports=1, interval=2, acc_bits=26),
    Config("oneport32", lanes=32, store_bytes=16, store_words=2304, store_ports=1, interval=2, weight_vectors=1024),
)
"""Corners that no named configuration visits."""

ALL = {config.name: config for config in (*CONFIGS.values(), *SMALL)}

DIGITS = [name for name in ALL if name != "gw2a18"]
"""Configurations that the digits network fits."""


@cache
def simulator(name):
    return Simulator(ALL[name])


@cache
def compiled_digits(name, keep=False):
    return compile_network(digits.load(), ALL[name], keep=keep)


def compare(compiled, name, x, seed):
    """Run ``x``; outputs and cycles must be those of network, interpreter and model."""
    result = simulator(name).run(compiled, x, limit=1_000_000, seed=seed)
    outputs = np.stack([compiled.output_values(data) for data in result.outputs])
    golden = compiled.network.run(x)[compiled.device_output]
    np.testing.assert_array_equal(outputs, golden.reshape(outputs.shape))
    expected = [infer(compiled, one) for one in x]
    np.testing.assert_array_equal(outputs, [inference.output for inference in expected])
    assert result.cycles == [inference.cycles for inference in expected]


def random_networks(kind, config, rng, count):
    """``count`` networks of a kind that fit the configuration, and an input for each."""
    found = 0
    for _ in range(100):
        network = kind(rng)
        try:
            compiled = compile_network(network, config)
        except CompileError:
            continue
        yield compiled, inputs(rng, network, 1)
        found += 1
        if found == count:
            return
    if not found:
        pytest.skip(f"none of 100 networks fits {config.name}")


@pytest.mark.parametrize("kind", [*NETWORKS, borders], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ALL)
def test_random_networks_equal_golden_in_value_and_cycle(name, kind, rng):
    for compiled, x in random_networks(kind, ALL[name], rng, 3):
        compare(compiled, name, x, seed=int(rng.integers(1, 1 << 31)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*NETWORKS, borders], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ALL)
def test_many_random_networks_equal_golden_in_value_and_cycle(name, kind, rng):
    for compiled, x in random_networks(kind, ALL[name], rng, 60):
        compare(compiled, name, x, seed=int(rng.integers(1, 1 << 31)))


@pytest.mark.parametrize("name", DIGITS)
def test_digits_equal_golden_in_value_and_cycle(name):
    images, _ = digits.test_set()
    compare(compiled_digits(name), name, images[:20], seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIGITS)
def test_all_digits_equal_golden_in_value_and_cycle(name):
    images, _ = digits.test_set()
    compare(compiled_digits(name), name, images, seed=2)


def check_all_tensors(name, count):
    images, _ = digits.test_set()
    x = images[:count]
    compiled = compiled_digits(name, keep=True)
    config, places = ALL[name], compiled.places
    start = min(place.address for place in places.values())
    stop = max(place.address + place.size(config) for place in places.values())
    result = simulator(name).run(compiled, x, read=range(start, stop))
    golden = compiled.network.run(x)
    for tensor, place in places.items():
        at = place.address - start
        for data, values in zip(result.outputs, golden[tensor]):
            found = place.from_store(data[at : at + place.size(config)], config)
            np.testing.assert_array_equal(found.reshape(values.shape), values, err_msg=tensor)
    assert len(places) >= 8


@pytest.mark.parametrize("name", ["up5k", "ecp5_85"])
def test_every_tensor_of_ten_digits_equals_golden(name):
    check_all_tensors(name, 10)


def extreme(value, network):
    return np.full((1, *network.tensors[network.input].shape), value, np.int8)


@pytest.mark.parametrize("value", [-128, -127, 0, 127])
def test_constant_inputs_equal_golden(value):
    compiled = compiled_digits("up5k")
    compare(compiled, "up5k", extreme(value, compiled.network), seed=3)


def test_an_inference_that_does_not_end_is_given_up():
    compiled = compiled_digits("up5k")
    images, _ = digits.test_set()
    with pytest.raises(RtlError, match=r"100 cycles"):
        simulator("up5k").run(compiled, images[:1], limit=100)


def test_an_image_for_another_configuration_stops_with_the_reason():
    images, _ = digits.test_set()
    with pytest.raises(RtlError, match=r"^the core stopped with error 3: the image was compiled for other lanes"):
        simulator("up5k").run(compiled_digits("ecp5_85"), images[:1])
