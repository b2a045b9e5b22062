"""Each board: its pins are those of amaranth-boards, its core has the ports that it connects, its PLL makes the clock."""

import dataclasses
import importlib
import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from gossamer.boards import BOARDS
from gossamer.boards.board import BAUD, LINKS, CoreOnBoard, silence, without_memory
from gossamer.boards.build import ToolError, _processor, build, clocked, find_board, linked, with_processor
from gossamer.gateware.core import Core
from gossamer.gateware.cpu import CpuError, cpu_sources
from gossamer.gateware.soc import Soc
from gossamer.golden import digits
from gossamer.golden.compiler import compile_network
from gossamer.golden.spec import CONFIGS, UserError

ROOT = Path(__file__).resolve().parent.parent.parent

PINS = {
    "icebreaker": {"uart_0__rx__io": "6", "uart_0__tx__io": "9", "led_g_0__io": "37", "led_r_0__io": "11", "clk12_0__io": "35"},
    "ulx3s_85f": {"uart_0__rx__io": "M1", "uart_0__tx__io": "L4", "led_0__io": "B2", "led_1__io": "C2", "clk25_0__io": "G2"},
    # Ref: OrangeCrab r0.2 schematic: pins 0 and 1 of the header are N17 and M18.
    "orangecrab": {
        "uart_0__rx__io": "N17",
        "uart_0__tx__io": "M18",
        "rgb_led_0__g__io": "M3",
        "rgb_led_0__r__io": "K4",
        "clk_0__io": "A9",
    },
    "colorlight_5a75b": {
        "uart_0__rx__io": "M13",
        "uart_0__tx__io": "P11",
        "led_0__io": "F3",
        "led_1__io": "F1",
        "clk25_0__io": "P6",
    },
    "tang_nano_9k": {"uart_0__rx__io": "18", "uart_0__tx__io": "17", "led_0__io": "10", "led_1__io": "11", "clk27_0__io": "52"},
    "tang_primer_20k": {
        "uart_0__rx__io": "T13",
        "uart_0__tx__io": "M11",
        "led_0__io": "C13",
        "led_1__io": "A13",
        "clk27_0__io": "H11",
    },
}
FLASH = {f"spi_flash_4x_0__{name}" for name in ("cs__io", "clk__io", "dq__io[0]", "dq__io[1]", "dq__io[2]", "dq__io[3]")}

# Ref: iCEBreaker schematic: PMOD 1A, pins 1 to 4; ULX3S: GP0, GN0, GP1, GN1; OrangeCrab: pins 10, COPI, CIPO, SCK.
SPI_PINS = {"icebreaker": "4 2 47 45", "ulx3s_85f": "B11 C11 A10 A11", "orangecrab": "B8 N16 N15 R17"}
"""Chip select, MOSI, MISO, SCK."""

PLATFORMS = {
    "icebreaker": "icebreaker.ICEBreakerPlatform",
    "ulx3s_85f": "ulx3s.ULX3S_85F_Platform",
    "orangecrab": "orangecrab_r0_2.OrangeCrabR0_2_25FPlatform",
    "colorlight_5a75b": "colorlight_5a75b_r7_0.Colorlight_5A75B_R70Platform",
    "tang_nano_9k": "tang_nano_9k.TangNano9kPlatform",
    "tang_primer_20k": "tang_primer_20k.TangPrimer20kDockPlatform",
}
OURS = {"orangecrab": {"uart"}, "colorlight_5a75b": {"led"}}
"""Resources that amaranth-boards does not have, or not like this."""

every_board = pytest.mark.parametrize("name", BOARDS)


def platform(name):
    """A new one."""
    module, _, kind = PLATFORMS[name].partition(".")
    return getattr(importlib.import_module(f"amaranth_boards.{module}"), kind)()


def located(constraints):
    """Pins by port of a file of constraints: .pcf, .lpf or .cst."""
    patterns = r"set_io (\S+) (\S+)|LOCATE COMP \"(\S+)\" SITE \"(\S+)\"|IO_LOC \"(\S+)\" (\S+);"
    groups = (match.groups(default="") for match in re.finditer(patterns, constraints))
    return {"".join(pairs[0::2]): "".join(pairs[1::2]) for pairs in groups}


@pytest.fixture(scope="module")
def sources():
    return {name: find_board(name).sources(name) for name in BOARDS}


def constraints(sources, name):
    return sources[name][f"{name}.{find_board(name).family.constraints}"]


@every_board
def test_a_board_is_described_by_the_module_of_its_name(name):
    board = find_board(name)
    assert board.name == name
    assert "{bitstream}" in board.program


@every_board
def test_pins_are_where_the_board_has_them(name, sources):
    pins = located(constraints(sources, name))
    flash = {port for port in pins if port.startswith("spi_flash")}
    assert flash == (FLASH if name == "icebreaker" else set())
    assert {port: pin for port, pin in pins.items() if port not in flash} == PINS[name]


@every_board
def test_pins_are_those_of_the_platform(name, sources):
    known = platform(name)
    for port, pin in located(constraints(sources, name)).items():
        resource, number, sub, bit = re.fullmatch(r"(\w+?)_(\d)(?:__(\w+?))?__io(?:\[(\d)\])?", port).groups()
        if resource in OURS.get(name, ()):
            continue
        signal = known.lookup(resource, int(number))
        if sub is not None:
            signal = next(part for part in signal.ios if getattr(part, "name", None) == sub)
        assert signal.ios[0].names[int(bit or 0)] == pin


def made_clock(name, text):
    """What the PLL makes of the platform's oscillator, in MHz."""
    mhz = platform(name).default_clk_frequency / 1e6
    parameters = {key: int(value) for key, value in re.findall(r"parameter (?:signed )?\\(\w+) (\d+)\n", text)}
    parameters |= {key: int(value, 2) for key, value in re.findall(r"parameter (?:signed )?\\(\w+) \d+'([01]+)\n", text)}
    if "CLKOS_DIV" in parameters:
        return mhz * parameters["CLKOP_DIV"] / parameters["CLKOS_DIV"]
    if "FBDIV_SEL" in parameters:
        assert float(re.search(r'\\FCLKIN "(\S+)"', text)[1]) == mhz
        return mhz * (parameters["FBDIV_SEL"] + 1) / (parameters["IDIV_SEL"] + 1)
    return mhz * (parameters["DIVF"] + 1) / 2 ** parameters["DIVQ"]


@every_board
def test_the_pll_makes_the_clock_of_the_platforms_oscillator(name, sources):
    assert made_clock(name, sources[name][f"{name}.il"]) == find_board(name).clock_mhz


@every_board
def test_another_clock(name):
    board = find_board(name)
    mhz = int(2 * platform(name).default_clk_frequency / 1e6)
    other = clocked(board, mhz)
    text = other.sources(name)[f"{name}.il"]
    assert made_clock(name, text) == other.clock_mhz == mhz
    assert other.asked_mhz == mhz * board.margin
    with pytest.raises(UserError, match=r"^the clock must be one that the PLL can make from \d+ MHz, not 999 MHz$"):
        clocked(board, 999).sources(name)


@every_board
def test_the_core_has_the_ports_that_the_board_connects(name, sources):
    config = find_board(name).config
    core = Core(config)
    ports = {"_".join(("wb", *path[1:]) if path[0] == "bus" else map(str, path)) for path, _, _ in core.signature.flatten(core)}
    cell = re.search(r"cell \\gossamer_core .*?\n(.*?)\n  end", sources[name][f"{name}.il"], re.DOTALL)[1]
    connected = set(re.findall(r"connect \\(\w+)", cell))
    assert connected == (ports | {"clk", "rst"}) - {"irq"}
    assert any(port.startswith("memory_") for port in connected) == (name == "icebreaker")


@every_board
def test_the_device_is_that_of_the_platform(name):
    board, known = find_board(name), platform(name)
    options = dict(zip(board.nextpnr, [*board.nextpnr[1:], ""]))
    if hasattr(known, "_nextpnr_device_options"):
        assert known._nextpnr_device_options[known.device] in options
        package = getattr(known, "_nextpnr_package_options", {}).get(known.package, known.package)
        assert options["--package"].lower() == package.lower()
        assert options.get("--speed", "") == getattr(known, "speed", "")
    else:
        assert options["--device"] == board.part == known.part
        assert f"family={known._chipdb_device}" in options
        assert dict(zip(board.pack, board.pack[1:]))["-d"] == known._chipdb_device


@every_board
def test_the_demo_fits(name):
    """Also the board without the external memory that the named configuration has. For 64 lanes and 56 kB with int4 weights."""
    compile_network(digits.load("w4a8" if name == "tang_primer_20k" else "int8"), find_board(name).config)


@every_board
def test_the_documentation_has_what_the_board_is(name):
    board = find_board(name)
    page = (ROOT / "docs" / "boards.md").read_text(encoding="utf-8")
    sizes, *_, loading = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    what = f"| `{name}` | {board.part} | `{board.config.name}` | {board.config.lanes} | {board.clock_mhz} MHz |"
    assert sizes.startswith(what)
    bitstream = f"{name}.{board.family.bitstream}"
    assert loading.startswith(f"| `{name}` | `{board.family.extra}` | `{board.program.format(bitstream=bitstream)}` |")


@pytest.mark.parametrize("baud", [115_200, BAUD, 3_000_000])
def test_silence_takes_less_than_the_host_waits(baud):
    """Which is 100 ms, in the driver."""
    bits = silence(baud)
    assert bits & (bits - 1) == 0
    assert 30 <= bits / baud * 1e3 < 60


@every_board
def test_a_board_has_spi_where_it_has_pins_for_it(name, sources):
    """Instead of the serial port."""
    board = find_board(name)
    assert linked(board, "uart") is board
    assert board.links == (LINKS if name in SPI_PINS else ("uart",))
    if name not in SPI_PINS:
        with pytest.raises(UserError, match=rf"^the link of {name} must be one of uart, not 'spi'$"):
            linked(board, "spi")
        return
    files = linked(board, "spi").sources(name)
    ports = [f"spi_host_0__{pin}__io" for pin in ("cs", "copi", "cipo", "clk")]
    pins = located(files[f"{name}.{board.family.constraints}"])
    assert [pins.pop(port) for port in ports] == SPI_PINS[name].split()
    others = located(constraints(sources, name))
    assert pins == {port: pin for port, pin in others.items() if not port.startswith("uart")}
    assert not {*SPI_PINS[name].split()} & {*others.values()}
    text = files[f"{name}.il"]
    assert "UartReceiver" not in text
    # The first registers of the inputs are those of IO cells.
    register = "PIN_TYPE 6'000000" if name == "icebreaker" else "IFS1P3DX"
    assert text.count(register) == sources[name][f"{name}.il"].count(register) + 3


@pytest.mark.parametrize("board, link", [("icebreaker", "jtag"), ("tang_nano_9k", "spi")])
def test_a_link_that_a_board_has_not_is_refused(board, link, tmp_path):
    known = ", ".join(find_board(board).links)
    with pytest.raises(UserError, match=rf"^the link of {board} must be one of {known}, not '{link}'$"):
        build(board, tmp_path / "out", link=link)
    assert [*tmp_path.iterdir()] == []


def test_without_memory_the_core_has_no_port():
    config = without_memory(CONFIGS["gw1n9"])
    assert config.name == "gw1n9-nofetch"
    assert "memory" in Core(CONFIGS["gw1n9"]).signature.members
    assert "memory" not in Core(config).signature.members


def test_the_bit_rate_must_divide_the_clock():
    with pytest.raises(UserError, match=r"^baud must be within 1 % of 27 MHz over an integer, not 2900000$"):
        CoreOnBoard(CONFIGS["gw1n9"], clock_mhz=27, pll=lambda *_: None, baud=2_900_000)
    assert BAUD == 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BOARDS if name != "icebreaker"])
def test_bitstream_and_report(name, tmp_path):
    """Minutes each. (That of iCEBreaker is in test_build.py, and not slow.)"""
    board = find_board(name)
    report = build(name, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert report["meets_target"]
    assert all(r["used"] <= r["available"] for r in report["resources"].values())
    assert report["resources"].keys() >= {"LUT", "FF", "RAM", "DSP", "PLL", "IO"}
    assert report["resources"]["DSP"]["used"] >= board.config.lanes
    assert report["resources"]["IO"]["used"] == 5
    assert report["resources"]["PLL"]["used"] == 1
    bitstream = (tmp_path / "out" / report["files"]["bitstream"]).read_bytes()
    # Ref: prjtrellis, "Bitstream format": the preamble behind a comment. Apicula writes bits as characters.
    preamble = b"1010010111000011" if name.startswith("tang") else bytes.fromhex("ffffbdb3")
    assert preamble in bitstream[:2000]
    assert len(bitstream) > 100_000
    shutil.rmtree(tmp_path / "out")


# With a processor

with_processors = pytest.mark.parametrize("name", ["icebreaker", "ulx3s_85f"])


@pytest.fixture(scope="module")
def soc_sources():
    return {name: with_processor(find_board(name)).sources(name) for name in ("icebreaker", "ulx3s_85f")}


@with_processors
def test_a_processor_takes_the_place_of_the_bridge(name, soc_sources):
    """The same pins, those of the flash on iCEBreaker; and the SoC has the ports that the board connects, as has the core."""
    board = with_processor(find_board(name))
    pins = located(constraints(soc_sources, name))
    assert {port: pin for port, pin in pins.items() if port not in FLASH} == PINS[name]
    assert FLASH & {*pins} == (FLASH if name == "icebreaker" else set())
    text = soc_sources[name][f"{name}.il"]
    for module, ports in (
        ("gossamer_soc", Soc(cpu="serv", ram_words=1, divisor=8, clock_mhz=1, rom=board.soc.flash > 0)),
        ("gossamer_core", Core(board.config)),
    ):
        flat = ports.signature.flatten(ports)
        expected = {"_".join(("wb", *path[1:]) if path[0] == "bus" else map(str, path)) for path, _, _ in flat}
        cell = re.search(rf"cell \\{module} .*?\n(.*?)\n  end", text, re.DOTALL)[1]
        assert set(re.findall(r"connect \\(\w+)", cell)) == expected | {"clk", "rst"}


@with_processors
def test_the_processor_starts_where_its_firmware_is(name, tmp_path):
    """In the flash behind bitstream, in front of the external memory's place; or in the RAM, as its contents."""
    pytest.importorskip("pythondata_cpu_serv")
    pytest.importorskip("pythondata_cpu_picorv32")
    board = with_processor(find_board(name))
    script = _processor(board, tmp_path, b"\x13\x05\x00\x00\x01")
    verilog = (tmp_path / "gossamer_soc.sv").read_text()
    names = re.findall(r"read_verilog (?:-sv )?(\S+)", script)
    assert names[-1] == "gossamer_soc.sv"
    assert all((tmp_path / name).is_file() for name in names)
    assert (tmp_path / "firmware.bin").read_bytes() == b"\x13\x05\x00\x00\x01"
    if name == "icebreaker":
        assert 104_090 < board.soc.flash < 2 << 20
        assert board.soc.program == "iceprog -o 1024k {firmware}"
        assert re.search(rf"RESET_PC\((32'h20100000|32'd{0x20100000})\)", verilog)
        assert "readmemh" not in verilog
    else:
        assert re.search(r"PROGADDR_RESET\((32'h00000000|32'h0|32'd0)\)", verilog)
        assert 'initial $readmemh("firmware.hex", memory);' in verilog
        assert (tmp_path / "firmware.hex").read_text() == "00000513\n00000001\n"


def test_firmware_that_does_not_fit_the_ram(tmp_path):
    pytest.importorskip("pythondata_cpu_picorv32")
    with pytest.raises(UserError, match=r"^firmware must have at most the 65536 bytes of the RAM, not 65537$"):
        _processor(with_processor(find_board("ulx3s_85f")), tmp_path, bytes(65537))


def test_boards_without_a_processor(tmp_path):
    with pytest.raises(UserError, match=r"^a board with a processor must be one of icebreaker, ulx3s_85f, not 'tang_nano_9k'$"):
        build("tang_nano_9k", tmp_path, firmware=b"")


def test_the_flash_has_one_reader():
    with pytest.raises(ValueError, match=r"^fetch_interval must be 0 where the flash holds the firmware, not 16$"):
        CoreOnBoard(CONFIGS["up5k"], clock_mhz=24, pll=lambda *_: None, soc=True, flash_rom=True)


@pytest.mark.parametrize("module, name", [("pythondata_cpu_serv", "serv"), ("pythondata_cpu_picorv32", "picorv32")])
def test_a_missing_processor_is_named_with_its_extra(module, name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == module else pytest.fail(package))
    sentence = f"a SoC with {name} needs its Verilog: install it with `pip install 'gossamer[soc]'`"
    with pytest.raises(CpuError, match=f"^{re.escape(sentence)}$"):
        cpu_sources(name)


def test_the_tools_are_asked_for_a_faster_clock_by_the_margin(tmp_path, monkeypatch):
    """The mapper in the script, the placer as an option; and the board's further files are there for them."""
    seen = {}

    def run(work, package, tool, *arguments):
        seen[tool] = arguments
        if tool == "yosys":
            seen["script"] = (work / "tang_nano_9k.ys").read_text()
            seen["more"] = (work / "more.bin").read_bytes()
            return
        raise ToolError("enough")

    monkeypatch.setattr("gossamer.boards.build._run", run)
    monkeypatch.setattr("gossamer.boards.build._require_tools", lambda family: None)
    monkeypatch.setattr("gossamer.boards.build._tools", lambda family: {})
    verilog = "module \\gossamer_core.store (clk);\nendmodule\n"
    monkeypatch.setattr("gossamer.boards.build.emit_verilog", lambda config: verilog)
    board = dataclasses.replace(find_board("tang_nano_9k"), margin=1.5, files=lambda: {"more.bin": b"more"})
    monkeypatch.setattr("gossamer.boards.build.find_board", lambda name: board)
    with pytest.raises(ToolError, match=r"^enough$"):
        build("tang_nano_9k", tmp_path / "out")
    assert "-set abc9.D 3704\n" in seen["script"]  # ps: 27 MHz, times 1.5, of which the mapper is told 0.15
    assert seen["more"] == b"more"
    options = seen["nextpnr_himbaechel_gowin"]
    assert options[options.index("--freq") + 1] == "40.5"
