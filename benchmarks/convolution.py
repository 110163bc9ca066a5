"""Grouped and dense convolution against PyTorch, forward and both gradients.

    pip install -e ".[bench]" && python benchmarks/convolution.py

Results are compared before anything is timed. The tape computes on one thread; the compiled
kernels and PyTorch are timed with one thread and with all cores. Memory order is each engine's
own best of those listed. A compiled kernel computes both gradients in one launch, as a plan wants
them ("backward"); for the lines of one gradient it is told to leave the other out.

The limit: a 3×3 layer of 24 × 2 channels on 32×32, batch 64, has 57 million multiply-adds and
touches 25 MB (image in, image out); limit.py tells what this machine does at most.
"""

import argparse

import numpy as np
import torch
from harness import save
from operation import Vectors, compare, on_threads, recorded

from igcnn.backend import keep_memory, single_threaded_blas
from igcnn.kernels.compiled import unavailable
from igcnn.kernels.convolution import (
    Packed,
    compiled_convolution_backward,
    compiled_convolution_forward,
    compiled_convolution_pack,
    compiled_convolution_parts,
    compiled_packed_size,
    compiled_sum_partials,
    convolution_backward_input,
    convolution_backward_weight,
    convolution_forward,
)
from igcnn.kernels.geometry import convolution_fields
from igcnn.kernels.lanes import stored, stored_gradient

# name: channels in, channels out, image size, kernel, stride, padding, groups
LAYERS = {
    "24 × 2 channels, 32×32": (48, 48, 32, 3, 1, 1, 24),
    "24 × 4 channels, 16×16": (96, 96, 16, 3, 1, 1, 24),
    "24 × 8 channels, 8×8": (192, 192, 8, 3, 1, 1, 24),
    "24 × (2→4), 32×32, stride 2": (48, 96, 32, 3, 2, 1, 24),
    "dense 16, 32×32": (16, 16, 32, 3, 1, 1, 1),
    "dense 64, 8×8": (64, 64, 8, 3, 1, 1, 1),
    "channel-wise 144, 32×32": (144, 144, 32, 3, 1, 1, 144),
    "channel-wise 384, 8×8": (384, 384, 8, 3, 1, 1, 384),
    "1×1, 2 groups, 24→144, 32×32": (24, 144, 32, 1, 1, 0, 2),
    "1×1, 2 groups, 384→64, 8×8": (384, 64, 8, 1, 1, 0, 2),
}


def compiled(x, w, gy, stride, padding, groups):
    """Return {direction: (recording, function that returns its result)}."""
    batch = Vectors(len(x))
    geometry = (stride, stride), (padding, padding), groups
    sizes = convolution_fields(x.shape[1:], gy.shape[1:], w.shape[2:], *geometry)
    vx, vgy = batch.put(x), batch.put(gy)
    y, gx, gw = batch.array(*vgy.shape), batch.array(*vx.shape), np.empty_like(w)
    size = compiled_packed_size(batch, sizes, w.size)
    packed = [Packed(batch.array(size), batch.array(size))]
    partial = batch.array(compiled_convolution_parts(batch, sizes).gw, *w.shape)
    inputs = stored_gradient(vgy), stored(vx), packed

    def forward():
        compiled_convolution_pack(batch, [w], None, packed, sizes, wait=True)
        compiled_convolution_forward(batch, stored(vx), packed, y, sizes)

    def backward_input():
        compiled_convolution_backward(batch, *inputs, gx, {}, [None], sizes)

    def backward_weight():
        compiled_convolution_backward(batch, *inputs, None, {}, [partial], sizes)
        compiled_sum_partials(partial, gw, wait=True)

    def backward():
        compiled_convolution_backward(batch, *inputs, gx, {}, [partial], sizes)
        compiled_sum_partials(partial, gw, wait=True)

    return {
        "forward": (recorded(forward), lambda: [batch.get(y)]),
        "backward input": (recorded(backward_input), lambda: [batch.get(gx)]),
        "backward weight": (recorded(backward_weight), lambda: [gw]),
        "backward": (recorded(backward), lambda: [batch.get(gx), gw]),
    }


def measure_layer(layer, batch, rounds):
    """Check equality, then time; return {direction: seconds and ratios}."""
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
        found = torch.ops.aten.convolution_backward(tgy, tx, tw, None, *options, mask)
        return [each for each in found if each is not None]

    def own_input():
        return [convolution_backward_input(gy, w, x.shape, *geometry)]

    def own_weight():
        return [convolution_backward_weight(gy, x, w.shape, *geometry)]

    candidates = {
        "forward": {"tape": lambda: [convolution_forward(x, w, *geometry)]},
        "backward input": {"tape": own_input},
        "backward weight": {"tape": own_weight},
        "backward": {"tape": lambda: own_input() + own_weight()},
    }
    if not unavailable():
        for direction, (recording, result) in compiled(x, w, gy, *geometry).items():
            for threads, name in on_threads("compiled"):

                def run(recording=recording, result=result, threads=threads):
                    recording.run(threads)
                    return result

                candidates[direction][name] = run
    for engine, (tx, tw, tgy) in tensors.items():
        for threads, name in on_threads(engine):

            def timed(function, threads=threads):
                torch.set_num_threads(threads)
                return function()

            functions = {
                "forward": lambda tx=tx, tw=tw: [
                    torch.conv2d(tx, tw, None, stride, padding, 1, groups)
                ],
                "backward input": lambda t=(tx, tw, tgy): gradient(*t, [True, False, False]),
                "backward weight": lambda t=(tx, tw, tgy): gradient(*t, [False, True, False]),
                "backward": lambda t=(tx, tw, tgy): gradient(*t, [True, True, False]),
            }
            for direction, function in functions.items():
                candidates[direction][name] = lambda f=function, timed=timed: timed(f)
    results = {}
    for direction, engines in candidates.items():
        expected = engines["tape"]()
        for name, function in engines.items():
            found = function()
            found = found() if name.startswith("compiled") else found
            for array, other in zip(found, expected, strict=True):
                error = np.abs(np.asarray(array) - other).max() / np.abs(other).max()
                assert error < 1e-4, (direction, name, error)
        results[direction] = compare(direction, engines, rounds)
    return results


def main():
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--layer", action="append", choices=LAYERS)
    arguments = parser.parse_args()
    keep_memory()  # else PyTorch would get new pages for every result
    result = {"batch": arguments.batch, "torch": torch.__version__, "layers": {}}
    with single_threaded_blas(), torch.no_grad():
        for name in arguments.layer or LAYERS:
            print(f"\n{name}, batch {arguments.batch}")
            result["layers"][name] = measure_layer(LAYERS[name], arguments.batch, arguments.rounds)
    if not arguments.layer:
        save("convolution", result)


if __name__ == "__main__":
    main()
