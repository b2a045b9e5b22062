"""The model of the flash, by a host that sends what it is told, cycle by cycle: each mistake is found."""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from gossamer.sim.flash import Flash, FlashError

IMAGE = bytes(range(1, 200))

REST = (0, 1, 0, 0)
"""``(sck, cs_n, dq.o, dq.oe)`` of a cycle without anything."""

HOLD = (0, 0, 0, 0)
"""Selected, without a clock."""

WAKE_CYCLES = 72  # 3 us at 24 MHz


def byte(value, high=0xE):
    """Eight clocks on one line, the others having the bits ``high``."""
    return [(1, 0, high | value >> place & 1, 1) for place in reversed(range(8))]


def quad(value, digits):
    """A number on four lines."""
    return [(1, 0, value >> 4 * place & 15, 1) for place in reversed(range(digits))]


def read(address, nibbles, mode=0xFF, dummy=4):
    """Selected long enough to sample the last nibble."""
    return [*byte(0xEB), *quad(address, 6), *quad(mode, 2), *[(1, 0, 0, 0)] * (dummy + nibbles - 1), HOLD]


def after(*parts, rest=WAKE_CYCLES):
    """Selections, with ``rest`` cycles behind each."""
    return [cycle for part in parts for cycle in [*part, *[REST] * rest]]


RELEASE, VOLATILE, ENABLE = byte(0xAB), byte(0x50), [*byte(0x31), *byte(0x02)]
START = after(RELEASE, VOLATILE, ENABLE)


def run(cycles, **options):
    """The flash, and what ``dq.i`` is in each cycle."""
    pins = SimpleNamespace(sck=Signal(), cs_n=Signal(init=1), dq=SimpleNamespace(o=Signal(4), oe=Signal(), i=Signal(4)))
    flash = Flash(pins, options.pop("image", IMAGE), **options)
    seen = []
    m = Module()
    m.d.sync += Signal().eq(1)

    async def host(ctx):
        for values in [*cycles, *[REST] * 3]:
            for pin, value in zip((pins.sck, pins.cs_n, pins.dq.o, pins.dq.oe), values):
                ctx.set(pin, value)
            *_, lines = await ctx.tick().sample(pins.dq.i)
            seen.append(lines)

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(host)
    simulator.add_testbench(flash.run, background=True)
    simulator.run()
    return flash, seen


@pytest.mark.parametrize(
    "address, expected", [(0, [1, 2, 3]), (5, [6, 7, 8]), (198, [199, 0xFF, 0xFF]), ((1 << 24) - 1, [0xFF, 1, 2])]
)
def test_nibbles_come_three_cycles_after_their_clock(address, expected):
    flash, seen = run([*START, *read(address, 6)])
    first = len(START) + 19 + 3  # the last of the 20 clocks in front of the data is the first nibble's
    assert seen[first - 1] in (0x5, 0xA), "nobody drives the lines before"
    assert seen[first : first + 6] == [digit for value in expected for digit in (value >> 4, value & 15)]
    assert flash.log[-1] == (len(START) + 1, 0xEB, address, 5)


def test_a_nibble_stays_while_the_clock_pauses():
    """Bytes 0x10 and 0x11, a pause behind the second nibble."""
    _, seen = run([*START, *read(0x0F, 2), *[HOLD] * 3, (1, 0, 0, 0), *[HOLD] * 4])
    first = len(START) + 19 + 3
    assert seen[first : first + 8] == [1, 0, 0, 0, 0, 0, 1, 1]


def test_the_log_has_what_was_executed():
    flash, _ = run(after(RELEASE, VOLATILE, ENABLE, read(0x123456, 16), read(2, 4)))
    assert [entry[1:] for entry in flash.log] == [
        (0xAB, None, None),
        (0x50, None, None),
        (0x31, None, None),
        (0xEB, 0x123456, 15),
        (0xEB, 2, 3),
    ]
    assert (flash.asleep, flash.quad, flash.ignored) == (False, True, 0)


@pytest.mark.parametrize(
    "before, part",
    [
        ([], RELEASE[:7]),
        ([], RELEASE[:1]),
        ([RELEASE], VOLATILE[:7]),
        ([RELEASE, VOLATILE], ENABLE[:8]),
        ([RELEASE, VOLATILE], ENABLE[:15]),
        ([RELEASE, VOLATILE, ENABLE], read(0, 1)[:19]),
    ],
)
def test_an_instruction_that_ends_early_is_ignored(before, part):
    flash, _ = run(after(*before, part))
    assert flash.ignored == 1
    assert len(flash.log) == len(before)
    assert flash.asleep is (not before)
    assert flash.quad is (ENABLE in before)


def test_behind_a_read_ten_nanoseconds_are_enough():
    """Three cycles of 240 MHz."""
    state = {"asleep": False, "quad": True, "clock_mhz": 240}
    flash, _ = run(after(read(0, 1), read(1, 1), rest=3), **state)
    assert len(flash.log) == 2
    with pytest.raises(FlashError, match=r"^the flash must not be selected before cycle 25, in cycle 24$"):
        run(after(read(0, 1), read(1, 1), rest=2), **state)


def test_a_status_is_volatile_only_right_behind_its_enable():
    with pytest.raises(FlashError, match=r"^0x50 must come before 0x31, in cycle \d+$"):
        run(after(RELEASE, VOLATILE, RELEASE, ENABLE))


def test_qe_can_be_cleared():
    flash, _ = run(after(RELEASE, VOLATILE, [*byte(0x31), *byte(0)]), quad=True)
    assert not flash.quad


@pytest.mark.parametrize(
    "cycles, message",
    [
        (VOLATILE, "in power-down instruction 0x50 must not be sent"),
        ([*after(RELEASE, rest=WAKE_CYCLES - 1), *VOLATILE], f"the flash must not be selected before cycle {9 + WAKE_CYCLES}"),
        ([*after(RELEASE), *after(VOLATILE, rest=1), *ENABLE], "the flash must not be selected before cycle 91"),
        (after(RELEASE, VOLATILE, read(0, 4)), "QE must be 1 for a read over four lines"),
        (after(RELEASE, ENABLE), "0x50 must come before 0x31"),
        (after(RELEASE, byte(0x9F)), "instruction 0x9f must be one that the model has"),
        (after(RELEASE, [*VOLATILE, HOLD, *VOLATILE[:1]]), "instruction 0x50 must have 8 clocks, not 9"),
        (after(RELEASE, VOLATILE, [*ENABLE, *ENABLE[:1]]), "instruction 0x31 must have 16 clocks, not 17"),
        (after(RELEASE, VOLATILE, [*byte(0x31), *byte(0x03)]), "of the status only QE must be set, not 0x03"),
        ([*START, *read(0, 4, mode=0xA0)], "the mode bits must be 0xFx"),
        ([*START, *read(0, 4)[:19], (1, 0, 0, 1), (1, 0, 0, 1)], "reader and flash must not drive the lines at once"),
        ([*START, *[(1, 0, 0, 0)] * 4], "the reader must drive the lines while it sends"),
        ([*START, *byte(0xEB), *[(1, 0, 0, 0)]], "the reader must drive the lines while it sends"),
        ([*START, *byte(0xEB), *quad(0, 6), (1, 0, 15, 0)], "the reader must drive the lines while it sends"),
        (byte(0xAB, high=0x6), "IO2 and IO3 must be high while QE is 0: they are /WP and /HOLD"),
        (byte(0xAB, high=0xA), "IO2 and IO3 must be high while QE is 0: they are /WP and /HOLD"),
        ([REST, (1, 1, 0, 0)], "the clock must rest while the flash is not selected"),
    ],
)
def test_a_mistake_is_found(cycles, message):
    with pytest.raises(FlashError, match=rf"^{message}, in cycle \d+$"):
        run(cycles)


@pytest.mark.parametrize("dummy", [2, 3, 5])
def test_a_wrong_number_of_dummy_clocks_reads_something_else(dummy):
    """The host that expects its data after ``dummy`` clocks."""
    _, seen = run([*START, *read(0x55, 8, dummy=dummy)])
    first = len(START) + 16 + dummy - 1 + 3
    assert seen[first : first + 4] != [0x5, 0x6, 0x5, 0x7]
    _, seen = run([*START, *read(0x55, 8)])
    first = len(START) + 16 + 4 - 1 + 3
    assert seen[first : first + 4] == [0x5, 0x6, 0x5, 0x7]


def test_lines_that_nobody_drives_change():
    _, seen = run([*[REST] * 10])
    assert len(set(seen[3:])) == 2
