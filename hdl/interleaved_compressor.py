"""Packs bytes into the codes of compressed rows of several units."""

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.compressor import RATE_BITS, Compressor

__all__ = ["InterleavedCompressor"]


class InterleavedCompressor(wiring.Component):
    """Codes a row's values in several units: the first value in the first unit, the next in the next, and so on around.

    Each unit is that of a :class:`Compressor` with ``lanes // streams`` lanes, bit-exact with
    :func:`gossamer.golden.codec.encode_units`. The halfwords of the units come out mixed, each with its unit's number.

    Throughput is one value per cycle, also where a row follows another: both ports are always ready. A
    halfword is there two cycles after the transfer of the value that fills it, or of its unit's last; that which the code of
    a unit's last value begins, behind another that it fills, is there one cycle later. Halfwords come out one per cycle, in
    every cycle in which one is there. Of those that wait, that of the unit that the next value belongs to comes first: so each
    unit's compressor can take its next value, whatever comes when; simulation asserts it.

    ``o`` depends on no port. ``signed`` and ``rate`` must not change from a row's first value to its last halfword. Reset
    discards what is in work.

    Parameters
    ----------
    lanes : int
        Values per pixel, a multiple of ``streams``.
    streams : int
        Units of a row, a power of two, at least 2.
    bounded, budgets : bool
        See :class:`Compressor`.

    Members
    -------
    i : ``In(stream.Signature({data: 8, last: 1}, always_ready=True))``
        ``last`` marks the last value of a unit; a row has ``streams`` of them, its last values.
    o : ``Out(stream.Signature({data: 16, last: 1, unit}, always_ready=True))``
    signed : ``In(1)``
        The row's bytes are around 128.
    rate : ``In(7)``
        With ``budgets``: the rate of the units' budgets, or 0.
    """

    def __init__(self, *, lanes: int, streams: int, bounded: bool = True, budgets: bool = False):
        require_powers_of_two(streams=streams)
        require(streams >= 2, f"streams must be at least 2, not {streams}")
        require(lanes > 0 and lanes % streams == 0, f"lanes must be a multiple of streams ({streams}), not {lanes}")
        self._budgets = budgets
        self._compressors = [Compressor(lanes=lanes // streams, bounded=bounded, budgets=budgets) for _ in range(streams)]
        halfword = data.StructLayout({"data": 16, "last": 1, "unit": exact_log2(streams)})
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"data": 8, "last": 1}), always_ready=True)),
                "o": Out(stream.Signature(halfword, always_ready=True)),
                "signed": In(1),
                **({"rate": In(RATE_BITS)} if budgets else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        streams = len(self._compressors)
        turn = Signal(streams, init=1)  # the unit of the next value
        full = Cat(compressor.o.valid for compressor in self._compressors)
        mine, before = (turn & full).any(), Const(0)
        m.d.comb += self.o.valid.eq(full.any())
        for unit, compressor in enumerate(self._compressors):
            m.submodules[f"compressor_{unit}"] = compressor
            chosen = full[unit] & Mux(mine, turn[unit], ~before)
            before = before | full[unit]
            m.d.comb += [
                compressor.signed.eq(self.signed),
                *([compressor.rate.eq(self.rate)] if self._budgets else []),
                compressor.i.valid.eq(self.i.valid & turn[unit]),
                compressor.i.p.eq(self.i.p),
                compressor.o.ready.eq(chosen),
            ]
            if platform is None:
                with m.If(turn[unit]):
                    m.d.sync += Assert(compressor.i.ready, "a unit's next value must be taken when it comes")
            with m.If(chosen):
                m.d.comb += [
                    self.o.p.data.eq(compressor.o.p.data),
                    self.o.p.last.eq(compressor.o.p.last),
                    self.o.p.unit.eq(unit),
                ]
        with m.If(self.i.valid):
            m.d.sync += turn.eq(turn.rotate_left(1))
        return m
