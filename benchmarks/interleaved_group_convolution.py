"""The unit of the paper, both convolutions and permutations, against PyTorch.

pip install -e ".[bench]" && python benchmarks/interleaved_group_convolution.py
"""

import torch
from operation import Case, images, normal, run

from igcnn import functional as F


def reorder(x, b):
    """Return Reorder(b): y[c] = x[(c mod b)·(C/b) + c div b]."""
    N, C, H, W = x.shape
    return x.reshape(N, b, C // b, H, W).transpose(1, 2).reshape(N, C, H, W)


def case(L, M, shape):
    """Return the case of L partitions of M channels."""
    conv2d = torch.nn.functional.conv2d

    def theirs(x, primary, secondary):
        p = conv2d(x, primary, padding=1, groups=L)
        return reorder(conv2d(reorder(p, L), secondary, groups=M), M)

    return Case(
        [images(*shape), normal(L * M, M, 3, 3), normal(L * M, L, 1, 1)],
        lambda x, primary, secondary: F.interleaved_group_conv2d(x, primary, secondary, L=L),
        theirs,
    )


CASES = {
    "L24 M2, 32×32, batch 64": case(24, 2, (64, 48, 32, 32)),
    "L24 M8, 8×8, batch 64": case(24, 8, (64, 192, 8, 8)),
    "L100 M2, 56×56, batch 8": case(100, 2, (8, 200, 56, 56)),
}


if __name__ == "__main__":
    run("interleaved_group_convolution", __doc__, CASES)
