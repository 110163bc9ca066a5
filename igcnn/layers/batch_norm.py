"""Batch normalisation on the tape (formula and arrays: kernels/batch_norm.py)."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..autograd import Function, Tensor
from ..backend import device_of, to_device, to_host
from ..distributed import Communicator
from ..errors import ConfigError
from ..kernels.batch_norm import (
    batch_norm_backward_evaluation,
    batch_norm_backward_training,
    batch_norm_forward_evaluation,
    batch_norm_forward_training,
    check_running,
)
from ..kernels.geometry import count
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
        check_running(x, *self.running)
        y, centred, mean, variance = batch_norm_forward_training(x, gamma, beta, self.eps)
        self.save(centred, variance, gamma)
        if x.size:
            _move(self.running, (mean, variance), self.momentum)
        return y

    def backward(self, gy: Array) -> tuple[Array, Array, Array]:
        """Return gx, ggamma, gbeta."""
        centred, variance, gamma = self.saved()
        return batch_norm_backward_training(gy, centred, variance, gamma, self.eps)


class SyncBatchNormFunction(Function):
    """Batch norm by the statistics of the batch of all ranks: keeps x, γ and the statistics.

    With m_r numbers per channel on rank r, with mean μ_r and variance σ²_r, and m = Σ m_r,

        μ = Σ m_r/m · μ_r        σ² = Σ m_r/m · (σ²_r + (μ_r − μ)²)

    The loss of a rank is the mean over its own images, so that its gradient counts m_r/m in that
    of the whole batch, and with ḡγ and ḡβ the sums over all ranks of m_r/m · gγ and m_r/m · gβ

        gx = γ/√(σ²+ε) · (gy − (ḡβ + x̂·ḡγ)/m_r)
    """

    name = "sync_batch_norm"

    def __init__(
        self,
        running_mean: Array,
        running_var: Array,
        momentum: float,
        eps: float,
        communicator: Communicator,
    ) -> None:
        self.running = running_mean, running_var
        self.momentum = momentum
        self.eps = eps
        self.communicator = communicator

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        """Return y and move the running statistics towards those of the batch."""
        check_running(x, *self.running)
        _, _, *moments = batch_norm_forward_training(x, gamma, beta, self.eps)
        m = x.size // x.shape[1]
        values = np.concatenate([[m], *map(to_host, moments)], dtype=np.float64)
        ranks = np.stack([np.frombuffer(d) for d in self.communicator.gather(values.tobytes())])
        shares = ranks[:, :1] / max(1, ranks[:, 0].sum())  # (ranks, 1)
        means, variances = np.split(ranks[:, 1:], 2, axis=1)  # (ranks, C) each
        # about the first rank's, so that the mean of equal means is exact
        mean = means[0] + (shares * (means - means[0])).sum(axis=0)
        variance = (shares * (variances + (means - mean) ** 2)).sum(axis=0)
        self.share, self.count = float(shares[self.communicator.rank, 0]), max(1, m)
        mean, variance = (
            to_device(values.astype(x.dtype), device_of(x)) for values in (mean, variance)
        )
        self.save(x, gamma, mean, variance)
        if shares.any():
            _move(self.running, (mean, variance), self.momentum)
        return batch_norm_forward_evaluation(x, gamma, beta, mean, variance, self.eps)

    def backward(self, gy: Array) -> tuple[Array, Array, Array]:
        """Return gx, ggamma, gbeta; the latter two of this rank's images."""
        x, gamma, mean, variance = self.saved()
        constants = mean, variance, self.eps
        gx, ggamma, gbeta = batch_norm_backward_evaluation(gy, x, gamma, *constants)
        sums = np.stack([to_host(ggamma), to_host(gbeta)]).astype(np.float64) * self.share
        self.communicator.sum(sums)
        factors = to_device((sums / self.count).astype(x.dtype), device_of(x))
        scale = gamma / (variance + self.eps) ** 0.5
        # γ'·x̂ + β' of the two sums, each times the scale
        slope, offset = factors[0] * scale, factors[1] * scale
        gx = gx - batch_norm_forward_evaluation(x, slope, offset, *constants)
        return gx, ggamma, gbeta


class BatchNormEvaluationFunction(Function):
    """Batch norm by constant statistics: keeps x, γ and a copy of the statistics.

    A step of training between forward and backward moves the running ones.
    """

    name = "batch_norm_evaluation"

    def __init__(self, running_mean: Array, running_var: Array, eps: float) -> None:
        self.running = running_mean, running_var
        self.eps = eps

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:
        """Return y."""
        y = batch_norm_forward_evaluation(x, gamma, beta, *self.running, self.eps)
        self.save(x, gamma, *(statistic.copy() for statistic in self.running))
        return y

    def backward(self, gy: Array) -> tuple[Array, Array, Array]:
        """Return gx, ggamma, gbeta."""
        x, gamma, mean, variance = self.saved()
        return batch_norm_backward_evaluation(gy, x, gamma, mean, variance, self.eps)


def _move(running: tuple[Array, Array], batch: tuple[Array, Array], momentum: float) -> None:
    """Move the running mean and variance towards those of the batch."""
    for statistic, own in zip(running, batch, strict=True):
        statistic *= momentum
        statistic += (1 - momentum) * own


def batch_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    running_mean: Array,
    running_var: Array,
    training: bool,
    momentum: float = 0.9,
    eps: float = 2e-5,
    communicator: Communicator | None = None,
) -> Tensor:
    """Return x normalised over (N, H, W) for each channel, times gamma, plus beta.

    Args:
        x: (N, C, H, W), float32 or float64; all other arrays likewise.
        gamma: (C,).
        beta: (C,).
        running_mean: (C,) array, used in evaluation and updated in place in training.
        running_var: likewise; it follows the biased variance, as MXNet's own operator does.
            MXNet's cuDNN path, and PyTorch, follow the unbiased one, m/(m − 1) times as large
            for m = N·H·W.
        training: normalise by the statistics of the batch, else by the running ones. An empty
            batch has none and leaves the running ones as they are.
        momentum: share of the old value that the running statistics keep, as in MXNet:
            running = momentum·running + (1 − momentum)·batch. PyTorch's momentum is 1 − this.
        eps: added to the variance; 2e-5 in all networks of the authors.
        communicator: connects ranks over which the statistics of the batch are taken as well.

    Raises:
        ShapeError: x is not (N, C, H, W), or another array is none of shape (C,).
        DtypeError: the arrays are not all float32 or all float64.
        DeviceError: they are not on one device.
        ConfigError: momentum or eps cannot be used, or in training a running array is read-only.
    """
    momentum, eps = _constants(momentum, eps)
    running_mean, running_var = (
        s.data if isinstance(s, Tensor) else s for s in (running_mean, running_var)
    )
    if training and communicator is not None:
        constants = running_mean, running_var, momentum, eps
        return SyncBatchNormFunction(*constants, communicator)(x, gamma, beta)
    if training:
        return BatchNormTrainingFunction(running_mean, running_var, momentum, eps)(x, gamma, beta)
    return BatchNormEvaluationFunction(running_mean, running_var, eps)(x, gamma, beta)


class BatchNorm(Layer):
    """Batch normalisation with learned γ and β.

    Args:
        channels: number of channels, C.
        momentum: share of the old running statistics that is kept (MXNet's sense).
        eps: added to the variance.
        dtype: float32 or float64.

    Raises:
        ShapeError: channels is not an integer ≥ 1.
        ConfigError: momentum or eps cannot be used.
        DtypeError: dtype is another.

    γ begins at 1, β and the running mean at 0. The running variance begins at 1; the authors
    begin at 0, which vanishes within a few hundred steps, but makes an untrained network
    overflow in evaluation.

    Attributes:
        communicator: connects ranks over which the statistics of a batch are taken; None for
            those of this process alone.
    """

    kind = "bn"

    def __init__(
        self, channels: int, momentum: float = 0.9, eps: float = 2e-5, dtype: str = "float32"
    ) -> None:
        super().__init__()
        channels = count("batch_norm", "channels", channels)
        self.momentum, self.eps = _constants(momentum, eps)
        self.communicator: Communicator | None = None
        self.gamma = Tensor(np.ones(channels, dtype), requires_grad=True)
        self.beta = Tensor(np.zeros(channels, dtype), requires_grad=True)
        self.moving_mean = self.add_buffer("moving_mean", np.zeros(channels, dtype))
        self.moving_var = self.add_buffer("moving_var", np.ones(channels, dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, of the same shape; errors as in batch_norm."""
        return batch_norm(
            x,
            self.gamma,
            self.beta,
            self.moving_mean,
            self.moving_var,
            self.training,
            self.momentum,
            self.eps,
            self.communicator,
        )

    def extra_repr(self) -> str:
        """Channels and constants."""
        return f"{self.gamma.size}, momentum={self.momentum}, eps={self.eps}"


def _constants(momentum: Any, eps: Any) -> tuple[float, float]:
    """Return both as Python's floats, which leave float32 arithmetic as it is.

    Raises:
        ConfigError: momentum is not from 0 to 1, or eps is negative.
    """
    for name, value, most, rule in (
        ("momentum", momentum, 1, "a number from 0 to 1, usually 0.9"),
        ("eps", eps, sys.float_info.max, "a finite number ≥ 0, usually 2e-5"),
    ):
        is_real = isinstance(value, int | float | np.integer | np.floating)
        if not is_real or isinstance(value, bool) or not 0 <= float(value) <= most:
            raise ConfigError(f"batch_norm: {name} must be {rule}, not {value!r}")
    return float(momentum), float(eps)


def synchronise(network: Layer, communicator: Communicator) -> None:
    """Let every batch norm of a network take its statistics over the batch of all ranks."""
    for _, layer in network.named_layers():
        if isinstance(layer, BatchNorm):
            layer.communicator = communicator
