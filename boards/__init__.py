"""One module per FPGA board: platform, clocks, pins, build."""

__all__ = ["BOARDS"]

BOARDS = ("icebreaker", "ulx3s_85f", "orangecrab", "colorlight_5a75b", "tang_nano_9k", "tang_primer_20k")
"""The boards: modules of this package that have a ``BOARD``."""
