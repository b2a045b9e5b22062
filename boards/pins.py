"""Rearranges an iCE40 netlist so that it takes fewer logic cells.

A logic cell has a LUT, a carry and a flip-flop. Its carry adds the LUT's inputs I1 and I2, and its carry in is the LUT's I3
too. A LUT is free to have its inputs on any pins, but nextpnr takes them as they are, and where ABC has made something else
of the sum of a chain's lowest bit, they are in any order: then the carry gets a cell of its own. The same goes for the cell
with which a chain is entered from, or left for, the fabric.
"""

import dataclasses
from collections import defaultdict
from typing import Any

__all__ = ["share_cells"]

Net = int | str  # a number, or the constants "0", "1" and "x"

ZERO = "0"


def share_cells(module: dict[str, Any]) -> None:
    """Rearrange a flat module of Yosys's JSON netlist, in place; it computes the same.

    * A carry without a LUT gets one that has both its operands among its inputs, by a swap of pins.
    * A chain whose carry in ``x`` comes from the fabric begins with a carry of its own, ``x + x``, which shares the cell of a
      LUT that ``x`` is an input of.
    * A carry out that only a LUT uses comes to its I3; to one that only a flip-flop uses comes a LUT, which shares its cell.
    """
    netlist = _Netlist(module)
    netlist.pair_those_that_fit()
    netlist.leave_chains()
    netlist.pair_others()
    netlist.enter_chains()


@dataclasses.dataclass
class _Lut:
    """Its inputs, and the bit of each input vector, I0 counting as 1."""

    cell: dict[str, Any]

    @property
    def pins(self) -> list[Net]:
        return [self.cell["connections"].get(f"I{pin}", [ZERO])[0] for pin in range(4)]

    def rewire(self, pins: list[Net]) -> None:
        """Connect the pins to these nets, which must be all of those that there are; a net may come twice."""
        old = self.pins
        table = self.cell["parameters"]["LUT_INIT"][::-1].ljust(16, "0")
        bits = ""
        for vector in range(16):
            value = {net: vector >> pin & 1 for pin, net in enumerate(pins)} | {"0": 0, "1": 1, "x": 0}
            bits += table[sum(value[net] << pin for pin, net in enumerate(old))]
        self.cell["parameters"]["LUT_INIT"] = bits[::-1]
        for pin, net in enumerate(pins):
            self.cell["connections"][f"I{pin}"] = [net]
            self.cell["port_directions"][f"I{pin}"] = "input"

    def put(self, wanted: dict[int, Net]) -> None:
        """Bring nets to pins, the others to those that are left."""
        rest: list[Net] = [*dict.fromkeys(net for net in self.pins if net not in wanted.values() and isinstance(net, int))]
        rest += [ZERO] * (4 - len(wanted) - len(rest))
        self.rewire([wanted[pin] if pin in wanted else rest.pop(0) for pin in range(4)])


class _Netlist:
    def __init__(self, module: dict[str, Any]):
        self.cells = module["cells"]
        self.users: dict[Net, list[tuple[str, str]]] = defaultdict(list)  # cell and port; the module's have no cell
        for name, cell in self.cells.items():
            for port, nets in cell["connections"].items():
                if cell["port_directions"][port] == "input":
                    for net in nets:
                        self.users[net].append((name, port))
        for name, port in module["ports"].items():
            for net in port["bits"]:
                self.users[net].append(("", name))
        self.luts = {name: _Lut(cell) for name, cell in self.cells.items() if cell["type"] == "SB_LUT4"}
        self.carries = [cell for cell in self.cells.values() if cell["type"] == "SB_CARRY"]
        everywhere = (net for cell in self.cells.values() for nets in cell["connections"].values() for net in nets)
        self.fresh = 1 + max(net for net in everywhere if isinstance(net, int))
        self.taken: set[str] = set()  # LUTs that have a carry, or are the end of a chain
        self.mates: dict[int, str] = {}  # by carry out, the LUT that shares its carry's cell
        self.alone: list[dict[str, Any]] = []

    @staticmethod
    def ends(carry: dict[str, Any]) -> tuple[Net, Net, Net, int]:
        return tuple(carry["connections"][port][0] for port in ("I0", "I1", "CI", "CO"))

    def around(self, net: Net) -> list[str]:
        """The LUTs that a net is an input of, and that are free."""
        return [name for name, _ in self.users[net] if name in self.luts and name not in self.taken]

    def pair(self, name: str, carry_out: int) -> None:
        self.taken.add(name)
        self.mates[carry_out] = name

    def pair_those_that_fit(self) -> None:
        found = defaultdict(list)
        for name, lut in self.luts.items():
            found[tuple(lut.pins[1:])].append(name)
        for carry in self.carries:
            *inputs, carry_out = self.ends(carry)
            fit = [name for name in found[tuple(inputs)] if name not in self.taken]
            if fit:
                self.pair(fit[0], carry_out)
            else:
                self.alone.append(carry)

    def leave_chains(self) -> None:
        for carry in self.carries:
            out = self.ends(carry)[3]
            if len(self.users[out]) != 1:
                continue
            ((name, port),) = self.users[out]
            if name in self.luts:
                if name not in self.taken:
                    self.luts[name].put({3: out})
                self.taken.add(name)
            elif name and self.cells[name]["type"].startswith("SB_DFF") and port == "D":
                self.cells[name]["connections"]["D"] = [self.fresh]
                inputs = {f"I{pin}": [out if pin == 3 else ZERO] for pin in range(4)}
                self.add("SB_LUT4", inputs, "O", {"LUT_INIT": "1" * 8 + "0" * 8})

    def pair_others(self) -> None:
        for carry in self.alone:
            a, b, carry_in, carry_out = self.ends(carry)
            if isinstance(a, str) or isinstance(b, str) or a == b:
                continue
            fit = [name for name in self.around(a) if b in self.luts[name].pins]
            fit.sort(key=lambda name: carry_in not in self.luts[name].pins)
            if fit:
                lut = self.luts[fit[0]]
                with_carry = isinstance(carry_in, int) and carry_in in lut.pins and carry_in not in (a, b)
                lut.put({1: a, 2: b, **({3: carry_in} if with_carry else {})})
                self.pair(fit[0], carry_out)

    def enter_chains(self) -> None:
        outs = {self.ends(carry)[3] for carry in self.carries}
        for carry in self.carries:
            _, _, x, carry_out = self.ends(carry)
            if isinstance(x, str) or x in outs:
                continue
            first = self.mates.get(carry_out)
            fit = [name for name in self.around(x) if len({*self.luts[name].pins} - {ZERO, x}) <= 2]
            if not fit:
                continue
            self.luts[fit[0]].put({1: x, 2: x})
            self.taken.add(fit[0])
            carry["connections"]["CI"] = [self.fresh]
            if first is not None and self.luts[first].pins[3] == x:
                self.cells[first]["connections"]["I3"] = [self.fresh]
            self.add("SB_CARRY", {"I0": [x], "I1": [x], "CI": [ZERO]}, "CO", {})

    def add(self, kind: str, inputs: dict[str, list[Net]], output: str, parameters: dict[str, str]) -> None:
        """A cell that drives the fresh net."""
        self.cells[f"$pins${self.fresh}"] = {
            "hide_name": 1,
            "type": kind,
            "parameters": parameters,
            "attributes": {},
            "port_directions": {**dict.fromkeys(inputs, "input"), output: "output"},
            "connections": {**inputs, output: [self.fresh]},
        }
        self.fresh += 1
