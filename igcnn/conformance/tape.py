"""Asks igcnn's own functions on a device: NumPy, the emulator of CUDA, or a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import Tensor
from ..backend import on_device, to_device, to_host
from .problem import EPS

Array = np.ndarray


def results(
    device: str, op: str, inputs: dict[str, Array], options: dict[str, Any]
) -> dict[str, Array]:
    """Return what igcnn computes; see libraries.py."""
    gy, labels = inputs.pop("gy", None), inputs.pop("labels", np.empty(0))
    with on_device(device):
        tensors = {
            name: Tensor(to_device(array, device), requires_grad=True)
            for name, array in inputs.items()
        }
        statistics: dict[str, Array] = {}
        match op:
            case "convolution":
                y = F.conv2d(tensors["x"], tensors["w"], tensors["b"], **options)
            case "permutation":
                y = F.permute_channels(tensors["x"], **options)
            case "interleaved_group_convolution":
                weights = tensors["w1"], tensors["w2"]
                y = F.interleaved_group_conv2d(tensors["x"], *weights, **options)
            case "batch_norm":
                mean, variance = (to_device(np.zeros_like(inputs["beta"]), device) for _ in "mv")
                weights = tensors["gamma"], tensors["beta"]
                y = F.batch_norm(tensors["x"], *weights, mean, variance, True, 0.0, EPS)
                statistics = {"mean": mean, "variance": variance}
            case "max_pool":
                y = F.max_pool2d(tensors["x"], **options)
            case "average_pool":
                y = F.avg_pool2d(tensors["x"], **options)
            case "cross_entropy":
                y = F.cross_entropy(tensors["x"], labels)
            case _:
                raise NotImplementedError(op)
        y.backward(None if gy is None else to_device(gy, device))
        arrays = {f"g{name}": tensor.grad for name, tensor in tensors.items()}
        arrays |= {"y": y.data} | statistics
        return {name: to_host(array) for name, array in arrays.items() if array is not None}
