"""A training step by a plan, on as many processes as there are cores."""

from __future__ import annotations

import numpy as np

from ..autograd import Tensor
from ..errors import WorkerError
from ..layers import Layer
from .graph import trace
from .planes import Array
from .program import TrainingProgram
from .shard import shard_sizes
from .team import Team


class PlanStep:
    """Loss and gradients of a batch; the parameters then live in shared memory until `close`.

    Args:
        network: gives logits for images; its parameters receive the gradients.
        image_shape: (C, H, W).
        batch_size: B, of every batch.
        processes: how many processes share the work, this one included; no more are started
            than there are shards. Their number changes no bit of a result.

    Raises:
        PlanError: the network contains something that has no place in a plan.
    """

    def __init__(
        self,
        network: Layer,
        image_shape: tuple[int, int, int],
        batch_size: int,
        processes: int = 1,
    ) -> None:
        traced = trace(network, image_shape)
        self.graph = traced.graph
        self.weights = traced.weights
        self.running = traced.running
        self.processes = min(processes, len(shard_sizes(batch_size)))
        self.team = Team(self.graph, batch_size, self.processes)
        self.memory = self.team.memory
        self.program = TrainingProgram(self.graph, self.memory, self.team.local)
        for tensor, shared in zip(self.weights, self.memory.weights, strict=True):
            shared[...] = tensor.data
            tensor.data = shared
        self.gradients = [np.zeros_like(array) for array in self.memory.weights]

    def __call__(self, x: Array, labels: Array) -> tuple[float, int]:
        """Return the mean loss of a batch and how many of its images were classified rightly.

        Args:
            x: (B, C, H, W).
            labels: (B,).

        Raises:
            WorkerError: a worker process has ended; parameters are those before the step.
        """
        self.memory.images[...] = x.transpose(1, 2, 3, 0)
        self.memory.labels[...] = labels
        self.team.start_step()
        try:
            self.program.run(self.team.meeting.meet)
        except WorkerError:
            raise self.team.explain() from None
        self._take_gradients()
        self._update_running()
        return float(self.memory.losses.sum()), int(self.memory.hits.sum())

    def _take_gradients(self) -> None:
        """Add up the shards in their order, and give every parameter its gradient."""
        for i, tensor in enumerate(self.weights):
            if not tensor.requires_grad:
                continue
            total = self.gradients[i]
            first, *others = (shard[i] for shard in self.memory.gradients)
            if first.shape == total.shape:
                np.copyto(total, first)
                for other in others:
                    total += other
            tensor.grad = total
        for norm, statistics in zip(self.graph.norms, self.program.norms, strict=True):
            self.gradients[norm.gamma][...] = statistics.ggamma
            self.gradients[norm.beta][...] = statistics.gbeta

    def _update_running(self) -> None:
        for norm, statistics, running in zip(
            self.graph.norms, self.program.norms, self.running, strict=True
        ):
            for array, value in zip(running, (statistics.mean, statistics.variance), strict=True):
                array *= norm.momentum
                array += (1 - norm.momentum) * value

    def close(self) -> None:
        """End the worker processes and give the parameters memory of their own again."""
        self.team.close()
        for tensor in self.weights:
            _own(tensor)


def _own(tensor: Tensor) -> None:
    tensor.data = tensor.data.copy()
