"""The command ``gossamer``."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import numpy as np
from click.core import ParameterSource
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from gossamer.boards import BOARDS
from gossamer.cli.files import InputError, load_inputs, output_file, output_folder
from gossamer.cli.models import BUILT_IN, Samples, labels, load_model, models_in, samples
from gossamer.cli.models import VARIANTS as MODEL_VARIANTS
from gossamer.firmware.soc_build import PROGRAMS
from gossamer.golden import spec
from gossamer.golden.coding import budgets, calibrate
from gossamer.golden.compiler import Compiled, CompileError, Frontend, Strategy, compile_network
from gossamer.golden.digits import VARIANTS
from gossamer.golden.finetune import EPOCHS, finetune, torch_or_refusal
from gossamer.golden.inference import Inference, infer
from gossamer.golden.network import Network
from gossamer.golden.planner import Planner, Point, affordable, fit, too_little
from gossamer.golden.program import Program
from gossamer.golden.pruning import BLOCKS
from gossamer.golden.ranges import METHODS
from gossamer.golden.weights import FORMATS, PALETTES, Options

if TYPE_CHECKING:
    from gossamer.sim.rtl import RtlResult, Simulator

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
memory_option = click.option(
    "--memory",
    type=click.IntRange(1),
    metavar="BYTES",
    help="Most bytes for activations: compute layers row by row where that is needed. Default: layer by layer.",
)
codec_option = click.option(
    "--codec",
    "codec_names",
    default="off",
    show_default=True,
    metavar="off|auto|all|NAMES",
    help="Feature maps whose rows lie compressed in the store: those that cost few cycles, all that can, or tensors by name, "
    "separated by commas. all=SHARE and NAME=SHARE: lossy, in so many bytes per value.",
)
calibrate_option = click.option(
    "--calibrate",
    "calibrate_path",
    type=click.Path(path_type=Path),
    help="Inputs (.npy) whose longest compressed rows, and a tenth more, are the sizes of rows in the store. Default: the "
    "inputs that are used anyway.",
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), help="Seeds to place and route at once.  [default: the number of processors]"
)
NAMES = ", ".join([*BUILT_IN, *MODEL_VARIANTS])
MODELS = f"MODEL is an int8 TensorFlow Lite model (.tflite), a network file (.gsm) or a built-in one ({NAMES})."


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar on the terminal; yields a function that is told how many are done, and how many there are if that has changed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, total=total: progress.update(task, completed=done, total=total)


def tracked(what: str, items: Iterable[T], total: int) -> Iterator[T]:
    """``items``, with a bar that advances behind each."""
    with progress_bar(what, total) as update:
        for done, item in enumerate(items, 1):
            yield item
            update(done)


def say(sentence: str) -> None:
    """Tell what takes long."""
    console.print(f"{sentence} …", style="dim", highlight=False)


def planned(frontend: Frontend, coded: Strategy) -> list[Point]:
    """The planner's points, with a bar; also those with the compressed maps of ``coded``."""
    with progress_bar("planner", 0) as update:
        points = Planner(frontend, update).points()
        if coded.slots:
            plain = [] if coded.budgeted else points  # budgets are not left out, they change outputs
            points = [*plain, *Planner(frontend, update, coded.slots, coded.budgeted).points()]
        return points


def coded_maps(frontend: Frontend, names: str, calibrate_path: Path | None, x: np.ndarray) -> Strategy:
    """The slots of the maps that ``--codec`` names, all for ``auto``. ``x`` are the inputs to calibrate with by default."""
    config = frontend.config
    if names == "off":
        return Strategy()
    if config.codec == "off":
        raise spec.ConfigError(f"configuration {config.name!r} has no codec, and --codec must be off there, not {names!r}")
    wanted = {name: share for name, _, share in (item.partition("=") for item in names.split(","))}
    shares = {name: _share(share) for name, share in wanted.items() if share}
    if shares and config.codec != "budgeted":
        raise spec.ConfigError(
            f"configuration {config.name!r} must have the codec 'budgeted' for {names!r}, and has {config.codec!r}"
        )
    slots: dict[str, int] = {}
    if len(shares) < len(wanted):
        inputs = load_inputs(calibrate_path, frontend.source) if calibrate_path else x
        with progress_bar("calibration", len(inputs)) as update:
            slots = calibrate(frontend.network, frontend.layout, inputs, config, progress=update)
    found: dict[str, int] = {}
    for name, share in wanted.items():
        there = budgets(frontend.layout, shares[name], config) if share else slots
        if name in ("auto", "all") and len(wanted) == 1:
            return Strategy(slots=there, budgeted=frozenset(there if share else ()))
        if name not in there:
            raise InputError(f"--codec must name tensors that can be compressed ({', '.join(there)}), not {name!r}")
        found[name] = there[name]
    return Strategy(slots=found, budgeted=frozenset(shares))


def _share(text: str) -> float:
    """Bytes per value."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise InputError(f"--codec must have a number of bytes per value between 0 and 1 behind '=', not {text!r}")
    return share


def compile_in(
    network: Network,
    config: spec.Config,
    memory: int | None,
    codec_names: str,
    calibrate_path: Path | None,
    x: np.ndarray,
) -> Compiled:
    """Compile layer by layer, or so that activations take at most ``memory`` bytes, with compressed maps if they are wanted."""
    frontend = Frontend(network, config)
    coded = coded_maps(frontend, codec_names, calibrate_path, x)
    if memory is not None:
        return fit(frontend, memory, planned(frontend, coded))
    return frontend.compile(affordable(frontend, coded.slots) if codec_names == "auto" else coded)


def predict(compiled: Compiled, x: np.ndarray) -> list[Inference]:
    """The interpreter's answer to each input."""
    return [infer(compiled, one) for one in tracked("interpreter", x, len(x))]


def stdout() -> Console:
    """For tables: on a terminal as wide as that, else wide enough for all columns."""
    found = Console()
    return found if found.is_terminal else Console(width=max(found.width, 240))


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and programs."""
    path.write_text(json.dumps(value, indent=2) + "\n")


class Commands(click.Group):
    """A group of commands whose names may have two words."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = " ".join(args[:2])
        return (name, self.commands[name], args[2:]) if name in self.commands else super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("gossamer"), package_name="gossamer")
def cli() -> None:
    """Neural-network inference hardware that computes on compressed networks.

    \b
    Try:
      gossamer demo                               the built-in network, simulated and compared
      gossamer generate --config up5k -o build/v  Verilog of the core
      gossamer compile digits -o build/digits     program image, report, memory plan
      gossamer plan digits -o build/plan          memory against cycles, and where each row lies
      gossamer compress NET.tflite -o build/n.gsm weights pruned, in int4 or from palettes
      gossamer run digits --input X.npy --backend rtl -o Y.npy
      gossamer bench -o build/bench               cycles of all configurations, simulated
      gossamer bench --models DIR -o build/bench  the same of the models in a folder
      gossamer bench codec --models DIR -o build/codec
      gossamer bench boards --models DIR -o build/boards
      gossamer build --board icebreaker -o build/b
    """


@cli.command()
@click.argument("network", type=click.Choice(["digits", "denoise"]), default="digits")
@config_option
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 500), help="digits: how many to run.")
@click.option(
    "--variant", "variants", multiple=True, type=click.Choice(["all", *VARIANTS]),
    help="digits: networks with fewer bits or fewer weights, in one table. Once or more.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("build/denoise"), show_default=True,
    help="denoise: folder to write the pictures to.",
)  # fmt: skip
@click.pass_context
def demo(
    context: click.Context, network: str, config_name: str, count: int, variants: tuple[str, ...], output: Path
) -> None:
    """Run a built-in network on the simulated core, and compare every output.

    digits: handwritten digits on the RTL. denoise: a photograph of 640×427 pixels, whose maps are a hundred times larger than
    the memory, row by row on the interpreter, and a crop of it on the RTL; writes pictures.

    Compiles the network, emits the core's Verilog, builds its simulation with Verilator (a minute the first time, then
    cached), runs real handwritten digits through it, and compares outputs and clock cycles with the golden model. Exit
    status 1 on any difference. Variants run on ecp5_25_compressed, unless there is a --config.
    """
    if variants:
        if network != "digits":
            raise spec.UserError(f"only digits has variants, not {network}")
        default = context.get_parameter_source("config_name") is ParameterSource.DEFAULT
        names = [*VARIANTS] if "all" in variants else [*dict.fromkeys(variants)]
        _demo_variants(spec.config("ecp5_25_compressed" if default else config_name), names, count)
        return
    config = spec.config(config_name)
    if network == "digits":
        _demo_digits(config, count)
    else:
        _demo_denoise(config, output)


def _demo_denoise(config: spec.Config, output: Path) -> None:
    from gossamer.cli.denoise import demonstrate, picture
    from gossamer.cli.report import memory_picture
    from gossamer.golden.denoise import psnr

    done = demonstrate(config, say, progress_bar)
    noisy, denoised, clean = done.images
    peak, (cycles, layerwise) = done.compiled.plan.peak, done.cycles
    with output_folder(output) as folder:
        picture(folder / "denoise.png", *done.images, {"layer by layer": done.layerwise, "in strips, row by row": peak})
        memory_picture(done.compiled, folder / "memory.png")
    table = Table(title=f"denoise on {config.name}", show_header=False, title_justify="left")
    for name, value in (
        ("photograph", f"{clean.shape[1]}×{clean.shape[0]}"),
        ("PSNR, noisy", f"{psnr(noisy, clean):.2f} dB"),
        ("PSNR, denoised", f"{psnr(denoised, clean):.2f} dB"),
        ("equal to the network as a whole", "yes" if done.exact else "no"),
        (f"RTL = golden, crop of {done.crop[1]}×{done.crop[0]}, outputs and cycles", "yes" if done.rtl else "no"),
        ("… cycles", f"{done.crop_cycles:,}"),
        ("strips", f"{done.compiled.strategy.strips}"),
        ("peak activation bytes", f"{peak:,}"),
        ("… layer by layer", f"{done.layerwise:,}, {done.layerwise / peak:.0f} times as many"),
        ("cycles against layer by layer", f"{cycles / layerwise - 1:+.1%}"),
        ("program image bytes", f"{done.compiled.program.size:,}"),
    ):
        table.add_row(name, value)
    Console().print(table)
    click.echo(output)
    if not (done.exact and done.rtl):
        raise SystemExit(1)


def _demo_digits(config: spec.Config, count: int) -> None:
    from gossamer.cli.report import run_report
    from gossamer.golden import digits
    from gossamer.sim.rtl import Simulator

    network = digits.load()
    compiled = compile_network(network, config)
    images, all_labels = digits.test_set()
    x, known = images[:count], all_labels[:count]
    golden = network.run(x)[compiled.device_output]
    inferences = predict(compiled, x)
    result, outputs, equal = _compare(Simulator(config, say), compiled, x, golden, "RTL")
    interpreted = all((i.output == g).all() for i, g in zip(inferences, golden))
    predicted = [i.cycles for i in inferences]
    accuracy = float((compiled.finish(outputs).argmax(1) == known).mean())
    expected = float((network.run(images)[network.output].argmax(1) == all_labels).mean())
    report = run_report(compiled, inferences, "rtl", result.cycles, result.simulated)

    table = Table(title=f"digits on {config.name}", show_header=False, title_justify="left")
    for name, value in (
        (f"accuracy, golden, {len(images)} held-out digits", f"{expected:.1%}"),
        (f"accuracy, RTL, the first {count}", f"{accuracy:.1%}"),
        ("RTL = golden", f"{equal}/{count}"),
        ("cycles per inference, RTL", f"{np.mean(result.cycles):,.1f}"),
        ("cycles per inference, predicted", f"{np.mean(predicted):,.1f}"),
        ("RTL cycles = predicted", f"{sum(a == b for a, b in zip(result.cycles, predicted))}/{count}"),
        ("multiply-accumulates", f"{report['macs']:,}"),
        ("… skipped", f"{report['macs_skipped']:.1%}"),
        ("dense roofline, cycles", f"{report['dense_roofline']:,.0f}"),
        ("peak activation bytes", f"{compiled.plan.peak:,}"),
        ("program image bytes", f"{compiled.program.size:,}"),
    ):
        table.add_row(name, value)
    Console().print(table)
    if equal != count or not interpreted or result.cycles != predicted:
        raise SystemExit(1)


def _compare(
    simulator: "Simulator", compiled: Compiled, x: NDArray[Any], golden: NDArray[np.int8], label: str
) -> tuple["RtlResult", NDArray[np.int8], int]:
    """Run ``x`` on the RTL: the result, the device's outputs, and how many are ``golden``."""
    with progress_bar(label, len(x)) as update:
        result = simulator.run(compiled, x, progress=update)
    outputs = np.stack([compiled.output_values(data) for data in result.outputs])
    return result, outputs, int((outputs == golden).reshape(len(x), -1).all(1).sum())


def _demo_variants(config: spec.Config, names: Sequence[str], count: int) -> None:
    from gossamer.golden import digits
    from gossamer.sim.rtl import Simulator

    simulator = Simulator(config, say)
    images, labels = digits.test_set()
    table = Table(title=f"digits on {config.name}", title_justify="left")
    for column in ("variant", "accuracy", "RTL = golden", "weight bytes", "activation bytes", "cycles", "= predicted"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    same = True
    for name in names:
        network = digits.load(name)
        compiled = compile_network(network, config)
        x = images[:count]
        golden = network.run(images)
        predicted = [inference.cycles for inference in predict(compiled, x)]
        result, _, equal = _compare(simulator, compiled, x, golden[compiled.device_output][:count], name)
        accuracy = float((golden[network.output].argmax(1) == labels).mean())
        same &= equal == count and result.cycles == predicted
        table.add_row(
            name,
            f"{accuracy:.1%}",
            f"{equal}/{count}",
            f"{compiled.program.weight_bytes:,}",
            f"{compiled.plan.peak:,}",
            f"{np.mean(result.cycles):,.1f}",
            f"{sum(a == b for a, b in zip(result.cycles, predicted))}/{count}",
        )
    Console().print(table)
    if not same:
        raise SystemExit(1)


@cli.command()
@config_option
@click.option(
    "--bus", type=click.Choice(["wishbone", "wishbone-pipelined", "axi4lite"]), default="wishbone", show_default=True,
    help="The core's port: Wishbone B4 classic or pipelined, or AXI4-Lite.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
def generate(config_name: str, bus: str, output: Path) -> None:
    """Write the core as Verilog, with C header, register documentation and file lists."""
    from gossamer.gateware.generate import emit
    from gossamer.sim.rtl import cells

    config = spec.config(config_name)
    say(f"emitting the core of {config.name}")
    with output_folder(output) as folder:
        names = [path.name for path in emit(config, folder, bus)]
        for source in cells(config):
            (folder / source.name).write_text(source.read_text())
        models = [source.name for source in cells(config)]
        sources = (folder / "files.f").read_text()
        (folder / "simulation.f").write_text(sources + "".join(f"{name}\n" for name in models))
    for name in [*names, "simulation.f", *models]:
        click.echo(output / name)


def _given(model: str, network: Network, path: Path | None) -> Samples:
    """Inputs to predict cycles with."""
    if path:
        return Samples(load_inputs(path, network), path.name)
    found = samples(model, network, 4)
    return Samples(found.x, f"{len(found.x)} {found.source}")


@cli.command("compile", help=f"Compile a network to a program image.\n\n{MODELS}")
@model_argument
@config_option
@memory_option
@codec_option
@calibrate_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--input", "input_path", type=click.Path(path_type=Path), help="Inputs (.npy) to predict cycles with.")
def compile_command(
    model: str,
    config_name: str,
    memory: int | None,
    codec_names: str,
    calibrate_path: Path | None,
    output: Path,
    input_path: Path | None,
) -> None:
    """Writes ``image.bin``, ``program.txt``, ``report.json`` and ``memory.png``, and ``external.bin`` if there is something for
    an external memory."""
    from gossamer.cli.report import CATEGORIES, compile_report, memory_picture

    config = spec.config(config_name)
    network = load_model(model)
    given = _given(model, network, input_path)
    compiled = compile_in(network, config, memory, codec_names, calibrate_path, given.x)
    inferences = predict(compiled, given.x)
    report = compile_report(compiled, inferences, infer(compiled, given.x[0], warm=False), given.source)
    with output_folder(output) as folder:
        (folder / "image.bin").write_bytes(compiled.program.assemble())
        if compiled.program.external:
            (folder / "external.bin").write_bytes(compiled.program.external)
        (folder / "program.txt").write_text(compiled.program.listing())
        write_json(folder / "report.json", report)
        memory_picture(compiled, folder / "memory.png")
    table = Table(title=f"{network.name} on {config.name}", title_justify="left")
    sizes = ("utilisation", "weight bytes", "streamed", "output bytes")
    for column in ("layer", "kind", "MACs", "executed", "cycles", *CATEGORIES, *sizes):
        table.add_column(column, justify="left" if column in ("layer", "kind") else "right")
    for layer in report["layers"]:
        weights = f"{layer['weight_bytes']:,}"
        if layer["weight_bytes"] != layer["source_weight_bytes"]:
            weights += f" of {layer['source_weight_bytes']:,}"
        table.add_row(
            layer["layer"],
            layer["kind"] + ("" if layer["where"] == "core" else f" ({layer['where']})"),
            f"{layer['macs']:,}",
            f"{layer['macs_executed']:,.0f}",
            f"{layer['cycles']:,.0f}",
            *(f"{layer[f'{category}_cycles']:,.0f}" for category in CATEGORIES),
            f"{layer['utilisation']:.0%}",
            weights,
            f"{layer['streamed_bytes']:,}",
            f"{layer['output_bytes']:,}",
        )
    stdout().print(table)
    if report["weight_bytes"] != report["source_weight_bytes"]:
        click.echo(
            f"folded: {report['source_channels'] - report['channels']:,} of {report['source_channels']:,} channels; "
            f"{report['weight_bytes']:,} of {report['source_weight_bytes']:,} bytes of weights are left"
        )
    if report["leaves_vectors_out"] and report["permuted"]:
        click.echo(
            f"permuted: {report['block_density']:.1%} of the weight vectors are not zero, "
            f"{report['block_density_in_order']:.1%} with channels in the given order"
        )
    cold = f" ({report['cycles_cold']:,} from a cold start)" if compiled.program.warm else ""
    click.echo(
        f"{report['cycles']:,.0f} cycles{cold} with {given.source}, dense roofline {report['dense_roofline']:,.0f}; "
        f"{report['image_bytes']:,} bytes of image and {report['peak_activation_bytes']:,} of activations in a store of "
        f"{report['store_bytes']:,}, {report['streamed_bytes']:,} bytes streamed: {output}"
    )


@cli.command(
    "compress",
    help=f"""Compress a network's weights.

    MODEL is a float TensorFlow Lite model (.tflite), which is quantized to int8, or any of the int8 models that other commands
    take ({', '.join(BUILT_IN)}, .gsm, .tflite). The result is an int8 network for these commands, whatever its formats.""",
)
@model_argument
@config_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="OUT.gsm", help="The network to write.")
@click.option(
    "--weights", type=click.Choice([*FORMATS]), default="int8", show_default=True, help="The numbers that weights may be."
)
@click.option("--prune", default=0.0, show_default=True, metavar="D", help="The share of weights to prune, by magnitude.")
@click.option("--block", default="unstructured", show_default=True, metavar=BLOCKS, help="What is pruned as one.")
@click.option(
    "--palette", type=click.Choice(PALETTES), default="layer", show_default=True, help="What has a palette of its own."
)
@click.option("--per-layer", type=click.Path(path_type=Path), help="Options of layers by name (.toml, .json).")
@click.option(
    "--budget", type=click.FloatRange(0, 1), metavar="A",
    help="Make int8 layers int4 while the share of calibration inputs with the same class is at least A.",
)  # fmt: skip
@click.option(
    "--calibrate", "calibrate_path", type=click.Path(path_type=Path),
    help="Inputs (.npy) to fit with, float32 for a float model. Default: every other sample in NAME_samples.npz.",
)  # fmt: skip
@click.option(
    "--range", "method", type=click.Choice(METHODS), default="mse", show_default=True,
    help="Ranges of a float model's activations and int8 weights.",
)  # fmt: skip
@click.option("--bias-correction/--no-bias-correction", default=True, help="Keep each channel's mean.", show_default=True)
@click.option(
    "--compensation/--no-compensation", default=True, show_default=True, help="Let weights make up for what others lose."
)
@click.option(
    "--activations", type=click.Choice(["int8", "int4"]), default="int8", show_default=True,
    help="The numbers that activations may be between the input and the output.",
)  # fmt: skip
@click.option(
    "--finetune", "epochs", is_flag=False, flag_value=EPOCHS, default=0, type=click.IntRange(0), metavar="[EPOCHS]",
    help=f"Train the compressed network on the calibration inputs, for {EPOCHS} epochs if none are given. Needs PyTorch.",
)  # fmt: skip
@click.option(
    "--count", default=2, show_default=True, type=click.IntRange(1, 500), help="Inputs to predict cycles with, at most."
)
def compress_command(
    model: str,
    config_name: str,
    output: Path,
    weights: str,
    prune: float,
    block: str,
    palette: str,
    per_layer: Path | None,
    budget: float | None,
    calibrate_path: Path | None,
    method: str,
    bias_correction: bool,
    compensation: bool,
    activations: str,
    epochs: int,
    count: int,
) -> None:
    """Writes OUT.gsm, OUT.json (the report) and OUT.png."""
    from gossamer.cli import compress as tool
    from gossamer.cli.sources import load
    from gossamer.golden.compress import Fitting, compress, narrow, search

    config = spec.config(config_name)
    default = Options(weights, prune, block, palette)
    if epochs:
        torch_or_refusal()
    given = load(model, calibrate_path, method)
    options = tool.options_by_layer(given.source, default, per_layer)
    if not epochs and "binary" in {chosen.weights for chosen in options.values()}:
        raise InputError("--finetune must be given for binary weights, which are of no use without training")
    target = given.source if activations == "int8" else narrow(given.source)
    fitting = Fitting(method, config.lanes, bias_correction, compensation)
    if budget is not None:
        if not len(given.sets["calibration"].known):
            raise InputError(f"--budget must be left out for {given.source.network.name!r}, which does not classify")
        with progress_bar("precision search", 0) as update:
            options = search(target, options, budget, fitting, update)
    done = compress(target, options, fitting)
    untrained = done if epochs else None
    if epochs:
        with progress_bar("training", 0) as update:
            done = finetune(given.source, done, options, epochs, fitting, update)
    x = [*given.sets.values()][-1].x[:count]
    plain = compress(given.source, {}, fitting).network
    with progress_bar("interpreter", 2 * len(x)) as update:
        before = tool.predicted(plain, config, x, update)
        after = tool.predicted(done.network, config, x, lambda taken: update(len(x) + taken))
    report = tool.compress_report(given, done, options, before, after, activations, epochs, untrained)
    with output_file(output) as network_path, output_file(output.with_suffix(".json")) as json_path:
        with output_file(output.with_suffix(".png")) as picture_path:
            done.network.save(network_path)
            write_json(json_path, report)
            tool.picture(report, picture_path)
    table = Table(title=f"{given.source.network.name}, compressed", title_justify="left")
    for i, column in enumerate(tool.COLUMNS):
        table.add_column(column, justify="left" if i < 3 else "right")
    for row in tool.rows(report):
        table.add_row(*row)
    stdout().print(table)
    for sentence in tool.sentences(report):
        click.echo(sentence)
    click.echo(output)


@cli.command(help=f"Plan a network's activation memory.\n\n{MODELS}")
@model_argument
@config_option
@memory_option
@codec_option
@calibrate_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--input", "input_path", type=click.Path(path_type=Path), help="Inputs (.npy) to predict cycles with.")
def plan(
    model: str,
    config_name: str,
    memory: int | None,
    codec_names: str,
    calibrate_path: Path | None,
    output: Path,
    input_path: Path | None,
) -> None:
    """Looks for ways to compute the network with less memory, layers row by row and maps in strips, and predicts what each
    costs in cycles. Writes ``plan.json``, ``curve.png`` (cycles against memory) and ``memory.png`` (what is where, and when),
    for the fastest plan of at most --memory bytes, or for the one that needs least."""
    from gossamer.cli.plan import explored
    from gossamer.cli.report import curve_picture, memory_picture

    config = spec.config(config_name)
    network = load_model(model)
    given = _given(model, network, input_path)
    frontend = Frontend(network, config)
    points = planned(frontend, coded_maps(frontend, codec_names, calibrate_path, given.x))
    with progress_bar("plans", len(points)) as update:
        found = explored(frontend, points, given.x, update)
    fitting = [(entry, compiled) for entry, compiled in found if compiled is not None]
    if not fitting:
        raise CompileError(found[0][0]["why"])
    chosen = fitting[0]
    if memory is not None:
        below = [one for one in fitting if one[0]["peak_activation_bytes"] <= memory]
        if not below:
            raise too_little(frontend, fitting[0][0]["peak_activation_bytes"], memory)
        chosen = below[-1]
    with output_folder(output) as folder:
        entries = [entry for entry, _ in found]
        write_json(folder / "plan.json", {"network": network.name, "configuration": config.name, "inputs": given.source,
                                          "chosen": entries.index(chosen[0]), "plans": entries})  # fmt: skip
        curve_picture(entries, f"{network.name} on {config.name}", folder / "curve.png")
        memory_picture(chosen[1], folder / "memory.png")
    table = Table(title=f"{network.name} on {config.name}: cycles with {given.source}", title_justify="left")
    for column in ("", "activation bytes", "cycles", "image bytes", "steps"):
        table.add_column(column, justify="right")
    table.add_column("plan")
    for entry in entries:
        values = [f"{entry[key]:,}" if key in entry else "–" for key in ("cycles", "image_bytes", "steps")]
        mark = "→" if entry is chosen[0] else "" if entry["fits"] else "✗"
        table.add_row(mark, f"{entry['peak_activation_bytes']:,}", *values, "\n".join(entry["plan"]))
    stdout().print(table)
    click.echo(output)


def _on_board(compiled: Compiled, x: np.ndarray, port: str, baud: int, flashed: bool) -> tuple[np.ndarray, list[int]]:
    """Outputs and cycles of the board at a serial port. If there are warm starts, all of these are, as in simulation."""
    from gossamer.firmware.host import Board, Link, open_port

    board = Board(Link(open_port(port, baud), baud=baud))
    say("loading the image")
    board.load(compiled.program.assemble(), external=flashed)
    if compiled.program.warm:
        board.run(compiled.input_bytes(x[0]).tobytes())
    done = [board.run(compiled.input_bytes(one).tobytes()) for one in tracked("board", x, len(x))]
    values = np.stack([compiled.output_values(np.frombuffer(one.output, np.uint8)) for one in done])
    return values, [one.cycles for one in done]


@cli.command(help=f"Run inputs through a network.\n\n{MODELS}")
@model_argument
@click.option("--input", "input_path", required=True, type=click.Path(path_type=Path), help="Inputs, .npy, batch first.")
@click.option(
    "--backend",
    type=click.Choice(["golden", "rtl", "serial"]),
    default="golden",
    show_default=True,
    help="golden: the program interpreter; rtl: the emitted Verilog in Verilator; serial: a board at --port.",
)
@click.option("--port", metavar="PORT", help="serial: the board's serial port, /dev/ttyUSB1 for example.")
@click.option(
    "--baud", type=click.IntRange(1), default=1_000_000, show_default=True, help="serial: bits per second on the line."
)
@click.option("--flashed", is_flag=True, help="serial: the board's flash holds the external.bin that `compile` has written.")
@config_option
@memory_option
@codec_option
@calibrate_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Outputs, .npy, batch first.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Cycles and skip statistics.")
def run(
    model: str,
    input_path: Path,
    backend: str,
    port: str | None,
    baud: int,
    flashed: bool,
    config_name: str,
    memory: int | None,
    codec_names: str,
    calibrate_path: Path | None,
    output: Path,
    json_path: Path | None,
) -> None:
    """Inputs and outputs have the model's own types and shapes, batch first."""
    from gossamer.cli.report import run_report

    config = spec.config(config_name)
    network = load_model(model)
    x = load_inputs(input_path, network)
    compiled = compile_in(network, config, memory, codec_names, calibrate_path, x)
    inferences = predict(compiled, x) if json_path or backend == "golden" else []
    simulated = None
    if backend == "rtl":
        from gossamer.sim.rtl import Simulator

        simulator = Simulator(config, say)
        with progress_bar("RTL", len(x)) as update:
            result = simulator.run(compiled, x, progress=update)
        values = np.stack([compiled.output_values(data) for data in result.outputs])
        cycles, simulated = result.cycles, result.simulated
    elif backend == "serial":
        if port is None:
            raise InputError("the backend serial needs a --port, as /dev/ttyUSB1 is one")
        values, cycles = _on_board(compiled, x, port, baud, flashed)
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
@click.option("--board", required=True, metavar="NAME", help=f"One of {', '.join(BOARDS)}.")
@click.option("--config", "config_name", metavar="NAME|FILE", help="Another configuration than the board's, named or a file.")
@click.option("--clock", "clock_mhz", type=int, metavar="MHZ", help="Another clock than the board's.")
@click.option("--link", default="uart", show_default=True, metavar="NAME", help="The way from the host: uart or spi.")
@click.option("--soc", "model", metavar="MODEL", help="With a RISC-V processor beside the core, and firmware that runs MODEL.")
@click.option(
    "--firmware",
    "program",
    type=click.Choice(list(PROGRAMS)),
    default="classes",
    show_default=True,
    help=f"With --soc: what {'; '.join(f'{name} {what}' for name, what in PROGRAMS.items())}.",
)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1, 64), help="Place-and-route seeds to try.")
@jobs_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
def build(
    board: str,
    config_name: str | None,
    clock_mhz: int | None,
    link: str,
    model: str | None,
    program: str,
    seeds: int,
    jobs: int | None,
    output: Path,
) -> None:
    """Make a bitstream: the core behind a UART or an SPI target, or beside a processor, with a resource and timing report."""
    from gossamer.boards.build import build as build_board

    config = spec.config(config_name) if config_name else None
    firmware = None
    if model is not None:
        if link != "uart":
            raise click.UsageError("--link is for a board without --soc")
        from gossamer.cli.soc import board_firmware

        firmware = board_firmware(board, model, program, config)
    elif click.get_current_context().get_parameter_source("program") is not ParameterSource.DEFAULT:
        raise click.UsageError("--firmware is for a board with --soc")
    report = build_board(
        board,
        output,
        config=config,
        clock_mhz=clock_mhz,
        link=link,
        firmware=firmware,
        seeds=seeds,
        jobs=jobs,
        progress=say,
    )
    click.echo(json.dumps(report, indent=2))


@cli.command(
    help=f"""Measure networks on RTL, on several configurations.

    {MODELS} Without one: those in the folder of --models, or `digits`. Inputs are those in NAME_samples.npz
    (arrays x and, to compare with, output) beside NAME.tflite or NAME_int8.tflite, else random ones. Exit status 1 if an output
    or cycle count is not as predicted, or if cycles have grown since the baseline."""
)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--models", "folder", type=click.Path(path_type=Path), help="A folder: all its .tflite and .gsm files.")
@click.option(
    "--config",
    "config_names",
    multiple=True,
    default=tuple(name for name, config in spec.CONFIGS.items() if config.codec == "off"),
    show_default=True,
    metavar="NAME|FILE",
    help="A configuration, named or a file; may be given several times.",
)
@click.option(
    "--count", default=20, show_default=True, type=click.IntRange(1, 500), help="Inputs per network, at most; the first ones."
)
@click.option("--baseline", type=click.Path(path_type=Path), help="An earlier bench.json that cycles are compared with.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
def bench(
    models: tuple[str, ...],
    folder: Path | None,
    config_names: tuple[str, ...],
    count: int,
    baseline: Path | None,
    output: Path,
) -> None:
    """Writes ``bench.json``, ``bench.md`` and ``bench.png``."""
    from gossamer.cli import bench as benchmark
    from gossamer.sim.rtl import Simulator

    before = benchmark.load_baseline(baseline) if baseline else []
    configs = [spec.config(name) for name in config_names]
    networks = {name: load_model(name) for name in models or (() if folder else ("digits",))}
    simulators: dict[str, Simulator] = {}
    reports = []
    for name in models_in(folder) if folder else ():
        try:
            networks[name] = load_model(name)
        except spec.UserError as error:  # the others are measured all the same
            reports.append(benchmark.refusal(Path(name).stem, "", error))
    for name, network in networks.items():
        given = samples(name, network, count)
        for config in configs:
            try:
                compiled = compile_network(network, config)
            except CompileError as error:
                reports.append(benchmark.refusal(network.name, config.name, error))
                continue
            inferences = predict(compiled, given.x)
            cold = infer(compiled, given.x[0], warm=False)
            if config.name not in simulators:
                simulators[config.name] = Simulator(config, say)
            simulator = simulators[config.name]
            with progress_bar(f"{network.name} on {config.name}", len(given.x)) as update:
                reports.append(benchmark.measure(compiled, given, inferences, cold, simulator, update))
    if all("refused" in report for report in reports):
        raise CompileError(reports[0]["refused"])
    with output_folder(output) as target:
        write_json(target / "bench.json", {"runs": reports})
        (target / "bench.md").write_text(benchmark.bench_markdown(reports))
        benchmark.bench_picture(reports, target / "bench.png")
    table = Table(title="benchmark", title_justify="left")
    for i, column in enumerate(benchmark.COLUMNS):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=i < 2)
    for row in benchmark.rows(reports):
        table.add_row(*row)
    stdout().print(table)
    sentences = [*benchmark.faults(reports), *benchmark.growths(reports, before)]
    for sentence in sentences:
        click.echo(f"gossamer: {sentence}", err=True)
    if sentences:
        raise SystemExit(1)


@cli.command(
    "bench codec",
    help=f"""Measure the compression of feature maps.

    {MODELS} Without one: those in the folder of --models, or all built-in networks. Inputs are those of `gossamer bench`; the
    array y beside them has their classes, -1 for unknown.""",
)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--models", "folder", type=click.Path(path_type=Path), help="A folder: all its .tflite and .gsm files.")
@config_option
@click.option(
    "--count", default=200, show_default=True, type=click.IntRange(1, 500), help="Inputs per network, at most; the first ones."
)
@click.option("--budgets", "with_budgets", is_flag=True, help="Also what a network loses if rows may have only so many bytes.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
def bench_codec(
    models: tuple[str, ...], folder: Path | None, config_name: str, count: int, with_budgets: bool, output: Path
) -> None:
    """Writes ``codec.json``, ``codec.md`` and ``codec.png``, and ``budgets.png`` if asked for."""
    from gossamer.cli import codec

    config = spec.config(config_name)
    reports, found, refused = [], [], []
    for name in [*models, *(models_in(folder) if folder else ())] or BUILT_IN:
        try:
            network = load_model(name)
            compiled = compile_network(network, config)
        except spec.UserError as error:  # the others are measured all the same
            refused.append(error)
            click.echo(f"gossamer: {error}", err=True)
            continue
        x = samples(name, network, count).x
        known = labels(name, network, len(x))
        with progress_bar(network.name, len(x)) as update:
            reports.append(codec.ratios(compiled, x, update))
        if with_budgets and len(known):
            with progress_bar(f"{network.name}, budgets", len(codec.BUDGETS)) as update:
                found += codec.budgets(compiled, x, known, update)
    if not reports:
        raise refused[0]
    with output_folder(output) as target:
        write_json(target / "codec.json", {"configuration": config.name, "networks": reports, "budgets": found})
        (target / "codec.md").write_text(codec.codec_markdown(reports, found))
        codec.codec_picture(reports, target / "codec.png")
        if found:
            codec.budget_picture(found, target / "budgets.png")
    for title, columns, cells in (
        ("compression", codec.COLUMNS, codec.rows(reports)),
        ("budgets", codec.BUDGET_COLUMNS, codec.budget_rows(found)),
    ):
        table = Table(*columns, title=title, title_justify="left")
        for row in cells:
            table.add_row(*row)
        if cells:
            stdout().print(table)


@cli.command(
    "bench boards",
    help="""Build boards with several seeds, and tell sizes, speeds and inferences per second.

    BOARD is one as of `gossamer build`; without one: all. Networks are `digits` and those in the folder of --models, with
    inputs as in `gossamer bench`; cycles are the cycle model's, on the board's own configuration. It takes minutes per board
    and seed; a board that is in the output folder already, of the same design, seeds and tools, is not built again. Exit
    status 1 if a board cannot be built.""",
)
@click.argument("boards", nargs=-1, metavar="[BOARD]...")
@click.option("--models", "folder", type=click.Path(path_type=Path), help="A folder: all its .tflite and .gsm files.")
@click.option(
    "--count", default=200, show_default=True, type=click.IntRange(1, 500), help="Inputs per network, at most; the first ones."
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 64),
    help="Place-and-route seeds per board.  [default: 8, for tang_primer_20k 1; 1<=x<=64]",
)
@jobs_option
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
def bench_boards(
    boards: tuple[str, ...], folder: Path | None, count: int, seeds: int | None, jobs: int | None, output: Path
) -> None:
    """Writes ``boards.json``, ``boards.md`` and ``boards.png``, and of each board what ``gossamer build`` writes."""
    from gossamer.boards.build import build as build_board
    from gossamer.boards.build import find_board
    from gossamer.cli import boards as benchmark
    from gossamer.cli.boards_page import boards_markdown, boards_picture

    chosen = {name: find_board(name) for name in boards or BOARDS}
    networks = {"digits": load_model("digits")}
    for name in models_in(folder) if folder else ():
        try:
            networks[name] = load_model(name)
        except spec.UserError as error:  # the others are measured all the same
            click.echo(f"gossamer: {error}", err=True)
    found: dict[spec.Config, list[Any]] = {}
    for config in dict.fromkeys(board.config for board in chosen.values()):
        reports = found[config] = []
        for name, network in networks.items():
            given = samples(name, network, count)
            with progress_bar(f"{network.name} on {config.name}", len(given.x)) as update:
                reports.append(benchmark.cycles(network, config, given, update))
    entries: list[dict[str, Any]] = []
    for name, board in chosen.items():
        try:
            report = build_board(name, output / name, seeds=seeds or board.seeds, jobs=jobs, reuse=True, progress=say)
        except spec.UserError as error:
            click.echo(f"gossamer: {name}: {error}", err=True)
            entries.append({"board": name, "refused": str(error)})
            continue
        entries.append({**report, "networks": found[board.config]})
    refused = [entry for entry in entries if "refused" in entry]
    if len(refused) == len(entries):
        raise SystemExit(1)
    measured = {"boards": entries}
    with output_folder(output) as target:
        write_json(target / "boards.json", measured)
        (target / "boards.md").write_text(boards_markdown(measured))
        boards_picture(measured, target / "boards.png")
    for name, header, rows in benchmark.tables(measured):
        table = Table(*header, title=name, title_justify="left")
        for row in rows:
            table.add_row(*row)
        stdout().print(table)
    click.echo(output)
    if refused:
        raise SystemExit(1)


def main() -> None:
    """Run the command. Errors that are the user's to mend are one sentence and exit status 2."""
    try:
        cli(standalone_mode=True)
    except (spec.UserError, OSError) as error:
        click.echo(f"gossamer: {error}", err=True)
        raise SystemExit(2) from None
