"""A differentiable operation of your own, and how to know that its backward is right."""

import numpy as np

from igcnn import Tensor, gradcheck
from igcnn.autograd import Function


class Square(Function):
    """y = x²."""

    name = "square"

    def __init__(self, factor=2):
        self.factor = factor

    def forward(self, x):
        self.save(x)
        return x * x

    def backward(self, gy):
        (x,) = self.saved()
        return (self.factor * x * gy,)


x = Tensor(np.random.default_rng(0).standard_normal((2, 3)), requires_grad=True)

print("d(x²)/dx = 2x:", gradcheck(lambda x: Square()(x), x))
wrong = gradcheck(lambda x: Square(factor=1.999)(x), x, raise_exception=False)
print("d(x²)/dx = 1.999x:", wrong)
assert not wrong
