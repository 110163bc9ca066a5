"""A network's evaluation on a CPU: batch norm folded into the weights, sums into convolutions.

With running statistics a batch norm is a factor and an addend a channel. The factor goes into the
packed weights, the addend is added when the convolution stores; where its result goes into a sum,
so are the other summand and ReLU: a residual unit is nothing but its convolutions.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..kernels import batch_norm, combine
from ..kernels.batch_norm import CompiledNorm
from ..kernels.lanes import Fields, stored
from . import graph as op

if TYPE_CHECKING:
    from .cpu_forward import CpuForward, Unit

Array = np.ndarray


class Evaluation:
    """Adds the calls of evaluation to a program.

    Memory of a tensor goes back with the last operation that takes it.

    Args:
        program: receives `refresh` and `evaluation`; its memory is used.
    """

    def __init__(self, program: CpuForward) -> None:
        self.program = program
        self.graph = program.graph
        self.lanes = program.lanes
        self.values: dict[int, Array] = {0: program.x}
        self.uses = Counter(i for o in self.graph.operations for i in o.inputs)
        self.folded = self._folded()
        self.last_terms = self._last_terms()
        for norm in program.norms:
            last = norm is program.norms[-1]
            call = partial(batch_norm.compiled_batch_norm_inference, self.lanes, norm, wait=last)
            program.refresh.append(call)
        program.refresh += program.pack_all(self.folded)
        for operation in self.graph.operations:
            self._add(operation)

    def _folded(self) -> dict[int, CompiledNorm]:
        """Return the batch norms that a convolution's weights take in, by the tensor it gives."""
        found = {}
        for y in self.program.packed:
            number = self.graph.norm_of(y)
            if number is not None:
                found[y] = self.program.norms[number]
        return found

    def _last_terms(self) -> dict[int, int]:
        """Return which convolution ends in a sum: tensor that it gives → tensor of the sum."""
        found = {}
        for operation in self.graph.operations:
            if isinstance(operation, op.NormAddReLU) and len(operation.terms) <= 2:
                units = [t.value for t in operation.terms if t.value in self.folded]
                others = [t for t in operation.terms if t.value not in self.folded]
                if units and all(term.norm is None for term in others):
                    found[max(units)] = operation.y  # numbers follow the order of execution
        return found

    def _add(self, operation: op.Operation) -> None:
        y = operation.y
        if isinstance(operation, op.Convolution | op.InterleavedGroupConvolution):
            if y not in self.last_terms:
                self._convolve(operation, y, None, relu=0)
        elif isinstance(operation, op.NormAddReLU):
            self._add_sum(operation)
        elif isinstance(operation, op.Head):
            self._add_head(operation)
        else:
            assert isinstance(operation, op.UnaryOperation)
            array = self.values[y] = self.program.activation(y)
            x = self._stored(operation.x)
            self.program.evaluation.append(self.program.transform(operation, x, array))
            self._done(operation.x)

    def _convolve(self, unit: Unit, y: int, skip: int | None, relu: int) -> None:
        """Compute a unit into tensor y, of its own or of the sum that it ends in."""
        norm = self.folded.get(unit.y)
        array = self.values[y] = self.program.activation(y)
        call = self.program.convolve(
            unit,
            self._stored(unit.x),
            array,
            bias=None if norm is None else norm.shift,
            skip=None if skip is None else self.values[skip],
            relu=relu,
        )
        self.program.evaluation.append(call)
        self._done(unit.x)

    def _add_sum(self, operation: op.NormAddReLU) -> None:
        y, relu = operation.y, operation.relu
        last = next((v for v in operation.inputs if self.last_terms.get(v) == y), None)
        if last is not None:
            unit = self.graph.producers[last]
            assert isinstance(unit, op.Convolution | op.InterleavedGroupConvolution)
            others = [v for v in operation.inputs if v != last]
            self._convolve(unit, y, others[0] if others else None, relu)
            self._done(*others)
            return
        array = self.values[y] = self.program.activation(y)
        terms = [
            self._stored(term.value)
            if term.norm is None or term.value in self.folded
            else self.program.norms[term.norm].activation(self.values[term.value], 0)
            for term in operation.terms
        ]
        call = partial(combine.compiled_combine_forward, self.lanes, terms, array, relu)
        self.program.evaluation.append(call)
        self._done(*operation.inputs)

    def _add_head(self, head: op.Head) -> None:
        program = self.program
        mean = program.array(program.layout((self.graph.shapes[head.x][0],)))
        program.evaluation += program.classify(head, self._stored(head.x), mean)

    def _stored(self, value: int) -> Fields:
        return stored(self.values[value])

    def _done(self, *values: int) -> None:
        for value in values:
            self.uses[value] -= 1
            if not self.uses[value] and value:
                self.program.arena.give(self.values.pop(value))
