"""Copies store words to where they are used."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from gossamer.hdl.store import read_signature

__all__ = ["Loader", "Target", "command_layout"]


class Target(enum.Enum, shape=2):
    """Where the words go."""

    CONTROL = 0
    WEIGHTS = 1
    PARAMETERS = 2
    ROWS = 3


def command_layout(*, store_words: int, count: int) -> data.StructLayout:
    """``count`` words to ``target`` from granule ``index`` on: ``left`` padding words, then ``body`` store words from
    ``address`` on, then padding. ``address`` has one bit more than the store needs; ``count`` is the longest command.
    ``group_end`` is handed through."""
    return data.StructLayout(
        {
            "target": Target,
            "address": (store_words - 1).bit_length() + 1,
            "left": 8,
            "body": range(count + 1),
            "count": range(count + 1),
            "index": range(count),
            "group_end": 1,
        }
    )


class Loader(wiring.Component):
    """Reads store words, pads them and hands them on, one per cycle.

    In the last of a row's ``body`` words the bytes from ``tail`` on are padding too. A word appears on ``write`` two cycles
    after the transfer of the command, and then every cycle in which the store is ready. ``i.ready`` is high while the
    last word is being asked for, so that commands follow each other without gaps; it depends combinationally on
    ``read.ready``.

    A read behind the store is not made and raises ``error`` for one cycle. ``count`` must not be 0. Reset drops the
    command in work.

    Parameters
    ----------
    store_bytes, store_words : int
        See :class:`Store`.
    count : int
        Words of the longest command, and granules of the deepest target.

    Members
    -------
    i : ``In(stream.Signature(command_layout(...)))``
    read : ``Out(read_signature(...))``
    write : ``Out({en: 1, target: Target, index, data, last: 1, group_end: 1})``
        ``last`` marks the command's last word; ``group_end`` is the command's, with its last word.
    error, idle : ``Out(1)``
    pad : ``In(8)``
    tail : ``In(5)``
        Fields of the layer descriptor; they must not change while a command for rows is in work.
    """

    def __init__(self, *, store_bytes: int, store_words: int, count: int):
        self._store_bytes, self._store_words = store_bytes, store_words
        super().__init__(
            {
                "i": In(stream.Signature(command_layout(store_words=store_words, count=count))),
                "read": Out(read_signature(store_bytes=store_bytes, store_words=store_words)),
                "write": Out(
                    wiring.Signature(
                        {
                            "en": Out(1),
                            "target": Out(Target),
                            "index": Out(range(count)),
                            "data": Out(8 * store_bytes),
                            "last": Out(1),
                            "group_end": Out(1),
                        }
                    )
                ),
                "error": Out(1),
                "idle": Out(1),
                "pad": In(8),
                "tail": In(5),
            }
        )

    def elaborate(self, platform):
        m = Module()
        active = Signal()
        command = Signal.like(self.i.p, reset_less=True)
        padding, last, body_last, behind, step = Signal(), Signal(), Signal(), Signal(), Signal()

        m.d.comb += [
            padding.eq((command.left != 0) | (command.body == 0)),
            body_last.eq(command.body == 1),
            last.eq(command.count == 1),
            behind.eq(command.address >= self._store_words),
            self.read.en.eq(active & ~padding),
            self.read.address.eq(command.address),
            self.error.eq(self.read.en & behind),
            step.eq(active & (padding | self.read.ready)),
            self.i.ready.eq(~active | (step & last)),
        ]
        with m.If(step):
            m.d.sync += [command.count.eq(command.count - 1), command.index.eq(command.index + 1)]
            with m.If(command.left != 0):
                m.d.sync += command.left.eq(command.left - 1)
            with m.Elif(command.body != 0):
                m.d.sync += [command.body.eq(command.body - 1), command.address.eq(command.address + 1)]
            with m.If(last):
                m.d.sync += active.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [active.eq(1), command.eq(self.i.p)]

        # One cycle later the word is there.
        all_pad, tail_pad = Signal(), Signal()
        m.d.sync += [
            self.write.en.eq(step),
            self.write.target.eq(command.target),
            self.write.index.eq(command.index),
            self.write.last.eq(last),
            self.write.group_end.eq(last & command.group_end),
            all_pad.eq(padding),
            tail_pad.eq(body_last & (command.target == Target.ROWS)),
        ]
        pads = [all_pad | (tail_pad & (self.tail <= byte)) for byte in range(self._store_bytes)]
        m.d.comb += self.write.data.eq(
            Cat(Mux(pads[b], self.pad, self.read.data.word_select(b, 8)) for b in range(self._store_bytes))
        )
        m.d.comb += self.idle.eq(~active & ~self.write.en)
        return m
