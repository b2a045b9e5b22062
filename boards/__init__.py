"""One module per FPGA board: platform, clocks, pins, build."""
