"""Updates and logits of small networks by sanitized kernels, in a process of its own.

The kernels are compiled with what IGCNN_SANITIZE says; a fault ends the process.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from igcnn import build_network
from igcnn.optim import SGD
from igcnn.plan import Plan

CASES = [
    ("resnet_igc", {"depth": 8, "L": 2, "M": 3}, 9, 5),
    ("resnet_imgnet_d18", {"L": 3, "M": 1}, 33, 3),
    ("plain_igc", {"depth": 8, "L": 4, "M": 4, "fusion": "four_branch"}, 8, 18),
    ("resnet", {"depth": 8, "L": 12, "M": 1}, 13, 5),  # wide enough for Winograd
]


class HostImages:
    split = None


for net, settings, side, images in CASES:
    rng = np.random.default_rng(0)
    network = build_network(net, num_classes=5, **settings)
    x = rng.standard_normal((images, 3, side, side), np.float32)
    plan = Plan(network, x.shape[1:], images, threads=3)
    plan.prepare(SGD(network.parameters(), lr=0.1), HostImages)
    for _ in range(2):
        plan.update((x, rng.integers(0, 5, images)))
    plan.refresh()
    assert np.isfinite(plan.logits(x)).all()
print("no fault")
