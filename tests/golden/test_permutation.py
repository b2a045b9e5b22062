"""The order of output channels: permuted networks against the originals, and how many vectors of weights are left."""

import dataclasses
import itertools

import numpy as np
import pytest

from gossamer.golden.compiler import compile_network
from gossamer.golden.inference import infer
from gossamer.golden.network import Conv, FullyConnected
from gossamer.golden.permutation import block_density, grouped, permuted, spaces, vectors_left
from gossamer.golden.spec import CONFIGS, Config
from tests.networks import MODES, NETWORKS, Builder, concat, full_groups, inputs, residual

COMPRESSED = CONFIGS["ecp5_25_compressed"]
SMALL = Config("small", lanes=8, store_words=1 << 16, masks=256, nibbles=True, binary=True, int4=True)


def thinned(network, rng, density):
    """The network with weights that are zero one by one; those of binary layers stay."""

    def thin(layer):
        if not isinstance(layer, (Conv, FullyConnected)) or (np.abs(layer.weights) == 1).all():
            return layer
        shares = density * rng.uniform(0.3, 1.7, (len(layer.weights), *[1] * (layer.weights.ndim - 1)))
        keep = rng.random(layer.weights.shape) < shares
        return dataclasses.replace(layer, weights=np.where(keep, layer.weights, np.int8(0)))

    return dataclasses.replace(network, layers=tuple(thin(layer) for layer in network.layers))


def groups_of(network, group):
    return {layer.name: group for layer in network.layers if isinstance(layer, (Conv, FullyConnected))}


def count(rows, group):
    """Vectors that are not zero, one by one."""
    found = 0
    for start in range(0, len(rows), group):
        for place in range(rows.shape[1]):
            found += any(rows[channel][place] for channel in range(start, min(start + group, len(rows))))
    return found


# The order of channels


def test_an_example_by_hand():
    """Two kinds of channels take turns; put together, they leave a half of the vectors."""
    nonzero = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1]], bool)
    assert vectors_left(nonzero, 2).tolist() == [[True] * 4, [True, False, False, True]]
    order = grouped(nonzero, np.ones(4), 2)
    assert order.tolist() == [0, 2, 1, 3]
    assert vectors_left(nonzero[order], 2).tolist() == [[True, True, False, False], [False, False, True, True]]


def test_weights_of_places_decide():
    """Channel 0 shares its heavy place with channel 1, and two light ones with channel 2."""
    nonzero = np.array([[1, 1, 1], [0, 0, 0], [1, 1, 0], [0, 0, 1]], bool)
    assert grouped(nonzero, np.array([1.0, 1.0, 5.0]), 2).tolist() in ([0, 3, 1, 2], [1, 2, 0, 3])
    assert grouped(nonzero, np.array([5.0, 5.0, 1.0]), 2).tolist() in ([0, 2, 1, 3], [1, 3, 0, 2])


@pytest.mark.parametrize("channels, group", [(1, 4), (4, 4), (5, 4), (8, 4), (17, 8), (33, 16), (40, 16), (64, 16)])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 0.98])
def test_the_order_never_leaves_more(rng, channels, group, density):
    nonzero = rng.random((channels, 40)) < density * rng.uniform(0, 2, (channels, 1))
    weights = rng.integers(1, 5, 40).astype(float)
    order = grouped(nonzero, weights, group)
    assert sorted(order) == [*range(channels)]
    before, after = (vectors_left(rows, group).sum(0) @ weights for rows in (nonzero, nonzero[order]))
    assert after <= before
    if after == before:
        assert order.tolist() == [*range(channels)]
    assert vectors_left(nonzero[order], group).sum() == count(nonzero[order], group)
    np.testing.assert_array_equal(order, grouped(nonzero, weights, group))


def test_the_order_is_nearly_the_best_one(rng):
    """Of six channels in pairs there are fifteen ways; the order found is at most a fifteenth worse on the average."""
    best, found = 0, 0
    for _ in range(40):
        nonzero = rng.random((6, 12)) < rng.uniform(0.1, 0.6)
        ways = ([0, a, *rest] for a in range(1, 6) for rest in itertools.permutations({1, 2, 3, 4, 5} - {a}))
        best += min(count(nonzero[way], 2) for way in ways)
        found += count(nonzero[grouped(nonzero, np.ones(12), 2)], 2)
    assert best <= found <= best * 16 / 15


@pytest.mark.parametrize("group, groups", [(8, 4), (16, 4), (16, 7)])
def test_shuffled_blocks_are_found_again(rng, group, groups):
    """Vectors of zeros in blocks, whose channels are then mixed."""
    stored = rng.random((groups, 60)) < 0.3
    nonzero = np.repeat(stored, group, axis=0)[rng.permutation(group * groups)]
    order = grouped(nonzero, np.ones(60), group)
    assert vectors_left(nonzero[order], group).sum() == stored.sum()


# Networks


def same_bytes(network, other, orders, x):
    """Each tensor has the original's channels in its order, and input and output in their own."""
    assert not {network.input, network.output} & {*orders}
    before, after = network.run(x), other.run(x)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value[..., orders.get(name, slice(None))], after[name], err_msg=name)


def weighed(network, group):
    """Vectors that are not zero, as often as there are windows."""
    found = 0
    for layer in network.layers:
        if isinstance(layer, (Conv, FullyConnected)):
            windows = int(np.prod(network.tensors[layer.output].shape[:-1]))
            found += windows * count(layer.weights.reshape(len(layer.weights), -1) != 0, group)
    return found


PERMUTED = ("concat", "reshapes", "residual", "full_groups", "mean", "narrow_weights", "four_bits", "block_sparse")
"""Networks of these kinds have channels that may be permuted."""


@pytest.mark.parametrize("kind", [*NETWORKS, *MODES, full_groups], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("group", [2, 3])
def test_permuted_networks_compute_the_same_bytes(rng, kind, group):
    found = 0
    for _ in range(3):
        network = thinned(kind(rng), rng, rng.uniform(0.05, 0.5))
        other, orders = permuted(network, groups_of(network, group))
        same_bytes(network, other, orders, inputs(rng, network, 2))
        assert (weighed(other, group) < weighed(network, group)) if orders else other is network
        found += len(orders)
    assert found or kind.__name__ not in PERMUTED


def test_tensors_that_are_added_have_one_order(rng):
    b = Builder(rng, (4, 4, 3))
    x = b.conv(b.input, 12, (3, 3))
    y = b.conv(x, 12, (1, 1))
    total = b.add(x, y)
    z = b.conv(total, 12, (1, 1))
    out = b.conv(b.max_pool(b.depthwise(z, (3, 3))), 5, (1, 1), relu=False)
    network = b.network("added")
    found = spaces(network)
    assert found.parts[x] == found.parts[y] == found.parts[total] != found.parts[z]
    names = [layer.name for layer in network.layers]
    assert sorted(found.writers.values()) == [[names[0], names[1]], [names[3]]]
    assert found.parts[out] != found.parts[z]
    thin = thinned(network, rng, 0.2)
    other, orders = permuted(thin, groups_of(thin, 4))
    np.testing.assert_array_equal(orders[x], orders[total])
    same_bytes(thin, other, orders, inputs(rng, thin, 2))


def test_a_concatenation_has_the_orders_of_its_parts(rng):
    b = Builder(rng, (3, 3, 3))
    x = b.conv(b.input, 9, (1, 1))
    y = b.conv(b.input, 6, (1, 1), like=x)
    both = b.concat(x, y)
    b.conv(both, 5, (1, 1), relu=False)
    network = thinned(b.network("parts"), rng, 0.25)
    other, orders = permuted(network, groups_of(network, 3))
    expected = np.concatenate([orders.get(x, np.arange(9)), 9 + orders.get(y, np.arange(6))])
    np.testing.assert_array_equal(orders[both], expected)
    same_bytes(network, other, orders, inputs(rng, network, 2))


def test_vectors_weigh_as_much_as_their_layer_has_windows(rng):
    """Two layers of one order want others: the first has four times as many windows, the second more vectors to spare."""
    b = Builder(rng, (4, 4, 8))
    x = b.conv(b.input, 4, (1, 1))
    y = b.conv(b.input, 4, (1, 1), (2, 2))
    b.conv(b.add(b.max_pool(x, (2, 2), (2, 2)), y), 4, (1, 1), relu=False)
    network = b.network("two")
    layers = {layer.output: layer for layer in network.layers}
    first, second = (np.ones_like(layers[name].weights) for name in (x, y))
    first[[0, 2], ..., 2:], first[[1, 3], ..., :2], first[..., 4:] = 0, 0, 0  # four vectors fewer for 0 with 2
    second[[0, 3], ..., 4:], second[[1, 2], ..., :4] = 0, 0  # eight for 0 with 3
    changed = {x: first, y: second}
    network = dataclasses.replace(
        network,
        layers=tuple(
            dataclasses.replace(layer, weights=changed[layer.output]) if layer.output in changed else layer
            for layer in network.layers
        ),
    )
    names = {layers[x].name: 2, layers[y].name: 2}
    other, orders = permuted(network, names)
    assert orders[x].tolist() == orders[y].tolist() == [0, 2, 1, 3]
    same_bytes(network, other, orders, inputs(rng, network, 2))


def test_layers_with_few_zeros_or_without_groups_stay(rng):
    network = thinned(residual(rng), rng, 10)
    other, orders = permuted(network, groups_of(network, 2))
    assert (other, orders) == (network, {})
    network = thinned(concat(rng), rng, 0.2)
    assert permuted(network, {}) == (network, {})
    assert permuted(network, groups_of(network, 64)) == (network, {})


# The compiler


@pytest.mark.parametrize("kind", [concat, residual, full_groups, *MODES], ids=lambda kind: kind.__name__)
def test_programs_compute_the_same_output(rng, kind):
    """On a core with all modes, whose maps of four bits and of one are packed; every tensor that stays is right too."""
    network = thinned(kind(rng), rng, 0.15)
    compiled = compile_network(network, SMALL)
    for x in inputs(rng, network, 2):
        np.testing.assert_array_equal(infer(compiled, x).output, network.run(x[None])[compiled.device_output][0])
    same_bytes(compiled.folded, compiled.network, compiled.orders, inputs(rng, network, 2))


def mixed(rng):
    """A network with two kinds of channels in turns, that never meet in a vector of eight if they are sorted."""
    b = Builder(rng, (4, 4, 8))
    b.conv(b.conv(b.input, 16, (1, 1)), 8, (1, 1), relu=False)
    network = b.network("mixed")
    first, second = network.layers
    weights = first.weights.copy()
    weights[::2, ..., :4] = 0
    weights[1::2, ..., 4:] = 0
    return dataclasses.replace(network, layers=(dataclasses.replace(first, weights=weights), second))


def test_the_compiler_permutes_where_that_spares_vectors(rng):
    network = mixed(rng)
    config = dataclasses.replace(SMALL, int4=False)
    compiled, plain = (compile_network(network, config, permuting=permuting) for permuting in (True, False))
    first = compiled.network.layers[0]
    assert compiled.orders[first.output].tolist() == [*range(0, 16, 2), *range(1, 16, 2)]
    assert (block_density(plain.network, plain.network.layers[0], 8), block_density(compiled.network, first, 8)) == (1, 0.5)
    assert (plain.orders, plain.network) == ({}, plain.folded)
    x = inputs(rng, network, 1)[0]
    assert infer(compiled, x).cycles < infer(plain, x).cycles
    assert compiled.program.weight_bytes < plain.program.weight_bytes


def test_cores_without_masks_keep_the_order(rng):
    compiled = compile_network(mixed(rng), Config("plain", lanes=8))
    assert compiled.orders == {}
    assert compiled.network is compiled.folded


def test_networks_that_gain_nothing_keep_the_order(rng):
    """Windows that do not begin in one lane cannot use masks."""
    b = Builder(rng, (4, 4, 3))
    b.conv(b.conv(b.input, 16, (3, 3)), 8, (1, 1), relu=False)
    network = thinned(b.network("unaligned"), rng, 0.2)
    first, second = network.layers
    network = dataclasses.replace(network, layers=(first, dataclasses.replace(second, weights=np.ones_like(second.weights))))
    compiled = compile_network(network, SMALL)
    assert compiled.orders == {}
    assert permuted(compiled.folded, groups_of(compiled.folded, 8))[1]
