"""The checks of constructor arguments."""

import pytest

from gossamer.hdl.checks import require, require_powers_of_two, require_technology


def test_the_message_is_the_whole_sentence():
    require(True, "rows must be even, not 3")
    with pytest.raises(ValueError, match=r"^rows must be even, not 3$"):
        require(False, "rows must be even, not 3")


@pytest.mark.parametrize("value", [1, 2, 4, 64, 1 << 40])
def test_powers_of_two_pass(value):
    require_powers_of_two(lanes=1, words=value)


@pytest.mark.parametrize("value", [-4, -1, 0, 3, 6, 63, 65, (1 << 40) + 1])
def test_other_sizes_are_named_with_their_value(value):
    with pytest.raises(ValueError, match=rf"^words must be a power of two, not {value}$"):
        require_powers_of_two(lanes=8, words=value, vectors=3)


def test_technology_must_be_known():
    require_technology("generic")
    require_technology("ice40")
    with pytest.raises(ValueError, match=r"^technology must be 'generic' or 'ice40', not 'ecp5'$"):
        require_technology("ecp5")
