"""A Wishbone master behind a serial line."""

from amaranth.hdl import Assert, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.gateware.wishbone import wishbone_signature
from gossamer.hdl.uart import FRAME_BITS, UartReceiver, UartTransmitter

__all__ = ["BUS_ERROR", "DONE", "READ", "SYNC", "UNKNOWN", "WRITE", "UartBridge"]

SYNC = 0xA7
"""First byte of a command."""

READ, WRITE = 0x00, 0x01
"""Second byte of a command. The other values are free for later."""

DONE, BUS_ERROR, UNKNOWN = 0x50, 0x51, 0x52
"""Status bytes: the access was done; the bus refused it; the bridge does not know the second byte of the command."""


class UartBridge(wiring.Component):
    """Reads and writes words on the bus as commands on a serial line ask it to.

    Numbers are little endian. A command is ::

        byte 0      SYNC
        byte 1      READ or WRITE
        byte 2..4   address of the first word, in bytes; a multiple of 4
        byte 5      number of words less one
        byte 6...   WRITE only: the words, 4 bytes each, for ascending addresses

    A write is answered by one status byte after the last word. A read is answered, for each word, by a status byte and, if
    that is ``DONE``, the word. The first status that is not ``DONE`` ends a read. After a bus error a write takes its
    words, but does not write them. An address that is not a multiple of 4 is a bus error, without an access. If byte 1
    is not known, the answer is ``UNKNOWN`` right behind it, and the rest of the command is garbage.

    The line is silent when it has brought nothing, and carried no answer, for ``silence`` cycles. Silence drops a
    command that is incomplete. A byte other than ``SYNC`` where a command should begin, and a byte with a framing error,
    are garbage: all is ignored from there to the next silence, so that the data of a command that went wrong are
    not taken for commands. Dropped commands and garbage are not answered. A bus that does not answer for ``silence``
    cycles counts as a bus error.

    A write begins on the bus in the first cycle, a read in the second, after that in which the receiver delivers the last
    byte that it needs; the answer to a read has no pauses if the bus answers within a byte time (``10*divisor``
    cycles). The host must not send a command before the answer to the last is complete. A write must end on the bus
    within a byte time, which simulation asserts. Reset drops the command and the answer.

    Parameters
    ----------
    divisor : int
        Clock cycles per bit of the line, at least 8.
    silence : int
        Clock cycles; a power of two, more than 20 bits of the line. Should be longer than the longest pause that the
        host's driver makes within a command.

    Members
    -------
    bus : ``Out(wishbone_signature())``
    rx : ``In(1)``
        The line from the host.
    tx : ``Out(1)``
        The line to the host.
    """

    def __init__(self, *, divisor: int, silence: int):
        self._receiver = UartReceiver(divisor=divisor)
        self._transmitter = UartTransmitter(divisor=divisor)
        if silence & (silence - 1) or silence <= 2 * FRAME_BITS * divisor:
            raise ValueError(
                f"silence must be a power of two of more than {2 * FRAME_BITS * divisor} cycles (20 bits), not {silence}"
            )
        self._silence = silence
        super().__init__({"bus": Out(wishbone_signature()), "rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = self._receiver
        m.submodules.transmitter = transmitter = self._transmitter
        bus, received, answer = self.bus, receiver.o, transmitter.i
        m.d.comb += [receiver.pin.eq(self.rx), self.tx.eq(transmitter.pin)]

        # `word` takes four bytes, first the header (address and count), then data; or it gives four bytes.
        word = Signal(32, reset_less=True)
        index = Signal(2, reset_less=True)  # byte of the word
        address, count = Signal(len(bus.adr), reset_less=True), Signal(8, reset_less=True)
        write, unknown, failed = (Signal(name=name, reset_less=True) for name in ("write", "unknown", "failed"))

        quiet = Signal(exact_log2(self._silence), reset_less=True)
        silent = Signal(reset_less=True)
        m.d.sync += Cat(quiet, silent).eq(quiet + 1)
        with m.If(received.valid | receiver.error | (answer.valid & answer.ready)):
            m.d.sync += Cat(quiet, silent).eq(0)

        def shift(byte):
            return [word.eq(Cat(word[8:], byte)), index.eq(index + 1)]

        m.d.comb += [
            bus.adr.eq(address),
            bus.dat_w.eq(word),
            bus.we.eq(write),
            bus.sel.eq(0b1111),
            bus.cyc.eq(bus.stb),
            answer.p.eq(word[:8]),
        ]

        with m.FSM() as fsm:

            def receive():
                """Common to the states that wait for a byte."""
                with m.If(silent):
                    m.next = "idle"
                with m.If(receiver.error):
                    m.next = "lost"

            with m.State("idle"):
                m.d.sync += [index.eq(0), failed.eq(0), address.eq(0), count.eq(0)]
                with m.If(received.valid):
                    m.next = "lost"
                    with m.If(received.p == SYNC):
                        m.next = "opcode"
                with m.If(receiver.error):
                    m.next = "lost"

            with m.State("lost"):
                with m.If(silent):
                    m.next = "idle"

            with m.State("opcode"):
                m.d.sync += [write.eq(received.p[0]), unknown.eq(received.p[1:].any())]
                with m.If(received.valid):
                    m.next = "header"
                    with m.If(received.p[1:].any()):
                        m.next = "status"
                receive()

            with m.State("header"):
                with m.If(received.valid):
                    m.d.sync += shift(received.p)
                    with m.If(index == 3):
                        m.next = "load"
                receive()

            with m.State("load"):
                m.d.sync += failed.eq(word[:2].any())
                m.next = "access"
                with m.If(write):
                    m.next = "data"

            with m.State("data"):
                with m.If(received.valid):
                    m.d.sync += shift(received.p)
                    with m.If(index == 3):
                        m.next = "access"
                receive()

            with m.State("access"):
                m.d.comb += bus.stb.eq(~failed)
                with m.If(failed | bus.ack | bus.err | silent):
                    m.d.sync += [word.eq(Mux(write, 0, bus.dat_r)), failed.eq(~bus.ack)]
                    m.next = "status"
                    with m.If(write & (count != 0)):
                        m.next = "next"

            with m.State("next"):
                m.next = "access"
                with m.If(write):
                    m.next = "data"

            with m.State("status"):
                m.d.comb += [answer.p.eq(Mux(unknown, UNKNOWN, DONE) | failed), answer.valid.eq(1)]
                with m.If(answer.ready):
                    m.next = "answer"
                    with m.If(write | failed):
                        m.next = "idle"
                    with m.If(unknown):
                        m.next = "lost"

            with m.State("answer"):
                m.d.comb += answer.valid.eq(1)
                with m.If(answer.ready):
                    m.d.sync += shift(Const(0, 8))
                    with m.If(index == 3):
                        m.next = "next"
                        with m.If(count == 0):
                            m.next = "idle"

        # In "load" address and count are zero, in "next" the word is.
        step = fsm.ongoing("next")
        with m.If(step | fsm.ongoing("load")):
            m.d.sync += [
                address.eq((address + step) ^ word[2:24]),
                count.eq((count + step.replicate(8)) ^ word[24:]),
            ]

        if platform is None:
            with m.If(fsm.ongoing("access") & write):
                m.d.sync += Assert(~received.valid, "a bus access must end within a byte time")
        return m
