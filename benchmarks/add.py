"""Addition of two images against PyTorch. Limit: memory, two reads and one write.

pip install -e ".[bench]" && python benchmarks/add.py
"""

from functools import partial

import torch
from operation import Case, images, run

from igcnn import functional as F
from igcnn.kernels.combine import compiled_combine_forward
from igcnn.kernels.lanes import stored

SHAPES = {"48 × 32×32, batch 64": (64, 48, 32, 32), "192 × 8×8, batch 64": (64, 192, 8, 8)}


def compiled(batch, gy, *inputs):
    """Return the functions of a Case; the gradients are that of the result, and no launch."""
    terms, y = [stored(batch.put(x)) for x in inputs], batch.empty(gy.shape)
    forward = partial(compiled_combine_forward, batch, terms, y, False)
    return forward, lambda: None, lambda: [batch.get(y), gy, gy]


CASES = {
    name: Case([images(*shape), images(*shape)], F.add, torch.add, compiled)
    for name, shape in SHAPES.items()
}


if __name__ == "__main__":
    run("add", __doc__, CASES)
