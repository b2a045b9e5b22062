"""Training of the digits network's variants: what is pruned, that a few epochs learn and are the same again."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden import digits, train_variants
from gossamer.golden.network import Depthwise, Weighted
from gossamer.golden.weights import Options

pytest.importorskip("torch", reason="PyTorch, which trains, is not installed")


@pytest.fixture(scope="module")
def base():
    return digits.load()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75])
def test_that_share_of_all_vectors_is_pruned(base, share):
    student = train_variants.begin("sparse75", base, digits.test_set()[0][:10])
    train_variants.prune(student, share)
    pruned = total = 0
    for name, mask in student.masks.items():
        rows = np.moveaxis(mask, student.layers[name].channel_axis, 0).reshape(len(student.layers[name].bias), -1)
        for start in range(0, len(rows), 16):
            block = rows[start : start + 16]
            assert (block == block[0]).all()
            pruned += int((~block[0]).sum())
            total += block.shape[1]
        assert mask.all() or not isinstance(student.layers[name], Depthwise)
    assert total == 49 + 9 * 8 + 9 * 16 + 2 * 9 * 16 + 2 * 9 + 96
    assert share * total <= pruned < share * total + 2


def test_layers_whose_weights_are_alike_keep_more(base):
    """Of two layers' weights, 1 to 100 and 50 to 51, those that are small beside the others of their layer go first."""
    student = train_variants.begin("palette", base, digits.test_set()[0][:10])
    for name in ("conv2", "conv3"):
        weight = student.parameters[name][0]
        low, high = (1.0, 100.0) if name == "conv2" else (50.0, 51.0)
        weight.data = weight.data.new_tensor(np.linspace(low, high, weight.numel()).reshape(weight.shape))
    train_variants.prune(student, 0.5)
    assert student.masks["conv2"].mean() < 0.75 * student.masks["conv3"].mean()
    assert sum(mask.sum() for mask in student.masks.values()) == pytest.approx(8480 / 2, abs=2)


@pytest.mark.parametrize("variant, least", [("w4a4", 0.85), ("binary", 0.15)])
def test_five_epochs_learn_and_are_the_same_again(base, variant, least, monkeypatch):
    recipe = dataclasses.replace(train_variants.RECIPES[variant], epochs=5)
    monkeypatch.setitem(train_variants.RECIPES, variant, recipe)
    with np.load(digits.DATA / "digits_test.npz") as file:
        images, labels = file["images"][:192] / digits.WHITE, file["labels"][:192]
    x, y = digits.test_set()
    first, again = (train_variants.train(variant, base, images, labels) for _ in range(2))
    assert np.mean(first.run(x[192:])[first.output].argmax(1) == y[192:]) > least
    for one, other in zip(first.layers, again.layers):
        if isinstance(one, Weighted):
            np.testing.assert_array_equal(one.weights, other.weights)
            np.testing.assert_array_equal(one.bias, other.bias)


def test_recipes_are_those_of_the_variants():
    assert {"int8", *train_variants.RECIPES} == set(digits.VARIANTS)
    assert train_variants.RECIPES["palette"].options == Options("palette16", prune=0.9)
