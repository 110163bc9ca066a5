"""The check of the check: for every op and every input, a wrong gradient is found."""

import numpy as np
import pytest

from igcnn import Tensor, functional, gradcheck
from igcnn.autograd.arithmetic import Add, Divide, MatMul, Multiply
from igcnn.autograd.reductions import Sum
from igcnn.autograd.shapes import Reshape
from igcnn.layers.add import AddFunction
from igcnn.layers.batch_norm import BatchNormEvaluationFunction, BatchNormTrainingFunction
from igcnn.layers.convolution import ConvolutionFunction
from igcnn.layers.interleaved_group_convolution import InterleavedGroupConvolutionFunction
from igcnn.layers.linear import LinearFunction
from igcnn.layers.permutation import PermutationFunction
from igcnn.layers.pooling import AveragePoolFunction, GlobalAveragePoolFunction, MaxPoolFunction
from igcnn.layers.relu import ReLUFunction
from igcnn.layers.relu6 import ReLU6Function
from igcnn.layers.softmax_cross_entropy import SoftmaxCrossEntropyFunction

C = (2, 4, 5, 3)
STATISTICS = np.linspace(0.5, 1, 4)

# Function, shapes of its inputs, how to call it
OPS = [
    (ConvolutionFunction, [C, (6, 2, 3, 3), (6,)], lambda x, w, b: functional.conv2d(
        x, w, b, stride=2, padding=1, groups=2)),
    (InterleavedGroupConvolutionFunction, [C, (4, 2, 3, 3), (4, 2, 1, 1)],
     functional.interleaved_group_conv2d),
    (PermutationFunction, [C], lambda x: functional.permute_channels(x, 2)),
    (BatchNormTrainingFunction, [C, (4,), (4,)], lambda x, g, b: functional.batch_norm(
        x, g, b, STATISTICS.copy(), STATISTICS.copy(), True)),
    (BatchNormEvaluationFunction, [C, (4,), (4,)], lambda x, g, b: functional.batch_norm(
        x, g, b, STATISTICS, STATISTICS, False)),
    (ReLUFunction, [C], functional.relu),
    (ReLU6Function, [C], functional.relu6),
    (AddFunction, [C, C], functional.add),
    (MaxPoolFunction, [C], lambda x: functional.max_pool2d(x, 2)),
    (AveragePoolFunction, [C], lambda x: functional.avg_pool2d(x, 2)),
    (GlobalAveragePoolFunction, [C], functional.global_avg_pool2d),
    (LinearFunction, [(3, 4), (2, 4), (2,)], functional.linear),
    (SoftmaxCrossEntropyFunction, [(3, 4)], lambda z: functional.cross_entropy(
        z, np.array([0, 3, 1]))),
    (Add, [(2, 3), (3,)], lambda a, b: a + b),
    (Multiply, [(2, 3), (3,)], lambda a, b: a * b),
    (Divide, [(2, 3), (3,)], lambda a, b: a / b),
    (MatMul, [(2, 3), (3, 4)], lambda a, b: a @ b),
    (Sum, [(2, 3)], lambda a: a.sum()),
    (Reshape, [(2, 3)], lambda a: a.reshape(3, 2)),
]  # fmt: skip
CASES = [
    pytest.param(*op, position, id=f"{op[0].__name__}-{position}")
    for op in OPS
    for position in range(len(op[1]))
]


@pytest.mark.parametrize(("function", "shapes", "call", "position"), CASES)
def test_a_wrong_gradient_is_found_at_the_input_where_it_is(
    function, shapes, call, position, monkeypatch
):
    rng = np.random.default_rng(0)
    inputs = [Tensor(rng.standard_normal(s) + 0.1, requires_grad=True) for s in shapes]
    assert gradcheck(call, inputs)
    right = function.backward

    def wrong(self, gy):
        gradients = list(right(self, gy))
        gradients[position] = gradients[position] * 1.001
        return tuple(gradients)

    monkeypatch.setattr(function, "backward", wrong)
    report = gradcheck(call, inputs, raise_exception=False)
    assert not report
    assert report.worst_input == position
