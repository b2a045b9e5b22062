"""The host's driver for a core behind a serial line or SPI: ``docs/uart.md`` and ``docs/spi.md`` are the protocols,
``docs/driver.md`` why this is safe.

The serial line may lose, double and change bytes, and its protocol has no checksum. What this driver does instead:

* It reads twice what matters, and behind each read the register ``ident``, whose value it knows: an answer with a byte too
  many or too few cannot pass.
* What it writes to the store it reads back; and it writes only what changes, so that a write to a wrong address shows.
* It starts a program from a state that says so: it lets the core fail with :data:`Error.MAGIC` first. The magic number is in
  the store only when all else has been found right.
* It knows where a program pauses, and how often, and that cycles only grow.
* A write that has gone wrong may have changed anything. Then nothing of the store is believed, and all begins anew.
"""

import binascii
import dataclasses
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from gossamer.golden.spec import (
    HEADER,
    HEADER_BYTES,
    MAGIC,
    REGISTERS,
    STEP_BYTES,
    STEP_HOST,
    STEP_LOOP,
    STORE_WINDOW,
    VERSION,
    Error,
    Field,
    Opcode,
    UserError,
)

__all__ = ["Board", "CoreError", "ImageError", "Inference", "Link", "LinkError", "Port", "SpiLink", "SpiPort", "open_port"]

T = TypeVar("T")

SYNC, READ, WRITE = 0xA7, 0x00, 0x01
DONE, BUS_ERROR, UNKNOWN = 0x50, 0x51, 0x52
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
        """Write whole words, at most ``MOST_WORDS``, without a second try: raises :class:`Trouble`, after which they, or
        others, may have been written or not."""
        assert 0 < len(data) // 4 <= MOST_WORDS
        assert len(data) % 4 == 0
        try:
            self._write(address, data)
        except Trouble:
            self._recover()
            raise

    def identify(self) -> None:
        """Begin, with whatever the board has been in. Raises :class:`LinkError`."""
        self.resynchronise()

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
        self._ident: bytes | None = None

    def identify(self) -> None:
        """Find out what reads compare ``ident`` with. Raises :class:`LinkError`."""
        self.resynchronise()

        def find() -> bytes:
            first, second = self._read(ADDRESS["ident"], 1), self._read(ADDRESS["ident"], 1)
            if first != second:
                raise Trouble("two reads of the register ident have differed")
            return first

        self._ident = None
        self._ident = self.retried(find)

    def resynchronise(self) -> None:
        """Wait until nothing comes any more, so that the bridge has dropped what it was given, and its answers are gone."""
        self._port.flush()
        self._port.timeout = self._silence
        for _ in range(100):
            if not self._port.read(4096):
                return
        raise LinkError("the serial line must be silent when it is not asked, and brings byte after byte")

    def _read(self, address: int, words: int) -> bytes:
        if self._port.in_waiting:
            self.resynchronise()
        data = self._answer(address, words)
        # A byte too many in front shifts the answer, and this one too, or waits.
        if self._port.in_waiting:
            raise Trouble("an answer was too long")
        if self._ident is not None and self._answer(ADDRESS["ident"], 1) != self._ident:
            raise Trouble("the register ident does not have its value")
        return data

    def _write(self, address: int, data: bytes) -> None:
        if self._port.in_waiting:
            self.resynchronise()
        self._send(WRITE, address, len(data) // 4, data)
        self._expect(self._receive(1))

    def _answer(self, address: int, words: int) -> bytes:
        self._send(READ, address, words)
        data = b""
        for at in range(words):
            if at == 0:
                self._expect(self._receive(1))
                answer = bytes([DONE]) + self._receive(5 * words - 1)
            self._expect(answer[5 * at : 5 * at + 1])
            data += answer[5 * at + 1 : 5 * at + 5]
        return data

    def _send(self, opcode: int, address: int, words: int, data: bytes = b"") -> None:
        self._sent = 6 + len(data)
        self._port.write(bytes([SYNC, opcode, *address.to_bytes(3, "little"), words - 1]) + data)

    def _receive(self, size: int) -> bytes:
        self._port.timeout = self._patience + 1.1 * (self._sent + size) * self._byte
        data = self._port.read(size)
        if len(data) < size:
            raise Trouble(f"an answer has ended {size - len(data)} bytes early")
        return data

    @staticmethod
    def _expect(status: bytes) -> None:
        if status != bytes([DONE]):
            known = {BUS_ERROR: "a bus error", UNKNOWN: "an unknown command"}
            raise Trouble(f"the status of an access was {known.get(status[0], f'{status[0]:#04x}')}")


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
        link.identify()
        self._fixed: tuple[int, ...] = ()
        first = self.state()
        self._fixed = first.words["ident"], first.words["store_words"]
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
        self._store, self._known = bytearray(self.store_size), bytearray(self.store_size // 4)  # what is where, if it is known
        self._image = b""
        self._warm = False

    def state(self) -> State:
        """The registers, which two reads agree about unless the core is busy."""

        def read() -> State:
            data = self.link.read(0, 4 * len(REGISTERS))
            words = {r.name: int.from_bytes(data[r.address : r.address + 4], "little") for r in REGISTERS}
            if self._fixed and (words["ident"], words["store_words"]) != self._fixed:
                raise Trouble("the registers ident and store_words do not have their values")
            return State(words)

        def agreed() -> State:
            first = read()
            second = first if first.busy else read()
            if second != first:
                raise Trouble("two reads of the registers have differed")
            return second

        return self.link.retried(agreed)

    def load(self, image: bytes, *, external: bool = False) -> None:
        """Write an image to the store, or find that it is there. ``external``: the external memory holds what belongs to it.

        Raises :class:`ImageError` and :class:`LinkError`.
        """
        self._check(image, external)
        self._image, self._warm = bytes(image), False
        self._settle()
        self._write_image(self._disarmed(warm=False))

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

    def _armed(self, *, warm: bool) -> bytes:
        """The image as it is started: its first step is that of the start that is wanted, whether that is cold or warm, so that
        nothing depends on the bit ``control.warm``."""
        value = int.from_bytes(self._image[:HEADER_BYTES], "little")
        for name in ("steps", "warm_steps"):
            layout = HEADER[name]
            value &= ~(((1 << layout.width) - 1) << layout.offset)
            value |= (self._warm_steps if warm else self._steps) << layout.offset
        return value.to_bytes(HEADER_BYTES, "little") + self._image[HEADER_BYTES:]

    def _disarmed(self, *, warm: bool) -> bytes:
        """The same without the magic number, so that no start can do anything."""
        return bytes(4) + self._armed(warm=warm)[4:]

    # The store

    def _repeated(self, action: Callable[[], T]) -> T:
        rule = "the link must be good enough for an inference, and was not"
        return _attempted(action, self._attempts, Disturbed, self._begin_anew, rule)

    def _begin_anew(self) -> None:
        self._known = bytearray(len(self._known))
        self._warm = False
        self._settle()

    def _settle(self) -> State:
        """Wait until the core is not busy."""
        deadline = time.monotonic() + self._limit
        while (state := self.state()).busy:
            if time.monotonic() > deadline:
                raise LinkError(f"the core must stop within {self._limit} s, and has not: reset the board")
        return state

    def _command(self, address: int, data: bytes) -> None:
        try:
            self.link.write(address, data)
        except Trouble as trouble:
            raise Disturbed(f"a write has gone wrong: {trouble}") from None

    def _write_image(self, data: bytes) -> None:
        """Have ``data`` at the start of the store, whatever happens to the rest. The last that is done is to read all of it."""
        # If the image may be there already, only what differs is written.
        head = self.link.read(STORE_WINDOW, HEADER_BYTES)
        found = None
        if head[STEP_BYTES:] == data[STEP_BYTES:HEADER_BYTES]:
            found = self._read_back(0, data)
        self._known = bytearray(len(self._known))
        for _ in range(self._attempts):
            if found == data:
                self._store[: len(data)] = data
                self._known[: len(data) // 4] = b"\1" * (len(data) // 4)
                return
            for run in _runs(_changes(found, data), self.link.words):
                with suppress(Trouble):
                    self.link.write(STORE_WINDOW + 4 * run.start, data[4 * run.start : 4 * run.stop])
            found = self._read_back(0, data)
        raise LinkError(f"the store must hold what is written to it, and has not in {self._attempts} attempts")

    def _put(self, address: int, data: bytes) -> None:
        """Have ``data`` in the store. Raises :class:`Disturbed` if that may have changed anything else."""
        words = slice(address // 4, (address + len(data)) // 4)
        known = all(self._known[words])
        if not known:
            self._store[address : address + len(data)] = self.link.read(STORE_WINDOW + address, len(data))
        changes = _changes(self._store[address : address + len(data)], data)
        self._known[words] = bytes(len(data) // 4)
        for run in _runs(changes, self.link.words):
            self._command(STORE_WINDOW + address + 4 * run.start, data[4 * run.start : 4 * run.stop])
        # What had been known to be right is not read again.
        first, last = (0, len(data)) if not known else (4 * changes[0], 4 * changes[-1] + 4) if changes else (0, 0)
        if self._read_back(address + first, data[first:last]) != data[first:last]:
            raise Disturbed("the store does not hold what was written")
        self._store[address : address + len(data)] = data
        self._known[words] = b"\1" * (len(data) // 4)

    def _read_back(self, address: int, data: bytes) -> bytes:
        """What is in the store where ``data`` should be. What differs is read twice: it may have come wrong."""
        found = bytearray(self.link.read(STORE_WINDOW + address, len(data)))
        for run in _runs(_changes(found, data), self.link.words):
            first, last = 4 * run.start, 4 * run.stop
            found[first:last] = self.link.read(STORE_WINDOW + address + first, last - first)
        return bytes(found)

    def _get(self, address: int, size: int) -> bytes:
        """Bytes of the store, as two reads find them."""

        def agreed() -> bytes:
            first, second = (self.link.read(STORE_WINDOW + address, size) for _ in range(2))
            if first != second:
                raise Trouble("two reads of the store have differed")
            return first

        return self.link.retried(agreed)

    # Inferences

    def _run(self, given: bytes, warm: bool) -> Inference:
        state = self._settle()
        # A start that fails: it ends a pause, and what it leaves is what no run of a program leaves.
        if not all(self._known[: len(self._image) // 4]):
            self._write_image(self._disarmed(warm=warm))
        self._put(0, self._disarmed(warm=warm))
        if not self._failed(state):
            self._command(ADDRESS["control"], _word(1))
            if not self._failed(self._settle()):
                raise Disturbed("the core has not failed where it must")
        if not self._gives:
            self._put(self._input.address, given)
        self._put(0, self._armed(warm=warm))
        self._warm = False
        behind = len(self._image) // 4
        self._known[behind:] = bytes(len(self._known) - behind)
        self._command(ADDRESS["control"], _word(1))
        output = bytearray(self._output.size)
        rows, cycles, pauses = [0, 0], -1, self._pauses(warm)
        while True:
            state = self._settle()
            if self._failed(state):
                raise Disturbed("the core has not started")
            if state.words["cycles"] <= cycles:
                raise Disturbed("the core has not gone on")
            cycles = state.words["cycles"]
            if not state.paused:
                break
            if state.words["step"] != next(pauses, -1):
                raise Disturbed("the core has paused where it should not")
            self._serve(state, given, output, rows)
            if self.state() != state:
                raise Disturbed("the core has gone on by itself")
            self._command(ADDRESS["control"], _word(8))
        if not state.done:
            raise Disturbed("the core is neither busy nor done")
        if state.error:
            raise CoreError(state.error, state.layer)
        if next(pauses, -1) != -1:
            raise Disturbed("the core has not paused where it should")
        if not self._takes:
            output[:] = self._get(self._output.address, len(output))
        if self.state() != state:
            raise Disturbed("the core has gone on by itself")
        self._warm = self._warm_steps != self._steps
        return Inference(bytes(output), cycles, warm)

    def _pauses(self, warm: bool) -> Iterator[int]:
        """What the register ``step`` is at each host step of a run, in their order."""
        at, turns = (self._warm_steps if warm else self._steps) * self.store_bytes, 0
        while True:
            step = self._image[at : at + STEP_BYTES]
            at += STEP_BYTES
            opcode = field(step, STEP_HOST["opcode"])
            if opcode == Opcode.HOST:
                yield at // self.store_bytes
            elif opcode == Opcode.LOOP:
                turns = turns + 1 if turns < field(step, STEP_LOOP["count"]) else 0
                if turns:
                    at = field(step, STEP_LOOP["in_address"]) * self.store_bytes
            elif opcode == Opcode.END or not step:
                return

    @staticmethod
    def _failed(state: State) -> bool:
        return bool(state.done) and state.error == Error.MAGIC

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
                output[tensor : tensor + size] = self._get(store, whole)[:size]
            else:
                self._put(store, given[tensor : tensor + size].ljust(whole, b"\0"))


def _word(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _changes(old: bytes | bytearray | None, new: bytes) -> list[int]:
    """The words that differ; all, if ``old`` is not known."""
    return [w for w in range(len(new) // 4) if old is None or old[4 * w : 4 * w + 4] != new[4 * w : 4 * w + 4]]


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
