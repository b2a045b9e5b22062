"""Folding: every tensor that is left against the original's; what must go and what must stay, in small examples."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden import digits
from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.folding import fold
from gossamer.golden.network import (
    Add,
    AveragePool,
    Concat,
    Conv,
    Depthwise,
    Dequantize,
    FullyConnected,
    Logistic,
    MaxPool,
    Mean,
    Network,
    Pad,
    Quantize,
    Rescale,
    Reshape,
    Softmax,
    Tensor,
    requantization,
)
from gossamer.golden.spec import CONFIGS
from tests.golden import tflite
from tests.networks import NETWORKS, Builder

WEIGHTED = (Conv, Depthwise, FullyConnected)


def stimuli(rng, network, count):
    """Inputs of one value everywhere, of the two ends, and random ones."""
    shape = network.tensors[network.input].shape
    values = (-128, 127, network.tensors[network.input].zero_point)
    flat = np.stack([np.full(shape, value, np.int8) for value in values])
    ends = rng.choice(np.array([-128, 127], np.int8), (count, *shape))
    return np.concatenate([flat, ends, rng.integers(-128, 128, (count, *shape), dtype=np.int8)])


def check(network, *inputs):
    """Fold, and compare all that is left with the original. Returns the result."""
    folded = fold(network)
    ours = folded.network
    assert (ours.input, ours.output) == (network.input, network.output)
    for name in (network.input, network.output):
        assert ours.tensors[name] == network.tensors[name]
    assert set(folded.channels) == set(ours.tensors) <= set(network.tensors)
    for x in inputs:
        expected, got = network.run(x), ours.run(x)
        for name, channels in folded.channels.items():
            np.testing.assert_array_equal(got[name], expected[name][..., channels], name)
        for name, values in folded.constants.items():
            for channel, value in values.items():
                assert (expected[name][..., channel] == value).all(), (name, channel)
    again = fold(ours)
    assert size(again.network) == size(ours)
    for a, b in zip(again.network.layers, ours.layers, strict=True):
        for field in dataclasses.fields(a):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))
    return folded


def size(network):
    """Weights (bytes), channels with a bias and a scale, and multiply-accumulates."""
    layers = [layer for layer in network.layers if isinstance(layer, WEIGHTED)]
    positions = [int(np.prod(network.tensors[layer.output].shape[:-1])) for layer in layers]
    macs = sum(layer.weights.size * count for layer, count in zip(layers, positions, strict=True))
    return sum(layer.weights.size for layer in layers), sum(layer.bias.size for layer in layers), macs


# Real networks.


@pytest.mark.parametrize(
    "model, before, after",
    [
        ("kws_dscnn", (22_016, 588, 2_656_768), (22_016, 588, 2_656_768)),
        ("ic_resnet8", (77_360, 346, 12_501_632), (77_360, 346, 12_501_632)),
        ("vww_96", (208_112, 2_738, 7_489_664), (29_066, 1_014, 3_727_313)),
        ("ad01", (264_192, 1_672, 264_192), (264_192, 1_672, 264_192)),
    ],
)
def test_real_network_keeps_every_byte(model, before, after, rng):
    network = tflite.network_of(model)
    samples = tflite.samples(model)
    x = samples["x"].reshape(-1, *network.tensors[network.input].shape)
    folded = check(network, x, stimuli(rng, network, 2))
    np.testing.assert_array_equal(folded.network.run(x)[network.output], samples["output"].reshape(len(x), -1))
    assert (size(network), size(folded.network)) == (before, after)


def test_numbers_of_vww_are_small_after_folding():
    network = tflite.network_of("vww_96")
    silent = sum(
        int((~layer.weights.reshape(len(layer.weights), -1).any(axis=1)).sum())
        for layer in network.layers
        if isinstance(layer, Conv)
    )
    constants = fold(network).constants
    weighted = [layer.output for layer in network.layers if isinstance(layer, WEIGHTED)]
    assert (silent, sum(len(constants[name]) for name in weighted)) == (971, 1_715)
    layers = [layer for layer in fold(network).network.layers if isinstance(layer, WEIGHTED)]
    assert max(int(np.abs(layer.bias.astype(np.int64)).max()) for layer in layers) == 818_029
    shifts = np.concatenate([requantization(network, layer)[1] for layer in layers])
    assert (shifts.min(), shifts.max()) == (-16, -5)
    with pytest.raises(CompileError, match="must fit 28 bits"):
        compile_network(network, CONFIGS["up5k"], folding=False)
    compile_network(fold(network).network, CONFIGS["up5k"])


def test_digits_keep_every_byte(rng):
    network = digits.load()
    check(network, stimuli(rng, network, 20), digits.test_set()[0][:50])


# Random networks, channels of which are killed in many ways.


def chain(rng):
    b = Builder(rng, (17, 14, 3))
    x = b.conv(b.input, 6, (3, 3), (2, 2))
    x = b.depthwise(x, (3, 3), (1, 1), multiplier=int(rng.integers(1, 4)), relu=bool(rng.integers(2)))
    x = b.conv(x, 7, (1, 1), relu=False)
    x = b.max_pool(x, (3, 2), (1, 2), same=bool(rng.integers(2)))
    x = b.depthwise(x, (3, 3), (2, 2), relu=False)
    x = b.conv(x, 6, (3, 2), same=bool(rng.integers(2)))
    x = b.fully_connected(x, 9, rounding=str(rng.choice(["single", "double"])))
    b.softmax(b.fully_connected(x, 4))
    return b.network("chain")


def fork(rng):
    """Tensors with several consumers, sums of sums, a sum of one tensor with itself, and a branch that leads nowhere."""
    b = Builder(rng, (6, 5, 4))
    x = b.conv(b.input, 6, (3, 3), relu=bool(rng.integers(2)))
    y = b.conv(x, 6, (1, 1), relu=False)
    z = b.depthwise(x, (3, 3), relu=False)
    s = b.add(y, z, relu=bool(rng.integers(2)))
    b.conv(s, 3)
    t = b.add(s, x) if rng.integers(2) else b.add(s, s)
    u = b.average_pool(t, (2, 2), (2, 1))
    v = b.conv(s, 5, (2, 2), (2, 1), same=False)
    b.depthwise(v)
    b.conv(b.add(b.conv(u, 5, (1, 1)), v), 3, (1, 1), same=False)
    return b.network("fork")


def joined(rng):
    """Concatenations, one of a tensor with itself; padding beside the map and its channels; a mean; other scales."""
    b = Builder(rng, (5, 4, 3))
    x, y = b.conv(b.input, 4, relu=False), b.conv(b.input, 3, relu=True)
    same = {name: getattr(b.tensors[x], name) for name in ("scale", "zero_point")}
    y = b._append(Rescale, (y,), b.tensor((5, 4, 3), **same), clamp=(-100, 127), division="float32")
    z = b._append(Concat, (x, y, x), b.tensor((5, 4, 11), **same))
    front, back = (int(n) for n in rng.integers(0, 3, 2))
    z = b._append(Pad, (z,), b.tensor((7, 5, 11 + front + back), **same), padding=(2, 0, 0, 1), channels=(front, back))
    z = b.depthwise(z, (3, 3), (2, 2), relu=False) if rng.integers(2) else b.conv(z, 8, (2, 1), same=False)
    z = b._append(Mean, (z,), b.tensor(b.tensors[z].shape[2:] if rng.integers(2) else (1, 1, b.tensors[z].shape[2])))
    b._append(Logistic, (b.fully_connected(z, 4),), b.tensor((4,), scale=1 / 256, zero_point=-128))
    return b.network("joined")


def softmax_amid(rng):
    """A kind that the pass has no rule for, between others."""
    b = Builder(rng, (3, 4, 3))
    x = b.softmax(b.conv(b.input, 6, relu=False))
    b.fully_connected(b.conv(x, 5, (2, 2), same=False), 3)
    return b.network("softmax_amid")


def flat(rng):
    """Maps flattened, cut up again, and given new shapes."""
    b = Builder(rng, (4, 4, 3))
    x = b.conv(b.input, 6, relu=False)
    if rng.integers(2):
        x = b.reshape(x, (96,))
    x = b.reshape(x, [(4, 4, 6), (2, 8, 6), (4, 6, 4), (4, 2, 12), (8, 4, 3)][rng.integers(5)])
    x = b.conv(x, 5, (2, 2), same=bool(rng.integers(2)))
    x = b.fully_connected(b.depthwise(x), 6)
    b.fully_connected(b.reshape(x, (2, 1, 3)), 5)
    return b.network("flat")


def _killed(rng, network, layer, share):
    if isinstance(layer, (Add, MaxPool, AveragePool)) and rng.random() < 0.15:
        value = int(rng.integers(-128, 127))
        return dataclasses.replace(layer, clamp=(value, value + int(rng.integers(2))))
    if not isinstance(layer, WEIGHTED):
        return layer
    weights, bias, scales = layer.weights.copy(), layer.bias.copy(), layer.weight_scales.copy()
    rows = weights if layer.channel_axis == 0 else np.moveaxis(weights, -1, 0)
    shifts = requantization(network, layer)[1]
    for channel in np.flatnonzero(rng.random(len(bias)) < share):
        way = rng.choice(["zero", "loud", "saturated", "faint", "mute"])
        if way in ("zero", "loud"):
            rows[channel] = 0
        if way in ("loud", "saturated"):
            bias[channel] = rng.choice([-1, 1]) * (1 << int(rng.integers(20, 30)) >> max(int(shifts[channel]), 0))
        if way == "loud":
            scales[channel] *= 2.0 ** -rng.integers(0, 25)
        if way in ("faint", "mute"):
            scales[channel] *= 0 if way == "mute" else 1e-5
    if not isinstance(layer, Depthwise):
        weights[..., rng.random(weights.shape[-1]) < share / 2] = 0  # unread
    clamp = layer.clamp
    if rng.random() < 0.05:
        value = int(rng.integers(-128, 128))
        clamp = (value, value)
    return dataclasses.replace(layer, weights=weights, bias=bias, weight_scales=scales, clamp=clamp)


@pytest.mark.parametrize("build", [chain, fork, joined, softmax_amid, flat, *NETWORKS])
def test_killed_channels_change_nothing(build, rng):
    removed = 0
    for _ in range(30):
        network = build(rng)
        share = rng.choice([0.1, 0.3, 0.6, 0.9, 1.0])
        network = dataclasses.replace(network, layers=tuple(_killed(rng, network, layer, share) for layer in network.layers))
        folded = check(network, stimuli(rng, network, 3))
        removed += sum(tensor.shape[-1] for tensor in network.tensors.values())
        removed -= sum(tensor.shape[-1] for tensor in folded.network.tensors.values())
    many = build in (chain, fork, joined, softmax_amid, flat)
    assert removed > 100 if many else removed >= 0


# Hand-made networks. Scales are 1 unless told, so that an accumulator is a byte; ``x`` is a map of one channel.


def network(shape, tensors, *layers):
    """``tensors`` as (name, shape, zero point), or with a type too; the last layer's output is the network's."""
    made = {name: Tensor(name, shape, 1.0, *rest) for name, shape, *rest in [("x", shape, 0), *tensors]}
    return Network("n", made, layers, "x", layers[-1].output)


def numbers(weights, bias):
    return {"weights": np.array(weights, np.int8), "bias": np.array(bias, np.int32), "weight_scales": np.ones(len(bias))}


def constant_and_live(size, value, zero_point):
    """A tensor ``c`` of two channels: ``value``, and the input plus the zero point."""
    weights = np.array([0, 1]).reshape(2, 1, 1, 1)
    return ("c", (size, size, 2), zero_point), Conv("c", ("x",), "c", **numbers(weights, [value - zero_point, 0]))


@pytest.mark.parametrize("value, folds", [(5, False), (2, True)])
def test_padding_keeps_a_channel_unless_it_is_the_zero_point(value, folds, rng):
    """Over the padded constant, 3 more than its zero point, ones add 12, 18 or 27: not one number, so not a bias."""
    tensor, first = constant_and_live(3, value, 2)
    second = Conv("y", ("c",), "y", **numbers(np.ones((1, 3, 3, 2)), [0]), padding=(1, 1, 1, 1))
    original = network((3, 3, 1), [tensor, ("y", (3, 3, 1), 0)], first, second)
    folded = check(original, stimuli(rng, original, 9))
    zero = folded.network.run(np.zeros((1, 3, 3, 1), np.int8))["y"][0, :, :, 0]
    assert zero.tolist() == ([[0] * 3] * 3 if folds else [[12, 18, 12], [18, 27, 18], [12, 18, 12]])
    assert folded.channels["c"].tolist() == ([1] if folds else [0, 1])
    assert folded.network.layers[1].bias.tolist() == [0]


@pytest.mark.parametrize(
    "size, kernel, stride, padding, out, added",
    [
        (3, 3, 1, (0, 0, 0, 0), 1, 27),
        (4, 2, 2, (0, 1, 0, 1), 2, 12),  # padding that no window reaches
        (4, 3, 2, (0, 1, 0, 1), 2, None),
        (2, 2, 1, (1, 0, 0, 0), 2, None),
        (1, 3, 1, (1, 1, 1, 1), 1, 3),  # every window, being one, has the same padding
    ],
)
def test_constant_moves_into_the_bias_where_all_windows_see_the_same(size, kernel, stride, padding, out, added, rng):
    tensor, first = constant_and_live(size, 5, 2)
    weights = np.ones((1, kernel, kernel, 2))
    out = (out, (size + sum(padding[2:]) - kernel) // stride + 1, 1)
    second = Conv("y", ("c",), "y", **numbers(weights, [100]), stride=(stride, stride), padding=padding)
    original = network((size, size, 1), [tensor, ("y", out, 0)], first, second)
    folded = check(original, stimuli(rng, original, 9))
    assert folded.channels["c"].tolist() == ([0, 1] if added is None else [1])
    assert folded.network.layers[1].bias.tolist() == [100 + (added or 0)]


@pytest.mark.parametrize("reshaped", [False, True])
def test_flattened_map_folds_position_by_position(reshaped, rng):
    """A depthwise border pattern 12, 18, 27 under weights 1..9: 12*(1+3+7+9) + 18*(2+4+6+8) + 27*5."""
    tensor, first = constant_and_live(3, 5, 2)
    second = Depthwise("d", ("c",), "d", **numbers(np.ones((3, 3, 2)), [0, 0]), padding=(1, 1, 1, 1))
    weights = np.stack([np.arange(1, 10), np.full(9, 2)], axis=1).reshape(1, 18)
    last = FullyConnected("y", ("f" if reshaped else "d",), "y", **numbers(weights, [-700]))
    tensors = [tensor, ("d", (3, 3, 2), 0), ("f", (18,), 0), ("y", (1,), 0)]
    original = network((3, 3, 1), tensors, first, second, Reshape("f", ("d",), "f"), last)
    folded = check(original, stimuli(rng, original, 9))
    assert {name: folded.channels[name].tolist() for name in "cd"} == {"c": [1], "d": [1]}
    assert folded.constants["d"] == {}  # its channel 0 is no constant, though it depends on nothing
    last = folded.network.layers[-1]
    assert (last.weights.tolist(), last.bias.tolist()) == ([[2] * 9], [240 + 360 + 135 - 700])


def test_reshape_takes_channels_in_turns(rng):
    """Channels 0..5 of two pixels become 0..2 of four: who reads 1 there reads 1 and 4 here."""
    first = Conv("c", ("x",), "c", **numbers(np.ones((6, 1, 1, 1)), range(6)))
    last = Conv("y", ("r",), "y", **numbers(np.array([0, 1, 0]).reshape(1, 1, 1, 3), [0]))
    tensors = [("c", (1, 2, 6), 0), ("r", (1, 4, 3), 0), ("y", (1, 4, 1), 0)]
    original = network((1, 2, 1), tensors, first, Reshape("r", ("c",), "r"), last)
    folded = check(original, stimuli(rng, original, 9))
    assert (folded.channels["c"].tolist(), folded.channels["r"].tolist()) == ([1, 4], [1])


@pytest.mark.parametrize("bias, folds", [(1, False), (0, True)])
def test_nearly_constant_channel_stays(bias, folds, rng):
    """A 256th of the input, rounded once, and no negative values: with a bias of 1, 127 alone gives another number."""
    given = numbers([[1], [1]], [bias, 0]) | {"weight_scales": np.array([2.0**-8, 1])}
    first = FullyConnected("c", ("x",), "c", **given, clamp=(0, 127))
    last = FullyConnected("y", ("c",), "y", **numbers([[100, 1]], [0]))
    original = network((1,), [("c", (2,), 0), ("y", (1,), 0)], first, last)
    folded = check(original, np.arange(-128, 128, dtype=np.int8)[:, np.newaxis])
    assert folded.channels["c"].tolist() == ([1] if folds else [0, 1])


@pytest.mark.parametrize("bias, scale", [(1 << 30, 2.0**-25), (-(1 << 30), 2.0**-28), (77, 0.0), (1 << 30, 2.0**-31)])
def test_constant_that_stays_has_small_numbers(bias, scale, rng):
    layer = FullyConnected("y", ("x",), "y", **numbers([[0], [1]], [bias, 0]) | {"weight_scales": np.array([scale, 1.0])})
    original = network((1,), [("y", (2,), 9)], layer)
    folded = check(original, stimuli(rng, original, 9))
    (layer,) = folded.network.layers
    assert layer.bias[0] + 9 == original.run(np.zeros((1, 1), np.int8))["y"][0, 0]
    assert (layer.weights[0].tolist(), layer.weight_scales[0]) == ([0], 1.0)


def test_constant_stays_as_it_is_if_no_scale_gives_it(rng):
    tensors = {"x": Tensor("x", (1,), 1e-300, 0), "y": Tensor("y", (1,), 1e300, 4)}
    layer = FullyConnected("y", ("x",), "y", **numbers([[3]], [5]))
    folded = check(Network("n", tensors, (layer,), "x", "y"), np.zeros((1, 1), np.int8))
    assert (folded.constants["y"], folded.network.layers[0].bias.tolist()) == ({0: 4}, [5])


@pytest.mark.parametrize(
    "bias, value, folds",
    [
        ((1 << 27) - 31, 5, True),
        ((1 << 27) - 30, 5, False),
        (-(1 << 27) + 30, -1, True),
        (-(1 << 27) + 29, -1, False),
        (1 << 30, 5, False),
        (1 << 30, -1, True),  # a bias that is too large may shrink
    ],
)
def test_folding_makes_no_bias_too_large(bias, value, folds, rng):
    """A constant 3 or -3 from its zero point, under the weight 10; the sum crosses one half of the output's scale."""
    tensor, first = constant_and_live(1, value, 2)
    scale = np.array([2.0**-28 if abs(bias) < 1 << 28 else 2.0**-31])
    second = Conv("y", ("c",), "y", np.array([[[[10, 1]]]], np.int8), np.array([bias], np.int32), scale)
    original = network((1, 1, 1), [tensor, ("y", (1, 1, 1), 0)], first, second)
    folded = check(original, stimuli(rng, original, 9))
    assert folded.channels["c"].tolist() == ([1] if folds else [0, 1])


def test_channel_stays_for_the_consumer_that_needs_it(rng):
    """Two consumers, of which the padded one cannot fold; the other drops its weights all the same."""
    tensor, first = constant_and_live(3, 5, 2)
    free = Conv("a", ("c",), "a", **numbers([[[[4, 1]]]], [0]))
    padded = Conv("b", ("c",), "b", **numbers(np.ones((1, 3, 3, 2)), [0]), padding=(1, 1, 1, 1))
    tensors = [tensor, ("a", (3, 3, 1), 0), ("b", (3, 3, 1), 0), ("y", (3, 3, 1), 0)]
    original = network((3, 3, 1), tensors, first, free, padded, Add("y", ("a", "b"), "y"))
    folded = check(original, stimuli(rng, original, 9))
    assert folded.channels["c"].tolist() == [0, 1]
    assert (folded.network.layers[1].weights.tolist(), folded.network.layers[1].bias.tolist()) == ([[[[0, 1]]]], [12])


def residual(read):
    """``s = a + b``, of three channels: the first constant in both, the second in ``a`` alone; ``read`` are ``s``'s weights."""
    a = Conv("a", ("x",), "a", **numbers(np.array([0, 0, 1]).reshape(3, 1, 1, 1), [3, 4, 0]))
    b = Conv("b", ("x",), "b", **numbers(np.array([0, 1, 1]).reshape(3, 1, 1, 1), [5, 0, 0]))
    y = Conv("y", ("s",), "y", **numbers(np.array(read).reshape(1, 1, 1, 3), [0]))
    tensors = [(name, (2, 2, 3), 0) for name in "abs"]
    return network((2, 2, 1), [*tensors, ("y", (2, 2, 1), 0)], a, b, Add("s", ("a", "b"), "s"), y)


@pytest.mark.parametrize("read, kept, bias", [((2, 1, 1), [1, 2], 16), ((2, 0, 1), [2], 16), ((1, 1, 0), [1], 8)])
def test_sum_loses_a_channel_in_all_its_tensors(read, kept, bias, rng):
    original = residual(read)
    folded = check(original, stimuli(rng, original, 9))
    assert {name: folded.channels[name].tolist() for name in "abs"} == dict.fromkeys("abs", kept)
    assert folded.network.layers[3].bias.tolist() == [bias]


def test_layers_that_lead_nowhere_disappear(rng):
    original = residual((1, 1, 1))
    original = dataclasses.replace(original, output="a")
    folded = check(original, stimuli(rng, original, 9))
    assert [layer.name for layer in folded.network.layers] == ["a"]
    assert sorted(folded.network.tensors) == ["a", "x"]


def test_network_of_constants_keeps_one_channel_of_each_tensor(rng):
    original = residual((0, 0, 0))
    folded = check(original, stimuli(rng, original, 9))
    assert {name: folded.channels[name].tolist() for name in "abs"} == {name: [0] for name in "abs"}  # a constant one


def test_kinds_without_a_rule_keep_their_channels(rng):
    class Doubled(Add):
        """Derived from a known kind, but not known."""

        def run(self, network, *inputs):
            return np.flip(super().run(network, *inputs), axis=-1)

    original = residual((2, 1, 0))
    layers = list(original.layers)
    layers[2] = Doubled("s", ("a", "b"), "s")
    original = dataclasses.replace(original, layers=tuple(layers))
    folded = check(original, stimuli(rng, original, 9))
    assert {name: folded.channels[name].tolist() for name in "abs"} == {name: [0, 1, 2] for name in "abs"}
    assert (folded.constants["a"], folded.constants["s"]) == ({0: 3, 1: 4}, {})


def test_softmax_keeps_its_constants(rng):
    layer = FullyConnected("l", ("x",), "l", **numbers([[0], [1], [0]], [7, 0, -7]))
    tensors = {"x": Tensor("x", (1,), 1.0, 0), "l": Tensor("l", (3,), 1.0, 0), "y": Tensor("y", (3,), 1 / 256, -128)}
    original = Network("n", tensors, (layer, Softmax("y", ("l",), "y")), "x", "y")
    assert check(original, stimuli(rng, original, 9)).channels["l"].tolist() == [0, 1, 2]


def test_borders_of_other_types_stay(rng):
    """From float32 and back: the constant goes into the bias, and both borders keep their channels."""
    layers = [
        Quantize("q", ("x",), "q"),
        FullyConnected("c", ("q",), "c", **numbers([[0, 0], [1, 0]], [9, 0])),
        FullyConnected("y", ("c",), "y", **numbers([[1, 1], [0, 0]], [1, 2])),
        Dequantize("z", ("y",), "z"),
    ]
    made = {name: Tensor(name, (2,), 1.0, 0, "float32" if name in "xz" else "int8") for name in "xqcyz"}
    original = Network("n", made, tuple(layers), "x", "z")
    folded = check(original, rng.uniform(-200, 200, (20, 2)).astype(np.float32))
    assert {name: kept.tolist() for name, kept in folded.channels.items()} == {
        "x": [0, 1], "q": [0, 1], "c": [1], "y": [0, 1], "z": [0, 1],
    }  # fmt: skip
    assert folded.network.layers[2].bias.tolist() == [10, 2]


def test_padded_and_joined_channels_go_one_by_one(rng):
    """``p`` has two channels in front, 0 and 1 of ``c`` twice, and one behind. In a sum, its 1, 4 and 6 are read: so 0 of
    ``c`` is, and then 2 of ``p``, its twin, stays too."""
    first = Conv("c", ("x",), "c", **numbers(np.array([1, 2]).reshape(2, 1, 1, 1), [0, 0]))
    layers = first, Concat("j", ("c", "c"), "j"), Pad("p", ("j",), "p", (0, 0, 0, 0), (2, 1))
    other = Conv("o", ("x",), "o", **numbers(np.arange(1, 8).reshape(7, 1, 1, 1), [0] * 7))
    last = Conv("y", ("s",), "y", **numbers(np.array([0, 1, 0, 0, 1, 0, 1]).reshape(1, 1, 1, 7), [0]))
    tensors = [("c", (1, 1, 2), 0), ("j", (1, 1, 4), 0), *((name, (1, 1, 7), 0) for name in "pos"), ("y", (1, 1, 1), 0)]
    original = network((1, 1, 1), tensors, *layers, other, Add("s", ("p", "o"), "s"), last)
    folded = check(original, stimuli(rng, original, 9))
    kept = {"c": [0], "j": [0, 2], "p": [1, 2, 4, 6], "o": [1, 2, 4, 6]}
    assert {name: folded.channels[name].tolist() for name in kept} == kept
    assert folded.network.layers[2].channels == (1, 1)


@pytest.mark.parametrize("dead, kept", [((0, 1), [2, 3]), ((0,), [0, 1, 2, 3]), ((1, 2, 3), [0, 1])])
def test_depthwise_channels_stay_together_by_input_channel(dead, kept, rng):
    """Two outputs of each of two channels; what is not read goes only with its sibling."""
    first = Conv("c", ("x",), "c", **numbers(np.ones((2, 1, 1, 1)), [1, 2]))
    second = Depthwise("d", ("c",), "d", **numbers(np.arange(1, 5).reshape(1, 1, 4), [0] * 4))
    weights = np.array([0 if channel in dead else 1 for channel in range(4)]).reshape(1, 1, 1, 4)
    last = Conv("y", ("d",), "y", **numbers(weights, [0]))
    tensors = [("c", (2, 2, 2), 0), ("d", (2, 2, 4), 0), ("y", (2, 2, 1), 0)]
    original = network((2, 2, 1), tensors, first, second, last)
    folded = check(original, stimuli(rng, original, 9))
    assert folded.channels["d"].tolist() == kept
    assert folded.channels["c"].tolist() == sorted({channel // 2 for channel in kept})


def test_binary_tensors_keep_their_channels_and_their_readers_weights(rng):
    """Five or more of the 16 channels of bits are constant, and two of the 9 of four bits, which go."""
    signs = rng.choice(np.array([-1, 1], np.int8), (3, 2, 2, 16))
    signs[..., 9] = 0  # is not read
    small = numbers(rng.integers(-7, 8, (9, 3, 3, 2), dtype=np.int8), np.zeros(9, np.int32))
    small["weights"][[2, 5]] = 0
    first = numbers(rng.integers(-7, 8, (16, 1, 1, 9), dtype=np.int8), rng.integers(-9, 9, 16, dtype=np.int32))
    first["weights"][[0, 3, 4, 5, 11]] = 0
    built = network(
        (4, 4, 2),
        [("s", (4, 4, 9), -8, "int4"), ("a", (4, 4, 16), 0, "binary"), ("y", (3, 3, 3), 0)],
        Conv("0", ("x",), "s", **small, padding=(1, 1, 1, 1), clamp=(-8, 7)),
        Conv("1", ("s",), "a", **first),
        Conv("2", ("a",), "y", **numbers(signs, np.zeros(3, np.int32))),
    )
    folded = check(built, stimuli(rng, built, 20))
    assert folded.channels["s"].tolist() == [0, 1, 3, 4, 6, 7, 8]
    assert {0, 3, 4, 5, 11} <= set(folded.constants["a"])
    assert folded.channels["a"].tolist() == [*range(16)]
    np.testing.assert_array_equal(folded.network.layers[2].weights, signs)


def test_sums_beyond_32_bits_are_left_alone():
    """A flattened constant map that would add 300 * 300 * 127 * 255."""
    side = 300
    first = Conv("c", ("x",), "c", np.zeros((1, 1, 1, 1), np.int8), np.array([255], np.int32), np.ones(1))
    last = FullyConnected("y", ("c",), "y", **numbers(np.full((1, side * side), 127), [0]))
    original = network((side, side, 1), [("c", (side, side, 1), -128), ("y", (1,), 0)], first, last)
    folded = fold(original)
    assert folded.constants["c"] == {0: 127}
    np.testing.assert_array_equal(folded.network.layers[1].weights, last.weights)
