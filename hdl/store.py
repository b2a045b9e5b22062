"""The memory of program, weights and activations."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from gossamer.hdl.checks import require, require_powers_of_two, require_technology

__all__ = ["UNCHECKED", "Store", "read_signature", "write_signature"]

UNCHECKED = {"no_rw_check": 1}
"""Attribute of memories of which no word is read while it is written: synthesis need not spend logic on that case."""


def read_signature(*, store_bytes: int, store_words: int) -> wiring.Signature:
    """A read port, from the side that asks: the word at ``address`` is on ``data`` one cycle after ``en & ready``."""
    return wiring.Signature(
        {"en": Out(1), "address": Out(range(store_words)), "ready": In(1), "data": In(8 * store_bytes)}
    )


def write_signature(*, store_bytes: int, store_words: int) -> wiring.Signature:
    """A write port, from the side that writes: the bytes of ``data`` whose ``mask`` bit is set, at once."""
    return wiring.Signature(
        {"en": Out(1), "address": Out(range(store_words)), "data": Out(8 * store_bytes), "mask": Out(store_bytes)}
    )


class Store(wiring.Component):
    """On-chip memory with a read and a write port.

    With two ports ``read.ready`` is always high. With one port a write comes first and ``read.ready`` is ``~write.en``,
    combinationally. The result of reading a word in the cycle in which it is written is undefined. Reset keeps the
    contents. ``read.data`` is valid for one cycle only.

    Parameters
    ----------
    store_bytes : int
        Bytes per word; a power of two.
    store_words : int
        Depth, at least 1.
    ports : int
        1 or 2.
    technology : str
        ``generic``: inferred block RAM. ``ice40``: four SB_SPRAM256KA, which makes 16384 words of 8 bytes, one port.

    Members
    -------
    read : ``In(read_signature(...))``
    write : ``In(write_signature(...))``
    """

    def __init__(self, *, store_bytes: int, store_words: int, ports: int = 2, technology: str = "generic"):
        require_technology(technology)
        require_powers_of_two(store_bytes=store_bytes)
        require(store_words >= 1, f"store_words must be at least 1, not {store_words}")
        require(ports in (1, 2), f"ports must be 1 or 2, not {ports}")
        require(
            technology != "ice40" or (store_bytes, store_words, ports) == (8, 16384, 1),
            f"an ice40 store must have 16384 words of 8 bytes and 1 port, not {store_words} words of {store_bytes} bytes and "
            f"{ports} ports",
        )
        self._store_bytes, self._store_words, self._ports, self._technology = store_bytes, store_words, ports, technology
        super().__init__(
            {
                "read": In(read_signature(store_bytes=store_bytes, store_words=store_words)),
                "write": In(write_signature(store_bytes=store_bytes, store_words=store_words)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.read.ready.eq(~self.write.en if self._ports == 1 else 1)
        if self._technology == "ice40":
            address = Mux(self.write.en, self.write.address, self.read.address)
            for i in range(4):
                mask = self.write.mask[2 * i : 2 * i + 2]
                m.submodules[f"spram{i}"] = Instance(
                    "SB_SPRAM256KA",
                    i_CLOCK=ClockSignal(),
                    i_ADDRESS=address,
                    i_DATAIN=self.write.data.word_select(i, 16),
                    i_MASKWREN=Cat(mask[0].replicate(2), mask[1].replicate(2)),
                    i_WREN=self.write.en,
                    i_CHIPSELECT=self.write.en | self.read.en,
                    i_STANDBY=Const(0),
                    i_SLEEP=Const(0),
                    i_POWEROFF=Const(1),
                    o_DATAOUT=self.read.data.word_select(i, 16),
                )
        else:
            m.submodules.memory = memory = Memory(
                shape=8 * self._store_bytes, depth=self._store_words, init=[], attrs=UNCHECKED
            )
            read, write = memory.read_port(), memory.write_port(granularity=8)
            m.d.comb += [
                read.en.eq(self.read.en & self.read.ready),
                read.addr.eq(self.read.address),
                self.read.data.eq(read.data),
                write.en.eq(Mux(self.write.en, self.write.mask, 0)),
                write.addr.eq(self.write.address),
                write.data.eq(self.write.data),
            ]
        return m
