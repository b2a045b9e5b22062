"""The command ``gossamer``."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gossamer.cli.files import InputError, load_inputs, output_file, output_folder
from gossamer.cli.models import BUILT_IN, load_model, sample_inputs
from gossamer.golden import spec
from gossamer.golden.compiler import Compiled, CompileError, compile_network
from gossamer.golden.inference import Inference, infer
from gossamer.golden.program import Program

__all__ = ["main"]

T = TypeVar("T")
DEFAULT_CONFIG = "up5k"
console = Console(stderr=True)

config_option = click.option(
    "--config",
    "config_name",
    default=DEFAULT_CONFIG,
    show_default=True,
    metavar="NAME|FILE",
    help=f"A named configuration ({', '.join(spec.CONFIGS)}) or a TOML or JSON file with the fields of one.",
)
model_argument = click.argument("model")
MODELS = f"MODEL is an int8 TensorFlow Lite model (.tflite), a network file (.gsm) or a built-in one ({', '.join(BUILT_IN)})."


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal; yields a function that is told how many are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def tracked(what: str, items: Iterable[T], total: int) -> Iterator[T]:
    """``items``, with a bar that advances behind each."""
    with progress_bar(what, total) as update:
        for done, item in enumerate(items, 1):
            yield item
            update(done)


def say(sentence: str) -> None:
    """Tell what takes long."""
    console.print(f"{sentence} …", style="dim", highlight=False)


def predict(compiled: Compiled, x: np.ndarray) -> list[Inference]:
    """The interpreter's answer to each input."""
    return [infer(compiled, one) for one in tracked("interpreter", x, len(x))]


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs."""
    path.write_text(json.dumps(value, indent=2) + "\n")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("gossamer"), package_name="gossamer")
def cli() -> None:
    """Neural-network inference hardware that computes on compressed networks.

    \b
    Try:
      gossamer demo                               the built-in network, simulated and compared
      gossamer generate --config up5k -o build/v  Verilog of the core
      gossamer compile digits -o build/digits     program image, report, memory plan
      gossamer run digits --input X.npy --backend rtl -o Y.npy
      gossamer bench -o build/bench               cycles of all configurations, simulated
      gossamer build --board icebreaker -o build/b
    """


@cli.command()
@config_option
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 500), help="Held-out digits to run.")
def demo(config_name: str, count: int) -> None:
    """Run the built-in digits network on the simulated core, and compare every output.

    Compiles the network, emits the core's Verilog, builds its simulation with Verilator (a minute the first time, then
    cached), runs real handwritten digits through it, and compares outputs and clock cycles with the golden model. Exit
    status 1 on any difference.
    """
    from gossamer.golden import digits
    from gossamer.sim.rtl import Simulator

    config = spec.config(config_name)
    network = digits.load()
    compiled = compile_network(network, config)
    images, all_labels = digits.test_set()
    x, labels = images[:count], all_labels[:count]
    golden = network.run(x)[compiled.device_output]
    inferences = predict(compiled, x)
    simulator = Simulator(config, say)
    with progress_bar("RTL", count) as update:
        result = simulator.run(compiled, x, progress=update)
    outputs = np.stack([compiled.output_values(data) for data in result.outputs])
    equal = int((outputs == golden).reshape(count, -1).all(1).sum())
    interpreted = all((i.output == g).all() for i, g in zip(inferences, golden))
    predicted = [i.cycles for i in inferences]
    accuracy = float((compiled.finish(outputs).argmax(1) == labels).mean())
    expected = float((network.run(images)[network.output].argmax(1) == all_labels).mean())
    macs = sum(step.macs for step in inferences[0].layers)
    executed = np.mean([sum(step.executed for step in i.layers) for i in inferences])

    table = Table(title=f"digits on {config.name}", show_header=False, title_justify="left")
    for name, value in (
        (f"accuracy, golden, {len(images)} held-out digits", f"{expected:.1%}"),
        (f"accuracy, RTL, the first {count}", f"{accuracy:.1%}"),
        ("RTL = golden", f"{equal}/{count}"),
        ("cycles per inference, RTL", f"{np.mean(result.cycles):,.1f}"),
        ("cycles per inference, predicted", f"{np.mean(predicted):,.1f}"),
        ("RTL cycles = predicted", f"{sum(a == b for a, b in zip(result.cycles, predicted))}/{count}"),
        ("multiply-accumulates", f"{macs:,}"),
        ("… skipped", f"{1 - executed / macs:.1%}"),
        ("peak activation bytes", f"{compiled.plan.peak:,}"),
        ("program image bytes", f"{compiled.program.size:,}"),
    ):
        table.add_row(name, value)
    Console().print(table)
    if equal != count or not interpreted or result.cycles != predicted:
        raise SystemExit(1)


@cli.command()
@config_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
def generate(config_name: str, output: Path) -> None:
    """Write the core as SystemVerilog, with C header, register documentation and file lists."""
    from gossamer.gateware.generate import emit
    from gossamer.sim.rtl import cells

    config = spec.config(config_name)
    say(f"emitting the core of {config.name}")
    with output_folder(output) as folder:
        names = [path.name for path in emit(config, folder)]
        for source in cells(config):
            (folder / source.name).write_text(source.read_text())
        models = [source.name for source in cells(config)]
        sources = (folder / "files.f").read_text()
        (folder / "simulation.f").write_text(sources + "".join(f"{name}\n" for name in models))
    for name in [*names, "simulation.f", *models]:
        click.echo(output / name)


@cli.command("compile", help=f"Compile a network to a program image.\n\n{MODELS}")
@model_argument
@config_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--input", "input_path", type=click.Path(path_type=Path), help="Inputs (.npy) to predict cycles with.")
def compile_command(model: str, config_name: str, output: Path, input_path: Path | None) -> None:
    """Writes ``image.bin``, ``program.txt``, ``report.json`` and ``memory.png``."""
    from gossamer.cli.report import compile_report, memory_picture

    config = spec.config(config_name)
    network = load_model(model)
    compiled = compile_network(network, config)
    x = load_inputs(input_path, network) if input_path else sample_inputs(model, network, 4)
    source = input_path.name if input_path else "4 held-out samples" if model in BUILT_IN else "4 random inputs"
    inferences = predict(compiled, x)
    report = compile_report(compiled, inferences, source)
    with output_folder(output) as folder:
        (folder / "image.bin").write_bytes(compiled.program.assemble())
        (folder / "program.txt").write_text(compiled.program.listing())
        write_json(folder / "report.json", report)
        memory_picture(compiled, folder / "memory.png")
    table = Table(title=f"{network.name} on {config.name}", title_justify="left")
    for column in ("layer", "kind", "MACs", "executed", "cycles", "utilisation", "weight bytes", "output bytes"):
        table.add_column(column, justify="left" if column in ("layer", "kind") else "right")
    for layer in report["layers"]:
        table.add_row(
            layer["layer"],
            layer["kind"] + (" (host)" if layer["where"] == "host" else ""),
            f"{layer['macs']:,}",
            f"{layer['macs_executed']:,.0f}",
            f"{layer['cycles']:,.0f}",
            f"{layer['utilisation']:.0%}",
            f"{layer['weight_bytes']:,}",
            f"{layer['output_bytes']:,}",
        )
    Console().print(table)
    click.echo(
        f"{report['cycles']:,.0f} cycles, {report['image_bytes']:,} bytes of image and "
        f"{report['peak_activation_bytes']:,} of activations in a store of {report['store_bytes']:,}: {output}"
    )


@cli.command(help=f"Run inputs through a network.\n\n{MODELS}")
@model_argument
@click.option("--input", "input_path", required=True, type=click.Path(path_type=Path), help="Inputs, .npy, batch first.")
@click.option(
    "--backend",
    type=click.Choice(["golden", "rtl"]),
    default="golden",
    show_default=True,
    help="golden: the program interpreter; rtl: the emitted Verilog in Verilator.",
)
@config_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Outputs, .npy, batch first.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Cycles and skip statistics.")
def run(model: str, input_path: Path, backend: str, config_name: str, output: Path, json_path: Path | None) -> None:
    """Inputs and outputs have the model's own types and shapes, batch first."""
    from gossamer.cli.report import run_report

    config = spec.config(config_name)
    network = load_model(model)
    x = load_inputs(input_path, network)
    compiled = compile_network(network, config)
    inferences = predict(compiled, x) if json_path or backend == "golden" else []
    simulated = None
    if backend == "rtl":
        from gossamer.sim.rtl import Simulator

        simulator = Simulator(config, say)
        with progress_bar("RTL", len(x)) as update:
            result = simulator.run(compiled, x, progress=update)
        values = np.stack([compiled.output_values(data) for data in result.outputs])
        cycles, simulated = result.cycles, result.simulated
    else:
        values = np.stack([i.output for i in inferences])
        cycles = [i.cycles for i in inferences]
    outputs = compiled.finish(values)
    with output_file(output) as path, open(path, "wb") as file:
        np.save(file, outputs.reshape(len(x), *(network.output_shape or outputs.shape[1:])))
    if json_path:
        with output_file(json_path) as path:
            write_json(path, run_report(compiled, inferences, backend, cycles, simulated))
    click.echo(f"{len(x)} inferences, {np.mean(cycles):,.1f} cycles each: {output}")


@cli.command()
@click.argument("image", type=click.Path(path_type=Path))
@config_option
def disassemble(image: Path, config_name: str) -> None:
    """List the layers and steps of a program image, after a check of its header and CRC."""
    try:
        data = image.read_bytes()
    except OSError as error:
        raise InputError(f"the image {image} must be a file that can be read: {error.strerror}") from None
    click.echo(Program.disassemble(data, spec.config(config_name)).listing(), nl=False)


@cli.command()
@click.option("--board", required=True, metavar="NAME", help="icebreaker")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 64), help="Place-and-route seeds to try.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
def build(board: str, seeds: int, output: Path) -> None:
    """Make a bitstream: the core behind a UART, with a resource and timing report."""
    from gossamer.boards.build import build as build_board

    report = build_board(board, output, seeds=seeds, progress=say)
    click.echo(json.dumps(report, indent=2))


@cli.command(
    help=f"""Measure networks on RTL, on several configurations.

    {MODELS} Without one: all built-in networks. Exit status 1 if an output or cycle count is not as predicted, or if cycles
    have grown since the baseline."""
)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--config",
    "config_names",
    multiple=True,
    default=tuple(spec.CONFIGS),
    show_default=True,
    metavar="NAME|FILE",
    help="A configuration, named or a file; may be given several times.",
)
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 500), help="Inputs per network.")
@click.option("--baseline", type=click.Path(path_type=Path), help="An earlier bench.json that cycles are compared with.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
def bench(
    models: tuple[str, ...], config_names: tuple[str, ...], count: int, baseline: Path | None, output: Path
) -> None:
    """Writes ``bench.json``, ``bench.md`` and ``bench.png``."""
    from gossamer.cli import bench as benchmark
    from gossamer.sim.rtl import Simulator

    before = benchmark.load_baseline(baseline) if baseline else []
    configs = [spec.config(name) for name in config_names]
    networks = {name: load_model(name) for name in models or BUILT_IN}
    reports = []
    for config in configs:
        simulator = None
        for name, network in networks.items():
            try:
                compiled = compile_network(network, config)
            except CompileError as error:
                reports.append(benchmark.refusal(network.name, config.name, error))
                continue
            x = sample_inputs(name, network, count)
            inferences = predict(compiled, x)
            simulator = simulator or Simulator(config, say)
            with progress_bar(f"{network.name} on {config.name}", len(x)) as update:
                reports.append(benchmark.measure(compiled, x, inferences, simulator, update))
    if all("refused" in report for report in reports):
        raise CompileError(reports[0]["refused"])
    with output_folder(output) as folder:
        write_json(folder / "bench.json", {"runs": reports})
        (folder / "bench.md").write_text(benchmark.bench_markdown(reports))
        benchmark.bench_picture(reports, folder / "bench.png")
    table = Table(title=f"benchmark, {count} inputs each", title_justify="left")
    for i, column in enumerate(benchmark.COLUMNS):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=i < 2)
    for row in benchmark.rows(reports):
        table.add_row(*row)
    Console().print(table)
    sentences = [*benchmark.faults(reports), *benchmark.growths(reports, before)]
    for sentence in sentences:
        click.echo(f"gossamer: {sentence}", err=True)
    if sentences:
        raise SystemExit(1)


def main() -> None:
    """Run the command. Errors that are the user's to mend are one sentence and exit status 2."""
    try:
        cli(standalone_mode=True)
    except (spec.UserError, OSError) as error:
        click.echo(f"gossamer: {error}", err=True)
        raise SystemExit(2) from None
