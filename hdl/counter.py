"""Counters that can be loaded."""

from amaranth.hdl import Mux

__all__ = ["counted", "popcount"]


def counted(register, load, value):
    """The next value of a ``register`` that counts up: ``value`` if ``load``, else one more.

    Written as a sum whose second operand is ``load``, it is one cell per bit where cells have four inputs and a carry chain.
    For the same reason a count down is the count up of a complement.
    """
    more = register - (~load).replicate(len(register))
    return Mux(load, value, more[: len(register)])


def popcount(bits):
    """How many bits are set, by halves."""
    if len(bits) == 1:
        return bits
    half = len(bits) // 2
    return popcount(bits[:half]) + popcount(bits[half:])
