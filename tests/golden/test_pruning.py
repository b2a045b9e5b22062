"""Pruning: how many weights stay, which, and in which blocks."""

import numpy as np
import pytest

from gossamer.golden.network import NetworkError
from gossamer.golden.pruning import found_pattern, kept, pattern

SHAPES = [((20, 3, 3, 6), 0), ((10, 7), 0), ((3, 3, 18), 2), ((1, 1), 0)]


@pytest.mark.parametrize("shape, axis", SHAPES)
@pytest.mark.parametrize("prune", [0, 0.25, 0.5, 0.9])
def test_unstructured_keeps_the_largest(rng, shape, axis, prune):
    weights = rng.normal(size=shape)
    mask = kept(weights, axis, prune, "unstructured", 8)
    assert mask.shape == shape
    assert mask.sum() == weights.size - int(prune * weights.size + 0.5)
    if 0 < mask.sum() < mask.size:
        assert np.abs(weights[mask]).min() >= np.abs(weights[~mask]).max()


@pytest.mark.parametrize("shape, axis", SHAPES)
def test_lanes_are_pruned_together(rng, shape, axis):
    weights = rng.normal(size=shape)
    mask = kept(weights, axis, 0.5, "lanes", 8)
    rows = np.moveaxis(mask, axis, 0).reshape(shape[axis], -1)
    values = np.abs(np.moveaxis(weights, axis, 0).reshape(shape[axis], -1))
    means = {True: [], False: []}
    for start in range(0, len(rows), 8):
        block = rows[start : start + 8]
        assert np.all(block == block[0])
        for position, stays in enumerate(block[0]):
            means[bool(stays)].append(values[start : start + 8, position].mean())
    blocks = sum(map(len, means.values()))
    assert len(means[False]) == int(0.5 * blocks + 0.5)
    assert max(means[False], default=0) <= min(means[True], default=9)


def test_two_of_four_input_channels():
    weights = np.array([[4, -3, 2, 1, 0.1, 0.2, 0.3, -0.4, 5, 6, 7]])
    assert kept(weights, 0, 0, "nm:2:4", 8)[0].nonzero()[0].tolist() == [0, 1, 6, 7, 9, 10]
    assert kept(weights, 0, 0, "nm:1:4", 8)[0].nonzero()[0].tolist() == [0, 7, 10]


@pytest.mark.parametrize("block, most", [("nm:2:4", 2), ("nm:1:3", 1)])
def test_groups_lie_along_the_input_channels(rng, block, most):
    weights, size = rng.normal(size=(5, 3, 2, 9)), int(block[-1])
    mask = kept(weights, 0, 0, block, 8)
    for start in range(0, 9, size):
        assert np.all(mask[..., start : start + size].sum(axis=-1) == min(most, 9 - start))
    assert kept(rng.normal(size=(3, 3, 8)), 2, 0, block, 8).all()  # a depthwise layer has no input channels to choose from


def test_equal_weights_stay_in_their_order():
    assert kept(np.ones((2, 4)), 0, 0.5, "unstructured", 8).tolist() == [[True] * 4, [False] * 4]
    assert kept(np.ones((1, 4)), 0, 0, "nm:2:4", 8).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("block", ["nm", "nm:4:2", "nm:0:4", "nm:2:17", "rows", ""])
def test_other_blocks_are_refused(block):
    message = f"^the block of pruned weights must be unstructured, lanes or nm:N:M with 0 < N < M <= 16, not '{block}'$"
    with pytest.raises(NetworkError, match=message):
        pattern(block)


@pytest.mark.parametrize("block", ["nm:1:2", "nm:2:4", "nm:1:4", "nm:3:4", "nm:3:8"])
@pytest.mark.parametrize("shape", [(12, 3, 3, 8), (10, 64)])
def test_patterns_are_found_again(rng, block, shape):
    weights = np.where(kept(values := rng.normal(size=shape), 0, 0, block, 16), values, 0)
    assert found_pattern(weights) == block
    # some of what is kept may be zero by chance
    assert found_pattern(np.where(rng.random(shape) < 0.1, 0, weights)) == block


@pytest.mark.parametrize("density", [1, 0.97, 0.5, 0.1])
def test_other_zeros_are_no_pattern(rng, density):
    weights = np.where(rng.random((32, 3, 3, 16)) < density, rng.normal(size=(32, 3, 3, 16)), 0)
    assert found_pattern(weights) is None


def test_few_groups_and_broken_groups_are_no_pattern():
    """Fifteen groups; and a last one of one weight, or one group with all of its weights."""
    assert found_pattern(np.tile([1.0, 2, 0, 0], (15, 1))) is None
    assert found_pattern(np.tile([1.0, 2, 0, 0], (16, 1))) == "nm:2:4"
    assert found_pattern(np.tile([1.0, 2, 0, 0, 0], (16, 1))) is None
    broken = np.tile([1.0, 2, 0, 0], (16, 1))
    broken[7] = 1
    assert found_pattern(broken) is None
    assert found_pattern(np.zeros((32, 8))) is None
