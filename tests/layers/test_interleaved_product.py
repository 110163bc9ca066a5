"""Products of group convolutions and permutations on the tape."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.conformance.oracles import convolution, permute
from igcnn.errors import ShapeError
from igcnn.functional import interleaved_product
from igcnn.layers import InterleavedProduct


def layer(channels=(6, 12, 12, 12), groups=(6, 4, 3), kernel_sizes=None, stride=1):
    rng = np.random.default_rng(1)
    return InterleavedProduct(channels, groups, kernel_sizes, stride, rng=rng, dtype="float64")


@pytest.mark.parametrize("spatial", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, (2, 1)])
def test_values_are_those_of_the_steps(spatial, stride):
    sizes = [3 if k == spatial else 1 for k in range(3)]
    own = layer(kernel_sizes=sizes, stride=stride)
    x = np.random.default_rng(2).normal(size=(2, 6, 7, 5))
    expected = x
    for k, (weight, G) in enumerate(zip(own.weights, own.groups, strict=True)):
        geometry = (stride, 1) if k == spatial else (1, 0)
        expected = permute(convolution(expected, weight.data, *geometry, groups=G), G)
    y = own(Tensor(x)).numpy()
    np.testing.assert_allclose(y, expected, atol=1e-12 * np.abs(expected).max())


def test_gradients():
    own = layer((4, 4, 8, 8), (4, 2, 4), stride=2)
    x = Tensor(np.random.default_rng(3).normal(size=(2, 4, 5, 6)), requires_grad=True)

    def product(x, *weights):
        return interleaved_product(x, weights, own.groups, 2)

    assert gradcheck(product, [x, *own.weights]).worst_error < 1e-7


def test_names_sizes_and_multiply_adds():
    own = layer(stride=2)
    shapes = {name: tensor.shape for name, tensor in own.named_parameters()}
    assert shapes == {
        "conv1_weight": (12, 1, 3, 3),
        "conv2_weight": (12, 3, 1, 1),
        "conv3_weight": (12, 4, 1, 1),
    }
    assert own.macs((2, 6, 8, 8), (2, 12, 4, 4)) == 2 * 16 * 12 * (9 + 3 + 4)
    last = layer((6, 6, 12), (2, 6), kernel_sizes=(1, 3), stride=2)
    assert last.macs((1, 6, 8, 8), (1, 12, 4, 4)) == 64 * 6 * 3 + 16 * 12 * 1 * 9
    assert "6 -> 12 -> 12 -> 12, 3×3, 1×1, 1×1, stride=2, groups=(6, 4, 3)" in repr(own)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((6, 12), (6, 4)), "2 channels, 2 groups and 2 kernel sizes"),
        (((6, 12, 12), (6, 5)), "factor 2 maps 12 channels to 12, .* into 5 groups"),
        (((), ()), "0 channels, 0 groups"),
        (((6, 6, 6), (6, 2), (3, 3)), "factors 1 and 2 are both larger than 1×1"),
        (((6, 6.5), (1,)), "channels must be an integer"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ShapeError, match=f"interleaved_product: .*{message}"):
        layer(*arguments)


def test_refusals_of_the_function():
    x, w = Tensor(np.zeros((1, 4, 3, 3))), Tensor(np.zeros((4, 2, 1, 1)))
    with pytest.raises(ShapeError, match="1 weights and 2 numbers of groups"):
        interleaved_product(x, [w], [2, 2])
    with pytest.raises(ShapeError, match="0 weights"):
        interleaved_product(x, [], [])
    with pytest.raises(ShapeError, match="convolution: "):
        interleaved_product(x, [w, w], [2, 1])
