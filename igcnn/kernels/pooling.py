"""Pooling over windows of K × K pixels: the largest value, or the mean; and the global mean.

Output size is ⌊(H + 2p − K)/s⌋ + 1, the floor convention. Max pooling pads with −∞, so padding
never wins; the mean counts padded zeros, dividing by K² always (as MXNet and PyTorch do).

All K² shifted views of the padded image are compared or summed, each one output-sized array.
For backward max pooling keeps which of the K² won (the first, row by row, where several are
equal), the mean keeps nothing.
"""

from collections.abc import Iterator

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from ..errors import ShapeError
from .lanes import Fields, Lanes, complete, image
from .launch import launch_each, launch_warps

Array = np.ndarray


def max_pool_forward(
    x: Array, kernel_size: int, stride: int, padding: int = 0
) -> tuple[Array, Array]:
    """Return (y, argmax), both (N, C, OH, OW).

    argmax is the index of the winning pixel within its window, a·K + b, in row order.

    Raises:
        ShapeError: x is not (N, C, H, W), the window does not fit, or padding > K/2.
    """
    OH, OW = pooled_size(x.shape, kernel_size, stride, padding)
    window = kernel_size, stride, padding
    if not is_on_cpu(x):
        shape = (*x.shape[:2], OH, OW)
        y, argmax = empty(shape, x.dtype, x), empty(shape, np.int32, x)
        launch_max_pool_forward(contiguous(x), y, argmax, *window)
        return y, argmax
    padded = _pad(x, -np.inf, *window)
    return _max_of_windows(padded, kernel_size, stride, OH, OW)


def _max_of_windows(
    padded: Array, kernel_size: int, stride: int, OH: int, OW: int
) -> tuple[Array, Array]:
    y: Array | None = None
    argmax: Array | None = None
    for index, window in _windows(padded, kernel_size, stride, OH, OW):
        if y is None or argmax is None:
            y = window.copy(order="K")
            argmax = np.zeros_like(window, np.int16)
        else:
            # a NaN wins against any number, and stays
            wins = (window > y) | (np.isnan(window) & ~np.isnan(y))
            np.copyto(y, window, where=wins)
            argmax[wins] = index
    assert y is not None
    assert argmax is not None
    return y, argmax


def max_pool_backward(
    gy: Array,
    argmax: Array,
    x_shape: tuple[int, ...],
    kernel_size: int,
    stride: int,
    padding: int = 0,
) -> Array:
    """Return gx of shape `x_shape`: gy at the winners, zeros elsewhere."""
    if not is_on_cpu(gy):
        gx = empty(x_shape, gy.dtype, gy)
        launch_max_pool_backward(contiguous(gy), argmax, gx, kernel_size, stride, padding)
        return gx
    gx_padded = _zeros_padded(x_shape, gy.dtype, padding)
    OH, OW = gy.shape[2:]
    for index, window in _windows(gx_padded, kernel_size, stride, OH, OW):
        window += gy * (argmax == index)
    return _crop(gx_padded, padding)


def average_pool_forward(x: Array, kernel_size: int, stride: int, padding: int = 0) -> Array:
    """Return the window means, (N, C, OH, OW); padding counts as zeros.

    Raises:
        ShapeError: x is not (N, C, H, W), the window does not fit, or padding > K/2.
    """
    OH, OW = pooled_size(x.shape, kernel_size, stride, padding)
    if not is_on_cpu(x):
        y = empty((*x.shape[:2], OH, OW), x.dtype, x)
        launch_average_pool_forward(contiguous(x), y, kernel_size, stride, padding)
        return y
    padded = _pad(x, 0, kernel_size, stride, padding)
    planes = np.zeros((x.shape[1], OH, OW, x.shape[0]), x.dtype)
    y = planes.transpose(3, 0, 1, 2)
    for _, window in _windows(padded, kernel_size, stride, OH, OW):
        y += window
    y /= kernel_size**2
    return y


def average_pool_backward(
    gy: Array, x_shape: tuple[int, ...], kernel_size: int, stride: int, padding: int = 0
) -> Array:
    """Return gx of shape `x_shape`: each pixel gets gy/K² from every window it is in."""
    if not is_on_cpu(gy):
        gx = empty(x_shape, gy.dtype, gy)
        launch_average_pool_backward(contiguous(gy), gx, kernel_size, stride, padding)
        return gx
    gx_padded = _zeros_padded(x_shape, gy.dtype, padding)
    share = gy / kernel_size**2
    for _, window in _windows(gx_padded, kernel_size, stride, *gy.shape[2:]):
        window += share
    return _crop(gx_padded, padding)


def global_average_pool_forward(x: Array) -> Array:
    """Return the mean over each image's pixels, (N, C).

    Raises:
        ShapeError: x is not (N, C, H, W) or has no pixels.
    """
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise ShapeError(f"global_average_pool: x must be (N, C, H, W) with pixels, not {x.shape}")
    if not is_on_cpu(x):
        y = empty(x.shape[:2], x.dtype, x)
        launch_global_average_pool_forward(contiguous(x), y)
        return y
    return x.mean(axis=(2, 3))


def global_average_pool_backward(gy: Array, x_shape: tuple[int, ...]) -> Array:
    """Return gx of shape `x_shape`: gy/(H·W) at every pixel."""
    N, C, H, W = x_shape
    if not is_on_cpu(gy):
        gx = empty(x_shape, gy.dtype, gy)
        launch_global_average_pool_backward(contiguous(gy), gx)
        return gx
    gx = np.empty((C, H, W, N), gy.dtype).transpose(3, 0, 1, 2)
    gx[...] = (gy / (H * W))[:, :, None, None]
    return gx


def launch_max_pool_forward(
    x: Array, y: Array, argmax: Array, kernel_size: int, stride: int, padding: int
) -> None:
    """Write max_pool_forward into y and argmax (int32), on the device."""
    sizes = _sizes(x.shape, y.shape, kernel_size, stride, padding)
    launch_each("pooling", "max_pool_forward", y.size, x, y, argmax, *sizes)


def launch_max_pool_backward(
    gy: Array, argmax: Array, gx: Array, kernel_size: int, stride: int, padding: int
) -> None:
    """Write max_pool_backward into gx, on the device."""
    sizes = _sizes(gx.shape, gy.shape, kernel_size, stride, padding)
    launch_each("pooling", "max_pool_backward", gx.size, gy, argmax, gx, *sizes)


def launch_average_pool_forward(
    x: Array, y: Array, kernel_size: int, stride: int, padding: int
) -> None:
    """Write average_pool_forward into y, on the device."""
    sizes = _sizes(x.shape, y.shape, kernel_size, stride, padding)
    launch_each("pooling", "average_pool_forward", y.size, x, y, *sizes)


def launch_average_pool_backward(
    gy: Array, gx: Array, kernel_size: int, stride: int, padding: int
) -> None:
    """Write average_pool_backward into gx, on the device."""
    sizes = _sizes(gx.shape, gy.shape, kernel_size, stride, padding)
    launch_each("pooling", "average_pool_backward", gx.size, gy, gx, *sizes)


def launch_global_average_pool_forward(x: Array, y: Array) -> None:
    """Write global_average_pool_forward into y, on the device."""
    N, C, H, W = x.shape
    launch_warps("pooling", "global_average_pool_forward", N * C, x, y, N * C, H * W)


def launch_global_average_pool_backward(gy: Array, gx: Array) -> None:
    """Write global_average_pool_backward into gx, on the device."""
    N, C, H, W = gx.shape
    launch_each("pooling", "global_average_pool_backward", gx.size, gy, gx, N * C, H * W)


def _sizes(
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    kernel_size: int,
    stride: int,
    padding: int,
) -> tuple[int, ...]:
    """Return the numbers that the kernels of max and average pooling take."""
    N, C = x_shape[:2]
    return (N * C, *x_shape[2:], *y_shape[2:], kernel_size, stride, padding)


def pooled_size(
    x_shape: tuple[int, ...], kernel_size: int, stride: int, padding: int
) -> tuple[int, int]:
    """Return (OH, OW) by the floor convention, after checking that windows fit."""
    if len(x_shape) != 4:
        raise ShapeError(f"pooling: x must be (N, C, H, W), not {tuple(x_shape)}")
    if kernel_size < 1 or stride < 1 or not 0 <= padding <= kernel_size // 2:
        raise ShapeError(
            f"pooling: kernel_size {kernel_size} and stride {stride} must be ≥ 1, and padding "
            f"{padding} from 0 to kernel_size/2"
        )
    H, W = x_shape[2:]
    if min(H, W) + 2 * padding < kernel_size:
        raise ShapeError(
            f"pooling: image {H}×{W} with padding {padding} is smaller than the window "
            f"{kernel_size}×{kernel_size}; choose a smaller kernel_size"
        )
    return (
        (H + 2 * padding - kernel_size) // stride + 1,
        (W + 2 * padding - kernel_size) // stride + 1,
    )


def _pad(x: Array, value: float, kernel_size: int, stride: int, padding: int) -> Array:
    pooled_size(x.shape, kernel_size, stride, padding)
    if padding == 0:
        return x
    padded = _zeros_padded(x.shape, x.dtype, padding)
    padded[...] = value
    _crop(padded, padding)[...] = x
    return padded


def _zeros_padded(x_shape: tuple[int, ...], dtype: np.dtype, padding: int) -> Array:
    N, C, H, W = x_shape
    planes = np.zeros((C, H + 2 * padding, W + 2 * padding, N), dtype)
    return planes.transpose(3, 0, 1, 2)


def _crop(padded: Array, padding: int) -> Array:
    H, W = padded.shape[2:]
    return padded[:, :, padding : H - padding, padding : W - padding]


def _windows(
    padded: Array, kernel_size: int, stride: int, OH: int, OW: int
) -> Iterator[tuple[int, Array]]:
    """Yield (a·K + b, view of pixel (a, b) of every window), views of shape (N, C, OH, OW)."""
    for a in range(kernel_size):
        for b in range(kernel_size):
            rows = slice(a, a + stride * (OH - 1) + 1, stride)
            columns = slice(b, b + stride * (OW - 1) + 1, stride)
            yield a * kernel_size + b, padded[:, :, rows, columns]


def compiled_pool_forward(
    lanes: Lanes, name: str, x: Fields, y: Array, kernel: int, stride: int, padding: int
) -> None:
    """Write the max_pool or average_pool of an Input."""
    window = _window(x["x"], y, kernel, stride, padding) | {"batch": lanes.batch(y.shape[1])}
    lanes.launch("pooling", f"{name}_forward", lanes.jobs(y.shape[1]), x=x, y=y, **window)


def compiled_pool_backward(
    lanes: Lanes,
    name: str,
    gy: Array,
    x: Fields,
    y: Array,
    gx: Array,
    ending: Fields,
    kernel: int,
    stride: int,
    padding: int,
) -> None:
    """Write the gradient of a pooling's input, with its Ending."""
    rows = gx.shape[1]
    fields = {"gy": gy, "gx": gx, "end": complete(ending, gx), "batch": lanes.batch(rows)}
    if name == "max_pool":  # looks for the maximum again
        fields |= {"x": x, "y": y}
    window = _window(gx, y, kernel, stride, padding)
    lanes.launch("pooling", f"{name}_backward", lanes.jobs(rows), **fields, **window)


def compiled_global_average_pool_forward(lanes: Lanes, x: Fields, mean: Array) -> None:
    """Write the mean over the pixels, (blocks, C, lanes)."""
    fields = {"x": x, "pooled": mean, "batch": lanes.batch()} | image(x["x"])
    lanes.launch("pooling", "global_average_pool_forward", lanes.blocks, **fields)


def compiled_global_average_pool_backward(
    lanes: Lanes, gmean: Array, gx: Array, ending: Fields
) -> None:
    """Write the gradient of what the mean was taken of, with its Ending."""
    rows = gx.shape[1]
    fields = {"gpooled": gmean, "gx": gx, "end": complete(ending, gx)} | image(gx)
    fields |= {"batch": lanes.batch(rows)}
    lanes.launch("pooling", "global_average_pool_backward", lanes.jobs(rows), **fields)


def _window(x: Array, y: Array, kernel: int, stride: int, padding: int) -> Fields:
    """Return the sizes that the compiled kernels take."""
    _, OH, _, OW, _ = y.shape
    window = dict.fromkeys(("KH", "KW"), kernel) | dict.fromkeys(("SH", "SW"), stride)
    return image(x) | window | dict.fromkeys(("PH", "PW"), padding) | {"OH": OH, "OW": OW}
