"""Layer: parameters, buffers and children under the authors' names; Chain: one after another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, Self, TypeVar

import numpy as np

from ..autograd import Tensor
from ..backend import is_array, resolve_device, to_device, to_host
from ..errors import ConfigError
from .loading import load_arrays

Array = np.ndarray
Item = TypeVar("Item")
ForwardHook = Callable[["Layer", str, Tensor, Tensor], None]

CONTAINERS = dict, list, tuple, deque  # attributes that are searched for layers

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

    A subclass assigns parameters and children as attributes and defines `forward`:

        class Scaled(Layer):
            def __init__(self, rng):
                self.conv = Convolution(8, 8, 3, padding=1, rng=rng)
                self.scale = Tensor(np.ones((1, 8, 1, 1), np.float32), requires_grad=True)

            def forward(self, x):
                return self.conv(x) * self.scale

    A layer is a child, a tensor that requires a gradient and that no operation made is a
    parameter, under the attribute's name; those in lists, tuples and dicts likewise, under
    attribute_0, attribute_key. Arrays that are saved but not trained are given by `add_buffer`.
    Full names are joined by "_" and belong to one thing each: what shares one is refused by a
    ConfigError. What is used in several places has the first of its names.

    Attributes:
        training: whether batch norm uses the statistics of the batch; see train and eval.
        name: the layer's full name within its network, "" outside one.
        kind: "conv", "bn" or "fc" for layers whose parameters are counted as such, else "".
    """

    kind = ""
    training = True
    name = ""
    _children: dict[str, Layer]  # of add_child
    _buffers: list[str]  # names of attributes
    _trained: set[str]  # names of parameters, also of those that were frozen later

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Return a layer that takes attributes, whether or not its class calls __init__."""
        layer = super().__new__(cls)
        vars(layer).update(_children={}, _buffers=[], _trained=set())
        return layer

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._buffers and not is_array(value):
            raise ConfigError(
                f"{name} is a buffer of {type(self).__name__} and takes an array, not "
                f"{type(value).__name__}; delete it first to use the name for something else"
            )
        if callable(getattr(Layer, name, None)) and not callable(value):
            raise ConfigError(f"{name} is a method of every layer; choose another name")
        if isinstance(value, set) and any(isinstance(x, Layer | Tensor) for x in value):
            raise ConfigError(f"{name}: a set has no order for names; use a list or a dict")
        before = vars(self).get(name, self)
        self._trained.discard(name)
        super().__setattr__(name, value)
        if isinstance(value, MEMBERS):
            try:
                self._check()
            except ConfigError:
                if before is self:
                    super().__delattr__(name)
                else:
                    super().__setattr__(name, before)
                raise

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name in self._buffers:
            self._buffers.remove(name)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output for x."""
        raise NotImplementedError

    def __call__(self, x: Tensor | Array) -> Tensor:
        """Return forward(x), and show it to the hooks; an array becomes a tensor."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        y = self.forward(x)
        hooks = getattr(_state, "hooks", ())
        if hooks and not self.children():
            for hook in hooks:
                hook(self, self.name, x, y)
        return y

    def macs(self, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> int:
        """Return the multiply-adds of one call: convolutions and fully connected layers only."""
        return 0

    def add_parameter(self, name: str, array: Array) -> Tensor:
        """Assign `array` as a parameter to the attribute `name` and return its tensor.

        Raises:
            ConfigError: the name belongs to something else.
        """
        self._check_free(name)
        tensor = Tensor(array, requires_grad=True, name=name)
        setattr(self, name, tensor)
        return tensor

    def add_buffer(self, name: str, array: Array) -> Array:
        """Assign `array`, which is saved but not trained, to the attribute `name`; return it.

        Raises:
            ConfigError: the name belongs to something else, or this is not an array.
        """
        self._check_free(name)
        self._buffers.append(name)
        try:
            setattr(self, name, array)
            self._check()
        except ConfigError:
            self._buffers.remove(name)
            vars(self).pop(name, None)
            raise
        return array

    def add_child(self, name: str, layer: Layer) -> Layer:
        """Register `layer` under any `name` ("" adds nothing to the names below); return it.

        Raises:
            ConfigError: the name belongs to something else, or this is not a layer.
        """
        self._add_children({name: layer})
        return layer

    def _add_children(self, layers: Mapping[str, Layer]) -> None:
        for name, layer in layers.items():
            if not isinstance(layer, Layer):
                made = f"; call it: {layer.__name__}(…)" if isinstance(layer, type) else ""
                raise ConfigError(
                    f"{type(self).__name__}: {name!r} is {type(layer).__name__}, not a layer{made}"
                )
            if self._children.get(name, layer) is not layer:
                raise ConfigError(f"{type(self).__name__}: there already is a layer {name!r}")
        before = dict(self._children)
        self._children.update(layers)
        try:
            self._check()
        except ConfigError:
            vars(self)["_children"] = before
            raise

    def children(self) -> dict[str, Layer]:
        """Return the layers directly below this one by their names."""
        return {name: x for name, x in self._members() if isinstance(x, Layer)}

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield (full name, layer) of this layer and all below, parents first."""
        return _once((name, layer) for name, layer, _ in self._walk(prefix))

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (full name, tensor) of every parameter, in the order of assignment."""
        return _once(self._all_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Yield (full name, array) of every buffer: the running statistics of batch norm."""
        return _once(self._all_buffers())

    def buffers(self) -> dict[str, Array]:
        """Return the buffers of this layer alone by the names of their attributes."""
        return {name: vars(self)[name] for name in self._buffers}

    def parameters(self) -> list[Tensor]:
        """Return the parameters in the order of named_parameters."""
        return [tensor for _, tensor in self.named_parameters()]

    def _members(self) -> Iterator[tuple[str, Layer | Tensor]]:
        """Yield name and value of the layers and tensors among the attributes."""
        for name, value in vars(self).items():
            if isinstance(value, MEMBERS):
                yield from _found("" if name == "_children" else name, value)

    def _walk(
        self, prefix: str = "", above: tuple[Layer, ...] = ()
    ) -> Iterator[tuple[str, Layer, list[tuple[str, Layer | Tensor]]]]:
        """Yield full name, layer and its members, what is used twice under each of its names."""
        if self in above:
            raise ConfigError(
                f"{type(self).__name__} contains itself, as {prefix!r}; let a layer refer to one "
                "above it by weakref.ref"
            )
        members = list(self._members())
        yield prefix, self, members
        for name, child in members:
            if isinstance(child, Layer):
                yield from child._walk(_join(prefix, name), (*above, self))

    def _all_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (full name, tensor), what is used twice under each of its names."""
        for prefix, layer, members in self._walk():
            for name, x in members:
                if isinstance(x, Tensor) and x.record is None:
                    if x.requires_grad:
                        layer._trained.add(name)
                    if name in layer._trained:
                        yield _join(prefix, name), x

    def _all_buffers(self) -> Iterator[tuple[str, Array]]:
        """Yield (full name, array), what is used twice under each of its names."""
        for prefix, layer, _ in self._walk():
            for name, array in layer.buffers().items():
                yield _join(prefix, name), array

    def _check(self) -> None:
        """Raise ConfigError unless every full name belongs to one layer, parameter or buffer."""
        owners: dict[str, Layer] = {}
        for name, layer, _ in self._walk():
            other = owners.get(name, layer)
            # a child called "" has its parent's name
            if other is not layer and layer is not other.children().get(""):
                _refuse_name("layers", name)
            owners[name] = layer
        for name, tensor in self._all_parameters():
            tensor.name = tensor.name or name
        named: dict[str, Any] = {}
        for name, x in (*self._all_parameters(), *self._all_buffers()):
            if named.setdefault(name, x) is not x:
                _refuse_name("parameters or buffers", name)
            if "/" in name:
                raise ConfigError(f"{name!r}: a name with a slash cannot be saved; leave it out")

    def _check_free(self, name: str) -> None:
        if getattr(self, name, None) is not None:
            raise ConfigError(
                f"{type(self).__name__} already has an attribute {name!r}; choose another name"
            )

    def to(self, device: str) -> Layer:
        """Move parameters and buffers to a device, forget the gradients, and return this layer.

        Args:
            device: see igcnn.backend.resolve_device.

        Raises:
            ConfigError: no device has this name; nothing was moved.
            DeviceError: it is not available or has no room; nothing was moved.
        """
        device = resolve_device(device)
        layers = [layer for _, layer in self.named_layers()]
        tensors = self.parameters()
        arrays = [*(x.data for x in tensors), *(x for k in layers for x in k.buffers().values())]
        moved = {id(array): to_device(to_host(array), device) for array in arrays}
        for tensor in tensors:
            tensor.data = moved[id(tensor.data)]
            tensor.grad = None
        for layer in layers:
            for name, array in layer.buffers().items():
                setattr(layer, name, moved[id(array)])
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
        self._check()
        state = {name: tensor.numpy().copy() for name, tensor in self.named_parameters()}
        state |= {name: to_host(array).copy() for name, array in self.named_buffers()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy `state` into the parameters and buffers; all or nothing.

        Args:
            state: full name → array, tensor or list of numbers; see loading.load_arrays. What
                is used in several places may be given under any of its names.

        Raises:
            CheckpointError: a name is missing or unknown, or a value is not an array of numbers,
                of another shape, or beyond the range of the type.
        """
        self._check()
        own = {name: tensor.data for name, tensor in self._all_parameters()}
        own |= dict(self._all_buffers())
        load_arrays(own, state, "network", "build it with the settings it was saved with")

    def __repr__(self) -> str:
        children = self.children()
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"  {name}: {child!r}".replace("\n", "\n  ") for name, child in children.items()]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])

    def extra_repr(self) -> str:
        """Return what repr shows between the brackets."""
        return ""


class Chain(Layer):
    """Layers executed one after another.

    Args:
        layers: name → layer, in the order of execution.

    Raises:
        ConfigError: this is not a dict of layers, or two have one full name.
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        if not isinstance(layers, Mapping):
            raise ConfigError(
                f"{type(self).__name__} takes a dict of name → layer, not {type(layers).__name__}"
            )
        self._add_children(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output."""
        for layer in self._children.values():
            x = layer(x)
        return x


MEMBERS = Layer, Tensor, *CONTAINERS


def _found(name: str, value: Any) -> Iterator[tuple[str, Layer | Tensor]]:
    """Yield name and value of the layers and tensors in an attribute."""
    if isinstance(value, Layer | Tensor):
        yield name, value
    elif isinstance(value, CONTAINERS):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(item, MEMBERS):
                yield from _found(_join(name, str(key)), item)


def _once(named: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, Item]]:
    """Yield each item under the first of its names."""
    seen: set[int] = set()
    for name, item in named:
        if id(item) not in seen:
            seen.add(id(item))
            yield name, item


def _join(prefix: str, name: str) -> str:
    return f"{prefix}_{name}" if prefix and name else prefix or name


def _refuse_name(what: str, name: str) -> NoReturn:
    raise ConfigError(
        f"two {what} have the full name {name!r}: names are joined by _; give one of them, or the "
        "layer that it is in, another name"
    )
