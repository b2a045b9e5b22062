"""Train the digits network in fewer bits and with fewer weights: ``python -m gossamer.golden.train_variants --variant NAME``.

Needs the extra ``[train]``. Each variant is a :class:`Student` that learns from labels and from what the trained network
``data/digits.gsm`` gives (Hinton et al., 2015). Writes ``data/digits_NAME.gsm`` and prints its accuracy and its layers. Weights
and samples are seeded; another version of PyTorch may round differently.

- ``w4a8``, ``w4a4``: weights in four bits, with a scale per output channel; activations of ``w4a4`` too, but for the input and
  what the softmax reads. They start with ``data/digits.gsm``.
- ``sparse75``: three quarters of the vectors of 16 output channels' weights at one place of the window are 0, none in the
  depthwise layer; more and more of them become so during the first half of the training (Zhu & Gupta, To prune, or not to
  prune, 2017). Layers lose as many as their magnitudes allow (Lee et al., Layer-adaptive Sparsity for the Magnitude-based
  Pruning, 2021). It starts with a float network trained like ``data/digits.gsm``, but with no penalty on activations, which
  leaves channels that are hardly ever active.
- ``palette``: weights are pruned likewise, one by one, nine tenths of the network's, and each layer has a palette of 16 values,
  0 included, that follows its weights until :data:`SETTLED` of the training. It starts with ``data/digits.gsm``.
- ``binary``: the topology without the residual and the depthwise layer, and with wider layers. Between the first and the last
  one weights and activations are -1 or +1; the average and the deviation that normalize what becomes binary end up in the bias
  (Courbariaux et al., 2016). It starts with random weights.
"""

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import digits, floating, network, quantize, train_digits
from gossamer.golden.compress import real
from gossamer.golden.finetune import Student, exact, torch_or_refusal
from gossamer.golden.network import Network, Tensor
from gossamer.golden.pruning import groups_of
from gossamer.golden.train_digits import SEED, export, moved, split
from gossamer.golden.weights import Options

__all__ = ["main", "train"]

Array = NDArray[Any]

BATCH = 64
WARM = 2.0
"""The temperature at which the student's classes are compared with the teacher's."""


SETTLED = 0.7
"""Behind this part of the training scales and palettes stay."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a variant is trained: the format of its weights, ``prune`` being the share of the network's that is pruned at last;
    in how many epochs, with which rate (:meth:`Student.groups`), whether activations have ``four`` bits. It
    starts with a float network that is trained in ``dense`` epochs, if any."""

    options: Options
    epochs: int = 100
    rate: float = 1e-2
    four: bool = False
    dense: int = 0


RECIPES = {
    "w4a8": Recipe(Options("int4")),
    "w4a4": Recipe(Options("int4"), 200, four=True),
    "sparse75": Recipe(Options(prune=0.75, block="lanes"), 200, dense=100),
    "palette": Recipe(Options("palette16", prune=0.9), 350),
    "binary": Recipe(Options("binary"), 150, 3e-2),
}


def binary(base: Network) -> Network:
    """The topology of ``binary``, with weights of 0."""
    first, scores, classes = (base.tensors[name] for name in ("input", "dense", "softmax"))
    tensors, layers = [first], []

    def add(kind: Any, shape: tuple[int, ...], *fields: Any, **rest: Any) -> None:
        tensors.append(Tensor(rest.pop("name"), shape, 1.0, 0, "binary"))
        layers.append(kind(tensors[-1].name, (tensors[-2].name,), tensors[-1].name, *fields, **rest))

    def conv(name: str, size: int, channels: int, kernel: int) -> None:
        pad = kernel // 2
        add(
            network.Conv, (size, size, channels), np.zeros((channels, kernel, kernel, tensors[-1].shape[2]), np.int8),
            np.zeros(channels, np.int32), np.ones(channels), name=name, padding=(pad, pad, pad, pad),
        )  # fmt: skip

    conv("conv1", 8, 32, 7)
    conv("conv2", 8, 64, 3)
    add(network.MaxPool, (4, 4, 64), (2, 2), (2, 2), name="maxpool")
    conv("conv3", 4, 64, 3)
    conv("conv4", 4, 64, 3)
    add(network.MaxPool, (2, 2, 64), (2, 2), (2, 2), name="maxpool2")
    add(network.Reshape, (256,), name="flat")
    tensors += [scores, classes]
    numbers = np.zeros((10, 256), np.int8), np.zeros(10, np.int32), np.ones(10)
    layers += [network.FullyConnected("dense", ("flat",), "dense", *numbers), network.Softmax("softmax", ("dense",), "softmax")]
    return Network("digits_binary", {tensor.name: tensor for tensor in tensors}, tuple(layers), "input", "softmax")


def begin(variant: str, base: Network, x: Array, layers: Sequence[floating.FloatLayer] = ()) -> Student:
    """The untrained student of a variant; ``x`` are inputs of ``base``. It starts with the float ``layers`` if any."""
    recipe, name = RECIPES[variant], f"digits_{variant}"
    if variant == "binary":
        whole, rng = binary(base), np.random.default_rng(SEED)
        numbers, formats = {}, {}
        for layer in whole.layers:
            if isinstance(layer, network.Weighted):
                fan = layer.weights[0].size
                numbers[layer.name] = rng.normal(0, fan**-0.5, layer.weights.shape), np.zeros(len(layer.weights))
                formats[layer.name] = Options() if layer.name in ("conv1", "dense") else recipe.options
        return Student(whole, numbers, formats)
    whole = dataclasses.replace(base, name=name)
    if recipe.four:
        seen = {key: real(base.tensors[key], values) for key, values in base.run(x).items()}
        whole = quantize.narrowed(whole, seen)
    numbers = exact(base)
    if layers:
        first = base.tensors["input"]
        whole = quantize.quantize(name, layers, real(first, x), {"input": first.quantization}, method="mse")
        numbers = {layer.name: (layer.weights, layer.bias) for layer in layers if isinstance(layer, floating.Weighted)}
    return Student(whole, numbers, dict.fromkeys(numbers, recipe.options))


def prune(student: Student, share: float) -> None:
    """Prune ``share`` of the network's weights, or of its vectors of weights, by their magnitude relative to the larger ones of
    their layer: the square of each over the sum of the squares that are not smaller. Depthwise layers lose no vectors."""
    scores, total = {}, 0
    for name, chosen in student.options.items():
        layer, weight = student.layers[name], np.abs(student.parameters[name][0].detach().numpy().astype(np.float64))
        lanes = chosen.block == "lanes"
        groups = groups_of(weight, layer.channel_axis, student.fitting.lanes if lanes else 1)
        falling = np.sort((np.nanmean(groups, axis=1) ** 2).reshape(-1))[::-1]
        total += falling.size
        if not (lanes and isinstance(layer, network.Depthwise)):
            scores[name] = falling / np.cumsum(falling)
    limit = np.sort(np.concatenate([*scores.values()]))[math.ceil(share * total)]
    for name, values in scores.items():
        student.prune(name, float(np.mean(values < limit)))


def train(variant: str, base: Network, images: Array, labels: Array) -> Network:
    """The variant of the network ``base``, trained on ``images`` (N, 8, 8) of 0..1 and their ``labels``."""
    torch = torch_or_refusal()
    from torch.nn import functional

    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    recipe = RECIPES[variant]
    teacher = Student(base, exact(base), rounds=False)
    layers = export(train_digits.train(images, labels.astype(np.int64), recipe.dense, 0.0)) if recipe.dense else []
    student = begin(variant, base, digits.quantize_images(images * digits.WHITE), layers)
    optimizer = torch.optim.AdamW(student.groups(recipe.rate), weight_decay=0.0)
    x, y = torch.tensor(images, dtype=torch.float32)[:, None], torch.tensor(labels.astype(np.int64))
    steps, step = recipe.epochs * -(-len(x) // BATCH), 0
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.1)
    student.training = True
    for _ in range(recipe.epochs):
        share = min(1.0, step / (steps / 2))
        if recipe.options.prune:
            prune(student, recipe.options.prune * (1 - (1 - share) ** 3))
        if step < SETTLED * steps:
            student.regrid()
        for batch in torch.randperm(len(x)).split(BATCH):
            given = moved(x[batch]).permute(0, 2, 3, 1)
            with torch.no_grad():
                wanted = teacher.run(given)[teacher.scores]
            scores = student.run(given)[student.scores]
            soft = (one / WARM for one in (scores, wanted))
            ours, theirs = (functional.log_softmax(one, 1) for one in soft)
            loss = functional.kl_div(ours, theirs, log_target=True, reduction="batchmean") * WARM**2
            loss = loss + functional.cross_entropy(scores, y[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    return student.network()


def table(found: Network, values: Mapping[str, Array]) -> str:
    """A line per layer: its output's shape, type and density, the different weights that it has and the share that is not 0."""
    lines = []
    for layer in found.layers:
        tensor = found.tensors[layer.output]
        line = f"{layer.name:10} {type(layer).__name__:15} {tensor.shape!s:12} {tensor.dtype:7}"
        if tensor.dtype != "binary":
            line += f" density {np.mean(values[layer.output] != tensor.zero_point):6.1%}"
        if isinstance(layer, network.Weighted):
            used = np.unique(layer.weights)
            line = f"{line:63} weights {layer.weights.shape!s:16} {used.min()}..{used.max()}, {len(used)} values"
            line += f", {np.mean(layer.weights != 0):.1%} not 0"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=[*RECIPES], required=True)
    parser.add_argument("--output", type=Path, default=digits.DATA)
    options = parser.parse_args()

    from sklearn.datasets import load_digits

    published = load_digits()
    kept = split(published.target)[0]
    found = train(options.variant, digits.load(), published.images[kept] / digits.WHITE, published.target[kept])
    x, y = digits.test_set()
    values = found.run(x)
    print(f"accuracy {np.mean(values[found.output].argmax(1) == y):.1%} of {len(y)} held-out digits")
    print(table(found, values))
    options.output.mkdir(parents=True, exist_ok=True)
    found.save(options.output / f"digits_{options.variant}.gsm")


if __name__ == "__main__":
    main()
