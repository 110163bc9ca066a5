"""What computes loss, gradients and logits: the plain tape, or a plan."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np

from ..autograd import no_grad
from ..backend import single_threaded_blas
from ..errors import ConfigError, PlanError
from ..functional import cross_entropy
from ..layers import Layer
from ..plan import Plan
from .metrics import count_hits

Array = np.ndarray


class Engine(Protocol):
    """Computes a network; `str` says how."""

    def step(self, x: Array, labels: Array) -> tuple[float, int]:
        """Return mean loss and right answers of a batch; parameters then have its gradients."""
        ...

    def refresh(self) -> None:
        """Let the next logits be those of the present parameters and statistics."""
        ...

    def logits(self, x: Array) -> Array:
        """Return (n, K) for images (n, C, H, W), with batch norm by its running statistics."""
        ...

    def close(self) -> None:
        """End what was started for the computation."""
        ...


class TapeEngine:
    """A network on the plain tape, on one core.

    Args:
        network: gives logits for images; its parameters receive the gradients.
    """

    def __init__(self, network: Layer) -> None:
        self.network = network

    def __str__(self) -> str:
        return "tape"

    def step(self, x: Array, labels: Array) -> tuple[float, int]:
        """Return the mean loss of a batch and how many of its images were classified rightly."""
        self.network.zero_grad()
        logits = self.network(x)
        loss = cross_entropy(logits, labels)
        loss.backward()
        return loss.item(), count_hits(logits.data, labels)

    def refresh(self) -> None:
        """Do nothing: the tape always computes with what is there."""

    def logits(self, x: Array) -> Array:
        """Return (n, K); the mode that the network is in stays."""
        training = self.network.training
        self.network.eval()
        try:
            with no_grad(), single_threaded_blas():
                return self.network(x).data
        finally:
            self.network.train(training)

    def close(self) -> None:
        """Do nothing."""


def make_engine(
    network: Layer,
    image_shape: tuple[int, int, int],
    batch_size: int,
    *,
    cores: int | None = None,
    eager: bool = False,
    training: bool = True,
) -> tuple[Engine, str]:
    """Return the engine for a network, and in words what it is, and why if it is the tape.

    Args:
        network: what to compute.
        image_shape: (C, H, W).
        batch_size: images of a step, at most so many for logits.
        cores: processes to use; None for as many as this process may use cores.
        eager: take the tape.
        training: whether steps are wanted.

    Raises:
        ConfigError: cores is below 1.
    """
    if cores is not None and cores < 1:
        raise ConfigError(f"cores must be at least 1, not {cores}")
    if eager:
        return TapeEngine(network), "tape (--eager)"
    try:
        plan = Plan(network, image_shape, batch_size, cores or available_cores(), training)
    except PlanError as error:
        return TapeEngine(network), f"tape (no plan: {error})"
    return plan, str(plan)


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
