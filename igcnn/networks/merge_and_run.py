"""merge_and_run: two residual lines that share their mean (Zhao et al., 2016, arXiv 1611.07718).

The companion of the interleaved networks, by some of the same authors. A block has two lines a
and b, each with a branch of two 3×3 convolutions:

    a' = ReLU((a + b)/2 + branch_a(a))      b' = ReLU((a + b)/2 + branch_b(b))

Both lines begin as the output of the stem; the last block adds both branches to the mean. Where
the width doubles, each line passes a 1×1 convolution of stride 2 first. Three stages of
(depth − 2)/6 blocks of widths C, 2C, 4C, from C = 16·widen; the published ones are

| name | depth | widen | parameters |
|---|---|---|---|
| MR1 | 56 | 1 | 1.7 M |
| MR2 | 32 | 4 | 14.9 M |
| MR3 | 50 | 4 | 24.8 M (this one has 24.2 M; the difference could not be explained) |

Parameter names follow the authors' code (zlmzju/fusenet, network/cross.py).
"""

from __future__ import annotations

import numpy as np

from ..autograd import Tensor
from ..errors import ConfigError
from ..layers import Chain, GlobalAveragePool, Layer, Linear, ReLU
from ..layers.add import add
from .registry import register_network
from .sizes import equal_stages
from .units import Units

MOMENTUM = 0.9


class MergeAndRun(Layer):
    """One block on both lines.

    Args:
        branches: names and layers of the two branches.
        lines: names and layers of the two projections; empty for the identity.
        last: whether it is the last block, which joins the lines.
    """

    def __init__(self, branches: dict[str, Layer], lines: dict[str, Layer], last: bool) -> None:
        super().__init__()
        for name, layer in (lines | branches).items():
            self.add_child(name, layer)
        self.last = last
        self.relu = ReLU()

    def lines(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return both lines after the block; where it is the last one, twice the same."""
        *projections, branch_a, branch_b, relu = self.children().values()
        deep_a, deep_b = branch_a(a), branch_b(b)
        if projections:
            a, b = projections[0](a), projections[1](b)
        mean = add(a, b) * 0.5
        if self.last:
            y = relu(add(add(mean, deep_a), deep_b))
            return y, y
        return relu(add(mean, deep_a)), relu(add(mean, deep_b))


class Lines(Layer):
    """The blocks of all stages, from the output of the stem to that of the last block.

    Args:
        blocks: name → block.
    """

    def __init__(self, blocks: dict[str, MergeAndRun]) -> None:
        super().__init__()
        for name, block in blocks.items():
            self.add_child(name, block)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 4C, H/4, W/4) for x, (N, C, H, W)."""
        a = b = x
        for block in self.children().values():
            assert isinstance(block, MergeAndRun)
            a, b = block.lines(a, b)
        return a


@register_network("merge_and_run")
def merge_and_run_layers(
    *,
    depth: int = 56,
    widen: int = 1,
    num_classes: int = 10,
    rng: np.random.Generator,
    dtype: str,
) -> dict[str, Layer]:
    """Return the named layers of `merge_and_run`.

    Args:
        depth: layers with weights from image to classifier: 2 + 6·n.
        widen: C/16.
        num_classes: outputs of the classifier.
        rng: source of the initial weights.
        dtype: float32 or float64.

    Raises:
        ConfigError: depth is not 8, 14, 20, …, or widen is below 1.
    """
    n = equal_stages("merge_and_run", depth, 6)
    if widen < 1:
        raise ConfigError(f"merge_and_run: widen must be at least 1, not {widen}")
    units = Units(MOMENTUM, rng, dtype)
    blocks: dict[str, MergeAndRun] = {}
    width_in = 16 * widen
    stem = units.conv(3, width_in)
    for k in range(3):
        width = 16 * widen << k
        for i in range(n):
            lines: dict[str, Layer] = {}
            if width != width_in:
                for line in ("l1_line", "l2_line"):
                    lines[line] = units.conv(width_in, width, 1, 2, activation=None)
            branches: dict[str, Layer] = {
                branch: _branch(units, width_in, width) for branch in ("d1", "d2")
            }
            last = k == 2 and i == n - 1
            blocks[f"g{k + 1}_b{i + 1}"] = MergeAndRun(branches, lines, last)
            width_in = width
    return {
        "g0": stem,
        "": Lines(blocks),
        "cls_pool": GlobalAveragePool(),
        "cls_fc": Linear(width_in, num_classes, rng=rng, dtype=dtype),
    }


def _branch(units: Units, C: int, C_out: int) -> Chain:
    """Return two 3×3 convolutions with batch norm, the first of stride 2 where the width grows."""
    stride = 1 if C_out == C else 2
    return Chain(
        {
            "two1": units.conv(C, C_out, stride=stride),
            "two2": units.conv(C_out, C_out, activation=None),
        }
    )
