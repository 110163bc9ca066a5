"""Layer: parameters, buffers and children under the authors' names; Chain: one after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from ..autograd import Tensor
from ..backend import copy_to, to_device, to_host
from ..errors import CheckpointError

Array = np.ndarray
ForwardHook = Callable[["Layer", str, Tensor, Tensor], None]

_state = threading.local()


@contextmanager
def forward_hook(callback: ForwardHook) -> Iterator[None]:
    """Call `callback(layer, name, x, y)` after every layer without children, in this thread."""
    before: tuple[ForwardHook, ...] = getattr(_state, "hooks", ())
    _state.hooks = (*before, callback)
    try:
        yield
    finally:
        _state.hooks = before


class Layer:
    """Base of all layers: a function of one tensor, with parameters.

    A subclass gives itself parameters, buffers and children and defines `forward`.

    Attributes:
        training: whether batch norm uses the statistics of the batch; see train and eval.
        name: the layer's full name within its network, "" outside one.
        kind: "conv", "bn" or "fc" for layers whose parameters are counted as such, else "".
    """

    kind = ""

    def __init__(self) -> None:
        self.training = True
        self.name = ""
        self._parameters: dict[str, Tensor] = {}
        self._buffers: dict[str, Array] = {}
        self._children: dict[str, Layer] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for x."""
        raise NotImplementedError

    def __call__(self, x: Tensor | Array) -> Tensor:
        """Return forward(x), and show it to the hooks; an array becomes a tensor."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        y = self.forward(x)
        if not self._children:
            for hook in getattr(_state, "hooks", ()):
                hook(self, self.name, x, y)
        return y

    def macs(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Return the multiply-adds of one call: convolutions and fully connected layers only."""
        return 0

    def add_parameter(self, name: str, array: Array) -> Tensor:
        """Register `array` as a parameter and return its tensor."""
        tensor = Tensor(array, requires_grad=True, name=name)
        self._parameters[name] = tensor
        return tensor

    def add_buffer(self, name: str, array: Array) -> Array:
        """Register `array` as part of the state that is not trained, and return it."""
        self._buffers[name] = array
        return array

    def add_child(self, name: str, layer: Layer) -> Layer:
        """Register `layer` under `name` ("" adds nothing to the names below) and return it."""
        self._children[name] = layer
        return layer

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield (full name, layer) of this layer and all below, parents first."""
        yield prefix, self
        for name, child in self._children.items():
            yield from child.named_layers(_join(prefix, name))

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (full name, tensor) of every parameter, in the order of computation."""
        for prefix, layer in self.named_layers():
            for name, tensor in layer._parameters.items():
                yield _join(prefix, name), tensor

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Yield (full name, array) of every buffer: the running statistics of batch norm."""
        for prefix, layer in self.named_layers():
            for name, array in layer._buffers.items():
                yield _join(prefix, name), array

    def parameters(self) -> list[Tensor]:
        """Return the parameters in the order of named_parameters."""
        return [tensor for _, tensor in self.named_parameters()]

    def to(self, device: str) -> Layer:
        """Move parameters and buffers to a device, forget the gradients, and return this layer.

        Args:
            device: "cpu", "emu" or "cuda:i".
        """
        for tensor in self.parameters():
            tensor.data = to_device(to_host(tensor.data), device)
            tensor.grad = None
        for _, layer in self.named_layers():
            for name, array in layer._buffers.items():
                layer._buffers[name] = to_device(to_host(array), device)
                setattr(layer, name, layer._buffers[name])
        return self

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for tensor in self.parameters():
            tensor.zero_grad()

    def train(self, mode: bool = True) -> Layer:
        """Switch this layer and all below to training, and return it."""
        for _, layer in self.named_layers():
            layer.training = mode
        return self

    def eval(self) -> Layer:
        """Switch this layer and all below to evaluation, and return it."""
        return self.train(False)

    def state_dict(self) -> dict[str, Array]:
        """Return copies in host memory of all parameters, then all buffers, by full names."""
        state = {name: tensor.numpy().copy() for name, tensor in self.named_parameters()}
        state |= {name: to_host(array).copy() for name, array in self.named_buffers()}
        return state

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy `state` into the parameters and buffers; all or nothing.

        Raises:
            CheckpointError: a name is missing or unknown, or a shape differs.
        """
        own = {name: tensor.data for name, tensor in self.named_parameters()}
        own |= dict(self.named_buffers())
        missing = [name for name in own if name not in state]
        unknown = [name for name in state if name not in own]
        if missing or unknown:
            raise CheckpointError(
                f"the state does not match the network: {_some('missing', missing)}"
                f"{'; ' if missing and unknown else ''}{_some('not in the network', unknown)}; "
                "build the network with the settings it was saved with"
            )
        for name, array in own.items():
            if array.shape != np.shape(state[name]):
                raise CheckpointError(
                    f"{name} has shape {np.shape(state[name])} in the state but {array.shape} in "
                    "the network; build the network with the settings it was saved with"
                )
        for name, array in own.items():
            copy_to(array, state[name])

    def __repr__(self) -> str:
        if not self._children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [
            f"  {name}: {child!r}".replace("\n", "\n  ") for name, child in self._children.items()
        ]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])

    def extra_repr(self) -> str:
        """Return what repr shows between the brackets."""
        return ""


@contextmanager
def undisturbed(network: Layer, training: bool) -> Iterator[None]:
    """Context in which a network is in a mode; then mode, buffers and gradients are as before."""
    before = network.training
    buffers = [(array, array.copy()) for _, array in network.named_buffers()]
    gradients = [(tensor, tensor.grad) for tensor in network.parameters()]
    network.train(training)
    try:
        yield
    finally:
        network.train(before)
        for array, content in buffers:
            array[...] = content
        for tensor, gradient in gradients:
            tensor.grad = gradient


class Chain(Layer):
    """Layers executed one after another.

    Args:
        layers: name → layer, in the order of execution.
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_child(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output."""
        for layer in self._children.values():
            x = layer(x)
        return x


def _join(prefix: str, name: str) -> str:
    return f"{prefix}_{name}" if prefix and name else prefix or name


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what}: {', '.join(names[:3])}{more}"
