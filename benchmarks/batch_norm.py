"""Batch norm in training against PyTorch. Limit: memory, 4 passes over the images.

pip install -e ".[bench]" && python benchmarks/batch_norm.py
"""

import numpy as np
import torch
from operation import Case, images, normal, run

from igcnn import functional as F

SHAPES = {"48 × 32×32, batch 64": (64, 48, 32, 32), "192 × 8×8, batch 64": (64, 192, 8, 8)}


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
    )


CASES = {name: case(shape) for name, shape in SHAPES.items()}


if __name__ == "__main__":
    run("batch_norm", __doc__, CASES)
