"""Evaluation by a plan: batch norm by its running statistics, folded into the weights.

    γ·(w ∗ x − μ)/√(σ² + ε) + β = (s·w) ∗ x + (β − s·μ)   with  s = γ/√(σ² + ε)

No image depends on another, so processes do not meet, and memory is used again as soon as no
later operation needs what is in it.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .forward import Forward
from .graph import Graph
from .memory import Call, Pool
from .planes import Array, Halo
from .shard import Memory, Shard, make_shards, shard_sizes
from .strided import StridedConvolution


class ConstantNorm:
    """A batch norm by running statistics: y = scale·x + shift.

    Args:
        gamma: γ, (C,).
        beta: β.
        eps: ε.
        running: mean and variance, (2, C).
        folded: whether the weights before it contain the scale.
    """

    def __init__(
        self, gamma: Array, beta: Array, eps: float, running: Array, folded: bool
    ) -> None:
        self.gamma, self.beta, self.eps, self.running = gamma, beta, eps, running
        self.values = np.zeros_like(gamma)
        self.shift = np.zeros_like(gamma)
        self.scale = None if folded else self.values

    def refresh(self) -> None:
        """Compute scale and shift from what the parameters and statistics are now."""
        mean, variance = self.running.astype(np.float64)
        scale = self.gamma / np.sqrt(variance + self.eps)
        self.values[...] = scale
        self.shift[...] = self.beta - scale * mean


class EvaluationProgram(Forward):
    """Logits of a batch, for those shards that one process computes.

    Args:
        graph: what to compute.
        memory: shared by all processes.
        local: numbers of the shards to compute.

    Attributes:
        refresh: calls before the first batch, and when weights or statistics have changed.
        calls: calls for a batch.
    """

    def __init__(self, graph: Graph, memory: Memory, local: list[int]) -> None:
        self.memory = memory
        self.folded: dict[int, Array] = {}
        self._fold: list[Call] = []
        producers = {node.output: place for place, node in enumerate(graph.nodes)}
        self._norm_of: dict[int, int] = {}
        for node in graph.nodes:
            for term in node.terms:
                place = producers.get(term.value, -1)
                foldable = place >= 0 and graph.nodes[place].op in ("convolution", "mix")
                if term.norm is not None and foldable and graph.uses(term.value) == 1:
                    self._norm_of[place] = term.norm
        self.norms = [
            ConstantNorm(
                memory.weights[norm.gamma],
                memory.weights[norm.beta],
                norm.eps,
                memory.running[number],
                number in self._norm_of.values(),
            )
            for number, norm in enumerate(graph.norms)
        ]
        super().__init__(graph, memory.weights, max(shard_sizes(memory.images.shape[3])))
        self.refresh = [norm.refresh for norm in self.norms] + self._fold + self.refresh
        self.last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.inputs}
        self.pool = Pool(self.dtype)
        self.halos: dict[object, list[Halo]] = {}
        self.calls: list[Call] = []
        for shard in make_shards(memory.images.shape[3], local, self.dtype):
            shard.pool = self.pool
            self._lay_out(shard)

    def weight(self, place: int) -> Array:
        """Return the weight of a node, with the scale of the batch norm that follows it."""
        own = super().weight(place)
        if place not in self._norm_of:
            return own
        scale = self.norms[self._norm_of[place]].values
        node = self.graph.nodes[place]
        if node.op == "mix":
            S = node.partitions["S"]
            scale = scale.reshape(-1, S).T  # row s·K + k of the weights gives channel k·S + s
        folded = self.folded[place] = np.empty_like(own)
        shape = (*scale.shape, *own.shape[1:])
        column = scale.reshape(*scale.shape, 1, 1, 1)
        self._fold.append(
            partial(np.multiply, own.reshape(shape), column, out=folded.reshape(shape))
        )
        return folded

    def new_array(self, shard: Shard, value: int, shape: tuple[int, ...] | None = None) -> Array:
        """Return memory for a tensor that the pool has again after its last use."""
        shape = shape or (*self.graph.shapes[value], shard.N)
        shard.arrays[value] = shard.pool.take(shape)
        return shard.arrays[value]

    def new_halo(self, shard: Shard, convolution: StridedConvolution) -> Halo:
        """Return memory of this form; its border is still zero from the last use."""
        free = self.halos.setdefault(_form(convolution, shard), [])
        return free.pop() if free else super().new_halo(shard, convolution)

    def _lay_out(self, shard: Shard) -> None:
        view = self.store(shard, 0)
        images = self.memory.images[None, ..., shard.images]  # (1, C, H, W, N)
        self.calls.append(partial(np.copyto, view, images))
        sources: dict[int, int] = {}  # what deferred tensors are computed from
        for place, node in enumerate(self.graph.nodes):
            if node.op == "combine":
                norms = [None if t.norm is None else self.norms[t.norm] for t in node.terms]
                self.calls.extend(self.combine_calls(node, norms, shard))
            else:
                self.calls.extend(self.node_calls(place, shard))
            if node.output in shard.deferred:
                sources[node.output] = node.inputs[0]
                continue
            for value in set(node.inputs):
                if self.last_use[value] == place:
                    self._retire(shard, sources.get(value, value))
        logits = self.memory.logits[:, shard.images]
        self.calls.append(partial(np.copyto, logits, shard.values[self.graph.logits]))

    def _retire(self, shard: Shard, value: int) -> None:
        """Let later tensors have the memory of one that is not needed any more."""
        if value in shard.halos:
            _, halo = shard.halos.pop(value)
            reader = next(
                convolution
                for place, convolution in self.convolutions.items()
                if value in self.graph.nodes[place].inputs and convolution.layout is not None
            )
            self.halos[_form(reader, shard)].append(halo)
        else:
            shard.pool.give(shard.arrays.pop(value))

    def run(self) -> None:
        """Compute the logits of the images in memory."""
        for call in self.calls:
            call()


def _form(convolution: StridedConvolution, shard: Shard) -> object:
    return convolution.layout, convolution.image, shard.N
