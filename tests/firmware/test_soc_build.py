"""The firmware of a SoC, and what it says of a network."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gossamer.cli.files import InputError
from gossamer.cli.soc import board_firmware, soc_network
from gossamer.firmware import soc_build
from gossamer.firmware.soc_build import COMPILER, FOLDER, FirmwareError, Memory, Network, build_firmware
from gossamer.gateware.registers import soc_header, soc_register_table
from gossamer.golden import digits
from gossamer.golden.compiler import compile_network
from gossamer.golden.spec import CONFIGS, Config, UserError
from tests import networks

CONFIG = Config("soc", lanes=8, store_words=4096)
NETWORK = Network("name", b"\x00\x80\xff", -3, (0.125, 1.5), True, b"\x80\x7f", 2)
MEMORY = Memory.in_ram(32 << 10)

needs_compiler = pytest.mark.skipif(
    shutil.which(COMPILER) is None or not soc_build.LIBRARY.exists(), reason=f"{COMPILER} and picolibc are not here"
)


def test_the_header_is_that_of_the_register_map():
    assert (FOLDER / "soc" / "soc_registers.h").read_text() == soc_header(), "run `python -m gossamer.gateware.registers`"


def test_the_documentation_has_the_register_map():
    assert soc_register_table() in (Path(__file__).parents[2] / "docs" / "soc.md").read_text()


def test_c_reads_what_was_written(tmp_path):
    """The host's compiler, on what is not for rv32i alone."""
    (tmp_path / "network.c").write_text(NETWORK.source())
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{FOLDER}/soc"]
    subprocess.run([*command, tmp_path / "network.c", "-o", tmp_path / "network.so"], check=True)

    class Struct(ctypes.Structure):
        _fields_ = (
            ("model", ctypes.c_char_p),
            ("image", ctypes.POINTER(ctypes.c_uint8)),
            ("image_bytes", ctypes.c_size_t),
            ("samples", ctypes.POINTER(ctypes.c_int8)),
            ("sample_count", ctypes.c_uint32),
            ("input_zero_point", ctypes.c_int8),
            ("unsigned_bytes", ctypes.c_bool),
            ("softmax", ctypes.c_bool),
            ("softmax_scale", ctypes.c_double),
            ("softmax_beta", ctypes.c_double),
        )

    found = Struct.in_dll(ctypes.CDLL(str(tmp_path / "network.so")), "network")
    assert (found.model, found.image[: found.image_bytes]) == (b"name", [0, 128, 255])
    assert found.samples[: found.sample_count] == [-128, 127]
    assert (found.input_zero_point, found.unsigned_bytes, found.softmax) == (-3, True, True)
    assert (found.softmax_scale, found.softmax_beta) == (0.125, 1.5)


@needs_compiler
@pytest.mark.parametrize("program", soc_build.PROGRAMS)
def test_the_firmware_begins_where_the_processor_does(program):
    """With an instruction: that of picolibc's start, which sets the stack pointer to the end of the RAM."""
    firmware = build_firmware(program, NETWORK, MEMORY)
    assert len(firmware) < 24 << 10
    upper, lower = (int.from_bytes(firmware[at : at + 4], "little") for at in (0, 4))
    assert (upper & 0xFFF, lower & 0xFFFFF) == (0x117, 0x10113)  # auipc sp; addi sp, sp
    offset = (lower >> 20 ^ 0x800) - 0x800
    assert (upper & 0xFFFFF000) + offset == 32 << 10


@needs_compiler
@pytest.mark.parametrize(
    "memory, what",
    [
        (Memory(0, 4096, 0x8000, 4096), "code and network must fit 4096"),
        (Memory(0, 32768, 0x8000, 512), "variables must fit 512"),
    ],
)
def test_too_little_memory_is_a_sentence(memory, what):
    with pytest.raises(FirmwareError, match=rf"^the firmware's {what} bytes, and \d+ are missing$"):
        build_firmware("classes", NETWORK, memory)


def test_an_unknown_program():
    with pytest.raises(FirmwareError, match=r"^a SoC's program must be one of classes, mlperf, not 'doom'$"):
        build_firmware("doom", NETWORK, MEMORY)


def test_a_missing_compiler_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(soc_build, "COMPILER", "riscv64-nowhere-gcc")
    sentence = (
        "a SoC's firmware needs riscv64-nowhere-gcc and picolibc: install them with "
        "`apt-get install gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf`"
    )
    with pytest.raises(FirmwareError, match=f"^{re.escape(sentence)}$"):
        build_firmware("classes", NETWORK, MEMORY)


def test_a_network_is_described():
    compiled = compile_network(digits.load(), CONFIG)
    x = digits.test_set()[0][:2]
    found = soc_network(compiled, "digits", list(x))
    scale = compiled.network.tensors[compiled.device_output].scale
    assert (found.model, found.image, found.softmax) == ("digits", compiled.program.assemble(), (scale, 1.0))
    assert (found.samples, found.sample_count, found.unsigned_bytes) == (x.tobytes(), 2, False)
    assert found.input_zero_point == compiled.network.tensors[compiled.network.input].zero_point


@pytest.mark.parametrize(
    "file, model, unsigned",
    [("kws_dscnn_int8", "kws01", False), ("ic_resnet8_int8", "ic01", True), ("vww_96_int8", "vww01", True)],
)
def test_models_of_the_benchmark_have_its_names_and_bytes(file, model, unsigned):
    found = soc_network(compile_network(digits.load(), CONFIG), file)
    assert (found.model, found.unsigned_bytes) == (model, unsigned)


def test_a_layer_that_the_firmware_does_not_compute(rng):
    b = networks.Builder(rng, (4, 4, 2))
    b.dequantize(b.conv(b.input, 3, (3, 3)))
    compiled = compile_network(b.network(), CONFIG)
    sentence = "on a SoC a network's only layer outside the core may be a softmax at its end, not "
    with pytest.raises(InputError, match=f"^{sentence}{compiled.tail[0].name}$"):
        soc_network(compiled, "x")


def test_weights_that_do_not_fit_the_store(rng):
    b = networks.Builder(rng, (4, 4, 32))
    b.fully_connected(b.input, 64)
    compiled = compile_network(b.network(), Config("small", lanes=8, store_words=1024, fetch_latency=39, fetch_interval=16))
    size = len(compiled.program.external)
    assert size
    with pytest.raises(InputError, match=f"^on a SoC a network must fit the core's store, and {size} bytes do not$"):
        soc_network(compiled, "x")


def test_a_board_without_a_processor():
    with pytest.raises(UserError, match=r"^a board with a processor must be one of icebreaker, ulx3s_85f, not 'orangecrab'$"):
        board_firmware("orangecrab", "digits", "classes")


def test_a_configuration_that_is_not_for_the_board():
    with pytest.raises(UserError, match=r"^a configuration for icebreaker must have fetch_interval 0, not 16$"):
        board_firmware("icebreaker", "digits", "classes", CONFIGS["up5k"])
