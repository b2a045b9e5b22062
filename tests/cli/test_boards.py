"""``gossamer bench boards``: cycles on a board's configuration, the cells of the tables, and the command."""

import dataclasses
import json

import numpy as np
import pytest

from gossamer.boards import BOARDS
from gossamer.boards import build as board_build
from gossamer.boards.build import ToolError
from gossamer.cli import boards
from gossamer.cli.boards import SIZE_COLUMNS, cycles, path_rows, per_second, rate_rows, readme_rows, size_rows, title, work_rows
from gossamer.cli.models import Samples
from gossamer.golden import digits
from gossamer.golden.compiler import compile_network
from gossamer.golden.inference import infer
from gossamer.golden.spec import CONFIGS
from tests.measured import MEASURED
from tests.networks import Builder

ICEBREAKER, TANG_NANO, _ = MEASURED["boards"]

# Cycles


def store(words: int):
    return dataclasses.replace(CONFIGS["ecp5_25"], name="small", store_words=words, fetch_latency=0, fetch_interval=0)


@pytest.fixture(scope="module")
def two() -> Samples:
    return Samples(digits.test_set()[0][:2], "held-out samples")


@pytest.mark.parametrize(
    "network, name",
    [
        ("kws_dscnn_int8", "KWS"), ("ic_resnet8_int8", "IC"), ("vww_96_int8", "VWW"), ("ad01_int8", "AD"), ("digits", "digits"),
        ("adder", "adder"), ("ic", "IC"), ("1", "1"),
    ],
)  # fmt: skip
def test_titles_are_those_of_mlperf_tiny(network, name):
    assert title(network) == name


def test_cycles_are_a_mean_layer_by_layer_if_that_fits(two):
    compiled = compile_network(digits.load(), CONFIGS["up5k"])
    counts = [infer(compiled, one).cycles for one in two.x]
    assert counts[0] != counts[1]
    seen: list[int] = []
    report = cycles(digits.load(), CONFIGS["up5k"], two, seen.append)
    assert seen == [1, 2]
    assert report == {
        "network": "digits", "title": "digits", "inputs": "held-out samples", "count": 2, "plan": "layer by layer",
        "streamed_input": False, "external_bytes": 0, "cycles": sum(counts) / 2,
    }  # fmt: skip


@pytest.mark.parametrize("words, plan", [(1200, "layer by layer"), (1120, "row by row")])
def test_a_network_that_does_not_fit_layer_by_layer_is_computed_row_by_row(two, words, plan):
    report = cycles(digits.load(), store(words), two)
    assert (report["plan"], report["streamed_input"]) == (plan, False)


def test_a_network_that_does_not_fit_at_all_is_refused(two):
    report = cycles(digits.load(), store(1000), two)
    assert {*report} == {"network", "title", "refused"}
    assert report["refused"].startswith("network 'digits' needs 18880 bytes of store ")


def test_the_host_helps_only_if_nothing_else_fits():
    b = Builder(np.random.default_rng(0), (32, 32, 3), zero_point=-128)
    b.conv(b.conv(b.input, 16), 3)
    network = b.network("wide")
    x = np.zeros((1, 32, 32, 3), np.int8)
    found = {words: cycles(network, store(words), Samples(x, "zeros")) for words in (4096, 1024, 512)}
    assert [(one["plan"], one["streamed_input"]) for one in found.values()] == [
        ("layer by layer", False), ("row by row", False), ("row by row", True),
    ]  # fmt: skip


def test_inferences_per_second_are_at_the_least_fmax():
    assert per_second(ICEBREAKER, {"cycles": 117_500.0}) == pytest.approx(200)


# Tables


def test_sizes():
    icebreaker, tang_nano = (dict(zip(SIZE_COLUMNS, row, strict=True)) for row in size_rows(MEASURED))
    assert icebreaker == {
        "board": "`icebreaker`", "part": "iCE40UP5K-SG48", "configuration": "`up5k`", "lanes": "16", "clock": "24 MHz",
        "LUT": "3,721 (4,367 of 5,280 LC)", "FF": "2,330", "RAM": "30 of 30, SPRAM 4 of 4", "DSP": "8 of 8",
        "Fmax, minimum": "23.5 MHz", "median": "29.8 MHz", "seeds at the clock": "3 of 4",
    }  # fmt: skip
    assert (tang_nano["LUT"], tang_nano["FF"], tang_nano["RAM"]) == ("5,255 of 8,640", "2,857 of 6,480", "23 of 26")
    assert (tang_nano["Fmax, minimum"], tang_nano["median"]) == ("≤ 40.0 MHz", "≤ 44.0 MHz")
    assert tang_nano["seeds at the clock"] == "3 of 4, 2 failed"


def test_paths_are_told_by_block():
    icebreaker, _ = path_rows(MEASURED)
    assert icebreaker == ["`icebreaker`", "4", "27.8", "9", "12.5", "15.3", "board 1.2, core.skipper 20.0, core.fetch 6.5"]


def test_rates_stand_beside_published_ones():
    rows = {(row[0].strip("`[").partition("]")[0], row[1]): row[2:] for row in rate_rows(MEASURED)}
    # Columns: multipliers, MHz, KWS, VWW, digits. 23.5 MHz over 117,500, 235,000 and 9,400 cycles; 40 MHz over 10,000.
    assert rows["icebreaker", "iCE40UP5K-SG48"] == ["16", "23.5", "200", "100²", "2,500"]
    assert rows["tang_nano_9k", "GW1NR-LV9QN88PC6/I5"] == ["16", "≤ 40.0", "–", "–", "≤ 4,000¹"]
    assert rows["CFU-Playground", "iCE40UP5K (Fomu)"] == ["8", "?", "25.2 M cycles", "–", "–"]
    assert rows["MARLANN", "iCE40UP5K"] == ["16", "26.1", "–", "–", "–"]
    assert rows["fpgaConvNet", "XC7Z020 (ZedBoard)"] == ["188–211", "111–143", "3,088", "105", "–"]
    assert rows["GAP9", "chip, NE16"] == ["?", "370", "2,103", "889", "–"]


def test_cycles_stand_beside_published_ones():
    icebreaker, _, cfu, *_ = boards.cycle_rows(MEASURED)
    assert icebreaker[4:] == ["117,500", "235,000²", "9,400"]
    assert cfu[4:] == ["25,191,424", "–", "–"]


def test_work_is_multipliers_times_cycles():
    icebreaker, _, cfu, _, zybo, *_, gap9 = work_rows(MEASURED)
    assert icebreaker[4:] == ["1.88", "3.76²", "0.15"]  # 16 * 117,500 and so on
    assert cfu[4] == "201.5"  # 8 * 25,191,424
    assert zybo[4] == "16.1"  # 60 * 268,881
    assert gap9[4] == "?"


def test_the_readme_has_resources_too():
    icebreaker, tang_nano, cfu, *_ = readme_rows(MEASURED)
    assert icebreaker[4:8] == ["3,721 (4,367 of 5,280 LC)", "2,330", "30 of 30, SPRAM 4 of 4", "8 of 8"]
    assert tang_nano[4] == "5,255 of 8,640"
    assert cfu[4:9] == ["", "", "", "", "25.2 M cycles"]


# The command


@pytest.fixture
def builds(monkeypatch):
    """What the board build was asked for; it gives the made-up reports, and fails for other boards."""
    asked = []

    def build(name, folder, **options):
        options.pop("progress")
        asked.append((name, folder, options))
        for board in MEASURED["boards"]:
            if board["board"] == name and "refused" not in board:
                return {key: value for key, value in board.items() if key != "networks"}
        raise ToolError(f"no tool for {name}")

    monkeypatch.setattr(board_build, "build", build)
    return asked


def test_the_command_writes_tables_and_picture(gossamer, builds, tmp_path):
    folder = tmp_path / "out"
    status, output, messages = gossamer(
        "bench", "boards", "icebreaker", "tang_nano_9k", "--count", 2, "--seeds", 4, "--jobs", 1, "-o", folder
    )
    assert (status, messages) == (0, "")
    options = {"seeds": 4, "jobs": 1, "reuse": True}
    assert builds == [(name, folder / name, options) for name in ("icebreaker", "tang_nano_9k")]
    assert {path.name for path in folder.iterdir()} == {"boards.json", "boards.md", "boards.png"}
    measured = json.loads((folder / "boards.json").read_text())
    for board, reported in zip(measured["boards"], MEASURED["boards"]):
        (network,) = board.pop("networks")
        assert board == {key: value for key, value in reported.items() if key != "networks"}
        assert (network["title"], network["count"]) == ("digits", 2)
    (icebreaker, *_), rate = measured["boards"], f"{23.5e6 / network_cycles('up5k'):,.0f}"
    assert icebreaker["board"] == "icebreaker"
    assert rate in output
    assert rate in (folder / "boards.md").read_text()


def network_cycles(config: str) -> float:
    compiled = compile_network(digits.load(), CONFIGS[config])
    return float(np.mean([infer(compiled, one).cycles for one in digits.test_set()[0][:2]]))


def test_a_board_that_fails_does_not_lose_the_others(gossamer, builds, tmp_path):
    status, output, messages = gossamer("bench", "boards", "orangecrab", "icebreaker", "--count", 1, "-o", tmp_path / "out")
    assert (status, messages) == (1, "gossamer: orangecrab: no tool for orangecrab\n")
    assert "icebreaker" in output
    measured = json.loads((tmp_path / "out" / "boards.json").read_text())
    assert measured["boards"][0] == {"board": "orangecrab", "refused": "no tool for orangecrab"}
    assert "- `orangecrab`: no tool for orangecrab\n" in (tmp_path / "out" / "boards.md").read_text()


def test_if_all_boards_fail_nothing_is_written(gossamer, builds, tmp_path):
    status, _, messages = gossamer("bench", "boards", "orangecrab", "--count", 1, "-o", tmp_path / "out")
    assert (status, messages) == (1, "gossamer: orangecrab: no tool for orangecrab\n")
    assert not (tmp_path / "out").exists()


def test_all_boards_are_the_default(gossamer, builds, tmp_path):
    gossamer("bench", "boards", "--count", 1, "-o", tmp_path / "out")
    assert [name for name, *_ in builds] == [*BOARDS]
    assert {name: options["seeds"] for name, _, options in builds} == {**dict.fromkeys(BOARDS, 8), "tang_primer_20k": 1}


def test_an_unknown_board_is_refused_before_anything_is_built(refused, builds):
    assert refused("bench", "boards", "icebreaker", "icestick", "-o", "out") == (
        f"board must be one of {', '.join(BOARDS)}, not 'icestick'"
    )
    assert builds == []
