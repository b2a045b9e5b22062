"""The Wishbone port of the core, and of what surrounds it."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ADDRESS_BITS", "wishbone_signature"]

ADDRESS_BITS = 24
"""Bits of a byte address on the core's bus."""


def wishbone_signature(*, pipelined: bool = False, address_bits: int = ADDRESS_BITS) -> wiring.Signature:
    """Wishbone B4, classic or pipelined, 32 bits, from the master's side; ``adr`` counts 32-bit words, and has two bits less
    than a byte address.

    Ref: OpenCores, "Wishbone B4", 2010.
    """
    return wiring.Signature(
        {
            "cyc": Out(1),
            "stb": Out(1),
            "we": Out(1),
            "adr": Out(address_bits - 2),
            "sel": Out(4),
            "dat_w": Out(32),
            "dat_r": In(32),
            "ack": In(1),
            "err": In(1),
            **({"stall": In(1)} if pipelined else {}),
        }
    )
