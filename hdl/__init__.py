"""Reusable Amaranth components with stream ports."""
