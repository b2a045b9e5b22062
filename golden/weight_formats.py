"""Formats in which weights lie in the store; the weight decoder makes bytes of them on their way to the weight buffer."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.spec import PALETTE_ENTRIES, WEIGHT_FORMATS, Config

__all__ = ["Encoded", "decode", "encode"]

BYTES, NIBBLES, PALETTE16, PALETTE32 = range(len(WEIGHT_FORMATS))


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Weight vectors in a format: an index into ``WEIGHT_FORMATS``, the ``data``, and what the palette buffer must hold, in
    ``shared`` form or not. ``divisible``: each half of the vectors has each half of the data."""

    data: bytes
    format: int = BYTES
    palette: bytes = b""
    shared: bool = False

    @property
    def divisible(self) -> bool:
        return self.format != PALETTE32


def encode(raw: bytes, config: Config) -> Encoded:
    """Weight vectors in the shortest format that the configuration can decode."""
    vectors = np.frombuffer(raw, np.int8).reshape(-1, config.lanes)
    if config.decoder == "off":
        return Encoded(raw)
    if vectors.min() >= -8 and vectors.max() <= 7:
        return Encoded(_packed(vectors & 15), NIBBLES)
    if config.decoder != "palettes":
        return Encoded(raw)
    candidates = [Encoded(raw)]
    values = np.unique(vectors)
    if len(values) <= PALETTE_ENTRIES:
        # A shared palette has the bytes of a store word for each entry.
        entries = np.repeat(values[:, None], config.store_bytes, axis=1)
        candidates.append(_with_palette(np.searchsorted(values, vectors), entries, True, config))
    own = [np.unique(lane) for lane in vectors.T]
    most = max(map(len, own))
    if most <= PALETTE_ENTRIES:
        entries = np.stack([np.resize(lane, most) for lane in own], axis=1)
        codes = np.stack([np.searchsorted(lane, column) for lane, column in zip(own, vectors.T)], axis=1)
        candidates.append(_with_palette(codes, entries, False, config))
    return min(candidates, key=lambda one: len(one.data) + len(one.palette))


def _packed(codes: NDArray[np.integer]) -> bytes:
    pairs = codes.astype(np.uint8).reshape(-1, 2)
    return (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8).tobytes()


def _with_palette(codes: NDArray[np.integer], entries: NDArray[np.int8], shared: bool, config: Config) -> Encoded:
    palette = np.ascontiguousarray(entries).tobytes()
    if len(entries) <= 16:
        return Encoded(_packed(codes), PALETTE16, palette, shared)
    # The fifth bits of the codes of four words come in a word in front of them.
    words = codes.reshape(-1, 2 * config.store_bytes)
    data = b""
    for start in range(0, len(words), 4):
        block = words[start : start + 4]
        high = np.packbits(block >> 4, bitorder="little").tobytes()
        data += high.ljust(config.store_bytes, b"\0") + _packed(block & 15)
    return Encoded(data, PALETTE32, palette, shared)


def decode(data: NDArray[np.uint8], kind: int, palette: NDArray[np.int8], shared: bool, config: Config) -> NDArray[np.int8]:
    """Weight vectors ``(…, lanes)`` of stored bytes, which are in another format than bytes; ``palette`` is
    ``(PALETTE_ENTRIES, lanes)``."""
    size = config.store_bytes
    high = np.zeros(0, np.uint8)
    if kind == PALETTE32:
        words = data.reshape(-1, size)
        first = np.arange(len(words)) % 5 == 0
        bits = np.unpackbits(words[first], axis=1, bitorder="little").reshape(-1, 2 * size)
        data = words[~first].reshape(-1)
        high = (bits[: len(data) // size].reshape(-1) << 4).astype(np.uint8)
    codes = np.stack([data & 15, data >> 4], axis=1).reshape(-1)
    if kind == NIBBLES:
        return ((codes ^ 8).astype(np.int8) - 8).reshape(-1, config.lanes)
    if kind == PALETTE32:
        codes = codes | high
    lane = np.arange(len(codes)) % (2 * size if shared else config.lanes)
    return palette[codes, lane].reshape(-1, config.lanes)
