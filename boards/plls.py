"""The PLLs of families that several boards share, as :class:`gossamer.boards.board.CoreOnBoard` takes them."""

from collections.abc import Callable
from typing import Any

from amaranth.build import Platform
from amaranth.hdl import Instance, Module, Signal
from amaranth.lib import io

from gossamer.golden.spec import UserError

__all__ = ["ecp5_pll", "ecp5_pll_settings", "gowin_pll", "gowin_pll_settings", "unreachable"]


def unreachable(oscillator_mhz: int, mhz: int) -> UserError:
    """The error for a clock that a PLL cannot make from its oscillator."""
    return UserError(f"the clock must be one that the PLL can make from {oscillator_mhz} MHz, not {mhz} MHz")


def ecp5_pll_settings(oscillator_mhz: int, mhz: int) -> dict[str, int]:
    """Parameters with which EHXPLLL makes ``mhz`` at its output CLKOS: ``mhz = oscillator_mhz*CLKOP_DIV/CLKOS_DIV``.

    The output CLKOP, as fast as the oscillator, is fed back. Ref: Lattice FPGA-TN-02200, "ECP5 and ECP5-5G sysCLOCK PLL/DLL
    Design and Usage Guide": the VCO, which is ``CLKOP_DIV`` times as fast as the oscillator, runs at 400 to 800 MHz.
    """
    dividers = range(-(-400 // oscillator_mhz), 800 // oscillator_mhz + 1)
    # In the middle of its range it is farthest from what it cannot do.
    for clkop in sorted(dividers, key=lambda divider: abs(divider * oscillator_mhz - 600)):
        clkos, remainder = divmod(clkop * oscillator_mhz, mhz) if mhz > 0 else (0, 0)
        if not remainder and 1 <= clkos <= 128:
            return {"CLKI_DIV": 1, "CLKFB_DIV": 1, "CLKOP_DIV": clkop, "CLKOS_DIV": clkos}
    raise unreachable(oscillator_mhz, mhz)


def ecp5_pll(oscillator_mhz: int, mhz: int) -> Callable[[Platform, Any, Signal], Module]:
    """Makes ``mhz`` from the platform's default clock."""
    settings = ecp5_pll_settings(oscillator_mhz, mhz)

    def pll(platform: Platform, clock: Any, locked: Signal) -> Module:
        m = Module()
        m.submodules.oscillator = oscillator = io.Buffer("i", platform.request(platform.default_clk, dir="-"))
        feedback = Signal()
        m.submodules.pll = Instance(
            "EHXPLLL",
            **{f"p_{name}": value for name, value in settings.items()},
            p_FEEDBK_PATH="CLKOP",
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_CPHASE=settings["CLKOP_DIV"] - 1,
            p_CLKOP_FPHASE=0,
            p_CLKOS_ENABLE="ENABLED",
            p_CLKOS_CPHASE=settings["CLKOS_DIV"] - 1,
            p_CLKOS_FPHASE=0,
            # What Lattice's tools choose for the loop's filter.
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            i_CLKI=oscillator.i,
            i_CLKFB=feedback,
            i_RST=0,
            i_STDBY=0,
            i_PLLWAKESYNC=0,
            i_ENCLKOP=0,
            o_CLKOP=feedback,
            o_CLKOS=clock,
            o_LOCK=locked,
        )
        return m

    return pll


def gowin_pll_settings(oscillator_mhz: int, mhz: int) -> dict[str, int]:
    """Parameters with which rPLL makes ``mhz``: ``mhz = oscillator_mhz*(FBDIV_SEL + 1)/(IDIV_SEL + 1)``.

    Ref: Gowin DS117, "GW1NR series of FPGA Products Data Sheet", and DS226, "GW2AR series": the VCO, which is ``ODIV_SEL``
    times as fast as the output, runs at 500 to 1200 MHz in both (GW1NR: 400 to 1200, GW2A: 500 to 1250), the output at 4 MHz
    or more, and the phase detector at 3 MHz or more.
    """
    if 4 <= mhz <= 600:
        for idiv in range(1, min(64, oscillator_mhz // 3) + 1):
            fbdiv, remainder = divmod(mhz * idiv, oscillator_mhz)
            for odiv in (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128):
                if not remainder and 1 <= fbdiv <= 64 and 500 <= mhz * odiv <= 1200:
                    return {"IDIV_SEL": idiv - 1, "FBDIV_SEL": fbdiv - 1, "ODIV_SEL": odiv}
    raise unreachable(oscillator_mhz, mhz)


def gowin_pll(oscillator_mhz: int, mhz: int, *, device: str) -> Callable[[Platform, Any, Signal], Module]:
    """Makes ``mhz`` from the platform's default clock; ``device`` is the vendor's name for the die and its package."""
    settings = gowin_pll_settings(oscillator_mhz, mhz)

    def pll(platform: Platform, clock: Any, locked: Signal) -> Module:
        m = Module()
        m.submodules.oscillator = oscillator = io.Buffer("i", platform.request(platform.default_clk, dir="-"))
        m.submodules.pll = Instance(
            "rPLL",
            p_FCLKIN=str(oscillator_mhz),
            p_DEVICE=device,
            **{f"p_{name}": value for name, value in settings.items()},
            i_CLKIN=oscillator.i,
            i_CLKFB=0,
            i_RESET=0,
            i_RESET_P=0,
            i_FBDSEL=0,
            i_IDSEL=0,
            i_ODSEL=0,
            i_PSDA=0,
            i_DUTYDA=0,
            i_FDLY=0,
            o_CLKOUT=clock,
            o_LOCK=locked,
        )
        return m

    return pll
