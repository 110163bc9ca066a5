"""The operations as functions of tensors, gathered from igcnn.layers and the operators."""

from .autograd.arithmetic import exp, log
from .layers.add import add
from .layers.batch_norm import batch_norm
from .layers.convolution import conv2d
from .layers.interleaved_group_convolution import (
    interleaved_group_conv2d,
    interleaved_group_conv2d_steps,
)
from .layers.interleaved_product import interleaved_product
from .layers.linear import linear
from .layers.permutation import permute_channels
from .layers.pooling import avg_pool2d, global_avg_pool2d, max_pool2d
from .layers.relu import relu
from .layers.relu6 import relu6
from .layers.softmax_cross_entropy import cross_entropy

__all__ = [
    "add",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "exp",
    "global_avg_pool2d",
    "interleaved_group_conv2d",
    "interleaved_group_conv2d_steps",
    "interleaved_product",
    "linear",
    "log",
    "max_pool2d",
    "permute_channels",
    "relu",
    "relu6",
]
