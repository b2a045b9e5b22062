"""Packs values of few bits into bytes."""

from amaranth.hdl import Assert, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.hdl.requantizer import output_layout

__all__ = ["Packer"]


class Packer(wiring.Component):
    """Makes a byte of two or eight output values.

    With ``out_nibbles`` a byte has the low four bits of two values, the highest of the four inverted, the first value in the
    low half: of a stored byte ``a + 128`` that is ``a + 8``, if ``a`` is -8 to 7. With ``out_bits`` it has the highest bits of
    eight values, the first in its lowest bit: 1 for ``a >= 0``. Otherwise values pass.

    A byte goes out with its last value, in the same cycle. A window must have whole bytes of values. ``i.ready`` depends
    combinationally on ``o.ready``. Reset drops the values of an incomplete byte.

    Parameters
    ----------
    nibbles, bits : bool
        Build it with ``out_nibbles``, ``out_bits``.

    Members
    -------
    i, o : ``In(stream.Signature(output_layout()))``, ``Out`` of the same
    out_nibbles, out_bits : ``In(1)``
        Fields of the layer descriptor; they must not change in the middle of a byte.
    """

    def __init__(self, *, nibbles: bool = False, bits: bool = False):
        self._sizes = {name: size for name, size, there in (("out_nibbles", 4, nibbles), ("out_bits", 1, bits)) if there}
        super().__init__(
            {
                "i": In(stream.Signature(output_layout())),
                "o": Out(stream.Signature(output_layout())),
                **{name: In(1) for name in self._sizes},
            }
        )

    def elaborate(self, platform):
        m = Module()
        taken = Signal(8, reset_less=True)  # the values before, in its highest bits
        number, complete = Signal(3), Signal()  # of this value in its byte, and whether that is the last
        m.d.comb += [
            complete.eq(1),
            self.o.p.eq(self.i.p),
            self.o.valid.eq(self.i.valid & complete),
            self.i.ready.eq(~complete | self.o.ready),
        ]
        for name, size in self._sizes.items():
            value = (self.i.p.data >> 7) if size == 1 else self.i.p.data ^ 8
            byte = Cat(taken[size:], value[:size])
            with m.If(getattr(self, name)):
                m.d.comb += [complete.eq(number == 8 // size - 1), self.o.p.data.eq(byte)]
                with m.If(self.i.valid & self.i.ready):
                    m.d.sync += [taken.eq(byte), number.eq(Mux(complete, 0, number + 1))]
        if platform is None:
            with m.If(self.i.valid & self.i.p.last):
                m.d.sync += Assert(complete, "a window must have whole bytes of values")
        return m
