"""What an interleaved group convolution is in its extremes, and how wide it can be (section 3)."""

import numpy as np

from igcnn import Tensor
from igcnn.functional import conv2d
from igcnn.inspection import compose, unit_parameters, widest
from igcnn.layers import InterleavedGroupConvolution

rng = np.random.default_rng(0)
C = 12


def unit(L, secondary=None):
    return InterleavedGroupConvolution(C, C, L, secondary=secondary, rng=rng, dtype="float64")


x = rng.standard_normal((2, C, 8, 8))
print(f"{'unit':42}{'parameters':>11}{'dense':>7}{'rank':>6}{'difference':>12}")
for name, layer in {
    "L = 4, M = 3": unit(4),
    "L = 1: regular, then a scale a channel": unit(1),
    "M = 1: channel-wise, then 1×1 (Xception)": unit(C),
    "summation fusion: every W^d is ones": unit(4, np.ones((C, 4, 1, 1))),
    "W^d = 1: a plain group convolution": unit(4, np.tile(np.eye(4), (3, 1))[:, :, None, None]),
}.items():
    found = compose(layer, x)
    numbers = f"{found.parameters:11,}{found.dense_parameters:7,}{found.rank:6}"
    print(f"{name:42}{numbers}{found.difference:12.1e}")
    assert found.difference < 1e-12 * found.scale
    assert (found.paths == 1).all()

# A regular convolution in four branches: its kernel cut in four, the input twice, halves summed.
half = C // 2
dense = rng.standard_normal((C, C, 3, 3))
four = InterleavedGroupConvolution(2 * C, 2 * C, 4, rng=rng, dtype="float64")
four.primary.data[...] = np.concatenate(
    [dense[:half, :half], dense[:half, half:], dense[half:, :half], dense[half:, half:]]
)
adding = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]])
four.secondary.data[...] = np.tile(adding, (half, 1))[:, :, None, None]
twice = four(Tensor(np.concatenate([x, x], axis=1))).data
once = conv2d(Tensor(x), Tensor(dense), padding=1).data
difference = np.abs(twice - np.concatenate([once, once], axis=1)).max()
print(f"\nregular convolution as a unit of four branches, difference {difference:.1e}")
assert difference < 1e-12

print("\nthe widest unit for the parameters of a regular 3×3 convolution:")
print(f"{'regular':>8}{'parameters':>12}{'L':>5}{'M':>4}{'width':>7}{'L = 9M would be':>17}")
for width in (8, 16, 32, 64, 128):
    budget = 9 * width**2
    L, M = widest(budget)
    bound = (budget / 6) ** (2 / 3)
    print(f"{width:8}{budget:12,}{L:5}{M:4}{L * M:7}{bound:17.1f}")
    assert unit_parameters(L, M) <= budget
    assert width < L * M <= bound
