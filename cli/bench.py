"""Networks on configurations, on RTL: cycles against the dense roofline, and against an earlier measurement."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.cli.files import InputError
from gossamer.cli.report import run_report
from gossamer.golden.compiler import Compiled
from gossamer.golden.inference import Inference
from gossamer.sim.rtl import Simulator

__all__ = ["COLUMNS", "bench_markdown", "bench_picture", "faults", "growths", "load_baseline", "measure", "refusal", "rows"]

Report = dict[str, Any]

COLUMNS = (
    "network", "configuration", "lanes", "cycles per inference", "dense roofline", "MACs skipped", "simulated cycles/s",
)  # fmt: skip
"""Of the table. The dense roofline is the cycles that ``lanes`` multipliers need for all multiply-accumulates."""


def measure(
    compiled: Compiled,
    x: NDArray[np.int8],
    inferences: list[Inference],
    simulator: Simulator,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Run ``x`` on RTL. ``inferences`` are the interpreter's."""
    network = compiled.network
    start = time.perf_counter()
    result = simulator.run(compiled, x, progress=progress)
    seconds = time.perf_counter() - start
    outputs = np.stack([compiled.output_values(data) for data in result.outputs])
    golden = network.run(x)[compiled.device_output]
    report = run_report(compiled, inferences, "rtl", result.cycles, result.simulated)
    return {
        **report,
        "outputs_equal": int((outputs == golden).reshape(len(x), -1).all(1).sum()),
        "cycles_equal": sum(a == b for a, b in zip(result.cycles, report["cycles_predicted"])),
        "dense_roofline": round(report["macs"] / report["lanes"], 1),
        "other_cycles": round(report["cycles_mean"] - sum(layer["cycles"] for layer in report["layers"]), 1),
        "simulated_cycles_per_second": round(result.simulated / seconds),
    }


def refusal(network: str, configuration: str, reason: object) -> Report:
    """What stands for a network that does not fit a configuration."""
    return {"network": network, "configuration": configuration, "refused": str(reason)}


def faults(reports: list[Report]) -> list[str]:
    """A sentence for each network and configuration of which not every output and cycle count was as golden says."""
    sentences = []
    for report in reports:
        for key, what in (("outputs_equal", "outputs"), ("cycles_equal", "cycle counts")):
            count = report.get("inferences", 0)
            if report.get(key, 0) != count:
                place = f"{report['network']} on {report['configuration']}"
                sentences.append(f"{place}: all {count} {what} must be as predicted, and {count - report[key]} are not")
    return sentences


def load_baseline(path: Path) -> list[Report]:
    """The reports in an earlier ``bench.json``."""
    try:
        reports = json.loads(path.read_text())["runs"]
        for report in reports:
            _ = report["network"], report["configuration"], [int(count) for count in report.get("cycles", ())]
    except FileNotFoundError:
        raise InputError(f"the baseline {path} must exist") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"the baseline {path} must be a bench.json that `gossamer bench` wrote") from None
    return reports


def growths(reports: list[Report], baseline: list[Report]) -> list[str]:
    """A sentence for each network and configuration that takes more cycles than in the baseline, or does not fit any more.

    Compared are the inputs that both have run, which are the first ones.
    """
    before = {(report["network"], report["configuration"]): report for report in baseline}
    sentences = []
    for report in reports:
        place = f"{report['network']} on {report['configuration']}"
        old = before.get((report["network"], report["configuration"]), {})
        count = min(len(old.get("cycles", ())), len(report.get("cycles", ())))
        if "cycles" in old and "refused" in report:
            sentences.append(f"{place}: fitted in the baseline, and now {report['refused']}")
        elif count and sum(report["cycles"][:count]) > sum(old["cycles"][:count]):
            now, then = np.mean(report["cycles"][:count]), np.mean(old["cycles"][:count])
            sentences.append(
                f"{place}: must take at most the baseline's {then:,.1f} cycles per inference, not {now:,.1f} "
                f"({now / then - 1:+.2%}, {count} inputs)"
            )
    return sentences


def rows(reports: list[Report]) -> list[tuple[str, ...]]:
    """Cells of the table, in the order of :data:`COLUMNS`."""
    cells: list[tuple[str, ...]] = []
    for report in reports:
        if "refused" in report:
            cells.append((report["network"], report["configuration"], "", "does not fit", "", "", ""))
            continue
        cells.append(
            (
                report["network"],
                report["configuration"],
                str(report["lanes"]),
                f"{report['cycles_mean']:,.1f}",
                f"{report['dense_roofline']:,.1f}",
                f"{report['macs_skipped']:.1%}",
                f"{report['simulated_cycles_per_second']:,}",
            )
        )
    return cells


def bench_markdown(reports: list[Report]) -> str:
    """The table, and what did not fit."""
    lines: list[tuple[str, ...]] = [COLUMNS, ("---",) * 2 + ("--:",) * (len(COLUMNS) - 2), *rows(reports)]
    text = "# Benchmark\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
    text += "\nCycles are means over the inputs, counted on RTL; the dense roofline is multiply-accumulates divided by lanes.\n"
    refused = [f"- {r['network']} on {r['configuration']}: {r['refused']}.\n" for r in reports if "refused" in r]
    return text + ("\n" + "".join(refused) if refused else "") + "\n![cycles per layer](bench.png)\n"


def bench_picture(reports: list[Report], path: Path) -> None:
    """Cycles per layer: the front issuing, the front stalled by the drain, and the rest; a line marks the dense roofline."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reports = [report for report in reports if "refused" not in report]
    width = max(len(report["layers"]) for report in reports)
    figure = Figure(figsize=(2.5 + 0.8 * width, 2.6 * len(reports) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, report in zip(figure.subplots(len(reports), squeeze=False)[:, 0], reports):
        layers = [layer for layer in report["layers"] if layer["cycles"]]
        names = [*(layer["layer"] for layer in layers), "(between)"]
        at = np.arange(len(names))
        issue = np.array([*(layer["issue_cycles"] for layer in layers), 0])
        stall = np.array([*(layer["stall_cycles"] for layer in layers), 0])
        total = np.array([*(layer["cycles"] for layer in layers), report["other_cycles"]])
        bottom = np.zeros(len(names))
        for label, height, colour in (
            ("issuing", issue, "#4477aa"),
            ("stalled", stall, "#ee6677"),
            ("rest", total - issue - stall, "#bbbbbb"),
        ):
            axes.bar(at, height, 0.7, bottom=bottom, label=label, color=colour)
            bottom += height
        dense = [layer["macs"] / report["lanes"] for layer in layers]
        axes.hlines(dense, at[:-1] - 0.45, at[:-1] + 0.45, color="black", linewidth=1.2, label="dense roofline")
        axes.set_xticks(at, names, fontsize=8)
        axes.set_ylabel("cycles", fontsize=8)
        axes.tick_params(axis="y", labelsize=8)
        axes.set_title(
            f"{report['network']} on {report['configuration']}: {report['cycles_mean']:,.0f} cycles, dense "
            f"{report['dense_roofline']:,.0f}",
            fontsize=9,
        )
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)
