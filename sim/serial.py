"""A simulated board: core and serial bridge in Verilator, with the line on a pseudo-terminal."""

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import connect

from gossamer.gateware.core import Core
from gossamer.gateware.generate import translate
from gossamer.gateware.uart_bridge import UartBridge
from gossamer.golden.spec import Config
from gossamer.sim.rtl import build_simulation

__all__ = ["SerialBoard"]

HERE = Path(__file__).parent


def _verilog(config: Config, divisor: int, silence: int) -> str:
    m = Module()
    m.submodules.core = core = Core(config)
    m.submodules.bridge = bridge = UartBridge(divisor=divisor, silence=silence)
    connect(m, bridge.bus, core.bus)
    rx, tx, busy = Signal(init=1), Signal(), Signal()
    m.d.comb += [bridge.rx.eq(rx), tx.eq(bridge.tx), busy.eq(core.busy)]
    return translate(m, {"rx": (rx, None), "tx": (tx, None), "busy": (busy, None)})


class SerialBoard:
    """A board whose serial line is at :attr:`port` while the context lasts.

    It runs as fast as it can while there is something to do, and otherwise in steps of a quarter of ``silence`` each
    millisecond. There is no external memory.

    Parameters
    ----------
    config : Config
    divisor : int
        Clock cycles per bit.
    silence : int
        Clock cycles; see :class:`UartBridge`.
    report : function of a sentence
        Told what takes long.

    Attributes
    ----------
    port : str
    """

    def __init__(
        self,
        config: Config,
        *,
        divisor: int = 8,
        silence: int = 1 << 12,
        report: Callable[[str], None] = lambda sentence: None,
    ):
        self.config = dataclasses.replace(config, fetch_interval=0, fetch_latency=0)
        options = ["--x-assign", "fast", "--x-initial", "fast"]
        for name, value in (("DIVISOR", divisor), ("SILENCE", silence)):
            options += ["-CFLAGS", f"-D{name}={value}"]
        verilog = _verilog(self.config, divisor, silence)
        self._program = build_simulation(self.config, "serial", [HERE / "serial.cpp"], options, report, verilog=verilog)
        self.port = ""

    def __enter__(self) -> "SerialBoard":
        self._process = subprocess.Popen([self._program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # its input ends, and so does it
