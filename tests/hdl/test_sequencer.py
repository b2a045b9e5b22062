"""The sequencer, among things that behave as its neighbours do, against the list of commands that a program means."""

import dataclasses
import itertools

import pytest
from amaranth.hdl import Value

from gossamer.golden.program import LAYOUTS, encode
from gossamer.golden.spec import (
    CODECS,
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    STEP_BYTES,
    STEP_LOAD,
    VERSION,
    Config,
    Error,
    Opcode,
)
from gossamer.hdl.loader import Target
from gossamer.hdl.sequencer import Sequencer, descriptor_layout
from gossamer.hdl.writer import Writer
from gossamer.sim.streams import Bench, plain

CONFIGS = [
    Config("granules1", lanes=8, store_words=256),
    Config("granules2", lanes=32, store_bytes=16, store_words=300),
    Config("granules4", lanes=32, store_bytes=8, store_words=512),
    Config("fetch8", lanes=16, store_words=512, fetch_latency=20, fetch_interval=3),
    Config("fetch16", lanes=32, store_bytes=16, store_words=300, fetch_latency=20, fetch_interval=3),
    Config("coded8", lanes=32, store_words=512, fetch_latency=20, fetch_interval=3, codec="lossless"),
    Config("coded16", lanes=32, store_bytes=16, store_words=300, fetch_latency=20, fetch_interval=3, codec="bounded"),
]
CODED = CONFIGS[5:]
WITH_MODES = [
    Config("masks1", lanes=8, store_words=256, masks=256, nibbles=True, int4=True),
    Config("masks2", lanes=64, store_bytes=8, store_words=512, masks=512, binary=True, fetch_latency=20, fetch_interval=3),
]
MODES = {
    "masks": ["sparse"], "nibbles": ["in_nibbles", "out_nibbles"], "binary": ["in_bits", "out_bits", "binary"], "int4": ["int4"]
}  # fmt: skip
"""The fields of a descriptor that ask for what a configuration may have."""
KINDS = ("in_coded", "in_signed", "in_coded_odd", "in_signed_odd")
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
MASKS = {"opcode": Opcode.LOAD_MASKS, "layer": 1, "count": 8, "destination": 5, "in_address": 110}
HOST = {"opcode": Opcode.HOST, "rows": 5, "columns": 9, "in_address": 140, "row_words": 3}
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
        if step["opcode"] == Opcode.LOOP:
            step = step | {"in_address": step_word(config, layers, step["in_address"])}
        body += encode(LAYOUTS.get(step["opcode"], STEP_LOAD), step, STEP_BYTES)
    return body + bytes(STEP_BYTES)


def step_word(config, layers, number):
    """The store word of a step."""
    return (HEADER_BYTES + DESCRIPTOR_BYTES * len(layers) + STEP_BYTES * number) // config.store_bytes


def loop(count, back=0):
    """A loop to step number ``back``."""
    return {"opcode": Opcode.LOOP, "count": count, "in_address": back}


def order(steps, at=0):
    """The numbers of the steps as they are executed, to the end, which is a step too."""
    turns = 0
    while at < len(steps):
        yield at
        if steps[at]["opcode"] == Opcode.LOOP and turns < steps[at]["count"]:
            turns += 1
            at = steps[at]["in_address"]
        else:
            turns = 0 if steps[at]["opcode"] == Opcode.LOOP else turns
            at += 1
    yield at


def row_commands(config, layer, step):
    """For each output row its commands ``(target, address, granule, blank, group_end, coded, signed)``; a blank row has no
    address, and what is in it does not matter."""
    kinds = [[layer.get(f"in_{name}{odd}", 0) for name in ("coded", "signed")] for odd in ("", "_odd")]
    addresses, address = [], step["in_address"]
    for i in range(step["in_rows"]):
        addresses.append(address)
        address += layer["row_step_odd" if i % 2 else "row_step"]
        if len(addresses) == step.get("wrap_rows"):
            address = step["wrap_address"]
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
                *(kinds[(n - step["lead_rows"]) % 2] if n < len(rows) and rows[n] is not None else (None, None)),
            )
            for n in numbers
        ]


def commands(config, layers, steps, warm=0):
    """All commands of a program, or from step ``warm`` on."""
    expected = [(Target.STEP, 0)]
    *numbers, end = order(steps, warm)
    for number in numbers:
        expected.append((Target.STEP, step_word(config, layers, number)))
        step = steps[number]
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
            case Opcode.LOAD_MASKS:
                granule = step["destination"] * config.mask_bytes // config.store_bytes
                expected.append((Target.MASKS, step["in_address"], granule, step["count"]))
    return [*expected, (Target.STEP, step_word(config, layers, end))]


class Neighbours:
    """Loader, fetcher, window generator, array and writer, as the sequencer sees them.

    ``events`` is a list of ``(cycle, name, value)``. ``compute``, ``write`` and ``load`` return how many cycles a row takes
    from its transfer to ``row_done``, from there to the last write, and a store word more than one; ``fetch`` those of a
    fetched word, and ``busy`` is the cycle up to which the external memory takes no request. ``faults`` has the cycles of
    errors: ``{cycle: names}``; ``starts`` those of starts, and ``warm`` those of warm ones. ``pause`` are the cycles that
    the host takes at a host step.
    """

    def __init__(
        self, config, store, *, compute=lambda: 5, write=lambda: 9, load=lambda: 0, fetch=lambda: 3, busy=0, faults=(),
        starts=(0,), warm=(), pause=lambda: 0,
    ):  # fmt: skip
        self.config, self.store = config, store
        self.events = []
        self.dut = Sequencer(config)
        self.bench = Bench(self.dut)
        self._times = compute, write, load
        self._fetch, self._busy = fetch, busy
        self._faults, self._starts, self._warm, self._pause = dict(faults), starts, warm, pause
        self._resume = None
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
        self.bench.run(quiet=10, limit=8000)

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
            paused = ctx.get(dut.paused)
            if paused and self._resume is None:
                self.events.append((cycle, "paused", ctx.get(dut.step_address)))
                self._resume = cycle + self._pause()
            if not paused:
                self._resume = None
            resume = not paused or cycle == self._resume  # counts only in a pause
            for port, value in (
                (dut.start, cycle in self._starts),
                # Counts with a start only: in all other cycles it says the contrary.
                (dut.warm, (cycle in self._starts) == (cycle in self._warm)),
                (dut.resume, resume),
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
                (dut.loader_left, "code" in self._faults.get(cycle, ())),
                (dut.writer_error, "writer" in self._faults.get(cycle, ())),
                (dut.writer_overflow, "slot" in self._faults.get(cycle, ())),
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
                self.events.append((cycle, "fetch", (value["address"], value["destination"], value["more"] + 1)))
                self._fetcher_free = cycle + 1 + sum(self._fetch() for _ in range(value["more"] + 1))
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
            assert now_done + busy + paused <= 1
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
            kind = (None, None) if payload["blank"] else (payload["coded"], payload["signed"])
            place = (payload[name] for name in ("index", "blank", "group_end"))
            value = (target, None if payload["blank"] else address, *place, *kind)
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
            | {name: int(rng.integers(2)) * (config.codec != "off") for name in KINDS}
            | {name: int(rng.integers(2)) for mode, names in MODES.items() if getattr(config, mode) for name in names}
            | ({"vector_base": int(rng.integers(512))} if config.masks else {})
        )
        loads = [
            step | {"wait": int(rng.integers(2)), "fetched": int(rng.integers(2)), "layer": number}
            for step in (WEIGHTS, PARAMETERS, *([MASKS] if config.masks else []))
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
            "wrap_rows": int(rng.integers(0, 9)),
            "wrap_address": int(rng.integers(60, 120)),
            "out_address": int(rng.integers(1000, 2000)),
        }
        steps += [*rng.permutation([*loads[: rng.integers(len(loads) + 1)], *fetches]).tolist(), RUN | run]
    return layers, steps


PACES = {
    "fast": {},
    "slow array": {"compute": lambda: 60, "write": lambda: 30},
    "slow store": {"compute": lambda: 1, "write": lambda: 3, "load": lambda: 2},
    "slow memory": {"compute": lambda: 2, "fetch": lambda: 9},
}


@pytest.mark.parametrize(
    "config, pace",
    [
        (config, pace)
        for config in [*CONFIGS, *WITH_MODES]
        for pace in PACES
        if config.fetch_interval or pace != "slow memory"
    ],
    ids=lambda one: getattr(one, "name", one),
)
@pytest.mark.parametrize("number", range(2))
def test_random_programs_make_their_commands_and_keep_the_order_of_work(rng, config, pace, number):
    check(config, *random_program(rng, config), PACES[pace])


@pytest.mark.parametrize("config", [CONFIGS[0], *FETCHING], ids=lambda config: config.name)
@pytest.mark.parametrize("pace", PACES)
def test_random_programs_with_loops_and_pauses_do_so_too(rng, config, pace):
    layers, steps = random_program(rng, config)
    for _ in range(3):
        steps.insert(rng.integers(len(steps) + 1), HOST)
    back = int(rng.integers(len(steps) // 2))
    steps = [*steps[: len(steps) // 2], loop(int(rng.integers(3)), back), *steps[len(steps) // 2 :]]
    back = int(rng.integers(len(steps) // 2 + 1, len(steps) + 1))
    steps = [*steps, loop(int(rng.integers(3)), back)]
    check(config, layers, steps, {"pause": lambda: int(rng.integers(0, 40)), **PACES[pace]})


def check(config, layers, steps, pace):
    """A program does at this pace what it means, in the right order."""
    around = Neighbours(config, image(config, layers, steps), **pace)
    around.finish()
    assert [value for _, value in around.of("command")] == commands(config, layers, steps)
    *numbers, _ = order(steps)
    pauses = [step_word(config, layers, number + 1) for number in numbers if steps[number]["opcode"] == Opcode.HOST]
    assert [value for _, value in around.of("paused")] == pauses
    steps = [steps[number] for number in numbers]
    fetches = [step for step in steps if step["opcode"] == Opcode.FETCH]
    expected_fetches = [(step["external"], step["in_address"], step["count"]) for step in fetches]
    assert [value for _, value in around.of("fetch")] == expected_fetches
    runs = [step for step in steps if step["opcode"] == Opcode.RUN]
    expected_rows = [(int(y == 0), layers[run["layer"] - 1]) for run in runs for y in range(run["rows"])]
    rows = [value for _, value in around.of("row")]
    assert [first for first, _ in rows] == [first for first, _ in expected_rows]
    widths = around.dut.descriptor.shape().members
    for (_, descriptor), (_, layer) in zip(rows, expected_rows):
        held = {name: value for name, value in layer.items() if name in widths}
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
    events, pauses = iter(around.of("command", "fetch")), iter(around.of("paused"))
    ends = [cycle for cycle, _ in around.of("fetched")]
    next(events)
    before = fetches = 0  # rows of the runs before, and fetches
    for step in steps:
        next(events)  # the step's own words
        if step["opcode"] == Opcode.LOOP:
            continue
        cycle, _ = next(pauses if step["opcode"] == Opcode.HOST else events)
        if step["opcode"] == Opcode.HOST:
            assert all(at < cycle for at in [*dones[:before], *written[:before], *ends[:fetches]])
            continue
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
    ends = [cycle for cycle, value in around.of("command") if value[0] == Target.ROWS and value[4]]
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
    rows = [value[1:5] for _, value in around.of("command") if value[0] == Target.ROWS]
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
    "store bytes": ({"store_bytes": 24}, [], Error.CONFIG),
    "opcode 4": ({}, [{"opcode": 4, "layer": 6}], Error.OPCODE),  # a fetch, for which there is no port
    "opcode 7": ({}, [{"opcode": 7, "layer": 2}], Error.OPCODE),  # a load of masks, for which there is no buffer
    "opcode 15": ({}, [{"opcode": 15, "wait": 1}], Error.OPCODE),
    "weights": ({}, [WEIGHTS | {"count": 0, "wait": 1, "layer": 7}], Error.EMPTY),
    "parameters": ({}, [PARAMETERS | {"count": 0, "layer": 0xFFF}], Error.EMPTY),
    "rows": ({}, [RUN | {"rows": 0}], Error.EMPTY),
    **{
        name: ({}, [RUN | {"layer": layer}], Error.EMPTY)
        for layer, name in enumerate(("groups", "width", "kernel_rows", "slot_words"), 2)
    },
}
"""Of an image: fields of its header, its first steps, and the error that it ends with."""
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


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[1], *WITH_MODES], ids=lambda config: config.name)
@pytest.mark.parametrize("mode, field", [(mode, field) for mode, fields in MODES.items() for field in fields])
def test_a_layer_that_asks_for_what_the_core_has_not_is_an_error(config, mode, field):
    """At its run; of the steps in front of it nothing is missing, and none of its rows is loaded."""
    around = Neighbours(config, image(config, [LAYER, LAYER | {field: 1}], [WEIGHTS, RUN, RUN | {"layer": 2, "rows": 1}]))
    around.run(500)
    good = bool(getattr(config, mode))
    assert around.end()[1:] == ((Error.NONE if good else Error.CONFIG), 2)
    expected = commands(config, [LAYER, LAYER], [WEIGHTS, RUN, RUN | {"layer": 2, "rows": 1}])
    found = [value for _, value in around.of("command")]
    assert found == (expected if good else expected[: len(found)])
    assert len(around.of("row")) == (5 if good else 4)
    assert len(around.of("clear")) == (0 if good else 1)
    assert (field in around.dut.descriptor.shape().members) == good


def test_a_layer_that_is_empty_too_is_empty():
    layer = LAYER | {"int4": 1, "groups": 0}
    around = Neighbours(CONFIGS[0], image(CONFIGS[0], [layer], [RUN]))
    around.run(100)
    assert around.end()[1] == Error.EMPTY


def test_after_such_a_layer_others_run():
    config, layers = CONFIGS[0], [LAYER | {"sparse": 1, "binary": 1}, LAYER]
    steps = [RUN | {"rows": 1}, RUN | {"layer": 2, "rows": 2}]
    around = Neighbours(config, image(config, layers, steps, warm=1), starts=[0, 100], warm=[100])
    around.run(500)
    assert [end for _, end in around.of("done")] == [(Error.CONFIG, 1), (Error.NONE, 2)]


def test_the_place_of_vectors_alone_asks_for_nothing():
    around = Neighbours(CONFIGS[0], image(CONFIGS[0], [LAYER | {"vector_base": 9}], [RUN]))
    around.run(300)
    assert around.end()[1] == Error.NONE


@pytest.mark.parametrize("config", WITH_MODES, ids=lambda config: config.name)
@pytest.mark.parametrize("count, code", [(8, Error.NONE), (0, Error.EMPTY)])
def test_masks_go_to_their_buffer(config, count, code):
    around = Neighbours(config, image(config, [], [MASKS | {"count": count, "destination": 255}]))
    around.run(200)
    masks = [value for _, value in around.of("command") if value[0] == Target.MASKS]
    assert masks == ([(Target.MASKS, 110, 255 * config.mask_bytes // config.store_bytes, 8)] if count else [])
    assert around.end()[1] == code


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[1], *CODED], ids=lambda config: config.name)
@pytest.mark.parametrize("codec", range(4))
def test_the_code_of_an_image_is_none_or_that_of_the_core(config, codec):
    around = Neighbours(config, image(config, LAYERS, [], {"codec": codec}))
    around.run(60)
    good = codec == 0 or CODECS[codec : codec + 1] == (config.codec,)
    assert around.end()[1] == (Error.NONE if good else Error.CONFIG)


@pytest.mark.parametrize("config", [CONFIGS[1], *CODED], ids=lambda config: config.name)
@pytest.mark.parametrize("own", [1, 2, 8])
def test_the_units_of_an_image_are_those_of_the_core(config, own):
    config = dataclasses.replace(config, codec_streams=own if config.codec != "off" else 1)
    for codec, streams in itertools.product((0, CODECS.index(config.codec)), (0, 1, 3, 7)):
        around = Neighbours(config, image(config, LAYERS, [], {"codec": codec, "codec_streams": streams}))
        around.run(60)
        good = 1 << streams == (config.codec_streams if codec else 1)
        assert around.end()[1] == (Error.NONE if good else Error.CONFIG)


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[1], *CODED], ids=lambda config: config.name)
@pytest.mark.parametrize("first", ["magic", "version"])
def test_what_is_wrong_in_front_of_the_code_comes_first(config, first):
    header, _, code = BAD[first]
    around = Neighbours(config, image(config, LAYERS, [], header | {"codec": 3}))
    around.run(60)
    assert around.end()[1] == code


@pytest.mark.parametrize("config", CODED, ids=lambda config: config.name)
@pytest.mark.parametrize("lead_rows", [0, 1, 2])
def test_even_and_odd_rows_are_what_the_descriptor_says(config, lead_rows):
    """The first that exists is an even one, wherever it comes."""
    layer = LAYER | {"in_coded": 1, "in_signed": 0, "in_coded_odd": 0, "in_signed_odd": 1}
    around = Neighbours(config, image(config, [layer], [RUN | {"lead_rows": lead_rows}] * 2))
    around.run(400)
    kinds = [value[5:] for _, value in around.of("command") if value[0] == Target.ROWS and not value[3]]
    assert kinds == ([(1, 0), (0, 1)] * 4)[:7] * 2


def test_a_core_without_a_code_keeps_no_fields_of_it():
    """Nor does it hand them on."""
    layer = LAYER | dict.fromkeys(KINDS, 1)
    around = Neighbours(CONFIGS[0], image(CONFIGS[0], [layer], [RUN]))
    around.run(300)
    fields = {"out_coded", "out_signed", "pixel_step", "turn", "turn_step", *KINDS}
    assert not fields & set(descriptor_layout(CONFIGS[0]).members)
    assert {value[5:] for _, value in around.of("command") if value[0] == Target.ROWS} == {(0, 0), (None, None)}


@pytest.mark.parametrize(
    "names, code",
    [
        (("loader",), Error.READ), (("writer",), Error.WRITE), (("loader", "writer"), Error.WRITE),
        (("fetcher",), Error.WRITE), (("loader", "fetcher"), Error.WRITE),
        (("slot",), Error.SLOT), (("slot", "loader", "fetcher"), Error.SLOT),
        (("code",), Error.CODE), (("slot", "code"), Error.SLOT),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cycle", [1, 2, 5, 8, 11, 13, 20, 31, 36, 38, 44, 60, 90])
def test_an_access_out_of_bounds_stops_it_whatever_it_does(names, code, cycle):
    config = CONFIGS[0]
    steps = [WEIGHTS, RUN, PARAMETERS]
    around = Neighbours(config, image(config, [LAYER], steps), faults={cycle: names}, starts=[0, cycle + 10])
    around.run(cycle + 13)
    seen = cycle + (code == Error.CODE)  # that a code is wrong is seen a cycle later
    assert [at for at, _ in around.of("clear")] == [seen + 1]
    assert around.of("done")[0] == (seen + 2, (code, around.of("done")[0][1][1]))
    assert not [at for at, _ in around.of("command", "row", "start") if seen + 1 < at < cycle + 11]


@pytest.mark.parametrize(
    "cycle, name, layer",
    [
        *[(3, "loader", 0), (12, "loader", 3), (50, "loader", 1), (70, "loader", 5)],
        *[(150, "writer", 1), (200, "writer", 1), (370, "writer", 2)],
        *[(50, "code", 1), (150, "slot", 1), (200, "slot", 1), (370, "slot", 2)],
    ],
)
def test_the_layer_of_an_error_is_that_of_the_step_that_failed(cycle, name, layer):
    """Also if the steps behind it have been fetched, down to the end."""
    config = CONFIGS[0]
    steps = [WEIGHTS | {"layer": 3}, RUN | {"rows": 2}, WEIGHTS | {"layer": 5}, RUN | {"layer": 2, "rows": 2}]
    code = {"loader": Error.READ, "writer": Error.WRITE, "slot": Error.SLOT, "code": Error.CODE}[name]
    around = Neighbours(config, image(config, [LAYER] * 2, steps), faults={cycle: (name,)}, **PACES["slow array"])
    around.run(500)
    assert around.end() == (cycle + 2 + (code == Error.CODE), code, layer)


def test_errors_count_only_while_a_program_runs():
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [], []), faults={2: ("loader",), 30: ("writer",)}, starts=[5])
    around.run(50)
    assert around.end() == (5 + 11, Error.NONE, 0)
    assert not around.of("clear")


@pytest.mark.parametrize(
    "pace, cycle",
    [("fast", 3), ("fast", 20), ("fast", 45), ("fast", 60), ("fast", 75), ("slow array", 90), ("slow array", 110)],
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


@pytest.mark.parametrize("bit", [9, 15, 19])
def test_an_address_behind_the_store_stays_behind_it(bit):
    """However far: the addresses that go out have one bit more than the store needs."""
    config = Config("words256", lanes=8, store_words=256)
    steps = [WEIGHTS | {"in_address": 1 << bit}, RUN | {"in_address": 1 << bit | 3, "out_address": 1 << bit + 3 | 5}]
    around = Neighbours(config, image(config, [LAYER], steps))
    around.run(300)
    loads = {value[1] for _, value in around.of("command") if value[0] in (Target.WEIGHTS, Target.ROWS)} - {None}
    assert min(loads) >= 256
    ((_, (out_address, _)),) = around.of("start")
    assert out_address == 8 * 256 + 5
    around = Neighbours(config, image(config, [], [], {"steps": 1 << bit}))
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


@pytest.mark.parametrize("bit", [9, 15, 19])
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
        around = Neighbours(config, image(config, [], [], header).ljust(2048, b"\xff"), starts=[0], warm=[0])
        around.run(40)
        assert around.end()[:2] == (1 + busy + (code == Error.OPCODE), code)


@pytest.mark.parametrize("bit", [8, 15, 19])
def test_a_warm_start_behind_the_store_stays_behind_it(bit):
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [], [], {"warm_steps": 1 << bit}), warm=[0])
    around.run(20)
    assert around.of("command")[1][1] == (Target.STEP, 256)


# Rows that wrap


def rows_of(around):
    """The store words of the real rows; None for a blank one."""
    return [value[1] for _, value in around.of("command") if value[0] == Target.ROWS]


FIVE = {"kernel_rows": 1, "stride_rows": 1, "ring_words": 6, "row_step": 2, "row_step_odd": 3}
"""A layer that reads one row for each output row, every second 2 words behind the one before, and the others 3."""


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[1]], ids=["8 bytes", "16 bytes"])
@pytest.mark.parametrize(
    "wrap, words",
    [
        ({}, [64, 66, 69, 71, 74]),
        ({"wrap_address": 90}, [64, 66, 69, 71, 74]),
        ({"wrap_rows": 1, "wrap_address": 90}, [64, 90, 93, 95, 98]),
        ({"wrap_rows": 2, "wrap_address": 60}, [64, 66, 60, 62, 65]),
        ({"wrap_rows": 4, "wrap_address": 64}, [64, 66, 69, 71, 64]),
        ({"wrap_rows": 5, "wrap_address": 1}, [64, 66, 69, 71, 74]),
        ({"wrap_rows": 2, "wrap_address": 60, "lead_rows": 1, "rows": 6}, [None, 64, 66, 60, 62, 65]),
        ({"wrap_rows": 1, "wrap_address": 60, "lead_rows": 2, "in_rows": 2}, [None, None, 64, 60, None]),
        ({"wrap_rows": 1, "wrap_address": 254, "rows": 2}, [64, 254]),
    ],
)
def test_the_row_behind_wrap_rows_others_is_at_wrap_address(config, wrap, words):
    run = RUN | {"rows": 5, "in_rows": 5, "in_address": 64, "lead_rows": 0} | wrap
    around = Neighbours(config, image(config, [LAYER | FIVE], [run]))
    around.finish()
    assert rows_of(around) == words


@pytest.mark.parametrize("wrap_rows", [0, 2, 255])
def test_rows_wrap_once(wrap_rows):
    """Not again when the counter of eight bits would come round."""
    config = CONFIGS[2]
    layer = LAYER | FIVE | {"row_step": 1, "row_step_odd": 1}
    run = RUN | {"rows": 262, "in_rows": 262, "in_address": 100, "lead_rows": 0, "wrap_rows": wrap_rows, "wrap_address": 3}
    around = Neighbours(config, image(config, [layer], [run]), compute=lambda: 1)
    around.finish()
    first = wrap_rows or 262
    assert rows_of(around) == [*range(100, 100 + first), *range(3, 3 + 262 - first)]


@pytest.mark.parametrize("bit", [8, 15, 19])
def test_a_wrap_behind_the_store_stays_behind_it(bit):
    config = CONFIGS[0]
    run = RUN | {"in_address": 64, "lead_rows": 0, "wrap_rows": 1, "wrap_address": 1 << bit | 3}
    around = Neighbours(config, image(config, [LAYER], [run]))
    around.run(100)
    assert rows_of(around)[:2] == [64, 256 + 3]


# Loops. As with fetches the first step is acted on in cycle 10, or 8.


@pytest.mark.parametrize("config, dispatch", [(CONFIGS[0], 10), (CONFIGS[1], 8)], ids=["8 bytes", "16 bytes"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 254, 255])
def test_a_loop_goes_back_as_often_as_it_says_at_once(config, dispatch, count):
    around = Neighbours(config, image(config, [], [loop(count)]))
    around.finish()
    assert [value for _, value in around.of("command")] == commands(config, [], [loop(count)])
    turn = dispatch // 2
    assert [cycle for cycle, _ in around.of("command")] == [1 + turn * n for n in range(count + 3)]
    assert around.end() == (1 + turn * (count + 3), Error.NONE, 0)


@pytest.mark.parametrize("counts", [(0, 0), (2, 1), (1, 0), (0, 3), (5, 5)])
def test_loops_one_behind_the_other_count_apart(counts):
    first, second = counts
    steps = [WEIGHTS, loop(first), PARAMETERS, WEIGHTS, loop(second, 2), loop(1, 5), RUN | {"rows": 1}]
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [LAYER], steps))
    around.finish()
    targets = [value[0] for _, value in around.of("command") if value[0] in (Target.WEIGHTS, Target.PARAMETERS)]
    assert targets == [Target.WEIGHTS] * (first + 1) + [Target.PARAMETERS, Target.WEIGHTS] * (second + 1)
    assert [value for _, value in around.of("command")] == commands(config, [LAYER], steps)


def test_a_loop_of_runs_with_a_warm_start():
    config = CONFIGS[0]
    steps = [WEIGHTS, RUN | {"rows": 1}, loop(2, 1)]
    around = Neighbours(config, image(config, [LAYER], steps, warm=1), warm=[0])
    around.finish()
    assert [value for _, value in around.of("command")] == commands(config, [LAYER], steps, 1)


def test_a_loop_goes_back_while_the_run_in_front_still_works():
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [LAYER], [WEIGHTS, RUN | {"rows": 1}, loop(1)]), **PACES["slow array"])
    around.finish()
    loads = [cycle for cycle, value in around.of("command") if value[0] == Target.WEIGHTS]
    assert loads[1] < around.of("row done")[0][0]


@pytest.mark.parametrize("fault", ["loader", "writer", "reset", "start"])
def test_a_loop_that_is_left_begins_anew(fault):
    """By an error, by a reset, or by a start in a pause."""
    config = CONFIGS[0]
    steps = [WEIGHTS, *([HOST] if fault == "start" else []), loop(4)]
    store = image(config, [LAYER], steps)
    pause = itertools.cycle([0, 0, 500]) if fault == "start" else itertools.repeat(0)
    around = Neighbours(
        config, store, starts=[0, 100], pause=lambda: next(pause),
        faults={60: (fault,)} if fault in ("loader", "writer") else (),
    )  # fmt: skip
    resets = {60: lambda: around._reset(61)} if fault == "reset" else {}
    around.bench.run(cycles=300, resets=resets)
    clean = Neighbours(config, store, pause=lambda: 0)
    clean.run(190)
    at = 100
    found = [(cycle - at, value) for cycle, value in around.of("command") if at < cycle < at + 40]
    assert len([cycle for cycle, _ in around.of("command") if 1 < cycle < 60]) >= 6
    assert found == [(cycle, value) for cycle, value in clean.of("command") if cycle < 40]
    if fault != "start":
        assert [value for cycle, value in around.of("command") if cycle > at] == commands(config, [LAYER], steps)


def test_a_loop_to_what_is_no_step_stops_at_it():
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [LAYER | {"double_rounding": 1}], [WEIGHTS, loop(1, -4)]))
    around.run(120)
    assert around.of("command")[-1][1] == (Target.STEP, HEADER_BYTES // config.store_bytes)  # the descriptor
    assert around.end()[1] == Error.OPCODE


@pytest.mark.parametrize("bit", [8, 15, 19])
def test_a_loop_behind_the_store_stays_behind_it(bit):
    config = CONFIGS[0]
    store = bytearray(image(config, [], [loop(1)]))
    store[HEADER_BYTES : HEADER_BYTES + STEP_BYTES] = encode(LAYOUTS[Opcode.LOOP], loop(1, 1 << bit | 5), STEP_BYTES)
    around = Neighbours(config, bytes(store))
    around.run(15)
    assert around.of("command")[2] == (11, (Target.STEP, 256 + 5))


# Host steps


@pytest.mark.parametrize("config, dispatch", [(CONFIGS[0], 10), (CONFIGS[1], 8)], ids=["8 bytes", "16 bytes"])
@pytest.mark.parametrize("pause", [0, 1, 30])
def test_a_host_step_pauses_until_the_resume(config, dispatch, pause):
    around = Neighbours(config, image(config, [], [HOST, HOST]), pause=lambda: pause)
    around.finish()
    step = dispatch // 2
    first = dispatch + 1
    second = first + pause + step + 1
    words = [step_word(config, [], number) for number in (1, 2)]
    assert around.of("paused") == [(first, words[0]), (second, words[1])]
    assert [cycle for cycle, _ in around.of("command")] == [1, 1 + step, first + pause + 1, second + pause + 1]
    assert around.end() == (second + pause + 1 + step, Error.NONE, 0)


def test_a_host_step_waits_for_the_run():
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [LAYER], [RUN, HOST]), **PACES["slow array"])
    around.finish()
    ((paused, _),) = around.of("paused")
    assert paused == max(cycle for cycle, _ in around.of("written")) + 1


def test_a_host_step_waits_for_all_fetches():
    config = FETCHING[0]
    around = Neighbours(config, image(config, [LAYER], [FETCH, FETCH, HOST]))
    around.finish()
    ((paused, _),) = around.of("paused")
    assert paused == max(cycle for cycle, _ in around.of("fetched")) + 1


def test_a_pause_does_nothing_and_finds_no_errors():
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [LAYER], [HOST, WEIGHTS]), pause=lambda: 50, faults={30: ("loader", "writer")})
    around.finish()
    assert not [cycle for cycle, _ in around.of("command", "clear") if 11 <= cycle <= 61]
    assert around.end()[1] == Error.NONE


@pytest.mark.parametrize("start", [11, 12, 40])
@pytest.mark.parametrize("warm", [0, 1])
def test_a_start_in_a_pause_begins_anew(start, warm):
    """Also in the cycle of the resume."""
    config = CONFIGS[0]
    steps = [HOST, WEIGHTS]
    pauses = itertools.chain([40 - 11], itertools.repeat(0))
    around = Neighbours(
        config, image(config, [LAYER], steps, warm=warm), starts=[0, start], warm=[start] * warm, pause=lambda: next(pauses)
    )
    around.finish()
    assert [value for cycle, value in around.of("command") if cycle > start] == commands(config, [LAYER], steps, warm)
    assert min(cycle for cycle, _ in around.of("command") if cycle > start) == start + 1
    assert len(around.of("paused")) == 2 - warm


def test_reset_ends_a_pause():
    config = CONFIGS[0]
    around = Neighbours(config, image(config, [], [HOST]), pause=lambda: 40)
    around.bench.run(cycles=100, resets={30: lambda: around._reset(31)})
    assert len(around.of("command")) == 2
    assert not around.of("done")
