"""``gossamer bench``: measures on RTL, reports, and finds growth."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gossamer.cli.bench import bench_markdown, faults, growths, load_baseline, measure, refusal, rows
from gossamer.cli.files import InputError
from gossamer.cli.main import cli
from gossamer.golden import digits
from gossamer.golden.compiler import CompileError, compile_network
from gossamer.golden.inference import infer
from gossamer.golden.spec import CONFIGS
from gossamer.sim.rtl import RtlResult
from tests.networks import Builder


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *map(str, arguments)])


def report(cycles: list[int], **changes: object) -> dict:
    """A report of ``net`` on ``small`` with made-up numbers."""
    return {
        "network": "net", "configuration": "small", "lanes": 16, "inferences": len(cycles), "cycles": cycles,
        "cycles_mean": float(np.mean(cycles)), "outputs_equal": len(cycles), "cycles_equal": len(cycles),
        "dense_roofline": 1234.5, "macs_skipped": 0.25, "simulated_cycles_per_second": 1_000_000, **changes,
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
    for run in (digits, small):
        assert run["macs"] == sum(layer["macs"] for layer in run["layers"]) == run["dense_roofline"] * 16
        cycles = sum(layer["cycles"] for layer in run["layers"]) + run["other_cycles"]
        assert cycles == pytest.approx(run["cycles_mean"], abs=0.1)
        assert run["other_cycles"] > 0
        for layer in run["layers"]:
            assert layer["issue_cycles"] + layer["stall_cycles"] <= layer["cycles"]


def test_tables_and_picture_are_written(measured) -> None:
    result, folder = measured
    text = (folder / "bench.md").read_text()
    assert f"| small | up5k | 16 | {runs_in(folder)[1]['cycles_mean']:,.1f} | 144.0 | " in text
    assert "- large on up5k: layer 'l0_maxpool' needs 27000 weight vectors" in text
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.iterdir()} == {"bench.json", "bench.md", "bench.png"}
    assert "144.0" in result.stdout


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
    """A simulator whose second output, or cycle count, is wrong."""

    def __init__(self, outputs: int, cycles: int):
        self.outputs, self.cycles = outputs, cycles

    def run(self, compiled, x, *, progress):
        place = compiled.program.output
        values = compiled.network.run(x)[compiled.device_output]
        shape = (place.rows, place.columns, place.channels)
        data = np.stack([place.to_store(value.reshape(shape), 0, compiled.program.config) for value in values])
        cycles = [infer(compiled, one).cycles for one in x]
        data[1, 0] ^= self.outputs
        cycles[1] += self.cycles
        return RtlResult(data, cycles, cycles[0], 1000)


@pytest.mark.parametrize(
    ("outputs", "cycles", "sentences"),
    [
        (0, 0, []),
        (1, 0, ["digits on gw1n9: all 2 outputs must be as predicted, and 1 are not"]),
        (0, -1, ["digits on gw1n9: all 2 cycle counts must be as predicted, and 1 are not"]),
    ],
)
def test_differences_from_golden_are_told(outputs: int, cycles: int, sentences: list[str]) -> None:
    compiled = compile_network(digits.load(), CONFIGS["gw1n9"])
    x = digits.test_set()[0][:2]
    found = measure(compiled, x, [infer(compiled, one) for one in x], Liar(outputs, cycles))
    assert faults([found, refusal("digits", "gw2a18", "too large")]) == sentences


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([report([100, 100])], report([100, 100])),
        ([report([100, 100])], report([90, 109])),
        ([report([100, 100], configuration="other")], report([200, 200])),
        ([report([100, 100], network="other")], report([200, 200])),
        ([report([100, 100])], report([100, 100, 999])),
        ([report([100, 100, 0])], report([100, 100])),
        ([refusal("net", "small", "too large")], report([100])),
        ([refusal("net", "small", "too large")], refusal("net", "small", "too large")),
        ([], report([100])),
    ],
)
def test_no_growth(before, now) -> None:
    assert growths([now], before) == []


def test_growth_is_a_sentence_with_both_numbers() -> None:
    assert growths([report([100, 103])], [report([101, 101, 1])]) == [
        "net on small: must take at most the baseline's 101.0 cycles per inference, not 101.5 (+0.50%, 2 inputs)"
    ]


def test_no_longer_fitting_is_growth() -> None:
    assert growths([refusal("net", "small", "layer 'a' is too large")], [report([100])]) == [
        "net on small: fitted in the baseline, and now layer 'a' is too large"
    ]


def test_table_has_every_run() -> None:
    reports = [report([1000, 1003]), refusal("net", "tiny", "layer 'a' is too large")]
    assert rows(reports) == [
        ("net", "small", "16", "1,001.5", "1,234.5", "25.0%", "1,000,000"),
        ("net", "tiny", "", "does not fit", "", "", ""),
    ]
    text = bench_markdown(reports)
    assert "| net | small | 16 | 1,001.5 | 1,234.5 | 25.0% | 1,000,000 |\n" in text
    assert "\n- net on tiny: layer 'a' is too large.\n" in text
