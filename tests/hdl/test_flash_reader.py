"""The flash reader, on a model of the flash that checks the protocol."""

import itertools

import pytest

from gossamer.hdl.flash_reader import FlashReader
from gossamer.sim.flash import Flash
from gossamer.sim.streams import Bench, never, randomly

WORD_BYTES = [8, 16]

each_word_size = pytest.mark.parametrize("word_bytes", WORD_BYTES)


def words_of(image, address, number, word_bytes):
    """What a command reads, byte by byte. Behind the image the flash is erased; it has 16 MiB."""
    found = []
    for _ in range(number):
        word = 0
        for place in range(word_bytes):
            byte = address % (1 << 24)
            word += (image[byte] if byte < len(image) else 0xFF) << 8 * place
            address += 1
        found.append(word)
    return found


class Rig:
    """Reader and flash on a bench. ``commands`` are pairs of an address and a number of words. Unless told otherwise the
    clock is so slow that the flash is awake at once, and so the start-up short."""

    def __init__(
        self, rng, commands, *, word_bytes=8, max_words=64, wake_cycles=3, clock_mhz=1, pauses=None, stalls=None, **flash
    ):
        self.image = rng.bytes(2000)
        self.word_bytes = word_bytes
        self.commands = commands
        self.dut = FlashReader(max_words=max_words, word_bytes=word_bytes, wake_cycles=wake_cycles)
        self.bench = Bench(self.dut)
        self.source = self.bench.source(self.dut.command, self.payloads, pauses)
        self.command = self.bench.monitor(self.dut.command)
        self.o = self.bench.sink(self.dut.o, stalls)
        self.flash = Flash(self.dut, self.image, clock_mhz=clock_mhz, **flash)
        self.bench.process(self.flash.run)
        self.pins = []  # (sck, cs_n, oe) in each cycle
        self.bench.process(self.watch)

    async def watch(self, ctx):
        while True:
            _, _, *pins = await ctx.tick().sample(self.dut.sck, self.dut.cs_n, self.dut.dq.oe)
            self.pins.append(tuple(pins))

    @property
    def payloads(self):
        return [{"address": address, "words": number - 1} for address, number in self.commands]

    @property
    def reads(self):
        return [entry for entry in self.flash.log if entry[1] == 0xEB]

    def run(self, **options):
        self.bench.run(quiet=100, **options)
        return self

    def check(self):
        """Values, and each cycle that the reader's docstring promises."""
        size = self.word_bytes
        expected = [words_of(self.image, *command, size) for command in self.commands]
        assert self.o.payloads == list(itertools.chain(*expected))
        assert self.command.payloads == self.payloads
        assert [address for _, _, address, _ in self.reads] == [address for address, _ in self.commands]
        assert self.flash.ignored == 0
        taken, offers, free = iter(self.o.cycles), [], 0
        for (_, number), offer, begin in zip(self.commands, self.command.offers, self.command.cycles):
            if free:
                assert begin == max(free, offer)
            due = begin + 23 + 2 * size
            for _ in range(number):
                offers.append(due)
                last = next(taken)
                due = last + 2 * size
            free = last + 1
        assert self.o.offers == offers


def random_commands(rng, number):
    return [(int(rng.integers(1900)), int(rng.integers(1, 6))) for _ in range(number)]


# Reads


@each_word_size
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.8, 0), (0, 0.3), (0, 0.95), (0.5, 0.6)])
def test_words_arrive_in_their_cycles(rng, word_bytes, pauses, stalls):
    Rig(
        rng,
        random_commands(rng, 5),
        word_bytes=word_bytes,
        pauses=randomly(rng, pauses, 60),
        stalls=randomly(rng, stalls, 6),
    ).run().check()


@pytest.mark.parametrize("word_bytes, first, step", [(8, 39, 16), (16, 55, 32)])
def test_a_nibble_per_cycle_without_gaps(rng, word_bytes, first, step):
    rig = Rig(rng, [(8, 4), (0, 2)], word_bytes=word_bytes).run()
    begin, again = rig.command.cycles
    assert rig.o.cycles == [
        *(begin + first + step * word for word in range(4)),
        *(again + first + step * word for word in range(2)),
    ]
    assert again == begin + first + 3 * step + 1
    # Selected from the cycle after the transfer on until the last word is offered, with a pulse in each cycle.
    selected = [cycle for cycle, (_, cs_n, _) in enumerate(rig.pins) if not cs_n and begin < cycle < again]
    assert selected == list(range(begin + 1, rig.o.cycles[3]))
    assert selected == [cycle for cycle, (sck, _, _) in enumerate(rig.pins) if sck and begin < cycle < again]
    assert [cycle for cycle, (_, _, oe) in enumerate(rig.pins) if oe and begin < cycle < again] == selected[:16]


@each_word_size
@pytest.mark.parametrize("ahead", [False, True])
def test_nothing_is_lost_in_a_pause_of_any_length(rng, word_bytes, ahead):
    """Word ``n`` is taken ``n`` cycles after it is offered. With ``ahead`` the consumer is ready until then, and else only in
    the cycle of the transfer."""
    start = 32 + 6 * word_bytes * 2
    stalled, valid = [], start + 23 + 2 * word_bytes
    for length in range(8):
        stalled += [not ahead] * (valid - len(stalled)) + [True] * length + [False]
        valid = len(stalled) - 1 + 2 * word_bytes
    rig = Rig(rng, [(100, 8)], word_bytes=word_bytes, stalls=itertools.chain(stalled, never())).run()
    rig.check()
    assert [taken - offer for offer, taken in zip(rig.o.offers, rig.o.cycles)] == list(range(8))
    pulses = sum(sck for sck, _, _ in rig.pins[start:])
    selected = sum(not cs_n for _, cs_n, _ in rig.pins[start:])
    assert pulses == 22 + 8 * 2 * word_bytes
    assert selected - pulses == sum(range(7)), "the clock pauses while a word but the last waits"


@each_word_size
@pytest.mark.parametrize("address", [0, 1, 0x555555, 0xAAAAAA, 0xFFFFFF, 0xFFFFFB])
def test_each_address_and_around_the_end(rng, word_bytes, address):
    Rig(rng, [(address, 2)], word_bytes=word_bytes).run().check()


@pytest.mark.parametrize("max_words", [1, 2, 3, 4, 5, 33])
def test_longest_and_shortest_command(rng, max_words):
    Rig(rng, [(7, max_words), (9, 1), (20, max_words)], max_words=max_words).run().check()


def test_the_next_command_waits_for_the_last_word(rng):
    """A word that is not taken is not overwritten."""
    rig = Rig(rng, [(1, 1), (2, 1)], stalls=itertools.chain([True] * 350, never())).run()
    rig.check()
    assert rig.o.cycles[0] == 350
    assert rig.command.cycles[1] == 351


def test_deselected_for_two_cycles_between_commands(rng):
    """40 MHz is the fastest clock with 50 ns in two cycles; the model raises an error if it is less."""
    rig = Rig(rng, [(0, 1), (0, 1)], wake_cycles=120, clock_mhz=40).run()
    rig.check()
    begin, end = rig.command.cycles[1] - 2, rig.command.cycles[1] + 2
    assert [cs_n for _, cs_n, _ in rig.pins[begin:end]] == [0, 1, 1, 0]


# Start-up


@pytest.mark.parametrize(
    "word_bytes, wake_cycles, waits",
    [(8, 1, 2), (8, 32, 2), (8, 33, 4), (8, 64, 4), (8, 65, 8), (8, 72, 8), (16, 64, 2), (16, 65, 4), (16, 90, 4)],
)
def test_start_up(rng, word_bytes, wake_cycles, waits):
    rig = Rig(rng, [(3, 1)], word_bytes=word_bytes, wake_cycles=wake_cycles).run()
    rig.check()
    wait = waits * 2 * word_bytes
    ready = 2 * word_bytes + 8 + wait + 8 + wait + 16 + wait - 2 * word_bytes
    assert rig.command.cycles == [ready]
    # The first selection is in cycle 2*word_bytes, and at the pins one later.
    release, enable = 2 * word_bytes + 1, 2 * word_bytes + 1 + 8 + wait
    assert rig.flash.log[:3] == [
        (release, 0xAB, None, None),
        (enable, 0x50, None, None),
        (enable + 8 + wait, 0x31, None, None),
    ]
    assert rig.flash.log[3][:3] == (ready + 2, 0xEB, 3)


@pytest.mark.parametrize("clock_mhz, wake_cycles", [(24, 72), (30, 90)])
@pytest.mark.parametrize("asleep, quad", [(False, False), (False, True), (True, False), (True, True)])
def test_start_up_suits_each_state_of_the_flash(rng, clock_mhz, wake_cycles, asleep, quad):
    rig = Rig(rng, [(50, 2)], wake_cycles=wake_cycles, clock_mhz=clock_mhz, asleep=asleep, quad=quad).run()
    rig.check()
    assert rig.flash.quad
    assert not rig.flash.asleep


# Reset


@pytest.mark.parametrize(
    "word_bytes, stall, phase, cycle",
    [
        *((8, False, "start", cycle) for cycle in (0, 20, 60, 75, 90)),
        *((8, False, "read", cycle) for cycle in (0, 1, 7, 14, 17, 20, 23, 39, 40)),
        *((8, True, "read", cycle) for cycle in (39, 40, 41, 42, 57)),
        *((16, False, "read", cycle) for cycle in (16, 17, 54)),
        *((16, True, "read", cycle) for cycle in (55, 56, 60)),
    ],
)
def test_reset_drops_the_command_and_begins_anew(rng, word_bytes, stall, phase, cycle):
    """The consumer stalls until the reset, or never. The read's cycles count from the transfer of the command."""
    start = 32 + 6 * word_bytes * 2
    reset = cycle + (start if phase == "read" else 0)
    rig = Rig(
        rng,
        [(500, 3)],
        word_bytes=word_bytes,
        wake_cycles=24,
        clock_mhz=8,
        stalls=itertools.chain([stall] * (reset + 1), never()),
    )
    second = [(1000, 2), (30, 1)]

    def restart():
        rig.commands = second
        rig.source.restart(rig.payloads)

    rig.run(resets={reset: restart})
    assert rig.pins[reset + 1] == (0, 1, 0)
    after = [(at, word) for at, word in rig.o.transfers if at > reset]
    begin = reset + 1 + start
    assert next(at for at in rig.command.cycles if at > reset) == begin
    assert after[0][0] == begin + 23 + 2 * word_bytes
    assert [word for _, word in after] == [
        word for address, number in second for word in words_of(rig.image, address, number, word_bytes)
    ]
    assert rig.flash.ignored <= 1


# Parameters


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("max_words", 0, "max_words must be at least 1, not 0"),
        ("word_bytes", 4, "word_bytes must be 8 or 16, not 4"),
        ("word_bytes", 32, "word_bytes must be 8 or 16, not 32"),
        ("wake_cycles", 0, "wake_cycles must be at least 1, not 0"),
    ],
)
def test_parameters_are_checked(name, value, message):
    with pytest.raises(ValueError, match=rf"^{message}$"):
        FlashReader(**{"max_words": 4, "word_bytes": 8, "wake_cycles": 72, name: value})
