"""Drivers and monitors for stream ports, in Amaranth's own simulator."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, repeat
from typing import Any

import numpy as np
from amaranth.hdl import Const, ResetInserter, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component
from amaranth.sim import Simulator

__all__ = ["Bench", "Monitor", "Sink", "Source", "StreamError", "never", "plain", "randomly"]

CANARIES = (0x5A, 0xFF, 0xA5, 0x00)
"""Bytes that fill the payload, in turn, while nothing is offered."""


class StreamError(AssertionError):
    """A stream rule is broken; one sentence with port and cycle."""


def never() -> Iterator[bool]:
    """A pause generator that never pauses."""
    return repeat(False)


def randomly(rng: np.random.Generator, share: float, burst: int = 4) -> Iterator[bool]:
    """A pause generator: pauses in about ``share`` of the cycles, in runs of up to ``burst`` cycles or more."""
    while True:
        yield from [bool(rng.random() < share)] * int(rng.integers(1, burst + 1))


def plain(value: Any) -> Any:
    """A payload as integers, lists and dictionaries, for comparison and for messages."""
    match value:
        case data.Const():
            shape = value.shape()
            if isinstance(shape, data.ArrayLayout):
                return [plain(value[i]) for i in range(shape.length)]
            return {name: plain(value[name]) for name, _ in shape}
        case Const():
            return value.value
    return value


class Source:
    """Sends payloads to a stream port of a component.

    While it offers nothing the payload is a canary, so that a component that looks at it without ``valid`` is found out.

    Parameters
    ----------
    port : stream interface
        An ``In`` port of the component.
    payloads : iterable
        What to send: anything that is a constant of the payload's shape, such as a ``dict`` for a structure.
    pauses : iterator of bool
        Asked in each cycle in which a new payload might be offered; true says not to.

    Attributes
    ----------
    queue : deque
        What is yet to be sent. More may be appended at any time. What the component takes in a cycle of reset is lost.
    """

    def __init__(self, port: Any, payloads: Iterable[Any] = (), pauses: Iterator[bool] | None = None):
        self.queue = deque(payloads)
        self._port, self._pauses = port, never() if pauses is None else pauses
        self._offered = False

    def restart(self, payloads: Iterable[Any]) -> None:
        """For a reset: forget what is being offered and what is yet to be sent, and send ``payloads``."""
        self.queue = deque(payloads)
        self._offered = False

    async def run(self, ctx: Any) -> None:
        """The testbench; runs for ever."""
        port, payload = self._port, Value.cast(self._port.payload)
        shape = port.payload.shape()
        cast = shape.const if hasattr(shape, "const") else int
        mask, canaries = (1 << len(payload)) - 1, cycle(CANARIES)
        while True:
            self._offered = self._offered or (len(self.queue) > 0 and not next(self._pauses))
            offered = self._offered
            ctx.set(port.valid, offered)
            if offered:
                ctx.set(port.payload, cast(self.queue[0]))
            else:
                ctx.set(payload, mask & int.from_bytes([next(canaries)] * (len(payload) // 8 + 1), "little"))
            _, _, ready = await ctx.tick().sample(port.ready)
            if offered and self._offered and ready:
                self.queue.popleft()
                self._offered = False


class Sink:
    """Takes payloads from a stream port of a component, and forgets them: a :class:`Monitor` sees them.

    Parameters
    ----------
    port : stream interface
        An ``Out`` port of the component.
    pauses : iterator of bool
        Asked in each cycle; true makes ``ready`` low.
    """

    def __init__(self, port: Any, pauses: Iterator[bool] | None = None):
        self._port, self._pauses = port, never() if pauses is None else pauses

    async def run(self, ctx: Any) -> None:
        """The testbench; runs for ever."""
        while True:
            ctx.set(self._port.ready, not next(self._pauses))
            await ctx.tick()


class Monitor:
    """Watches a stream port, of either direction, and enforces the rules of its sender: once high, ``valid`` must not fall
    and the payload must not change before the transfer.

    Parameters
    ----------
    port : stream interface
    reset : Signal
        In a cycle in which it is high there is no transfer, and no promise for the next cycle.
    name : str
        What messages call the port.

    Attributes
    ----------
    transfers : list of ``(cycle, payload)``
        Cycles count from 0, the one that ends with the first clock edge; payloads are :func:`plain`.
    offers : list of int
        For each of ``transfers`` the first cycle in which it was offered.
    waiting : bool
        In the last cycle a payload was offered.
    """

    def __init__(self, port: Any, reset: Any = None, name: str | None = None):
        self.transfers: list[tuple[int, Any]] = []
        self.offers: list[int] = []
        self.waiting = False
        self._port, self._reset = port, Const(0) if reset is None else reset
        self._name = name or port.valid.name.removesuffix("__valid")

    @property
    def payloads(self) -> list[Any]:
        return [payload for _, payload in self.transfers]

    @property
    def cycles(self) -> list[int]:
        return [cycle for cycle, _ in self.transfers]

    async def run(self, ctx: Any) -> None:
        """The testbench; runs for ever. Raises :class:`StreamError`."""
        port, shape = self._port, self._port.payload.shape()
        signals = (port.valid, port.ready, Value.cast(port.payload), self._reset)
        now, since, promised = 0, 0, None
        while True:
            _, _, valid, ready, payload, reset = await ctx.tick().sample(*signals)
            self.waiting = bool(valid)
            if promised is None:
                since = now
            elif not valid:
                raise StreamError(f"{self._name}.valid must not fall before the transfer, but did in cycle {now}")
            elif payload != promised:
                raise StreamError(
                    f"{self._name}.payload must not change before the transfer, but went from {promised:#x} to {payload:#x} "
                    f"in cycle {now}"
                )
            promised = payload if valid and not ready and not reset else None
            if valid and ready and not reset:
                value = shape.from_bits(payload) if hasattr(shape, "from_bits") else payload
                self.transfers.append((now, plain(value)))
                self.offers.append(since)
            now += 1


class Bench:
    """A component with what drives and watches it.

    Parameters
    ----------
    dut : Component

    Attributes
    ----------
    reset : Signal
        Reset of the component, not of what surrounds it.
    cycle : int
        The current cycle, counted as in :class:`Monitor`.
    """

    def __init__(self, dut: Component):
        self.reset = Signal()
        self.cycle = 0
        self._silence = 0
        self._sources: list[Source] = []
        self._monitors: list[Monitor] = []
        self._processes: list[Callable[[Any], Any]] = []
        self._simulator = Simulator(ResetInserter(self.reset)(dut))
        self._simulator.add_clock(1e-6)

    def source(self, port: Any, payloads: Iterable[Any] = (), pauses: Iterator[bool] | None = None) -> Source:
        """Send ``payloads`` to ``port``, watched by a monitor."""
        source = Source(port, payloads, pauses)
        self._sources.append(source)
        self.process(source.run)
        self.monitor(port)
        return source

    def sink(self, port: Any, pauses: Iterator[bool] | None = None) -> Monitor:
        """Take what ``port`` sends; returns its monitor."""
        self.process(Sink(port, pauses).run)
        return self.monitor(port)

    def monitor(self, port: Any) -> Monitor:
        """Watch ``port``."""
        monitor = Monitor(port, self.reset)
        self._monitors.append(monitor)
        self.process(monitor.run)
        return monitor

    def process(self, testbench: Callable[[Any], Any]) -> None:
        """Add a testbench of one's own, which runs until the others have finished."""
        self._processes.append(testbench)

    def stay(self) -> None:
        """For a testbench of one's own: this cycle does not count as quiet."""
        self._silence = 0

    def run(
        self,
        *,
        cycles: int | None = None,
        quiet: int = 20,
        limit: int = 20_000,
        resets: dict[int, Callable[[], Any]] | None = None,
    ) -> None:
        """Simulate ``cycles``, or until all sources are empty and nothing was offered on any port for ``quiet`` cycles.

        ``resets`` has the cycles in which ``reset`` is high, and what to do at their end, such as to restart sources.
        Raises :class:`StreamError` after ``limit`` cycles. Can be called once.
        """
        resets = resets or {}

        async def clock(ctx: Any) -> None:
            while self.cycle < cycles if cycles is not None else self._silence < quiet:
                if self.cycle == limit:
                    raise StreamError(f"the simulation must end within {limit} cycles")
                ctx.set(self.reset, self.cycle in resets)
                await ctx.tick()
                resets.get(self.cycle, lambda: None)()
                self.cycle += 1
                busy = any(source.queue for source in self._sources) or any(monitor.waiting for monitor in self._monitors)
                self._silence = 0 if busy or self.cycle <= max(resets, default=0) else self._silence + 1

        self._simulator.add_testbench(clock)  # the first: a restarted source must not offer what it had offered
        for process in self._processes:
            self._simulator.add_testbench(process, background=True)
        self._simulator.run()
