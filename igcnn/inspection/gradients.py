"""Gradients of a network's layers, analytic against numeric, on what the layers really see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from ..autograd import GradcheckReport, Tensor, error_curve, gradcheck, no_grad
from ..backend import to_device
from ..functional import cross_entropy
from ..layers import Layer, forward_hook, undisturbed

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LayerGradients:
    """The check of one layer.

    Attributes:
        name: full name within the network; "network" for all of it.
        type: name of the layer's class.
        tensors: names of what the gradient was taken by: x and the parameters.
        report: the result.
        steps: of the differences in `errors`.
        errors: at the worst element, for each step; see igcnn.autograd.error_curve.
    """

    name: str
    type: str
    tensors: tuple[str, ...]
    report: GradcheckReport
    steps: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the values for JSON."""
        values = asdict(self.report)
        values["worst_tensor"] = self.tensors[values.pop("worst_input")]
        curve = {"steps": list(self.steps), "errors": list(self.errors)} if self.steps else {}
        return {"layer": self.name, "type": self.type, **values, **curve}


def check_gradients(
    network: Layer,
    image_shape: tuple[int, int, int],
    *,
    images: int = 2,
    elements: int | None = 40,
    tolerance: float = 1e-6,
    seed: int = 0,
    progress: Progress | None = None,
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
        tolerance: largest error, relative to the gradient; see igcnn.gradcheck.
        seed: of images, cotangents and the choice of elements.
        progress: called with the layer's name and the numbers of elements done and of all.

    Raises:
        DtypeError: the network is not of float64.
    """
    rng = np.random.default_rng(seed)
    device = network.parameters()[0].device
    x = to_device(rng.standard_normal((images, *image_shape)), device)
    labels = rng.integers(0, 1 << 30, images)

    def loss(*_: Tensor) -> Tensor:
        logits = network(x)
        return cross_entropy(logits, labels % logits.shape[1])

    settings: dict[str, Any] = {"tolerance": tolerance, "seed": seed}
    result = check_layers(network, x, lambda _: elements, progress=progress, **settings)
    with undisturbed(network, training=True):
        report = gradcheck(
            loss,
            network.parameters(),
            elements=None if elements is None else 1,
            raise_exception=False,
            progress=partial(progress, "network") if progress else None,
            **settings,
        )
    names = tuple(name for name, _ in network.named_parameters())
    return [*result, LayerGradients("network", type(network).__name__, names, report)]


def check_layers(
    network: Layer,
    x: np.ndarray,
    elements: Callable[[Layer], int | None],
    *,
    steps: Sequence[float] = (),
    tolerance: float = 1e-6,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[LayerGradients]:
    """Check every layer by itself, in training mode, at the input that a batch gives it.

    Args:
        network: of float64, on any device.
        x: the batch, (N, 3, H, W).
        elements: how many of each tensor to check in a layer, chosen at random; None for all.
        steps: to try at the worst element of each layer; none for no curve.
        tolerance: see check_gradients.
        seed: of cotangents and the choice of elements.
        progress: see check_gradients.

    Raises:
        DtypeError: the network is not of float64.
    """
    seen: list[tuple[str, Layer, np.ndarray]] = []

    def record(layer: Layer, name: str, x: Tensor, y: Tensor) -> None:
        seen.append((name, layer, x.data.copy()))

    result = []
    with undisturbed(network, training=True):
        with no_grad(), forward_hook(record):
            network(x)
        for name, layer, own in seen:
            tensors = [Tensor(own, requires_grad=True), *layer.parameters()]
            names = ("x", *(parameter for parameter, _ in layer.named_parameters()))

            def function(x: Tensor, *_: Tensor, layer: Layer = layer) -> Tensor:
                return layer(x)

            report = gradcheck(
                function,
                tensors,
                elements=elements(layer),
                tolerance=tolerance,
                seed=seed,
                raise_exception=False,
                progress=partial(progress, name) if progress else None,
            )
            errors = error_curve(function, tensors, report, steps, seed)
            result.append(
                LayerGradients(
                    name, type(layer).__name__, names, report, tuple(steps), tuple(errors)
                )
            )
    return result
