"""Compression of whole networks: what it keeps, what it makes up for, and the published models as the yardstick."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden import digits, floating
from gossamer.golden.compress import Fitting, agreement, compress, from_float, from_int8, real, search
from gossamer.golden.network import Depthwise, Network
from gossamer.golden.tflite_float import load_float
from gossamer.golden.weights import Options
from tests.golden import tflite

PLAIN = Fitting(correct=False, compensate=False)
CORRECTED = Fitting(compensate=False)


def layers_of(rng):
    """A float network with all weighted layers and a branch."""

    def weighted(o, *shape):
        return rng.normal(size=shape) * np.sqrt(o / np.prod(shape)), rng.normal(size=o) / 5

    return [
        floating.Conv("conv", ("input",), *weighted(16, 16, 3, 3, 3), stride=(1, 2), activation="relu"),
        floating.Depthwise("depthwise", ("conv",), *weighted(16, 3, 3, 16), activation="relu6"),
        floating.Conv("point", ("depthwise",), *weighted(16, 16, 1, 1, 16)),
        floating.Add("add", ("conv", "point"), activation="relu"),
        floating.Mean("mean", ("add",)),
        floating.FullyConnected("dense", ("mean",), *weighted(10, 10, 16)),
    ]


@pytest.fixture
def source(rng):
    return from_float("n", layers_of(rng), rng.uniform(-1, 2, (60, 8, 8, 3)))


def error(source, done):
    """Squared error of the output for the calibration inputs, relative."""
    output, exact = source.network.output, source.reference[source.network.output]
    return np.sum((real(done.network.tensors[output], done.output) - exact) ** 2) / np.sum((exact - exact.mean()) ** 2)


def every(source, **fields):
    return {name: Options(**fields) for name in source.weights}


def test_int8_is_close_to_float_and_computes_what_it_says(source):
    done = compress(source, {})
    assert error(source, done) < 0.001
    np.testing.assert_array_equal(done.network.run(source.x)[done.network.output], done.output)
    assert done.bits == {name: 8 * weights.size for name, weights in source.weights.items()}
    assert all(mask.all() for mask in done.masks.values())


def test_int8_weights_are_the_nearest_without_compensation(source):
    done = compress(source, {}, PLAIN)
    for layer in done.network.layers:
        if layer.name in source.weights:
            rows = np.moveaxis(layer.weights, layer.channel_axis, -1) * layer.weight_scales
            exact = np.moveaxis(source.weights[layer.name], layer.channel_axis, -1)
            clipped = np.abs(np.moveaxis(layer.weights, layer.channel_axis, -1)) == 127
            assert np.all((np.abs(rows - exact) <= 0.501 * layer.weight_scales) | clipped)
            scale = source.network.tensors[layer.inputs[0]].scale
            np.testing.assert_array_equal(layer.bias, np.rint(source.biases[layer.name] / scale / layer.weight_scales))
    dense = done.network.layers[-1]
    assert len({*dense.weight_scales}) == 1  # a fully connected layer has one scale, as TFLite's


@pytest.mark.parametrize(
    "fields",
    [
        {"weights": "int4"},
        {"weights": "palette16"},
        {"weights": "palette16", "palette": "channel"},
        {"prune": 0.5},
        {"prune": 0.3, "block": "lanes"},
        {"block": "nm:2:4"},
        {"weights": "int4", "prune": 0.5},
        {"weights": "palette16", "block": "nm:2:4"},
    ],
)
def test_each_step_makes_the_loss_smaller(source, fields):
    options = every(source, **fields)
    lost = [error(source, compress(source, options, fitting)) for fitting in (PLAIN, CORRECTED, Fitting())]
    assert lost[2] < lost[1] < lost[0]
    done = compress(source, options)
    if "palette" not in fields:  # sixteen palettes take as much as these few weights
        assert sum(done.bits.values()) < 8 * sum(weights.size for weights in source.weights.values())
    for layer in done.network.layers:
        if layer.name in source.weights:
            mask = done.masks[layer.name]
            assert np.all(layer.weights[~mask] == 0)
            if fields.get("weights") == "int4":
                assert np.abs(layer.weights).max() <= 7
            if fields == {"weights": "palette16"}:
                assert len(np.unique(layer.weights)) <= 16
            if "prune" in fields and "block" not in fields:
                assert mask.mean() == pytest.approx(0.5, abs=0.01)


def test_bias_correction_keeps_the_mean_of_each_channel(source):
    tensor, exact = source.network.tensors["dense"], source.reference["dense"]
    off = {}
    for fitting in (PLAIN, CORRECTED, Fitting()):
        done = compress(source, every(source, weights="int4"), fitting)
        off[fitting] = np.abs((real(tensor, done.output) - exact).mean(axis=0)).max()
    assert off[PLAIN] > 3 * tensor.scale
    assert max(off[CORRECTED], off[Fitting()]) < 0.5 * tensor.scale


def test_a_channel_without_weights_has_its_mean(rng):
    """Its scale must leave room for a bias that pruning gives it."""
    layers = layers_of(rng)
    point = layers[2]
    point.weights[3] *= 1e-3
    point.bias[3] = 1e-12
    source = from_float("n", layers, rng.uniform(-1, 2, (60, 8, 8, 3)))
    done = compress(source, {"point": Options(prune=0.5)})
    assert not done.masks["point"][3].any()
    conv = done.network.layers[2]
    scale = source.network.tensors["depthwise"].scale
    wanted = (source.reference["depthwise"] @ point.weights[3, 0, 0]).mean()
    assert conv.bias[3] * scale * conv.weight_scales[3] == pytest.approx(wanted, rel=1e-3)


def test_options_are_those_of_the_layer(source):
    done = compress(source, {"point": Options("int4"), "dense": Options(prune=0.5)})
    by_name = {layer.name: layer for layer in done.network.layers}
    assert np.abs(by_name["point"].weights).max() <= 7 < np.abs(by_name["conv"].weights).max()
    assert [name for name, mask in done.masks.items() if not mask.all()] == ["dense"]


def test_an_int8_network_that_is_not_changed_stays_as_it_is():
    network = digits.load()
    x = digits.test_set()[0][:40]
    done = compress(from_int8(network, x), {})
    for before, after in zip(network.layers, done.network.layers):
        for field in dataclasses.fields(before):
            np.testing.assert_array_equal(getattr(before, field.name), getattr(after, field.name))
    np.testing.assert_array_equal(done.output, network.run(x)[network.output])


def test_an_int8_network_in_int4_keeps_its_answers(tmp_path):
    network = digits.load()
    x, y = digits.test_set()
    source = from_int8(network, x[:200])
    done = compress(source, every(source, weights="int4"))
    done.network.save(tmp_path / "n.gsm")
    output = Network.load(tmp_path / "n.gsm").run(x[200:])[network.output]
    assert (output.argmax(1) == y[200:]).mean() > 0.96
    assert agreement(output, network.run(x[200:])[network.output]) > 0.96


def test_search_makes_layers_int4_as_long_as_answers_stay():
    network = digits.load()
    source = from_int8(network, digits.test_set()[0][:30])
    names = [*source.weights]
    fixed = {names[0]: Options("palette16")}
    told = []
    found = search(source, fixed, 1.0, progress=lambda done, total: told.append((done, total)))
    free = len(names) - 1
    assert told == [(n, 2 * free) for n in range(1, 2 * free + 1)]
    assert found[names[0]] == fixed[names[0]]
    assert sum(one.weights == "int4" for one in found.values()) > 0
    assert agreement(compress(source, found).output, source.reference[network.output]) == 1
    assert all(one.weights == "int4" for name, one in search(source, fixed, 0.0).items() if name != names[0])
    assert search(source, fixed, 1.01)[names[1]].weights == "int8"


# The published models


def measured(model):
    """The source of half of a benchmark model's samples; functions that say of an int8 network how many of the other half have
    the float model's class, and what share of all labelled samples is right; and the published int8 network."""
    found, samples = load_float(tflite.data_folder() / f"{model}_fp32.tflite"), tflite.samples(model)
    published = tflite.network_of(model)
    tensor = published.tensors[published.input]
    x, y = real(tensor, samples["x"]), samples["y"]
    source = from_float(model, found.layers, x[::2], input_quantization=tensor.quantization, borders=found.borders)
    exact = floating.outputs(found.layers, x[1::2])

    def agreeing(network):
        return round(len(exact) * agreement(network.run(samples["x"][1::2])[network.output], exact))

    def accuracy(network):
        return float((network.run(samples["x"][y >= 0])[network.output].argmax(1) == y[y >= 0]).mean())

    return source, agreeing, accuracy, published


def test_image_classification_in_int8_agrees_as_well_as_the_published_model():
    source, agreeing, _, published = measured("ic_resnet8")
    assert agreeing(compress(source, {}).network) >= agreeing(published) - 1


def test_keyword_spotting_in_int8_is_as_accurate_as_the_published_model():
    source, _, accuracy, published = measured("kws_dscnn")
    assert accuracy(compress(source, {}).network) >= accuracy(published) - 0.015


@pytest.mark.slow
def test_image_classification_in_four_bits_or_half_of_the_weights():
    source, agreeing, _, _ = measured("ic_resnet8")
    assert agreeing(compress(source, every(source, weights="int4")).network) >= 19  # of 25; 11 without compensation
    assert agreeing(compress(source, every(source, prune=0.5)).network) >= 17  # 2 without


@pytest.mark.slow
def test_keyword_spotting_in_four_bits_or_half_of_the_weights():
    source, _, accuracy, _ = measured("kws_dscnn")
    assert accuracy(compress(source, every(source, weights="int4")).network) >= 0.92  # 0.87 without compensation
    assert accuracy(compress(source, every(source, weights="palette16")).network) >= 0.92
    depthwise = {layer.name for layer in source.network.layers if isinstance(layer, Depthwise)}
    pruned = {name: Options(prune=0.0 if name in depthwise else 0.5) for name in source.weights}
    assert accuracy(compress(source, pruned).network) >= 0.88  # 0.37 without
