"""Reports about a compiled network: numbers and pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from gossamer.golden.compiler import Compiled
from gossamer.golden.inference import Inference
from gossamer.golden.network import Weighted

__all__ = ["compile_report", "memory_picture", "run_report"]


def _layers(compiled: Compiled, inferences: list[Inference]) -> list[dict[str, Any]]:
    """Per layer, in order; the run steps of a layer are added up and inferences averaged."""
    network, lanes = compiled.network, compiled.program.config.lanes
    layers: dict[str, dict[str, Any]] = {}
    for layer in network.layers:
        weights = layer.weights.size if isinstance(layer, Weighted) else 0
        place = compiled.places.get(layer.output)
        layers[layer.name] = {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "where": "host" if layer.name in compiled.host else "core",
            "macs": 0,
            "macs_executed": 0.0,
            "cycles": 0.0,
            "issue_cycles": 0.0,
            "stall_cycles": 0.0,
            "weight_bytes": int(weights),
            "output_bytes": place.size(compiled.program.config) if place else 0,
        }
    for inference in inferences:
        for step in inference.layers:
            entry = layers[step.layer]
            for key, value in (
                ("macs_executed", step.executed),
                ("cycles", step.cycles),
                ("issue_cycles", step.issue),
                ("stall_cycles", step.stall),
            ):
                entry[key] += value / len(inferences)
    for step in inferences[0].layers:
        layers[step.layer]["macs"] += step.macs
    for entry in layers.values():
        cycles = entry["cycles"]
        entry["utilisation"] = round(entry["macs_executed"] / (cycles * lanes), 4) if cycles else 0.0
        for key in ("macs_executed", "cycles", "issue_cycles", "stall_cycles"):
            entry[key] = round(entry[key], 1)
    return list(layers.values())


def _totals(compiled: Compiled, inferences: list[Inference]) -> dict[str, Any]:
    macs = sum(step.macs for step in inferences[0].layers)
    executed = float(np.mean([sum(step.executed for step in i.layers) for i in inferences]))
    return {
        "network": compiled.network.name,
        "configuration": compiled.program.config.name,
        "lanes": compiled.program.config.lanes,
        "macs": macs,
        "macs_executed": round(executed, 1),
        "macs_skipped": round(1 - executed / macs, 4),
        "peak_activation_bytes": compiled.plan.peak,
        "image_bytes": compiled.program.size,
        "store_bytes": compiled.program.config.store_size,
    }


def compile_report(compiled: Compiled, inferences: list[Inference], source: str) -> dict[str, Any]:
    """What a network costs; ``source`` says where the inputs came from with which the cycles were predicted."""
    return {
        **_totals(compiled, inferences),
        "inputs": source,
        "cycles": round(float(np.mean([i.cycles for i in inferences])), 1),
        "layers": _layers(compiled, inferences),
    }


def run_report(
    compiled: Compiled, inferences: list[Inference], backend: str, cycles: list[int], simulated: int | None = None
) -> dict[str, Any]:
    """What inferences took. ``cycles`` were counted by the backend; those of the inferences are predicted."""
    return {
        **_totals(compiled, inferences),
        "backend": backend,
        "inferences": len(cycles),
        "cycles_mean": round(float(np.mean(cycles)), 1),
        "cycles": cycles,
        "cycles_predicted": [i.cycles for i in inferences],
        **({} if simulated is None else {"simulated_cycles": simulated}),
        "layers": _layers(compiled, inferences),
    }


def memory_picture(compiled: Compiled, path: Path) -> None:
    """Activation memory over time: a block per tensor, from the layer that writes it to the last that reads it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    plan = compiled.plan
    # A layer takes one unit, however many steps it has.
    layers = list(dict.fromkeys(plan.layers))
    counts = [plan.layers.count(name) for name in layers]
    at = np.concatenate([i + np.arange(count) / count for i, count in enumerate(counts)] + [[len(layers)]])
    figure = Figure(figsize=(1.6 + 0.9 * len(layers), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = ["#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb"]
    for i, (name, address) in enumerate(sorted(plan.addresses.items(), key=lambda item: plan.lives[item[0]].start)):
        life, size = plan.lives[name], plan.sizes[name]
        start, stop = at[life.start], at[life.stop]
        axes.add_patch(
            Rectangle((start, address), stop - start, size, facecolor=colours[i % len(colours)], edgecolor="white")
        )
        if stop - start >= 0.5:
            label = f"{name}\n{size}"
            axes.text((start + stop) / 2, address + size / 2, label, ha="center", va="center", fontsize=7, clip_on=True)
    axes.axhline(plan.peak, color="black", linewidth=0.8, linestyle="--")
    axes.text(0.02, plan.peak, f"peak {plan.peak} bytes", va="bottom", fontsize=8)
    axes.set_xlim(0, len(layers))
    axes.set_ylim(0, plan.peak * 1.12)
    axes.set_xticks(np.arange(len(layers)) + 0.5, layers, rotation=45, ha="right", fontsize=8)
    axes.set_ylabel("byte of the activation region")
    axes.set_title(f"{compiled.network.name} on {compiled.program.config.name}: activation memory", fontsize=10)
    figure.savefig(path, dpi=120)
