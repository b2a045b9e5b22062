"""Numbers and pictures about a compiled network."""

import dataclasses
import json

import numpy as np
import pytest

from gossamer.cli.report import CATEGORIES, compile_report, memory_picture, run_report, short, streamed
from gossamer.golden import digits
from gossamer.golden.compiler import Compiled, compile_network
from gossamer.golden.inference import Inference, infer
from gossamer.golden.network import Network
from gossamer.golden.spec import CONFIGS, Config, Opcode
from tests.networks import Builder, inputs

STREAMING = Config("streaming", lanes=8, store_words=640, fetch_latency=9, fetch_interval=5, weight_vectors=256)


def run(network: Network, config: Config, rng: np.random.Generator) -> tuple[Compiled, list[Inference], Inference]:
    compiled = compile_network(network, config)
    x = inputs(rng, network, 2)
    return compiled, [infer(compiled, one) for one in x], infer(compiled, x[0], warm=False)


@pytest.fixture
def streaming(rng) -> tuple[Compiled, list[Inference], Inference]:
    """Two matrices that do not fit the store; the first must be cut."""
    b = Builder(rng, (1, 1, 64))
    b.fully_connected(b.fully_connected(b.input, 40), 66)
    return run(b.network("matrices"), STREAMING, rng)


@pytest.fixture
def half(rng) -> tuple[Compiled, list[Inference], Inference]:
    """Eight of the first layer's sixteen channels have no weights, and the softmax is the host's."""
    b = Builder(rng, (5, 5, 4))
    x = b.conv(b.input, 16, (3, 3))
    b.layers[0] = _without_weights(b.layers[0], 8)
    b.softmax(b.fully_connected(x, 10))
    return run(b.network("half"), CONFIGS["up5k"], rng)


def _without_weights(layer, channels):
    weights = layer.weights.copy()
    weights[:channels] = 0
    return dataclasses.replace(layer, weights=weights)


def test_streamed_bytes_are_those_that_are_fetched(streaming) -> None:
    compiled, inferences, cold = streaming
    program = compiled.program
    fetched = [step["count"] * 8 for step in program.steps[program.warm :] if step["opcode"] == Opcode.FETCH]
    found = streamed(compiled)
    assert sum(found.values()) == sum(fetched) > 2000
    assert set(found) <= {layer.name for layer in compiled.network.layers}
    report = compile_report(compiled, inferences, cold, "two")
    assert report["streamed_bytes"] == sum(fetched)
    assert report["external_bytes"] == len(program.external) >= sum(fetched)
    assert {layer["layer"]: layer["streamed_bytes"] for layer in report["layers"] if layer["streamed_bytes"]} == found


def test_nothing_is_streamed_where_all_fits(half) -> None:
    compiled, inferences, cold = half
    assert streamed(compiled) == {}
    report = compile_report(compiled, inferences, cold, "two")
    assert report["streamed_bytes"] == report["external_bytes"] == 0


def test_report_tells_what_was_folded(half) -> None:
    compiled, inferences, cold = half
    report = compile_report(compiled, inferences, cold, "two")
    conv, *_, dense, softmax = report["layers"]
    assert (conv["source_weight_bytes"], conv["weight_bytes"]) == (16 * 36, 8 * 36)
    assert (conv["source_channels"], conv["channels"]) == (16, 8)
    assert (dense["source_weight_bytes"], dense["weight_bytes"]) == (10 * 25 * 16, 10 * 25 * 8)
    assert (report["source_weight_bytes"], report["weight_bytes"]) == (576 + 4000, 288 + 2000)
    assert (report["source_channels"], report["channels"]) == (26, 18)
    assert (conv["where"], softmax["where"]) == ("core", "host")


def test_blocks_are_counted_by_hand(half) -> None:
    """Eight channels behind folding are half of a group of sixteen lanes; no weight is zero."""
    compiled, inferences, cold = half
    report = compile_report(compiled, inferences, cold, "two")
    conv, *_, dense, softmax = report["layers"]
    assert (conv["vectors"], dense["vectors"], softmax["vectors"]) == (36, 25 * 8, 0)
    assert (softmax["block_density"], report["vectors"], report["permuted"]) == (None, 236, [])
    assert report["block_density"] == report["block_density_in_order"]
    assert report["leaves_vectors_out"] is False


def test_compile_tells_of_permuted_channels(gossamer, tmp_path, rng) -> None:
    """Two kinds of channels in turns; a group of eight lanes has only one kind in the other order."""
    b = Builder(rng, (4, 4, 8))
    b.conv(b.conv(b.input, 16, (1, 1)), 8, (1, 1), relu=False)
    weights = b.layers[0].weights.copy()
    weights[::2, ..., :4] = 0
    weights[1::2, ..., 4:] = 0
    b.layers[0] = dataclasses.replace(b.layers[0], weights=weights)
    b.network("turns").save(tmp_path / "turns.gsm")
    for masks, sentence in ((256, "permuted: 75.0% of the weight vectors are not zero, 100.0% with"), (0, "permuted:")):
        (tmp_path / "c.toml").write_text(f"lanes = 8\nmasks = {masks}\n")
        folder = tmp_path / str(masks)
        status, output, _ = gossamer("compile", tmp_path / "turns.gsm", "--config", tmp_path / "c.toml", "-o", folder)
        assert (status, sentence in output) == (0, masks > 0)
        report = json.loads((folder / "report.json").read_text())
        assert report["block_density"] == (0.75 if masks else 1)
        assert report["permuted"] == ([b.layers[0].output] if masks else [])


def test_multiply_accumulates_are_those_of_the_source(half) -> None:
    """By hand: 25 pixels of 16 outputs with 36 weights, and a matrix of 10 by 400. Folding skips half of them, zeros more."""
    compiled, inferences, cold = half
    report = compile_report(compiled, inferences, cold, "two")
    assert [layer["macs"] for layer in report["layers"]] == [25 * 16 * 36, 0, 4000, 0]
    assert report["macs"] == 14400 + 4000
    assert report["dense_roofline"] == (14400 + 4000) / 16
    assert 0.5 < report["macs_skipped"] < 1
    assert report["macs_skipped"] == pytest.approx(1 - report["macs_executed"] / 18400, abs=1e-4)


def test_layers_have_all_cycles(streaming, half) -> None:
    for compiled, inferences, cold in (streaming, half):
        report = compile_report(compiled, inferences, cold, "two")
        mean = np.mean([inference.cycles for inference in inferences])
        assert (report["cycles"], report["cycles_cold"]) == (mean, cold.cycles)
        compute = np.mean([sum(step.compute for step in inference.layers) for inference in inferences])
        for key, whole in (("cycles", mean), ("compute_cycles", compute)):
            assert sum(layer[key] for layer in report["layers"]) == pytest.approx(whole, abs=0.5)
        for layer in report["layers"]:
            assert sum(layer[f"{category}_cycles"] for category in CATEGORIES) == pytest.approx(layer["cycles"], abs=0.3)
            lanes = compiled.program.config.lanes
            if layer["macs"]:
                assert layer["utilisation"] == pytest.approx(layer["macs_executed"] / layer["cycles"] / lanes, abs=1e-3)


def test_only_multiply_accumulates_of_the_network_count_as_executed() -> None:
    """An addition and a pooling use the array too."""
    compiled = compile_network(digits.load(), CONFIGS["up5k"])
    inferences = [infer(compiled, digits.test_set()[0][0])]
    layers = {layer["layer"]: layer for layer in run_report(compiled, inferences, "golden", [1])["layers"]}
    for name in ("add", "maxpool", "avgpool"):
        assert layers[name]["macs"] == layers[name]["macs_executed"] == 0
        assert layers[name]["utilisation"] > 0


@pytest.mark.parametrize("which", ["streaming", "half"])
def test_memory_picture_is_a_png(which, tmp_path, request) -> None:
    compiled, _, _ = request.getfixturevalue(which)
    memory_picture(compiled, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    "name, most, expected", [("conv", 4, "conv"), ("convolution", 7, "con…ion"), ("convolution", 8, "conv…ion"), ("", 5, "")]
)
def test_long_names_are_shortened_in_the_middle(name: str, most: int, expected: str) -> None:
    assert short(name, most) == expected
    assert len(short(name, most)) <= most
