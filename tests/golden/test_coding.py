"""Compressed maps: which, in which slots, and that programs with them compute the same."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden import codec, digits
from gossamer.golden.coding import budgets, calibrate, coded_order, is_signed, map_order
from gossamer.golden.compiler import CompileError, Frontend, Strategy
from gossamer.golden.cycles import CycleModel, _Code
from gossamer.golden.inference import infer
from gossamer.golden.interpreter import Machine, MachineError, row_order
from gossamer.golden.planner import Planner, affordable, needed, point
from gossamer.golden.rolling import Group
from gossamer.golden.spec import CODEC_SLOT, CONFIGS
from gossamer.golden.tiling import descriptor
from tests.coded import every_slot
from tests.golden.test_rolling import GENERIC, frontend_of, strategy_for
from tests.networks import NETWORKS, SMALL, Builder, full_groups, inputs

UP5K = CONFIGS["up5k_codec"]


def with_codec(config, kind="lossless"):
    return dataclasses.replace(config, codec=kind)


def naive_order(values, lanes):
    """The stored bytes of a row ``(columns, channels)``."""
    columns, channels = values.shape
    return [
        int(values[x, c]) + 128
        for start in range(0, channels, lanes)
        for x in range(columns)
        for c in range(start, min(start + lanes, channels))
    ]


@pytest.mark.parametrize("channels", [8, 16, 48, 20])
def test_values_are_in_order_group_by_group(channels, rng):
    values = rng.integers(-128, 128, (2, 3, 5, channels)).astype(np.int8)
    expected = [naive_order(row, 16) for one in values for row in one]
    assert coded_order(values, 16).tolist() == expected
    assert (map_order(coded_order(values, 16), values.shape, 16) == values).all()


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_slots_hold_the_longest_rows_of_the_inputs_and_the_margin(margin):
    frontend = Frontend(digits.load(), UP5K)
    x = digits.test_set()[0][:20]
    slots = calibrate(frontend.network, frontend.layout, x, UP5K, margin)
    tensors = frontend.network.run(x)
    assert slots
    for name, slot in slots.items():
        signed = is_signed(frontend.network.tensors[name].zero_point)
        longest = max(
            len(codec.encode(naive_order(row, 16), signed=signed, bounded=False)) for one in tensors[name] for row in one
        )
        assert longest <= slot < tensors[name][0, 0].size
        assert slot % UP5K.store_bytes == 0
        assert slot <= longest * (1 + margin) + 2 + UP5K.store_bytes


def test_slots_are_only_for_rows_that_become_shorter(rng):
    frontend = Frontend(full_groups(rng), UP5K)
    x = rng.integers(-128, 128, (4, *frontend.network.tensors[frontend.network.input].shape)).astype(np.int8)
    slots = calibrate(frontend.network, frontend.layout, x, UP5K)
    for name, slot in slots.items():
        place = frontend.layout.map(name)
        assert slot < min(place.columns * place.pitch, CODEC_SLOT + 1)


def residual(rng, channels=16, kernel=(3, 3)):
    b = Builder(rng, (6, 6, 16))
    first = b.conv(b.input, channels, kernel)
    second = b.conv(first, channels, kernel, relu=False)
    third = b.add(first, second)
    b.conv(third, 16, (1, 1))
    return b.network("residual"), (first, second, third)


def test_input_and_output_are_not_compressed(rng):
    frontend = Frontend(residual(rng)[0], UP5K, folding=False)
    slots = every_slot(frontend)
    assert {frontend.first, frontend.output} <= slots.keys()
    assert not {frontend.first, frontend.output} & frontend.work(Strategy(slots=slots)).coded.keys()


def test_operands_of_an_addition_are_compressed_both_or_neither_in_slots_of_one_size(rng):
    network, (first, second, third) = residual(rng)
    frontend = Frontend(network, UP5K, folding=False)
    slots = {first: 64, second: 80, third: 72}
    both = frontend.work(Strategy(slots=slots)).coded
    assert {name: coding.slot for name, coding in both.items()} == {first: 80, second: 80, third: 72}
    assert frontend.work(Strategy(slots={first: 64, third: 72})).coded.keys() == {third}


def test_nothing_is_compressed_without_a_codec(rng):
    frontend = Frontend(residual(rng)[0], CONFIGS["up5k"])
    assert not frontend.work(Strategy(slots=every_slot(frontend))).coded


def test_maps_whose_rows_are_cut_are_not_compressed(rng):
    b = Builder(rng, (2, 200, 16))
    first = b.conv(b.input, 64, (1, 1))
    b.conv(first, 16, (3, 1))
    frontend = Frontend(b.network("wide"), UP5K)
    works = frontend.work(Strategy(slots={first: 512}))
    assert any(len(piece.columns) < kernel.columns for kernel, piece in works.items)
    assert not works.coded


@pytest.mark.parametrize("config", [UP5K, *SMALL], ids=lambda config: config.name)
def test_the_fields_of_a_compressed_row_put_its_values_in_their_places(config, rng):
    config, seen = with_codec(config), set()
    for _ in range(6):
        frontend = frontend_of(full_groups, config, rng)
        work = frontend.work(Strategy(slots=every_slot(frontend)))
        for kernel, piece in work.items:
            if kernel.inputs[0] in work.coded:
                fields, _, _ = descriptor(kernel, piece, config, work.coded)
                start, pitch = fields["left_granules"] * config.store_bytes, kernel.source.pitch
                channels = np.arange(kernel.source.columns * pitch).reshape(-1, pitch)
                expected = [start + at for g in range(0, pitch, config.lanes) for at in channels[:, g : g + config.lanes].flat]
                assert row_order(fields, config).tolist() == expected
                seen.add(pitch // config.lanes)
    assert max(seen) > 1 or config.lanes > 16


@pytest.mark.parametrize(
    "fields", [{"turn_step": 0}, {"turn_step": -5}, {"turn": 0}, {"pixel_step": 0}, {"pixel_step": 9}, {"turn": 200}], ids=str
)
def test_a_row_whose_fields_do_not_come_to_each_granule_once_is_refused(fields):
    # 4 pixels of 32 channels behind one of padding; a granule has 8 bytes.
    good = {"left_granules": 4, "right_granule": 20, "pixel_step": 3, "turn": 16, "turn_step": -11}
    assert len(row_order(good, UP5K)) == 128
    with pytest.raises(MachineError, match="granule"):
        row_order({**good, **fields}, UP5K)


def test_rows_lie_in_the_store_as_the_codec_has_them(rng):
    network, (first, second, third) = residual(rng, 32, (1, 1))
    frontend = Frontend(network, UP5K, folding=False)
    compiled = frontend.compile(Strategy(slots=every_slot(frontend)), keep=True)
    assert compiled.coded.keys() == {first, second, third}
    x = inputs(rng, network, 1)[0]
    machine = Machine(UP5K)
    image = np.frombuffer(compiled.program.assemble(), np.uint8)
    machine.store[: len(image)] = image
    at = compiled.program.input.address
    machine.store[at : at + len(compiled.input_bytes(x))] = compiled.input_bytes(x)
    list(machine.execute(compiled.program))
    tensors = network.run(x[np.newaxis])
    for name, coding in compiled.coded.items():
        for y, row in enumerate(tensors[name][0]):
            stream = codec.encode(naive_order(row, 16), signed=coding.signed, bounded=False)
            at = len(image) + compiled.plan.addresses[name] + y * coding.slot
            assert machine.store[at : at + len(stream)].tobytes() == stream


@pytest.mark.parametrize("config, streams", [(UP5K, 2), (GENERIC, 8), (GENERIC, 16)], ids=["8x2", "16x8", "16x16"])
def test_units_of_a_row_lie_in_the_store_in_turn(config, streams, rng):
    config = dataclasses.replace(config, codec="lossless", codec_streams=streams)
    network, names = residual(rng, 32, (1, 1))
    frontend = Frontend(network, config, folding=False)
    compiled = frontend.compile(Strategy(slots=every_slot(frontend)), keep=True)
    assert compiled.coded.keys() == {*names}
    x = inputs(rng, network, 1)[0]
    machine = Machine(config)
    image = np.frombuffer(compiled.program.assemble(), np.uint8)
    machine.store[: len(image)] = image
    at = compiled.program.input.address
    machine.store[at : at + len(compiled.input_bytes(x))] = compiled.input_bytes(x)
    list(machine.execute(compiled.program))
    tensors, size = network.run(x[np.newaxis]), 16 if streams == 16 else 8
    for name, coding in compiled.coded.items():
        for y, row in enumerate(tensors[name][0]):
            start = len(image) + compiled.plan.addresses[name] + y * coding.slot
            chunks = machine.store[start : start + coding.slot].reshape(-1, size)
            for unit in range(streams):
                values = naive_order(row, 16)[unit::streams]
                stream = codec.encode(values, lanes=16 // streams, signed=coding.signed, bounded=False)
                assert chunks[unit::streams].tobytes()[: len(stream)] == stream


def test_slots_of_several_units_hold_the_longest_of_them():
    config = dataclasses.replace(UP5K, codec_streams=2)
    frontend, x = Frontend(digits.load(), config), digits.test_set()[0][:20]
    slots = calibrate(frontend.network, frontend.layout, x, config, 0.0)
    tensors = frontend.network.run(x)
    assert slots
    for name, slot in slots.items():
        options = {"lanes": 8, "signed": is_signed(frontend.network.tensors[name].zero_point), "bounded": False}
        rows = [naive_order(row, 16) for one in tensors[name] for row in one]
        longest = max(len(codec.encode(row[unit::2], **options)) for row in rows for unit in range(2))
        assert slot == 2 * -(-longest // 8) * 8


def test_a_row_with_bits_behind_its_last_value_is_refused(rng):
    network, _ = residual(rng)
    frontend = Frontend(network, UP5K, folding=False)
    compiled = frontend.compile(Strategy(slots=every_slot(frontend)), keep=True)
    layers = tuple({**layer, "out_coded": 0} for layer in compiled.program.layers)
    compiled = dataclasses.replace(compiled, program=dataclasses.replace(compiled.program, layers=layers))
    with pytest.raises(MachineError, match=r"^a compressed row must have zeros behind its last value"):
        infer(compiled, inputs(rng, network, 1)[0])


def test_a_row_that_does_not_fit_its_slot_is_refused(rng):
    network, tensors = residual(rng)
    compiled = Frontend(network, UP5K, folding=False).compile(Strategy(slots=dict.fromkeys(tensors, 8)))
    with pytest.raises(MachineError, match=r"a compressed row must fit its slot of 8 bytes, not take \d+"):
        infer(compiled, inputs(rng, network, 1)[0])


CONFIGURATIONS = [
    with_codec(config, kind) for config in (UP5K, SMALL[0], SMALL[1], SMALL[4], GENERIC) for kind in ("lossless", "bounded")
] + [
    dataclasses.replace(config, codec="lossless", codec_streams=streams)
    for config, streams in ((SMALL[0], 2), (SMALL[1], 8), (SMALL[6], 8), (GENERIC, 16))
]


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=lambda config: f"{config.name}-{config.codec}-{config.codec_streams}")
def test_random_networks_compute_the_same_with_compressed_maps(config, rng):
    coded = 0
    for turn in range(8):
        frontend = frontend_of(NETWORKS[int(rng.integers(len(NETWORKS)))] if turn == 0 else full_groups, config, rng)
        strategy = strategy_for(frontend, rng) if turn % 4 else Strategy()
        slots = {name: slot for name, slot in every_slot(frontend).items() if rng.integers(4)}
        try:
            compiled = frontend.compile(dataclasses.replace(strategy, slots=slots))
        except CompileError:
            continue
        coded += bool(compiled.coded)
        x = inputs(rng, frontend.source, 1)
        expected = frontend.network.run(x)[frontend.output]
        assert (infer(compiled, x[0]).output == expected[0]).all()
    assert coded


def stepped(code, first, accepted, blocked):
    """The halfword register cycle by cycle; returns the cycle in which the last value is found."""
    cycle, found, full, fresh = accepted + 1, 0, False, False
    takes = {*code.takes}
    while True:
        taken = False
        if cycle >= first and (found not in takes or full):
            taken = found in takes
            found += 1
            if found == code.values:
                return cycle
        moved = fresh and (not full or taken)
        full = moved or (full and not taken)
        fresh = cycle not in blocked and not moved
        cycle += 1


@pytest.mark.parametrize("density", [0.0, 0.2, 0.5, 0.9])
def test_decoding_takes_the_cycles_of_the_halfword_register(density, rng):
    for _ in range(60):
        values = int(rng.integers(1, 40))
        takes = sorted({0, *np.flatnonzero(rng.random(values) < rng.choice([0.1, 0.4, 0.9])).tolist()})
        code, accepted, left = _Code(values, takes), int(rng.integers(10)), int(rng.integers(6))
        blocked = {*np.flatnonzero(rng.random(2000) < density).tolist()}
        model = CycleModel(UP5K)
        model._accepted = accepted
        first = accepted + left + 1
        assert model._decoded(first, code, blocked) == stepped(code, first, accepted, blocked)


def test_the_planner_uses_compression_where_it_helps():
    frontend = Frontend(digits.load(), UP5K)
    x = digits.test_set()[0][:50]
    slots = calibrate(frontend.network, frontend.layout, x, UP5K)
    plain, coded = Planner(frontend).points(), Planner(frontend, slots=slots).points()
    assert coded[0].peak < plain[0].peak
    for one in coded:
        assert one.strategy.slots.keys() <= slots.keys()
        assert needed(frontend, one).strategy.slots == one.strategy.slots


def test_what_costs_too_much_is_not_compressed():
    frontend = Frontend(digits.load(), UP5K)
    slots = calibrate(frontend.network, frontend.layout, digits.test_set()[0][:50], UP5K)
    plain = point(frontend, Strategy()).cycles
    everything = point(frontend, Strategy(slots=slots)).cycles
    for share in (0.0, 0.02, 1.0):
        found = affordable(frontend, slots, share=share)
        assert point(frontend, found).cycles <= (1 + share) * plain
    assert affordable(frontend, slots, share=1.0).slots == slots
    assert everything > plain


def test_rows_by_rows_with_compression_repeat_too(rng):
    """Loops are found, and wraps of rings of compressed rows are right."""
    b = Builder(rng, (24, 8, 16))
    x = b.conv(b.input, 32, (3, 3))
    x = b.depthwise(x, (3, 3))
    b.conv(x, 16, (1, 1))
    frontend = Frontend(b.network("rows"), UP5K)
    compiled = frontend.compile(Strategy((Group(len(frontend.layers), 1),), True, slots=every_slot(frontend)))
    assert len(compiled.coded) == 2
    x = inputs(rng, frontend.source, 1)
    assert (infer(compiled, x[0]).output == frontend.network.run(x)[frontend.output][0]).all()


# Budgets


def through_budgets(network, coded, x):
    """The output of a network whose ``coded`` tensors lose what their budgets make them lose."""
    tensors = {network.input: x}
    for layer in network.layers:
        values = layer.run(network, *(tensors[name] for name in layer.inputs))
        coding = coded.get(layer.output)
        if coding is not None and coding.rate:
            rows = coded_order(values, 16)
            options = {"signed": coding.signed, "per_value": coding.rate}
            streams = codec.encode_units(rows, **options)
            assert max(map(len, streams)) <= coding.slot
            back = [codec.decode_prefix(data, len(rows[0]), **options)[0] for data in streams]
            values = map_order(np.array(back), values.shape, 16)
        tensors[layer.output] = values
    return tensors


@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_budgets_lose_what_the_codec_says(share, rng):
    config, lossy = with_codec(UP5K, "budgeted"), 0
    for turn in range(6):
        frontend = frontend_of(full_groups, config, rng)
        slots = budgets(frontend.layout, share, config)
        strategy = dataclasses.replace(strategy_for(frontend, rng), strips=1) if turn % 2 else Strategy()
        half = {name: slot for name, slot in every_slot(frontend).items() if name not in slots or rng.integers(2)}
        strategy = dataclasses.replace(strategy, slots={**slots, **half}, budgeted=frozenset(slots.keys() - half.keys()))
        compiled = frontend.compile(strategy)
        x = inputs(rng, frontend.source, 2)
        expected = through_budgets(frontend.network, compiled.coded, x)[frontend.output]
        assert (np.stack([infer(compiled, one).output for one in x]) == expected).all()
        lossy += (expected != frontend.network.run(x)[frontend.output]).any()
    assert lossy or share > 0.8


def test_budgets_are_refused_without_a_codec_for_them(rng):
    frontend = Frontend(residual(rng)[0], UP5K, folding=False)
    slots = budgets(frontend.layout, 0.6, UP5K)
    compiled = frontend.compile(Strategy(slots=slots, budgeted=frozenset(slots)))
    with pytest.raises(MachineError, match="a layer must have budgets only with a codec for them"):
        infer(compiled, inputs(rng, frontend.source, 1)[0])
