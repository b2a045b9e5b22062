"""A Wishbone master for cocotb benches."""

from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, First, RisingEdge
from cocotb.utils import get_sim_time

__all__ = ["BusError", "WishboneMaster"]


class BusError(Exception):
    """An access was answered with ``err``."""


class WishboneMaster:
    """Reads and writes 32-bit words, back to back.

    It watches that the slave keeps its contract: an access is answered in its second cycle, by either ``ack`` or ``err``,
    for one cycle, from registers, and nothing is answered that was not asked for. A violation fails the test.

    Signals change and are looked at on the falling edge, where all that depends on the rising one is settled in every
    simulator. One master per test: it watches until the test ends.

    Parameters
    ----------
    dut : cocotb handle
        Has the ports ``clk`` and ``wb_…``.
    """

    def __init__(self, dut: Any):
        self._clk = dut.clk
        names = ("cyc", "stb", "we", "adr", "sel", "dat_w", "dat_r", "ack", "err")
        self._cyc, self._stb, self._we, self._adr, self._sel, self._dat_w, self._dat_r, self._ack, self._err = (
            getattr(dut, f"wb_{name}") for name in names
        )
        for signal in (self._cyc, self._stb, self._we, self._adr, self._sel, self._dat_w):
            signal.value = 0
        self._edge = -1.0  # when the last access ended
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        while True:
            await First(RisingEdge(self._ack), RisingEdge(self._err))
            assert (int(self._cyc.value), int(self._stb.value)) == (1, 1), "the bus must answer only what was asked"
            assert self._clk.value, "the bus must answer from registers"

    async def _access(self, address: int, write: int, value: int, sel: int) -> int:
        if get_sim_time() != self._edge:
            await FallingEdge(self._clk)
        self._cyc.value = self._stb.value = 1
        self._we.value = write
        self._adr.value = address >> 2
        self._sel.value = sel
        self._dat_w.value = value
        await FallingEdge(self._clk)
        ack, err, result = (int(signal.value) for signal in (self._ack, self._err, self._dat_r))
        assert ack + err == 1, f"ack or err must answer {address:#x} in the second cycle, not ack {ack} and err {err}"
        await FallingEdge(self._clk)
        assert int(self._ack.value) + int(self._err.value) == 0, f"the answer to {address:#x} must take one cycle"
        self._cyc.value = self._stb.value = 0  # the next access overrides this
        self._edge = get_sim_time()
        if err:
            raise BusError(f"bus error at {address:#x}")
        return result

    async def read(self, address: int) -> int:
        """The word at a byte address. Raises :class:`BusError`."""
        return await self._access(address, 0, 0, 0b1111)

    async def write(self, address: int, value: int, sel: int = 0b1111) -> None:
        """Write the bytes of ``value`` that ``sel`` selects. Raises :class:`BusError`."""
        await self._access(address, 1, value, sel)

    async def read_bytes(self, address: int, size: int) -> bytes:
        """``size`` bytes from a word address on; a multiple of four."""
        words = [await self.read(address + at) for at in range(0, size, 4)]
        return b"".join(word.to_bytes(4, "little") for word in words)

    async def write_bytes(self, address: int, data: bytes) -> None:
        """Write bytes from a word address on; a multiple of four."""
        for at in range(0, len(data), 4):
            await self.write(address + at, int.from_bytes(data[at : at + 4], "little"))
