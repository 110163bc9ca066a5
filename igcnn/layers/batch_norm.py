"""Batch normalisation on the tape (formula and arrays: kernels/batch_norm.py)."""

from __future__ import annotations

import numpy as np

from ..autograd import Function, Tensor
from ..kernels.batch_norm import (
    batch_norm_backward_evaluation,
    batch_norm_backward_training,
    batch_norm_forward_evaluation,
    batch_norm_forward_training,
)
from .layer import Layer

Array = np.ndarray


class BatchNormTrainingFunction(Function):
    """Batch norm by the statistics of the batch: keeps the centred x, the variance and γ."""

    name = "batch_norm"

    def __init__(
        self, running_mean: Array, running_var: Array, momentum: float, eps: float
    ) -> None:
        self.running = running_mean, running_var
        self.momentum = momentum
        self.eps = eps

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        """Return y and move the running statistics towards those of the batch."""
        y, centred, mean, variance = batch_norm_forward_training(x, gamma, beta, self.eps)
        self.save(centred, variance, gamma)
        for running, batch in zip(self.running, (mean, variance), strict=True):
            running *= self.momentum
            running += (1 - self.momentum) * batch
        return y

    def backward(self, gy: Array) -> tuple[Array, Array, Array]:
        """Return gx, ggamma, gbeta."""
        centred, variance, gamma = self.saved()
        return batch_norm_backward_training(gy, centred, variance, gamma, self.eps)


class BatchNormEvaluationFunction(Function):
    """Batch norm by constant statistics: keeps x and γ."""

    name = "batch_norm_evaluation"

    def __init__(self, running_mean: Array, running_var: Array, eps: float) -> None:
        self.constants = running_mean, running_var, eps

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        """Return y."""
        self.save(x, gamma)
        return batch_norm_forward_evaluation(x, gamma, beta, *self.constants)

    def backward(self, gy: Array) -> tuple[Array, Array, Array]:
        """Return gx, ggamma, gbeta."""
        x, gamma = self.saved()
        return batch_norm_backward_evaluation(gy, x, gamma, *self.constants)


def batch_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    running_mean: Array,
    running_var: Array,
    training: bool,
    momentum: float = 0.9,
    eps: float = 2e-5,
) -> Tensor:
    """Return x normalised over (N, H, W) for each channel, times gamma, plus beta.

    Args:
        x: (N, C, H, W).
        gamma: (C,).
        beta: (C,).
        running_mean: (C,) array, used in evaluation and updated in place in training.
        running_var: likewise; it follows the biased variance, as MXNet's own operator does.
        training: normalise by the statistics of the batch, else by the running ones.
        momentum: share of the old value that the running statistics keep, as in MXNet:
            running = momentum·running + (1 − momentum)·batch. PyTorch's momentum is 1 − this.
        eps: added to the variance; 2e-5 in all networks of the authors.

    Raises:
        ShapeError: x is not (N, C, H, W), or gamma or beta is not (C,).
        DtypeError: the element types differ.
    """
    running_mean, running_var = (
        s.data if isinstance(s, Tensor) else s for s in (running_mean, running_var)
    )
    if training:
        return BatchNormTrainingFunction(running_mean, running_var, momentum, eps)(x, gamma, beta)
    return BatchNormEvaluationFunction(running_mean, running_var, eps)(x, gamma, beta)


class BatchNorm(Layer):
    """Batch normalisation with learned γ and β.

    Args:
        channels: C.
        momentum: share of the old running statistics that is kept (MXNet's sense).
        eps: added to the variance.
        dtype: float32 or float64.

    γ begins at 1, β and the running mean at 0. The running variance begins at 1; the authors
    begin at 0, which vanishes within a few hundred steps, but makes an untrained network
    overflow in evaluation.
    """

    kind = "bn"

    def __init__(
        self, channels: int, momentum: float = 0.9, eps: float = 2e-5, dtype: str = "float32"
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.gamma = self.add_parameter("gamma", np.ones(channels, dtype))
        self.beta = self.add_parameter("beta", np.zeros(channels, dtype))
        self.moving_mean = self.add_buffer("moving_mean", np.zeros(channels, dtype))
        self.moving_var = self.add_buffer("moving_var", np.ones(channels, dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, of the same shape."""
        return batch_norm(
            x,
            self.gamma,
            self.beta,
            self.moving_mean,
            self.moving_var,
            self.training,
            self.momentum,
            self.eps,
        )

    def extra_repr(self) -> str:
        """Channels and constants."""
        return f"{self.gamma.size}, momentum={self.momentum}, eps={self.eps}"
