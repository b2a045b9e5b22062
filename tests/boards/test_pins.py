"""Pins of LUTs: the netlist computes the same before and after, and more LUTs share the cell of a carry."""

import copy
import itertools

import pytest

from gossamer.boards.pins import share_cells

ZERO = "0"


def cell(kind, inputs, output, **parameters):
    directions = {**dict.fromkeys(inputs, "input"), output[0]: "output"}
    connections = {**{port: [net] for port, net in inputs.items()}, output[0]: [output[1]]}
    return {"type": kind, "parameters": parameters, "port_directions": directions, "connections": connections}


def lut(pins, output, function):
    """``function`` of as many bits as there are pins, the first being I0."""
    table = "".join(str(int(function(*(v >> pin & 1 for pin in range(len(pins)))))) for v in range(16))
    return cell("SB_LUT4", {f"I{n}": net for n, net in enumerate([*pins, *[ZERO] * (4 - len(pins))])}, ("O", output),
                LUT_INIT=table[::-1])  # fmt: skip


def carry(a, b, carry_in, carry_out):
    return cell("SB_CARRY", {"I0": a, "I1": b, "CI": carry_in}, ("CO", carry_out))


def flip_flop(d, q):
    return cell("SB_DFF", {"D": d}, ("Q", q))


def module(inputs, outputs, *cells):
    ports = {"i": {"direction": "input", "bits": inputs}, "o": {"direction": "output", "bits": outputs}}
    return {"ports": ports, "cells": {f"c{n}": c for n, c in enumerate(cells)}}


def compute(netlist, values):
    """The outputs and what flip-flops take, for values of the inputs."""
    nets = {"0": 0, "1": 1, **dict(zip(netlist["ports"]["i"]["bits"], values))}
    todo = [c for c in netlist["cells"].values() if c["type"] != "SB_DFF"]
    while todo:
        rest = []
        for c in todo:
            pins = [c["connections"].get(port, [ZERO])[0] for port in ("I0", "I1", "I2", "I3", "CI")]
            if any(net not in nets for net in pins):
                rest.append(c)
            elif c["type"] == "SB_LUT4":
                vector = sum(nets[net] << n for n, net in enumerate(pins[:4]))
                nets[c["connections"]["O"][0]] = int(c["parameters"]["LUT_INIT"][::-1][vector])
            else:
                nets[c["connections"]["CO"][0]] = int(nets[pins[0]] + nets[pins[1]] + nets[pins[4]] >= 2)
        assert len(rest) < len(todo)
        todo = rest
    taken = [nets[c["connections"]["D"][0]] for c in netlist["cells"].values() if c["type"] == "SB_DFF"]
    return [nets[net] for net in netlist["ports"]["o"]["bits"]] + taken


def shared(netlist):
    """Number of carries with a LUT on the same inputs."""
    luts = [c["connections"] for c in netlist["cells"].values() if c["type"] == "SB_LUT4"]
    carries = [c["connections"] for c in netlist["cells"].values() if c["type"] == "SB_CARRY"]
    return sum(any((c["I0"], c["I1"]) == (one["I1"], one["I2"]) for one in luts) for c in carries)


def arranged(netlist):
    """What becomes of it, checked to compute the same for all inputs."""
    found = copy.deepcopy(netlist)
    share_cells(found)
    for values in itertools.product((0, 1), repeat=len(netlist["ports"]["i"]["bits"])):
        assert compute(found, values) == compute(netlist, values)
    return found


SUM_OR_B = module(  # the lowest bit has become another function, with its inputs anywhere; the second fits
    [2, 3, 4, 5, 6],
    [10, 11, 13],
    lut([3, 6, ZERO, 2], 10, lambda b, s, _, a: b if s else a ^ b),
    carry(2, 3, ZERO, 12),
    lut([6, 4, 5, 12], 11, lambda s, a, b, c: b if s else a ^ b ^ c),
    carry(4, 5, 12, 13),
)
MAJORITY_OUT = module([2, 3, 4], [8], carry(2, 3, ZERO, 7), lut([7, 4], 8, lambda c, x: c and not x))
KEPT = module([2, 3], [6], carry(2, 3, ZERO, 5), flip_flop(5, 6), flip_flop(2, 9))
COUNT = module(  # x + 1, whose first carry has been optimised away
    [2, 3, 4],
    [10, 11, 12],
    lut([2], 10, lambda x: not x),
    lut([ZERO, 3, ZERO, 2], 11, lambda _, a, b, c: a ^ b ^ c),
    carry(3, ZERO, 2, 7),
    lut([ZERO, 4, ZERO, 7], 12, lambda _, a, b, c: a ^ b ^ c),
)


def test_a_carry_gets_a_lut_with_its_operands():
    assert (shared(SUM_OR_B), shared(arranged(SUM_OR_B))) == (1, 2)


def test_a_lut_takes_a_carry_out_at_its_fourth_pin():
    found = arranged(MAJORITY_OUT)
    assert found["cells"]["c1"]["connections"]["I3"] == [7]


def test_a_flip_flop_gets_a_carry_out_through_a_lut():
    netlist = copy.deepcopy(KEPT)
    netlist["ports"]["i"]["bits"].append(6)
    found = arranged(netlist)
    (name,) = found["cells"].keys() - netlist["cells"].keys()
    assert found["cells"][name]["connections"]["I3"] == [5]
    assert found["cells"]["c1"]["connections"]["D"] == found["cells"][name]["connections"]["O"]


def test_a_chain_is_entered_by_a_carry_that_shares_a_cell():
    found = arranged(COUNT)
    assert (shared(COUNT), shared(found)) == (1, 2)
    carries = [c["connections"] for c in found["cells"].values() if c["type"] == "SB_CARRY"]
    assert sorted(c["CI"] == [ZERO] for c in carries) == [False, True]
    assert found["cells"]["c1"]["connections"]["I3"] == next(c["CO"] for c in carries if c["CI"] == [ZERO])


@pytest.mark.parametrize("inputs", [4, 5])
def test_random_netlists_compute_the_same(rng, inputs):
    """LUTs, with constants and nets twice among their inputs, and carries, of anything in front of them."""
    for _ in range(40):
        nets, cells = [*range(2, 2 + inputs)], []
        for output in range(2 + inputs, 14 + inputs):
            pick = [[*nets, "0", "1"][k] for k in rng.integers(0, len(nets) + 2, 4)]
            if rng.random() < 0.5:
                table = rng.integers(0, 2, 16).tolist()
                cells.append(lut(pick, output, lambda *bits, t=table: t[sum(b << n for n, b in enumerate(bits))]))
            else:
                cells.append(carry(*pick[:3], output))
            nets.append(output)
        arranged(module(nets[:inputs], nets[-6:], *cells, flip_flop(nets[-7], 99)))
