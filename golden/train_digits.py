"""Train the example network on scikit-learn's digits and quantize it: ``python -m gossamer.golden.train_digits``.

Needs the extra ``[train]``. Writes ``data/digits.gsm`` and ``data/digits_test.npz`` and prints the accuracies, and the
share of bytes other than the zero point per tensor. The split, the initial weights and the order of the samples are
seeded; another version of PyTorch may round differently and give slightly different weights.

The layers are chosen so that 16 lanes meet every operator, a residual, and channel counts that are no multiple of 16, and
so that a convolution's window has, on average, more non-zero activations than output channels in a group: the requantizer
then keeps up with the array.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import floating, quantize
from gossamer.golden.network import Network

__all__ = ["export", "main", "moved", "split", "train"]

Array = NDArray[Any]

DATA = Path(__file__).parent / "data"
SEED = 2024
TEST = 500


def split(labels: Array) -> tuple[Array, Array]:
    """``(train, test)`` indices: 500 test samples, stratified by label, from a fixed seed; both sorted."""
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(labels))
    # by label, shuffled within; every (N / 500)th sample of that order is as even over the labels as can be
    order = order[np.argsort(labels[order], kind="stable")]
    test = np.sort(order[np.arange(TEST) * len(labels) // TEST])
    return np.setdiff1d(np.arange(len(labels)), test), test


def build() -> Any:
    """Return the untrained float network, a ``torch.nn.Module`` that returns all post-ReLU maps and the logits."""
    from torch import nn
    from torch.nn import functional

    class Digits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 8, 7, padding=3)
            self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
            self.conv3 = nn.Conv2d(16, 16, 3, padding=1)
            self.conv4 = nn.Conv2d(16, 24, 3, padding=1)
            self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
            self.dense = nn.Linear(24 * 4, 10)

        def forward(self, x: Any) -> tuple[list[Any], Any]:
            a = functional.relu(self.conv1(x))
            b = functional.relu(self.conv2(a))
            c = functional.relu(b + self.conv3(b))
            d = functional.relu(self.conv4(functional.max_pool2d(c, 2)))
            e = functional.relu(self.depthwise(d))
            pooled = functional.avg_pool2d(e, 2)
            return [a, b, c, d, e], self.dense(pooled.permute(0, 2, 3, 1).flatten(1))

    return Digits()


def moved(x: Any) -> Any:
    """The images ``x``, a tensor (N, 1, 8, 8), each shifted by up to a pixel, turned and scaled a little at random."""
    import torch
    from torch.nn import functional

    angle = (torch.rand(len(x)) - 0.5) * 0.5
    size = 1 + (torch.rand(len(x)) - 0.5) * 0.3
    shift = (torch.rand(len(x), 2) - 0.5) * 0.4
    turn = torch.stack([angle.cos() * size, -angle.sin(), angle.sin(), angle.cos() * size], 1).view(-1, 2, 2)
    grid = functional.affine_grid(torch.cat([turn, shift[:, :, None]], 2), [len(x), 1, 8, 8], False)
    return functional.grid_sample(x, grid, align_corners=False)


def train(images: Array, labels: Array, epochs: int, sparsity: float) -> Any:
    """Train on ``images`` (N, 8, 8) in 0..1, shifted by up to a pixel, turned and scaled a little in each epoch."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)  # sums over more threads round differently, and the weights drift apart
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    model = build()
    x, y = torch.tensor(images, dtype=torch.float32)[:, None], torch.tensor(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=2e-2)
    steps = epochs * -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            maps, logits = model(moved(x[batch]))
            loss = functional.cross_entropy(logits, y[batch], label_smoothing=0.05)
            loss = loss + sparsity * sum(values.mean() for values in maps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def export(model: Any) -> list[floating.FloatLayer]:
    """Return the trained network in the layout of :mod:`gossamer.golden.floating`."""

    def weights(layer: Any, axes: tuple[int, ...]) -> tuple[Array, Array]:
        return layer.weight.detach().double().numpy().transpose(axes), layer.bias.detach().double().numpy()

    ohwi = (0, 2, 3, 1)
    depthwise, depthwise_bias = weights(model.depthwise, (1, 2, 3, 0))
    return [
        floating.Conv("conv1", ("input",), *weights(model.conv1, ohwi), activation="relu"),
        floating.Conv("conv2", ("conv1",), *weights(model.conv2, ohwi), activation="relu"),
        floating.Conv("conv3", ("conv2",), *weights(model.conv3, ohwi)),
        floating.Add("add", ("conv2", "conv3"), activation="relu"),
        floating.MaxPool("maxpool", ("add",), (2, 2), (2, 2)),
        floating.Conv("conv4", ("maxpool",), *weights(model.conv4, ohwi), activation="relu"),
        floating.Depthwise("depthwise", ("conv4",), depthwise[0], depthwise_bias, activation="relu"),
        floating.AveragePool("avgpool", ("depthwise",), (2, 2), (2, 2)),
        floating.Reshape("flat", ("avgpool",)),
        floating.FullyConnected("dense", ("flat",), *weights(model.dense, (0, 1))),
        floating.Softmax("softmax", ("dense",)),
    ]


def report(network: Network, values: dict[str, Array]) -> None:
    """Print the share of bytes other than the zero point, per tensor."""
    for name, tensor in network.tensors.items():
        density = np.mean(values[name] != tensor.zero_point)
        print(f"{name:10} {tensor.shape!s:12} zero point {tensor.zero_point:4} density {density:6.1%}")


def main() -> None:
    """Train, quantize, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--sparsity", type=float, default=0.02, help="weight of the mean activation in the loss")
    parser.add_argument("--output", type=Path, default=DATA)
    options = parser.parse_args()

    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    kept, held_out = split(labels)
    model = train(images[kept] / 16, labels[kept].astype(np.int64), options.epochs, options.sparsity)
    layers = export(model)
    network = quantize.quantize("digits", layers, images[kept, :, :, None] / 16)

    x = images[held_out, :, :, None] / 16
    scale, zero_point = network.tensors["input"].quantization
    values = network.run(np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8))
    exact = floating.run(layers, x)[network.output]
    print(f"float accuracy {np.mean(exact.argmax(1) == labels[held_out]):.1%}")
    print(f"int8 accuracy  {np.mean(values[network.output].argmax(1) == labels[held_out]):.1%}")
    report(network, values)

    options.output.mkdir(parents=True, exist_ok=True)
    network.save(options.output / "digits.gsm")
    np.savez_compressed(options.output / "digits_test.npz", images=images[held_out], labels=labels[held_out])


if __name__ == "__main__":
    main()
