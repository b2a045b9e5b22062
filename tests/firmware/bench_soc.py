"""A SoC that prints: test_soc.py runs this in the simulator, and says what must come."""

import json
import os

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, Timer, with_timeout

PERIOD, DIVISOR = 10, 8  # ns, cycles per bit
MOST_MS = 500


async def received(tx):
    """The next byte on the line; checks the stop bit."""
    await FallingEdge(tx)
    await Timer(PERIOD * DIVISOR // 2, "ns")
    bits = []
    for _ in range(10):
        bits.append(int(tx.value))
        if len(bits) < 10:
            await Timer(PERIOD * DIVISOR, "ns")
    assert (bits[0], bits[9]) == (0, 1), "a byte must have a start and a stop bit"
    return sum(bit << i for i, bit in enumerate(bits[1:9]))


@cocotb.test()
async def test_the_lines_that_are_expected(dut):
    expected = json.loads(os.environ["SOC_EXPECTED"])
    dut.rx.value = 1
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, PERIOD, "ns").start())
    await Timer(4 * PERIOD, "ns")
    assert dut.tx.value == 1, "the line must be high in reset"
    dut.rst.value = 0
    for line in expected:
        found = b""
        while not found.endswith(b"\r\n"):
            found += bytes([await with_timeout(received(dut.tx), MOST_MS, "ms")])
        assert found.decode() == f"{line}\r\n"
    assert dut.failed.value == 0
