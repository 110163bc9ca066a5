"""Training on several processes: connecting ranks, summing gradients, agreeing on a run."""

from .agreement import Agreement
from .communicator import Communicator
from .connect import connect, for_device, is_one_of_several
from .reducer import Reducer

__all__ = [
    "Agreement",
    "Communicator",
    "Reducer",
    "connect",
    "for_device",
    "is_one_of_several",
]
