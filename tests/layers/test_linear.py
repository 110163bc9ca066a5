"""linear: gradients, initialisation."""

import numpy as np
import pytest

from igcnn import Tensor, gradcheck
from igcnn.errors import ShapeError
from igcnn.functional import linear
from igcnn.layers import Linear


@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients(with_bias):
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (2, 4), (2,)][: 3 if with_bias else 2]
    inputs = [Tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]
    assert gradcheck(linear, inputs).worst_error < 1e-9


def test_layer_begins_uniform_with_zero_bias():
    layer = Linear(100, 50, rng=np.random.default_rng(0))
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert 0.099 < np.abs(layer.weight.data).max() <= 0.1
    assert layer.weight.data.std() == pytest.approx(0.1 / 3**0.5, rel=0.05)
    assert not layer.bias.data.any()
    assert layer.macs((7, 100), (7, 50)) == 7 * 5000
    assert repr(layer) == "Linear(100 -> 50)"


def test_errors():
    with pytest.raises(ShapeError, match=r"linear: x must be \(N, I\)"):
        linear(Tensor(np.ones((2, 3))), Tensor(np.ones((4, 5))))
    with pytest.raises(ShapeError, match="linear: bias"):
        linear(Tensor(np.ones((2, 3))), Tensor(np.ones((4, 3))), Tensor(np.ones(3)))
