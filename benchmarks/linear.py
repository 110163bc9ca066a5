"""The last layer, x·wᵀ + b, against PyTorch. Limit: GEMM, 2·N·C·K operations.

pip install -e ".[bench]" && python benchmarks/linear.py
"""

from functools import partial

import numpy as np
import torch
from operation import Case, normal, run

from igcnn import functional as F
from igcnn.kernels.convolution import compiled_sum_partials
from igcnn.kernels.linear import compiled_linear_backward, compiled_linear_forward


def compiled(batch, gy, x, w, b):
    """Return the functions of a Case."""
    x, gy, y = batch.put(x), batch.put(gy), batch.empty(gy.shape)
    gx, gw, gb = batch.array(*x.shape), np.empty_like(w), np.empty_like(b)
    partials = [batch.array(batch.blocks, *g.shape) for g in (gw, gb)]

    def backward():
        compiled_linear_backward(batch, gy, x, w, gx, *partials)
        for part, total in zip(partials, (gw, gb), strict=True):
            compiled_sum_partials(part, total, wait=total is gb)

    forward = partial(compiled_linear_forward, batch, x, w, b, y)
    return forward, backward, lambda: [batch.get(y), batch.get(gx), gw, gb]


CASES = {
    f"{C} to {K}, batch {N}": Case(
        [normal(N, C), normal(K, C), normal(K)], F.linear, torch.nn.functional.linear, compiled
    )
    for N, C, K in ((64, 192, 10), (8, 512, 1000))
}


if __name__ == "__main__":
    run("linear", __doc__, CASES)
