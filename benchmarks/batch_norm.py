"""Batch norm in training against PyTorch. Limit: memory, 4 passes over the images.

pip install -e ".[bench]" && python benchmarks/batch_norm.py
"""

import numpy as np
import torch
from operation import Case, images, normal, run

from igcnn import functional as F
from igcnn.kernels.batch_norm import (
    CompiledNorm,
    compiled_batch_norm_gradient,
    compiled_batch_norm_statistics,
    compiled_batch_norm_sums,
)
from igcnn.kernels.combine import compiled_combine_backward, compiled_combine_forward
from igcnn.kernels.lanes import stored_gradient

SHAPES = {"48 × 32×32, batch 64": (64, 48, 32, 32), "192 × 8×8, batch 64": (64, 192, 8, 8)}


def compiled(batch, gy, x, gamma, beta):
    """Return the functions of a Case."""
    C, H, W = x.shape[1:]
    z, g = batch.put(x), batch.put(gy)
    y, gx, masked = (batch.array(*z.shape) for _ in range(3))
    arrays = [np.ones(C, np.float32) for _ in range(11)]
    norm = CompiledNorm(0.9, 2e-5, gamma, beta, *arrays)
    sums = batch.array(batch.jobs(H), 2, C, dtype="float64")
    ending = {"norms": 1, "norm": [{"z": z, "mean": norm.mean, "sums": sums}]}

    def forward():
        compiled_batch_norm_sums(batch, z, sums)
        compiled_batch_norm_statistics(batch, norm, z, sums)
        compiled_combine_forward(batch, [norm.normalised(z)], y, False)

    def backward():
        compiled_combine_backward(batch, stored_gradient(g), masked, ending)
        compiled_batch_norm_gradient(batch, norm, H * W, sums, wait=True)
        compiled_combine_backward(batch, norm.gradient(masked, z), gx, {})

    return forward, backward, lambda: [batch.get(y), batch.get(gx), norm.ggamma, norm.gbeta]


def case(shape):
    """Return the case of images of one shape."""
    C = shape[1]
    running = np.zeros(C, np.float32), np.ones(C, np.float32)
    theirs = torch.zeros(C), torch.ones(C)
    return Case(
        [images(*shape), normal(C), normal(C)],
        lambda x, gamma, beta: F.batch_norm(x, gamma, beta, *running, training=True),
        lambda x, gamma, beta: torch.nn.functional.batch_norm(
            x, *theirs, gamma, beta, training=True, eps=2e-5
        ),
        compiled,
    )


CASES = {name: case(shape) for name, shape in SHAPES.items()}


if __name__ == "__main__":
    run("batch_norm", __doc__, CASES)
