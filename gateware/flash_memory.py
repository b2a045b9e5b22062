"""The core's external memory in a serial flash."""

import math

from amaranth.hdl import Cat, Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.golden.spec import EXTERNAL_WORDS, MOST_FETCHED, Config
from gossamer.hdl.checks import require
from gossamer.hdl.fetcher import memory_signature
from gossamer.hdl.flash_reader import ADDRESS_BITS, FlashReader

__all__ = ["FlashMemory"]

WAKE_US = 3
"""Time that the flash needs to leave power-down. Ref: Winbond, W25Q128JV-DTR, tRES1."""


class FlashMemory(wiring.Component):
    """Answers the requests of a :class:`gossamer.gateware.core.Core` from a flash; see :class:`FlashReader`, also for the pins.

    Word 0 of the external memory begins at byte ``base`` of the flash.

    Parameters
    ----------
    config : Config
    base : int
        A multiple of the external memory's size.
    clock_mhz : float

    Members
    -------
    memory : ``In(memory_signature(...))``
    sck, cs_n : ``Out(1)``
    dq : ``Out({o: 4, oe: 1, i: 4})``
    """

    def __init__(self, config: Config, *, base: int, clock_mhz: float):
        size = EXTERNAL_WORDS * config.store_bytes
        require(base % size == 0, f"base must be a multiple of the external memory's {size} bytes, not {base}")
        require(base + size <= 1 << ADDRESS_BITS, f"base must leave {size} bytes of the flash, and {base} does not")
        self._config, self._base, self._clock_mhz = config, base, clock_mhz
        super().__init__(
            {
                "memory": In(memory_signature(store_bytes=config.store_bytes)),
                "sck": Out(1),
                "cs_n": Out(1, init=1),
                "dq": Out(wiring.Signature({"o": Out(4), "oe": Out(1), "i": In(4)})),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, memory = self._config, self.memory
        m.submodules.reader = reader = FlashReader(
            max_words=MOST_FETCHED, word_bytes=config.store_bytes, wake_cycles=math.ceil(WAKE_US * self._clock_mhz)
        )
        size = EXTERNAL_WORDS * config.store_bytes
        bits = ADDRESS_BITS - exact_log2(size)
        address = Cat(Const(0, exact_log2(config.store_bytes)), memory.request_address, Const(self._base // size, bits))
        m.d.comb += [
            reader.command.valid.eq(memory.request_valid),
            reader.command.p.address.eq(address),
            reader.command.p.words.eq(memory.request_words),
            memory.request_ready.eq(reader.command.ready),
            memory.valid.eq(reader.o.valid),
            memory.data.eq(reader.o.payload),
            reader.o.ready.eq(memory.ready),
            self.sck.eq(reader.sck),
            self.cs_n.eq(reader.cs_n),
            self.dq.o.eq(reader.dq.o),
            self.dq.oe.eq(reader.dq.oe),
            reader.dq.i.eq(self.dq.i),
        ]
        return m
