"""The host's part: rows to the store and from it, as the steps say."""

import numpy as np
import pytest

from gossamer.golden.host import Host
from gossamer.golden.interpreter import Machine, MachineError
from gossamer.golden.program import Program, TensorPlace
from gossamer.golden.spec import CONFIGS, Opcode, UserError
from tests.programs import Streaming

UP5K = CONFIGS["up5k"]
GIVE = {"opcode": Opcode.HOST, "take": 0, "first": 0, "rows": 2, "columns": 3, "in_address": 100, "row_words": 2, "column": 0}
TAKE = GIVE | {"take": 1, "columns": 4}
INPUT = TensorPlace(0, 6, 3, 2, 3)  # rows of 9 bytes, two store words
OUTPUT = TensorPlace(0, 4, 4, 1, 1)  # rows of 4 bytes


def program(*steps, config=UP5K):
    return Program(config, (), steps, b"", INPUT, OUTPUT, 0)


def rows_of(place, config=UP5K):
    """A tensor in which each byte that means something is another one, and its rows."""
    rows = np.arange(1, place.rows * place.row_bytes() + 1, dtype=np.uint8).reshape(place.rows, -1)
    padding = place.row_words(config) * config.store_bytes - place.row_bytes()
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=255).reshape(-1), rows


def host(*steps, config=UP5K):
    x, rows = rows_of(INPUT, config)
    return Host(program(*steps, config=config), x), rows


def store(config=UP5K):
    return np.full(config.store_size, 77, np.uint8)


def words(store, first, count, size=8):
    return store[first * size : (first + count) * size].reshape(count, size).tolist()


def test_whether_a_program_gives_and_takes():
    for steps, expected in (((), (0, 0)), ((GIVE,), (1, 0)), ((TAKE,), (0, 1)), ((TAKE, GIVE), (1, 1))):
        found, _ = host(*steps)
        assert (found.gives, found.takes) == expected


def test_rows_are_given_one_behind_the_other():
    around, _ = host(GIVE)
    memory = store()
    around.serve(GIVE | {"first": 1}, memory)
    assert words(memory, 100, 4) == [[*range(1, 9)], [9] + [0] * 7, [*range(10, 18)], [18] + [0] * 7]
    around.serve(GIVE | {"rows": 1, "in_address": 110}, memory)
    assert words(memory, 110, 2) == [[*range(19, 27)], [27] + [0] * 7]
    around.serve(GIVE, memory)
    assert words(memory, 100, 4) == [[*range(28, 36)], [36] + [0] * 7, [*range(37, 45)], [45] + [0] * 7]
    around.serve(GIVE | {"first": 1, "rows": 1}, memory)
    assert words(memory, 100, 4) == [[*range(1, 9)], [9] + [0] * 7, [*range(37, 45)], [45] + [0] * 7]
    memory[800:832], memory[880:896] = 77, 77
    assert (memory == 77).all()


@pytest.mark.parametrize(
    "column, columns, expected", [(0, 1, [1, 2, 3]), (1, 1, [4, 5, 6]), (2, 1, [7, 8, 9]), (1, 2, [*range(4, 10)])]
)
def test_only_the_columns_of_the_step_are_given(column, columns, expected):
    around, _ = host(GIVE)
    memory = store()
    around.serve(GIVE | {"rows": 1, "column": column, "columns": columns}, memory)
    assert words(memory, 100, 2) == [expected + [0] * (8 - len(expected)), [77] * 8]


def test_rows_may_lie_apart():
    around, _ = host(GIVE)
    memory = store()
    around.serve(GIVE | {"row_words": 5, "columns": 1}, memory)
    assert [row[:3] for row in words(memory, 100, 6)] == [[1, 2, 3], *[[77] * 3] * 4, [10, 11, 12]]


def test_rows_are_taken_one_behind_the_other():
    around, _ = host(TAKE)
    memory = np.arange(UP5K.store_size).astype(np.uint8)
    before = memory.copy()
    around.serve(TAKE | {"first": 1}, memory)
    around.serve(TAKE | {"rows": 1, "column": 1, "columns": 2}, memory)
    at = 800 % 256
    expected = [[at, at + 1, at + 2, at + 3], [at + 16, at + 17, at + 18, at + 19], [0, at, at + 1, 0], [0] * 4]
    assert around.output().reshape(4, 8).tolist() == [row + [0] * 4 for row in expected]
    np.testing.assert_array_equal(memory, before)


def test_given_and_taken_rows_are_counted_apart():
    around, _ = host(GIVE, TAKE)
    memory = store()
    around.serve(GIVE | {"first": 1, "rows": 3}, memory)
    around.serve(TAKE | {"first": 1, "rows": 1}, memory)
    around.serve(GIVE | {"rows": 1, "columns": 1}, memory)
    assert memory[800:803].tolist() == [28, 29, 30]
    around.serve(TAKE | {"rows": 1, "columns": 1}, memory)
    assert around.output().reshape(4, 8)[1].tolist() == [28] + [0] * 7


@pytest.mark.parametrize("name", ["up5k", "ecp5_25"])
@pytest.mark.parametrize("pitch", [1, 3, 8, 16])
@pytest.mark.parametrize("parts", [[4], [1, 3], [1, 1, 2]])
def test_what_is_given_in_parts_and_taken_in_parts_is_the_tensor(name, pitch, parts, rng):
    config = CONFIGS[name]
    place = TensorPlace(0, 4, 5, 1, pitch)
    step_words = place.row_words(config)
    values = rng.integers(-128, 128, (4, 5, 1)).astype(np.int8)
    steps = [
        GIVE | {"take": take, "first": i == 0, "rows": rows, "columns": 5, "row_words": step_words}
        for i, rows in enumerate(parts)
        for take in (0, 1)
    ]
    around = Host(Program(config, (), tuple(steps), b"", place, place, 0), place.to_store(values, -7, config))
    memory = store(config)
    for step in steps:
        around.serve(step, memory)
    np.testing.assert_array_equal(place.from_store(around.output(), config), values)


def test_it_serves_a_machine():
    steps = (GIVE | {"first": 1}, TAKE | {"first": 1}, GIVE, TAKE)
    around, rows = host(*steps)
    machine = Machine(UP5K)
    for step in machine.execute(program(*steps)):
        around.serve(step, machine.store)
    np.testing.assert_array_equal(around.output().reshape(4, 8)[:, :4], rows[:4, :4])


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"rows": 7}, "rows 0 to 5, not 0 to 6"),
        ({"rows": 0}, "rows 0 to 5, not 0 to -1"),
        ({"columns": 4}, "columns 0 to 2, not 0 to 3"),
        ({"columns": 0}, "columns 0 to 2, not 0 to -1"),
        ({"column": 2, "columns": 2}, "columns 0 to 2, not 2 to 3"),
        ({"in_address": 16381}, "store words 0 to 16383, not 16381 to 16384"),
        ({"take": 1, "rows": 5}, "rows 0 to 3, not 0 to 4"),
    ],
)
def test_steps_outside_the_tensor_or_the_store_are_refused(fields, sentence):
    around, _ = host(GIVE)
    memory = store()
    with pytest.raises(MachineError, match=f"^a host step must be for {sentence}$") as caught:
        around.serve(GIVE | fields, memory)
    assert isinstance(caught.value, UserError)
    assert (memory == 77).all()


def test_rows_behind_the_last_are_refused():
    around, _ = host(GIVE)
    around.serve(GIVE | {"rows": 6, "row_words": 0}, store())
    with pytest.raises(MachineError, match=r"^a host step must be for rows 0 to 5, not 6 to 7$"):
        around.serve(GIVE, store())


@pytest.mark.parametrize("name", ["up5k", "gw1n9", "ecp5_85"])
def test_a_program_of_parts_computes_what_the_whole_does(name, rng):
    config = CONFIGS[name]
    streaming = Streaming.random(config, rng)
    x = rng.integers(-128, 128, (14, 7, 3)).astype(np.int8)
    around = Host(streaming.program, streaming.input_bytes(x))
    machine = Machine(config)
    image = streaming.program.assemble()
    machine.store[: len(image)] = np.frombuffer(image, np.uint8)
    hosts = [step for step in machine.execute(streaming.program) if serve(around, step, machine)]
    assert len(hosts) == 1 + 3 * 4
    parts = streaming.output_values(around.output())
    whole = streaming.whole
    machine = Machine(config)
    for address, data in (
        (0, whole.assemble()), (whole.input.address, whole.input.to_store(x[:, 1:6], 0, config).tobytes()),
    ):  # fmt: skip
        machine.store[address : address + len(data)] = np.frombuffer(data, np.uint8)
    list(machine.execute(whole))
    place = whole.output
    expected = place.from_store(machine.store[place.address : place.address + place.size(config)], config)
    np.testing.assert_array_equal(parts[:, 1:5], expected)
    assert (parts[:, [0, 5]] == -128).all()
    assert len(np.unique(expected)) > 20


def serve(around, step, machine):
    """Serve what is a host step, and say whether it was one."""
    is_host = isinstance(step, dict) and step["opcode"] == Opcode.HOST
    if is_host:
        around.serve(step, machine.store)
    return is_host
