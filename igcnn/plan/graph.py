"""The graph of a network: its operations in the order of execution, one dataclass each.

Tensors have numbers; tensor 0 is the images. A batch norm belongs to the sum that it feeds:
`NormAddReLU` is all the batch norms, the addition and the ReLU at the end of a unit at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from ..kernels.geometry import Pair

Shape = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        y: number of the tensor that comes out.
    """

    y: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of the tensors that go in."""
        raise NotImplementedError

    @property
    def weights(self) -> tuple[int, ...]:
        """Numbers of the weights."""
        own = (getattr(self, name, None) for name in ("w", "w1", "w2", "b"))
        return tuple(number for number in own if number is not None)

    @property
    def name(self) -> str:
        """The operation in words, such as max_pool."""
        words = type(self).__name__.replace("ReLU", "Relu")
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", words).lower()


@dataclass(frozen=True)
class UnaryOperation(Operation):
    """An operation on one tensor.

    Attributes:
        x: number of the tensor that goes in.
    """

    x: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of the tensors that go in."""
        return (self.x,)


@dataclass(frozen=True)
class Convolution(UnaryOperation):
    """A dense or grouped convolution without bias; w is (D, C/groups, KH, KW).

    Attributes:
        branches: of permutations before and after it: its input channel c is channel
            Reorder(branches[0])(c) of x, and likewise branches[1] for y; 1 means no permutation.
    """

    w: int
    stride: Pair
    padding: Pair
    groups: int
    branches: Pair = (1, 1)


@dataclass(frozen=True)
class InterleavedGroupConvolution(UnaryOperation):
    """The paper's unit: L primary groups, Reorder, S secondary groups, Reorder back."""

    w1: int
    w2: int
    stride: Pair
    padding: Pair
    L: int
    S: int


@dataclass(frozen=True)
class SecondaryConvolution(UnaryOperation):
    """The unit's second half, where a device computes the halves one after the other."""

    w: int
    L: int
    S: int


@dataclass(frozen=True)
class Term:
    """One summand.

    Attributes:
        value: number of the tensor.
        norm: number of the batch norm that is applied to it, None for none.
    """

    value: int
    norm: int | None


@dataclass(frozen=True)
class NormAddReLU(Operation):
    """y = Σ terms, each batch normalised or as it is; relu 0: no more, 1: ReLU, 2: ReLU6."""

    terms: tuple[Term, ...]
    relu: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """Numbers of the tensors that go in."""
        return tuple(term.value for term in self.terms)


@dataclass(frozen=True)
class Pool(UnaryOperation):
    """The largest pixel of each window, or the mean."""

    window: tuple[Any, ...]  # kernel, stride and padding, each a Pair


class MaxPool(Pool):
    """The largest pixel of each window."""


class AveragePool(Pool):
    """The mean of each window; whether padding counts is the last of `window`."""


@dataclass(frozen=True)
class Permutation(UnaryOperation):
    """Channels as Reorder(branches) deals them out."""

    branches: int


def with_bias(values: list[T]) -> tuple[T, T | None]:
    """Return a head's weight and bias, or what belongs to them; None where there is no bias."""
    return values[0], values[1] if len(values) > 1 else None


@dataclass(frozen=True)
class Head(UnaryOperation):
    """Mean over the pixels, then the classifier w, (K, C), and its bias, (K,), if it has one."""

    w: int
    b: int | None


@dataclass(frozen=True)
class BatchNormSpec:
    """A batch norm: numbers of γ and β, momentum and ε."""

    gamma: int
    beta: int
    momentum: float
    eps: float


@dataclass(frozen=True)
class Graph:
    """The operations of a network; the last one gives the logits.

    Attributes:
        operations: in the order of execution.
        norms: the batch norms that terms refer to.
        shapes: of each tensor without the axis of images: (C, H, W), or (K,).
        weights: shape of every parameter and constant that the operations refer to.
        trained: for each weight whether its gradient is needed.
        dtype: float32 or float64.
    """

    operations: tuple[Operation, ...]
    norms: tuple[BatchNormSpec, ...]
    shapes: tuple[Shape, ...]
    weights: tuple[Shape, ...]
    trained: tuple[bool, ...]
    dtype: str

    @property
    def logits(self) -> int:
        """Number of the last tensor, of shape (K,)."""
        return self.operations[-1].y

    @cached_property
    def consumers(self) -> dict[int, list[Operation]]:
        """For each tensor the operations that take it, once for each time."""
        found: dict[int, list[Operation]] = {i: [] for i in range(len(self.shapes))}
        for operation in self.operations:
            for value in operation.inputs:
                found[value].append(operation)
        return found

    @cached_property
    def producers(self) -> dict[int, Operation]:
        """For each tensor but the images the operation that it comes from."""
        return {operation.y: operation for operation in self.operations}

    def norm_of(self, value: int) -> int | None:
        """Return the batch norm that is a tensor's only consumer, or None."""
        if len(self.consumers[value]) != 1:
            return None
        (consumer,) = self.consumers[value]
        terms = consumer.terms if isinstance(consumer, NormAddReLU) else ()
        return next((term.norm for term in terms if term.value == value), None)
