"""Compressed rows: the lossless code of feature maps in the store. ``docs/formats.md`` shows it bit by bit.

A *unit* is a sequence of bytes that is coded on its own, such as a row of a group of channels, pixel by pixel. A byte's *size*
is the number of its bits up to the highest set one, as in JPEG: 0 for 0, 1 for 1, 2 for 2 and 3, 3 for 4 to 7 and so on; but
7 is that of all from 64 on. It is coded by what it was one pixel before in the same channel, the *context*. Behind its prefix
come the bits below the highest set one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gossamer.golden.spec import CODEC_CREDIT, CODEC_CREDIT_FULL, CODEC_CREDIT_LEAST, CODEC_ORDER, UserError

__all__ = [
    "CodecError",
    "bound",
    "code",
    "context",
    "decode",
    "decode_prefix",
    "decode_units",
    "encode",
    "encode_units",
    "fold",
    "size",
    "unfold",
]

PREFIXES = ((0b0, 1), (0b001, 3), (0b011, 3), (0b101, 3), (0b00111, 5), (0b01111, 5), (0b10111, 5), (0b11111, 5))
"""Number and length of each; bit 0 comes first."""

LOW_BITS = (0, 0, 1, 2, 3, 4, 5, 8)
"""By size, how many of the value's low bits follow the prefix; of the last size all."""


class CodecError(UserError, ValueError):
    """A stream breaks a rule of the format; the message is one sentence with the rule and the value."""


def size(values: ArrayLike) -> NDArray[np.int64]:
    """The size of each value."""
    return np.minimum(np.frexp(np.asarray(values, np.float64))[1], 7).astype(np.int64)


def context(sizes: ArrayLike) -> NDArray[np.int64]:
    """What is remembered of a size: up to 3, 4, 5, or more."""
    return np.clip(np.asarray(sizes) - 3, 0, 3)


def fold(values: ArrayLike) -> NDArray[np.uint8]:
    """Of bytes around 128, such as those of signed maps: 128, 127, 129, 126, 130, … as 0, 1, 2, 3, 4, …"""
    signed = np.asarray(values, np.int64) - 128
    return np.where(signed < 0, -2 * signed - 1, 2 * signed).astype(np.uint8)


def unfold(values: ArrayLike) -> NDArray[np.uint8]:
    """The inverse of :func:`fold`."""
    folded = np.asarray(values, np.int64)
    return (128 + np.where(folded % 2, -(folded + 1) // 2, folded // 2)).astype(np.uint8)


def _tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    codes, lengths = np.zeros((4, 256), np.int64), np.zeros((4, 256), np.int64)
    for before, order in enumerate(CODEC_ORDER):
        for value in range(256):
            n = int(size(value))
            prefix, length = PREFIXES[order.index(n)]
            low = value & (1 << LOW_BITS[n]) - 1
            codes[before, value] = prefix | low << length
            lengths[before, value] = length + LOW_BITS[n]
    return codes, lengths


_CODES, _LENGTHS = _tables()


def code(before: int, value: int) -> tuple[int, int]:
    """Number and length of a value's code in a context."""
    return int(_CODES[before, value]), int(_LENGTHS[before, value])


def bound(count: int) -> int:
    """Bytes that a unit of ``count`` values takes at most: halfwords."""
    return 2 * -(-(8 * count + CODEC_CREDIT) // 16)


def _spend(credit: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where((credit >= CODEC_CREDIT_FULL) & (length < 8), credit, credit + 8 - length)


def encode(values: ArrayLike, *, lanes: int = 16, signed: bool = False) -> bytes:
    """One unit as a stream of halfwords, see :func:`encode_units`."""
    return encode_units(np.asarray(values)[np.newaxis], lanes=lanes, signed=signed)[0]


def decode(data: bytes, count: int, *, lanes: int = 16, signed: bool = False) -> NDArray[np.uint8]:
    """The ``count`` values of a unit, see :func:`decode_units`."""
    return decode_units([data], count, lanes=lanes, signed=signed)[0]


def encode_units(units: ArrayLike, *, lanes: int = 16, signed: bool = False) -> list[bytes]:
    """Each row of ``units`` as a stream of halfwords.

    The context of a value is that of the value ``lanes`` before it, at first 0. A unit has a *credit*, at first
    :data:`CODEC_CREDIT`. A value that finds less than :data:`CODEC_CREDIT_LEAST` stands for itself, in 8 bits; any other is
    coded, and the credit grows by what the code is shorter than 8 bits, or falls by what it is longer; from
    :data:`CODEC_CREDIT_FULL` on it does not grow. The first bit is bit 0 of the first byte; zeros fill the last halfword.
    ``signed`` folds the values first, see :func:`fold`.
    """
    values = fold(units) if signed else np.asarray(units, np.uint8)
    rows, count = values.shape
    before = np.zeros((rows, count), np.int64)
    before[:, lanes:] = context(size(values[:, :-lanes]))
    codes, lengths = _CODES[before, values], _LENGTHS[before, values]
    credit = np.full(rows, CODEC_CREDIT)
    for i in range(count):
        plain = credit < CODEC_CREDIT_LEAST
        codes[plain, i], lengths[plain, i] = values[plain, i], 8
        credit = _spend(credit, lengths[:, i])
    ends = lengths.cumsum(1)
    stream = np.zeros((rows, 8 * bound(count)), np.uint8)
    for bit in range(lengths.max(initial=0)):
        row, column = np.nonzero(bit < lengths)
        stream[row, (ends - lengths)[row, column] + bit] = codes[row, column] >> bit & 1
    packed = np.packbits(stream, axis=1, bitorder="little")
    return [packed[row, : 2 * -(-end // 16)].tobytes() for row, end in enumerate(ends[:, -1] if count else [0] * rows)]


def decode_units(streams: Sequence[bytes], count: int, *, lanes: int = 16, signed: bool = False) -> NDArray[np.uint8]:
    """The inverse of :func:`encode_units`, for units of ``count`` values.

    Any bits are a unit's codes, so that all there is to be malformed is the length of the stream, and its filling. Raises
    :class:`CodecError`.
    """
    values, ends = _read(streams, count, lanes)
    for data, end in zip(streams, ends.tolist()):
        if len(data) != 2 * -(-end // 16):
            raise CodecError(
                f"a stream that ends at bit {end} must have so many bits in whole halfwords, not {len(data)} bytes"
            )
        if int.from_bytes(data, "little") >> end:
            raise CodecError(f"a stream must have zeros behind its end at bit {end}")
    return unfold(values) if signed else values


def decode_prefix(data: bytes, count: int, *, lanes: int = 16, signed: bool = False) -> tuple[NDArray[np.uint8], int]:
    """The ``count`` values that ``data`` begins with, and how many bytes they take; zeros follow its end."""
    values, ends = _read([data], count, lanes)
    return (unfold(values) if signed else values)[0], 2 * -(-int(ends[0]) // 16)


def _read(streams: Sequence[bytes], count: int, lanes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Values, and the bits that they take."""
    rows = len(streams)
    words = np.zeros((rows, bound(count) + 4), np.int64)  # with room for a look beyond the end
    for row, data in enumerate(streams):
        start = np.frombuffer(data, np.uint8)[: words.shape[1]]
        words[row, : len(start)] = start
    values, before = np.zeros((rows, count), np.int64), np.zeros((rows, count + lanes), np.int64)
    every, position, credit = np.arange(rows), np.zeros(rows, np.int64), np.full(rows, CODEC_CREDIT)
    order, prefix_lengths, low_bits = np.array(CODEC_ORDER), np.array([length for _, length in PREFIXES]), np.array(LOW_BITS)
    for i in range(count):
        window = sum(words[every, position // 8 + byte] << 8 * byte for byte in range(3)) >> position % 8
        number = np.where(window % 2 == 0, 0, np.where(window // 2 % 4 < 3, 1 + window // 2 % 4, 4 + window // 8 % 4))
        sizes, length = order[before[:, i], number], prefix_lengths[number]
        low = window >> length & (1 << low_bits[sizes]) - 1
        value = np.where((sizes == 0) | (sizes == 7), low, 1 << np.maximum(sizes - 1, 0) | low)
        plain = credit < CODEC_CREDIT_LEAST
        spent = np.where(plain, 8, length + low_bits[sizes])
        values[:, i] = np.where(plain, window & 255, value)
        before[:, i + lanes] = context(sizes)  # of plain values there is no need, all that follow are plain
        position, credit = position + spent, _spend(credit, spent)
    return values.astype(np.uint8), position
