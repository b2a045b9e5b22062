"""A Wishbone master behind a serial line."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.gateware.wishbone import wishbone_signature
from gossamer.hdl.checks import require

__all__ = ["BUS_ERROR", "DONE", "POLYNOMIAL", "START", "UartBridge"]

POLYNOMIAL, START = 0x1021, 0xFFFF
"""Of the CRC: without ``x**16``, and what it is in front of a command."""

DONE, BUS_ERROR = 0xCC, 0x33
"""Status bytes: all accesses were done; the bus refused one."""


class UartBridge(wiring.Component):
    """Reads and writes words on the bus as commands on a serial line ask it to; ``docs/uart.md`` has examples.

    The line is 8N1, and numbers are little endian. A command is ::

        byte 0..3    bit 0 anything, bit 1 write, bit 23..2 address of the first word, in words, bit 31..24 words, negative
        byte 4..5    CRC
        byte 6...    write: the words, for ascending addresses, and the CRC

    and its answer ::

        read: the words
        a status byte
        the CRC

    The CRC is that of all the bits of the command and of its answer in front of it, in the order of the line, but for earlier
    CRCs: the remainder by ``x**16 + POLYNOMIAL`` that is ``START`` in front of the command. Its highest bit comes first.

    A word of a write is written when its last bit has come, but the last one when the second CRC has. When the bus answers with
    ``err``, or not in time, there are no more accesses for the command: the words of a write are taken, those of a read may be
    anything, and the status is ``BUS_ERROR``. Behind the last word of the bus comes the first.

    A byte whose stop bit is low, and a CRC that is wrong, are garbage: from there on all is ignored, and nothing answered,
    up to the next silence. So is what follows a reset, but an answer that has begun goes on. The line is silent when nothing
    has come or gone for ``silence`` bits. Silence also drops a command that is not complete. What comes during an answer is
    ignored.

    Bits are sampled in their centres, which half of ``divisor`` cycles behind the edge of the start bit tell. The sender may be
    2 % faster or slower. An access begins ``9*divisor + divisor//2 + 4`` cycles behind the first low level of the start bit of
    the byte that it waits for. It may take ``divisor//2`` cycles. An answer has no pauses; it begins within two bits behind the
    beginning of the stop bit of the command's last byte.

    Parameters
    ----------
    divisor : int
        Clock cycles per bit of the line, at least 8.
    silence : int
        Bits of the line; a power of two of more than 20. Should be longer than the longest pause that the host's driver
        makes within a command.

    Members
    -------
    bus : ``Out(wishbone_signature())``
    rx : ``In(1)``
        The line from the host; any clock.
    tx : ``Out(1)``
        The line to the host, from a register.
    """

    def __init__(self, *, divisor: int, silence: int):
        require(divisor >= 8, f"divisor must be at least 8, not {divisor}")
        good = silence & (silence - 1) == 0 and silence > 20
        require(good, f"silence must be a power of two of more than 20 bits, not {silence}")
        self._divisor, self._silence = divisor, silence
        super().__init__({"bus": Out(wishbone_signature()), "rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        bus = self.bus

        early, line = Signal(reset_less=True), Signal(reset_less=True)
        m.submodules.synchronizer = FFSynchronizer(self.rx, early)
        m.d.sync += line.eq(early)

        # What comes and what goes is in parts, of four bytes but for the status, one, and CRCs, two:
        #
        #                        words  check  sending
        #     header               0      0       0
        #     its CRC              0      1       0
        #     words of a write     1      0       0
        #     their CRC            1      1       0
        #     words of a read      1      0       1
        #     status               0      0       1
        #     its CRC              0      1       1
        words, check, sending = (Signal(name=name, reset_less=True) for name in ("words", "check", "sending"))
        lost = Signal(init=1)
        header = ~words & ~sending

        # A `tick` is the time to sample or to send a bit. `place` is 7 for the start bit, 8 to 15 for data, 0 for the stop bit;
        # the sum is written out, because a carry chain would be larger.
        timer, place = Signal(range(self._divisor), reset_less=True), Signal(4, init=7, reset_less=True)
        tick, shift, done = Signal(), Signal(), Signal()
        start, stop = ~place[3] & place[0], ~place[3] & ~place[0]
        waits = start & line
        m.d.comb += [tick.eq(timer == 0), shift.eq(tick & place[3]), done.eq(tick & stop)]
        m.d.sync += timer.eq(Mux(tick, self._divisor - 1, timer - 1))
        with m.If(waits & ~early & ~sending):
            m.d.sync += timer.eq(self._divisor // 2)
        with m.If(tick & (sending | ~waits)):
            carries = Cat(1, place[0], place[:2].all(), place[:3].all())
            m.d.sync += place.eq((place ^ carries) | Mux(stop, 6, 0))

        quiet = Signal(exact_log2(self._silence) + 1, reset_less=True)
        silent = quiet[-1]
        with m.If(tick):
            m.d.sync += quiet.eq(Mux(waits, quiet + 1, 0))

        # Bytes of a part count up to 3. `complete` is its end.
        index, complete = Signal(2, reset_less=True), Signal()
        write, last, status = Signal(), Signal(), ~words & ~check & sending
        m.d.comb += complete.eq(done & (index == 3) & (sending | (line & ~lost)))
        checks = ~check & (~words | (last & ~sending))
        answers = words & (check | (last & sending))  # the status is next
        right = Mux(header, ~write, words)  # behind a CRC: something has been asked for that can be done now, and answered
        access = Signal(reset_less=True)
        with m.If(done):
            m.d.sync += index.eq(index + 1)
        with m.If(complete):
            m.d.sync += [
                index.eq(Cat(answers, checks | answers)),
                check.eq(checks),
                words.eq(Mux(check, header, words & ~answers)),
                sending.eq(Mux(check, right, sending)),
                access.eq(Mux(check, right, words & ~last)),
            ]

        # `target` is the header but for its first bit; it counts addresses, and words up to zero. What is added while it shifts
        # does not matter; that it is not 0 lets an iCE40's carry chain share its cells with the multiplexer.
        target = Signal(31, reset_less=True)
        step = Signal()
        m.d.comb += [
            write.eq(target[0]),
            last.eq(target[23:] == (~sending).replicate(8)),
            step.eq(access & (bus.ack | bus.err | tick)),
        ]
        shifts = header & ~check
        counted = Cat((n + Cat(1, shifts.replicate(len(n) - 1)))[: len(n)] for n in (target[1:23], target[23:]))
        with m.If((shift & shifts) | step):
            m.d.sync += target.eq(Mux(shifts, Cat(target[1:], line), Cat(target[0], counted)))

        failed = Signal(reset_less=True)
        with m.If(step):
            m.d.sync += [access.eq(0), failed.eq(failed | ~bus.ack)]
        with m.If(header):
            m.d.sync += failed.eq(0)

        word = Signal(32, reset_less=True)
        with m.If((shift & ~check) | (access & bus.ack)):
            m.d.sync += word.eq(Mux(access, bus.dat_r, Cat(word[1:], line)))
        m.d.comb += [
            bus.adr.eq(target[1:23]),
            bus.dat_w.eq(word),
            bus.we.eq(write),
            bus.sel.eq(0b1111),
            bus.cyc.eq(access & ~failed),
            bus.stb.eq(access & ~failed),
        ]

        # While a CRC comes, the register goes round, and while one goes, it becomes START again.
        crc, bit, odd = Signal(16, reset_less=True), Signal(), Signal()
        m.d.comb += [
            bit.eq(Mux(sending, Mux(status, failed ^ place[1], word[0]), line)),
            odd.eq((bit ^ crc[15]) & ~check),
        ]
        with m.If(shift):
            m.d.sync += crc.eq(Cat(check & (crc[15] | sending), crc) ^ Mux(odd, POLYNOMIAL, 0))
        with m.If(~sending & ((shift & check & (line ^ crc[15])) | (done & ~line))):
            m.d.sync += lost.eq(1)

        with m.If(tick):
            m.d.sync += self.tx.eq(~sending | Mux(place[3], Mux(check, crc[15], bit), stop))

        with m.If(silent):
            m.d.sync += [Cat(words, check, sending, lost, index).eq(0), crc.eq(START)]
        return m
