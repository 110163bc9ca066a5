"""Contexts in which a network trains or evaluates, and is then as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .layer import Layer


@contextmanager
def in_mode(network: Layer, training: bool) -> Iterator[None]:
    """Context in which a network is in a mode; then each of its layers is in its own again.

    Args:
        network: and all layers in it.
        training: which mode: batch norm by the batch, or by running statistics.
    """
    before = [(layer, layer.training) for _, layer in network.named_layers()]
    network.train(training)
    try:
        yield
    finally:
        for layer, mode in before:
            layer.training = mode


@contextmanager
def undisturbed(network: Layer, training: bool) -> Iterator[None]:
    """Context in which a network is in a mode; then modes, buffers and gradients are as before.

    Args:
        network: and all layers in it.
        training: which mode: batch norm by the batch, or by running statistics.
    """
    buffers = [
        (layer, name, array, array.copy())
        for _, layer in network.named_layers()
        for name, array in layer.buffers().items()
    ]
    gradients = [(tensor, tensor.grad) for tensor in network.parameters()]
    network.zero_grad()
    try:
        with in_mode(network, training):
            yield
    finally:
        for layer, name, array, content in buffers:
            array[...] = content
            setattr(layer, name, array)
        for tensor, gradient in gradients:
            tensor.grad = gradient
