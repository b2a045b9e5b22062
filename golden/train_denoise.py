"""Train the denoising network on a photograph and quantize it: ``python -m gossamer.golden.train_denoise``.

Needs the extra ``[train]``. Writes ``data/denoise.gsm`` and prints the signal-to-noise ratios on the photograph that was
not trained on, and the share of zeros per tensor. Trains on scikit-learn's ``china.jpg``, the test is ``flower.jpg``; about
eight minutes of one processor. Weights, patches and noise are seeded; another version of PyTorch may round differently.

First the float network is trained, with a penalty on activations that are not zero: zeros cost the hardware nothing. The
penalty is the mean of a channel over its standard deviation, which does not change if the network scales the channel, and is
largest where a channel is never zero. Activations are cut at a limit, for rare large values cost int8 its resolution. Then the
ranges of the activations are measured and fixed, and training goes on with rounded weights and activations, so that the
network learns to live with int8.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import denoise, floating, quantize
from gossamer.golden.network import Network

__all__ = ["main"]

Array = NDArray[Any]

SEED = 2024
LAYERS = 6
CHANNELS = 16
PATCH, BATCH = 64, 8
SIZES = (0.5, 0.75, 1.0, 1.5)
"""The photograph is shown in these sizes: the sharp ones bring detail, the large one smooth surfaces."""
LIMIT = 3.0
"""Where activations of the float network saturate."""
OFTEN, WIDEST = 0.999, 1.6
"""The range of an int8 map holds this part of the float map's values, but is no wider than this: finer steps are worth more
than the largest values, without which the training with int8 learns to do."""

NAMES = [f"conv{i + 1}" for i in range(LAYERS)]
PIXEL = denoise.PIXELS[0]
FIXED = {"input": denoise.PIXELS, NAMES[-1]: (PIXEL, 0), "output": denoise.PIXELS}
"""Quantizations that are not measured. The correction is in whole steps of a pixel, so that the addition is exact."""


def build() -> Any:
    """Return the untrained float network, a ``torch.nn.Module``; it returns all post-ReLU maps and the denoised image.

    With ``scales``, of the maps, it computes with values that int8 has; gradients pass through the rounding.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    def rounded(x: Any, scale: Any, low: int, high: int) -> Any:
        return x + (torch.clamp(torch.round(x / scale), low, high) * scale - x).detach()

    class Denoise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [3] + [CHANNELS] * (LAYERS - 1) + [3]
            convs = [nn.Conv2d(i, o, 3, padding=1) for i, o in itertools.pairwise(widths)]
            for conv in convs[:-1]:
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.normal_(convs[-1].weight, std=1e-3)  # at first, almost no correction
            for conv in convs:
                nn.init.zeros_(cast(Any, conv.bias))
            self.convs: Any = nn.ModuleList(convs)
            self.scales: list[float] = []

        def forward(self, x: Any) -> tuple[list[Any], Any]:
            maps, last = [], x
            for i, conv in enumerate(self.convs):
                weight = conv.weight
                if self.scales:
                    weight = rounded(weight, weight.detach().abs().amax((1, 2, 3), keepdim=True) / 127, -127, 127)
                last = functional.conv2d(last, weight, conv.bias, padding=1)
                if i < LAYERS - 1:
                    # inside the range the gradient is that of the value, outside there is none
                    last = torch.clamp(last, 0, 255 * self.scales[i] if self.scales else LIMIT)
                    if self.scales:
                        last = rounded(last, self.scales[i], 0, 255)
                    maps.append(last)
            return maps, x + last

    return Denoise()


def patches(pyramid: list[Any], count: int) -> Any:
    """``count`` patches (count, 3, PATCH, PATCH) in 0..1: any size, place and side, any order of the colours, and
    each colour of any contrast and brightness; some become black, where noise has another mean."""
    import torch

    found = []
    for _ in range(count):
        image = pyramid[int(torch.randint(len(pyramid), ()))]
        top = int(torch.randint(image.shape[1] - PATCH + 1, ()))
        left = int(torch.randint(image.shape[2] - PATCH + 1, ()))
        patch = torch.rot90(image[:, top : top + PATCH, left : left + PATCH], int(torch.randint(4, ())), (1, 2))
        if torch.rand(()) < 0.5:
            patch = patch.flip(2)
        gain, offset = 0.4 + 0.8 * torch.rand(3, 1, 1), 0.5 * torch.rand(3, 1, 1) - 0.3
        found.append(patch[torch.randperm(3)] * gain + offset)
    return (torch.stack(found).clamp(0, 1) * 255).round() / 255


def noisy(clean: Any) -> Any:
    """``clean`` with the noise of :func:`denoise.noisy`, pixels again in 256 steps."""
    import torch

    noise = torch.randn(clean.shape) * (denoise.SIGMA / 255)
    return ((clean + noise).clamp(0, 1) * 255).round() / 255


def train(model: Any, pyramid: list[Any], seconds: float, rate: float, sparsity: float, steps: int) -> None:
    """Train for ``steps``, with a rate that falls as half a cosine; ``seconds`` is how often progress is printed."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    begin = printed = time.monotonic()
    total, counted = 0.0, 0
    for step in range(steps):
        clean = patches(pyramid, BATCH)
        maps, image = model(noisy(clean).contiguous(memory_format=torch.channels_last))
        error = torch.mean((image - clean) ** 2)
        # the square root of the error: its gradient weighs a smooth batch as much as a detailed one
        loss = torch.sqrt(error + 1e-8)
        weight = sparsity * min(1.0, 3 * step / steps)  # from the first step on, it would end whole channels
        for values in maps:
            spread = torch.sqrt(values.var((0, 2, 3)) + 1e-6)
            loss = loss + weight * (values.mean((0, 2, 3)) / spread).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total, counted = total + error.item(), counted + 1
        if time.monotonic() - printed > seconds or step == steps - 1:
            now = time.monotonic()
            zeros = " ".join(f"{float((values == 0).float().mean()):.0%}" for values in maps)
            decibels = -10 * np.log10(total / counted)
            print(f"step {step + 1:6} {now - begin:6.0f} s  {decibels:.2f} dB  zeros {zeros}", flush=True)
            printed, total, counted = now, 0.0, 0


def measure(model: Any, pyramid: list[Any]) -> list[float]:
    """A scale for each post-ReLU map, by :data:`OFTEN` and :data:`WIDEST`."""
    import torch

    with torch.no_grad():
        maps = model(noisy(patches(pyramid, 64)))[0]
        ranges = [float(torch.sort(values.flatten())[0][int(OFTEN * (values.numel() - 1))]) for values in maps]
    return [float(np.float32(min(top, WIDEST) / 255)) for top in ranges]


def export(model: Any) -> list[floating.FloatLayer]:
    """Return the trained network in the layout of :mod:`gossamer.golden.floating`."""
    layers: list[floating.FloatLayer] = []
    for i, conv in enumerate(model.convs):
        weights = conv.weight.detach().double().numpy().transpose(0, 2, 3, 1)
        bias = conv.bias.detach().double().numpy()
        source = NAMES[i - 1] if i else "input"
        layers.append(floating.Conv(NAMES[i], (source,), weights, bias, activation="relu" if i < LAYERS - 1 else "none"))
    return [*layers, floating.Add("output", ("input", NAMES[-1]))]


def evaluate(layers: list[floating.FloatLayer], network: Network | None) -> None:
    """Print the signal-to-noise ratios on the test photograph, and the share of zeros per tensor."""
    clean = denoise.photograph()
    given = denoise.noisy(clean)
    exact = floating.run(layers, given[np.newaxis] / 255)
    print(f"noisy {denoise.psnr(given, clean):.2f} dB")
    print(f"float {denoise.psnr(np.clip(exact['output'][0] * 255, 0, 255), clean):.2f} dB")
    if network is None:
        print(" ".join(f"{name} {np.mean(exact[name] == 0):.1%}" for name in NAMES[:-1]))
        return
    values = network.run(denoise.to_input(given))
    print(f"int8  {denoise.psnr(denoise.to_image(values[network.output]), clean):.2f} dB")
    for name, tensor in network.tensors.items():
        zeros = np.mean(values[name] == tensor.zero_point)
        print(f"{name:7} {tensor.shape!s:15} scale {tensor.scale:.6f} zero point {tensor.zero_point:4} zeros {zeros:6.1%}")


def main() -> None:
    """Train, quantize, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=7000, help="with float values")
    parser.add_argument("--fine-steps", type=int, default=1200, help="with int8 values")
    parser.add_argument("--sparsity", type=float, default=0.0015, help="weight of the penalty on activations")
    parser.add_argument("--output", type=Path, default=denoise.DATA)
    options = parser.parse_args()

    import torch
    from sklearn.datasets import load_sample_image
    from torch.nn import functional

    torch.set_num_threads(1)  # sums over more threads round differently, and the weights drift apart
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    china = torch.tensor(load_sample_image("china.jpg"), dtype=torch.float32).permute(2, 0, 1) / 255
    pyramid = [
        functional.interpolate(china[None], scale_factor=size, mode="bicubic", antialias=size < 1)[0].clamp(0, 1)
        for size in SIZES
    ]
    model = build().to(memory_format=torch.channels_last)
    train(model, pyramid, 30, 4e-3, options.sparsity, options.steps)
    evaluate(export(model), None)
    torch.manual_seed(SEED + 1)
    model.scales = measure(model, pyramid)
    train(model, pyramid, 30, 2e-3, options.sparsity, options.fine_steps)
    layers = export(model)
    ranges = FIXED | {name: (scale, -128) for name, scale in zip(NAMES, model.scales)}
    rows, columns = denoise.photograph().shape[:2]
    network = quantize.quantize("denoise", layers, np.zeros((1, rows, columns, 3)), ranges)
    evaluate(layers, network)
    options.output.mkdir(parents=True, exist_ok=True)
    denoise.resized(network, 16, 16).save(options.output / "denoise.gsm")


if __name__ == "__main__":
    main()
