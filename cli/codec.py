"""Compression of the feature maps in the store: against other codes, and what budgets cost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.cli.report import markdown_table
from gossamer.golden import codec, ebpc
from gossamer.golden.coding import coded_order, is_signed, map_order
from gossamer.golden.compiler import Compiled
from gossamer.golden.interpreter import Code
from gossamer.golden.layout import map_shape

__all__ = [
    "BUDGETS", "BUDGET_COLUMNS", "COLUMNS", "budget_picture", "budget_rows", "budgets", "codec_markdown", "codec_picture",
    "ratios", "rows", "through",
]  # fmt: skip

Report = dict[str, Any]

CODES = {"bitmask": "zero bitmask", "ebpc": "EBPC", "gossamer": "Gossamer", "entropy": "order-0 entropy"}
"""By their name in a report."""

COLUMNS = ("network", "inputs", "maps", "bytes per input", *CODES.values(), "Gossamer with pointers")
BUDGET_COLUMNS = ("network", "budget, bytes per value", "bytes per value", "agreement", "accuracy")

BUDGETS = (0.40, 0.45, 0.50, 0.55, 0.60, 0.70, 0.80, 0.90, 1.00)
"""Bytes per value."""

POINTER = 2
"""Bytes that a row would take in a table of addresses. The core does without: rows lie in slots."""

BATCH = 16


def as_map(values: NDArray[np.int8]) -> NDArray[np.int8]:
    """Tensors (N, …) as maps (N, rows, columns, channels)."""
    return values.reshape(len(values), *map_shape(values.shape[1:]))


def stored_maps(compiled: Compiled) -> list[str]:
    """The tensors that the device writes to the store."""
    return [name for name in compiled.places if name != compiled.device_input]


def ratios(compiled: Compiled, x: NDArray[Any], progress: Callable[[int], None] = lambda done: None) -> Report:
    """Bytes of all stored maps of some inputs, with each code. Those of other codes have each map in one stream, its channels
    one behind the other, with the zero point as zero; the entropy is that of each map with its own statistics."""
    config = compiled.program.config
    maps: dict[str, Report] = {}
    for start in range(0, len(x), BATCH):
        tensors = compiled.network.run(x[start : start + BATCH])
        for name in stored_maps(compiled):
            values, zero_point = as_map(tensors[name]), compiled.network.tensors[name].zero_point
            entry = maps.setdefault(name, {"map": name, "bytes": 0, "rows": 0, **dict.fromkeys(CODES, 0)})
            entry["bytes"] += values.size
            units = codec.units_of(coded_order(values, config.lanes), config.codec_streams)
            streams = codec.encode_units(units, **Code(is_signed(zero_point), 0).options(config))
            entry["gossamer"] += sum(map(len, streams))
            entry["rows"] += len(streams)
            centred = (values.astype(np.int16) - zero_point).astype(np.uint8)
            for one in centred.transpose(0, 3, 1, 2):
                entry["bitmask"] += -(-ebpc.bitmask_bits(one) // 8)
                entry["ebpc"] += len(ebpc.encode(one))
                entry["entropy"] += ebpc.entropy_bits(one) / 8
        progress(min(start + BATCH, len(x)))
    listed = list(maps.values())
    total = {key: sum(entry[key] for entry in listed) for key in ("bytes", "rows", *CODES)}
    return {
        "network": compiled.network.name,
        "inputs": len(x),
        **total,
        "ratios": {code: total["bytes"] / total[code] for code in CODES},
        "ratio_with_pointers": total["bytes"] / (total["gossamer"] + POINTER * total["rows"]),
        "maps": [
            {**entry, "ratios": {code: entry["bytes"] / entry[code] for code in CODES if entry[code]}} for entry in listed
        ],
    }


def rows(reports: list[Report]) -> list[tuple[str, ...]]:
    """Cells of the table, in the order of :data:`COLUMNS`."""
    return [
        (
            report["network"],
            str(report["inputs"]),
            str(len(report["maps"])),
            f"{report['bytes'] / report['inputs']:,.0f}",
            *(f"{report['ratios'][code]:.2f}" for code in CODES),
            f"{report['ratio_with_pointers']:.2f}",
        )
        for report in reports
    ]


def through(values: NDArray[np.int8], zero_point: int, share: float, lanes: int) -> tuple[NDArray[np.int8], int]:
    """Maps as they come back from a store with ``share`` bytes per value, and the bytes that they have taken there."""
    maps = as_map(values)
    rows_, signed = coded_order(maps, lanes), is_signed(zero_point)
    count = rows_.shape[1]
    budget = max(codec.least_budget(count), int(share * count))
    streams = codec.encode_units(rows_, lanes=lanes, signed=signed, budget=budget)
    back = codec.decode_units(streams, count, lanes=lanes, signed=signed, budget=budget)
    return map_order(back, maps.shape, lanes).reshape(values.shape), sum(map(len, streams))


def budgets(
    compiled: Compiled, x: NDArray[Any], known: NDArray[np.int64], progress: Callable[[int], None] = lambda done: None
) -> list[Report]:
    """For each of :data:`BUDGETS` the share of inputs whose class is that of the lossless network, and of those whose class is
    ``known`` (not negative), the share that is right. All maps but the device's output pass through the store."""
    network, lanes = compiled.network, compiled.program.config.lanes
    maps = {*stored_maps(compiled)} - {compiled.device_output}
    expected = network.run(x)[network.output].argmax(-1)
    found: list[Report] = []
    for done, share in enumerate(BUDGETS, 1):
        tensors, taken, size = {network.input: x}, 0, 0
        for layer in network.layers:
            output = layer.run(network, *(tensors[name] for name in layer.inputs))
            if layer.output in maps:
                size += output.size
                output, bytes_ = through(output, network.tensors[layer.output].zero_point, share, lanes)
                taken += bytes_
            tensors[layer.output] = output
        classes = tensors[network.output].argmax(-1)
        labelled = known >= 0
        found.append(
            {
                "network": network.name,
                "budget": share,
                "bytes_per_value": taken / size,
                "agreement": float((classes == expected).mean()),
                "labelled": int(labelled.sum()),
                "accuracy": float((classes == known)[labelled].mean()) if labelled.any() else None,
                "accuracy_lossless": float((expected == known)[labelled].mean()) if labelled.any() else None,
            }
        )
        progress(done)
    return found


def budget_rows(found: list[Report]) -> list[tuple[str, ...]]:
    """Cells of the table of budgets, in the order of :data:`BUDGET_COLUMNS`."""
    return [
        (
            one["network"],
            f"{one['budget']:.2f}",
            f"{one['bytes_per_value']:.3f}",
            f"{one['agreement']:.1%}",
            "" if one["accuracy"] is None else f"{one['accuracy']:.1%} ({one['accuracy_lossless']:.1%} without)",
        )
        for one in found
    ]


LEGEND = """
Ratios of all feature maps that the core writes, uncompressed over compressed. *Gossamer* counts the whole halfwords of every
row; *with pointers* has two more bytes for each. The others are one stream for each map and
input. *Order-0 entropy* is what no code without context can beat that is told each map's statistics.

![ratios](codec.png)
"""

BUDGET_LEGEND = """
Every map but the output passes through rows of so many bytes per value. *Agreement*: inputs with the class of the lossless
network. *Accuracy*: of the inputs whose class is known.

![budgets](budgets.png)
"""


def codec_markdown(reports: list[Report], found: list[Report]) -> str:
    """The tables."""
    parts = ["# Compression of feature maps\n\n", markdown_table(COLUMNS, rows(reports)), LEGEND]
    if found:
        parts += ["\n## Budgets\n\n", markdown_table(BUDGET_COLUMNS, budget_rows(found)), BUDGET_LEGEND]
    return "".join(parts)


def codec_picture(reports: list[Report], path: Path) -> None:
    """Bars of the ratios, by network and code."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 1.6 * len(reports), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = ("#b8b8b8", "#d9a441", "#3b6ea5", "#444444")
    for n, (code, label) in enumerate(CODES.items()):
        at = np.arange(len(reports)) + 0.2 * (n - 1.5)
        heights = [report["ratios"][code] for report in reports]
        bars = axes.bar(at, heights, 0.19, color=colours[n], label=label)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks(range(len(reports)), [report["network"] for report in reports], fontsize=8)
    axes.set_ylabel("uncompressed / compressed", fontsize=8)
    axes.axhline(1, color="black", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=len(CODES), fontsize=8)
    figure.savefig(path, dpi=110)


def budget_picture(found: list[Report], path: Path) -> None:
    """Agreement and accuracy against the budget, a panel per network."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one["network"] for one in found))
    figure = Figure(figsize=(0.8 + 3.0 * len(names), 2.9), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        mine = [one for one in found if one["network"] == name]
        at = [one["budget"] for one in mine]
        axes.plot(at, [one["agreement"] for one in mine], "o-", color="#3b6ea5", label="agreement")
        if mine[0]["accuracy"] is not None:
            axes.plot(at, [one["accuracy"] for one in mine], "s-", color="#d9a441", label="accuracy")
            axes.axhline(mine[0]["accuracy_lossless"], color="#d9a441", linewidth=0.8, linestyle=":")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("budget, bytes per value", fontsize=8)
        axes.set_ylim(0, 1.03)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110)
