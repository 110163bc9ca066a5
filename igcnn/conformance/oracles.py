"""Each operation by its definition, in plain loops over float64.

They are the right answers of `igcnn conformance` and of the tests. Nothing here is from the rest
of igcnn, and nothing is fast. Images are (N, C, H, W), weights (C_out, C/groups, KH, KW); stride,
padding and kernel_size are one number or two, (vertical, horizontal).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

Array = np.ndarray
Pair = tuple[int, int]


def pair(value: int | Pair) -> Pair:
    """Return two numbers for one."""
    return (value, value) if isinstance(value, int) else value


def taps(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    stride: int | Pair,
    padding: int | Pair,
    groups: int,
) -> Iterator[tuple[int, ...]]:
    """Yield (n, o, i, j, c, a, b, row, column) for each product that a convolution adds up."""
    (sv, sh), (pv, ph) = pair(stride), pair(padding)
    N, _, H, W = x_shape
    C_out, Cg, KH, KW = w_shape
    OH = (H + 2 * pv - KH) // sv + 1
    OW = (W + 2 * ph - KW) // sh + 1
    for n, o, i, j, c, a, b in np.ndindex(N, C_out, OH, OW, Cg, KH, KW):
        row, column = i * sv + a - pv, j * sh + b - ph
        if 0 <= row < H and 0 <= column < W:
            group = o // (C_out // groups)
            yield n, o, i, j, c, a, b, group * Cg + c, row, column


def convolution(
    x: Array, w: Array, stride: int | Pair = 1, padding: int | Pair = 0, groups: int = 1
) -> Array:
    """Return y."""
    (sv, sh), (pv, ph) = pair(stride), pair(padding)
    OH = (x.shape[2] + 2 * pv - w.shape[2]) // sv + 1
    OW = (x.shape[3] + 2 * ph - w.shape[3]) // sh + 1
    y = np.zeros((len(x), len(w), OH, OW))
    for n, o, i, j, c, a, b, channel, row, column in taps(
        x.shape, w.shape, stride, padding, groups
    ):
        y[n, o, i, j] += float(w[o, c, a, b]) * float(x[n, channel, row, column])
    return y


def convolution_gradients(
    gy: Array,
    x: Array,
    w: Array,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    groups: int = 1,
) -> tuple[Array, Array]:
    """Return the gradients of x and of w."""
    gx, gw = np.zeros(x.shape), np.zeros(w.shape)
    for n, o, i, j, c, a, b, channel, row, column in taps(
        x.shape, w.shape, stride, padding, groups
    ):
        gx[n, channel, row, column] += float(w[o, c, a, b]) * float(gy[n, o, i, j])
        gw[o, c, a, b] += float(x[n, channel, row, column]) * float(gy[n, o, i, j])
    return gx, gw


def permute(x: Array, branches: int) -> Array:
    """Deal the channels, branch by branch, onto C/branches piles: what lies k-th in a branch
    goes to the k-th run of the result.
    """
    C = x.shape[1]
    length = C // branches
    y = np.empty(x.shape)
    for branch in range(branches):
        for k in range(length):
            y[:, k * branches + branch] = x[:, branch * length + k]
    return y


def unpermute(y: Array, branches: int) -> Array:
    """Return the x that permute makes y of; it is the gradient of permute as well."""
    C = y.shape[1]
    length = C // branches
    x = np.empty(y.shape)
    for branch in range(branches):
        for k in range(length):
            x[:, branch * length + k] = y[:, k * branches + branch]
    return x


def mix(p: Array, w2: Array, L: int, secondary_groups: int) -> Array:
    """Return Reorder(S) · W^d · Reorder(L) · p, step by step."""
    return permute(convolution(permute(p, L), w2, groups=secondary_groups), secondary_groups)


def mix_gradients(
    gy: Array, p: Array, w2: Array, L: int, secondary_groups: int
) -> tuple[Array, Array]:
    """Return the gradients of p and of w2."""
    gr = unpermute(gy, secondary_groups)
    gq, gw2 = convolution_gradients(gr, permute(p, L), w2, groups=secondary_groups)
    return unpermute(gq, L), gw2


def composed_kernel(w1: Array, w2: Array, L: int) -> Array:
    """Return the dense kernel of an interleaved unit (paper, section 3).

    W[(l, m), (l′, m′)] = W^d_m[l, l′] · W^p_l′[m, m′]: from channel m′ of partition l′ to
    channel m of the same partition, and there to partition l.
    """
    C, M = w1.shape[:2]
    W = np.zeros((C, C, *w1.shape[2:]))
    for i, m, j, n in np.ndindex(L, M, L, M):  # l = i, l′ = j, m′ = n
        W[i * M + m, j * M + n] = float(w2[m * L + i, j, 0, 0]) * w1[j * M + m, n]
    return W


def batch_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """Return y, mean and biased variance."""
    y = np.empty(x.shape)
    means, variances = [], []
    for c in range(x.shape[1]):
        values = [float(v) for v in x[:, c].ravel()]
        mean = math.fsum(values) / len(values)
        variance = math.fsum((v - mean) ** 2 for v in values) / len(values)
        y[:, c] = gamma[c] * (x[:, c] - mean) / math.sqrt(variance + eps) + beta[c]
        means.append(mean)
        variances.append(variance)
    return y, np.array(means), np.array(variances)


def batch_norm_gradients(
    gy: Array, x: Array, gamma: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Return the gradients of x, γ and β, by the Jacobian of the normalisation."""
    gx = np.empty(x.shape)
    ggamma, gbeta = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for c in range(x.shape[1]):
        v = x[:, c].ravel().astype(float)
        g = gy[:, c].ravel().astype(float)
        m = len(v)
        sigma = math.sqrt(v.var() + eps)
        normalised = (v - v.mean()) / sigma
        # d x̂_i / d x_j
        jacobian = (np.eye(m) - 1 / m) / sigma
        jacobian -= np.outer(normalised, v - v.mean()) / (m * sigma**2)
        gx[:, c] = (gamma[c] * g @ jacobian).reshape(gx[:, c].shape)
        ggamma[c] = math.fsum(g * normalised)
        gbeta[c] = math.fsum(g)
    return gx, ggamma, gbeta


def windows(
    x_shape: Sequence[int],
    kernel_size: int | Pair,
    stride: int | Pair,
    padding: int | Pair,
) -> Iterator[tuple[int, int, int, int, list[Pair]]]:
    """Yield (n, c, i, j, rows and columns of the window that lie in the image, row by row)."""
    N, C, H, W = x_shape
    (KH, KW), (sv, sh), (pv, ph) = pair(kernel_size), pair(stride), pair(padding)
    OH, OW = (H + 2 * pv - KH) // sv + 1, (W + 2 * ph - KW) // sh + 1
    for n, c, i, j in np.ndindex(N, C, OH, OW):
        inside = []
        for a, b in np.ndindex(KH, KW):
            row, column = i * sv + a - pv, j * sh + b - ph
            if 0 <= row < H and 0 <= column < W:
                inside.append((row, column))
        yield n, c, i, j, inside


def max_pool(
    x: Array, kernel_size: int | Pair, stride: int | Pair, padding: int | Pair
) -> dict[tuple[int, ...], tuple[float, Pair]]:
    """Return {(n, c, i, j): (largest value, its pixel, the first of several)}."""
    result: dict[tuple[int, ...], tuple[float, Pair]] = {}
    for n, c, i, j, inside in windows(x.shape, kernel_size, stride, padding):
        values = [float(x[n, c][place]) for place in inside]
        result[n, c, i, j] = max(values), inside[values.index(max(values))]
    return result


def average_pool(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair,
    padding: int | Pair,
    count_include_pad: bool = True,
) -> dict[tuple[int, ...], tuple[float, list[Pair], int]]:
    """Return {(n, c, i, j): (mean, pixels of the window, what their sum is divided by)}."""
    result: dict[tuple[int, ...], tuple[float, list[Pair], int]] = {}
    for n, c, i, j, inside in windows(x.shape, kernel_size, stride, padding):
        total = math.fsum(float(x[n, c][place]) for place in inside)
        terms = math.prod(pair(kernel_size)) if count_include_pad else len(inside)
        result[n, c, i, j] = total / terms, inside, terms
    return result


def cross_entropy(
    logits: Array, labels: Sequence[int] | Array, smoothing: float = 0
) -> tuple[float, Array]:
    """Return the mean loss and its gradient: sums over the smoothed target, as it is defined."""
    N, K = logits.shape
    losses = []
    gradient = np.zeros((N, K))
    for n in range(N):
        z = [float(v) for v in logits[n]]
        top = max(z)
        total = math.fsum(math.exp(v - top) for v in z)
        target = [(1 - smoothing) * (k == labels[n]) + smoothing / K for k in range(K)]
        losses.append(
            -math.fsum(q * (v - top - math.log(total)) for q, v in zip(target, z, strict=True))
        )
        for k in range(K):
            gradient[n, k] = (math.exp(z[k] - top) / total - target[k]) / N
    return math.fsum(losses) / N, gradient
