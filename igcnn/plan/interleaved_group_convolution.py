"""The secondary half of an interleaved group convolution in a plan.

The primary output p is stored as (C/L, L, H·W·N): Reorder(L) of its channels, so that the C/S
inputs of each secondary group are one matrix, also where a group takes several channels of
each partition. The output is stored as (S, C/S, H·W·N), channel k·S + s, which is Reorder(S).
Both permutations are the order in which a matrix product reads and writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .convolution import Call
from .memory import Scratch
from .planes import Halo

Array = np.ndarray


class Mix:
    """y = Reorder(S) · W^d · Reorder(L) · p.

    Args:
        weight: W^d, (C, C/S, 1, 1).
        L: primary partitions.
        S: secondary groups.
    """

    def __init__(self, weight: Array, L: int, S: int) -> None:
        K = weight.shape[1]
        self.L, self.S, self.K = L, S, K
        self.matrices = weight.reshape(S, K, K)
        assert np.shares_memory(self.matrices, weight)
        self.transposed = self.matrices.transpose(0, 2, 1)

    def input_views(self, stored: Array) -> tuple[Array, Array]:
        """View memory (C, H, W, N) for p as matrices (S, K, H·W·N) and as (L, C/L, H, W, N)."""
        C, H, W, N = stored.shape
        parts = stored.reshape(C // self.L, self.L, H, W, N)
        return stored.reshape(self.S, self.K, H * W * N), parts.transpose(1, 0, 2, 3, 4)

    def output_views(self, stored: Array) -> tuple[Array, Array]:
        """View memory (C, H, W, N) for y as matrices (S, K, H·W·N) and as (K, S, H, W, N)."""
        _, H, W, N = stored.shape
        parts = stored.reshape(self.S, self.K, H, W, N)
        return stored.reshape(self.S, self.K, H * W * N), parts.transpose(1, 0, 2, 3, 4)

    def forward(self, p: Array, y: Array) -> Iterator[Call]:
        """Yield the calls that compute y from p, both (S, K, H·W·N)."""
        yield partial(np.matmul, self.matrices, p, out=y)

    def backward_input(self, gy: Array, gp: Halo, scratch: Scratch) -> Iterator[Call]:
        """Yield the calls that write gp, (L, C/L, H, W, N), from gy, (S, K, H·W·N)."""
        L, CL, H, W, N = gp.view.shape
        if self.K == L:
            # a matrix product writes row by row of the image, between the borders
            target = gp.rows().transpose(1, 2, 0, 3)  # (L, H, S, W·N) → (H, S, L, W·N)
            source = gy.reshape(self.S, L, H, W * N).transpose(2, 0, 1, 3)
            yield partial(np.matmul, self.transposed, source, out=target)
            return
        product = scratch.take((self.S, self.K, H * W * N), gy.dtype)
        yield partial(np.matmul, self.transposed, gy, out=product)
        # (S, K, H·W·N) → (C/L, L, H, W, N) → (L, C/L, H, W, N)
        source = product.reshape(CL, L, H, W, N).transpose(1, 0, 2, 3, 4)
        yield partial(np.copyto, gp.view, source)

    def backward_weight(self, gy: Array, p: Array, gw: Array) -> Iterator[Call]:
        """Yield the calls that write gw, (S, K, K), from gy and p as matrices."""
        yield partial(np.matmul, gy, p.swapaxes(1, 2), out=gw)
