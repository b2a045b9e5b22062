"""Reports about a compiled network: numbers and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.golden.compiler import Compiled
from gossamer.golden.inference import Inference
from gossamer.golden.network import Network, Weighted
from gossamer.golden.rolling import PARTIAL_SUMS
from gossamer.golden.schedule import FETCHED
from gossamer.golden.spec import Opcode

__all__ = ["CATEGORIES", "compile_report", "memory_picture", "run_report", "short", "streamed"]

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
        else:
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


def _layers(compiled: Compiled, inferences: list[Inference]) -> list[Report]:
    """Per layer of the source, in order; the run steps of a layer are added up and inferences averaged."""
    source, config = compiled.source, compiled.program.config
    left = {layer.name: layer for layer in compiled.network.layers}
    before, after, fetched = _weights(source), _weights(compiled.network), streamed(compiled)
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


def short(name: str, most: int = 22) -> str:
    """A name that fits a picture: what is in the middle of a long one is left out."""
    return name if len(name) <= most else name[: most // 2] + "…" + name[-(most - most // 2 - 1) :]


def memory_picture(compiled: Compiled, path: Path) -> None:
    """Activation memory over time: a block per tensor, from the layer that writes it to the last that reads it, and one per
    area of partial sums and of fetched words. Blocks that are too small for it have no label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    plan = compiled.plan
    # A layer takes one unit, however many steps it has.
    layers = list(dict.fromkeys(plan.layers))
    counts = [plan.layers.count(name) for name in layers]
    at = np.concatenate([i + np.arange(count) / count for i, count in enumerate(counts)] + [[len(layers)]])
    makers = {compiled.network.input: "(input)"} | {layer.output: layer.name for layer in compiled.network.layers}
    unit, height = min(1.0, max(0.5, 16 / len(layers))), 4.6  # inches
    figure = Figure(figsize=(1.8 + unit * len(layers), height + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = ["#88aacc", "#aaddee", "#99cc99", "#ddcc88", "#ddaacc"]
    kinds: dict[str, Patch] = {}
    top = plan.peak * 1.08
    for i, (name, address) in enumerate(sorted(plan.addresses.items(), key=lambda item: plan.lives[item[0]].start)):
        life, size = plan.lives[name], plan.sizes[name]
        start, stop = at[life.start], at[life.stop]
        kind, colour, hatch = "feature maps", colours[i % len(colours)], ""
        if name.startswith(FETCHED):
            kind, colour, hatch = "fetched words", "#eeeeee", "////"
        elif name.endswith(PARTIAL_SUMS):
            kind, colour, hatch = "partial sums", "#f4b6a6", ".."
        kinds.setdefault(kind, Patch(facecolor=colour, hatch=hatch, edgecolor="#666666", linewidth=0.6, label=kind))
        block = Rectangle(
            (start, address), stop - start, size, facecolor=colour, hatch=hatch, edgecolor="#666666", linewidth=0.6
        )
        axes.add_patch(block)
        # A line of text is 0.13 inches high, and a letter 0.062 wide.
        high, fitting = size / top * height / 0.13, int((stop - start) * unit / 0.062)
        lines = [short(makers.get(name, name), max(fitting, 8)), f"{size:,}"]
        if kind != "feature maps":
            lines = [f"{size:,}"]
        elif high < 2:
            lines = [" ".join(lines)]
        if high > len(lines) and fitting >= max(map(len, lines)):
            text = axes.text((start + stop) / 2, address + size / 2, "\n".join(lines), ha="center", va="center", fontsize=7)
            if hatch:
                text.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 0.5})
    axes.axhline(plan.peak, color="black", linewidth=0.8, linestyle="--")
    axes.text(0.02, plan.peak, f" peak {plan.peak:,} bytes", va="bottom", fontsize=8)
    axes.set_xlim(0, len(layers))
    axes.set_ylim(0, top)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xticks(np.arange(len(layers)) + 0.5, [short(name) for name in layers], rotation=60, ha="right", fontsize=8)
    axes.set_xticks(np.arange(len(layers) + 1), minor=True)
    axes.tick_params(axis="x", which="major", length=0)
    axes.set_ylabel("byte behind the image")
    axes.set_title(f"{compiled.network.name} on {compiled.program.config.name}: activation memory", fontsize=10)
    if len(kinds) > 1:
        figure.legend(handles=list(kinds.values()), loc="outside lower right", ncols=len(kinds), fontsize=8)
    figure.savefig(path, dpi=120)
