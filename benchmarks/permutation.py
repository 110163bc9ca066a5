"""Channel permutation Reorder(24) against PyTorch. Limit: memory, one copy.

pip install -e ".[bench]" && python benchmarks/permutation.py
"""

from functools import partial

from operation import Case, images, run

from igcnn import functional as F
from igcnn.kernels.lanes import stored
from igcnn.kernels.permutation import (
    compiled_permutation_backward,
    compiled_permutation_forward,
)

SHAPES = {"48 × 32×32, batch 64": (64, 48, 32, 32), "192 × 8×8, batch 64": (64, 192, 8, 8)}


def reorder(x):
    """Return Reorder(24): y[c] = x[(c mod 24)·(C/24) + c div 24]."""
    N, C, H, W = x.shape
    return x.reshape(N, 24, C // 24, H, W).transpose(1, 2).reshape(N, C, H, W)


def compiled(batch, gy, x):
    """Return the functions of a Case."""
    x, gy = batch.put(x), batch.put(gy)
    y, gx = batch.array(*x.shape), batch.array(*x.shape)
    forward = partial(compiled_permutation_forward, batch, stored(x), y, 24)
    backward = partial(compiled_permutation_backward, batch, gy, gx, {}, 24)
    return forward, backward, lambda: [batch.get(y), batch.get(gx)]


CASES = {
    name: Case([images(*shape)], lambda x: F.permute_channels(x, 24), reorder, compiled)
    for name, shape in SHAPES.items()
}


if __name__ == "__main__":
    run("permutation", __doc__, CASES)
