"""The secondary half of an interleaved group convolution in a plan.

The primary output p is stored as (C/L, L, H·W·N): Reorder(L) of its channels, so that the C/S
inputs of each secondary group are one matrix, also where a group takes several channels of
each partition. Where it takes one of each, p may stay as the convolution makes it. The output is
stored as (S, C/S, H·W·N), channel k·S + s, which is Reorder(S).
Both permutations are the order in which a matrix product reads and writes.

One product takes J numbers of every channel: a row of pixels, J = W·N, or where rows are short
the whole plane, J = H·W·N, so that the weights are not read again for each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .memory import Call, Scratch
from .planes import Halo, Images

Array = np.ndarray

SHORT_ROW = 128  # numbers


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
        """View memory (C, H, W, N) for p as matrices (rows, S, K, J) and as (L, C/L, H, W, N)."""
        C, H, W, N = stored.shape
        parts = stored.reshape(C // self.L, self.L, H, W, N)
        return self._matrices(stored), parts.transpose(1, 0, 2, 3, 4)

    def reads_rows(self, W: int, N: int) -> bool:
        """Return whether p may stay as (L, H, C/L, …), for images of this width."""
        return self.K == self.L and W * N >= SHORT_ROW

    def output_views(self, stored: Array) -> tuple[Array, Array]:
        """View memory (C, H, W, N) for y as matrices (rows, S, K, J) and as (K, S, H, W, N)."""
        _, H, W, N = stored.shape
        parts = stored.reshape(self.S, self.K, H, W, N)
        return self._matrices(stored), parts.transpose(1, 0, 2, 3, 4)

    def _matrices(self, stored: Array) -> Array:
        _, H, W, N = stored.shape
        rows = H if W * N >= SHORT_ROW else 1
        # (C, H, W, N) → (S, K, rows, J) → (rows, S, K, J)
        return stored.reshape(self.S, self.K, rows, -1).transpose(2, 0, 1, 3)

    def forward(self, p: Array, y: Array) -> Iterator[Call]:
        """Yield the calls that compute y from p, both (rows, S, K, J)."""
        yield partial(np.matmul, self.matrices, p, out=y)

    def backward_input(self, gy: Array, gp: Images, scratch: Scratch) -> Iterator[Call]:
        """Yield the calls that write gp, (L, C/L, H, W, N), from gy, (rows, S, K, J)."""
        L, CL, H, W, N = gp.view.shape
        if self.reads_rows(W, N):
            assert isinstance(gp, Halo)
            # a matrix product writes row by row of the image, between the borders
            target = gp.rows().transpose(1, 2, 0, 3)  # (L, H, S, W·N) → (H, S, L, W·N)
            yield partial(np.matmul, self.transposed, gy, out=target)
            return
        rows, _, _, J = gy.shape
        product = scratch.take((self.S, self.K, rows, J), gy.dtype)
        yield partial(np.matmul, self.transposed, gy, out=product.transpose(2, 0, 1, 3))
        # (S, K, rows, J) → (C/L, L, H, W, N) → (L, C/L, H, W, N)
        source = product.reshape(CL, L, H, W, N).transpose(1, 0, 2, 3, 4)
        yield partial(np.copyto, gp.view, source)

    def backward_weight(self, gy: Array, p: Array, gw: Array, scratch: Scratch) -> Iterator[Call]:
        """Yield the calls that write gw, (S, K, K), from gy and p as matrices."""
        products = scratch.take((gy.shape[0], self.S, self.K, self.K), gy.dtype)
        yield partial(np.matmul, gy, p.swapaxes(2, 3), out=products)
        yield partial(np.add.reduce, products, axis=0, out=gw)
