"""The importer against the TFLite reference kernels, at every tensor; what it refuses, and how."""

import re

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from gossamer.golden import tflite_import
from gossamer.golden.network import KINDS as LAYERS
from gossamer.golden.network import (
    Conv,
    Depthwise,
    FullyConnected,
    Network,
    NetworkError,
    Reshape,
    requantization,
)
from gossamer.golden.tflite_import import OPERATORS, load_tflite
from tests.golden import tflite
from tests.golden.tflite_models import KINDS, Writer, random_input, random_model, reference, reference_tensors

MODELS_PER_KIND = 8
MODELS_PER_GROUP = 12


@pytest.fixture
def load(tmp_path):
    """A function that imports the bytes of a file."""

    def run(data):
        path = tmp_path / "model.tflite"
        path.write_bytes(data)
        return load_tflite(path)

    return run


def compare(network, interpreter, inputs):
    """Compare every tensor that the interpreter keeps."""
    got = network.run(inputs.reshape(len(inputs), *network.tensors[network.input].shape))
    for index, x in enumerate(inputs):
        for name, expected in reference_tensors(interpreter, x).items():
            assert got[name].dtype == expected.dtype
            value = got[name][index].reshape(expected.shape)
            np.testing.assert_array_equal(value, expected, f"input {index}, tensor {name}")


@pytest.mark.parametrize("kind", KINDS)
def test_single_operators_equal_the_reference_kernels(kind, rng, load):
    for _ in range(MODELS_PER_KIND):
        data = random_model(rng, 1, (kind,))
        network = load(data)
        assert kind in {layer.name.split()[1] for layer in network.layers}
        compare(network, reference(data), random_input(rng, data, 4))


@pytest.mark.parametrize("group", range(20))
def test_random_networks_equal_the_reference_kernels(group, rng, load):
    for _ in range(MODELS_PER_GROUP):
        data = random_model(rng)
        compare(load(data), reference(data), random_input(rng, data, 3))


def test_plain_networks_have_no_loose_ends(rng, load):
    for _ in range(40):
        data = random_model(rng, acc_bits=24, plain=True)
        network = load(data)
        *inner, last = network.layers
        read = {name for layer in network.layers for name in layer.inputs}
        assert {layer.output for layer in inner} <= read
        assert last.output == network.output
        compare(network, reference(data), random_input(rng, data, 2))
        for layer in network.layers:
            if isinstance(layer, (Conv, Depthwise, FullyConnected)):
                axes = {Conv: (1, 2, 3), Depthwise: (0, 1), FullyConnected: 1}[type(layer)]
                reach = np.abs(layer.weights.astype(int)).sum(axis=axes) * 255 + np.abs(layer.bias.astype(int))
                assert reach.max() < 1 << 23


def test_random_networks_reach_all_shifts_and_shapes(rng, load):
    layers, shifts, readers, results = [], set(), [], []
    for _ in range(150):
        data = random_model(rng, 4, tuple(kind for kind in KINDS if kind != "RESHAPE"))
        network = load(data)
        layers += network.layers
        values = network.run(random_input(rng, data, 2).reshape(2, *network.tensors[network.input].shape))
        results += [values[layer.output] for layer in network.layers if isinstance(layer, Conv)]
        readers.append(max(sum(name in layer.inputs for layer in network.layers) for name in network.tensors))
        for layer in network.layers:
            if isinstance(layer, (Conv, Depthwise, FullyConnected)):
                shifts.update(requantization(network, layer)[1].tolist())
    assert shifts >= set(range(-31, 3))
    assert {type(layer).__name__ for layer in layers} == set(LAYERS)
    assert max(readers) >= 3
    rounding = {layer.rounding for layer in layers if isinstance(layer, Conv)}
    assert rounding == {"double", "single"}  # FULLY_CONNECTED of several vectors
    windows = [layer for layer in layers if isinstance(layer, (Conv, Depthwise))]
    assert {layer.stride for layer in windows} >= {(1, 1), (1, 2), (3, 2)}
    assert any(layer.padding[0] < layer.padding[1] for layer in windows)
    assert any((layer.weight_scales == 0).any() for layer in windows)
    assert any(np.abs(layer.bias).max() > 1 << 29 for layer in windows)
    extremes = [np.isin(values, (-128, 127)).mean() for values in results]
    assert min(extremes) == 0
    assert max(extremes) == 1


def interpreted(model):
    return reference((tflite.data_folder() / f"{model}_int8.tflite").read_bytes())


def imported(model):
    return load_tflite(tflite.data_folder() / f"{model}_int8.tflite")


@pytest.mark.parametrize("model", tflite.MODELS)
def test_every_tensor_of_the_benchmark_models_for_every_sample(model):
    compare(imported(model), interpreted(model), tflite.samples(model)["x"])


@pytest.mark.parametrize("model", tflite.MODELS)
def test_every_output_of_the_benchmark_models(model):
    network, samples = imported(model), tflite.samples(model)
    x = samples["x"].reshape(-1, *network.tensors[network.input].shape)
    np.testing.assert_array_equal(network.run(x)[network.output], samples["output"])
    assert network.name == f"{model}_int8"


@pytest.mark.parametrize("model", tflite.MODELS)
def test_float_models_are_refused_with_a_hint(model):
    path = tflite.data_folder() / f"{model}_fp32.tflite"
    rule = "a model must be quantized to int8, except for its own input and output, not float32; quantize the model to full"
    with pytest.raises(NetworkError, match=f"^{re.escape(f'{path}: {rule}')} int8 first .*[^.]$"):
        load_tflite(path)


def test_imported_networks_survive_their_file(rng, load, tmp_path):
    for _ in range(30):
        data = random_model(rng)
        network = load(data)
        network.save(tmp_path / "n.gsm")
        read = Network.load(tmp_path / "n.gsm")
        x = random_input(rng, data, 2).reshape(2, *network.tensors[network.input].shape)
        for name, value in network.run(x).items():
            np.testing.assert_array_equal(read.run(x)[name], value)
        assert (read.input_shape, read.output_shape) == (network.input_shape, network.output_shape)


# Small models, each of one operator unless it says otherwise


def base(kind, shape, output, *constants, options=None, change=None, x=(0.5, 3), y=(0.5, 3), **fields):
    """A :class:`Writer` with input 'x', ``constants`` 'w', 'b', output 'y', after ``change``; and the two indices."""
    writer = Writer()
    inputs = [writer.tensor(shape, "int8", *x, name="x")]
    for name, (data, scales) in zip("wb", constants):
        inputs.append(writer.constant(data, scales=scales, zero_points=[0] * len(scales), name=name))
    writer.tensor(output, "int8", *y, name="y")
    writer.operator(kind, inputs, [len(inputs)], options, **fields)
    if change is not None:
        change(writer)
    return writer.finish(0, len(inputs))


def relu(change=None, shape=(1, 4, 4, 2), **fields):
    return base("RELU", shape, shape, change=change, **fields)


def conv(change=None, **fields):
    weights, bias = np.ones((3, 2, 2, 2), np.int8), np.array([1, 2, 3], np.int32)
    options = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "padding": 0} | fields
    return base(
        "CONV_2D", (1, 4, 4, 2), (1, 4, 4, 3), (weights, [0.25]), (bias, [0.125]), change=change,
        options="Conv2DOptions", **options,
    )  # fmt: skip


def dense(change=None, **fields):
    weights, bias = np.ones((3, 6), np.int8), np.array([1, 2, 3], np.int32)
    return base(
        "FULLY_CONNECTED", (1, 6), (1, 3), (weights, [0.25]), (bias, [0.125]), change=change,
        options="FullyConnectedOptions", **fields,
    )  # fmt: skip


def pool(change=None, **fields):
    options = {"strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2, "padding": 0} | fields
    return base("MAX_POOL_2D", (1, 4, 4, 2), (1, 2, 2, 2), change=change, options="Pool2DOptions", **options)


def concat(change=None, **fields):
    return base("CONCATENATION", (1, 4, 2), (1, 4, 2), change=change, options="ConcatenationOptions", **{"axis": 2} | fields)


def with_constant(kind, shape, output, constant, change=None, **fields):
    return base(kind, shape, output, (np.array(constant, np.int32), []), change=change, **fields)


def softmax(change=None, shape=(1, 6), beta=1.0, scale=0.5, y=(1 / 256, -128)):
    return base("SOFTMAX", shape, shape, change=change, options="SoftmaxOptions", beta=beta, x=(scale, 0), y=y)


def of(index, field, value):
    """Set a field of a tensor, or of its quantization."""

    def change(writer):
        tensor = writer.graph.tensors[index]
        setattr(tensor if hasattr(tensor, field) else tensor.quantization, field, value)

    return change


def without(index):
    """Make a constant a tensor that is computed."""
    return of(index, "buffer", 0)


def float_in_the_middle(writer):
    """A DEQUANTIZE and a SOFTMAX in float behind a RELU."""
    real, last = writer.tensor((1, 6), "float32", name="real"), writer.tensor((1, 6), "float32", name="last")
    writer.operator("DEQUANTIZE", [1], [real])
    writer.operator("SOFTMAX", [real], [last], "SoftmaxOptions", beta=1.0)


def coded(number, custom=None):
    def change(writer):
        code = writer.model.operatorCodes[0]
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = number, min(number, 127), custom

    return change


def inputs(*indices):
    def change(writer):
        writer.graph.operators[0].inputs = list(indices)

    return change


def appended(function):
    """A change of the writer that returns something."""

    def change(writer):
        function(writer)

    return change


HINT = f"; {tflite_import.HINT}"
KNOWN = (
    "ADD, AVERAGE_POOL_2D, CONCATENATION, CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE, EXPAND_DIMS, FULLY_CONNECTED, LOGISTIC, "
    "MAX_POOL_2D, MEAN, PAD, QUANTIZE, RELU, RELU6, RELU_N1_TO_1, RESHAPE, SOFTMAX, SQUEEZE"
)
TYPES = "inputs and outputs must be int8; only the model's own may be float32 or uint8, beside QUANTIZE and DEQUANTIZE, not"
PLAIN = "inputs and outputs must be dense tensors that the model computes anew for each inference, not"
SCALE = "int8 and uint8 inputs and outputs must have one scale, above 0, and one zero point, not"
SHAPES = "inputs and outputs must have shape (1, H, W, C), (H, W, C), (N, C) or (N), of sizes that are known beforehand, not"
SCALES = "the weights must have one scale, or one for each output channel; each finite and at least 0, not"
DILATION = (
    "dilations must be at least 1, and the weights at most 67,108,864 with the zeros that dilation and groups insert, not"
)
WINDOW = "the output's rows and columns must be those that input, window, stride and padding give, not"
PADS = "the paddings must be a constant, at most 65536 each, and none along the batch axis, not"
AXES = "the axes must be a constant: the rows and columns, of which those of size 1 may be left out, not"
BATCH = "the model's input and output must have a batch axis of size 1, or one axis, not"
EQUAL = "inputs and output must have one shape, without broadcasting, not"
KEPT = "inputs and output must have the same scale and zero point, not"
AXIS = "the axis must be the last one, that of the channels, and the other axes must agree, not"
SUIT = "the weights' shape must be that of the operator and suit its input's, not"
BIAS = "the bias must be a constant of one int32 per output channel, or left out, not"
ROWS = "the output must have a channel for each row of weights, and a vector for each vector of the input, not"
NEW_SHAPE = "the new shape must be a constant or an option, and be that of the output, not"
RANGE = "the last axis must have 1 to 4095 values, and beta times the input's scale must be above 2**-26, not"
FUSED = "the fused activation must be NONE, RELU, RELU6 or RELU_N1_TO_1, not"
OPERANDS = "it must have one output and as many inputs as its kernel has, not"
INT8 = "the weights must be a dense int8 constant, not"
STRIDES = "the strides must be 1 to 65536, the padding SAME or VALID, not"
MODEL = "a model must be quantized to int8, except for its own input and output, not"
OTHERS = "an operator must be one of the supported ones, not"
DAMAGED = "a TFLite model must be a sound flatbuffer, and this one is damaged:"

REFUSED = [
    (relu(coded(98)), f"RELU>LEAKY_RELU: {OTHERS} LEAKY_RELU; supported are {KNOWN}"),
    (
        relu(coded(32, "Foo")),
        f"RELU>CUSTOM 'Foo': {OTHERS} CUSTOM 'Foo'; supported are {KNOWN}",
    ),
    (
        relu(coded(999)),
        f"RELU>number 999: {OTHERS} number 999; supported are {KNOWN}",
    ),
    (relu(inputs()), f"RELU: {OPERANDS} 1 outputs and 0 inputs"),
    (relu(inputs(-1)), f"RELU: {OPERANDS} 1 outputs and 0 inputs"),
    (conv(inputs(0)), f"CONV_2D: {OPERANDS} 1 outputs and 1 inputs"),
    (relu(of(0, "type", schema.TensorType.UINT8)), f"RELU: {TYPES} uint8{HINT}"),
    (relu(of(0, "type", schema.TensorType.INT16)), f"RELU: {TYPES} int16"),
    (relu(float_in_the_middle, (1, 6)), f"operator 2, SOFTMAX, which writes 'last': {TYPES} float32{HINT}"),
    (relu(of(0, "sparsity", schema.SparsityParametersT())), f"RELU: {PLAIN} 'x', which is sparse"),
    (relu(of(0, "isVariable", True)), f"RELU: {PLAIN} 'x', which is variable"),
    (
        base("ADD", (1, 3), (1, 3), (np.ones((1, 3), np.int8), [0.5]), options="AddOptions"),
        f"ADD: {PLAIN} 'w', which is constant",
    ),
    (relu(of(0, "quantization", None)), f"RELU: {SCALE} [] and [] of 'x'"),
    (relu(of(1, "scale", [0.5, 0.5])), f"RELU: {SCALE} [0.5, 0.5] and [3] of 'y'"),
    (relu(of(1, "scale", [0.0])), f"RELU: {SCALE} [0.0] and [3] of 'y'"),
    (relu(of(1, "scale", [np.inf])), f"RELU: {SCALE} [inf] and [3] of 'y'"),
    (relu(shape=(2, 4, 4, 2)), f"{BATCH} (2, 4, 4, 2) of 'x'"),
    (relu(of(1, "shape", [2, 4, 4, 1])), f"{BATCH} (2, 4, 4, 1) of 'y'"),
    (relu(shape=(1, 1, 4, 4, 2)), f"RELU: {SHAPES} (1, 1, 4, 4, 2) of 'x'"),
    (relu(shape=(1, 0, 4, 2)), f"RELU: {SHAPES} (1, 0, 4, 2) of 'x'"),
    (relu(of(0, "shapeSignature", [-1, -1, 4, 2])), f"RELU: {SHAPES} (?, ?, 4, 2) of 'x'"),
    (relu(of(1, "shape", [1, 4, 4, 1])), f"RELU: {EQUAL} (1, 4, 4, 2) and (1, 4, 4, 1)"),
    (conv(fusedActivationFunction=4), f"CONV_2D: {FUSED} TANH"),
    (concat(fusedActivationFunction=1), "CONCATENATION: there must be no fused activation, not RELU"),
    (
        base("MAX_POOL_2D", (1, 4, 2), (1, 2, 2), options="Pool2DOptions", strideH=1, strideW=1),
        "MAX_POOL_2D: input and output must have four axes, the batch axis of size 1, not (1, 4, 2)",
    ),
    (
        with_constant("MEAN", (1, 6), (1, 6), [1], options="ReducerOptions"),
        "MEAN: the input must have shape (1, H, W, C) or (1, W, C), not (1, 6)",
    ),
    (conv(inputs(0, -1, 2)), f"CONV_2D: {INT8} none"),
    (conv(of(1, "sparsity", schema.SparsityParametersT())), f"CONV_2D: {INT8} sparse"),
    (conv(of(1, "type", schema.TensorType.UINT8)), f"CONV_2D: {INT8} uint8"),
    (conv(of(1, "type", schema.TensorType.INT4)), f"CONV_2D: {INT8} int4"),
    (conv(without(1)), f"CONV_2D: {INT8} computed ones"),
    (
        conv(of(1, "shape", [2, 2, 2, 3])),
        f"CONV_2D: {SUIT} (2, 2, 2, 3) for an input of (1, 4, 4, 2)",
    ),
    (
        dense(of(1, "shape", [18])),
        f"FULLY_CONNECTED: {SUIT} (18,) for an input of (1, 6)",
    ),
    (conv(of(1, "zeroPoint", [7])), "CONV_2D: the weights' zero points must be 0, not 7"),
    (conv(of(1, "scale", [0.5, 0.5])), f"CONV_2D: {SCALES} 2 along axis 0 for 3 channels"),
    (
        conv(appended(lambda w: (of(1, "scale", [0.5] * 3)(w), of(1, "quantizedDimension", 3)(w)))),
        f"CONV_2D: {SCALES} 3 along axis 3 for 3 channels",
    ),
    (conv(of(1, "scale", [-0.5])), f"CONV_2D: {SCALES} [-0.5]"),
    (
        dense(of(2, "shape", [3, 1])),
        f"FULLY_CONNECTED: {BIAS} int32 of shape (3, 1)",
    ),
    (
        dense(without(2)),
        f"FULLY_CONNECTED: {BIAS} computed int32 of shape (3,)",
    ),
    (conv(strideW=0), f"CONV_2D: {STRIDES} [1, 0] and SAME"),
    (conv(padding=2), f"CONV_2D: {STRIDES} [1, 1] and 2"),
    (conv(dilationHFactor=0), f"CONV_2D: {DILATION} [0, 1]"),
    (conv(dilationHFactor=1 << 24), f"CONV_2D: {DILATION} [16777216, 1] and 201326604"),
    (pool(filterHeight=0), "MAX_POOL_2D: the window must have 1 to 65536 rows and columns, not [0, 2]"),
    (pool(strideH=1), f"MAX_POOL_2D: {WINDOW} (2, 2), with (4, 2) given"),
    (pool(of(1, "scale", [0.25])), f"MAX_POOL_2D: {KEPT} (0.5, 3) and (0.25, 3)"),
    (concat(of(1, "zeroPoint", [4])), f"CONCATENATION: {KEPT} (0.5, 3) and (0.5, 4)"),
    (dense(weightsFormat=1), "FULLY_CONNECTED: the weights' format must be DEFAULT, not SHUFFLED4x16INT8"),
    (
        dense(of(3, "shape", [1, 4])),
        f"FULLY_CONNECTED: {ROWS} (1, 4)",
    ),
    (
        with_constant("RESHAPE", (1, 6), (1, 5), [1, 5]),
        "RESHAPE: input and output must have equally many values, not (1, 6) and (1, 5)",
    ),
    (
        with_constant("RESHAPE", (1, 6), (1, 2, 3), [1, 3, 2]),
        f"RESHAPE: {NEW_SHAPE} [1, 3, 2] for (1, 2, 3)",
    ),
    (
        with_constant("RESHAPE", (1, 6), (1, 2, 3), [1, 2, 3], without(1)),
        f"RESHAPE: {NEW_SHAPE} computed int32",
    ),
    (
        concat(axis=1),
        f"CONCATENATION: {AXIS} axis 1 of 3",
    ),
    (
        concat(of(1, "shape", [1, 4, 3])),
        f"CONCATENATION: {AXIS} (1, 4, 2) and (1, 4, 3)",
    ),
    (with_constant("MEAN", (1, 4, 4, 2), (1, 4, 2), [1]), f"MEAN: {AXES} [1] of (1, 4, 4, 2)"),
    (with_constant("MEAN", (1, 4, 4, 2), (1, 2), [1, 2], without(1)), f"MEAN: {AXES} computed axes"),
    (with_constant("MEAN", (1, 4, 4, 1), (1, 4, 4), [3]), f"MEAN: {AXES} [3] of (1, 4, 4, 1)"),
    (
        with_constant("PAD", (1, 1, 2, 1), (2, 1, 2, 1), [[0, 1], [0, 0], [0, 0], [0, 0]]),
        f"{BATCH} (2, 1, 2, 1) of 'y'",
    ),
    (
        with_constant("PAD", (1, 1, 2, 1), (1, 1, 2, 1), [[0, 0], [-1, 1], [0, 0], [0, 0]]),
        f"PAD: {PADS} [[0, 0], [-1, 1], [0, 0], [0, 0]] from (1, 1, 2, 1) to (1, 1, 2, 1)",
    ),
    (with_constant("PAD", (1, 2, 1), (1, 2, 1), [[0, 0]] * 3, without(1)), f"PAD: {PADS} computed ones"),
    (softmax(y=(1 / 256, 0)), "SOFTMAX: the output must have scale 1/256 and zero point -128, not (0.00390625, 0)"),
    (
        softmax(shape=(1, 4096)),
        f"SOFTMAX: {RANGE} 4096 and 0.5",
    ),
    (
        softmax(scale=2.0**-26),
        f"SOFTMAX: {RANGE} 6 and 1.4901161193847656e-08",
    ),
    (relu(lambda w: w.graph.operators.clear()), "a model must have operators, not none"),
    (
        relu(appended(lambda w: [of(i, "type", schema.TensorType.INT16)(w) for i in (0, 1)])),
        f"{MODEL} int16{HINT}",
    ),
    (  # dynamic range quantization: int8 weights, float activations
        conv(appended(lambda w: [of(i, "type", schema.TensorType.FLOAT32)(w) for i in (0, 3)])),
        f"{MODEL} float32{HINT}",
    ),
    (
        relu(of(1, "type", schema.TensorType.UINT8)),
        f"{MODEL} uint8{HINT}",
    ),
    (relu(appended(lambda w: w.model.subgraphs.append(w.graph))), "a TFLite model must have one subgraph, not 2"),
    (relu(lambda w: setattr(w.model, "version", 2)), "a TFLite model must be of version 3 of the schema, not 2"),
    (
        conv(lambda w: (setattr(w.model.buffers[1], "offset", 5000), setattr(w.model.buffers[1], "size", 24))),
        "constants must be inside the flatbuffer, and that of tensor 'w' is behind it",
    ),
    (conv(of(1, "shape", [3, 2, 2, 3])), "tensor 'w', int8 of shape (3, 2, 2, 3), must have 36 bytes of data, not 24"),
    (b"", "a TFLite model must have the identifier TFL3 in its bytes 4 to 7, and this file has not"),
    (relu()[:40], f"{DAMAGED} "),
    (relu(inputs(99)), f"{DAMAGED} index 99 of 2"),
    (relu(inputs(-2)), f"{DAMAGED} index -2 of 2"),
]  # fmt: skip


def full(message):
    """The message with the operator written out: 'RELU: …' is of operator 0, 'RELU>X: …' if it became an X."""
    kind, colon, rest = message.partition(": ")
    kind = kind.partition(">")[2] or kind
    if not colon or (kind not in OPERATORS and kind == message.partition(": ")[0]):
        return message
    return f"operator 0, {kind}, which writes 'y': {rest}"


@pytest.mark.parametrize("data, message", REFUSED, ids=range(len(REFUSED)))
def test_refusals_are_one_sentence(data, message, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    with pytest.raises(NetworkError) as error:
        load_tflite(path)
    text = str(error.value)
    wanted = f"{path}: {full(message)}"
    assert text[: len(wanted)] == wanted
    if not message.endswith("damaged: "):
        assert text == wanted
    assert "\n" not in text


def test_every_rule_is_seen_to_refuse():
    rules = {*tflite_import.EVERY_MODEL, *tflite_import.EVERY_OPERATOR, *(r for s in OPERATORS.values() for r in s.rules)}
    unseen = [rule.__name__ for rule in rules if not any(tflite_import.sentence(rule) in text for _, text in REFUSED)]
    assert unseen == ["model_has_one_input_and_output"]  # the next test


def test_one_input_and_one_output(load):
    writer = Writer()
    x, z = (writer.tensor((1, 3), "int8", 0.5, 3, name=name) for name in "xz")
    y = writer.tensor((1, 3), "int8", 0.5, 3, name="y")
    writer.operator("ADD", [x, z], [y], "AddOptions")
    finish = writer.finish

    def both(*indices):
        writer.graph.inputs, writer.graph.outputs = [x, z], [y]
        return finish(*indices)

    pack = writer.model.Pack

    def packed(builder):
        writer.graph.inputs = [x, z]
        return pack(builder)

    writer.model.Pack = packed
    message = r"model\.tflite: a model must have one input and one output, not 2 inputs and 1 outputs$"
    with pytest.raises(NetworkError, match=message):
        load(both(x, y))


def test_a_refusal_names_the_position(load):
    def leaky(writer):
        late = writer.tensor((1, 4, 4, 2), "int8", 0.5, 3, name="late")
        writer.operator("LEAKY_RELU", [1], [late], "LeakyReluOptions", alpha=0.1)

    with pytest.raises(NetworkError, match=r"operator 1, LEAKY_RELU, which writes 'late': an operator must be one of"):
        load(relu(leaky))


def test_an_unknown_batch_size_is_one(load):
    network = load(relu(of(0, "shapeSignature", [-1, 4, 4, 2])))
    assert network.tensors["x"].shape == (4, 4, 2)


def test_scalar_constants_and_the_old_operator_number(load):
    # a writer of today may leave the old one-byte number out
    def modern(writer):
        writer.model.operatorCodes[0].deprecatedBuiltinCode = 0

    assert [type(layer).__name__ for layer in load(conv(modern)).layers] == ["Conv"]


@pytest.mark.parametrize("build, index", [(dense, 2), (conv, 2)])
def test_a_missing_bias_is_zero(build, index, load):
    for change in (inputs(0, 1), inputs(0, 1, -1)):
        assert load(build(change)).layers[0].bias.tolist() == [0, 0, 0]


def test_the_scale_of_the_bias_does_not_count(load):
    layers = [load(conv(of(2, "scale", [scale]))).layers[0] for scale in (0.125, 7.0)]
    assert layers[0].bias.tolist() == layers[1].bias.tolist() == [1, 2, 3]
    assert layers[0].weight_scales.tolist() == layers[1].weight_scales.tolist() == [0.25] * 3


@pytest.mark.parametrize("kind, expected", [("QUANTIZE", -86), ("RELU", -85)])
def test_operators_divide_scales_as_their_kernels(kind, expected, load):
    # float32 rounds the quotient of these scales to the other side of a tie
    scales = (float.fromhex("0x1.e471dap+1"), -128), (float.fromhex("0x1.0bde94p+2"), -128)
    data = base(kind, (1, 1), (1, 1), x=scales[0], y=scales[1])
    x = np.array([[-81]], np.int8)
    assert load(data).run(x)["y"].tolist() == [[expected]]
    compare(load(data), reference(data), x)


def test_two_operators_may_share_weights(load):
    def twice(writer):
        again = writer.tensor((1, 4, 4, 3), "int8", 0.25, 1, name="again")
        weights, other = writer.graph.tensors[1], writer.tensor((3, 2, 2, 2), "int8", 0.5, 0, name="other")
        writer.graph.tensors[other].buffer = weights.buffer  # one buffer, another scale
        fields = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        writer.operator("CONV_2D", [0, other, 2], [again], "Conv2DOptions", **fields)

    data = conv(twice)
    network = load(data)
    first, second = network.layers
    np.testing.assert_array_equal(first.weights, second.weights)
    assert (first.weight_scales[0], second.weight_scales[0]) == (0.25, 0.5)
    compare(network, reference(data), random_input(np.random.default_rng(0), data, 2))


def test_dilation_and_groups_become_zeros(load):
    weights = np.arange(1, 9, dtype=np.int8).reshape(2, 2, 2, 1)
    options = {"strideH": 1, "strideW": 1, "dilationHFactor": 2, "dilationWFactor": 1, "padding": 1}
    bias = (np.zeros(2, np.int32), [0.5])
    data = base(
        "CONV_2D", (1, 4, 4, 2), (1, 2, 3, 2), (weights, [1.0]), bias, options="Conv2DOptions", **options
    )  # fmt: skip
    (layer,) = load(data).layers
    expected = np.zeros((2, 3, 2, 2), np.int8)
    expected[0, 0, :, 0], expected[0, 2, :, 0] = [1, 2], [3, 4]
    expected[1, 0, :, 1], expected[1, 2, :, 1] = [5, 6], [7, 8]
    assert layer.weights.tolist() == expected.tolist()
    assert layer.padding == (0, 0, 0, 0)


def test_fully_connected_of_several_vectors_is_a_convolution_that_rounds_once(load):
    weights, bias = np.ones((3, 2), np.int8), np.zeros(3, np.int32)
    constants = ((weights, [0.25]), (bias, [0.125]))
    data = base("FULLY_CONNECTED", (1, 4, 4, 2), (16, 3), *constants, options="FullyConnectedOptions", change=flattened)
    network = load(data)
    convolution, *rest = network.layers
    assert (type(convolution), convolution.weights.shape, convolution.rounding) == (Conv, (3, 1, 1, 2), "single")
    assert [type(layer) for layer in rest] == [Reshape, Reshape]
    assert (network.tensors["y"].shape, network.tensors["flat"].shape) == ((1, 16, 3), (48,))


def flattened(writer):
    """A RESHAPE of 'y' to a vector, which is the output."""
    flat = writer.tensor((1, 48), "int8", 0.5, 3, name="flat")
    writer.operator("RESHAPE", [3], [flat], "ReshapeOptions", newShape=[1, 48])
    finish = writer.finish
    writer.finish = lambda x, y: finish(x, flat)


def test_borders_have_the_models_own_shape(load):
    writer = Writer()
    x, y = writer.tensor((1, 5, 3), "float32", name="x"), writer.tensor((1, 5, 3), "uint8", 0.5, 200, name="y")
    a = writer.tensor((1, 5, 3), "int8", 0.25, 7, name="a")
    writer.operator("QUANTIZE", [x], [a], "QuantizeOptions")
    writer.operator("QUANTIZE", [a], [y], "QuantizeOptions")
    data = writer.finish(x, y)
    network = load(data)
    assert (network.input_shape, network.output_shape) == ((5, 3), (5, 3))
    assert [(t.name, t.dtype, t.shape) for t in network.tensors.values()] == [
        ("x", "float32", (1, 5, 3)), ("a", "int8", (1, 5, 3)), ("y", "uint8", (1, 5, 3)),
    ]  # fmt: skip
    compare(network, reference(data), random_input(np.random.default_rng(0), data, 4))


def test_tensors_without_a_name_of_their_own_get_their_number(load):
    def renamed(writer):
        third = writer.tensor((1, 4, 4, 2), "int8", 0.5, 3, name="")
        writer.graph.tensors[0].name = "y"
        writer.operator("RELU6", [1], [third])

    assert list(load(relu(renamed)).tensors) == ["y#0", "y#1", "#2"]


def test_a_tensor_that_is_written_twice_is_refused(load):
    def again(writer):
        writer.operator("RELU6", [0], [1])

    with pytest.raises(NetworkError, match=r"model\.tflite: layer '1 RELU6': output 'y' must not be written twice$"):
        load(relu(again))


def test_an_operator_before_its_input_is_refused(load):
    def early(writer):
        z = writer.tensor((1, 4, 4, 2), "int8", 0.5, 3, name="z")
        writer.operator("RELU6", [0], [z])
        writer.graph.operators[0].inputs = [z]

    message = r"layer '0 RELU': input 'z' must be the network's input or an earlier output$"
    with pytest.raises(NetworkError, match=message):
        load(relu(early))


def damaged(rng, good, flips):
    data = bytearray(good)
    for _ in range(flips):
        data[rng.integers(len(data))] = rng.integers(256)
    return bytes(data if rng.random() < 0.8 else data[: rng.integers(len(data))])


def test_damage_is_refused_or_makes_no_difference(rng, load):
    outcomes = {True: 0, False: 0}
    for _ in range(40):
        good = random_model(rng)
        for _ in range(40):
            outcomes[tflite.accepts(load, damaged(rng, good, int(rng.integers(1, 4))))] += 1
    assert min(outcomes.values()) > 100


def test_every_truncation_is_refused_or_makes_no_difference(load):
    good = conv()
    for length in range(0, len(good), 3):
        with pytest.raises(NetworkError):
            load(good[:length])


def test_a_damaged_benchmark_model(rng, load):
    good = (tflite.data_folder() / "ad01_int8.tflite").read_bytes()
    outcomes = set()
    tail = good[-6000:]  # the flatbuffer's tables lie behind the constants
    for _ in range(150):
        outcomes.add(tflite.accepts(load, good[:-6000] + damaged(rng, tail, 3)))
    assert outcomes == {True, False}


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_tflite(tmp_path / "none.tflite")
