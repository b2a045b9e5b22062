"""Programs of networks: places, schedules and runs, and what does not fit."""

import dataclasses
import itertools
import os
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest

from gossamer.golden import arithmetic
from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.interpreter import Machine
from gossamer.golden.network import AveragePool, Conv, Network, Reshape, Tensor
from gossamer.golden.spec import CONFIGS, Config, Opcode, UserError
from tests.networks import NETWORKS, Builder, block_sparse, inputs, narrow_weights, one_bit, reshapes, residual

UP5K = CONFIGS["up5k"]
TIGHT = Config("tight", row_words=1024, weight_vectors=256)
WIDE = Config("wide", lanes=64, store_words=1 << 19, row_words=8192, weight_vectors=32768, parameters=32768, acc_bits=28)


def executed(compiled, x):
    """The store after one input."""
    program = compiled.program
    machine = Machine(program.config)
    for address, data in ((0, program.assemble()), (program.input.address, bytes(compiled.input_bytes(x)))):
        machine.store[address : address + len(data)] = np.frombuffer(data, np.uint8)
    list(machine.execute(program))
    return machine.store


def tensor(compiled, store, name):
    place = compiled.places[name]
    data = store[place.address : place.address + place.size(compiled.program.config)]
    return place.from_store(data, compiled.program.config)


def assert_equal_to_the_network(network, config, rng):
    compiled = compile_network(network, config)
    x = inputs(rng, network, 1)
    place = compiled.program.output
    got = compiled.output_values(executed(compiled, x[0])[place.address : place.address + place.size(config)])
    np.testing.assert_array_equal(got, network.run(x)[compiled.device_output][0])
    return compiled


# Places


@pytest.mark.parametrize("config", ["up5k", "ecp5_25"])
@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_keep_keeps_all_tensors(build, config, rng):
    network = build(rng)
    compiled = compile_network(network, CONFIGS[config], keep=True)
    x = inputs(rng, network, 1)
    store = executed(compiled, x[0])
    want = {**network.run(x), network.input: x}
    device = [layer for layer in network.layers if layer.name not in compiled.host]
    computed = {layer.output for layer in device if not isinstance(layer, Reshape)}
    reshaped = {layer.output for layer in device if isinstance(layer, Reshape)}  # may share the bytes of the input
    assert {compiled.device_input, *computed} <= compiled.places.keys() <= {compiled.device_input, *computed, *reshaped}
    for name in compiled.places:
        got = tensor(compiled, store, name)
        np.testing.assert_array_equal(got.reshape(-1), want[name][0].reshape(-1), name)


@pytest.mark.parametrize("config", ["up5k", "ecp5_25"])
@pytest.mark.parametrize("build", [b for b in NETWORKS if b is not reshapes], ids=lambda build: build.__name__)
def test_activations_take_what_the_tensors_need(build, config, rng):
    compiled = compile_network(build(rng), CONFIGS[config])
    program, plan = compiled.program, compiled.plan
    assert plan.peak == plan.bound
    assert program.end_address == program.size + plan.peak
    ends = [place.address + place.size(program.config) for place in compiled.places.values()]
    assert max(ends) <= program.end_address
    assert min(place.address for place in compiled.places.values()) == program.size
    assert all(place.address % program.config.store_bytes == 0 for place in compiled.places.values())


def test_places_by_hand(rng):
    b = Builder(rng, (4, 5, 3))
    x = b.conv(b.input, 6, (1, 1))
    b.max_pool(x, (2, 2), (2, 2))
    compiled = compile_network(b.network(), UP5K)
    # 4 rows of 15 bytes, that is 2 words of 8; pixels of whole words of 16 lanes for the pool; 2 rows of 2 pixels of 6 bytes
    assert [compiled.plan.areas[name].bytes for name in ("t0", "t1", "t2")] == [64, 320, 32]
    assert compiled.plan.peak == 384
    assert compiled.places["t1"].pitch == 16
    assert compiled.places["t2"].pitch == 6
    assert compiled.program.end_address == compiled.program.size + 384


# Programs


def test_the_blob_holds_equal_data_once(rng):
    b = Builder(rng, (6, 6, 16))
    x = b.max_pool(b.input, (2, 2), (1, 1))
    x = b.conv(x, 256, (1, 1))  # 256 vectors and all parameters: nothing of the pool stays in the buffers
    x = b.conv(x, 16, (1, 1))
    b.max_pool(x, (2, 2), (1, 1))
    program = compile_network(b.network(), UP5K).program
    first, last = (
        {step["in_address"] for step in program.steps if step["opcode"] != Opcode.RUN and step["layer"] == layer}
        for layer in (1, len(program.layers))
    )
    assert first == last
    assert len(first) == 2
    assert len(program.blob) == (12 + 256 + 256) * 16 + (16 + 256 + 16) * 8


def test_what_is_still_in_the_buffers_is_not_loaded_again(rng):
    b = Builder(rng, (4, 4, 16))
    x = b.max_pool(b.input, (2, 2), (1, 1))
    b.max_pool(x, (2, 2), (1, 1))
    program = compile_network(b.network(), UP5K).program
    assert [step["opcode"] for step in program.steps] == [
        Opcode.LOAD_WEIGHTS, Opcode.LOAD_PARAMETERS, Opcode.RUN, Opcode.RUN,
    ]  # fmt: skip


def test_weights_of_a_program_by_hand():
    """One output of two inputs, weights 3 and -4: lane 0 of two vectors, all other lanes 0."""
    tensors = {"x": Tensor("x", (1, 1, 2), 1.0, 0), "y": Tensor("y", (1, 1, 1), 1.0, 0)}
    weights = np.array([3, -4], np.int8).reshape(1, 1, 1, 2)
    layer = Conv("c", ("x",), "y", weights, np.zeros(1, np.int32), np.ones(1))
    program = compile_network(Network("n", tensors, (layer,), "x", "y"), UP5K).program
    # header, one layer, two loads, one run, the end
    assert (program.size - len(program.blob), program.steps[0]["in_address"]) == (64 + 64 + 4 * 16, 24)
    assert program.blob[:32] == bytes([3] + [0] * 15 + [256 - 4] + [0] * 15)
    assert [step["opcode"] for step in program.steps] == [Opcode.LOAD_WEIGHTS, Opcode.LOAD_PARAMETERS, Opcode.RUN]
    assert [step["count"] for step in program.steps[:2]] == [4, 16]


def entries(program):
    """Per run step: what it reads of the buffers, and the loads in front of it as (opcode, entries, wait)."""
    loads = []
    for step in program.steps:
        if step["opcode"] == Opcode.RUN:
            yield loads
            loads = []
        else:
            each = program.config.granules if step["opcode"] == Opcode.LOAD_WEIGHTS else 8 / program.config.store_bytes
            count = int(step["count"] / each)
            loads.append((step["opcode"], {*range(step["destination"], step["destination"] + count)}, step["wait"]))


@pytest.mark.parametrize("config", ["up5k", "gw1n9", "ecp5_25"])
def test_loads_during_a_run_leave_its_entries_alone(config, rng):
    config = dataclasses.replace(CONFIGS[config], store_words=16384)
    b = Builder(rng, (3, 3, 4))
    x = b.input
    for _ in range(12):
        x = b.conv(x, int(rng.integers(1, 60)), (1, int(rng.integers(1, 3))))
    program = compile_network(b.network(), config).program
    runs = list(entries(program))
    overlapped = waited = 0
    for before, now in itertools.pairwise(runs):
        used = {}
        for opcode, taken, _ in before:
            used[opcode] = used.get(opcode, set()) | taken
        idle = False
        for opcode, taken, wait in now:
            idle |= bool(wait)
            assert idle or not taken & used[opcode]
            assert not wait or taken <= used[opcode]  # nothing waits that need not
            overlapped, waited = overlapped + (not idle), waited + wait
    assert overlapped > 5
    assert waited > 0


def test_a_run_reads_what_was_loaded_in_front_of_it(rng):
    program = compile_network(residual(rng), UP5K).program
    loaded = {Opcode.LOAD_WEIGHTS: set(), Opcode.LOAD_PARAMETERS: set()}
    index = 0
    for step, loads in zip((step for step in program.steps if step["opcode"] == Opcode.RUN), entries(program)):
        for opcode, taken, _ in loads:
            loaded[opcode] |= taken
        layer = program.layers[step["layer"] - 1]
        vectors = (1 if layer["shared_weights"] else layer["groups"]) * layer["kernel_rows"] * (layer["range_last"] + 1)
        assert {*range(layer["weight_base"], layer["weight_base"] + vectors)} <= loaded[Opcode.LOAD_WEIGHTS]
        channels = 256 if layer["add"] else layer["groups"] * UP5K.lanes
        assert {*range(layer["parameter_base"], layer["parameter_base"] + channels)} <= loaded[Opcode.LOAD_PARAMETERS]
    for step in program.steps:  # a load names the layer of the run behind it
        assert step["layer"] == index + 1
        index += step["opcode"] == Opcode.RUN


# Several passes: more weights or parameters than a buffer holds


@pytest.mark.parametrize(
    "shape, build",
    [
        ((3, 3, 4), lambda b: b.conv(b.input, 300)),
        ((100,), lambda b: b.fully_connected(b.input, 70)),
        ((4, 3, 100), lambda b: b.depthwise(b.input, (7, 7))),
        ((3, 3, 300), lambda b: b.max_pool(b.input, (2, 2), (1, 1))),
        ((3, 3, 300), lambda b: b.average_pool(b.input, (2, 2), (1, 1))),
    ],
    ids=["conv", "fully_connected", "depthwise", "max_pool", "average_pool"],
)
def test_layers_in_several_passes(shape, build, rng):
    b = Builder(rng, shape)
    build(b)
    network = b.network()
    compiled = assert_equal_to_the_network(network, TIGHT, rng)
    runs = compiled.runs
    assert len(runs) > 1
    channels = network.tensors[network.output].shape[-1]
    assert [channel for run in runs for channel in run.channels] == [*range(channels)]
    assert {run.layer for run in runs} == {network.layers[-1].name}
    assert [compiled.program.steps[run.step]["opcode"] for run in runs] == [Opcode.RUN] * len(runs)


def test_an_addition_of_a_map_to_itself(rng):
    b = Builder(rng, (3, 3, 300))
    b.add(b.input, b.input)
    assert len(assert_equal_to_the_network(b.network(), TIGHT, rng).runs) == 1


@pytest.mark.parametrize("padding", [(5, 0, 0, 0), (0, 5, 0, 0), (0, 0, 5, 0), (0, 0, 0, 5), (7, 8, 9, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (3, 4)])
def test_padding_may_be_larger_than_the_kernel(padding, stride, rng):
    b = Builder(rng, (4, 5, 3))
    padded_conv(b, (2, 2), stride, padding)
    assert_equal_to_the_network(b.network(), UP5K, rng)


# Reshapes and the host's layers


@pytest.mark.parametrize(
    "shape, shapes",
    [
        ((1, 1, 32), [(32,)]),
        ((32,), [(1, 1, 32)]),
        ((2, 4, 4), [(32,), (2, 4, 4)]),
        ((2, 4, 4), [(2, 2, 8), (4, 8, 1), (2, 4, 4)]),
    ],
)
def test_a_reshape_to_the_same_map_costs_nothing(shape, shapes, rng):
    b = Builder(rng, shape)
    x = b.input
    for other in shapes:
        x = b.reshape(x, other)
    b.add(x, x)
    assert len(assert_equal_to_the_network(b.network(), UP5K, rng).runs) == 1


@pytest.mark.parametrize("shapes", [[(2, 8, 2)], [(4, 2, 4), (8, 4, 1)]])
def test_a_fully_connected_layer_takes_any_reshape(shapes, rng):
    b = Builder(rng, (4, 4, 2))
    x = b.max_pool(b.input, (1, 1), (1, 1))  # pixels with bytes between them
    x = b.max_pool(x, (1, 1), (1, 1))
    for shape in shapes:
        x = b.reshape(x, shape)
    b.fully_connected(x, 5)
    assert_equal_to_the_network(b.network(), UP5K, rng)


@pytest.mark.parametrize(
    "layer",
    [
        lambda b, x: b.conv(x, 5),
        lambda b, x: b.depthwise(x),
        lambda b, x: b.max_pool(x, (1, 1)),
        lambda b, x: b.average_pool(x, (1, 1)),
        lambda b, x: b.add(x, x),
    ],
    ids=["conv", "depthwise", "max_pool", "average_pool", "add"],
)
def test_other_layers_take_a_copy_of_another_shape(layer, rng):
    b = Builder(rng, (4, 4, 16))
    x = b.conv(b.input, 16, (1, 1))
    x = layer(b, b.reshape(x, (2, 2, 64)))
    assert len(assert_equal_to_the_network(b.network(), UP5K, rng).runs) > 2


def test_the_host_reshapes_the_input(rng):
    b = Builder(rng, (4, 4, 2))
    b.max_pool(b.reshape(b.input, (2, 4, 4)), (1, 1), (1, 1))
    compiled = assert_equal_to_the_network(b.network(), UP5K, rng)
    assert (compiled.host, compiled.device_input) == (("l0_reshape",), "t1")


def test_the_host_computes_what_is_behind_the_last_layer(rng):
    b = Builder(rng, (2, 2, 2))
    x = b.fully_connected(b.input, 6)
    x = b.reshape(x, (1, 2, 3))
    b.reshape(x, (6,))
    network = b.network()
    compiled = compile_network(network, UP5K)
    assert (compiled.device_input, compiled.device_output) == ("t1", "t2")
    assert compiled.host == ("l0_reshape", "l2_reshape", "l3_reshape")
    values = rng.integers(-128, 128, (3, 6)).astype(np.int8)
    np.testing.assert_array_equal(compiled.finish(values), values)


def test_progress_names_the_layers_of_the_device(rng):
    network = residual(rng)
    names = []
    compiled = compile_network(network, UP5K, progress=names.append)
    assert names == [layer.name for layer in network.layers if layer.name not in compiled.host]
    assert compiled.host == (network.layers[-1].name,)


# Refusals


def refusal(network, config=UP5K):
    with pytest.raises(CompileError) as caught:
        compile_network(network, config)
    assert isinstance(caught.value, UserError)
    return str(caught.value)


def padded_conv(b, kernel=(1, 1), stride=(1, 1), padding=(0, 0, 0, 0), channels=1):
    """A convolution with any padding."""
    weights, bias, scales, scale = b._numbers(b.input, (channels, *kernel, b.tensors[b.input].shape[2]), channels, 9, False)
    out = b.tensor(b._mapped(b.input, kernel, stride, padding, channels, None), scale=scale)
    fields = {"weights": weights, "bias": bias, "weight_scales": scales, "stride": stride, "padding": padding}
    return b._append(Conv, (b.input,), out, **fields)


def test_a_store_that_is_too_small(rng):
    b = Builder(rng, (8, 8, 16))
    b.conv(b.input, 16, (1, 1))
    network = b.network("large")
    # 64 + 64 + 4*16 bytes, 16 vectors of 16 bytes, 16 parameters of 8 bytes; two maps of 1024 bytes
    image, maps = 192 + 256 + 128, 2048
    small = Config("small", store_words=256)
    assert refusal(network, small) == (
        f"network 'large' needs {image + maps} bytes of store ({image} of program and weights, {maps} of activations), and "
        f"configuration 'small' has 2048: {image + maps - 2048} are missing"
    )
    fits = (image + maps) // 8
    compile_network(network, dataclasses.replace(small, store_words=fits))
    assert refusal(network, dataclasses.replace(small, store_words=fits - 1)).endswith(": 8 are missing")


@pytest.mark.parametrize("dtype, there", [("int4", "nibbles"), ("binary", "binary")])
def test_a_core_without_maps_of_the_type(dtype, there, rng):
    b = Builder(rng, (4, 4, 8))
    x = b.conv(b.input, 8, (1, 1), dtype=dtype)
    b.conv(x, 8, (1, 1))
    network, other = b.network(), {"nibbles": "binary", "binary": "nibbles"}[there]
    sentence = f"tensor {x!r} is {dtype}, and configuration 'c' has no maps of that type"
    assert refusal(network, Config("c")) == sentence
    assert refusal(network, Config("c", int4=True, masks=256, **{other: True})) == sentence
    compile_network(network, Config("c", **{there: True}))


@pytest.mark.parametrize("channels", [(5, 6), (6, 5)])
def test_a_concatenation_of_odd_numbers_of_channels_in_four_bits(channels, rng):
    b = Builder(rng, (4, 4, 8))
    x = b.conv(b.input, channels[0], (1, 1), dtype="int4")
    y = b.conv(b.input, channels[1], (1, 1), dtype="int4", like=x)
    b.conv(b.concat(x, y), 8, (1, 1))
    assert refusal(b.network(), Config("c", nibbles=True)) == (
        f"layer {b.layers[2].name!r}: a concatenation of int4 maps must be of even numbers of channels"
    )


def test_a_part_of_the_network_that_ends_in_four_bits(rng):
    """What the host is to compute needs bytes."""
    b = Builder(rng, (4, 4, 8))
    x = b.conv(b.input, 10, (4, 4), same=False, dtype="int4")
    b.softmax(b.reshape(x, (10,)))
    sentence = refusal(b.network(), Config("c", nibbles=True))
    assert re.fullmatch(r"the core's input and output must be int8, and tensor '\w+' is int4", sentence)


@pytest.mark.parametrize("build, field", [(block_sparse, "sparse"), (narrow_weights, "int4"), (one_bit, "binary")])
def test_a_core_without_modes_computes_the_same_without_them(build, field, rng):
    network = build(rng)
    has = {"binary": True} if build is one_bit else {"nibbles": True}
    plain, modal = (Config("c", store_words=65536, **fields) for fields in (has, {**has, "masks": 256, "int4": True}))
    layers = [compile_network(network, config).program.layers for config in (plain, modal)]
    assert not any(layer["sparse"] or layer["int4"] for layer in layers[0])
    assert any(layer[field] for layer in layers[1])
    assert_equal_to_the_network(network, plain, rng)


def test_zero_vectors_and_narrow_weights_make_a_program_smaller(rng):
    """A quarter of the vectors in half the bytes, and their masks."""
    b = Builder(rng, (4, 4, 32))
    b.conv(b.input, 32, (3, 3))
    network = b.network()
    (layer,) = network.layers
    weights = layer.weights >> 4
    weights[:, rng.permuted(np.arange(288)).reshape(3, 3, 32) >= 72] = 0
    network = dataclasses.replace(network, layers=(dataclasses.replace(layer, weights=weights),))
    programs = [
        compile_network(network, Config("c", **fields)).program for fields in ({}, {"masks": 256}, {"masks": 256, "int4": True})
    ]
    masks = 9 * 2 * 8  # words of 16 lanes in a window, 8 bytes each; for each group
    assert [program.weight_bytes for program in programs] == [2 * 288 * 16, 2 * (72 * 16 + masks), 72 * 16 + masks]


def test_a_row_buffer_that_is_too_small(rng):
    def network(columns):
        b = Builder(rng, (1, columns, 16))
        b.max_pool(b.input, (1, columns), (1, 1))
        return b.network()

    config = dataclasses.replace(UP5K, weight_vectors=1024)
    compile_network(network(256), config)
    assert refusal(network(257), config) == (
        "layer 'l0_maxpool' needs 257 words of 16 bytes for the input rows of a window, and the row buffer of configuration "
        "'up5k' has 256"
    )


def test_a_weight_buffer_that_is_too_small(rng):
    def network(columns):
        b = Builder(rng, (1, columns, 2))
        b.max_pool(b.input, (1, columns), (1, 1))
        return b.network()

    compile_network(network(170), UP5K)
    assert refusal(network(171)) == (
        "layer 'l0_maxpool' needs 513 weight vectors per 16 output channels, and the weight buffer of configuration 'up5k' has "
        "512"
    )


def test_a_window_that_is_too_high(rng):
    b = Builder(rng, (64, 1, 1))
    b.max_pool(b.input, (64, 1), (1, 1))
    assert refusal(b.network(), WIDE) == "layer 'l0_maxpool' must have at most 63 kernel rows, not 64"


@pytest.mark.parametrize(
    "shape, conv, message",
    [
        ((1, 4, 512), {"kernel": (1, 4), "padding": (0, 0, 4, 0)}, "at most 255 padding words per row, not 256"),
        ((17, 1, 1), {"stride": (16, 1)}, "at most 15 rows of stride, not 16"),
        ((1, 1, 1), {"padding": (64, 0, 0, 0)}, "at most 63 padding rows, not 64"),
        ((1, 2, 1), {"channels": 4096}, "at most 4095 bytes per output pixel, not 4096"),
    ],
)
def test_what_a_field_of_the_core_cannot_hold(shape, conv, message, rng):
    b = Builder(rng, shape)
    padded_conv(b, **conv)
    assert refusal(b.network(), WIDE) == f"layer 'l0_conv' must have {message}"


@pytest.mark.parametrize(
    "shape, conv",
    [
        ((1, 1023, 1), {}),
        ((1, 1, 1), {"channels": 255 * 64}),
        ((63, 1, 1), {"kernel": (63, 1)}),
        ((15, 1, 1), {"stride": (15, 1)}),
        ((1, 2, 1), {"channels": 4095}),
        ((1, 1, 1), {"padding": (63, 0, 0, 0)}),
        ((2047, 1, 1), {}),
        ((16, 1, 1), {"stride": (15, 1)}),
    ],
)
def test_what_a_field_of_the_core_can_just_hold(shape, conv, rng):
    b = Builder(rng, shape)
    padded_conv(b, **conv)
    assert_equal_to_the_network(b.network(), WIDE, rng)


@pytest.mark.parametrize(
    "shape, conv, runs",
    [
        ((1, 1024, 1), {}, 2),
        ((1, 1, 1), {"channels": 256 * 64}, 2),
        ((64, 1, 1), {"kernel": (64, 1)}, 2),
        ((1, 1, 1), {"padding": (0, 2047, 0, 0)}, 2),
        ((2048, 1, 1), {"stride": (2, 1)}, 2),
    ],
    ids=["columns", "groups", "kernel rows", "rows", "input rows"],
)
def test_what_a_field_of_the_core_cannot_hold_takes_more_runs(shape, conv, runs, rng):
    b = Builder(rng, shape)
    padded_conv(b, **conv)
    assert len(assert_equal_to_the_network(b.network(), WIDE, rng).runs) == runs


def test_what_a_field_of_the_image_cannot_hold(rng):
    b = Builder(rng, (1, 65536, 1))
    b.conv(b.input, 1, (1, 2), (1, 2048), same=False)
    message = "network 'random' cannot be encoded: field 'input_columns' must be 0 to 65535, not 65536"
    assert refusal(b.network(), WIDE) == message


def test_what_lowering_refuses(rng):
    b = Builder(rng, (1, 1, 16))
    b.conv(b.input, 8, (1, 1))
    assert "must fit the 18 bits of an accumulator" in refusal(b.network(), dataclasses.replace(UP5K, acc_bits=18))


def test_a_softmax_in_the_middle(rng):
    b = Builder(rng, (6,))
    x = b.softmax(b.fully_connected(b.input, 6))
    b.fully_connected(x, 3)
    assert refusal(b.network()) == (
        "layer 'l1_softmax': a softmax must be the network's last layer, not in between"
    )  # fmt: skip


def test_a_network_without_a_layer_for_the_core(rng):
    b = Builder(rng, (2, 3, 1))
    b.softmax(b.reshape(b.input, (6,)))
    message = "network 'n' must have a layer that the core computes, not only l0_reshape and l1_softmax"
    assert refusal(b.network("n")) == message


def test_layers_behind_the_output(rng):
    b = Builder(rng, (6,))
    x = b.fully_connected(b.input, 6)
    b.fully_connected(x, 3)
    network = Network("n", b.tensors, tuple(b.layers), b.input, x)
    assert len(compile_network(network, UP5K).runs) == 1  # folding removes them
    message = "the network's last layer must compute its output 't1', not 't2', which nothing uses"
    with pytest.raises(CompileError, match=f"^{message}$"):
        compile_network(network, UP5K, folding=False)


def test_averages_are_exact_for_every_sum():
    """Every mean of 7 values, computed in the program as in the network."""
    tensors = {name: Tensor(name, shape, 1.0, 0) for name, shape in (("x", (1, 7, 255)), ("y", (1, 1, 255)))}
    network = Network("n", tensors, (AveragePool("p", ("x",), "y", (1, 7), (1, 1)),), "x", "y")
    compiled = compile_network(network, CONFIGS["ecp5_25"])
    for rest in range(7):  # sums 7*v + rest of seven values
        x = np.repeat(np.arange(-128, 127), 7).reshape(255, 7)
        x[:, :rest] += 1
        x = x.T.reshape(1, 1, 7, 255).astype(np.int8)
        got = tensor(compiled, executed(compiled, x[0]), "y")
        np.testing.assert_array_equal(got.reshape(-1), arithmetic.average_pool(x, (1, 7), (1, 1)).reshape(-1))


# The image


def checksums() -> list[int]:
    """CRCs of the images of networks whose input and output can be placed either way."""
    crcs = []
    for i in range(8):
        tensors = {name: Tensor(name, (2, 2, 16), 1.0, 0) for name in (f"a{i}", f"b{i}")}
        pool = AveragePool("pool", (f"a{i}",), f"b{i}", (1, 1), (1, 1))
        compiled = compile_network(Network("pool", tensors, (pool,), f"a{i}", f"b{i}"), UP5K)
        crcs.append(zlib.crc32(compiled.program.assemble()))
    return crcs


def test_the_image_is_the_same_in_every_process():
    found = set()
    for seed in ("1", "2"):  # two orders of the same set
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", f"from {checksums.__module__} import checksums; print(checksums())"]
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1
