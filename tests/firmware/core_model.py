"""Registers and store of a core, as a bus sees them; what a program does is the interpreter's."""

import dataclasses
import zlib

import numpy as np

from gossamer.golden.inference import infer
from gossamer.golden.interpreter import Machine, Run
from gossamer.golden.program import Program, decode, encode
from gossamer.golden.spec import (
    CODECS,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    REGISTERS,
    STEP_BYTES,
    STORE_WINDOW,
    VERSION,
    Config,
    Error,
    Opcode,
    UserError,
)

__all__ = ["BusError", "CoreModel", "counted"]

ADDRESSES = {register.address: register for register in REGISTERS}


class BusError(Exception):
    """The access ended with ``err``."""


class CoreModel:
    """A core whose programs run at once, but stay busy for ``patience`` reads of the status register.

    An image may begin with another step than its first, as warm starts do: ``first_step`` is the store word of the first, from
    which the interpreter knows how long the layer table is.

    ``cycles`` are not those of a core, but depend on all that was computed: see :func:`counted`. ``failure`` is the error code
    and the layer with which every program ends, instead of what it would do.
    """

    def __init__(self, config: Config, *, patience: int = 2):
        self.machine, self.config, self.patience = Machine(config), config, patience
        self.external = b""
        self.busy = self.done = self.refused = self.paused = self.error = self.layer = self.cycles = 0
        self.step = self.interrupt_enable = 0
        self.first_step: int | None = None
        self.failure: tuple[int, int] | None = None
        self.starts: list[str] = []  # "cold" or "warm", of programs, whose magic number was there
        self._left, self._running, self._program = 0, iter(()), (b"", None)

    @property
    def irq(self) -> bool:
        self._settle()
        return bool(self.interrupt_enable and not self.busy and (self.done or self.paused))

    def read(self, address: int) -> int:
        if address in ADDRESSES:
            if ADDRESSES[address].name == "status":
                self._settle()
            fixed = {"version": VERSION, "lanes": self.config.lanes, "store_bytes": self.config.store_bytes}
            fixed |= {"start": 0, "warm": 0, "resume": 0, "store_words": self.config.store_words}
            values = {**vars(self), **fixed}
            values |= {"done": self.done and not self.busy, "paused": self.paused and not self.busy}
            return sum(int(values[name]) << field.offset for name, field in ADDRESSES[address].fields.items())
        return int(self._words(address)[0])

    def write(self, address: int, word: int) -> None:
        if address not in ADDRESSES:
            self._words(address)[0] = word
        elif ADDRESSES[address].name == "control":
            self.interrupt_enable = word >> 1 & 1
            if word & 1 and not self.busy:
                self._start(bool(word & 4))
            elif word & 8 and self.paused and not self.busy:
                self.paused = 0
                self._go_on()

    def _words(self, address: int) -> np.ndarray:
        at = address - STORE_WINDOW
        if not 0 <= at < self.config.store_size or address % 4:
            raise BusError
        if self.busy:
            self.refused = 1
            raise BusError
        return self.machine.store[at : at + 4].view("<u4")

    def _settle(self) -> None:
        self._left -= self._left > 0
        self.busy = int(self._left > 0)

    def _start(self, warm: bool) -> None:
        self.done = self.refused = self.paused = self.error = self.layer = self.cycles = 0
        store = self.machine.store
        header = decode(HEADER, store[:HEADER_BYTES].tobytes())
        wrong_config = (header["lanes"], header["store_bytes"]) != (self.config.lanes, self.config.store_bytes)
        wrong_config |= header["codec"] not in (0, CODECS.index(self.config.codec))
        wrong_config |= 1 << header["codec_streams"] != (self.config.codec_streams if header["codec"] else 1)
        if header["magic"] != MAGIC:
            self.error = Error.MAGIC
        elif header["version"] != VERSION:
            self.error = Error.VERSION
        elif wrong_config:
            self.error = Error.CONFIG
        else:
            warm |= self.first_step is not None and header["steps"] != self.first_step
            self.starts.append("warm" if warm else "cold")
        if self.failure and not self.error:
            self.error, self.layer = self.failure
        self._running = iter(())
        if not self.error:
            image = store[: header["image_words"] * self.config.store_bytes].tobytes()
            try:
                if image != self._program[0]:
                    self._program = image, self._disassembled(image)
                self._running = self.machine.execute(self._program[1], warm=warm)
            except UserError:
                self.error = Error.OPCODE
        self._go_on()

    def _disassembled(self, image: bytes) -> Program:
        """The core looks neither at the CRC nor at what only hosts need."""
        header = decode(HEADER, image[:HEADER_BYTES]) | {"crc": 0}
        if self.first_step is not None:
            header["steps"] = self.first_step
        crc = zlib.crc32(encode(HEADER, header, HEADER_BYTES) + image[HEADER_BYTES:])
        image = encode(HEADER, header | {"crc": crc}, HEADER_BYTES) + image[HEADER_BYTES:]
        program = Program.disassemble(image, self.config)
        return dataclasses.replace(program, external=self.external)

    def _go_on(self) -> None:
        self._left = self.patience
        self.busy = int(self.patience > 0)
        size = self.config.store_bytes
        try:
            for step in self._running:
                self.cycles += counted(step)
                self.step = self._program[1].step_word(self.machine.step) + STEP_BYTES // size
                if not isinstance(step, Run) and step["opcode"] == Opcode.HOST:
                    self.paused = 1
                    return
                if isinstance(step, Run):
                    self.layer = step.step["layer"]
        except (UserError, IndexError, ValueError):
            self.error = self.error or Error.READ
        self.done = 1


def counted(step) -> int:
    """The cycles of a step in this model."""
    if not isinstance(step, Run):
        return 10
    return 10 + int(step.output[:, :, :, : step.layer["last_lanes"]].sum(dtype=np.int64)) % 100_000


def expected_output(compiled, x) -> np.ndarray:
    """The device's output by the interpreter."""
    return infer(compiled, x, count=False).output
