"""Batch normalisation over (N, H, W), a channel at a time (Ioffe and Szegedy, 2015).

    y = γ·x̂ + β        x̂ = (x − μ) / √(σ² + ε)

In training μ and σ² are the mean and the biased variance of the batch, and the gradient runs
through them: with m = N·H·W,

    gβ = Σ gy        gγ = Σ gy·x̂        gx = γ/√(σ² + ε) · (gy − gβ/m − x̂·gγ/m)

In evaluation they are constants and gx = γ/√(σ²+ε) · gy. For backward the centred x is kept
(x̂ is a multiple of it), and the variance.

The variance is never a difference of two large numbers, as E[x²] − E[x]² is. On the CPU it is the
mean square of the centred x, and the mean of a channel that varies little about a large one is
taken in float64, so that a constant channel gives β. On a GPU both are computed for a few numbers
about the first of them, merged by Chan's formula in a fixed order.
"""

from typing import NamedTuple

import numpy as np

from ..backend import contiguous, empty, is_array, is_on_cpu
from ..errors import ConfigError, ShapeError
from .arguments import Arguments
from .checks import check_arrays
from .geometry import check_layout
from .lanes import RECTIFIED, RECTIFIED6, SCALED, Fields, Lanes, image
from .launch import THREADS, launch, launch_each

Array = np.ndarray

SUMS_AT_ONCE = 1024  # blocks that fill the largest GPUs; fixed on all GPUs: same bits
TERMS_OF_A_SUM = 1024  # at least, for one block
FAR = 4  # standard deviations from 0: beyond, the mean of a channel is taken in float64


def batch_norm_forward_training(
    x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array, Array, Array]:
    """Return (y, centred x, mean, biased variance) of x, (N, C, H, W).

    y and centred x have the shape of x, mean and variance (C,).

    Mean and variance of an empty batch are 0.

    Raises:
        ShapeError: gamma or beta is not of shape (C,).
        DtypeError: x, gamma and beta are not all float32 or all float64.
    """
    check_batch_norm(x, gamma=gamma, beta=beta)
    x = x if is_on_cpu(x) else contiguous(x)
    mean, variance = empty(gamma.shape, x.dtype, x), empty(gamma.shape, x.dtype, x)
    if x.size == 0:
        mean[...] = variance[...] = 0
        return x, x, mean, variance
    if not is_on_cpu(x):
        y, centred = empty(x.shape, x.dtype, x), empty(x.shape, x.dtype, x)
        launch_moments(x, mean, variance, _partial(x, 3))
        launch_apply(x, mean, variance, gamma, beta, eps, y, centred)
        return y, centred, mean, variance
    m = x.size // x.shape[1]
    mean = _sum(x) / m
    centred = x - _column(mean)
    variance = _sum(centred, centred) / m
    for c in np.flatnonzero(np.abs(mean) > FAR * np.sqrt(variance + eps)):
        # the rounding of the mean would be seen; twice, for that of float64
        centre = x[:, c].mean(dtype=np.float64)
        centre += (x[:, c] - centre).mean()
        mean[c] = centre
        centred[:, c] = x[:, c] - centre
        variance[c] = np.square(centred[:, c]).mean(dtype=np.float64)
    y = centred * _column(gamma / np.sqrt(variance + eps))
    y += _column(beta)
    return y, centred, mean, variance


def batch_norm_backward_training(
    gy: Array, centred: Array, variance: Array, gamma: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Return (gx, ggamma, gbeta)."""
    if not is_on_cpu(gy):
        return _device_backward(gy, centred, variance, gamma, eps, training=True)
    m = max(1, gy.size // gy.shape[1])
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
    """Return y, normalised by the running statistics, each of shape (C,).

    Raises:
        ShapeError: one of the four is not of shape (C,).
        DtypeError: the arrays are not all float32 or all float64.
    """
    arrays = {"running_mean": running_mean, "running_var": running_var}
    check_batch_norm(x, gamma=gamma, beta=beta, **arrays)
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

    partial, (C, S, 3), receives count, mean and Σ(x − mean)² of S slices of x.
    """
    N, C, H, W = x.shape
    S = partial.shape[1]
    sizes = {"N": N, "C": C, "pixels": H * W}
    launch("batch_norm", "batch_norm_statistics", (C, S), THREADS, x=x, partial=partial, **sizes)
    moments: Arguments = {"mean": mean, "variance": variance, "partial": partial}
    launch_each("batch_norm", "batch_norm_moments", C, C=C, S=S, **moments)


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
    arguments: Arguments = {"x": x, "mean": mean, "variance": variance, "gamma": gamma}
    arguments |= {"beta": beta, "centred": centred, "y": y, "keep": centred is not None}
    arguments |= {"N": N, "C": C, "pixels": H * W, "eps": eps}
    launch_each("batch_norm", "batch_norm_apply", x.size, **arguments)


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
    """Write the three gradients, on the device.

    partial, (C, S, 2), receives the sums over S slices of the images.
    """
    N, C, H, W = gy.shape
    S = partial.shape[1]
    sums: Arguments = {"gy": gy, "centred": centred, "N": N, "C": C, "pixels": H * W}
    launch("batch_norm", "batch_norm_backward_sums", (C, S), THREADS, partial=partial, **sums)
    parameters: Arguments = {"variance": variance, "ggamma": ggamma, "gbeta": gbeta, "eps": eps}
    kernel = "batch_norm_backward_parameters"
    launch_each("batch_norm", kernel, C, partial=partial, C=C, S=S, **parameters)
    arguments = sums | parameters | {"gamma": gamma, "gx": gx, "training": training}
    launch_each("batch_norm", "batch_norm_backward_input", gy.size, **arguments)


def slices(N: int, C: int, pixels: int) -> int:
    """Return into how many slices a sum over (N, H, W) of C channels is cut."""
    return max(1, min(N, SUMS_AT_ONCE // C, N * pixels // TERMS_OF_A_SUM))


def _partial(x: Array, numbers: int) -> Array:
    N, C, H, W = x.shape
    return empty((C, slices(N, C, H * W), numbers), x.dtype, x)


def _device_backward(
    gy: Array, centred: Array, variance: Array, gamma: Array, eps: float, training: bool
) -> tuple[Array, Array, Array]:
    gx = empty(gy.shape, gy.dtype, gy)
    ggamma, gbeta = empty(gamma.shape, gy.dtype, gy), empty(gamma.shape, gy.dtype, gy)
    kept = contiguous(centred), variance, gamma, eps
    launch_backward(contiguous(gy), *kept, gx, ggamma, gbeta, _partial(gy, 2), training)
    return gx, ggamma, gbeta


def check_batch_norm(x: Array, **arrays: Array) -> None:
    """Raise unless x is (N, C, H, W) and the others are (C,), of its element type and device."""
    if x.ndim != 4 or x.shape[1] == 0:
        raise ShapeError(f"batch_norm: x must be (N, C, H, W) with channels, not {x.shape}")
    for name, array in arrays.items():
        if not is_array(array):
            raise ShapeError(
                f"batch_norm: {name} must be an array of shape ({x.shape[1]},), not "
                f"{type(array).__name__}; give np.zeros or np.ones of x's element type"
            )
        if array.shape != (x.shape[1],):
            if len({other.size for other in arrays.values() if is_array(other)}) == 1:
                check_layout("batch_norm", x.shape, array.size)
            raise ShapeError(
                f"batch_norm: x of shape {x.shape} takes {name} of shape ({x.shape[1]},), not "
                f"{array.shape}"
            )
    check_arrays("batch_norm", x, *arrays.values())


def check_running(x: Array, running_mean: Array, running_var: Array) -> None:
    """Raise unless the running statistics can be moved towards those of x; see check_batch_norm.

    Raises:
        ConfigError: one of them is read-only.
    """
    running = {"running_mean": running_mean, "running_var": running_var}
    check_batch_norm(x, **running)
    for name, array in running.items():
        if not getattr(array.flags, "writeable", True):
            raise ConfigError(f"batch_norm: {name} is read-only; give a copy to train with")


def _column(values: Array) -> Array:
    """(C,) → (C, 1, 1), to broadcast over (N, C, H, W)."""
    return values[:, None, None]


def _sum(x: Array, factor: Array | None = None) -> Array:
    """Return Σ x, or Σ x·factor, over (N, H, W), of shape (C,).

    As dot products, which are several times as fast as add.reduce; row by row, and then the
    rows in float64, so that rounding does not grow with the batch.
    """
    N, C, H, W = x.shape
    rows = x.transpose(1, 2, 3, 0).reshape(C, H, W * N)
    other = np.ones(W * N, x.dtype)
    if factor is not None:
        other = factor.transpose(1, 2, 3, 0).reshape(C, H, W * N)
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

    def activation(self, z: Array, relu: int) -> Fields:
        """Return scale·z + shift as an Input, its ReLU (relu 1) or ReLU6 (2)."""
        kind = (SCALED, RECTIFIED, RECTIFIED6)[relu]
        return {"kind": kind, "x": z} | self.fields("scale shift")

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
