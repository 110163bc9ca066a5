"""Are groups slow? 1×1 convolutions of equal cost, in 1, 2, 4 and 8 groups, against PyTorch.

    pip install -e ".[bench]" && python benchmarks/groups.py
    python benchmarks/groups.py --device cuda

ShuffleNet V2 (Ma et al., 2018, Table 2) measures networks of such layers, wider by √groups so that
their multiply-adds stay equal, on images of 56×56: on a GPU 8 groups run at a quarter of the speed
of one (2,451 → 634 batches a second), on ARM at 0.7 of it (40.0 → 27.8 images a second). It
concludes that many groups are slow. Activations grow by √8 = 2.8 here, so a kernel that only
waits for memory may be that much slower, and none needs to be more.

Forward and backward, seconds of one thread's CPU time, which other programs disturb least; on a
GPU the tape's kernels, and seconds by the clock.
"""

import argparse
import time
from statistics import median

import numpy as np
import torch
from convolution import compiled
from harness import require_device, save

from igcnn import Tensor
from igcnn import functional as F
from igcnn.backend import single_threaded_blas, to_device

WIDTHS = {1: 128, 2: 180, 4: 256, 8: 360}  # groups: channels, as in the paper
SIZE = 56
TOLERANCE = 1e-4


def ours_on_cpu(x, w, gy, groups):
    """Return a function that runs forward and backward, and one that returns y, gx and gw."""
    parts = compiled(x, w, gy, 1, 0, groups)

    def run():
        for recording, _ in parts.values():
            recording.run(1)

    return run, lambda: [np.asarray(result()) for _, result in parts.values()]


def ours_on_gpu(x, w, gy, groups, device):
    """Return the same for the kernels of a GPU."""
    import cupy

    tensors = [Tensor(to_device(a, device), requires_grad=True) for a in (x, w)]
    cotangent = to_device(gy, device)
    found = []

    def run():
        for tensor in tensors:
            tensor.grad = None
        y = F.conv2d(*tensors, groups=groups)
        y.backward(cotangent)
        found[:] = [y.data, *(tensor.grad for tensor in tensors)]
        cupy.cuda.get_current_stream().synchronize()

    return run, lambda: [cupy.asnumpy(a) for a in found]


def theirs(x, w, gy, groups, memory_format, device):
    """Return the same for PyTorch."""
    tensors = [
        torch.from_numpy(np.ascontiguousarray(a)).to(device, memory_format=memory_format)
        for a in (x, w, gy)
    ]
    found = []

    def run():
        tx, tw, tgy = tensors
        y = torch.conv2d(tx, tw, groups=groups)
        options = [1, 1], [0, 0], [1, 1], False, [0, 0], groups, [True, True, False]
        gx, gw, _ = torch.ops.aten.convolution_backward(tgy, tx, tw, None, *options)
        found[:] = [y, gx, gw]
        if device != "cpu":
            torch.cuda.synchronize()

    return run, lambda: [a.cpu().numpy() for a in found]


def measure(groups, C, batch, rounds, device):
    """Check equality, then time; return {engine: seconds of each round}."""
    rng = np.random.default_rng(0)
    shape = batch, C, SIZE, SIZE
    x, gy = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    w = rng.standard_normal((C, C // groups, 1, 1), dtype=np.float32)
    cpu = device == "cpu"
    engines = {
        "igcnn": ours_on_cpu(x, w, gy, groups) if cpu else ours_on_gpu(x, w, gy, groups, device),
        "PyTorch": theirs(x, w, gy, groups, torch.contiguous_format, device),
        "PyTorch channels-last": theirs(x, w, gy, groups, torch.channels_last, device),
    }
    expected = None
    for name, (run, results) in engines.items():
        run()
        found = results()
        expected = expected or found
        for one, other in zip(expected, found, strict=True):
            assert np.abs(one - other).max() < TOLERANCE * np.abs(one).max(), (groups, name)
    clock = time.process_time if cpu else time.perf_counter
    seconds = {name: [] for name in engines}
    for _ in range(rounds):
        for name, (run, _) in engines.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def main():
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    if arguments.device != "cpu":
        require_device(arguments.device)
    torch.set_num_threads(1)
    result = {"batch": arguments.batch, "torch": torch.__version__, "groups": {}}
    first = {}
    print(f"{'groups':>6} {'channels':>8}  ms a step (time / that of one group)")
    with single_threaded_blas(), torch.no_grad():
        for groups, C in WIDTHS.items():
            options = arguments.batch, arguments.rounds, arguments.device
            seconds = result["groups"][groups] = measure(groups, C, *options)
            middle = {name: median(values) for name, values in seconds.items()}
            first = first or middle
            cells = [
                f"{name} {1e3 * value:.1f} ({value / first[name]:.2f})"
                for name, value in middle.items()
            ]
            print(f"{groups:6} {C:8}  {' | '.join(cells)}", flush=True)
    save("groups" if arguments.device == "cpu" else "groups_gpu", result)


if __name__ == "__main__":
    main()
