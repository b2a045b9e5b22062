"""The serial bridge as docs/uart.md describes it, and lines with faults in front of it."""

import os
import select
import threading
import time
import tty
from collections.abc import Callable

from tests.firmware.core_model import BusError, CoreModel

__all__ = ["BridgeModel", "FakePort", "PtyBoard", "clean"]

Fault = Callable[[str, int, int], list[int]]
"""What a line makes of a byte: of its direction, ``"to"`` the board or ``"from"`` it, its number there, and its value."""


def clean(direction: str, number: int, byte: int) -> list[int]:
    return [byte]


class BridgeModel:
    """Takes bytes and silences, gives answers."""

    def __init__(self, core: CoreModel):
        self.core, self.command, self.lost = core, b"", False

    def silence(self) -> None:
        self.command, self.lost = b"", False

    def feed(self, byte: int) -> bytes:
        if self.lost:
            return b""
        command = self.command = self.command + bytes([byte])
        if command[0] != 0xA7:
            self.lost = True
        if len(command) == 2 and byte > 1:
            self.lost = True
            return b"\x52"
        if len(command) < 6:
            return b""
        address, words = int.from_bytes(command[2:5], "little"), command[5] + 1
        if command[1] == 0:
            self.command = b""
            return self._read(address, words)
        data = command[6:]
        if len(data) % 4 == 0 and data:
            if len(data) == 4:
                self._failed = address % 4 != 0
            self._write(address + len(data) - 4, data[-4:])
        if len(data) < 4 * words:
            return b""
        self.command = b""
        return b"\x51" if self._failed else b"\x50"

    def _write(self, address: int, data: bytes) -> None:
        try:
            if not self._failed:
                self.core.write(address % (1 << 24), int.from_bytes(data, "little"))
        except BusError:
            self._failed = True

    def _read(self, address: int, words: int) -> bytes:
        answer = b""
        for at in range(address, address + 4 * words, 4):
            try:
                if at % 4:
                    raise BusError
                answer += b"\x50" + self.core.read(at % (1 << 24)).to_bytes(4, "little")
            except BusError:
                return answer + b"\x51"
        return answer


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
