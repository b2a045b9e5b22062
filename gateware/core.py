"""The core: all components, a bus port and an interrupt."""

from amaranth.hdl import Cat, Const, EnableInserter, Module, Mux, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect
from amaranth.utils import bits_for, exact_log2

from gossamer.gateware.wishbone import wishbone_signature
from gossamer.golden.spec import PARAMETER, REGISTERS, STORE_WINDOW, VERSION, Config
from gossamer.hdl.fetcher import Fetcher, memory_signature
from gossamer.hdl.loader import Loader, Target
from gossamer.hdl.mac_array import MacArray
from gossamer.hdl.operand_fetch import OperandFetch
from gossamer.hdl.packer import Packer
from gossamer.hdl.parameter_buffer import ParameterBuffer
from gossamer.hdl.requantizer import Requantizer
from gossamer.hdl.row_buffer import RowBuffer
from gossamer.hdl.sequencer import Sequencer
from gossamer.hdl.store import Store
from gossamer.hdl.weight_buffer import WeightBuffer
from gossamer.hdl.weight_decoder import WeightDecoder
from gossamer.hdl.window_generator import WindowGenerator
from gossamer.hdl.writer import Writer
from gossamer.hdl.zero_skipper import ZeroSkipper

__all__ = ["Core"]


class Core(wiring.Component):
    """A neural-network inference core.

    The host writes a program image to the start of the store and the input where the image says, sets
    ``control.start``, waits for the interrupt or ``status.done``, and reads the output. With ``status.paused`` in place of
    ``status.done`` the program has come to a host step: the host does it, and sets ``control.resume``. What a program does is
    defined by :class:`gossamer.golden.interpreter.Machine`; how many cycles it takes by :mod:`gossamer.golden.cycles`.

    The answer to a bus access comes in the cycle behind the request, from registers. Accesses to the store while the core is
    busy, and accesses outside registers and store, end with ``err`` instead of ``ack`` and have no effect. Writes honour
    ``sel``. On the classic bus an access takes these two cycles. The pipelined bus takes a request in every cycle, but for a
    read behind a write to the store, which waits a cycle: ``stall`` depends combinationally on ``we``. If ``cyc`` falls, an
    answer that is due comes in the cycle in which it does.

    Parameters
    ----------
    config : Config
    pipelined : bool
        The bus is pipelined.

    Members
    -------
    bus : ``In(wishbone_signature(pipelined=pipelined))``
        See :data:`gossamer.golden.spec.REGISTERS` for the map.
    irq : ``Out(1)``
        High while ``status.done`` or ``status.paused``, and ``control.interrupt_enable`` are set.
    busy, failed : ``Out(1)``
        A program runs, and does not wait for the host; the last one ended with an error.
    memory : ``Out(memory_signature(...))``
        To the external memory, if the configuration has ``fetch_interval``. A reset of the core alone, in the middle of a
        request, leaves the memory with words that nobody takes.
    """

    def __init__(self, config: Config, *, pipelined: bool = False):
        self._config = config
        self._pipelined = pipelined
        members = {"bus": In(wishbone_signature(pipelined=pipelined)), "irq": Out(1), "busy": Out(1), "failed": Out(1)}
        if config.fetch_interval:
            members["memory"] = Out(memory_signature(store_bytes=config.store_bytes))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        config = self._config
        sizes = {"lanes": config.lanes, "words": config.row_words, "vectors": config.weight_vectors}
        store_size = {"store_bytes": config.store_bytes, "store_words": config.store_words}
        masked = config.masks > 0
        # Only the block RAMs of an iCE40 have masks of their own.
        byte_writes = config.codec != "off" and config.technology == "ice40" and config.codec_streams == 1

        m.submodules.store = store = Store(**store_size, ports=config.store_ports, technology=config.technology)
        m.submodules.sequencer = sequencer = Sequencer(config)
        datapath = {
            "loader": (
                loader := Loader(
                    lanes=config.lanes,
                    **store_size,
                    count=config.longest_load,
                    codec=config.codec,
                    byte_writes=byte_writes,
                    nibbles=config.nibbles,
                    bits=config.binary,
                    streams=config.codec_streams,
                )
            ),
            "windows": (windows := WindowGenerator(**sizes, masked=masked)),
            "row_buffer": (
                row_buffer := RowBuffer(
                    **sizes, granule=config.store_bytes, byte_writes=byte_writes, masks=config.masks, bits=config.binary
                )
            ),
            "skipper": (skipper := ZeroSkipper(**sizes, masked=masked)),
            "weight_buffer": (
                weight_buffer := WeightBuffer(
                    lanes=config.lanes,
                    granule=config.store_bytes,
                    vectors=config.weight_vectors,
                    paired=config.decoder != "off",
                )
            ),
            "fetch": (fetch := OperandFetch(**sizes)),
            "array": (
                array := MacArray(
                    lanes=config.lanes,
                    acc_bits=config.acc_bits,
                    technology=config.technology,
                    lut_lanes=config.lut_lanes,
                    bits=config.binary,
                    int4=config.int4,
                )
            ),
            "parameter_buffer": (
                parameter_buffer := ParameterBuffer(
                    lanes=config.lanes,
                    acc_bits=config.acc_bits,
                    entries=config.parameters,
                    granule=config.store_bytes,
                    int4=config.int4,
                )
            ),
            "requantizer": (requantizer := Requantizer(technology=config.technology, interval=config.interval)),
            "packer": (packer := Packer(nibbles=config.nibbles, bits=config.binary)),
            "writer": (
                writer := Writer(
                    lanes=config.lanes,
                    **store_size,
                    codec=config.codec,
                    streams=config.codec_streams,
                    nibbles=config.nibbles,
                    bits=config.binary,
                    int4=config.int4,
                )
            ),
        }
        if masked:
            datapath["mask_buffer"] = mask_buffer = WeightBuffer(
                lanes=config.mask_bytes, granule=config.store_bytes, vectors=config.masks
            )
        if config.decoder != "off":
            datapath["weight_decoder"] = weight_decoder = WeightDecoder(
                lanes=config.lanes,
                granule=config.store_bytes,
                vectors=config.weight_vectors,
                palettes=config.decoder == "palettes",
            )
        # While the array waits for the drain, all in front of it stands still: so the order of events there does not depend
        # on the drain, and its time can be counted in steps of the array.
        step = Signal()
        for name, part in datapath.items():
            if part is skipper:
                part = EnableInserter(step)(part)
            m.submodules[name] = ResetInserter(sequencer.clear)(part)

        # Activations: loader, row buffer, skipper, array, requantizer, writer.
        connect(m, sequencer.command, loader.i)
        connect(m, windows.o, row_buffer.i)
        connect(m, row_buffer.o, skipper.i)
        connect(m, skipper.o, fetch.i)
        connect(m, fetch.rows, row_buffer.read)
        connect(m, fetch.weights, weight_buffer.read)
        connect(m, fetch.o, array.i)
        connect(m, array.o, parameter_buffer.i)
        connect(m, requantizer.o, packer.i)
        # Partial sums go past the requantizer.
        past, scaling = sequencer.descriptor.partial_out, parameter_buffer.o
        entry = Cat(scaling.p.multiplier[: PARAMETER["multiplier"].width], scaling.p.shift, scaling.p.acc)
        m.d.comb += [
            requantizer.i.p.eq(scaling.p),
            requantizer.i.valid.eq(scaling.valid & ~past),
            scaling.ready.eq(requantizer.i.ready | past),
            packer.o.ready.eq(writer.i.ready),
            writer.i.p.data.eq(packer.o.p.data),
            writer.i.p.last.eq(Mux(past, scaling.p.last, packer.o.p.last)),
            writer.i.p.tag.eq(Mux(past, scaling.p.tag, packer.o.p.tag)),
            writer.i.valid.eq(Mux(past, scaling.valid, packer.o.valid)),
            writer.entry.eq(entry),
        ]

        sinks = {
            Target.ROWS: row_buffer.write,
            **({Target.WEIGHTS: weight_buffer.write} if config.decoder == "off" else {}),
            Target.PARAMETERS: parameter_buffer.write,
        }
        if masked:
            sinks[Target.MASKS] = mask_buffer.write
            m.d.comb += [
                mask_buffer.read.en.eq(row_buffer.stored.en),
                mask_buffer.read.address.eq(row_buffer.stored.address),
                row_buffer.stored.data.eq(mask_buffer.read.data),
            ]
        if config.decoder != "off":
            loaded, to_palette = loader.write, loader.write.target == Target.PALETTE
            connect(m, weight_decoder.o, weight_buffer.write)
            m.d.comb += [
                weight_decoder.i.en.eq(loaded.en & ((loaded.target == Target.WEIGHTS) | to_palette)),
                weight_decoder.i.palette.eq(to_palette),
                weight_decoder.i.index.eq(loaded.index),
                weight_decoder.i.data.eq(loaded.data),
                *(
                    getattr(weight_decoder, name).eq(getattr(sequencer.weights, name))
                    for name in ("start", "format", "shared", "destination")
                ),
            ]
        for target, sink in sinks.items():
            m.d.comb += [
                sink.en.eq(loader.write.en & (loader.write.target == target)),
                sink.address.eq(loader.write.index),
                sink.data.eq(loader.write.row_data if target is Target.ROWS else loader.write.data),
            ]
        m.d.comb += row_buffer.write.mask.eq(loader.write.mask)
        row_done = skipper.o.valid & skipper.o.p.last & skipper.o.p.tag.row_last & step
        m.d.comb += [
            sequencer.control.en.eq(
                loader.write.en
                & ((loader.write.target == Target.STEP) | (loader.write.target == Target.DESCRIPTOR))
            ),
            sequencer.control.index.eq(loader.write.index),
            sequencer.control.data.eq(loader.write.data),
            loader.count.eq(sequencer.count),
            sequencer.control.rows_end.eq(loader.write.en & loader.write.group_end),
            step.eq(array.i.ready),
            row_buffer.enable.eq(step),
            windows.rows.valid.eq(sequencer.rows.valid & step),
            windows.rows.p.eq(sequencer.rows.p),
            sequencer.rows.ready.eq(windows.rows.ready & step),
            sequencer.row_done.eq(row_done),
            writer.row_done.eq(row_done),
            sequencer.writer_idle.eq(writer.idle),
            sequencer.writer_error.eq(writer.error),
            sequencer.writer_overflow.eq(writer.overflow),
            sequencer.loader_error.eq(loader.error),
            *([sequencer.loader_left.eq(loader.left)] if config.codec != "off" else []),
            writer.start.eq(sequencer.writer_start),
            writer.out_address.eq(sequencer.out_address),
            writer.image_words.eq(sequencer.image_words),
        ]

        # Each component has a port for each descriptor field that it needs, by the field's name.
        for component in datapath.values():
            for field in sequencer.descriptor.shape().members:
                if hasattr(component, field):
                    m.d.comb += getattr(component, field).eq(sequencer.descriptor[field])
        m.d.comb += parameter_buffer.base.eq(sequencer.descriptor.parameter_base)
        connect(m, sequencer.add_scale, parameter_buffer.add_scale)

        # The writer comes first at the store.
        connect(m, writer.write, store.write)
        m.d.comb += sequencer.fetch_idle.eq(1)
        if config.fetch_interval:
            m.submodules.fetcher = fetcher = Fetcher(**store_size)
            connect(m, sequencer.fetch, fetcher.i)
            connect(m, fetcher.memory, wiring.flipped(self.memory))
            m.d.comb += [
                fetcher.hold.eq(writer.write.en),
                fetcher.drop.eq(sequencer.clear),
                fetcher.image_words.eq(sequencer.image_words),
                sequencer.fetch_idle.eq(fetcher.idle),
                sequencer.fetch_error.eq(fetcher.error),
            ]
            with m.If(~writer.write.en):
                m.d.comb += [
                    getattr(store.write, name).eq(getattr(fetcher.write, name)) for name in ("en", "address", "data", "mask")
                ]

        self._elaborate_bus(m, store, sequencer, loader, writer)
        return m

    def _elaborate_bus(self, m, store, sequencer, loader, writer):
        """The host has the store while no program runs."""
        config = self._config
        bus = self.bus
        sub_bits = exact_log2(config.store_bytes // 4)
        window_bit = exact_log2(STORE_WINDOW) - 2

        request = Signal()  # first cycle of an access
        in_store, in_registers = Signal(), Signal()
        word, bits = bus.adr[sub_bits:window_bit], bits_for(config.store_words - 1)
        behind = word[bits:].any() if 1 << bits == config.store_words else word >= config.store_words
        m.d.comb += [
            in_store.eq(bus.adr[window_bit] & ~behind),
            in_registers.eq(Cat(bus.adr == r.address // 4 for r in REGISTERS).any()),
        ]
        host = request & in_store & ~sequencer.busy
        if self._pipelined:
            # The writer puts a word into the store in the cycle behind the request, in which the store must not be read. The
            # master does not hold the address until the answer.
            wrote, answered = Signal(), Signal.like(bus.adr, reset_less=True)
            m.d.sync += [wrote.eq(host & bus.we), answered.eq(bus.adr)]
            m.d.comb += [bus.stall.eq(wrote & ~bus.we), request.eq(bus.cyc & bus.stb & ~bus.stall)]
        else:
            answered = bus.adr
            m.d.comb += request.eq(bus.cyc & bus.stb & ~bus.ack & ~bus.err)
        sub = bus.adr[:sub_bits]
        with m.If(sequencer.busy):
            m.d.comb += [
                store.read.en.eq(loader.read.en),
                store.read.address.eq(loader.read.address),
            ]
        with m.Else():
            m.d.comb += [
                store.read.en.eq(host & ~bus.we),
                store.read.address.eq(bus.adr[sub_bits:]),
            ]
        m.d.comb += [
            writer.host.en.eq(host & bus.we),
            writer.host.address.eq(bus.adr[sub_bits:]),
            writer.host.data.eq(bus.dat_w.replicate(1 << sub_bits)),
            writer.host.mask.eq(bus.sel << (sub << 2)),
        ]

        m.d.comb += [
            loader.read.ready.eq(store.read.ready),
            loader.read.data.eq(store.read.data),
        ]
        m.d.sync += [
            bus.ack.eq(request & (in_registers | host)),
            bus.err.eq(request & ~(in_registers | host)),
        ]

        interrupt_enable, refused = Signal(), Signal()
        cycles = Signal(32)
        control = next(r for r in REGISTERS if r.name == "control")
        control_write = request & bus.we & bus.sel[0] & (bus.adr == control.address // 4)
        m.d.comb += [
            sequencer.start.eq(control_write & bus.dat_w[control.fields["start"].offset] & ~sequencer.busy),
            sequencer.warm.eq(bus.dat_w[control.fields["warm"].offset]),
            sequencer.resume.eq(control_write & bus.dat_w[control.fields["resume"].offset]),
        ]
        with m.If(control_write):
            m.d.sync += interrupt_enable.eq(bus.dat_w[control.fields["interrupt_enable"].offset])
        with m.If(sequencer.busy):
            m.d.sync += cycles.eq(cycles + 1)
        with m.If(request & in_store & sequencer.busy):
            m.d.sync += refused.eq(1)
        with m.If(sequencer.start):
            m.d.sync += [cycles.eq(0), refused.eq(0)]
        m.d.comb += [
            self.irq.eq((sequencer.done | sequencer.paused) & interrupt_enable),
            self.busy.eq(sequencer.busy),
            self.failed.eq(sequencer.error != 0),
        ]

        values = {
            "version": Const(VERSION, 16),
            "lanes": Const(config.lanes, 8),
            "store_bytes": Const(config.store_bytes, 8),
            "start": Const(0, 1),
            "warm": Const(0, 1),
            "resume": Const(0, 1),
            "interrupt_enable": interrupt_enable,
            "busy": sequencer.busy,
            "done": sequencer.done,
            "refused": refused,
            "paused": sequencer.paused,
            "error": sequencer.error,
            "layer": sequencer.layer,
            "cycles": cycles,
            "store_words": Const(config.store_words, 32),
            "step": sequencer.step_address,
        }
        register = Signal(32)
        with m.Switch(answered[:3]):
            for r in REGISTERS:
                with m.Case(r.address // 4):
                    for name, field in r.fields.items():
                        m.d.comb += register[field.offset : field.offset + field.width].eq(values[name])

        # A word of the store is there in the second cycle.
        m.d.comb += bus.dat_r.eq(
            Mux(answered[window_bit], store.read.data.word_select(answered[:sub_bits], 32), register),
        )
