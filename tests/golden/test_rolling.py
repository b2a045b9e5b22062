"""Row by row: a naive replay that knows which row lies in which slot of each ring, and whole networks in random orders."""

import dataclasses
import itertools

import numpy as np
import pytest

from gossamer.golden import digits
from gossamer.golden.compiler import CompileError, Frontend, Strategy
from gossamer.golden.inference import infer
from gossamer.golden.rolling import Group, Transfer
from gossamer.golden.spec import CONFIGS, Config
from tests.networks import NETWORKS, SMALL, Builder, conv, fork, inputs, max_pool, pad, residual

UP5K = CONFIGS["up5k"]
GENERIC = Config("generic", lanes=16, store_bytes=16, store_words=1 << 15, row_words=1024, weight_vectors=1024)


def random_strategy(rng, layers):
    """Groups of random lengths, each computed in blocks of random heights."""
    groups, stop = [], 0
    while stop < layers:
        stop += int(rng.integers(1, layers - stop + 1))
        groups.append(Group(stop, int(rng.choice([0, 1, 1, 2, 3, 4, 8]))))
    stream = bool(rng.integers(3))
    return Strategy(tuple(groups), stream, int(rng.integers(1, 5)) if stream and rng.integers(2) else 1)


def whole(frontend, rows, stream=False, strips=1):
    """All layers in one group."""
    return Strategy((Group(len(frontend.layers), rows),), stream, strips)


def runs(work):
    return [item for item in work.items if not isinstance(item, Transfer)]


def window(kernel, piece):
    """Of a run step's windows, the rows ``(tensor, row)`` that are in the map."""
    found = set()
    pair = len(kernel.inputs)
    for y in piece.rows:
        for ky in piece.kernel_rows:
            row = kernel.origin[0] + y * kernel.stride[0] + ky
            if 0 <= row < kernel.source.rows:
                found.add((kernel.inputs[row % pair], row // pair))
    return found


def replay(frontend, work, rings=None):
    """Follow the items with what is in each byte column of each ring's slots: the number of its row. Returns how often each
    output value was computed."""
    rings = work.rings if rings is None else rings
    there = {}
    for name, rows in rings.items():
        place = work.layout.place(name)
        there[name] = np.full((rows, place.columns, place.pitch), -1)
    if not any(isinstance(item, Transfer) and not item.take for item in work.items):
        there[frontend.first][:] = np.arange(rings[frontend.first])[:, None, None]
    homes = {name: work.shares.get(name, name) for name in rings}
    done = {}

    def lost(name, row):
        """What others have in the slot is overwritten."""
        for other in rings:
            if other != name and homes[other] == homes[name]:
                there[other][row % rings[name]] = -1

    for number, item in enumerate(work.items):
        if isinstance(item, Transfer):
            for row in item.rows:
                slot = there[item.tensor][row % rings[item.tensor]]
                if item.take:
                    place = work.layout.place(item.tensor)
                    assert (slot[:, : place.channels] == row).all(), f"item {number} takes row {row}"
                else:
                    slot[:] = row
            continue
        kernel, piece = item
        for name, row in window(kernel, piece):
            offset, channels = kernel.source.offset, kernel.source.channels
            slot = there[name][row % rings[name]][:, offset : offset + channels]
            assert (slot == row).all(), f"item {number} ({kernel.name}) reads row {row} of {name}"
        lanes = frontend.config.lanes
        shape = kernel.rows, kernel.columns, kernel.groups, kernel.kernel_rows, kernel.beats
        count = done.setdefault(id(kernel), (kernel, np.zeros(shape, np.uint8)))[1]
        count[np.ix_(piece.rows, piece.columns, piece.groups, piece.kernel_rows, piece.beats)] += 1
        if not piece.partial_out:
            ring = rings[kernel.target.name]
            assert (kernel.place[0] + piece.rows.start) % ring + len(piece.rows) <= ring, f"item {number} wraps"
            stop = min(piece.groups.stop * lanes, kernel.target.channels)
            channels = slice(kernel.target.offset + piece.groups.start * lanes, kernel.target.offset + stop)
            x = kernel.place[1]
            for y in piece.rows:
                row = kernel.place[0] + y
                lost(kernel.target.name, row)
                slot = there[kernel.target.name][row % rings[kernel.target.name]]
                # A reshape may see the pixels of its output in another way.
                pixels = slot.reshape(-1, kernel.target.pitch)
                pixels[x + piece.columns.start : x + piece.columns.stop, channels] = row
    return done.values()


def frontend_of(build, config, rng):
    for _ in range(50):
        try:
            frontend = Frontend(build(rng), config)
            frontend.compile()
        except CompileError:
            continue
        return frontend
    raise AssertionError


def _stride(rng):
    return tuple(int(n) for n in rng.integers(1, 3, 2))


def strategy_for(frontend, rng):
    """A random strategy, in strips if the network can be cut into them."""
    strategy = random_strategy(rng, len(frontend.layers))
    try:
        frontend.work(strategy)
    except CompileError:
        assert strategy.strips > 1
        return dataclasses.replace(strategy, strips=1)
    return strategy


def works(build, config, rng, count):
    """Random orders of random networks."""
    for _ in range(count):
        frontend = frontend_of(build, config, rng)
        yield frontend, frontend.work(strategy_for(frontend, rng))


@pytest.mark.parametrize("config", [UP5K, SMALL[1]], ids=lambda config: config.name)
@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_every_value_is_computed_once_from_rows_that_are_there(build, config, rng):
    for frontend, work in works(build, config, rng, 3):
        done = replay(frontend, work)
        assert all((count == 1).all() for _, count in done)
        kernels = [kernel for _, kernels in getattr(work.layout, "lowered", frontend.lowered) for kernel in kernels]
        assert {id(kernel) for kernel in kernels} == {id(kernel) for kernel, _ in done}


@pytest.mark.parametrize("build", [residual, fork, conv, pad, max_pool], ids=lambda build: build.__name__)
def test_a_smaller_ring_would_lose_rows(build, rng):
    for frontend, work in works(build, UP5K, rng, 4):
        for name, rows in work.rings.items():
            if name not in work.shares and 1 < rows < work.layout.place(name).rows and len(work.items) < 512:
                with pytest.raises(AssertionError, match=r"^item \d+ "):
                    replay(frontend, work, {**work.rings, name: rows - 1})


@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_slots_live_from_the_first_write_of_a_row_to_its_last_use(build, rng):
    for _, work in works(build, UP5K, rng, 2):
        written = {}
        for number, item in enumerate(work.items):
            if isinstance(item, Transfer):
                read = {(item.tensor, row) for row in item.rows} if item.take else set()
                wrote = set() if item.take else {(item.tensor, row) for row in item.rows}
            else:
                kernel, piece = item
                read = window(kernel, piece)
                y = kernel.place[0]
                wrote = set() if piece.partial_out else {(kernel.target.name, y + row) for row in piece.rows}
            for name, row in wrote:
                written.setdefault((name, row), number)
            for name, row in read | wrote:
                first, last = 2 * written.get((name, row), 0) + 1, 2 * number
                spans = work.lives[work.shares.get(name, name)][row % work.rings[name]]
                assert any(span.start <= first and last < span.stop for span in spans) or first > last
        for slots in work.lives.values():
            for slot in slots:
                assert all(a.stop <= b.start for a, b in itertools.pairwise(slot))


def test_rows_lie_where_those_of_the_next_map_will(rng):
    """A pointwise convolution reads a row when it writes the same row: its input needs no memory of its own."""
    b = Builder(rng, (12, 8, 16), zero_point=-128)
    b.conv(b.conv(b.conv(b.input, 16), 32, (1, 1)), 16)
    frontend = Frontend(b.network(), UP5K, folding=False)
    strategy = Strategy((Group(3, 1),))
    work = frontend.work(strategy)
    first, second = (layer.output for layer in frontend.layers[:2])
    assert work.shares == {first: second}
    assert work.rings[first] == work.rings[second] == 3
    assert work.row_bytes[first] == work.row_bytes[second] == 8 * 32
    compiled = frontend.compile(strategy)
    assert first not in compiled.plan.areas
    assert compiled.plan.areas[second].bytes == 3 * 8 * 32
    x = inputs(rng, frontend.network, 2)
    wanted = frontend.network.run(x)[frontend.output]
    assert all((infer(compiled, one).output == y).all() for one, y in zip(x, wanted))
    assert frontend.work(strategy, keep=True).shares == {}


def test_rows_that_several_steps_read_lie_alone(rng):
    """The weights of 320 channels do not fit: when the first of them are written, the others' step still needs the row."""
    b = Builder(rng, (12, 4, 8))
    b.depthwise(b.conv(b.conv(b.input, 40, (3, 3)), 320, (1, 1)), (3, 3))
    frontend = Frontend(b.network(), SMALL[1])
    assert len([kernel for kernel, _ in runs(frontend.work(whole(frontend, 1))) if kernel.name == "l1_conv"]) > 12
    assert frontend.work(whole(frontend, 1)).shares == {}
    assert_equal(frontend.source, frontend, whole(frontend, 1), rng)


# By hand


def chain(rng, rows=16):
    b = Builder(rng, (rows, 4, 4))
    x = b.conv(b.input, 4, (3, 3))
    b.conv(x, 4, (3, 3))
    return Frontend(b.network(), UP5K)


def test_rings_of_two_convolutions_by_hand(rng):
    # A row of the output needs three of the map between, and in the step that computes the third the first is needed still.
    frontend = chain(rng)
    work = frontend.work(whole(frontend, 1, True))
    assert work.rings == {"t0": 3, "t1": 3, "t2": 1}
    # Without streams the input and the output are there as a whole.
    assert frontend.work(whole(frontend, 1)).rings == {"t0": 16, "t1": 3, "t2": 16}
    # Rows 2 and 3 need 1 to 4, and with 4 comes 5: five rows, which in blocks of two are six slots.
    assert frontend.work(whole(frontend, 2, True)).rings["t1"] == 6
    assert frontend.work(whole(frontend, 0)).rings == {"t0": 16, "t1": 16, "t2": 16}


def test_the_order_of_two_convolutions_by_hand(rng):
    frontend = chain(rng, 4)
    order = [(kernel.name, *piece.rows) for kernel, piece in runs(frontend.work(whole(frontend, 1)))]
    one, two = (kernel.name for _, (kernel,) in frontend.lowered)
    assert order == [(one, 0), (one, 1), (two, 0), (one, 2), (two, 1), (one, 3), (two, 2), (two, 3)]


def test_inputs_come_when_they_are_needed_and_outputs_go_at_once(rng):
    frontend = chain(rng, 4)
    found = [
        (item.tensor, item.take, *item.rows) if isinstance(item, Transfer) else item[0].target.name
        for item in frontend.work(whole(frontend, 1, True)).items
    ]
    assert found == [
        ("t0", False, 0, 1), "t1", ("t0", False, 2), "t1", "t2", ("t2", True, 0),
        ("t0", False, 3), "t1", "t2", ("t2", True, 1), "t1", "t2", ("t2", True, 2), "t2", ("t2", True, 3),
    ]  # fmt: skip


def test_additions_take_a_row_at_a_time(rng):
    b = Builder(rng, (9, 4, 4))
    x = b.conv(b.input, 4, (1, 1))
    b.add(b.conv(x, 4, (3, 3), relu=False), x)
    frontend = Frontend(b.network(), UP5K)
    for rows, expected in ((4, [1] * 9), (1, [1] * 9), (0, [9])):
        found = [len(piece.rows) for kernel, piece in runs(frontend.work(whole(frontend, rows))) if len(kernel.inputs) == 2]
        assert found == expected


@pytest.mark.parametrize("kind", ["mean", "fully_connected"])
def test_what_reads_all_rows_adds_them_up_as_they_come(kind, rng):
    b = Builder(rng, (8, 8, 4))
    x = b.conv(b.input, 8, (3, 3))
    b.mean(x) if kind == "mean" else b.fully_connected(x, 5)
    frontend = Frontend(b.network(), UP5K)
    work = frontend.work(whole(frontend, 1))
    parts = [(kernel, piece) for kernel, piece in runs(work) if kernel.target.name == frontend.output]
    assert [[*piece.kernel_rows] for _, piece in parts] == [[y] for y in range(8)]
    assert [(piece.partial_in, piece.partial_out) for _, piece in parts] == [
        (y > 0, y < 7) for y in range(8)
    ]
    assert work.rings["t1"] == 1


def test_a_reshape_waits_for_all_rows(rng):
    b = Builder(rng, (4, 6, 4))
    x = b.conv(b.reshape(b.conv(b.input, 4, (1, 1)), (6, 2, 8)), 12, (1, 1))
    frontend = Frontend(b.network(), UP5K)
    work = frontend.work(whole(frontend, 1))
    names = [kernel.name for kernel, _ in runs(work)]
    first, copy = (frontend.layers[i].name for i in (0, 1))
    assert max(i for i, name in enumerate(names) if name == first) < names.index(copy)
    assert x in work.rings


# End to end


def assert_equal(network, frontend, strategy, rng):
    compiled = frontend.compile(strategy)
    x = inputs(rng, network, 2)
    expected = network.run(x)[compiled.device_output]
    for one, output in zip(x, expected):
        for warm in (True, False):
            np.testing.assert_array_equal(infer(compiled, one, warm=warm, count=False).output, output)
    assert compiled.plan.bound <= compiled.plan.peak
    return compiled


def test_random_networks_in_random_orders_equal_the_network(rng):
    for _ in range(30):
        build = NETWORKS[int(rng.integers(len(NETWORKS)))]
        frontend = frontend_of(build, (UP5K, UP5K, GENERIC, SMALL[0])[int(rng.integers(4))], rng)
        assert_equal(frontend.source, frontend, strategy_for(frontend, rng), rng)


def graph(rng):
    """A random network of three to eight layers, and what they need beside."""
    b = Builder(rng, (int(rng.integers(3, 14)), int(rng.integers(3, 12)), int(rng.choice([1, 3, 8, 20]))))
    x, before = b.input, []
    kinds = ["conv", "pointwise", "depthwise", "max_pool", "pad", "rescale", "add", "concat"]
    for kind in rng.choice(kinds, rng.integers(3, 9)):
        rows, columns, channels = b.tensors[x].shape
        before.append(x)
        kernel = tuple(int(rng.integers(1, min(size, 4) + 1)) for size in (rows, columns))
        mates = [y for y in before[:-1] if b.tensors[y].shape[:2] == (rows, columns)]
        if kind == "conv":
            x = b.conv(x, int(rng.choice([4, 17, 33])), kernel, _stride(rng), same=bool(rng.integers(3)))
        elif kind == "pointwise":
            x = b.conv(x, int(rng.choice([8, 16, 40])), (1, 1), relu=bool(rng.integers(2)))
        elif kind == "depthwise":
            x = b.depthwise(x, kernel, _stride(rng))
        elif kind == "max_pool":
            x = b.max_pool(x, kernel, _stride(rng), same=True)
        elif kind == "pad":
            x = b.pad(x, tuple(int(n) for n in rng.integers(0, 3, 4)))
        elif kind == "rescale":
            x = b.rescale(x)
        elif kind == "add":
            mates = [y for y in mates if b.tensors[y].shape[2] == channels]
            x = b.add(str(rng.choice(mates)) if mates else b.conv(x, channels, (3, 3), relu=False), x)
        else:
            x = b.concat(b.rescale(b.conv(str(rng.choice(mates)) if mates else x, 5, (3, 1)), like=x), x)
    if rng.integers(3) == 0:
        b.fully_connected(b.mean(x), 5)
    return b.network("graph")


@pytest.mark.parametrize("config", [UP5K, SMALL[0], SMALL[1], SMALL[4]], ids=lambda config: config.name)
def test_random_graphs_in_random_orders_equal_the_network(config, rng):
    for _ in range(12):
        frontend = frontend_of(graph, config, rng)
        replay(frontend, frontend.work(strategy := strategy_for(frontend, rng)))
        assert_equal(frontend.source, frontend, strategy, rng)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_digits_equal_the_network(rows, stream):
    network = digits.load()
    frontend = Frontend(network, UP5K)
    x = digits.test_set()[0][:3]
    compiled = frontend.compile(whole(frontend, rows, stream))
    for one, output in zip(x, network.run(x)[compiled.device_output]):
        np.testing.assert_array_equal(infer(compiled, one, count=False).output, output)
    assert compiled.plan.peak < Frontend(network, UP5K).compile().plan.peak


@pytest.mark.parametrize("layers, rows, strips", [(7, 4, 4), (4, 2, 4), (5, 4, 2)])
@pytest.mark.parametrize("config", [UP5K, SMALL[2], GENERIC], ids=lambda config: config.name)
def test_additions_of_strips_of_different_widths_layer_by_layer(layers, rows, strips, config, rng):
    """Seeds 28, 140 and 396: their inputs' rows are not equally far apart."""
    network = fork(rng)
    frontend = Frontend(network, config)
    strategy = Strategy((Group(layers, 0), Group(len(frontend.layers), rows)), True, strips)
    columns = network.tensors[network.output].shape[1]
    assert_equal(network, frontend, dataclasses.replace(strategy, strips=min(strips, columns)), rng)


def test_the_image_does_not_reach_into_the_activations(rng):
    """Seed 28: entries of the layer table that are equal if all maps lie at 0 differ where they are."""
    b = Builder(rng, (4, 9, 8))
    x = b.conv(b.input, 16, (1, 3))
    for _ in range(6):
        x = b.add(x, b.conv(x, 16, (1, 1), relu=False))
    frontend = Frontend(b.network(), UP5K)
    for strategy in (Strategy(), whole(frontend, 0, True, 3)):
        program = assert_equal(frontend.source, frontend, strategy, rng).program
        addresses = [step["out_address"] for step in program.steps if "out_address" in step]
        assert program.size <= min(addresses)


@pytest.mark.parametrize("padding", [(0, 0, 4, 0), (0, 0, 0, 4), (1, 2, 3, 3)])
@pytest.mark.parametrize("rows", [0, 1])
def test_strips_of_padding(padding, rows, rng):
    """Seeds 141 and 158: a strip that reads no column of its input."""
    b = Builder(rng, (4, 3, 4))
    b.pad(b.conv(b.input, 8, (1, 1)), padding)
    frontend = Frontend(b.network(), UP5K)
    assert_equal(frontend.source, frontend, whole(frontend, rows, True, 5), rng)


def test_blocks_of_partial_sums_do_not_end_behind_their_ring(rng):
    """Seed 1600 of other networks: of three rows two are written at once, and then one."""
    b = Builder(rng, (12, 3, 30))
    x = b.conv(b.input, 30, (3, 3))
    b.add(b.conv(x, 30, (3, 3), relu=False), x)
    frontend = Frontend(b.network(), SMALL[1])
    last = [(kernel.name, [*piece.rows]) for kernel, piece in runs(frontend.work(whole(frontend, 3))) if piece.partial_in]
    assert last[:2] == [("l0_conv", [0, 1]), ("l0_conv", [2])]
    assert_equal(frontend.source, frontend, whole(frontend, 3), rng)


def test_reading_a_partial_sum_is_no_reading_of_the_output(rng):
    b = Builder(rng, (6, 5, 40))
    b.fully_connected(b.conv(b.input, 20, (3, 3)), 7)
    frontend = Frontend(b.network(), SMALL[1])
    for rows in (1, 2, 4):
        assert_equal(frontend.source, frontend, whole(frontend, rows, True), rng)
