"""Every launch of an update on a GPU: time, GB/s, FLOP/s, share of the step, and what is idle.

    pip install -e ".[cuda12,bench]" && python benchmarks/gpu_kernels.py

Times are those within replayed CUDA graphs, as the driver tells PyTorch's profiler (CUPTI sees all
of a process). Bytes are each array of a launch once, though it may find them in a cache;
operations are those of the formulas. The limits are a copy measured in the same run, and 55 % of
the float32 units of an H200.

At the end each fused kernel by itself, as a formula and as it is shipped: gpu_versions.py.

`--small` lists launches, bytes and operations of an update of a small network, also without a
GPU (`--device emu`, or the stand-in for CuPy).
"""

import argparse
import json
import math
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gpu import CASES, SMALL, SMALL_BATCH, Ours, device
from gpu_versions import measure_versions
from harness import require_device, save

import igcnn.kernels.launch as launcher
from igcnn.kernels.arguments import address

UPDATES = 20
FLOPS_PER_SECOND = 0.55 * 67e12
# arrays that a launch is given whole and reads little of
LOOKED_UP = {"images", "all_labels", "order", "results", "state"}
ONLY_FIRST = {"norm_coefficients": "x"}


@dataclass
class Launch:
    """What a launch has to do.

    Attributes:
        kernel: its name.
        bytes: of its arrays, each once.
        flops: multiplications and additions of its formula; 0 where they are few.
    """

    kernel: str
    bytes: int
    flops: int


def flops(kernel, values):
    """Return the operations of a launch with these arguments."""
    if kernel.startswith("convolution_"):
        of_output = int(values["C"]) // int(values["groups"]) * int(values["KH"]) ** 2
        outputs = [int(values[name]) for name in ("N", "O", "OH", "OW")]
        return 2 * math.prod(outputs) * of_output
    if kernel.startswith("igc_"):
        N, _, H, W = values["z"].shape
        products = N * H * W * (values["w1"].size + values["w2"].size)
        return products * (4 if "weight" in kernel else 2)  # the weights' kernel computes p again
    if kernel.startswith("stem"):
        return 2 * 27 * values["z"].size
    if kernel.startswith("linear_") and "bias" not in kernel:
        return 2 * int(values["N"]) * int(values["I"]) * int(values["O"])
    return 0


@contextmanager
def noted():
    """Context that gives a list of the launches within it."""
    launches = []
    check = launcher.check

    def noting(kernel, parameters, arguments, sizes):
        left_out = {*LOOKED_UP, ONLY_FIRST.get(kernel)}
        given = {p.name: arguments[p.name] for p in parameters if p.is_array}
        arrays = {
            address(array): array.nbytes
            for name, array in given.items()
            if array is not None and name not in left_out
        }
        launches.append(Launch(kernel, sum(arrays.values()), flops(kernel, arguments)))
        return check(kernel, parameters, arguments, sizes)

    launcher.check = noting
    try:
        yield launches
    finally:
        launcher.check = check


def timeline(ours):
    """Return (kernel, start, end) in microseconds of everything that the GPU does in updates."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(UPDATES):
            ours.update()
        ours.wait()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    kernels = [e for e in events if e.get("cat") == "kernel"]
    return sorted((e["ts"], e["ts"] + e["dur"], e["name"]) for e in kernels)


def copy_bandwidth():
    """Return the bytes per second of a copy that no cache holds, read and written."""
    import cupy

    a = cupy.ones(1 << 28, "float32")
    b = cupy.empty_like(a)
    times = []
    for _ in range(10):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        cupy.copyto(b, a)
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return 2 * a.nbytes / median(times)


def measured(launches, events):
    """Return per kernel what was measured, and the idle share of a step."""
    names = {one.kernel for one in launches}
    events = [event for event in events if event[2] in names]
    steps = [events[i : i + len(launches)] for i in range(0, len(events), len(launches))]
    for step in steps:
        assert [e[2] for e in step] == [one.kernel for one in launches], "not those of a step"
    idle = [1 - sum(e[1] - e[0] for e in step) / (step[-1][1] - step[0][0]) for step in steps]
    rows = defaultdict(lambda: {"launches": 0, "us": 0.0, "bytes": 0, "flops": 0, "each": []})
    for i, one in enumerate(launches):
        row = rows[one.kernel]
        us = median(step[i][1] - step[i][0] for step in steps)
        row["launches"] += 1
        row["us"] += us
        row["each"].append(round(us, 1))
        row["bytes"] += one.bytes
        row["flops"] += one.flops
    step_us = median(step[-1][1] - step[0][0] for step in steps)
    return dict(rows), step_us, median(idle)


def list_launches(device_name):
    """Print and write down what a small network's update launches, and versions of kernels."""
    ours = Ours(SMALL["small"], SMALL_BATCH, device_name, False, "fp32")
    with noted() as launches:
        ours.update()
    for one in launches:
        print(f"{one.kernel:28} {one.bytes / 1e3:10.1f} kB {one.flops / 1e6:8.3f} MFLOP")
    versions = measure_versions(device_name, small=True)
    save("gpu_kernels_small", device() | {"launches": len(launches), "versions": versions})


def main():
    """Print a table a case, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--precision", action="append", choices=("fp32", "bf16"))
    parser.add_argument("--device", default="cuda:0", help="or emu")
    parser.add_argument("--small", action="store_true", help="to test this script")
    arguments = parser.parse_args()
    require_device(arguments.device)
    if arguments.small:
        list_launches(arguments.device)
        return
    bandwidth = copy_bandwidth()
    print(f"copy: {bandwidth / 1e12:.2f} TB/s")
    result = {"copy_bytes_per_second": bandwidth, "cases": {}}
    what = [
        (precision, name, batch)
        for precision in arguments.precision or ("fp32", "bf16")
        for name in arguments.case or ["resnet_igc L24M2"]
        for batch in arguments.batch or (64, 1024)
    ]
    for precision, name, batch in what:
        ours = Ours(CASES[name], batch, arguments.device, False, precision)
        with noted() as launches:
            ours.update()
        for _ in range(4):  # captures, then replays
            ours.update()
        ours.wait()
        rows, step_us, idle = measured(launches, timeline(ours))
        title = f"{name}, batch {batch}, {precision}"
        print(f"\n{title}: {step_us:.0f} µs, {len(launches)} launches, idle {idle:.1%}")
        for kernel, row in sorted(rows.items(), key=lambda item: -item[1]["us"]):
            seconds = row["us"] / 1e6
            rate = row["bytes"] / seconds
            limit = max(row["bytes"] / bandwidth, row["flops"] / FLOPS_PER_SECOND)
            row |= {"share": row["us"] / step_us, "of limit": limit / seconds}
            print(
                f"  {kernel:28} {row['launches']:3} × {row['us']:8.1f} µs {row['share']:6.1%} "
                f"{rate / 1e9:7.0f} GB/s {row['flops'] / seconds / 1e12:6.2f} TFLOP/s "
                f"{row['of limit']:6.1%} of its limit"
            )
        result["cases"][title] = {"rows": rows, "step_us": step_us, "idle": idle}
        save("gpu_kernels", device() | result)
    print("\nversions")
    result["versions"] = measure_versions(arguments.device)
    save("gpu_kernels", device() | result)


if __name__ == "__main__":
    main()
