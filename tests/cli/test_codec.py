"""``gossamer bench codec``: compares codes on the maps of networks."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from gossamer.cli import codec
from gossamer.cli.main import cli
from gossamer.cli.models import labels
from gossamer.golden import digits
from gossamer.golden.codec import bound, encode
from gossamer.golden.compiler import compile_network
from gossamer.golden.spec import CONFIGS


@pytest.fixture(scope="module")
def compiled():
    return compile_network(digits.load(), CONFIGS["up5k"])


def test_writes_tables_and_charts(tmp_path):
    result = CliRunner().invoke(cli, ["bench", "codec", "digits", "--count", "6", "--budgets", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"codec.json", "codec.md", "codec.png", "budgets.png"}
    report = json.loads((tmp_path / "out" / "codec.json").read_text())
    assert [one["network"] for one in report["networks"]] == ["digits"]
    assert [one["budget"] for one in report["budgets"]] == list(codec.BUDGETS)
    text = (tmp_path / "out" / "codec.md").read_text()
    assert all(name in text for name in ("zero bitmask", "EBPC", "Gossamer", "entropy", "agreement"))
    assert "digits" in result.output


def test_bench_without_codec_is_still_the_other_command():
    assert "Measure networks on RTL" in CliRunner().invoke(cli, ["bench", "--help"]).output
    assert "Measure the compression" in CliRunner().invoke(cli, ["bench", "codec", "--help"]).output


def test_bytes_are_those_of_the_rows(compiled):
    x = digits.test_set()[0][:2]
    report = codec.ratios(compiled, x)
    name = report["maps"][0]["map"]
    values = codec.as_map(compiled.network.run(x)[name])
    assert values.shape[3] <= 16
    expected = sum(len(encode(row.reshape(-1), bounded=False)) for image in values.astype(int) + 128 for row in image)
    assert report["maps"][0]["gossamer"] == expected
    assert report["maps"][0]["rows"] == 2 * values.shape[1]
    assert report["ratios"]["gossamer"] == report["bytes"] / report["gossamer"] > report["ratio_with_pointers"] > 1


@pytest.mark.parametrize("shape", [(3, 5, 7, 20), (2, 10)])
@pytest.mark.parametrize("zero_point", [-128, 3])
def test_with_room_for_all_maps_come_back_as_they_were(rng, shape, zero_point):
    values = rng.integers(-128, 128, shape).astype(np.int8)
    back, taken = codec.through(values, zero_point, 5, 16)
    assert (back == values).all()
    assert taken <= sum(bound(n) for n in [80, 80, 80] * 15) if len(shape) == 4 else 2 * bound(16)
    back, taken = codec.through(values, zero_point, 0.6, 16)
    assert (back != values).any()
    assert back.shape == shape


def test_a_large_budget_changes_no_class(compiled):
    x, known = digits.test_set()
    found = codec.budgets(compiled, x[:20], np.asarray(known[:20]))
    assert found[-1]["agreement"] == 1
    assert found[-1]["accuracy"] == found[-1]["accuracy_lossless"]
    assert all(one["bytes_per_value"] < one["budget"] for one in found if one["budget"] > 0.7)


def test_classes_are_those_beside_the_model(tmp_path):
    network = digits.load()
    np.savez(tmp_path / "some_samples.npz", x=np.zeros(3), y=np.array([2, -1, 5]))
    assert labels(str(tmp_path / "some_int8.tflite"), network, 2).tolist() == [2, -1]
    assert labels(str(tmp_path / "other.tflite"), network, 2).tolist() == [-1, -1]
    assert labels("digits", network, 3).tolist() == digits.test_set()[1][:3].tolist()


def test_a_network_that_does_not_fit_is_a_sentence(tmp_path):
    result = CliRunner().invoke(cli, ["bench", "codec", str(tmp_path / "none.tflite"), "-o", str(tmp_path / "out")])
    assert result.exit_code != 0
    assert "none.tflite" in str(result.exception)
