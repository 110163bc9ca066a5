"""The networks of igcnn in PyTorch, to measure against: built from the operations of a plan."""

import numpy as np
import torch
import torch.nn.functional as F

from igcnn.plan.graph import trace


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
        for node in self.graph.nodes:
            values[node.output] = self._node(node, [values[i] for i in node.inputs])
        return values[self.graph.logits]

    def _node(self, node, inputs):
        x = inputs[0]
        weights = [self.weights[i] for i in node.weights]
        if node.op == "convolution":
            g = node.geometry
            return F.conv2d(
                x, weights[0], None, tuple(g["stride"]), tuple(g["padding"]), 1, g["groups"]
            )
        if node.op == "mix":
            L, S = node.partitions["L"], node.partitions["S"]
            return reorder(F.conv2d(reorder(x, L), weights[0], groups=S), S)
        if node.op == "combine":
            total = sum(self._norm(x, t.norm) for x, t in zip(inputs, node.terms, strict=True))
            return F.relu(total) if node.relu else total
        if node.op == "global_average_pool":
            return x.mean(dim=(2, 3))
        if node.op == "linear":
            return F.linear(x, *weights)
        assert node.op == "max_pool"
        return F.max_pool2d(x, *node.arguments)

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
