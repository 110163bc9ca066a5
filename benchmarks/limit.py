"""What this machine can do at most: arithmetic and memory, on all cores at once.

    python benchmarks/limit.py

Measured are multiply-adds that need nothing but registers, additions of arrays that no cache
holds (two are read, one is written; the sum also past the caches), and OpenBLAS' sgemm.

From the first two follows a limit for a training step of resnet_igc L24M2, depth 20, batch 64:
its multiply-adds, forward and of both gradients, and the activations that its launches read and
write if no cache keeps one from launch to launch. One after the other is the serial limit, both
at once the overlapped one.
"""

import os
from pathlib import Path
from statistics import median

import numpy as np
from breakdown import activation_bytes, launches_of, make_plan, multiply_adds
from harness import measure, save
from threadpoolctl import threadpool_limits

from igcnn.kernels.compiled import launch, recording
from igcnn.plan.program import Arena

CASE = "resnet_igc L24M2"
MODULE = str(Path(__file__).with_suffix(""))
LANES = 16
SIDE = 2048
VECTORS = 1 << 22  # of an array: 268 MB
MULTIPLY_ADDS = 1 << 21  # of a register, per job
JOBS = 64  # a multiple of most numbers of cores


def arithmetic(cores):
    """Return a function that computes in registers, and GFLOP of a call."""
    operations, numbers = np.zeros(JOBS), np.zeros(JOBS, np.float32)
    with recording() as step:
        fields = {"operations": operations, "result": numbers, "rounds": MULTIPLY_ADDS}
        launch(MODULE, "multiply_add", JOBS, lanes=LANES, dtype="float32", **fields)
    step.run(cores)
    return lambda: step.run(cores), operations.sum() / 1e9


def memory(cores):
    """Return functions that add two arrays without and with streaming stores, and their GB."""
    shape = VECTORS, LANES
    arena = Arena("cpu", 3 * VECTORS * LANES * 4)
    x, y, z = (arena.take(shape, "float32") for _ in range(3))
    x[...], y[...], z[...] = 1, 2, 0
    functions = {}
    for name, streaming in (("memory", 0), ("memory, streaming stores", 1)):
        with recording() as step:
            fields = {"x": x, "y": y, "z": z, "size": VECTORS, "streaming": streaming}
            launch(MODULE, "add", JOBS, lanes=LANES, dtype="float32", jobs=JOBS, **fields)
        functions[name] = lambda step=step: step.run(cores)
        functions[name]()
        assert z.min() == z.max() == 3
        z[...] = 0
    return functions, 3 * z.nbytes / 1e9


def sgemm(cores):
    """Return a function that multiplies matrices by OpenBLAS, and GFLOP of a call."""
    a = np.ones((SIDE, SIDE), np.float32)
    out = np.empty_like(a)

    def multiply():
        with threadpool_limits(cores):
            np.matmul(a, a, out=out)

    return multiply, 2 * SIDE**3 / 1e9


def needed(cores):
    """Return GFLOP and GB of a training step: what its launches must compute and move."""
    plan, _ = make_plan(CASE, cores)
    launches = launches_of(plan)
    pairs = [multiply_adds(one) for one in launches]
    size = sum(activation_bytes(one) for one in launches)
    return 2e-9 * sum(total - again for total, again in pairs), 1e-9 * size


def main():
    """Print and write JSON."""
    cores = os.cpu_count() or 1
    multiply, gflop = arithmetic(cores)
    functions, gigabytes = memory(cores)
    product, product_gflop = sgemm(cores)
    amounts = {"registers": gflop, "sgemm": product_gflop} | dict.fromkeys(functions, gigabytes)
    seconds = measure({"registers": multiply, "sgemm": product} | functions, 7, rest=0.05)
    rates = {name: [amounts[name] / s for s in values] for name, values in seconds.items()}
    for name, values in rates.items():
        unit = "GB/s" if name in functions else "GFLOP/s"
        print(f"{name:24} {median(values):7.1f} {unit}")
    work, traffic = needed(cores)
    arithmetic_ms = 1e3 * work / median(rates["registers"])
    memory_ms = 1e3 * traffic / max(median(rates[name]) for name in functions)
    limits = {"serial": arithmetic_ms + memory_ms, "overlapped": max(arithmetic_ms, memory_ms)}
    print(
        f"{CASE}, batch 64: {work:.1f} GFLOP, {traffic:.2f} GB; on {cores} cores serial "
        f"{limits['serial']:.0f} ms, overlapped {limits['overlapped']:.0f} ms"
    )
    result = {"cores_used": cores, "GFLOP": work, "GB": traffic, "limit_ms": limits}
    save("limit", result | {"rates": rates, "seconds": seconds})


if __name__ == "__main__":
    main()
