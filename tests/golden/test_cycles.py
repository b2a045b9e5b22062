"""The cycle model's own rules; that it equals the hardware is tested in tests/sim."""

import numpy as np
import pytest

from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.cycles import CycleModel, words
from gossamer.golden.interpreter import Machine, Run
from gossamer.golden.spec import CONFIGS, Config, Opcode
from tests.networks import NETWORKS, inputs

UP5K = CONFIGS["up5k"]


def executed(kind, config, rng):
    """The steps of a random network on a random input."""
    while True:
        network = kind(rng)
        try:
            compiled = compile_network(network, config)
        except CompileError:
            continue
        machine = Machine(config)
        for address, data in (
            (0, np.frombuffer(compiled.program.assemble(), np.uint8)),
            (compiled.program.input.address, compiled.input_bytes(inputs(rng, network, 1)[0])),
        ):
            machine.store[address : address + len(data)] = data
        return list(machine.execute(compiled.program))


@pytest.mark.parametrize("config, cycles", [(UP5K, 10), (CONFIGS["ecp5_25"], 8)], ids=["8 bytes", "16 bytes"])
def test_an_empty_program_fetches_header_and_end(config, cycles):
    # twice: command, first word asked for, words, one to act on them; and one to check the header
    assert CycleModel(config).run([]) == cycles


def naive_words(run, lanes):
    """Walk every window byte by byte: per output row a list of (non-zero bytes that meet a vector, last of its window)."""
    layer, found = run.layer, []
    for y in range(run.step["rows"]):
        row = []
        for group in range(layer["groups"]):
            for x in range(layer["width"]):
                start = layer["offset"] + x * layer["x_step"]
                for ky in range(layer["kernel_rows"]):
                    counts = {}
                    for at in range(start, start + layer["range_last"] + 1):
                        counts.setdefault(at // lanes, 0)
                        there = run.stored is None or run.stored[group, ky, at - start]
                        counts[at // lanes] += int(run.rows[y * layer["stride_rows"] + ky, at] != 0 and there)
                    row += [(count, False) for count in counts.values()]
                row[-1] = (row[-1][0], True)
        found.append(row)
    return found


@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ["up5k", "ecp5_85"])
def test_words_are_those_of_a_walk_over_every_byte(name, kind, rng):
    config = CONFIGS[name]
    for run in executed(kind, config, rng):
        if not isinstance(run, Run) or run.layer["word_mode"]:
            continue
        found = words(run, config)
        expected = naive_words(run, config.lanes)
        assert found.bits.tolist() == [[count for count, _ in row] for row in expected]
        assert all(found.last.tolist() == [last for _, last in row] for row in expected)
        assert found.ranges == run.layer["groups"] * run.layer["width"] * run.layer["kernel_rows"]


def test_in_word_mode_every_beat_is_a_word(rng):
    runs = [run for kind in NETWORKS for run in executed(kind, UP5K, rng) if isinstance(run, Run) and run.layer["word_mode"]]
    assert len(runs) > 3
    for run in runs:
        found = words(run, UP5K)
        beats = run.layer["kernel_rows"] * (run.layer["range_last"] + 1)
        windows = run.layer["groups"] * run.layer["width"]
        assert found.bits.shape == (run.step["rows"], windows * beats)
        assert (found.bits == 1).all()
        assert found.last.nonzero()[0].tolist() == [beats * (x + 1) - 1 for x in range(windows)]


@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_more_hardware_never_takes_longer(kind, rng):
    """A second port, and a requantizer of one cycle, can only help; and steps follow each other."""
    steps = executed(kind, UP5K, rng)
    cycles = {}
    for ports in (1, 2):
        for interval in (1, 2):
            model = CycleModel(Config("any", store_ports=ports, interval=interval))
            cycles[ports, interval] = model.run(steps)
            assert len(model.steps) == len(steps)
            assert all(step.start < step.end for step in model.steps)
            assert all(before.start < after.start for before, after in zip(model.steps, model.steps[1:]))
            assert max(step.end for step in model.steps) <= model.cycles
            for step, taken in zip(steps, model.steps):
                if isinstance(step, Run):
                    assert taken.issue + taken.load + taken.stall == taken.end - taken.start
                    assert min(taken.issue, taken.load, taken.stall) > 0
                    found = words(step, model.config)
                    assert taken.issue >= np.maximum(found.bits, found.last).sum()
    assert cycles[2, 1] <= min(cycles[1, 1], cycles[2, 2])
    assert max(cycles[1, 1], cycles[2, 2]) <= cycles[1, 2]


def test_an_unknown_step_is_refused():
    with pytest.raises(ValueError, match=r"^a step's opcode must be a load, a fetch or a run, not 9$"):
        CycleModel(UP5K).run([{"opcode": 9, "wait": 0, "count": 1}])


# Fetches, by hand. Of 8 bytes, the first step is asked for in cycle 6 and acted on in cycle 10, and a fetch goes out in cycle
# 11. The next step is asked for in cycle 12 and acted on in cycle 16.

LOAD = {"opcode": Opcode.LOAD_WEIGHTS, "wait": 0, "fetched": 0, "count": 8, "in_address": 50, "destination": 0}


def fetch(count):
    return {"opcode": Opcode.FETCH, "wait": 0, "count": count, "in_address": 100, "external": 0}


def cycles(*steps, ports=2, latency=8, interval=2):
    config = Config("fetching", store_ports=ports, fetch_latency=latency, fetch_interval=interval)
    return CycleModel(config).run(steps)


@pytest.mark.parametrize(
    "count, latency, interval, expected",
    [(1, 2, 1, 16), (1, 4, 1, 16), (1, 5, 1, 17), (4, 2, 1, 17), (4, 2, 3, 23), (1, 39, 16, 51), (4095, 39, 16, 65555)],
)
def test_the_end_waits_for_the_last_word(count, latency, interval, expected):
    assert cycles(fetch(count), latency=latency, interval=interval) == expected  # a cycle after its write


HOST, LOOP = {"opcode": Opcode.HOST}, {"opcode": Opcode.LOOP}


def test_a_loop_takes_only_the_time_of_its_words():
    # asked for in cycle 6, acted on in 10; then the end step, in 15
    assert [cycles(*[LOOP] * n) for n in range(4)] == [10, 15, 20, 25]


def test_a_host_step_takes_the_time_of_its_words_and_waits_for_the_fetch():
    assert [cycles(*[HOST] * n) for n in range(4)] == [10, 15, 20, 25]
    # a fetch of three words has written the last in cycle 23; the core is busy in 24, and then fetches the end
    assert cycles(fetch(3), HOST) == 24 + 5
    assert cycles(fetch(3), LOOP) == 24


def test_a_fetch_waits_for_the_one_before():
    # words in cycles 19, 21 and 23; the second goes out in 24, its words come in 32 and 34
    assert cycles(fetch(3), fetch(2)) == 35
    # the first has ended when the second could go out, in cycle 17: words in 25 and 27
    assert cycles(fetch(1), fetch(2), latency=2) == 17 + 2 + 2 + 1
    assert cycles(fetch(1), fetch(2), latency=6) == 18 + 6 + 2 + 1


@pytest.mark.parametrize("fetched, expected", [(0, 30), (1, 24 + 1 + 8 + 5)])
def test_only_a_load_with_the_flag_waits_for_the_fetch(fetched, expected):
    # it is handed on a cycle later, and reads eight words from the cycle after that on; then comes the end step
    assert cycles(fetch(3), LOAD | {"fetched": fetched}) == expected


@pytest.mark.parametrize("ports, expected", [(1, 33), (2, 30)])
def test_fetched_words_take_the_cycles_of_reads_from_a_store_with_one_port(ports, expected):
    # the load reads in the cycles 18 to 25, in which the words of cycles 19, 21 and 23 come
    assert cycles(fetch(3), LOAD, ports=ports) == expected
    assert cycles(fetch(3), LOAD | {"fetched": 1}, ports=ports) == 38


def test_a_word_that_comes_behind_the_last_read_does_not_matter():
    assert [cycles(fetch(1), LOAD, ports=1, latency=latency) for latency in (6, 7, 14, 15)] == [30, 31, 31, 30]
