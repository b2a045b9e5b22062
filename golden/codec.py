"""Compressed rows: the lossless code of feature maps in the store. ``docs/formats.md`` shows it bit by bit.

A *unit* is a sequence of bytes that is coded on its own, such as a row of a group of channels, pixel by pixel. A byte's *size*
is the number of its bits up to the highest set one, as in JPEG: 0 for 0, 1 for 1, 2 for 2 and 3, 3 for 4 to 7 and so on; but
7 is that of all from 64 on. It is coded by what it was one pixel before in the same channel, the *context*. Behind its prefix
come the bits below the highest set one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gossamer.golden.spec import (
    CODEC_BUDGET_CREDIT,
    CODEC_CREDIT,
    CODEC_CREDIT_FULL,
    CODEC_CREDIT_LEAST,
    CODEC_ORDER,
    CODEC_SHIFTS,
    UserError,
)

__all__ = [
    "CodecError",
    "bound",
    "code",
    "context",
    "decode",
    "decode_bits",
    "decode_prefix",
    "decode_units",
    "drop",
    "encode",
    "encode_units",
    "fold",
    "least_budget",
    "left",
    "rate",
    "restore",
    "row_places",
    "rows_of",
    "size",
    "unfold",
    "units_of",
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
_SIZES = size(range(256))


def _parse(before: NDArray[np.int64], window: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Of what a stream goes on with in a context: size, value and the length of the code."""
    number = np.where(window % 2 == 0, 0, np.where(window // 2 % 4 < 3, 1 + window // 2 % 4, 4 + window // 8 % 4))
    sizes, length = np.array(CODEC_ORDER)[before, number], np.array([length for _, length in PREFIXES])[number]
    low_bits = np.array(LOW_BITS)[sizes]
    low = window >> length & (1 << low_bits) - 1
    value = np.where((sizes == 0) | (sizes == 7), low, 1 << np.maximum(sizes - 1, 0) | low)
    return sizes, value, length + low_bits


def _windows() -> list[list[int]]:
    """By context and the next 13 bits: value, from bit 8 the length of the code, and from bit 12 the context of the value."""
    sizes, values, lengths = _parse(*np.ogrid[:4, : 1 << 13])
    return (values | lengths << 8 | context(sizes) << 12).tolist()


_WINDOWS = _windows()

LONGEST = int(_LENGTHS.max())
"""Bits of the longest code."""

LEAST_RATE = 3
"""Bits that a zero takes at most."""


def code(before: int, value: int) -> tuple[int, int]:
    """Number and length of a value's code in a context."""
    return int(_CODES[before, value]), int(_LENGTHS[before, value])


def bound(count: int, bounded: bool = True) -> int:
    """Bytes that a unit of ``count`` values takes at most, in halfwords; if it is not ``bounded``, with the longest codes."""
    return _halfwords(8 * count + CODEC_CREDIT if bounded else LONGEST * count)


def least_budget(count: int) -> int:
    """The smallest budget, in bytes, that a unit of ``count`` values may have."""
    return _halfwords(LEAST_RATE * count + CODEC_BUDGET_CREDIT)


def rate(count: int, budget: int) -> int:
    """What a value of a unit of ``count`` values and of ``budget`` bytes may cost on average, in sixteenths of a bit."""
    if budget < least_budget(count):
        raise CodecError(f"the budget of {count} values must be at least {least_budget(count)} bytes, not {budget}")
    return 16 * (16 * (budget // 2) - CODEC_BUDGET_CREDIT) // max(count, 1)


def drop(values: ArrayLike, shift: ArrayLike, signed: bool = False) -> NDArray[np.int64]:
    """What is coded of values of which ``shift`` low bits are dropped; of signed ones before they are folded."""
    kept = np.asarray(values, np.int64) - 128 * signed >> np.asarray(shift)
    return np.where(np.asarray(shift) == 8, 0, fold(kept + 128) if signed else kept).astype(np.int64)


def restore(coded: ArrayLike, shift: ArrayLike, signed: bool = False) -> NDArray[np.uint8]:
    """The value in the middle of those that are coded so; but zero for a zero of values that are not signed, and where all bits
    were dropped, the value that stands for zero."""
    kept = unfold(coded).astype(np.int64) - 128 if signed else np.asarray(coded, np.int64)
    middle = (kept << np.asarray(shift)) + (1 << np.asarray(shift) >> 1)
    zero = (np.asarray(shift) == 8) | (kept == 0) & (not signed)
    return (np.where(zero, 0, middle) + 128 * signed & 255).astype(np.uint8)


def units_of(rows: NDArray[np.uint8], streams: int) -> NDArray[np.uint8]:
    """The units of rows ``(N, values)``, ``(N * streams, values of each)``: value ``i`` of a row is in unit ``i % streams``."""
    return rows.reshape(len(rows), -1, streams).swapaxes(1, 2).reshape(len(rows) * streams, -1)


def rows_of(units: NDArray[np.uint8], streams: int) -> NDArray[np.uint8]:
    """The inverse of :func:`units_of`."""
    return units.reshape(-1, streams, units.shape[1]).swapaxes(1, 2).reshape(len(units) // streams, -1)


def row_places(unit: int, count: int, streams: int, chunk: int) -> NDArray[np.int64]:
    """The bytes in a row's slot of the first ``count`` bytes of a unit: the units take turns, ``chunk`` bytes each."""
    byte = np.arange(count)
    return (byte // chunk * streams + unit) * chunk + byte % chunk


def encode(
    values: ArrayLike, *, lanes: int = 16, signed: bool = False, bounded: bool = True, budget: int | None = None
) -> bytes:
    """One unit as a stream of halfwords, see :func:`encode_units`."""
    return encode_units(np.asarray(values)[np.newaxis], lanes=lanes, signed=signed, bounded=bounded, budget=budget)[0]


def decode(
    data: bytes, count: int, *, lanes: int = 16, signed: bool = False, bounded: bool = True, budget: int | None = None
) -> NDArray[np.uint8]:
    """The ``count`` values of a unit, see :func:`decode_units`."""
    return decode_units([data], count, lanes=lanes, signed=signed, bounded=bounded, budget=budget)[0]


def encode_units(
    units: ArrayLike,
    *,
    lanes: int = 16,
    signed: bool = False,
    bounded: bool = True,
    budget: int | None = None,
    per_value: int = 0,
) -> list[bytes]:
    """Each row of ``units`` as a stream of halfwords.

    The context of a value is that of what was coded ``lanes`` values before it, at first 0. A unit has a *credit*, at first
    :data:`CODEC_CREDIT`. A value that finds less than :data:`CODEC_CREDIT_LEAST` stands for itself, in 8 bits; any other is
    coded, and the credit grows by what the code is shorter than 8 bits, or falls by what it is longer; from
    :data:`CODEC_CREDIT_FULL` on it does not grow. The first bit is bit 0 of the first byte; zeros fill the last halfword.
    ``signed`` folds the values first, see :func:`fold`. If units are not ``bounded`` no value is left plain.

    With a ``budget``, in bytes, no stream is longer than that. The credit is :data:`CODEC_BUDGET_CREDIT` at first, and a value
    finds it increased by :func:`rate`. As many low bits of the value are dropped as there are :data:`CODEC_SHIFTS` above that,
    see :func:`drop`. The rest is coded, never left plain, and the credit falls by the length of the code. It does not grow from
    :data:`CODEC_CREDIT_FULL` on either. A budget of :func:`bound` or more is none. What counts of a budget is its :func:`rate`,
    which can be given in its place as ``per_value``.
    """
    array = np.asarray(units, np.uint8)
    codes, lengths = _codes_of(array, lanes, signed, bounded, per_value or _per_value(array.shape[1], budget))
    rows, count = codes.shape
    ends = lengths.cumsum(1)
    stream = np.zeros((rows, LONGEST * count + 16), np.uint8)
    for bit in range(lengths.max(initial=0)):
        row, column = np.nonzero(bit < lengths)
        stream[row, (ends - lengths)[row, column] + bit] = codes[row, column] >> bit & 1
    packed = np.packbits(stream, axis=1, bitorder="little")
    return [packed[row, : _halfwords(end)].tobytes() for row, end in enumerate(ends[:, -1] if count else [0] * rows)]


def code_lengths(
    units: ArrayLike, *, lanes: int = 16, signed: bool = False, bounded: bool = True, per_value: int = 0
) -> NDArray[np.int64]:
    """The bits that each value of :func:`encode_units` takes."""
    return _codes_of(np.asarray(units, np.uint8), lanes, signed, bounded, per_value)[1]


def _per_value(count: int, budget: int | None) -> int:
    """The rate of a budget, 0 if it is none."""
    return 0 if budget is None or budget >= bound(count) else rate(count, budget)


def _codes_of(
    units: NDArray[np.uint8], lanes: int, signed: bool, bounded: bool, per_value: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The code of each value, and its length."""
    rows, count = units.shape
    rule = _Rule(rows, bounded, per_value)
    if not rule.matters:
        coded = drop(units, 0, signed)
        before = np.zeros((rows, count + lanes), np.int64)
        before[:, lanes:] = context(_SIZES[coded])
        return _CODES[before[:, :count], coded], _LENGTHS[before[:, :count], coded]
    codes, lengths = np.zeros((rows, count), np.int64), np.zeros((rows, count), np.int64)
    before = np.zeros((rows, count + lanes), np.int64)
    for i in range(count):
        shift = rule.shift()
        coded = drop(units[:, i], shift, signed)
        plain = rule.plain()
        codes[:, i] = np.where(plain, coded, _CODES[before[:, i], coded])
        lengths[:, i] = np.where(plain, 8, _LENGTHS[before[:, i], coded])
        before[:, i + lanes] = context(_SIZES[coded])
        rule.spend(lengths[:, i])
    return codes, lengths


def decode_units(
    streams: Sequence[bytes],
    count: int,
    *,
    lanes: int = 16,
    signed: bool = False,
    bounded: bool = True,
    budget: int | None = None,
) -> NDArray[np.uint8]:
    """The inverse of :func:`encode_units`, for units of ``count`` values; :func:`restore` fills in what was dropped.

    Any bits are a unit's codes, so that all there is to be malformed is the length of the stream, and its filling. Raises
    :class:`CodecError`.
    """
    values, ends = _read(streams, count, lanes, signed, bounded, _per_value(count, budget))
    for data, end in zip(streams, ends.tolist()):
        if len(data) != _halfwords(end):
            raise CodecError(f"a stream that ends at bit {end} must have just the halfwords for that, not {len(data)} bytes")
        if int.from_bytes(data, "little") >> end:
            raise CodecError(f"a stream must have zeros behind its end at bit {end}")
    return values


def decode_prefix(
    data: bytes, count: int, *, lanes: int = 16, signed: bool = False, bounded: bool = True, per_value: int = 0
) -> tuple[NDArray[np.uint8], int]:
    """The ``count`` values of a unit that ``data`` begins with, and how many bytes they take; zeros follow its end. The inverse
    of :func:`encode_units` that is fast for one unit."""
    values, bits = decode_bits(data, count, lanes=lanes, signed=signed, bounded=bounded, per_value=per_value)
    return values, _halfwords(bits)


def decode_bits(
    data: bytes, count: int, *, lanes: int = 16, signed: bool = False, bounded: bool = True, per_value: int = 0
) -> tuple[NDArray[np.uint8], int]:
    """Like :func:`decode_prefix`, with the number of bits."""
    values, before, shifts = bytearray(count), [0] * (count + lanes), bytearray(count)
    position, bounded = 0, bounded and not per_value
    each, credit = (per_value, 16 * CODEC_BUDGET_CREDIT) if per_value else (8 * 16, 16 * CODEC_CREDIT)
    for i in range(count):
        at = position >> 3
        window = int.from_bytes(data[at : at + 3], "little") >> (position & 7)
        if per_value:
            shifts[i] = sum(credit + each < 16 * least for least in CODEC_SHIFTS)
        if bounded and credit < 16 * CODEC_CREDIT_LEAST:
            values[i], length = window & 255, 8
        else:
            entry = _WINDOWS[before[i]][window & 8191]
            values[i], length, before[i + lanes] = entry & 255, entry >> 8 & 15, entry >> 12
        position += length
        if credit < 16 * CODEC_CREDIT_FULL or each < 16 * length:
            credit += each - 16 * length
    found = restore(np.frombuffer(values, np.uint8), np.frombuffer(shifts, np.uint8).astype(np.int64), signed)
    return found, position


def left(data: bytes, bits: int) -> int:
    """What decoders look at behind the last value of a unit that ends at bit ``bits`` of ``data``: the bits that are left of
    its halfword, up to as many as the longest code has. They are zeros if nothing is wrong."""
    at = (bits - 1) // 16 * 2
    return (int.from_bytes(data[at : at + 2], "little") >> bits - 8 * at) & (1 << LONGEST) - 1


def _halfwords(bits: int) -> int:
    """Bytes of the halfwords that have so many bits."""
    return 2 * -(-bits // 16)


class _Rule:
    """The credit of units, in sixteenths of a bit, and what follows from it for the next value."""

    def __init__(self, units: int, bounded: bool, per_value: int):
        self._budgeted = per_value > 0
        self._bounded = bounded and not self._budgeted
        self._rate = per_value or 8 * 16
        self._credit = np.full(units, 16 * (CODEC_BUDGET_CREDIT if self._budgeted else CODEC_CREDIT))

    @property
    def matters(self) -> bool:
        """Whether a code depends on the credit."""
        return self._budgeted or self._bounded

    def plain(self) -> NDArray[np.bool_]:
        return (self._credit < 16 * CODEC_CREDIT_LEAST) & self._bounded

    def shift(self) -> NDArray[np.int64]:
        above = (self._credit + self._rate)[:, np.newaxis] < 16 * np.array(CODEC_SHIFTS)
        return above.sum(1) * self._budgeted

    def spend(self, lengths: NDArray[np.int64]) -> None:
        change = self._rate - 16 * lengths
        self._credit += np.where((self._credit >= 16 * CODEC_CREDIT_FULL) & (change > 0), 0, change)


def _read(
    streams: Sequence[bytes], count: int, lanes: int, signed: bool, bounded: bool, per_value: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Values, and the bits that they take."""
    rows = len(streams)
    words = np.zeros((rows, bound(count, False) + 4), np.int64)  # with room for a look beyond the end
    for row, data in enumerate(streams):
        start = np.frombuffer(data, np.uint8)[: words.shape[1]]
        words[row, : len(start)] = start
    values, before = np.zeros((rows, count), np.uint8), np.zeros((rows, count + lanes), np.int64)
    every, position, rule = np.arange(rows), np.zeros(rows, np.int64), _Rule(rows, bounded, per_value)
    for i in range(count):
        window = sum(words[every, position // 8 + byte] << 8 * byte for byte in range(3)) >> position % 8
        sizes, coded, length = _parse(before[:, i], window)
        plain = rule.plain()
        values[:, i] = restore(np.where(plain, window & 255, coded), rule.shift(), signed)
        before[:, i + lanes] = context(sizes)  # of plain values there is no need, all that follow are plain
        spent = np.where(plain, 8, length)
        position = position + spent
        rule.spend(spent)
    return values, position
