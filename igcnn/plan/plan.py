"""A network by a plan, on as many processes as there are cores."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType

import numpy as np

from ..autograd import Tensor
from ..backend import single_threaded_blas
from ..errors import RankError, ShapeError, WorkerError
from ..layers import Layer
from .evaluation import EvaluationProgram
from .graph import trace
from .planes import Array
from .program import TrainingProgram
from .shard import shard_sizes
from .team import EVALUATE, REFRESH, STEP, Team


class Plan:
    """Computes training steps and logits of a network; a context that ends its processes.

    A plan for training keeps the parameters in memory that its processes share, until `close`.

    Args:
        network: gives logits for images; its parameters receive the gradients.
        image_shape: (C, H, W).
        batch_size: B, images of a training step, and at most so many for logits.
        processes: how many share the work, this one included; no more than there are shards are
            started. Their number changes no bit of a result.
        training: whether steps are wanted; logits need less memory.

    Raises:
        PlanError: the network contains something that has no place in a plan.
    """

    def __init__(
        self,
        network: Layer,
        image_shape: tuple[int, int, int],
        batch_size: int,
        processes: int = 1,
        training: bool = True,
    ) -> None:
        traced = trace(network, image_shape)
        self.graph = traced.graph
        self.weights = traced.weights
        self.running = traced.running
        self.batch_size = batch_size
        processes = min(processes, len(shard_sizes(batch_size)))
        if sys.platform == "win32":
            processes = 1  # there a process cannot pass its files on
        self.team = Team(self.graph, batch_size, processes, training)
        self.processes = self.team.processes
        self.memory = self.team.memory
        self.gradients: list[Array] = []
        self.program: TrainingProgram | None = None
        if training:
            self.program = TrainingProgram(self.graph, self.memory, self.team.local)
            self.gradients = [np.zeros_like(array) for array in self.memory.weights]
        self.evaluation = EvaluationProgram(self.graph, self.memory, self.team.local)
        self._share_weights()

    def __enter__(self) -> Plan:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __str__(self) -> str:
        return f"plan, {self.processes} process{'es' if self.processes > 1 else ''}"

    def step(
        self, x: Array, labels: Array, ready: Callable[[Tensor], None] | None = None
    ) -> tuple[float, int]:
        """Return the mean loss of a batch and how many of its images were classified rightly.

        Args:
            x: (B, C, H, W).
            labels: (B,).
            ready: called with each parameter as soon as its gradient is complete.

        Raises:
            WorkerError: a worker process has ended; parameters are those before the step.
        """
        assert self.program is not None
        self._share_weights()
        self.memory.images[...] = x.transpose(1, 2, 3, 0)
        self.memory.labels[...] = labels
        self.team.send(STEP)
        take = partial(self._take_gradients, self.program, ready)
        try:
            with single_threaded_blas():
                self.program.run(self.team.meeting.meet, take)
        except RankError:
            raise
        except WorkerError:
            raise self.team.explain() from None
        self._update_running(self.program)
        return float(self.memory.losses.sum()), int(self.memory.hits.sum())

    def refresh(self) -> None:
        """Let the next logits be those of the present parameters and statistics.

        Raises:
            WorkerError: a worker process has ended.
        """
        self._share_weights()
        for shared, running in zip(self.memory.running, self.running, strict=True):
            shared[...] = running
        self.team.send(REFRESH)
        for call in self.evaluation.refresh:
            call()

    def logits(self, x: Array) -> Array:
        """Return (n, K) for images (n, C, H, W), n ≤ B, as of the last `refresh`.

        Raises:
            ShapeError: there are more images than the plan was made for.
            WorkerError: a worker process has ended.
        """
        if len(x) > self.batch_size:
            raise ShapeError(f"plan: {len(x)} images, but it was made for {self.batch_size}")
        self.memory.images[..., : len(x)] = x.transpose(1, 2, 3, 0)
        self.team.send(EVALUATE)
        try:
            with single_threaded_blas():
                self.evaluation.run()
            self.team.meeting.meet()
        except WorkerError:
            raise self.team.explain() from None
        return self.memory.logits[:, : len(x)].T.copy()

    def close(self) -> None:
        """End the worker processes and give the parameters memory of their own again."""
        self.team.close()
        if self.program is not None:
            for tensor, shared in zip(self.weights, self.memory.weights, strict=True):
                if tensor.data is shared:
                    tensor.data = shared.copy()

    def _share_weights(self) -> None:
        for tensor, shared in zip(self.weights, self.memory.weights, strict=True):
            if tensor.data is shared:
                continue
            shared[...] = tensor.data
            if self.program is not None:
                tensor.data = shared

    def _take_gradients(
        self, program: TrainingProgram, ready: Callable[[Tensor], None] | None, weights: list[int]
    ) -> None:
        """Add up the shards of these weights in their order: the gradients of parameters."""
        for i in weights:
            tensor, total = self.weights[i], self.gradients[i]
            first, *others = (shard[i] for shard in self.memory.gradients)
            if i in program.merged:
                np.copyto(total, program.merged[i]())
            else:
                np.copyto(total, first)
                for other in others:
                    total += other
            tensor.grad = total
            if ready:
                ready(tensor)

    def _update_running(self, program: TrainingProgram) -> None:
        for norm, statistics, (mean, variance) in zip(
            self.graph.norms, program.norms, self.running, strict=True
        ):
            for running, batch in ((mean, statistics.mean), (variance, statistics.variance)):
                running *= norm.momentum
                running += (1 - norm.momentum) * batch
