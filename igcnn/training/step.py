"""One training step: the place where faster ways of computing the gradients plug in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..functional import cross_entropy
from ..layers import Layer
from .metrics import count_hits

Array = np.ndarray

# (images (B, 3, H, W), labels (B,)) → (mean loss, correct answers); afterwards `grad` of every
# parameter holds the gradient of the mean loss
GradientStep = Callable[[Array, Array], tuple[float, int]]


class TapeStep:
    """Forward and backward pass of a network on the tape.

    Args:
        network: gives logits for images; its parameters receive the gradients.
    """

    def __init__(self, network: Layer) -> None:
        self.network = network

    def __call__(self, x: Array, labels: Array) -> tuple[float, int]:
        """Return the mean loss of a batch and how many of its images were classified rightly."""
        self.network.zero_grad()
        logits = self.network(x)
        loss = cross_entropy(logits, labels)
        loss.backward()
        return loss.item(), count_hits(logits.data, labels)
