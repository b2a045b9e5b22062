"""The picture of the denoising network."""

import numpy as np
import pytest
from PIL import Image

from gossamer.cli.denoise import error_image, picture
from gossamer.cli.models import load_model, samples
from gossamer.golden import denoise


def test_errors_are_drawn_about_grey():
    clean = np.array([[[100, 100, 100], [0, 250, 30]]], np.uint8)
    image = np.array([[[101, 98, 100], [255, 0, 61]]], np.uint8)
    assert error_image(image, clean).tolist() == [[[132, 120, 128], [255, 0, 252]]]


@pytest.mark.parametrize("memory", [None, {"layer by layer": 8_744_960, "depth first": 100_000}, {"one": 5}])
def test_picture_is_a_png_with_the_images(memory, rng, tmp_path):
    clean = np.full((40, 60, 3), 250, np.uint8)
    noisy, denoised = clean.copy(), clean.copy()
    noisy[..., 0], denoised[..., 2] = 7, 9
    picture(tmp_path / "denoise.png", noisy, denoised, clean, memory)
    with Image.open(tmp_path / "denoise.png") as file:
        pixels = np.asarray(file.convert("RGB"))
    assert pixels.shape[1] == 1800
    for i, colour in enumerate([(7, 250, 250), (250, 250, 9), (128, 128, 0)]):
        part = pixels[:, 600 * i : 600 * (i + 1)]
        assert (part == colour).all(axis=2).mean() > 0.4, i


def test_denoise_is_a_model_with_a_sample():
    network = load_model("denoise")
    found = samples("denoise", network, 3)
    assert (found.x.shape, found.source) == ((1, 427, 640, 3), "held-out samples")
    np.testing.assert_array_equal(denoise.to_image(found.x), denoise.noisy(denoise.photograph()))
