"""The example network: what it promises, and that its test images are the published ones."""

import numpy as np
import pytest

from gossamer.golden import digits, train_digits
from gossamer.golden.network import NetworkError, Weighted


def test_accuracy():
    x, y = digits.test_set()
    network = digits.load()
    assert (x.dtype, x.shape, y.shape) == (np.int8, (500, 8, 8, 1), (500,))
    assert np.mean(network.run(x)[network.output].argmax(axis=1) == y) >= 0.975


ACCURACIES = {"int8": 0.975, "w4a8": 0.975, "w4a4": 0.97, "sparse75": 0.975, "palette": 0.965, "binary": 0.93}


@pytest.mark.parametrize("variant", digits.VARIANTS)
def test_variants_keep_their_accuracy_and_the_input(variant):
    x, y = digits.test_set()
    network = digits.load(variant)
    assert network.tensors[network.input] == digits.load().tensors["input"]
    assert np.mean(network.run(x)[network.output].argmax(axis=1) == y) >= ACCURACIES[variant]


def weights_of(variant):
    return {layer.name: layer for layer in digits.load(variant).layers if isinstance(layer, Weighted)}


@pytest.mark.parametrize("variant", ["w4a8", "w4a4"])
def test_weights_of_four_bits(variant):
    for layer in weights_of(variant).values():
        assert np.abs(layer.weights.astype(int)).max() <= 7
        assert len(np.unique(layer.weight_scales)) > 1  # one per channel


def test_activations_of_four_bits():
    network = digits.load("w4a4")
    assert [name for name, tensor in network.tensors.items() if tensor.dtype == "int8"] == ["input", "dense", "softmax"]


def test_three_quarters_of_the_vectors_of_weights_are_zero():
    zero = count = 0
    for layer in weights_of("sparse75").values():
        rows = np.moveaxis(layer.weights, layer.channel_axis, 0).reshape(len(layer.bias), -1)
        for start in range(0, len(rows), 16):
            zero += int((rows[start : start + 16] == 0).all(axis=0).sum())
            count += rows.shape[1]
    assert zero / count >= 0.75


def test_a_tenth_of_the_weights_of_the_palette_is_left():
    layers = weights_of("palette").values()
    assert all(len(np.unique(layer.weights)) <= 16 for layer in layers)
    assert sum(np.count_nonzero(layer.weights) for layer in layers) <= 0.1 * sum(layer.weights.size for layer in layers)


def test_binary_layers_are_signs_of_signs():
    network, layers = digits.load("binary"), weights_of("binary")
    inner = [layer for layer in layers.values() if layer.name not in ("conv1", "dense")]
    assert len(inner) == 3
    for layer in inner:
        assert {*np.unique(layer.weights)} == {-1, 1}
        assert network.tensors[layer.inputs[0]].dtype == network.tensors[layer.output].dtype == "binary"
    assert network.tensors[layers["conv1"].output].dtype == network.tensors[layers["dense"].inputs[0]].dtype == "binary"


def test_load_refuses_other_variants():
    known = "int8, w4a8, w4a4, sparse75, palette, binary"
    with pytest.raises(NetworkError, match=f"^a variant of the digits network must be one of {known}, not 'w2'$"):
        digits.load("w2")


def test_relu_outputs_are_sparse():
    network = digits.load()
    values = network.run(digits.test_set()[0])
    for name in ("conv1", "conv2", "add", "depthwise"):
        assert network.tensors[name].zero_point == -128
        assert np.mean(values[name] == -128) >= 0.6, name


def test_every_operator_occurs():
    network = digits.load()
    kinds = {type(layer).__name__ for layer in network.layers}
    assert kinds == {
        "Conv", "Depthwise", "FullyConnected", "Add", "AveragePool", "MaxPool", "Reshape", "Softmax",
    }  # fmt: skip
    assert any(tensor.shape[-1] % 16 == 8 for tensor in network.tensors.values())


def test_split_is_stratified_and_disjoint():
    labels = np.repeat(np.arange(10), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    train, test = train_digits.split(labels)
    assert (len(train), len(test)) == (1297, 500)
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(1797))
    assert np.max(np.abs(np.bincount(labels[test]) - np.bincount(labels) * 500 / 1797)) < 1


def test_images_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn, which has the images, is not installed")
    published = datasets.load_digits()
    test = train_digits.split(published.target)[1]
    x, y = digits.test_set()
    np.testing.assert_array_equal(y, published.target[test])
    np.testing.assert_array_equal(x, digits.quantize_images(published.images[test]))
    with np.load(digits.DATA / "digits_test.npz") as file:
        np.testing.assert_array_equal(file["images"], published.images[test])


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((8, 8)), r"^digit images must have shape \(N, 8, 8\), not \(8, 8\)$"),
        (np.full((1, 8, 8), 17), r"^digit pixels must be in 0\.\.16, not 17\.\.17$"),
    ],
)
def test_quantize_images_refuses(images, message):
    with pytest.raises(ValueError, match=message):
        digits.quantize_images(images)
