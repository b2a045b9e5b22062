"""`gossamer build --soc`: what it hands to the build, and what it refuses."""

import json

import pytest

from gossamer.boards import build as boards_build
from gossamer.cli import soc


@pytest.fixture
def built(monkeypatch):
    """What the build was asked for; it makes nothing, and neither does the compiler."""
    found = {}

    def build_firmware(program, network, memory):
        found.update(program=program, network=network, memory=memory)
        return b"firmware"

    def build(board, folder, **options):
        found.update(board=board, firmware=options["firmware"])
        return {"board": board}

    monkeypatch.setattr(soc, "build_firmware", build_firmware)
    monkeypatch.setattr(boards_build, "build", build)
    return found


def test_samples_are_for_the_program_that_prints_their_classes(gossamer, built):
    status, output, _ = gossamer("build", "--board", "ulx3s_85f", "--soc", "digits", "-o", "out")
    assert (status, json.loads(output)) == (0, {"board": "ulx3s_85f"})
    assert (built["board"], built["firmware"], built["program"]) == ("ulx3s_85f", b"firmware", "classes")
    assert (built["network"].sample_count, len(built["network"].samples)) == (soc.SAMPLES, 64 * soc.SAMPLES)


def test_memory_is_that_of_the_board(gossamer, built):
    """Code and constants in the flash, from 1 MB to its end; or in RAM, in front of 8 kB of variables."""
    assert gossamer("build", "--board", "icebreaker", "--soc", "digits", "--firmware", "mlperf", "-o", "out")[0] == 0
    memory = built["memory"]
    assert (memory.code, memory.code_bytes, memory.data, memory.data_bytes) == (0x20100000, 15 << 20, 0, 4 << 10)
    assert (built["program"], built["network"].sample_count) == ("mlperf", 0)
    assert gossamer("build", "--board", "ulx3s_85f", "--soc", "digits", "-o", "out")[0] == 0
    memory = built["memory"]
    assert (memory.code, memory.code_bytes, memory.data, memory.data_bytes) == (0, 56 << 10, 56 << 10, 8 << 10)


def test_a_core_alone_has_no_firmware(gossamer, built):
    assert gossamer("build", "--board", "tang_nano_9k", "-o", "out")[0] == 0
    assert built == {"board": "tang_nano_9k", "firmware": None}


def test_a_board_without_a_processor(refused):
    message = refused("build", "--board", "orangecrab", "--soc", "digits", "-o", "out")
    assert message == "a board with a processor must be one of icebreaker, ulx3s_85f, not 'orangecrab'"


def test_firmware_is_for_a_processor(gossamer):
    status, output, messages = gossamer("build", "--board", "icebreaker", "--firmware", "mlperf", "-o", "out")
    assert (status, output) == (2, "")
    assert "--firmware is for a board with --soc" in messages
