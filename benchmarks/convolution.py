"""Grouped and dense convolution against PyTorch, forward and both gradients.

    pip install -e ".[bench]" && python benchmarks/convolution.py

Results are compared before anything is timed. igcnn computes on one thread; PyTorch is timed
with one thread and with all cores. Memory order is each engine's own best of those listed.

The limit: a 3×3 layer of 24 × 2 channels on 32×32, batch 64, has 113 million multiply-adds and
touches 25 MB (image in, image out). At 95 GFLOP/s on a core that is 2.4 ms, at 15 GB/s 1.7 ms.
"""

import argparse
import os

import numpy as np
import torch
from harness import measure, ratios, save

from igcnn.backend import single_threaded_blas
from igcnn.kernels.convolution import (
    convolution_backward_input,
    convolution_backward_weight,
    convolution_forward,
)

# name: channels in, channels out, image size, kernel, stride, padding, groups
LAYERS = {
    "24 × 2 channels, 32×32": (48, 48, 32, 3, 1, 1, 24),
    "24 × 4 channels, 16×16": (96, 96, 16, 3, 1, 1, 24),
    "24 × 8 channels, 8×8": (192, 192, 8, 3, 1, 1, 24),
    "24 × (2→4), 32×32, stride 2": (48, 96, 32, 3, 2, 1, 24),
    "dense 16, 32×32": (16, 16, 32, 3, 1, 1, 1),
    "dense 64, 8×8": (64, 64, 8, 3, 1, 1, 1),
}


def compare(layer, batch, rounds):
    """Check equality, then time; return {direction: {engine: [seconds]}}."""
    C, C_out, size, K, stride, padding, groups = layer
    geometry = stride, padding, groups
    rng = np.random.default_rng(0)
    x = np.empty((C, size, size, batch), np.float32).transpose(3, 0, 1, 2)
    x[...] = rng.standard_normal(x.shape)
    w = rng.standard_normal((C_out, C // groups, K, K)).astype(np.float32)
    y = convolution_forward(x, w, *geometry)
    gy = np.empty_like(y)
    gy[...] = rng.standard_normal(y.shape)
    tensors = {
        "PyTorch": [torch.from_numpy(np.ascontiguousarray(a)) for a in (x, w, gy)],
        "PyTorch channels-last": [
            torch.from_numpy(np.ascontiguousarray(a)).contiguous(memory_format=torch.channels_last)
            for a in (x, w, gy)
        ],
    }
    options = [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups

    def gradient(tx, tw, tgy, mask):
        return torch.ops.aten.convolution_backward(tgy, tx, tw, None, *options, mask)

    candidates = {
        "forward": {"igcnn": lambda: convolution_forward(x, w, *geometry)},
        "backward input": {"igcnn": lambda: convolution_backward_input(gy, w, x.shape, *geometry)},
        "backward weight": {
            "igcnn": lambda: convolution_backward_weight(gy, x, w.shape, *geometry)
        },
    }
    cores = os.cpu_count() or 1
    for engine, (tx, tw, tgy) in tensors.items():
        for threads in sorted({1, cores}):

            def timed(function, threads=threads):
                torch.set_num_threads(threads)
                return function()

            name = f"{engine}, {threads} thread{'s' if threads > 1 else ''}"
            functions = {
                "forward": lambda tx=tx, tw=tw: torch.conv2d(
                    tx, tw, None, stride, padding, 1, groups
                ),
                "backward input": lambda t=(tx, tw, tgy): gradient(*t, [True, False, False])[0],
                "backward weight": lambda t=(tx, tw, tgy): gradient(*t, [False, True, False])[1],
            }
            for direction, function in functions.items():
                candidates[direction][name] = lambda f=function, timed=timed: timed(f)
    results = {}
    for direction, engines in candidates.items():
        expected = engines["igcnn"]()
        for name, function in engines.items():
            error = np.abs(np.asarray(function()) - expected).max() / np.abs(expected).max()
            assert error < 1e-4, (direction, name, error)
        results[direction] = measure(engines, rounds)
    return results


def main():
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    result = {"batch": arguments.batch, "torch": torch.__version__, "layers": {}}
    with single_threaded_blas(), torch.no_grad():
        for name, layer in LAYERS.items():
            print(f"\n{name}, batch {arguments.batch}")
            result["layers"][name] = {}
            for direction, seconds in compare(layer, arguments.batch, arguments.rounds).items():
                relative = ratios(seconds, "igcnn")
                result["layers"][name][direction] = {"seconds": seconds, "times igcnn": relative}
                own = sorted(seconds["igcnn"])[arguments.rounds // 2]
                print(f"  {direction:16} igcnn {1e3 * own:6.2f} ms", end="")
                for engine, ratio in relative.items():
                    if engine != "igcnn":
                        print(f" | {engine} {ratio:.2f} ×", end="")
                print()
    save("convolution", result)


if __name__ == "__main__":
    main()
