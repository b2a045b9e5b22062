"""The PLLs: their parameters make the clock, in the ranges of the data sheets."""

import pytest

from gossamer.boards.plls import ecp5_pll_settings, gowin_pll_settings
from gossamer.golden.spec import UserError


def attempted(settings, oscillator, mhz):
    try:
        return settings(oscillator, mhz)
    except UserError:
        return None


@pytest.mark.parametrize("oscillator", [12, 25, 27, 48, 100])
def test_pll_settings_make_every_clock_that_is_not_refused(oscillator):
    """Ranges: Lattice FPGA-TN-02200; Gowin DS117 and DS226."""
    made = {"ecp5": set(), "gowin": set()}
    for mhz in range(700):
        if ecp5 := attempted(ecp5_pll_settings, oscillator, mhz):
            made["ecp5"].add(mhz)
            vco = oscillator * ecp5["CLKOP_DIV"]
            assert vco == mhz * ecp5["CLKOS_DIV"]
            assert 400 <= vco <= 800
            assert {ecp5["CLKI_DIV"], ecp5["CLKFB_DIV"]} == {1}
            assert 1 <= ecp5["CLKOS_DIV"] <= 128
        if gowin := attempted(gowin_pll_settings, oscillator, mhz):
            made["gowin"].add(mhz)
            assert mhz * (gowin["IDIV_SEL"] + 1) == oscillator * (gowin["FBDIV_SEL"] + 1)
            assert 500 <= mhz * gowin["ODIV_SEL"] <= 1200
            assert 0 <= gowin["IDIV_SEL"] < 64
            assert 0 <= gowin["FBDIV_SEL"] < 64
            assert oscillator / (gowin["IDIV_SEL"] + 1) >= 3
    assert {oscillator, 2 * oscillator} <= made["ecp5"] & made["gowin"]
    assert 0 not in made["ecp5"] | made["gowin"]


@pytest.mark.parametrize("settings", [ecp5_pll_settings, gowin_pll_settings])
@pytest.mark.parametrize("mhz", [0, 37, 699])
def test_pll_refuses_other_clocks(settings, mhz):
    with pytest.raises(UserError, match=rf"^the clock must be one that the PLL can make from 25 MHz, not {mhz} MHz$"):
        settings(25, mhz)
