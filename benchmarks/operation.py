"""One operation, forward and forward with backward: tape, compiled kernels and PyTorch.

The compiled kernels have their images side by side from the beginning, as in a plan. There most
of these operations are no launch of their own, but part of a convolution's.
"""

import argparse
import os
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from harness import measure, ratios, save

from igcnn import Tensor, no_grad
from igcnn.backend import keep_memory, single_threaded_blas
from igcnn.kernels.compiled import recording, unavailable
from igcnn.kernels.lanes import Lanes

CALLS = 5  # one after another, of each engine in a round
REST = 0.02  # seconds between engines
THREADS = sorted({1, os.cpu_count() or 1})


@dataclass
class Case:
    """What to compare.

    Attributes:
        inputs: arrays, gradients of all of which are computed.
        ours: from Tensors to a Tensor.
        theirs: from PyTorch's tensors to its.
        compiled: from a Vectors, the gradient of the result and the inputs to three functions:
            one that launches the forward kernels, one for those of backward, and one that
            returns the result and the gradients.
    """

    inputs: list[np.ndarray]
    ours: Any
    theirs: Any
    compiled: Any = None


class Vectors(Lanes):
    """How the compiled kernels keep a batch, and memory for it."""

    def __init__(self, batch_size):
        super().__init__(batch_size, "float32")

    def array(self, *shape, dtype="float32"):
        """Return memory that begins on a cache line."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.zeros(size + 64, np.uint8)
        begin = -raw.ctypes.data % 64
        return raw[begin : begin + size].view(dtype).reshape(shape)

    def empty(self, shape):
        """Return memory for (N, C, H, W) or (N, K)."""
        return self.array(*self.layout(tuple(shape[1:])))

    def put(self, x):
        """Return images, (N, C, H, W) or (N, K), as vectors."""
        array = self.empty(x.shape)
        if x.ndim == 4:
            self.load(x, array)
        else:
            # (blocks·lanes, K) → (blocks, K, lanes)
            array[...] = x.reshape(self.blocks, self.lanes, -1).transpose(0, 2, 1)
        return array

    def get(self, array):
        """Return the images of vectors."""
        axes = (0, 4, 2, 1, 3) if array.ndim == 5 else (0, 2, 1)
        folded = array.transpose(axes)  # (blocks, lanes, C, H, W) or (blocks, lanes, K)
        return folded.reshape(-1, *folded.shape[2:])[: self.batch_size]


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
                result["cases"][name][direction] = compare(direction, engines, rounds)
    save(stem, result)


def compare(direction, engines, rounds):
    """Time engines, print a line, and return seconds and ratios to the tape's as JSON."""
    seconds = measure(engines, rounds, calls=CALLS, rest=REST)
    relative = ratios(seconds, "tape")
    others = [f"{name} {ratio:.2f}" for name, ratio in relative.items() if name != "tape"]
    own = 1e3 * median(seconds["tape"])
    print(f"  {direction:22} tape {own:8.3f} ms, others / tape: {' | '.join(others)}", flush=True)
    return {"seconds": seconds, "time / tape": relative}


def on_threads(name):
    """Yield numbers of threads, and the name of an engine with each."""
    for threads in THREADS:
        yield threads, f"{name}, {threads} thread{'s' * (threads > 1)}"


def recorded(*launches):
    """Return a recording of what functions launch."""
    with recording() as result:
        for function in launches:
            function()
    return result


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

    result = {"forward": {"tape": forward}, "forward and backward": {"tape": both}}
    if case.compiled and not unavailable():
        _add_compiled(case, gy, result)
    for threads, name in on_threads("PyTorch"):
        parts = _torch_engine(case, gy, threads)
        for direction, function in zip(result, parts, strict=True):
            result[direction][name] = function
    return result


def _add_compiled(case, gy, result):
    batch = Vectors(len(case.inputs[0]))
    forward, backward, results = case.compiled(batch, gy, *case.inputs)
    recordings = [recorded(forward), recorded(forward, backward)]
    for threads, name in on_threads("compiled"):

        def run_forward(threads=threads):
            recordings[0].run(threads)
            return lambda: results()[:1]  # whoever wants to see it, outside of the timing

        def run_both(threads=threads):
            recordings[1].run(threads)
            return results

        result["forward"][name] = run_forward
        result["forward and backward"][name] = run_both


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
    expected = engines["tape"]()
    for name, function in engines.items():
        found = function()
        if callable(found):
            found = found()
        for own, other in zip(expected, found, strict=True):
            scale = max(np.abs(own).max(), 1e-6)
            assert np.abs(own - other).max() < 1e-4 * scale, (what, name)
