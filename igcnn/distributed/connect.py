"""Which communicator a process takes: by who started it, and for the device it computes on."""

from __future__ import annotations

import os

from ..errors import ConfigError
from .communicator import Communicator
from .mpi import MPICommunicator, StagedCommunicator
from .nccl import NCCLCommunicator, load_nccl

REDUCTIONS = ("auto", "nccl", "mpi")
# variables by which those who start ranks tell them so
STARTED_BY = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "PMI_RANK")


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
        reduce: one of REDUCTIONS, what sums on GPUs.

    Raises:
        ConfigError: there is no such `reduce`, or not for this device.
        DeviceError: NCCL cannot be used.
    """
    if reduce not in REDUCTIONS:
        raise ConfigError(f"reduce must be one of {', '.join(REDUCTIONS)}, not {reduce!r}")
    if reduce == "nccl" and not device.startswith("cuda"):
        raise ConfigError(f"reduce nccl is for GPUs, not for {device}; leave it out")
    if not isinstance(communicator, MPICommunicator) or device == "cpu":
        return communicator
    if device == "emu" or reduce == "mpi" or (reduce == "auto" and load_nccl() is None):
        return StagedCommunicator()
    return NCCLCommunicator(device)
