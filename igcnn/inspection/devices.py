"""The same layer on the CPU, on the emulator and on GPUs: how far the results are apart."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor
from ..backend import gpu_count, to_device, to_host
from ..compiler import missing_compiler
from ..layers import Layer
from .activations import Seen

Array = np.ndarray


@dataclass(frozen=True)
class DeviceDifference:
    """A layer on a device against the CPU.

    A unit in the last place (ulp) is the distance to the next number of the element type.

    Attributes:
        device: "emu" or "cuda:0".
        array: "y", or the gradient of a tensor: "gx", or `g_` and the parameter's name.
        ulps: largest `|device − CPU|`, in ulps of the largest number of the array.
        ulps_of_element: largest, each in ulps of the element itself; large where a sum cancels.
        equal: share of bit-identical elements, from 0 to 1.
    """

    device: str
    array: str
    ulps: float
    ulps_of_element: float
    equal: float


def other_devices() -> list[str]:
    """Return the devices besides the CPU: "emu" if there is a compiler, "cuda:0" if a GPU."""
    found = [] if missing_compiler(wheel=False) else ["emu"]
    return [*found, *(["cuda:0"] if gpu_count() else [])]


def compare_devices(seen: Seen, devices: list[str], seed: int = 0) -> list[DeviceDifference]:
    """Return output and gradients of a layer on other devices against those on the CPU.

    Args:
        seen: a layer and an input that it had on the CPU, float32.
        devices: "emu", "cuda:0", ….
        seed: of the gradient of the output, standard normal.
    """
    rng = np.random.default_rng(seed)
    gy = rng.standard_normal(seen.y.shape).astype(seen.y.dtype)
    on_cpu = dict(_run(seen.layer, seen.x, gy, "cpu"))
    result = []
    for device in devices:
        for name, array in _run(seen.layer, seen.x, gy, device):
            result.append(DeviceDifference(device, name, *_apart(array, on_cpu[name])))
    return result


def _run(layer: Layer, x: Array, gy: Array, device: str) -> Iterator[tuple[str, Array]]:
    """Yield name and array of the output and every gradient, on the host."""
    own = copy.deepcopy(layer).to(device)
    own.zero_grad()
    tensor = Tensor(to_device(np.ascontiguousarray(x), device), requires_grad=True)
    y = own(tensor)
    yield "y", y.numpy()
    y.backward(to_device(gy, device))
    for name, leaf in (("gx", tensor), *((f"g_{n}", t) for n, t in own.named_parameters())):
        if leaf.grad is not None:
            yield name, to_host(leaf.grad)


def _apart(a: Array, b: Array) -> tuple[float, float, float]:
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    largest = np.abs(b).max()
    # below the smallest normal number the distance stays the same
    smallest = np.finfo(b.dtype).smallest_normal
    ulp = np.spacing(np.maximum(np.maximum(np.abs(a), np.abs(b)), smallest))
    return (
        float(difference.max() / np.spacing(max(largest, smallest))),
        float((difference / ulp).max()),
        float((a == b).mean()),
    )
