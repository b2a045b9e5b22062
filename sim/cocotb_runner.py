"""Runs cocotb benches on the emitted Verilog in Verilator."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import cocotb_tools.config
from cocotb_tools.runner import get_runner

from gossamer.gateware.generate import TOP, emit_verilog
from gossamer.gateware.soc import hex_words
from gossamer.golden.spec import Config
from gossamer.sim.rtl import build_simulation
from gossamer.sim.soc import SimulatedSoc

__all__ = ["bench_config", "run_bench", "run_soc_bench"]

HERE = Path(__file__).parent
VARIABLE = "GOSSAMER_BENCH_CONFIG"


def run_bench(
    config: Config,
    module: str,
    folder: Path,
    *,
    bus: str = "wishbone",
    seed: int = 1,
    testcase: str | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> dict[str, str]:
    """Run the cocotb tests of a module, or one of them; returns for each its failure, empty if it has passed.

    The simulation is built once per configuration, see :func:`gossamer.sim.rtl.build_simulation`. Registers and memories
    without a reset start with random bits, which depend on ``seed``. Only the ports of the core can be seen: a design
    whose every signal is public (cocotb's default) runs half as fast.

    Parameters
    ----------
    config : Config
        The bench gets it from :func:`bench_config`.
    module : str
        Dotted name.
    folder : Path
        Where log and results are written.
    bus : str
        One of :data:`gossamer.gateware.generate.BUSES`.
    """
    program = build_simulation(config, "cocotb", _sources(), _options(), report, verilog=emit_verilog(config, bus))
    environment = {VARIABLE: json.dumps(dataclasses.asdict(config))}
    return _run(program, module, folder, environment, [], seed, testcase)


def run_soc_bench(
    soc: SimulatedSoc,
    firmware: bytes,
    module: str,
    folder: Path,
    *,
    seed: int = 1,
    environment: Mapping[str, str] | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> dict[str, str]:
    """As :func:`run_bench`, on a SoC that runs ``firmware``: the bench sees ``clk``, ``rst``, ``rx``, ``tx``, ``busy`` and
    ``failed``, and what is in ``environment``."""
    sources = [*_sources("soc_ports.vlt"), *soc.sources]
    program = build_simulation(soc.config, f"cocotb-{soc.cpu}", sources, _options(), report, verilog=soc.verilog())
    file = folder.resolve() / "firmware.hex"
    file.write_text(hex_words(firmware))
    return _run(program, module, folder, environment or {}, [f"+firmware={file}"], seed, None)


def _run(
    program: Path,
    module: str,
    folder: Path,
    environment: Mapping[str, str],
    arguments: list[str],
    seed: int,
    testcase: str | None,
) -> dict[str, str]:
    folder = folder.resolve()
    runner = get_runner("verilator")
    results = folder / "results.xml"
    log = folder / "bench.log"
    try:
        runner.test(
            module,
            TOP,
            hdl_toplevel_lang="verilog",
            testcase=testcase,
            seed=seed,
            test_args=["+verilator+rand+reset+2", f"+verilator+seed+{seed}", *arguments],
            extra_env=dict(environment),
            build_dir=program.parent,
            test_dir=folder,
            results_xml=str(results),
            log_file=log,
        )
    except SystemExit:
        if not results.exists():
            raise RuntimeError(f"the bench {module} must end by itself: see {log}") from None
    return _failures(results)


def _sources(ports: str = "ports.vlt") -> list[Path]:
    return [HERE / ports, cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"]


def _options() -> list[str]:
    libraries = cocotb_tools.config.libs_dir
    return [
        *("--vpi", "--timescale", "1ns/1ps", "--x-assign", "unique", "--x-initial", "unique"),
        *("-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"),
    ]


def _failures(results: Path) -> dict[str, str]:
    failures = {}
    for case in ElementTree.parse(results).iter("testcase"):
        problems = [*case.iter("failure"), *case.iter("error")]
        texts = [problem.text or problem.get("error_msg") or problem.get("message") or "failed" for problem in problems]
        failures[case.attrib["name"]] = "\n".join(texts)
    return failures


def bench_config() -> Config:
    """The configuration of the simulation that this bench runs in."""
    return Config(**json.loads(os.environ[VARIABLE]))
