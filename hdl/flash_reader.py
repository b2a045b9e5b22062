"""Reads words from a serial NOR flash over four data lines."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.hdl.checks import require

__all__ = ["ADDRESS_BITS", "FlashReader", "read_layout"]

# Ref: Winbond, "W25Q128JV-DTR 3V 128M-Bit Serial Flash Memory", Rev. C (March 2018), sections 7.1, 8.2 and 9.6.

ADDRESS_BITS = 24

_INSTRUCTIONS = (0xAB, 0x50, 0x31, 0xEB)
"""Release from power-down; let the next write go to the volatile status register; write its second byte; fast read quad I/O:
the instruction on one line, address, mode and data on four."""

_STATUS = 0x02  # bit 1 enables four lines (QE)
_MODE = 0xFF  # the next selection begins with an instruction again
_DUMMY = 4  # clock periods between mode and data
_FLIGHT = 3  # cycles from ``sck`` to the nibble on ``dq.i``


def read_layout(*, max_words: int) -> data.StructLayout:
    """``words + 1`` words from byte ``address`` on."""
    return data.StructLayout({"address": ADDRESS_BITS, "words": range(max_words)})


class FlashReader(wiring.Component):
    """Reads words from a serial flash of the W25Q128JV family, with the instruction "fast read quad I/O" (0xEB).

    Byte 0 of a word, the bits 7:0, is the one at the lowest address. Behind the last address follows the first. Addresses
    need not be aligned.

    If the command is transferred in cycle ``t``, the first word is valid from cycle ::

        t + 23 + 2*word_bytes

    and if a word is transferred in cycle ``u``, the next is valid from cycle ``u + 2*word_bytes``: one nibble per cycle.
    ``command.ready`` is high again in the cycle after the transfer of the last word. While a word is not taken the clock
    of the flash pauses; nothing is lost. ``sck`` depends combinationally on ``o.ready``, nothing else on anything.

    The start-up, after configuration and after every reset, releases the flash from power-down, where configuration leaves
    it, and enables the four lines in its volatile status register. The flash is deselected for ``2*word_bytes`` cycles before
    the first of these three instructions, for ``p`` times as many after the first and after the second, and for ``p - 1``
    times as many after the third, ``p`` being the least power of two from 2 on with ``2*word_bytes*p >= wake_cycles``.
    ``command.ready`` rises in cycle ::

        32 + 6*word_bytes*p

    after reset. Reset during a read deselects the flash at once and drops the command. Between two commands the flash is
    deselected for two cycles or more, which must be 50 ns: the clock may have up to 40 MHz.

    The pins are registers of IO cells, driven in the cycle after that in which the component's members have a value; they
    sample in every cycle. ``sck`` asks for a pulse: the pin is high in the second half of that next cycle (as that of
    ``io.DDRBuffer`` whose ``o`` is ``(0, sck)``). The flash puts out a nibble after the falling edge, which is the end of the
    cycle, and it is sampled at the end of the next: a whole cycle for the delays of pad, line, flash and pad. So the nibble
    for which ``sck`` is high in cycle ``c`` is on ``dq.i`` from cycle ``c + 3`` on.

    Parameters
    ----------
    max_words : int
        Words of the longest command, at least 1.
    word_bytes : int
        8 or 16.
    wake_cycles : int
        Cycles that the flash needs after the release from power-down, tRES1: 3 us. At least 1.

    Members
    -------
    command : ``In(stream.Signature(read_layout(...)))``
    o : ``Out(stream.Signature(8*word_bytes))``
    sck : ``Out(1)``
        Clock pulses.
    cs_n : ``Out(1)``
        Chip select, low when selected.
    dq : ``Out({o: 4, oe: 1, i: 4})``
        The data lines, IO3 being the most significant bit.
    """

    def __init__(self, *, max_words: int, word_bytes: int = 8, wake_cycles: int):
        require(max_words >= 1, f"max_words must be at least 1, not {max_words}")
        require(word_bytes in (8, 16), f"word_bytes must be 8 or 16, not {word_bytes}")
        require(wake_cycles >= 1, f"wake_cycles must be at least 1, not {wake_cycles}")
        self._nibbles = 2 * word_bytes
        self._wait_bits = max(1, (-(-wake_cycles // self._nibbles) - 1).bit_length())
        super().__init__(
            {
                "command": In(stream.Signature(read_layout(max_words=max_words))),
                "o": Out(stream.Signature(8 * word_bytes)),
                "sck": Out(1),
                "cs_n": Out(1, init=1),
                "dq": Out(wiring.Signature({"o": Out(4), "oe": Out(1), "i": In(4)})),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # While the flash is selected, first what lies in the shift register is sent, the lowest nibble first; then, for a
        # read, the first nibble is waited for and nibbles are shifted in at the top. `count` ends each of these phases with
        # all its bits set.
        selected, sending, reading, valid = Signal(), Signal(), Signal(reset_less=True), Signal()
        count, last = Signal(range(self._nibbles)), Signal()
        shift = Signal(4 * self._nibbles, reset_less=True)

        # The start-up waits in units of words; `number` is that of the next instruction.
        waits, number, started = Signal(self._wait_bits), Signal(2), Signal()
        # Words behind this one, less one: negative in the last.
        left = Signal(len(self.command.p.words) + 1, reset_less=True)

        stall, end, word, off, wake, load = Signal(), Signal(), Signal(), Signal(), Signal(), Signal()
        go = Signal()  # go: the flash is selected from the next cycle on
        m.d.comb += [
            last.eq(count.all()),
            started.eq(number.all()),
            stall.eq(valid & ~self.o.ready),
            self.command.ready.eq(started & ~selected & ~valid),
            load.eq(self.command.valid & self.command.ready),
            wake.eq(~started & ~selected & last),
            go.eq(load | (wake & (waits == 0))),
            self.sck.eq(selected & ~stall),
            end.eq(last & self.sck),
            self.cs_n.eq(~selected),
            self.dq.o.eq(shift[:4]),
            self.dq.oe.eq(sending),
            self.o.valid.eq(valid),
            # Of each byte the first nibble is the upper.
            self.o.p.eq(Cat(shift.word_select(nibble ^ 1, 4) for nibble in range(self._nibbles))),
        ]

        with m.If(~stall):
            m.d.sync += count.eq(_next(count))
        with m.If(wake):
            m.d.sync += Cat(waits, number).eq(_next(Cat(waits, number)))
        with m.If(end):
            m.d.sync += reading.eq(~sending)
        with m.If(end & sending & started):
            m.d.sync += count.eq(self._nibbles - (_DUMMY + _FLIGHT - 1))
        m.d.comb += [word.eq(end & reading & ~sending), off.eq(Mux(sending, end & ~started, word & left[-1]))]
        # As logic, because an enable would need another cell for the reset.
        m.d.sync += [
            valid.eq(stall | word),
            sending.eq(go | (sending & ~end)),
            selected.eq(go | (selected & ~off)),
        ]
        with m.If(load | (end & ~sending)):
            # Less one, or the command's; as a sum whose second operand depends on `load` it is one cell per bit.
            m.d.sync += left.eq(Mux(load, self.command.p.words, left + (~load).replicate(len(left))))

        # What is sent. The first two instructions end before the address; in the third the status is in its place.
        behind = Cat(Const(_MODE, 8), self.command.p.address)
        nibbles = Cat(behind.word_select(place, 4) for place in reversed(range(8)))
        instruction, rest = Signal(32), Signal(32)
        with m.Switch(number):
            for place, byte in enumerate(_INSTRUCTIONS):
                with m.Case(place):
                    m.d.comb += instruction.eq(_bits(byte))
        m.d.comb += rest.eq(Mux(number[0], nibbles, _bits(_STATUS)))
        with m.If(go):
            m.d.sync += count.eq(self._nibbles - Mux(number[1], 16, 8))
        nibble = self._elaborate_skid(m, stall, count)
        with m.If(self.sck):
            m.d.sync += shift.eq(Cat(shift[4:], nibble))
        with m.If(go):
            m.d.sync += shift[:64].eq(Cat(instruction, rest))
        return m

    def _elaborate_skid(self, m, stall, count):
        """The next nibble to shift in.

        When the clock begins to pause, three nibbles are under way. They are the first of a word, because only a complete
        word pauses the clock. The third stays on ``dq.i``; the first and the second have to be kept."""
        held, both = Signal(reset_less=True), Signal(reset_less=True)  # the first is in `first`; the second in `second`
        first, second = Signal(4, reset_less=True), Signal(4, reset_less=True)
        m.d.sync += [held.eq(stall | (held & ~count[0])), both.eq(held)]
        with m.If(~held | ~stall):
            m.d.sync += first.eq(Mux(both, second, self.dq.i))
        with m.If(~both):
            m.d.sync += second.eq(self.dq.i)
        return Mux(held, first, self.dq.i)


def _bits(byte):
    """A byte in nibbles for one line, from the most significant bit. The other lines are high: without QE they are /WP and
    /HOLD."""
    return Cat(Const(0b1110 | byte >> place & 1, 4) for place in reversed(range(8)))


def _next(number):
    """One more, as logic: for a few bits a carry chain takes more cells than it saves."""
    return Cat(bit ^ number[:place].all() for place, bit in enumerate(number))
