"""``gossamer bench``: measures on RTL, reports, and finds growth."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gossamer.cli.bench import bench_markdown, faults, growths, load_baseline, measure, refusal, rows, where_cycles_go
from gossamer.cli.files import InputError
from gossamer.cli.main import cli
from gossamer.cli.models import Samples
from gossamer.golden import digits
from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.inference import infer
from gossamer.golden.network import Network
from gossamer.golden.spec import CONFIGS, Config
from gossamer.sim.rtl import RtlResult
from tests.networks import Builder


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, arguments)])


def report(cycles: list[int], **changes: object) -> dict:
    """A report of ``net`` on ``small`` with made-up numbers."""
    parts = {"compute_cycles": 600.0, "requantize_cycles": 300.0, "load_cycles": 90.0, "weights_cycles": 10.0}
    return {
        "network": "net", "configuration": "small", "lanes": 16, "inferences": len(cycles), "cycles": cycles,
        "cycles_mean": float(np.mean(cycles)), "cycles_cold": 1500, "warm_start": True, "outputs_equal": len(cycles),
        "cycles_equal": len(cycles), "cold_equal": True, "dense_roofline": 1234.5, "macs_skipped": 0.25,
        "streamed_bytes": 2000, "peak_activation_bytes": 3000, "image_bytes": 4000, "simulated_cycles_per_second": 1_000_000,
        "layers": [parts, {**parts, "load_cycles": 0.0}], **changes,
    }  # fmt: skip


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With ``small.gsm``, a convolution of 4*4*8 outputs, each of 3*3*2 products, and ``large.gsm``, which fits nowhere."""
    folder = tmp_path_factory.mktemp("bench")
    b = Builder(np.random.default_rng(0), (4, 4, 2))
    b.conv(b.input, 8, (3, 3))
    b.network("small").save(folder / "small.gsm")
    b = Builder(np.random.default_rng(0), (1, 9000, 1))
    b.max_pool(b.input, (1, 9000))
    b.network("large").save(folder / "large.gsm")
    return folder


@pytest.fixture(scope="module")
def measured(folder) -> tuple[Result, Path]:
    """Three inputs on up5k."""
    models = ("digits", folder / "small.gsm", folder / "large.gsm")
    return bench(*models, "--config", "up5k", "--count", 3, "-o", folder / "out"), folder / "out"


def runs_in(folder: Path) -> list[dict]:
    return json.loads((folder / "bench.json").read_text())["runs"]


def test_rtl_is_as_golden_says(measured) -> None:
    result, folder = measured
    assert result.exit_code == 0, result.output
    runs = runs_in(folder)
    assert [run["network"] for run in runs] == ["digits", "small", "large"]
    for run in runs[:2]:
        assert run["outputs_equal"] == run["cycles_equal"] == run["inferences"] == 3
        assert run["cycles"] == run["cycles_predicted"]
    assert runs[2]["refused"].startswith("layer 'l0_maxpool' needs 27000 weight vectors per 16 output channels")


def test_report_adds_up(measured) -> None:
    digits, small, _ = runs_in(measured[1])
    assert small["macs"] == 4 * 4 * 8 * 3 * 3 * 2
    assert small["dense_roofline"] == 144
    assert (digits["inputs"], small["inputs"]) == ("held-out samples", "random inputs")
    for run in (digits, small):
        assert run["macs"] == sum(layer["macs"] for layer in run["layers"]) == run["dense_roofline"] * 16
        assert run["cycles_mean"] == pytest.approx(sum(layer["cycles"] for layer in run["layers"]), abs=1)
        for layer in run["layers"]:
            parts = sum(layer[f"{category}_cycles"] for category in ("compute", "requantize", "load", "weights"))
            assert parts == pytest.approx(layer["cycles"], abs=0.3)


def test_tables_and_picture_are_written(measured) -> None:
    result, folder = measured
    text = (folder / "bench.md").read_text()
    run = runs_in(folder)[1]
    assert run["cycles_cold"] > run["cycles"][0]
    cells = f"{run['cycles_mean']:,.1f} | {run['cycles_cold']:,} | 144 | {run['cycles_mean'] / 144:.2f} | "
    assert f"| small | up5k | 16 | 3 | {cells}" in text
    assert "| large | up5k |  |  | does not fit |" in text
    assert "- large on up5k: layer 'l0_maxpool' needs 27000 weight vectors" in text
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.iterdir()} == {"bench.json", "bench.md", "bench.png"}
    assert f"{run['cycles_mean']:,.1f}" in result.stdout


@pytest.fixture
def models(folder, tmp_path) -> Path:
    """A folder with ``small_int8.gsm``, five samples for it, a damaged model, and another file."""
    models = tmp_path / "models"
    models.mkdir()
    (models / "small_int8.gsm").write_bytes((folder / "small.gsm").read_bytes())
    (models / "broken.tflite").write_bytes(b"nonsense")
    (models / "notes.txt").write_text("not a model")
    network = Network.load(models / "small_int8.gsm")
    x = np.random.default_rng(1).integers(-128, 128, (5, 4, 4, 2), np.int8)
    np.savez(models / "small_samples.npz", x=x, output=network.run(x)[network.output], y=np.arange(5))
    return models


def test_folder_of_models_is_measured_with_the_samples_in_it(models, tmp_path) -> None:
    result = bench("--models", models, "--config", "up5k", "--count", 9, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    broken, small = runs_in(tmp_path / "out")
    assert (small["inputs"], small["inferences"], small["reference_equal"]) == ("samples of small_samples.npz", 5, 5)
    assert broken["network"] == "broken"
    text = (tmp_path / "out" / "bench.md").read_text()
    assert "| broken |" not in text
    assert f"\n- broken: {models / 'broken.tflite'}: a TFLite model must have the identifier TFL3" in text


def test_output_that_differs_from_the_samples_fails(models, tmp_path) -> None:
    with np.load(models / "small_samples.npz") as file:
        x, output = file["x"], file["output"].copy()
    output[1, 0, 0, 0] ^= 1
    np.savez(models / "small_samples.npz", x=x, output=output)
    result = bench(models / "small_int8.gsm", "--config", "up5k", "--count", 2, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "small on up5k: all 2 outputs must be those beside the model, and 1 are not\n" in result.stderr


def test_folder_must_have_models(tmp_path) -> None:
    for folder, message in (
        (tmp_path / "none", f"the models must be in a folder that exists, not '{tmp_path / 'none'}'"),
        (tmp_path, f"the folder {tmp_path} must have .tflite or .gsm files, and it has none"),
    ):
        result = bench("--models", folder, "-o", tmp_path / "out")
        assert isinstance(result.exception, InputError)
        assert str(result.exception) == message
    assert not (tmp_path / "out").exists()


def test_growth_since_the_baseline_fails(measured, folder, tmp_path) -> None:
    baseline = tmp_path / "before.json"
    runs = runs_in(measured[1])
    baseline.write_text(json.dumps({"runs": runs}))
    arguments = ("--config", "up5k", "--count", 3, "-o", tmp_path / "out", "--baseline", baseline)
    small = folder / "small.gsm"
    assert bench(small, *arguments).exit_code == 0
    runs[1]["cycles"][1] -= 3
    baseline.write_text(json.dumps({"runs": runs}))
    result = bench(small, *arguments)
    assert result.exit_code == 1
    then, now = (sum(runs[1]["cycles"]) + more for more in (0, 3))
    sentence = f"must take at most the baseline's {then / 3:,.1f} cycles per inference, not {now / 3:,.1f} ("
    assert f"small on up5k: {sentence}" in result.stderr
    assert (tmp_path / "out" / "bench.json").exists()


def test_nothing_that_fits_is_an_error(folder, tmp_path) -> None:
    result = bench(folder / "large.gsm", "-o", tmp_path / "out")
    assert isinstance(result.exception, CompileError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": [{}]}', '{"runs": [1]}', '{"runs": {"a": 1}}'])
def test_other_files_are_no_baseline(tmp_path, text: str) -> None:
    path = tmp_path / "before.json"
    path.write_text(text)
    result = bench("--baseline", path, "-o", tmp_path / "out")
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == f"the baseline {path} must be a bench.json that `gossamer bench` wrote"
    assert not (tmp_path / "out").exists()


def test_baseline_must_exist(tmp_path) -> None:
    with pytest.raises(InputError, match=r"^the baseline .*/none.json must exist$"):
        load_baseline(tmp_path / "none.json")


# What is found


class Liar:
    """A simulator whose second output, or cycle count, or cold start is wrong."""

    def __init__(self, outputs: int, cycles: int, cold: int):
        self.outputs, self.cycles, self.cold = outputs, cycles, cold

    def run(self, compiled, x, *, progress):
        place = compiled.program.output
        values = compiled.network.run(x)[compiled.device_output]
        shape = (place.rows, place.columns, place.channels)
        data = np.stack([place.to_store(value.reshape(shape), 0, compiled.program.config) for value in values])
        cycles = [infer(compiled, one).cycles for one in x]
        data[1, 0] ^= self.outputs
        cycles[1] += self.cycles
        return RtlResult(data, cycles, infer(compiled, x[0], warm=False).cycles + self.cold, 1000)


GOLDEN = "all 2 outputs must be golden's, and 1 are not"
BESIDE = "all 2 outputs must be those beside the model, and 1 are not"


@pytest.mark.parametrize(
    ("lies", "reference", "sentences"),
    [
        ((0, 0, 0), 0, []),
        ((1, 0, 0), 0, [GOLDEN, BESIDE]),
        ((0, 0, 0), 1, [BESIDE]),
        ((0, -1, 0), 0, ["all 2 cycle counts must be as predicted, and 1 are not"]),
        ((0, 0, 1), 0, ["the cycles of a cold start must be as predicted, and are not"]),
    ],
)
def test_differences_from_golden_are_told(lies: tuple[int, int, int], reference: int, sentences: list[str]) -> None:
    b = Builder(np.random.default_rng(0), (2, 2, 3))
    b.conv(b.input, 8, (1, 1))
    network = b.network("net")
    compiled = compile_network(network, CONFIGS["gw1n9"])
    x = np.random.default_rng(0).integers(-128, 128, (2, 2, 2, 3), np.int8)
    output = network.run(x)[network.output].copy()
    output[0, 0, 0, 0] ^= reference
    inferences, cold = [infer(compiled, one) for one in x], infer(compiled, x[0], warm=False)
    found = measure(compiled, Samples(x, "two", output), inferences, cold, Liar(*lies))
    assert faults([found, refusal("net", "gw2a18", CompileError("too large"))]) == [
        f"net on gw1n9: {sentence}" for sentence in sentences
    ]


def test_interpreter_and_network_must_agree_with_rtl() -> None:
    b = Builder(np.random.default_rng(0), (2, 2, 3))
    b.conv(b.input, 8, (1, 1))
    compiled = compile_network(b.network("net"), CONFIGS["gw1n9"])
    x = np.random.default_rng(0).integers(-128, 128, (2, 2, 2, 3), np.int8)
    inferences, cold = [infer(compiled, one) for one in x], infer(compiled, x[0], warm=False)
    wrong = [inferences[0], dataclasses.replace(inferences[1], output=inferences[1].output ^ 1)]
    honest = Liar(0, 0, 0)
    assert measure(compiled, Samples(x, "two"), inferences, cold, honest)["outputs_equal"] == 2
    assert measure(compiled, Samples(x, "two"), wrong, cold, honest)["outputs_equal"] == 1
    other = Builder(np.random.default_rng(1), (2, 2, 3))
    other.conv(other.input, 8, (1, 1))
    compiled = dataclasses.replace(compiled, source=other.network("net"))
    assert measure(compiled, Samples(x, "two"), inferences, cold, honest)["outputs_equal"] == 0


def test_missing_bytes_are_those_of_the_sentence() -> None:
    with pytest.raises(CompileError) as error:
        compile_network(digits.load(), Config("tiny", store_words=256))
    found = refusal("digits", "tiny", error.value)
    assert found["missing_bytes"] > 0
    assert found["refused"].endswith(f"has 2048: {found['missing_bytes']} are missing")


SMALLER = refusal("net", "small", CompileError("too large", 1234))
UNREAD = refusal("net", "", InputError("damaged"))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([report([100, 100])], report([100, 100])),
        ([report([100, 100])], report([90, 109])),
        ([report([100, 100], configuration="other")], report([200, 200])),
        ([report([100, 100], network="other")], report([200, 200])),
        ([report([100, 100])], report([100, 100, 999])),
        ([report([100, 100, 0])], report([100, 100])),
        ([SMALLER], report([100])),
        ([SMALLER], SMALLER),
        ([SMALLER], UNREAD),
        ([UNREAD], report([100])),
        ([report([100], cycles_cold=90)], report([99], cycles_cold=90)),
        ([], report([100])),
    ],
)
def test_no_growth(before, now) -> None:
    assert growths([now], before) == []


def test_growth_is_a_sentence_with_both_numbers() -> None:
    assert growths([report([100, 103])], [report([101, 101, 1])]) == [
        "net on small: must take at most the baseline's 101.0 cycles per inference, not 101.5 (+0.50%, 2 inputs)"
    ]


def test_growth_of_a_cold_start_is_growth() -> None:
    assert growths([report([100], cycles_cold=2001)], [report([100], cycles_cold=2000)]) == [
        "net on small: must take at most the baseline's 2,000 cycles from a cold start, not 2,001"
    ]


def test_no_longer_fitting_is_growth() -> None:
    before = [report([100])]
    assert growths([SMALLER], before) == ["net on small: fitted in the baseline, and now too large"]
    assert growths([UNREAD], before) == ["net: fitted in the baseline, and now damaged"]


def test_table_has_every_run() -> None:
    refused = refusal("net", "tiny", CompileError("layer 'a' is too large"))
    reports = [report([1000, 1003]), report([9], warm_start=False), refused, SMALLER, UNREAD]
    rest = ("1,234.5", "0.81", "25.0%", "2,000", "3,000", "4,000", "1,000,000")
    assert rows(reports) == [
        ("net", "small", "16", "2", "1,001.5", "1,500", *rest),
        ("net", "small", "16", "1", "9.0", "", "1,234.5", "0.01", *rest[2:]),
        ("net", "tiny", "", "", "does not fit", *[""] * 8),
        ("net", "small", "", "", "does not fit: 1,234 bytes are missing", *[""] * 8),
    ]
    text = bench_markdown(reports)
    assert "| net | small | 16 | 2 | 1,001.5 | 1,500 | 1,234.5 | 0.81 | 25.0% | 2,000 | 3,000 | 4,000 | 1,000,000 |\n" in text
    assert "\n- net on tiny: layer 'a' is too large.\n- net on small: too large.\n- net: damaged.\n" in text


def test_where_the_cycles_go_is_a_sum_over_layers() -> None:
    lines = where_cycles_go([report([2000]), SMALLER]).splitlines()
    assert lines[2:] == ["| net | small | 2,000.0 | 1,200 (60.0%) | 600 (30.0%) | 90 (4.5%) | 20 (1.0%) |"]
