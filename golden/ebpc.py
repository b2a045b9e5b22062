"""Other codes to compare with: extended bit-plane compression, the zero bitmask, and the order-0 entropy.

Ref: Cavigelli, Rutishauser, Benini, "EBPC: Extended Bit-Plane Compression for Deep Neural Network Inference and Training
Accelerators", IEEE JETCAS 2019; Kim et al., "Bit-Plane Compression", ISCA 2016; Rhu et al., "Compressing DMA Engine", HPCA 2018
(zero-value compression).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gossamer.golden.codec import CodecError

__all__ = ["bitmask_bits", "decode", "encode", "entropy_bits"]

RUN = 16
"""Zeros of the longest run."""

BLOCK = 8
"""Non-zero values per block."""

PLANES = 9
"""Bits of a difference of two bytes."""


def entropy_bits(values: ArrayLike) -> float:
    """Bits that a perfect code needs that knows how often each value occurs, and nothing of its neighbours."""
    counts = np.bincount(np.asarray(values).ravel(), minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(counts[counts > 0] * np.log2(shares)).sum())


def bitmask_bits(values: ArrayLike) -> int:
    """Bits of zero-value compression: one per value, and 8 more for those that are not zero."""
    array = np.asarray(values)
    return int(array.size + 8 * np.count_nonzero(array))


def encode(values: ArrayLike) -> bytes:
    """Two streams, one behind the other, each of whole bytes, the first bit the highest.

    In the first a 1 stands for a value that is not zero, and a 0 with 4 bits *n* for *n* + 1 zeros. The second has the values
    that are not zero, in blocks of 8; the last value fills the last block. Of a block come the first value and the bit planes
    of the 7 differences from value to value, of 9 bits, from the lowest plane on. The first plane is itself the symbol, of any
    other it is the XOR with the plane below; a symbol is

    - ``01`` if all its bits are 0, and a run of *n* + 2 of these, ``001`` and 3 bits *n*,
    - ``00000`` if all are 1,
    - ``00001`` if it is none of these, but all bits of the plane are 0,
    - ``00010`` and 3 bits *n* if only the bits of differences *n* and *n* + 1 are 1,
    - ``00011`` and 3 bits *n* if only that of difference *n* is 1,
    - ``1`` and its 7 bits, the first difference's first, otherwise.
    """
    array = np.asarray(values, np.uint8).ravel()
    return _pack(*_zero_runs(array)) + _pack(*_blocks(array[array != 0].astype(np.int64)))


def _zero_runs(array: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    zero = array == 0
    index = np.arange(array.size)
    last = np.maximum.accumulate(np.where(zero, -1, index))  # that is not zero
    within = (index - last - 1) % RUN  # the zero's place in its run
    ends = (within == RUN - 1) | (np.append(array, 1)[1:] != 0)
    emitted = ~zero | ends
    return np.where(zero, within, 1)[emitted], np.where(zero, 5, 1)[emitted]


def _blocks(nonzero: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    filled = np.pad(nonzero, (0, -nonzero.size % BLOCK), mode="edge") if nonzero.size else nonzero
    blocks = filled.reshape(-1, BLOCK)
    differences = np.diff(blocks, axis=1) & (1 << PLANES) - 1
    weights = 1 << np.arange(BLOCK - 1)[::-1]  # the first difference's bit is the highest
    codes, lengths = [blocks[:, 0]], [np.full(len(blocks), 8)]
    below, run = np.zeros(len(blocks), np.int64), np.zeros(len(blocks), np.int64)
    pairs = {int(weights[n] + weights[n + 1]): n for n in range(BLOCK - 2)}
    singles = {int(weights[n]): n for n in range(BLOCK - 1)}
    table = [_symbol(symbol, pairs, singles) for symbol in range(1 << BLOCK - 1)]
    table_codes, table_lengths = (np.array(column) for column in zip(*table))
    for bit in range(PLANES):
        plane = (differences >> bit & 1) @ weights
        symbol = plane ^ below
        below = plane
        run = run + (symbol == 0)
        done = (symbol != 0) | (bit == PLANES - 1)
        codes.append(np.where(run == 1, 1, 0b001 << 3 | np.maximum(run - 2, 0)))
        lengths.append(np.where(done & (run > 0), np.where(run == 1, 2, 6), 0))
        run = np.where(symbol != 0, 0, run)
        other = (plane == 0) & (symbol != (1 << BLOCK - 1) - 1)
        codes.append(np.where(other, 0b00001, table_codes[symbol]))
        lengths.append(np.where(symbol == 0, 0, np.where(other, 5, table_lengths[symbol])))
    return np.stack(codes, 1).ravel(), np.stack(lengths, 1).ravel()


def _symbol(symbol: int, pairs: dict[int, int], singles: dict[int, int]) -> tuple[int, int]:
    if symbol == (1 << BLOCK - 1) - 1:
        return 0b00000, 5
    if symbol in pairs:
        return 0b00010 << 3 | pairs[symbol], 8
    if symbol in singles:
        return 0b00011 << 3 | singles[symbol], 8
    return 1 << BLOCK - 1 | symbol, BLOCK


def _pack(codes: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    starts = lengths.cumsum() - lengths
    stream = np.zeros(int(lengths.sum()), np.uint8)
    for bit in range(int(lengths.max(initial=0))):
        has = bit < lengths
        stream[starts[has] + bit] = codes[has] >> (lengths[has] - 1 - bit) & 1
    return np.packbits(stream).tobytes()


def decode(data: bytes, count: int) -> NDArray[np.uint8]:
    """The inverse of :func:`encode`. Raises :class:`gossamer.golden.codec.CodecError`."""
    bits = "".join(f"{byte:08b}" for byte in data)
    position = 0

    def take(length: int) -> int:
        nonlocal position
        position += length
        if position > len(bits):
            raise CodecError(f"a stream of {count} values must not end at bit {len(bits)}")
        return int(bits[position - length : position], 2)

    values = np.zeros(count, np.uint8)
    places, at = [], 0
    while at < count:
        if take(1):
            places.append(at)
            at += 1
        else:
            at += take(4) + 1
    if at > count:
        raise CodecError(f"a run of zeros must end within the {count} values, not at {at}")
    position += -position % 8
    for first in range(0, len(places), BLOCK):
        block = _read_block(take)
        mine = places[first : first + BLOCK]
        values[mine] = block[: len(mine)]
    if len(data) != -(-position // 8):
        raise CodecError(f"a stream of {count} values that ends at bit {position} must not have {len(data)} bytes")
    return values


def _read_block(take: Callable[[int], int]) -> list[int]:
    ones = (1 << BLOCK - 1) - 1
    base, planes = take(8), [0]
    while len(planes) <= PLANES:
        if take(1):
            planes.append(planes[-1] ^ take(BLOCK - 1))
        elif take(1):
            planes.append(planes[-1])
        elif take(1):
            planes += [planes[-1]] * (take(3) + 2)
        else:
            kind = take(2)
            if kind == 0:
                planes.append(planes[-1] ^ ones)
            elif kind == 1:
                planes.append(0)
            else:
                symbol = (3 << BLOCK - 3 if kind == 2 else 1 << BLOCK - 2) >> take(3)
                planes.append(planes[-1] ^ symbol)
    values = [base]
    for n in range(BLOCK - 1):
        difference = sum((plane >> BLOCK - 2 - n & 1) << bit for bit, plane in enumerate(planes[1 : PLANES + 1]))
        values.append(values[-1] + difference & 255)
    return values
