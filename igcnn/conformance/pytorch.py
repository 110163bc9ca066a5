"""Asks PyTorch, on the CPU. Arrays keep their memory order on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .problem import EPS

Array = np.ndarray


def results(op: str, inputs: dict[str, Array], options: dict[str, Any]) -> dict[str, Array]:
    """Return what PyTorch computes; see libraries.py. It keeps no biased variance of a batch."""
    gy, labels = inputs.pop("gy", None), inputs.pop("labels", None)
    tensors = {n: torch.from_numpy(array).requires_grad_() for n, array in inputs.items()}
    statistics = {}
    match op:
        case "convolution":
            y = F.conv2d(tensors["x"], tensors["w"], tensors["b"], **options)
        case "permutation":
            y = F.channel_shuffle(tensors["x"], options["branches"])
        case "interleaved_group_convolution":
            y = _unit(*tensors.values(), **options)
        case "batch_norm":
            mean, variance = torch.zeros_like(tensors["gamma"]), torch.ones_like(tensors["gamma"])
            weights = tensors["gamma"], tensors["beta"]
            y = F.batch_norm(tensors["x"], mean, variance, *weights, True, 1.0, EPS)
            statistics = {"mean": mean.detach().numpy()}
        case "max_pool":
            y = F.max_pool2d(tensors["x"], **options)
        case "average_pool":
            y = F.avg_pool2d(tensors["x"], **options)
        case "cross_entropy":
            y = F.cross_entropy(tensors["x"], torch.from_numpy(labels))
        case _:
            raise NotImplementedError(op)
    y.backward(None if gy is None else torch.from_numpy(gy))
    gradients = {f"g{name}": tensor.grad.numpy() for name, tensor in tensors.items()}
    return {"y": y.detach().numpy()} | gradients | statistics


def _unit(
    x: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    stride: int,
    padding: int,
    L: int,
    secondary_groups: int,
) -> torch.Tensor:
    p = F.conv2d(x, w1, stride=stride, padding=padding, groups=L)
    q = F.conv2d(F.channel_shuffle(p, L), w2, groups=secondary_groups)
    return F.channel_shuffle(q, secondary_groups)
