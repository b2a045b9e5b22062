"""What a user may call a model, and the inputs and outputs that it then has."""

import numpy as np
import pytest
from click.testing import CliRunner

from gossamer.cli.files import InputError, load_inputs
from gossamer.cli.main import cli
from gossamer.cli.models import load_model, samples
from gossamer.golden.network import NetworkError
from tests.golden import tflite
from tests.golden.tflite_models import Writer, random_input, reference, reference_tensors


def fully_connected(rng, source="int8", target="int8"):
    """A model of one FULLY_CONNECTED with shapes (1, 5, 3) and (1, 5, 2), and borders of other types."""
    writer = Writer()
    a, b = writer.tensor((1, 5, 3), "int8", 0.5, 3), writer.tensor((1, 5, 2), "int8", 1.0, -7)
    x, y = a, b
    if source != "int8":
        x = writer.tensor((1, 5, 3), source, *((0.5, 131) if source == "uint8" else ()))
        writer.operator("QUANTIZE", [x], [a], "QuantizeOptions")
    weights, bias = rng.integers(-127, 128, (2, 3)).astype(np.int8), rng.integers(-999, 1000, 2).astype(np.int32)
    constants = [writer.constant(weights, scales=0.01, zero_points=0), writer.constant(bias, scales=0.005, zero_points=0)]
    writer.operator("FULLY_CONNECTED", [a, *constants], [b], "FullyConnectedOptions", keepNumDims=True)
    if target != "int8":
        y = writer.tensor((1, 5, 2), target, *((1.0, 100) if target == "uint8" else ()), name="y")
        kind = "QUANTIZE" if target == "uint8" else "DEQUANTIZE"
        writer.operator(kind, [b], [y], "QuantizeOptions" if target == "uint8" else None)
    return writer.finish(x, y)


@pytest.mark.parametrize("source", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("target", ["int8", "uint8", "float32"])
def test_run_has_the_models_own_types_and_shapes(source, target, rng, tmp_path):
    data = fully_connected(rng, source, target)
    model, file, output = tmp_path / "m.tflite", tmp_path / "x.npy", tmp_path / "y.npy"
    model.write_bytes(data)
    x = random_input(rng, data, 3)
    assert (x.dtype, x.shape) == (source, (3, 5, 3))
    np.save(file, x)
    np.testing.assert_array_equal(load_inputs(file, load_model(str(model))), x.reshape(3, 1, 5, 3))
    result = CliRunner().invoke(cli, ["run", str(model), "--input", str(file), "-o", str(output)], catch_exceptions=False)
    assert result.exit_code == 0
    y = np.load(output)
    assert (y.dtype, y.shape) == (target, (3, 5, 2))
    interpreter = reference(data)
    name = interpreter.get_output_details()[0]["name"]
    np.testing.assert_array_equal(y, np.stack([reference_tensors(interpreter, one)[name][0] for one in x]))


def test_run_of_a_benchmark_model(tmp_path):
    model, samples = tflite.data_folder() / "kws_dscnn_int8.tflite", tflite.samples("kws_dscnn")
    np.save(tmp_path / "x.npy", samples["x"][:2])
    arguments = ["run", str(model), "--input", str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npy")]
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), samples["output"][:2])


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((1, 5, 3), np.int8), "must be float32 of shape (N, 5, 3), N > 0, not int8 of shape (1, 5, 3)"),
        (np.zeros((1, 1, 5, 3), np.float32), "must be float32 of shape (N, 5, 3), N > 0, not float32 of shape (1, 1, 5, 3)"),
        (np.full((1, 5, 3), np.nan, np.float32), "must be numbers, and some in "),
    ],
)
def test_other_inputs_are_refused(x, message, rng, tmp_path):
    (tmp_path / "m.tflite").write_bytes(fully_connected(rng, "float32"))
    network = load_model(str(tmp_path / "m.tflite"))
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(InputError) as error:
        load_inputs(tmp_path / "x.npy", network)
    assert str(error.value).startswith(f"the input of 'm' {message}")


@pytest.mark.parametrize("source", ["int8", "uint8", "float32"])
def test_sample_inputs_use_all_values(source, rng, tmp_path):
    (tmp_path / "m.tflite").write_bytes(fully_connected(rng, source))
    network = load_model(str(tmp_path / "m.tflite"))
    x = samples(str(tmp_path / "m.tflite"), network, 400).x
    assert (x.dtype, x.shape) == (source, (400, 1, 5, 3))
    values = network.run(x)[network.layers[0].output if source != "int8" else network.input]
    assert (values.min(), values.max(), len(np.unique(values))) == (-128, 127, 256)


@pytest.mark.parametrize("stem", ["net_int8", "net"])
def test_samples_lie_beside_the_model(stem, rng, tmp_path):
    (tmp_path / "net_int8.tflite").write_bytes(fully_connected(rng))
    network = load_model(str(tmp_path / "net_int8.tflite"))
    x = rng.integers(-128, 128, (4, 5, 3), np.int8)
    np.savez(tmp_path / f"{stem}_samples.npz", x=x)
    found = samples(str(tmp_path / "net_int8.tflite"), network, 3)
    assert found.x.shape == (3, 1, 5, 3)
    assert (found.x[:, 0] == x[:3]).all()
    assert (found.source, found.output) == (f"samples of {stem}_samples.npz", None)
    output = network.run(x[:, np.newaxis])[network.output].reshape(4, *(network.output_shape or (-1,)))
    np.savez(tmp_path / f"{stem}_samples.npz", x=x, output=output)
    found = samples(str(tmp_path / "net_int8.tflite"), network, 3)
    assert (found.output == output[:3]).all()


ZEROS = np.zeros((2, 5, 3), np.int8)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"y": np.zeros(3)}, "the samples {path} must be a .npz file with an array x: "),
        ({"x": ZEROS[..., :2]}, "the input of 'm' must be int8 of shape (N, 5, 3), N > 0, not int8 of shape (2, 5, 2)"),
        ({"x": ZEROS, "output": ZEROS[:1, 0]}, "the output in {path} must be int8 of shape (2, "),
        (None, "the samples {path} must be a .npz file with an array x: "),
    ],
    ids=["no x", "shape of x", "shape of output", "no archive"],
)
def test_samples_that_do_not_suit_the_model_are_refused(arrays, message, rng, tmp_path):
    (tmp_path / "m.tflite").write_bytes(fully_connected(rng))
    network = load_model(str(tmp_path / "m.tflite"))
    path = tmp_path / "m_samples.npz"
    if arrays is None:
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").rename(path)
    else:
        np.savez(path, **arrays)
    with pytest.raises(InputError) as error:
        samples(str(tmp_path / "m.tflite"), network, 3)
    assert str(error.value).startswith(message.format(path=path))


def test_a_model_is_known_by_its_content_or_its_name(rng, tmp_path):
    (tmp_path / "m.bin").write_bytes(fully_connected(rng))
    assert load_model(str(tmp_path / "m.bin")).name == "m"
    (tmp_path / "m.tflite").write_bytes(b"nonsense")
    with pytest.raises(NetworkError, match=r"m\.tflite: a TFLite model must have the identifier TFL3"):
        load_model(str(tmp_path / "m.tflite"))
    (tmp_path / "m.gsm").write_bytes(b"nonsense")
    with pytest.raises(NetworkError, match=r"m\.gsm: a network file must be as Network\.save writes it"):
        load_model(str(tmp_path / "m.gsm"))
