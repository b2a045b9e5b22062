"""The example network: what it promises, and that its test images are the published ones."""

import numpy as np
import pytest

from gossamer.golden import digits, train_digits


def test_accuracy():
    x, y = digits.test_set()
    network = digits.load()
    assert (x.dtype, x.shape, y.shape) == (np.int8, (500, 8, 8, 1), (500,))
    assert np.mean(network.run(x)[network.output].argmax(axis=1) == y) >= 0.975


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
