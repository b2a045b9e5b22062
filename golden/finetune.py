"""Training of compressed networks: the arithmetic of the network with gradients.

A :class:`Student` is a :class:`Network` whose weights are real numbers under way. It computes what the network will: weights
are rounded to their format and masked, tensors are rounded and clamped to their type; gradients pass the rounding as if it were
not there. :meth:`Student.network` gives the network. :func:`finetune` trains a compressed network so that it gives what it gave
before it was compressed; no labels are needed. :mod:`gossamer.golden.train_variants` trains with labels.

Ref: Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons, 2013; Hinton et al., Distilling the
Knowledge in a Neural Network, 2015; Jacob et al., Quantization and Training of Neural Networks, 2018; Zhang et al., mixup,
2018; Courbariaux et al., Binarized Neural Networks, 2016.

It needs PyTorch, which the rest of compression does not.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import network, pruning, weights
from gossamer.golden.compress import Compressed, Fitting, Source, real
from gossamer.golden.network import LIMITS, Network, NetworkError
from gossamer.golden.quantize import least_scales
from gossamer.golden.weights import ENTRIES, Grid, Options

__all__ = ["EPOCHS", "Student", "exact", "finetune", "torch_or_refusal"]

Array = NDArray[Any]

EPOCHS = 100
BATCH = 16
RATE = 3e-3
"""A step, as a share of a layer's mean weight, or for biases of a sixteenth of its output's range."""

MIX = 0.4
"""Both parameters of the beta distribution of the shares in which inputs are mixed."""

SHIFT = 2
"""Rows and columns by which maps are shifted at most."""

ZERO = np.zeros(1, np.int64)

EPSILON = 1e-5
"""Added to the variance."""

MOMENTUM = 0.1
"""The part that a batch has in the mean and the variance of what becomes binary."""


def torch_or_refusal() -> Any:
    """The package ``torch``, told to compute in one thread. Raises :class:`NetworkError` if it is not installed."""
    try:
        import torch
    except ImportError:
        raise NetworkError("training needs PyTorch, and it is not installed: pip install 'gossamer[train]'") from None
    torch.set_num_threads(1)  # sums over more threads round differently
    return torch


def exact(whole: Network) -> dict[str, tuple[Array, Array]]:
    """What the integers of each weighted layer stand for: weights in the layer's order and biases (O,), by layer."""
    found = {}
    for layer in whole.layers:
        if isinstance(layer, network.Weighted):
            rows = np.moveaxis(layer.weights, layer.channel_axis, -1) * layer.weight_scales
            unit = whole.tensors[layer.inputs[0]].scale * layer.weight_scales
            found[layer.name] = np.moveaxis(rows, -1, layer.channel_axis), layer.bias * unit
    return found


def _linear(layer: Any, x: Any, weight: Any, outside: int) -> Any:
    """A layer's sums, (N, ..., O), without bias; ``outside`` is the real value of padding."""
    from torch.nn import functional

    if isinstance(layer, network.FullyConnected):
        return x.flatten(1) @ weight.T
    top, bottom, left, right = layer.padding
    maps = functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom), value=outside)
    if isinstance(layer, network.Conv):
        y = functional.conv2d(maps, weight.permute(0, 3, 1, 2), None, layer.stride)
    else:
        y = functional.conv2d(maps, weight.permute(2, 0, 1)[:, None], None, layer.stride, groups=x.shape[3])
    return y.permute(0, 2, 3, 1)


def _pooled(layer: Any, x: Any) -> Any:
    import torch
    from torch.nn import functional

    top, bottom, left, right = layer.padding

    def padded(maps: Any, value: float) -> Any:
        return functional.pad(maps, (left, right, top, bottom), value=value)

    maps = x.permute(0, 3, 1, 2)
    if isinstance(layer, network.MaxPool):
        y = functional.max_pool2d(padded(maps, -torch.inf), layer.kernel, layer.stride)
    else:
        sums, inside = (
            functional.avg_pool2d(padded(one, 0.0), layer.kernel, layer.stride) for one in (maps, torch.ones_like(maps[:1, :1]))
        )
        y = sums / inside
    return y.permute(0, 2, 3, 1)


def _unweighted(layer: Any, *inputs: Any) -> Any:
    """What a layer without weights computes in real numbers."""
    import torch
    from torch.nn import functional

    x = inputs[0]
    if isinstance(layer, network.Add):
        return x + inputs[1]
    if isinstance(layer, (network.AveragePool, network.MaxPool)):
        return _pooled(layer, x)
    if isinstance(layer, network.Mean):
        return x.mean((1, 2))
    if isinstance(layer, network.Pad):
        top, bottom, left, right = layer.padding
        return functional.pad(x, (*layer.channels, left, right, top, bottom))
    if isinstance(layer, network.Concat):
        return torch.cat(inputs, -1)
    if isinstance(layer, network.Softmax):
        return torch.softmax(layer.beta * x, -1)
    return torch.sigmoid(x) if isinstance(layer, network.Logistic) else x


class Student:
    """A network to be trained.

    Parameters
    ----------
    whole : Network
        Its layers and the types, scales and zero points of its tensors; its weights do not matter.
    numbers : ``{name: (weights, bias)}``
        Real weights in the layer's order and biases (O,) to begin with, by layer; of a layer with a binary output the bias is
        counted in standard deviations of what becomes binary.
    options : ``{name: Options}``
        The format of each layer's weights; those without are int8. Nothing is pruned before :meth:`prune`.
    masks : ``{name: mask}``
        Weights to keep, by layer, for those of which some are pruned already.
    fitting : Fitting
        The method of int8 ranges, and the lanes of a block.
    rounds : bool
        Whether weights and tensors are rounded. If not it computes what the network stands for, apart from its clamps.
    """

    def __init__(
        self,
        whole: Network,
        numbers: Mapping[str, tuple[Array, Array]],
        options: Mapping[str, Options] | None = None,
        masks: Mapping[str, Array] | None = None,
        *,
        fitting: Fitting | None = None,
        rounds: bool = True,
    ) -> None:
        torch = torch_or_refusal()
        self.whole, self.fitting, self.rounds, self.training = whole, fitting or Fitting(), rounds, False
        self.layers = {layer.name: layer for layer in whole.layers if isinstance(layer, network.Weighted)}
        self.options = {name: (options or {}).get(name, Options()) for name in self.layers}
        self.masks = {name: np.ones(numbers[name][0].shape, bool) for name in self.layers} | dict(masks or {})
        self.parameters = {
            name: [torch.tensor(values, dtype=torch.float32).requires_grad_(rounds) for values in numbers[name]]
            for name in self.layers
        }
        self.norms = {
            name: [torch.zeros(len(numbers[name][1])), torch.ones(len(numbers[name][1]))]
            for name in self.layers
            if self._output(name).dtype == "binary"
        }
        self.grids: dict[str, Grid] = {}
        self.regrid()

    def _output(self, name: str) -> network.Tensor:
        return self.whole.tensors[self.layers[name].output]

    def _rows(self, name: str, values: Array) -> Array:
        rows = np.moveaxis(values, self.layers[name].channel_axis, 0)
        return rows.reshape(len(rows), -1)

    def _numbers(self, name: str) -> tuple[Array, Array]:
        """The real weights and the bias of a layer as they are."""
        weight, bias = self.parameters[name]
        return weight.detach().numpy().astype(np.float64), bias.detach().numpy().astype(np.float64)

    def regrid(self) -> None:
        """Give each layer the scales and the palette that its weights now have."""
        for name, layer in self.layers.items():
            weight, bias = self._numbers(name)
            binary = name in self.norms
            least = 0.0 if binary else least_scales(bias, self.whole.tensors[layer.inputs[0]].scale)
            rows, mask = self._rows(name, weight), self._rows(name, self.masks[name])
            self.grids[name] = weights.grid(
                rows, mask, self.options[name], method=self.fitting.method,
                per_tensor=isinstance(layer, network.FullyConnected), least=least,
            )  # fmt: skip

    def keep_grids(self, whole: Network) -> None:
        """Give each layer the scales and the palette of its twin in ``whole``, the same network but for its weights."""
        for layer in whole.layers:
            if not isinstance(layer, network.Weighted):
                continue
            found, mask = (self._rows(layer.name, one) for one in (layer.weights, self.masks[layer.name]))
            grid = dataclasses.replace(self.grids[layer.name], scales=layer.weight_scales)
            if self.options[layer.name].weights in ENTRIES:
                shared = self.options[layer.name].palette == "layer"
                used = [np.unique(found[mask] if shared else row[left]) for row, left in zip(found, mask)]
                grid = dataclasses.replace(grid, entries=tuple(one.astype(np.int64) if one.size else ZERO for one in used))
            self.grids[layer.name] = grid

    def prune(self, name: str, share: float) -> None:
        """Keep the weights of a layer that its options choose if ``share`` of them are pruned."""
        weight, chosen = self._numbers(name)[0], self.options[name]
        self.masks[name] = pruning.kept(weight, self.layers[name].channel_axis, share, chosen.block, self.fitting.lanes)

    def _integers(self, name: str) -> Array:
        """The weights as they will be."""
        layer, grid = self.layers[name], self.grids[name]
        weight = self._numbers(name)[0]
        found = grid.round(self._rows(name, weight)).reshape(np.moveaxis(weight, layer.channel_axis, 0).shape)
        return np.where(self.masks[name], np.moveaxis(found, 0, layer.channel_axis), 0).astype(np.int8)

    def _weight(self, name: str) -> Any:
        """The rounded weights, with gradients of those that are not pruned."""
        import torch

        weight, axis = self.parameters[name][0], self.layers[name].channel_axis
        if not self.rounds:
            return weight
        rows = np.moveaxis(self._integers(name), axis, -1) * self.grids[name].scales
        near = torch.tensor(np.moveaxis(rows, -1, axis), dtype=torch.float32)
        kept = weight * torch.tensor(self.masks[name], dtype=torch.float32)
        return kept + (near - kept).detach()

    def _bias(self, layer: Any) -> Any:
        """The bias in the steps that it will have."""
        import torch

        bias = self.parameters[layer.name][1]
        if not self.rounds:
            return bias
        unit = torch.tensor(self.whole.tensors[layer.inputs[0]].scale * self.grids[layer.name].scales, dtype=torch.float32)
        return bias + (torch.round(bias / unit) * unit - bias).detach()

    def _sign(self, name: str, sums: Any) -> Any:
        """+1 where the sums, brought to mean 0 and variance 1, and the bias are at least 0, else -1."""
        import torch

        mean, variance = self.norms[name]
        bias = self.parameters[name][1]
        if self.training:
            axes = tuple(range(sums.dim() - 1))
            now = sums.mean(axes), sums.var(axes)
            for kept, seen in zip(self.norms[name], now):
                kept.mul_(1 - MOMENTUM).add_(MOMENTUM * seen.detach())
            mean, variance = now
        y = ((sums - mean) / torch.sqrt(variance + EPSILON) + bias).clamp(-1, 1)
        return y + (torch.where(y >= 0, 1.0, -1.0) - y).detach()

    def _rounded(self, layer: Any, y: Any) -> Any:
        """``y`` in the steps and the range of the layer's output."""
        import torch

        tensor = self.whole.tensors[layer.output]
        low, high = getattr(layer, "clamp", LIMITS.get(tensor.dtype, (0, 0)))
        y = y.clamp(tensor.scale * (low - tensor.zero_point), tensor.scale * (high - tensor.zero_point))
        return y + (torch.round(y / tensor.scale) * tensor.scale - y).detach() if self.rounds else y

    def apply(self, layer: Any, *inputs: Any) -> Any:
        """What a layer gives in real numbers, for real inputs (N, ...)."""
        if isinstance(layer, network.Weighted):
            y = _linear(layer, inputs[0], self._weight(layer.name), layer.outside(self.whole))
            y = self._sign(layer.name, y) if layer.name in self.norms else self._rounded(layer, y + self._bias(layer))
        else:
            y = _unweighted(layer, *inputs)
            if not layer.keeps_quantization or isinstance(layer, network.AveragePool):
                y = self._rounded(layer, y)
        return y.reshape(len(y), *self.whole.tensors[layer.output].shape)

    def run(self, x: Any) -> dict[str, Any]:
        """Every tensor by name, in real numbers, for real inputs ``x``, (N, ...)."""
        values = {self.whole.input: x}
        for layer in self.whole.layers:
            values[layer.output] = self.apply(layer, *(values[name] for name in layer.inputs))
        return values

    @property
    def scores(self) -> str:
        """The tensor that a loss compares: the output, or what a last softmax or logistic layer reads."""
        last = self.whole.layers[-1]
        return last.inputs[0] if isinstance(last, (network.Softmax, network.Logistic)) else last.output

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameters for an optimizer, with steps of ``rate`` relative to what they mean."""
        found = []
        for name, (weight, bias) in self.parameters.items():
            size = 1.0 if name in self.norms else self._output(name).scale * 16
            found += [
                {"params": [weight], "lr": rate * (float(weight.detach().abs().mean()) or 1.0)},
                {"params": [bias], "lr": rate * size},
            ]
        return found

    def network(self) -> Network:
        """The network with the weights and biases of now."""
        layers = dict(self.layers)
        for name, layer in self.layers.items():
            bias = self._numbers(name)[1]
            unit = self.whole.tensors[layer.inputs[0]].scale * self.grids[name].scales
            if name in self.norms:
                mean, variance = (one.numpy().astype(np.float64) for one in self.norms[name])
                steps = np.floor((bias * np.sqrt(variance + EPSILON) - mean) / unit)
            else:
                steps = np.rint(bias / unit)
            whole = np.clip(steps, 1 - (1 << 27), (1 << 27) - 1).astype(np.int32)
            scales = self.grids[name].scales
            layers[name] = dataclasses.replace(layer, weights=self._integers(name), bias=whole, weight_scales=scales)
        return dataclasses.replace(self.whole, layers=tuple(layers.get(layer.name, layer) for layer in self.whole.layers))


def _mixed(x: Array, random: np.random.Generator) -> Array:
    """A batch of inputs, half of them mixed in pairs and, if they are maps, shifted."""
    first, second = (x[random.integers(len(x), size=BATCH)] for _ in range(2))
    part = random.beta(MIX, MIX, (BATCH,) + (1,) * (x.ndim - 1))
    part[: BATCH // 2] = 1.0
    mixed = part * first + (1 - part) * second
    if mixed.ndim == 4 and min(mixed.shape[1:3]) > 2 * SHIFT:
        mixed[BATCH // 2 :] = np.roll(mixed[BATCH // 2 :], tuple(random.integers(-SHIFT, SHIFT + 1, 2)), (1, 2))
    return mixed.astype(np.float32)


def finetune(
    source: Source,
    done: Compressed,
    options: Mapping[str, Options],
    epochs: int,
    fitting: Fitting | None = None,
    progress: Callable[[int, int], None] = lambda step, total: None,
) -> Compressed:
    """``done``, which is ``source`` compressed with ``options``, trained to give what ``source`` gives; the same every time.

    An epoch shows as many inputs as the calibration has, half of them mixed in pairs and shifted. The loss is the squared
    error of what weighted layers give and of the output before a softmax, each relative to its variance. Masks stay.
    ``progress`` is told how many steps are done, and of how many. Raises :class:`NetworkError` if PyTorch is not installed.
    """
    torch = torch_or_refusal()
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    given = {name: (source.weights[name], source.biases[name]) for name in source.weights}
    teacher = Student(source.network, given, rounds=False)
    student = Student(done.network, exact(done.network), options, done.masks, fitting=fitting)
    student.keep_grids(done.network)
    optimizer = torch.optim.Adam(student.groups(RATE))
    x = real(source.network.tensors[source.network.input], source.x)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    parts = {layer.output: 1 / len(student.layers) for layer in student.layers.values()} | {student.scores: 1.0}
    for step in range(steps):
        batch = torch.tensor(_mixed(x, random))
        with torch.no_grad():
            wanted = teacher.run(batch)
        values = student.run(batch)
        errors = [part * ((values[n] - wanted[n]) ** 2).mean() / (wanted[n].var() + 1e-9) for n, part in parts.items()]
        optimizer.zero_grad()
        torch.stack(errors).sum().backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, steps)
    found = student.network()
    return dataclasses.replace(done, network=found, output=found.run(source.x)[found.output])
