"""Max pooling 3×3 with stride 2 and global average pooling against PyTorch.

pip install -e ".[bench]" && python benchmarks/pooling.py
"""

from functools import partial

import torch
from operation import Case, images, run

from igcnn import functional as F
from igcnn.kernels.lanes import stored
from igcnn.kernels.pooling import (
    compiled_global_average_pool_backward,
    compiled_global_average_pool_forward,
    compiled_pool_backward,
    compiled_pool_forward,
)

SHAPES = {"48 × 32×32, batch 64": (64, 48, 32, 32), "192 × 8×8, batch 64": (64, 192, 8, 8)}


def compiled_max(batch, gy, x):
    """Return the functions of a Case for windows of 3×3."""
    x, gy, y = batch.put(x), batch.put(gy), batch.empty(gy.shape)
    gx = batch.array(*x.shape)
    window = (3, 3), (2, 2), (1, 1)
    forward = partial(compiled_pool_forward, batch, "max_pool", stored(x), y, *window)
    arrays = gy, stored(x), y, gx, {}
    backward = partial(compiled_pool_backward, batch, "max_pool", *arrays, *window)
    return forward, backward, lambda: [batch.get(y), batch.get(gx)]


def compiled_mean(batch, gy, x):
    """Return the functions of a Case for the mean over all pixels."""
    x, gy, y = batch.put(x), batch.put(gy), batch.empty(gy.shape)
    gx = batch.array(*x.shape)
    forward = partial(compiled_global_average_pool_forward, batch, stored(x), y)
    backward = partial(compiled_global_average_pool_backward, batch, gy, gx, {})
    return forward, backward, lambda: [batch.get(y), batch.get(gx)]


CASES = {
    "max pooling, 64 × 112×112, batch 8": Case(
        [images(8, 64, 112, 112)],
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: torch.nn.functional.max_pool2d(x, 3, 2, 1),
        compiled_max,
    )
} | {
    f"global average pooling, {name}": Case(
        [images(*shape)], F.global_avg_pool2d, lambda x: x.mean(dim=(2, 3)), compiled_mean
    )
    for name, shape in SHAPES.items()
}


if __name__ == "__main__":
    run("pooling", __doc__, CASES)
