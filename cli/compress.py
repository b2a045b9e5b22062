"""``gossamer compress``: what is compressed, with which options, and what became of it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.cli.files import InputError, load_floats, load_inputs, load_samples
from gossamer.cli.models import BUILT_IN, labels, load_model, samples, samples_file
from gossamer.cli.report import compile_report, short
from gossamer.golden import arithmetic, floating, network
from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.compress import Compressed, Source, agreement, from_float, from_int8, real
from gossamer.golden.inference import Inference, infer
from gossamer.golden.network import Depthwise, Network
from gossamer.golden.spec import Config, table
from gossamer.golden.tflite_float import is_float, load_float
from gossamer.golden.tflite_import import load_tflite
from gossamer.golden.weights import FORMATS, Options

__all__ = [
    "COLUMNS", "Given", "Set", "compress_report", "load", "options_by_layer", "picture", "predicted", "quality", "rows",
    "sentences",
]  # fmt: skip

Report = dict[str, Any]
Array = NDArray[Any]

COLUMNS = ("layer", "kind", "format", "MACs", "density", "weight bytes", "of int8", "cycles", "of int8")


@dataclasses.dataclass(frozen=True, eq=False)
class Set:
    """Inputs of the int8 network, what the network that is compressed gives for them, and their classes, -1 for unknown; none
    if it does not classify."""

    x: Array
    reference: Array
    known: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """What is compressed: ``source``, the bytes that its weights have now, and ``sets`` of inputs by what they are for."""

    source: Source
    own_bytes: int
    inputs: str
    sets: Mapping[str, Set]


class _Int8:
    """An int8 model."""

    def __init__(self, model: str, method: str) -> None:
        self.network = load_model(model)
        real_samples = model in BUILT_IN or samples_file(model)
        self.samples = samples(model, self.network, 1 << 30).x if real_samples else None
        self.own_bytes = sum(one.weights.nbytes for one in self.network.layers if isinstance(one, network.Weighted))

    def read(self, path: Path) -> Array:
        return load_inputs(path, self.network)

    def source(self, x: Array) -> Source:
        return from_int8(self.network, x)

    def integers(self, source: Source, x: Array) -> Array:
        return x

    def outputs(self, x: Array) -> Array:
        return real(self.network.tensors[self.network.output], self.network.run(x)[self.network.output])


class _Float:
    """A float model. Its samples may be int8 if NAME_int8.tflite is beside it, which says what they stand for; then the
    network's input is quantized as there."""

    def __init__(self, model: str, method: str) -> None:
        self.model, self.method = load_float(model), method
        self.samples, self.quantization = None, None
        file, twin = samples_file(model), Path(model).with_name(f"{Path(model).stem.removesuffix('_fp32')}_int8.tflite")
        if file and twin.is_file():
            published = load_tflite(twin)
            tensor = published.tensors[published.input]
            integers = load_samples(file, published)[0]
            self.samples = real(tensor, integers).reshape(len(integers), *self.model.shape)
            self.quantization = tensor.quantization if tensor.dtype == "int8" else None
        elif file:
            self.samples = load_floats(file, self.model)
        weighted = [layer for layer in self.model.layers if isinstance(layer, floating.Weighted)]
        self.own_bytes = sum(4 * layer.weights.size for layer in weighted)

    def read(self, path: Path) -> Array:
        return load_floats(path, self.model)

    def source(self, x: Array) -> Source:
        return from_float(
            self.model.name, self.model.layers, x, method=self.method, input_quantization=self.quantization,
            borders=self.model.borders,
        )  # fmt: skip

    def integers(self, source: Source, x: Array) -> Array:
        return arithmetic.quantize(x.astype(np.float32), *source.network.tensors["input"].quantization)

    def outputs(self, x: Array) -> Array:
        return floating.outputs(self.model.layers, x)


def load(model: str, calibrate: Path | None, method: str) -> Given:
    """A float or an int8 model with inputs: to calibrate with those of ``calibrate``, and held out the samples that are not
    among them; or every other one of the samples each. ``method`` gives the ranges of activations of a float model."""
    path = Path(model)
    plain = model not in BUILT_IN and path.suffix == ".tflite" and path.is_file() and is_float(path)
    found = (_Float if plain else _Int8)(model, method)
    own = found.samples
    if calibrate is not None:
        x, where = found.read(calibrate), calibrate.name
    elif own is not None:
        x, where = own[::2], "every other sample"
    else:
        raise InputError(f"inputs must be given with --calibrate, or be in a file NAME_samples.npz beside the model {model}")
    source = found.source(x)
    sets = {"calibration": x}
    if own is not None:
        used = {_key(one) for one in x}
        rest = [one for one in own if _key(one) not in used]
        sets |= {"held_out": np.stack(rest)} if rest else {}
    known = labels(model, source.network, 1 << 30 if own is None else len(own))
    classes = {} if own is None else {_key(one): label for one, label in zip(own, known)}
    return Given(
        source,
        found.own_bytes,
        where,
        {
            use: Set(
                found.integers(source, some),
                found.outputs(some),
                np.array([classes.get(_key(one), -1) for one in some] if _classifies(source.network) else [], np.int64),
            )
            for use, some in sets.items()
        },
    )


def _key(x: Array) -> bytes:
    return (x if x.dtype.kind != "f" else x.astype(np.float32)).tobytes()


def _classifies(found: Network) -> bool:
    return found.tensors[found.output].shape != found.tensors[found.input].shape


def options_by_layer(source: Source, default: Options, path: Path | None) -> dict[str, Options]:
    """The options of each layer: ``default``, but depthwise layers, which have few weights and need them, are not pruned; and
    what the file ``path`` has for it, a table by the layer's name."""
    found = {}
    for layer in source.network.layers:
        if layer.name in source.weights:
            sparing = isinstance(layer, Depthwise)
            found[layer.name] = dataclasses.replace(default, prune=0.0, block="unstructured") if sparing else default
    for name, fields in (table(path, "the options per layer") if path else {}).items():
        if name not in found:
            raise InputError(f"{path} must name layers with weights ({', '.join(found)}), not {name!r}")
        known = [field.name for field in dataclasses.fields(Options)]
        if not isinstance(fields, dict) or set(fields) - set(known):
            wrong = sorted(set(fields) - set(known))[0] if isinstance(fields, dict) else fields
            raise InputError(f"layer {name!r} in {path} must have options among {', '.join(known)}, not {wrong!r}")
        found[name] = dataclasses.replace(default, **fields)
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


def predicted(found: Network, config: Config, x: Array, progress: Callable[[int], None]) -> Report:
    """What the network takes on ``config``, with the mean cycles of the inputs ``x``; or why it does not fit."""
    try:
        compiled = compile_network(found, config)
    except CompileError as error:
        return {"refused": str(error), "layers": []}
    inferences: list[Inference] = []
    for done, one in enumerate(x, 1):
        inferences.append(infer(compiled, one))
        progress(done)
    return compile_report(compiled, inferences, inferences[0], "")


def compress_report(given: Given, done: Compressed, options: Mapping[str, Options], before: Report, after: Report) -> Report:
    """Everything; ``before`` and ``after`` are what :func:`predicted` tells of the network in eight bits and of this one."""
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
        "core_weight_bytes": after.get("weight_bytes"),
        "density": round(kept / count, 4) if count else 1.0,
        "macs": done.network.macs,
        "configuration": after.get("configuration"),
        "cycles": after.get("cycles"),
        "cycles_int8": before.get("cycles"),
        **({"refused": after["refused"]} if "refused" in after else {}),
        "quality": quality(done.network, given),
        "layers": layers,
    }


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def rows(report: Report) -> list[tuple[str, ...]]:
    """Cells of the table, in the order of :data:`COLUMNS`; the last row has the totals."""
    found: list[tuple[str, ...]] = []
    for layer in [*report["layers"], {"layer": "all", "kind": "", "weights": "", **report}]:
        kind = layer["weights"]
        if kind == "palette16":
            kind += f" per {layer['palette']}"
        found.append(
            (
                layer["layer"],
                layer["kind"],
                kind,
                f"{layer['macs']:,}",
                f"{layer['density']:.0%}",
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
        + (f"in their format; the core of today stores {core:,}, one each" if core is not None else "in their format")
    ]
    if "refused" in report:
        found.append(f"no cycles: {report['refused']}")
    for use, entry in report["quality"].items():
        parts = [f"relative error {entry['relative_error']:.3f}"]
        if "agreement" in entry:
            parts.insert(0, f"agreement {entry['agreement']:.1%}")
            if entry["labelled"]:
                before = f"{entry['accuracy_of_source']:.1%} before"
                parts.append(f"accuracy {entry['accuracy']:.1%} of {entry['labelled']} ({before})")
        found.append(f"{use.replace('_', ' ')}, {entry['inputs']} inputs: {', '.join(parts)}")
    return found


COLOURS = {"int8": "#4477aa", "int4": "#ee6677", "palette16": "#228833"}


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
