"""The published figures: what they come to, and that each has a source."""

import re

import pytest

from gossamer.cli.published import PUBLISHED, Figure


def figure(name: str, device: str, network: str) -> Figure:
    (design,) = (one for one in PUBLISHED if (one.name, device in one.device) == (name, True))
    return design.figures[network]


@pytest.mark.parametrize(
    "name, device, network, cycles",
    [
        ("CFU-Playground", "iCE40UP5K", "KWS", 25_191_424),  # 24,601 ticks of 1,024
        ("fpgaConvNet", "ZyBo", "KWS", 268_881),  # 125 MHz / 464.890
        ("fpgaConvNet", "ZyBo", "IC", 393_698),
        ("fpgaConvNet", "ZedBoard", "VWW", 1_053_011),  # 111 MHz / 105.412
        ("Syntiant NDP9120", "0.9 V", "KWS", 134_072),  # 30.7 MHz / 228.982
        ("Syntiant NDP9120", "0.9 V", "IC", 490_431),
        ("Syntiant NDP9120", "0.9 V", "VWW", 390_585),
        ("GAP9", "NE16", "KWS", 175_922),  # 370 MHz / 2,103.206
        ("GAP9", "NE16", "IC", 228_001),
        ("GAP9", "NE16", "VWW", 416_176),
    ],
)
def test_cycles_are_the_clock_over_the_throughput(name, device, network, cycles):
    assert figure(name, device, network).cycles == cycles


def test_marlann_has_no_figures_for_these_networks():
    (marlann,) = (design for design in PUBLISHED if design.name == "MARLANN")
    assert not marlann.figures
    assert marlann.multipliers == 16


@pytest.mark.parametrize("design", PUBLISHED, ids=lambda design: f"{design.name}, {design.device}")
def test_each_design_names_a_source_with_its_year(design):
    assert re.fullmatch(r"https://github\.com/\S+", design.source.url)
    assert re.search(r"\(20[12]\d\)$", design.source.title)
    assert {*design.figures} <= {"KWS", "IC", "VWW", "AD"}
    assert all(figure.counted or (figure.clock_mhz and figure.per_second) for figure in design.figures.values())
