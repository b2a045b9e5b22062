"""The denoising network: what it promises on a photograph that it has not seen, at any size, and its conversions."""

import numpy as np
import pytest

from gossamer.golden import denoise
from gossamer.golden.compiler import compile_network
from gossamer.golden.inference import infer
from gossamer.golden.network import Add, Conv, Network, NetworkError
from gossamer.golden.spec import CONFIGS
from tests.networks import Builder

TOP, LEFT = 60, 160
CROP = (slice(TOP, TOP + 96), slice(LEFT, LEFT + 128))
"""A part of the photograph with the flower's petals and the smooth background."""
REACH = 6
"""How far, in pixels, an output depends on inputs: one pixel per 3x3 convolution."""


def denoised(network, image):
    return denoise.to_image(network.run(denoise.to_input(image))[network.output])


@pytest.fixture(scope="module")
def crop():
    """``(clean, noisy, denoised)`` in the crop; the network is run on the crop alone."""
    clean = denoise.photograph()[CROP]
    noisy = denoise.noisy(clean, seed=7)
    return clean, noisy, denoised(denoise.load(*clean.shape[:2]), noisy)


# The network


def test_noise_becomes_less(crop):
    clean, noisy, found = crop
    assert found.dtype == np.uint8
    assert denoise.psnr(noisy, clean) == pytest.approx(21.2, abs=0.3)
    assert denoise.psnr(found, clean) - denoise.psnr(noisy, clean) >= 8.8


def test_shape_of_the_network():
    network = denoise.load()
    (*convs, add) = network.layers
    assert all(isinstance(layer, Conv) for layer in convs)
    assert isinstance(add, Add)
    assert [layer.weights.shape for layer in convs] == [(16, 3, 3, 3), *4 * [(16, 3, 3, 16)], (3, 3, 3, 16)]
    assert all((layer.stride, layer.padding) == ((1, 1), (1, 1, 1, 1)) for layer in convs)
    assert {tensor.shape[:2] for tensor in network.tensors.values()} == {(427, 640)}
    assert add.inputs == (network.input, convs[-1].output)
    # 10,080 weights, each used once per pixel
    assert network.macs == 10_080 * 427 * 640


def test_stored_bytes_are_pixels():
    network = denoise.load(16, 16)
    for name in (network.input, network.output):
        assert network.tensors[name].quantization == (float(np.float32(1 / 255)), -128)
    correction = network.tensors[network.layers[-1].inputs[1]]
    assert correction.quantization == (float(np.float32(1 / 255)), 0)


def test_the_addition_is_that_of_pixels(crop):
    _, noisy, found = crop
    network = denoise.load(*noisy.shape[:2])
    values = network.run(denoise.to_input(noisy))
    correction = values[network.layers[-2].output][0].astype(int)
    assert correction.any()
    np.testing.assert_array_equal(found, np.clip(noisy + correction, 0, 255))


def test_maps_between_convolutions_are_sparse(crop):
    _, noisy, _ = crop
    network = denoise.load(*noisy.shape[:2])
    values = network.run(denoise.to_input(noisy))
    maps = [layer.output for layer in network.layers[:-2]]
    assert len(maps) == 5
    assert all(network.tensors[name].zero_point == -128 for name in maps)
    assert np.mean([np.mean(values[name] == -128) for name in maps]) >= 0.3


def test_a_part_of_an_image_gives_that_part_of_the_output(crop):
    _, noisy, found = crop
    rows, columns = slice(10, 51), slice(17, 80)
    part = noisy[rows, columns]
    again = denoised(denoise.load(*part.shape[:2]), part)
    inside = slice(REACH, -REACH)
    np.testing.assert_array_equal(again[inside, inside], found[rows, columns][inside, inside])
    # and nearer to the border it differs, for there the network sees padding
    nearer = slice(REACH - 1, 1 - REACH)
    assert (again[nearer, nearer] != found[rows, columns][nearer, nearer]).any()


@pytest.mark.parametrize("rows, columns", [(1, 1), (1, 40), (33, 2)])
def test_any_size_will_do(rng, rows, columns):
    image = rng.integers(0, 256, (rows, columns, 3), np.uint8)
    network = denoise.load(rows, columns)
    assert network.tensors[network.input].shape == network.tensors[network.output].shape == (rows, columns, 3)
    assert denoised(network, image).shape == image.shape


def test_sizes_share_their_weights():
    small, large = denoise.load(16, 16), denoise.load()
    for a, b in zip(small.layers[:-1], large.layers[:-1]):
        for field in ("weights", "bias", "weight_scales"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert (small.name, large.name) == ("denoise", "denoise")


def test_the_core_computes_it_and_skips_zeros():
    network = denoise.load(12, 20)
    noisy = denoise.noisy(denoise.photograph()[100:112, 200:220])
    found = infer(compile_network(network, CONFIGS["up5k"]), denoise.to_input(noisy)[0])
    np.testing.assert_array_equal(denoise.to_image(found.output[np.newaxis]), denoised(network, noisy))
    # of 16 lanes, if it were 16 output channels everywhere, and no value were zero
    dense = 12 * 20 * 9 * (3 + 5 * 16)
    assert found.cycles < 0.85 * dense


def test_a_network_that_is_not_fully_convolutional_has_one_size(rng):
    b = Builder(rng, (8, 8, 2))
    b.fully_connected(b.input, 5)
    with pytest.raises(NetworkError):
        denoise.resized(b.network("dense"), 9, 8)


# Photograph, noise and signal-to-noise ratio


def test_photograph_is_that_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn, which has the photograph, is not installed")
    photograph = denoise.photograph()
    assert (photograph.dtype, photograph.shape) == (np.uint8, (denoise.ROWS, denoise.COLUMNS, 3))
    np.testing.assert_array_equal(photograph, datasets.load_sample_image("flower.jpg"))


def test_noise_is_that_of_its_seed():
    image = np.full((20, 30, 3), 128, np.uint8)
    first = denoise.noisy(image, 1)
    np.testing.assert_array_equal(denoise.noisy(image, 1), first)
    assert (denoise.noisy(image, 2) != first).mean() > 0.9


def test_noise_has_its_deviation_and_is_cut_to_pixels():
    image = np.zeros((200, 200, 3), np.uint8)
    grey = denoise.noisy(image + np.uint8(128)).astype(float) - 128
    assert abs(grey.mean()) < 0.3
    assert grey.std() == pytest.approx(25, abs=0.3)
    black, white = denoise.noisy(image), denoise.noisy(image + np.uint8(255))
    # half of the noise is cut off; the mean of the other half is sigma / sqrt(2 pi)
    assert black.mean() == pytest.approx(25 / np.sqrt(2 * np.pi), abs=0.2)
    assert 255 - white.mean() == pytest.approx(25 / np.sqrt(2 * np.pi), abs=0.2)


def test_psnr_known_answers():
    a = np.full((4, 4, 3), 100, np.uint8)
    assert denoise.psnr(a, a) == float("inf")
    # 10 log10(255²)
    assert denoise.psnr(a, a + np.uint8(1)) == pytest.approx(48.1308, abs=1e-4)
    # uint8 must not wrap around: 255 - 0 in one direction as in the other
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert denoise.psnr(black, white) == denoise.psnr(white, black) == 0
    # an error of 10 in one of 48 values
    b = a.copy()
    b[1, 2, 0] -= 10
    assert denoise.psnr(a, b) == pytest.approx(10 * np.log10(65025 * 48 / 100))


def test_conversions():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    x = denoise.to_input(image)
    assert (x.dtype, x.shape) == (np.int8, (1, 16, 16, 3))
    np.testing.assert_array_equal(x[0].astype(int) + 128, image)
    np.testing.assert_array_equal(denoise.to_image(x), image)


@pytest.mark.parametrize(
    "function, argument, message",
    [
        (
            denoise.to_input,
            np.zeros((2, 2, 3)),
            r"an image must be uint8 of shape \(rows, columns, 3\), not float64 of \(2, 2, 3\)",
        ),
        (
            denoise.noisy,
            np.zeros((2, 2), np.uint8),
            r"an image must be uint8 of shape \(rows, columns, 3\), not uint8 of \(2, 2\)",
        ),
        (
            denoise.to_image,
            np.zeros((2, 2, 3), np.int8),
            r"an output must be int8 of shape \(1, rows, columns, 3\), not int8 of \(2, 2, 3\)",
        ),
        (
            lambda image: denoise.psnr(image, image[:1]),
            np.zeros((2, 2, 3), np.uint8),
            r"images to compare must have one shape, not \(2, 2, 3\) and \(1, 2, 3\)",
        ),
    ],
)
def test_other_arrays_are_refused(function, argument, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        function(argument)


def test_the_file_is_what_save_writes(tmp_path):
    Network.load(denoise.DATA / "denoise.gsm").save(tmp_path / "denoise.gsm")
    assert (tmp_path / "denoise.gsm").read_bytes() == (denoise.DATA / "denoise.gsm").read_bytes()
