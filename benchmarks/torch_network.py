"""The networks of igcnn in PyTorch, to measure against: built from the operations of a plan."""

import numpy as np
import torch
import torch.nn.functional as F

from igcnn.plan.graph import (
    Convolution,
    Head,
    InterleavedGroupConvolution,
    MaxPool,
    NormAddReLU,
    Permutation,
)
from igcnn.plan.trace import trace

ACTIVATIONS = torch.nn.Identity(), F.relu, F.relu6  # as NormAddReLU numbers them


class TorchNetwork(torch.nn.Module):
    """The same network with the same weights.

    Args:
        network: of igcnn.
        image_shape: (C, H, W).
    """

    def __init__(self, network, image_shape):
        super().__init__()
        traced = trace(network, image_shape)
        self.graph = traced.graph
        tensors = [torch.from_numpy(t.data.copy()) for t in traced.weights]
        self.weights = torch.nn.ParameterList(
            [
                torch.nn.Parameter(t, trained)
                for t, trained in zip(tensors, self.graph.trained, strict=True)
            ]
        )
        own = {id(t): i for i, t in enumerate(network.parameters())}
        self.order = [own.get(id(t)) for t in traced.weights]
        for i, (mean, variance) in enumerate(traced.running):
            self.register_buffer(f"mean{i}", torch.from_numpy(mean.copy()))
            self.register_buffer(f"variance{i}", torch.from_numpy(variance.copy()))

    def forward(self, x):
        """Return logits."""
        values = {0: x}
        for operation in self.graph.operations:
            inputs = [values[i] for i in operation.inputs]
            values[operation.y] = self._compute(operation, *inputs)
        return values[self.graph.logits]

    def _compute(self, operation, x, *others):
        weights = [self.weights[i] for i in operation.weights]
        match operation:
            case Convolution(stride=stride, padding=padding, groups=groups):
                return F.conv2d(x, weights[0], None, stride, padding, 1, groups)
            case InterleavedGroupConvolution(stride=stride, padding=padding, L=L, S=S):
                p = F.conv2d(x, weights[0], None, stride, padding, 1, L)
                return reorder(F.conv2d(reorder(p, L), weights[1], groups=S), S)
            case NormAddReLU(terms=terms, relu=relu):
                inputs = zip((x, *others), terms, strict=True)
                total = sum(self._norm(tensor, term.norm) for tensor, term in inputs)
                return ACTIVATIONS[relu](total)
            case Permutation(branches=branches):
                return reorder(x, branches)
            case MaxPool(kernel=kernel, stride=stride, padding=padding):
                return F.max_pool2d(x, kernel, stride, padding)
            case Head():
                return F.linear(x.mean(dim=(2, 3)), *weights)
            case _:
                raise ValueError(f"no PyTorch form of {operation.name} is known here")

    def _norm(self, x, number):
        if number is None:
            return x
        norm = self.graph.norms[number]
        return F.batch_norm(
            x,
            getattr(self, f"mean{number}"),
            getattr(self, f"variance{number}"),
            self.weights[norm.gamma],
            self.weights[norm.beta],
            self.training,
            1 - norm.momentum,
            norm.eps,
        )


def reorder(x, branches):
    """Return the channels of x in the order of Reorder(branches)."""
    N, C, H, W = x.shape
    return x.view(N, branches, C // branches, H, W).transpose(1, 2).reshape(N, C, H, W)


def gradients(model, network):
    """Return the gradients as arrays, in the order of the network's parameters."""
    found = dict(zip(model.order, model.weights, strict=True))
    return [found[i].grad.cpu().numpy().copy() for i in range(len(network.parameters()))]


def channels_last(network, x):
    """Return network and images in channels-last order."""
    return network.to(memory_format=torch.channels_last), x.contiguous(
        memory_format=torch.channels_last
    )


def as_tensor(x):
    """Return an array (N, C, H, W) of any memory order as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(x))
