"""A simulated SoC: core, processor, and memory with a firmware, in Verilator."""

import dataclasses
from pathlib import Path

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import connect

from gossamer.gateware.core import Core
from gossamer.gateware.cpu import cpu_sources
from gossamer.gateware.generate import translate, with_contents
from gossamer.gateware.soc import Ram, Soc
from gossamer.gateware.soc_registers import RAM, ROM
from gossamer.golden.spec import Config

__all__ = ["SimulatedSoc"]

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class SimulatedSoc:
    """What is simulated: a core without external memory, and a :class:`gossamer.gateware.soc.Soc`.

    The firmware is read when the simulation begins, from the file that its argument ``+firmware=…`` names, in the form of
    :func:`gossamer.gateware.soc.hex_words`. So one simulation serves all firmware.

    Parameters
    ----------
    config : Config
    cpu : str
    ram_bytes : int
    rom_bytes : int
        0: the firmware begins in the RAM, at 0. Else a memory takes the place of the flash, and has it.
    divisor : int
        Clock cycles per bit of the serial line.
    clock_mhz : int
        That the firmware believes in.
    """

    config: Config
    cpu: str = "picorv32"
    ram_bytes: int = 64 << 10
    rom_bytes: int = 0
    divisor: int = 8
    clock_mhz: int = 1

    @property
    def sources(self) -> list[Path]:
        """Further Verilog, and what Verilator shall not say about it."""
        return [HERE / "cpu.vlt", *cpu_sources(self.cpu)]

    def verilog(self) -> str:
        """The SoC as Verilog, with ports ``clk``, ``rst``, ``rx``, ``tx``, ``busy`` and ``failed``."""
        m = Module()
        m.submodules.core = core = Core(self.config)
        m.submodules.soc = soc = Soc(
            cpu=self.cpu,
            ram_words=self.ram_bytes // 4,
            divisor=self.divisor,
            clock_mhz=self.clock_mhz,
            rom=self.rom_bytes > 0,
            reset_address=ROM if self.rom_bytes else RAM,
        )
        connect(m, soc.bus, core.bus)
        if self.rom_bytes:
            m.submodules.rom = rom = Ram(words=self.rom_bytes // 4)
            connect(m, soc.rom, rom.bus)
        rx, tx, busy, failed = Signal(init=1), Signal(), Signal(), Signal()
        m.d.comb += [soc.rx.eq(rx), soc.irq.eq(core.irq), tx.eq(soc.tx), busy.eq(core.busy), failed.eq(soc.failed)]
        ports = {"rx": rx, "tx": tx, "busy": busy, "failed": failed}
        contents = 'string file; initial if ($value$plusargs("firmware=%s", file)) $readmemh(file, memory);'
        verilog = translate(m, {name: (port, None) for name, port in ports.items()})
        return with_contents(verilog, "rom" if self.rom_bytes else "ram", contents)
