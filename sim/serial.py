"""Simulated boards: core and serial bridge, or core and processor, in Verilator, with the line on a pseudo-terminal."""

import dataclasses
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import connect

from gossamer.gateware.core import Core
from gossamer.gateware.generate import translate
from gossamer.gateware.soc import hex_words
from gossamer.gateware.uart_bridge import UartBridge
from gossamer.golden.spec import Config
from gossamer.sim.rtl import build_simulation
from gossamer.sim.soc import SimulatedSoc

__all__ = ["SerialBoard", "SocBoard", "Terminal"]

HERE = Path(__file__).parent


def _verilog(config: Config, divisor: int, silence: int) -> str:
    m = Module()
    m.submodules.core = core = Core(config)
    m.submodules.bridge = bridge = UartBridge(divisor=divisor, silence=silence)
    connect(m, bridge.bus, core.bus)
    rx, tx, busy = Signal(init=1), Signal(), Signal()
    m.d.comb += [bridge.rx.eq(rx), tx.eq(bridge.tx), busy.eq(core.busy)]
    return translate(m, {"rx": (rx, None), "tx": (tx, None), "busy": (busy, None)})


class Terminal:
    """A simulated board whose serial line is at :attr:`port` while the context lasts.

    It runs as fast as it can while there is something to do, and otherwise in steps of a quarter of ``silence`` cycles each
    millisecond.

    Attributes
    ----------
    port : str
    """

    port = ""

    def __init__(
        self,
        config: Config,
        kind: str,
        verilog: str,
        *,
        divisor: int,
        silence: int,
        sources: list[Path],
        report: Callable[[str], None],
    ):
        options = ["--x-assign", "fast", "--x-initial", "fast"]
        for name, value in (("DIVISOR", divisor), ("SILENCE", silence)):
            options += ["-CFLAGS", f"-D{name}={value}"]
        self._program = build_simulation(config, kind, [*sources, HERE / "serial.cpp"], options, report, verilog=verilog)
        self._arguments: list[str] = []

    def __enter__(self) -> "Terminal":
        command = [str(self._program), *self._arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # its input ends, and so does it


class SerialBoard(Terminal):
    """A core behind a serial bridge. There is no external memory.

    Parameters
    ----------
    config : Config
    divisor, silence : int
        See :class:`UartBridge`.
    report : function of a sentence
        Told what takes long.
    """

    def __init__(
        self,
        config: Config,
        *,
        divisor: int = 8,
        silence: int = 1 << 9,
        report: Callable[[str], None] = lambda sentence: None,
    ):
        self.config = dataclasses.replace(config, fetch_interval=0, fetch_latency=0)
        verilog = _verilog(self.config, divisor, silence)
        silence *= divisor
        super().__init__(self.config, "serial", verilog, divisor=divisor, silence=silence, sources=[], report=report)


class SocBoard(Terminal):
    """A SoC that begins to run ``firmware`` when the context is entered. It never has nothing to do.

    Parameters
    ----------
    soc : SimulatedSoc
    firmware : bytes
    report : function of a sentence
        Told what takes long.
    """

    def __init__(self, soc: SimulatedSoc, firmware: bytes, *, report: Callable[[str], None] = lambda sentence: None):
        kind, settings = f"soc-{soc.cpu}", {"divisor": soc.divisor, "silence": 1 << 18}
        super().__init__(soc.config, kind, soc.verilog(), **settings, sources=soc.sources, report=report)
        self._firmware = firmware

    def __enter__(self) -> "SocBoard":
        with tempfile.TemporaryDirectory(prefix="gossamer-") as folder:
            file = Path(folder, "firmware.hex")
            file.write_text(hex_words(self._firmware))
            self._arguments = [f"+firmware={file}"]
            super().__enter__()  # it has been read when the port is known
        return self
