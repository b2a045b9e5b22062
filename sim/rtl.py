"""Runs programs on the emitted Verilog in Verilator."""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from gossamer.gateware.generate import LINT_WAIVERS, TOP, emit_verilog
from gossamer.golden.compiler import Compiled
from gossamer.golden.host import Host
from gossamer.golden.spec import Config, Error, UserError
from gossamer.sim.tools import ToolError, verilator_environment

__all__ = ["RtlError", "RtlResult", "Simulator", "build_simulation", "cells", "library_digest"]

HERE = Path(__file__).parent


class RtlError(UserError, RuntimeError):
    """The simulated core stopped with an error, or did not stop; one sentence."""


@dataclasses.dataclass(frozen=True)
class RtlResult:
    """``outputs`` is what was read from the store, or what host steps took, ``(N, bytes)``; ``cycles`` the core's own count per
    inference, of warm starts where the program has them; ``cold`` that of a cold start; ``simulated`` all clock cycles of the
    simulation, with those of the bus."""

    outputs: NDArray[np.uint8]
    cycles: list[int]
    cold: int
    simulated: int


def cells(config: Config) -> list[Path]:
    """Verilog models of the vendor cells that a configuration instantiates."""
    return [HERE / "ice40_cells.sv"] if config.technology == "ice40" else []


def build_simulation(
    config: Config,
    kind: str,
    sources: list[Path],
    options: list[str],
    report: Callable[[str], None],
    *,
    verilog: str | None = None,
    models: list[Path] | None = None,
) -> Path:
    """The program that simulates a configuration: the emitted Verilog, with ``sources`` and ``options`` for Verilator.

    ``verilog`` replaces the emitted Verilog, and ``models`` those of the vendor cells.

    Building takes some ten seconds; the result is kept in the user's cache folder (or ``GOSSAMER_CACHE``), under a name of
    ``kind``, configuration, and a digest of all that it is made of. ``report`` is told what takes long. Raises
    :class:`ToolError`.
    """
    environment = verilator_environment()
    verilog = emit_verilog(config) if verilog is None else verilog
    sources = [*(cells(config) if models is None else models), *sources]
    digest = hashlib.sha256(verilog.encode())
    for source in sources:
        digest.update(source.read_bytes())
    digest.update(repr([options, importlib.metadata.version("verilator")]).encode())
    cache = Path(os.environ.get("GOSSAMER_CACHE") or user_cache_path("gossamer"))
    folder = cache / f"{kind}-{config.name}-{digest.hexdigest()[:16]}"
    program = folder / TOP
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f"{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building the same
        if not program.exists():
            report(f"building the RTL simulation of {config.name}")
            _build(folder, verilog, sources, options, environment)
    return program


def _build(folder: Path, verilog: str, sources: list[Path], options: list[str], environment: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as name:
        work = Path(name)
        (work / f"{TOP}.sv").write_text(verilog)
        verilate = [
            *("verilator", "--cc", "--exe", "-O3", "--noassert", "--output-split", "0"),
            *("-Wall", *(f"-Wno-{warning}" for warning in LINT_WAIVERS), "--top-module", TOP, "--prefix", "Vtop"),
            *("--Mdir", str(work / "obj"), "-o", str(work / TOP), *options),
            *(str(work / f"{TOP}.sv"), *map(str, sources)),
        ]
        log = folder.with_suffix(".log")
        _call(verilate, environment, work, log)
        # Most of the time is that of Verilator's own library, which is the same for all designs.
        library = folder.parent / f"library-{library_digest(options, environment)}"
        if library.is_dir():
            # As new files, which make takes for those that it would make.
            shutil.copytree(library, work / "obj", copy_function=shutil.copyfile, dirs_exist_ok=True)
        _call(["make", "-C", str(work / "obj"), "-f", "Vtop.mk", "-j", "2"], environment, work, log)
        if not library.is_dir():
            (work / "library").mkdir()
            for file in (work / "obj").glob("verilated*.o"):
                file.rename(work / "library" / file.name)
            with contextlib.suppress(OSError):  # another process was faster
                (work / "library").rename(library)
        folder.mkdir(exist_ok=True)
        shutil.move(work / TOP, folder / TOP)


def _call(command: list[str], environment: dict[str, str], work: Path, log: Path) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=work)
    if done.returncode:
        log.write_text(done.stdout + done.stderr)
        raise ToolError(f"Verilator must build the core, and ended with status {done.returncode}: see {log}")


def library_digest(options: list[str], environment: dict[str, str]) -> str:
    """Of what the objects of Verilator's library depend on: tools, their settings, and the macros of ``options``."""
    compiler = subprocess.run(["g++", "--version"], env=environment, capture_output=True, text=True, check=True).stdout
    used = [importlib.metadata.version("verilator"), compiler, environment["MAKEFLAGS"], options]
    return hashlib.sha256(repr(used).encode()).hexdigest()[:16]


class Simulator:
    """The compiled simulation of a configuration, see :func:`build_simulation`.

    Parameters
    ----------
    config : Config
    report : function of a sentence
        Told what takes long.
    verilog : str
        What to simulate instead of what :func:`gossamer.gateware.generate.emit_verilog` makes: a netlist of it.
    models : list of files
        Verilog models of the vendor cells that it instantiates, and Verilator's settings for them.
    """

    def __init__(
        self,
        config: Config,
        report: Callable[[str], None] = lambda sentence: None,
        *,
        verilog: str | None = None,
        models: list[Path] | None = None,
    ):
        self.config = config
        options = ["--x-assign", "fast", "--x-initial", "fast"]
        if config.fetch_interval:
            memory = {"LATENCY": config.fetch_latency, "INTERVAL": config.fetch_interval, "WORD": config.store_bytes}
            options += [word for name, value in memory.items() for word in ("-CFLAGS", f"-D{name}={value}")]
        self._bench = build_simulation(config, "rtl", [HERE / "bench.cpp"], options, report, verilog=verilog, models=models)

    def run(
        self,
        compiled: Compiled,
        inputs: NDArray[np.int8],
        *,
        read: range | None = None,
        limit: int = 100_000_000,
        seed: int | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> RtlResult:
        """Run ``inputs`` ``(N, …)`` one after the other. If the program has a warm start, the first runs cold before. Host
        steps are served through the bus, which takes none of the cycles that count.

        ``read`` is the range of the store to return after each, by default the output: what host steps took, if the program
        has such, and otherwise its place in the store. ``limit`` is the number of cycles
        after which an inference is given up. With a ``seed`` the store holds random bytes before the image is loaded.
        ``progress`` is told how many inferences are done. Raises :class:`RtlError`.
        """
        program = compiled.program
        place = program.output
        data = np.stack([compiled.input_bytes(x) for x in inputs])
        host = Host(program, data[0])
        # No tensor begins at byte 0, where the image is.
        given = 0 if host.gives else program.input.address
        if read is None:
            start = 0 if host.takes else place.address
            read = range(start, start + place.size(self.config))
        with tempfile.TemporaryDirectory(prefix="gossamer-") as name:
            folder = Path(name)
            (folder / "image").write_bytes(program.assemble())
            (folder / "external").write_bytes(program.external)
            (folder / "inputs").write_bytes(data.tobytes())
            warm = int(program.warm > 0)
            numbers = [given, data.shape[1], len(data), read.start, len(read), limit, warm]
            command = [self._bench, *(folder / name for name in ("image", "external", "inputs", "outputs")), *numbers]
            command += [] if seed is None else [seed]
            with subprocess.Popen(
                [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                try:
                    cycles, simulated = self._follow(process, lambda done: progress(max(done - warm, 0)))
                except BaseException:
                    process.kill()
                    raise
            outputs = np.frombuffer((folder / "outputs").read_bytes(), np.uint8).reshape(len(data), -1)
        return RtlResult(outputs, cycles[warm:], cycles[0], simulated)

    @staticmethod
    def _follow(process: "subprocess.Popen[str]", progress: Callable[[int], None]) -> tuple[list[int], int]:
        """Cycles of each inference and of all together, from what the bench prints."""
        assert process.stdout is not None
        assert process.stderr is not None
        cycles: list[int] = []
        simulated = 0
        for line in process.stdout:
            first, second = line.split()
            if first == "total":
                simulated = int(second)
                break
            if int(second):
                raise RtlError(f"the core stopped with error {second}: {Error.TEXT[int(second)]}")
            cycles.append(int(first))
            progress(len(cycles))
        if process.wait():
            raise RtlError(f"the simulation ended with status {process.returncode}: {process.stderr.read().strip()}")
        return cycles, simulated
