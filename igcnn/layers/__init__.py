"""Differentiable operations and layers: the tape's side of each kernel, one op a file."""

from .batch_norm import BatchNorm
from .convolution import Convolution
from .interleaved_group_convolution import InterleavedGroupConvolution
from .interleaved_product import InterleavedProduct
from .layer import Chain, Layer, forward_hook
from .linear import Linear
from .modes import in_mode, undisturbed
from .pooling import GlobalAveragePool, MaxPool
from .relu import ReLU
from .relu6 import ReLU6

__all__ = [
    "BatchNorm",
    "Chain",
    "Convolution",
    "GlobalAveragePool",
    "InterleavedGroupConvolution",
    "InterleavedProduct",
    "Layer",
    "Linear",
    "MaxPool",
    "ReLU",
    "ReLU6",
    "forward_hook",
    "in_mode",
    "undisturbed",
]
