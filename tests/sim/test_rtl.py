"""The emitted Verilog against the golden network, the interpreter and the cycle model."""

import dataclasses
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gossamer.golden import digits
from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.cycles import CycleModel
from gossamer.golden.host import Host
from gossamer.golden.inference import infer
from gossamer.golden.interpreter import Machine, Run
from gossamer.golden.spec import CONFIGS, Config, Opcode
from gossamer.golden.tflite_import import load_tflite
from gossamer.sim.rtl import RtlError, Simulator, library_digest
from gossamer.sim.tools import verilator_environment
from tests.golden import tflite
from tests.golden.tflite_models import random_input, random_model
from tests.networks import NETWORKS, Builder, borders, inputs, larger_than_a_store
from tests.programs import Streaming

SMALL = (
    Config("lanes8", "ice40", lanes=8, store_ports=1, interval=2, acc_bits=26),
    Config(
        "oneport32", lanes=32, store_bytes=16, store_words=2304, store_ports=1, interval=2, weight_vectors=1024,
        fetch_latency=5, fetch_interval=3,
    ),
    Config(
        "stream16", store_words=2048, weight_vectors=4096, parameters=1024, acc_bits=26, fetch_latency=3, fetch_interval=1
    ),
)  # fmt: skip
"""Corners that no named configuration visits."""

NAMED = [config for config in CONFIGS.values() if not config.name.endswith("_codec")]
"""Those whose only difference from another is the codec have tests of their own, in test_coded.py."""

ALL = {config.name: config for config in (*NAMED, *SMALL)}

STREAMING = [name for name, config in ALL.items() if config.fetch_interval]
"""Configurations with a port to an external memory."""

LARGE = Config("large", store_bytes=16, store_words=18432, weight_vectors=1024, acc_bits=28)
"""Every tensor of a real network fits beside the others."""


@cache
def simulator(name):
    return Simulator({**ALL, LARGE.name: LARGE}[name])


@cache
def compiled_digits(name, keep=False):
    return compile_network(digits.load(), ALL[name], keep=keep)


def compare(compiled, name, x, seed, limit=1_000_000):
    """Run ``x``; outputs and cycles, also of a cold start, must be those of network, interpreter and model."""
    core = simulator(name) if isinstance(name, str) else name
    result = core.run(compiled, x, limit=limit, seed=seed)
    outputs = np.stack([compiled.output_values(data) for data in result.outputs])
    golden = compiled.network.run(x)[compiled.device_output]
    np.testing.assert_array_equal(outputs, golden.reshape(outputs.shape))
    expected = [infer(compiled, one) for one in x]
    np.testing.assert_array_equal(outputs, [inference.output for inference in expected])
    assert result.cycles == [inference.cycles for inference in expected]
    assert result.cold == infer(compiled, x[0], warm=False).cycles
    assert (result.cold > result.cycles[0]) == (compiled.program.warm > 0)


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


@pytest.mark.parametrize("kernel", [(2, 5), (3, 5), (4, 5), (5, 3)])
@pytest.mark.parametrize("name", ALL)
def test_rows_of_one_window_whose_first_words_are_dropped(name, kernel, rng):
    """The window begins behind the middle of a row buffer word, so that each of its rows has two; most of them are zero."""
    b = Builder(rng, (7, 1, 1), zero_point=-128)
    b.conv(b.input, 3, kernel)
    network = b.network()
    x = np.full((4, 7, 1, 1), -128, np.int8)
    x[1, 3], x[2, 0], x[3, 6] = 5, 6, 7
    compare(compile_network(network, ALL[name]), name, x, seed=4)


@pytest.mark.parametrize("channels", [5, 20])
@pytest.mark.parametrize("name", ALL)
def test_cycles_do_not_depend_on_what_was_in_the_store(name, channels, rng):
    """Not even if sums are read on words, which leaves gaps between pixels, and byte by byte, which takes time for the gaps."""
    b = Builder(rng, (3, 4, 5))
    x = b.conv(b.input, channels, (1, 1), relu=False)
    y = b.add(x, b.rescale(x))
    b.add(b.depthwise(y), b.conv(y, channels, (2, 2)))
    network = b.network()
    compiled = compile_network(network, ALL[name])
    for seed in (1, 2, 3):
        compare(compiled, name, inputs(rng, network, 1), seed=seed)


# Weights from the external memory


def heavy(rng):
    """Every kind of layer, and 40 kB of weights and parameters."""
    b = Builder(rng, (6, 7, 12), zero_point=-31)
    x = b.conv(b.input, 40, (3, 3), relu=False)
    y = b.conv(x, 40, (3, 3))
    x = b.depthwise(b.add(x, y, relu=True), (3, 3))
    x = b.max_pool(b.conv(x, 64, (1, 1)), (2, 2), (2, 2))
    x = b.concat(x, b.rescale(b.conv(x, 24, (3, 3)), like=x))
    b.fully_connected(b.average_pool(x, (3, 3), (1, 1)), 70)
    return b.network("heavy")


def fetches(compiled, stop=None):
    return sum(step["opcode"] == Opcode.FETCH for step in compiled.program.steps[:stop])


@pytest.mark.parametrize("kind", [larger_than_a_store, heavy], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", STREAMING)
def test_networks_larger_than_the_store_equal_golden_in_value_and_cycle(name, kind, rng):
    network = kind(rng)
    compiled = compile_network(network, ALL[name])
    assert (fetches(compiled) > 2) == (name not in ("up5k", "up5k_compressed", "ecp5_85") or kind is larger_than_a_store)
    if name == "stream16":  # much stays in the buffers, and is fetched before a cold start
        assert fetches(compiled, compiled.program.warm) > 2
    compare(compiled, name, inputs(rng, network, 2), seed=int(rng.integers(1, 1 << 31)), limit=2_000_000)


@pytest.mark.slow
@pytest.mark.parametrize("ports, interval", [(1, 2), (2, 1)])
@pytest.mark.parametrize("lanes, store_bytes, words", [(8, 8, 4096), (16, 16, 1600), (32, 8, 3072), (64, 16, 2304)])
@pytest.mark.parametrize("latency, pace", [(2, 1), (5, 2), (40, 17)])
def test_many_cores_that_fetch_equal_golden_in_value_and_cycle(lanes, store_bytes, words, ports, interval, latency, pace, rng):
    config = Config(
        "fetching", lanes=lanes, store_bytes=store_bytes, store_words=words, store_ports=ports, interval=interval,
        weight_vectors=256, acc_bits=28, fetch_latency=latency, fetch_interval=pace,
    )  # fmt: skip
    core = Simulator(config)
    for kind in (larger_than_a_store, heavy, heavy):
        network = kind(rng)
        compiled = compile_network(network, config)
        assert fetches(compiled) > 2
        compare(compiled, core, inputs(rng, network, 2), seed=int(rng.integers(1, 1 << 31)), limit=5_000_000)


# Host steps


def streamed(streaming, xs, warm=True):
    """The outputs of the interpreter and the cycles of the model; the buffers keep what they hold from one to the next."""
    program, config = streaming.program, streaming.program.config
    machine = Machine(config)
    machine.store[: program.size] = np.frombuffer(program.assemble(), np.uint8)
    for _ in zip(range(program.warm), machine.execute(program)):
        pass
    outputs, cycles = [], []
    for x in xs:
        host, model = Host(program, streaming.input_bytes(x)), CycleModel(config)
        for step in machine.execute(program, warm=warm):
            if not isinstance(step, Run) and step["opcode"] == Opcode.HOST:
                host.serve(step, machine.store)
            model.step(step)
        outputs.append(host.output())
        cycles.append(model.finish())
    return np.stack(outputs), cycles


@pytest.mark.parametrize("name", ALL)
def test_a_streaming_program_equals_golden_in_value_and_cycle(name, rng):
    """Host steps, loops and rows that wrap, in a program by hand."""
    streaming = Streaming.random(ALL[name], rng)
    x = rng.integers(-128, 128, (2, 14, 7, 3)).astype(np.int8)
    x[rng.random(x.shape) < 0.4] = -128
    result = simulator(name).run(streaming, x, seed=int(rng.integers(1, 1 << 31)))
    outputs, cycles = streamed(streaming, x)
    np.testing.assert_array_equal(result.outputs, outputs)
    assert result.cycles == cycles
    assert [result.cold] == streamed(streaming, x[:1], warm=False)[1]


def test_host_steps_for_other_rows_than_there_are_end_the_simulation(rng):
    streaming = Streaming.random(ALL["up5k"], rng)
    first, second, give, *others = streaming.program.steps
    program = dataclasses.replace(streaming.program, steps=(first, second, {**give, "rows": 15}, *others))
    x = np.zeros((1, 14, 7, 3), np.int8)
    with pytest.raises(RtlError, match=r"a host step must be for rows and columns that the tensor has$"):
        simulator("up5k").run(dataclasses.replace(streaming, program=program), x)


# Networks from TFLite files


def random_models(config, rng, count):
    """``count`` random TFLite models that fit the configuration, and two inputs for each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        for _ in range(count):
            while True:
                data = random_model(rng, acc_bits=config.acc_bits)
                path.write_bytes(data)
                try:
                    compiled = compile_network(load_tflite(path), config)
                except CompileError:
                    continue
                break
            x = random_input(rng, data, 2)
            yield compiled, x.reshape(2, *compiled.network.tensors[compiled.network.input].shape)


MODELS = ["up5k", "ecp5_85", "oneport32", "stream16"]


@pytest.mark.parametrize("name", MODELS)
def test_random_tflite_models_equal_golden_in_value_and_cycle(name, rng):
    for compiled, x in random_models(ALL[name], rng, 25):
        compare(compiled, name, x, seed=int(rng.integers(1, 1 << 31)))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_many_random_tflite_models_equal_golden_in_value_and_cycle(name, rng):
    for compiled, x in random_models(ALL[name], rng, 300):
        compare(compiled, name, x, seed=int(rng.integers(1, 1 << 31)))


@cache
def compiled_model(model, name, keep=False):
    network = load_tflite(tflite.data_folder() / f"{model}_int8.tflite")
    return compile_network(network, {**ALL, LARGE.name: LARGE}[name], keep=keep)


def outputs_of(model, name, count):
    """The network's outputs for the first samples, and the reference kernels'; with the cycles and those of golden."""
    samples = tflite.samples(model)
    compiled = compiled_model(model, name)
    result = simulator(name).run(compiled, samples["x"][:count])
    found = compiled.finish(np.stack([compiled.output_values(data) for data in result.outputs]))
    np.testing.assert_array_equal(found, samples["output"][:count].reshape(found.shape))
    return compiled, samples["x"], result


@pytest.mark.parametrize("model", tflite.MODELS)
def test_benchmark_models_equal_the_reference_kernels(model):
    compiled, x, result = outputs_of(model, "up5k", 2)
    assert (fetches(compiled) > 0) == (model in ("ic_resnet8", "ad01"))
    assert result.cycles[0] == infer(compiled, x[0]).cycles
    assert result.cold == infer(compiled, x[0], warm=False).cycles


@pytest.mark.slow
@pytest.mark.parametrize("name", ["up5k", "ecp5_85"])
@pytest.mark.parametrize("model", tflite.MODELS)
def test_all_samples_of_benchmark_models_equal_the_reference_kernels(model, name):
    compiled, x, result = outputs_of(model, name, None)
    assert len(x) >= 24
    assert result.cycles == [infer(compiled, one).cycles for one in x]


@pytest.mark.parametrize("model", tflite.MODELS)
def test_every_tensor_of_benchmark_models_equals_golden(model):
    check_every_tensor(compiled_model(model, "large", keep=True), "large", tflite.samples(model)["x"][:2])


# Digits


@pytest.mark.parametrize("name", ALL)
def test_digits_equal_golden_in_value_and_cycle(name):
    images, _ = digits.test_set()
    compare(compiled_digits(name), name, images[:20], seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_all_digits_equal_golden_in_value_and_cycle(name):
    images, _ = digits.test_set()
    compare(compiled_digits(name), name, images, seed=2)


def check_every_tensor(compiled, name, x):
    config, places = compiled.program.config, compiled.places
    start = min(place.address for place in places.values())
    stop = max(place.address + place.size(config) for place in places.values())
    stop += -stop % 4
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
    check_every_tensor(compiled_digits(name, keep=True), name, digits.test_set()[0][:10])


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
    with pytest.raises(RtlError, match=r"^the core stopped with error 3: the image was compiled for another configuration"):
        simulator("up5k").run(compiled_digits("ecp5_85"), images[:1])


def test_simulations_share_a_library_only_if_all_that_it_is_compiled_with_is_the_same():
    environment = verilator_environment()
    first = library_digest(["--vpi"], environment)
    assert library_digest(["--vpi"], {**environment, "OTHER": "x"}) == first
    assert library_digest([], environment) != first
    assert library_digest(["--vpi"], {**environment, "MAKEFLAGS": "OPT_GLOBAL=-O0"}) != first
