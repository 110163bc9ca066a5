"""Asks ONNX Runtime, on the CPU: the results of operations, as it has no gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from .oracles import pair

Array = np.ndarray
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
OPSET = 21
IR_VERSION = 10


def results(op: str, inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Array]:
    """Return what ONNX Runtime computes; see libraries.py."""
    inputs.pop("gy", None)
    nodes = _nodes(op, options, inputs["x"].shape)
    return {"y": _run(nodes, inputs)}


def _nodes(op: str, options: dict[str, Any], shape: tuple[int, ...]) -> list[onnx.NodeProto]:
    """Return the nodes that make y."""
    match op:
        case "convolution":
            return [_conv(["x", "w", "b"], "y", groups=options["groups"], **_window(options))]
        case "permutation":
            return _shuffle("x", "y", options["branches"], shape)
        case "interleaved_group_convolution":
            raise NotImplementedError(op)
        case "batch_norm":
            raise NotImplementedError("batch norm of training")
        case "max_pool":
            return [helper.make_node("MaxPool", ["x"], ["y"], **_window(options))]
        case "average_pool":
            counted = int(options["count_include_pad"])
            own = _window(options) | {"count_include_pad": counted}
            return [helper.make_node("AveragePool", ["x"], ["y"], **own)]
        case "cross_entropy":
            return [helper.make_node("SoftmaxCrossEntropyLoss", ["x", "labels"], ["y"])]
    raise NotImplementedError(op)


def _window(options: dict[str, Any]) -> dict[str, Any]:
    window = {"strides": pair(options["stride"]), "pads": pair(options["padding"]) * 2}
    if "kernel_size" in options:
        window["kernel_shape"] = pair(options["kernel_size"])
    return window


def _conv(names: list[str], y: str, groups: int, **window: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", names, [y], group=groups, **window)


def _shuffle(x: str, y: str, branches: int, shape: tuple[int, ...]) -> list[onnx.NodeProto]:
    N, C, H, W = shape
    constants = [
        helper.make_node("Constant", [], [f"{y}_{name}"], value_ints=value)
        for name, value in (("dealt", [N, branches, C // branches, H, W]), ("whole", list(shape)))
    ]
    return [
        *constants,
        helper.make_node("Reshape", [x, f"{y}_dealt"], [f"{y}_a"]),
        helper.make_node("Transpose", [f"{y}_a"], [f"{y}_b"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", [f"{y}_b", f"{y}_whole"], [y]),
    ]


def _run(nodes: list[onnx.NodeProto], inputs: dict[str, Array]) -> Array:
    real = TYPES[str(inputs["x"].dtype)]
    types = {name: TensorProto.INT64 if name == "labels" else real for name in inputs}
    given = [helper.make_tensor_value_info(n, types[n], inputs[n].shape) for n in inputs]
    graph = helper.make_graph(
        nodes, "case", given, [helper.make_tensor_value_info("y", real, None)]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        raise NotImplementedError(str(error)) from error
    (y,) = session.run(None, inputs)
    return np.asarray(y)
