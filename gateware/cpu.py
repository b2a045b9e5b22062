"""Processors for the SoC: RISC-V cores in Verilog, from packages of their own."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from amaranth.hdl import ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from gossamer.gateware.wishbone import wishbone_signature
from gossamer.golden.spec import UserError
from gossamer.hdl.checks import require

__all__ = ["CPUS", "CpuError", "PicoRv32", "Serv", "cpu_sources"]

PACKAGES = {
    "picorv32": ("pythondata_cpu_picorv32", ("picorv32.v",)),
    "serv": (
        "pythondata_cpu_serv",
        tuple(
            f"rtl/serv_{name}.v"
            for name in (
                *("aligner", "alu", "bufreg", "bufreg2", "compdec", "csr", "ctrl", "decode", "immdec", "mem_if"),
                *("rf_if", "rf_ram", "rf_ram_if", "rf_top", "state", "top"),
            )
        ),
    ),
}
"""By processor: the import name of its package, and its files there. Both processors have the ISC licence: their authors'
copyright (Claire Xenia Wolf; Olof Kindgren) stays with every copy of the Verilog."""


class CpuError(UserError, RuntimeError):
    """The Verilog of a processor is missing; one sentence that says how to get it."""


def cpu_sources(cpu: str) -> list[Path]:
    """The Verilog of a processor. Raises :class:`CpuError` if its package is not there."""
    package, files = PACKAGES[cpu]
    found = importlib.util.find_spec(package)
    if found is None or not found.origin:
        raise CpuError(f"a SoC with {cpu} needs its Verilog: install it with `pip install 'gossamer[soc]'`")
    folder = Path(found.origin).parent / "verilog"
    return [folder / file for file in files]


class _Cpu(wiring.Component):
    """What the processors have in common: a bus for instructions and data, and where the program starts."""

    def __init__(self, *, reset_address: int):
        require(
            0 <= reset_address < 1 << 32 and reset_address % 4 == 0,
            f"reset_address must be a multiple of 4 of 32 bits, not {reset_address:#x}",
        )
        self._reset_address = reset_address
        super().__init__({"bus": Out(wishbone_signature(address_bits=32)), "trap": Out(1)})


class PicoRv32(_Cpu):
    """PicoRV32: RV32I, some five cycles per instruction with a memory that answers in the second cycle.

    Traps, by illegal instructions and addresses that are not aligned, stop it until reset. There are no interrupts.

    Parameters
    ----------
    reset_address : int
        Where the program starts.

    Members
    -------
    bus : ``Out(wishbone_signature(address_bits=32))``
        Instructions and data. ``sel`` is that of writes, and 0b1111 for reads. An ``err`` is taken for an ``ack``.
    trap : ``Out(1)``
    """

    def elaborate(self, platform):
        m = Module()
        bus, strobes, address, valid = self.bus, Signal(4), Signal(32), Signal()
        m.submodules.cpu = Instance(
            "picorv32",
            p_ENABLE_COUNTERS=0,
            p_ENABLE_COUNTERS64=0,
            p_BARREL_SHIFTER=1,
            p_PROGADDR_RESET=Const(self._reset_address, 32),
            i_clk=ClockSignal(),
            i_resetn=~ResetSignal(),
            o_trap=self.trap,
            o_mem_valid=valid,
            i_mem_ready=bus.ack | bus.err,
            o_mem_addr=address,
            o_mem_wdata=bus.dat_w,
            o_mem_wstrb=strobes,
            i_mem_rdata=bus.dat_r,
            i_pcpi_wr=0,
            i_pcpi_rd=Const(0, 32),
            i_pcpi_wait=0,
            i_pcpi_ready=0,
            i_irq=Const(0, 32),
        )
        m.d.comb += [
            bus.cyc.eq(valid),
            bus.stb.eq(valid),
            bus.adr.eq(address[2:]),
            bus.we.eq(strobes.any()),
            bus.sel.eq(strobes | (~bus.we).replicate(4)),
        ]
        return m


class Serv(_Cpu):
    """SERV: RV32I, a bit per cycle, the smallest there is. 35 to 70 cycles per instruction, and those of the memory.

    Without control and status registers: no traps, no interrupts. Addresses that are not aligned are taken down to those
    that are.

    Parameters
    ----------
    reset_address : int
        Where the program starts.

    Members
    -------
    bus : ``Out(wishbone_signature(address_bits=32))``
        Instructions and data, never both at once. An ``err`` is taken for an ``ack``.
    trap : ``Out(1)``
        Always low.
    """

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        fetches, accesses, writes = Signal(), Signal(), Signal()
        code, data, done = Signal(32), Signal(32), Signal()
        m.submodules.cpu = Instance(
            "serv_rf_top",
            p_RESET_PC=Const(self._reset_address, 32),
            p_RESET_STRATEGY="MINI",
            p_WITH_CSR=0,
            i_clk=ClockSignal(),
            i_i_rst=ResetSignal(),
            i_i_timer_irq=0,
            o_o_ibus_adr=code,
            o_o_ibus_cyc=fetches,
            i_i_ibus_rdt=bus.dat_r,
            i_i_ibus_ack=done & fetches,
            o_o_dbus_adr=data,
            o_o_dbus_dat=bus.dat_w,
            o_o_dbus_sel=bus.sel,
            o_o_dbus_we=writes,
            o_o_dbus_cyc=accesses,
            i_i_dbus_rdt=bus.dat_r,
            i_i_dbus_ack=done & ~fetches,
            i_i_ext_rd=Const(0, 32),
            i_i_ext_ready=0,
        )
        m.d.comb += [
            done.eq(bus.ack | bus.err),
            bus.stb.eq(fetches | accesses),
            bus.cyc.eq(bus.stb),
            bus.we.eq(writes & ~fetches),
        ]
        with m.If(fetches):
            m.d.comb += bus.adr.eq(code[2:])
        with m.Else():
            m.d.comb += bus.adr.eq(data[2:])
        return m


CPUS: Mapping[str, type[PicoRv32] | type[Serv]] = {"picorv32": PicoRv32, "serv": Serv}
"""The processors by name."""
