"""Integration: core, registers, bus bridges, Verilog generation."""
