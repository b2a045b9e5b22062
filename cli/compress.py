"""``gossamer compress``: the options of each layer, and what became of a network, as a report, a table and a picture."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.cli.files import InputError
from gossamer.cli.report import compile_report, short
from gossamer.cli.sources import Given
from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.compress import Compressed, Source, agreement, real
from gossamer.golden.inference import Inference, infer
from gossamer.golden.network import Depthwise, Network
from gossamer.golden.pruning import found_pattern
from gossamer.golden.spec import Config, table
from gossamer.golden.weights import ENTRIES, FORMATS, Options

__all__ = [
    "COLUMNS", "compress_report", "options_by_layer", "picture", "predicted", "quality", "rows",
    "sentences",
]  # fmt: skip

Report = dict[str, Any]

COLUMNS = ("layer", "kind", "format", "MACs", "density", "blocks", "weight bytes", "of int8", "cycles", "of int8")

DENSITIES = ("block_density", "block_density_in_order")
"""The share of weight vectors of the core that are not zero, and what it would be with channels in the given order."""


def options_by_layer(source: Source, default: Options, path: Path | None) -> dict[str, Options]:
    """The options of each layer: ``default``, but depthwise layers, which have few weights and need them, are not pruned, and
    neither they nor the first and the last layer with weights are binary; and what the file ``path`` has for it, a table by
    the layer's name. N:M patterns that the source has are kept where nothing else is pruned."""
    found = {}
    weighted = [layer for layer in source.network.layers if layer.name in source.weights]
    for layer in weighted:
        sparing = isinstance(layer, Depthwise)
        found[layer.name] = dataclasses.replace(default, prune=0.0, block="unstructured") if sparing else default
        if default.weights == "binary" and (sparing or layer in (weighted[0], weighted[-1])):
            found[layer.name] = dataclasses.replace(found[layer.name], weights="int8")
    for name, fields in (table(path, "the options per layer") if path else {}).items():
        if name not in found:
            raise InputError(f"{path} must name layers with weights ({', '.join(found)}), not {name!r}")
        known = [field.name for field in dataclasses.fields(Options)]
        if not isinstance(fields, dict) or set(fields) - set(known):
            wrong = sorted(set(fields) - set(known))[0] if isinstance(fields, dict) else fields
            raise InputError(f"layer {name!r} in {path} must have options among {', '.join(known)}, not {wrong!r}")
        found[name] = dataclasses.replace(default, **fields)
    for layer in weighted:
        chosen, imported = found[layer.name], found_pattern(source.weights[layer.name])
        if imported and not isinstance(layer, Depthwise) and not chosen.prunes and chosen.weights != "binary":
            found[layer.name] = dataclasses.replace(chosen, block=imported)
    return found


def quality(found: Network, given: Given) -> Report:
    """By set of inputs: their number, the error of the output relative to what it should be (root mean squares), and of a
    network that classifies the agreement on the class and the share of the labelled ones that are right."""
    report: Report = {}
    for use, some in given.sets.items():
        output = found.run(some.x)[found.output]
        error = real(found.tensors[found.output], output).reshape(some.reference.shape) - some.reference
        size = float(np.sqrt((some.reference**2).mean()))
        entry: Report = {"inputs": len(some.x), "relative_error": float(np.sqrt((error**2).mean())) / (size or 1.0)}
        if len(some.known):
            labelled = some.known >= 0
            entry["agreement"] = agreement(output, some.reference)
            entry["labelled"] = int(labelled.sum())
            for key, values in (("accuracy", output), ("accuracy_of_source", some.reference)):
                right = values.reshape(len(values), -1).argmax(1) == some.known
                entry[key] = float(right[labelled].mean()) if labelled.any() else None
        report[use] = entry
    return report


def predicted(found: Network, config: Config, x: NDArray[Any], progress: Callable[[int], None]) -> Report:
    """What the network takes on ``config``, with the mean cycles of the inputs ``x``; or why it does not fit."""
    try:
        compiled = compile_network(found, config)
    except CompileError as error:
        return {"refused": str(error), "layers": []}
    inferences: list[Inference] = []
    for done, one in enumerate(x, 1):
        inferences.append(infer(compiled, one))
        progress(done)
    return {**compile_report(compiled, inferences, inferences[0], ""), "stored": compiled.program.weight_bytes}


def compress_report(
    given: Given,
    done: Compressed,
    options: Mapping[str, Options],
    before: Report,
    after: Report,
    activations: str = "int8",
    epochs: int = 0,
    untrained: Compressed | None = None,
) -> Report:
    """Everything; ``before`` and ``after`` are what :func:`predicted` tells of the network in eight bits and of this one.
    ``untrained`` is what was trained for ``epochs``."""
    plain, core = ({layer["layer"]: layer for layer in one["layers"]} for one in (before, after))
    layers = []
    for layer in done.network.layers:
        if layer.name not in done.masks:
            continue
        mask, chosen = done.masks[layer.name], options[layer.name]
        layers.append(
            {
                "layer": layer.name,
                "kind": type(layer).__name__,
                **dataclasses.asdict(chosen),
                "macs": layer.macs(done.network),
                "weights_count": mask.size,
                "density": round(float(mask.mean()), 4),
                **{key: core.get(layer.name, {}).get(key) for key in DENSITIES},
                "int8_bytes": mask.size,
                "weight_bytes": done.bits[layer.name] / 8,
                "core_weight_bytes": core.get(layer.name, {}).get("weight_bytes"),
                "cycles": core.get(layer.name, {}).get("cycles"),
                "cycles_int8": plain.get(layer.name, {}).get("cycles"),
            }
        )
    kept = sum(layer["density"] * layer["weights_count"] for layer in layers)
    count = sum(layer["weights_count"] for layer in layers)
    return {
        "network": done.network.name,
        "inputs": given.inputs,
        "source_bytes": given.own_bytes,
        "int8_bytes": count,
        "weight_bytes": sum(layer["weight_bytes"] for layer in layers),
        "core_weight_bytes": after.get("stored"),
        "density": round(kept / count, 4) if count else 1.0,
        **{key: after.get(key) for key in (*DENSITIES, "leaves_vectors_out")},
        "macs": done.network.macs,
        "configuration": after.get("configuration"),
        "cycles": after.get("cycles"),
        "cycles_int8": before.get("cycles"),
        **({"refused": after["refused"]} if "refused" in after else {}),
        "activations": activations,
        "epochs": epochs,
        "quality": quality(done.network, given),
        **({"quality_untrained": quality(untrained.network, given)} if untrained else {}),
        "layers": layers,
    }


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def rows(report: Report) -> list[tuple[str, ...]]:
    """Cells of the table, in the order of :data:`COLUMNS`; the last row has the totals."""
    found: list[tuple[str, ...]] = []
    for layer in [*report["layers"], {"layer": "all", "kind": "", "weights": "", **report}]:
        kind = layer["weights"]
        if kind in ENTRIES:
            kind += f" per {layer['palette']}"
        found.append(
            (
                layer["layer"],
                layer["kind"],
                kind,
                f"{layer['macs']:,}",
                f"{layer['density']:.0%}",
                _share(layer["block_density"]),
                _cell(layer["weight_bytes"]),
                f"{layer['weight_bytes'] / layer['int8_bytes']:.0%}",
                _cell(layer["cycles"]),
                "–" if not layer["cycles"] or not layer["cycles_int8"] else f"{layer['cycles'] / layer['cycles_int8']:.0%}",
            )
        )
    return found


def sentences(report: Report) -> list[str]:
    """What is behind the table: sizes, cycles and quality."""
    core = report["core_weight_bytes"]
    found = [
        f"weights: {report['source_bytes']:,} bytes before, {report['int8_bytes']:,} in int8, {report['weight_bytes']:,.0f} "
        + (f"in their format; {report['configuration']} stores {core:,}" if core is not None else "in their format")
    ]
    if report["block_density"] is not None:
        left_out = "leaves out the others" if report["leaves_vectors_out"] else "has no masks, and computes with all"
        ordered = ""
        if report["block_density"] != report["block_density_in_order"]:
            ordered = f" ({report['block_density_in_order']:.1%} with channels in the given order)"
        found.append(
            f"blocks: {report['block_density']:.1%} of the weight vectors are not zero{ordered}; "
            f"{report['configuration']} {left_out}"
        )
        if any(layer["block"].startswith("nm") for layer in report["layers"]):
            found.append("N:M: no core skips single weights; what such patterns spare is bits of the format")
    if "refused" in report:
        found.append(f"no cycles: {report['refused']}")
    sets = [(f"{use}, before training", entry) for use, entry in report.get("quality_untrained", {}).items()]
    for use, entry in [*sets, *report["quality"].items()]:
        parts = [f"relative error {entry['relative_error']:.3f}"]
        if "agreement" in entry:
            parts.insert(0, f"agreement {entry['agreement']:.1%}")
            if entry["labelled"]:
                before = f"{entry['accuracy_of_source']:.1%} before"
                parts.append(f"accuracy {entry['accuracy']:.1%} of {entry['labelled']} ({before})")
        found.append(f"{use.replace('_', ' ')}, {entry['inputs']} inputs: {', '.join(parts)}")
    return found


COLOURS = {"int8": "#4477aa", "int4": "#ee6677", "palette16": "#228833", "palette32": "#ccbb44", "binary": "#aa3377"}


def picture(report: Report, path: Path) -> None:
    """Bars of each layer's weight bytes and cycles, those in eight bits behind them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    layers = report["layers"]
    figure = Figure(figsize=(2.4 + 0.5 * len(layers), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    at = np.arange(len(layers))
    colours = [COLOURS[layer["weights"]] for layer in layers]
    panels = figure.subplots(2, 1, sharex=True)
    for axes, key, before, label in (
        (panels[0], "weight_bytes", "int8_bytes", "weight bytes"),
        (panels[1], "cycles", "cycles_int8", "cycles per inference"),
    ):
        for name, width, colour in ((before, 0.8, ["#dddddd"] * len(layers)), (key, 0.56, colours)):
            axes.bar(at, [layer[name] or 0 for layer in layers], width, color=colour)
        axes.set_ylabel(label, fontsize=8)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(axis="y", labelsize=7)
    for x, layer in zip(at, layers):
        if layer["density"] < 1:
            panels[0].annotate(f"{layer['density']:.0%}", (x, layer["int8_bytes"]), ha="center", va="bottom", fontsize=7)
    panels[1].set_xticks(at, [short(layer["layer"]) for layer in layers], rotation=60, ha="right", fontsize=7)
    used = [name for name in FORMATS if name in {layer["weights"] for layer in layers}]
    handles = [Patch(color=COLOURS[name], label=name) for name in used]
    handles.append(Patch(color="#dddddd", label="all in int8"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    total = f"{report['weight_bytes']:,.0f} of {report['int8_bytes']:,} bytes"
    figure.suptitle(f"{report['network']}: {total}, {report['density']:.0%} of the weights", fontsize=9)
    figure.savefig(path, dpi=120)
