"""Ranks whose GPUs are summed by NCCL."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import is_on_cpu, on_device
from ..errors import DeviceError, RankError
from .mpi import MPICommunicator

Array = np.ndarray


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


def load_nccl() -> Any:
    """Return CuPy's module of NCCL, None where the library is not there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns at length then
        try:
            nccl = importlib.import_module("cupy.cuda.nccl")
        except ImportError:
            return None
    return nccl if nccl.available else None
