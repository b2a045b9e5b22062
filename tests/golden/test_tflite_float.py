"""Float models against TFLite's interpreter, and what is refused."""

import re

import numpy as np
import pytest

from gossamer.golden import floating
from gossamer.golden.network import NetworkError
from gossamer.golden.tflite_float import OPERATORS, is_float, load_float
from tests.golden import tflite

tflite_models = pytest.importorskip("tests.golden.tflite_models", reason="ai-edge-litert, the oracle, is not installed")
Writer = tflite_models.Writer


@pytest.fixture
def load(tmp_path):
    """A function that reads the bytes of a file."""

    def run(data):
        path = tmp_path / "model.tflite"
        path.write_bytes(data)
        return load_float(path)

    return run


def small(rng, padding, stride, dilation, activation, hybrid=False):
    """A model of every operator."""
    w = Writer()

    def real(*shape):
        return w.constant(rng.normal(size=shape).astype(np.float32))

    def ints(*values):
        return w.constant(np.array(values, np.int32))

    moves = {"padding": padding, "strideH": stride[0], "strideW": stride[1]}
    spread = {"dilationHFactor": dilation, "dilationWFactor": dilation}
    x = w.tensor((1, 8, 9, 2), "float32")
    reach = 2 * dilation if padding else 0
    rows, columns = (-(-(size - reach) // step) for size, step in zip((8, 9), stride))
    same = (1, rows, columns, 6)
    y = w.tensor(same, "float32")
    weights = real(6, 3, 3, 2)
    if hybrid:
        scales = rng.uniform(0.01, 0.02, 6)
        weights = w.tensor((6, 3, 3, 2), "int8", scales, [0] * 6, 0, rng.integers(-127, 128, (6, 3, 3, 2)).astype(np.int8))
    w.operator("CONV_2D", [x, weights, real(6)], [y], "Conv2DOptions", **moves, **spread, fusedActivationFunction=activation)
    z = w.tensor(same, "float32")
    one = {"padding": 0, "strideH": 1, "strideW": 1}
    w.operator("DEPTHWISE_CONV_2D", [y, real(1, 3, 2, 6), real(6)], [z], "DepthwiseConv2DOptions", **one,
               depthMultiplier=1, dilationHFactor=1, dilationWFactor=1)  # fmt: skip
    total = w.tensor(same, "float32")
    w.operator("ADD", [y, z], [total], "AddOptions", fusedActivationFunction=activation)
    pools = []
    for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        pools.append(w.tensor(same, "float32"))
        w.operator(kind, [total], [pools[-1]], "Pool2DOptions", **one, filterHeight=2, filterWidth=3,
                   fusedActivationFunction=activation)  # fmt: skip
    both = w.tensor(same, "float32")
    w.operator("ADD", pools, [both], "AddOptions")
    padded = w.tensor((1, same[1] + 1, same[2] + 2, 6), "float32")
    pads = w.constant(np.array([[0, 0], [1, 0], [0, 2], [0, 0]], np.int32))
    w.operator("PAD", [both, pads], [padded], "PadOptions")
    mean = w.tensor((1, 1, 1, 6), "float32")
    w.operator("MEAN", [padded, ints(1, 2)], [mean], "ReducerOptions", keepDims=True)
    flat = w.tensor((1, 6), "float32")
    w.operator("RESHAPE", [mean, ints(1, -1)], [flat], "ReshapeOptions", newShape=[1, 6])
    fc = w.tensor((1, 5), "float32")
    w.operator("FULLY_CONNECTED", [flat, real(5, 6), real(5)], [fc], "FullyConnectedOptions")
    out = w.tensor((1, 5), "float32")
    w.operator("SOFTMAX", [fc], [out], "SoftmaxOptions", beta=0.7)
    return w.finish(x, out)


@pytest.mark.parametrize("activation", range(4))
@pytest.mark.parametrize("padding, stride, dilation", [(0, (1, 1), 1), (0, (2, 1), 1), (1, (1, 1), 1), (0, (1, 1), 2)])
def test_every_tensor_is_the_interpreters(rng, load, padding, stride, dilation, activation):
    data = small(rng, padding, stride, dilation, activation)
    model = load(data)
    assert {layer.name.split()[1] for layer in model.layers} == {*OPERATORS} - {"EXPAND_DIMS", "SQUEEZE"}
    x = rng.normal(size=(3, *model.shape)).astype(np.float32)
    got = floating.run(model.layers, x)
    oracle = tflite_models.reference(data)
    for index, one in enumerate(x):
        expected = tflite_models.reference_tensors(oracle, one).values()
        for layer, value in zip(model.layers, expected, strict=True):
            ours = got[layer.name][index]
            np.testing.assert_allclose(ours.reshape(value.shape), value, atol=2e-5, rtol=1e-5, err_msg=layer.name)


def test_int8_weights_are_the_numbers_that_they_stand_for(rng, load):
    data = small(rng, 0, (1, 1), 1, 0, hybrid=True)
    conv = load(data).layers[0]
    oracle = tflite_models.reference(data)
    details = next(one for one in oracle.get_tensor_details() if one["dtype"] == np.int8)
    scales = details["quantization_parameters"]["scales"]
    exact = oracle.get_tensor(details["index"]) * scales.reshape(-1, 1, 1, 1).astype(float)
    np.testing.assert_array_equal(conv.weights, exact)


@pytest.mark.parametrize("model", ["ic_resnet8", "vww_96", "ad01", "kws_dscnn"])
def test_benchmark_models(model):
    path = tflite.data_folder() / f"{model}_fp32.tflite"
    assert is_float(path)
    assert not is_float(tflite.data_folder() / f"{model}_int8.tflite")
    found, oracle = load_float(path), tflite_models.reference(path.read_bytes())
    tensor = tflite.network_of(model).tensors[tflite.network_of(model).input]
    x = (tflite.samples(model)["x"][:4].astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)
    got = floating.outputs(found.layers, x.reshape(4, *found.shape))
    # The convolutions of KWS have int8 weights, and the kernel for them rounds the inputs to int8 as well.
    tolerance = 0.05 if model == "kws_dscnn" else 1e-3
    for ours, one in zip(got, x):
        *_, expected = tflite_models.reference_tensors(oracle, one).values()
        np.testing.assert_allclose(ours, expected[0], atol=tolerance)


def test_borders_have_the_models_own_shape(load):
    w = Writer()
    x, y = w.tensor((1, 5, 3), "float32"), w.tensor((1, 5, 3), "float32")
    w.operator("SOFTMAX", [x], [y], "SoftmaxOptions", beta=1.0)
    model = load(w.finish(x, y))
    assert (model.shape, model.borders) == ((1, 5, 3), ((5, 3), (5, 3)))


def fully_connected(change=lambda w: None, weights=None, bias=None, source=(1, 4)):
    w = Writer()
    x, y = w.tensor(source, "float32", name="x"), w.tensor((1, 2), "float32", name="y")
    weights = w.constant(np.ones((2, 4), np.float32) if weights is None else weights)
    bias = w.constant(np.zeros(2, np.float32) if bias is None else bias)
    w.operator("FULLY_CONNECTED", [x, weights, bias], [y], "FullyConnectedOptions")
    change(w)
    return w.finish(x, y)


def tanh(w):
    w.graph.operators[0].builtinOptions.fusedActivationFunction = 4


def logistic(w):
    w.graph.operators.pop()
    w.operator("LOGISTIC", [0], [1])


def early(w):
    z = w.tensor((1, 4), "float32", name="z")
    w.graph.operators[0].inputs[0] = z


def half(w):
    w.graph.tensors[0].type = tflite_models.schema.TensorType.FLOAT16


def unwritten(w):
    z = w.tensor((1, 2), "float32", name="z")
    w.operator("SOFTMAX", [1], [z], "SoftmaxOptions", beta=1.0)


OPERATOR = "operator 0, FULLY_CONNECTED, which writes 'y': "
KNOWN = ", ".join(OPERATORS)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"change": logistic}, "operator 0, LOGISTIC, which writes 'y': an operator of a float model must be one of those that "
         f"can be quantized, not LOGISTIC; these are {KNOWN}"),
        ({"change": tanh}, OPERATOR + "the fused activation must be NONE, RELU, RELU6 or RELU_N1_TO_1, not TANH"),
        ({"change": early}, OPERATOR + "it must read what is there already, and write a tensor that is not"),
        ({"change": half}, OPERATOR + "inputs and outputs of a float model must be float32, not float16"),
        ({"change": unwritten}, "the last operator must write the model's output, not 'z'"),
        ({"weights": np.full((2, 4), np.nan, np.float32)},
         OPERATOR + "the weights must be a dense constant of finite float32, or of int8 with scales, not infinity or NaN"),
        ({"weights": np.ones((2, 4), np.int8)},
         OPERATOR + "the weights must be a dense constant of finite float32, or of int8 with scales, not int8"),
        ({"bias": np.zeros(2, np.int32)}, OPERATOR + "the bias must be a constant of one finite float32 per output channel, or "
         "left out, not int32 of shape (2,)"),
        ({"source": (1, 1, 2, 4)}, OPERATOR + "the input must have as many values as a row of weights, the output one for each "
         "row, not (1, 2, 4) and (2,)"),
    ],
)  # fmt: skip
def test_refused_models(load, fields, message):
    with pytest.raises(NetworkError, match=rf"model\.tflite: {re.escape(message)}$"):
        load(fully_connected(**fields))


def test_damage_is_refused_or_makes_no_difference(rng, load):
    good, outcomes = small(rng, 0, (2, 1), 1, 1), {True: 0, False: 0}
    for _ in range(300):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            data[rng.integers(len(data))] = rng.integers(256)
        outcomes[tflite.accepts(load, bytes(data))] += 1
    assert min(outcomes.values()) > 20
