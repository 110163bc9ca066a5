"""A case of the suite: inputs of an operation in some memory order, and the right answers.

The numbers are drawn as float32, so that one set of answers, in float64, holds for both element
types. Answers are named as the arguments are: y, and for each input its gradient with g before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from . import oracles

Array = np.ndarray
Arrays = dict[str, Array]
Options = dict[str, Any]

EPS = 2e-5  # of batch norm
MARGIN = 64  # how many units of rounding a result may be off, for numbers around its largest
MEAN_MARGIN = 2  # the same for what a mean far from zero costs


@dataclass(frozen=True, eq=False)
class Problem:
    """An operation with the numbers it is asked about.

    Args:
        op: name of the operation, a key of ANSWERS.
        text: what is special about it, in words.
        shapes: of the inputs by name.
        options: as the operation takes them.
        values: "normal", or a key of VALUES.
    """

    op: str
    text: str
    shapes: Mapping[str, tuple[int, ...]]
    options: Options
    values: str = "normal"

    def __str__(self) -> str:
        return f"{self.op}: {self.text}"

    @property
    def size(self) -> int:
        """How many numbers the inputs have."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    @cached_property
    def _solved(self) -> tuple[Arrays, Arrays]:
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        draw = VALUES[self.values]
        inputs = {name: draw(rng, name, shape) for name, shape in self.shapes.items()}

        def cotangent(y: Array) -> Array:
            inputs["gy"] = _normal(rng, "gy", y.shape)
            return inputs["gy"]

        return inputs, ANSWERS[self.op](inputs, self.options, cotangent)

    @property
    def inputs(self) -> Arrays:
        """The inputs and the gradient of y, gy, in float64; labels are integers."""
        return self._solved[0]

    @property
    def answers(self) -> Arrays:
        """What must come out, in float64."""
        return self._solved[1]

    @cached_property
    def condition(self) -> float:
        """How many times what a mean far from zero costs is larger than rounding."""
        if self.op != "batch_norm":
            return 0.0
        return float(np.max(np.abs(self.answers["mean"]) / self._sigma))

    @cached_property
    def scales(self) -> dict[str, float]:
        """How large the numbers are that each result is a sum of, at least 1."""
        scales = {n: float(np.max(np.abs(a), initial=1)) for n, a in self.answers.items()}
        if self.op == "batch_norm":  # whose gradients are differences of larger terms
            slope = np.abs(self.inputs["gamma"]) / self._sigma
            terms = np.abs(self.inputs["gy"]) * slope[:, None, None]
            scales["gx"] = max(scales["gx"], float(terms.max()))
            scales["ggamma"] = max(scales["ggamma"], scales["gbeta"])
        return scales

    @property
    def _sigma(self) -> Array:
        return np.sqrt(self.answers["variance"] + EPS)


@dataclass(frozen=True)
class Case:
    """A problem in an element type and a memory order.

    Args:
        problem: the numbers.
        dtype: "float32" or "float64".
        layout: a key of LAYOUTS.
    """

    problem: Problem
    dtype: str
    layout: str = "C order"

    def __str__(self) -> str:
        return f"{self.problem}, {self.dtype}, {self.layout}"

    def inputs(self) -> Arrays:
        """Return new arrays in the case's element type and memory order."""
        place = LAYOUTS[self.layout]
        return {
            name: place(array.astype(self.dtype)) if array.dtype.kind == "f" else array.copy()
            for name, array in self.problem.inputs.items()
        }

    def tolerance(self, output: str) -> float:
        """Return how far from the answer an output may be."""
        margin = MARGIN + MEAN_MARGIN * self.problem.condition
        return float(np.finfo(self.dtype).eps) * self.problem.scales[output] * margin


# -- numbers


def _single(values: Any) -> Array:
    return np.asarray(values).astype(np.float32).astype(np.float64)


def _normal(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    if name == "labels":
        return rng.integers(0, 3, shape)
    return _single(rng.standard_normal(shape))


def _ties(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    return rng.integers(-1, 2, shape).astype(float)


def _shifted(far: float, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    return _single(_normal(rng, name, shape) + (far if name == "x" else 0))


def _constant(far: float, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    return np.full(shape, float(np.float32(far))) if name == "x" else _normal(rng, name, shape)


def _extreme(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    if name == "labels":
        return _normal(rng, name, shape)
    return 1e4 * rng.integers(-1, 2, shape)


VALUES: dict[str, Callable[[np.random.Generator, str, tuple[int, ...]], Array]] = {
    "normal": _normal,
    "ties": _ties,
    "mean 100": partial(_shifted, 100.0),
    "mean 10000": partial(_shifted, 1e4),
    "constant 100.1": partial(_constant, 100.1),
    "±10000": _extreme,
}


# -- memory


def _in_order(axes: tuple[int, ...], array: Array) -> Array:
    """Return an array whose axes lie in memory in this order; vectors and matrices stay."""
    if array.ndim != len(axes):
        return array
    inverse = tuple(np.argsort(axes))
    return np.ascontiguousarray(array.transpose(axes)).transpose(inverse)


def _every_second(array: Array) -> Array:
    """Return an array with a gap behind each of its numbers."""
    spread = np.full((*array.shape, 2), np.nan, array.dtype)
    spread[..., 0] = array
    return spread[..., 0]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C order": np.ascontiguousarray,
    "channels last": partial(_in_order, (0, 2, 3, 1)),
    "batch last": partial(_in_order, (1, 2, 3, 0)),
    "reversed axes": np.asfortranarray,
    "every second": _every_second,
}


# -- answers

Cotangent = Callable[[Array], Array]


def _convolution(inputs: Arrays, options: Options, cotangent: Cotangent) -> Arrays:
    x, w, b = inputs["x"], inputs["w"], inputs["b"]
    y = oracles.convolution(x, w, **options) + b[:, None, None]
    gy = cotangent(y)
    gx, gw = oracles.convolution_gradients(gy, x, w, **options)
    return {"y": y, "gx": gx, "gw": gw, "gb": gy.sum((0, 2, 3))}


def _permutation(inputs: Arrays, options: Options, cotangent: Cotangent) -> Arrays:
    y = oracles.permute(inputs["x"], **options)
    return {"y": y, "gx": oracles.unpermute(cotangent(y), **options)}


def _igc(inputs: Arrays, options: Options, cotangent: Cotangent) -> Arrays:
    x, w1, w2 = inputs["x"], inputs["w1"], inputs["w2"]
    L, S = options["L"], options["secondary_groups"]
    geometry = options["stride"], options["padding"], L
    p = oracles.convolution(x, w1, *geometry)
    y = oracles.mix(p, w2, L, S)
    gp, gw2 = oracles.mix_gradients(cotangent(y), p, w2, L, S)
    gx, gw1 = oracles.convolution_gradients(gp, x, w1, *geometry)
    return {"y": y, "gx": gx, "gw1": gw1, "gw2": gw2}


def _batch_norm(inputs: Arrays, options: Options, cotangent: Cotangent) -> Arrays:
    x, gamma, beta = inputs["x"], inputs["gamma"], inputs["beta"]
    y, mean, variance = oracles.batch_norm(x, gamma, beta, EPS)
    gx, ggamma, gbeta = oracles.batch_norm_gradients(cotangent(y), x, gamma, EPS)
    gradients = {"gx": gx, "ggamma": ggamma, "gbeta": gbeta}
    return {"y": y, "mean": mean, "variance": variance} | gradients


def _pool(name: str, inputs: Arrays, options: Options, cotangent: Cotangent) -> Arrays:
    x = inputs["x"]
    found: dict[tuple[int, ...], Any] = getattr(oracles, name)(x, **options)
    y = np.empty([1 + last for last in max(found)])
    gx = np.zeros(x.shape)
    for place, (value, *_) in found.items():
        y[place] = value
    gy = cotangent(y)
    for place, (_, pixels, *terms) in found.items():
        for pixel in pixels if terms else [pixels]:
            gx[*place[:2], *pixel] += gy[place] / (terms[0] if terms else 1)
    return {"y": y, "gx": gx}


def _cross_entropy(inputs: Arrays, options: Options, cotangent: Cotangent) -> Arrays:
    loss, gradient = oracles.cross_entropy(inputs["x"], inputs["labels"])
    return {"y": np.array(loss), "gx": gradient}


ANSWERS: dict[str, Callable[[Arrays, Options, Cotangent], Arrays]] = {
    "convolution": _convolution,
    "permutation": _permutation,
    "interleaved_group_convolution": _igc,
    "batch_norm": _batch_norm,
    "max_pool": partial(_pool, "max_pool"),
    "average_pool": partial(_pool, "average_pool"),
    "cross_entropy": _cross_entropy,
}
