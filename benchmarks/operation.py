"""One operation on the tape against the same in PyTorch, forward and forward with backward."""

import argparse
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from harness import measure, ratios, save

from igcnn import Tensor, no_grad
from igcnn.backend import keep_memory, single_threaded_blas


@dataclass
class Case:
    """What to compare.

    Attributes:
        inputs: arrays, gradients of all of which are computed.
        ours: from Tensors to a Tensor.
        theirs: from PyTorch's tensors to its.
    """

    inputs: list[np.ndarray]
    ours: Any
    theirs: Any


def images(*shape):
    """Return random images in the memory order of igcnn's convolutions."""
    N, C, H, W = shape
    x = np.empty((C, H, W, N), np.float32).transpose(3, 0, 1, 2)
    x[...] = np.random.default_rng(0).standard_normal(shape)
    return x


def normal(*shape):
    """Return random numbers."""
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def run(stem, description, cases):
    """Check that results are equal, time, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    keep_memory()
    result: dict[str, Any] = {"torch": torch.__version__, "cases": {}}
    with single_threaded_blas():
        for name, case in cases.items():
            print(f"\n{name}")
            result["cases"][name] = {}
            for direction, engines in _engines(case).items():
                _check(f"{name}, {direction}", engines)
                seconds = measure(engines, rounds)
                relative = ratios(seconds, "igcnn")
                result["cases"][name][direction] = {"seconds": seconds, "times igcnn": relative}
                own = 1e3 * sorted(seconds["igcnn"])[rounds // 2]
                others = [f"{n} {r:.2f} ×" for n, r in relative.items() if n != "igcnn"]
                print(f"  {direction:22} igcnn {own:7.3f} ms | {' | '.join(others)}")
    save(stem, result)


def _engines(case):
    """Return {direction: {engine: function that returns y and gradients}}."""
    tensors = [Tensor(array, requires_grad=True) for array in case.inputs]
    gy = np.empty_like(case.ours(*tensors).data)
    gy[...] = np.random.default_rng(2).standard_normal(gy.shape)

    def forward():
        with no_grad():
            return [case.ours(*tensors).data]

    def both():
        for tensor in tensors:
            tensor.grad = None
        y = case.ours(*tensors)
        y.backward(gy)
        return [y.data, *(tensor.grad for tensor in tensors)]

    result = {"forward": {"igcnn": forward}, "forward and backward": {"igcnn": both}}
    for threads in sorted({1, os.cpu_count() or 1}):
        name = f"PyTorch, {threads} thread{'s' if threads > 1 else ''}"
        parts = _torch_engine(case, gy, threads)
        for direction, function in zip(result, parts, strict=True):
            result[direction][name] = function
    return result


def _torch_engine(case, gy, threads):
    tensors = [torch.from_numpy(np.ascontiguousarray(a)).requires_grad_() for a in case.inputs]
    cotangent = torch.from_numpy(np.ascontiguousarray(gy).reshape(gy.shape))

    def forward():
        torch.set_num_threads(threads)
        with torch.no_grad():
            return [case.theirs(*tensors).numpy()]

    def both():
        torch.set_num_threads(threads)
        y = case.theirs(*tensors)
        gradients = torch.autograd.grad(y, tensors, cotangent)
        return [y.detach().numpy(), *(g.numpy() for g in gradients)]

    return forward, both


def _check(what, engines):
    expected = engines["igcnn"]()
    for name, function in engines.items():
        for own, other in zip(expected, function(), strict=True):
            scale = max(np.abs(own).max(), 1e-6)
            assert np.abs(own - other).max() < 1e-4 * scale, (what, name)
