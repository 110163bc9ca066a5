"""A network as a list of steps that JSON can hold, read off its tape in evaluation.

Any network of the engine's operations becomes steps, whatever its name. The page of
`igcnn inspect` computes them in JavaScript (page/js/engine.js); an unsupported operation
raises a StepError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Function, Hook, Tape, Tensor
from ..autograd.arithmetic import Add, Multiply
from ..autograd.function import Record
from ..errors import IgcnnError
from ..functional import cross_entropy
from ..layers import Layer, forward_hook, undisturbed
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
Step = dict[str, Any]

SAMPLES = 16  # numbers of an array that a page compares its own with


class StepError(IgcnnError):
    """The network contains something that has no step."""


@dataclass(frozen=True)
class Steps:
    """A network in evaluation, on one image.

    Attributes:
        shapes: of every tensor without the batch axis; number 0 is the image, the last one the
            logits.
        steps: in the order of execution: "op", "layer" (full name, "" for none), "inputs" and
            "output" (numbers of tensors), "arrays" (role → number), and what the operation takes.
        names: of the arrays: parameters and buffers by their full names, others "".
        arrays: float32 on the host.
        values: what NumPy has for each tensor, without the batch axis.
        gradients: of the loss with respect to each tensor; None where none arrives.
        label: the class that the loss is of.
        loss: the cross-entropy.
    """

    shapes: list[tuple[int, ...]]
    steps: list[Step]
    names: list[str]
    arrays: list[Array]
    values: list[Array]
    gradients: list[Array | None]
    label: int
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Return shapes, steps, and name and shape of the arrays."""
        arrays = [
            {"name": name, "shape": list(array.shape)}
            for name, array in zip(self.names, self.arrays, strict=True)
        ]
        return {"shapes": [list(s) for s in self.shapes], "steps": self.steps, "arrays": arrays}

    def samples(self) -> dict[str, Any]:
        """Return what a page compares its numbers with.

        Keys: "label", "loss" and "tensors": for each tensor the places of at most 16 numbers,
        evenly spread, with the "values" and "gradients" there and the "largest" of each.
        """
        return {
            "label": self.label,
            "loss": self.loss,
            "tensors": [
                {"values": _sampled(value), "gradients": None if g is None else _sampled(g)}
                for value, g in zip(self.values, self.gradients, strict=True)
            ],
        }


def _sampled(array: Array) -> dict[str, Any]:
    flat = array.ravel()
    places = np.unique(np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(int))
    return {
        "places": places.tolist(),
        "numbers": flat[places].astype(float).tolist(),
        "largest": float(np.abs(flat).max()),
    }


def read_steps(network: Layer, x: Array, label: int | None = None) -> Steps:
    """Return the steps of a network for an image, with what NumPy computes for each.

    Args:
        network: float32, on the CPU; left as it was.
        x: the image as the network sees it, (1, 3, H, W), float32.
        label: class of the loss; by default the most probable one.

    Raises:
        StepError: the network contains something that has no step.
    """
    image = Tensor(x, requires_grad=True, name="image")
    layers = _LayerNames()
    arriving = _Arriving()
    with undisturbed(network, training=False):
        with forward_hook(layers.note):
            logits = network(image)
        if logits.record is None or len(logits.shape) != 2:
            raise StepError("the network gives no logits that depend on the image")
        label = int(np.argmax(logits.data[0])) if label is None else label
        tape = Tape.of(logits)
        builder = _Builder(network, image, layers.names)
        for record in tape:
            builder.add(record)
        loss = cross_entropy(logits, np.array([label]))
        with arriving:
            loss.backward(keep=True)
    builder.gradients[0] = image.grad
    for function, number in builder.functions.items():
        builder.gradients[number] = arriving.gradients.get(function)
    return Steps(
        shapes=[value.shape for value in builder.values],
        steps=builder.steps,
        names=builder.names,
        arrays=[np.asarray(array, np.float32) for array in builder.arrays],
        values=builder.values,
        gradients=[g if g is None else g[0] for g in builder.gradients],
        label=label,
        loss=float(loss.data),
    )


class _LayerNames:
    """Which layer each record belongs to."""

    def __init__(self) -> None:
        self.names: dict[Record, str] = {}
        self.kept: list[Tensor] = []

    def note(self, layer: Layer, name: str, x: Tensor, y: Tensor) -> None:
        """Name every record between a layer's input and its output."""
        self.kept.append(y)
        pending = [y]
        while pending:
            tensor = pending.pop()
            if tensor is not x and tensor.record is not None and tensor.record not in self.names:
                self.names[tensor.record] = name
                pending += tensor.record.inputs


class _Arriving(Hook):
    """The gradient that arrives at the output of each function."""

    def __init__(self) -> None:
        self.gradients: dict[Function, Array] = {}

    def before_backward(self, function: Function, gy: Array) -> None:
        """Keep the gradient."""
        self.gradients[function] = gy.copy()


class _Builder:
    """Turns records into steps."""

    def __init__(self, network: Layer, image: Tensor, layers: dict[Record, str]) -> None:
        self.layers = layers
        self.steps: list[Step] = []
        self.values: list[Array] = [image.data[0]]
        self.gradients: list[Array | None] = [None]
        self.numbers = {id(image): 0}
        self.functions: dict[Function, int] = {}
        self.arrays: list[Array] = []
        self.names: list[str] = []
        self.known: dict[int, int] = {}
        self.owners = {id(tensor.data): name for name, tensor in network.named_parameters()}
        self.owners |= {id(array): name for name, array in network.named_buffers()}

    def add(self, record: Record) -> None:
        """Append the steps of a record."""
        output = record.output
        assert output is not None  # the layers' outputs and the later records hold it
        write = WRITERS.get(type(record.function))
        if write is None:
            raise StepError(f"the operation {record.function.name} is not supported")
        layer = self.layers.get(record, "")
        for step, value in write(self, record):
            number = len(self.values)
            self.values.append(output.data[0] if value is None else value[0])
            self.gradients.append(None)
            self.steps.append({"layer": layer, "output": number} | step)
        self.numbers[id(output)] = len(self.values) - 1
        self.functions[record.function] = len(self.values) - 1

    def tensor(self, tensor: Tensor) -> int:
        """Return the number of a tensor."""
        if id(tensor) not in self.numbers:
            raise StepError(f"a tensor of shape {tensor.shape} does not come from the image")
        return self.numbers[id(tensor)]

    def array(self, array: Array) -> int:
        """Return the number of an array, which may be used several times."""
        if id(array) not in self.known:
            self.known[id(array)] = len(self.arrays)
            self.arrays.append(array)
            self.names.append(self.owners.get(id(array), ""))
        return self.known[id(array)]


Written = list[tuple[Step, Array | None]]  # an array where it is not the record's output


def _convolution(builder: _Builder, record: Record) -> Written:
    function = record.function
    assert isinstance(function, ConvolutionFunction)
    x, *weights = record.inputs
    roles = zip(("w", "b"), (builder.array(w.data) for w in weights), strict=False)
    return [(_conv_step(builder.tensor(x), dict(roles), *function.geometry), None)]


def _conv_step(
    x: int, arrays: dict[str, int], stride: Any, padding: Any, groups: int, **more: int
) -> Step:
    """Return a convolution; "reads" and "writes" are the branches of permutations around it."""
    geometry = {"stride": list(stride), "padding": list(padding), "groups": groups}
    around = {"reads": 1, "writes": 1} | more
    return {"op": "convolution", "inputs": [x], "arrays": arrays} | geometry | around


def _interleaved(builder: _Builder, record: Record) -> Written:
    function = record.function
    assert isinstance(function, InterleavedGroupConvolutionFunction)
    x, w1, w2 = record.inputs
    L, S = function.mix
    primary = {"w": builder.array(w1.data)}
    secondary = {"w": builder.array(w2.data)}
    first = _conv_step(builder.tensor(x), primary, *function.geometry)
    middle = len(builder.values)
    second = _conv_step(middle, secondary, (1, 1), (0, 0), S, reads=L, writes=S)
    return [(first, function.saved()[3]), (second, None)]


def _batch_norm(builder: _Builder, record: Record) -> Written:
    function = record.function
    assert isinstance(function, BatchNormEvaluationFunction)
    x, gamma, beta = record.inputs
    mean, variance = function.running
    arrays = {"gamma": gamma.data, "beta": beta.data, "mean": mean, "variance": variance}
    numbers = {role: builder.array(array) for role, array in arrays.items()}
    step = {"op": "batch_norm", "inputs": [builder.tensor(x)], "arrays": numbers}
    return [(step | {"eps": function.eps}, None)]


def _linear(builder: _Builder, record: Record) -> Written:
    x, *weights = record.inputs
    roles = zip(("w", "b"), (builder.array(w.data) for w in weights), strict=False)
    step = {"op": "linear", "inputs": [builder.tensor(x)], "arrays": dict(roles)}
    return [(step, None)]


def _add(builder: _Builder, record: Record) -> Written:
    a, b = record.inputs
    if a.shape != b.shape:
        raise StepError(f"a sum of the shapes {a.shape} and {b.shape} is not supported")
    inputs = [builder.tensor(a), builder.tensor(b)]
    return [({"op": "add", "inputs": inputs, "arrays": {}}, None)]


def _scale(builder: _Builder, record: Record) -> Written:
    x, factor = record.inputs
    if factor.size != 1 or factor.requires_grad:
        raise StepError("a product of two tensors is not supported")
    step = {"op": "scale", "inputs": [builder.tensor(x)], "arrays": {}}
    return [(step | {"factor": float(factor.data.item())}, None)]


def _pool(builder: _Builder, record: Record) -> Written:
    function = record.function
    assert isinstance(function, MaxPoolFunction | AveragePoolFunction)
    kernel, stride, padding, *counted = function.window
    step = {"op": function.name, "inputs": [builder.tensor(record.inputs[0])], "arrays": {}}
    step |= {"kernel": list(kernel), "stride": list(stride), "padding": list(padding)}
    return [(step | ({"counted": counted[0]} if counted else {}), None)]


def _permutation(builder: _Builder, record: Record) -> Written:
    function = record.function
    assert isinstance(function, PermutationFunction)
    step = {"op": "permutation", "inputs": [builder.tensor(record.inputs[0])], "arrays": {}}
    return [(step | {"branches": function.branches}, None)]


def _plain(builder: _Builder, record: Record) -> Written:
    inputs = [builder.tensor(record.inputs[0])]
    return [({"op": record.function.name, "inputs": inputs, "arrays": {}}, None)]


WRITERS: dict[type[Function], Callable[[_Builder, Record], Written]] = {
    ConvolutionFunction: _convolution,
    InterleavedGroupConvolutionFunction: _interleaved,
    BatchNormEvaluationFunction: _batch_norm,
    LinearFunction: _linear,
    AddFunction: _add,
    Add: _add,
    Multiply: _scale,
    MaxPoolFunction: _pool,
    AveragePoolFunction: _pool,
    PermutationFunction: _permutation,
    ReLUFunction: _plain,
    ReLU6Function: _plain,
    GlobalAveragePoolFunction: _plain,
}


def multiply_adds(steps: Steps) -> int:
    """Return the multiply-adds of one image, as the summary counts them."""
    total = 0
    for step in steps.steps:
        if step["op"] in ("convolution", "linear"):
            pixels = math.prod(steps.shapes[step["output"]][1:])
            total += pixels * steps.arrays[step["arrays"]["w"]].size
    return total
