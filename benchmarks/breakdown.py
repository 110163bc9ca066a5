"""Where the time of a training step goes: every launch of a plan timed, by kernel.

    python benchmarks/breakdown.py
    python benchmarks/breakdown.py --case "plain C=16" --cores 1 --layers

GFLOP/s and GB/s stand beside what limit.py measures from registers and from memory. Bytes are
those of the activations that a launch reads and writes, each once; a cache may hold some of them.
Where every launch is timed, each waits for the one before, which a step does not always do.
"""

import argparse
import os
import signal
import time
from collections import defaultdict
from statistics import median

from cpu import CASES, HostImages, make
from harness import save

import igcnn
from igcnn.backend import keep_memory
from igcnn.plan import Plan

CONVOLUTIONS = (
    *("convolution_forward", "convolution_backward", "igc_forward", "igc_backward"),
    *("winograd_forward", "winograd_backward_input", "winograd_backward_weight"),
)


def make_plan(case, cores):
    """Return a plan that is ready for updates, and a batch for them."""
    network, x, labels = make(case)
    plan = Plan(network, x.shape[1:], len(x), threads=cores)
    plan.prepare(igcnn.optim.SGD(network.parameters(), lr=0.0), HostImages)
    return plan, (x, labels)


def launches_of(plan):
    """Return the launches of an update, as the runner has noted them."""
    return plan.passes["update"].recording.noted


def activation_bytes(launch):
    """Return the bytes of activations that a launch reads and writes."""
    shape = 5, launch.module.lanes  # partial sums of weights have five axes, too
    arrays = {
        array.ctypes.data: array.nbytes
        for array in launch.arrays
        if (array.ndim, array.shape[-1]) == shape
    }
    size = sum(arrays.values())
    end = getattr(launch.arguments, "end", None)
    result = getattr(launch.arguments, "gx", None) or getattr(launch.arguments, "g", None)
    if end is not None and end.other and end.other == result:
        size += arrays[result]  # read before it is written
    return size


def multiply_adds(launch):
    """Return those of a convolution or unit on real images, and how many are repeated ones."""
    if launch.kernel not in CONVOLUTIONS:
        return 0, 0
    a = launch.arguments
    images = (a.batch.blocks - 1) * launch.module.lanes + a.batch.last
    if launch.kernel.startswith("winograd"):  # counted as a direct convolution
        return images * a.H * a.W * 9 * a.C * a.D, 0
    pixels = images * a.OH * a.OW
    first = a.D * a.C // a.G * a.KH * a.KW * pixels
    second = a.D * a.D // a.S * pixels if launch.kernel.startswith("igc") else 0
    if launch.kernel.endswith("_forward"):
        return first + second, 0
    gradients = first + second + (first if a.gx else 0) + second
    return gradients + (first if second else 0), first if second else 0


def label(launch, layers):
    """Return the line of the table that a launch belongs to."""
    names = [n for n in ("C", "H", "W", "D", "OH", "OW") if hasattr(launch.arguments, n)]
    sizes = [str(getattr(launch.arguments, n)) for n in names]
    if not layers or len(sizes) < 3:
        return launch.kernel
    to = f" → {' × '.join(sizes[3:])}" if sizes[3:] else ""
    return f"{launch.kernel} {' × '.join(sizes[:3])}{to}"


def print_table(rows):
    """Print what each line has taken, with its share of arithmetic and traffic."""
    print(f"  {'ms':>8} {'launches':>8} {'GFLOP/s':>8} {'GB/s':>7}")
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["seconds"]):
        seconds = row["seconds"]
        macs, size = row["multiply_adds"], row["bytes"]
        speed = f"{2e-9 * macs / seconds:8.0f}" if macs else " " * 8
        bandwidth = f"{1e-9 * size / seconds:7.1f}" if size else " " * 7
        print(f"  {1e3 * seconds:8.2f} {row['launches']:8} {speed} {bandwidth}  {name}")


def main():
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="resnet_igc L24M2", choices=CASES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--layers", action="store_true", help="a line for every shape")
    arguments = parser.parse_args()
    keep_memory()
    plan, batch = make_plan(arguments.case, arguments.cores)
    for _ in range(2):
        plan.update(batch)
    steps, rounds = [], []
    update = plan.passes["update"]
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        plan.update(batch)
        steps.append(time.perf_counter() - start)
        rounds.append(update.recording.seconds(arguments.cores))
    launches = launches_of(plan)
    rows = defaultdict(lambda: dict.fromkeys(("seconds", "multiply_adds", "bytes", "launches"), 0))
    for launch, times in zip(launches, zip(*rounds, strict=True), strict=True):
        row = rows[label(launch, arguments.layers)]
        row["seconds"] += median(seconds for _, seconds in times)
        row["multiply_adds"] += multiply_adds(launch)[0]
        row["bytes"] += activation_bytes(launch)
        row["launches"] += 1
    total = sum(row["seconds"] for row in rows.values())
    print(
        f"{arguments.case}: a step takes {1e3 * median(steps):.1f} ms with its batch from the "
        f"host, its {len(launches)} launches {1e3 * total:.1f} ms one after the other"
    )
    print_table(rows)
    if arguments.case == "resnet_igc L24M2" and not arguments.layers:
        result = {"case": arguments.case, "cores_used": arguments.cores, "step": steps}
        save("breakdown", result | {"kernels": rows})


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` may close the output
    main()
