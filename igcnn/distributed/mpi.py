"""Ranks connected by MPI, which sums arrays of the host; those of devices go through the host."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..backend import copy_to, is_on_cpu, to_host
from ..errors import DeviceError, RankError
from .communicator import Communicator

Array = np.ndarray

PATIENCE = 30  # times as long where a rank may have a reason to be late
BUSY_SECONDS = 1e-3  # of waiting without a pause
PAUSE = 5e-5
GRACE = 0.1  # seconds that a sum may still take after a signal


class MPICommunicator(Communicator):
    """Ranks that MPI connects; sums arrays of the host.

    Raises:
        DeviceError: mpi4py is not there, or belongs to another MPI than what started the ranks.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise DeviceError(
                f"started as one of several ranks, but mpi4py cannot be used ({reason}); "
                "pip install 'igcnn[mpi]'"
            ) from error
        self.MPI: Any = MPI
        self.world: Any = MPI.COMM_WORLD
        self.rank, self.size = self.world.rank, self.world.size
        started = int(os.environ.get("OMPI_COMM_WORLD_SIZE", self.size))
        if started != self.size:
            raise DeviceError(
                f"{started} ranks were started, but mpi4py sees {self.size}: it belongs to "
                "another MPI; use the mpiexec beside this Python (pip install 'igcnn[mpi]')"
            )
        neighbours = self.world.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = neighbours.rank, neighbours.size

    def __str__(self) -> str:
        return f"{self.size} ranks, summed by MPI"

    def start_sum(self, array: Array) -> Callable[[], None]:
        """Begin a sum of arrays of the host."""
        self._refuse_if_broken()
        request = self.world.Iallreduce(self.MPI.IN_PLACE, array)
        return lambda: self._finish(request.Test)

    def gather(self, data: bytes) -> list[bytes]:
        """Return what each rank gave, by rank."""
        self._refuse_if_broken()
        mine = np.frombuffer(data, np.uint8)
        sizes = np.zeros(self.size, np.int64)
        sizes[self.rank] = mine.size
        self.sum(sizes)
        received = np.empty(int(sizes.sum()), np.uint8)
        self._finish(self.world.Iallgatherv(mine, [received, sizes.tolist()]).Test)
        ends = np.cumsum(sizes).tolist()
        return [received[e - s : e].tobytes() for e, s in zip(ends, sizes.tolist(), strict=True)]

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """Context in which the timeout is 30 times as long."""
        before = self.timeout
        self.timeout *= PATIENCE
        try:
            yield
        finally:
            self.timeout = before

    def abort(self, code: int) -> None:
        """End all ranks at once with an exit code."""
        self.world.Abort(code)

    def _finish(self, is_done: Callable[[], bool]) -> None:
        """Wait until a sum is done.

        Raises:
            RankError: a rank was lost.
        """
        began = time.monotonic()
        while not is_done():
            waited = time.monotonic() - began
            if waited > self.timeout or (waited > GRACE and self.stopping()):
                self.broken = True
                raise RankError(
                    f"rank {self.rank}: another rank ended, or did not answer for {waited:.1f} s "
                    "(--rank-timeout)"
                )
            if waited > BUSY_SECONDS:
                time.sleep(PAUSE)

    def _refuse_if_broken(self) -> None:
        if self.broken:
            raise RankError(f"rank {self.rank}: another rank was lost")


class StagedCommunicator(MPICommunicator):
    """Sums arrays of devices through the host: for GPUs without NCCL, and the emulator."""

    def __str__(self) -> str:
        return f"{self.size} ranks, summed by MPI through the host"

    def start_sum(self, array: Array) -> Callable[[], None]:
        """Begin a sum of arrays of the host or of devices."""
        if is_on_cpu(array):
            return super().start_sum(array)
        staged = np.array(to_host(array), order="C")
        wait = super().start_sum(staged)

        def finish() -> None:
            wait()
            copy_to(array, staged)

        return finish
