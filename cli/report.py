"""Reports about a compiled network: numbers and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.golden.compiler import Compiled
from gossamer.golden.inference import Inference
from gossamer.golden.lowering import channels_of_a_vector
from gossamer.golden.network import Conv, FullyConnected, Network, Weighted
from gossamer.golden.permutation import block_density
from gossamer.golden.rolling import PARTIAL_SUMS
from gossamer.golden.schedule import FETCHED
from gossamer.golden.spec import Opcode

__all__ = [
    "CATEGORIES", "compile_report", "curve_picture", "markdown_table", "memory_picture", "run_report", "short", "streamed",
]  # fmt: skip

Report = dict[str, Any]

CATEGORIES: Mapping[str, str] = {"compute": "#4477aa", "requantize": "#ee6677", "load": "#ccbb44", "weights": "#aa77bb"}
"""What cycles go to, as in :class:`LayerStatistics`, and the colour of each."""


def streamed(compiled: Compiled) -> dict[str, int]:
    """Bytes that an inference (a warm start) fetches from the external memory, by the layer that they are for."""
    program, size = compiled.program, compiled.program.config.store_bytes
    names = {run.step: run.layer for run in compiled.runs}
    found: dict[str, int] = {}
    fetched: list[range] = []  # store words that wait to be loaded, in the order in which they come
    words, left = range(0), 0  # those that are being loaded
    pending = 0
    for number, step in enumerate(program.steps[program.warm :], program.warm):
        if step["opcode"] == Opcode.FETCH:
            fetched.append(range(step["in_address"], step["in_address"] + step["count"]))
        elif step["opcode"] == Opcode.RUN:
            if pending:
                found[names[number]] = found.get(names[number], 0) + pending
            pending = 0
        elif step["opcode"] in (Opcode.LOAD_WEIGHTS, Opcode.LOAD_MASKS, Opcode.LOAD_PARAMETERS):
            if step["fetched"]:
                words = fetched.pop(0)
                left = len(words)
            if left and step["in_address"] in words:
                left -= step["count"]
                pending += step["count"] * size
    return found


def _weights(network: Network) -> dict[str, tuple[int, int]]:
    """Weights and output channels of the layers that have weights."""
    found = [layer for layer in network.layers if isinstance(layer, Weighted)]
    return {layer.name: (layer.weights.size, layer.weights.shape[layer.channel_axis]) for layer in found}


def _blocks(compiled: Compiled) -> dict[str, Report]:
    """Of convolutions and fully connected layers the weight vectors, and the share of them that is not zero, as it is and with
    output channels in the order that they had."""
    config = compiled.program.config
    given = {layer.name: layer for layer in compiled.folded.layers}
    found = {}
    for layer in compiled.network.layers:
        if isinstance(layer, (Conv, FullyConnected)):
            group, before = channels_of_a_vector(layer, config), given[layer.name]
            assert isinstance(before, (Conv, FullyConnected))
            found[layer.name] = {
                "vectors": -(-len(layer.weights) // group) * layer.weights[0].size,
                "block_density": round(block_density(compiled.network, layer, group), 4),
                "block_density_in_order": round(block_density(compiled.folded, before, group), 4),
            }
    return found


def _layers(compiled: Compiled, inferences: list[Inference]) -> list[Report]:
    """Per layer of the source, in order; the run steps of a layer are added up and inferences averaged."""
    source, config = compiled.source, compiled.program.config
    left = {layer.name: layer for layer in compiled.network.layers}
    before, after, fetched = _weights(source), _weights(compiled.network), streamed(compiled)
    blocks = _blocks(compiled)
    layers: dict[str, Report] = {}
    for layer in source.layers:
        name = layer.name
        place = compiled.places.get(left[name].output) if name in left else None
        (bytes_before, channels_before), (bytes_after, channels_after) = (w.get(name, (0, 0)) for w in (before, after))
        layers[name] = {
            "layer": name,
            "kind": type(layer).__name__,
            "where": "folded" if name not in left else "host" if name in compiled.host else "core",
            "macs": layer.macs(source),
            "macs_executed": 0.0,
            "cycles": 0.0,
            **{f"{category}_cycles": 0.0 for category in CATEGORIES},
            "dense_roofline": round(layer.macs(source) / config.lanes, 1),
            "utilisation": 0.0,
            "source_weight_bytes": bytes_before,
            "weight_bytes": bytes_after,
            "source_channels": channels_before,
            "channels": channels_after,
            **blocks.get(name, {"vectors": 0, "block_density": None, "block_density_in_order": None}),
            "streamed_bytes": fetched.get(name, 0),
            "output_bytes": place.size(config) if place else 0,
        }
    for inference in inferences:
        for step in inference.layers:
            entry = layers[step.layer]
            entry["macs_executed"] += step.executed / len(inferences)
            entry["cycles"] += step.cycles / len(inferences)
            for category in CATEGORIES:
                entry[f"{category}_cycles"] += getattr(step, category) / len(inferences)
    for entry in layers.values():
        if entry["cycles"]:
            entry["utilisation"] = round(entry["macs_executed"] / (entry["cycles"] * config.lanes), 4)
        if not entry["macs"]:  # the array adds and pools too, but these are not the network's multiply-accumulates
            entry["macs_executed"] = 0.0
        for key in ("macs_executed", "cycles", *(f"{category}_cycles" for category in CATEGORIES)):
            entry[key] = round(entry[key], 1)
    return list(layers.values())


def _totals(compiled: Compiled, layers: list[Report]) -> Report:
    program, macs = compiled.program, compiled.source.macs
    executed = sum(layer["macs_executed"] for layer in layers)
    vectors = sum(layer["vectors"] for layer in layers)

    def density(key: str) -> float | None:
        left = sum(layer["vectors"] * layer[key] for layer in layers if layer["vectors"])
        return round(left / vectors, 4) if vectors else None

    return {
        "network": compiled.network.name,
        "configuration": program.config.name,
        "lanes": program.config.lanes,
        "macs": macs,
        "macs_executed": round(executed, 1),
        "macs_skipped": round(1 - executed / macs, 4) if macs else 0.0,
        "dense_roofline": round(macs / program.config.lanes, 1),
        **{
            key: sum(layer[key] for layer in layers)
            for key in ("source_weight_bytes", "weight_bytes", "source_channels", "channels", "streamed_bytes")
        },
        "vectors": vectors,
        **{key: density(key) for key in ("block_density", "block_density_in_order")},
        "permuted": sorted(compiled.orders),
        "leaves_vectors_out": program.config.masks > 0,
        "external_bytes": len(program.external),
        "peak_activation_bytes": compiled.plan.peak,
        "image_bytes": program.size,
        "store_bytes": program.config.store_size,
    }


def compile_report(compiled: Compiled, inferences: list[Inference], cold: Inference, source: str) -> Report:
    """What a network costs; ``source`` says where the inputs came from with which the cycles were predicted, the first of
    them also from a ``cold`` start."""
    layers = _layers(compiled, inferences)
    return {
        **_totals(compiled, layers),
        "inputs": source,
        "cycles": round(float(np.mean([i.cycles for i in inferences])), 1),
        "cycles_cold": cold.cycles,
        "layers": layers,
    }


def run_report(
    compiled: Compiled, inferences: list[Inference], backend: str, cycles: list[int], simulated: int | None = None
) -> Report:
    """What inferences took. ``cycles`` were counted by the backend; those of the inferences are predicted."""
    layers = _layers(compiled, inferences)
    return {
        **_totals(compiled, layers),
        "backend": backend,
        "inferences": len(cycles),
        "cycles_mean": round(float(np.mean(cycles)), 1),
        "cycles": cycles,
        "cycles_predicted": [i.cycles for i in inferences],
        **({} if simulated is None else {"simulated_cycles": simulated}),
        "layers": layers,
    }


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]], names: int = 1) -> str:
    """A Markdown table; all columns but the first ``names`` hold numbers."""
    lines = [header, ("---",) * names + ("--:",) * (len(header) - names), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def short(name: str, most: int = 22) -> str:
    """A name that fits a picture: what is in the middle of a long one is left out."""
    return name if len(name) <= most else name[: most // 2] + "…" + name[-(most - most // 2 - 1) :]


def memory_picture(compiled: Compiled, path: Path) -> None:
    """Activation memory over time: the rows of each tensor, from the step that writes them to the last that reads them, and an
    area each for partial sums and for fetched words. Blocks that are too small for it have no label.

    A layer takes one unit of time, however many steps it has; or every step does, if layers take turns."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PatchCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    plan = compiled.plan
    starts = [i for i, name in enumerate(plan.layers) if not i or name != plan.layers[i - 1]]
    layers = [plan.layers[i] for i in starts]
    turns = len({*layers}) < len(layers)
    if turns:
        at = np.arange(len(plan.layers) + 1) / len(plan.layers)
        units, unit = 1, 11.0
    else:
        counts = np.diff([*starts, len(plan.layers)])
        at = np.concatenate([i + np.arange(count) / count for i, count in enumerate(counts)] + [[len(layers)]])
        units, unit = len(layers), min(1.0, max(0.5, 16 / len(layers)))  # inches
    makers = {compiled.network.input: "(input)"} | {layer.output: layer.name for layer in compiled.network.layers}
    height = 4.6
    figure = Figure(figsize=(1.8 + unit * units, height + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = ["#88aacc", "#aaddee", "#99cc99", "#ddcc88", "#ddaacc"]
    kinds: dict[str, Patch] = {}
    top = plan.peak * 1.08
    for i, (name, area) in enumerate(sorted(plan.areas.items(), key=lambda item: item[1].life.start)):
        address = plan.addresses[name]
        kind, colour, hatch = "feature maps", colours[i % len(colours)], ""
        if name.startswith(FETCHED):
            kind, colour, hatch = "fetched words", "#eeeeee", "////"
        elif name.endswith(PARTIAL_SUMS):
            kind, colour, hatch = "partial sums", "#f4b6a6", ".."
        kinds.setdefault(kind, Patch(facecolor=colour, hatch=hatch, edgecolor="#666666", linewidth=0.6, label=kind))
        # Rows that exist for the same time are one block; gaps too short to be seen are closed.
        blocks: list[list[float]] = []
        for slot, life in enumerate(area.lives):
            for span in _visible(at, life):
                low = address + slot * area.size
                if blocks and blocks[-1][:2] == span and blocks[-1][3] == low:
                    blocks[-1][3] = low + area.size
                else:
                    blocks.append([*span, low, low + area.size])
        edge = {"edgecolor": "#666666", "linewidth": 0.6} if len(blocks) == 1 else {"edgecolor": "none"}
        patches = [Rectangle((start, low), stop - start, high - low) for start, stop, low, high in blocks]
        axes.add_collection(PatchCollection(patches, facecolor=colour, hatch=hatch or None, **edge))
        start, stop = at[area.life.start], at[area.life.stop]
        # A line of text is 0.13 inches high, and a letter 0.062 wide.
        lines_high, fitting = area.bytes / top * height / 0.13, int((stop - start) * unit / 0.062)
        lines = [short(makers.get(name, name), max(fitting, 8)), f"{area.bytes:,}"]
        if kind != "feature maps":
            lines = [f"{area.bytes:,}"]
        elif lines_high < 2:
            lines = [" ".join(lines)]
        if lines_high > len(lines) and fitting >= max(map(len, lines)):
            middle = (start + stop) / 2, address + area.bytes / 2
            text = axes.text(*middle, "\n".join(lines), ha="center", va="center", fontsize=7)
            if hatch:
                text.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 0.5})
    axes.axhline(plan.peak, color="black", linewidth=0.8, linestyle="--")
    axes.text(0.02 * units, plan.peak, f" peak {plan.peak:,} bytes", va="bottom", fontsize=8)
    axes.set_xlim(0, units)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if turns:
        axes.xaxis.set_major_formatter(lambda x, _: f"{x * len(plan.layers) / 2:,.0f}")
        axes.set_xlabel("run steps, loads and transfers")
    else:
        axes.set_xticks(np.arange(units) + 0.5, [short(name) for name in layers], rotation=60, ha="right", fontsize=8)
        axes.set_xticks(np.arange(units + 1), minor=True)
        axes.tick_params(axis="x", which="major", length=0)
    axes.set_ylabel("byte behind the image")
    axes.set_title(f"{compiled.network.name} on {compiled.program.config.name}: activation memory", fontsize=10)
    if len(kinds) > 1:
        figure.legend(handles=list(kinds.values()), loc="outside lower right", ncols=len(kinds), fontsize=8)
    figure.savefig(path, dpi=120)


def _visible(at: np.ndarray, life: Sequence[range]) -> list[list[float]]:
    """Start and end of each span, those together between which the picture has no room."""
    found: list[list[float]] = []
    for span in life:
        start, stop = float(at[span.start]), float(at[span.stop])
        if found and start - found[-1][1] < at[-1] / 2000:
            found[-1][1] = stop
        else:
            found.append([start, stop])
    return found


def curve_picture(points: Sequence[Mapping[str, Any]], name: str, path: Path) -> None:
    """Cycles against activation memory, a point per plan; those that do not fit the store are hollow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    memory, cycles = ([point[key] for point in points] for key in ("peak_activation_bytes", "cycles"))
    axes.step(memory, cycles, where="post", color="#4477aa", linewidth=1)
    for x, y, point in zip(memory, cycles, points):
        axes.plot(x, y, "o", color="#4477aa", fillstyle="full" if point["fits"] else "none")
    for i, offset, side in ((0, (6, 4), "left"), (-1, (-6, 8), "right")):
        at = memory[i], cycles[i]
        axes.annotate(f"{memory[i]:,}", at, textcoords="offset points", xytext=offset, ha=side, fontsize=8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("peak activation bytes")
    axes.set_ylabel("cycles per inference")
    axes.set_title(name, fontsize=10)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
