"""Each operation in float64, by NumPy's windows and products of arrays: nothing is from igcnn."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def pair(value):
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def windows(x, kernel, stride, padding, fill=0.0):
    """Return (N, C, OH, OW, KH, KW), a view of the padded images."""
    border = [(0, 0), (0, 0), *((p, p) for p in padding)]
    padded = np.pad(x, border, constant_values=fill)
    every = sliding_window_view(padded, kernel, (2, 3))
    return every[:, :, :: stride[0], :: stride[1]]


def convolution(x, w, b=None, stride=1, padding=0, groups=1):
    kernel = w.shape[2:]
    padding = tuple(k // 2 for k in kernel) if padding == "same" else pair(padding)
    taps = windows(x, kernel, pair(stride), padding)
    parts = zip(np.split(taps, groups, axis=1), np.split(w, groups), strict=True)
    y = np.concatenate(
        # (N, OH, OW, C_out/groups)
        [np.tensordot(t, v, ((1, 4, 5), (1, 2, 3))) for t, v in parts],
        axis=3,
    ).transpose(0, 3, 1, 2)
    return y if b is None else y + b[:, None, None]


def max_pool(x, kernel_size, stride=None, padding=0):
    kernel = pair(kernel_size)
    strides = kernel if stride is None else pair(stride)
    return windows(x, kernel, strides, pair(padding), -np.inf).max(axis=(4, 5))


def average_pool(x, kernel_size, stride=None, padding=0):
    kernel = pair(kernel_size)
    strides = kernel if stride is None else pair(stride)
    return windows(x, kernel, strides, pair(padding)).mean(axis=(4, 5))


def batch_norm(x, gamma, beta, mean=None, variance=None, eps=2e-5):
    """By the statistics of the batch where none are given."""
    if mean is None:
        mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    column = (slice(None), None, None)
    return gamma[column] * (x - mean[column]) / np.sqrt(variance + eps)[column] + beta[column]


def cross_entropy(logits, labels):
    label = np.asarray(labels)
    return np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(label)), label])


def permute_channels(x, branches):
    """As PyTorch's channel_shuffle: the transposition of (branches, C/branches)."""
    N, C, *pixels = x.shape
    dealt = x.reshape(N, branches, C // branches, *pixels).swapaxes(1, 2)
    return dealt.reshape(x.shape)
