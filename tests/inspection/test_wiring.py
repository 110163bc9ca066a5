"""Wires of the permutations, against what the permutation kernel does to channels."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from igcnn.errors import ShapeError
from igcnn.inspection.page import render_wiring
from igcnn.inspection.wiring import wire
from igcnn.inspection.wiring_drawing import draw
from igcnn.kernels.permutation import permutation_forward

# C_0 … C_K and G_1 … G_K
PRODUCTS = [
    ([6, 6, 6], [2, 3]),  # the paper's figure 1
    ([48, 48, 48], [24, 2]),
    ([12, 24, 24], [6, 2]),  # down-sampling of resnet_igc
    ([5, 5, 5], [5, 1]),
    ([400, 400, 400], [100, 4]),
    ([3328, 3328, 3328], [1664, 2]),
    ([12, 12, 12, 12], [12, 4, 3]),
    ([4, 8, 8, 8, 12], [4, 2, 4, 2]),
    ([64, 128, 128, 128], [64, 8, 16]),
    ([512, 512, 512, 512], [512, 64, 64]),
    ([5, 5], [1]),
]
UNITS = [product for product in PRODUCTS if len(product[1]) == 2]


@pytest.mark.parametrize(("channels", "groups"), UNITS[:5])
def test_ways_from_every_input_to_every_output(channels, groups):
    """Counted by products of 0-1 matrices, as a graph has them."""
    (C_in, C_out, _), (L, S) = channels, groups
    interleave, restore = (np.eye(C_out)[list(p)] for p in wire(channels, groups).permutations)
    primary = np.kron(np.eye(L), np.ones((C_out // L, C_in // L)))
    secondary = np.kron(np.eye(S), np.ones((C_out // S, C_out // S)))
    ways = restore @ secondary @ interleave @ primary
    np.testing.assert_array_equal(ways, C_out // S // L)


def test_the_papers_first_picture():
    # secondary partition m holds the m-th channel of both primary ones
    assert wire([6, 6, 6], [2, 3]).permutations == ((0, 3, 1, 4, 2, 5), (0, 2, 4, 1, 3, 5))


@pytest.mark.parametrize(("channels", "groups"), PRODUCTS)
def test_bundles_hold_every_wire_once(channels, groups):
    wiring = wire(channels, groups)
    sizes, partitions = wiring.bundled(), [*groups, groups[0]]
    for k, (C, wires) in enumerate(zip(channels[1:], wiring.counts(), strict=True)):
        assert wires.sum() == C
        assert wires.shape == tuple(-(-partitions[j] // sizes[j]) for j in (k, k + 1))
        assert max(wires.shape) <= 32
        # all bundles of partitions but the last are whole
        assert set(wires.sum(axis=1)[:-1].tolist()) <= {sizes[k] * C // groups[k]}
        assert set(wires.sum(axis=0)[:-1].tolist()) <= {sizes[k + 1] * C // partitions[k + 1]}


@pytest.mark.parametrize(("channels", "groups"), PRODUCTS)
def test_wires_of_a_product_are_those_of_the_kernel(channels, groups):
    wiring = wire(channels, groups)
    for C, G, wires in zip(channels[1:], groups, wiring.permutations, strict=True):
        numbers = np.arange(C, dtype=np.float32).reshape(1, C, 1, 1)
        assert list(wires) == permutation_forward(numbers, G).ravel().tolist()


def test_counts_between_the_partitions_of_a_product():
    # by hand: Reorder(4) of 8 channels reads 0 2 4 6 1 3 5 7, in pairs by factor 1
    first, second = wire([8, 8, 8], [4, 2]).counts()
    np.testing.assert_array_equal(first, [[1, 1]] * 4)
    # Reorder(2) reads 0 4 1 5 2 6 3 7: each pair of the result has one of each half
    np.testing.assert_array_equal(second, [[1] * 4] * 2)


@pytest.mark.parametrize(("channels", "groups"), PRODUCTS)
def test_the_drawing_connects_the_channels_of_a_product(channels, groups):
    wiring = wire(channels, groups)
    svg = ElementTree.fromstring(draw(wiring.to_json()))
    columns = [
        [float(y) for y in re.findall(r" ([\d.]+)h0", path.get("d"))]
        for path in svg.iter("path")
        if path.get("class") == "dots"
    ]
    assert len(columns) == 2 * len(groups) + 1
    assert all(column == sorted(set(column)) for column in columns)
    stages = [g for g in svg.iter("g") if g.get("data-stage")]
    assert len(stages) == len(groups)
    for k, stage in enumerate(stages):
        ends = [tuple(map(float, re.findall(r" ([\d.]+)", path.get("d")))) for path in stage]
        left, right = columns[2 * k + 1], columns[2 * k + 2]
        drawn = {(left.index(a), right.index(b)) for a, b in ends}
        if max(channels) > 256:
            assert drawn == set(map(tuple, np.argwhere(wiring.counts()[k]).tolist()))
        else:
            assert drawn == {(q, c) for c, q in enumerate(wiring.permutations[k])}
    boxes = [g for g in svg.iter("g") if g.get("class") == "boxes"]
    sizes = wiring.bundled() if max(channels) > 256 else [1] * len(groups)
    assert [len(g) for g in boxes] == [-(-G // n) for G, n in zip(groups, sizes, strict=False)]


@pytest.mark.parametrize(
    ("channels", "groups"), [([6, 6], [2, 3]), ([6], []), ([6, 6, 6], [4, 3])]
)
def test_products_that_do_not_fit_are_refused(channels, groups):
    with pytest.raises(ShapeError):
        wire(channels, groups)


def test_the_picture_of_the_readme_is_drawn_by_the_program():
    picture = Path(__file__).parents[2] / "docs" / "interleaving.svg"
    # the paper's figure 1: L = 2 partitions of M = 3 channels, then 3 of 2
    drawn = render_wiring(wire((6, 6, 6), (2, 3)))
    assert picture.read_text(encoding="utf-8") == drawn
    ElementTree.fromstring(drawn)
