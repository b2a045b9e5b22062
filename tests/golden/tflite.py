"""The oracle: the TFLite reference kernels, tensor by tensor, and a :class:`Network` built from the same file.

Only what the interpreter tells about a model is used, so that this reader shares nothing with an importer under test.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gossamer.golden import arithmetic
from gossamer.golden.network import (
    Add,
    AveragePool,
    Conv,
    Depthwise,
    FullyConnected,
    Layer,
    Network,
    NetworkError,
    Reshape,
    Softmax,
    Tensor,
)

MODELS = ("kws_dscnn", "ic_resnet8", "vww_96", "ad01")


def data_folder() -> Path:
    """Folder of the MLPerf Tiny models, or skip."""
    folder = Path(os.environ.get("GOSSAMER_DATA", "")) / "mlperf_tiny"
    if "GOSSAMER_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("GOSSAMER_DATA does not name a folder with mlperf_tiny: no TFLite models to compare with")
    return folder


def samples(model: str) -> dict[str, np.ndarray]:
    """``x``, ``y`` and ``output`` of the model's samples."""
    with np.load(data_folder() / f"{model}_samples.npz") as file:
        return dict(file)


@cache
def interpreter(model: str):
    """An interpreter of the reference kernels that keeps every tensor, or skip."""
    path = data_folder() / f"{model}_int8.tflite"
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert, the oracle, is not installed")
    kernels = litert.OpResolverType.BUILTIN_REF
    result = litert.Interpreter(str(path), experimental_op_resolver_type=kernels, experimental_preserve_all_tensors=True)
    result.allocate_tensors()
    return result


def tensors_of(model: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every activation tensor (as :func:`network_of` names them, with the batch axis) for one sample ``x``."""
    oracle = interpreter(model)
    oracle.set_tensor(oracle.get_input_details()[0]["index"], x[np.newaxis])
    oracle.invoke()
    outputs = [int(op["outputs"][0]) for op in oracle._get_ops_details()]
    return {str(index): oracle.get_tensor(index) for index in outputs}


def _tensor(details: dict) -> Tensor:
    scale, zero_point = details["quantization"]
    shape = tuple(int(size) for size in details["shape"][1:])
    return Tensor(str(details["index"]), shape, float(np.float32(scale)), int(zero_point))


def _weighted(oracle, details: dict, name: str, op: dict, x: Tensor, y: Tensor) -> Layer:
    filter_index, bias_index = (int(index) for index in op["inputs"][1:])
    weights, bias = oracle.get_tensor(filter_index), oracle.get_tensor(bias_index)
    scales = np.float64(details[filter_index]["quantization_parameters"]["scales"])
    common = {"name": name, "inputs": (x.name,), "output": y.name, "bias": bias}
    common["weight_scales"] = np.broadcast_to(scales, bias.shape).copy()
    # Whether a RELU is fused is not told. Where it is, the output's zero point is -128, and it changes nothing.
    if op["op_name"] == "FULLY_CONNECTED":
        return FullyConnected(weights=weights, **common)
    kernel = weights.shape[1:3]
    stride = tuple(-(-x.shape[axis] // y.shape[axis]) for axis in (0, 1))
    padding = tuple(p for axis in (0, 1) for p in arithmetic.same_padding(x.shape[axis], kernel[axis], stride[axis]))
    if op["op_name"] == "CONV_2D":
        return Conv(weights=weights, stride=stride, padding=padding, **common)
    return Depthwise(weights=weights[0], stride=stride, padding=padding, **common)


@cache
def network_of(model: str) -> Network:
    """The model as a :class:`Network`; all its windows are SAME, and its average pools global."""
    oracle = interpreter(model)
    details = {entry["index"]: entry for entry in oracle.get_tensor_details()}
    x = _tensor(oracle.get_input_details()[0])
    tensors, layers = {x.name: x}, []
    for op in oracle._get_ops_details():
        y = _tensor(details[int(op["outputs"][0])])
        tensors[y.name] = y
        name, kind = f"{op['index']} {op['op_name']}", op["op_name"]
        inputs = tuple(str(index) for index in op["inputs"])
        first = tensors[inputs[0]]
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            layers.append(_weighted(oracle, details, name, op, first, y))
        elif kind == "ADD":
            layers.append(Add(name, inputs, y.name))
        elif kind == "AVERAGE_POOL_2D":
            layers.append(AveragePool(name, inputs, y.name, first.shape[:2], first.shape[:2]))
        else:
            layers.append({"RESHAPE": Reshape, "SOFTMAX": Softmax}[kind](name, inputs[:1], y.name))
    return Network(model, tensors, tuple(layers), x.name, layers[-1].output)


def accepts(load, data):
    """Whether ``data`` is a model; if not, it must be refused with one sentence."""
    message = ""
    try:
        load(data)
    except NetworkError as error:
        message = str(error)
    assert "\n" not in message
    return not message
