"""Softmax cross-entropy against PyTorch.

pip install -e ".[bench]" && python benchmarks/softmax_cross_entropy.py
"""

from functools import partial

import numpy as np
import torch
from operation import Case, normal, run

from igcnn import functional as F
from igcnn.kernels.softmax_cross_entropy import compiled_softmax_cross_entropy


def case(N, K):
    """Return the case of N images and K classes."""
    labels = np.arange(N) % K
    theirs = torch.from_numpy(labels)

    def compiled(batch, gy, logits):
        """Return the functions of a Case; one launch does both."""
        z, gz = batch.put(logits), batch.empty(logits.shape)
        losses, correct = np.empty(N, np.float32), np.empty(N, np.float32)
        arrays = z, labels.astype(np.int32), gz, losses, correct
        both = partial(compiled_softmax_cross_entropy, batch, *arrays)
        return both, lambda: None, lambda: [losses.mean(), batch.get(gz) * gy]

    return Case(
        [normal(N, K)],
        lambda logits: F.cross_entropy(logits, labels),
        lambda logits: torch.nn.functional.cross_entropy(logits, theirs),
        compiled,
    )


CASES = {f"{K} classes, batch {N}": case(N, K) for N, K in ((64, 10), (256, 1000))}


if __name__ == "__main__":
    run("softmax_cross_entropy", __doc__, CASES)
