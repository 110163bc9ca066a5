"""ReLU against PyTorch. Limit: memory, one read and one write.

pip install -e ".[bench]" && python benchmarks/relu.py
"""

from functools import partial

import torch
from operation import Case, images, run

from igcnn import functional as F
from igcnn.kernels.combine import compiled_combine_backward, compiled_combine_forward
from igcnn.kernels.lanes import stored, stored_gradient

SHAPES = {"48 × 32×32, batch 64": (64, 48, 32, 32), "192 × 8×8, batch 64": (64, 192, 8, 8)}


def compiled(batch, gy, x):
    """Return the functions of a Case."""
    x, gy = batch.put(x), batch.put(gy)
    y, gx = batch.array(*x.shape), batch.array(*x.shape)
    ending = {"relu": 1, "value": stored(y)}
    forward = partial(compiled_combine_forward, batch, [stored(x)], y, True)
    backward = partial(compiled_combine_backward, batch, stored_gradient(gy), gx, ending)
    return forward, backward, lambda: [batch.get(y), batch.get(gx)]


CASES = {
    name: Case([images(*shape)], F.relu, torch.relu, compiled) for name, shape in SHAPES.items()
}


if __name__ == "__main__":
    run("relu", __doc__, CASES)
