"""The planner: what it promises is what the compiled programs need."""

import os
from pathlib import Path

import numpy as np
import pytest

from gossamer.golden import digits
from gossamer.golden.compiler import CompileError, Frontend, Strategy
from gossamer.golden.inference import infer
from gossamer.golden.planner import Planner, fit, point, strip_points
from gossamer.golden.rolling import Group
from gossamer.golden.spec import CONFIGS
from gossamer.golden.tflite_import import load_tflite
from tests.networks import Builder

UP5K = CONFIGS["up5k"]


def image_to_image(rng, rows, columns):
    """Four convolutions and a residual addition."""
    b = Builder(rng, (rows, columns, 3), zero_point=-128)
    x = b.input
    for _ in range(3):
        x = b.conv(x, 16)
    b.add(b.conv(x, 3, relu=False), b.input)
    return b.network()


@pytest.fixture(scope="module")
def digits_frontend():
    return Frontend(digits.load(), UP5K)


@pytest.fixture(scope="module")
def digits_points(digits_frontend):
    return Planner(digits_frontend).points()


def test_no_point_is_beaten_in_both(digits_points):
    peaks, cycles = ([getattr(one, name) for one in digits_points] for name in ("peak", "cycles"))
    assert len(digits_points) > 4
    assert peaks == sorted({*peaks})
    assert cycles == sorted({*cycles}, reverse=True)


def test_the_fastest_point_needs_no_more_than_layer_by_layer(digits_frontend, digits_points):
    layerwise = digits_frontend.compile()
    assert digits_points[-1].peak <= layerwise.plan.peak
    assert digits_points[0].peak * 2 < layerwise.plan.peak


@pytest.mark.parametrize("memory", [1100, 1500, 2100, 3072, 100_000])
def test_a_program_for_a_number_of_bytes_needs_no_more_and_computes_the_same(digits_frontend, digits_points, memory):
    compiled = fit(digits_frontend, memory, digits_points)
    assert compiled.plan.peak <= memory
    x = digits.test_set()[0][:2]
    wanted = compiled.network.run(x)[compiled.device_output]
    assert all((infer(compiled, one).output == y).all() for one, y in zip(x, wanted))


def test_fewer_bytes_take_more_cycles(digits_frontend, digits_points):
    x = digits.test_set()[0][0]
    cycles = [infer(fit(digits_frontend, memory, digits_points), x).cycles for memory in (1100, 2100, 3072)]
    assert cycles == sorted(cycles, reverse=True)


def test_too_few_bytes_are_refused_with_the_least(digits_frontend, digits_points):
    with pytest.raises(CompileError, match=r"^the activations of network 'digits' on configuration 'up5k' need at least \d+ bytes, not 500$") as caught:  # fmt: skip  # noqa: E501
        fit(digits_frontend, 500, digits_points)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert fit(digits_frontend, least, digits_points).plan.peak == least


def test_maps_too_wide_for_the_memory_are_cut_into_strips(rng):
    network = image_to_image(rng, 24, 700)
    frontend = Frontend(network, UP5K, folding=False)
    points = Planner(frontend).points()
    assert any(one.strategy.strips > 1 for one in points)
    compiled = fit(frontend, 60_000, points)
    x = rng.integers(-128, 128, (1, 24, 700, 3)).astype(np.int8)
    assert (infer(compiled, x[0], count=False).output == network.run(x)[network.output][0]).all()


def test_more_strips_need_fewer_bytes(rng):
    frontend = Frontend(image_to_image(rng, 12, 200), UP5K, folding=False)
    peaks = [one.peak for one in strip_points(frontend) if one.strategy.groups[0].rows == 1]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > 2 * peaks[-1]


def test_networks_that_cannot_be_cut_have_no_strips(digits_frontend):
    assert strip_points(digits_frontend) == []


def test_a_point_by_hand(digits_frontend):
    """Layer by layer: the bytes that exist at once are the plan's bound."""
    assert point(digits_frontend, Strategy()).peak == digits_frontend.compile().plan.bound
    rolled = Strategy((Group(len(digits_frontend.layers), 1),))
    assert point(digits_frontend, rolled).peak >= digits_frontend.compile(rolled).plan.bound


@pytest.mark.parametrize(
    ("stem", "memory"), [("kws_dscnn", 5_000), ("ic_resnet8", 20_000), ("vww_96", 14_000)]
)
def test_published_networks_need_few_bytes(stem, memory):
    data = os.environ.get("GOSSAMER_DATA")
    if not data:
        pytest.skip("GOSSAMER_DATA does not name the folder of the published networks")
    folder = Path(data) / "mlperf_tiny"
    compiled = fit(Frontend(load_tflite(folder / f"{stem}_int8.tflite"), UP5K), memory)
    assert compiled.plan.peak <= memory
    samples = np.load(folder / f"{stem}_samples.npz")
    outputs = compiled.finish(np.stack([infer(compiled, x, count=False).output for x in samples["x"][:2]]))
    assert (outputs.reshape(2, -1) == samples["output"][:2].reshape(2, -1)).all()


def test_without_streams_the_input_is_there_as_a_whole(rng):
    frontend = Frontend(image_to_image(rng, 12, 200), UP5K, folding=False)
    planner = Planner(frontend)
    assert any(one.strategy.stream for one in planner.points())
    points = planner.points(streamed=False)
    assert len(points) > 1
    assert not any(one.strategy.stream for one in points)
    assert all(one.peak > 12 * 200 * 3 for one in points)
