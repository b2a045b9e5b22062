"""What others have published for the networks of MLPerf Tiny: read from the sources that are named, nothing from memory."""

import dataclasses
from collections.abc import Mapping

__all__ = ["PUBLISHED", "Figure", "Published", "Source"]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where figures are from: a title with its year, an address, and what was read there."""

    title: str
    url: str
    read: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """What one network takes. Published are the inferences per second, or else the cycles. ``clock_mhz`` and ``multipliers``
    are ``None`` if the source does not say them."""

    multipliers: int | None
    clock_mhz: float | None
    per_second: float | None = None
    counted: int | None = None

    @property
    def cycles(self) -> int:
        """Per inference: as published, or the clock over the inferences per second."""
        if self.counted is not None:
            return self.counted
        assert self.clock_mhz is not None
        assert self.per_second is not None
        return round(self.clock_mhz * 1e6 / self.per_second)


@dataclasses.dataclass(frozen=True)
class Published:
    """A design, and its figures by network; ``multipliers`` and ``clock_mhz`` are for one that has none."""

    name: str
    device: str
    source: Source
    figures: Mapping[str, Figure]
    multipliers: int | None = None
    clock_mhz: float | None = None


_CFU = Source(
    "CFU-Playground, keyword spotting accelerator for Fomu (2021)",
    "https://github.com/google/CFU-Playground/blob/main/proj/kws_micro_accel/DESIGN.md",
    "24,601 ticks of 1,024 cycles, 5,241 logic cells, 14 RAM, 8 DSP. The clock is not said there. "
    "The paper about it is arXiv 2201.01863.",
)
_MARLANN = Source(
    "MARLANN (2018)",
    "https://github.com/SymbioticEDA/MARLANN",
    "16 multiply-accumulates per cycle (docs/isa.md). 50 seeds (benchmark/perf.md): 23.4 MHz at least and 25.9 in the mean, "
    "with another nextpnr 26.1 and 27.8 for the 47 that ended; the tables have the 26.1. No figures for these networks.",
)
_FPGACONVNET = Source(
    "MLPerf Tiny v1.1, closed division, fpgaConvNet (2023)",
    "https://github.com/mlcommons/tiny_results_v1.1/tree/main/closed/fpgaconvnet",
    "Median throughput (results/*/performance/results.txt); DSP and clock of each design (README.md).",
)
_SYNTIANT = Source(
    "MLPerf Tiny v1.0, closed division, Syntiant NDP9120 (2022)",
    "https://github.com/mlcommons/tiny_results_v1.0/tree/main/closed/syntiant",
    "Median throughput (results/*/performance/results.txt). The clock, 98.7 or 30.7 MHz, is that of the system of the same "
    "name in tiny_results_v0.7.",
)
_GAP9 = Source(
    "MLPerf Tiny v1.0, closed division, GreenWaves GAP9 (2022)",
    "https://github.com/mlcommons/tiny_results_v1.0/tree/main/closed/greenwaves-technologies",
    "Median throughput (results/gap9_800_370/*/performance/results.txt); clock (systems/gap9_800_370.json).",
)

PUBLISHED = (
    Published("CFU-Playground", "iCE40UP5K (Fomu)", _CFU, {"KWS": Figure(8, None, counted=24_601 * 1024)}),
    Published("MARLANN", "iCE40UP5K", _MARLANN, {}, multipliers=16, clock_mhz=26.13),
    Published(
        "fpgaConvNet",
        "XC7Z010 (ZyBo)",
        _FPGACONVNET,
        {"KWS": Figure(60, 125, 464.890), "IC": Figure(78, 125, 317.502)},
    ),
    Published(
        "fpgaConvNet",
        "XC7Z020 (ZedBoard)",
        _FPGACONVNET,
        {"KWS": Figure(188, 143, 3087.887), "IC": Figure(211, 143, 2431.435), "VWW": Figure(189, 111, 105.412)},
    ),
    Published(
        "Syntiant NDP9120",
        "chip, 0.9 V",
        _SYNTIANT,
        {"KWS": Figure(None, 30.7, 228.982), "IC": Figure(None, 30.7, 62.598), "VWW": Figure(None, 30.7, 78.600)},
    ),
    Published(
        "Syntiant NDP9120",
        "chip, 1.1 V",
        _SYNTIANT,
        {"KWS": Figure(None, 98.7, 675.024), "IC": Figure(None, 98.7, 195.238), "VWW": Figure(None, 98.7, 243.883)},
    ),
    Published(
        "GAP9",
        "chip, NE16",
        _GAP9,
        {
            "KWS": Figure(None, 370, 2103.206),
            "IC": Figure(None, 370, 1622.799),
            "VWW": Figure(None, 370, 889.048),
            "AD": Figure(None, 370, 5691.597),
        },
    ),
)
"""Those of the open division, which have other networks, are not here."""
