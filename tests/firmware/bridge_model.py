"""The serial bridge as docs/uart.md describes it, and lines with faults in front of it."""

import os
import select
import threading
import time
import tty
from collections.abc import Callable

from tests.firmware.core_model import BusError, CoreModel

__all__ = ["BridgeModel", "FakePort", "PtyBoard", "checked", "clean", "crc"]

Fault = Callable[[str, int, int], list[int]]
"""What a line makes of a byte: of its direction, ``"to"`` the board or ``"from"`` it, its number there, and its value."""


def clean(direction: str, number: int, byte: int) -> list[int]:
    return [byte]


def crc(data: bytes) -> int:
    """The remainder that docs/uart.md means, as one finds it on paper: of the bits in the order of the line, with sixteen zeros
    behind, after 0xFFFF has been added to the first sixteen."""
    some = [byte >> bit & 1 for byte in data for bit in range(8)] + [0] * 16
    some[:16] = [bit ^ 1 for bit in some[:16]]
    for at in range(len(some) - 16):
        if some[at]:
            for place in (0, 4, 11, 16):
                some[at + place] ^= 1
    return sum(bit << place for place, bit in enumerate(some[-16:]))


def checked(data: bytes, part: bytes) -> bytes:
    """``part``, and the CRC of ``data`` and it."""
    return part + crc(data + part).to_bytes(2, "little")


class BridgeModel:
    """Takes bytes and silences, gives answers. ``core`` has ``read`` and ``write``, which raise :class:`BusError`.

    ``free`` gives the words that may be anything.
    """

    def __init__(self, core, free: Callable[[], int] = lambda: 0x600D):
        self.core, self.free, self.command, self.lost = core, free, b"", True

    def silence(self) -> None:
        self.command, self.lost = b"", False

    def feed(self, byte: int) -> bytes:
        if self.lost:
            return b""
        command = self.command = self.command + bytes([byte])
        header, data = command[:4], command[6:]
        if len(command) < 6:
            return b""
        address, words, write = int.from_bytes(header[:3], "little") & ~3, 256 - header[3], header[0] & 2
        if len(command) == 6:
            self.failed = False
            self.lost = command != checked(b"", header)
            if self.lost or write:
                return b""
            return self._answer(header, [self._access(address + 4 * at) for at in range(words)])
        if len(data) % 4 == 0 and len(data) < 4 * words:
            self._access(address + len(data) - 4, data[-4:])
        if len(data) < 4 * words + 2:
            return b""
        self.lost = data != checked(header, data[:-2])
        if self.lost:
            return b""
        self._access(address + 4 * words - 4, data[-6:-2])
        return self._answer(header + data[:-2], [])

    def _access(self, address: int, data: bytes = b"") -> int:
        try:
            if not self.failed:
                if data:
                    self.core.write(address, int.from_bytes(data, "little"))
                    return 0
                return self.core.read(address)
        except BusError:
            self.failed = True
        return self.free()

    def _answer(self, command: bytes, words: list[int]) -> bytes:
        self.command = b""
        status = b"\x33" if self.failed else b"\xcc"
        return checked(command, b"".join(word.to_bytes(4, "little") for word in words) + status)


class FakePort:
    """What is used of pyserial's ``Serial``, without time: who waits for a byte that does not come has waited for a silence.

    Bytes of a command behind an answer that comes too early are lost while it is sent. A fault that returns a number below 0
    delays the byte ``~number`` until the next command.
    """

    def __init__(self, core: CoreModel, fault: Fault = clean):
        self.bridge, self.fault, self.timeout = BridgeModel(core), fault, 0.0
        self.counts = {"to": 0, "from": 0}
        self._received, self._late = b"", b""

    @property
    def in_waiting(self) -> int:
        return len(self._received)

    def _through(self, direction: str, byte: int) -> list[int]:
        self.counts[direction] += 1
        return self.fault(direction, self.counts[direction] - 1, byte)

    def write(self, data: bytes) -> int:
        self._received, self._late = self._received + self._late, b""
        deaf = 0
        for byte in data:
            for arriving in self._through("to", byte):
                if deaf:
                    deaf -= 1
                    continue
                answer = self.bridge.feed(arriving)
                deaf = len(answer)
                for one in answer:
                    for back in self._through("from", one):
                        if back < 0:
                            self._late += bytes([~back])
                        else:
                            self._received += bytes([back])
        return len(data)

    def read(self, size: int) -> bytes:
        data, self._received = self._received[:size], self._received[size:]
        if len(data) < size:
            self.bridge.silence()
            self._received, self._late = self._late, b""
        return data

    def flush(self) -> None:
        pass


class PtyBoard:
    """A board on a pseudo-terminal, in a thread; ``port`` is the name of the line.

    ``silence`` are seconds. ``slow`` is called with each byte's direction, and may sleep.
    """

    def __init__(self, core: CoreModel, fault: Fault = clean, *, silence: float = 0.02):
        self._bridge, self._fault, self._silence = BridgeModel(core), fault, silence
        self._host, self._own = os.openpty()
        tty.setraw(self._own)
        self.port = os.ttyname(self._own)
        self.counts = {"to": 0, "from": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "PtyBoard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._host)
        os.close(self._own)

    def _through(self, direction: str, byte: int) -> list[int]:
        self.counts[direction] += 1
        return self._fault(direction, self.counts[direction] - 1, byte)

    def _serve(self) -> None:
        heard = time.monotonic()
        while not self._stop.is_set():
            if not select.select([self._host], [], [], self._silence / 4)[0]:
                if time.monotonic() - heard > self._silence:
                    self._bridge.silence()
                continue
            deaf, out = 0, b""
            for byte in os.read(self._host, 4096):
                for arriving in self._through("to", byte):
                    if deaf:
                        deaf -= 1
                        continue
                    answer = self._bridge.feed(arriving)
                    deaf = len(answer)
                    out += b"".join(bytes(self._through("from", one)) for one in answer)
            if out:
                os.write(self._host, out)
            heard = time.monotonic()
