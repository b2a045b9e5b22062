"""Weight vectors of the current channel groups, next to the array."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from gossamer.hdl.checks import require, require_powers_of_two
from gossamer.hdl.store import UNCHECKED

__all__ = ["WeightBuffer"]


class WeightBuffer(wiring.Component):
    """Memory of weight vectors, written in granules, or in pairs of them, and read whole.

    ``read.data`` follows ``read.address`` by one cycle and holds while ``read.en`` is low. A granule written in one cycle
    is seen from the next. The result of reading a vector in the cycle in which it is written is undefined; the compiler gives
    each layer vectors of its own, so that the next layer's can be loaded while this one computes. Reset keeps the contents.

    Parameters
    ----------
    lanes : int
        Bytes per vector; a power of two.
    granule : int
        Bytes per write; a power of two up to ``lanes``.
    vectors : int
        Depth; a power of two.
    paired : bool
        Written in pairs of granules, of which ``en`` has a bit each.

    Members
    -------
    write : ``In({en: 1, address: granule number, data: granule bytes})``, or ``In({en: 2, address: pair number, data})``
    read : ``In({en: 1, address: vector number, data: Out(vector bytes)})``
    """

    def __init__(self, *, lanes: int, granule: int, vectors: int, paired: bool = False):
        require_powers_of_two(lanes=lanes, granule=granule, vectors=vectors)
        require(granule <= lanes, f"granule must be at most lanes ({lanes}), not {granule}")
        self._lanes, self._granule, self._vectors, self._together = lanes, granule, vectors, 1 + paired
        require(self._together * granule <= lanes, f"lanes must be at least a pair of granules, not {lanes}")
        writes = vectors * (lanes // granule) // self._together
        super().__init__(
            {
                "write": In(
                    wiring.Signature(
                        {
                            "en": Out(self._together),
                            "address": Out(range(writes)),
                            "data": Out(8 * granule * self._together),
                        }
                    )
                ),
                "read": In(wiring.Signature({"en": Out(1), "address": Out(range(vectors)), "data": In(8 * lanes)})),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sub_bits = exact_log2(self._lanes // self._granule // self._together)
        # One memory per granule: byte enables would confine block RAMs to their widest and shallowest shape.
        sub = self.write.address[:sub_bits]
        for i in range(self._lanes // self._granule):
            place, part = divmod(i, self._together)
            m.submodules[f"memory{i}"] = memory = Memory(
                shape=8 * self._granule, depth=self._vectors, init=[], attrs=UNCHECKED
            )
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(self.write.address[sub_bits:]),
                write.data.eq(self.write.data.word_select(part, 8 * self._granule)),
                write.en.eq(self.write.en[part] & (sub == place)),
                read.addr.eq(self.read.address),
                read.en.eq(self.read.en),
                self.read.data.word_select(i, 8 * self._granule).eq(read.data),
            ]
        return m
