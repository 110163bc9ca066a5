"""The interleaved group convolution: one op = four steps = one dense convolution."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.errors import ShapeError
from igcnn.functional import (
    conv2d,
    interleaved_group_conv2d,
    interleaved_group_conv2d_steps,
)
from igcnn.layers import InterleavedGroupConvolution

# L, channels in, channels out, secondary groups, stride
UNITS = [
    (2, 6, 6, 3, 1),
    (3, 6, 12, 4, 2),
    (3, 6, 12, 2, 2),  # resnet_igc's down-sampling: two channels of each partition in a group
    (1, 4, 4, 4, 1),
    (4, 4, 4, 1, 1),
    (2, 8, 8, 2, 1),
]


def unit(L, C, C_out, secondary_groups, size=(7, 5), N=2):
    rng = np.random.default_rng(0)
    shapes = (
        (N, C, *size),
        (C_out, C // L, 3, 3),
        (C_out, C_out // secondary_groups, 1, 1),
    )
    return [Tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(("L", "C", "C_out", "secondary_groups", "stride"), UNITS)
def test_gradients(L, C, C_out, secondary_groups, stride):
    def function(x, primary, secondary):
        return interleaved_group_conv2d(x, primary, secondary, stride, 1, L, secondary_groups)

    inputs = unit(L, C, C_out, secondary_groups, size=(5, 4), N=1)
    assert gradcheck(function, inputs).worst_error < 1e-8


@pytest.mark.parametrize(("L", "C", "C_out", "secondary_groups", "stride"), UNITS)
def test_one_op_equals_its_four_steps(L, C, C_out, secondary_groups, stride):
    arguments = dict(stride=stride, padding=1, L=L, secondary_groups=secondary_groups)
    results = []
    for function in (interleaved_group_conv2d, interleaved_group_conv2d_steps):
        inputs = unit(L, C, C_out, secondary_groups)
        y = function(*inputs, **arguments)
        y.backward(np.random.default_rng(1).standard_normal(y.shape))
        results.append([y.data, *(x.grad for x in inputs)])
    for whole, steps in zip(*results, strict=True):
        np.testing.assert_allclose(whole, steps, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("L", "M"), [(2, 3), (3, 2), (4, 8), (1, 5), (5, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_unit_equals_one_dense_convolution(L, M, stride):
    """W[(l, m), (l', m')] = W^d_m[l, l'] · W^p_l'[m, m'] for each of the nine taps."""
    C = L * M
    x, primary, secondary = unit(L, C, C, M)
    dense = np.zeros((C, C, 3, 3))
    for l in range(L):  # noqa: E741
        for m in range(M):
            for l2 in range(L):
                for m2 in range(M):
                    W_d = secondary.data[m * L + l, l2, 0, 0]
                    W_p = primary.data[l2 * M + m, m2]
                    dense[l * M + m, l2 * M + m2] = W_d * W_p
    y = interleaved_group_conv2d(x, primary, secondary, stride, 1)
    expected = conv2d(x, Tensor(dense), stride=stride, padding=1)
    np.testing.assert_allclose(y.data, expected.data, rtol=0, atol=1e-12)


def test_L_and_secondary_groups_follow_from_the_weights():
    x, primary, secondary = unit(2, 6, 6, 3)
    y = interleaved_group_conv2d(x, primary, secondary)
    expected = interleaved_group_conv2d(x, primary, secondary, 1, 1, L=2, secondary_groups=3)
    np.testing.assert_array_equal(y.data, expected.data)


def test_errors_name_both_values():
    x, primary, secondary = unit(2, 6, 6, 3)
    with pytest.raises(ShapeError, match="6 channels, which do not divide into L = 4"):
        interleaved_group_conv2d(x, primary, secondary, L=4)
    with pytest.raises(ShapeError, match=r"shape \(6, 2, 1, 1\), but 6 channels in 2 groups"):
        interleaved_group_conv2d(x, primary, secondary, secondary_groups=2)
    with pytest.raises(ShapeError, match="7 channels"):
        interleaved_group_conv2d(Tensor(np.ones((1, 7, 5, 5))), primary, secondary, L=2)


def test_layer():
    rng = np.random.default_rng(0)
    layer = InterleavedGroupConvolution(48, 96, 24, stride=2, rng=rng)
    shapes = {name: p.shape for name, p in layer.named_parameters()}
    assert shapes == {"conv1_weight": (96, 2, 3, 3), "conv2_weight": (96, 24, 1, 1)}
    assert layer.primary.data.std() == pytest.approx((2 / 18) ** 0.5, rel=0.05)
    assert layer.secondary.data.std() == pytest.approx((2 / 24) ** 0.5, rel=0.05)
    y = layer(np.zeros((1, 48, 8, 8), np.float32))
    assert y.shape == (1, 96, 4, 4)
    assert layer.macs((1, 48, 8, 8), y.shape) == 16 * (96 * 18 + 96 * 24)
    text = "InterleavedGroupConvolution(48 -> 96, 3×3, stride=2, L=24, secondary_groups=4)"
    assert repr(layer) == text
    with pytest.raises(ShapeError, match="48 input and 90 output channels do not divide into L"):
        InterleavedGroupConvolution(48, 90, 24, rng=rng)
