"""A network's passes on a CPU: what is fused, and which arrays the launches get.

In training a convolution computes the batch norm and ReLU before it while it loads, leaves the
sums for the batch norm behind it, and in backward ends the gradient that it writes: what others
added, ReLU's mask, the sums of batch norms. The gradient of a batch norm's input is computed while
it is loaded. So nothing but the outputs of convolutions and of residual sums is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..errors import PlanError
from ..kernels.augment import Resident
from .arena import Arena
from .cpu_evaluation import Evaluation
from .cpu_kernels import CpuKernels, Fields, Norm, Packed, Unit, stored, stored_gradient
from .graph import (
    Convolution,
    Graph,
    Head,
    InterleavedGroupConvolution,
    NormAddReLU,
    Operation,
    Shape,
    UnaryOperation,
)
from .program import Call, Program, Running

Array = np.ndarray

# memory of sums, and what makes the call that adds them up
PendingSum = tuple[Array, Callable[..., Call]]

MOST_NORMS = 2  # that an Ending sums for, in common.hpp
MOST_TERMS = 4  # of a sum, in combine.cpp


class CpuProgram(Program):
    """The passes of a network on a CPU; see Program.

    Attributes:
        values: the stored tensors, by number.
        recomputed: for each tensor that is never stored how it is computed on load (Input).
        incoming: for each tensor whose gradient is computed on load how (Gradient).
        ended: tensors whose gradient is masked, with its sums left.
    """

    def __init__(
        self,
        graph: Graph,
        batch_size: int,
        arena: Arena,
        weights: list[Array],
        gradients: list[Array | None],
        running: Running,
        training: bool,
    ) -> None:
        self.kernels = CpuKernels(graph, batch_size)
        arrays = weights, gradients, running
        super().__init__(graph, batch_size, arena, *arrays, graph.dtype)
        self.norms = [self._take_norm(i) for i in range(len(graph.norms))]
        self.packed = {unit.y: self._take_packed(unit) for unit in self.units}
        self.logits = self.array(self.layout(graph.shapes[graph.logits]))
        self.zeros = [self.x]  # lanes without an image stay so
        self.values: dict[int, Array] = {0: self.x}
        self.recomputed: dict[int, Fields] = {}
        self.incoming: dict[int, Fields] = {}
        self.ended: set[int] = set()
        mark = arena.mark()
        if training:
            self.forward += self.pack_all(folded={})
            for value in range(len(graph.shapes)):
                self._check(value)
            self._add_statistics(0, None)
            for operation in graph.operations:
                self._add_forward(operation)
            self.add_backward()
            arena.rewind(mark)  # between two updates only weights and statistics are needed
        Evaluation(self)

    def layout(self, shape: Shape) -> Shape:
        """Return the shape of an array for N tensors of a shape, (C, H, W) or (K,)."""
        return self.kernels.layout(shape)

    def begin(self, source: Resident) -> list[Call]:
        """Return the calls of a training pass on the next batch of resident images."""
        return [self.kernels.augment(source, self.x, self.labels), *self.forward]

    def finish(
        self,
        parameters: Array,
        gradients: Array,
        velocity: Array,
        rates: Array,
        nesterov: bool,
        results: Array,
        state: Array,
    ) -> list[Call]:
        """Return the calls that end an update."""
        arrays = parameters, gradients, velocity, rates
        outcome = self.losses, self.correct, results, state
        return [self.kernels.update(*arrays, nesterov), self.kernels.record(*outcome)]

    def load(self, x: Array) -> None:
        """Bring images of the host, (n, C, H, W), to x."""
        lanes = self.kernels.lanes
        whole, rest = divmod(len(x), lanes)
        if whole:
            # (whole·lanes, C, H, W) → (whole, H, C, W, lanes)
            blocks = x[: whole * lanes].reshape(whole, lanes, *x.shape[1:])
            self.x[:whole] = blocks.transpose(0, 3, 2, 4, 1)
        if rest:
            self.x[whole, ..., :rest] = x[whole * lanes :].transpose(2, 1, 3, 0)

    def read_logits(self, n: int) -> Array:
        """Return the logits of the first n images on the host, (n, K)."""
        # (blocks, K, lanes) → (blocks·lanes, K)
        logits = self.logits.transpose(0, 2, 1).reshape(-1, self.logits.shape[1])
        return logits[:n].copy()

    @cached_property
    def units(self) -> list[Unit]:
        """The convolutions and interleaved group convolutions."""
        kinds = Convolution | InterleavedGroupConvolution
        return [o for o in self.graph.operations if isinstance(o, kinds)]

    def array(self, shape: Shape, dtype: Any = None) -> Array:
        """Return memory for an array."""
        return self.arena.take(shape, dtype or self.real)

    def activation(self, value: int) -> Array:
        """Return memory for a tensor."""
        return self.array(self.layout(self.graph.shapes[value]))

    def pack_all(self, folded: dict[int, Norm]) -> list[Call]:
        """Return the calls that pack all weights, those of some units scaled by a batch norm."""
        calls = []
        for unit in self.units:
            weights = [self.weights[i] for i in unit.weights]
            scale = folded[unit.y].scale if unit.y in folded else None
            last = unit is self.units[-1]  # until then nothing waits for anything
            calls.append(self.kernels.pack(unit, weights, self.packed[unit.y], scale, wait=last))
        return calls

    def _take_norm(self, number: int) -> Norm:
        spec = self.graph.norms[number]
        parameters = self.weights[spec.gamma], self.weights[spec.beta]
        gradients = self.gradients[spec.gamma], self.gradients[spec.beta]
        own = (self.array(parameters[0].shape) for _ in range(7))
        return Norm(
            spec.momentum, spec.eps, *parameters, *self.running[number], *gradients, *own
        )

    def _take_packed(self, unit: Unit) -> Packed:
        sizes = [self.weights[i].size for i in unit.weights for _ in range(2)]
        return Packed(*(self.array((size,)) for size in sizes))

    def _check(self, value: int) -> None:
        producer = self.graph.producers.get(value)
        if not isinstance(producer, NormAddReLU):
            return
        norms = sum(term.norm is not None for term in producer.terms)
        if norms > MOST_NORMS or len(producer.terms) > MOST_TERMS:
            raise PlanError(
                f"a sum of {len(producer.terms)} tensors, {norms} of them batch normalised, has no "
                f"planned form; at most {MOST_TERMS} and {MOST_NORMS} have"
            )

    # -- forward

    def _add_forward(self, operation: Operation) -> None:
        """Add the calls of an operation, and those of the batch norms of its result."""
        y, sums = operation.y, None
        if isinstance(operation, Head):
            self._add_head(operation)
            return
        if isinstance(operation, NormAddReLU) and self._is_recomputed(operation):
            (term,) = operation.terms
            assert term.norm is not None
            self.recomputed[y] = self.norms[term.norm].activation(self.values[term.value])
            return
        self.values[y] = self.activation(y)
        if isinstance(operation, Convolution | InterleavedGroupConvolution):
            if self._norms_of(y):
                sums = self._sums(y)
            x, packed = self._input(operation.x), self.packed[y]
            self.forward.append(
                self.kernels.convolve(operation, x, packed, self.values[y], sums=sums)
            )
        elif isinstance(operation, NormAddReLU):
            terms = [
                stored(self.values[term.value])
                if term.norm is None
                else self.norms[term.norm].normalised(self.values[term.value])
                for term in operation.terms
            ]
            self.forward.append(self.kernels.add(y, terms, self.values[y], operation.relu))
        else:
            assert isinstance(operation, UnaryOperation)
            x = self._input(operation.x)
            self.forward.append(self.kernels.transform(operation, x, self.values[y]))
        self._add_statistics(y, sums)

    def _is_recomputed(self, operation: NormAddReLU) -> bool:
        """Return whether all that take a tensor compute it from what is stored."""
        (first, *others) = operation.terms
        takers = self.graph.consumers[operation.y]
        single = not others and first.norm is not None and operation.relu
        return single and not any(isinstance(taker, NormAddReLU) for taker in takers)

    def _add_statistics(self, value: int, sums: Array | None) -> None:
        """Add the calls for the batch norms of a tensor."""
        norms = self._norms_of(value)
        if norms and sums is None:
            sums = self._sums(value)
            self.forward.append(self.kernels.sums(value, self.values[value], sums))
        for norm in norms:
            assert sums is not None
            self.forward.append(self.kernels.statistics(value, norm, sums))

    def _norms_of(self, value: int) -> list[Norm]:
        consumers = self.graph.consumers[value]
        terms = [t for o in consumers if isinstance(o, NormAddReLU) for t in o.terms]
        numbers = {t.norm for t in terms if t.value == value and t.norm is not None}
        return [self.norms[number] for number in sorted(numbers)]

    def _sums(self, value: int) -> Array:
        """Return memory for the sums of a batch norm, which the next launches read."""
        sums = self.array((self.kernels.jobs(value), 2, self.graph.shapes[value][0]), "float64")
        self.arena.give(sums)
        return sums

    def _input(self, value: int) -> Fields:
        return self.recomputed.get(value) or stored(self.values[value])

    def _add_head(self, head: Head) -> None:
        w, b = (*(self.weights[i] for i in head.weights), None)[:2]
        self.mean = self.array(self.layout((self.graph.shapes[head.x][0],)))
        self.glogits = self.array(self.logits.shape)
        x = self._input(head.x)
        self.forward += self.kernels.logits(head, x, w, b, self.mean, self.logits)
        results = self.glogits, self.losses, self.correct
        self.forward.append(self.kernels.loss(self.logits, self.labels, *results))

    # -- backward

    def backward_head(self, head: Head) -> None:
        """Add the calls from the gradient of the logits to that of the head's input."""
        blocks = self.kernels.blocks
        partials = self._partials(head, [(blocks, *self.graph.weights[i]) for i in head.weights])
        gmean = self.array(self.mean.shape)
        arrays = self.glogits, self.mean, self.weights[head.w], gmean
        self.backward.append(self.kernels.logits_backward(head, *arrays, partials))
        gx, ending, sums = self._target_and_ending(head.x, self.kernels.jobs(head.x))
        self.backward.append(self.kernels.mean_backward(head, gmean, gx, ending))
        self._add_up(head, partials, sums)

    def backward_of(self, operation: Operation) -> None:
        """Add the calls that write the gradients of an operation's weights and input."""
        assert isinstance(operation, UnaryOperation)
        x, y = operation.x, operation.y
        gy = self.gradient_of.pop(y)
        is_unit = isinstance(operation, Convolution | InterleavedGroupConvolution)
        jobs = self.kernels.jobs(y if is_unit else x)
        gx, ending, sums = self._target_and_ending(x, jobs)
        partials: list[Array | None] = []
        if isinstance(operation, Convolution | InterleavedGroupConvolution):
            partials = self._partials(operation, self.kernels.partial_shapes(operation))
            gz = self.incoming.get(y) or stored_gradient(gy)
            arrays = self._input(x), self.packed[y], gx, ending
            call = self.kernels.convolve_backward(operation, gz, *arrays, partials)
            self.backward.append(call)
        elif gx is not None:
            others = self._input(x), self.values[y], gx, ending
            self.backward.append(self.kernels.transform_backward(operation, gy, *others))
        self._add_up(operation, partials, sums)
        self.release(gy)

    def backward_sum(self, operation: NormAddReLU) -> None:
        """Add the calls that pass a gradient on to the terms of a sum."""
        if operation.y not in self.ended:
            self._end(operation.y)
        gy = self.gradient_of.pop(operation.y)
        for term in operation.terms:
            x = term.value
            if x == 0:
                continue
            gradient: Fields = stored_gradient(gy)
            lazy = True
            if term.norm is not None:
                gradient = self.norms[term.norm].gradient(gy, self.values[x])
                lazy = x in self.packed and self.graph.norm_of(x) == term.norm
            if lazy and x not in self.gradient_of:
                self.gradient_of[x] = gy
                self.hold(gy)
                if term.norm is not None:
                    self.incoming[x] = gradient
            else:
                target, other = self.target(x)
                self.backward.append(self.kernels.end(x, gradient, target, {"other": other}))
        self.release(gy)

    def _target_and_ending(
        self, value: int, jobs: int
    ) -> tuple[Array | None, Fields, list[PendingSum]]:
        """Return what receives the gradient of a tensor, how it ends, and its norms' sums."""
        if value == 0:
            return None, {}, []
        target, other = self.target(value)
        if self.parts_left[value] > 1 or value not in self.graph.producers:
            return target, {"other": other}, []
        ending, sums = self._ending(value, jobs)
        return target, ending | {"other": other}, sums

    def _ending(self, value: int, jobs: int) -> tuple[Fields, list[PendingSum]]:
        """Return how a gradient ends that is complete, and the sums that batch norms get."""
        self.ended.add(value)
        producer = self.graph.producers[value]
        if not isinstance(producer, NormAddReLU):
            return {}, []
        C = self.graph.shapes[value][0]
        fields: list[Fields] = []
        sums: list[PendingSum] = []
        for term in producer.terms:
            if term.norm is not None:
                norm, array = self.norms[term.norm], self.array((jobs, 2, C), "float64")
                fields.append({"z": self.values[term.value], "mean": norm.mean, "sums": array})
                sums.append((array, partial(self.kernels.norm_gradient, value, norm, array)))
        ending = {"relu": int(producer.relu), "norms": len(fields), "norm": fields}
        if producer.relu:
            ending["value"] = self._input(value)
        return ending, sums

    def _end(self, value: int) -> None:
        """End a gradient whose last part came from a sum, which ends nothing."""
        ending, sums = self._ending(value, self.kernels.jobs(value))
        target, gradient = self.target(value)
        fields = stored_gradient(gradient)
        self.backward.append(self.kernels.end(value, fields, target, ending))
        self._add_up(None, [], sums)

    def _partials(self, operation: Operation, shapes: list[Shape]) -> list[Array | None]:
        """Return memory for what jobs leave of the gradients of weights that are trained."""
        trained = [self.gradients[i] is not None for i in operation.weights]
        return [self.array(s) if t else None for s, t in zip(shapes, trained, strict=True)]

    def _add_up(
        self,
        operation: Operation | None,
        partials: list[Array | None],
        sums: list[PendingSum],
    ) -> None:
        """Add the calls that add what jobs have left; they may all run at once."""
        calls: list[Callable[..., Call]] = []
        for array, call in sums:
            calls.append(call)
            self.arena.give(array)
        for i, array in zip(operation.weights if operation else (), partials, strict=True):
            total = self.gradients[i]
            if total is not None and array is not None:
                calls.append(partial(self.kernels.add_partials, array, total))
                self.arena.give(array)
        for call in calls:
            self.backward.append(call(wait=call is calls[-1]))
