"""The planner's results for people: a table, JSON and pictures."""

from collections.abc import Callable, Sequence
from typing import Any

from gossamer.golden.compiler import Compiled, CompileError, Frontend
from gossamer.golden.inference import infer
from gossamer.golden.network import Array
from gossamer.golden.planner import Point

__all__ = ["described", "explored"]


def described(frontend: Frontend, point: Point) -> list[str]:
    """What a strategy does with each group of layers, a line each."""
    strategy, start = point.strategy, 0
    lines: list[str] = []
    for group in strategy.groups:
        names = [layer.name for layer in frontend.layers[start : group.stop]]
        what = f"{group.rows} rows at a time" if group.rows else "layer by layer"
        last = lines[-1] if lines else ""
        if not group.rows and last.endswith("layer by layer"):
            lines[-1] = f"{last.split(' to ')[0].split(':')[0]} to {names[-1]}: layer by layer"
        else:
            lines.append(f"{names[0]}{f' to {names[-1]}' if len(names) > 1 else ''}: {what}")
        start = group.stop
    if strategy.strips > 1:
        lines.append(f"in {strategy.strips} strips")
    if strategy.slots:
        lines.append(f"compressed: {', '.join(strategy.slots)}")
    if strategy.stream:
        lines.append("the host writes the input row by row")
    return lines


def explored(
    frontend: Frontend, points: Sequence[Point], x: Array, progress: Callable[[int], None]
) -> list[tuple[dict[str, Any], Compiled | None]]:
    """Each point as it turned out: what it needs, and the program if it fits. ``x`` are the inputs whose mean cycles count; of
    the points those are left that need fewer bytes than all that are faster."""
    found: list[tuple[dict[str, Any], Compiled | None]] = []
    for done, point in enumerate(points, 1):
        entry: dict[str, Any] = {"plan": described(frontend, point), "streamed_input": point.strategy.stream}
        try:
            compiled = frontend.compile(point.strategy)
        except CompileError as error:
            entry |= {"peak_activation_bytes": point.peak, "cycles": point.cycles, "fits": False, "why": str(error)}
            found.append((entry, None))
        else:
            cycles = [infer(compiled, one).cycles for one in x]
            entry |= {
                "peak_activation_bytes": compiled.plan.peak,
                "cycles": round(sum(cycles) / len(cycles), 1),
                "fits": True,
                "image_bytes": compiled.program.size,
                "steps": len(compiled.program.steps),
            }
            found.append((entry, compiled))
        progress(done)
    found.sort(key=lambda one: (one[0]["peak_activation_bytes"], one[0]["cycles"]))
    best: list[tuple[dict[str, Any], Compiled | None]] = []
    for one in found:
        if not best or one[0]["cycles"] < best[-1][0]["cycles"]:
            best.append(one)
    return best
