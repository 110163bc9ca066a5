"""Reads the graph of a network off its tape: the network runs once, records become operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..autograd import Function, Tape, Tensor
from ..errors import PlanError
from ..layers import Layer, undisturbed
from ..layers.add import AddFunction
from ..layers.batch_norm import BatchNormTrainingFunction
from ..layers.convolution import ConvolutionFunction
from ..layers.interleaved_group_convolution import InterleavedGroupConvolutionFunction
from ..layers.linear import LinearFunction
from ..layers.permutation import PermutationFunction
from ..layers.pooling import AveragePoolFunction, GlobalAveragePoolFunction, MaxPoolFunction
from ..layers.relu import ReLUFunction
from ..layers.relu6 import ReLU6Function
from . import graph as op

Array = np.ndarray


@dataclass(frozen=True)
class TracedGraph:
    """A graph and the arrays of the network that it was read from.

    Attributes:
        graph: the operations.
        weights: the tensors that the graph's weights stand for.
        running: for each batch norm its running mean and variance.
    """

    graph: op.Graph
    weights: list[Tensor]
    running: list[tuple[Array, Array]]


def trace(network: Layer, image_shape: tuple[int, int, int]) -> TracedGraph:
    """Return the graph of a network for images of one shape, (C, H, W).

    Raises:
        PlanError: the network contains something that plans do not support.
    """
    return _Builder(_tape(network, image_shape)).traced()


def _tape(network: Layer, image_shape: tuple[int, int, int]) -> Tape:
    """Return the tape of one pass in training mode that leaves the network as it was."""
    dtype = network.parameters()[0].dtype
    x = Tensor(np.zeros((2, *image_shape), dtype), requires_grad=True, name="images")
    with undisturbed(network, training=True):
        return Tape.of(network(x))


class _Builder:
    """Turns the records of a tape into operations, combining what belongs together."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.operations: list[op.Operation] = []
        self.norms: list[op.BatchNormSpec] = []
        self.running: list[tuple[Array, Array]] = []
        self.shapes: list[tuple[int, ...]] = []
        self.weights: list[Tensor] = []
        self.numbers: dict[int, int] = {}
        # sums that are not operations yet: more may still be added to them
        self.open: dict[int, tuple[op.Term, ...]] = {}
        self.pooled: dict[int, int] = {}  # a global mean, by its number → what it is taken of
        self.consumers: dict[int, list[str]] = {}
        for record in tape:
            for x in record.inputs:
                self.consumers.setdefault(id(x), []).append(record.function.name)

    def traced(self) -> TracedGraph:
        """Return the graph and its arrays."""
        self._number(self.tape.records[0].inputs[0])
        for record in self.tape:
            if record.output is None:
                raise PlanError(f"the result of {record.function.name} is not kept on the tape")
            self._add(record.function, record.inputs, record.output)
        if not self.operations or not isinstance(self.operations[-1], op.Head):
            raise PlanError("the network does not end in a global mean and a linear classifier")
        graph = op.Graph(
            operations=tuple(self.operations),
            norms=tuple(self.norms),
            shapes=tuple(self.shapes),
            weights=tuple(tensor.shape for tensor in self.weights),
            trained=tuple(tensor.requires_grad for tensor in self.weights),
            dtype=str(self.weights[0].dtype),
        )
        return TracedGraph(graph, self.weights, self.running)

    def _number(self, tensor: Tensor) -> int:
        number = len(self.shapes)
        self.numbers[id(tensor)] = number
        self.shapes.append(tensor.shape[1:])
        return number

    def _weight(self, tensor: Tensor) -> int:
        for number, known in enumerate(self.weights):
            if known is tensor:
                if tensor.requires_grad:
                    raise PlanError(f"{tensor.name or 'a weight'} is used by two operations")
                return number
        self.weights.append(tensor)
        return len(self.weights) - 1

    def _add(self, function: Function, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(function, BatchNormTrainingFunction):
            x, gamma, beta = inputs
            spec = self._weight(gamma), self._weight(beta), function.momentum, function.eps
            self.norms.append(op.BatchNormSpec(*spec))
            self.running.append(function.running)
            self._sum((op.Term(self._value(x), len(self.norms) - 1),), output, relu=0)
        elif isinstance(function, AddFunction):
            self._sum(self._terms(inputs[0]) + self._terms(inputs[1]), output, relu=0)
        elif isinstance(function, ReLUFunction | ReLU6Function):
            self._sum(self._terms(inputs[0]), output, 1 + isinstance(function, ReLU6Function))
        else:
            self._add_operation(function, inputs, output)

    def _sum(self, terms: tuple[op.Term, ...], output: Tensor, relu: int) -> None:
        """Leave the sum open where only an add or a ReLU takes it, else make it an operation."""
        number = self._number(output)
        if not relu and self.consumers.get(id(output), []) in (["add"], ["relu"], ["relu6"]):
            self.open[number] = terms
        else:
            self.operations.append(op.NormAddReLU(number, terms, relu))

    def _terms(self, tensor: Tensor) -> tuple[op.Term, ...]:
        number = self._value(tensor, keep_open=True)
        return self.open.pop(number, None) or (op.Term(number, None),)

    def _value(self, tensor: Tensor, keep_open: bool = False) -> int:
        if id(tensor) not in self.numbers:
            raise PlanError(f"a tensor of shape {tensor.shape} comes from outside the network")
        number = self.numbers[id(tensor)]
        if number in self.open and not keep_open:  # such as the operator + of two batch norms
            raise PlanError(
                f"plans do not support this sum of shape {tensor.shape}; use functional.add"
            )
        if number in self.pooled:
            raise PlanError("plans support a global mean only before the last classifier")
        return number

    def _add_operation(
        self, function: Function, inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        if isinstance(function, LinearFunction):
            self._add_head(inputs, output)
            return
        x = self._value(inputs[0])
        weights = [self._weight(tensor) for tensor in inputs[1:]]
        y = self._number(output)
        operation: op.Operation
        match function:
            case GlobalAveragePoolFunction():
                self.pooled[y] = x
                return
            case ConvolutionFunction(geometry=geometry):
                if len(weights) > 1:
                    raise PlanError("a convolution with bias is not supported")
                operation = op.Convolution(y, x, weights[0], *geometry)
            case InterleavedGroupConvolutionFunction(geometry=geometry, mix=(_, S)):
                w1, w2 = weights
                operation = op.InterleavedGroupConvolution(y, x, w1, w2, *geometry, S)
            case MaxPoolFunction(window=window):
                operation = op.MaxPool(y, x, window)
            case AveragePoolFunction(window=window):
                operation = op.AveragePool(y, x, window)
            case PermutationFunction():
                operation = op.Permutation(y, x, function.branches)
            case _:
                raise PlanError(f"the operation {function.name} is not supported")
        self.operations.append(operation)

    def _add_head(self, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = self.pooled.pop(self.numbers.get(id(inputs[0]), -1), None)
        if x is None or output is not self.tape.output:
            raise PlanError("plans support a linear layer only at the end, after a global mean")
        if not self.operations:
            raise PlanError("plans do not support a linear classifier of the image")
        weights = [self._weight(tensor) for tensor in inputs[1:]]
        b = weights[1] if len(weights) > 1 else None
        self.operations.append(op.Head(self._number(output), x, weights[0], b))
