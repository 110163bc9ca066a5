"""Gradients of a network's layers, analytic against numeric, on what the layers really see."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..autograd import GradcheckReport, Tensor, gradcheck, no_grad
from ..backend import to_device
from ..functional import cross_entropy
from ..layers import Layer, forward_hook, undisturbed


@dataclass(frozen=True)
class LayerGradients:
    """The check of one layer.

    Attributes:
        name: full name within the network; "network" for all of it.
        type: name of the layer's class.
        tensors: names of what the gradient was taken by: x and the parameters.
        report: the result.
    """

    name: str
    type: str
    tensors: tuple[str, ...]
    report: GradcheckReport

    def to_json(self) -> dict[str, Any]:
        """Return the values for JSON."""
        values = asdict(self.report)
        values["worst_tensor"] = self.tensors[values.pop("worst_input")]
        return {"layer": self.name, "type": self.type, **values}


def check_gradients(
    network: Layer,
    image_shape: tuple[int, int, int],
    *,
    images: int = 2,
    elements: int | None = 40,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> list[LayerGradients]:
    """Check every layer of a network in training mode, and then the loss of the whole.

    Each layer is checked by itself at the input that a batch of random images gives it; the whole
    network by the gradient of its loss with respect to every parameter. The network is left as
    it was.

    Args:
        network: of float64, on any device.
        image_shape: (3, H, W).
        images: of the batch.
        elements: of each tensor to check, chosen at random; None for all.
        tolerance: largest error, |analytic − numeric| / max(1, |analytic|, |numeric|).
        seed: of images, cotangents and the choice of elements.

    Raises:
        DtypeError: the network is not of float64.
    """
    rng = np.random.default_rng(seed)
    device = network.parameters()[0].device
    x = to_device(rng.standard_normal((images, *image_shape)), device)
    seen: list[tuple[str, Layer, np.ndarray]] = []

    def record(layer: Layer, name: str, x: Tensor, y: Tensor) -> None:
        seen.append((name, layer, x.data.copy()))

    with undisturbed(network, training=True):
        with no_grad(), forward_hook(record):
            logits = network(x)
        result = []
        for name, layer, own in seen:
            tensors = [Tensor(own, requires_grad=True), *layer.parameters()]
            names = ("x", *(parameter for parameter, _ in layer.named_parameters()))
            report = gradcheck(
                lambda x, *_, layer=layer: layer(x),
                tensors,
                elements=elements,
                tolerance=tolerance,
                seed=seed,
                raise_exception=False,
            )
            result.append(LayerGradients(name, type(layer).__name__, names, report))
        labels = rng.integers(0, logits.shape[1], images)
        report = gradcheck(
            lambda *_: cross_entropy(network(x), labels),
            network.parameters(),
            elements=None if elements is None else 1,
            tolerance=tolerance,
            seed=seed,
            raise_exception=False,
        )
        names = tuple(name for name, _ in network.named_parameters())
        result.append(LayerGradients("network", type(network).__name__, names, report))
        return result
