"""Which tensors share bytes, and how their pixels lie: reshapes, views of concatenations, and pitches by hand."""

import pytest

from gossamer.golden.layout import Layout, map_shape
from gossamer.golden.network import MaxPool
from gossamer.golden.program import TensorPlace
from gossamer.golden.spec import CONFIGS
from gossamer.golden.tiling import Map
from tests.networks import Builder

UP5K = CONFIGS["up5k"]


def layout(b, config=UP5K):
    return Layout.of(b.network(), b.layers, b.layers[-1].output, config)


def part(b, channels):
    """A convolution of the input, with its scale, so that it can be concatenated."""
    return b.conv(b.input, channels, (1, 1), like=b.input)


@pytest.fixture
def b(rng):
    return Builder(rng, (2, 3, 4))


def test_shapes_of_maps():
    assert map_shape((7,)) == (1, 1, 7)
    assert map_shape((2, 3, 4)) == (2, 3, 4)


# Concatenations


def test_parts_of_a_concatenation_are_written_where_they_belong(b):
    x, y = part(b, 5), part(b, 7)
    out = b.concat(x, y)
    found = layout(b)
    assert found.views == {x: (out, 0), y: (out, 5)}
    first, second = found.map(x), found.map(y)
    assert (first.name, first.channels, first.pitch, first.offset, first.written) == (out, 5, 12, 0, 5)
    assert (second.name, second.channels, second.pitch, second.offset, second.written) == (out, 7, 12, 5, 7)
    place = found.place(y, 640)
    assert (place.address, place.pitch, place.offset, place.channels) == (640, 12, 5, 7)
    assert found.root(y) == (out, 5)


def test_the_last_part_fills_up_the_word(b):
    x, y = part(b, 5), part(b, 7)
    out = b.concat(x, y)
    b.pool(MaxPool, out)  # which reads words of 16 channels
    found = layout(b)
    assert (found.map(y).pitch, found.map(y).written) == (16, 7)  # the array takes the same time for any word
    b.conv(out, 8, (1, 1))  # which skips bytes that are zero
    found = layout(b)
    assert (found.map(x).pitch, found.map(x).written) == (16, 5)
    assert (found.map(y).pitch, found.map(y).written) == (16, 16 - 5)


def test_views_of_views_add_their_offsets(b):
    x, y, z = part(b, 2), part(b, 3), part(b, 4)
    inner = b.concat(x, y)
    out = b.concat(z, inner)
    found = layout(b)
    assert found.root(x) == (out, 4)
    assert found.root(y) == (out, 4 + 2)
    assert found.root(inner) == (out, 4)
    assert found.map(y).pitch == 9
    # the inner concatenation's last part is the outer's too
    assert (found.map(y).written, found.map(x).written) == (3, 2)


def test_what_others_read_too_is_copied(b):
    x, y = part(b, 5), part(b, 7)
    out = b.concat(x, y)
    b.concat(out, b.conv(x, 3, (1, 1), like=x))
    found = layout(b)
    assert x not in found.views
    assert found.views[y][1] == 5
    assert found.map(x).name == x
    assert found.pitches[x] == 16  # a copy reads words
    target = found.slice(x, out, 0)
    assert (target.name, target.channels, target.offset, target.pitch) == (found.root(out)[0], 5, 0, 15)


def test_the_network_s_input_is_copied(b):
    x = part(b, 5)
    out = b.concat(x, b.input)
    found = layout(b)
    assert found.views == {x: (out, 0)}
    assert found.slice(b.input, out, 5).offset == 5
    assert found.slice(b.input, out, 5).written == 4


def test_the_input_is_no_view_even_if_nobody_else_reads_it(b):
    b.concat(b.input)
    assert layout(b).views == {}


def test_a_part_that_comes_twice_is_copied(b):
    x = part(b, 5)
    b.concat(x, x)
    assert layout(b).views == {}


def test_the_network_s_output_is_no_view(b):
    x, y = part(b, 5), part(b, 7)
    b.concat(x, y)
    assert Layout.of(b.network(), b.layers, x, UP5K).views == {y: (b.layers[-1].output, 5)}


# Reshapes


def test_a_reshape_to_the_same_map_shares_the_bytes(rng):
    b = Builder(rng, (1, 1, 8))
    x = b.conv(b.input, 12, (1, 1))
    y = b.reshape(x, (12,))
    z = b.reshape(y, (1, 1, 12))
    b.conv(z, 3, (1, 1))
    found = layout(b)
    assert (found.homes[y], found.homes[z]) == (x, x)


def test_a_reshape_that_only_fully_connected_layers_read_shares_the_bytes(b):
    x = b.conv(b.input, 4, (1, 1))
    y = b.reshape(b.reshape(x, (3, 2, 4)), (24,))
    b.fully_connected(y, 3)
    found = layout(b)
    assert found.homes[y] == x
    assert (found.map(y).rows, found.map(y).columns, found.map(y).channels) == (2, 3, 4)


def test_a_reshape_that_a_window_sees_has_its_own_bytes(b):
    x = b.conv(b.input, 4, (1, 1))
    y = b.reshape(x, (3, 2, 4))
    b.conv(y, 3, (2, 2))
    b.fully_connected(y, 3)
    found = layout(b)
    assert found.homes[y] == y
    assert (found.map(y).rows, found.map(y).columns) == (3, 2)


# Pitches


@pytest.mark.parametrize("config, pitch", [("up5k", 32), ("ecp5_85", 64)])
def test_maps_of_which_words_are_read_have_whole_words(config, pitch, b):
    x = b.conv(b.input, 20, (1, 1))
    out = b.depthwise(x)
    found = layout(b, CONFIGS[config])
    assert found.pitches[x] == pitch
    assert found.map(x).written == 20
    assert found.pitches[b.input] == 4
    assert found.pitches[out] == 20
    b.conv(x, 8, (1, 1))  # which skips bytes that are zero
    assert layout(b, CONFIGS[config]).map(x).written == pitch


def test_other_maps_are_dense(b):
    x = b.conv(b.input, 20, (3, 3))
    b.depthwise(x, multiplier=2)  # a convolution
    assert set(layout(b).pitches.values()) == {4, 20, 40}


@pytest.mark.parametrize(
    "dtype, channels, pitch, on_words, per_byte",
    [("int4", 5, 6, 16, 2), ("int4", 6, 6, 16, 2), ("int4", 17, 18, 32, 2), ("binary", 8, 8, 16, 8), ("binary", 24, 24, 32, 8)],
)
def test_pixels_of_packed_maps_have_whole_bytes(dtype, channels, pitch, on_words, per_byte, b):
    """Which are written as a whole; where words are read, they are whole words of the row buffer."""
    x = b.conv(b.input, channels, (1, 1), dtype=dtype)
    b.conv(x, 8, (1, 1))
    found = layout(b).map(x)
    assert (found.channels, found.pitch, found.written, found.per_byte) == (channels, pitch, pitch, per_byte)
    b.conv(b.max_pool(x), 8, (1, 1))
    found = layout(b).map(x)
    assert (found.pitch, found.written) == (on_words, on_words)  # also read by a convolution, so that it is filled


def test_bytes_of_a_packed_map_that_only_words_are_read_of(b):
    x = b.conv(b.input, 5, (1, 1), dtype="int4")
    b.conv(b.max_pool(x), 8, (1, 1))
    found = layout(b).map(x)
    assert (found.pitch, found.written) == (16, 6)


def test_parts_of_a_concatenation_of_int4_begin_at_bytes(b):
    first = b.conv(b.input, 6, (1, 1), dtype="int4")
    second = b.conv(b.input, 8, (1, 1), dtype="int4", like=first)
    out = b.concat(first, second)
    b.conv(out, 8, (1, 1))
    found = layout(b)
    assert found.root(second) == (out, 6)
    assert (found.map(second).pitch, found.map(second).offset, found.map(second).per_byte) == (14, 6, 2)
    assert found.place(second, 64) == TensorPlace(64, 2, 3, 8, 14, 6, 2)


def test_values_outside_and_bytes_that_stand_for_them():
    kinds = {1: (128, -3), 2: (8, -3), 8: (1, -1)}  # what is added to a value, and what is outside the map
    for per_byte, expected in kinds.items():
        found = Map("x", 1, 1, 8, 8, 0, 8, -3, per_byte)
        assert (found.bias, found.outside) == expected
