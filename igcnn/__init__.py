"""igcnn: Interleaved Group Convolution networks on a deep learning engine from scratch.

The names below are loaded when they are first used, so that `import igcnn` and the command
line start fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import functional, layers, networks, optim
    from .autograd import Tensor, gradcheck, no_grad
    from .datasets import load_dataset, register_dataset
    from .networks import build_network, register_network
    from .training import Callback, fit, load_checkpoint, save_checkpoint

_HOME = {
    "Tensor": "autograd",
    "gradcheck": "autograd",
    "no_grad": "autograd",
    "build_network": "networks",
    "register_network": "networks",
    "load_dataset": "datasets",
    "register_dataset": "datasets",
    "Callback": "training",
    "fit": "training",
    "load_checkpoint": "training",
    "save_checkpoint": "training",
}
_MODULES = ("autograd", "datasets", "errors", "functional", "layers", "networks", "optim")

__all__ = [
    "Callback",
    "Tensor",
    "__version__",
    "build_network",
    "fit",
    "functional",
    "gradcheck",
    "layers",
    "load_checkpoint",
    "load_dataset",
    "networks",
    "no_grad",
    "optim",
    "register_dataset",
    "register_network",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'igcnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
