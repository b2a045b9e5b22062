"""Configurations and their messages; record layouts and registers."""

import dataclasses
import json
import re

import pytest

from gossamer.golden import spec
from gossamer.golden.spec import CONFIGS, Config, ConfigError, Field, UserError, config

RECORDS = {
    "HEADER": (spec.HEADER, spec.HEADER_BYTES),
    "DESCRIPTOR": (spec.DESCRIPTOR, spec.DESCRIPTOR_BYTES),
    "STEP_RUN": (spec.STEP_RUN, spec.STEP_BYTES),
    "STEP_LOAD": (spec.STEP_LOAD, spec.STEP_BYTES),
    "STEP_FETCH": (spec.STEP_FETCH, spec.STEP_BYTES),
    "STEP_HOST": (spec.STEP_HOST, spec.STEP_BYTES),
    "STEP_LOOP": (spec.STEP_LOOP, spec.STEP_BYTES),
    "PARAMETER": (spec.PARAMETER, spec.PARAMETER_BYTES),
    "ADD_TABLE": (spec.ADD_TABLE, spec.PARAMETER_BYTES),
}


# Configurations


def test_named_configurations_are_those_of_the_devices():
    assert {name: (c.technology, c.lanes, c.store_bytes) for name, c in CONFIGS.items()} == {
        "up5k": ("ice40", 16, 8),
        "up5k_codec": ("ice40", 16, 8),
        "up5k_compressed": ("ice40", 8, 8),
        "gw1n9": ("generic", 16, 8),
        "gw2a18": ("generic", 64, 8),
        "ecp5_25": ("generic", 16, 16),
        "ecp5_25_compressed": ("generic", 16, 8),
        "ecp5_85": ("generic", 64, 16),
        "ecp5_85_codec": ("generic", 64, 16),
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_named_configurations_are_valid(name):
    named = config(name)
    assert named is CONFIGS[name]
    assert named.name == name
    assert dataclasses.replace(named) == named  # runs the checks again


def test_derived_sizes():
    c = Config("c", lanes=64, store_bytes=16, store_words=1000, row_words=512, weight_vectors=256, parameters=256)
    assert c.store_size == 16_000
    assert c.granules == 4
    assert c.longest_load == 2048  # 512 row words of 4 store words
    assert (c.codec_chunk, c.slot_bytes) == (16, 16)
    for streams, sizes in ((2, (8, 16)), (4, (8, 32)), (8, (8, 64)), (16, (16, 256))):
        several = dataclasses.replace(c, codec="lossless", codec_streams=streams)
        assert (several.codec_chunk, several.slot_bytes) == sizes
    assert dataclasses.replace(c, weight_vectors=1024).longest_load == 4096
    assert dataclasses.replace(c, parameters=32768).longest_load == 16384  # 8 bytes each, 2 in a store word


@pytest.mark.parametrize(
    "lanes, store_bytes, size", [(8, 8, 8), (16, 8, 8), (16, 16, 16), (32, 8, 8), (64, 8, 16), (64, 16, 16)]
)
def test_a_mask_is_a_bit_per_lane_and_two_bytes_in_whole_words(lanes, store_bytes, size):
    c = Config("c", lanes=lanes, store_bytes=store_bytes, masks=512)
    assert c.mask_bytes == size
    many = dataclasses.replace(c, weight_vectors=2048, masks=2048, row_words=256)
    assert many.longest_load == 2048 * max(size, lanes) // store_bytes


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Config)])
@pytest.mark.parametrize("value", [1.0, True, None, "16", 16])
def test_fields_have_one_type(field, value):
    kinds = {"name": str, "technology": str, "codec": str, "decoder": str, "binary": bool, "nibbles": bool, "int4": bool}
    kind = kinds.get(field, int)
    if type(value) is kind:
        return
    owner = value if field == "name" else "c"
    message = re.escape(f"configuration {owner!r}: {field} must be of type {kind.__name__}, not {value!r}")
    with pytest.raises(ConfigError, match=f"^{message}$"):
        Config(**{"name": "c", field: value})


@pytest.mark.parametrize(
    "fields, rule",
    [
        ({"technology": "asic"}, "technology must be 'generic' or 'ice40', not 'asic'"),
        ({"lanes": 24}, "lanes must be 8, 16, 32 or 64, not 24"),
        ({"lanes": 128}, "lanes must be 8, 16, 32 or 64, not 128"),
        ({"codec": "zip"}, "codec must be one of off, lossless, bounded, budgeted, not 'zip'"),
        ({"codec": "lossless", "codec_streams": 0}, "codec_streams must be a power of two, 1 to 8, not 0"),
        ({"codec": "lossless", "codec_streams": 6}, "codec_streams must be a power of two, 1 to 8, not 6"),
        ({"codec": "lossless", "codec_streams": 16}, "codec_streams must be a power of two, 1 to 8, not 16"),
        ({"codec_streams": 2}, "codec_streams must be 1 without a codec, not 2"),
        ({"store_bytes": 4}, "store_bytes must be 8 or 16, not 4"),
        ({"lanes": 8, "store_bytes": 16}, "store_bytes must be at most lanes (8), not 16"),
        ({"store_words": 255}, "store_words must be 256 to 524288, not 255"),
        ({"store_words": 524289}, "store_words must be 256 to 524288, not 524289"),
        ({"store_ports": 0}, "store_ports must be 1 or 2, not 0"),
        ({"store_ports": 3}, "store_ports must be 1 or 2, not 3"),
        ({"row_words": 8}, "row_words must be a power of two, 16 to 8192, not 8"),
        ({"row_words": 300}, "row_words must be a power of two, 16 to 8192, not 300"),
        ({"row_words": 16384}, "row_words must be a power of two, 16 to 8192, not 16384"),
        ({"weight_vectors": 0}, "weight_vectors must be a power of two, 256 to 32768, not 0"),
        ({"weight_vectors": 65536}, "weight_vectors must be a power of two, 256 to 32768, not 65536"),
        ({"parameters": -256}, "parameters must be a power of two, 256 to 32768, not -256"),
        ({"parameters": 65536}, "parameters must be a power of two, 256 to 32768, not 65536"),
        ({"interval": 0}, "interval must be 1 or 2, not 0"),
        ({"interval": 3}, "interval must be 1 or 2, not 3"),
        ({"acc_bits": 17}, "acc_bits must be 18 to 28, not 17"),
        ({"acc_bits": 29}, "acc_bits must be 18 to 28, not 29"),
        ({"lut_lanes": -2}, "lut_lanes must be an even number of lanes up to 16, not -2"),
        ({"lut_lanes": 3}, "lut_lanes must be an even number of lanes up to 16, not 3"),
        ({"lanes": 8, "lut_lanes": 10}, "lut_lanes must be an even number of lanes up to 8, not 10"),
        ({"technology": "ice40", "store_words": 8192}, "an ice40 store must have 16384 words, not 8192"),
        ({"technology": "ice40", "store_bytes": 16}, "an ice40 store must be 8 bytes wide, not 16"),
        ({"technology": "ice40", "store_ports": 2}, "an ice40 store must have 1 port, not 2"),
        ({"masks": 128}, "masks must be 0 or a power of two, 256 to weight_vectors (512), not 128"),
        ({"masks": 384}, "masks must be 0 or a power of two, 256 to weight_vectors (512), not 384"),
        ({"masks": 1024}, "masks must be 0 or a power of two, 256 to weight_vectors (512), not 1024"),
        ({"masks": -256}, "masks must be 0 or a power of two, 256 to weight_vectors (512), not -256"),
        ({"technology": "ice40", "row_words": 128}, "row_words must be a power of two, 256 to 8192, not 128"),
        ({"technology": "ice40", "store_ports": 1, "int4": True}, "int4 must be false with ice40, not True"),
    ],
)
def test_configurations_refuse(fields, rule):
    message = re.escape(f"configuration 'c': {rule}")
    with pytest.raises(ConfigError, match=f"^{message}$"):
        Config("c", **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"lanes": 8, "store_bytes": 8, "lut_lanes": 8},
        {"lanes": 64, "store_bytes": 16, "store_words": 524288, "row_words": 8192},
        {"technology": "ice40", "store_ports": 1, "row_words": 256},
        {"store_words": 256, "row_words": 16, "weight_vectors": 256, "parameters": 256, "acc_bits": 18},
        {"weight_vectors": 32768, "parameters": 32768, "acc_bits": 28, "interval": 2},
        {"technology": "ice40", "store_ports": 1},
        {"store_bytes": 16, "codec": "bounded", "codec_streams": 16},
        {"technology": "ice40", "store_ports": 1, "masks": 256, "binary": True, "nibbles": True},
        {"weight_vectors": 32768, "masks": 32768, "binary": True, "nibbles": True, "int4": True},
        {"masks": 512},
    ],
)
def test_the_ends_of_every_range_are_allowed(fields):
    assert dataclasses.asdict(Config("c", **fields)).items() >= fields.items()


# Configuration files


FILE = {"lanes": 32, "store_bytes": 16, "acc_bits": 20}


@pytest.mark.parametrize("suffix", [".toml", ".json", ""])
def test_a_file_gives_the_fields_it_has(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    toml = "".join(f"{name} = {value}\n" for name, value in FILE.items())
    path.write_text(json.dumps(FILE) if suffix == ".json" else toml)
    assert config(path) == config(str(path)) == Config("mine", lanes=32, store_bytes=16, acc_bits=20)


def test_a_file_may_name_its_configuration(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "other"\n')
    assert config(path).name == "other"


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        config(path)
    assert isinstance(caught.value, UserError)
    return str(caught.value)


def test_neither_name_nor_file():
    assert refusal("up6k") == (
        "configuration must be a file or one of up5k, up5k_codec, up5k_compressed, gw1n9, gw2a18, ecp5_25, ecp5_25_compressed, "
        "ecp5_85, ecp5_85_codec, not 'up6k'"
    )  # fmt: skip


def test_a_folder_is_not_a_file(tmp_path):
    assert refusal(tmp_path).endswith(f", not {str(tmp_path)!r}")


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("c.toml", b"lanes: 16\n", "Expected '=' after a key"),
        ("c.json", b"lanes = 16\n", "Expecting value"),
        ("c.json", b"", "Expecting value"),
        ("c.toml", b'name = "\xff"\n', "'utf-8' codec can't decode byte 0xff"),
        ("c.json", b"\xff{}", "'utf-8' codec can't decode byte 0xff"),
        ("c.json", b"[]", "it holds no table"),
        ("c.json", b"3", "it holds no table"),
        ("c.json", b"null", "it holds no table"),
        ("c.json", b'[1, "lanes"]', "it holds no table"),
    ],
)
def test_a_file_is_a_table(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    assert re.match(f"^{re.escape(f'configuration file {path} must be TOML or JSON: {reason}')}", refusal(path))


def test_unknown_keys_are_refused(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("lines = 16\nlanes = 16\nzone = 1\n")
    known = (
        "acc_bits, binary, codec, codec_streams, decoder, fetch_interval, fetch_latency, int4, interval, lanes, lut_lanes, "
        "masks, name, nibbles, parameters, row_words, store_bytes, store_ports, store_words, technology, weight_vectors"
    )
    assert refusal(path) == f"configuration file {path} must have only the keys {known}, not 'lines'"


def test_a_file_with_a_wrong_type_is_refused(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('lanes = "16"\n')
    assert refusal(path) == "configuration 'c': lanes must be of type int, not '16'"


# Records


def bits(field: Field) -> set[int]:
    return set(range(field.offset, field.offset + field.width))


@pytest.mark.parametrize("name", RECORDS)
def test_fields_do_not_overlap(name):
    taken: dict[int, str] = {}
    for member, field in RECORDS[name][0].items():
        for bit in bits(field):
            assert bit not in taken, f"{member} and {taken[bit]}"
            taken[bit] = member


@pytest.mark.parametrize("name", RECORDS)
def test_fields_fit_their_record_and_no_beat_cuts_one(name):
    fields, size = RECORDS[name]
    for member, field in fields.items():
        assert field.width > 0, member
        assert len({bit // 64 for bit in bits(field)}) == 1, member
        assert max(bits(field)) < 8 * size, member


def test_opcodes_are_at_one_place_and_distinct():
    steps = (spec.STEP_RUN, spec.STEP_LOAD, spec.STEP_FETCH, spec.STEP_HOST, spec.STEP_LOOP)
    assert len({tuple(bits(fields["opcode"])) for fields in steps}) == 1
    codes = [v for k, v in vars(spec.Opcode).items() if k.isupper()]
    assert len(set(codes)) == len(codes) == 9
    assert max(codes) < 1 << spec.STEP_RUN["opcode"].width


def test_the_magic_reads_gmsr():
    assert spec.MAGIC.to_bytes(4, "little") == b"GMSR"


def test_every_error_has_its_sentence():
    codes = {v for k, v in vars(spec.Error).items() if k.isupper() and k != "TEXT"}
    assert codes == set(spec.Error.TEXT)
    assert len(set(spec.Error.TEXT.values())) == len(codes)
    status = next(r for r in spec.REGISTERS if r.name == "status")
    assert max(codes) < 1 << status.fields["error"].width


def test_a_beat_that_is_too_full_is_refused():
    with pytest.raises(ValueError, match=r"^beat 1 must hold at most 64 bits, not 65$"):
        spec._pack(((("a", 64, ""),), (("b", -33, ""), ("", 16, ""), ("c", 16, ""))))


# Registers


def test_registers_have_their_own_words():
    addresses = [register.address for register in spec.REGISTERS]
    assert len(set(addresses)) == len(addresses)
    assert all(address % 4 == 0 and 0 <= address < spec.STORE_WINDOW for address in addresses)
    names = [register.name for register in spec.REGISTERS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("register", spec.REGISTERS, ids=lambda r: r.name)
def test_register_fields_do_not_overlap(register):
    taken = [bit for field in register.fields.values() for bit in bits(field)]
    assert len(set(taken)) == len(taken)
    assert max(taken) < 32
    assert register.access in ("r", "rw", "w")


def test_a_store_address_is_the_low_bits_of_its_bus_address():
    largest = 8192 * 1024  # the bytes of the largest store: 524288 words of 16
    assert Config("c", store_bytes=16, store_words=524288).store_size == largest
    assert spec.STORE_WINDOW % largest == 0
