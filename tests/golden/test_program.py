"""Program images: round trips, bytes at hand-calculated places, and damage."""

import dataclasses
import re
import zlib

import numpy as np
import pytest

from gossamer.golden.compiler import compile_network
from gossamer.golden.program import ImageError, Program, TensorPlace, decode, encode
from gossamer.golden.spec import CONFIGS, HEADER, Field, Opcode, UserError
from tests.networks import NETWORKS, residual

FIELDS = {"a": Field(0, 3), "b": Field(3, 5, signed=True), "c": Field(16, 16)}


def compiled(build, config, seed=0):
    return compile_network(build(np.random.default_rng(seed)), CONFIGS[config]).program


@pytest.fixture(scope="module")
def program():
    """Every operator on ``up5k``."""
    return compiled(residual, "up5k")


@pytest.fixture
def small():
    """One layer, one load, one run: an image of 64 + 64 + 3*16 + 24 bytes."""
    return Program(
        CONFIGS["up5k"],
        ({"kernel_rows": 3, "zero_point": -5},),
        (
            {"opcode": Opcode.LOAD_PARAMETERS, "wait": 1, "destination": 7, "count": 3, "in_address": 22},
            {
                "opcode": Opcode.RUN, "layer": 1, "rows": 2, "in_rows": 4, "in_address": 25, "lead_rows": 1, "out_address": 300,
                "wrap_rows": 3, "wrap_address": 20,
            },
        ),
        bytes(range(1, 24)),
        TensorPlace(200, 4, 5, 3, 3),
        TensorPlace(300, 2, 5, 1, 16),
        512,
    )  # fmt: skip


# Records


def test_a_record_is_little_endian_and_twos_complement():
    data = encode(FIELDS, {"a": 5, "b": -2, "c": 0x1234}, 6)
    assert data == bytes([5 | 30 << 3, 0, 0x34, 0x12, 0, 0])
    assert decode(FIELDS, data) == {"a": 5, "b": -2, "c": 0x1234}


@pytest.mark.parametrize("values", [{}, {"a": 7, "b": -16, "c": 65535}, {"a": 0, "b": 15, "c": 0}])
def test_records_round_trip_at_their_extremes(values):
    assert decode(FIELDS, encode(FIELDS, values, 4)) == {"a": 0, "b": 0, "c": 0, **values}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"a": 8}, "field 'a' must be 0 to 7, not 8"),
        ({"a": -1}, "field 'a' must be 0 to 7, not -1"),
        ({"b": 16}, "field 'b' must be -16 to 15, not 16"),
        ({"b": -17}, "field 'b' must be -16 to 15, not -17"),
        ({"c": 1 << 16}, "field 'c' must be 0 to 65535, not 65536"),
    ],
)
def test_records_refuse_what_a_field_cannot_hold(values, message):
    with pytest.raises(ImageError, match=f"^{re.escape(message)}$"):
        encode(FIELDS, values, 4)


# Feature maps


@pytest.mark.parametrize("config", ["up5k", "ecp5_25"])
@pytest.mark.parametrize("columns, channels, pitch", [(1, 1, 1), (3, 5, 5), (3, 5, 16), (4, 16, 16), (5, 7, 8)])
def test_feature_maps_round_trip(rng, config, columns, channels, pitch):
    config = CONFIGS[config]
    place = TensorPlace(0, 4, columns, channels, pitch)
    values = rng.integers(-128, 128, (4, columns, channels)).astype(np.int8)
    data = place.to_store(values, -3, config)
    assert data.dtype == np.uint8
    assert len(data) == place.size(config) == 4 * place.row_words(config) * config.store_bytes
    np.testing.assert_array_equal(place.from_store(data, config), values)


def test_a_feature_map_in_the_store_by_hand():
    config = CONFIGS["up5k"]  # 8 bytes per store word
    place = TensorPlace(0, 2, 3, 2, 3)
    values = np.array([[[-128, 127], [0, 1], [2, 3]], [[4, 5], [6, 7], [8, 9]]], np.int8)
    z = 28  # the zero point -100 as it is stored, between the pixels and behind the rows
    assert place.to_store(values, -100, config).tolist() == [
        0, 255, z, 128, 129, z, 130, 131, z, z, z, z, z, z, z, z,
        132, 133, z, 134, 135, z, 136, 137, z, z, z, z, z, z, z, z,
    ]  # fmt: skip
    assert (place.row_bytes(), place.row_words(config), place.size(config)) == (9, 2, 32)


@pytest.mark.parametrize("config", ["up5k", "ecp5_25"])
@pytest.mark.parametrize(
    "per_byte, columns, channels, pitch, offset",
    [
        *[(2, 1, 1, 2, 0), (2, 3, 5, 6, 0), (2, 3, 5, 16, 4), (2, 9, 16, 16, 0)],
        *[(8, 1, 8, 8, 0), (8, 3, 8, 16, 8), (8, 9, 24, 32, 0)],
    ],
)
def test_packed_feature_maps_round_trip(rng, config, per_byte, columns, channels, pitch, offset):
    config = CONFIGS[config]
    place = TensorPlace(0, 4, columns, channels, pitch, offset, per_byte)
    shape = (4, columns, channels)
    values = rng.integers(-8, 8, shape) if per_byte == 2 else rng.choice([-1, 1], shape)
    data = place.to_store(values.astype(np.int8), 0, config)
    assert data.dtype == np.uint8
    assert place.row_bytes() == columns * pitch // per_byte
    assert len(data) == place.size(config) == 4 * -(-place.row_bytes() // config.store_bytes) * config.store_bytes
    found = place.from_store(data, config)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, values)


def test_a_feature_map_of_four_bits_by_hand():
    place = TensorPlace(0, 2, 3, 3, 4, 0, 2)
    values = np.array([[[-8, 7, 0], [1, 2, 3], [-1, -2, -3]], [[4] * 3] * 3], np.int8)
    z = 3  # the zero point -5 as it is stored
    first = [0xF0, z << 4 | 8, 0xA9, z << 4 | 0xB, 0x67, z << 4 | 5]
    data = place.to_store(values, -5, CONFIGS["up5k"]).reshape(2, 8)
    assert data[:, :6].tolist() == [first, [0xCC, z << 4 | 0xC] * 3]


def test_a_feature_map_of_bits_by_hand():
    place = TensorPlace(0, 1, 2, 8, 16, 8, 8)
    values = np.array([[[1, -1, -1, -1, -1, -1, -1, 1], [-1, 1, 1, -1, 1, -1, -1, -1]]], np.int8)
    # eight values of another map, or none, in front of each pixel
    assert place.to_store(values, 0, CONFIGS["up5k"])[:4].tolist() == [0, 0b1000_0001, 0, 0b0001_0110]


# Images


@pytest.mark.parametrize("config", ["up5k", "ecp5_85", "ecp5_25"])
@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_disassembly_is_the_inverse_of_assembly(build, config):
    program = compiled(build, config)
    image = program.assemble()
    read = Program.disassemble(image, program.config)
    assert len(image) == program.size
    assert read.assemble() == image
    assert (read.input, read.output, read.end_address) == (program.input, program.output, program.end_address)
    for ours, theirs in ((program.layers, read.layers), (program.steps, read.steps)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            assert b == {**dict.fromkeys(b, 0), **a}  # a field that was not given is 0
    assert read.blob.rstrip(b"\0") == program.blob.rstrip(b"\0")
    assert len(program.blob) <= len(read.blob) < len(program.blob) + program.config.store_bytes


def number(data, start, size):
    return int.from_bytes(data[start : start + size], "little")


def test_header_by_hand(small):
    image = small.assemble()
    assert len(image) == 200  # 199 bytes, filled up to a store word
    assert image[:8] == b"GMSR" + bytes([3, 0, 16, 8])
    # the steps lie behind the header and one descriptor; a warm start begins with the first
    assert number(image, 8, 8) == 128 // 8 | 128 // 8 << 20 | 200 // 8 << 40
    assert (number(image, 16, 4), number(image, 20, 4), number(image, 24, 4)) == (200, 300, 512)
    assert [number(image, at, 2) for at in range(32, 48, 2)] == [4, 5, 3, 3, 2, 5, 1, 16]
    assert image[48:64] == bytes(16)  # no external memory


@pytest.mark.parametrize("kind, number_", [("off", 0), ("lossless", 1), ("bounded", 2)])
def test_the_header_tells_the_codec_of_compressed_rows(small, kind, number_):
    config = dataclasses.replace(small.config, codec=kind)
    plain = dataclasses.replace(small, config=config)
    coded = dataclasses.replace(plain, layers=({"out_coded": 1},))
    assert number(plain.assemble(), 8, 8) >> 60 & 3 == 0
    assert number(coded.assemble(), 8, 8) >> 60 & 3 == number_
    for other in {"lossless", "bounded"} - {kind}:
        with pytest.raises(ImageError, match="codec"):
            Program.disassemble(dataclasses.replace(coded, config=dataclasses.replace(config, codec=other)).assemble(), config)


@pytest.mark.parametrize("streams, number_", [(1, 0), (2, 1), (8, 3)])
def test_the_header_tells_the_units_of_compressed_rows(small, streams, number_):
    config = dataclasses.replace(small.config, codec="lossless", codec_streams=streams)
    plain = dataclasses.replace(small, config=config)
    coded = dataclasses.replace(plain, layers=({"out_coded": 1},))
    assert plain.assemble()[7] == 8
    assert coded.assemble()[7] == 8 | number_ << 5
    other = dataclasses.replace(config, codec_streams=4)
    with pytest.raises(ImageError, match=f"^an image's codec_streams must be 2, not {number_}$"):
        Program.disassemble(coded.assemble(), other)
    assert Program.disassemble(plain.assemble(), other)


def test_crc_is_that_of_zip_over_the_image_with_the_field_zero(small):
    image = small.assemble()
    assert number(image, 28, 4) == zlib.crc32(image[:28] + bytes(4) + image[32:])


def test_descriptors_steps_and_blob_follow_each_other(small):
    image = small.assemble()
    assert Program.blob_address(1, 2) == 176
    assert decode(HEADER, image[:64])["steps"] * 8 == 128
    # a load step: opcode 2 and wait, layer, count, destination, store word
    assert image[128:144] == bytes([2 | 1 << 4, 0, 0, 0, 3, 0, 7, 0, 22, 0, 0, 0, 0, 0, 0, 0])
    # a run step: opcode 3, lead rows and rows up to the wrap; layer; rows, input rows, store words, first byte of the output
    assert image[144:160] == bytes([3 | 1 << 5, 3 << 3, 1 << 4, 0, 2, 0, 4, 0, 25, 0, 0x40, 1, 0, 300 % 256, 1, 0])
    assert image[160:176] == bytes(16)  # the end
    assert image[176:] == bytes([*range(1, 24), 0])


@pytest.mark.parametrize("layers, steps, address", [(0, 0, 80), (1, 0, 144), (3, 4, 64 + 192 + 80)])
def test_blob_address(layers, steps, address):
    assert Program.blob_address(layers, steps) == address


def test_assembly_refuses_what_a_field_cannot_hold(small):
    step = {**small.steps[1], "rows": 65536}
    with pytest.raises(ImageError, match=r"^field 'rows' must be 0 to 65535, not 65536$"):
        dataclasses.replace(small, steps=(step,)).assemble()


# Damage


def sealed(image):
    """The image with a CRC that is right."""
    body = image[:28] + bytes(4) + image[32:]
    return body[:28] + zlib.crc32(body).to_bytes(4, "little") + body[32:]


def put(image, at, data):
    return sealed(image[:at] + bytes(data) + image[at + len(data) :])


def refusal(image, config=CONFIGS["up5k"]):
    with pytest.raises(ImageError) as caught:
        Program.disassemble(image, config)
    assert isinstance(caught.value, UserError)
    return str(caught.value)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda image: b"", "an image must have at least 80 bytes, not 0"),
        (lambda image: image[:79], "an image must have at least 80 bytes, not 79"),
        (lambda image: image[:-8], "an image's image_words must be 0x18, not 0x19"),
        (lambda image: image + bytes(8), "an image's image_words must be 0x1a, not 0x19"),
        (lambda image: put(image, 0, b"GMSQ"), "an image's magic must be 0x52534d47, not 0x51534d47"),
        (lambda image: put(image, 4, [2]), "an image's version must be 0x3, not 0x2"),
        (lambda image: put(image, 6, [64]), "an image's lanes must be 0x10, not 0x40"),
        (lambda image: put(image, 7, [16]), "an image's store_bytes must be 0x8, not 0x10"),
        (lambda image: put(image, 10, [0, 0]), "an image's warm start must be at one of its steps, not at byte 0"),
        (lambda image: put(image, 10, [0x10, 2]), "an image's warm start must be at one of its steps, not at byte 264"),
        (lambda image: put(image, 10, [0x60, 1]), "an image's warm start must be at one of its steps, not at byte 176"),
        (lambda image: put(image, 8, [7]), "an image's steps must start at byte 64 to 199, not 56"),
        (lambda image: put(image, 8, [25]), "an image's steps must start at byte 64 to 199, not 200"),
        (lambda image: put(image, 8, [17]), "an image's layer table must be a multiple of 64 bytes, not 72"),
        (lambda image: put(image, 144, [9]), "the opcode of step 1 must be 0 to 8, not 9"),
        (lambda image: put(image, 128, [15]), "the opcode of step 0 must be 0 to 8, not 15"),
        (lambda image: put(image, 146, [0]), "the layer of step 1 must be 1 to 1, not 0"),
        (lambda image: put(image, 146, [0x20]), "the layer of step 1 must be 1 to 1, not 2"),
        (lambda image: put(image, 160, [1] * 40), "an image's steps must end with an END step, not with the image"),
    ],
)  # fmt: skip
def test_damaged_images_are_refused(small, damage, message):
    assert refusal(damage(small.assemble())) == message


def test_another_configuration_refuses(program):
    image = program.assemble()
    assert refusal(image, CONFIGS["gw2a18"]) == "an image's lanes must be 0x40, not 0x10"
    assert refusal(image, CONFIGS["ecp5_25"]) == "an image's store_bytes must be 0x10, not 0x8"
    Program.disassemble(image, CONFIGS["gw1n9"])  # runs on both


def test_trailing_bytes_are_refused(small):
    image = small.assemble()
    assert refusal(image + b"\0") == "an image must have whole store words of 8 bytes, not 201 bytes"
    assert refusal(sealed(image + b"\0")) == "an image must have whole store words of 8 bytes, not 201 bytes"


def test_a_flip_of_any_byte_is_refused(small):
    image = small.assemble()
    for at in range(len(image)):
        damaged = bytearray(image)
        damaged[at] ^= 1 << at % 8
        assert re.match(r"^an image's .* must be .*, not [^\n]*$", refusal(bytes(damaged))), at


def test_a_flip_of_any_bit_of_a_compiled_image_is_refused(program, rng):
    image = program.assemble()
    for _ in range(300):
        damaged = bytearray(image)
        damaged[rng.integers(len(image))] ^= 1 << rng.integers(8)
        refusal(bytes(damaged))


def test_crc_message(small):
    image = bytearray(small.assemble())
    right = number(image, 28, 4)
    image[28] ^= 1
    assert refusal(bytes(image)) == f"an image's CRC must be {right:#010x}, not {right ^ 1:#010x}: the image is damaged"


def test_sealed_damage_never_ends_in_a_traceback(program, rng):
    """With a right CRC a program may mean something else, but either it is one or the refusal is a sentence."""
    image = program.assemble()
    for _ in range(300):
        damaged = bytearray(image)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(64 + 16 * 64)] = rng.integers(256)
        try:
            read = Program.disassemble(sealed(bytes(damaged)), program.config)
        except ImageError:
            continue
        read.assemble()
        read.listing()


# Listings


def test_listing_by_hand(small):
    assert small.listing() == (
        "layer 1: zero_point=-5 kernel_rows=3\n"
        "step 0: load_parameters wait=1 count=3 destination=7 in_address=22\n"
        "step 1: run lead_rows=1 wrap_rows=3 layer=1 rows=2 in_rows=4 in_address=25 wrap_address=20 out_address=300\n"
        "step 2: end\n"
    )


def test_listing_names_every_layer_and_step(program):
    lines = program.listing().splitlines()
    heads = [line.split(":")[0] for line in lines]
    layers, steps = len(program.layers), len(program.steps)
    steps = [f"step {i}" for i in range(steps + 1)]
    steps.insert(program.warm, "warm start")
    assert heads == [f"layer {i + 1}" for i in range(layers)] + steps
    runs = [line for line in lines if ": run " in line]
    assert [re.search(r"layer=(\d+)", line)[1] for line in runs] == [str(i + 1) for i in range(layers)]
