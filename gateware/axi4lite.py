"""The core behind an AXI4-Lite port."""

from amaranth.hdl import Assert, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gossamer.gateware.wishbone import ADDRESS_BITS, wishbone_signature

__all__ = ["OKAY", "SLVERR", "Axi4LiteBridge", "axi4lite_signature"]

OKAY, SLVERR = 0b00, 0b10
"""Responses. A slave behind an address decoder has no others."""


def axi4lite_signature() -> wiring.Signature:
    """AXI4-Lite, 32 bits, from the master's side; addresses count bytes.

    Ref: Arm, "AMBA AXI and ACE Protocol Specification", IHI 0022, part B.
    """
    address = {"addr": Out(ADDRESS_BITS), "prot": Out(3), "valid": Out(1), "ready": In(1)}
    write = {"data": Out(32), "strb": Out(4), "valid": Out(1), "ready": In(1)}
    answer = {"resp": In(2), "valid": In(1), "ready": Out(1)}
    channels = {"aw": address, "w": write, "b": answer, "ar": address, "r": {"data": In(32), **answer}}
    return wiring.Signature({channel + name: port for channel, ports in channels.items() for name, port in ports.items()})


class Axi4LiteBridge(wiring.Component):
    """Turns transactions on AXI4-Lite into accesses on classic Wishbone, one at a time.

    A write begins when its address and its data are both there, in whichever order they have come; a read with its address.
    If a write and a read wait, that goes first which did not go last. Neither begins before the answer to the last of its
    kind leaves, so that an answer that is not taken stops its own kind only. Address and data are not kept: their channels
    are ready in the cycle in which the bus answers. What the bus answers with ``err`` is answered with ``SLVERR``.

    The two low bits of an address are ignored: a write changes the bytes of the word that ``wstrb`` names, a read gives the
    word. ``awprot`` and ``arprot`` are ignored.

    Behind the cycle in which a transaction is there, and may begin, comes one in which it is put on the bus. With a bus that
    answers in the cycle behind that, ``awready`` and ``wready``, or ``arready``, are high two cycles after the first, and
    the answer is valid three cycles after it, when the next may begin: a transaction every three cycles.

    The outputs of ``axi`` come from registers, but that the ready ones depend combinationally on the bus's ``ack`` and
    ``err``: with a bus that answers from registers no path leads from an input of ``axi`` to an output, as AXI demands.
    Masters must keep the rules of AXI, which simulation asserts: what is valid stays so, and does not change, until it is
    taken. Reset drops the transaction, and the answers.

    Members
    -------
    axi : ``In(axi4lite_signature())``
    bus : ``Out(wishbone_signature())``
    """

    def __init__(self):
        super().__init__({"axi": In(axi4lite_signature()), "bus": Out(wishbone_signature())})

    def elaborate(self, platform):
        m = Module()
        axi, bus = self.axi, self.bus
        active, writing = Signal(), Signal()  # after a transaction, `writing` is the kind of the last
        write = axi.awvalid & axi.wvalid & (~axi.bvalid | axi.bready)
        read = axi.arvalid & (~axi.rvalid | axi.rready)
        answered = active & (bus.ack | bus.err)

        with m.If(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        with m.If(~active):
            m.d.sync += [active.eq(write | read), writing.eq(write & ~(read & writing))]
        with m.Elif(answered):
            m.d.sync += active.eq(0)
            with m.If(writing):
                m.d.sync += [axi.bvalid.eq(1), axi.bresp[1].eq(bus.err)]
            with m.Else():
                m.d.sync += [axi.rvalid.eq(1), axi.rresp[1].eq(bus.err), axi.rdata.eq(bus.dat_r)]

        m.d.comb += [
            bus.cyc.eq(active),
            bus.stb.eq(active),
            bus.we.eq(writing),
            bus.adr.eq(Mux(writing, axi.awaddr, axi.araddr)[2:]),
            bus.sel.eq(axi.wstrb | ~writing.replicate(4)),
            bus.dat_w.eq(axi.wdata),
            axi.awready.eq(answered & writing),
            axi.wready.eq(answered & writing),
            axi.arready.eq(answered & ~writing),
        ]

        if platform is None:
            for channel, parts in (("aw", ("addr", "prot")), ("w", ("data", "strb")), ("ar", ("addr", "prot"))):
                valid, ready = getattr(axi, f"{channel}valid"), getattr(axi, f"{channel}ready")
                payload = Cat(getattr(axi, channel + part) for part in parts)
                waited, before = Signal(), Signal.like(payload)
                m.d.sync += [waited.eq(valid & ~ready), before.eq(payload)]
                with m.If(waited):
                    kept = valid & (payload == before)
                    m.d.sync += Assert(kept, f"{channel} must stay valid, and the same, until it is taken")
        return m
