"""Training: that a student computes what its network will, what has gradients, and that training helps."""

import dataclasses
import sys

import numpy as np
import pytest

from gossamer.golden import digits, train_variants
from gossamer.golden.compress import Fitting, compress, from_int8, real
from gossamer.golden.finetune import Student, exact, finetune
from gossamer.golden.network import Conv, FullyConnected, Network, NetworkError, Tensor, Weighted
from gossamer.golden.quantize import narrowed
from gossamer.golden.weights import Options

torch = pytest.importorskip("torch", reason="PyTorch, which trains, is not installed")


@pytest.fixture(scope="module")
def base():
    return digits.load()


@pytest.fixture(scope="module")
def x():
    return digits.test_set()[0]


def steps_apart(network, values, found, name):
    """By how many steps of its tensor the real values differ from what the network has."""
    tensor = network.tensors[name]
    return np.abs(values.detach().numpy() / tensor.scale + tensor.zero_point - found)


@pytest.mark.parametrize("four", [False, True])
@pytest.mark.parametrize("weights", ["int8", "int4", "palette16"])
def test_a_student_computes_what_its_network_will(base, x, weights, four):
    whole = base
    if four:
        whole = narrowed(base, {name: real(base.tensors[name], values) for name, values in base.run(x[:100]).items()})
        assert {whole.tensors[name].dtype for name in ("conv1", "add", "maxpool", "flat")} == {"int4"}
        assert {whole.tensors[name].dtype for name in ("input", "dense", "softmax")} == {"int8"}
    student = Student(whole, exact(base), dict.fromkeys(exact(base), Options(weights)))
    network = student.network()
    found = network.run(x[:50])
    for layer in network.layers[:-1]:
        inputs = (real(network.tensors[name], found[name]) for name in layer.inputs)
        values = student.apply(layer, *(torch.tensor(value, dtype=torch.float32) for value in inputs))
        apart = steps_apart(network, values, found[layer.output], layer.output)
        assert np.mean(apart > 0.01) < 0.05, layer.name  # ties, and biases that int8 scales hardly resolve
        assert apart.max() < 1.01, layer.name


def test_a_binary_student_computes_what_its_network_will(base, x, rng):
    student = train_variants.begin("binary", base, x)
    given = torch.tensor(real(base.tensors["input"], x[:200]), dtype=torch.float32)
    student.training = True
    for name in student.norms:
        student.parameters[name][1].data = torch.tensor(rng.normal(0, 0.3, len(student.norms[name][0])), dtype=torch.float32)
    for _ in range(40):
        student.run(given)
    student.training = False
    network, values = student.network(), student.run(given)
    found = network.run(x[:200])
    for name in ("conv1", "conv2", "maxpool", "conv3", "conv4", "flat"):
        assert np.mean(values[name].detach().numpy() != found[name]) < 0.002, name
        assert 0.2 < np.mean(found[name] > 0) < 0.95, name
    for name in ("conv2", "conv3", "conv4"):
        assert {*np.unique({layer.name: layer for layer in network.layers}[name].weights)} == {-1, 1}


def test_gradients_pass_the_rounding_but_not_masks_and_clamps():
    """y = 3.2 * 1 - 4 * 0 (pruned), rounded to a step of 2 and clamped."""
    tensors = {"x": Tensor("x", (2,), 1.0, 0), "y": Tensor("y", (1,), 2.0, 0)}
    numbers = {"0": (np.array([[3.2, -4.0]]), np.zeros(1))}
    dense = FullyConnected("0", ("x",), "y", np.zeros((1, 2), np.int8), np.zeros(1, np.int32), np.ones(1), (-2, 5))
    student = Student(Network("n", tensors, (dense,), "x", "y"), numbers, {"0": Options(prune=0.5)})
    student.masks["0"] = np.array([[True, False]])
    values = student.run(torch.tensor([[1.0, 1.0], [9.0, 1.0]]))["y"]
    assert values.tolist() == [[4.0], [10.0]]
    values.sum().backward()
    weight, bias = student.parameters["0"]
    assert weight.grad.tolist() == [[1.0, 0.0]]  # the second output is at its clamp
    assert bias.grad.tolist() == [1.0]


def test_pruning_takes_the_smallest_of_now(base):
    student = Student(base, exact(base), {"conv3": Options(prune=0.5, block="lanes")})
    student.prune("conv3", 0.75)
    weights = next(layer for layer in student.network().layers if layer.name == "conv3").weights
    assert (weights != 0).any(axis=0).sum() == 36  # of 144 vectors of 16


def error(source, network, x, reference):
    tensor = network.tensors["dense"]
    return np.mean((real(tensor, network.run(x)["dense"]) - reference) ** 2)


def test_training_brings_back_what_compression_loses(base, x):
    source = from_int8(base, x[:100])
    options = {layer.name: Options("int4", 0.5) for layer in base.layers if isinstance(layer, Conv)}
    done = compress(source, options, Fitting(correct=False, compensate=False))
    seen = []
    trained = finetune(source, done, options, 25, progress=lambda step, total: seen.append((step, total)))
    assert seen[-1] == (175, 175)  # 25 epochs of 7 batches
    reference = real(base.tensors["dense"], base.run(x[100:])["dense"])
    assert error(source, trained.network, x[100:], reference) < 0.8 * error(source, done.network, x[100:], reference)
    for layer in trained.network.layers:
        if isinstance(layer, Weighted):
            assert not layer.weights[~done.masks[layer.name]].any()
            assert layer.name not in options or np.abs(layer.weights).max() <= 7
    np.testing.assert_array_equal(trained.output, trained.network.run(x[:100])["softmax"])
    again = finetune(source, done, options, 25)
    for one, other in zip(trained.network.layers, again.network.layers):
        for field in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_training_tells_that_it_needs_pytorch(base, x, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    source = from_int8(base, x[:4])
    done = compress(source, {})
    needed = r"^training needs PyTorch, and it is not installed: pip install 'gossamer\[train\]'$"
    with pytest.raises(NetworkError, match=needed):
        finetune(source, done, {}, 1)
