"""Differences of a function over small steps, for gradcheck; nothing is changed by them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..backend import is_array, to_device, to_host
from ..errors import AutogradError, DtypeError
from .function import Function, Tensor
from .hooks import Hook
from .no_grad import no_grad
from .tape import Tape

Array = np.ndarray

ROUNDING = 16 * float(np.finfo(np.float64).eps)  # of a result, relative to it, at most
SAME = 1e-12  # two results of the same inputs, relative to the largest element


class Slopes(NamedTuple):
    """Differences of F over one step: to the left, to the right, and over both."""

    below: float
    above: float
    central: float
    rounding: float  # error of `central` by rounding, at most
    depends: Array  # which elements of the result the input has an effect on

    @property
    def jump(self) -> float:
        """How far the slopes to both sides are apart."""
        return abs(self.above - self.below)


class _State(Hook):
    """What evaluations could change: arrays that operations hold, and attributes of layers."""

    def __init__(self, function: Any, tensors: list[Tensor]) -> None:
        self.own = {id(x.data) for x in tensors}
        self.arrays: dict[int, tuple[Array, Array]] = {}
        self.attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for layer in _layers(function):
            self.attributes.append((vars(layer), dict(vars(layer))))
            for array in layer.buffers().values():
                self._keep(array)

    def before_forward(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        """Keep the content of arrays such as running statistics."""
        for name, value in vars(function).items():
            if not name.startswith("_"):
                for array in value if isinstance(value, tuple | list) else (value,):
                    self._keep(array)

    def _keep(self, array: Any) -> None:
        if is_array(array) and not (id(array) in self.arrays or id(array) in self.own):
            self.arrays[id(array)] = array, array.copy()

    def restore(self) -> None:
        """Let all be as it was."""
        for array, content in self.arrays.values():
            array[...] = content
        for attributes, before in self.attributes:
            attributes.clear()
            attributes.update(before)


class Subject:
    """The function and its inputs, which hold copies of their arrays."""

    base: Array  # the result

    def __init__(self, function: Callable[..., Tensor], tensors: list[Tensor], seed: int) -> None:
        self.function = function
        self.tensors = tensors
        self.seed = seed
        self.state = _State(function, tensors)

    def gradients(self) -> list[Array]:
        """Return the gradient of each input that requires one, after two backward passes."""
        results = []
        for _ in range(2):
            before = [to_host(x.data).copy() for x in self.tensors]
            results.append(self._backward())
            for i, (x, array) in enumerate(zip(self.tensors, before, strict=True)):
                if not np.array_equal(to_host(x.data), array, equal_nan=True):
                    raise AutogradError(
                        f"gradcheck: the function changes its input {i} in place; use a copy"
                    )
        if not all(_same(a, b) for a, b in zip(*results, strict=True)):
            raise AutogradError(
                "gradcheck: backward gives different gradients for the same inputs; draw its "
                "random numbers in forward, and save them"
            )
        return results[0]

    def _backward(self) -> list[Array]:
        try:
            with self.state:
                output = _result(self.function(*self.tensors))
            if not output.requires_grad:
                raise AutogradError(
                    "gradcheck: the result depends on no input that requires a gradient; use "
                    "the tensors passed to the function, outside no_grad()"
                )
            self.expect_same(output.numpy())
            leaves = {id(x): x for record in Tape.of(output) for x in record.inputs}
            leaves |= {id(x): x for x in self.tensors}
            kept = [(x, x.grad) for x in leaves.values()]
            try:
                for x, _ in kept:
                    x.grad = None
                output.backward(to_device(self.cotangent, output.device))
                return [
                    np.zeros(x.shape) if x.grad is None else to_host(x.grad).copy()
                    for x in self.tensors
                    if x.requires_grad
                ]
            finally:
                for x, gradient in kept:
                    x.grad = gradient
        finally:
            self.state.restore()

    def evaluate(self) -> Array:
        """Return the result for what the inputs hold now."""
        try:
            # a step may leave the domain of the function
            with no_grad(), self.state, np.errstate(all="ignore"):
                return _result(self.function(*self.tensors)).numpy().copy()
        finally:
            self.state.restore()

    def expect_same(self, result: Array) -> None:
        """Raise AutogradError unless this is the result that there was before, if any."""
        if not hasattr(self, "base"):
            self.base = result.copy()
            # Not default_rng: with the same seed as the inputs the cotangent would equal them,
            # and along x itself the gradient of batch norm vanishes.
            rng = np.random.Generator(np.random.Philox(self.seed))
            self.cotangent = rng.standard_normal(result.shape)
        elif not _same(result, self.base):
            raise AutogradError(
                "gradcheck: the function gives different results for the same inputs; "
                "create its random generator inside, so that each call draws the same numbers"
            )

    def slopes(
        self,
        x: Tensor,
        index: tuple[int, ...],
        step: float,
        depends: Array | bool = False,
    ) -> Slopes:
        """Return the differences of F over a step at one element of x.

        Args:
            x: the input.
            index: of the element.
            step: to each side.
            depends: elements of the result that a longer step had an effect on.
        """
        value = float(x.data[index])
        points = value - step, value + step
        results = []
        for point in points:
            x.data[index] = point
            results.append(self.evaluate())
        x.data[index] = value
        if not hasattr(self, "base"):
            self.expect_same(self.evaluate())
        below, above = results
        if not below.shape == above.shape == self.base.shape:
            raise AutogradError("gradcheck: the shape of the result depends on the inputs")
        g, base = self.cotangent, self.base
        # by subtraction: the points are rounded
        left, right = value - points[0], points[1] - value
        with np.errstate(invalid="ignore", over="ignore"):
            effect = depends | (below != above) | (below != base)
            size = g * np.maximum(np.abs(below), np.abs(above))
            terms = np.stack([base - below, above - base, above - below])
            sums = terms[:, effect] @ g[effect]
            rounding = ROUNDING * float(np.sqrt(np.sum(np.square(size[effect])))) / step
            to_left, to_right, central = (sums / (left, right, left + right)).tolist()
        return Slopes(to_left, to_right, central, rounding, np.asarray(effect))


@contextmanager
def opened(function: Callable[..., Tensor], tensors: list[Tensor], seed: int) -> Iterator[Subject]:
    """Context in which the tensors hold copies of their arrays; then all is as before."""
    kept = [(x, x.data, x.grad, x.requires_grad) for x in tensors]
    try:
        for x, data, _, _ in kept:
            if x.data is data:  # one tensor can be several inputs
                x.data = to_device(np.array(to_host(data)), x.device)
        yield Subject(function, tensors, seed)
    finally:
        for x, data, gradient, requires_grad in kept:
            x.data, x.grad, x.requires_grad = data, gradient, requires_grad


def _result(output: Any) -> Tensor:
    """Return what the function returned, if it is one float64 tensor."""
    if not isinstance(output, Tensor):
        what = type(output).__name__
        if isinstance(output, tuple | list):
            what = f"a {what} of {len(output)}"
        raise AutogradError(
            f"gradcheck: the function returned {what}, not one tensor; check one result at a "
            "time: gradcheck(lambda x: f(x)[0], x)"
        )
    if output.dtype != np.float64:
        raise DtypeError(f"gradcheck: the result is {output.dtype}, but differences need float64")
    return output


def _layers(function: Any) -> list[Any]:
    """Return the layers that a function is, belongs to or refers to by its variables."""
    found = [function, getattr(function, "__self__", None)]
    if inspect.isfunction(function):
        variables = inspect.getclosurevars(function)
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        found += [*variables.nonlocals.values(), *variables.globals.values(), *defaults]
    return [
        layer
        for one in found
        if hasattr(one, "named_layers") and not isinstance(one, type)
        for _, layer in one.named_layers()
    ]


def _same(a: Array, b: Array) -> bool:
    """Return whether two results are equal but for rounding."""
    if a.shape != b.shape:
        return False
    finite = np.abs(b[np.isfinite(b)])
    return bool(np.allclose(a, b, 0, SAME * finite.max(initial=0.0), equal_nan=True))
