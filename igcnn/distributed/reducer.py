"""Means over the ranks, of gradients and of what else all ranks have to agree on.

With n_r of the B images of a batch on rank r, the gradient of the mean loss over the batch is

    g = Σ_r n_r/B · g_r

Gradients are summed in buckets, each begun as soon as backward has completed its last one, so
that the ranks exchange the gradients of late layers while early ones are still computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ..autograd import Function, Hook, Tape, Tensor
from ..backend import device_of, to_device, to_host
from .communicator import Communicator

Array = np.ndarray

BUCKET_BYTES = 1 << 18  # below it an exchange costs more in waiting than in bytes


class Bucket:
    """Some parameters whose gradients are summed at once.

    Args:
        tensors: the parameters; all on one device, of one element type.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        size = sum(tensor.size for tensor in tensors)
        first = tensors[0]
        self.flat = to_device(np.zeros(size, first.dtype), first.device)
        self.views: dict[int, Array] = {}
        self.tensors = tensors
        start = 0
        for tensor in tensors:
            view = self.flat[start : start + tensor.size]
            self.views[id(tensor)] = view.reshape(tensor.shape)
            start += tensor.size
        self.missing = len(tensors)


class Reducer:
    """Sums the gradients of a step over the ranks, and its loss and right answers.

    Args:
        communicator: connects the ranks.
        tensors: the parameters, in the order of computation; backward completes the last first.
        buffers: running statistics, of which all ranks keep the mean.
        share: of the batch's images, what this rank has.
        bucket_bytes: of gradients that are summed at once, at least, but for the last.
    """

    def __init__(
        self,
        communicator: Communicator,
        tensors: list[Tensor],
        buffers: Iterable[Array],
        share: float,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self.communicator = communicator
        self.buffers = list(buffers)
        self.share = share
        self.buckets: list[Bucket] = []
        group: list[Tensor] = []
        for tensor in reversed(tensors):
            group.append(tensor)
            if sum(t.data.nbytes for t in group) >= bucket_bytes:
                self.buckets.append(Bucket(group))
                group = []
        if group:
            self.buckets.append(Bucket(group))
        self._bucket_of = {id(t): bucket for bucket in self.buckets for t in bucket.tensors}
        self._waits: list[Callable[[], None]] = []
        self._before: list[Array] = []
        self._begun = 0

    def begin(self) -> None:
        """Be ready for a step."""
        for bucket in self.buckets:
            bucket.missing = len(bucket.tensors)
        self._begun = 0
        self._waits = []
        self._before = [buffer.copy() for buffer in self.buffers]

    def ready(self, tensor: Tensor) -> None:
        """Take the gradient of a parameter, which is complete; one that is frozen is left out.

        Raises:
            RankError: a rank was lost.
        """
        bucket = self._bucket_of.get(id(tensor))
        if bucket is None:
            return
        bucket.views[id(tensor)][...] = tensor.grad
        bucket.missing -= 1
        # in their order: the ranks would sum different things otherwise
        while self._begun < len(self.buckets) and not self.buckets[self._begun].missing:
            flat = self.buckets[self._begun].flat
            self._waits.append(self.communicator.start_mean(flat, self.share))
            self._begun += 1

    def finish(self, loss: float, correct: int) -> tuple[float, int]:
        """Give the parameters and buffers their means; return mean loss and right answers.

        Raises:
            RankError: a rank was lost.
        """
        statistics = [to_host(buffer).ravel() for buffer in self.buffers]
        flat = np.concatenate([[0.0, 0.0], *statistics]) * self.share
        flat[:2] = loss * self.share, correct
        self._waits.append(self.communicator.start_sum(flat))
        for wait in self._waits:
            wait()
        start = 2
        for buffer in self.buffers:
            values = flat[start : start + buffer.size].reshape(buffer.shape)
            buffer[...] = to_device(values.astype(buffer.dtype), device_of(buffer))
            start += buffer.size
        for bucket in self.buckets[: self._begun]:
            for tensor in bucket.tensors:
                tensor.grad = bucket.views[id(tensor)]
        return float(flat[0]), round(flat[1])

    def restore(self) -> None:
        """Let the buffers be as they were before the step."""
        for buffer, before in zip(self.buffers, self._before, strict=True):
            buffer[...] = before


class CompletionHook(Hook):
    """Tells of the parameters whose gradients are complete while a tape runs backward.

    Args:
        tape: runs next.
        ready: called with a parameter.
    """

    def __init__(self, tape: Tape, ready: Callable[[Tensor], None]) -> None:
        self.ready = ready
        self._complete: list[list[Tensor]] = [[] for _ in tape]
        known: set[int] = set()
        for place, record in enumerate(tape):
            for x in record.inputs:
                if x.record is None and x.requires_grad and id(x) not in known:
                    known.add(id(x))
                    self._complete[place].append(x)
        self._done: list[Tensor] = []

    def before_backward(self, function: Function, gy: Array) -> None:
        """The record before this one is through, the gradients of its leaves added."""
        self._tell()
        self._done = self._complete.pop()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        if exception[0] is None:
            self._tell()

    def _tell(self) -> None:
        for tensor in self._done:
            self.ready(tensor)
        self._done = []
