"""Ranks: the processes that train one network together, on one computer or many.

MPI starts and connects them and sums arrays of the host; on GPUs NCCL sums, or, where there is
no NCCL, MPI through the host. A sum is begun and waited for separately, so that the computation
can go on in between. Nobody waits for ever: a rank that died or hangs is an error on the others.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .backend import copy_to, is_on_cpu, on_device, to_host
from .errors import ConfigError, DeviceError, RankError

Array = np.ndarray

TIMEOUT = 6.0  # seconds
PATIENCE = 30  # times as long where a rank may have a reason to be late
BUSY_SECONDS = 1e-3  # of waiting without a pause
PAUSE = 5e-5
GRACE = 0.1  # seconds that a sum may still take after a signal

# variables by which those who start ranks tell them so
STARTED_BY = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "PMI_RANK")


class Communicator:
    """A process alone: sums are what they are; the base of those that connect several.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        local_rank: number of this process among those on this computer.
        local_size: how many there are on this computer.
        stopping: says whether this process was asked to end.
        timeout: seconds after which a rank that does not answer is lost.
        broken: whether a rank was lost; nothing can be summed any more.
    """

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    timeout = TIMEOUT

    def __init__(self) -> None:
        self.stopping: Callable[[], bool] = lambda: False
        self.broken = False

    def __str__(self) -> str:
        return "one process"

    def start_sum(self, array: Array) -> Callable[[], None]:
        """Begin to replace an array, contiguous, by its sum over all ranks.

        All ranks get the same bits, and all begin their sums in the same order.

        Returns:
            What waits for the sum; until then the array is not to be touched.

        Raises:
            RankError: a rank was lost, here or in the function returned.
        """
        return lambda: None

    def sum(self, array: Array) -> None:
        """Replace an array by its sum over all ranks."""
        self.start_sum(array)()

    def gather(self, data: bytes) -> list[bytes]:
        """Return what each rank gave, by rank."""
        return [data]

    def broadcast(self, data: bytes) -> bytes:
        """Return what rank 0 gave."""
        return self.gather(data if self.rank == 0 else b"")[0]

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """Context in which ranks may be late: a first step compiles, a save takes its time."""
        yield

    def abort(self, code: int) -> None:
        """End all ranks at once with an exit code; does nothing for a process alone."""


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


class NCCLCommunicator(MPICommunicator):
    """Sums arrays of GPUs by NCCL, beside the computation; arrays of the host by MPI.

    The host waits for the sums, not the GPU: behind a rank that is lost the GPU would wait for
    ever, and with it all who read from it.

    Args:
        device: "cuda:i", one GPU for each rank.

    Raises:
        DeviceError: NCCL is not there, or two ranks have the same GPU.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        import cupy

        nccl = load_nccl()
        if nccl is None:
            raise DeviceError(
                "NCCL is not there; pip install 'igcnn[nccl12]', or use --reduce mpi"
            )
        self.device = device
        identifier = self.broadcast(nccl.get_unique_id() if self.rank == 0 else b"")
        with on_device(device):
            try:
                self.nccl: Any = nccl.NcclCommunicator(self.size, identifier, self.rank)
            except nccl.NcclError as error:
                raise DeviceError(
                    f"rank {self.rank}: NCCL cannot connect {device} with the others ({error}); "
                    "give each rank a GPU of its own, or use --reduce mpi"
                ) from error
            self.stream: Any = cupy.cuda.Stream(non_blocking=True)
        self.types = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}
        self.operation = nccl.NCCL_SUM

    def __str__(self) -> str:
        return f"{self.size} ranks, summed by NCCL"

    def start_sum(self, array: Array) -> Callable[[], None]:
        """Begin a sum of arrays of the host or of this GPU."""
        if is_on_cpu(array):
            return super().start_sum(array)
        import cupy

        self._refuse_if_broken()
        on_gpu: Any = array
        with on_device(self.device):
            computing = cupy.cuda.get_current_stream()
            self.stream.wait_event(computing.record())
            pointer, kind = on_gpu.data.ptr, self.types[str(array.dtype)]
            self.nccl.allReduce(
                pointer, pointer, array.size, kind, self.operation, self.stream.ptr
            )
            done = self.stream.record()
        return lambda: self._finish(lambda: done.done)

    def _finish(self, is_done: Callable[[], bool]) -> None:
        """Wait until a sum is done; without it end those that are left on the GPU."""
        try:
            super()._finish(is_done)
        except RankError:
            self.nccl.abort()
            raise


def is_one_of_several() -> bool:
    """Return whether mpiexec or srun started this process as a rank."""
    return any(name in os.environ for name in STARTED_BY)


def connect() -> Communicator:
    """Return what connects this process with the ranks started beside it, if any.

    Raises:
        DeviceError: MPI cannot be used.
    """
    return MPICommunicator() if is_one_of_several() else Communicator()


def for_device(communicator: Communicator, device: str, reduce: str) -> Communicator:
    """Return the communicator that sums what lies on a device.

    Args:
        communicator: what connect returned.
        device: "cpu", "emu" or "cuda:i".
        reduce: "auto", "nccl" or "mpi": what sums on GPUs.

    Raises:
        ConfigError: there is no such `reduce`, or not for this device.
        DeviceError: NCCL cannot be used.
    """
    if reduce not in ("auto", "nccl", "mpi"):
        raise ConfigError(f"reduce must be auto, nccl or mpi, not {reduce!r}")
    if reduce == "nccl" and not device.startswith("cuda"):
        raise ConfigError(f"reduce nccl is for GPUs, not for {device}; leave it out")
    if not isinstance(communicator, MPICommunicator) or device == "cpu":
        return communicator
    if device == "emu" or reduce == "mpi" or (reduce == "auto" and load_nccl() is None):
        return StagedCommunicator()
    return NCCLCommunicator(device)


def load_nccl() -> Any:
    """Return CuPy's module of NCCL, None where the library is not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns at length then
        try:
            nccl = importlib.import_module("cupy.cuda.nccl")
        except ImportError:
            return None
    return nccl if nccl.available else None
