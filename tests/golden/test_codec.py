"""The lossless code of feature maps."""

from contextlib import suppress

import numpy as np
import pytest

from gossamer.golden import codec
from gossamer.golden.codec import (
    CodecError,
    bound,
    decode,
    decode_units,
    drop,
    encode,
    encode_units,
    fold,
    least_budget,
    rate,
    restore,
    unfold,
)


def bits(*codes):
    """Halfwords of codes that are written as they are read: the first bit first."""
    text = "".join(codes)
    text += "0" * (-len(text) % 16)
    return bytes(int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8))


def maps(rng, count):
    """Values as in feature maps: channels of different ranges, and zeros."""
    scale = rng.choice([0.5, 2, 10, 30, 100], 16)
    pixels = rng.normal(0, 1, (-(-count // 16), 16)) * scale
    return np.clip(pixels, 0, 255).astype(np.uint8).reshape(-1)[:count]


def test_a_unit_by_hand():
    """Behind small values, which a unit begins with: 0 is 0; 4 to 7 are 100, 8 to 15 110, 16 to 31 101; then 11100 is 1, 11110
    2 and 3, 11101 32 to 63, 11111 the rest. Low bits follow, the lowest first."""
    first = [0, 5, 12, 16, 1, 3, 40, 200]
    codes = ["0", "10010", "110001", "1010000", "11100", "111101", "1110100010", "1111100010011"]
    assert encode(first, lanes=8) == bits(*codes)
    # Behind 200 and 40, whose context is the same, the shortest is 32 to 63; behind 16 that of 16; behind 12 that of 12.
    second = [9, 0, 9, 31, 0, 0, 33, 255]
    codes += ["110100", "0", "0100", "01111", "0", "0", "010000", "10111111111"]
    assert encode([*first, *second], lanes=8) == bits(*codes)


@pytest.mark.parametrize(("lanes", "after"), [(1, "01111"), (2, "1011111"), (16, "1011111")])
def test_context_is_the_value_a_pixel_before(lanes, after):
    assert encode([31] * 2, lanes=lanes) == bits("1011111", after)


def test_every_value_in_every_context(rng):
    for before in range(256):
        values = np.stack([np.full(256, before), np.arange(256)], 1)
        assert (decode_units(encode_units(values, lanes=1), 2, lanes=1) == values).all()


@pytest.mark.parametrize("count", [0, 1, 7, 8, 80, 203])
@pytest.mark.parametrize("lanes", [1, 8, 16, 64])
@pytest.mark.parametrize("signed", [False, True])
def test_decoding_gives_back(rng, count, lanes, signed):
    for values in (maps(rng, count), rng.integers(0, 256, count), np.full(count, 255), np.zeros(count, int)):
        data = encode(values, lanes=lanes, signed=signed)
        assert (decode(data, count, lanes=lanes, signed=signed) == values).all()
        assert len(data) <= bound(count)
        assert len(data) % 2 == 0


def test_units_are_coded_on_their_own(rng):
    units = np.stack([maps(rng, 96) for _ in range(20)])
    streams = encode_units(units)
    assert streams == [encode(unit) for unit in units]
    assert (decode_units(streams, 96) == units).all()


def test_the_longest_unit():
    """Codes of 13 bits use up the credit of 32 by 5 bits each, until less than 8 is left: 5 of them; the rest is plain."""
    data = encode([255] * 16)
    assert data == bits(*["1111111111111"] * 5, *["11111111"] * 11)
    assert len(data) == 20 <= bound(16) == 20
    assert [bound(count) for count in (0, 1, 8, 80)] == [4, 6, 12, 84]


def test_credit_is_earned_by_short_codes_and_kept_up_to_its_limit():
    """13 zeros earn 7 bits each, but from 120 on none: 32 + 13 * 7 = 123, enough for 24 codes of 13 bits."""
    for zeros, codes in ((0, 5), (1, 7), (12, 22), (13, 24), (14, 24), (100, 24)):
        values = [0] * zeros + [255] * 40
        assert encode(values, lanes=1000) == bits("0" * zeros, "1" * 13 * codes, "1" * 8 * (40 - codes))


@pytest.mark.parametrize(("first", "at_first", "codes"), [([5], "10010", 24), ([5, 16], "100101010000", 23)])
def test_credit_grows_at_119_and_not_at_120(first, at_first, codes):
    """12 zeros earn 84 bits on top of 32, 5 earns three and 16 one: at 119 the next zero earns seven more, at 120 none."""
    values = [*first, *[0] * 20, *[255] * 30]
    assert encode(values, lanes=1000) == bits(at_first, "0" * 20, "1" * 13 * codes, "1" * 8 * (30 - codes))


def test_zeros_take_a_bit():
    assert len(encode([0] * 1600)) == 200


@pytest.mark.parametrize(("value", "folded"), [(128, 0), (127, 1), (129, 2), (126, 3), (255, 254), (0, 255)])
def test_signed_values_are_folded(value, folded):
    assert fold(value) == folded
    assert unfold(folded) == value
    assert encode([value] * 3, signed=True) == encode([folded] * 3)


def test_folding_loses_nothing():
    assert sorted(fold(np.arange(256))) == list(range(256))
    assert (unfold(fold(np.arange(256))) == np.arange(256)).all()


@pytest.mark.parametrize("change", [b"", b"\0\0", b"\0"])
def test_a_stream_of_another_length_is_refused(change):
    data = encode([200] * 8)
    wrong = data + change if change else data[:-2]
    sentence = rf"^a stream that ends at bit \d+ must have just the halfwords for that, not {len(wrong)} bytes$"
    with pytest.raises(CodecError, match=sentence):
        decode(wrong, 8)


def test_bits_behind_the_end_are_refused():
    assert encode([0] * 8) == b"\0\0"
    with pytest.raises(CodecError, match=r"^a stream must have zeros behind its end at bit 8$"):
        decode(b"\0\1", 8)


def test_any_bits_are_values_or_refused(rng):
    for _ in range(100):
        count = int(rng.integers(0, 40))
        data = rng.integers(0, 256, int(rng.integers(0, 60)), np.uint8).tobytes()
        with suppress(CodecError):
            assert decode(data, count).shape == (count,)


def test_zeros_and_smooth_channels_are_what_is_gained_by(rng):
    dense = rng.integers(16, 32, 1600)
    assert len(encode(dense)) < 1600 * 5.1 / 8  # but for the first pixel 5 bits each
    assert len(encode(np.where(rng.random(1600) < 0.5, 0, dense))) < len(encode(dense))
    assert codec.bound(1600) == 1604


@pytest.mark.parametrize("count", [1, 8, 80, 203])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_no_stream_is_longer_than_its_budget(rng, count, signed, share):
    least, most = least_budget(count), bound(count)
    budget = int(least + share * (most - least))
    units = np.stack([maps(rng, count), rng.integers(0, 256, count), np.full(count, 255), np.zeros(count, int)])
    streams = encode_units(units, signed=signed, budget=budget)
    assert max(map(len, streams)) <= budget
    decoded = decode_units(streams, count, signed=signed, budget=budget)
    assert encode_units(decoded, signed=signed) == [encode(unit, signed=signed) for unit in decoded]
    if not signed:
        assert (decoded[3] == 0).all()


def test_a_budget_of_the_bound_or_more_is_none(rng):
    values = rng.integers(0, 256, 80)
    assert encode(values, budget=bound(80)) == encode(values, budget=10**6) == encode(values)
    assert (decode(encode(values), 80, budget=bound(80)) == values).all()


def test_what_fits_is_not_changed():
    """60 zeros earn two bits each, up to 120, and the codes that follow take ten more than a value may."""
    values = [0] * 60 + [200] * 6 + [0] * 14
    assert decode(encode(values, budget=36), 80, budget=36).tolist() == values


def test_budget_by_hand():
    """80 values in 36 bytes: 240 of 288 bits beside the credit of 48, 3 bits a value. The first value finds 51, and the code
    of 255 takes 13, so that the next find 41, then 31: two bits are dropped; of 63 the code takes 10."""
    assert rate(80, 36) == 48
    data = encode([255] * 80, budget=36)
    assert data[:5] == bits("1111111111111", "1111111111111", "1110111111", "0000")[:4] + data[4:5]
    assert decode(data, 80, budget=36)[:3].tolist() == [255, 255, 254]


@pytest.mark.parametrize(
    ("value", "shift", "signed", "coded", "restored"),
    [
        (200, 0, False, 200, 200),
        (203, 3, False, 25, 204),
        (7, 3, False, 0, 0),
        (255, 7, False, 1, 192),
        (255, 8, False, 0, 0),
        (128, 3, True, 0, 132),
        (127, 3, True, 1, 124),
        (0, 7, True, 1, 64),
        (0, 8, True, 0, 128),
    ],
)
def test_dropped_bits_come_back_as_half_a_step(value, shift, signed, coded, restored):
    assert drop(value, shift, signed) == coded
    assert restore(coded, shift, signed) == restored


def test_a_budget_must_have_room_for_three_bits_a_value():
    assert [least_budget(count) for count in (0, 8, 80)] == [6, 10, 36]
    with pytest.raises(CodecError, match=r"^the budget of 80 values must be at least 36 bytes, not 35$"):
        encode([0] * 80, budget=35)


def test_a_larger_budget_loses_less(rng):
    values = rng.integers(0, 100, 960)
    errors = []
    for budget in (420, 560, 800, 964):
        errors.append(np.abs(decode(encode(values, budget=budget), 960, budget=budget).astype(int) - values).sum())
    assert errors[0] > errors[1] > errors[2] >= errors[3] == 0


def test_units_that_are_not_bounded_have_codes_only():
    assert encode([255] * 16, bounded=False) == bits("1" * 13 * 16)
    assert [bound(count, False) for count in (0, 1, 8, 16)] == [0, 2, 14, 26]
    values = [0, 9, 255, 77] * 20
    assert (decode(encode(values, bounded=False), 80, bounded=False) == values).all()
