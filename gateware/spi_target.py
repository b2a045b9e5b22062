"""A Wishbone master behind an SPI port."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gossamer.gateware.wishbone import wishbone_signature

__all__ = ["POLYNOMIAL", "RESIDUE", "SpiTarget"]

POLYNOMIAL = 0x1021
"""Of the CRC, without ``x**16``."""

RESIDUE = 0xFFFF
"""The CRC behind a header that is right."""


class SpiTarget(wiring.Component):
    """Reads and writes words on the bus as a controller on SPI asks it to; ``docs/spi.md`` has examples.

    SPI mode 0, most significant bit first. ``cs_n`` low frames a command, which is ::

        byte 0..1    seed: with it, the header is right
        byte 2..5    bit 31..23 zero, bit 22 write, bit 21..0 address of the first word, in words
        byte 6...    write: the words, for ascending addresses
                     read: for each word four bytes, of which the last bit is 1; then four zeros, and one for the last bit

    ``miso`` is one bit behind ``mosi``: what is said to come in a byte begins with that byte's second bit. What comes is ::

        first bit    the command before has failed
        byte 0..1    the CRC of the command before
        byte 10...   read: the words, each in the four bytes behind those that have asked for it

    and anything elsewhere. The CRC is the remainder by ``x**16 + POLYNOMIAL`` of all bits of ``mosi``; in a read, those behind
    the header are first xored with those of ``miso`` at the same edges of ``sck``. A header is right when its CRC is RESIDUE.

    A word is written when its last bit has come, and read when its request has. A command fails when its header is not right,
    when the bus answers with ``err``, and when the bus does not answer before the next bit; then it accesses nothing any more.
    When ``cs_n`` rises, what is not complete is dropped; behind a command without a whole header, its CRC and whether it
    has failed may be anything. An address must not go beyond the last word of the bus: the next would be the first, with reads
    for writes. After reset all is ignored until ``cs_n`` has been high, and the first command gets "failed".

    Of ``sck``, a period takes at least 6 clock cycles, a level at least 3; it need not be regular. ``mosi`` is stable from its
    rising edge on for 3 cycles. ``cs_n`` falls at least 3 cycles before the first rising edge, rises at least 3 behind
    the last, and is high for at least 3. ``miso`` changes more than 2 and up to 3 cycles behind that rising edge or that of
    ``cs_n``. An access begins more than 3 and up to 4 cycles behind the edge that brings the last bit; it may take three
    cycles, so that it ends before the next bit.

    Members
    -------
    bus : ``Out(wishbone_signature())``
    cs_n, sck, mosi : ``In(1)``
        Pins behind one register each, which are the first stages of synchronizers. Times are those of the pins.
    miso : ``Out(1)``
        A register. It is driven all the time.
    """

    def __init__(self):
        super().__init__(
            {"bus": Out(wishbone_signature()), "cs_n": In(1, init=1), "sck": In(1), "mosi": In(1), "miso": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        bus = self.bus

        # After reset `idle` is 0, whatever the pin, so that a command that is under way stays without effect.
        idle, sck, before, tick = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [idle.eq(self.cs_n), sck.eq(self.sck), before.eq(sck)]
        m.d.comb += tick.eq(sck & ~before & ~idle)  # `mosi` has a bit

        # A command has three parts: the `first` 16 bits, the rest of the `header`, and words.
        # `complete` follows the last bit of the first part, of the header, and of each word.
        first, header, complete = Signal(), Signal(), Signal()
        count, following = Signal(5, reset_less=True), Signal(6)
        m.d.comb += following.eq(count + 1)
        with m.If(tick):
            m.d.sync += count.eq(following)
        with m.If(idle):
            m.d.sync += count.eq(16)
        m.d.sync += [
            complete.eq(tick & following[5]),
            first.eq(idle | (first & ~complete)),
            header.eq(idle | (header & ~(complete & ~first))),
        ]

        # A read fills the word again between two bits.
        word, access = Signal(32, reset_less=True), Signal()
        address = Signal(len(bus.adr) + 1, reset_less=True)  # and, in front, `write`
        write = address[-1]
        with m.If(tick | (access & ~write)):
            m.d.sync += word.eq(Mux(access, bus.dat_r, Cat(self.mosi, word)))

        # The header goes through the address. What is added there does not matter; that it is not 0 lets an iCE40's carry
        # chain share its cells with the multiplexer.
        with m.If((tick & header) | (access & bus.ack)):
            counted = address + Cat(1, header.replicate(len(address) - 1))
            m.d.sync += address.eq(Mux(header, Cat(self.mosi, address), counted))

        crc = Signal(16, reset_less=True)
        with m.If(tick):
            bit = self.mosi ^ (self.miso & ~header & ~write)
            m.d.sync += crc.eq(Cat(bit, crc) ^ Mux(crc[15] & ~first, POLYNOMIAL, 0))

        failed = Signal(init=1)
        with m.If(complete & header):
            m.d.sync += failed.eq(crc != RESIDUE)
        with m.If(complete & ~header & ~failed & (write | word[0])):
            m.d.sync += access.eq(1)
        with m.If(access & (bus.ack | bus.err | tick)):
            m.d.sync += access.eq(0)
        with m.If(access & (bus.err | tick)):
            m.d.sync += failed.eq(1)
        m.d.comb += [
            bus.adr.eq(address),
            bus.dat_w.eq(word),
            bus.we.eq(write),
            bus.sel.eq(0b1111),
            bus.cyc.eq(access),
            bus.stb.eq(access),
        ]

        miso = Signal(reset_less=True)
        with m.If(tick | idle):
            m.d.sync += miso.eq(Mux(idle, failed, Mux(header, crc[15], word[31])))
        m.d.comb += self.miso.eq(miso)

        return m
