"""Softmax cross-entropy against PyTorch.

pip install -e ".[bench]" && python benchmarks/softmax_cross_entropy.py
"""

import numpy as np
import torch
from operation import Case, normal, run

from igcnn import functional as F


def case(N, K):
    """Return the case of N images and K classes."""
    labels = np.arange(N) % K
    theirs = torch.from_numpy(labels)
    return Case(
        [normal(N, K)],
        lambda logits: F.cross_entropy(logits, labels),
        lambda logits: torch.nn.functional.cross_entropy(logits, theirs),
    )


CASES = {f"{K} classes, batch {N}": case(N, K) for N, K in ((64, 10), (256, 1000))}


if __name__ == "__main__":
    run("softmax_cross_entropy", __doc__, CASES)
