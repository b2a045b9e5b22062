"""Runs the program."""

from contextlib import contextmanager

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, exact_log2

from gossamer.golden.spec import (
    CODECS,
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    EXTERNAL_WORDS,
    HEADER,
    MAGIC,
    MOST_TURNS,
    PARAMETER_BYTES,
    STEP_BYTES,
    STEP_FETCH,
    STEP_LOAD,
    STEP_RUN,
    VERSION,
    Config,
    Error,
    Field,
    Opcode,
)
from gossamer.hdl.fetcher import COUNT_BITS, fetch_layout
from gossamer.hdl.loader import Target, command_layout

__all__ = ["Sequencer", "descriptor_layout"]

ROW_KIND, ROW_KIND_ODD = (tuple(f"in_{what}{odd}" for what in ("coded", "signed", "rate")) for odd in ("", "_odd"))
"""Fields of the descriptor that say what even and odd input rows are."""

MODES = {"sparse", "in_nibbles", "out_nibbles", "in_bits", "out_bits", "binary", "int4"}
"""Fields of the descriptor that ask for what not every configuration has."""


def descriptor_layout(config: Config) -> data.StructLayout:
    """The fields of the layer descriptor that others need, each as wide as this configuration needs it."""
    row_bytes = bits_for(config.row_words * config.lanes - 1)
    row_words, granules = bits_for(config.row_words), bits_for(config.row_words * config.granules)
    address = bits_for(config.store_words - 1) + 1
    widths = {
        "groups": 8,
        "kernel_rows": 6,
        "stride_rows": 4,
        "out_x_step": 12,
        "last_lanes": bits_for(config.lanes << config.int4),
        "left_granules": 8,
        "right_granule": granules,
        "slot_words": row_words,
        "ring_words": exact_log2(config.row_words),
        "advance_words": exact_log2(config.row_words),
        "offset": row_bytes,
        "width": 10,
        "x_step": row_bytes,
        "range_last": row_bytes,
        "tap_step": bits_for(config.row_words - 1),
        "weight_base": bits_for(config.weight_vectors - 1),
        "parameter_base": bits_for(config.parameters - 1),
        "vector_base": bits_for(config.weight_vectors - 1),
        "out_row_step": address + exact_log2(config.store_bytes),
        "turn": min(granules, DESCRIPTOR["turn"].width),
        "turn_step": signed(min(granules, DESCRIPTOR["turn_step"].width)),
    }
    elsewhere = {"add_multiplier", "add_shift", "row_step", "row_step_odd", *ROW_KIND, *ROW_KIND_ODD}
    if config.codec == "off":
        elsewhere |= {"out_coded", "out_signed", "pixel_step", "turn", "turn_step"}
    if config.codec != "budgeted":
        elsewhere |= {"out_rate"}
    for there, names in (
        (config.masks, {"sparse", "vector_base"}),
        (config.nibbles, {"in_nibbles", "out_nibbles"}),
        (config.binary, {"in_bits", "out_bits", "binary"}),
        (config.int4, {"int4"}),
    ):
        elsewhere |= set() if there else names
    return data.StructLayout({name: widths.get(name, DESCRIPTOR[name].width) for name in DESCRIPTOR if name not in elsewhere})


class Sequencer(wiring.Component):
    """Fetches steps, has their words loaded, and paces loading and computing.

    Executes the program that :class:`gossamer.golden.interpreter.Machine` defines. Row loading runs ahead of computing by
    at most one output row, if the descriptor says ``ahead``; a ``RUN`` step waits until everything before it has been
    written; a load step waits only if told to. A fetch is handed on when the loader has nothing to do, and goes on by itself.

    ``start`` begins at store word 0, with the steps of a warm start if ``warm`` is high then. ``done`` rises when the program
    has ended or failed and stays until the next start. On a failure ``clear`` is high for one cycle, in which all other
    components must be reset.

    A ``HOST`` step waits as the end does; then ``busy`` falls and ``paused`` rises, until ``resume``, with which the next step
    follows, or ``start``. A ``LOOP`` step takes no other time than the fetch of its words.

    Parameters
    ----------
    config : Config

    Members
    -------
    start, warm : ``In(1)``
        ``start`` is ignored while ``busy``.
    resume : ``In(1)``
        Ignored unless ``paused``.
    busy, done, paused, clear : ``Out(1)``
    step_address : ``Out``
        The store word behind the step that was asked for last.
    error : ``Out(4)``
        One of :class:`gossamer.golden.spec.Error`.
    layer : ``Out(12)``
        Layer table entry of the last ``RUN`` step that has begun; after an error, of the step that failed.
    command, count : ``Out(stream.Signature(command_layout(...)))``, ``Out``
        To the loader.
    fetch : ``Out(stream.Signature(fetch_layout(...)))``
        To the fetcher.
    fetch_idle, fetch_error : ``In(1)``
    weights : ``Out({start: 1, format: 2, shared: 1, destination})``
        To the weight decoder, if there is one; ``start`` with the command of a load.
    control : ``In({en: 1, index: 4, data, rows_end: 1})``
        From the loader: ``en`` with the words of headers, steps and descriptors; ``rows_end`` when the last word of an
        output row's input rows has been written.
    rows : ``Out(stream.Signature({first: 1}))``
        To the window generator.
    row_done : ``In(1)``
        The last bytes of an output row's windows have been read.
    writer_start, writer_idle, writer_error, writer_overflow, loader_error, loader_left
    out_address, image_words
        To the writer.
    descriptor : ``Out(descriptor_layout(config))``
    add_scale : ``Out({en: 1, multiplier: 30, shift: 6})``
        ``en`` for one cycle in which ``multiplier`` and ``shift`` are the next layer's ``add_multiplier`` and ``add_shift``.
    """

    def __init__(self, config: Config):
        self._config = config
        store_words = config.store_words
        address = bits_for(store_words - 1) + 1
        weights = {"start": Out(1), "format": Out(2), "shared": Out(1), "destination": Out(range(config.weight_vectors))}
        super().__init__(
            {
                "start": In(1),
                "warm": In(1),
                "resume": In(1),
                "fetch": Out(stream.Signature(fetch_layout(store_words=store_words))),
                "fetch_idle": In(1),
                "fetch_error": In(1),
                "busy": Out(1),
                "done": Out(1),
                "paused": Out(1),
                "step_address": Out(address),
                "clear": Out(1),
                "error": Out(4),
                "layer": Out(12),
                "command": Out(stream.Signature(command_layout(store_words=store_words, count=config.longest_load))),
                "control": In(
                    wiring.Signature(
                        {"en": Out(1), "index": Out(3), "data": Out(8 * config.store_bytes), "rows_end": Out(1)}
                    )
                ),
                "rows": Out(stream.Signature(data.StructLayout({"first": 1}))),
                "row_done": In(1),
                "writer_start": Out(1),
                "writer_idle": In(1),
                "writer_error": In(1),
                "writer_overflow": In(1),
                "loader_error": In(1),
                "loader_left": In(1),
                "out_address": Out(address + exact_log2(config.store_bytes)),
                "count": Out(max(bits_for(config.longest_load), COUNT_BITS if config.fetch_interval else 11)),
                "image_words": Out(range(store_words)),
                "descriptor": Out(descriptor_layout(config)),
                **({} if config.decoder == "off" else {"weights": Out(wiring.Signature(weights))}),
                "add_scale": Out(wiring.Signature({"en": Out(1), "multiplier": Out(30), "shift": Out(6)})),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        store_bytes = config.store_bytes
        address_bits = bits_for(config.store_words - 1) + 1
        d = self.descriptor
        own_codec = CODECS.index(config.codec)
        own_streams = exact_log2(config.codec_streams)
        # With one stream, the image's streams above the bytes must be 0.
        own_bytes = HEADER["store_bytes"] if own_streams else Field(HEADER["store_bytes"].offset, 8)
        coded = own_codec != 0

        def beat(field: Field):
            return field.offset // (8 * store_bytes)

        def received(field: Field):
            """The field's bits in the beat that holds it."""
            offset = field.offset % (8 * store_bytes)
            return self.control.data[offset : offset + field.width]

        def capture(target, field: Field, *, address_like: bool = False, complement: bool = False):
            value = ~received(field) if complement else received(field)
            if address_like:  # a set bit above the address becomes the address' top bit
                value = Cat(value[: len(target) - 1], value[len(target) - 1 :].any())
            with m.If(self.control.index == beat(field)):
                m.d.sync += target.eq(value)

        # What others compare with by subtraction is kept as its complement, which spares them the inverters.
        not_image_words = Signal.like(self.image_words, reset_less=True)
        not_clamps = {name: Signal.like(d[name], name=f"not_{name}", reset_less=True) for name in ("clamp_min", "clamp_max")}
        m.d.comb += self.image_words.eq(~not_image_words)
        m.d.comb += [d[name].eq(~register) for name, register in not_clamps.items()]

        # What of the header is not as it must be. The store's words come late in their cycle, so they are judged in the next.
        faults = ("magic", "version", "lanes", "store_bytes", "codec")
        wrong = Signal(data.StructLayout(dict.fromkeys(faults, 1)), reset_less=True)

        # The step. Its numbers count down while it is executed, and its address goes on.
        opcode, wait, count = Signal(4, reset_less=True), Signal(reset_less=True), self.count
        fetched, warm = Signal(reset_less=True), Signal(reset_less=True)
        # The address in the external memory has the place of the output's in the step, and may be longer.
        external = STEP_FETCH["external"]
        low_bits = len(self.out_address) - 1
        high_bits = max(bits_for(EXTERNAL_WORDS - 1) - low_bits, 0)
        external_high = Signal(high_bits, reset_less=True) if high_bits else Const(0, 0)
        in_rows = Signal(max(11, bits_for(config.weight_vectors - 1)), reset_less=True)
        destination = in_rows  # of a load step
        entry = Signal.like(self.layer)  # of the layer table
        in_address, lead_rows = Signal(address_bits, reset_less=True), Signal(6, reset_less=True)
        at = STEP_RUN["lead_rows"].offset  # these bits of a load step are captured too
        weight_format = lead_rows[STEP_LOAD["format"].offset - at :][: STEP_LOAD["format"].width]
        unable_to_load = {"off": weight_format != 0, "nibbles": weight_format > 1, "palettes": Const(0)}[config.decoder]
        # Where the loads go, and their first words there.
        loads = {
            Opcode.LOAD_WEIGHTS: (Target.WEIGHTS, destination << exact_log2(config.granules)),
            Opcode.LOAD_PARAMETERS: (Target.PARAMETERS, destination >> exact_log2(store_bytes // PARAMETER_BYTES)),
        }
        if config.decoder == "palettes":
            loads[Opcode.LOAD_PALETTE] = (Target.PALETTE, 0)
        if config.masks:
            loads[Opcode.LOAD_MASKS] = (Target.MASKS, destination << exact_log2(config.mask_bytes // store_bytes))
        wrap_address, wrap_rows = Signal(address_bits, reset_less=True), Signal(8, reset_less=True)
        turns = Signal(range(MOST_TURNS + 1), reset_less=True)  # that the loop has made

        # Rows under way: `begun` have been begun to load and not been computed, `loaded` of them are complete.
        begun, loaded = Signal(2), Signal(2)
        first, begin = Signal(), Signal()
        m.d.sync += begun.eq(begun + begin - self.row_done)
        m.d.sync += loaded.eq(loaded + (self.control.rows_end) - (self.rows.valid & self.rows.ready))
        m.d.comb += [
            self.rows.valid.eq(loaded != 0),
            self.rows.p.first.eq(first),
            self.add_scale.multiplier.eq(received(DESCRIPTOR["add_multiplier"])),
            self.add_scale.shift.eq(received(DESCRIPTOR["add_shift"])),
            self.fetch.p.address.eq(Cat(self.out_address[:-1], external_high)),
            self.fetch.p.destination.eq(in_address),
            self.fetch.p.more.eq(count),
        ]
        with m.If(self.rows.valid & self.rows.ready):
            m.d.sync += first.eq(0)
        idle = (begun == 0) & self.writer_idle

        unable = Signal()  # the layer needs what this configuration has not

        # Loading an output row's input rows.
        need = Signal(6, reset_less=True)
        slot = Signal.like(d.ring_words, reset_less=True)
        # Of two rows the even one's step and the odd one's; they take turns.
        row_steps = [Signal(address_bits, name=name, reset_less=True) for name in ("row_step", "row_step_odd")]
        # What they are, likewise.
        kind_fields = [DESCRIPTOR[name] for name in (ROW_KIND if config.codec == "budgeted" else ROW_KIND[:2])]
        kind_bits = sum(field.width for field in kind_fields)
        row_kinds = [Signal(kind_bits, name=name, reset_less=True) for name in ("row_kind", "row_kind_odd")]
        blank = (lead_rows != 0) | (in_rows == 0)
        granule_bits = exact_log2(config.granules)

        command = self.command.p
        descriptor_address = self.layer * (DESCRIPTOR_BYTES // store_bytes)

        def fetch(target, address):
            m.d.comb += [self.command.valid.eq(1), command.target.eq(target), command.address.eq(address)]

        def fetch_step(address):
            fetch(Target.STEP, address)
            with m.If(self.command.ready):
                m.d.sync += self.step_address.eq(command.address + STEP_BYTES // store_bytes)
                m.next = "STEP WAIT"

        def capture_addresses(first: Field, second: Field):
            capture(in_address, first, address_like=True)
            capture(wrap_address, second, address_like=True)

        def fail(code):
            m.d.sync += [self.error.eq(code), self.layer.eq(entry)]
            m.next = "FAIL"

        def last_beat(size):
            return self.control.en & (self.control.index == size // store_bytes - 1)

        # Whatever it is doing, an access out of bounds stops it.
        failed = self.writer_error | self.writer_overflow
        left = Signal()  # it comes late in its cycle; the row's outputs are far behind
        m.d.sync += left.eq(self.loader_left & self.busy & ~self.clear)
        abort = self.busy & ~self.clear & (self.loader_error | left | failed | self.fetch_error)

        @contextmanager
        def state(name):
            with m.State(name):
                yield
                with m.If(abort):
                    access = Mux(self.writer_error | self.fetch_error, Error.WRITE, Error.READ)
                    fail(Mux(self.writer_overflow, Error.SLOT, Mux(left, Error.CODE, access)))
                    # Steps are fetched while the layer before still writes.
                    with m.If(failed):
                        m.d.sync += self.layer.eq(self.layer)

        count_down = Signal(4)
        with m.FSM() as machine:
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [self.busy.eq(1), self.done.eq(0), self.error.eq(0), self.layer.eq(0), entry.eq(0)]
                    m.d.sync += [self.paused.eq(0), turns.eq(0), warm.eq(self.warm)]
                    m.next = "HEADER"
                with m.Elif(self.resume & self.paused):
                    m.d.sync += [self.busy.eq(1), self.paused.eq(0)]
                    m.next = "STEP"
            with state("HEADER"):
                fetch(Target.STEP, descriptor_address)  # the header has the place of layer 0
                with m.If(self.command.ready):
                    m.next = "HEADER WAIT"
            with state("HEADER WAIT"):
                with m.If(self.control.en):
                    capture_addresses(HEADER["steps"], HEADER["warm_steps"])
                    capture(not_image_words, HEADER["image_words"], complement=True)
                    codec = received(HEADER["codec"])
                    bad_codec = (codec != 0) & (codec != own_codec)
                    if own_streams:  # they come with the word of the codec, or before
                        streams, first_streams = received(HEADER["codec_streams"]), Signal(2)
                        fits = Cat(streams == 0, streams == own_streams)
                        if beat(HEADER["codec"]):
                            with m.If(self.control.index == 0):
                                m.d.sync += first_streams.eq(fits)
                            fits = first_streams
                        bad_codec = Mux(codec == 0, ~fits[0], (codec != own_codec) | ~fits[1])
                    with m.If(self.control.index == beat(HEADER["codec"])):
                        m.d.sync += wrong.codec.eq(bad_codec)
                    with m.If(self.control.index == 0):
                        m.d.sync += [
                            wrong.magic.eq(received(HEADER["magic"]) != MAGIC),
                            wrong.version.eq(received(HEADER["version"]) != VERSION),
                            wrong.lanes.eq(received(HEADER["lanes"]) != config.lanes),
                            wrong.store_bytes.eq(received(own_bytes) != store_bytes),
                        ]
                with m.If(last_beat(STEP_BYTES)):
                    m.next = "CHECK"
            with state("CHECK"):
                with m.If(warm):
                    m.d.sync += in_address.eq(wrap_address)
                m.next = "JUMP"
                with m.If(wrong.magic):
                    fail(Error.MAGIC)
                with m.Elif(wrong.version):
                    fail(Error.VERSION)
                with m.Elif(wrong.as_value().any()):
                    fail(Error.CONFIG)
            with state("JUMP"):
                fetch_step(in_address)
            with state("STEP"):
                fetch_step(self.step_address)
            with state("STEP WAIT"):
                with m.If(self.control.en):
                    capture(opcode, STEP_RUN["opcode"])
                    capture(wait, STEP_LOAD["wait"])
                    capture(fetched, STEP_LOAD["fetched"])
                    capture(entry, STEP_RUN["layer"])
                    capture_addresses(STEP_RUN["in_address"], STEP_RUN["wrap_address"])
                    capture(self.out_address, STEP_RUN["out_address"], address_like=True)
                    if config.fetch_interval and high_bits:
                        capture(external_high, Field(external.offset + low_bits, high_bits))
                with m.If(last_beat(STEP_BYTES)):
                    m.next = "DISPATCH"
            with state("DISPATCH"):
                with m.Switch(opcode):
                    with m.Case(Opcode.END):
                        with m.If(idle & self.fetch_idle):
                            m.d.sync += [self.busy.eq(0), self.done.eq(1)]
                            m.next = "IDLE"
                    with m.Case(Opcode.HOST):
                        with m.If(idle & self.fetch_idle):
                            m.d.sync += [self.busy.eq(0), self.paused.eq(1)]
                            m.next = "IDLE"
                    with m.Case(Opcode.LOOP):
                        with m.If(turns == count[: len(turns)]):
                            m.d.sync += turns.eq(0)
                            m.next = "STEP"
                        with m.Else():
                            m.d.sync += turns.eq(turns + 1)
                            m.next = "JUMP"
                    with m.Case(*loads):
                        with m.If(count == 0):
                            fail(Error.EMPTY)
                        with m.Elif(unable_to_load & (opcode == Opcode.LOAD_WEIGHTS)):
                            fail(Error.CONFIG)
                        with m.Elif((idle | ~wait) & (self.fetch_idle | ~fetched)):
                            m.next = "LOAD"
                    with m.Case(Opcode.RUN):
                        with m.If(idle):
                            m.d.sync += self.layer.eq(entry)
                            m.next = "DESCRIPTOR"
                    if config.fetch_interval:
                        with m.Case(Opcode.FETCH):
                            with m.If(count == 0):
                                fail(Error.EMPTY)
                            with m.Elif(idle | ~wait):
                                m.d.comb += count_down[3].eq(1)  # to the words behind the first
                                m.next = "FETCH"
                    with m.Default():
                        fail(Error.OPCODE)
            with state("LOAD"):
                m.d.comb += [self.command.valid.eq(1), command.address.eq(in_address)]
                if config.decoder != "off":
                    m.d.comb += [
                        self.weights.start.eq(self.command.ready),
                        self.weights.format.eq(weight_format),
                        self.weights.shared.eq(lead_rows[STEP_LOAD["shared"].offset - at]),
                        self.weights.destination.eq(destination),
                    ]
                with m.Switch(opcode):
                    for load, (target, index) in loads.items():
                        with m.Case(load):
                            m.d.comb += [command.target.eq(target), command.index.eq(index)]
                with m.If(self.command.ready):
                    m.next = "STEP"
            if config.fetch_interval:
                with state("FETCH"):
                    m.d.comb += self.fetch.valid.eq(self.command.ready)
                    with m.If(self.command.ready & self.fetch.ready):
                        m.next = "STEP"
            with state("DESCRIPTOR"):
                m.d.sync += unable.eq(0)
                fetch(Target.DESCRIPTOR, descriptor_address)
                with m.If(self.command.ready):
                    m.next = "DESCRIPTOR WAIT"
            with state("DESCRIPTOR WAIT"):
                with m.If(self.control.en):
                    for name in d.shape().members:
                        capture(not_clamps.get(name, d[name]), DESCRIPTOR[name], complement=name in not_clamps)
                    for row_step in row_steps:
                        capture(row_step, DESCRIPTOR[row_step.name])
                    for row_kind, names in zip(row_kinds, (ROW_KIND, ROW_KIND_ODD)) if coded else ():
                        at = 0
                        for name in names[: len(kind_fields)]:
                            capture(row_kind[at : at + DESCRIPTOR[name].width], DESCRIPTOR[name])
                            at += DESCRIPTOR[name].width
                    for name in sorted(MODES - set(d.shape().members)):
                        field = DESCRIPTOR[name]
                        with m.If((self.control.index == beat(field)) & received(field).any()):
                            m.d.sync += unable.eq(1)
                    m.d.comb += self.add_scale.en.eq(self.control.index == beat(DESCRIPTOR["add_multiplier"]))
                with m.If(last_beat(DESCRIPTOR_BYTES)):
                    m.next = "RUN"
            with state("RUN"):
                m.d.comb += self.writer_start.eq(1)
                m.d.sync += [need.eq(d.kernel_rows), slot.eq(0), first.eq(1)]
                m.next = "ROW WAIT"
                with m.If(unable):
                    fail(Error.CONFIG)
                with m.If((count == 0) | (d.groups == 0) | (d.width == 0) | (d.kernel_rows == 0) | (d.slot_words == 0)):
                    fail(Error.EMPTY)
            with state("ROW WAIT"):
                with m.If(begun <= d.ahead):
                    m.d.comb += begin.eq(1)
                    m.next = "ROW LOAD"
            with state("ROW LOAD"):
                m.d.comb += [
                    self.command.valid.eq(1),
                    command.target.eq(Target.ROWS),
                    command.address.eq(in_address),
                    command.index.eq(slot << granule_bits),
                    command.blank.eq(blank),
                    Cat(command.coded, command.signed, command.rate).eq(row_kinds[0]),
                    command.group_end.eq(need == 1),
                ]
                with m.If(self.command.ready):
                    next_slot = (slot + d.slot_words)[: len(slot)]
                    m.d.sync += [need.eq(need - 1), slot.eq(Mux(next_slot == d.ring_words, 0, next_slot))]
                    with m.If(lead_rows != 0):
                        m.d.comb += count_down[0].eq(1)
                    with m.Elif(in_rows != 0):
                        m.d.comb += [count_down[1].eq(1), count_down[2].eq(wrap_rows != 0)]
                        m.d.sync += [in_address.eq(in_address + row_steps[0]), Cat(row_steps).eq(Cat(reversed(row_steps)))]
                        if coded:
                            m.d.sync += Cat(row_kinds).eq(Cat(reversed(row_kinds)))
                        with m.If(wrap_rows == 1):
                            m.d.sync += in_address.eq(wrap_address)
                    with m.If(need == 1):
                        m.d.comb += count_down[3].eq(1)
                        m.d.sync += need.eq(d.stride_rows)
                        m.next = "ROW WAIT"
                        with m.If(count == 1):
                            m.next = "STEP"
            with m.State("FAIL"):
                m.d.comb += self.clear.eq(1)
                m.d.sync += [self.busy.eq(0), self.done.eq(1)]
                m.d.sync += [begun.eq(0), loaded.eq(0)]
                m.next = "IDLE"

        # The step's counters: added is either -1 or, when what the sum is does not matter, 0. So each bit is one logic cell.
        capturing = machine.ongoing("STEP WAIT")
        for counter, name, down in zip(
            (lead_rows, in_rows, wrap_rows, count), ("lead_rows", "in_rows", "wrap_rows", "rows"), count_down
        ):
            captured = self.control.en & (self.control.index == beat(STEP_RUN[name]))
            with m.If(Mux(capturing, captured, down)):
                m.d.sync += counter.eq(
                    Mux(capturing, received(STEP_RUN[name]), counter + (~capturing).replicate(len(counter)))
                )
        return m
