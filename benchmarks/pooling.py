"""Max pooling 3×3 with stride 2 and global average pooling against PyTorch.

pip install -e ".[bench]" && python benchmarks/pooling.py
"""

import torch
from operation import Case, images, run

from igcnn import functional as F

SHAPES = {"48 × 32×32, batch 64": (64, 48, 32, 32), "192 × 8×8, batch 64": (64, 192, 8, 8)}

CASES = {
    "max pooling, 64 × 112×112, batch 8": Case(
        [images(8, 64, 112, 112)],
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: torch.nn.functional.max_pool2d(x, 3, 2, 1),
    )
} | {
    f"global average pooling, {name}": Case(
        [images(*shape)], F.global_avg_pool2d, lambda x: x.mean(dim=(2, 3))
    )
    for name, shape in SHAPES.items()
}


if __name__ == "__main__":
    run("pooling", __doc__, CASES)
