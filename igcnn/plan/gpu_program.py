"""A network's passes on a GPU or the emulator: the backward pass, beside forward."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ..errors import PlanError
from ..kernels import combine, convolution, linear, permutation, pooling
from ..kernels import interleaved_group_convolution as igc
from ..kernels.combine import NO_RELU, WHERE_NORMED, WHERE_Y, WHERE_Y6, DeviceNorm
from ..kernels.interleaved_group_convolution import Incoming
from ..kernels.sum_partials import launch_sum_partials, partial_sums
from . import graph as op
from .gpu_forward import GpuForward
from .program import Call, Setup

Array = np.ndarray


class GpuProgram(GpuForward):
    """The passes of a network on a GPU or the emulator; see GpuForward."""

    def __init__(self, setup: Setup, stored: str, shared_bytes: int) -> None:
        super().__init__(setup, stored, shared_bytes)
        self.incoming: dict[int, Incoming] = {}
        self._rows: list[tuple[int, int, Array]] = []  # of gradients whose parts are not added up
        self._used = 0  # numbers of those parts
        self.add_evaluation()
        if setup.training:
            self.add_forward()
            self.add_backward()
            self._add_up()

    # -- backward

    def backward_head(self, head: op.Head) -> None:
        """Add the calls for the gradients of the classifier; the rest is done in forward."""
        mean, glogits = self.pooled
        gw, gb = op.with_bias([self.gradients[i] for i in head.weights])
        if gw is not None:
            self.backward.append(partial(linear.launch_linear_backward_weight, glogits, mean, gw))
        if gb is not None:
            self.backward.append(partial(linear.launch_linear_backward_bias, glogits, gb))

    def backward_of(self, operation: op.Operation) -> None:
        """Add the calls that write the gradients of an operation's weights and input."""
        assert isinstance(operation, op.UnaryOperation)
        if operation.y in self.fusion.units:
            assert isinstance(operation, op.InterleavedGroupConvolution)
            self._backward_unit(operation)
            return
        x, gy = self.values[operation.x], self.gradient_of.pop(operation.y)
        calls = self.backward
        if isinstance(operation, op.Convolution | op.SecondaryConvolution):
            geometry = self.geometry(operation)
            gw = self.gradients[operation.w]
            if gw is not None:
                (parts,) = self._parts((gw, self.weight_shape(operation)))
                kernel_weight = partial(
                    convolution.launch_convolution_backward_weight, gy, x, parts
                )
                calls.append(partial(kernel_weight, *geometry))
        if operation.x != 0:
            gx, accumulate = self._target(operation.x)
            call: Call
            match operation:
                case op.Convolution(w=w) | op.SecondaryConvolution(w=w):
                    kernel_input = partial(
                        convolution.launch_convolution_backward_input, gy, self.weights[w]
                    )
                    call = partial(kernel_input, gx, *geometry, accumulate)
                case op.MaxPool(window=window):
                    pool = partial(
                        pooling.launch_max_pool_backward, gy, self.argmax[operation.y], gx
                    )
                    call = partial(pool, *window)
                case op.AveragePool(window=window):
                    call = partial(pooling.launch_average_pool_backward, gy, gx, *window)
                case op.Permutation(branches=branches):
                    call = partial(permutation.launch_permutation, gy, gx, x.shape[1] // branches)
                case _:
                    raise PlanError(f"GPU plans do not support {operation.name}")
            if accumulate and not isinstance(operation, op.Convolution | op.SecondaryConvolution):
                name = operation.name
                raise PlanError(f"GPU plans cannot add the gradient of {name} to another one")
            calls.append(call)
        self.release(gy)

    def backward_sum(self, operation: op.NormAddReLU) -> None:
        """Add the calls that pass a gradient on to the terms of a sum.

        The first of them leaves 0 in it where ReLU let nothing through, so that y is read once;
        where a batch norm is all there is before ReLU, its input tells that as well.
        """
        gy = g = self.gradient_of.pop(operation.y)
        y = self.values[operation.y]
        mask = (NO_RELU, WHERE_Y, WHERE_Y6)[operation.relu]
        terms = sorted(operation.terms, key=lambda term: term.norm is None)
        if mask == WHERE_Y and len(terms) == 1 and terms[0].norm is not None:
            mask, y = WHERE_NORMED, self.values[terms[0].value]  # y is not read
        elif mask != NO_RELU and self._holders[id(gy)] > 1:  # others read it as it is
            g = self.arena.take(gy.shape, self.stored)
            self.hold(g)
            self.release(gy)
        for term in terms:
            norm = None if term.norm is None else self.norms[term.norm]
            if norm:
                x, sums = self.values[term.value], self.partial_sums(self.sums_shape(term.value))
                arrays = gy, y, x, norm, sums
                self.backward.append(partial(combine.launch_combine_sums, *arrays, mask, g))
            elif mask != NO_RELU:
                skip = partial(combine.launch_skip_backward, gy, y, g, operation.relu, False)
                self.backward.append(skip)
            gy, mask = g, mask if mask == WHERE_NORMED else NO_RELU
            if norm:
                self._backward_norm(term.value, g, norm, mask)
            elif term.value in self.gradient_of:
                gx, _ = self._target(term.value)
                self.backward.append(partial(combine.launch_skip_backward, g, g, gx, 0, True))
            elif term.value != 0:
                self.gradient_of[term.value] = g
                self.hold(g)
        self.release(g)

    def _backward_norm(self, value: int, g: Array, norm: DeviceNorm, mask: int) -> None:
        """Pass the gradient of a sum on to a normalised term."""
        x = self.values[value]
        if value in self.fusion.units:  # which computes it where it is needed
            self.incoming[value] = Incoming(g, x, x, norm, mask)
            self.hold(g)
        elif value != 0:
            gx, accumulate = self._target(value)
            arrays = g, x, norm, gx
            self.backward.append(
                partial(combine.launch_combine_backward, *arrays, mask, accumulate)
            )

    def _backward_unit(self, operation: op.InterleavedGroupConvolution) -> None:
        unit = self.fusion.units[operation.y]
        incoming = self.incoming.pop(operation.y)
        weights = self.weights[operation.w1], self.weights[operation.w2]
        gw1, gw2 = self.gradients[operation.w1], self.gradients[operation.w2]
        assert gw1 is not None
        assert gw2 is not None  # fuse takes none with constant weights
        first, second = unit.partial_shapes(self.batch_size)
        parts = self._parts((gw1, first), (gw2, second))
        loaded = self.loaded(operation.x)
        kernel_weights = partial(igc.launch_igc_backward_weight, unit, incoming, *loaded)
        self.backward.append(partial(kernel_weights, weights, parts))
        target = self._target(operation.x)
        call = partial(igc.launch_igc_backward_input, unit, incoming, *weights, *target)
        self.backward.append(call)
        self.release(incoming.gy)

    def _target(self, value: int) -> tuple[Array, bool]:
        """Return what receives the gradient of a tensor, and whether it is added to."""
        gx, other = self.target(value)
        if other is not None and other is not gx:  # others still read it
            self.backward.append(
                partial(combine.launch_skip_backward, other, other, gx, NO_RELU, False)
            )
        return gx, other is not None

    def _parts(self, *gradients: tuple[Array, op.Shape]) -> tuple[Array, ...]:
        """Return memory of these shapes for the parts of gradients, which are added up later."""
        sizes = [math.prod(shape) for _, shape in gradients]
        if self._used + sum(sizes) > self.parts.size:
            self._add_up()
        arrays = []
        for (gradient, shape), size in zip(gradients, sizes, strict=True):
            self._rows.append((self._used, shape[0], gradient))
            arrays.append(self.parts[self._used : self._used + size].reshape(shape))
            self._used += size
        return tuple(arrays)

    def _add_up(self) -> None:
        """Add the launch that adds up all parts which are there."""
        if self._rows:
            sums = partial_sums(self._rows, self.parts[: self._used], self.flat_gradient)
            self.backward.append(partial(launch_sum_partials, sums))
        self._rows, self._used = [], 0
