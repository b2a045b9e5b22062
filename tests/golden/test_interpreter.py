"""The machine: compiled networks mean what the network means, and what is not defined is refused."""

import dataclasses
import itertools
import re
import zlib

import numpy as np
import pytest

from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.interpreter import Machine, MachineError, Run
from gossamer.golden.program import ImageError, Program, TensorPlace, encode
from gossamer.golden.rolling import PARTIAL_SUMS
from gossamer.golden.spec import (
    CONFIGS,
    DESCRIPTOR,
    PARAMETER,
    SHIFT_BIAS,
    STEP_LOAD,
    STEP_RUN,
    Config,
    Error,
    Opcode,
    UserError,
)
from tests.networks import MODES, NETWORKS, SMALL, Builder, block_sparse, borders, inputs, one_bit, residual

UP5K = CONFIGS["up5k"]
ALL_MODES = {"masks": 256, "nibbles": True, "binary": True, "int4": True}
MODAL = Config("modal", codec="lossless", **ALL_MODES)
MODAL_ONES = {
    config.name: config
    for config in (MODAL, CONFIGS["ecp5_25_compressed"], *(dataclasses.replace(small, **ALL_MODES) for small in SMALL))
}
ALL = {config.name: config for config in (*CONFIGS.values(), *SMALL) if config.name != "gw2a18"}


def loaded(compiled, x, rng=None):
    """A machine with the image and one input; with ``rng`` the rest of the store is noise."""
    program = compiled.program
    machine = Machine(program.config)
    if rng is not None:
        machine.store[:] = rng.integers(0, 256, len(machine.store))
    put(machine, 0, program.assemble())
    put(machine, program.input.address, compiled.input_bytes(x))
    return machine


def put(machine, address, data):
    machine.store[address : address + len(data)] = np.frombuffer(bytes(data), np.uint8)


def output(compiled, machine):
    place = compiled.program.output
    return compiled.output_values(machine.store[place.address : place.address + place.size(machine.config)])


def place_of(compiled, name):
    place = compiled.places[name]
    return slice(place.address, place.address + place.size(compiled.program.config))


# Networks


@pytest.mark.parametrize("build", [*NETWORKS, borders], ids=lambda build: build.__name__)
@pytest.mark.parametrize("name", ALL)
def test_compiled_networks_equal_the_network(name, build, rng):
    assert_equal(ALL[name], build, rng)


@pytest.mark.parametrize(
    "build, name",
    [*itertools.product(MODES, MODAL_ONES), *((build, "up5k_compressed") for build in (one_bit, block_sparse))],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_networks_of_all_modes_equal_the_network(build, name, rng):
    assert_equal(MODAL_ONES.get(name) or CONFIGS[name], build, rng)


def assert_equal(config, build, rng):
    """Three networks of a kind that fit, with noise in the rest of the store."""
    ran = 0
    for _ in range(100):
        network = build(rng)
        try:
            compiled = compile_network(network, config)
        except CompileError:  # too large; tests/golden/test_compiler.py pins the sentences
            continue
        x = inputs(rng, network, 1)
        want = network.run(x)
        got = []
        for sample in x:
            machine = loaded(compiled, sample, rng)
            list(machine.execute(compiled.program))
            got.append(output(compiled, machine))
        np.testing.assert_array_equal(np.stack(got), want[compiled.device_output])
        np.testing.assert_array_equal(compiled.finish(np.stack(got)), want[network.output])
        ran += 1
        if ran == 3:
            return
    assert ran


@pytest.mark.parametrize("config", ["up5k", "ecp5_25"])
@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_nothing_outside_the_output_region_is_written(build, config, rng):
    network = build(rng)
    compiled = compile_network(network, CONFIGS[config])
    machine = loaded(compiled, inputs(rng, network, 1)[0], rng)
    first = machine.store.copy()
    runs = iter(compiled.runs)
    for step in machine.execute(compiled.program):
        now = machine.store.copy()
        if isinstance(step, Run):
            run = next(runs)
            region = place_of(compiled, run.output)
            if step.layer["partial_out"]:
                name = f"{run.layer}{PARTIAL_SUMS}"
                start = compiled.program.size + compiled.plan.addresses[name]
                region = slice(start, start + compiled.plan.areas[name].bytes)
            now[region] = first[region]
        np.testing.assert_array_equal(now, first)
        first = machine.store.copy()


def test_a_run_shows_its_rows_and_its_output(rng):
    b = Builder(rng, (4, 5, 3))
    b.conv(b.input, 20, (3, 3))  # one padding row above, one below; 20 channels are 2 groups of 16
    network = b.network()
    compiled = compile_network(network, UP5K)
    x = inputs(rng, network, 1)
    machine = loaded(compiled, x[0])
    run = [step for step in machine.execute(compiled.program) if isinstance(step, Run)][-1]
    assert run.blank.tolist() == [True, False, False, False, False, True]
    pad = network.tensors[network.input].zero_point + 128
    assert (run.rows[run.blank] == pad).all()
    stored = (x[0].astype(int) + 128).reshape(4, 15).astype(np.uint8)
    for row, values in zip(run.rows[1:5], stored):
        assert values.tobytes() in row.tobytes()
    assert run.output.shape == (4, 2, 5, 16)  # rows, groups, pixels, lanes
    channels = run.output.transpose(0, 2, 1, 3).reshape(4, 5, 32)[:, :, :20].astype(int) - 128
    np.testing.assert_array_equal(channels, network.run(x)[network.output][0])


# A program by hand


def by_hand(config=UP5K, layer=(), **run):
    """A 1x2 convolution of two output channels over a row of 3 pixels: the input at byte 512, the output at 576."""
    weights = np.zeros((2, config.lanes), np.int8)
    weights[0, :2], weights[1, :2] = (1, -1), (2, 3)
    parameter = encode(PARAMETER, {"bias": 0, "multiplier": (1 << 30) - 1, "shift": SHIFT_BIAS}, 8)
    blob = weights.tobytes() + parameter * config.lanes
    at = Program.blob_address(1, 3) // config.store_bytes
    size = weights.size // config.store_bytes
    descriptor = {
        "zero_point": -128, "clamp_min": -128, "clamp_max": 127, "groups": 1, "last_lanes": 2, "repeat": 1,
        "right_granule": 1, "tail": 3, "slot_words": 1, "kernel_rows": 1, "stride_rows": 1, "row_step": 1, "row_step_odd": 1,
        "out_x_step": 2, "ring_words": 1, "advance_words": 1, "width": 2, "x_step": 1, "range_last": 1, "out_row_step": 8,
        **dict(layer),
    }  # fmt: skip
    steps = (
        {"opcode": Opcode.LOAD_WEIGHTS, "count": size, "in_address": at},
        {"opcode": Opcode.LOAD_PARAMETERS, "count": 8 * config.lanes // config.store_bytes, "in_address": at + size},
        {
            "opcode": Opcode.RUN, "layer": 1, "rows": 1, "in_rows": 1, "in_address": 512 // config.store_bytes,
            "out_address": 576, **run,
        },
    )  # fmt: skip
    program = Program(config, (descriptor,), steps, blob, TensorPlace(512, 1, 3, 1, 1), TensorPlace(576, 1, 2, 2, 2), 640)
    machine = Machine(config)
    put(machine, 0, program.assemble())
    put(machine, 512, [2, 0, 5])
    return machine, Program.disassemble(program.assemble(), config)


def test_a_convolution_by_hand():
    machine, program = by_hand()
    list(machine.execute(program))
    # window (2, 0): 2*1 + 0*2 and 2*-1 + 0*3, which the clamp lifts to 0; window (0, 5): 5*2 and 5*3
    assert machine.store[576:584].tolist() == [2, 0, 10, 15, 0, 0, 0, 0]


def test_rows_of_padding_hold_the_pad():
    machine, program = by_hand(layer={"pad": 7}, rows=3, lead_rows=1)
    list(machine.execute(program))
    padding = [21, 14, 21, 14]  # 7*1 + 7*2 and -7 + 7*3
    assert machine.store[576:600].reshape(3, 8)[:, :4].tolist() == [padding, [2, 0, 10, 15], padding]


def test_bytes_around_a_row_hold_the_pad():
    # one store word of padding in front, of which the window sees the last byte; the row's third byte is padding too
    machine, program = by_hand(layer={"pad": 9, "left_granules": 1, "right_granule": 2, "offset": 7, "width": 4, "tail": 2})
    list(machine.execute(program))
    # windows (9, 2), (2, 0), (0, 9), (9, 9)
    assert machine.store[576:584].tolist() == [13, 0, 2, 0, 18, 27, 27, 18]


@pytest.mark.parametrize("bits, expected", [(18, 0), (19, 255)])
def test_accumulators_wrap(bits, expected):
    config = dataclasses.replace(UP5K, acc_bits=bits)
    machine, program = by_hand(config, layer={"range_last": 4, "width": 1, "tail": 5})
    put(machine, 512, [255] * 5)
    list(machine.execute(dataclasses.replace(program, steps=program.steps[1:2])))
    machine.weights[:5, 0] = 127
    list(machine.execute(dataclasses.replace(program, steps=program.steps[2:])))
    # 5 * 255 * 127 = 161925 is 161925 - 2**18 = -100219 in 18 bits
    assert machine.store[576] == expected


def test_loads_fill_the_entries_that_they_name():
    machine, program = by_hand()
    steps = ({**program.steps[0], "destination": 3}, {**program.steps[1], "destination": 20, "count": 2})
    list(machine.execute(dataclasses.replace(program, steps=steps)))
    assert machine.weights.any(axis=1).nonzero()[0].tolist() == [3, 4]
    assert machine.weights[3:5, :3].tolist() == [[1, -1, 0], [2, 3, 0]]
    assert machine.parameters.any(axis=1).nonzero()[0].tolist() == [20, 21]


# What stops the core


def sealed(image):
    return image[:28] + zlib.crc32(image[:28] + bytes(4) + image[32:]).to_bytes(4, "little") + image[32:]


def start(machine, size):
    """What a host does: read the image back from the store, check and run it."""
    list(machine.execute(Program.disassemble(sealed(machine.store[:size].tobytes()), machine.config)))


FIRST_STEP = 128
WORDS = UP5K.store_words


@pytest.mark.parametrize(
    "code, address, data, message",
    [
        (Error.MAGIC, 0, [0], "an image's magic must be 0x52534d47, not 0x52534d00"),
        (Error.VERSION, 4, [9], "an image's version must be 0x3, not 0x9"),
        (Error.CONFIG, 6, [64], "an image's lanes must be 0x10, not 0x40"),
        (Error.CONFIG, 7, [16], "an image's store_bytes must be 0x8, not 0x10"),
        (Error.OPCODE, FIRST_STEP, [9], "the opcode of step 0 must be 0 to 8, not 9"),
        (
            Error.READ, FIRST_STEP, encode(STEP_LOAD, {"opcode": 1, "count": 4, "in_address": WORDS - 3}, 16),
            "a step must read store words 0 to 16383, not 16381 to 16384",
        ),
        (
            Error.READ, FIRST_STEP + 32,
            encode(STEP_RUN, {"opcode": 3, "layer": 1, "rows": 1, "in_rows": 1, "in_address": WORDS, "out_address": 576}, 16),
            "a step must read store words 0 to 16383, not 16384 to 16384",
        ),
        (
            Error.WRITE, FIRST_STEP + 32,
            encode(STEP_RUN, {"opcode": 3, "layer": 1, "rows": 1, "in_rows": 1, "in_address": 64, "out_address": 351}, 16),
            "a layer must write bytes 352 to 131071 of the store, not 351 to 354",
        ),
        (
            Error.WRITE, FIRST_STEP + 32,
            encode(STEP_RUN, {"opcode": 3, "layer": 1, "rows": 1, "in_rows": 1, "in_address": 64, "out_address": 131069}, 16),
            "a layer must write bytes 352 to 131071 of the store, not 131069 to 131072",
        ),
        (
            Error.EMPTY, FIRST_STEP + 32,
            encode(STEP_RUN, {"opcode": 3, "layer": 1, "rows": 0, "in_rows": 1, "in_address": 64, "out_address": 576}, 16),
            "a layer must have no empty loop",
        ),
    ],
)  # fmt: skip
def test_what_stops_the_core_is_refused(code, address, data, message):
    machine, program = by_hand()
    assert program.size == 352
    put(machine, address, data)
    before = machine.store.copy()
    with pytest.raises((ImageError, MachineError), match=f"^{re.escape(message)}$") as caught:
        start(machine, program.size)
    assert isinstance(caught.value, UserError)
    assert code in Error.TEXT
    np.testing.assert_array_equal(machine.store, before)  # also the part that a write would have had right


def test_the_program_by_hand_runs_from_the_store():
    machine, program = by_hand()
    start(machine, program.size)
    assert machine.store[576:580].tolist() == [2, 0, 10, 15]


@pytest.mark.parametrize(
    "layer, message",
    [
        *(({name: 0}, "have no empty loop") for name in ("width", "groups", "kernel_rows", "slot_words")),
        ({"word_mode": 1, "repeat": 0}, "have no empty loop"),
        ({"tail": 0}, "have 1 to 8 bytes in the last store word of a row"),
        ({"tail": 9}, "have 1 to 8 bytes in the last store word of a row"),
        ({"right_granule": 0}, "have rows of at least one store word"),
        ({"left_granules": 1}, "have rows of at least one store word"),
        ({"right_granule": 3}, "have slots that hold a row"),
        ({"left_granules": 2, "right_granule": 3}, "have slots that hold a row"),
        ({"slot_words": 2}, "have a ring of whole slots in the row buffer"),
        ({"ring_words": 257}, "have a ring of whole slots in the row buffer"),
        ({"kernel_rows": 2}, "have at least 2 slots, not 1"),
        ({"stride_rows": 2, "advance_words": 2}, "have at least 2 slots, not 1"),
        ({"ahead": 1}, "have at least 2 slots, not 1"),
        ({"ring_words": 3, "stride_rows": 2, "advance_words": 2}, "have a multiple of stride_rows (2) slots, not 3"),
        ({"stride_rows": 0, "advance_words": 0}, "have a multiple of stride_rows (0) slots, not 1"),
        ({"advance_words": 2}, "advance by stride_rows slots"),
        ({"offset": 14}, "read only the slots of its rows"),
        ({"width": 16}, "read only the slots of its rows"),
        ({"range_last": 15}, "read only the slots of its rows"),
        ({"clamp_min": 1, "clamp_max": 0}, "have clamps in order"),
        ({"word_mode": 1, "x_step": 8, "width": 1, "range_last": 0}, "step by whole words of 16 bytes in word mode"),
        ({"last_lanes": 0}, "have 1 to 16 last lanes"),
        ({"last_lanes": 17}, "have 1 to 16 last lanes"),
        ({"weight_base": 511}, "use weight vectors 0 to 511, not 512"),
        ({"parameter_base": 255}, "use parameter entries 0 to 255, not 256"),
    ],
)
def test_layers_that_the_machine_does_not_define_are_refused(layer, message):
    machine, program = by_hand(layer=layer)
    before = machine.store.copy()
    with pytest.raises(MachineError, match=f"^{re.escape(f'a layer must {message}')}$"):
        list(machine.execute(program))
    np.testing.assert_array_equal(machine.store, before)


OF_BITS = "have a bit per value only in a configuration with binary"
OF_NIBBLES = "have four bits per value only in a configuration with nibbles"
BINARY = "have binary weights only for bytes, of a bit, and no masks then"
CODED = {"out_coded": 1, "out_x_step": 2, "out_row_step": 8}


@pytest.mark.parametrize(
    "config, layer, message",
    [
        ("up5k", {"in_nibbles": 1}, OF_NIBBLES),
        ("up5k", {"out_nibbles": 1}, OF_NIBBLES),
        ("up5k", {"in_bits": 1}, OF_BITS),
        ("up5k", {"out_bits": 1, "last_lanes": 8}, OF_BITS),
        ("up5k", {"binary": 1}, OF_BITS),
        ("up5k", {"int4": 1}, "have weights of four bits only in a configuration with int4, and for bytes"),
        ("up5k", {"sparse": 1}, "have masks only in a configuration with masks, for bytes, and in every group"),
        ("modal", {"binary": 1, "word_mode": 1, "x_step": 0, "range_last": 0}, BINARY),
        ("modal", {"binary": 1, "sparse": 1, "width": 1}, BINARY),
        ("modal", {"binary": 1, "int4": 1}, BINARY),
        (
            "modal",
            {"int4": 1, "word_mode": 1, "x_step": 0, "range_last": 0},
            "have weights of four bits only in a configuration with int4, and for bytes",
        ),
        ("modal", {"int4": 1, "last_lanes": 33}, "have 1 to 32 last lanes"),
        (
            "modal",
            {"int4": 1, "last_lanes": 16} | CODED,
            "have weights of eight bits where it compresses rows",
        ),
        ("modal", {"in_nibbles": 1} | CODED, "have compressed rows only of bytes"),
        ("modal", {"out_bits": 1, "last_lanes": 8} | CODED, "have compressed rows only of bytes"),
        ("modal", {"in_nibbles": 1, "in_bits": 1}, "have rows of one kind"),
        ("modal", {"out_nibbles": 1, "out_bits": 1, "last_lanes": 8}, "have rows of one kind"),
        ("modal", {"out_nibbles": 1, "partial_out": 1}, "have rows of one kind"),
        ("modal", {"out_nibbles": 1, "last_lanes": 3}, "have 2 values in each byte of its output"),
        ("modal", {"out_bits": 1, "last_lanes": 4}, "have 8 values in each byte of its output"),
        (
            "modal",
            {"sparse": 1, "word_mode": 1, "x_step": 0, "range_last": 0},
            "have masks only in a configuration with masks, for bytes, and in every group",
        ),
        (
            "modal",
            {"sparse": 1, "shared_weights": 1, "width": 1},
            "have masks only in a configuration with masks, for bytes, and in every group",
        ),
        ("modal", {"sparse": 1}, "step by whole words of 16 bytes with masks"),
        ("modal", {"sparse": 1, "width": 1, "weight_base": 256}, "use masks 0 to 255, not 256"),
        ("modal", {"sparse": 1, "width": 1, "offset": 1, "range_last": 14, "weight_base": 256}, "use masks 0 to 255, not 256"),
    ],
)
def test_modes_that_the_machine_does_not_define_are_refused(config, layer, message):
    machine, program = by_hand({"up5k": UP5K, "modal": MODAL}[config], layer=layer)
    before = machine.store.copy()
    with pytest.raises(MachineError, match=f"^{re.escape(f'a layer must {message}')}$"):
        list(machine.execute(program))
    np.testing.assert_array_equal(machine.store, before)


def run_by_hand(layer, *, weights=None, masks=None, row=None):
    """The 64 bytes of the output of a run by hand, with ``{vector: its first bytes}``, ``{mask: its bytes}``, and another input
    row. All channels have the parameters of the first."""
    machine, program = by_hand(MODAL, layer=layer)
    loads, run = (dataclasses.replace(program, steps=part) for part in (program.steps[:2], program.steps[2:]))
    list(machine.execute(loads))
    machine.parameters[:] = machine.parameters[0]
    for number, values in (weights or {}).items():
        machine.weights[number, : len(values)] = np.array(values, np.uint8).view(np.int8)
    for number, entry in (masks or {}).items():
        machine.masks[number] = np.frombuffer(entry, np.uint8)
    put(machine, 512, row or [])
    list(machine.execute(run))
    return machine.store[576:640].tolist()


def test_a_sparse_window_by_hand():
    """Bytes 1 and 2 of a row, 0 and 5, in lanes 1 and 2 of a word. The vector of lane 0 lies in front of that of lane 2."""
    layer = {"sparse": 1, "width": 1, "offset": 1, "weight_base": 3, "vector_base": 10}
    mask = bytes([0b0000_0101, 0, 4, 0, 0, 0, 0, 0])
    assert run_by_hand(layer, masks={3: mask}, weights={15: [7, 253]})[:2] == [35, 0]
    mask = bytes([0b0000_0001, 0, 4, 0, 0, 0, 0, 0])  # neither is stored
    assert run_by_hand(layer, masks={3: mask}, weights={15: [7, 253]})[:2] == [0, 0]


def test_masks_of_groups_and_of_words_by_hand():
    """A window of three bytes in lanes 14, 15 and 0: two masks for each of two groups, the second with 256 vectors in front."""
    layer = {
        "sparse": 1, "width": 1, "offset": 14, "range_last": 2, "groups": 2, "slot_words": 2, "ring_words": 2,
        "advance_words": 2, "left_granules": 1, "right_granule": 3, "tail": 3, "weight_base": 7, "pad": 0,
    }  # fmt: skip
    row = [0, 0, 0, 0, 0, 0, 2, 3, 4]
    masks = {
        7: bytes([0, 0b1100_0000, 20, 0, 0, 0, 0, 0]), 8: bytes([1, 0, 22, 0, 0, 0, 0, 0]),
        9: bytes([0, 0b1000_0000, 0, 1, 0, 0, 0, 0]), 10: bytes([0b0010, 0, 1, 1, 0, 0, 0, 0]),
    }  # fmt: skip
    found = run_by_hand(layer, masks=masks, weights={20: [1], 21: [10], 22: [20], 256: [0, 5], 257: [9] * 16}, row=row)
    assert found[:1] == [2 * 1 + 3 * 10 + 4 * 20]
    assert found[16:18] == [0, 3 * 5]


def test_a_sparse_layer_uses_only_vectors_that_exist():
    layer = {"sparse": 1, "width": 1, "vector_base": 500}
    stored = bytes([0b11, 0, 11, 0, 0, 0, 0, 0])
    with pytest.raises(MachineError, match=r"^a layer must use weight vectors 0 to 511, not 512$"):
        run_by_hand(layer, masks={0: stored})
    run_by_hand(layer, masks={0: bytes([0b100, 0, 255, 255, 0, 0, 0, 0])})  # of a byte outside the window


def test_binary_counts_agreements_twice_by_hand():
    # windows (2, 0) and (0, 5); weights (0x02, 0x00) and (0xff, 0x05)
    found = run_by_hand({"binary": 1}, weights={0: [0x02, 0xFF], 1: [0x00, 0x05]})
    assert found[:4] == [2 * (8 + 8), 2 * (1 + 6), 2 * (7 + 6), 2 * (0 + 8)]


def test_weights_of_four_bits_by_hand():
    layer = {"int4": 1, "last_lanes": 18, "out_x_step": 18}
    found = run_by_hand(layer, weights={0: [0x21, 0x80], 1: [0x4F, 0x70]})
    # windows (2, 0) and (0, 5); channels 0, 1, 16 and 17 have weights (1, -1), (0, 0), (2, 4) and (-8, 7)
    assert [found[n] for n in (0, 1, 16, 17)] == [2, 0, 4, 0]
    assert [found[18 + n] for n in (0, 1, 16, 17)] == [0, 0, 20, 35]
    assert found[36:] == [0] * 28


def test_the_next_group_of_weights_of_four_bits_is_twice_the_lanes_away():
    layer = {"int4": 1, "groups": 2, "last_lanes": 1, "width": 1}
    found = run_by_hand(layer, weights={0: [0x21], 1: [0], 2: [0x73], 3: [0]})
    assert (found[0], found[16], found[32], found[33:]) == (2, 4, 6, [0] * 31)


def test_rows_of_four_bits_by_hand():
    # bytes 1, 2 and 3: windows (1, 2) and (2, 3)
    assert run_by_hand({"in_nibbles": 1}, row=[0x21, 0xF3])[:4] == [1 + 2 * 2, -1 + 2 * 3, 2 + 3 * 2, -2 + 3 * 3]


def test_rows_of_bits_by_hand():
    # bytes 2, 0 and 2
    assert run_by_hand({"in_bits": 1}, row=[0b1111_1101])[:4] == [2, 0, 2 * 2, 2 * 3]


def test_a_last_store_word_counts_only_as_far_as_granules_do():
    """Three granules of nibbles are the first one and a half words."""
    layer = {"in_nibbles": 1, "right_granule": 3, "tail": 1, "slot_words": 2, "ring_words": 2, "advance_words": 2, "width": 1}
    assert run_by_hand(layer | {"offset": 15}, row=[0] * 7 + [0x50, 0x43])[:2] == [5 + 2 * 3, -5 + 3 * 3]
    assert run_by_hand(layer | {"offset": 16, "pad": 9}, row=[0] * 8 + [0x43])[:2] == [3 + 2 * 9, -3 + 3 * 9]


@pytest.mark.parametrize("field, per_word", [("in_nibbles", 2), ("in_bits", 8)])
def test_only_words_of_which_granules_are_made_are_read(field, per_word):
    """The store's last word."""
    for more in (0, 1):
        rows = {"right_granule": per_word + more, "slot_words": 5, "ring_words": 5, "advance_words": 5}
        machine, program = by_hand(MODAL, layer={field: 1, **rows}, in_address=16383)
        if not more:
            list(machine.execute(program))
            continue
        with pytest.raises(MachineError, match=r"^a step must read store words 0 to 16383, not 16383 to 16384$"):
            list(machine.execute(program))


def test_outputs_of_four_bits_by_hand():
    # sums 2, -2, 10 and 15, less 8
    layer = {"out_nibbles": 1, "out_x_step": 1, "zero_point": -8, "clamp_min": -8, "clamp_max": 7}
    assert run_by_hand(layer)[:3] == [0x02, 0xFA, 0]


def test_outputs_of_bits_by_hand():
    # sums 2 and -2, and then 10 and 15, in six channels 0; one is where they are at least 10
    layer = {"out_bits": 1, "out_x_step": 1, "zero_point": -10, "last_lanes": 8}
    assert run_by_hand(layer)[:3] == [0b00, 0b11, 0]
    assert run_by_hand(layer | {"zero_point": 0})[:3] == [0b1111_1101, 0b1111_1111, 0]


@pytest.mark.parametrize("per_byte, field", [(2, "out_nibbles"), (8, "out_bits")])
def test_groups_of_packed_outputs_follow_each_other(per_byte, field):
    layer = {field: 1, "groups": 2, "width": 1, "last_lanes": 8, "zero_point": 5, "shared_weights": 1}
    byte = {2: 0xDD, 8: 0xFF}[per_byte]
    assert run_by_hand(layer, weights={0: [0] * 16, 1: [0] * 16}, row=[0] * 3) == [byte] * (24 // per_byte) + [0] * (
        64 - 24 // per_byte
    )


@pytest.mark.parametrize("layer", [{"offset": 13}, {"width": 15}, {"weight_base": 510}, {"parameter_base": 254}])
def test_the_last_that_is_allowed(layer):
    machine, program = by_hand(layer=layer)
    loads, run = (dataclasses.replace(program, steps=part) for part in (program.steps[:2], program.steps[2:]))
    list(machine.execute(loads))
    machine.parameters[:] = machine.parameters[0]
    list(machine.execute(run))


@pytest.mark.parametrize("base", [1, 128, 256])
def test_additions_need_all_parameter_entries(base):
    machine, program = by_hand(layer={"add": 1, "parameter_base": base})
    message = f"an addition's tables must start at a multiple of 256 up to 0, not at {base}"
    with pytest.raises(MachineError, match=f"^{message}$"):
        list(machine.execute(program))


@pytest.mark.parametrize(
    "field, value, reason",
    [
        ("shift", 63, "scale its sums within 32 bits, but a shift must be in -31..30, not -56"),
        ("shift", 1, "scale its sums within 32 bits, but an accumulator after its left shift must fit a signed 32-bit number"),
        ("shift", 0, "have shifts of at least 1, not 0"),
    ],
)
def test_scales_that_leave_32_bits_are_refused(field, value, reason):
    machine, program = by_hand(layer={"double_rounding": 1})
    record = encode(PARAMETER, {"bias": -(1 << 27), "multiplier": 5, "shift": SHIFT_BIAS, field: value}, 8)
    loads, run = (dataclasses.replace(program, steps=part) for part in (program.steps[:2], program.steps[2:]))
    list(machine.execute(loads))
    machine.parameters[0] = np.frombuffer(record, np.uint8)
    message = re.escape(f"a layer must {reason}")
    with pytest.raises(MachineError, match=f"^{message}"):
        list(machine.execute(run))


@pytest.mark.parametrize(
    "decoder, step, message",
    [
        ("off", {"format": 1}, "a load of format 1 needs a configuration with decoder 'nibbles'"),
        ("nibbles", {"format": 2}, "a load of format 2 needs a configuration with decoder 'palettes'"),
        (
            "palettes",
            {"format": 3, "count": 1},
            "a load of format 3 must have whole vectors of 2 words, not 0 words",
        ),
        (
            "nibbles",
            {"opcode": Opcode.LOAD_PALETTE},
            "a palette needs a configuration with decoder 'palettes', which 'other' has not",
        ),
        (
            "palettes",
            {"opcode": Opcode.LOAD_PALETTE, "shared": 1, "count": 33},
            "a palette must have 1 to 32 entries of 8 bytes from entry 0 on, not 264 bytes from entry 0 on",
        ),
        (
            "palettes",
            {"opcode": Opcode.LOAD_PALETTE, "count": 3},
            "a palette must have 1 to 32 entries of 32 bytes from entry 0 on, not 24 bytes from entry 0 on",
        ),
    ],
)
def test_loads_in_formats_that_do_not_fit_are_refused(decoder, step, message):
    machine, program = by_hand(Config("other", lanes=32, store_bytes=8, decoder=decoder))
    load = dict.fromkeys(STEP_LOAD, 0) | {"opcode": Opcode.LOAD_WEIGHTS, "count": 4, **step}
    weights, palette = machine.weights.copy(), machine.palette.copy()
    with pytest.raises(MachineError, match=f"^{re.escape(message)}$"):
        list(machine.execute(dataclasses.replace(program, steps=(load,))))
    np.testing.assert_array_equal(machine.weights, weights)
    np.testing.assert_array_equal(machine.palette, palette)


@pytest.mark.parametrize(
    "step, message",
    [
        (
            {"opcode": Opcode.LOAD_WEIGHTS, "count": 4, "destination": 511},
            "a load step must fill whole entries up to weight vector 511, not 32 bytes from weight vector 511 on",
        ),
        ({"opcode": Opcode.LOAD_WEIGHTS, "count": 0, "destination": 0}, "a load step must not be empty"),
        (
            {"opcode": Opcode.LOAD_WEIGHTS, "count": 3, "destination": 0},
            "a load step must fill whole entries up to weight vector 511, not 24 bytes from weight vector 0 on",
        ),
        (
            {"opcode": Opcode.LOAD_MASKS, "count": 1, "destination": 0},  # of which this core has none
            "a load of masks needs a configuration with masks, which 'up5k' has not",
        ),
        (
            {"opcode": Opcode.LOAD_PARAMETERS, "count": 2, "destination": 255},
            "a load step must fill whole entries up to parameter entry 255, not 16 bytes from parameter entry 255 on",
        ),
    ],
)
def test_loads_that_do_not_fit_are_refused(step, message):
    machine, program = by_hand()
    weights, parameters = machine.weights.copy(), machine.parameters.copy()
    with pytest.raises(MachineError, match=f"^{re.escape(message)}$"):
        list(machine.execute(dataclasses.replace(program, steps=({**step, "fetched": 0, "format": 0, "in_address": 0},))))
    np.testing.assert_array_equal(machine.weights, weights)
    np.testing.assert_array_equal(machine.parameters, parameters)


@pytest.mark.parametrize("lanes, count", [(16, 1), (64, 2)])
def test_loads_fill_masks_of_whole_words(lanes, count):
    """Of 16 lanes a mask is 4 bytes, in a word of 8; of 64 lanes it is 10, in two."""
    config = dataclasses.replace(MODAL, lanes=lanes)
    machine, program = by_hand(config)
    load = {"opcode": Opcode.LOAD_MASKS, "fetched": 0, "count": 2 * count, "destination": 254, "in_address": 0}
    list(machine.execute(dataclasses.replace(program, steps=(load,))))
    assert machine.masks[254:].tobytes() == program.assemble()[: 16 * count]
    for step in (load | {"destination": 255}, load | {"count": 3 * count}):
        with pytest.raises(MachineError, match=r"^a load step must fill whole entries up to mask 255, not "):
            list(machine.execute(dataclasses.replace(program, steps=(step,))))
    assert machine.masks.shape == (256, 8 * count)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_run_must_have_a_layer_of_the_table(layer):
    machine, program = by_hand()
    program = dataclasses.replace(program, steps=({**program.steps[-1], "layer": layer},))
    with pytest.raises(MachineError, match=f"^a run step must have a layer of 1 to 1, not {layer}$"):
        list(machine.execute(program))


# Fetches

FETCH = {"opcode": Opcode.FETCH, "wait": 0, "layer": 1, "count": 3, "in_address": 100, "external": 2}
EXTERNAL = bytes(range(1, 81))  # ten words
LOAD = {"opcode": Opcode.LOAD_PARAMETERS, "wait": 0, "fetched": 0, "count": 3, "in_address": 100, "destination": 100}


def run_steps(*steps, config=UP5K, external=EXTERNAL):
    """The machine after the loads by hand and these steps; words 100 to 102 of the store are bytes 800 to 823."""
    machine, program = by_hand(config)
    for part in (program.steps[:2], steps):
        list(machine.execute(dataclasses.replace(program, steps=part, external=external)))
    return machine


def test_a_fetch_copies_words():
    machine = run_steps(FETCH)
    assert machine.store[792:832].tolist() == [0] * 8 + [*range(17, 41)] + [0] * 8


def test_a_load_that_waits_gets_the_words():
    machine = run_steps(FETCH, LOAD | {"fetched": 1})
    assert machine.parameters[100:103].tolist() == [[*range(at, at + 8)] for at in (17, 25, 33)]


@pytest.mark.parametrize(
    "steps, used",
    [
        ([LOAD], "800 to 823"),
        ([LOAD | {"count": 1, "in_address": 102}], "816 to 823"),
        ([LOAD | {"count": 2, "in_address": 99}], "792 to 807"),
        ([LOAD | {"in_address": 50}, LOAD], "800 to 823"),
        ([{"opcode": Opcode.RUN, "in_address": 102}], "816 to 823"),
        ([{"opcode": Opcode.RUN, "in_address": 64, "out_address": 823}], "823 to 826"),
        ([{"opcode": Opcode.RUN, "in_address": 64, "out_address": 800 - 3}], "797 to 800"),
    ],
)
def test_pending_words_must_not_be_used(steps, used):
    """Neither read nor written, before a load has waited for them."""
    _, program = by_hand()
    *_, run = program.steps
    steps = [run | step if step["opcode"] == Opcode.RUN else step for step in steps]
    rule = "a step must not use bytes 800 to 823 of the store before a load has waited for their fetch"
    with pytest.raises(MachineError, match=f"^{rule}, as bytes {used} are$"):
        run_steps(FETCH, *steps)
    run_steps(FETCH, LOAD | {"in_address": 50, "fetched": 1}, *steps)
    run_steps(FETCH, FETCH | {"in_address": 200}, *steps)  # which begins when the first has ended


@pytest.mark.parametrize(
    "step",
    [
        LOAD | {"count": 3, "in_address": 97}, LOAD | {"in_address": 103}, {"out_address": 796}, {"out_address": 824},
        FETCH | {"in_address": 101},
    ],
)  # fmt: skip
def test_words_around_may_be_used(step):
    _, program = by_hand()
    run_steps(FETCH, *program.steps[:2], step if "opcode" in step else program.steps[-1] | step)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"count": 0}, "a fetch must have 1 to 4095 words, not 0"),
        ({"count": 4096}, "a fetch must have 1 to 4095 words, not 4096"),
        ({"in_address": 0}, "a fetch must write bytes 320 to 131071 of the store, not 0 to 23"),
        ({"in_address": 39}, "a fetch must write bytes 320 to 131071 of the store, not 312 to 335"),
        ({"in_address": 16382}, "a fetch must write bytes 320 to 131071 of the store, not 131056 to 131079"),
        ({"external": 8}, "a fetch must read words 0 to 9 of the external memory, not 8 to 10"),
        ({"external": 10}, "a fetch must read words 0 to 9 of the external memory, not 10 to 12"),
        ({"external": 1 << 30}, "a fetch must read words 0 to 9 of the external memory, not 1073741824 to 1073741826"),
    ],
)
def test_fetches_that_do_not_fit_are_refused(fields, message):
    # the image: header 64, a layer 64, a step and the end 32, data 160 bytes
    with pytest.raises(MachineError, match=f"^{message}$"):
        run_steps(FETCH | fields)


def test_the_first_and_the_last_words_may_be_fetched():
    machine = run_steps(FETCH | {"external": 7, "in_address": 16381}, FETCH | {"external": 0, "count": 10})
    assert machine.store[-24:].tolist() == [*range(57, 81)]
    assert machine.store[800:880].tolist() == [*range(1, 81)]


def test_a_fetch_needs_a_port():
    config = dataclasses.replace(UP5K, fetch_latency=0, fetch_interval=0)
    with pytest.raises(MachineError, match=r"^a fetch needs a configuration with fetch_interval, which 'up5k' has not$"):
        run_steps(FETCH, config=config)


def test_a_warm_start_does_without_what_is_in_the_buffers():
    machine, program = by_hand()
    program = dataclasses.replace(program, warm=2)
    cold = list(machine.execute(program))
    put(machine, 512, [4, 1, 1])
    warm = list(machine.execute(program, warm=True))
    assert (len(cold), len(warm)) == (3, 1)
    assert machine.store[576:580].tolist() == [6, 0, 3, 2]  # windows (4, 1) and (1, 1)


# Rows that wrap


ROWS = {"layer": {"row_step": 2, "row_step_odd": 3}, "rows": 5, "in_rows": 5}
"""Without a wrap the rows by hand are in words 64, 66, 69, 71 and 74."""


@pytest.mark.parametrize(
    "wrap, words",
    [
        ({}, [64, 66, 69, 71, 74]),
        ({"wrap_address": 90}, [64, 66, 69, 71, 74]),  # never, without wrap_rows
        ({"wrap_rows": 1, "wrap_address": 90}, [64, 90, 93, 95, 98]),
        ({"wrap_rows": 2, "wrap_address": 60}, [64, 66, 60, 62, 65]),
        ({"wrap_rows": 4, "wrap_address": 64}, [64, 66, 69, 71, 64]),
        ({"wrap_rows": 5, "wrap_address": 1}, [64, 66, 69, 71, 74]),
        ({"wrap_rows": 2, "wrap_address": 60, "lead_rows": 1, "rows": 6}, [None, 64, 66, 60, 62, 65]),
        ({"wrap_rows": 1, "wrap_address": 60, "lead_rows": 2, "rows": 5, "in_rows": 2}, [None, None, 64, 60, None]),
    ],
)
def test_the_row_behind_wrap_rows_others_is_at_wrap_address(wrap, words):
    machine, program = by_hand(**{**ROWS, **wrap})
    put(machine, 480, bytes(range(480 // 8, 120)) * 8)
    machine.store[480:960] = np.repeat(np.arange(60, 120, dtype=np.uint8), 8)  # word n holds bytes of value n
    *_, run = machine.execute(program)
    assert run.rows[:, 0].tolist() == [word or 0 for word in words]
    assert run.blank.tolist() == [word is None for word in words]


def test_a_row_behind_the_wrap_must_be_in_the_store():
    machine, program = by_hand(**ROWS, wrap_rows=4, wrap_address=WORDS)
    with pytest.raises(MachineError, match=r"^a step must read store words 0 to 16383, not 16384 to 16384$"):
        list(machine.execute(program))


# Loops and host steps


def looping(*steps):
    """A machine and a program of these steps; a loop's ``in_address`` is the number of a step."""
    program = Program(UP5K, (), (), b"", TensorPlace(512, 1, 1, 1, 1), TensorPlace(512, 1, 1, 1, 1), 640)
    steps = [
        {**step, "in_address": program.step_word(step["in_address"])} if step["opcode"] == Opcode.LOOP else step
        for step in steps
    ]
    program = dataclasses.replace(program, steps=tuple(steps))
    machine = Machine(UP5K)
    put(machine, 0, program.assemble())
    return machine, Program.disassemble(program.assemble(), UP5K)


def step_numbers(machine, program):
    return [machine.step for _ in machine.execute(program)]


def loop(count, back=0):
    return {"opcode": Opcode.LOOP, "count": count, "in_address": back}


HOST = {"opcode": Opcode.HOST, "rows": 1, "columns": 1, "row_words": 1, "in_address": 64}
A_LOAD = {"opcode": Opcode.LOAD_PARAMETERS, "count": 1, "in_address": 64, "destination": 3}


@pytest.mark.parametrize(
    "steps, order",
    [
        ([A_LOAD, loop(0)], [0, 1]),
        ([A_LOAD, loop(1)], [0, 1] * 2),
        ([A_LOAD, HOST, loop(3, 1)], [0, *[1, 2] * 4]),
        ([A_LOAD, loop(2), A_LOAD, HOST, loop(1, 2), A_LOAD], [*[0, 1] * 3, *[2, 3, 4] * 2, 5]),
        ([loop(2)], [0] * 3),  # of nothing but itself
        ([A_LOAD, loop(255)], [0, 1] * 256),
    ],
)
def test_a_loop_goes_back_as_often_as_it_says(steps, order):
    machine, program = looping(*steps)
    assert step_numbers(machine, program) == order
    assert step_numbers(machine, program) == order  # the counter begins at 0 again


def test_a_loop_left_in_the_middle_begins_anew():
    machine, program = looping(A_LOAD, loop(3))
    for _ in zip(range(4), machine.execute(program)):
        pass
    assert step_numbers(machine, program) == [0, 1] * 4


@pytest.mark.parametrize("back, message", [(7, "7"), (9, "9"), (12, "12"), (1 << 19, "524288")])
def test_a_loop_must_go_back_to_a_step(back, message):
    machine, program = looping(A_LOAD, loop(1))
    program = dataclasses.replace(program, steps=(program.steps[0], program.steps[1] | {"in_address": back}))
    sentence = f"a loop must go back to word 8 to 10, where a step is, not to {message}"
    with pytest.raises(MachineError, match=f"^{sentence}$"):
        list(machine.execute(program))


def test_a_loop_has_at_most_so_many_turns_as_the_counter():
    machine, program = looping(A_LOAD, loop(256))
    with pytest.raises(MachineError, match=r"^a loop must go back at most 255 times, not 256$"):
        list(machine.execute(program))


def test_what_the_host_does_is_seen_by_the_next_step():
    machine, program = looping(HOST, A_LOAD)
    execution = machine.execute(program)
    assert next(execution)["opcode"] == Opcode.HOST
    put(machine, 512, range(1, 9))
    next(execution)
    assert machine.parameters[3].tolist() == [*range(1, 9)]


def test_a_host_step_waits_for_the_fetches():
    step = {**HOST, "take": 0, "first": 1, "column": 0}
    with pytest.raises(MachineError, match="before a load has waited"):
        run_steps(FETCH, LOAD)
    run_steps(FETCH, step, LOAD)


@pytest.mark.parametrize(
    "build, config",
    [*((build, UP5K) for build in NETWORKS), *((build, CONFIGS["ecp5_25_compressed"]) for build in MODES)],
    ids=lambda one: getattr(one, "__name__", None) or one.name,
)
def test_damaged_programs_run_or_are_refused(build, config, rng):
    """One wrong field: no traceback, and never a write into the image."""
    compiled = compile_network(build(rng), config)
    image = compiled.program.assemble()
    program = Program.disassemble(image, config)
    refused = 0
    for _ in range(150):
        records = {"layers": [*program.layers], "steps": [*program.steps]}
        part = records["layers" if rng.random() < 0.7 else "steps"]
        index = rng.integers(len(part))
        layout = DESCRIPTOR if "opcode" not in part[index] else STEP_RUN if part[index]["opcode"] == Opcode.RUN else STEP_LOAD
        name = str(rng.choice([name for name in layout if name not in ("opcode", "rows")]))
        low = -(1 << layout[name].width - 1) if layout[name].signed else 0
        high = low + (1 << layout[name].width) - 1
        value = rng.choice([low, high, rng.integers(low, high + 1), min(part[index][name] + 1, high)])
        part[index] = {**part[index], name: int(value)}
        machine = Machine(config)
        put(machine, 0, image)
        try:
            list(machine.execute(dataclasses.replace(program, **{k: tuple(v) for k, v in records.items()})))
        except MachineError:
            refused += 1
        assert machine.store[: len(image)].tobytes() == image, f"{name} = {value}"
    assert 20 < refused < 140


def test_every_operator_runs_from_the_store(rng):
    network = residual(rng)
    compiled = compile_network(network, UP5K)
    x = inputs(rng, network, 1)
    machine = loaded(compiled, x[0])
    start(machine, compiled.program.size)
    np.testing.assert_array_equal(output(compiled, machine), network.run(x)[compiled.device_output][0])
