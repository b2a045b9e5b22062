"""Bias, multiplier and shift of every output channel; in additions, the tables of scaled inputs."""

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.golden.spec import ADD_TABLE, PARAMETER
from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.mac_array import sum_layout
from gossamer.hdl.store import UNCHECKED
from gossamer.hdl.window_generator import tag_layout

__all__ = ["ParameterBuffer", "scaling_layout"]


def scaling_layout() -> data.StructLayout:
    """An accumulator with its bias, and the multiplier and right shift (plus 7) that scale it; ``small`` says that accumulator
    and bias have 15 bits each, so that ``acc`` has 16."""
    return data.StructLayout(
        {"acc": signed(29), "small": 1, "multiplier": 31, "shift": 6, "last": 1, "tag": tag_layout()},
    )


class ParameterBuffer(wiring.Component):
    """Joins each sum with the parameters of its channel.

    An entry has 64 bits, ``PARAMETER`` of :mod:`gossamer.golden.spec`; the sum of lane ``l`` in group ``g`` gets entry
    ``base + g*lanes + l`` and leaves as ``acc + bias``, ``multiplier + 2**30`` (``multiplier`` if
    ``small_multipliers``), ``shift``. With ``add``, entries are those of
    ``ADD_TABLE``, and the sum's two low bytes ``u``, ``v`` are indices: it leaves as ``first(base + u) + second(base + v)``,
    never ``small``, with the scale that came last on ``add_scale``. With ``partial_in`` there is an entry for every sum: lane
    ``l`` of the ``n``-th window since the last ``add_scale.en`` gets entry ``base + n*lanes + l``.

    Throughput is one sum per cycle; latency two cycles. ``i.ready`` depends combinationally on ``o.ready``. The channel
    count restarts at ``base`` behind the last window of a row, unless ``partial_in``; with ``add_scale.en``; and after reset.

    A granule must not be written while an entry in it is being read, that is, in the cycle of the transfer of its sum.

    Parameters
    ----------
    lanes : int
        Channels per group, at least 1.
    acc_bits : int
        Accumulator width, 16 to 28.
    entries : int
        Depth; a power of two, at least 256.
    granule : int
        Bytes per write, 8 or 16: one or two entries.

    Members
    -------
    i : ``In(stream.Signature(sum_layout(acc_bits)))``
    o : ``Out(stream.Signature(scaling_layout()))``
    write : ``In({en: 1, address: granule number, data: granule bytes})``
    add_scale : ``In({en: 1, multiplier: 30, shift: 6})``
        The multiplier is that of the scale less 2**30. Must come while no sum is in work, and is lost while
        ``add`` is low.
    add, partial_in, small_multipliers, base : ``In``
        Fields of the layer descriptor; they must not change while a sum is in work. With ``add``, ``base`` must be a multiple
        of 256.
    """

    def __init__(self, *, lanes: int, acc_bits: int, entries: int, granule: int, int4: bool = False):
        require(lanes >= 1, f"lanes must be at least 1, not {lanes}")
        require(16 <= acc_bits <= 28, f"acc_bits must be 16 to 28, not {acc_bits}")
        require_powers_of_two(entries=entries)
        require(entries >= 256, f"entries must be at least 256, not {entries}")
        require(granule in (8, 16), f"granule must be 8 or 16, not {granule}")
        self._lanes, self._entries, self._granule, self._int4 = lanes, entries, granule, int4
        per_write = granule // 8
        super().__init__(
            {
                "i": In(stream.Signature(sum_layout(acc_bits=acc_bits))),
                "o": Out(stream.Signature(scaling_layout())),
                "write": In(
                    wiring.Signature(
                        {"en": Out(1), "address": Out(range(entries // per_write)), "data": Out(8 * granule)}
                    )
                ),
                "add": In(1),
                "partial_in": In(1),
                "small_multipliers": In(1),
                "add_scale": In(wiring.Signature({"en": Out(1), "multiplier": Out(30), "shift": Out(6)})),
                "base": In(range(entries)),
                **({"int4": In(1)} if int4 else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        per_write = self._granule // 8
        sub_bits = exact_log2(per_write)
        step = Signal()
        halves = []
        group, lane = Signal.like(self.base, reset_less=True), Signal(range(self._lanes << self._int4))
        channel = Signal.like(self.base)
        first = Signal(init=1)  # of a row, or of a layer
        channels = Mux(self.int4, 2 * self._lanes, self._lanes) if self._int4 else self._lanes
        m.d.comb += channel.eq(Mux(first, self.base, group) + lane)

        for half, index in enumerate((self.i.p.acc[:8], self.i.p.acc[8:16])):
            m.submodules[f"half{half}"] = memory = Memory(
                shape=32 * per_write, depth=self._entries // per_write, init=[], attrs=UNCHECKED
            )
            write, read = memory.write_port(), memory.read_port()
            address = Signal.like(self.base, name=f"address{half}")
            sub = Signal(max(sub_bits, 1), name=f"sub{half}")
            m.d.comb += [
                address.eq(Mux(self.add, Cat(index, self.base[8:]), channel)),
                write.en.eq(self.write.en),
                write.addr.eq(self.write.address),
                write.data.eq(
                    Cat(self.write.data.word_select(2 * entry + half, 32) for entry in range(per_write)),
                ),
                read.addr.eq(address[sub_bits:]),
                read.en.eq(step),
            ]
            if sub_bits:
                with m.If(step):
                    m.d.sync += sub.eq(address[:sub_bits])
            if platform is None:
                with m.If(self.write.en & self.i.valid & step):
                    m.d.sync += Assert(read.addr != write.addr, "an entry must not be written while it is being read")
            halves.append(read.data.word_select(sub, 32) if sub_bits else read.data)

        # Stage 1: the entry is there. Stage 2: the sum is biased.
        valid1, valid2 = Signal(), Signal()
        sum1, scaling2 = Signal.like(self.i.p, reset_less=True), Signal.like(self.o.p, reset_less=True)
        entry = Cat(halves)
        def field(name, layout=PARAMETER):
            where = layout[name]
            value = entry[where.offset : where.offset + where.width]
            return value.as_signed() if where.signed else value

        m.d.comb += [step.eq(~valid2 | self.o.ready), self.i.ready.eq(step)]
        with m.If(self.i.valid & step):
            m.d.sync += lane.eq(lane + 1)
            with m.If(self.i.p.last):
                m.d.sync += lane.eq(0)
                with m.If(self.i.p.tag.group_last | self.partial_in):
                    m.d.sync += [group.eq(Mux(first, self.base, group) + channels), first.eq(0)]
                with m.If(self.i.p.tag.row_last & ~self.partial_in):
                    m.d.sync += first.eq(1)
        # Looked at before they are added, so that the size of the sum is known as early as the sum.
        small = Cat(_small(sum1.acc), _small(field("bias")), ~self.add).all()
        with m.If(step):
            m.d.sync += [valid1.eq(self.i.valid), sum1.eq(self.i.p), valid2.eq(valid1), scaling2.small.eq(small)]
            # The second operand of an addition lies in an entry where the bias does.
            m.d.sync += [
                scaling2.acc.eq(Mux(self.add, field("first", ADD_TABLE), sum1.acc) + field("bias")),
                scaling2.last.eq(sum1.last),
                scaling2.tag.eq(sum1.tag),
            ]
        # An addition's scale stays in the register that otherwise holds that of a channel.
        with m.If(self.add_scale.en):
            m.d.sync += first.eq(1)
            m.d.sync += scaling2.multiplier.eq(Cat(self.add_scale.multiplier, Const(1, 1)))
            m.d.sync += scaling2.shift.eq(self.add_scale.shift)
        with m.Elif(step & ~self.add):
            m.d.sync += scaling2.multiplier.eq(Cat(field("multiplier"), ~self.small_multipliers))
            m.d.sync += scaling2.shift.eq(field("shift"))
        m.d.comb += [self.o.valid.eq(valid2), self.o.p.eq(scaling2)]

        if platform is None:
            with m.If(self.add_scale.en):
                m.d.sync += Assert(~valid1 & ~valid2, "add_scale must come while no sum is in work")
            with m.If(self.i.valid & step & self.add):
                m.d.sync += Assert(self.base[:8] == 0, "base must be a multiple of 256 in an addition")
        return m


def _small(value):
    """Whether a number has 15 bits."""
    return value[14:-1] == value[-1].replicate(len(value) - 15)
