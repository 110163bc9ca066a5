"""Fully connected layer on the tape (formula and arrays: kernels/linear.py)."""

from __future__ import annotations

import numpy as np

from ..autograd import Function, Tensor
from ..kernels.geometry import count
from ..kernels.linear import (
    linear_backward_bias,
    linear_backward_input,
    linear_backward_weight,
    linear_forward,
)
from .initialise import uniform_fan_in
from .layer import Layer

Array = np.ndarray


class LinearFunction(Function):
    """y = x·wᵀ (+ b): keeps x and w."""

    name = "linear"

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """Return (N, O)."""
        self.save(x, w)
        return linear_forward(x, w, b)

    def backward(self, gy: Array) -> tuple[Array, ...]:
        """Return gx, gw and, where there is a bias, gb."""
        x, w = self.saved()
        gradients = (
            linear_backward_input(gy, w),
            linear_backward_weight(gy, x),
            linear_backward_bias(gy),
        )
        return gradients[: len(self.needs_gradient)]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x·weightᵀ + bias, (N, O).

    Args:
        x: features, (N, I), float32 or float64; weight and bias likewise.
        weight: (O, I).
        bias: (O,) or None.

    Raises:
        ShapeError: the sizes do not fit.
        DtypeError: the arrays are not all float32 or all float64.
        DeviceError: they are not on one device.
    """
    return LinearFunction()(*((x, weight) if bias is None else (x, weight, bias)))


class Linear(Layer):
    """The classifier: the only layer with a bias in these networks.

    Args:
        in_features: inputs, I.
        out_features: outputs, O.
        rng: source of the initial weights, U(−a, a) with a = √(1/I); the bias begins at 0.
        dtype: float32 or float64.

    Raises:
        ShapeError: a size is not an integer ≥ 1.
        ConfigError: rng is not a generator.
        DtypeError: dtype is another.
    """

    kind = "fc"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        rng: np.random.Generator,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        shape = (
            count("linear", "out_features", out_features),
            count("linear", "in_features", in_features),
        )
        weight = uniform_fan_in(shape, rng, dtype)
        self.weight = Tensor(weight, requires_grad=True)
        self.bias = Tensor(np.zeros(shape[0], dtype), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, O) for x, (N, I); errors as in linear."""
        return linear(x, self.weight, self.bias)

    def macs(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """N·I·O multiply-adds."""
        return x_shape[0] * self.weight.size

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}"
