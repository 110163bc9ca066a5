"""The inference graph of a network, as other frameworks express it.

It is read off the tape of one pass in evaluation mode, so it covers every network whose layers
consist of the operations below, not only those of the registry. An interleaved group convolution
becomes its four steps: group convolution, permutation, group convolution, permutation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..autograd import Function, Record, Tape, Tensor
from ..autograd.arithmetic import Add, Divide, Exp, Log, Multiply, Power
from ..autograd.reductions import Sum
from ..autograd.shapes import Reshape
from ..backend import to_host
from ..errors import ConfigError
from ..kernels.permutation import permutation_index
from ..layers import BatchNorm, Layer, undisturbed
from ..layers.add import AddFunction
from ..layers.batch_norm import BatchNormEvaluationFunction
from ..layers.convolution import ConvolutionFunction
from ..layers.interleaved_group_convolution import InterleavedGroupConvolutionFunction
from ..layers.linear import LinearFunction
from ..layers.permutation import PermutationFunction
from ..layers.pooling import AveragePoolFunction, GlobalAveragePoolFunction, MaxPoolFunction
from ..layers.relu import ReLUFunction
from ..layers.relu6 import ReLU6Function

Array = np.ndarray
Shape = tuple[int, ...]

INPUT = "images"
BATCH = 2  # of the pass that is recorded
# attributes of layers, which a module of another framework has under names of its own
WEIGHT_SUFFIXES = "_weight", "_gamma"
WEIGHTED = (
    ConvolutionFunction,
    InterleavedGroupConvolutionFunction,
    BatchNormEvaluationFunction,
    LinearFunction,
)
ELEMENTWISE = ReLUFunction, ReLU6Function, AddFunction, Add, Multiply, Divide, Power, Exp, Log


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        operation: convolution, permutation, batch_norm, linear, max_pool, average_pool,
            global_average_pool, sum, reshape, or the name of an element-wise Function.
        inputs: names of values and arrays.
        output: name of the value that comes out.
        attributes: constants of the operation.
    """

    operation: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class InferenceGraph:
    """The operations of a network in evaluation mode, in the order of execution.

    Attributes:
        nodes: the last one gives the logits.
        arrays: name → weights, running statistics and constants. Those in the state of the
            network have their names there, the others are called constant_1, constant_2, …
        shapes: name of each value → its shape without the batch axis.
    """

    nodes: tuple[Node, ...]
    arrays: dict[str, Array]
    shapes: dict[str, Shape]

    @property
    def output(self) -> str:
        """Name of the logits."""
        return self.nodes[-1].output

    def uses(self) -> Counter[str]:
        """Return how often each value and array is used; the result counts as a use."""
        return Counter([*(name for node in self.nodes for name in node.inputs), self.output])


def read_graph(network: Layer, image_shape: tuple[int, int, int]) -> InferenceGraph:
    """Return the inference graph of a network for images of one shape; it is left as it was.

    Args:
        network: on the CPU.
        image_shape: (C, H, W).

    Raises:
        ConfigError: the network uses an operation that cannot be exported.
    """
    dtype = network.parameters()[0].dtype
    x = np.random.default_rng(0).standard_normal((BATCH, *image_shape)).astype(dtype)
    images = Tensor(x, requires_grad=True, name=INPUT)
    with undisturbed(network, training=False):
        tape = Tape.of(network(images))
        return _Reader(network, images).read(tape)


class _Reader:
    """Turns the records of a tape into nodes."""

    def __init__(self, network: Layer, images: Tensor) -> None:
        self.values = {id(images): INPUT}  # id of a tensor → name of the value
        self.shapes: dict[str, Shape] = {INPUT: images.shape[1:]}
        self.nodes: list[Node] = []
        self.arrays: dict[str, Array] = {}
        self.constants: list[Array] = []
        self.known = {id(tensor.data): name for name, tensor in network.named_parameters()}
        self.known |= {id(array): name for name, array in network.named_buffers()}
        self.momentum = {
            id(layer.moving_mean): layer.momentum
            for _, layer in network.named_layers()
            if isinstance(layer, BatchNorm)
        }

    def read(self, tape: Tape) -> InferenceGraph:
        """Return the graph."""
        for record in tape:
            self._record(record)
        return InferenceGraph(tuple(self.nodes), self.arrays, self.shapes)

    def _record(self, record: Record) -> None:
        function, output = record.function, record.output
        computed = [id(x) in self.values for x in record.inputs]
        if output is None or output.shape[:1] != (BATCH,) or not any(computed):
            raise _refusal(function, "its result is not one row per image")
        if isinstance(function, WEIGHTED) and any(computed[1:]):
            raise _refusal(function, "its weights are computed from the images")
        inputs, shape = [self._name(x) for x in record.inputs], output.shape[1:]
        for operation, names, attributes in self._steps(function, inputs, shape):
            inputs = [self._node(operation, (*inputs[:1], *names), shape, attributes)]
        self.values[id(output)] = inputs[0]

    def _steps(
        self, function: Function, inputs: list[str], shape: Shape
    ) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
        """Yield operation, further inputs and attributes of each step of a function."""
        weights = inputs[1:]
        match function:
            case ConvolutionFunction(geometry=(stride, padding, groups)):
                yield _convolution(weights, stride, padding, groups)
            case InterleavedGroupConvolutionFunction(geometry=geometry, mix=(L, S)):
                yield _convolution(weights[:1], *geometry)
                yield from _permutation(shape, L)
                yield _convolution(weights[1:], (1, 1), (0, 0), S)
                yield from _permutation(shape, S)
            case PermutationFunction():
                yield from _permutation(shape, function.branches)
            case BatchNormEvaluationFunction(running=(mean, var), eps=eps):
                momentum = self.momentum.get(id(mean), 0.9)
                statistics = [self._array(mean), self._array(var)]
                yield "batch_norm", weights + statistics, {"eps": eps, "momentum": momentum}
            case MaxPoolFunction(window=(kernel, stride, padding)):
                yield "max_pool", [], {"kernel": kernel, "stride": stride, "padding": padding}
            case AveragePoolFunction(window=(kernel, stride, padding, counted)):
                window = {"kernel": kernel, "stride": stride, "padding": padding}
                yield "average_pool", [], window | {"count_include_pad": counted}
            case GlobalAveragePoolFunction() | LinearFunction():
                yield function.name, weights, {}
            case Sum(axes=axes, keepdims=keepdims) if axes is not None and 0 not in axes:
                yield "sum", [], {"axes": axes, "keepdims": keepdims}
            case Reshape():
                yield "reshape", [], {"shape": shape}
            case _ if isinstance(function, ELEMENTWISE):
                yield function.name, weights, {}
            case _:
                raise _refusal(function, "igcnn does not know its counterpart in other frameworks")

    def _node(
        self, operation: str, inputs: tuple[str, ...], shape: Shape, attributes: dict[str, Any]
    ) -> str:
        """Append a node and return the name of its output, that of its layer if it has one."""
        name = f"{operation}_{len(self.nodes)}"
        if operation in ("convolution", "batch_norm", "linear"):
            name = layer_name(inputs[1])
        if name in self.shapes or name in self.known.values():  # a layer used twice, a constant
            name = f"{name}_{len(self.nodes)}"
        self.shapes[name] = shape
        self.nodes.append(Node(operation, inputs, name, attributes))
        return name

    def _name(self, tensor: Tensor) -> str:
        """Return the name of a value, or of the weights or constant that a leaf holds."""
        if id(tensor) in self.values:
            return self.values[id(tensor)]
        return self._array(tensor.data)

    def _array(self, array: Array) -> str:
        if id(array) not in self.known:
            self.constants.append(array)  # keeps its id from being given to another
            self.known[id(array)] = f"constant_{len(self.constants)}"
        name = self.known[id(array)]
        self.arrays[name] = to_host(array)
        return name


def _refusal(function: Function, reason: str) -> ConfigError:
    return ConfigError(
        f"cannot export the operation {function.name}: {reason}; export the weights alone, as "
        ".safetensors"
    )


def layer_name(weight: str) -> str:
    """Return the name of the layer that a weight or gamma belongs to."""
    for suffix in WEIGHT_SUFFIXES:
        weight = weight.removesuffix(suffix)
    return weight


def _convolution(
    weights: list[str], stride: Any, padding: Any, groups: int
) -> tuple[str, list[str], dict[str, Any]]:
    return "convolution", weights, {"stride": stride, "padding": padding, "groups": groups}


def _permutation(shape: Shape, branches: int) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Yield Reorder(branches) unless it changes nothing."""
    if branches not in (1, shape[0]):
        yield "permutation", [], {"branches": branches}


def fold_batch_norms(graph: InferenceGraph) -> InferenceGraph:
    """Return the graph with each batch norm folded into the convolution before it.

    Permutations between the two are passed: γ, β and the statistics are reordered instead. A
    batch norm of anything else stays. The products are computed in float64.
    """
    producers = {node.output: node for node in graph.nodes}
    uses = graph.uses()
    arrays = dict(graph.arrays)
    renamed: dict[str, str] = {}
    folded: dict[str, Node] = {}
    for norm in (node for node in graph.nodes if node.operation == "batch_norm"):
        scale, shift = _affine(norm, graph.arrays)
        value = norm.inputs[0]
        node = producers.get(value)
        while node and node.operation == "permutation" and uses[value] == 1:
            index = permutation_index(len(scale), node.attributes["branches"])
            # channel c of the result is channel index[c] of what is permuted
            scale[index], shift[index] = scale.copy(), shift.copy()
            value = node.inputs[0]
            node = producers.get(value)
        if node is None or node.operation != "convolution" or uses[value] != 1:
            continue
        x, weight, *bias = node.inputs
        w = graph.arrays[weight]
        b = graph.arrays[bias[0]] if bias else 0.0
        names = f"{value}_folded_weight", f"{value}_folded_bias"
        arrays[names[0]] = (w * scale[:, None, None, None]).astype(w.dtype)
        arrays[names[1]] = (b * scale + shift).astype(w.dtype)
        folded[value] = replace(node, inputs=(x, *names))
        renamed[norm.output] = norm.inputs[0]
    nodes = tuple(
        replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        for node in (folded.get(node.output, node) for node in graph.nodes)
        if node.output not in renamed
    )
    used = {name for node in nodes for name in node.inputs}
    kept = {name: array for name, array in arrays.items() if name in used}
    return InferenceGraph(nodes, kept, graph.shapes)


def _affine(norm: Node, arrays: dict[str, Array]) -> tuple[Array, Array]:
    """Return factor and offset of each channel, float64, that a batch norm amounts to."""
    gamma, beta, mean, var = (arrays[name].astype(np.float64) for name in norm.inputs[1:])
    scale = gamma / np.sqrt(var + norm.attributes["eps"])
    return scale, beta - mean * scale
