"""Brings words of the external memory into the store."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from gossamer.golden.spec import EXTERNAL_WORDS, MOST_FETCHED
from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.counter import counted
from gossamer.hdl.store import write_signature

__all__ = ["COUNT_BITS", "Fetcher", "fetch_layout", "memory_signature"]

COUNT_BITS = bits_for(MOST_FETCHED)


def fetch_layout(*, store_words: int) -> data.StructLayout:
    """A word and ``more`` behind it, from word ``address`` of the external memory to word ``destination`` of the store.

    ``destination`` has one bit more than the store needs, so that an address behind it is seen."""
    return data.StructLayout(
        {"address": range(EXTERNAL_WORDS), "destination": bits_for(store_words - 1) + 1, "more": COUNT_BITS}
    )


def memory_signature(*, store_bytes: int) -> wiring.Signature:
    """A port to an external memory, from the side that reads: for each request its words, in order.

    Request and words are transferred as in streams. ``request_words`` is the number of words less one."""
    return wiring.Signature(
        {
            "request_valid": Out(1),
            "request_ready": In(1),
            "request_address": Out(range(EXTERNAL_WORDS)),
            "request_words": Out(COUNT_BITS),
            "valid": In(1),
            "ready": Out(1),
            "data": In(8 * store_bytes),
        }
    )


class Fetcher(wiring.Component):
    """Copies words from an external memory into the store, in the cycles that others leave.

    A command goes on to the memory in the cycle in which it is taken: ``memory.request_valid`` depends combinationally on
    ``i.valid``, and ``i.ready`` on ``memory.request_ready``. Each word is written in the cycle of its transfer;
    ``memory.ready`` depends combinationally on ``hold``. ``idle`` is high from the cycle after the last word to
    the next command.

    A word outside the store, or below ``image_words``, is not written and raises ``error`` in the same cycle. After ``drop``
    the words of the command in work are taken, but not written, and raise no error.

    Parameters
    ----------
    store_bytes, store_words : int
        See :class:`Store`.

    Members
    -------
    i : ``In(stream.Signature(fetch_layout(...)))``
    memory : ``Out(memory_signature(...))``
    write : ``Out(write_signature(...))``
    hold : ``In(1)``
        Someone else writes to the store.
    drop : ``In(1)``
    idle, error : ``Out(1)``
    image_words : ``In``
        Must not change while a command is in work.
    """

    def __init__(self, *, store_bytes: int, store_words: int):
        require_powers_of_two(store_bytes=store_bytes)
        require(store_words >= 1, f"store_words must be at least 1, not {store_words}")
        self._store_words = store_words
        super().__init__(
            {
                "i": In(stream.Signature(fetch_layout(store_words=store_words))),
                "memory": Out(memory_signature(store_bytes=store_bytes)),
                "write": Out(write_signature(store_bytes=store_bytes, store_words=store_words)),
                "hold": In(1),
                "drop": In(1),
                "idle": Out(1, init=1),
                "error": Out(1),
                "image_words": In(range(store_words)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        memory = self.memory
        destination = Signal.like(self.i.p.destination, reset_less=True)
        gone = Signal(COUNT_BITS, reset_less=True)  # the complement of the words left behind the next
        dropping, allowed = Signal(), Signal()
        take, start = memory.valid & memory.ready, self.i.valid & self.i.ready
        m.d.comb += [
            memory.request_valid.eq(self.i.valid & self.idle),
            memory.request_address.eq(self.i.p.address),
            memory.request_words.eq(self.i.p.more),
            self.i.ready.eq(self.idle & memory.request_ready),
            memory.ready.eq(~self.idle & ~self.hold),
            allowed.eq((destination >= self.image_words) & (destination < self._store_words)),
            self.write.en.eq(take & allowed & ~dropping),
            self.write.address.eq(destination),
            self.write.data.eq(memory.data),
            self.write.mask.eq(~0),
            self.error.eq(take & ~allowed & ~dropping),
        ]
        last = gone.all()
        with m.If(take & last):
            m.d.sync += [self.idle.eq(1), dropping.eq(0)]
        with m.If(start):
            m.d.sync += self.idle.eq(0)
        with m.If(take | start):
            m.d.sync += [
                destination.eq(counted(destination, start, self.i.p.destination)),
                gone.eq(counted(gone, start, ~self.i.p.more)),
            ]
        with m.If(self.drop & ~self.idle & ~(take & last)):
            m.d.sync += dropping.eq(1)
        return m
