"""Addition of two images against PyTorch. Limit: memory, two reads and one write.

pip install -e ".[bench]" && python benchmarks/add.py
"""

import torch
from operation import Case, images, run

from igcnn import functional as F

SHAPES = {"48 × 32×32, batch 64": (64, 48, 32, 32), "192 × 8×8, batch 64": (64, 192, 8, 8)}

CASES = {
    name: Case([images(*shape), images(*shape)], F.add, torch.add)
    for name, shape in SHAPES.items()
}


if __name__ == "__main__":
    run("add", __doc__, CASES)
