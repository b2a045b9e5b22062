"""The SPI target as docs/spi.md describes it, bit by bit, and its wires."""

from collections.abc import Callable

from tests.firmware.core_model import BusError

__all__ = ["SpiModel", "Wires", "bits", "divided", "seed", "value"]


def bits(data: bytes) -> list[int]:
    return [byte >> bit & 1 for byte in data for bit in reversed(range(8))]


def value(some: list[int]) -> int:
    return sum(bit << place for place, bit in enumerate(reversed(some)))


def divided(some: list[int]) -> int:
    """The remainder of a polynomial by x^16 + x^12 + x^5 + 1, as one does it on paper."""
    some = [0] * 16 + some
    for at in range(len(some) - 16):
        if some[at]:
            for place in (0, 4, 11, 16):
                some[at + place] ^= 1
    return value(some[-16:])


def seed(header: int) -> int:
    """The first two bytes of a command whose next four are ``header``: found by trying out what each of their bits does."""
    wanted = divided([0] * 16 + bits(header.to_bytes(4, "big"))) ^ 0xFFFF
    rows = [(divided(bits((1 << bit).to_bytes(2, "big")) + [0] * 32), 1 << bit) for bit in range(16)]
    found = 0
    for place in range(16):  # Gauss and Jordan
        pivot = next(row for row in rows if row[0] >> place & 1)
        rows = [(r ^ pivot[0], s ^ pivot[1]) if r >> place & 1 else (r, s) for r, s in rows if (r, s) != pivot]
        if wanted >> place & 1:
            wanted, found = wanted ^ pivot[0], found ^ pivot[1]
    assert wanted == 0
    return found


class SpiModel:
    """Takes commands, gives answers. ``core`` has ``read`` and ``write``, which raise :class:`BusError`."""

    def __init__(self, core):
        self.core, self.crc, self.failed = core, None, 1  # the CRC behind a reset may be anything

    def command(self, mosi: list[int], free: Callable[[int], int] = lambda at: at // 3 % 2) -> list[int]:
        """What comes between a fall and a rise of chip select, and the answer; ``free`` gives the bits that may be anything."""
        known = {0: self.failed}
        if self.crc is not None:
            known |= {1 + at: self.crc >> 15 - at & 1 for at in range(16)}
        miso = [free(at) if known.get(at) is None else known[at] for at in range(min(len(mosi), 49))]
        if len(mosi) < 48:
            if mosi:
                self.crc = self.failed = None
            return miso
        header = value(mosi[16:48])
        self.failed = int(divided(mosi[:48]) != 0xFFFF)
        write, address = header >> 22 & 1, header & (1 << 22) - 1
        for at in range(48, len(mosi)):
            if at > 48:
                miso.append(known.get(at, free(at)))
            word = mosi[at - 31 : at + 1]
            if at % 32 != 15 or self.failed or not (write or mosi[at]):
                continue
            try:
                if write:
                    self.core.write(4 * address, value(word))
                else:
                    read = self.core.read(4 * address)
                    known |= {at + 2 + place: read >> 31 - place & 1 for place in range(32)}
            except BusError:
                self.failed = 1
            address += 1
        self.crc = divided(mosi[:48] + [out ^ (back & ~write & 1) for out, back in zip(mosi[48:], miso[48:], strict=True)])
        return miso


class Wires:
    """A controller and its wires to a model; ``fault`` gives for the number of an edge of SCK what happens there:
    "mosi" or "miso" is flipped, the edge is "lost" or "doubled", or nothing."""

    def __init__(self, core, fault: Callable[[int], str] = lambda number: ""):
        self.model, self.fault, self.edges, self.transfers = SpiModel(core), fault, 0, []

    def transfer(self, data: bytes) -> bytes:
        self.transfers.append(data)
        arrived, looks, flips = [], [], []
        for bit in bits(data):
            kind = self.fault(self.edges)
            self.edges += 1
            looks.append(len(arrived))
            flips.append(kind == "miso")
            arrived += [bit ^ (kind == "mosi")] * {"lost": 0, "doubled": 2}.get(kind, 1)
        answer = [*self.model.command(arrived), 0]  # the last edge may be lost
        return value([answer[at] ^ flip for at, flip in zip(looks, flips, strict=True)]).to_bytes(len(data), "big")
