"""Batch norm: what it does, its gradient, and why a check with ones would see nothing."""

import numpy as np

from igcnn import Tensor, gradcheck
from igcnn.functional import batch_norm

rng = np.random.default_rng(0)
x = Tensor(5 + 3 * rng.standard_normal((8, 2, 4, 4)), requires_grad=True)
gamma, beta = Tensor(np.ones(2), requires_grad=True), Tensor(np.zeros(2), requires_grad=True)
mean, var = np.zeros(2), np.ones(2)

y = batch_norm(x, gamma, beta, mean, var, training=True, momentum=0.9, eps=2e-5)
print("before: mean", x.data.mean((0, 2, 3)), "deviation", x.data.std((0, 2, 3)))
print("after:  mean", y.data.mean((0, 2, 3)).round(12), "deviation", y.data.std((0, 2, 3)))
print("running mean, a tenth of the way to the batch's:", mean)

y.sum().backward()
print("\n∂(Σy)/∂x is zero whatever backward does; largest element:", np.abs(x.grad).max())

small = Tensor(x.data[:2, :, :2, :2].copy(), requires_grad=True)
report = gradcheck(
    lambda x, g, b: batch_norm(x, g, b, mean, var, training=True), [small, gamma, beta]
)
print("so the check multiplies by random numbers:", report)
