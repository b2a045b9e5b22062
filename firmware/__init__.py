"""Host drivers: C and Python."""
