"""Strips: a network's maps cut into vertical strips that are computed one after the other.

A strip of a map is as wide as those who read it need: next to the strip of the output there are halos, computed once for each
of the two strips beside an edge. Within a strip nothing is computed twice, however many rows it has. So a map that is too wide
for the memory, or for the row buffer, costs a few columns of halo and not a tile's rows as well.

Ref: Lin et al., "MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning", 2021 (patches with halos).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from gossamer.golden.layout import Layout
from gossamer.golden.network import Layer, Reshape
from gossamer.golden.program import TensorPlace
from gossamer.golden.rolling import Lowered
from gossamer.golden.tiling import Kernel, Map

__all__ = ["Strips"]


def _name(tensor: str, strip: int) -> str:
    return f"{tensor} [{strip}]"


def _source_columns(kernel: Kernel, columns: range) -> range:
    """The columns of the inputs that the windows of output ``columns`` cover; the nearest one if all are padding."""
    per_pixel = max(kernel.fields["repeat"], 1) if kernel.word_mode else kernel.source.pitch
    start = kernel.origin[1] + columns.start * kernel.stride[1]
    stop = kernel.origin[1] + (columns.stop - 1) * kernel.stride[1] + kernel.beats // per_pixel
    start = min(max(start, 0), kernel.source.columns - 1)
    return range(start, max(min(stop, kernel.source.columns), start + 1))


def _own(kernel: Kernel, columns: range) -> range:
    """Which of a kernel's output columns are among ``columns`` of its target."""
    x = kernel.place[1]
    return range(max(columns.start - x, 0), min(columns.stop - x, kernel.columns))


def _hull(one: range | None, other: range) -> range:
    return other if one is None else range(min(one.start, other.start), max(one.stop, other.stop))


class Strips:
    """A layout of tensors in strips, with what is to be computed.

    Parameters
    ----------
    lowered : Lowered
        The layers of maps that are not cut.
    layout : Layout
        Their layout.
    first, output : str
        The input and the output, which is cut into ``count`` strips of about one width.
    refuse : function of a sentence

    Attributes
    ----------
    lowered : Lowered
        All layers of the first strip, then those of the second, and so on.
    columns : mapping
        Of each strip of a tensor, its columns in it.
    given, taken : mapping
        The strips of the input and of the output, with their first columns.
    """

    def __init__(
        self,
        lowered: Lowered,
        layout: Layout,
        first: str,
        output: str,
        count: int,
        refuse: Callable[[str], Exception],
    ):
        self._layout = layout
        self.homes: dict[str, str] = {}
        self.lowered: list[tuple[Layer, Sequence[Kernel]]] = []
        self.columns: dict[str, range] = {}
        self._roots: dict[str, str] = {}
        self.given: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        width = layout.map(output).columns
        if count > width:
            raise refuse(f"an output of {width} columns must have at most {width} strips, not {count}")
        for layer, kernels in lowered:
            shared = all(kernel.source.columns == layout.place(kernel.inputs[0]).columns for kernel in kernels)
            if isinstance(layer, Reshape) or not shared:
                raise refuse(f"layer {layer.name!r}: maps must not be reshaped where they are cut into strips")
        for strip in range(count):
            columns = range(width * strip // count, width * (strip + 1) // count)
            self._add(lowered, first, output, columns, strip)

    def _add(self, lowered: Lowered, first: str, output: str, columns: range, strip: int) -> None:
        root = self._layout.root(output)[0]
        needed = {root: columns}
        for _, kernels in reversed(lowered):
            for kernel in kernels:
                own = _own(kernel, needed.get(kernel.target.name, range(0)))
                for name in kernel.inputs if own else ():
                    needed[name] = _hull(needed.get(name), _source_columns(kernel, own))
        for name, some in needed.items():
            self.columns[_name(name, strip)] = some
            self._roots[_name(name, strip)] = name
        self.given[_name(first, strip)] = needed[first].start
        self.taken[_name(root, strip)] = columns.start
        for layer, kernels in lowered:
            names = (*layer.inputs, layer.output)
            self.homes |= {_name(name, strip): _name(self._layout.homes[name], strip) for name in names}
            inputs = tuple(_name(name, strip) for name in layer.inputs)
            cut = [self._cut(kernel, needed, strip) for kernel in kernels]
            layer = dataclasses.replace(layer, inputs=inputs, output=_name(layer.output, strip))
            self.lowered.append((layer, [kernel for kernel in cut if kernel]))

    def _cut(self, kernel: Kernel, needed: Mapping[str, range], strip: int) -> Kernel | None:
        target = needed.get(kernel.target.name, range(0))
        own = _own(kernel, target)
        if not own:
            return None
        starts = [needed[name].start for name in kernel.inputs]
        y, x = kernel.origin
        return dataclasses.replace(
            kernel,
            inputs=tuple(_name(name, strip) for name in kernel.inputs),
            source=dataclasses.replace(
                kernel.source, name=_name(kernel.source.name, strip), columns=len(needed[kernel.inputs[0]])
            ),
            target=dataclasses.replace(kernel.target, name=_name(kernel.target.name, strip), columns=len(target)),
            origin=(y, x + own.start * kernel.stride[1] - starts[0]),
            place=(kernel.place[0], kernel.place[1] + own.start - target.start),
            second=starts[0] - starts[-1],
            columns=len(own),
        )

    # What the order and the schedule ask of a layout.

    def root(self, name: str) -> tuple[str, int]:
        """See :meth:`Layout.root`."""
        original, strip = name[: name.rindex(" [")], name[name.rindex(" [") :]
        root, offset = self._layout.root(original)
        return root + strip, offset

    def map(self, name: str) -> Map:
        """See :meth:`Layout.map`."""
        found = self._layout.map(name[: name.rindex(" [")])
        return dataclasses.replace(found, name=self.root(name)[0], columns=len(self.columns[self.root(name)[0]]))

    def place(self, name: str, address: int = 0) -> TensorPlace:
        """See :meth:`Layout.place`."""
        found = self._layout.place(self._roots.get(name) or name[: name.rindex(" [")], address)
        return dataclasses.replace(found, columns=len(self.columns[self.root(name)[0]]))
