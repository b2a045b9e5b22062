"""What ``gossamer bench boards`` writes for people, and the regions of the documentation that come from it."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.cli.boards import (
    NAMES,
    PATH_COLUMNS,
    ROW_BY_ROW,
    SIZE_COLUMNS,
    STREAMED,
    built,
    cycle_rows,
    path_rows,
    rate_rows,
    readme_rows,
    size_rows,
    titles,
    work_rows,
)
from gossamer.cli.published import PUBLISHED, Source
from gossamer.cli.report import markdown_table

__all__ = ["REGIONS", "boards_markdown", "boards_picture", "sources_markdown"]

Report = dict[str, Any]


def _inputs(measured: Report) -> str:
    """How many inputs the means are over."""
    counts = {
        network["title"]: network["count"]
        for board in built(measured)
        for network in board["networks"]
        if "refused" not in network
    }
    return ", ".join(f"{counts[one]} of {one}" for one in titles(measured) if one in counts)


def _seeds(measured: Report) -> str:
    """How many seeds most boards have, and how many the others."""
    tried = {board["board"]: sum(len(board["fmax_mhz"][what]) for what in ("seeds", "failed")) for board in built(measured)}
    most = statistics.mode(tried.values())
    others = [f", {count} on `{board}`" for board, count in tried.items() if count != most]
    return f"{most} seed{'s'[: most > 1]}{''.join(others)}"


def _tools(measured: Report) -> str:
    tools = {(name, version.partition(".post")[0]) for board in built(measured) for name, version in board["tools"].items()}
    return ", ".join(map(" ".join, sorted(tools)))


def _failures(measured: Report) -> Iterator[str]:
    """A line for each board, and each seed, that came to nothing."""
    for board in measured["boards"]:
        if "refused" in board:
            yield f"- `{board['board']}`: {board['refused']}\n"
        else:
            for seed, reason in board["fmax_mhz"]["failed"].items():
                yield f"- `{board['board']}`, seed {seed}: {reason}\n"


def _sizes_markdown(measured: Report) -> str:
    bound = "; ≤: an upper bound, as nextpnr does not time all of these devices" if any(
        board["fmax_mhz"]["upper_bound"] for board in built(measured)
    ) else ""
    failures = [*_failures(measured)]
    return "".join(
        [
            markdown_table(SIZE_COLUMNS, size_rows(measured), 3),
            f"\nFmax of the whole design over {_seeds(measured)}{bound}. With {_tools(measured)}.\n",
            *(["\n", *failures] if failures else []),
        ]
    )


def _paths_markdown(measured: Report) -> str:
    return markdown_table(PATH_COLUMNS, path_rows(measured)) + "\nOf the fastest seed's design, which is the bitstream.\n"


def _marks(measured: Report) -> str:
    """What the marks in cells stand for, of those that there are."""
    networks = [network for board in built(measured) for network in board["networks"] if "refused" not in network]
    found = ["– does not fit the store, or is not published; ? is not said by the source."]
    if any(network["plan"] == "row by row" for network in networks):
        found.append(f"{ROW_BY_ROW} row by row, as it does not fit layer by layer.")
    if any(network["streamed_input"] for network in networks):
        found.append(f"{STREAMED} so, and the host writes the input row by row while the core waits, which is not counted.")
    return " ".join(found)


def _rates_legend(measured: Report) -> str:
    return (
        f"Inferences per second of the core alone: MHz, the least Fmax of {_seeds(measured)}, over the mean cycles of the "
        f"cycle model ({_inputs(measured)}). {_marks(measured)} Designs with a link are others', as they have published them.\n"
    )


def _rates_markdown(measured: Report) -> str:
    header = (*NAMES, *titles(measured))
    return "".join(
        [
            markdown_table(header, rate_rows(measured), 2),
            f"\n{_rates_legend(measured)}",
            "\nCycles per inference. Others' are their clock over their inferences per second, but CFU-Playground has counted "
            "them:\n\n",
            markdown_table(header, cycle_rows(measured), 2),
            "\nMultipliers times cycles, in millions: what an inference takes of a device, whatever its size. Multipliers are "
            "our lanes, without those of the requantizer, and all DSP blocks of others' designs:\n\n",
            markdown_table(header, work_rows(measured), 2),
        ]
    )


def sources_markdown() -> str:
    """A list of where the published figures are from."""
    sources: dict[Source, None] = dict.fromkeys(design.source for design in PUBLISHED)
    return "".join(f"- [{source.title}]({source.url}). {source.read}\n" for source in sources)


def _readme_markdown(measured: Report) -> str:
    header = (*NAMES, "LUT", "FF", "RAM", "DSP", *titles(measured))
    return f"{markdown_table(header, readme_rows(measured), 2)}\n{_rates_legend(measured)}"


REGIONS: Mapping[str, Callable[[Report], str]] = {
    "boards": _readme_markdown,
    "boards-sizes": _sizes_markdown,
    "boards-paths": _paths_markdown,
    "boards-rates": _rates_markdown,
}
"""The regions of the documentation that a measurement writes, by name: the README's, and those of ``docs/boards.md``."""


def boards_markdown(measured: Report) -> str:
    """All tables."""
    return "".join(
        [
            "# Boards\n\n",
            _sizes_markdown(measured),
            "\n![utilisation and Fmax](boards.png)\n\n## Critical paths\n\n",
            _paths_markdown(measured),
            "\n## Inferences per second\n\n",
            _rates_markdown(measured),
            "\n## Sources\n\n",
            sources_markdown(),
        ]
    )


def boards_picture(measured: Report, path: Path) -> None:
    """The used part of each resource, and beside it the Fmax of every seed and the clock that is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    boards = built(measured)
    figure = Canvas(figsize=(10, 1.6 + 0.75 * len(boards)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(boards))
    kinds = {"LUT": "#3b6ea5", "FF": "#d9a441", "RAM": "#7aa974", "DSP": "#aa5577"}
    for n, (kind, colour) in enumerate(kinds.items()):
        found = [board["resources"].get("LC" if kind == "LUT" else kind, board["resources"][kind]) for board in boards]
        shares = [resource["used"] / resource["available"] for resource in found]
        bars = left.barh(at + 0.2 * (n - 1.5), shares, 0.19, color=colour, label=kind)
        left.bar_label(bars, [f"{share:.0%}" for share in shares], fontsize=7, padding=2)
    left.set_xlim(0, 1.1)
    left.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    left.set_yticks(at, [f"{board['board']}\n{board['configuration']}" for board in boards], fontsize=8)
    left.set_ylim(len(boards) - 0.5, -0.5)
    left.set_title("used; LUT of iCE40 are logic cells", fontsize=9)
    for y, board in enumerate(boards):
        speeds = [*board["fmax_mhz"]["seeds"].values()]
        right.plot(speeds, [y] * len(speeds), "o", color="#3b6ea5", alpha=0.6, label="a seed" if not y else None)
        right.vlines(board["fmax_mhz"]["median"], y - 0.25, y + 0.25, color="#3b6ea5", label="median" if not y else None)
        right.vlines(board["target_mhz"], y - 0.35, y + 0.35, color="#bb3333", label="the board's clock" if not y else None)
        lost = len(board["fmax_mhz"]["failed"])
        note = [" upper bound"] * board["fmax_mhz"]["upper_bound"] + [f" {lost} failed"] * (lost > 0)
        right.annotate(",".join(note), (max(speeds), y), xytext=(5, 6), textcoords="offset points", fontsize=7)
    right.set_xlim(0, 1.4 * max(speed for board in boards for speed in board["fmax_mhz"]["seeds"].values()))
    right.set_title("Fmax, MHz", fontsize=9)
    right.grid(axis="x", color="#dddddd", linewidth=0.6)
    right.set_axisbelow(True)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=4, fontsize=8)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=3, fontsize=8)
    for axes in (left, right):
        axes.tick_params(axis="x", labelsize=7)
    figure.savefig(path, dpi=110)
