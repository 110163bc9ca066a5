"""Stochastic gradient descent with Nesterov momentum, in the authors' form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..backend import device_of, is_array, resolve_device, to_device, to_host
from ..errors import (
    AutogradError,
    CheckpointError,
    ConfigError,
    DeviceError,
    DtypeError,
    ShapeError,
)
from ..kernels.sgd_update import sgd_update
from ..layers.loading import load_arrays
from .number import number

Array = np.ndarray


class SGD:
    """Stochastic gradient descent (formula: igcnn.kernels.sgd_update).

    Weight decay acts on every parameter, γ, β and biases included, as in the authors' code,
    which overrides MXNet's exceptions. The gradient is used as it is: with a mean loss it is
    the mean gradient of the batch.

    Args:
        parameters: tensors, or (name, tensor) pairs as of `named_parameters()`.
        lr: learning rate, from 0 up.
        momentum: share of the velocity that a step keeps, from 0 to below 1.
        weight_decay: λ, from 0 up, 0 for none.
        nesterov: look ahead by the new velocity.

    The four constants may be set between steps, and are checked then as well.

    Attributes:
        names: a name for each parameter.
        parameters: the tensors.
        velocity: one array for each parameter, of its shape; zeros at first.

    Raises:
        ConfigError: no parameters, one or a name given twice, or a constant out of range.
    """

    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool

    def __init__(
        self,
        parameters: Iterable[Tensor | tuple[str, Tensor]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        nesterov: bool = True,
    ) -> None:
        self.names, self.parameters = _named(parameters)
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.velocity: list[Array] = [
            to_device(np.zeros(tensor.shape, tensor.dtype), tensor.device)
            for tensor in self.parameters
        ]

    def __setattr__(self, name: str, value: Any) -> None:
        match name:
            case "lr" | "weight_decay":
                value = number("SGD", name, value)
            case "momentum":
                value = number("SGD", name, value, below=1)
            case "nesterov":
                if not isinstance(value, bool | np.bool_):
                    raise ConfigError(f"SGD: nesterov must be True or False, not {value!r}")
                value = bool(value)
        super().__setattr__(name, value)

    def to(self, device: str) -> None:
        """Move the velocity to a device, where the parameters must be as well.

        Raises:
            ConfigError: no device has this name.
            DeviceError: it is not available.
        """
        device = resolve_device(device)
        self.velocity = [to_device(to_host(velocity), device) for velocity in self.velocity]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for tensor in self.parameters:
            tensor.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the constants and, under "velocity", copies in host memory by names."""
        velocity = zip(self.names, self.velocity, strict=True)
        return {
            "lr": self.lr,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "nesterov": self.nesterov,
            "velocity": {name: to_host(array).copy() for name, array in velocity},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what state_dict returned; all or nothing.

        Raises:
            CheckpointError: a key is missing or unknown, or the velocities do not fit the
                parameters (see igcnn.layers.loading.load_arrays).
            ConfigError: a constant is out of range.
        """
        before = self.state_dict()
        if not isinstance(state, Mapping) or set(state) != set(before):
            keys = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state)
            raise CheckpointError(
                f"SGD: a state has the keys {', '.join(before)}, not {keys}; give what "
                "state_dict() returned"
            )
        own = dict(zip(self.names, self.velocity, strict=True))
        advice = "use one of the same network that was saved with its optimizer"
        try:
            for name in before.keys() - {"velocity"}:
                setattr(self, name, state[name])
            load_arrays(own, state["velocity"], "optimizer's velocities", advice)
        except (ConfigError, CheckpointError):
            for name in before.keys() - {"velocity"}:
                setattr(self, name, before[name])
            raise

    def step(self) -> None:
        """Update every parameter in place by its gradient; all or none.

        Raises:
            AutogradError: a parameter has no gradient, or one that is not an array.
            ShapeError, DtypeError, DeviceError: a gradient or velocity is of another shape, type
                or device than its parameter.
        """
        for name, tensor, velocity in zip(self.names, self.parameters, self.velocity, strict=True):
            _check(name, tensor, velocity)
        constants = self.lr, self.momentum, self.weight_decay
        for tensor, velocity in zip(self.parameters, self.velocity, strict=True):
            assert tensor.grad is not None
            sgd_update(tensor.data, tensor.grad, velocity, *constants, self.nesterov)


def _named(parameters: Any) -> tuple[list[str], list[Tensor]]:
    """Return a name for each of the parameters, and the tensors.

    Raises:
        ConfigError: there are none, one or a name is given twice, or they are something else.
    """
    if isinstance(parameters, Mapping | Tensor) or not isinstance(parameters, Iterable):
        raise ConfigError(
            f"SGD takes a list of parameters, not {type(parameters).__name__}; give "
            "network.named_parameters()"
        )
    items = list(parameters)
    unnamed = Counter(x.name for x in items if isinstance(x, Tensor))
    named: dict[str, Tensor] = {}
    for i, item in enumerate(items):
        match item:
            case Tensor():
                # such as the weights of several layers outside a network
                several = unnamed[item.name] > 1 or not item.name
                name, tensor = f"parameter {i}" if several else str(item.name), item
            case (str(name), Tensor() as tensor):
                name = name or f"parameter {i}"
            case _:
                raise ConfigError(
                    f"SGD: parameter {i} is {type(item).__name__}, no tensor and no pair of name "
                    "and tensor; give network.named_parameters()"
                )
        if any(tensor is other for other in named.values()):
            raise ConfigError(f"SGD: {name} is given twice; give each parameter once")
        if name in named:
            raise ConfigError(f"SGD: the name {name!r} is given twice; names must differ")
        named[name] = tensor
    if not named:
        raise ConfigError("SGD: there are no parameters; give network.named_parameters()")
    return list(named), list(named.values())


def _check(name: str, tensor: Tensor, velocity: Array) -> None:
    """Raise an error that names the parameter unless a step can be done on it."""
    w, g = tensor.data, tensor.grad
    if not tensor.requires_grad:
        raise AutogradError(f"SGD: {name} requires no gradient; leave it out of the parameters")
    if g is None:
        raise AutogradError(
            f"SGD: {name} has no gradient; call loss.backward() before step(), and give "
            "only parameters that the loss depends on"
        )
    if not is_array(g):
        raise AutogradError(f"SGD: the gradient of {name} is {type(g).__name__}, not an array")
    for what, array in (("gradient", g), ("velocity", velocity)):
        if array.shape != w.shape:
            raise ShapeError(
                f"SGD: the {what} of {name} has shape {array.shape} instead of {w.shape}"
            )
        if array.dtype != w.dtype:
            raise DtypeError(
                f"SGD: the {what} of {name} is {array.dtype}, but the parameter {w.dtype}; "
                "convert it with astype"
            )
        if device_of(array) != device_of(w):
            raise DeviceError(
                f"SGD: the {what} of {name} is on {device_of(array)}, but the parameter on "
                f"{device_of(w)}; use optimizer.to({device_of(w)!r}), and backward after it"
            )
    if isinstance(w, np.ndarray) and not w.flags.writeable:
        raise AutogradError(f"SGD: {name} is read-only; give the tensor a copy of its array")
