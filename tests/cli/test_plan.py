"""``gossamer plan`` and ``--memory``: files, tables, sentences, and the same outputs whatever the memory."""

import json

import numpy as np
import pytest

from gossamer.cli.plan import described
from gossamer.golden import digits
from gossamer.golden.compiler import Frontend, Strategy
from gossamer.golden.network import Network
from gossamer.golden.planner import Point
from gossamer.golden.rolling import Group
from gossamer.golden.spec import CONFIGS
from tests.networks import Builder


@pytest.fixture
def wide_file(tmp_path, rng):
    """A network whose maps do not fit a store."""
    b = Builder(rng, (20, 600, 3), zero_point=-128)
    b.conv(b.conv(b.input, 16), 3, relu=False)
    b.network("wide").save(tmp_path / "wide.gsm")
    return tmp_path / "wide.gsm"


def test_plan_writes_what_it_found(gossamer, tmp_path, digits_file):
    folder = tmp_path / "plan"
    status, output, _ = gossamer("plan", "digits", "--input", digits_file, "-o", folder)
    assert status == 0
    assert {path.name for path in folder.iterdir()} == {"plan.json", "curve.png", "memory.png"}
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("curve.png", "memory.png"))
    found = json.loads((folder / "plan.json").read_text())
    assert (found["network"], found["configuration"], found["inputs"]) == ("digits", "up5k", "x.npy")
    peaks, cycles = ([plan[key] for plan in found["plans"]] for key in ("peak_activation_bytes", "cycles"))
    assert peaks == sorted(peaks)
    assert cycles == sorted(cycles, reverse=True)
    assert found["chosen"] == 0
    assert peaks[-1] == 3072  # layer by layer
    for plan in found["plans"]:
        assert plan["fits"]
        assert f"{plan['peak_activation_bytes']:,}" in output


def test_plan_for_a_number_of_bytes_chooses_the_fastest_that_fits(gossamer, tmp_path, digits_file):
    status, _, _ = gossamer("plan", "digits", "--input", digits_file, "--memory", 1600, "-o", tmp_path / "plan")
    assert status == 0
    found = json.loads((tmp_path / "plan" / "plan.json").read_text())
    peaks = [plan["peak_activation_bytes"] for plan in found["plans"]]
    assert peaks[found["chosen"]] <= 1600 < peaks[found["chosen"] + 1]


@pytest.mark.parametrize("memory", [1100, 2100])
def test_run_in_little_memory_gives_the_same(gossamer, tmp_path, digits_file, memory):
    for name, options in (("a", []), ("b", ["--memory", memory])):
        status, _, _ = gossamer("run", "digits", "--input", digits_file, *options, "-o", tmp_path / f"{name}.npy")
        assert status == 0
    assert (np.load(tmp_path / "a.npy") == np.load(tmp_path / "b.npy")).all()


def test_compile_in_little_memory_reports_it(gossamer, tmp_path, digits_file):
    status, output, _ = gossamer("compile", "digits", "--input", digits_file, "--memory", 1100, "-o", tmp_path / "out")
    assert status == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["peak_activation_bytes"] <= 1100
    assert f"{report['peak_activation_bytes']:,} of activations" in output
    assert "wrap_rows" in (tmp_path / "out" / "program.txt").read_text()


def test_maps_that_do_not_fit_are_planned_in_strips(gossamer, tmp_path, wide_file, rng):
    x = rng.integers(-128, 128, (1, 20, 600, 3)).astype(np.int8)
    np.save(tmp_path / "x.npy", x)
    arguments = ("run", wide_file, "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    status, _, messages = gossamer(*arguments)
    assert status == 2
    assert "are missing" in messages
    status, _, _ = gossamer(*arguments, "--memory", 40_000)
    assert status == 0
    network = Network.load(wide_file)
    assert (np.load(tmp_path / "y.npy") == network.run(x)[network.output]).all()


def test_too_little_memory(refused, digits_file, tmp_path):
    for arguments in (("plan", "digits"), ("compile", "digits"), ("run", "digits", "--input", digits_file)):
        sentence = refused(*arguments, "--memory", 700, "-o", tmp_path / "out")
        (tmp_path / "here").rmdir()
        assert sentence.startswith("the activations of network 'digits' on configuration 'up5k' need at least ")
        assert sentence.endswith(" bytes, not 700")


def test_a_plan_in_words():
    frontend = Frontend(digits.load(), CONFIGS["up5k"])
    count = len(frontend.layers)
    strategy = Strategy((Group(1, 0), Group(2, 0), Group(5, 1), Group(count, 4)), True)
    assert described(frontend, Point(1, 1, strategy)) == [
        "conv1 to conv2: layer by layer",
        "conv3 to maxpool: 1 rows at a time",
        "conv4 to dense: 4 rows at a time",
        "the host writes the input row by row",
    ]
