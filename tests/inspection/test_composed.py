"""The composed kernel, by definition and by what units really compute."""

import numpy as np
import pytest

from igcnn import build_network
from igcnn.errors import ShapeError
from igcnn.inspection.composed import (
    compose,
    composed_kernel,
    conditions,
    describe_conditions,
    unit_parameters,
    widest,
)
from igcnn.layers import InterleavedGroupConvolution, InterleavedProduct


def unit(C_in, C_out, L, groups=None, stride=1, kernel_size=3):
    rng = np.random.default_rng(C_in + L)
    return InterleavedGroupConvolution(
        C_in, C_out, L, groups, kernel_size, stride, rng=rng, dtype="float64"
    )


@pytest.mark.parametrize(
    ("C_in", "C_out", "L", "groups", "stride", "kernel_size"),
    [
        (6, 6, 2, None, 1, 3),
        (12, 12, 4, None, 2, 3),
        (8, 24, 4, None, 1, 1),  # more outputs than inputs
        (12, 24, 6, 2, 2, 3),  # down-sampling of resnet_igc: groups of two from each partition
        (5, 5, 5, None, 1, 3),  # M = 1
        (5, 5, 1, None, 1, 7),  # L = 1
    ],
)
def test_a_unit_is_one_regular_convolution(C_in, C_out, L, groups, stride, kernel_size):
    layer = unit(C_in, C_out, L, groups, stride, kernel_size)
    x = np.random.default_rng(0).normal(size=(2, C_in, 9, 7))
    found = compose(layer, x)
    assert found.difference <= 1e-12 * found.scale
    assert found.kernel.shape == (C_out, C_in, kernel_size, kernel_size)
    assert found.dense_parameters == C_out * C_in * kernel_size**2
    assert found.parameters == sum(w.size for w in (layer.primary.data, layer.secondary.data))
    partitions_met = layer.secondary.data.shape[1] // L
    np.testing.assert_array_equal(found.paths, max(1, partitions_met))


def test_entries_are_the_products_of_the_paper():
    L, M = 3, 2
    layer = unit(6, 6, L)
    W_p = layer.primary.data.reshape(L, M, M, 3, 3)
    W_d = layer.secondary.data.reshape(M, L, L)
    W = composed_kernel([layer.primary.data, layer.secondary.data], [L, M])
    for l, m, k, n in np.ndindex(L, M, L, M):  # noqa: E741 – the paper's letter
        np.testing.assert_allclose(W[l * M + m, k * M + n], W_d[m, l, k] * W_p[k, m, n])


def test_every_unit_of_a_network():
    network = build_network("resnet_igc", depth=8, L=4, M=2, num_classes=3, dtype="float64")
    units = [x for _, x in network.named_layers() if isinstance(x, InterleavedGroupConvolution)]
    assert len(units) == 6
    for layer in units:
        C_in = layer.primary.data.shape[1] * layer.L
        x = np.random.default_rng(1).normal(size=(1, C_in, 6, 6))
        found = compose(layer, x)
        assert found.difference <= 1e-12 * found.scale
        assert found.paths.min() >= 1


def test_a_fault_in_the_order_of_channels_shows(monkeypatch):
    """The comparison on images can fail."""
    from igcnn.inspection import composed

    monkeypatch.setattr(composed, "permutation_index", lambda channels, _: np.arange(channels))
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 5))
    assert compose(unit(6, 6, 2), x).difference > 0.1


def test_some_of_the_outputs():
    layer = unit(12, 24, 6, 2, 2)
    x = np.random.default_rng(3).normal(size=(1, 12, 6, 6))
    some = compose(layer, x, np.array([0, 7, 23]))
    every = compose(layer, x)
    np.testing.assert_array_equal(some.kernel, every.kernel[[0, 7, 23]])
    np.testing.assert_array_equal(some.paths, every.paths[[0, 7, 23]])
    assert some.difference <= 1e-12 * some.scale
    assert some.dense_parameters == every.dense_parameters


def test_rank_is_that_of_the_kernel():
    """Full, or lost by either factor, or by both; by singular values of the whole kernel."""
    layer = unit(12, 12, 4)
    x = np.random.default_rng(3).normal(size=(1, 12, 6, 6))
    for primary, secondary in ((1, 1), (0, 1), (1, 0), (0, 0)):
        broken = unit(12, 12, 4)
        if not primary:
            broken.primary.data[4] = 2 * broken.primary.data[3]
        if not secondary:
            broken.secondary.data[:4] = 1
        W = compose(broken, x).kernel.reshape(12, -1)
        assert compose(broken, x).rank == np.linalg.matrix_rank(W)
        assert (compose(broken, x).rank == 12) == (primary and secondary)
    assert compose(layer, x).rank == 12


@pytest.mark.parametrize(
    ("weights", "groups"),
    [
        ([(4, 3, 1, 1), (4, 4, 1, 1)], [3, 1]),  # 3 groups do not divide 4 channels
        ([(4, 2, 1, 1), (4, 3, 1, 1)], [2, 1]),  # the second takes 3 channels, not 4
    ],
)
def test_weights_that_do_not_fit(weights, groups):
    with pytest.raises(ShapeError, match="composed_kernel: weight"):
        composed_kernel([np.ones(shape) for shape in weights], groups)


def product(channels, groups, **settings):
    rng = np.random.default_rng(7)
    return InterleavedProduct(channels, groups, **settings, rng=rng, dtype="float64")


def count_paths(channels, groups):
    """Return how many paths there are from each input to each output, by following each."""
    reached = np.eye(channels[0], dtype=int)  # (channel, input)
    for C_in, C, G in zip(channels, channels[1:], groups, strict=False):
        outputs = np.zeros((C, channels[0]), int)
        for c in range(C):
            group = c // (C // G)
            outputs[c] = sum(reached[group * (C_in // G) + i] for i in range(C_in // G))
        # Reorder(G): channel c comes from place c mod G of run c div G
        reached = np.array([outputs[c % G * (C // G) + c // G] for c in range(C)])
    return reached


PRODUCTS = {
    "K = 3, one path": ([24] * 4, [24, 4, 6], {}),  # channel-wise, then 6 · 4 = 24
    "K = 4, one path": ([24] * 5, [24, 12, 8, 6], {}),  # 2 · 3 · 4 = 24
    "K = 4, several": ([16] * 5, [16, 4, 4, 2], {}),  # 4 · 4 · 8 > 16
    "K = 3, not all meet": ([36] * 4, [36, 12, 12], {}),  # 3 · 3 < 36
    "spatial in the middle": ([12] * 4, [3, 12, 4], {"kernel_sizes": [1, 3, 1]}),
    "wider, stride 2": ([8, 16, 16], [8, 4], {"stride": 2}),
    "all 1×1": ([6, 6, 6], [2, 3], {"kernel_sizes": [1, 1]}),
    "5×3": ([6, 6, 12], [3, 2], {"kernel_sizes": [(5, 3), 1]}),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_one_regular_convolution(name):
    channels, groups, settings = PRODUCTS[name]
    layer = product(channels, groups, **settings)
    found = compose(layer, np.random.default_rng(0).normal(size=(2, channels[0], 9, 7)))
    assert found.difference <= 1e-12 * found.scale
    paths = count_paths(channels, groups)
    np.testing.assert_array_equal(found.paths, paths)
    told = conditions(layer)
    assert (told.least_paths, told.most_paths) == (paths.min(), paths.max())
    assert told.strict == name.endswith(("one path", "middle")) or "K" not in name
    assert found.rank == np.linalg.matrix_rank(found.kernel.reshape(channels[-1], -1))


def test_conditions_of_igcv2():
    """Of width 81 with one path, three factors of 9 inputs are balanced and meet the bound."""
    told = conditions(product([81] * 4, [81, 9, 9]))
    assert told.fan_ins == (9, 9, 9)
    assert told.strict
    assert told.balanced
    assert told.parameters == 81 * 27
    assert told.bound == pytest.approx(told.parameters)
    # the same width by other numbers costs more
    other = conditions(product([81] * 4, [81, 27, 3]))
    assert other.strict
    assert not other.balanced
    assert other.parameters > other.bound == pytest.approx(told.bound)
    assert conditions(product([8, 16, 16], [8, 4])).bound is None


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        (
            {"net": "igcv2", "depth": 8, "width": 81, "factors": "9,9"},
            [
                "g1_b1 and 1 more: fan-ins 9, 9, 9 (balanced); 1 path from every input to every "
                "output; 1.00 times the fewest parameters for the width",
                "g2_b1: fan-ins 9, 18, 9; 2 paths from every input to every output",
            ],
        ),
        (
            {"net": "igcv2", "depth": 5, "width": 36, "factors": "3,3", "condition": "loose"},
            [
                "g1_b1 and 2 more: fan-ins 9, 3, 3; some channels do not meet, others by at most "
                "1 path"
            ],
        ),
        ({"net": "resnet", "depth": 8}, []),
    ],
)
def test_conditions_in_words(settings, lines):
    assert describe_conditions(build_network(**settings))[: max(1, len(lines))] == lines


def test_conditions_of_a_unit_are_those_of_the_paper():
    told = conditions(unit(18, 18, 18 // 2))
    assert told.strict
    assert told.fan_ins == (2 * 9, 9)  # M·S and L
    assert told.parameters == unit_parameters(9, 2)
    assert conditions(unit(12, 24, 6, 2, 2)).most_paths == 2


@pytest.mark.parametrize(("budget", "L", "M"), [(4672, 28, 3), (17536, 40, 5), (10, 1, 1)])
def test_widest_unit(budget, L, M):
    """Two budgets of the paper's tables, and the smallest there is; (41, 5) would take 17,630."""
    assert widest(budget) == (L, M)
    assert unit_parameters(L, M) <= budget
    assert (budget / 6) ** (2 / 3) + 1e-9 >= L * M or budget == 10


@pytest.mark.parametrize("budget", [50, 333, 4672])
def test_widest_by_trying_all(budget):
    fitting = [
        (L * M, -unit_parameters(L, M))
        for L in range(1, budget)
        for M in range(1, 40)
        if unit_parameters(L, M) <= budget
    ]
    L, M = widest(budget)
    assert (L * M, -unit_parameters(L, M)) == max(fitting)
