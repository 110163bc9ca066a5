"""The secondary half of an interleaved group convolution in a plan.

The primary output p is stored as (H, C/L, L, W·N): Reorder(L) of its channels, so that for
each row and secondary group its C/S inputs are one matrix, also where a group takes several
channels of each partition. The output is stored as (H, S, C/S, W·N), channel k·S + s, which is
Reorder(S). Both permutations are the order in which a matrix product reads and writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .convolution import Call
from .memory import Scratch

Array = np.ndarray


class Mix:
    """y = Reorder(S) · W^d · Reorder(L) · p.

    Args:
        weight: W^d, (C, C/S, 1, 1).
        L: primary partitions.
        S: secondary groups.
    """

    def __init__(self, weight: Array, L: int, S: int) -> None:
        C, K = weight.shape[:2]
        self.L, self.S, self.K = L, S, K
        self.matrices = weight.reshape(S, K, K)
        assert np.shares_memory(self.matrices, weight)
        self.transposed = self.matrices.transpose(0, 2, 1)

    def new_input(self, H: int, W: int, N: int, dtype: str) -> tuple[Array, Array]:
        """Return memory for p as matrices (H, S, K, W·N) and as a view (L, C/L, H, W, N)."""
        C = self.S * self.K
        stored = np.empty((H, C // self.L, self.L, W, N), dtype)
        return stored.reshape(H, self.S, self.K, W * N), stored.transpose(2, 1, 0, 3, 4)

    def new_output(self, H: int, W: int, N: int, dtype: str) -> tuple[Array, Array]:
        """Return memory for y as matrices (H, S, K, W·N) and as a view (K, S, H, W, N)."""
        stored = np.empty((H, self.S, self.K, W, N), dtype)
        return stored.reshape(H, self.S, self.K, W * N), stored.transpose(2, 1, 0, 3, 4)

    def forward(self, p: Array, y: Array) -> Iterator[Call]:
        """Yield the calls that compute y from p, both (H, S, K, W·N)."""
        yield partial(np.matmul, self.matrices, p, out=y)

    def backward_input(self, gy: Array, gp: Array, scratch: Scratch) -> Iterator[Call]:
        """Yield the calls that compute gp, a view (L, C/L, H, W, N), from gy as matrices."""
        L, CL, H, W, N = gp.shape
        if self.K == L:
            # (L, C/L, H, W, N) → (H, S, K, W, N): written in place, row by row of the matrix
            target = gp.transpose(2, 1, 0, 3, 4)
            if target.strides[3] == N * target.strides[4]:
                flat = np.lib.stride_tricks.as_strided(
                    target, (H, self.S, self.K, W * N), (*target.strides[:3], target.strides[4])
                )
                yield partial(np.matmul, self.transposed, gy, out=flat)
                return
        product = scratch.take((H, self.S, self.K, W * N), gy.dtype)
        yield partial(np.matmul, self.transposed, gy, out=product)
        # (H, S, K, W·N) → (H, C/L, L, W, N) → (L, C/L, H, W, N)
        source = product.reshape(H, CL, L, W, N).transpose(2, 1, 0, 3, 4)
        yield partial(np.copyto, gp, source)

    def backward_weight(self, gy: Array, p: Array, gw: Array, scratch: Scratch) -> Iterator[Call]:
        """Yield the calls that write gw, (S, K, K), from gy and p as matrices."""
        products = scratch.take((gy.shape[0], self.S, self.K, self.K), gy.dtype)
        yield partial(np.matmul, gy, p.swapaxes(2, 3), out=products)
        yield partial(np.add.reduce, products, axis=0, out=gw)
