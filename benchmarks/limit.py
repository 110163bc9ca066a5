"""What this machine can do at most: matrix products and memory, on all cores at once.

    python benchmarks/limit.py

A training step of resnet_igc L24M2, depth 20, batch 64, has 10.9 GFLOP and 1.85 GB that must
cross the memory bus; one after the other is the serial limit, both at once the overlapped one.
"""

import multiprocessing
import os
import time

import numpy as np
from harness import save
from threadpoolctl import threadpool_limits

GFLOP, GB = 10.9, 1.85
SIDE = 2048
NUMBERS = 1 << 26


def gemm(_):
    """Return GFLOP/s of single-precision products on one thread."""
    with threadpool_limits(1):
        a = np.ones((SIDE, SIDE), np.float32)
        out = np.empty_like(a)
        np.matmul(a, a, out=out)
        start = time.perf_counter()
        for _ in range(10):
            np.matmul(a, a, out=out)
        return 10 * 2 * SIDE**3 / (time.perf_counter() - start) / 1e9


def memory(_):
    """Return GB/s of additions that no cache holds, two reads and one write."""
    a, b = (np.ones(NUMBERS, np.float32) for _ in range(2))
    out = np.zeros_like(a)
    np.add(a, b, out=out)
    start = time.perf_counter()
    for _ in range(5):
        np.add(a, b, out=out)
    return 5 * 3 * a.nbytes / (time.perf_counter() - start) / 1e9


def main():
    """Print and write JSON."""
    cores = os.cpu_count() or 1
    rounds = {"gemm": [], "memory": []}
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        for _ in range(5):
            rounds["gemm"].append(sum(pool.map(gemm, range(cores), 1)))
            rounds["memory"].append(sum(pool.map(memory, range(cores), 1)))
    speed, bandwidth = (float(np.median(rounds[name])) for name in ("gemm", "memory"))
    serial = 1e3 * (GFLOP / speed + GB / bandwidth)
    overlapped = 1e3 * max(GFLOP / speed, GB / bandwidth)
    print(f"{cores} cores: {speed:.0f} GFLOP/s, {bandwidth:.1f} GB/s")
    print(f"resnet_igc L24M2, batch 64: serial {serial:.0f} ms, overlapped {overlapped:.0f} ms")
    save("limit", {"GFLOP/s": rounds["gemm"], "GB/s": rounds["memory"], "serial_ms": serial})


if __name__ == "__main__":
    main()
