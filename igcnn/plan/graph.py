"""What a plan computes: the operations of a network, read off its tape and fused.

The network runs once on a small batch, its tape is listed, and records become nodes:

* `convolution`: a convolution, dense or grouped, or the primary one of an interleaved unit;
* `mix`: the secondary convolution of such a unit with both permutations;
* `combine`: y = Σ terms, each a tensor as it is or normalised by batch norm, then perhaps ReLU:
  the batch norms, the addition and the ReLU at the end of a unit in one node;
* `max_pool`, `global_average_pool`, `linear`, and, by their own functions on the tape, `function`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..autograd import Function, Tape, Tensor
from ..errors import PlanError
from ..kernels.geometry import pair
from ..layers import Layer, undisturbed
from ..layers.add import AddFunction
from ..layers.batch_norm import BatchNormTrainingFunction
from ..layers.convolution import ConvolutionFunction
from ..layers.interleaved_group_convolution import InterleavedGroupConvolutionFunction
from ..layers.linear import LinearFunction
from ..layers.permutation import PermutationFunction
from ..layers.pooling import AveragePoolFunction, GlobalAveragePoolFunction, MaxPoolFunction
from ..layers.relu import ReLUFunction

Array = np.ndarray

# functions that treat each image by itself and have no parameters
IMAGEWISE = {
    "average_pool": AveragePoolFunction,
    "permutation": PermutationFunction,
}


@dataclass(frozen=True)
class Term:
    """One summand of a `combine` node.

    Attributes:
        value: number of the tensor.
        norm: number of the batch norm that is applied to it, None for none.
    """

    value: int
    norm: int | None


@dataclass
class Node:
    """One operation.

    Attributes:
        op: see the module.
        inputs: numbers of the tensors that go in.
        output: number of the tensor that comes out.
        weights: numbers of its parameters: weights, then a bias.
        geometry: stride, padding and groups of a convolution.
        partitions: L and the number of secondary groups, S, of a mix.
        function: name of a `function`.
        arguments: its constants, or those of a `max_pool`.
        terms: of a `combine`.
        relu: whether a `combine` ends in ReLU.
    """

    op: str
    inputs: list[int]
    output: int
    weights: list[int] = field(default_factory=list)
    geometry: dict[str, Any] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    function: str = ""
    arguments: list[int] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    relu: bool = False


@dataclass(frozen=True)
class Norm:
    """A batch norm: numbers of γ and β, momentum and ε."""

    gamma: int
    beta: int
    momentum: float
    eps: float


@dataclass
class Graph:
    """The operations of a network in the order of computation; tensor 0 is the input.

    Attributes:
        nodes: the operations.
        norms: the batch norms that `combine` nodes refer to.
        shapes: of each tensor without the axis of images: (C, H, W), or (K,).
        weights: shape of every parameter and constant that the nodes refer to.
        trained: for each weight whether its gradient is wanted.
        logits: number of the last tensor, of shape (K,).
        dtype: float32 or float64.
    """

    nodes: list[Node]
    norms: list[Norm]
    shapes: list[tuple[int, ...]]
    weights: list[tuple[int, ...]]
    trained: list[bool]
    logits: int
    dtype: str

    def to_json(self) -> str:
        """Return the graph as text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Graph:
        """Return the graph that to_json wrote."""
        content = json.loads(text)
        for node in content["nodes"]:
            node["terms"] = [Term(**term) for term in node["terms"]]
        content["nodes"] = [Node(**node) for node in content["nodes"]]
        content["norms"] = [Norm(**norm) for norm in content["norms"]]
        for name in ("shapes", "weights"):
            content[name] = [tuple(shape) for shape in content[name]]
        return cls(**content)

    def uses(self, value: int) -> int:
        """Return how many nodes take a tensor."""
        return sum(node.inputs.count(value) for node in self.nodes)


@dataclass(frozen=True)
class Traced:
    """A graph and the arrays of the network that it was read from.

    Attributes:
        graph: the operations.
        weights: the tensors that the graph's weights stand for.
        running: for each norm its running mean and variance.
    """

    graph: Graph
    weights: list[Tensor]
    running: list[tuple[Array, Array]]


def trace(network: Layer, image_shape: tuple[int, int, int]) -> Traced:
    """Return the graph of a network for images of one shape, (C, H, W).

    Raises:
        PlanError: the network contains something that has no place in a plan.
    """
    tape = _tape(network, image_shape)
    return _Fusion(tape).traced()


def _tape(network: Layer, image_shape: tuple[int, int, int]) -> Tape:
    """Return the tape of one pass in training mode that leaves the network as it was."""
    dtype = network.parameters()[0].dtype
    x = Tensor(np.zeros((2, *image_shape), dtype), requires_grad=True, name="images")
    with undisturbed(network, training=True):
        return Tape.of(network(x))


class _Fusion:
    """Turns the records of a tape into nodes, combining what belongs together."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.nodes: list[Node] = []
        self.norms: list[Norm] = []
        self.running: list[tuple[Array, Array]] = []
        self.shapes: list[tuple[int, ...]] = []
        self.weights: list[Tensor] = []
        self.numbers: dict[int, int] = {}
        # sums that are not nodes yet: whether more is added to them is still open
        self.open: dict[int, list[Term]] = {}
        self.consumers: dict[int, list[str]] = {}
        for record in tape:
            for x in record.inputs:
                self.consumers.setdefault(id(x), []).append(record.function.name)

    def traced(self) -> Traced:
        """Return the graph and its arrays."""
        first = self.tape.records[0].inputs[0]
        self._number(first)
        for record in self.tape:
            if record.output is None:
                raise PlanError(f"the result of {record.function.name} is not kept on the tape")
            self._add(record.function, record.inputs, record.output)
        logits = self.numbers[id(self.tape.output)]
        if logits in self.open or len(self.shapes[logits]) != 1:
            raise PlanError(f"the network ends in {self.shapes[logits]}, not in logits")
        graph = Graph(
            nodes=self.nodes,
            norms=self.norms,
            shapes=self.shapes,
            weights=[tensor.shape for tensor in self.weights],
            trained=[tensor.requires_grad for tensor in self.weights],
            logits=logits,
            dtype=str(self.weights[0].dtype),
        )
        return Traced(graph, self.weights, self.running)

    def _number(self, tensor: Tensor) -> int:
        number = len(self.shapes)
        self.numbers[id(tensor)] = number
        self.shapes.append(tensor.shape[1:])
        return number

    def _weight(self, tensor: Tensor) -> int:
        for number, known in enumerate(self.weights):
            if known is tensor:
                return number
        self.weights.append(tensor)
        return len(self.weights) - 1

    def _add(self, function: Function, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(function, BatchNormTrainingFunction):
            self._add_norm(function, inputs, output)
        elif isinstance(function, AddFunction):
            terms = self._terms(inputs[0]) + self._terms(inputs[1])
            self._combine(terms, output, relu=False)
        elif isinstance(function, ReLUFunction):
            self._combine(self._terms(inputs[0]), output, relu=True)
        else:
            self._add_node(function, inputs, output)

    def _add_norm(
        self, function: BatchNormTrainingFunction, inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        x, gamma, beta = inputs
        norm = Norm(self._weight(gamma), self._weight(beta), function.momentum, function.eps)
        self.norms.append(norm)
        self.running.append(function.running)
        self._combine([Term(self._value(x), len(self.norms) - 1)], output, relu=False)

    def _combine(self, terms: list[Term], output: Tensor, relu: bool) -> None:
        """Leave the sum open where only an add or ReLU takes it, else make it a node."""
        number = self._number(output)
        consumers = self.consumers.get(id(output), [])
        if not relu and consumers in (["add"], ["relu"]):
            self.open[number] = terms
            return
        inputs = [term.value for term in terms]
        self.nodes.append(Node("combine", inputs, number, terms=terms, relu=relu))

    def _terms(self, tensor: Tensor) -> list[Term]:
        number = self._value(tensor, keep_open=True)
        return self.open.pop(number, None) or [Term(number, None)]

    def _value(self, tensor: Tensor, keep_open: bool = False) -> int:
        if id(tensor) not in self.numbers:
            raise PlanError(f"a tensor of shape {tensor.shape} comes from outside the network")
        number = self.numbers[id(tensor)]
        if number in self.open and not keep_open:  # such as the operator + of two batch norms
            raise PlanError(f"what adds to {tensor.shape} has no planned form; use functional.add")
        return number

    def _add_node(self, function: Function, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = self._value(inputs[0])
        weights = [self._weight(tensor) for tensor in inputs[1:]]
        if isinstance(function, ConvolutionFunction):
            self._add_convolution(
                x, weights, function.stride, function.padding, function.groups, output
            )
        elif isinstance(function, InterleavedGroupConvolutionFunction):
            self._add_interleaved(function, x, weights, output)
        elif isinstance(function, LinearFunction):
            self.nodes.append(Node("linear", [x], self._number(output), weights))
        elif isinstance(function, GlobalAveragePoolFunction):
            self.nodes.append(Node("global_average_pool", [x], self._number(output)))
        elif isinstance(function, MaxPoolFunction):
            arguments = list(function.geometry)
            self.nodes.append(Node("max_pool", [x], self._number(output), arguments=arguments))
        elif isinstance(function, PermutationFunction | AveragePoolFunction):
            if isinstance(function, PermutationFunction):
                arguments = [function.branches]
            else:
                arguments = list(function.geometry)
            number = self._number(output)
            node = Node("function", [x], number, function=function.name, arguments=arguments)
            self.nodes.append(node)
        else:
            raise PlanError(f"the operation {function.name} has no planned form")

    def _add_interleaved(
        self,
        function: InterleavedGroupConvolutionFunction,
        x: int,
        weights: list[int],
        output: Tensor,
    ) -> None:
        stride, padding, L = function.geometry
        primary = len(self.shapes)
        self.shapes.append((self.weights[weights[0]].shape[0], *output.shape[2:]))
        geometry = _geometry(stride, padding, L)
        self.nodes.append(Node("convolution", [x], primary, weights[:1], geometry))
        partitions = {"L": L, "S": function.mix[1]}
        number = self._number(output)
        self.nodes.append(Node("mix", [primary], number, weights[1:], partitions=partitions))

    def _add_convolution(
        self,
        x: int,
        weights: list[int],
        stride: int | tuple[int, int],
        padding: int | tuple[int, int],
        groups: int,
        output: Tensor,
    ) -> None:
        if len(weights) > 1:
            raise PlanError("a convolution with bias has no planned form")
        geometry = _geometry(stride, padding, groups)
        self.nodes.append(Node("convolution", [x], self._number(output), weights, geometry))


def _geometry(
    stride: int | tuple[int, int], padding: int | tuple[int, int], groups: int
) -> dict[str, Any]:
    return {"stride": pair(stride), "padding": pair(padding), "groups": groups}
