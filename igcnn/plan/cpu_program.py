"""A network's passes on a CPU: the backward pass, beside forward and evaluation.

A convolution ends the gradient of its input while it stores it: what others added, ReLU's mask,
the sums of batch norms. The gradient of a batch norm's input is computed while it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ..kernels import batch_norm, combine, convolution, linear, permutation, pooling
from ..kernels import interleaved_group_convolution as igc
from ..kernels.lanes import Fields, stored_gradient
from . import graph as op
from .cpu_evaluation import Evaluation
from .cpu_forward import CpuForward, Unit
from .program import Call, Setup

Array = np.ndarray
# memory of sums, and what makes the call that adds them up
PendingSum = tuple[Array, Callable[..., None]]


class CpuProgram(CpuForward):
    """The passes of a network on a CPU; see Program.

    Attributes:
        incoming: for each tensor whose gradient is computed on load how (Gradient).
        ended: tensors whose gradient is masked, with its sums left.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.incoming: dict[int, Fields] = {}
        self.ended: set[int] = set()
        mark = self.arena.mark()
        if setup.training:
            self.add_forward()
            self.add_backward()
            self.arena.rewind(mark)  # between two updates only weights and statistics are needed
        Evaluation(self)

    def backward_head(self, head: op.Head) -> None:
        """Add the calls from the gradient of the logits to that of the head's input."""
        shapes = [(self.lanes.blocks, *self.graph.weights[i]) for i in head.weights]
        partials = self._partials(head, shapes)
        gw, gb = op.with_bias(partials)
        gmean = self.array(self.mean.shape)
        arrays = self.glogits, self.mean, self.weights[head.w], gmean, gw, gb
        self.backward.append(partial(linear.compiled_linear_backward, self.lanes, *arrays))
        gx, ending, sums = self._target_and_ending(head.x, self._jobs(head.x))
        assert gx is not None
        call = partial(
            pooling.compiled_global_average_pool_backward, self.lanes, gmean, gx, ending
        )
        self.backward.append(call)
        self._add_up(head, partials, sums)

    def backward_of(self, operation: op.Operation) -> None:
        """Add the calls that write the gradients of an operation's weights and input."""
        (x,), y = operation.inputs, operation.y
        gy = self.gradient_of.pop(y)
        if isinstance(operation, op.Convolution | op.InterleavedGroupConvolution):
            self._backward_unit(operation, gy)
        elif x:
            gx, ending, sums = self._target_and_ending(x, self._jobs(x))
            assert gx is not None
            self.backward.append(self._backward_transform(operation, gy, gx, ending))
            self._add_up(operation, [], sums)
        self.release(gy)

    def _backward_unit(self, unit: Unit, gy: Array) -> None:
        parts = self.parts(unit)
        gx, ending, sums = self._target_and_ending(unit.x, parts.gx)
        shapes = [(parts.gw, *self.graph.weights[i]) for i in unit.weights]
        partials = self._partials(unit, shapes)
        gz = self.incoming.get(unit.y) or stored_gradient(gy)
        arrays = gz, self.input(unit.x), self.packed[unit.y], gx, ending, partials
        given = self.lanes, *arrays, self.sizes(unit)
        call = partial(igc.compiled_igc_backward, *given)
        if isinstance(unit, op.Convolution):
            call = partial(convolution.compiled_convolution_backward, *given, unit.branches)
        self.backward.append(call)
        self._add_up(unit, partials, sums)

    def _backward_transform(
        self, operation: op.Operation, gy: Array, gx: Array, ending: Fields
    ) -> Call:
        (value,) = operation.inputs
        match operation:
            case op.Pool():
                pool = partial(pooling.compiled_pool_backward, self.lanes, operation.name)
                arrays = gy, self.input(value), self.values[operation.y], gx, ending
                return partial(pool, *arrays, *operation.window)
            case op.Permutation(branches=branches):
                permute = permutation.compiled_permutation_backward
                return partial(permute, self.lanes, gy, gx, ending, branches)
        raise NotImplementedError(operation.name)

    def backward_sum(self, operation: op.NormAddReLU) -> None:
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
                ending = {"other": other}
                call = partial(
                    combine.compiled_combine_backward, self.lanes, gradient, target, ending
                )
                self.backward.append(call)
        self.release(gy)

    def _target_and_ending(
        self, value: int, parts: int
    ) -> tuple[Array | None, Fields, list[PendingSum]]:
        """Return what receives the gradient of a tensor, how it ends, and its norms' sums."""
        if value == 0:
            return None, {}, []
        target, other = self.target(value)
        if self.parts_left[value] > 1 or value not in self.graph.producers:
            return target, {"other": other}, []
        ending, sums = self._ending(value, parts)
        return target, ending | {"other": other}, sums

    def _ending(self, value: int, parts: int) -> tuple[Fields, list[PendingSum]]:
        """Return how a gradient ends that is complete, and the sums that batch norms get."""
        self.ended.add(value)
        producer = self.graph.producers[value]
        if not isinstance(producer, op.NormAddReLU):
            return {}, []
        C, H, W = self.graph.shapes[value]
        fields: list[Fields] = []
        sums: list[PendingSum] = []
        for term in producer.terms:
            if term.norm is not None:
                norm, array = self.norms[term.norm], self.array((parts, 2, C), "float64")
                fields.append({"z": self.values[term.value], "mean": norm.mean, "sums": array})
                call = partial(
                    batch_norm.compiled_batch_norm_gradient, self.lanes, norm, H * W, array
                )
                sums.append((array, call))
        ending = {"relu": producer.relu, "norms": len(fields), "norm": fields}
        if producer.relu:
            ending["value"] = self.input(value)
        return ending, sums

    def _end(self, value: int) -> None:
        """End a gradient whose last part came from a sum, which ends nothing."""
        ending, sums = self._ending(value, self._jobs(value))
        gradient = self.gradient_of[value]
        target, _ = self.target(value)
        fields = stored_gradient(gradient)
        arrays = fields, target, ending
        self.backward.append(partial(combine.compiled_combine_backward, self.lanes, *arrays))
        self._add_up(None, [], sums)

    def _jobs(self, value: int) -> int:
        """Return how many jobs share a launch that is cut by the rows of a tensor."""
        return self.lanes.jobs(self.graph.shapes[value][1])

    def _partials(self, operation: op.Operation, shapes: list[op.Shape]) -> list[Array | None]:
        """Return memory for what jobs leave of the gradients of weights that are trained."""
        trained = [self.gradients[i] is not None for i in operation.weights]
        return [self.array(s) if t else None for s, t in zip(shapes, trained, strict=True)]

    def _add_up(
        self,
        operation: op.Operation | None,
        partials: list[Array | None],
        sums: list[PendingSum],
    ) -> None:
        """Add the calls that add what jobs have left; they may all run at once."""
        calls: list[Callable[..., None]] = []
        for array, call in sums:
            calls.append(call)
            self.arena.give(array)
        for i, part in zip(operation.weights if operation else (), partials, strict=False):
            total = self.gradients[i]
            if total is not None and part is not None:
                calls.append(partial(convolution.compiled_sum_partials, part, total))
                self.arena.give(part)
        for call in calls:
            self.backward.append(partial(call, wait=call is calls[-1]))
