"""Codes to compare with."""

import pytest

from gossamer.golden.codec import CodecError
from gossamer.golden.ebpc import bitmask_bits, decode, encode, entropy_bits


def bits(*streams):
    padded = [text.replace(" ", "") for text in streams]
    return b"".join(int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big") for text in padded if text)


@pytest.mark.parametrize(
    ("values", "zeros", "blocks"),
    [
        ([0], "0 0000", ""),
        ([0] * 20, "0 1111 0 0011", ""),
        ([0, 0, 7, 0], "0 0001 1 0 0000", "00000111 001 111"),  # all planes are 0: a run of 9
        (list(range(1, 9)), "1" * 8, "00000001 00000 00000 001 101"),  # differences of 1: plane 0 is all ones, 1 none
        ([1, 2, 2, 2, 2, 2, 2, 2], "1" * 8, "00000001 00011000 00001 001 101"),  # then the plane is 0, its XOR is not
        ([4, 5, 6, 6, 6, 6, 6, 6], "1" * 8, "00000100 00010000 00001 001 101"),
        ([4, 5, 6, 6, 7, 7, 7, 7], "1" * 8, "00000100 11101000 00001 001 101"),
        ([9, 8, 9, 9, 9, 9, 9, 9], "1" * 8, "00001001 00010000 00011001 001 101"),  # -1 and 1: two ones, then one
    ],
)
def test_streams_by_hand(values, zeros, blocks):
    assert encode(values) == bits(zeros, blocks)
    assert decode(encode(values), len(values)).tolist() == values


@pytest.mark.parametrize("count", [0, 1, 8, 15, 16, 17, 333])
@pytest.mark.parametrize("density", [0, 0.1, 0.5, 1])
@pytest.mark.parametrize("top", [2, 20, 256])
def test_decoding_gives_back(rng, count, density, top):
    values = rng.integers(1, top, count) * (rng.random(count) < density)
    assert (decode(encode(values), count) == values).all()


def test_streams_that_are_too_short_too_long_or_inconsistent_are_refused():
    data = encode([1, 2, 3, 4])
    with pytest.raises(CodecError, match=r"^a stream of 4 values must not end at bit 16$"):
        decode(data[:2], 4)
    with pytest.raises(CodecError, match=r"^a stream of 4 values that ends at bit \d+ must not have 6 bytes$"):
        decode(data + bytes(6 - len(data)), 4)
    with pytest.raises(CodecError, match=r"^a run of zeros must end within the 4 values, not at 16$"):
        decode(b"\x78", 4)


def test_the_bitmask_takes_a_bit_per_value_and_a_byte_per_other():
    assert bitmask_bits([0, 0, 7, 255, 0]) == 5 + 16


@pytest.mark.parametrize(("values", "entropy"), [([5] * 9, 0), ([0, 1] * 8, 16), ([0, 1, 2, 3], 8), ([0, 0, 0, 1], 3.2451)])
def test_entropy(values, entropy):
    assert entropy_bits(values) == pytest.approx(entropy, abs=1e-4)
