"""A group convolution is several small convolutions side by side, with fewer parameters."""

import numpy as np

from igcnn import Tensor
from igcnn.functional import conv2d

rng = np.random.default_rng(0)
N, C, H, W, G = 1, 6, 5, 5, 3
x = rng.standard_normal((N, C, H, W))
w = rng.standard_normal((C, C // G, 3, 3))


def one_output_pixel(o, i, j):
    """The formula, written out: Σ over the group's channels and the 3×3 neighbours."""
    group = o // (C // G)
    total = 0.0
    for c in range(C // G):
        for a in range(3):
            for b in range(3):
                row, column = i + a - 1, j + b - 1
                if 0 <= row < H and 0 <= column < W:
                    total += w[o, c, a, b] * x[0, group * (C // G) + c, row, column]
    return total


y = conv2d(Tensor(x), Tensor(w), padding=1, groups=G).data
print("output pixel (4, 2, 3):", y[0, 4, 2, 3], "=", one_output_pixel(4, 2, 3))
assert np.isclose(y[0, 4, 2, 3], one_output_pixel(4, 2, 3))

changed = x.copy()
changed[:, 0:2] += 1  # the first group's input
difference = np.abs(conv2d(Tensor(changed), Tensor(w), padding=1, groups=G).data - y)
reached = difference.max(axis=(0, 2, 3)) > 0
print("output channels that see input channels 0 and 1:", np.flatnonzero(reached).tolist())
assert np.flatnonzero(reached).tolist() == [0, 1]
print(f"parameters: {w.size} in {G} groups, {C * C * 9} without groups")
