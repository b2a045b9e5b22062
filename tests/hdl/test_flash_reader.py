"""The flash reader, on a model of the flash that checks the protocol."""

import itertools

import pytest

from gossamer.hdl.flash_reader import FlashReader
from gossamer.sim.flash import Flash
from gossamer.sim.streams import Bench, never, randomly

WORD_BYTES = [8, 16]
WAKE = 72  # 3 us at 24 MHz


def start_up(word_bytes, waits):
    """First cycle with ``command.ready``: a wait, instructions of 8, 8 and 16 clocks, and ``waits`` waits behind each."""
    return 2 * word_bytes + 8 + 8 + 16 + 3 * waits * 2 * word_bytes


def words_of(image, address, number, word_bytes):
    """What a command reads, byte by byte."""
    found = []
    for _ in range(number):
        found.append(sum(image[address + place] << 8 * place for place in range(word_bytes)))
        address += word_bytes
    return found


class Rig:
    """Reader and flash on a bench. Without ``cold`` the wait after the release is as short as can be."""

    def __init__(self, rng, commands, *, word_bytes=8, pauses=None, stalls=None, wake_cycles=WAKE, max_words=64, **flash):
        self.image = flash.pop("image", None) or rng.bytes(2000)
        self.dut = FlashReader(max_words=max_words, word_bytes=word_bytes, wake_cycles=wake_cycles)
        self.bench = Bench(self.dut)
        self.commands = [{"address": address, "words": number - 1} for address, number in commands]
        self.source = self.bench.source(self.dut.command, self.commands, pauses)
        self.command = self.bench.monitor(self.dut.command)
        self.o = self.bench.sink(self.dut.o, stalls)
        self.flash = Flash(self.dut, self.image, **flash)
        self.bench.process(self.flash.run)

    def run(self, **options):
        self.bench.run(quiet=80, **options)
        return self


def quick(rng, commands, **options):
    """A run whose start-up is short: the clock is so slow that the flash is awake at once."""
    return Rig(rng, commands, wake_cycles=1, clock_mhz=1, **options).run()


def check(rig, commands, word_bytes):
    """Values, and each cycle as the docstring of the reader has it."""
    expected = [words_of(rig.image, address, number, word_bytes) for address, number in commands]
    assert rig.o.payloads == list(itertools.chain(*expected))
    offers, free, taken = [], rig.command.offers[0], iter(rig.o.cycles)
    free = rig.command.cycles[0]
    for (_, number), offer, begin in zip(commands, rig.command.offers, rig.command.cycles):
        assert begin == max(free, offer)
        due = begin + 23 + 2 * word_bytes
        for _ in range(number):
            offers.append(due)
            due = (last := next(taken)) + 2 * word_bytes
        free = last + 1
    assert rig.o.offers == offers
    assert rig.flash.ignored == 0
    reads = [(address, nibbles) for _, instruction, address, nibbles in rig.flash.log if instruction == 0xEB]
    assert [address for address, _ in reads] == [address for address, _ in commands]
    for (_, nibbles), (_, number) in zip(reads, commands):
        assert 0 <= nibbles - 2 * word_bytes * number <= 3


@pytest.mark.parametrize("word_bytes", WORD_BYTES)
@pytest.mark.parametrize("pauses, stalls", [(0, 0), (0.8, 0), (0, 0.3), (0, 0.9), (0.5, 0.6)])
def test_words_and_cycles(rng, word_bytes, pauses, stalls):
    commands = [(int(rng.integers(1000)), int(rng.integers(1, 6))) for _ in range(6)]
    rig = quick(
        rng, commands, word_bytes=word_bytes, pauses=randomly(rng, pauses, 60), stalls=randomly(rng, stalls, 5)
    )
    check(rig, commands, word_bytes)
