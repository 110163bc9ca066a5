"""A network's forward pass on a CPU, in training: what is fused, and which arrays launches get.

A convolution computes the batch norm and ReLU before it while it loads, and leaves the sums for
the batch norm behind it. So nothing but the outputs of convolutions and of residual sums is ever
stored.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..errors import PlanError
from ..kernels import (
    augment,
    batch_norm,
    combine,
    convolution,
    linear,
    permutation,
    pooling,
    softmax_cross_entropy,
    winograd,
)
from ..kernels import interleaved_group_convolution as igc
from ..kernels.augment import Resident
from ..kernels.batch_norm import CompiledNorm
from ..kernels.convolution import Packed, Parts
from ..kernels.geometry import convolution_fields
from ..kernels.lanes import LEAST_LANES, Fields, Lanes, stored
from . import graph as op
from .cpu_fusion import fold_permutations
from .program import Call, Program, Setup

Array = np.ndarray
Unit = op.Convolution | op.InterleavedGroupConvolution

MOST_NORMS = 2  # that an Ending sums for, in common.hpp
MOST_TERMS = 4  # of a sum, in combine.cpp


class CpuForward(Program):
    """Memory and forward pass of a network on a CPU; see Program.

    Attributes:
        lanes: how the batch lies in memory.
        norms: the arrays of each batch norm.
        packed: the weights of each unit as its kernels read them, by the tensor it gives.
        values: the stored tensors, by number.
        recomputed: for each tensor that is never stored how it is computed on load (Input).
    """

    def __init__(self, setup: Setup) -> None:
        self.graph = setup.graph
        least = LEAST_LANES if setup.training else 1
        self.lanes = Lanes(setup.batch_size, self.graph.dtype, least)
        graph = fold_permutations(self.graph, self._can_permute)
        super().__init__(replace(setup, graph=graph), graph.dtype)
        self.norms = [self._take_norm(i) for i in range(len(graph.norms))]
        self.packed = {unit.y: self._take_packed(unit) for unit in self.units}
        self.logits = self.activation(graph.logits)
        self.zeros = [self.x]  # lanes without an image stay so
        self.values: dict[int, Array] = {0: self.x}
        self.recomputed: dict[int, Fields] = {}

    def layout(self, shape: op.Shape) -> op.Shape:
        """Return (blocks, H, C, W, lanes) for (C, H, W), (blocks, K, lanes) for (K,)."""
        return self.lanes.layout(shape)

    def begin(self, source: Resident) -> list[Call]:
        """Return the calls of a training pass on the next batch of resident images."""
        return [partial(augment.launch_augment, source, self.x, self.labels), *self.forward]

    def load(self, x: Array) -> None:
        """Bring images, (n, C, H, W), to x."""
        self.lanes.load(x, self.x)

    def read_logits(self, n: int) -> Array:
        """Return the logits of the first n images, (n, K)."""
        # (blocks, K, lanes) → (blocks·lanes, K)
        logits = self.logits.transpose(0, 2, 1).reshape(-1, self.logits.shape[1])
        return logits[:n].copy()

    @cached_property
    def units(self) -> list[Unit]:
        """The convolutions and interleaved group convolutions."""
        kinds = op.Convolution | op.InterleavedGroupConvolution
        return [o for o in self.graph.operations if isinstance(o, kinds)]

    def array(self, shape: op.Shape, dtype: Any = None) -> Array:
        """Return memory for an array."""
        return self.arena.take(shape, dtype or self.real)

    def activation(self, value: int) -> Array:
        """Return memory for a tensor."""
        return self.array(self.layout(self.graph.shapes[value]))

    def _take_norm(self, number: int) -> CompiledNorm:
        spec = self.graph.norms[number]
        parameters = self.weights[spec.gamma], self.weights[spec.beta]
        gradients = self.gradients[spec.gamma], self.gradients[spec.beta]
        own = (self.array(parameters[0].shape) for _ in range(7))
        settings = spec.momentum, spec.eps
        return CompiledNorm(*settings, *parameters, *self.running[number], *gradients, *own)

    def _take_packed(self, unit: Unit) -> list[Packed]:
        sizes = [self.weights[i].size for i in unit.weights]
        if isinstance(unit, op.Convolution):
            size = convolution.compiled_packed_size
            sizes = [size(self.lanes, self.sizes(unit), sizes[0])]
        return [Packed(self.array((size,)), self.array((size,))) for size in sizes]

    # -- calls

    def sizes(self, unit: Unit) -> Fields:
        """Return the sizes that the kernels of a unit take."""
        shapes = self.graph.shapes[unit.x], self.graph.shapes[unit.y]
        kernel = self.graph.weights[unit.weights[0]][2:]
        geometry = *shapes, kernel, unit.stride, unit.padding
        if isinstance(unit, op.Convolution):
            return convolution_fields(*geometry, unit.groups)
        return convolution_fields(*geometry, unit.L) | {"S": unit.S}

    def _can_permute(self, unit: op.Convolution) -> bool:
        """Return whether the kernels of a convolution can permute channels."""
        return not winograd.suits(self.lanes, self.sizes(unit))

    def parts(self, unit: Unit) -> Parts:
        """Return into how many parts the launches of a unit leave what they sum up."""
        if isinstance(unit, op.Convolution):
            return convolution.compiled_convolution_parts(self.lanes, self.sizes(unit))
        jobs = self.lanes.jobs(self.graph.shapes[unit.y][1])
        return Parts(jobs, jobs, jobs, 1)

    def pack_all(self, folded: dict[int, CompiledNorm]) -> list[Call]:
        """Return the calls that pack all weights, those of some units scaled by a batch norm."""
        calls: list[Call] = []
        for unit in self.units:
            weights = [self.weights[i] for i in unit.weights]
            scale = folded[unit.y].scale if unit.y in folded else None
            arrays = self.lanes, weights, scale, self.packed[unit.y], self.sizes(unit)
            call = partial(igc.compiled_igc_pack, *arrays)
            if isinstance(unit, op.Convolution):
                call = partial(convolution.compiled_convolution_pack, *arrays, unit.branches)
            # until the last one nothing waits for anything
            calls.append(partial(call, wait=unit is self.units[-1]))
        return calls

    def convolve(self, unit: Unit, x: Fields, z: Array, **end: Any) -> Call:
        """Return the call that writes z; `end` as in convolution.compiled_convolution_forward."""
        arrays = self.lanes, x, self.packed[unit.y], z, self.sizes(unit)
        if isinstance(unit, op.Convolution):
            forward = convolution.compiled_convolution_forward
            return partial(forward, *arrays, branches=unit.branches, **end)
        return partial(igc.compiled_igc_forward, *arrays, **end)

    def transform(self, operation: op.Operation, x: Fields, y: Array) -> Call:
        """Return the call that writes y, of a pooling or a permutation."""
        match operation:
            case op.Pool():
                arrays = self.lanes, operation.name, x, y
                return partial(pooling.compiled_pool_forward, *arrays, *operation.window)
            case op.Permutation(branches=branches):
                return partial(
                    permutation.compiled_permutation_forward, self.lanes, x, y, branches
                )
        raise PlanError(f"CPU plans do not support {operation.name}")

    def classify(self, head: op.Head, x: Fields, mean: Array) -> list[Call]:
        """Return the calls that write the mean over the pixels, and the logits."""
        w, b = op.with_bias([self.weights[i] for i in head.weights])
        return [
            partial(pooling.compiled_global_average_pool_forward, self.lanes, x, mean),
            partial(linear.compiled_linear_forward, self.lanes, mean, w, b, self.logits),
        ]

    # -- the pass

    def add_forward(self) -> None:
        """Add the calls of the whole pass in training."""
        self.forward += self.pack_all(folded={})
        self._add_statistics(0, None)
        for operation in self.graph.operations:
            self._add(operation)

    def _add(self, operation: op.Operation) -> None:
        """Add the calls of an operation, and those of the batch norms of its result."""
        y, sums, together = operation.y, None, 1
        if isinstance(operation, op.Head):
            self._add_head(operation)
            return
        if isinstance(operation, op.NormAddReLU) and self._is_recomputed(operation):
            (term,) = operation.terms
            assert term.norm is not None
            self.recomputed[y] = self.norms[term.norm].activation(
                self.values[term.value], operation.relu
            )
            return
        array = self.values[y] = self.activation(y)
        if isinstance(operation, op.Convolution | op.InterleavedGroupConvolution):
            parts = self.parts(operation)
            sums = self._sums(y, parts.forward) if self._norms_of(y) else None
            together = parts.rows
            x = self.input(operation.x)
            self.forward.append(self.convolve(operation, x, array, sums=sums))
        elif isinstance(operation, op.NormAddReLU):
            terms = self._terms(operation)
            call = partial(
                combine.compiled_combine_forward, self.lanes, terms, array, operation.relu
            )
            self.forward.append(call)
        else:
            (value,) = operation.inputs
            self.forward.append(self.transform(operation, self.input(value), array))
        self._add_statistics(y, sums, together)

    def _is_recomputed(self, operation: op.NormAddReLU) -> bool:
        """Return whether all that take a tensor compute it from what is stored."""
        (first, *others) = operation.terms
        takers = self.graph.consumers[operation.y]
        single = not others and first.norm is not None
        return single and not any(isinstance(taker, op.NormAddReLU) for taker in takers)

    def _terms(self, operation: op.NormAddReLU) -> list[Fields]:
        norms = sum(term.norm is not None for term in operation.terms)
        if norms > MOST_NORMS or len(operation.terms) > MOST_TERMS:
            raise PlanError(
                f"CPU plans do not support a sum of {len(operation.terms)} tensors with {norms} "
                f"batch norms, only of up to {MOST_TERMS} tensors with {MOST_NORMS}"
            )
        return [
            stored(self.values[term.value])
            if term.norm is None
            else self.norms[term.norm].activation(self.values[term.value], 0)
            for term in operation.terms
        ]

    def _add_statistics(self, value: int, sums: Array | None, together: int = 1) -> None:
        """Add the calls for the batch norms of a tensor; together: rows that no cut parts."""
        for norm in self._norms_of(value):
            z = self.values[value]
            if sums is None:
                sums = self._sums(value, self.lanes.jobs(self.graph.shapes[value][1]))
                self.forward.append(
                    partial(batch_norm.compiled_batch_norm_sums, self.lanes, z, sums)
                )
            statistics = batch_norm.compiled_batch_norm_statistics
            self.forward.append(partial(statistics, self.lanes, norm, z, sums, together))

    def _norms_of(self, value: int) -> list[CompiledNorm]:
        consumers = self.graph.consumers[value]
        terms = [t for o in consumers if isinstance(o, op.NormAddReLU) for t in o.terms]
        numbers = {t.norm for t in terms if t.value == value and t.norm is not None}
        return [self.norms[number] for number in sorted(numbers)]

    def _sums(self, value: int, parts: int) -> Array:
        """Return memory for the sums of a batch norm, which the next launches read."""
        sums = self.array((parts, 2, self.graph.shapes[value][0]), "float64")
        self.arena.give(sums)
        return sums

    def input(self, value: int) -> Fields:
        """Return a tensor as an Input: stored, or computed on load."""
        return self.recomputed.get(value) or stored(self.values[value])

    def _add_head(self, head: op.Head) -> None:
        self.mean = self.array(self.layout((self.graph.shapes[head.x][0],)))
        self.glogits = self.array(self.logits.shape)
        self.forward += self.classify(head, self.input(head.x), self.mean)
        arrays = self.logits, self.labels, self.glogits, self.losses, self.correct
        loss = partial(softmax_cross_entropy.compiled_softmax_cross_entropy, self.lanes, *arrays)
        self.forward.append(partial(loss, self.label_smoothing))
