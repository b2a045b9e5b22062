"""Boards: what the core takes of each, how fast it is there, and inferences per second beside what others have published.

A *measurement* is what ``boards.json`` holds: ``boards``, each the report of its build, with ``networks`` added.
A board whose build failed has ``refused``, with the reason, in place of all but ``board``; so has a network that does not fit.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gossamer.cli.models import Samples
from gossamer.cli.published import PUBLISHED, Figure, Published
from gossamer.golden.compiler import Compiled, CompileError, Frontend
from gossamer.golden.inference import infer
from gossamer.golden.network import Network
from gossamer.golden.planner import Planner, fit
from gossamer.golden.spec import Config

__all__ = [
    "NAMES", "PATH_COLUMNS", "ROW_BY_ROW", "SIZE_COLUMNS", "STREAMED", "built", "cycle_rows", "cycles", "path_rows",
    "per_second", "rate_rows", "readme_rows", "size_rows", "tables", "title", "titles", "work_rows",
]  # fmt: skip

Report = dict[str, Any]

MLPERF = ("KWS", "IC", "VWW", "AD")

SIZE_COLUMNS = (
    "board", "part", "configuration", "lanes", "clock", "LUT", "FF", "RAM", "DSP", "Fmax, minimum", "median",
    "seeds at the clock",
)  # fmt: skip
"""Of the table of sizes and speeds."""

PATH_COLUMNS = ("board", "seed", "ns", "LUTs", "logic", "routing", "by block, in the order of the path")

ROW_BY_ROW, STREAMED = "¹", "²"


# Measurement


def title(network: str) -> str:
    """The short name of a network of MLPerf Tiny; others keep theirs."""
    found = re.match(r"[a-z]+", network)
    return found[0].upper() if found and found[0].upper() in MLPERF else network


def cycles(
    network: Network, config: Config, samples: Samples, progress: Callable[[int], None] = lambda done: None
) -> Report:
    """Mean cycles by the cycle model, layer by layer, or if that does not fit the store row by row, with the fastest plan
    that fits by the planner's guess."""
    report: Report = {"network": network.name, "title": title(network.name)}
    try:
        compiled, plan = _fitting(network, config)
    except CompileError as error:
        return {**report, "refused": str(error)}
    counts = []
    for done, one in enumerate(samples.x, 1):
        counts.append(infer(compiled, one).cycles)
        progress(done)
    return {
        **report,
        "inputs": samples.source,
        "count": len(counts),
        "plan": plan,
        "streamed_input": compiled.strategy.stream,
        "external_bytes": len(compiled.program.external),
        "cycles": round(float(np.mean(counts)), 1),
    }


def _fitting(network: Network, config: Config) -> tuple[Compiled, str]:
    frontend = Frontend(network, config)
    try:
        return frontend.compile(), "layer by layer"
    except CompileError:
        planner = Planner(frontend)
        try:  # rather without the host's help
            return fit(frontend, config.store_size, planner.points(streamed=False)), "row by row"
        except CompileError:
            return fit(frontend, config.store_size, planner.points()), "row by row"


def per_second(board: Report, network: Report) -> float:
    """Inferences, at the least Fmax of all seeds; of the core alone, without what the host does."""
    return float(board["fmax_mhz"]["minimum"] * 1e6 / network["cycles"])


# Tables


def built(measured: Report) -> list[Report]:
    return [board for board in measured["boards"] if "refused" not in board]


def _of(resource: Mapping[str, int]) -> str:
    return f"{resource['used']:,} of {resource['available']:,}"


def _mhz(board: Report, value: float) -> str:
    return f"{'≤ ' if board['fmax_mhz']['upper_bound'] else ''}{value:.1f} MHz"


def _seeds(board: Report) -> str:
    """How many seeds meet the clock, of all."""
    speeds, failed = board["fmax_mhz"]["seeds"], board["fmax_mhz"]["failed"]
    met = sum(speed >= board["target_mhz"] for speed in speeds.values())
    routed = f", {', '.join(failed)} failed" if failed else ""
    return f"{met} of {len(speeds) + len(failed)}{routed}"


def _sizes(board: Report) -> list[str]:
    """LUT, FF, RAM and DSP, of iCE40 with the logic cells and SPRAM besides."""
    found = board["resources"]
    lut = f"{found['LUT']['used']:,} ({_of(found['LC'])} LC)" if "LC" in found else _of(found["LUT"])
    ram = f"{_of(found['RAM'])}, SPRAM {_of(found['SPRAM'])}" if "SPRAM" in found else _of(found["RAM"])
    return [lut, _of(found["FF"]) if "LC" not in found else f"{found['FF']['used']:,}", ram, _of(found["DSP"])]


def size_rows(measured: Report) -> list[list[str]]:
    """Cells of the table, in the order of :data:`SIZE_COLUMNS`."""
    return [
        [
            f"`{board['board']}`",
            board["part"],
            f"`{board['configuration']}`",
            str(board["lanes"]),
            f"{board['target_mhz']} MHz",
            *_sizes(board),
            _mhz(board, board["fmax_mhz"]["minimum"]),
            _mhz(board, board["fmax_mhz"]["median"]),
            _seeds(board),
        ]
        for board in built(measured)
    ]


def path_rows(measured: Report) -> list[list[str]]:
    """The critical path of each board's bitstream: its delay, and what each block has of it."""
    rows = []
    for board in built(measured):
        path = board["critical_path"]
        parts = ", ".join(f"{block or 'board'} {delay:.1f}" for block, delay in path["blocks"].items())
        delay, logic, routing = (f"{path[key]:.1f}" for key in ("delay_ns", "logic_ns", "routing_ns"))
        name, seed, levels = f"`{board['board']}`", f"{board['bitstream_seed']}", f"{path['levels']}"
        rows.append([name, seed, delay, levels, logic, routing, parts])
    return rows


def titles(measured: Report) -> list[str]:
    """The networks of the columns: those of MLPerf Tiny first."""
    found = dict.fromkeys(network["title"] for board in built(measured) for network in board["networks"])
    return [*(one for one in MLPERF if one in found), *(one for one in found if one not in MLPERF)]


def _cell(board: Report, network: Report | None, value: Callable[[Report, Report], str]) -> str:
    if network is None or "refused" in network:
        return "–"
    mark = STREAMED if network["streamed_input"] else ROW_BY_ROW if network["plan"] == "row by row" else ""
    return value(board, network) + mark


def _matrix(
    measured: Report,
    own: Callable[[Report, Report], str],
    others: Callable[[Figure], str],
    columns: Callable[[Report | Published], Sequence[str]] = lambda one: (),
) -> list[list[str]]:
    """A row per board and per published design: name, device, multipliers, MHz, some ``columns`` more, and a cell per network
    of what the board or a figure has."""
    names, rows = titles(measured), []
    for board in built(measured):
        networks = {network["title"]: network for network in board["networks"]}
        mhz = _mhz(board, board["fmax_mhz"]["minimum"]).removesuffix(" MHz")
        cells = [_cell(board, networks.get(one), own) for one in names]
        rows.append([f"`{board['board']}`", board["part"], str(board["lanes"]), mhz, *columns(board), *cells])
    for design in PUBLISHED:
        figures = design.figures
        multipliers = _span([figure.multipliers for figure in figures.values()] or [design.multipliers])
        mhz = _span([figure.clock_mhz for figure in figures.values()] or [design.clock_mhz])
        cells = [others(figures[one]) if one in figures else "–" for one in names]
        name = f"[{design.name}]({design.source.url})"
        rows.append([name, design.device, multipliers, mhz, *columns(design), *cells])
    return rows


def _span(values: Iterable[float | None]) -> str:
    """``60–78``, or what there is of it."""
    known = sorted({value for value in values if value is not None})
    texts = [f"{value:.1f}".removesuffix(".0") for value in (known[:1] + known[1:][-1:])]
    return "–".join(texts) or "?"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _own_rate(board: Report, network: Report) -> str:
    return ("≤ " if board["fmax_mhz"]["upper_bound"] else "") + _rate(per_second(board, network))


def _other_rate(figure: Figure) -> str:
    return f"{figure.cycles / 1e6:.1f} M cycles" if figure.per_second is None else _rate(figure.per_second)


def _work(multipliers: int | None, count: float) -> str:
    if multipliers is None:
        return "?"
    millions = multipliers * count / 1e6
    return f"{millions:,.1f}" if millions >= 10 else f"{millions:.2f}"


def _resources(one: Report | Published) -> Sequence[str]:
    return ("",) * 4 if isinstance(one, Published) else _sizes(one)


NAMES = ("design", "device", "multipliers", "MHz")


def rate_rows(measured: Report) -> list[list[str]]:
    """Inferences per second."""
    return _matrix(measured, _own_rate, _other_rate)


def readme_rows(measured: Report) -> list[list[str]]:
    """The same, with what the boards' designs take of the device."""
    return _matrix(measured, _own_rate, _other_rate, _resources)


def cycle_rows(measured: Report) -> list[list[str]]:
    """Cycles per inference."""
    return _matrix(measured, lambda _, network: f"{network['cycles']:,.0f}", lambda figure: f"{figure.cycles:,}")


def work_rows(measured: Report) -> list[list[str]]:
    """Cycles times multipliers, in millions."""
    return _matrix(
        measured,
        lambda board, network: _work(board["lanes"], network["cycles"]),
        lambda figure: _work(figure.multipliers, figure.cycles),
    )


def tables(measured: Report) -> Iterator[tuple[str, Sequence[str], list[list[str]]]]:
    """For the terminal, without what others have published: title, header and rows."""
    boards = len(built(measured))
    for name, header, rows in (
        ("boards", SIZE_COLUMNS, size_rows(measured)),
        ("inferences per second", (*NAMES, *titles(measured)), rate_rows(measured)[:boards]),
    ):
        yield name, header, [[cell.replace("`", "") for cell in row] for row in rows]
