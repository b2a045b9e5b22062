"""What is loaded when: a replay of programs that knows which entries of the buffers the running step uses."""

import dataclasses
import itertools

import numpy as np
import pytest

from gossamer.golden.compiler import CompileError, Frontend, Strategy, compile_network
from gossamer.golden.inference import infer
from gossamer.golden.program import Program
from gossamer.golden.rolling import Group
from gossamer.golden.spec import CONFIGS, PARAMETER_BYTES, Config, Opcode
from tests.networks import NETWORKS, SMALL, Builder, deep, fork, fully_connected, inputs, mean, residual

UP5K = CONFIGS["up5k"]
TINY = SMALL[1]


def compiled_for(build, config, rng):
    for _ in range(200):
        try:
            return compile_network(build(rng), config)
        except CompileError:
            continue
    raise AssertionError


def used(program, run):
    """Entries of the weight buffer and of the parameter buffer that a run step uses."""
    layer, lanes = program.layers[run["layer"] - 1], program.config.lanes
    vectors = (1 if layer["shared_weights"] else layer["groups"]) * layer["kernel_rows"] * (layer["range_last"] + 1)
    if layer["add"]:
        entries = 256
    elif layer["partial_in"]:
        entries = run["rows"] * layer["groups"] * layer["width"] * lanes
    else:
        entries = layer["groups"] * lanes
    return {
        Opcode.LOAD_WEIGHTS: {*range(layer["weight_base"], layer["weight_base"] + vectors)},
        Opcode.LOAD_PARAMETERS: {*range(layer["parameter_base"], layer["parameter_base"] + entries)},
    }


def written(program, run):
    """Bytes of partial sums that a run step writes."""
    layer, lanes = program.layers[run["layer"] - 1], program.config.lanes
    count = run["rows"] * layer["groups"] * layer["width"] * lanes if layer["partial_out"] else 0
    return {*range(run["out_address"], run["out_address"] + count * PARAMETER_BYTES)}


def filled(program, load):
    """Entries that a load fills, and bytes of the store that it reads."""
    size = program.config.store_bytes
    entry = program.config.lanes if load["opcode"] == Opcode.LOAD_WEIGHTS else PARAMETER_BYTES
    entries = {*range(load["destination"], load["destination"] + load["count"] * size // entry)}
    return entries, {*range(load["in_address"] * size, (load["in_address"] + load["count"]) * size)}


def is_load(step):
    return step["opcode"] in (Opcode.LOAD_WEIGHTS, Opcode.LOAD_PARAMETERS)


def unrolled(program):
    """The steps as they are executed, without loops."""
    first, words = Program.step_words(len(program.layers), program.config)
    found, at, left = [], 0, {}
    while at < len(program.steps):
        step = program.steps[at]
        at += 1
        if step["opcode"] != Opcode.LOOP:
            found.append(step)
            continue
        turns = left.get(at, step["count"])
        left[at] = turns - 1
        if turns:
            at = (step["in_address"] - first) // words
    return found


def replay(program):
    """Check a program's loads; returns how many went on beside a run, and how many waited."""
    nothing = {Opcode.LOAD_WEIGHTS: set(), Opcode.LOAD_PARAMETERS: set()}
    there = {opcode: set() for opcode in nothing}
    sizes = dict(zip(nothing, (program.config.weight_vectors, program.config.parameters)))
    busy, writes, idle = nothing, set(), True
    beside = waited = 0
    for step in unrolled(program):
        if is_load(step):
            entries, source = filled(program, step)
            assert max(entries) < sizes[step["opcode"]]
            conflict = bool(entries & busy[step["opcode"]] or source & writes)
            idle |= bool(step["wait"])
            assert idle or not conflict
            beside, waited = beside + (not idle), waited + step["wait"]
            there[step["opcode"]] |= entries
        elif step["opcode"] == Opcode.RUN:
            busy, writes, idle = used(program, step), written(program, step), False
            assert all(busy[opcode] <= there[opcode] for opcode in busy)
    return beside, waited


@pytest.mark.parametrize("config", [*SMALL, UP5K], ids=lambda config: config.name)
@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_loads_leave_alone_what_the_running_step_uses(build, config, rng):
    for _ in range(2):
        replay(compiled_for(build, config, rng).program)


@pytest.mark.parametrize("config", [*SMALL, UP5K], ids=lambda config: config.name)
@pytest.mark.parametrize("build", [residual, fork, mean, deep, fully_connected], ids=lambda build: build.__name__)
def test_loads_row_by_row_leave_alone_what_the_running_step_uses(build, config, rng):
    for rows in (1, 2):
        frontend = Frontend(build(rng), config)
        group = Group(len(frontend.layers), rows)
        replay(frontend.compile(Strategy((group,), True)).program)


def test_loads_in_loops_leave_alone_what_the_running_step_uses(rng):
    b = Builder(rng, (40, 4, 16))
    x = b.input
    for _ in range(7):  # of 48 weight vectors each, more than fit
        x = b.conv(x, 16, (3, 1))
    program = Frontend(b.network(), TINY).compile(Strategy((Group(7, 1),), True)).program
    assert any(step["opcode"] == Opcode.LOOP for step in program.steps)
    assert len([step for step in unrolled(program) if step["opcode"] == Opcode.RUN]) == 7 * 40
    beside, _ = replay(program)
    assert beside > 40


def test_loads_go_on_beside_runs(rng):
    b = Builder(rng, (3, 3, 4))
    x = b.input
    for _ in range(12):
        x = b.conv(x, int(rng.integers(30, 60)), (1, 2))
    beside, waited = replay(compile_network(b.network(), TINY).program)
    assert beside > 12
    assert waited > 0


def test_loads_that_need_not_wait_do_not(rng):
    """Each fills half of its buffer, so that the next always finds room."""
    b = Builder(rng, (1, 1, 128))
    x = b.input
    for _ in range(6):
        x = b.conv(x, 16, (1, 1), relu=False)
        x = b.conv(x, 128, (1, 1), relu=False)
    config = dataclasses.replace(TINY, parameters=4096)
    beside, waited = replay(compile_network(b.network(), config).program)
    assert beside >= 11
    assert waited == 0


def loads(program, start=0):
    return [step for step in program.steps[start:] if is_load(step)]


def some_stays(rng):
    """Seven layers of 16 vectors and, on 16 lanes, six of 32."""
    b = Builder(rng, (1, 1, 32))
    x = b.input
    for _ in range(6):
        x = b.conv(b.conv(x, 16, (1, 1), relu=False), 32, (1, 1), relu=False)
    return b.network()


@pytest.mark.parametrize("config", [TINY, UP5K, CONFIGS["gw1n9"], CONFIGS["ecp5_85"]], ids=lambda config: config.name)
@pytest.mark.parametrize("build", [*NETWORKS, some_stays], ids=lambda build: build.__name__)
def test_a_warm_start_leaves_what_stays(build, config, rng):
    program = compiled_for(build, config, rng).program
    stays = {Opcode.LOAD_WEIGHTS: set(), Opcode.LOAD_PARAMETERS: set()}
    assert all(map(is_load, program.steps[: program.warm]))
    for step in program.steps[: program.warm]:
        stays[step["opcode"]] |= filled(program, step)[0]
    for step in loads(program, program.warm):
        assert not filled(program, step)[0] & stays[step["opcode"]]


def test_what_fits_stays_and_is_loaded_once(rng):
    b = Builder(rng, (4, 4, 8))
    x = b.conv(b.input, 8, (3, 3))
    b.depthwise(b.conv(x, 20, (1, 1)))
    program = compile_network(b.network(), UP5K).program
    assert loads(program, program.warm) == []
    assert program.warm == len(loads(program)) > 0


def test_equal_data_are_loaded_once(rng):
    b = Builder(rng, (4, 4, 16))
    x = b.max_pool(b.input, (2, 2), (1, 1))
    b.max_pool(x, (2, 2), (1, 1))
    program = compile_network(b.network(), UP5K).program
    assert [step["opcode"] for step in loads(program)] == [Opcode.LOAD_WEIGHTS, Opcode.LOAD_PARAMETERS]


def test_what_was_overwritten_is_loaded_again(rng):
    b = Builder(rng, (3, 3, 16))
    x = b.max_pool(b.input, (2, 2), (1, 1))
    x = b.conv(x, 250, (1, 1))
    x = b.conv(x, 16, (1, 1))
    b.max_pool(x, (2, 2), (1, 1))
    network = b.network()
    for config in SMALL:
        compiled = compile_network(network, config)
        x = inputs(rng, network, 1)
        output = infer(compiled, x[0]).output
        assert output.tolist() == network.run(x)[network.output][0].tolist()


def test_tiles_of_a_row_share_their_weights(rng):
    b = Builder(rng, (1, 700, 16))
    b.conv(b.input, 16, (1, 1))
    compiled = compile_network(b.network(), TINY)
    assert len(compiled.runs) == 4  # rows are halved until they fit
    assert len(loads(compiled.program)) == 2


# Partial sums


def long(rng, outputs=5, inputs=700):
    b = Builder(rng, (inputs,))
    b.fully_connected(b.input, outputs)
    return b.network("long")


def test_parts_of_a_window_pass_their_sums_on(rng):
    program = compile_network(long(rng), TINY).program
    runs = [step for step in program.steps if step["opcode"] == Opcode.RUN]
    layers = [program.layers[step["layer"] - 1] for step in runs]
    assert [(layer["partial_in"], layer["partial_out"]) for layer in layers] == [(0, 1), (1, 1), (1, 0)]
    for before, after in itertools.pairwise(runs):
        between = program.steps[program.steps.index(before) + 1 : program.steps.index(after)]
        sums = [step for step in between if filled(program, step)[1] & written(program, before)]
        assert [step["wait"] for step in sums] == [1]  # they are only then written
        assert filled(program, sums[0])[1] == written(program, before)
        assert sums[0]["destination"] == program.layers[after["layer"] - 1]["parameter_base"]


def test_partial_sums_have_an_area_of_their_own(rng):
    compiled = compile_network(long(rng), TINY)
    areas = [name for name in compiled.plan.areas if name.endswith("(partial sums)")]
    assert areas == ["l0_fullyconnected (partial sums)"]
    assert compiled.plan.areas[areas[0]].bytes == 16 * 8  # one window of 16 lanes
    start = compiled.program.size + compiled.plan.addresses[areas[0]]
    for step in compiled.program.steps:
        if step["opcode"] == Opcode.RUN:
            assert written(compiled.program, step) in (set(), {*range(start, start + 128)})


def test_the_parts_of_a_window_have_the_same_channels(rng):
    runs = compile_network(long(rng), TINY).runs
    assert [run.channels for run in runs] == [range(5)] * 3  # 256, 256 and 188 of 700 inputs


def test_long_loads_are_cut(rng):
    config = Config("large", lanes=64, store_words=65536, weight_vectors=1024)
    program = compile_network(long(rng, 64, 600), config).program
    assert [step["count"] * 8 for step in loads(program) if step["opcode"] == Opcode.LOAD_WEIGHTS] == [
        8192, 8192, 8192, 8192, 5632,
    ]  # fmt: skip


# Palettes


def from_palettes(rng, own):
    """A layer of 48 channels whose weights have 16 values, of each channel its ``own`` or not; some vectors of 16 are zero."""
    b = Builder(rng, (3, 3, 64))
    b.conv(b.input, 48, (1, 1))
    (layer,) = (network := b.network()).layers
    values = np.sort(rng.permuted(np.tile(np.arange(-128, 128), (48, 1)), axis=1)[:, :16], axis=1)
    values = values if own else values[:1].repeat(48, axis=0)
    codes = rng.integers(0, 16, (48, 64))
    weights = np.take_along_axis(values, codes, 1).astype(np.int8)
    weights[:16, rng.permutation(64)[:20]] = 0
    return dataclasses.replace(network, layers=(dataclasses.replace(layer, weights=weights.reshape(layer.weights.shape)),))


@pytest.mark.parametrize(("own", "count"), [(True, 3), (False, 1)])
def test_each_group_has_its_palettes_if_one_load_can_not(rng, own, count):
    """16 lanes: 64 vectors of a store word for each of the three groups, of which the first stores 44."""
    network = from_palettes(rng, own)
    compiled = compile_network(network, CONFIGS["ecp5_25_compressed"])
    steps = [step for step in compiled.program.steps if step["opcode"] in (Opcode.LOAD_PALETTE, Opcode.LOAD_WEIGHTS)]
    assert [step["opcode"] for step in steps] == [Opcode.LOAD_PALETTE, Opcode.LOAD_WEIGHTS] * count
    assert sum(step["count"] for step in steps[1::2]) == 44 + 64 + 64
    assert {step["shared"] for step in steps} == {int(not own)}
    x = inputs(rng, network, 1)
    assert infer(compiled, x[0]).output.tolist() == network.run(x)[network.output][0].tolist()
