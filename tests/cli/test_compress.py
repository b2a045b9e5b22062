"""``gossamer compress``: files, tables, sentences, and that other commands take what it writes."""

import json
import re
import sys

import numpy as np
import pytest

from gossamer.cli import compress as tool
from gossamer.cli.sources import load
from gossamer.golden import denoise, digits, finetune, spec
from gossamer.golden.compiler import compile_network
from gossamer.golden.finetune import EPOCHS
from gossamer.golden.network import Network
from gossamer.golden.spec import CONFIGS
from tests.golden import tflite


@pytest.fixture
def few(tmp_path):
    """Digits to calibrate with."""
    np.save(tmp_path / "few.npy", digits.test_set()[0][:40])
    return tmp_path / "few.npy"


@pytest.fixture
def float_model(tmp_path, rng):
    """A float model of one layer with samples beside it, of which two are the same."""
    models = pytest.importorskip("tests.golden.tflite_models", reason="ai-edge-litert, which writes models, is not installed")
    w = models.Writer()
    x, y = w.tensor((1, 6), "float32", name="x"), w.tensor((1, 3), "float32", name="y")
    weights, bias = rng.normal(size=(3, 6)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    w.operator("FULLY_CONNECTED", [x, w.constant(weights), w.constant(bias)], [y], "FullyConnectedOptions")
    (tmp_path / "net_fp32.tflite").write_bytes(w.finish(x, y))
    given = rng.normal(size=(41, 6)).astype(np.float32)
    given[1] = given[0]
    classes = (given @ weights.T + bias).argmax(1)
    classes[2::3] = -1
    np.savez(tmp_path / "net_samples.npz", x=given, y=classes)
    return tmp_path / "net_fp32.tflite"


def test_writes_a_network_a_report_and_a_picture(gossamer, tmp_path, few):
    out = tmp_path / "new" / "small.gsm"
    status, output, _ = gossamer(
        "compress", "digits", "-o", out, "--calibrate", few, "--weights", "int4", "--prune", 0.3, "--count", 1
    )
    assert status == 0
    assert {path.name for path in out.parent.iterdir()} == {"small.gsm", "small.json", "small.png"}
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    report = json.loads(out.with_suffix(".json").read_text())
    network, before = Network.load(out), digits.load()
    weighted = [layer for layer in network.layers if hasattr(layer, "weights")]
    assert [layer["layer"] for layer in report["layers"]] == [layer.name for layer in weighted]
    for layer, entry in zip(weighted, report["layers"]):
        assert np.abs(layer.weights).max() <= 7
        if entry["kind"] == "Depthwise":
            assert (entry["prune"], entry["density"]) == (0, 1)
            assert entry["weight_bytes"] == layer.weights.size / 2
        else:
            assert entry["density"] == pytest.approx(0.7, abs=0.01)
            kept = round(entry["density"] * layer.weights.size)
            assert entry["weight_bytes"] == pytest.approx(min(kept / 2 + layer.weights.size / 8, layer.weights.size / 2), abs=1)
            assert np.count_nonzero(layer.weights) <= kept
        assert entry["int8_bytes"] == layer.weights.size
    assert report["macs"] == before.macs
    assert report["weight_bytes"] == sum(entry["weight_bytes"] for entry in report["layers"])
    assert report["core_weight_bytes"] > 0
    assert report["int8_bytes"] == report["source_bytes"]
    x, y = digits.test_set()
    quality = report["quality"]
    assert (quality["calibration"]["inputs"], quality["held_out"]["inputs"]) == (40, 460)
    classes = network.run(x[40:])[network.output].argmax(1)
    assert quality["held_out"]["accuracy"] == pytest.approx((classes == y[40:]).mean())
    assert quality["held_out"]["agreement"] == pytest.approx((classes == before.run(x[40:])[before.output].argmax(1)).mean())
    assert quality["held_out"]["accuracy_of_source"] == pytest.approx(0.99, abs=0.01)
    for text in ("conv1", "int4", "70%", f"{report['cycles']:,.0f}", "up5k stores"):
        assert text in output


def test_cycles_are_those_of_the_core(gossamer, tmp_path, few, digits_file):
    out, ran = tmp_path / "small.gsm", tmp_path / "run.json"
    status, _, _ = gossamer("compress", "digits", "-o", out, "--calibrate", few, "--weights", "palette16", "--count", 2)
    assert status == 0
    np.save(tmp_path / "x.npy", digits.test_set()[0][40:42])  # the first that are held out
    status, _, _ = gossamer("run", out, "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--json", ran)
    assert status == 0
    network = Network.load(out)
    x = np.load(tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), network.run(x)[network.output])
    report, ran = json.loads(out.with_suffix(".json").read_text()), json.loads(ran.read_text())
    assert report["cycles"] == ran["cycles_mean"]
    assert sum(layer["cycles"] for layer in report["layers"]) <= report["cycles"]


def test_options_of_layers_come_from_a_file(gossamer, tmp_path, few):
    (tmp_path / "layers.toml").write_text('[conv2]\nweights = "int4"\n[depthwise]\nprune = 0.25\n')
    out = tmp_path / "small.gsm"
    status, _, _ = gossamer(
        "compress", "digits", "-o", out, "--calibrate", few, "--per-layer", tmp_path / "layers.toml", "--count", 1,
        "--prune", 0.5, "--block", "lanes",
    )  # fmt: skip
    assert status == 0
    layers = {entry["layer"]: entry for entry in json.loads(out.with_suffix(".json").read_text())["layers"]}
    assert (layers["conv2"]["weights"], layers["conv2"]["prune"], layers["conv2"]["block"]) == ("int4", 0.5, "lanes")
    assert (layers["conv3"]["weights"], layers["depthwise"]["prune"]) == ("int8", 0.25)
    weights = next(layer for layer in Network.load(out).layers if layer.name == "conv2").weights
    lanes = weights.reshape(-1, 16, weights[0].size)
    assert np.all((lanes == 0).all(axis=1).mean(axis=1) >= 0.4)


def test_patterns_of_the_source_are_kept(gossamer, tmp_path, few):
    """Weights that were pruned 2:4 stay so in four bits, and are counted so; no core leaves single weights out."""
    first, second = tmp_path / "first.gsm", tmp_path / "second.gsm"
    assert gossamer("compress", "digits", "-o", first, "--calibrate", few, "--block", "nm:2:4", "--count", 1)[0] == 0
    status, output, _ = gossamer("compress", first, "-o", second, "--calibrate", few, "--weights", "int4", "--count", 1)
    assert status == 0
    layers = {entry["layer"]: entry for entry in json.loads(second.with_suffix(".json").read_text())["layers"]}
    for layer in Network.load(second).layers:
        if layer.name in ("conv2", "conv3", "conv4"):
            assert (layer.weights.reshape(-1, 4) != 0).sum(axis=1).max() == 2
            assert (layers[layer.name]["block"], layers[layer.name]["weights"]) == ("nm:2:4", "int4")
            assert layers[layer.name]["weight_bytes"] == layer.weights.size / 4 * 2 * (4 + 2) / 8
            assert layers[layer.name]["density"] == 0.5
    assert layers["depthwise"]["block"] == "unstructured"
    assert "N:M: no core skips single weights" in output
    assert "up5k has no masks, and computes with all" in output


def test_the_report_tells_the_density_of_blocks(gossamer, tmp_path, few):
    """By hand, from the network that was written; this core has masks."""
    out = tmp_path / "out.gsm"
    config = tmp_path / "eight.toml"
    config.write_text("lanes = 8\nmasks = 256\n")
    status, output, _ = gossamer(
        "compress", "digits", "-o", out, "--calibrate", few, "--prune", 0.8, "--config", config, "--count", 1
    )
    assert status == 0
    report = json.loads(out.with_suffix(".json").read_text())
    compiled = compile_network(Network.load(out), spec.config(config))
    for key, network in (("block_density", compiled.network), ("block_density_in_order", compiled.folded)):
        stored = vectors = 0
        for layer in network.layers:
            if hasattr(layer, "weights") and type(layer).__name__ != "Depthwise":
                for start in range(0, len(layer.weights), 8):
                    blocks = (layer.weights[start : start + 8] != 0).any(axis=0)
                    stored, vectors = stored + int(blocks.sum()), vectors + blocks.size
        assert report[key] == pytest.approx(stored / vectors, abs=1e-4)
    assert report["block_density"] < report["block_density_in_order"] < 1
    share, before = f"{report['block_density']:.1%}", f"{report['block_density_in_order']:.1%}"
    assert f"blocks: {share} of the weight vectors are not zero ({before} with channels in the given order)" in output
    assert "eight leaves out the others" in output


def test_budget_keeps_the_agreement(gossamer, tmp_path, few):
    out = tmp_path / "small.gsm"
    status, _, _ = gossamer("compress", "digits", "-o", out, "--calibrate", few, "--budget", 1, "--count", 1)
    assert status == 0
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["quality"]["calibration"]["agreement"] == 1
    assert "int4" in {entry["weights"] for entry in report["layers"]}


def test_a_float_model_becomes_an_int8_network(gossamer, tmp_path, float_model):
    out = tmp_path / "out.gsm"
    status, output, _ = gossamer("compress", float_model, "-o", out)
    assert status == 0
    report = json.loads(out.with_suffix(".json").read_text())
    assert (report["inputs"], report["source_bytes"], report["weight_bytes"]) == ("every other sample", 72, 18)
    quality = report["quality"]
    # 41 samples, of which 21 are for calibration; one of the others is the same as one of these
    assert (quality["calibration"]["inputs"], quality["held_out"]["inputs"]) == (21, 19)
    given = np.load(tmp_path / "net_samples.npz")
    assert quality["calibration"]["labelled"] == (given["y"][::2] >= 0).sum()
    assert quality["held_out"]["accuracy_of_source"] == 1
    assert quality["held_out"]["relative_error"] < 0.05
    assert "labelled" not in output


def test_a_file_of_inputs_holds_them_out(gossamer, tmp_path, float_model):
    np.save(tmp_path / "x.npy", np.load(tmp_path / "net_samples.npz")["x"][:10])
    status, _, _ = gossamer("compress", float_model, "-o", tmp_path / "out.gsm", "--calibrate", tmp_path / "x.npy")
    assert status == 0
    quality = json.loads((tmp_path / "out.json").read_text())["quality"]
    assert (quality["calibration"]["inputs"], quality["held_out"]["inputs"]) == (10, 31)


def test_activations_of_four_bits(gossamer, tmp_path, few):
    out = tmp_path / "out.gsm"
    status, _, _ = gossamer("compress", "digits", "-o", out, "--calibrate", few, "--activations", "int4", "--count", 1)
    assert status == 0
    network, report = Network.load(out), json.loads(out.with_suffix(".json").read_text())
    assert [name for name, tensor in network.tensors.items() if tensor.dtype == "int8"] == ["input", "dense", "softmax"]
    assert report["activations"] == "int4"
    assert report["quality"]["held_out"]["accuracy"] >= 0.9


@pytest.mark.parametrize("given, epochs", [((), EPOCHS), ((3,), 3)])
def test_finetuning_is_reported_beside_what_was_before(gossamer, tmp_path, few, given, epochs, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch, which trains, is not installed")
    done = []

    def short(source, found, options, count, *rest):
        done.append(count)
        return finetune.finetune(source, found, options, 2, *rest)

    monkeypatch.setattr("gossamer.cli.main.finetune", short)
    out = tmp_path / "out.gsm"
    status, output, _ = gossamer(
        "compress", "digits", "-o", out, "--calibrate", few, "--weights", "binary", "--count", 1, "--finetune", *given
    )
    assert (status, done) == (0, [epochs])
    report, layers = json.loads(out.with_suffix(".json").read_text()), Network.load(out).layers
    assert (report["epochs"], set(report["quality_untrained"])) == (epochs, {"calibration", "held_out"})
    assert "held out, before training, 460 inputs: agreement" in output
    for entry in report["layers"]:
        plain = entry["layer"] in ("conv1", "depthwise", "dense")
        weights = next(layer.weights for layer in layers if layer.name == entry["layer"])
        assert entry["weights"] == ("int8" if plain else "binary")
        assert plain or {*np.unique(weights)} == {-1, 1}


def test_binary_weights_need_training(gossamer, tmp_path, few):
    status, _, error = gossamer("compress", "digits", "-o", tmp_path / "o.gsm", "--calibrate", few, "--weights", "binary")
    assert status == 2
    assert error == "gossamer: --finetune must be given for binary weights, which are of no use without training\n"


def test_training_needs_pytorch(gossamer, tmp_path, few, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    status, _, error = gossamer("compress", "digits", "-o", tmp_path / "o.gsm", "--calibrate", few, "--finetune", 1)
    assert status == 2
    assert error == "gossamer: training needs PyTorch, and it is not installed: pip install 'gossamer[train]'\n"


def test_a_network_that_does_not_fit_is_written_all_the_same(gossamer, tmp_path, few, monkeypatch):
    def refuse(*_):
        raise tool.CompileError("it does not fit")

    monkeypatch.setattr(tool, "compile_network", refuse)
    status, output, _ = gossamer("compress", "digits", "-o", tmp_path / "out.gsm", "--calibrate", few)
    assert status == 0
    assert "no cycles: it does not fit" in output
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["cycles"], report["refused"]) == (None, "it does not fit")
    assert (tmp_path / "out.gsm").is_file()


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"conv9": {}}', r"layers\.json must name layers with weights \(conv1, .*, dense\), not 'conv9'"),
        ('{"conv1": {"bits": 4}}', r"layer 'conv1' in \S*layers\.json must have options among weights, prune, block, palette, "
         "not 'bits'"),
        ('{"conv1": 4}', r"layer 'conv1' in \S*layers\.json must have options among weights, prune, block, palette, not 4"),
        ('{"conv1": {"weights": "int3"}}', "weights must be one of int8, int4, palette16, palette32, binary, not 'int3'"),
        ("[1]", r"the options per layer \S*layers\.json must be TOML or JSON: it holds no table, but \[1\]"),
        ("{", r"the options per layer \S*layers\.json must be TOML or JSON: .*"),
    ],
)  # fmt: skip
def test_refused_files_of_options(refused, tmp_path, few, content, message):
    (tmp_path / "layers.json").write_text(content)
    found = refused("compress", "digits", "-o", "out.gsm", "--calibrate", few, "--per-layer", tmp_path / "layers.json")
    assert re.search(f"(^|/){message}$", found)


def test_refused_options(refused, tmp_path, few):
    message = refused("compress", "digits", "-o", "out.gsm", "--block", "nm:2:4", "--prune", 0.5)
    assert message == "prune must be 0 with block nm:2:4, which says how many to prune, not 0.5"


def test_inputs_are_needed(refused, tmp_path):
    digits.load().save(tmp_path / "alone.gsm")
    message = refused("compress", tmp_path / "alone.gsm", "-o", "out.gsm")
    assert message == (
        f"inputs must be given with --calibrate, or be in a file NAME_samples.npz beside the model {tmp_path}/alone.gsm"
    )


def test_a_budget_needs_classes(refused, tmp_path, rng):
    np.save(tmp_path / "x.npy", rng.integers(-128, 128, (2, 16, 16, 3)).astype(np.int8))
    denoise.resized(denoise.load(), 16, 16).save(tmp_path / "small.gsm")
    message = refused("compress", tmp_path / "small.gsm", "-o", "out.gsm", "--calibrate", tmp_path / "x.npy", "--budget", 0.9)
    assert message == "--budget must be left out for 'denoise', which does not classify"


def test_inputs_of_a_float_model_are_checked(refused, tmp_path, float_model):
    np.save(tmp_path / "wrong.npy", np.zeros((2, 6), np.int8))
    message = refused("compress", float_model, "-o", "out.gsm", "--calibrate", tmp_path / "wrong.npy")
    assert message == "the input of 'net_fp32' must be float32 of shape (N, 6), N > 0, not int8 of shape (2, 6)"


def test_infinite_inputs_of_a_float_model_are_refused(refused, tmp_path, float_model):
    np.save(tmp_path / "wrong.npy", np.full((2, 6), np.inf, np.float32))
    message = refused("compress", float_model, "-o", "out.gsm", "--calibrate", tmp_path / "wrong.npy")
    assert message == f"the input of 'net_fp32' must be finite numbers, and some in {tmp_path}/wrong.npy are not"


def test_int8_samples_of_a_float_model_stand_for_what_its_int8_twin_says():
    given = load(str(tflite.data_folder() / "kws_dscnn_fp32.tflite"), None, "minmax")
    tensor = tflite.network_of("kws_dscnn").tensors[tflite.network_of("kws_dscnn").input]
    assert given.source.network.tensors["input"].quantization == tensor.quantization
    x = tflite.samples("kws_dscnn")["x"]
    np.testing.assert_array_equal(given.sets["calibration"].x, x[::2])
    assert np.all(given.sets["calibration"].known >= 0)
    compile_network(given.source.network, CONFIGS["up5k"])
