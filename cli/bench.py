"""Networks on configurations, on RTL: cycles against the dense roofline, and against an earlier measurement."""

import json
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.cli.files import InputError
from gossamer.cli.models import Samples
from gossamer.cli.report import CATEGORIES, markdown_table, run_report, short
from gossamer.golden.compiler import Compiled, CompileError
from gossamer.golden.inference import Inference
from gossamer.sim.rtl import Simulator

__all__ = [
    "COLUMNS", "bench_markdown", "bench_picture", "faults", "growths", "load_baseline", "measure", "refusal", "rows",
    "where_cycles_go",
]  # fmt: skip

Report = dict[str, Any]

COLUMNS = (
    "network", "configuration", "lanes", "inputs", "cycles per inference", "cold start", "dense roofline", "ratio",
    "MACs skipped", "streamed bytes", "peak activation bytes", "image bytes", "simulated cycles/s",
)  # fmt: skip
"""Of the table; :func:`bench_markdown` explains them."""

CHECKS = (
    ("outputs_equal", "outputs must be golden's"),
    ("reference_equal", "outputs must be those beside the model"),
    ("cycles_equal", "cycle counts must be as predicted"),
)


def measure(
    compiled: Compiled,
    samples: Samples,
    inferences: list[Inference],
    cold: Inference,
    simulator: Simulator,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Run the samples on RTL. ``inferences`` are the interpreter's, ``cold`` that of a cold start with the first."""
    source, x = compiled.source, samples.x
    start = time.perf_counter()
    result = simulator.run(compiled, x, progress=progress)
    seconds = time.perf_counter() - start
    values = [compiled.output_values(data) for data in result.outputs]
    outputs = compiled.finish(np.stack(values))
    golden = [source.run(one[np.newaxis])[source.output][0] for one in x]
    equal = [
        np.array_equal(value, inference.output) and np.array_equal(output, expected)
        for value, inference, output, expected in zip(values, inferences, outputs, golden)
    ]
    report = run_report(compiled, inferences, "rtl", result.cycles, result.simulated)
    reference = {}
    if samples.output is not None:
        pairs = zip(outputs, samples.output)
        reference["reference_equal"] = sum(np.array_equal(a, b.reshape(a.shape)) for a, b in pairs)
    return {
        **report,
        "inputs": samples.source,
        "cycles_cold": result.cold,
        "warm_start": compiled.program.warm > 0,
        "outputs_equal": sum(equal),
        **reference,
        "cycles_equal": sum(a == b for a, b in zip(result.cycles, report["cycles_predicted"])),
        "cold_equal": result.cold == cold.cycles,
        "simulated_cycles_per_second": round(result.simulated / seconds),
    }


def refusal(network: str, configuration: str, reason: Exception) -> Report:
    """What stands for a network that does not fit a configuration, or, if that is empty, that cannot be read at all."""
    missing = reason.missing if isinstance(reason, CompileError) else 0
    return {"network": network, "configuration": configuration, "refused": str(reason), "missing_bytes": missing}


def _place(report: Report) -> str:
    return f"{report['network']} on {report['configuration']}" if report["configuration"] else report["network"]


def faults(reports: list[Report]) -> list[str]:
    """A sentence for each network and configuration of which not every output and cycle count was as golden says."""
    sentences = []
    for report in reports:
        count = report.get("inferences", 0)
        for key, rule in CHECKS:
            if report.get(key, count) != count:
                sentences.append(f"{_place(report)}: all {count} {rule}, and {count - report[key]} are not")
        if not report.get("cold_equal", True):
            sentences.append(f"{_place(report)}: the cycles of a cold start must be as predicted, and are not")
    return sentences


def load_baseline(path: Path) -> list[Report]:
    """The reports in an earlier ``bench.json``."""
    try:
        reports = json.loads(path.read_text())["runs"]
        for report in reports:
            _ = report["network"], report["configuration"], [int(count) for count in report.get("cycles", ())]
            _ = int(report.get("cycles_cold", 0))
    except FileNotFoundError:
        raise InputError(f"the baseline {path} must exist") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"the baseline {path} must be a bench.json that `gossamer bench` wrote") from None
    return reports


def growths(reports: list[Report], baseline: list[Report]) -> list[str]:
    """A sentence for each network and configuration that takes more cycles than in the baseline, or does not fit any more.

    Compared are the inputs that both have run, which are the first ones, and the cold start of the first.
    """
    before = {(report["network"], report["configuration"]): report for report in baseline}
    ran = {network for (network, _), report in before.items() if "cycles" in report}
    sentences = []
    for report in reports:
        place = _place(report)
        old = before.get((report["network"], report["configuration"]), {})
        count = min(len(old.get("cycles", ())), len(report.get("cycles", ())))
        if "refused" in report:
            if "cycles" in old or (not report["configuration"] and report["network"] in ran):
                sentences.append(f"{place}: fitted in the baseline, and now {report['refused']}")
        elif count and sum(report["cycles"][:count]) > sum(old["cycles"][:count]):
            now, then = np.mean(report["cycles"][:count]), np.mean(old["cycles"][:count])
            sentences.append(
                f"{place}: must take at most the baseline's {then:,.1f} cycles per inference, not {now:,.1f} "
                f"({now / then - 1:+.2%}, {count} inputs)"
            )
        elif count and report["cycles_cold"] > old.get("cycles_cold", report["cycles_cold"]):
            now, then = report["cycles_cold"], old["cycles_cold"]
            sentences.append(f"{place}: must take at most the baseline's {then:,} cycles from a cold start, not {now:,}")
    return sentences


def rows(reports: list[Report]) -> list[tuple[str, ...]]:
    """Cells of the table, in the order of :data:`COLUMNS`."""
    cells: list[tuple[str, ...]] = []
    for report in reports:
        if not report["configuration"]:
            continue
        if "refused" in report:
            missing = f": {report['missing_bytes']:,} bytes are missing" if report["missing_bytes"] else ""
            blank = ("",) * (len(COLUMNS) - 5)
            cells.append((report["network"], report["configuration"], "", "", f"does not fit{missing}", *blank))
            continue
        dense = report["dense_roofline"]
        cells.append(
            (
                report["network"],
                report["configuration"],
                str(report["lanes"]),
                str(report["inferences"]),
                f"{report['cycles_mean']:,.1f}",
                f"{report['cycles_cold']:,}" if report["warm_start"] else "",
                f"{dense:,.1f}".removesuffix(".0"),
                f"{report['cycles_mean'] / dense:.2f}" if dense else "",
                f"{report['macs_skipped']:.1%}",
                f"{report['streamed_bytes']:,}",
                f"{report['peak_activation_bytes']:,}",
                f"{report['image_bytes']:,}",
                f"{report['simulated_cycles_per_second']:,}",
            )
        )
    return cells


def where_cycles_go(reports: list[Report]) -> str:
    """A Markdown table: of each run the cycles of each category, as parts of all."""
    cells = []
    for report in reports:
        if "refused" in report:
            continue
        total = report["cycles_mean"]
        parts = [sum(layer[f"{category}_cycles"] for layer in report["layers"]) for category in CATEGORIES]
        shares = (f"{part:,.0f} ({part / total:.1%})" for part in parts)
        cells.append((report["network"], report["configuration"], f"{total:,.1f}", *shares))
    return markdown_table(("network", "configuration", "cycles", *CATEGORIES), cells, 2)


LEGEND = """
Cycles are means over the inputs, counted on RTL, of warm starts where a program has them; then *cold start* is that of the
first input. *Dense roofline* is multiply-accumulates divided by lanes: what the lanes would need if none was skipped
and nothing else took time; *ratio* is cycles over roofline. *Streamed bytes* come from the external memory in every inference.
*Peak activation bytes* are those of feature maps, partial sums and fetched words. *Simulated cycles/s* is the speed of the
simulation on the machine that ran it.
"""

CATEGORY_LEGEND = """
*compute*: the array is fed. *requantize*: it stands still because sums wait for the requantizer, or the layer's last sums are
on their way to the store. *load*: it waits for input rows, or begins a layer. *weights*: between layers and their parts, the
sequencer waits for steps, weights, parameters, partial sums and fetches.
"""


def bench_markdown(reports: list[Report]) -> str:
    """The tables, and what did not fit."""
    refused = [f"- {_place(report)}: {report['refused']}.\n" for report in reports if "refused" in report]
    parts = [
        "# Benchmark\n\n",
        markdown_table(COLUMNS, rows(reports), 2),
        LEGEND,
        *(["\n", *refused] if refused else []),
        "\n## Where the cycles go\n\n",
        where_cycles_go(reports),
        CATEGORY_LEGEND,
        "\n![cycles per layer](bench.png)\n",
    ]
    return "".join(parts)


def bench_picture(reports: list[Report], path: Path) -> None:
    """Cycles per layer by category, and the dense roofline: a row of panels per network, a panel per configuration."""
    from matplotlib.artist import Artist
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    reports = [report for report in reports if report["configuration"]]
    configurations = list(dict.fromkeys(report["configuration"] for report in reports))
    layers: dict[str, list[str]] = {}  # by network: those that take time somewhere, or would if they were not folded
    for report in reports:
        names = [layer["layer"] for layer in report.get("layers", ()) if layer["cycles"] or layer["macs"]]
        layers[report["network"]] = max(layers.get(report["network"], []), names, key=len)
    heights = [0.2 * max(len(names), 6) + 0.7 for names in layers.values()]
    figure = Figure(figsize=(1.6 + 4.2 * len(configurations), sum(heights) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(layers), len(configurations), squeeze=False, height_ratios=heights)
    drawn = {(network, name): axes for network, line in zip(layers, grid) for name, axes in zip(configurations, line)}
    for axes in drawn.values():
        axes.set_axis_off()
    for report in reports:
        axes = drawn[report["network"], report["configuration"]]
        title = f"{report['network']} on {report['configuration']}"
        if "refused" in report:
            axes.set_title(title, fontsize=9)
            sentence = "\n".join(textwrap.wrap(report["refused"], 50))
            axes.text(0.5, 0.5, sentence, ha="center", va="center", fontsize=8, color="#666666", transform=axes.transAxes)
            continue
        names = layers[report["network"]]
        of = {layer["layer"]: layer for layer in report["layers"]}
        at, done = np.arange(len(names)), np.zeros(len(names))
        axes.set_axis_on()
        for category, colour in CATEGORIES.items():
            cycles = np.array([of[name][f"{category}_cycles"] for name in names])
            axes.barh(at, cycles, 0.72, left=done, color=colour)
            done += cycles
        dense = [of[name]["dense_roofline"] for name in names]
        axes.vlines(dense, at - 0.45, at + 0.45, color="black", linewidth=1.6)
        axes.set_yticks(at, [short(name, 26) for name in names], fontsize=7)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.03 * max(*done, *dense))
        axes.tick_params(axis="x", labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        roofline = f"{report['cycles_mean']:,.0f} cycles, dense roofline {report['dense_roofline']:,.0f}"
        axes.set_title(f"{title}, {report['lanes']} lanes\n{roofline}", fontsize=9)
    handles: list[Artist] = [Patch(color=colour, label=category) for category, colour in CATEGORIES.items()]
    line: dict[str, Any] = {"marker": "|", "markersize": 10, "markeredgewidth": 1.6, "linestyle": ""}
    handles.append(Line2D([], [], color="black", label="dense roofline", **line))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.savefig(path, dpi=110)
