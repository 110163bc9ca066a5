"""The fused kernels by themselves: v1, the formula that can be read, beside v2, which is shipped.

    pip install -e ".[cuda12,bench]" && python benchmarks/gpu_versions.py

Launches of the three stages of the paper's networks, 64 images, float32, in a replayed CUDA graph
between two events, with what each needs behind it: sums of partial sums, or, in v1, statistics.
Arrays stay in the caches as far as they fit. What the versions compute is compared first.

`--small` does the same with small images, also on `--device emu` or the stand-in for CuPy, where
it takes the host's clock: a test of this script.
"""

import argparse
import math
import time
from functools import partial
from statistics import median

import numpy as np
from gpu import device as describe
from harness import require_device, save

from igcnn.backend import copy_to, on_device, shared_bytes, to_device, to_host
from igcnn.kernels.augment import Resident
from igcnn.kernels.capture import Pass
from igcnn.kernels.combine import (
    WHERE_NORMED,
    DeviceNorm,
    launch_combine_sums,
    launch_combine_sums_formula,
    launch_norm,
    sum_slices,
)
from igcnn.kernels.head import launch_head, launch_head_formula
from igcnn.kernels.interleaved_group_convolution import (
    Incoming,
    fused_unit,
    launch_igc_backward_input,
    launch_igc_backward_input_formula,
    launch_igc_backward_weight,
    launch_igc_backward_weight_formula,
    launch_igc_forward,
    launch_igc_forward_formula,
)
from igcnn.kernels.stem import launch_stem, launch_stem_formula, stem_blocks
from igcnn.kernels.sum_partials import launch_sum_partials, partial_sums

# L, M, side
STAGES = (24, 2, 32), (24, 4, 16), (24, 8, 8)
SMALL = (6, 2, 8), (6, 4, 4)
SLICES = 8  # of the images, for the sums of a batch norm
CLASSES = 10
TOLERANCE = 1e-3  # of the largest number


class Stage:
    """Arrays of a stage, and of each kernel both versions with what they write.

    Attributes:
        calls: of each kernel v1, v2 and what both write.
        new: makes an array of zeros of a shape.
        forward: what launch_igc_forward takes; backward_input and backward_weight likewise.

    Args:
        sizes: of STAGES.
        N: images.
        device: where they live.
    """

    def __init__(self, sizes, N, device):
        L, M, side = sizes
        C = L * M
        rng = np.random.default_rng(0)

        def put(array):
            return to_device(np.asarray(array), device)

        def new(*shape):
            return put(np.zeros(shape, np.float32))

        def normal(*shape):
            return put(rng.standard_normal(shape, np.float32))

        def norm():
            others = [new(C) for _ in range(6)]
            tickets = put(np.zeros(C, np.uint32))
            own = put(np.ones(C, np.float32)), normal(C), new(C), new(C)
            return DeviceNorm(*own, *others, new(C, 3), tickets, 0.9, 2e-5)

        shape = N, C, side, side
        x, z, gy, gx = normal(*shape), new(*shape), normal(*shape), new(*shape)
        weights = normal(C, M, 3, 3), normal(C, L, 1, 1)
        geometry = (1, 1), (1, 1), L
        memory = shared_bytes(device)
        unit = fused_unit(shape[1:], weights[0].shape, geometry, M, memory)
        x_norm, z_norm, sums = norm(), norm(), new(C, SLICES, 3)
        launch_norm(x, x_norm, sums, training=True)
        forward = unit, x, x_norm, *weights, z, new(C, unit.blocks(N), 3)
        launch_igc_forward(*forward)
        launch_norm(z, z_norm, sums, training=True)
        slices = new(C, sum_slices(N, C, side * side), 2)
        ending = gy, z, z, z_norm
        launch_combine_sums(*ending, slices, WHERE_NORMED, gy)
        incoming = Incoming(*ending, WHERE_NORMED)
        rows, partials, gradients = [], [], new(sum(w.size for w in weights))
        shapes = unit.partial_shapes(N)
        parts = new(sum(map(math.prod, shapes)))
        start = place = 0
        for own, w in zip(shapes, weights, strict=True):
            rows.append((start, own[0], gradients[place : place + w.size]))
            partials.append(parts[start : start + math.prod(own)].reshape(own))
            start, place = start + math.prod(own), place + w.size
        sums = partial_sums(rows, parts, gradients)
        backward_weight = unit, incoming, x, x_norm, weights, partials

        def weight_gradients(launch):
            launch(*backward_weight)
            launch_sum_partials(sums)

        backward_input = unit, incoming, *weights, gx, False
        self.new, self.forward = new, forward
        self.backward_input, self.backward_weight = backward_input, backward_weight
        self.calls = {
            "combine_sums": (
                partial(launch_combine_sums_formula, *ending, WHERE_NORMED, gy),
                partial(launch_combine_sums, *ending, slices, WHERE_NORMED, gy),
                (z_norm.ggamma, z_norm.gbeta),
            ),
            "igc_forward": (
                partial(launch_igc_forward_formula, *forward),
                partial(launch_igc_forward, *forward),
                (z,),
            ),
            "igc_backward_input": (
                partial(launch_igc_backward_input_formula, *backward_input),
                partial(launch_igc_backward_input, *backward_input),
                (gx,),
            ),
            "igc_backward_weight": (
                partial(weight_gradients, launch_igc_backward_weight_formula),
                partial(weight_gradients, launch_igc_backward_weight),
                (gradients,),
            ),
        }
        labels = put(np.arange(N, dtype=np.int32) % CLASSES)
        order, state = put(np.arange(N, dtype=np.int32)), put(np.zeros(5, np.uint32))
        images = put(rng.integers(0, 256, (N, 3, side, side), np.uint8))
        colours = put(np.full(3, 120, np.float32)), put(np.full(3, 60, np.float32))
        source = Resident(images, labels, order, state, *colours, 4, True, 0)
        batch, taken = new(N, 3, side, side), put(np.zeros(N, np.int32))
        moments = new(C, stem_blocks(N, side), 3)
        stem = source, normal(C, 3, 3, 3), batch, taken, new(*shape), moments
        results = [new(*s) for s in ((N, C), (N, CLASSES), (N,), (N,), shape)]
        head = x, normal(CLASSES, C), normal(CLASSES), labels, *results
        for name, formula, shipped, arguments, written in (
            ("stem", launch_stem_formula, launch_stem, stem, stem[2:5]),
            ("head", launch_head_formula, launch_head, head, results),
        ):
            both = partial(formula, *arguments), partial(shipped, *arguments)
            self.calls[name] = *both, written


def seconds(run, device):
    """Return the time that the device takes for what `run` launches."""
    if device == "emu":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    run()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / 1e3


def measure_versions(device, small=False):
    """Return {stage: {kernel: µs of a launch of v1 and of v2}}, printing a line each."""
    repeats, rounds = (1, 1) if small else (10, 5)
    found = {}
    for sizes in SMALL if small else STAGES:
        title = "L = {}, M = {}, {side}×{side}".format(*sizes, side=sizes[2])
        found[title] = {}
        with on_device(device):
            for name, (*calls, written) in Stage(sizes, 2 if small else 64, device).calls.items():
                passes = [Pass([call] * repeats, device, 1) for call in calls]
                results = []
                for run in passes:
                    for array in written:
                        copy_to(array, np.full(array.shape, -1, np.float32))
                    run()
                    results.append([to_host(array).astype("f8") for array in written])
                    run()  # captures
                for v1, v2 in zip(*results, strict=True):
                    assert np.abs(v1 - v2).max() <= TOLERANCE * np.abs(v2).max(), (title, name)
                times = [[seconds(run, device) for run in passes] for _ in range(rounds)]
                v1, v2 = (median(own) / repeats * 1e6 for own in zip(*times, strict=True))
                found[title][name] = {"v1": v1, "v2": v2}
                print(
                    f"  {title}: {name:20} v1 {v1:9.1f} µs, v2 {v2:7.1f} µs, {v1 / v2:6.1f} ×",
                    flush=True,
                )
    return found


def main():
    """Print a line a kernel and stage, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0", help="or emu")
    parser.add_argument("--small", action="store_true", help="to test this script")
    arguments = parser.parse_args()
    require_device(arguments.device)
    found = measure_versions(arguments.device, arguments.small)
    if not arguments.small:
        save("gpu_versions", describe() | {"versions": found})


if __name__ == "__main__":
    main()
