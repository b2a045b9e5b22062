"""Simulation: drivers, monitors, memories, networks on RTL."""
