"""A network's passes on a GPU or the emulator: the backward pass, beside forward."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..errors import PlanError
from ..kernels import combine, convolution, linear, permutation, pooling
from ..kernels import interleaved_group_convolution as igc
from ..kernels.combine import NO_RELU, WHERE_NORMED, WHERE_Y, WHERE_Y6
from ..kernels.interleaved_group_convolution import Incoming
from . import graph as op
from .gpu_forward import GpuForward
from .program import Call, Setup

Array = np.ndarray


class GpuProgram(GpuForward):
    """The passes of a network on a GPU or the emulator; see GpuForward."""

    def __init__(self, setup: Setup, stored: str, shared_bytes: int) -> None:
        super().__init__(setup, stored, shared_bytes)
        self.incoming: dict[int, Incoming] = {}
        self.add_evaluation()
        if setup.training:
            self.add_forward()
            self.add_backward()

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
                sums = self.partial_sums(self.weight_shape(operation))
                kernel_weight = partial(
                    convolution.launch_convolution_backward_weight, gy, x, gw, sums
                )
                calls.append(partial(kernel_weight, *geometry))
        if operation.x != 0:
            gx, other = self.target(operation.x)
            call: Call
            match operation:
                case op.Convolution(w=w) | op.SecondaryConvolution(w=w):
                    kernel_input = partial(
                        convolution.launch_convolution_backward_input, gy, self.weights[w]
                    )
                    call = partial(kernel_input, gx, *geometry, other is not None)
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
                    raise PlanError(f"{operation.name} has no planned form on a GPU")
            if other is not None and not isinstance(
                operation, op.Convolution | op.SecondaryConvolution
            ):
                name = operation.name
                raise PlanError(f"the gradient of {name} cannot be added to another on a GPU")
            calls.append(call)
        self.release(gy)

    def backward_sum(self, operation: op.NormAddReLU) -> None:
        """Add the calls that pass a gradient on to the terms of a sum."""
        gy = self.gradient_of.pop(operation.y)
        y = self.values[operation.y]
        if operation.y in self.fusion.recomputed:
            y = self.values[operation.inputs[0]]  # not read
        for term in operation.terms:
            x = self.values[term.value]
            norm = None if term.norm is None else self.norms[term.norm]
            if norm:
                mask = (NO_RELU, WHERE_Y, WHERE_Y6)[operation.relu]
                if mask == WHERE_Y and len(operation.terms) == 1:
                    mask = WHERE_NORMED
                sums = self.partial_sums(self.norm_shape(term.value))
                self.backward.append(
                    partial(combine.launch_combine_sums, gy, y, x, norm, sums, mask)
                )
                if term.value in self.fusion.units:
                    self.incoming[term.value] = Incoming(gy, y, x, norm, mask)
                    self.hold(gy)
                    continue
            if term.value == 0:
                continue
            gx, other = self.target(term.value)
            flags = operation.relu, other is not None
            if norm:
                self.backward.append(
                    partial(combine.launch_combine_backward, gy, y, x, norm, gx, *flags)
                )
            else:
                self.backward.append(partial(combine.launch_skip_backward, gy, y, gx, *flags))
        self.release(gy)

    def _backward_unit(self, operation: op.InterleavedGroupConvolution) -> None:
        unit = self.fusion.units[operation.y]
        incoming = self.incoming.pop(operation.y)
        weights = self.weights[operation.w1], self.weights[operation.w2]
        gw1, gw2 = self.gradients[operation.w1], self.gradients[operation.w2]
        assert gw1 is not None
        assert gw2 is not None  # fuse takes none with constant weights
        first, second = unit.partial_shapes(self.batch_size)
        partials = self.partial_sums(first), self.partial_sums(second, second=True)
        loaded = self.loaded(operation.x)
        kernel_weights = partial(igc.launch_igc_backward_weight, unit, incoming, *loaded)
        self.backward.append(partial(kernel_weights, weights, (gw1, gw2), partials))
        gx, other = self.target(operation.x)
        call = partial(
            igc.launch_igc_backward_input, unit, incoming, *weights, gx, other is not None
        )
        self.backward.append(call)
        self.release(incoming.gy)
