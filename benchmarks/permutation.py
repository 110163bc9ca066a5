"""Channel permutation Reorder(24) against PyTorch. Limit: memory, one copy.

pip install -e ".[bench]" && python benchmarks/permutation.py
"""

from operation import Case, images, run

from igcnn import functional as F

SHAPES = {"48 × 32×32, batch 64": (64, 48, 32, 32), "192 × 8×8, batch 64": (64, 192, 8, 8)}


def reorder(x):
    """Return Reorder(24): y[c] = x[(c mod 24)·(C/24) + c div 24]."""
    N, C, H, W = x.shape
    return x.reshape(N, 24, C // 24, H, W).transpose(1, 2).reshape(N, C, H, W)


CASES = {
    name: Case([images(*shape)], lambda x: F.permute_channels(x, 24), reorder)
    for name, shape in SHAPES.items()
}


if __name__ == "__main__":
    run("permutation", __doc__, CASES)
