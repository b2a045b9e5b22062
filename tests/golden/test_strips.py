"""Strips: columns by hand, refusals, and that the strips of random networks cover their maps."""

import itertools

import numpy as np
import pytest

from gossamer.golden.compiler import CompileError, Frontend, Strategy
from gossamer.golden.inference import infer
from gossamer.golden.rolling import Group
from gossamer.golden.spec import CONFIGS
from gossamer.golden.strips import Strips
from tests.networks import Builder, concat, conv, depthwise, fork, inputs, max_pool, pad

UP5K = CONFIGS["up5k"]


def residual(rng):
    """An addition of what a convolution with stride computes, and another convolution of it."""
    b = Builder(rng, (4, 12, 4))
    x = b.conv(b.input, 4, (3, 3), (1, 2))
    b.add(b.conv(x, 4, (1, 3), relu=False), x)
    return b.network("residual")


def strips_of(frontend, count):
    return Strips(frontend.lowered, frontend.layout, frontend.first, frontend.output, count, CompileError)


def test_columns_by_hand(rng):
    strips = strips_of(Frontend(residual(rng), UP5K), 2)
    # Of 12 columns with stride 2 there are 6, and one pixel of padding at the right: window x begins at column 2*x. The second
    # convolution begins one to the left and ends one to the right.
    assert strips.columns == {
        "t3 [0]": range(3), "t2 [0]": range(3), "t1 [0]": range(4), "t0 [0]": range(9),
        "t3 [1]": range(3, 6), "t2 [1]": range(3, 6), "t1 [1]": range(2, 6), "t0 [1]": range(4, 12),
    }  # fmt: skip
    assert strips.given == {"t0 [0]": 0, "t0 [1]": 4}
    assert strips.taken == {"t3 [0]": 0, "t3 [1]": 3}
    assert [layer.output for layer, _ in strips.lowered] == [f"t{i} [{strip}]" for strip in (0, 1) for i in (1, 2, 3)]


def test_kernels_by_hand(rng):
    strips = strips_of(Frontend(residual(rng), UP5K), 2)
    (first,), (second,), (add,) = (kernels for _, kernels in strips.lowered[3:])
    # Of the strip at the right: x 2 to 5 from column 4 on, which is the input's first.
    assert (first.origin[1], first.place[1], first.columns, first.source.columns, first.target.columns) == (0, 0, 4, 8, 4)
    # y 3 to 5 from x 2 on, which is the first of x.
    assert (second.origin[1], second.place[1], second.columns, second.source.columns) == (0, 0, 3, 4)
    # y 3, the first of y, and x 3, the second of x.
    assert (add.inputs, add.origin[1], add.second, add.columns) == (("t2 [1]", "t1 [1]"), 0, 1, 3)
    (first,), (second,), _ = (kernels for _, kernels in strips.lowered[:3])
    assert (first.origin[1], first.columns, first.source.columns) == (0, 4, 9)
    assert (second.origin[1], second.columns, second.source.columns) == (-1, 3, 4)  # padding at the border of the map alone


def test_places_have_the_columns_of_the_strip(rng):
    frontend = Frontend(residual(rng), UP5K)
    strips = strips_of(frontend, 2)
    for name, columns in strips.columns.items():
        place, whole = strips.place(name, 640), frontend.layout.place(name[:2], 640)
        assert (place.columns, whole.columns) == (len(columns), 12 if name[:2] == "t0" else 6)
        assert (place.address, place.rows, place.channels, place.pitch) == (640, whole.rows, whole.channels, whole.pitch)
        assert strips.root(name) == (name, 0)
        assert strips.map(name).columns == len(columns)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("build", [conv, depthwise, max_pool, pad, concat, fork, residual], ids=lambda build: build.__name__)
def test_strips_cover_each_output_column_once(build, count, rng):
    for _ in range(4):
        frontend = Frontend(build(rng), UP5K)
        width = frontend.layout.place(frontend.output).columns
        if width < count:
            continue
        strips = strips_of(frontend, count)
        output = frontend.layout.root(frontend.output)[0]
        found = [strips.columns[f"{output} [{strip}]"] for strip in range(count)]
        assert [*itertools.chain(*found)] == [*range(width)]
        assert {len(columns) for columns in found} <= {width // count, width // count + 1}
        assert [*strips.taken.values()] == [columns.start for columns in found]
        for name, columns in strips.columns.items():
            assert 0 <= columns.start < columns.stop <= frontend.layout.place(name[: name.index(" ")]).columns


def refusal(network, count, stream=True):
    frontend = Frontend(network, UP5K)
    with pytest.raises(CompileError) as caught:
        frontend.compile(Strategy((Group(len(frontend.layers), 1),), stream, count))
    return str(caught.value)


def test_more_strips_than_columns(rng):
    frontend = Frontend(residual(rng), UP5K)
    frontend.compile(Strategy((Group(3, 1),), True, 6))
    message = "an output of 6 columns must have at most 6 strips, not 7"
    assert refusal(frontend.source, 7) == message


def test_strips_without_a_stream(rng):
    assert refusal(residual(rng), 2, stream=False) == "2 strips need an input and an output that are streamed"


def test_a_reshape_cannot_be_cut(rng):
    b = Builder(rng, (4, 6, 4))
    b.conv(b.reshape(b.conv(b.input, 4, (1, 1)), (6, 2, 8)), 5, (1, 1))
    assert refusal(b.network(), 2) == "layer 'l1_reshape': maps must not be reshaped where they are cut into strips"


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_strips_compute_what_the_network_does(count, rows, rng):
    network = residual(rng)
    frontend = Frontend(network, UP5K)
    compiled = frontend.compile(Strategy((Group(3, rows),), True, count))
    x = inputs(rng, network, 3)
    for one, output in zip(x, network.run(x)[network.output]):
        np.testing.assert_array_equal(infer(compiled, one, count=False).output, output)
