"""Stochastic gradient descent with Nesterov momentum, in the authors' form."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..autograd import Tensor
from ..backend import to_device, to_host
from ..errors import AutogradError, ConfigError
from ..kernels.sgd_update import sgd_update

Array = np.ndarray


class SGD:
    """Stochastic gradient descent (formula: igcnn.kernels.sgd_update).

    Weight decay acts on every parameter, γ, β and biases included, as in the authors' code,
    which overrides MXNet's exceptions. The gradient is used as it is: with a mean loss it is
    the mean gradient of the batch.

    Args:
        parameters: tensors, or (name, tensor) pairs as of `named_parameters()`.
        lr: learning rate; may be set between steps.
        momentum: share of the velocity that a step keeps, from 0 to below 1.
        weight_decay: λ, 0 for none.
        nesterov: look ahead by the new velocity.

    Attributes:
        names: a name for each parameter.
        parameters: the tensors.
        velocity: one array for each parameter, of its shape; zeros at first.

    Raises:
        ConfigError: no parameters, one given twice, or a constant out of range.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor | tuple[str, Tensor]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        nesterov: bool = True,
    ) -> None:
        self.names: list[str] = []
        self.parameters: list[Tensor] = []
        for i, item in enumerate(parameters):
            name, tensor = (item.name, item) if isinstance(item, Tensor) else item
            self.names.append(name or f"parameter {i}")
            self.parameters.append(tensor)
        if not self.parameters:
            raise ConfigError("SGD: there are no parameters; give network.named_parameters()")
        if len({id(tensor) for tensor in self.parameters}) != len(self.parameters):
            raise ConfigError("SGD: a parameter is given twice; give each once")
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"SGD: {name} must be a number from 0 up, not {value}")
        if momentum >= 1:
            raise ConfigError(f"SGD: momentum must be below 1, not {momentum}")
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.velocity: list[Array] = [
            to_device(np.zeros(tensor.shape, tensor.dtype), tensor.device)
            for tensor in self.parameters
        ]

    def to(self, device: str) -> None:
        """Move the velocity to a device, where the parameters must be as well."""
        self.velocity = [to_device(to_host(velocity), device) for velocity in self.velocity]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for tensor in self.parameters:
            tensor.zero_grad()

    def step(self) -> None:
        """Update every parameter in place by its gradient.

        Raises:
            AutogradError: a parameter has no gradient; then none is changed.
        """
        for name, tensor in zip(self.names, self.parameters, strict=True):
            if tensor.grad is None:
                raise AutogradError(
                    f"SGD: {name} has no gradient; call loss.backward() before step(), and give "
                    "only parameters that the loss depends on"
                )
        # plain floats: a NumPy float64 would turn the arithmetic of float32 into float64
        constants = float(self.lr), float(self.momentum), float(self.weight_decay)
        for tensor, velocity in zip(self.parameters, self.velocity, strict=True):
            assert tensor.grad is not None
            sgd_update(tensor.data, tensor.grad, velocity, *constants, self.nesterov)
