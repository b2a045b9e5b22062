"""One module per FPGA board: platform, clocks, pins, build."""

__all__ = ["BOARDS"]

BOARDS = ("icebreaker", "orangecrab", "tang_nano_9k")
"""The boards: modules of this package that have a ``BOARD``."""
