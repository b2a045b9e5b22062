"""The command `gossamer`."""
