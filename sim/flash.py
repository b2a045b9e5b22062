"""A serial flash behind registered pins, for Amaranth's own simulator."""

from math import ceil
from typing import Any

__all__ = ["Flash", "FlashError"]

# Ref: Winbond, "W25Q128JV-DTR 3V 128M-Bit Serial Flash Memory", Rev. C (March 2018), sections 8.2 and 9.6.

T_RES1_NS = 3000  # from the end of the release from power-down to the next selection
T_SHSL1_NS = 10  # deselected after a read
T_SHSL2_NS = 50  # deselected after anything else

BYTES = 1 << 24


class FlashError(AssertionError):
    """What the flash would not have understood; one sentence with the cycle."""


class Flash:
    """The instructions that :class:`gossamer.hdl.flash_reader.FlashReader` uses of a W25Q128JV, and its pins' registers.

    The pins have in a cycle what the reader put out in the cycle before; ``sck`` is a pulse in the second half of the pins'
    cycle. The flash takes what is on the lines at the pulse's rise and changes what it drives after its fall. ``dq.i`` is
    what was on the lines in the cycle before.

    An instruction that ends early is ignored, as after a reset of the reader. Everything else that the flash ignores or
    misunderstands is a :class:`FlashError`.

    Parameters
    ----------
    reader : Component
        Has ``sck``, ``cs_n`` and ``dq``.
    image : bytes
        Contents from address 0 on; the rest is erased.
    clock_mhz : float
        Turns the data sheet's times into cycles.
    asleep : bool
        In power-down, as configuration leaves the flash.
    quad : bool
        QE: four lines may be used. Of some parts this is fixed.

    Attributes
    ----------
    asleep, quad : bool
    log : list of ``(cycle, instruction, address, nibbles)``
        Instructions that were executed: the pins' first cycle with the flash selected; address and number of nibbles
        that were asked for if it was a read, else ``None``.
    ignored : int
        Number of selections that ended early.
    """

    def __init__(
        self, reader: Any, image: bytes, *, clock_mhz: float = 24, asleep: bool = True, quad: bool = False
    ) -> None:
        self.asleep, self.quad = asleep, quad
        self.log: list[tuple[int, int, int | None, int | None]] = []
        self.ignored = 0
        self._reader, self._image, self._clock_mhz = reader, image, clock_mhz
        self._cycle = 0
        self._selected = False
        self._free = 0  # the first cycle in which the flash may be selected
        self._volatile = False  # 0x50 was the last instruction
        self._begin(0)

    async def run(self, ctx: Any) -> None:
        """The testbench; runs for ever. Raises :class:`FlashError`."""
        reader, before, lines = self._reader, 0, 0
        while True:
            ctx.set(reader.dq.i, before)
            _, _, sck, cs_n, o, oe = await ctx.tick().sample(reader.sck, reader.cs_n, reader.dq.o, reader.dq.oe)
            self._cycle += 1
            before, lines = lines, self._pins(bool(sck), bool(cs_n), o if oe else None)

    def _pins(self, sck: bool, cs_n: bool, o: int | None) -> int:
        """A cycle of the pins; ``o`` is what the reader drives. Returns what is on the lines."""
        self._require(not (cs_n and sck), "the clock must rest while the flash is not selected")
        if self._selected and cs_n:
            self._end()
        elif not self._selected and not cs_n:
            self._require(self._cycle >= self._free, f"the flash must not be selected before cycle {self._free}")
            self._begin(self._cycle)
        self._selected = not cs_n
        driven = self._nibble()
        self._require(driven is None or o is None, "reader and flash must not drive the lines at once")
        if sck:
            self._clock(o)
        floating = 0x5 if self._cycle & 1 else 0xA
        return o if o is not None else driven if driven is not None else floating

    def _begin(self, cycle: int) -> None:
        self._since = cycle
        self._clocks = 0  # how many there were
        self._sent: list[int] = []  # bits, and after the instruction 0xEB nibbles
        self._instruction = 0

    def _clock(self, o: int | None) -> None:
        place = self._clocks
        self._clocks += 1
        quad_read = place >= 8 and self._instruction == 0xEB
        if quad_read and place >= 16:
            return
        self._require(o is not None, "the reader must drive the lines while it sends")
        assert o is not None
        self._require(self.quad or o >> 2 == 3, "IO2 and IO3 must be high while QE is 0: they are /WP and /HOLD")
        self._sent.append(o if quad_read else o & 1)
        if place == 7:
            self._instruction = _number(self._sent, 1)
            self._check_instruction()
        if quad_read and place == 15:
            self._require(self._sent[14] == 0xF, "the mode bits must be 0xFx")

    def _check_instruction(self) -> None:
        name = f"{self._instruction:#04x}"
        self._require(not self.asleep or self._instruction == 0xAB, f"in power-down instruction {name} must not be sent")
        self._require(self._instruction in (0xAB, 0x50, 0x31, 0xEB), f"instruction {name} must be one that the model has")
        self._require(self._instruction != 0xEB or self.quad, "QE must be 1 for a read over four lines")
        self._require(self._instruction != 0x31 or self._volatile, "0x50 must come before 0x31")

    def _nibble(self) -> int | None:
        """What the flash drives."""
        if not self._selected or self._instruction != 0xEB or self._clocks < 20:
            return None
        place = self._clocks - 20
        address = (_number(self._sent[8:14], 4) + place // 2) % BYTES
        byte = self._image[address] if address < len(self._image) else 0xFF
        return byte & 15 if place & 1 else byte >> 4

    def _end(self) -> None:
        """The flash is deselected in this cycle."""
        instruction, clocks = self._instruction, self._clocks
        nanoseconds = T_SHSL2_NS
        address = nibbles = None
        if instruction == 0xEB:
            nanoseconds = T_SHSL1_NS
            needed = 20
            address, nibbles = _number(self._sent[8:14], 4), clocks - needed
        else:
            needed = 16 if instruction == 0x31 else 8
            self._require(clocks <= needed, f"instruction {instruction:#04x} must have {needed} clocks, not {clocks}")
        if clocks < needed:
            self.ignored += 1
        else:
            self.log.append((self._since, instruction, address, nibbles))
            if instruction == 0xAB:
                nanoseconds = T_RES1_NS
                self.asleep = False
            elif instruction == 0x31:
                status = _number(self._sent[8:], 1)
                self._require(status & ~2 == 0, f"of the status only QE must be set, not {status:#04x}")
                self.quad = bool(status)
        self._volatile = instruction == 0x50 and clocks == needed
        self._free = self._cycle + ceil(nanoseconds * self._clock_mhz / 1000)

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise FlashError(f"{message}, in cycle {self._cycle}")


def _number(digits: list[int], bits: int) -> int:
    """Digits of ``bits`` bits, the most significant first, as a number."""
    value = 0
    for digit in digits:
        value = value << bits | digit
    return value
