"""What constructors check of their arguments."""

__all__ = ["require", "require_powers_of_two", "require_technology"]


def require(condition: bool, message: str) -> None:
    """Raise :class:`ValueError` unless ``condition``. ``message`` is one sentence with the rule and the value."""
    if not condition:
        raise ValueError(message)


def require_powers_of_two(**sizes: int) -> None:
    """Each of the arguments, passed by name, must be a power of two."""
    for name, value in sizes.items():
        require(value > 0 and value & (value - 1) == 0, f"{name} must be a power of two, not {value}")


def require_technology(technology: str) -> None:
    """The argument ``technology`` must be one for which there are cells."""
    require(technology in ("generic", "ice40"), f"technology must be 'generic' or 'ice40', not {technology!r}")
