"""The last layer, x·wᵀ + b, against PyTorch. Limit: GEMM, 2·N·C·K operations.

pip install -e ".[bench]" && python benchmarks/linear.py
"""

import torch
from operation import Case, normal, run

from igcnn import functional as F

CASES = {
    f"{C} to {K}, batch {N}": Case(
        [normal(N, C), normal(K, C), normal(K)], F.linear, torch.nn.functional.linear
    )
    for N, C, K in ((64, 192, 10), (8, 512, 1000))
}


if __name__ == "__main__":
    run("linear", __doc__, CASES)
