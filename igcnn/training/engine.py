"""What computes loss, gradients and logits: the plain tape, or a plan."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from ..autograd import no_grad
from ..backend import single_threaded_blas, to_device
from ..datasets import Loader
from ..errors import ConfigError, PlanError
from ..functional import cross_entropy
from ..layers import Layer
from ..optim import SGD
from ..plan import DevicePlan, Plan
from .metrics import count_hits

Array = np.ndarray


class Engine(Protocol):
    """Computes a network and its updates; `str` says how."""

    def prepare(self, optimizer: SGD, loader: Loader) -> None:
        """Be ready for updates by this optimizer on these batches."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch from `start` on, for update."""
        ...

    def update(self, batch: Any) -> None:
        """Update the parameters by the gradient of a batch, at the optimizer's learning rate."""
        ...

    def collect(self, wait: bool) -> list[tuple[float, int]]:
        """Return mean loss and right answers of each update since the last call.

        A device may keep them back unless it is to wait for them. After a loss that is no finite
        number the parameters are not to be used.
        """
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


class StepEngine:
    """An engine whose `step` leaves gradients in the parameters for the optimizer."""

    _optimizer: SGD
    _loader: Loader

    def __init__(self) -> None:
        self._results: list[tuple[float, int]] = []

    def step(self, x: Array, labels: Array) -> tuple[float, int]:
        """Return mean loss and right answers of a batch; parameters then have its gradients."""
        raise NotImplementedError

    def prepare(self, optimizer: SGD, loader: Loader) -> None:
        """Be ready for updates; moves the velocity to where the parameters are."""
        optimizer.to(optimizer.parameters[0].device)
        self._optimizer = optimizer
        self._loader = loader

    def batches(self, epoch: int, start: int) -> Iterator[tuple[Array, Array]]:
        """Yield (x, labels)."""
        return self._loader.epoch(epoch, start)

    def update(self, batch: tuple[Array, Array]) -> None:
        """Do one step of the optimizer, unless the loss is no finite number."""
        loss, correct = self.step(*batch)
        self._results.append((loss, correct))
        if math.isfinite(loss):
            self._optimizer.step()

    def collect(self, wait: bool) -> list[tuple[float, int]]:
        """Return what is new; nothing is kept back."""
        results, self._results = self._results, []
        return results


class TapeEngine(StepEngine):
    """A network on the plain tape, on one core or on the device of its parameters.

    Args:
        network: gives logits for images; its parameters receive the gradients.
    """

    def __init__(self, network: Layer) -> None:
        super().__init__()
        self.network = network

    def __str__(self) -> str:
        return "tape"

    def step(self, x: Array, labels: Array) -> tuple[float, int]:
        """Return the mean loss of a batch and how many of its images were classified rightly."""
        self.network.zero_grad()
        logits = self.network(to_device(x, self._device()))
        loss = cross_entropy(logits, labels)
        loss.backward()
        return loss.item(), count_hits(logits.numpy(), labels)

    def refresh(self) -> None:
        """Do nothing: the tape always computes with what is there."""

    def logits(self, x: Array) -> Array:
        """Return (n, K); the mode that the network is in stays."""
        training = self.network.training
        self.network.eval()
        try:
            with no_grad(), single_threaded_blas():
                return self.network(to_device(x, self._device())).numpy()
        finally:
            self.network.train(training)

    def close(self) -> None:
        """Do nothing."""

    def _device(self) -> str:
        return next((tensor.device for tensor in self.network.parameters()), "cpu")


class PlanEngine(StepEngine):
    """A network by a plan on the CPU.

    Args:
        plan: computes it, and is closed with this.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def __str__(self) -> str:
        return str(self.plan)

    def step(self, x: Array, labels: Array) -> tuple[float, int]:
        """Return what Plan.step returns."""
        return self.plan.step(x, labels)

    def refresh(self) -> None:
        """Let the plan read parameters and statistics again."""
        self.plan.refresh()

    def logits(self, x: Array) -> Array:
        """Return what Plan.logits returns."""
        return self.plan.logits(x)

    def close(self) -> None:
        """End the plan's processes."""
        self.plan.close()


def make_engine(
    network: Layer,
    image_shape: tuple[int, int, int],
    batch_size: int,
    *,
    device: str = "cpu",
    cores: int | None = None,
    eager: bool = False,
    precision: str = "fp32",
    training: bool = True,
) -> tuple[Engine, str]:
    """Return the engine for a network, and in words what it is, and why if it is the tape.

    Args:
        network: what to compute.
        image_shape: (C, H, W).
        batch_size: images of a step, at most so many for logits.
        device: what computes, "cpu", "emu" or "cuda:i"; the network is moved there.
        cores: processes to use; None for as many as this process may use cores.
        eager: take the tape.
        precision: in which a device's plan keeps activations, "fp32" or "bf16".
        training: whether steps are wanted.

    Raises:
        ConfigError: cores is below 1, or the precision is not for this engine.
    """
    if cores is not None and cores < 1:
        raise ConfigError(f"cores must be at least 1, not {cores}")
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"precision must be fp32 or bf16, not {precision}")
    if precision == "bf16" and (device == "cpu" or eager):
        raise ConfigError("precision bf16 needs a plan on a GPU; use --device cuda, not --eager")
    network.to(device)
    if eager:
        return TapeEngine(network), f"tape{_on(device)} (--eager)"
    try:
        if device != "cpu":
            device_plan = DevicePlan(network, image_shape, batch_size, device, precision)
            return device_plan, str(device_plan)
        plan = Plan(network, image_shape, batch_size, cores or available_cores(), training)
    except PlanError as error:
        return TapeEngine(network), f"tape{_on(device)} (no plan: {error})"
    return PlanEngine(plan), str(plan)


def _on(device: str) -> str:
    return "" if device == "cpu" else f" on {device}"


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
