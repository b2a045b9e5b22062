"""The sequencer, among things that behave as its neighbours do, against the list of commands that a program means."""

import itertools

import pytest
from amaranth.hdl import Value

from gossamer.golden.program import encode
from gossamer.golden.spec import (
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    STEP_BYTES,
    STEP_FETCH,
    STEP_LOAD,
    STEP_RUN,
    VERSION,
    Config,
    Error,
    Opcode,
)
from gossamer.hdl.loader import Target
from gossamer.hdl.sequencer import Sequencer
from gossamer.hdl.writer import Writer
from gossamer.sim.streams import Bench, plain

CONFIGS = [
    Config("granules1", lanes=8, store_words=256),
    Config("granules2", lanes=32, store_bytes=16, store_words=300),
    Config("granules4", lanes=32, store_bytes=8, store_words=512),
    Config("fetch8", lanes=16, store_words=512, fetch_latency=20, fetch_interval=3),
    Config("fetch16", lanes=32, store_bytes=16, store_words=300, fetch_latency=20, fetch_interval=3),
]
FETCHING = CONFIGS[3:]
LAYER = {
    "groups": 2,
    "width": 3,
    "kernel_rows": 3,
    "stride_rows": 2,
    "slot_words": 2,
    "ring_words": 12,
    "ahead": 1,
    "row_step": 3,
    "row_step_odd": 5,
    "add_multiplier": 0x2345_6789,
    "add_shift": 41,
    "zero_point": -7,
    "pad": 200,
}
RUN = {"opcode": Opcode.RUN, "layer": 1, "rows": 4, "in_rows": 7, "in_address": 80, "lead_rows": 1, "out_address": 999}
WEIGHTS = {"opcode": Opcode.LOAD_WEIGHTS, "layer": 1, "count": 12, "destination": 6, "in_address": 100}
PARAMETERS = {"opcode": Opcode.LOAD_PARAMETERS, "layer": 1, "count": 9, "destination": 10, "in_address": 120, "wait": 1}
FETCH = {"opcode": Opcode.FETCH, "layer": 1, "count": 7, "in_address": 130, "external": 0x2A1AB}


def image(config, layers, steps, header=(), warm=0):
    """The image of a program without data, whose warm start begins with step ``warm``; ``header`` has fields of the header that
    are not as they should be."""
    table = b"".join(encode(DESCRIPTOR, layer, DESCRIPTOR_BYTES) for layer in layers)
    fields = {
        "magic": MAGIC,
        "version": VERSION,
        "lanes": config.lanes,
        "store_bytes": config.store_bytes,
        "steps": (HEADER_BYTES + len(table)) // config.store_bytes,
        "warm_steps": (HEADER_BYTES + len(table) + warm * STEP_BYTES) // config.store_bytes,
        "image_words": 77,
    }
    body = encode(HEADER, fields | dict(header), HEADER_BYTES) + table
    for step in steps:
        fields = {Opcode.RUN: STEP_RUN, Opcode.FETCH: STEP_FETCH}.get(step["opcode"], STEP_LOAD)
        body += encode(fields, step, STEP_BYTES)
    return body + bytes(STEP_BYTES)


def row_commands(config, layer, step):
    """For each output row its commands ``(target, address, granule, blank, group_end)``; a blank row has no address."""
    addresses, address = [], step["in_address"]
    for i in range(step["in_rows"]):
        addresses.append(address)
        address += layer["row_step_odd" if i % 2 else "row_step"]
    rows = [None] * step["lead_rows"] + addresses
    first = 0
    for y in range(step["rows"]):
        last = layer["kernel_rows"] + y * layer["stride_rows"]
        numbers = range(first, last)
        first = last
        yield [
            (
                Target.ROWS,
                rows[n] if n < len(rows) else None,
                n * layer["slot_words"] % layer["ring_words"] * config.granules,
                int(n >= len(rows) or rows[n] is None),
                int(n == last - 1),
            )
            for n in numbers
        ]


def commands(config, layers, steps, warm=0):
    """All commands of a program, or from step ``warm`` on."""
    at = (HEADER_BYTES + DESCRIPTOR_BYTES * len(layers) + STEP_BYTES * warm) // config.store_bytes
    expected = [(Target.STEP, 0)]
    for step in steps[warm:]:
        expected.append((Target.STEP, at))
        at += STEP_BYTES // config.store_bytes
        match step["opcode"]:
            case Opcode.RUN:
                expected.append((Target.DESCRIPTOR, step["layer"] * DESCRIPTOR_BYTES // config.store_bytes))
                for row in row_commands(config, layers[step["layer"] - 1], step):
                    expected += row
            case Opcode.LOAD_WEIGHTS:
                expected.append((Target.WEIGHTS, step["in_address"], step["destination"] * config.granules, step["count"]))
            case Opcode.LOAD_PARAMETERS:
                granule = step["destination"] * 8 // config.store_bytes
                expected.append((Target.PARAMETERS, step["in_address"], granule, step["count"]))
    return [*expected, (Target.STEP, at)]


class Neighbours:
    """Loader, fetcher, window generator, array and writer, as the sequencer sees them.

    ``events`` is a list of ``(cycle, name, value)``. ``compute``, ``write`` and ``load`` return how many cycles a row takes
    from its transfer to ``row_done``, from there to the last write, and a store word more than one; ``fetch`` those of a
    fetched word, and ``busy`` is the cycle up to which the external memory takes no request. ``faults`` has the cycles of
    errors: ``{cycle: names}``; ``starts`` those of starts, and ``warm`` those of warm ones.
    """

    def __init__(
        self, config, store, *, compute=lambda: 5, write=lambda: 9, load=lambda: 0, fetch=lambda: 3, busy=0, faults=(),
        starts=(0,), warm=(),
    ):  # fmt: skip
        self.config, self.store = config, store
        self.events = []
        self.dut = Sequencer(config)
        self.bench = Bench(self.dut)
        self._times = compute, write, load
        self._fetch, self._busy = fetch, busy
        self._faults, self._starts, self._warm = dict(faults), starts, warm
        self._reset(0)
        self._fetcher_free = 0  # also after ``clear`` it goes on
        self.bench.process(self._run)

    def _reset(self, cycle):
        self._words, self._row_ends, self._row_dones = {}, set(), []
        self._loader_free = self._generator_free = self._written = cycle
        self._loading = None
        self._promised = [None, None, None]

    def run(self, cycles):
        """Returns ``events``."""
        self.bench.run(cycles=cycles)
        return self.events

    def finish(self):
        """Run to the end of the program, and a little longer."""
        self.bench.run(quiet=10, limit=3000)

    def of(self, *names):
        """``(cycle, value)`` of the events of these names."""
        return [(cycle, value) for cycle, name, value in self.events if name in names]

    def end(self):
        """``(cycle, error, layer)`` when ``done`` rose."""
        (cycle, value), *more = self.of("done")
        assert not more
        return cycle, *value

    async def _run(self, ctx):
        dut = self.dut
        control = dut.control
        outputs = (dut.command.valid, Value.cast(dut.command.p), dut.rows.valid, dut.rows.p.first, dut.writer_start, dut.clear)
        fetch_ports = (dut.fetch.valid, Value.cast(dut.fetch.p))
        more = (dut.add_scale.en, dut.add_scale.multiplier, dut.add_scale.shift, dut.done, dut.busy, dut.count)
        done = False
        for cycle in itertools.count():
            word = self._words.get(cycle)
            row_done = cycle in self._row_dones
            command_ready, rows_ready = cycle >= self._loader_free, cycle >= self._generator_free
            idle, fetch_idle = cycle >= self._written, cycle >= self._fetcher_free
            fetch_ready = fetch_idle and cycle >= self._busy
            for port, value in (
                (dut.start, cycle in self._starts),
                # Counts with a start only: in all other cycles it says the contrary.
                (dut.warm, (cycle in self._starts) == (cycle in self._warm)),
                (dut.fetch.ready, fetch_ready),
                (dut.fetch_idle, fetch_idle),
                (dut.fetch_error, "fetcher" in self._faults.get(cycle, ())),
                (dut.command.ready, command_ready),
                (dut.rows.ready, rows_ready),
                (control.en, word is not None),
                (control.index, word[0] if word else cycle % 8),
                (control.data, word[1] if word else -1),
                (control.rows_end, cycle in self._row_ends),
                (dut.row_done, row_done),
                (dut.writer_idle, idle),
                (dut.loader_error, "loader" in self._faults.get(cycle, ())),
                (dut.writer_error, "writer" in self._faults.get(cycle, ())),
            ):
                ctx.set(port, value)
            if row_done:
                self._written = cycle + 1 + self._times[1]()
                self.events.append((cycle, "row done", None))
                self.events.append((self._written, "written", None))
            sampled = [ctx.get(output) for output in (*outputs, *more)]
            offered, command, row, first, start, clear, scale, multiplier, shift, now_done, busy, count = sampled
            fetched, fetch = (ctx.get(port) for port in fetch_ports)
            # A promise ends when the neighbours are reset.
            offers = [(1, command) if offered else None, (1, first) if row else None, (1, fetch) if fetched else None]
            for promise, offer in zip(self._promised, offers):
                assert clear or promise in (None, offer), "an offer must stay until the transfer"
            taken = command_ready, rows_ready, fetch_ready
            self._promised = [None if clear or ready else offer for offer, ready in zip(offers, taken)]
            if self._loading is not None and cycle < self._loader_free:
                assert count == self._loading, "count must not change while the loader uses it"
            if offered and command_ready and not clear:
                self._command(cycle, plain(dut.command.p.shape().from_bits(command)), count)
            assert not fetched or command_ready, "a fetch must not be offered while the loader has something to do"
            if fetched and fetch_ready and not clear:
                value = plain(dut.fetch.p.shape().from_bits(fetch))
                self.events.append((cycle, "fetch", (value["address"], value["destination"], value["words"])))
                self._fetcher_free = cycle + 1 + sum(self._fetch() for _ in range(value["words"]))
                self.events.append((self._fetcher_free, "fetched", None))
            if row and rows_ready and not clear:
                finish = cycle + 1 + self._times[0]()
                self._row_dones.append(max(finish, *self._row_dones[-1:], cycle) + 1)
                self._generator_free = finish
                self.events.append((cycle, "row", (first, plain(ctx.get(dut.descriptor)))))
            if start:
                self.events.append((cycle, "start", (ctx.get(dut.out_address), ctx.get(dut.image_words))))
            if scale:
                self.events.append((cycle, "scale", (multiplier, shift)))
            if clear:
                self.events.append((cycle, "clear", None))
                self._reset(cycle + 1)
            if now_done and not done:
                self.events.append((cycle, "done", (ctx.get(dut.error), ctx.get(dut.layer))))
            assert not (now_done and busy)
            done = now_done
            if not done:
                self.bench.stay()
            await ctx.tick()

    def _command(self, cycle, payload, count):
        target, address = Target(payload["target"]), payload["address"]
        size = self.config.store_bytes
        self._loading = None
        if target in (Target.STEP, Target.DESCRIPTOR):
            words = (STEP_BYTES if target == Target.STEP else DESCRIPTOR_BYTES) // size
            value = (target, address)
        elif target == Target.ROWS:
            words = 3
            value = (target, None if payload["blank"] else address, *(payload[n] for n in ("index", "blank", "group_end")))
        else:
            words = self._loading = count
            value = (target, address, payload["index"], count)
        self.events.append((cycle, "command", value))
        at = cycle + 1
        for number in range(words):
            at += 1 + self._times[2]()
            if target in (Target.STEP, Target.DESCRIPTOR):
                data = self.store[(address + number) * size : (address + number + 1) * size]
                self._words[at] = number, int.from_bytes(data, "little")
        self._loader_free = at
        if payload["group_end"]:
            self._row_ends.add(at)


def random_program(rng, config):
    """``(layers, steps)``."""
    layers, steps = [], []
    for number in range(1, 3):
        kernel, stride, ahead = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(2))
        slots = -(-(kernel + stride) // stride) * stride
        slot_words = int(rng.integers(1, 6))
        layers.append(
            LAYER
            | {
                "kernel_rows": kernel,
                "stride_rows": stride,
                "slot_words": slot_words,
                "ring_words": slots * slot_words,
                "ahead": ahead,
                "row_step": int(rng.integers(-4, 9)),
                "row_step_odd": int(rng.integers(-4, 9)),
                "add_multiplier": int(rng.integers(1 << 30)),
                "add_shift": int(rng.integers(64)),
            }
        )
        loads = [
            step | {"wait": int(rng.integers(2)), "fetched": int(rng.integers(2)), "layer": number}
            for step in (WEIGHTS, PARAMETERS)
        ]
        fetches = [
            FETCH | {"wait": int(rng.integers(2)), "count": int(rng.integers(1, 30)), "external": int(rng.integers(1 << 18))}
            for _ in range(rng.integers(1, 3) if config.fetch_interval else 0)
        ]
        run = {
            "layer": number,
            "rows": int(rng.integers(1, 5)),
            "in_rows": int(rng.integers(0, 9)),
            "lead_rows": int(rng.integers(0, 3)),
            "in_address": int(rng.integers(60, 120)),
            "out_address": int(rng.integers(1000, 2000)),
        }
        steps += [*rng.permutation([*loads[: rng.integers(3)], *fetches]).tolist(), RUN | run]
    return layers, steps


PACES = {
    "fast": {},
    "slow array": {"compute": lambda: 60, "write": lambda: 30},
    "slow store": {"compute": lambda: 1, "write": lambda: 3, "load": lambda: 2},
    "slow memory": {"compute": lambda: 2, "fetch": lambda: 9},
}


@pytest.mark.parametrize(
    "config, pace",
    [(config, pace) for config in CONFIGS for pace in PACES if config.fetch_interval or pace != "slow memory"],
    ids=lambda one: getattr(one, "name", one),
)
@pytest.mark.parametrize("number", range(2))
def test_random_programs_make_their_commands_and_keep_the_order_of_work(rng, config, pace, number):
    layers, steps = random_program(rng, config)
    around = Neighbours(config, image(config, layers, steps), **PACES[pace])
    around.finish()
    assert [value for _, value in around.of("command")] == commands(config, layers, steps)
    fetches = [step for step in steps if step["opcode"] == Opcode.FETCH]
    expected_fetches = [(step["external"], step["in_address"], step["count"]) for step in fetches]
    assert [value for _, value in around.of("fetch")] == expected_fetches
    runs = [step for step in steps if step["opcode"] == Opcode.RUN]
    expected_rows = [(int(y == 0), layers[run["layer"] - 1]) for run in runs for y in range(run["rows"])]
    rows = [value for _, value in around.of("row")]
    assert [first for first, _ in rows] == [first for first, _ in expected_rows]
    widths = around.dut.descriptor.shape().members
    for (_, descriptor), (_, layer) in zip(rows, expected_rows):
        held = {name: value for name, value in layer.items() if not name.startswith("add_")}
        assert {name: descriptor[name] for name in held} == {name: held[name] % (1 << widths[name]) for name in held}
    assert [value for _, value in around.of("start")] == [(run["out_address"], 77) for run in runs]
    scales = [layers[run["layer"] - 1] for run in runs]
    assert [value for _, value in around.of("scale")] == [(layer["add_multiplier"], layer["add_shift"]) for layer in scales]
    check_order(around, config, layers, steps)
    assert around.end()[1:] == (Error.NONE, runs[-1]["layer"])
    assert not around.of("clear")


def check_order(around, config, layers, steps):
    """Nothing begins before what it must wait for."""
    dones, written = ([cycle for cycle, _ in around.of(name)] for name in ("row done", "written"))
    rows = [cycle for cycle, _ in around.of("row")]
    events = iter(around.of("command", "fetch"))
    ends = [cycle for cycle, _ in around.of("fetched")]
    next(events)
    before = fetches = 0  # rows of the runs before, and fetches
    for step in steps:
        next(events)  # the step's own words
        cycle, _ = next(events)
        if step.get("wait") or step["opcode"] == Opcode.RUN:
            assert all(at <= cycle for at in [*dones[:before], *written[:before]])
        if step.get("fetched"):
            assert all(at <= cycle for at in ends[:fetches])
        fetches += step["opcode"] == Opcode.FETCH
        if step["opcode"] != Opcode.RUN:
            continue
        layer = layers[step["layer"] - 1]
        for y, row in enumerate(row_commands(config, layer, step)):
            begin = [next(events)[0] for _ in row]
            other = y - 1 - layer["ahead"]
            if other >= 0:
                assert begin[0] > dones[before + other]
            assert rows[before + y] > begin[-1] + 3
        before += step["rows"]
    assert around.end()[0] > max([*written, *ends])


@pytest.mark.parametrize("ahead", [0, 1])
def test_rows_are_loaded_ahead_of_a_slow_array_by_one_output_row_at_most(ahead):
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [LAYER | {"ahead": ahead}], [RUN]), **PACES["slow array"])
    around.run(600)
    ends = [cycle for cycle, value in around.of("command") if value[0] == Target.ROWS and value[-1]]
    dones = [cycle for cycle, _ in around.of("row done")]
    for y in range(1, 4):
        assert sum(done < ends[y] for done in dones) == max(y - ahead, 0)


@pytest.mark.parametrize("wait", [0, 1])
def test_a_load_step_waits_only_if_told_to(wait):
    config = CONFIGS[0]
    steps = [RUN, WEIGHTS | {"wait": wait}, PARAMETERS | {"wait": wait}]
    around = Neighbours(config, image(config, [LAYER], steps), **PACES["slow array"])
    around.run(700)
    loads = [cycle for cycle, value in around.of("command") if value[0] in (Target.WEIGHTS, Target.PARAMETERS)]
    assert [cycle > max(at for at, _ in around.of("written")) for cycle in loads] == [bool(wait)] * 2
    assert all(around.end()[0] > at for at, _ in around.of("written"))


def test_blank_rows_and_the_ring_by_hand():
    """One padding row in front, two rows, and the rest padding again; five slots of three words, four granules each."""
    config = CONFIGS[2]
    layer = LAYER | {"slot_words": 3, "ring_words": 15, "kernel_rows": 3, "stride_rows": 1, "row_step": 10, "row_step_odd": 99}
    around = Neighbours(config, image(config, [layer], [RUN | {"in_rows": 2, "in_address": 50}]))
    around.run(400)
    rows = [value[1:] for _, value in around.of("command") if value[0] == Target.ROWS]
    assert rows == [(None, 0, 1, 0), (50, 12, 0, 0), (60, 24, 0, 1), (None, 36, 1, 1), (None, 48, 1, 1), (None, 0, 1, 1)]


@pytest.mark.parametrize("config, busy", [(CONFIGS[0], 10), (CONFIGS[1], 8)], ids=["8 bytes", "16 bytes"])
def test_an_empty_program_takes_two_fetches(config, busy):
    """Each is a cycle for the command, one for the store, those of the words, and one to act on them; one checks the header."""
    around = Neighbours(config, image(config, [], []), starts=[3])
    around.run(40)
    assert around.end()[0] == 3 + 1 + busy
    assert [cycle for cycle, _ in around.of("command")] == [4, 4 + busy // 2]


def test_done_stays_until_the_next_start_and_the_program_runs_again():
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [LAYER], [WEIGHTS, RUN]), starts=[0, 300])
    around.run(600)
    first, second = around.of("done")
    assert second[0] - first[0] == 300
    values = [value for _, value in around.of("command")]
    assert values == commands(config, [LAYER], [WEIGHTS, RUN]) * 2


BAD = {
    "magic": ({"magic": MAGIC ^ 1}, [], Error.MAGIC),
    "magic before version": ({"magic": MAGIC ^ 1 << 31, "version": 9}, [], Error.MAGIC),
    "version": ({"version": VERSION + 1}, [], Error.VERSION),
    "version before lanes": ({"version": VERSION | 1 << 15, "lanes": 9}, [], Error.VERSION),
    "lanes": ({"lanes": 9}, [], Error.CONFIG),
    "store bytes": ({"store_bytes": 32}, [], Error.CONFIG),
    "opcode 4": ({}, [{"opcode": 4, "layer": 6}], Error.OPCODE),  # a fetch, for which there is no port
    "opcode 15": ({}, [{"opcode": 15, "wait": 1}], Error.OPCODE),
    "weights": ({}, [WEIGHTS | {"count": 0, "wait": 1, "layer": 7}], Error.EMPTY),
    "parameters": ({}, [PARAMETERS | {"count": 0, "layer": 0xFFF}], Error.EMPTY),
    "rows": ({}, [RUN | {"rows": 0}], Error.EMPTY),
    **{name: ({}, [RUN | {"layer": layer}], Error.EMPTY) for layer, name in enumerate(
        ("groups", "width", "kernel_rows", "slot_words"), 2
    )},
}
LAYERS = [LAYER, *(LAYER | {name: 0} for name in ("groups", "width", "kernel_rows", "slot_words"))]


@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda config: config.name)
@pytest.mark.parametrize("bad", BAD)
def test_what_is_wrong_in_an_image_has_its_code(config, bad):
    header, steps, code = BAD[bad]
    around = Neighbours(config, image(config, LAYERS, [*steps, WEIGHTS], header))
    around.run(120)
    cycle, error, layer = around.end()
    assert (error, layer) == (code, steps[0].get("layer", 0) if steps else 0)
    assert [at for at, _ in around.of("clear")] == [cycle - 1]
    assert not [value for _, value in around.of("command") if value[0] in (Target.WEIGHTS, Target.ROWS)]


@pytest.mark.parametrize(
    "names, code",
    [
        (("loader",), Error.READ), (("writer",), Error.WRITE), (("loader", "writer"), Error.WRITE),
        (("fetcher",), Error.WRITE), (("loader", "fetcher"), Error.WRITE),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cycle", [1, 2, 5, 8, 11, 13, 20, 31, 36, 38, 44, 60, 90])
def test_an_access_out_of_bounds_stops_it_whatever_it_does(names, code, cycle):
    config = CONFIGS[0]
    steps = [WEIGHTS, RUN, PARAMETERS]
    around = Neighbours(config, image(config, [LAYER], steps), faults={cycle: names}, starts=[0, cycle + 10])
    around.run(cycle + 12)
    assert [at for at, _ in around.of("clear")] == [cycle + 1]
    assert around.of("done")[0] == (cycle + 2, (code, around.of("done")[0][1][1]))
    assert not [at for at, _ in around.of("command", "row", "start") if cycle + 1 < at < cycle + 11]


@pytest.mark.parametrize(
    "cycle, name, layer",
    [
        *[(3, "loader", 0), (12, "loader", 3), (50, "loader", 1), (70, "loader", 5)],
        *[(150, "writer", 1), (200, "writer", 1), (370, "writer", 2)],
    ],
)
def test_the_layer_of_an_error_is_that_of_the_step_that_failed(cycle, name, layer):
    """Also if the steps behind it have been fetched, down to the end."""
    config = CONFIGS[0]
    steps = [WEIGHTS | {"layer": 3}, RUN | {"rows": 2}, WEIGHTS | {"layer": 5}, RUN | {"layer": 2, "rows": 2}]
    code = {"loader": Error.READ, "writer": Error.WRITE}[name]
    around = Neighbours(config, image(config, [LAYER] * 2, steps), faults={cycle: (name,)}, **PACES["slow array"])
    around.run(500)
    assert around.end() == (cycle + 2, code, layer)


def test_errors_count_only_while_a_program_runs():
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [], []), faults={2: ("loader",), 30: ("writer",)}, starts=[5])
    around.run(50)
    assert around.end() == (5 + 11, Error.NONE, 0)
    assert not around.of("clear")


@pytest.mark.parametrize(
    "pace, cycle",
    [("fast", 3), ("fast", 20), ("fast", 45), ("fast", 60), ("fast", 75), ("slow array", 90), ("slow array", 110)]
)
def test_after_an_error_a_program_runs_as_if_nothing_had_been(pace, cycle):
    """Also if a row was being computed and the next was loaded."""
    config = CONFIGS[0]
    layers, steps = [LAYER], [WEIGHTS, RUN, PARAMETERS]
    again = cycle + 5
    store = image(config, layers, steps)
    around = Neighbours(config, store, faults={cycle: ("loader",)}, starts=[0, again], **PACES[pace])
    around.run(again + 500)
    clean = Neighbours(config, store, **PACES[pace])
    clean.run(500)
    for name in ("command", "row", "row done", "start", "scale"):
        assert [(at - again, value) for at, value in around.of(name) if at >= again] == clean.of(name)
    (_, (error, _)), (at, end) = around.of("done")
    assert (error, at - again, end) == (Error.READ, *clean.of("done")[0])


@pytest.mark.parametrize("cycle", [4, 30, 60, 90])
def test_reset_forgets_the_program(cycle):
    config = CONFIGS[0]
    store = image(config, [LAYER], [RUN])
    around = Neighbours(config, store, starts=[0, cycle + 3])
    around.bench.run(cycles=cycle + 300, resets={cycle: lambda: around._reset(cycle + 1)})
    clean = Neighbours(config, store)
    clean.run(300)
    for name in ("command", "row", "start", "done"):
        assert [(at - cycle - 3, value) for at, value in around.of(name) if at > cycle] == clean.of(name)


@pytest.mark.parametrize("store_words", [256, 257, 300, 511, 512])
def test_steps_backwards_work_in_a_store_of_any_size(store_words):
    config = Config("any", lanes=8, store_words=store_words)
    layer = LAYER | {"row_step": -3, "row_step_odd": -200, "out_row_step": -5, "kernel_rows": 2, "stride_rows": 1}
    around = Neighbours(config, image(config, [layer], [RUN | {"in_address": 230, "lead_rows": 0, "rows": 2}]))
    around.run(200)
    assert [value[1] for _, value in around.of("command") if value[0] == Target.ROWS] == [230, 227, 27]
    (_, (_, descriptor)), *_ = around.of("row")
    address_bits = len(Writer(lanes=8, store_bytes=8, store_words=store_words).out_row_step)
    assert descriptor["out_row_step"] % (1 << address_bits) == -5 % (1 << address_bits)


@pytest.mark.parametrize("bit", [9, 15, 23])
def test_an_address_behind_the_store_stays_behind_it(bit):
    """However far: the addresses that go out have one bit more than the store needs."""
    config = Config("words256", lanes=8, store_words=256)
    steps = [WEIGHTS | {"in_address": 1 << bit}, RUN | {"in_address": 1 << bit | 3, "out_address": 1 << bit + 3 | 5}]
    around = Neighbours(config, image(config, [LAYER], steps))
    around.run(300)
    loads = {value[1] for _, value in around.of("command") if value[0] in (Target.WEIGHTS, Target.ROWS)} - {None}
    assert min(loads) >= 256
    (_, (out_address, _)), = around.of("start")
    assert out_address == 8 * 256 + 5
    around = Neighbours(config, image(config, [], [], {"steps": 1 << min(bit, 19)}))
    around.run(20)
    assert around.of("command")[1][1] == (Target.STEP, 256)


# Fetches. The first step is asked for in cycle 6, and acted on in cycle 10, or of 16 bytes 5 and 8.

LONG = 3 * FETCH["count"]  # cycles of this fetch among the neighbours


@pytest.mark.parametrize("config, dispatch, step", [(FETCHING[0], 10, 4), (FETCHING[1], 8, 3)], ids=["8 bytes", "16 bytes"])
def test_a_fetch_is_handed_on_and_the_next_step_follows(config, dispatch, step):
    around = Neighbours(config, image(config, [LAYER], [FETCH, PARAMETERS]))
    around.finish()
    assert around.of("fetch") == [(dispatch + 1, (0x2A1AB, 130, 7))]
    assert [cycle for cycle, _ in around.of("command")][1:4] == [dispatch - step, dispatch + 2, dispatch + 3 + step]


@pytest.mark.parametrize("busy", [0, 11, 12, 40])
def test_a_fetch_waits_for_the_memory(busy):
    config = FETCHING[0]
    around = Neighbours(config, image(config, [LAYER], [FETCH]), busy=busy)
    around.finish()
    taken = max(busy, 11)
    assert [cycle for cycle, _ in around.of("fetch")] == [taken]
    assert around.of("command")[2][0] == taken + 1


@pytest.mark.parametrize("words, second", [(1, 17), (2, 18), (3, 21), (20, 72)])
def test_a_fetch_waits_for_the_one_before(words, second):
    config = FETCHING[0]
    around = Neighbours(config, image(config, [LAYER], [FETCH | {"count": words}, FETCH | {"in_address": 200}]))
    around.finish()
    assert around.of("fetch") == [(11, (0x2A1AB, 130, words)), (second, (0x2A1AB, 200, 7))]


@pytest.mark.parametrize("load, begin", [(lambda: 0, 29), (lambda: 2, 65)])
def test_a_fetch_begins_when_the_load_before_has_ended(load, begin):
    config = FETCHING[0]
    around = Neighbours(config, image(config, [LAYER], [WEIGHTS, FETCH]), load=load)
    around.finish()
    assert [cycle for cycle, _ in around.of("fetch")] == [begin]


@pytest.mark.parametrize("fetched, cycle", [(0, 17), (1, 11 + 1 + LONG + 1)])
@pytest.mark.parametrize("step", [WEIGHTS, PARAMETERS], ids=["weights", "parameters"])
def test_only_a_load_with_the_flag_waits_for_the_fetch(step, fetched, cycle):
    config = FETCHING[0]
    around = Neighbours(config, image(config, [LAYER], [FETCH, step | {"fetched": fetched}]))
    around.finish()
    assert around.of("command")[3][0] == cycle


def test_a_load_with_the_flag_waits_for_all_fetches():
    config = FETCHING[0]
    steps = [FETCH, FETCH | {"count": 3}, WEIGHTS | {"fetched": 1}]
    around = Neighbours(config, image(config, [LAYER], steps))
    around.finish()
    first, second = (cycle for cycle, _ in around.of("fetch"))
    assert (first, second) == (11, 11 + 1 + LONG)
    assert around.of("command")[4][0] == second + 1 + 9 + 1


@pytest.mark.parametrize("words, done", [(1, 17), (2, 19), (7, 34)])
def test_the_end_waits_for_the_fetch(words, done):
    config = FETCHING[0]
    around = Neighbours(config, image(config, [LAYER], [FETCH | {"count": words}]))
    around.finish()
    assert around.end() == (done, Error.NONE, 0)


def test_a_run_does_not_wait_for_the_fetch():
    config = FETCHING[0]
    around = Neighbours(config, image(config, [LAYER], [FETCH, RUN | {"rows": 1}]), fetch=lambda: 40)
    around.finish()
    ((ended, _),) = around.of("fetched")
    assert max(cycle for cycle, _ in around.of("written")) < ended
    assert around.end() == (ended + 1, Error.NONE, 1)


@pytest.mark.parametrize("wait", [0, 1])
def test_a_fetch_waits_for_the_run_only_if_told_to(wait):
    config = FETCHING[0]
    around = Neighbours(config, image(config, [LAYER], [RUN, FETCH | {"wait": wait}]), **PACES["slow array"])
    around.finish()
    ((cycle, _),) = around.of("fetch")
    assert (cycle > max(at for at, _ in around.of("written"))) == bool(wait)


@pytest.mark.parametrize("config", FETCHING, ids=lambda config: config.name)
def test_a_fetch_of_no_words_is_an_error(config):
    around = Neighbours(config, image(config, [], [FETCH | {"count": 0, "layer": 0xABC, "wait": 1}]))
    around.finish()
    assert around.end()[1:] == (Error.EMPTY, 0xABC)
    assert not around.of("fetch")


@pytest.mark.parametrize("name, words", [("fetch", 4095), ("weights", 4096)])
def test_the_longest_fetch_and_the_longest_load(name, words):
    config = Config("long", lanes=64, store_bytes=16, weight_vectors=1024, fetch_latency=20, fetch_interval=1)
    step = {"fetch": FETCH, "weights": WEIGHTS | {"destination": 0}}[name] | {"count": words}
    around = Neighbours(config, image(config, [LAYER], [step]))
    around.run(30)
    assert around.of("fetch") == ([(9, (0x2A1AB, 130, words))] if name == "fetch" else [])
    assert ((9, (Target.WEIGHTS, 100, 0, words)) in around.of("command")) == (name == "weights")


@pytest.mark.parametrize("bit", [9, 15, 23])
def test_the_destination_of_a_fetch_behind_the_store_stays_behind_it(bit):
    config = FETCHING[0]
    step = FETCH | {"in_address": 1 << bit | 5, "external": (1 << 18) - 1}
    around = Neighbours(config, image(config, [LAYER], [step]))
    around.run(20)
    assert around.of("fetch") == [(11, ((1 << 18) - 1, 512 + 5, 7))]


@pytest.mark.parametrize("name, layer", [("fetcher", 5), ("writer", 1)])
def test_an_error_of_a_fetch_stops_the_program(name, layer):
    """In the fetch's own step. One of the writer at that time is of the run in front."""
    config = FETCHING[0]
    steps = [RUN, FETCH | {"layer": 5}, FETCH | {"layer": 6}]
    clean = Neighbours(config, image(config, [LAYER], steps), busy=1000, **PACES["slow array"])
    clean.run(400)
    asked = clean.of("command")[-1][0]  # the step of the first fetch, which then waits for the memory
    around = Neighbours(config, image(config, [LAYER], steps), busy=1000, faults={asked + 10: (name,)}, **PACES["slow array"])
    around.finish()
    assert around.end() == (asked + 12, Error.WRITE, layer)
    assert not around.of("fetch")


def test_an_error_of_a_fetch_shows_the_step_that_the_program_has_come_to():
    config = FETCHING[0]
    steps = [FETCH | {"layer": 5}, WEIGHTS | {"layer": 6, "fetched": 1}]
    around = Neighbours(config, image(config, [LAYER], steps), faults={25: ("fetcher",)})
    around.finish()
    assert around.end() == (27, Error.WRITE, 6)


def test_after_an_error_the_next_program_waits_for_the_fetch_that_goes_on():
    config = FETCHING[0]
    steps = [FETCH | {"count": 40}, WEIGHTS | {"fetched": 1}]
    around = Neighbours(config, image(config, [LAYER], steps, warm=1), faults={20: ("loader",)}, starts=[0, 30], warm=[30])
    around.run(200)
    (ended, _), *more = around.of("fetched")
    assert ended == 11 + 1 + 3 * 40
    assert not more
    targets = [value[0] for cycle, value in around.of("command") if cycle > 30]
    assert targets == [Target.STEP, Target.STEP, Target.WEIGHTS, Target.STEP]
    assert [cycle for cycle, value in around.of("command") if value[0] == Target.WEIGHTS] == [ended + 1]
    store = image(config, [LAYER], steps[:1], warm=1)
    around = Neighbours(config, store, faults={20: ("loader",)}, starts=[0, 24], warm=[24])
    around.run(160)
    assert [value for _, value in around.of("done")] == [(Error.READ, 0), (Error.NONE, 0)]
    assert around.of("done")[1][0] == around.of("fetched")[0][0] + 1


# Warm starts


@pytest.mark.parametrize("config", [CONFIGS[0], *FETCHING], ids=lambda config: config.name)
@pytest.mark.parametrize("warm", [0, 1, 2, 3])
def test_a_warm_start_begins_with_its_steps(config, warm):
    """A cold start before and after it begins with all."""
    steps = [WEIGHTS, PARAMETERS, RUN | {"rows": 1}]
    around = Neighbours(config, image(config, [LAYER], steps, warm=warm), starts=[0, 200, 400], warm=[200])
    around.run(600)
    found = [[value for cycle, value in around.of("command") if at < cycle < at + 200] for at in (0, 200, 400)]
    cold = commands(config, [LAYER], steps)
    assert found == [cold, commands(config, [LAYER], steps, warm), cold]
    assert [error for _, (error, _) in around.of("done")] == [Error.NONE] * 3


def test_a_warm_start_reads_the_header_as_a_cold_one_does():
    """It takes no other time, and finds the same errors."""
    config = CONFIGS[0]
    for header, code, busy in (({}, Error.NONE, 10), ({"magic": 1}, Error.MAGIC, 6), ({"warm_steps": 255}, Error.OPCODE, 10)):
        around = Neighbours(config, image(config, [], [], header).ljust(2048, b"\xFF"), starts=[0], warm=[0])
        around.run(40)
        assert around.end()[:2] == (1 + busy + (code == Error.OPCODE), code)


@pytest.mark.parametrize("bit", [8, 15, 19])
def test_a_warm_start_behind_the_store_stays_behind_it(bit):
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [], [], {"warm_steps": 1 << bit}), warm=[0])
    around.run(20)
    assert around.of("command")[1][1] == (Target.STEP, 256)
