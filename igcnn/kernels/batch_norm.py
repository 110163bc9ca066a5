"""Batch normalisation over (N, H, W), a channel at a time (Ioffe and Szegedy, 2015).

    y = γ · (x − μ) / √(σ² + ε) + β

In training μ and σ² are the mean and the biased variance of the batch, and the gradient runs
through them: with m = N·H·W and x̂ the normalised x,

    gβ = Σ gy      gγ = Σ gy·x̂      gx = γ/√(σ²+ε) · (gy − gβ/m − x̂·gγ/m)

In evaluation they are constants and gx = γ/√(σ²+ε) · gy. For backward the centred x is kept
(x̂ is a multiple of it), and the variance.
"""

from typing import NamedTuple

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from ..errors import ShapeError
from .checks import check_dtypes
from .lanes import RECTIFIED, SCALED, Fields, Lanes, image
from .launch import THREADS, launch, launch_each

Array = np.ndarray

SUMS_AT_ONCE = 1024  # blocks that fill the largest GPUs; fixed, for the bits' sake
TERMS_OF_A_SUM = 1024  # at least, for one block


def batch_norm_forward_training(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Array]:
    """Return (y, centred x, mean, biased variance) of x, (N, C, H, W).

    y and centred x have the shape of x, mean and variance (C,).

    Raises:
        ShapeError: gamma or beta is not of shape (C,).
        DtypeError: x, gamma and beta differ in element type.
    """
    check_batch_norm(x, gamma, beta)
    if not is_on_cpu(x):
        x = contiguous(x)
        y, centred = empty(x.shape, x.dtype, x), empty(x.shape, x.dtype, x)
        mean, variance = empty(gamma.shape, x.dtype, x), empty(gamma.shape, x.dtype, x)
        launch_moments(x, mean, variance, _partial(x))
        launch_apply(x, mean, variance, gamma, beta, eps, y, centred)
        return y, centred, mean, variance
    m = x.size // x.shape[1]
    mean = _sum(x) / m
    centred = x - _column(mean)
    variance = _sum(centred, centred) / m
    y = centred * _column(gamma / np.sqrt(variance + eps))
    y += _column(beta)
    return y, centred, mean, variance


def batch_norm_backward_training(
    gy: Array, centred: Array, variance: Array, gamma: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Return (gx, ggamma, gbeta)."""
    if not is_on_cpu(gy):
        return _device_backward(gy, centred, variance, gamma, eps, training=True)
    m = gy.size // gy.shape[1]
    inverse = 1 / np.sqrt(variance + eps)
    gbeta = _sum(gy)
    ggamma = _sum(gy, centred) * inverse
    gx = centred * _column(-ggamma * inverse / m)
    gx += gy
    gx -= _column(gbeta / m)
    gx *= _column(gamma * inverse)
    return gx, ggamma, gbeta


def batch_norm_forward_evaluation(
    x: Array, gamma: Array, beta: Array, running_mean: Array, running_var: Array, eps: float
) -> Array:
    """Return y, normalised by the running statistics, each of shape (C,)."""
    check_batch_norm(x, gamma, beta)
    if not is_on_cpu(x):
        x = contiguous(x)
        y = empty(x.shape, x.dtype, x)
        launch_apply(x, running_mean, running_var, gamma, beta, eps, y)
        return y
    y = x - _column(running_mean)
    y *= _column(gamma / np.sqrt(running_var + eps))
    y += _column(beta)
    return y


def batch_norm_backward_evaluation(
    gy: Array, x: Array, gamma: Array, running_mean: Array, running_var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Return (gx, ggamma, gbeta); the statistics are constants."""
    if not is_on_cpu(gy):
        centred = x - _column(running_mean)
        return _device_backward(gy, centred, running_var, gamma, eps, training=False)
    inverse = 1 / np.sqrt(running_var + eps)
    gbeta = _sum(gy)
    ggamma = _sum(gy, x - _column(running_mean)) * inverse
    return gy * _column(gamma * inverse), ggamma, gbeta


def launch_moments(x: Array, mean: Array, variance: Array, partial: Array) -> None:
    """Write mean and biased variance of each channel of x, (C,), on the device.

    partial, (C, S, 2), receives the sums over S slices of the images.
    """
    N, C, H, W = x.shape
    S = partial.shape[1]
    launch("batch_norm", "batch_norm_statistics", (C, S), THREADS, x, partial, N, C, H * W)
    sizes = N, C, H * W, S
    launch_each("batch_norm", "batch_norm_moments", C, x, partial, mean, variance, *sizes)


def launch_apply(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    y: Array,
    centred: Array | None = None,
) -> None:
    """Write the normalised x into y and, if wanted, x − mean into centred, on the device."""
    N, C, H, W = x.shape
    arrays = x, mean, variance, gamma, beta, y if centred is None else centred, y
    numbers = N, C, H * W, eps, centred is not None
    launch_each("batch_norm", "batch_norm_apply", x.size, *arrays, *numbers)


def launch_backward(
    gy: Array,
    centred: Array,
    variance: Array,
    gamma: Array,
    eps: float,
    gx: Array,
    ggamma: Array,
    gbeta: Array,
    partial: Array,
    training: bool = True,
) -> None:
    """Write the three gradients, on the device; partial as in launch_moments."""
    N, C, H, W = gy.shape
    S = partial.shape[1]
    sizes = N, C, H * W
    launch("batch_norm", "batch_norm_backward_sums", (C, S), THREADS, gy, centred, partial, *sizes)
    arrays = partial, variance, ggamma, gbeta
    launch_each("batch_norm", "batch_norm_backward_parameters", C, *arrays, C, S, eps)
    gradients = gy, centred, variance, gamma, ggamma, gbeta, gx
    numbers = *sizes, eps, training
    launch_each("batch_norm", "batch_norm_backward_input", gy.size, *gradients, *numbers)


def slices(N: int, C: int, pixels: int) -> int:
    """Return into how many slices of images a sum over (N, H, W) of C channels is cut."""
    return max(1, min(N, SUMS_AT_ONCE // C, N * pixels // TERMS_OF_A_SUM))


def _partial(x: Array) -> Array:
    N, C, H, W = x.shape
    return empty((C, slices(N, C, H * W), 2), x.dtype, x)


def _device_backward(
    gy: Array, centred: Array, variance: Array, gamma: Array, eps: float, training: bool
) -> tuple[Array, Array, Array]:
    gx = empty(gy.shape, gy.dtype, gy)
    ggamma, gbeta = empty(gamma.shape, gy.dtype, gy), empty(gamma.shape, gy.dtype, gy)
    kept = contiguous(centred), variance, gamma, eps
    launch_backward(contiguous(gy), *kept, gx, ggamma, gbeta, _partial(gy), training)
    return gx, ggamma, gbeta


def check_batch_norm(x: Array, gamma: Array, beta: Array) -> None:
    """Raise unless x is (N, C, H, W), gamma and beta are (C,), all of one element type."""
    if x.ndim != 4 or gamma.shape != (x.shape[1],) or beta.shape != (x.shape[1],):
        raise ShapeError(
            f"batch_norm: x must be (N, C, H, W), gamma and beta (C,), not {x.shape}, "
            f"{gamma.shape} and {beta.shape}"
        )
    check_dtypes("batch_norm", x, gamma, beta)


def _column(values: Array) -> Array:
    """(C,) → (C, 1, 1), to broadcast over (N, C, H, W)."""
    return values[:, None, None]


def _sum(x: Array, factor: Array | None = None) -> Array:
    """Return Σ x, or Σ x·factor, over (N, H, W), of shape (C,).

    As dot products, which are several times as fast as add.reduce; row by row, and then the
    rows in float64, so that rounding does not grow with the batch.
    """
    planes = x.transpose(1, 2, 3, 0)  # (C, H, W, N)
    C, H = planes.shape[:2]
    rows = planes.reshape(C, H, -1)
    other = np.ones(rows.shape[2], x.dtype)
    if factor is not None:
        other = factor.transpose(1, 2, 3, 0).reshape(C, H, -1)
    return np.vecdot(rows, other).sum(axis=1, dtype=np.float64).astype(x.dtype)


class CompiledNorm(NamedTuple):
    """One batch norm for the compiled kernels: its settings, and arrays of shape (C,).

    Attributes:
        momentum: share of the running statistics that an update keeps.
        eps: ε.
        gamma: γ.
        beta: β.
        running_mean: moved towards the batch's by every update.
        running_var: likewise.
        ggamma: receives the gradient of γ, None for a constant.
        gbeta: likewise.
        mean: of the batch.
        variance: of the batch.
        scale: with shift, of the normalised tensor: scale·z + shift.
        shift: see scale.
        gz_scale: with slope and shift, of the gradient: gz = scale·gy + slope·z + shift.
        gz_slope: see gz_scale.
        gz_shift: see gz_scale.
    """

    momentum: float
    eps: float
    gamma: Array
    beta: Array
    running_mean: Array
    running_var: Array
    ggamma: Array | None
    gbeta: Array | None
    mean: Array
    variance: Array
    scale: Array
    shift: Array
    gz_scale: Array
    gz_slope: Array
    gz_shift: Array

    def fields(self, names: str) -> Fields:
        """Return the attributes of these names."""
        return {name: getattr(self, name) for name in names.split()}

    def activation(self, z: Array) -> Fields:
        """Return max(0, scale·z + shift) as an Input."""
        return {"kind": RECTIFIED, "x": z} | self.fields("scale shift")

    def normalised(self, z: Array) -> Fields:
        """Return scale·z + shift as an Input."""
        return {"kind": SCALED, "x": z} | self.fields("scale shift")

    def gradient(self, gy: Array, z: Array) -> Fields:
        """Return the gradient of z as a Gradient, from that of the normalised tensor."""
        coefficients = {"scale": self.gz_scale, "slope": self.gz_slope, "shift": self.gz_shift}
        return {"kind": 1, "g": gy, "z": z} | coefficients


def compiled_batch_norm_sums(lanes: Lanes, x: Array, sums: Array) -> None:
    """Leave what the statistics of x are computed from, (jobs, 2, C), as a convolution does."""
    fields = {"x": x, "sums": sums} | image(x) | {"batch": lanes.batch(x.shape[1])}
    lanes.launch("batch_norm", "batch_norm_sums", len(sums), **fields)


def compiled_batch_norm_statistics(
    lanes: Lanes, norm: CompiledNorm, z: Array, sums: Array, together: int = 1
) -> None:
    """Write mean, variance, scale and shift of a batch; move the running statistics.

    Args:
        lanes: the batch.
        norm: receives them.
        z: the input.
        sums: of its parts, which are slices of the rows of each block, (parts, 2, C).
        together: how many rows of z no cut parts; a divisor of H.
    """
    names = "momentum eps gamma beta running_mean running_var mean variance scale shift"
    batch = lanes.batch() | {"slices": len(sums) // lanes.blocks}
    fields = norm.fields(names) | image(z) | {"batch": batch, "sums": sums}
    fields |= {"H": fields["H"] // together, "W": fields["W"] * together}
    lanes.launch("batch_norm", "batch_norm_statistics", 1, **fields)


def compiled_batch_norm_inference(lanes: Lanes, norm: CompiledNorm, wait: bool) -> None:
    """Write scale and shift of the running statistics."""
    fields = norm.fields("eps gamma beta running_mean running_var scale shift")
    fields |= {"C": norm.gamma.size, "wait": wait}
    lanes.launch("batch_norm", "batch_norm_inference", 1, **fields)


def compiled_batch_norm_gradient(
    lanes: Lanes, norm: CompiledNorm, pixels: int, sums: Array, wait: bool
) -> None:
    """Write the gradients of γ and β, and what the gradient of the input is made of."""
    fields = norm.fields("eps gamma mean variance ggamma gbeta")
    fields |= {"scale": norm.gz_scale, "slope": norm.gz_slope, "shift": norm.gz_shift}
    fields |= {"C": norm.gamma.size, "count": float(lanes.batch_size * pixels)}
    fields |= {"sums": sums, "jobs": len(sums), "wait": wait}
    lanes.launch("batch_norm", "batch_norm_gradient", 1, **fields)
