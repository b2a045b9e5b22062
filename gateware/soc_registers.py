"""What the processor of a SoC sees: windows and registers."""

from collections.abc import Mapping

from gossamer.golden.spec import Field, Register

__all__ = ["CORE", "PERIPHERALS", "RAM", "ROM", "SOC_REGISTERS", "WINDOWS"]

RAM, ROM, CORE, PERIPHERALS = 0x0000_0000, 0x2000_0000, 0x4000_0000, 0x8000_0000
"""Where each is on the processor's bus, in a window of 16 MB."""

WINDOWS: Mapping[str, int] = {"ram": RAM, "rom": ROM, "core": CORE, "peripherals": PERIPHERALS}
"""The same by name."""

SOC_REGISTERS = (
    Register(
        "uart",
        0x00,
        "rw",
        "The serial port. A write sends a byte, and waits until the port takes it; a read takes the next that has come.",
        {"data": Field(0, 8, doc="the byte"), "valid": Field(8, 1, doc="reads 1 if a byte had come")},
    ),
    Register(
        "state",
        0x04,
        "rw",
        "What has happened. Every write clears `overflow`, `framing` and `fault`.",
        {
            "irq": Field(0, 1, doc="the core's interrupt"),
            "overflow": Field(1, 1, doc="a byte has come with no room for it, and is lost"),
            "framing": Field(2, 1, doc="a byte has come without its stop bit, and is lost"),
            "fault": Field(3, 1, doc="an access led nowhere, or the core or another slave has refused it"),
        },
    ),
    Register("timer", 0x08, "r", "Clock cycles since reset, modulo 2^32.", {"cycles": Field(0, 32)}),
    Register("clock", 0x0C, "r", "The clock's rate.", {"mhz": Field(0, 16, doc="MHz")}),
)
"""The registers at :data:`PERIPHERALS`."""
