"""ONNX models of networks, for inference.

Input `images`, (N, C, H, W), normalized as the metadata say; output `logits`, (N, K). N is
free. Arithmetic is float32. The metadata are JSON texts: network, preprocessing, classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..autograd import no_grad
from ..errors import DivergedError, IgcnnError
from ..layers import Layer, in_mode
from ..networks import Network
from ..training import Preprocessing
from ..version import __version__
from .graph import INPUT, InferenceGraph, Node, fold_batch_norms, read_graph
from .metadata import to_metadata

Array = np.ndarray
Shape = tuple[int, ...]

OPSET = 17
IR_VERSION = 8  # the one of opset 17; newer ones are refused by runtimes that know this opset
OUTPUT = "logits"
TOLERANCE = 1e-5  # of the largest logit
CHECKED_IMAGES = 3  # other than in the pass that the graph was read from

ELEMENTWISE = {
    "relu": "Relu",
    "add": "Add",
    "multiply": "Mul",
    "divide": "Div",
    "power": "Pow",
    "exp": "Exp",
    "log": "Log",
}


def onnx_model(
    network: Layer,
    image_shape: tuple[int, int, int],
    preprocessing: Preprocessing | None = None,
    fold_bn: bool = True,
) -> bytes:
    """Return a network in evaluation mode as an ONNX model, accepted by the ONNX checker.

    Args:
        network: on the CPU.
        image_shape: (C, H, W).
        preprocessing: written into the metadata.
        fold_bn: fold batch norms into the convolutions before them.

    Raises:
        ConfigError: the network uses an operation that cannot be exported.
    """
    graph = read_graph(network, image_shape)
    if fold_bn:
        graph = fold_batch_norms(graph)
    writer = _Writer(graph)
    nodes = [proto for node in graph.nodes for proto in writer.protos(node)]
    nodes.append(helper.make_node("Identity", [graph.output], [OUTPUT], name=OUTPUT))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            network.settings.get("net", "own") if isinstance(network, Network) else "own",
            [_value(INPUT, image_shape)],
            [_value(OUTPUT, graph.shapes[graph.output])],
            [numpy_helper.from_array(array, name) for name, array in writer.arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="igcnn",
        producer_version=__version__,
    )
    helper.set_model_props(model, to_metadata(network, preprocessing))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def largest_difference(
    model: bytes, network: Layer, image_shape: tuple[int, int, int]
) -> float | None:
    """Return how far ONNX Runtime's logits are from the network's, relative to the largest.

    Args:
        model: an ONNX model of the network.
        network: on the CPU.
        image_shape: (C, H, W) of the random images that are compared.

    Returns:
        The largest difference over the largest logit; None if onnxruntime is not installed.

    Raises:
        DivergedError: the network's logits are not finite.
        IgcnnError: the difference is above TOLERANCE, or ONNX Runtime cannot run the model.
    """
    x = np.random.default_rng(1).standard_normal((CHECKED_IMAGES, *image_shape))
    with np.errstate(over="ignore", invalid="ignore"), in_mode(network, False), no_grad():
        expected = network(x.astype(network.parameters()[0].dtype)).numpy()
    if not np.isfinite(expected).all():
        raise DivergedError(
            "the network's logits are not finite: the weights come from a diverged run; use an "
            "earlier checkpoint"
        )
    try:
        import onnxruntime
    except ImportError:
        return None
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        (logits,) = session.run([OUTPUT], {INPUT: x.astype(np.float32)})
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise IgcnnError(f"ONNX Runtime cannot run the exported model: {error}") from error
    difference = float(np.abs(logits - expected).max() / np.abs(expected).max())
    if not difference <= TOLERANCE:
        raise IgcnnError(
            f"ONNX Runtime's logits differ from igcnn's by {difference:.1e} of the largest, more "
            f"than {TOLERANCE}; nothing was written"
        )
    return difference


def _value(name: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape])


class _Writer:
    """Turns nodes into ONNX nodes and collects the arrays that they use."""

    def __init__(self, graph: InferenceGraph) -> None:
        self.graph = graph
        self.arrays = {
            name: array.astype(np.float32, copy=False) for name, array in graph.arrays.items()
        }

    def protos(self, node: Node) -> Iterator[onnx.NodeProto]:
        """Yield the ONNX nodes of a node."""
        attributes = node.attributes
        match node.operation:
            case "convolution":
                kernel = self.graph.arrays[node.inputs[1]].shape[2:]
                window = _window(kernel, attributes["stride"], attributes["padding"])
                yield _proto("Conv", node, group=attributes["groups"], **window)
            case "permutation":
                yield from self._permutation(node)
            case "batch_norm":
                yield _proto("BatchNormalization", node, epsilon=attributes["eps"])
            case "linear":
                yield _proto("Gemm", node, transB=1)
            case "max_pool":
                yield _proto("MaxPool", node, **_window(**attributes))
            case "average_pool":
                counted = attributes["count_include_pad"]
                window = {k: v for k, v in attributes.items() if k != "count_include_pad"}
                yield _proto(
                    "AveragePool", node, count_include_pad=int(counted), **_window(**window)
                )
            case "global_average_pool":
                pooled = f"{node.output}_pooled"
                yield helper.make_node("GlobalAveragePool", node.inputs, [pooled], name=pooled)
                yield helper.make_node("Flatten", [pooled], [node.output], name=node.output)
            case "relu6":
                self.arrays |= {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
                yield _proto("Clip", node, "zero", "six")
            case "sum":
                axes = self._numbers(f"{node.output}_axes", attributes["axes"])
                yield _proto("ReduceSum", node, axes, keepdims=int(attributes["keepdims"]))
            case "reshape":
                shape = self._numbers(f"{node.output}_shape", (0, *attributes["shape"]))
                yield _proto("Reshape", node, shape)
            case _:
                yield _proto(ELEMENTWISE[node.operation], node)

    def _permutation(self, node: Node) -> Iterator[onnx.NodeProto]:
        """Yield Reshape, Transpose, Reshape: (N, C, H, W) as (N, b, C/b, H, W) and back."""
        C, *pixels = self.graph.shapes[node.output]
        branches = node.attributes["branches"]
        name = node.output
        # 0 stands for the size of the input's axis, here N
        dealt = self._numbers(f"{name}_dealt", (0, branches, C // branches, *pixels))
        whole = self._numbers(f"{name}_whole", (0, C, *pixels))
        split, turned = f"{name}_split", f"{name}_turned"
        yield helper.make_node("Reshape", [node.inputs[0], dealt], [split], name=split)
        yield helper.make_node("Transpose", [split], [turned], name=turned, perm=[0, 2, 1, 3, 4])
        yield helper.make_node("Reshape", [turned, whole], [name], name=name)

    def _numbers(self, name: str, values: tuple[int, ...]) -> str:
        """Add an array of integers and return its name."""
        self.arrays[name] = np.array(values, np.int64)
        return name


def _proto(operation: str, node: Node, *more: str, **attributes: Any) -> onnx.NodeProto:
    inputs = [*node.inputs, *more]
    return helper.make_node(operation, inputs, [node.output], name=node.output, **attributes)


def _window(kernel: Shape, stride: Shape, padding: Shape) -> dict[str, Any]:
    # padding of the top and left sides, then of the bottom and right ones
    return {"kernel_shape": kernel, "strides": stride, "pads": [*padding, *padding]}
