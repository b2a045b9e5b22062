"""How layers are cut: geometry by hand, and that the pieces cover a layer once and fit the configuration."""

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from gossamer.golden.compiler import CompileError
from gossamer.golden.lowering import lower
from gossamer.golden.network import Conv, Depthwise, FullyConnected, MaxPool, Tensor
from gossamer.golden.spec import CONFIGS, Config
from gossamer.golden.tiling import Map, Piece, cut, cut_window, descriptor, rows_read
from tests.networks import SMALL

UP5K = CONFIGS["up5k"]


def words(channels, config):
    """The pitch of pixels of whole words."""
    return -(-channels // config.lanes) * config.lanes


def kernel_of(layer, shape, outputs, config=UP5K, *, pitch=None):
    """The kernel of a layer over a map of ``shape`` to one of shape ``outputs``, both with zero point 0."""
    tensors = {name: Tensor(name, shape, 1.0, 0) for name, shape in (("x", shape), ("y", outputs))}
    target = (1, 1, *outputs)[-3:]
    source = (1, 1, *shape)[-3:]
    maps = [Map("x", *source, pitch or source[2], 0, source[2], 0), Map("y", *target, target[2], 0, target[2], 0)]
    (kernel,) = lower(SimpleNamespace(tensors=tensors), layer, maps[:1], maps[1], config, CompileError)
    return kernel


def conv(shape, outputs, window, config=UP5K, **geometry):
    """A convolution of a map of ``shape`` to one of shape ``outputs``."""
    count = outputs[2]
    weights = np.ones((count, *window, shape[2]), np.int8)
    layer = Conv("c", ("x",), "y", weights, np.zeros(count, np.int32), np.ones(count) / 64, **geometry)
    return kernel_of(layer, shape, outputs, config, pitch=None)


def depthwise(shape, outputs, window, config=UP5K, **geometry):
    count = shape[2]
    weights = np.ones((*window, count), np.int8)
    layer = Depthwise("d", ("x",), "y", weights, np.zeros(count, np.int32), np.ones(count) / 64, **geometry)
    return kernel_of(layer, shape, outputs, config, pitch=words(count, config))


def dense(inputs, outputs, config=UP5K, weight=1):
    weights = np.full((outputs, inputs), weight, np.int8)
    layer = FullyConnected("f", ("x",), "y", weights, np.zeros(outputs, np.int32), np.ones(outputs) / 64)
    return kernel_of(layer, (inputs,), (outputs,), config)


def fields(kernel, piece, config=UP5K):
    """Descriptor and step in one, with addresses as if both maps lay at 0 and were there as a whole."""
    found, step, position = descriptor(kernel, piece, config)
    row, out_row = (-(-m.columns * m.pitch // config.store_bytes) for m in (kernel.source, kernel.target))
    addresses = {
        "in_address": position.in_row * row + position.in_word,
        "out_address": position.out_row * out_row * config.store_bytes + position.out_byte,
    }
    return found | step | addresses


def whole(kernel):
    return Piece(*map(range, (kernel.groups, kernel.rows, kernel.columns, kernel.kernel_rows, kernel.beats)))


def assert_fields(kernel, piece, config=UP5K, **expected):
    found = fields(kernel, piece, config)
    assert {name: found[name] for name in expected} == expected


# Geometry


def test_a_window_at_the_border_by_hand():
    # 5 pixels of 3 channels, one of padding on the left: 15 bytes of which a window of 3 pixels has 9
    kernel = conv((6, 5, 3), (3, 3, 2), (3, 3), stride=(2, 2), padding=(1, 0, 1, 1))
    assert_fields(
        kernel, whole(kernel),
        groups=1, last_lanes=2, kernel_rows=3, stride_rows=2, width=3,
        left_granules=2,  # a word of 16 bytes in front, 2 store words
        offset=13,  # of whose bytes the last 3 are the padding pixel
        right_granule=4, tail=7,  # 15 bytes in words of 8
        slot_words=3,  # the last window ends with byte 13 + 2*6 + 9
        ahead=1, ring_words=6 * 3, advance_words=6,  # 3 + 2 rows, in twos
        x_step=6, range_last=8, tap_step=0, out_x_step=2, out_row_step=8,
        lead_rows=1, in_rows=6, rows=3, in_address=0, out_address=0,
    )  # fmt: skip


def test_rows_are_loaded_ahead_only_where_they_fit():
    def ring(columns):
        kernel = conv((9, columns, 16), (7, columns, 1), (3, 1))
        found = fields(kernel, whole(kernel))
        return found["ahead"], found["ring_words"]

    assert ring(64) == (1, 256)  # four rows of 64 words fill the row buffer
    assert ring(65) == (0, 3 * 65)


def test_a_tile_in_the_middle_loads_its_columns_alone():
    # pixels of 4 bytes; outputs 10 to 14 see pixels 9 to 15, that is bytes 36 to 63, which begin in word 2
    kernel = conv((3, 40, 4), (3, 40, 5), (3, 3), padding=(1, 1, 1, 1))
    tile = dataclasses.replace(whole(kernel), columns=range(10, 15))
    assert_fields(
        kernel, tile,
        left_granules=0, in_address=4, offset=4, right_granule=4, tail=8, slot_words=2, width=5, x_step=4, range_last=11,
        out_address=50, lead_rows=1, in_rows=3,
    )  # fmt: skip


def test_the_last_tile_ends_with_padding():
    # outputs 35 to 39 see pixels 34 to 40, of which the last is padding: bytes 136 to 163, of 160, from word 8 on
    kernel = conv((3, 40, 4), (3, 40, 5), (3, 3), padding=(1, 1, 1, 1))
    tile = dataclasses.replace(whole(kernel), columns=range(35, 40))
    assert_fields(
        kernel, tile, left_granules=0, in_address=16, offset=8, right_granule=4, tail=8, slot_words=3, out_address=175
    )


def test_padding_that_is_larger_than_a_tile():
    # 40 padding pixels of 4 bytes in front; outputs 0 to 3 see only padding, but one word of the map is loaded
    kernel = conv((1, 8, 4), (1, 48, 1), (1, 1), padding=(0, 0, 40, 0))
    tile = dataclasses.replace(whole(kernel), columns=range(4))
    found = fields(kernel, tile)
    assert (found["in_address"], found["offset"], found["x_step"], found["width"]) == (0, 0, 4, 4)
    assert found["left_granules"] == 20  # 160 bytes
    assert found["right_granule"] == 21  # at least one word of the map
    assert found["slot_words"] == 11


def test_rows_of_a_tile_that_lie_in_the_padding():
    kernel = conv((4, 3, 16), (9, 3, 1), (3, 1), padding=(4, 3, 0, 0))

    def rows(start, stop):
        found = fields(kernel, dataclasses.replace(whole(kernel), rows=range(start, stop)))
        return found["lead_rows"], found["in_rows"], found["in_address"], found["out_address"]

    # windows start at row -4 + y and have 3 rows; 4 rows of 6 store words exist; output rows take a store word
    assert rows(0, 9) == (4, 4, 0, 0)
    assert rows(0, 1) == (3, 0, 0, 0)  # rows -4 to -2
    assert rows(0, 2) == (4, 0, 0, 0)  # rows -4 to -1
    assert rows(2, 4) == (2, 2, 0, 16)  # rows -2 to 1
    assert rows(5, 7) == (0, 3, 6, 40)  # rows 1 to 4
    assert rows(8, 9)[:2] == (0, 0)  # rows 4 to 6


def test_a_part_of_a_window_by_hand():
    # a window of 3 rows of 48 bytes; its second row's bytes 16 to 47 are pixels 1 and 2
    kernel = conv((5, 6, 16), (3, 4, 2), (3, 3))
    part = dataclasses.replace(whole(kernel), kernel_rows=range(1, 2), beats=range(16, 48))
    assert_fields(
        kernel, part,
        kernel_rows=1, range_last=31, in_address=1 * 12 + 2, offset=0, x_step=16, slot_words=5, right_granule=10, in_rows=3,
    )  # fmt: skip


def test_groups_of_a_convolution_see_the_same_bytes():
    kernel = conv((2, 2, 4), (2, 2, 40), (1, 1))
    first, last = (fields(kernel, dataclasses.replace(whole(kernel), groups=groups)) for groups in (range(2), range(2, 3)))
    assert (first["offset"], last["offset"]) == (0, 0)
    assert (first["groups"], first["last_lanes"]) == (2, 16)
    assert (last["groups"], last["last_lanes"], last["out_address"]) == (1, 8, 32)
    # the next row begins 2 pixels of 40 bytes behind; the step counts from the last group
    assert (first["out_row_step"], last["out_row_step"]) == (80 - 16, 80)


def test_groups_in_word_mode_see_their_own_words():
    kernel = depthwise((3, 4, 40), (3, 4, 40), (3, 3), padding=(1, 1, 1, 1))
    piece = dataclasses.replace(whole(kernel), groups=range(1, 3))
    # pixels of 48 bytes, of which one of padding is in front
    assert_fields(
        kernel, piece,
        offset=16, left_granules=6, x_step=48, tap_step=3, range_last=2, slot_words=18, last_lanes=8, out_address=16,
    )  # fmt: skip


def test_strides_of_tiles():
    kernel = conv((7, 101, 2), (3, 50, 1), (3, 3), stride=(2, 2))
    tile = dataclasses.replace(whole(kernel), columns=range(25, 50), rows=range(1, 3))
    # pixel 50 is byte 100, 4 behind a word of 16; 24 steps of 4 bytes and a window of 6
    assert_fields(
        kernel, tile,
        in_address=2 * 26 + 12, offset=4, x_step=4, slot_words=7, stride_rows=2, in_rows=5, out_address=1 * 56 + 25,
    )  # fmt: skip


def test_rows_that_are_read_by_hand():
    # windows of 3 rows, 2 apart, that start at row -1 of 7
    kernel = conv((7, 1, 1), (4, 1, 1), (3, 1), stride=(2, 1), padding=(1, 1, 0, 0))
    for rows, expected in (
        (range(4), (1, 0, 7)),
        (range(1), (1, 0, 2)),  # -1 to 1
        (range(1, 3), (0, 1, 5)),  # 1 to 5
        (range(3, 4), (0, 5, 2)),  # 5 to 7
    ):
        assert rows_read(kernel, dataclasses.replace(whole(kernel), rows=rows)) == expected


def test_parts_of_the_only_window_by_hand():
    # 12 rows of 4 bytes, 40 outputs in three groups of 16 lanes; half of 256 weight vectors are 128
    kernel = conv((12, 1, 4), (1, 1, 40), (12, 1), SMALL[1])
    parts = cut_window(kernel, SMALL[1], CompileError, 5)
    assert [[(p.kernel_rows, p.groups) for p in part] for part in parts] == [
        [(rows, range(3))] for rows in (range(5), range(5, 10), range(10, 12))
    ]
    assert [(p.partial_in, p.partial_out) for (p,) in parts] == [(False, True), (True, True), (True, False)]
    # Steps whose sums fill more than half of the parameter buffer: 8 windows of 16.
    kernel = conv((3, 1, 1), (1, 1, 160), (3, 1), SMALL[1])
    assert [[(p.groups, p.partial_at) for p in part] for part in cut_window(kernel, SMALL[1], CompileError, 1)] == [
        [(range(5), 0), (range(5, 10), 5)]
    ] * 3


@pytest.mark.parametrize("rows", [3, 4])
def test_a_window_that_comes_at_once_is_not_cut(rows):
    assert cut_window(conv((3, 1, 1), (1, 1, 5), (3, 1)), UP5K, CompileError, rows) == []


def test_what_has_several_windows_or_is_a_maximum_is_not_cut_by_its_rows():
    assert cut_window(conv((4, 1, 1), (2, 1, 5), (3, 1)), UP5K, CompileError, 1) == []
    layer = MaxPool("p", ("x",), "y", (3, 1), (1, 1))
    assert cut_window(kernel_of(layer, (3, 1, 16), (1, 1, 16)), UP5K, CompileError, 1) == []


def test_partial_sums_lie_behind_each_other():
    kernel = dense(700, 20, SMALL[1])
    first = dataclasses.replace(whole(kernel), beats=range(256), partial_out=True, partial_at=3)
    found = fields(kernel, first, SMALL[1])
    assert (found["partial_out"], found["out_x_step"], found["out_row_step"], found["out_address"]) == (1, 128, 0, 3 * 128)


# Pieces


CASES = {
    "fits": lambda c: conv((4, 5, 3), (4, 5, 7), (3, 3), c, padding=(1, 1, 1, 1)),
    "groups": lambda c: conv((3, 3, 4), (3, 3, 700), (1, 1), c),
    "columns": lambda c: conv((3, 900, 12), (2, 899, 2), (2, 2), c),
    "rows of the window": lambda c: conv((4, 5, 40), (4, 5, 9), (3, 3), c, padding=(1, 1, 1, 1)),
    "beats of a row": lambda c: dense(1700, 90, c),
    "all": lambda c: conv((5, 300, 100), (2, 149, 150), (2, 3), c, stride=(2, 2)),
    "words": lambda c: depthwise((12, 40, 20), (5, 3, 20), (9, 37), c),
    "one row of words": lambda c: depthwise((1, 700, 20), (1, 3, 20), (1, 698), c),
    "many rows": lambda c: conv((4100, 1, 1), (2050, 1, 1), (2, 1), c, stride=(2, 1)),
    "many kernel rows": lambda c: conv((200, 1, 1), (4, 1, 1), (197, 1), c),
    "masks of groups": lambda c: sparse((3, 3, 16), (3, 3, 700), (3, 3), c, 0.4, padding=(1, 1, 1, 1)),
    "masks of a window": lambda c: sparse((40, 20, 8), (1, 1, 90), (40, 20), c, 0.02),
}
BIG = dataclasses.replace(UP5K, name="wide28", technology="generic", acc_bits=28, store_ports=2, lut_lanes=0)
MASKED = dataclasses.replace(SMALL[3], name="masked", masks=256)


@pytest.mark.parametrize("config", [*SMALL, UP5K, MASKED], ids=lambda config: config.name)
@pytest.mark.parametrize("case", CASES)
def test_pieces_cover_every_tap_of_every_output_once(case, config):
    kernel = CASES[case](config)
    done = np.zeros((kernel.groups, kernel.rows, kernel.columns, kernel.kernel_rows, kernel.beats), np.int8)
    for piece in cut(kernel, config, CompileError):
        done[np.ix_(piece.groups, piece.rows, piece.columns, piece.kernel_rows, piece.beats)] += 1
    assert (done == 1).all()


@pytest.mark.parametrize("config", [*SMALL, UP5K, MASKED], ids=lambda config: config.name)
@pytest.mark.parametrize("case", CASES)
def test_every_piece_fits(case, config):
    kernel = CASES[case](config)
    for piece in cut(kernel, config, CompileError):
        assert len(kernel.weights_of(piece)) <= config.weight_vectors * config.lanes
        entries = piece.windows if piece.partial_in else len(piece.groups)
        assert entries * kernel.group <= config.parameters
        if kernel.sparse:
            assert len(kernel.masks_of(piece, config)) <= config.masks * config.mask_bytes
        found = fields(kernel, piece, config)
        assert found["ring_words"] <= config.row_words
        assert found["ring_words"] >= found["slot_words"] * len(piece.kernel_rows)
        assert 0 <= found["left_granules"] < found["right_granule"] <= found["slot_words"] * config.granules
        # the sequencer's fields, docs/formats.md
        assert found["groups"] <= 255
        assert found["width"] <= 1023
        assert found["kernel_rows"] <= 63
        assert max(found["rows"], found["in_rows"]) <= 2047


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.name)
@pytest.mark.parametrize("case", CASES)
def test_partial_sums_come_before_what_adds_to_them(case, config):
    """The sums of a window begin without partial sums and end without, and what is read has been written by the part before."""
    kernel = CASES[case](config)
    area = {}  # what each place in the area of partial sums holds: the window and the beats that are in its sum
    finished = set()
    for piece in cut(kernel, config, CompileError):
        taps = len(piece.kernel_rows) * len(piece.beats)
        windows = itertools.product(piece.rows, piece.groups, piece.columns)
        for number, window in enumerate(windows, piece.partial_at):
            before, sums = area.pop(number, (None, 0)) if piece.partial_in else (window, 0)
            assert before == window
            if piece.partial_out:
                assert number not in area
                area[number] = window, sums + taps
            else:
                assert sums + taps == kernel.kernel_rows * kernel.beats
                finished.add(window)
    assert not area
    assert len(finished) == kernel.rows * kernel.groups * kernel.columns


def shapes(kernel, config=UP5K):
    return [tuple(map(len, (p.groups, p.rows, p.columns, p.kernel_rows, p.beats))) for p in cut(kernel, config, CompileError)]


def test_what_fits_is_one_piece():
    assert shapes(conv((4, 5, 3), (4, 5, 7), (3, 3), padding=(1, 1, 1, 1))) == [(1, 4, 5, 3, 9)]


def test_groups_take_half_a_buffer_when_not_all_fit():
    def groups(outputs, inputs, **sizes):
        config = Config("c", **sizes)
        return [len(piece.groups) for piece in cut(dense(inputs, outputs, config), config, CompileError)]

    assert groups(48, 170) == [3]  # 510 of 512 vectors
    assert groups(48, 171) == [1, 1, 1]  # 513
    assert groups(48, 100, weight_vectors=256) == [1, 1, 1]
    assert groups(80, 60, weight_vectors=256) == [2, 2, 1]
    assert groups(256, 1) == [16]  # 256 of 256 parameters
    assert groups(257, 1) == [8, 8, 1]


def test_columns_are_cut_into_as_few_tiles_as_needed():
    # rows of 300 words; a window of one row needs one slot of the row buffer's 256 words
    assert shapes(conv((1, 300, 16), (1, 300, 1), (1, 1))) == [(1, 1, 150, 1, 16)] * 2


def test_kernel_rows_are_cut_before_columns_of_the_window():
    # 9 taps of 40 channels are 360 vectors of 256: two rows of 240, and one
    config = dataclasses.replace(BIG, weight_vectors=256)
    assert [shape[3:] for shape in shapes(conv((3, 3, 40), (1, 1, 1), (3, 3), config), config)] == [(2, 120), (1, 120)]


def test_a_row_of_the_window_is_cut_at_words():
    config = SMALL[1]
    assert config.lanes == 16
    assert [piece.beats for piece in cut(dense(700, 1, config), config, CompileError)] == [
        range(256), range(256, 512), range(512, 700),
    ]  # fmt: skip


def test_a_maximum_is_never_cut():
    layer = MaxPool("p", ("x",), "y", (1, 171), (1, 1))
    kernel = kernel_of(layer, (1, 171, 1), (1, 1, 1), pitch=16)
    with pytest.raises(CompileError, match=r"^layer 'p' needs 513 weight vectors per 16 output channels"):
        cut(kernel, UP5K, CompileError)


# Accumulators


def partial_dense(inputs, weight, bias, config):
    weights = np.full((1, inputs), weight, np.int8)
    layer = FullyConnected("f", ("x",), "y", weights, np.array([bias], np.int32), np.ones(1) / 64)
    tensors = {name: Tensor(name, shape, 1.0, -128) for name, shape in (("x", (inputs,)), ("y", (1,)))}
    maps = [Map("x", 1, 1, inputs, inputs, 0, inputs, -128), Map("y", 1, 1, 1, 1, 0, 1, -128)]
    (kernel,) = lower(SimpleNamespace(tensors=tensors), layer, maps[:1], maps[1], config, CompileError)
    return kernel


@pytest.mark.parametrize("sign", [1, -1])
def test_partial_sums_fit_an_entry(sign):
    """Two parts of 256 bytes and a last one that does not count: 512 * 255 * 127 = 16581120 of 2**27."""
    config = dataclasses.replace(BIG, weight_vectors=256)
    most = (1 << 27) - 1 - 16581120
    cut(partial_dense(600, 127 * sign, most * sign, config), config, CompileError)
    message = f"^layer 'f': its partial sums must fit 28 bits, and can reach {sign * (1 << 27) + (sign < 0) * -1}$"
    with pytest.raises(CompileError, match=message):
        cut(partial_dense(600, 127 * sign, (most + 1) * sign - (sign < 0), config), config, CompileError)
    cut(partial_dense(200, 127 * sign, (most + 1) * sign, config), config, CompileError)  # no parts


def test_sums_that_overflow_are_cut():
    # 255 * 127 * 4 = 129540 of 131071 in 18 bits, per channel
    config = dataclasses.replace(BIG, acc_bits=18, lanes=16)
    assert [len(piece.beats) for piece in cut(dense(4, 1, config, weight=127), config, CompileError)] == [4]
    message = r"^layer 'f': its sums must fit the 18 bits of an accumulator, and can reach 161925$"
    with pytest.raises(CompileError, match=message):  # a word of the row buffer is not cut
        cut(dense(5, 1, config, weight=127), config, CompileError)
    with pytest.raises(CompileError, match=message.replace("161925", "-161925")):
        cut(dense(5, 1, config, weight=-127), config, CompileError)
    pieces = cut(dense(40, 1, config, weight=32), config, CompileError)  # 255 * 32 * 16 = 130560
    assert [piece.beats for piece in pieces] == [range(16), range(16, 32), range(32, 40)]


# Masks and weights of four bits


MODAL = dataclasses.replace(BIG, name="modal", masks=256, int4=True, binary=True, nibbles=True)


def sparse(shape, outputs, window, config, density, **geometry):
    """A convolution with zeros in all but so many of its vectors; block-sparse, if the configuration has masks."""
    rng = np.random.default_rng(7)
    weights = rng.choice([-100, 100], (outputs[2], *window, shape[2])).astype(np.int8)
    for group in range(0, outputs[2], config.lanes):
        weights[group : group + config.lanes, rng.random((*window, shape[2])) >= density] = 0
    layer = Conv("c", ("x",), "y", weights, np.zeros(outputs[2], np.int32), np.ones(outputs[2]) / 64, **geometry)
    return kernel_of(layer, shape, outputs, config)


def of_vectors(stored, shape, outputs, window, config=MODAL, **geometry):
    """The same with the vectors of ``stored``, of group, kernel row and byte of the window, whose weights are their number."""
    weights = np.zeros((outputs[2], *window, shape[2]), np.int8)
    for number, (group, row, byte) in enumerate(stored, 1):
        weights[group * 16, row, byte // shape[2], byte % shape[2]] = number + 20  # too much for four bits
    layer = Conv("c", ("x",), "y", weights, np.zeros(outputs[2], np.int32), np.ones(outputs[2]) / 64, **geometry)
    return kernel_of(layer, shape, outputs, config)


def masks_by_hand(kernel, piece, config=MODAL):
    """``(lanes that are stored, first)`` of each mask."""
    entries = np.frombuffer(kernel.masks_of(piece, config), np.uint8).reshape(-1, config.mask_bytes)
    found = []
    for entry in entries.tolist():
        bits = int.from_bytes(bytes(entry[:2]), "little")
        assert not any(entry[4:])
        found.append(([lane for lane in range(16) if bits >> lane & 1], entry[2] + 256 * entry[3]))
    return found


def test_masks_and_vectors_by_hand():
    """Windows of 2 rows and 40 bytes, from lane 8 on: a pixel of padding of 8 bytes is behind half a word."""
    stored = [(0, 0, 0), (0, 0, 7), (0, 0, 8), (0, 1, 39), (1, 0, 39), (1, 1, 23), (1, 1, 24)]
    kernel = of_vectors(stored, (2, 8, 8), (1, 3, 20), (2, 5), stride=(1, 2), padding=(0, 0, 1, 0))
    assert kernel.sparse
    assert kernel.phase(range(3), range(40)) == 8
    assert masks_by_hand(kernel, whole(kernel)) == [
        *[([8, 15], 0), ([0], 2), ([], 3), ([], 3), ([], 3), ([15], 3)],
        *[([], 4), ([], 4), ([15], 4), ([], 5), ([15], 5), ([0], 6)],
    ]
    vectors = np.frombuffer(kernel.weights_of(whole(kernel)), np.int8).reshape(-1, 16)
    assert vectors[:, 0].tolist() == [20 + n for n in range(1, 8)]
    assert kernel.vectors(range(2), range(40)) == 4
    assert kernel.vectors(range(1), range(8)) == 2
    assert (kernel.masks(range(3), range(2), range(40)), kernel.masks(range(3), range(1), range(16, 40))) == (6, 2)


def test_masks_of_a_part_count_its_own_vectors():
    stored = [(0, 0, 0), (0, 0, 7), (0, 0, 8), (0, 1, 39), (1, 0, 39), (1, 1, 23), (1, 1, 24)]
    kernel = of_vectors(stored, (2, 8, 8), (1, 3, 20), (2, 5), stride=(1, 2), padding=(0, 0, 1, 0))
    part = dataclasses.replace(whole(kernel), groups=range(1, 2), kernel_rows=range(1, 2), beats=range(16, 40))
    # from byte 16 on, which is in lane 8 of a word
    assert masks_by_hand(kernel, part) == [([15], 0), ([0], 1)]
    assert np.frombuffer(kernel.weights_of(part), np.int8).reshape(-1, 16)[:, 0].tolist() == [26, 27]


@pytest.mark.parametrize("density, pitch, stride, masks, chosen", [
    (0.5, 16, 1, 256, True), (0.5, 8, 2, 256, True), (0.5, 8, 1, 256, False), (0.5, 16, 1, 0, False), (1, 16, 1, 256, False),
])  # fmt: skip
def test_masks_are_used_if_vectors_are_zero_and_windows_begin_in_one_lane(density, pitch, stride, masks, chosen):
    config = dataclasses.replace(MODAL, masks=masks)
    kernel = sparse((4, 9, pitch), (4, 9 // stride, 16), (1, 1), config, density, stride=(1, stride))
    assert kernel.sparse == chosen


def test_a_single_window_may_begin_anywhere():
    assert sparse((4, 3, 5), (1, 1, 16), (4, 3), MODAL, 0.5).sparse


@pytest.mark.parametrize("share, chosen", [(90, True), (91, False)])
def test_masks_are_used_up_to_nine_vectors_in_ten(share, chosen):
    weights = np.zeros((16, 100), np.int8)
    weights[:, :share] = 99
    layer = FullyConnected("f", ("x",), "y", weights, np.zeros(16, np.int32), np.ones(16) / 64)
    assert kernel_of(layer, (100,), (16,), MODAL).sparse == chosen


def test_masks_that_are_few_cut_groups_and_windows():
    # a window of 9 pixels of 16 channels has 9 masks; 28 groups of 9 are 252 masks
    def groups(count, masks):
        config = dataclasses.replace(MODAL, masks=masks, parameters=1024)
        kernel = sparse((3, 3, 16), (1, 1, 16 * count), (3, 3), config, 0.05)
        return [len(piece.groups) for piece in cut(kernel, config, CompileError)]

    assert groups(28, 256) == [28]
    assert groups(29, 256) == [14, 14, 1]  # each half of the buffer
    assert groups(29, 512) == [29]
    # 40 rows of 10 words are 400 masks; 25 rows have 250
    config = dataclasses.replace(MODAL, row_words=1024)
    kernel = sparse((40, 20, 8), (1, 1, 16), (40, 20), config, 0.02)
    assert [len(piece.kernel_rows) for piece in cut(kernel, config, CompileError)] == [20, 20]


def test_zero_vectors_make_windows_fit_that_would_not():
    kernel = sparse((1, 1, 2000), (1, 1, 16), (1, 1), MODAL, 0.1)
    assert kernel.vectors(range(1), range(2000)) < 256
    assert len(list(cut(kernel, MODAL, CompileError))) == 1
    plain = dataclasses.replace(MODAL, masks=0)
    assert len(list(cut(sparse((1, 1, 2000), (1, 1, 16), (1, 1), plain, 0.1), plain, CompileError))) == 4


def test_parts_of_the_only_window_have_masks_for_their_rows():
    """A row of 128 pixels of 8 bytes has 64 masks: four rows have as many as there are, eight too many."""
    config = dataclasses.replace(MODAL, weight_vectors=8192, row_words=1024)
    kernel = sparse((16, 128, 8), (1, 1, 32), (16, 128), config, 0.1)
    parts = cut_window(kernel, config, CompileError, 4)
    assert [[(len(p.kernel_rows), len(p.groups)) for p in part] for part in parts] == [[(4, 1), (4, 1)]] * 4
    assert cut_window(kernel, config, CompileError, 8) == []


def test_weights_of_four_bits_are_two_in_a_byte():
    # 40 channels are a group of 32, and one of 8; channel n of byte b of the window has weight (n + b) % 16 - 8
    weights = ((np.arange(40)[:, None] + np.arange(3)) % 16 - 8).astype(np.int8)
    layer = FullyConnected("f", ("x",), "y", weights, np.zeros(40, np.int32), np.ones(40) / 64)
    kernel = kernel_of(layer, (3,), (40,), MODAL)
    assert (kernel.fields["int4"], kernel.group, kernel.groups, kernel.lanes) == (1, 32, 2, 16)
    assert_fields(kernel, whole(kernel), MODAL, groups=2, last_lanes=8, int4=1, out_row_step=40 - 32)
    vectors = np.frombuffer(kernel.weights_of(whole(kernel)), np.uint8).reshape(2, 3, 16)
    for byte in range(3):
        low, high = weights[:16, byte], weights[16:32, byte]
        assert vectors[0, byte].tolist() == [int(a) & 15 | (int(b) & 15) << 4 for a, b in zip(low, high)]
        assert vectors[1, byte].tolist() == [*(int(a) & 15 for a in weights[32:, byte]), *[0] * 8]
    second = dataclasses.replace(whole(kernel), groups=range(1, 2))
    assert_fields(kernel, second, MODAL, groups=1, last_lanes=8, out_address=32, out_row_step=40)


def test_partial_sums_of_weights_of_four_bits_have_twice_as_many_entries():
    config = dataclasses.replace(MODAL, weight_vectors=256, masks=0)
    kernel = dense(700, 40, config, weight=7)
    pieces = list(cut(kernel, config, CompileError))
    assert [(len(p.groups), p.beats) for p in pieces] == [
        (1, part) for _ in range(2) for part in (range(256), range(256, 512), range(512, 700))
    ]
    assert_fields(kernel, pieces[0], config, partial_out=1, out_x_step=256, last_lanes=32)


def test_fields_of_packed_maps_by_hand():
    """Four bits in, a bit per value out: five pixels of 6 channels are 15 bytes, of 40 channels 25."""
    weights = np.full((40, 1, 2, 6), 99, np.int8)
    layer = Conv("c", ("x",), "y", weights, np.zeros(40, np.int32), np.ones(40) / 64)
    tensors = {"x": Tensor("x", (2, 5, 6), 1.0, 2, "int4"), "y": Tensor("y", (2, 4, 40), 1.0, 0, "binary")}
    maps = Map("x", 2, 5, 6, 6, 0, 6, 2, 2), Map("y", 2, 4, 40, 40, 0, 40, 0, 8)
    (kernel,) = lower(SimpleNamespace(tensors=tensors), layer, maps[:1], maps[1], MODAL, CompileError)
    assert_fields(
        kernel, whole(kernel), MODAL,
        in_nibbles=1, in_bits=0, out_nibbles=0, out_bits=1, groups=3, last_lanes=8, pad=10, x_step=6, range_last=11,
        right_granule=4, tail=6,  # 30 bytes of the row buffer
        out_x_step=5, out_row_step=24 - 2 * 2,
    )  # fmt: skip
    tile = dataclasses.replace(whole(kernel), columns=range(3, 4), groups=range(1, 3))
    _, _, position = descriptor(kernel, tile, MODAL)
    assert position.out_byte == 3 * 5 + 2
    assert_fields(kernel, tile, MODAL, offset=2, in_address=1)  # byte 18 of the row buffer's is in its second word


def test_a_slot_of_a_packed_map_begins_with_a_word_of_the_store():
    """A store word of bits is 64 bytes of the row buffer."""
    weights = np.full((8, 1, 1, 8), 99, np.int8)
    layer = Conv("c", ("x",), "y", weights, np.zeros(8, np.int32), np.ones(8) / 64)
    tensors = {"x": Tensor("x", (1, 40, 8), 1.0, 0, "binary"), "y": Tensor("y", (1, 40, 8), 1.0, 0)}
    maps = Map("x", 1, 40, 8, 8, 0, 8, 0, 8), Map("y", 1, 40, 8, 8, 0, 8, 0)
    (kernel,) = lower(SimpleNamespace(tensors=tensors), layer, maps[:1], maps[1], MODAL, CompileError)
    tile = dataclasses.replace(whole(kernel), columns=range(19, 25))
    # bytes 152 to 199 are in the third and fourth words; the slot begins with byte 128
    assert_fields(kernel, tile, MODAL, in_bits=1, in_address=2, offset=24, left_granules=0, right_granule=9, tail=8, pad=0)
