"""Layout: which tensors share bytes of the store, and how their pixels lie there."""

import dataclasses
from collections.abc import Sequence

from gossamer.golden.lowering import is_block_sparse, works_on_words
from gossamer.golden.network import Add, AveragePool, Concat, FullyConnected, Layer, Mean, Network, Reshape
from gossamer.golden.program import TensorPlace
from gossamer.golden.spec import Config
from gossamer.golden.tiling import Map

__all__ = ["Layout", "map_shape"]

IN_ORDER = (FullyConnected, Reshape)
"""Layers to which only the order of the values matters, not the shape of the map."""

PASS_ON = (Add, AveragePool, Mean)
"""Layers on words whose sums behind the last channel depend on what is there in their inputs."""

PER_BYTE = {"int4": 2, "binary": 8}
"""Values per byte of the store, of types with more than one."""


def map_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Rows, columns and channels of a tensor."""
    return (1, 1, shape[0]) if len(shape) == 1 else (shape[0], shape[1], shape[2])


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the tensors of a network lie, but for addresses.

    ``homes[name]`` is the tensor whose bytes a tensor shares: its own name, or for most reshapes that of the input. A tensor
    that only a concatenation reads lies in the concatenation's output, ``views[name]`` says behind how many channels of
    which tensor; the other inputs of a concatenation are copied. ``pitches`` are the bytes from pixel to pixel of the tensors
    that are neither: the channels, or a multiple of the lanes where whole words or block-sparse
    weights are used. ``filled`` are the tensors whose
    bytes between pixels must be written, because they are read and, not being zero, would take time. Whole words take the same
    time whatever is in them, but those that :data:`PASS_ON` makes of them are written too if that is to be filled. Bytes of
    tensors with several values per byte are written as a whole.
    """

    network: Network
    config: Config
    homes: dict[str, str]
    views: dict[str, tuple[str, int]]
    pitches: dict[str, int]
    filled: frozenset[str]

    @classmethod
    def of(cls, network: Network, device: Sequence[Layer], output: str, config: Config) -> "Layout":
        """The layout of the tensors of ``device``, layers of the network."""
        readers: dict[str, list[Layer | None]] = {name: [] for name in network.tensors}
        for layer in device:
            for name in layer.inputs:
                readers[name].append(layer)
        readers[output].append(None)
        homes = {name: name for name in network.tensors}
        for layer in device:
            if isinstance(layer, Reshape):
                home = homes[layer.inputs[0]]
                same = map_shape(network.tensors[home].shape) == map_shape(network.tensors[layer.output].shape)
                # Those who read the values in their order can read any map that has them; a reshape may copy them.
                if same or all(reader is None or isinstance(reader, IN_ORDER) for reader in readers[layer.output]):
                    homes[layer.output] = home
        readings = {name: [layer for n, home in homes.items() if home == name for layer in readers[n]] for name in homes}
        for name, found in readings.items():  # a reshape that costs nothing does not read
            readings[name] = [r for r in found if not (isinstance(r, Reshape) and homes[r.output] == name)]
        written = {layer.output for layer in device}
        views: dict[str, tuple[str, int]] = {}
        copied = set()
        for layer in device:
            if isinstance(layer, Concat):
                offset = 0
                for name in layer.inputs:
                    home = homes[name]
                    same = map_shape(network.tensors[home].shape) == map_shape(network.tensors[name].shape)
                    if home in written and readings[home] == [layer] and same:
                        views[home] = (layer.output, offset)
                    else:
                        copied.add(home)
                    offset += map_shape(network.tensors[name].shape)[2]
        on_words = {homes[n] for layer in device if works_on_words(layer, network) for n in layer.inputs} | copied
        # Masks need windows that begin in one lane. Many more words would take longer than the masks spare.
        sparse = {homes[n] for layer in device if is_block_sparse(layer, config) for n in layer.inputs}
        pitches = {}
        for name, home in homes.items():
            if name == home and name not in views:
                channels = map_shape(network.tensors[name].shape)[2]
                unit = PER_BYTE.get(network.tensors[name].dtype, 1)
                whole = -(-channels // config.lanes) * config.lanes
                words = name in on_words or (name in sparse and 4 * whole <= 5 * channels)
                pitches[name] = whole if words else -(-channels // unit) * unit
        layout = cls(network, config, homes, views, pitches, frozenset())
        on_bytes = [layer for layer in device if not (works_on_words(layer, network) or isinstance(layer, Concat))]
        filled = {layout.root(name)[0] for layer in on_bytes for name in layer.inputs}
        for layer in reversed(device):
            target = dataclasses.replace(layout, filled=frozenset(filled)).map(layer.output)
            if isinstance(layer, PASS_ON) and target.written > target.channels:
                filled |= {layout.root(name)[0] for name in layer.inputs}
        return dataclasses.replace(layout, filled=frozenset(filled))

    def root(self, name: str) -> tuple[str, int]:
        """The tensor in whose bytes a tensor lies, and behind how many channels."""
        name, offset = self.homes[name], 0
        while name in self.views:
            name, more = self.views[name]
            offset += more
        return name, offset

    def map(self, name: str) -> Map:
        """A tensor as the layer that computes it, or reads it, sees it."""
        root, offset = self.root(name)
        return self._map(self.homes[name], root, offset)

    def slice(self, name: str, output: str, offset: int) -> Map:
        """The part of a concatenation's ``output`` behind ``offset`` channels, into which tensor ``name`` is copied."""
        root, more = self.root(output)
        return self._map(name, root, offset + more)

    def _map(self, name: str, root: str, offset: int) -> Map:
        tensor = self.network.tensors[name]
        rows, columns, channels = map_shape(tensor.shape)
        whole, pitch = map_shape(self.network.tensors[root].shape)[2], self.pitches[root]
        per_byte = PER_BYTE.get(tensor.dtype, 1)
        written = -(-channels // per_byte) * per_byte
        if root in self.filled and offset + channels == whole:
            written = pitch - offset
        return Map(root, rows, columns, channels, pitch, offset, written, tensor.zero_point, per_byte)

    def place(self, name: str, address: int = 0) -> TensorPlace:
        """The place of a tensor in the store, if its root's is at ``address``."""
        tensor = self.map(name)
        return TensorPlace(
            address, tensor.rows, tensor.columns, tensor.channels, tensor.pitch, tensor.offset, tensor.per_byte
        )
