"""What computes loss, gradients and logits: the plain tape, or a plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from ..autograd import Tape, Tensor, no_grad
from ..backend import device_of, on_device, single_threaded_blas, to_device
from ..datasets import Loader
from ..distributed import Communicator
from ..distributed.reducer import CompletionHook, Reducer
from ..errors import ConfigError, PlanError, RankError
from ..functional import cross_entropy
from ..layers import Layer, in_mode
from ..optim import SGD
from ..plan import Plan
from .cores import available_cores
from .metrics import count_hits

Array = np.ndarray

PRECISIONS = ("fp32", "fp64", "bf16")


class Engine(Protocol):
    """Computes a network and its updates; `str` says how."""

    def prepare(self, optimizer: SGD, loader: Loader) -> None:
        """Be ready for updates by this optimizer on these batches.

        Parameters that the optimizer does not have are frozen.
        """
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch from `start` on, for update."""
        ...

    def update(self, batch: Any) -> None:
        """Update the parameters by the gradient of a batch, at the optimizer's learning rate."""
        ...

    def collect(self, wait: bool) -> list[tuple[float, int]]:
        """Return mean loss and right answers of each update since the last call.

        A device may keep them back unless it is to wait for them. After a loss that is NaN or
        infinite, the parameters are not to be used.
        """
        ...

    def state_arrays(self) -> list[Array]:
        """Return the arrays that hold all parameters and running statistics, on their device."""
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
    """A network on the plain tape, on one core or on the device of its parameters.

    Its `step` leaves gradients in the parameters for the optimizer.

    Args:
        network: gives logits for images.
        communicator: connects the ranks that share each batch; None for one process.
        label_smoothing: ε of the loss in training.
    """

    _optimizer: SGD
    _loader: Loader
    _reducer: Reducer | None = None

    def __init__(
        self,
        network: Layer,
        communicator: Communicator | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.network = network
        self.label_smoothing = label_smoothing
        self.communicator = communicator or Communicator()
        self._results: list[tuple[float, int]] = []

    def __str__(self) -> str:
        return "tape"

    def prepare(self, optimizer: SGD, loader: Loader) -> None:
        """Be ready for updates; moves the velocity to where the parameters are."""
        optimizer.to(optimizer.parameters[0].device)
        self._optimizer = optimizer
        self._loader = loader
        if self.communicator.size > 1:
            share = loader.local_batch_size / loader.batch_size
            buffers = [array for _, array in self.network.named_buffers()]
            self._reducer = Reducer(self.communicator, optimizer.parameters, buffers, share)

    def batches(self, epoch: int, start: int) -> Iterator[tuple[Array, Array]]:
        """Yield (x, labels)."""
        return self._loader.epoch(epoch, start)

    def update(self, batch: tuple[Array, Array]) -> None:
        """Do one step of the optimizer, unless the loss is NaN or infinite."""
        with on_device(self._optimizer.parameters[0].device):
            loss, correct = self._step_together(*batch) if self._reducer else self.step(*batch)
            self._results.append((loss, correct))
            if math.isfinite(loss):
                self._optimizer.step()

    def _step_together(self, x: Array, labels: Array) -> tuple[float, int]:
        reducer = self._reducer
        assert reducer is not None
        reducer.begin()
        try:
            return reducer.finish(*self.step(x, labels, reducer.ready))
        except RankError:
            reducer.restore()
            raise

    def collect(self, wait: bool) -> list[tuple[float, int]]:
        """Return what is new; nothing is kept back."""
        results, self._results = self._results, []
        return results

    def step(
        self, x: Array, labels: Array, ready: Callable[[Tensor], None] | None = None
    ) -> tuple[float, int]:
        """Return mean loss and right answers of a batch; parameters then have its gradients.

        Args:
            x: images, (n, 3, H, W).
            labels: integers, (n,).
            ready: called with each parameter as soon as its gradient is complete.
        """
        self.network.zero_grad()
        logits = self.network(self._input(x))
        loss = cross_entropy(logits, labels, self.label_smoothing)
        if ready is None:
            loss.backward()
        else:
            with CompletionHook(Tape.of(loss), ready):
                loss.backward()
        return loss.item(), count_hits(logits.numpy(), labels)

    def state_arrays(self) -> list[Array]:
        """Return the arrays of the parameters and of the running statistics."""
        parameters = [tensor.data for tensor in self.network.parameters()]
        return parameters + [array for _, array in self.network.named_buffers()]

    def refresh(self) -> None:
        """Do nothing: the tape always computes with the current weights."""

    def logits(self, x: Array) -> Array:
        """Return (n, K); the mode that the network is in stays."""
        x = self._input(x)
        evaluation = in_mode(self.network, training=False)
        with evaluation, no_grad(), single_threaded_blas(), on_device(device_of(x)):
            return self.network(x).numpy()

    def close(self) -> None:
        """Do nothing."""

    def _input(self, x: Array) -> Array:
        """Return images where the parameters are and of their type."""
        _, like = next(self.network.named_parameters())
        return to_device(x.astype(like.dtype, copy=False), like.device)


def check_precision(precision: str, device: str, eager: bool) -> None:
    """Raise ConfigError unless an engine computes in a precision."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision}")
    if precision == "bf16" and (device == "cpu" or eager):
        raise ConfigError("precision bf16 needs a plan on a GPU; use --device cuda, not --eager")


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
    label_smoothing: float = 0.0,
    communicator: Communicator | None = None,
) -> tuple[Engine, str]:
    """Return the engine for a network, and in words what it is, and why if it is the tape.

    Args:
        network: what to compute.
        image_shape: (C, H, W).
        batch_size: images of a step, on this rank, at most so many for logits.
        device: what computes, "cpu", "emu" or "cuda:i"; the network is moved there.
        cores: threads of the CPU; None for this process's share of the cores.
        eager: take the tape.
        precision: "fp32" or "fp64", the network's own type, or "bf16", in which a device's plan
            keeps activations.
        training: whether steps are wanted.
        label_smoothing: ε of the loss in training.
        communicator: connects the ranks that share each batch; None for one process.

    Raises:
        ConfigError: cores is below 1, or the precision is not for this engine.
    """
    if cores is not None and cores < 1:
        raise ConfigError(f"cores must be at least 1, not {cores}")
    check_precision(precision, device, eager)
    communicator = communicator or Communicator()
    network.to(device)
    if eager:
        tape = TapeEngine(network, communicator, label_smoothing)
        return tape, f"tape{_on(device)} (--eager)"
    try:
        plan = Plan(
            network,
            image_shape,
            batch_size,
            device,
            threads=cores or available_cores(communicator.local_size),
            precision=precision,
            training=training,
            label_smoothing=label_smoothing,
            communicator=communicator,
        )
    except PlanError as error:
        tape = TapeEngine(network, communicator, label_smoothing)
        return tape, f"tape{_on(device)} (no plan: {error})"
    return plan, str(plan)


def _on(device: str) -> str:
    return "" if device == "cpu" else f" on {device}"
