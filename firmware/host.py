"""The host's driver for a core behind a serial line or SPI: ``docs/uart.md`` and ``docs/spi.md`` are the protocols,
``docs/driver.md`` why this is safe.

Commands and answers have CRCs. A read whose answer is not right is tried again. A write that is answered has been done,
once, with what was asked; behind one that is not, nothing that is in the store is believed, and an inference begins anew.
"""

import binascii
import dataclasses
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from gossamer.golden.spec import (
    HEADER,
    HEADER_BYTES,
    MAGIC,
    REGISTERS,
    STEP_BYTES,
    STEP_HOST,
    STORE_WINDOW,
    VERSION,
    Error,
    Field,
    Opcode,
    UserError,
)

__all__ = ["Board", "CoreError", "ImageError", "Inference", "Link", "LinkError", "Port", "SpiLink", "SpiPort", "open_port"]

T = TypeVar("T")

DONE, BUS_ERROR = 0xCC, 0x33
START = 0xFFFF
"""The serial line's CRC in front of a command."""

TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""The bits of bytes in reverse order: on the line the least significant comes first, but binascii begins with the other."""

LEAST_WORDS, MOST_WORDS = 8, 256
"""Of a command: on a line with many errors, and as the protocol has it."""

GAP = 4
"""A write goes on over so many words that do not change: as many bytes as two commands more would take."""

ADDRESS = {register.name: register.address for register in REGISTERS}
FIELDS = {register.name: register.fields for register in REGISTERS}


class LinkError(UserError, RuntimeError):
    """The board does not answer, or not in a way that makes sense, however often it is asked; one sentence."""


class CoreError(UserError, RuntimeError):
    """The core has stopped with an error; one sentence. ``code`` is of :class:`Error`, ``layer`` a layer table entry."""

    def __init__(self, code: int, layer: int):
        super().__init__(f"the core stopped with error {code} in layer {layer}: {Error.TEXT.get(code, 'unknown')}")
        self.code, self.layer = code, layer


class ImageError(UserError, ValueError):
    """The image is damaged, or not for this core; one sentence with the rule and the value."""


class Trouble(Exception):
    """A command has not been answered as it should be."""


class Disturbed(Exception):
    """Something on the board is not as it was left; an inference must begin anew."""


def _attempted(
    action: Callable[[], T], attempts: int, trouble: type[Exception], recover: Callable[[], None], rule: str
) -> T:
    """What ``action`` returns when it raises no ``trouble``; behind each comes ``recover``. Raises :class:`LinkError`."""
    last = ""
    for _ in range(attempts):
        try:
            return action()
        except trouble as found:
            last = str(found)
            recover()
    raise LinkError(f"{rule} in {attempts} attempts: {last}")


class Port(Protocol):
    """What is used of pyserial's ``Serial``."""

    timeout: float | None

    @property
    def in_waiting(self) -> int: ...
    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes) -> Any: ...
    def flush(self) -> None: ...


def open_port(name: str, baud: int) -> Port:
    """The serial port called ``name``. Raises :class:`LinkError`."""
    try:
        import serial
    except ImportError:
        raise LinkError("a serial port needs pyserial: install it with `pip install 'gossamer[host]'`") from None
    try:
        return serial.Serial(name, baud, timeout=1, exclusive=True)
    except (OSError, ValueError) as error:  # SerialException is an OSError
        raise LinkError(f"the serial port {name} must be one that can be opened: {error}") from None


def field(record: bytes, layout: Field) -> int:
    """A field of a record; none here is signed."""
    return int.from_bytes(record, "little") >> layout.offset & (1 << layout.width) - 1


class Access:
    """Reads and writes words on a board's bus, by commands that may go wrong.

    Parameters
    ----------
    retries : int
        How often a read is tried.

    Attributes
    ----------
    troubles : int
        Commands that were not answered as they should be.
    words : int
        Of the next command at most; fewer behind each trouble.
    """

    PROTOCOL: str
    """The page that has it."""

    def __init__(self, retries: int):
        self._retries = retries
        self.troubles, self.words = 0, MOST_WORDS

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes, whole words. Tries again after errors. Raises :class:`LinkError`."""
        data = bytearray()

        def piece() -> bytes:
            return self._read(address + len(data), min(self.words, (size - len(data)) // 4))

        while len(data) < size:
            data += self.retried(piece)
            self.words = min(self.words + self.words // 8 + 1, MOST_WORDS)
        return bytes(data)

    def write(self, address: int, data: bytes) -> None:
        """Write whole words, at most ``MOST_WORDS``, once. Raises :class:`Trouble`, after which they may have been written, or
        something else in their place, or nothing."""
        assert 0 < len(data) // 4 <= MOST_WORDS
        assert len(data) % 4 == 0
        try:
            self._write(address, data)
        except Trouble:
            self._recover()
            raise

    def retried(self, action: Callable[[], T]) -> T:
        """What ``action`` returns when it raises no :class:`Trouble`. Raises :class:`LinkError`."""
        rule = f"the board must answer as {self.PROTOCOL} says, and has not"
        return _attempted(action, self._retries, Trouble, self._recover, rule)

    def _recover(self) -> None:
        self.troubles += 1
        self.words = max(self.words // 2, LEAST_WORDS)
        self.resynchronise()

    def resynchronise(self) -> None:
        """See to it that the next bytes are taken for a command."""

    def _read(self, address: int, words: int) -> bytes:
        """One command. Raises :class:`Trouble`."""
        raise NotImplementedError

    def _write(self, address: int, data: bytes) -> None:
        """One command. Raises :class:`Trouble`."""
        raise NotImplementedError


class Link(Access):
    """Access over a serial line.

    Parameters
    ----------
    port : Port
    baud : int
        Bits per second, to know how long an answer takes.
    silence : float
        Seconds; more than the bridge's ``silence``, twice that is safe.
    patience : float
        Seconds that an answer may take longer than on the line.
    retries : int
        How often a read is tried.
    """

    PROTOCOL = "docs/uart.md"

    def __init__(self, port: Port, *, baud: int = 1_000_000, silence: float = 0.1, patience: float = 0.3, retries: int = 10):
        super().__init__(retries)
        self._port, self._byte, self._silence, self._patience = port, 10 / baud, silence, patience
        self._tag = 0

    def resynchronise(self) -> None:
        """Wait until nothing comes any more, so that the bridge has dropped what it was given, and its answers are gone."""
        self._port.flush()
        self._port.timeout = self._silence
        for _ in range(100):
            if not self._port.read(4096):
                return
        raise LinkError("the serial line must be silent when it is not asked, and brings byte after byte")

    def _read(self, address: int, words: int) -> bytes:
        return self._command(address, words, b"")

    def _write(self, address: int, data: bytes) -> None:
        self._command(address, len(data) // 4, data)

    def _command(self, address: int, words: int, data: bytes) -> bytes:
        """The words of the answer. What is written is not empty."""
        if self._port.in_waiting:
            self.resynchronise()
        self._tag ^= 1  # a late answer to the command before does not pass for one to this
        header = struct.pack("<I", -words % 256 << 24 | address | bool(data) << 1 | self._tag)
        crc = _crc(header, START)
        sent = header + _sent(crc)
        if data:
            crc = _crc(data, crc)
            sent += data + _sent(crc)
        self._port.write(sent)
        size = 3 + (0 if data else 4 * words)
        self._port.timeout = self._patience + 1.1 * (len(sent) + size) * self._byte
        answer = self._port.read(size)
        if len(answer) < size:
            raise Trouble(f"an answer has ended {size - len(answer)} bytes early")
        status, expected = answer[-3], _sent(_crc(answer[:-2], crc))
        if answer[-2:] != expected:
            raise Trouble(f"the CRC of an answer was {answer[-2:].hex()} in place of {expected.hex()}")
        if status != DONE:
            raise Trouble(f"the status of a command was {'a bus error' if status == BUS_ERROR else f'{status:#04x}'}")
        return answer[:-3]


def _crc(data: bytes, crc: int) -> int:
    """The CRC behind ``data`` when it was ``crc`` in front."""
    return binascii.crc_hqx(data.translate(TURNED), crc)


def _sent(crc: int) -> bytes:
    """Its two bytes on the line."""
    return crc.to_bytes(2, "big").translate(TURNED)


class SpiPort(Protocol):
    """What is used of a controller on SPI, in mode 0 and at no more than a sixth of the core's clock."""

    def transfer(self, data: bytes) -> bytes:
        """What comes while ``data`` goes, with chip select low meanwhile."""
        ...


class SpiLink(Access):
    """Access over SPI. What the wires change shows in a CRC, which is asked for behind each command.

    Parameters
    ----------
    port : SpiPort
    retries : int
    """

    PROTOCOL = "docs/spi.md"

    def __init__(self, port: SpiPort, *, retries: int = 10):
        super().__init__(retries)
        self._port = port

    def _write(self, address: int, data: bytes) -> None:
        words = len(data) // 4
        self._command(address, struct.pack(f">{words}I", *struct.unpack(f"<{words}I", data)), write=True)

    def _read(self, address: int, words: int) -> bytes:
        seen = self._command(address, b"\0\0\0\1" * words + bytes(5), write=False)
        found = int.from_bytes(seen[4:], "big") >> 7 & (1 << 32 * words) - 1
        return struct.pack(f"<{words}I", *struct.unpack(f">{words}I", found.to_bytes(4 * words, "big")))

    def _command(self, address: int, data: bytes, *, write: bool) -> bytes:
        """What comes while ``data`` goes."""
        header = _spi_header(address, write)
        seen, status = self._port.transfer(header + data), self._port.transfer(bytes(3))
        if len(seen) != len(header + data) or len(status) != 3:
            raise Trouble("an answer had another length than what was sent")
        failed, crc = status[0] >> 7, int.from_bytes(status, "big") >> 7 & 0xFFFF
        seen = seen[len(header) :]
        counted = data if write else bytes(out ^ back for out, back in zip(data, seen, strict=True))
        # The CRC of what stands in front of two bytes, times x^16; their own remainder is they themselves.
        expected = binascii.crc_hqx(header + counted[:-2], 0) ^ int.from_bytes(counted[-2:], "big")
        if crc != expected:
            raise Trouble(f"the CRC of a command was {crc:#06x} in place of {expected:#06x}")
        if failed:
            raise Trouble("the status of a command was a bus error")
        return seen


def _spi_header(address: int, write: bool) -> bytes:
    """The first six bytes of a command: the seed is where division would have to begin to end at 0xFFFF."""
    header = write << 22 | address >> 2
    seed = 0xFFFF
    for bit in range(32):
        seed ^= header >> bit & 1
        seed = (seed ^ 0x11021 * (seed & 1)) >> 1
    return struct.pack(">HI", seed, header)


@dataclasses.dataclass(frozen=True)
class State:
    """The registers."""

    words: Mapping[str, int]

    def __getattr__(self, name: str) -> int:
        """A field of the register ``status``."""
        layout = FIELDS["status"][name]
        return self.words["status"] >> layout.offset & (1 << layout.width) - 1


@dataclasses.dataclass(frozen=True)
class Inference:
    """``output`` as it lies in the store, or as host steps have taken it; ``warm``: without the loads of what had stayed."""

    output: bytes
    cycles: int
    warm: bool


@dataclasses.dataclass(frozen=True)
class Place:
    """A tensor's place; see :class:`gossamer.golden.program.TensorPlace`."""

    address: int
    rows: int
    columns: int
    pitch: int
    row_bytes: int

    @property
    def size(self) -> int:
        return self.rows * self.row_bytes


class Board:
    """A core behind a link. What it returns is right, or it raises :class:`LinkError`, :class:`CoreError` or
    :class:`ImageError`.

    Parameters
    ----------
    link : Link or SpiLink
    attempts : int
        How often loading and an inference are begun anew when something has gone wrong on the way.
    limit : float
        Seconds that the core may be busy without a pause.
    """

    def __init__(self, link: Access, *, attempts: int = 10, limit: float = 60.0):
        self.link, self._attempts, self._limit = link, attempts, limit
        link.resynchronise()
        first = self.state()
        version, self.lanes, self.store_bytes = (
            first.words["ident"] >> layout.offset & (1 << layout.width) - 1 for layout in FIELDS["ident"].values()
        )
        if version != VERSION:
            raise LinkError(f"the core must have image version {VERSION}, not {version}")
        words = first.words["store_words"]
        if self.store_bytes not in (8, 16) or self.lanes % self.store_bytes or not self.lanes or not 256 <= words <= 1 << 19:
            raise LinkError(
                f"the core must be one of this project, not one of {self.lanes} lanes and {words} store words of "
                f"{self.store_bytes} bytes"
            )
        self.store_size = first.words["store_words"] * self.store_bytes
        self._image = b""
        self._there = self._warm = False  # the image is in the store, and so are the buffers' contents

    def state(self) -> State:
        """The registers. Those behind ``status`` are read behind it: if the core is not busy, they belong together."""
        data = self.link.read(0, 4 * len(REGISTERS))
        return State({r.name: int.from_bytes(data[r.address : r.address + 4], "little") for r in REGISTERS})

    def load(self, image: bytes, *, external: bool = False) -> None:
        """Write an image to the store, or find that it is there. ``external``: the external memory holds what belongs to it.

        Raises :class:`ImageError` and :class:`LinkError`.
        """
        self._check(image, external)
        self._image, self._there, self._warm = bytes(image), False, False
        self._settle()
        self._write_image()

    def run(self, given: bytes, *, warm: bool = True) -> Inference:
        """Run the program that was loaded. ``given`` is the input as it lies in the store.

        The start is warm if the last run of this program has come to its end, unless ``warm`` is false. Raises
        :class:`CoreError` and :class:`LinkError`.
        """
        if not self._image:
            raise ImageError("an image must be loaded before it can run")
        if len(given) != self._input.size:
            raise ImageError(f"the input must have {self._input.size} bytes, not {len(given)}")
        return self._repeated(lambda: self._run(bytes(given), warm and self._warm))

    # Images

    def _check(self, image: bytes, external: bool) -> None:
        least = HEADER_BYTES + STEP_BYTES
        if len(image) < least:
            raise ImageError(f"an image must have at least {least} bytes, not {len(image)}")
        header = {name: field(image[:HEADER_BYTES], layout) for name, layout in HEADER.items()}
        for name, value in (
            ("magic", MAGIC),
            ("version", VERSION),
            ("lanes", self.lanes),
            ("store_bytes", self.store_bytes),
            ("image_words", len(image) // self.store_bytes),
        ):
            if header[name] != value:
                raise ImageError(f"the image's {name} must be {value:#x}, not {header[name]:#x}")
        at = HEADER["crc"].offset // 8
        crc = zlib.crc32(image[:at] + bytes(4) + image[at + 4 :])
        if crc != header["crc"] or len(image) % self.store_bytes:
            raise ImageError(f"the image's CRC must be {crc:#010x}, not {header['crc']:#010x}: it is damaged")
        if max(header["end_address"], len(image)) > self.store_size:
            raise ImageError(f"the image and its activations must fit {self.store_size} bytes, not {header['end_address']}")
        if header["external_words"] and not external:
            raise ImageError(
                f"the board's flash must hold the {header['external_words'] * self.store_bytes} bytes of external.bin, and "
                "nobody has said that it does"
            )
        places = []
        for name in ("input", "output"):
            address, rows, columns, pitch = (header[f"{name}_{key}"] for key in ("address", "rows", "columns", "pitch"))
            places.append(Place(address, rows, columns, pitch, self._whole_words(columns * pitch)))
        self._input, self._output = places
        self._steps, self._warm_steps = header["steps"], header["warm_steps"]
        directions = set()
        for at in range(header["steps"] * self.store_bytes, len(image) - STEP_BYTES + 1, STEP_BYTES):
            step = image[at : at + STEP_BYTES]
            if field(step, STEP_HOST["opcode"]) == Opcode.END:
                break
            if field(step, STEP_HOST["opcode"]) == Opcode.HOST:
                directions.add(field(step, STEP_HOST["take"]))
        else:
            raise ImageError("an image's steps must end with an END step, not with the image")
        self._gives, self._takes = 0 in directions, 1 in directions
        for place, elsewhere in ((self._input, self._gives), (self._output, self._takes)):
            if not elsewhere and (place.address % 4 or place.address + place.size > self.store_size):
                raise ImageError(f"a tensor must be within {self.store_size} bytes, not from {place.address} on")

    def _whole_words(self, size: int) -> int:
        return -(-size // self.store_bytes) * self.store_bytes

    # The store

    def _repeated(self, action: Callable[[], T]) -> T:
        rule = "the link must be good enough for an inference, and was not"
        return _attempted(action, self._attempts, Disturbed, self._begin_anew, rule)

    def _begin_anew(self) -> None:
        self._there = self._warm = False
        self._settle()

    def _settle(self) -> State:
        """Wait until the core is not busy."""
        deadline = time.monotonic() + self._limit
        while (state := self.state()).busy:
            if time.monotonic() > deadline:
                raise LinkError(f"the core must stop within {self._limit} s, and has not: reset the board")
        return state

    def _control(self, **bits: int) -> None:
        """Write the register. Raises :class:`Disturbed`."""
        word = sum(bit << FIELDS["control"][name].offset for name, bit in bits.items())
        self._write(ADDRESS["control"], word.to_bytes(4, "little"))

    def _write(self, address: int, data: bytes) -> None:
        try:
            self.link.write(address, data)
        except Trouble as trouble:
            raise Disturbed(f"a write has gone wrong: {trouble}") from None

    def _write_image(self) -> None:
        """Have the image at the start of the store."""
        image, found = self._image, b""
        # If it may be there already, only what differs is written.
        if self.link.read(STORE_WINDOW, HEADER_BYTES) == image[:HEADER_BYTES]:
            found = self.link.read(STORE_WINDOW, len(image))
        for _ in range(self._attempts):
            troubles = self.link.troubles
            for run in _runs(_changes(found, image), self.link.words):
                with suppress(Trouble):
                    self.link.write(STORE_WINDOW + 4 * run.start, image[4 * run.start : 4 * run.stop])
            if self.link.troubles == troubles:
                self._there = True
                return
            self._settle()
            found = self.link.read(STORE_WINDOW, len(image))
        raise LinkError(f"the store must take what is written to it, and has not in {self._attempts} attempts")

    def _put(self, address: int, data: bytes) -> None:
        """Write to the store. Raises :class:`Disturbed`."""
        most = 4 * self.link.words
        for at in range(0, len(data), most):
            self._write(STORE_WINDOW + address + at, data[at : at + most])

    # Inferences

    def _run(self, given: bytes, warm: bool) -> Inference:
        self._settle()
        if not self._there:
            self._write_image()
        if not self._gives:
            self._put(self._input.address, given)
        self._warm = False
        self._control(start=1, warm=warm)
        output, rows = bytearray(self._output.size), [0, 0]
        while (state := self._settle()).paused:
            self._serve(state, given, output, rows)
            self._control(resume=1)
        if not state.done or state.error == Error.MAGIC:
            raise Disturbed("the board does not do what it was told; it may have been reset")
        if state.error:
            raise CoreError(state.error, state.layer)
        if not self._takes:
            output[:] = self.link.read(STORE_WINDOW + self._output.address, len(output))
        self._warm = self._warm_steps != self._steps
        return Inference(bytes(output), state.words["cycles"], warm)

    def _serve(self, state: State, given: bytes, output: bytearray, rows: list[int]) -> None:
        """Do what a host step says; see :class:`gossamer.golden.host.Host`."""
        at = state.words["step"] * self.store_bytes - STEP_BYTES
        record = self._image[max(at, 0) : at + STEP_BYTES]
        step = {name: field(record, layout) for name, layout in STEP_HOST.items()}
        if len(record) < STEP_BYTES or step["opcode"] != Opcode.HOST:
            raise Disturbed("the core has paused where there is no host step")
        take = step["take"]
        place, first = (self._output if take else self._input), 0 if step["first"] else rows[take]
        rows[take] = first + step["rows"]
        start, size = step["column"] * place.pitch, step["columns"] * place.pitch
        whole, apart = self._whole_words(size), step["row_words"] * self.store_bytes
        end = step["in_address"] * self.store_bytes + (step["rows"] - 1) * apart + whole
        if rows[take] > place.rows or start + size > place.columns * place.pitch or end > self.store_size or not size:
            raise ImageError(f"a host step must be for rows and columns that the tensor has, not up to row {rows[take] - 1}")
        for row in range(step["rows"]):
            store = step["in_address"] * self.store_bytes + row * apart
            tensor = (first + row) * place.row_bytes + start
            if take:
                output[tensor : tensor + size] = self.link.read(STORE_WINDOW + store, whole)[:size]
            else:
                self._put(store, given[tensor : tensor + size].ljust(whole, b"\0"))


def _changes(old: bytes, new: bytes) -> list[int]:
    """The words of ``new`` that are not in ``old``."""
    return [word for word in range(len(new) // 4) if old[4 * word : 4 * word + 4] != new[4 * word : 4 * word + 4]]


def _runs(words: list[int], most: int) -> list[range]:
    """Ranges of up to ``most`` words for one write each. They begin and end with words of the list, and have no others but for
    small gaps."""
    runs: list[range] = []
    for word in words:
        if runs and word - runs[-1].stop <= GAP and word - runs[-1].start < most:
            runs[-1] = range(runs[-1].start, word + 1)
        else:
            runs.append(range(word, word + 1))
    return runs
