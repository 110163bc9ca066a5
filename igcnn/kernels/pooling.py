"""Pooling over windows of KH × KW pixels: the largest value, or the mean; and the global mean.

    y[n, c, i, j] = max_{a, b} x[n, c, i·s + a − p, j·s + b − p]
    gx[n, c, r, q] = Σ_{i, j} gy[n, c, i, j] · [(r, q) is the largest of window (i, j)]

    y[n, c, i, j] = 1/(KH·KW) · Σ_{a, b} x[n, c, i·s + a − p, j·s + b − p]
    gx[n, c, r, q] = 1/(KH·KW) · Σ_{i, j} gy[n, c, i, j] · [(r, q) is in window (i, j)]

    y[n, c] = 1/(H·W) · Σ_{i, j} x[n, c, i, j]
    gx[n, c, i, j] = 1/(H·W) · gy[n, c]

Output size is ⌊(H + 2p − K)/s⌋ + 1, the floor convention. Padding is smaller than the window, so
that each window holds a pixel. Max pooling chooses among the pixels alone, whatever they are; the
mean counts padded zeros and divides by KH·KW always (as MXNet and PyTorch do), or counts the
pixels alone.

All KH·KW shifted views of the padded image are compared or summed, each one output-sized array.
For backward max pooling keeps which of them won (the first, row by row, where several are
equal), the mean keeps nothing.
"""

from collections.abc import Iterator

import numpy as np

from ..backend import contiguous, empty, is_on_cpu
from ..errors import ShapeError
from .arguments import Arguments
from .checks import check_arrays
from .geometry import Pair, as_text, window
from .lanes import Fields, Lanes, complete, image
from .launch import launch_each, launch_warps

Array = np.ndarray
Size = int | Pair


def max_pool_forward(
    x: Array, kernel_size: Size, stride: Size, padding: Size | str = 0
) -> tuple[Array, Array]:
    """Return (y, argmax), both (N, C, OH, OW).

    argmax is the index of the winning pixel within its window, a·KW + b, in row order.

    Raises:
        ShapeError: x is not (N, C, H, W), the window does not fit, or padding is not smaller.
        DtypeError: x is neither float32 nor float64.
    """
    check_arrays("pooling", x)
    kernel, stride, padding = window("pooling", kernel_size, stride, padding)
    OH, OW = pooled_size(x.shape, kernel, stride, padding)
    if not is_on_cpu(x):
        shape = (*x.shape[:2], OH, OW)
        y, argmax = empty(shape, x.dtype, x), empty(shape, np.int32, x)
        launch_max_pool_forward(contiguous(x), y, argmax, kernel, stride, padding)
        return y, argmax
    padded = _pad(x, -np.inf, padding)
    rows, columns = (
        np.maximum(P - S * np.arange(size), 0)
        for P, S, size in zip(padding, stride, (OH, OW), strict=True)
    )
    first = (rows[:, None] * kernel[1] + columns).astype(np.int32)  # (OH, OW)
    return _max_of_windows(padded, first, kernel, stride)


def _max_of_windows(
    padded: Array, first: Array, kernel: Pair, stride: Pair
) -> tuple[Array, Array]:
    """Return y and argmax; first is the index of each window's first pixel, (OH, OW).

    It wins unless a later one is larger than −∞, which padding is not.
    """
    N, C = padded.shape[:2]
    y = np.full((C, *first.shape, N), -np.inf, padded.dtype).transpose(3, 0, 1, 2)
    argmax = np.empty((C, *first.shape, N), np.int32).transpose(3, 0, 1, 2)
    argmax[...] = first
    for index, view in _windows(padded, kernel, stride, *first.shape):
        wins = ~(view <= y)  # larger, or one of them is NaN
        wins &= y == y  # a NaN stays
        np.copyto(y, view, where=wins)
        np.copyto(argmax, np.int32(index), where=wins)
    return y, argmax


def max_pool_backward(
    gy: Array,
    argmax: Array,
    x_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size,
    padding: Size | str = 0,
) -> Array:
    """Return gx of shape `x_shape`: gy at the winners, zeros elsewhere."""
    kernel, stride, padding = window("pooling", kernel_size, stride, padding)
    if not is_on_cpu(gy):
        gx = empty(x_shape, gy.dtype, gy)
        launch_max_pool_backward(contiguous(gy), argmax, gx, kernel, stride, padding)
        return gx
    gx_padded, zero = _zeros_padded(x_shape, gy.dtype, padding), gy.dtype.type(0)
    for index, view in _windows(gx_padded, kernel, stride, *gy.shape[2:]):
        view += np.where(argmax == index, gy, zero)
    return _crop(gx_padded, padding)


def average_pool_forward(
    x: Array,
    kernel_size: Size,
    stride: Size,
    padding: Size | str = 0,
    count_include_pad: bool = True,
) -> Array:
    """Return the window means, (N, C, OH, OW).

    count_include_pad: padding counts as zeros; else the mean is of the pixels alone.

    Raises:
        ShapeError: x is not (N, C, H, W), the window does not fit, or padding is not smaller.
        DtypeError: x is neither float32 nor float64.
    """
    check_arrays("pooling", x)
    kernel, stride, padding = window("pooling", kernel_size, stride, padding)
    OH, OW = pooled_size(x.shape, kernel, stride, padding)
    if not is_on_cpu(x):
        y = empty((*x.shape[:2], OH, OW), x.dtype, x)
        geometry = kernel, stride, padding, count_include_pad
        launch_average_pool_forward(contiguous(x), y, *geometry)
        return y
    padded = _pad(x, 0, padding)
    planes = np.zeros((x.shape[1], OH, OW, x.shape[0]), x.dtype)
    y = planes.transpose(3, 0, 1, 2)
    for _, view in _windows(padded, kernel, stride, OH, OW):
        y += view
    y /= _terms(x.shape, y, kernel, stride, padding, count_include_pad)
    return y


def average_pool_backward(
    gy: Array,
    x_shape: tuple[int, ...],
    kernel_size: Size,
    stride: Size,
    padding: Size | str = 0,
    count_include_pad: bool = True,
) -> Array:
    """Return gx of shape `x_shape`: each pixel gets its share of gy of every window it is in."""
    kernel, stride, padding = window("pooling", kernel_size, stride, padding)
    if not is_on_cpu(gy):
        gx = empty(x_shape, gy.dtype, gy)
        geometry = kernel, stride, padding, count_include_pad
        launch_average_pool_backward(contiguous(gy), gx, *geometry)
        return gx
    gx_padded = _zeros_padded(x_shape, gy.dtype, padding)
    share = gy / _terms(x_shape, gy, kernel, stride, padding, count_include_pad)
    for _, view in _windows(gx_padded, kernel, stride, *gy.shape[2:]):
        view += share
    return _crop(gx_padded, padding)


def global_average_pool_forward(x: Array) -> Array:
    """Return the mean over each image's pixels, (N, C).

    Raises:
        ShapeError: x is not (N, C, H, W) or has no pixels.
        DtypeError: x is neither float32 nor float64.
    """
    check_arrays("global_average_pool", x)
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
    x: Array, y: Array, argmax: Array, kernel: Pair, stride: Pair, padding: Pair
) -> None:
    """Write max_pool_forward into y and argmax (int32), on the device."""
    sizes = _sizes(x.shape, y.shape, kernel, stride, padding)
    launch_each("pooling", "max_pool_forward", y.size, x=x, y=y, argmax=argmax, **sizes)


def launch_max_pool_backward(
    gy: Array, argmax: Array, gx: Array, kernel: Pair, stride: Pair, padding: Pair
) -> None:
    """Write max_pool_backward into gx, on the device."""
    sizes = _sizes(gx.shape, gy.shape, kernel, stride, padding)
    launch_each("pooling", "max_pool_backward", gx.size, gy=gy, argmax=argmax, gx=gx, **sizes)


def launch_average_pool_forward(
    x: Array, y: Array, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> None:
    """Write average_pool_forward into y, on the device."""
    sizes = _sizes(x.shape, y.shape, kernel, stride, padding)
    sizes["count_include_pad"] = count_include_pad
    launch_each("pooling", "average_pool_forward", y.size, x=x, y=y, **sizes)


def launch_average_pool_backward(
    gy: Array, gx: Array, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> None:
    """Write average_pool_backward into gx, on the device."""
    sizes = _sizes(gx.shape, gy.shape, kernel, stride, padding)
    sizes["count_include_pad"] = count_include_pad
    launch_each("pooling", "average_pool_backward", gx.size, gy=gy, gx=gx, **sizes)


def launch_global_average_pool_forward(x: Array, y: Array) -> None:
    """Write global_average_pool_forward into y, on the device."""
    N, C, H, W = x.shape
    sizes: Arguments = {"planes": N * C, "pixels": H * W}
    launch_warps("pooling", "global_average_pool_forward", N * C, x=x, y=y, **sizes)


def launch_global_average_pool_backward(gy: Array, gx: Array) -> None:
    """Write global_average_pool_backward into gx, on the device."""
    N, C, H, W = gx.shape
    sizes: Arguments = {"planes": N * C, "pixels": H * W}
    launch_each("pooling", "global_average_pool_backward", gx.size, gy=gy, gx=gx, **sizes)


def _sizes(
    x_shape: tuple[int, ...], y_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair
) -> Arguments:
    """Return the numbers that the kernels of max and average pooling take, by name."""
    N, C, H, W = x_shape
    sizes: Arguments = {"planes": N * C, "H": H, "W": W, "OH": y_shape[2], "OW": y_shape[3]}
    sizes |= {"KH": kernel[0], "KW": kernel[1], "stride_y": stride[0], "stride_x": stride[1]}
    return sizes | {"pad_y": padding[0], "pad_x": padding[1]}


def pooled_size(x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Return (OH, OW) by the floor convention, after checking that each window holds a pixel."""
    if len(x_shape) != 4 or 0 in x_shape[2:]:
        raise ShapeError(f"pooling: x must be (N, C, H, W) with pixels, not {tuple(x_shape)}")
    if any(P >= K for P, K in zip(padding, kernel, strict=True)):
        raise ShapeError(
            f"pooling: padding {as_text(padding)} must be smaller than the window "
            f"{kernel[0]}×{kernel[1]}, which would hold no pixel; choose a smaller padding"
        )
    H, W = x_shape[2:]
    OH, OW = (
        (size + 2 * P - K) // S + 1
        for size, K, S, P in zip((H, W), kernel, stride, padding, strict=True)
    )
    if OH < 1 or OW < 1:
        raise ShapeError(
            f"pooling: image {H}×{W} with padding {as_text(padding)} is smaller than the window "
            f"{kernel[0]}×{kernel[1]}; choose a smaller kernel_size"
        )
    return OH, OW


def _terms(
    x_shape: tuple[int, ...],
    y: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool,
) -> Array:
    """Return what each window's sum is divided by, of the element type of y, (OH, OW) or one."""
    if count_include_pad:
        return np.asarray(kernel[0] * kernel[1], y.dtype)
    rows, columns = (
        np.minimum(begin + K, size) - np.maximum(begin, 0)
        for begin, K, size in zip(
            (np.arange(n) * S - P for n, S, P in zip(y.shape[2:], stride, padding, strict=True)),
            kernel,
            x_shape[2:],
            strict=True,
        )
    )
    return np.outer(rows, columns).astype(y.dtype)


def _pad(x: Array, value: float, padding: Pair) -> Array:
    if padding == (0, 0):
        return x
    padded = _zeros_padded(x.shape, x.dtype, padding)
    padded[...] = value
    _crop(padded, padding)[...] = x
    return padded


def _zeros_padded(x_shape: tuple[int, ...], dtype: np.dtype, padding: Pair) -> Array:
    N, C, H, W = x_shape
    planes = np.zeros((C, H + 2 * padding[0], W + 2 * padding[1], N), dtype)
    return planes.transpose(3, 0, 1, 2)


def _crop(padded: Array, padding: Pair) -> Array:
    (top, left), (H, W) = padding, padded.shape[2:]
    return padded[:, :, top : H - top, left : W - left]


def _windows(
    padded: Array, kernel: Pair, stride: Pair, OH: int, OW: int
) -> Iterator[tuple[int, Array]]:
    """Yield (a·KW + b, view of pixel (a, b) of every window), views of shape (N, C, OH, OW)."""
    for a, b in np.ndindex(kernel):
        rows = slice(a, a + stride[0] * (OH - 1) + 1, stride[0])
        columns = slice(b, b + stride[1] * (OW - 1) + 1, stride[1])
        yield a * kernel[1] + b, padded[:, :, rows, columns]


def compiled_pool_forward(
    lanes: Lanes,
    name: str,
    x: Fields,
    y: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool = True,
) -> None:
    """Write the max_pool or average_pool of an Input."""
    fields = {"x": x, "y": y, "batch": lanes.batch(y.shape[1])}
    fields |= _fields(name, x["x"], y, kernel, stride, padding, count_include_pad)
    lanes.launch("pooling", f"{name}_forward", lanes.jobs(y.shape[1]), **fields)


def compiled_pool_backward(
    lanes: Lanes,
    name: str,
    gy: Array,
    x: Fields,
    y: Array,
    gx: Array,
    ending: Fields,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool = True,
) -> None:
    """Write the gradient of a pooling's input, with its Ending."""
    rows = gx.shape[1]
    fields = {"gy": gy, "gx": gx, "end": complete(ending, gx), "batch": lanes.batch(rows)}
    if name == "max_pool":  # looks for the maximum again
        fields |= {"x": x, "y": y}
    fields |= _fields(name, gx, y, kernel, stride, padding, count_include_pad)
    lanes.launch("pooling", f"{name}_backward", lanes.jobs(rows), **fields)


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


def _fields(
    name: str,
    x: Array,
    y: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool,
) -> Fields:
    """Return the numbers that the compiled kernels take."""
    _, OH, _, OW, _ = y.shape
    sizes = zip("KH KW SH SW PH PW".split(), (*kernel, *stride, *padding), strict=True)
    counted = {"count_include_pad": int(count_include_pad)} if name == "average_pool" else {}
    return image(x) | dict(sizes) | {"OH": OH, "OW": OW} | counted
