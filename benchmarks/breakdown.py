"""Where the time of a training step goes: every launch of a plan timed, by kernel.

    python benchmarks/breakdown.py
    python benchmarks/breakdown.py --case "plain C=16" --cores 1

GFLOP/s and GB/s stand beside what limit.py measures from registers and from memory. Bytes are those
of the activations that a launch takes and gives, each once; a cache may hold some of them.
"""

import argparse
import os
from collections import defaultdict
from statistics import median

from cpu import CASES, HostImages, make
from harness import save

import igcnn
from igcnn.backend import keep_memory
from igcnn.plan import Plan


def arrays(value):
    """Yield the arrays among the fields of a launch."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from arrays(item)
    elif hasattr(value, "nbytes"):
        yield value


def activation_bytes(call):
    """Return the bytes of the activations of a launch."""
    found = {id(a): a.nbytes for a in arrays(call.keywords) if a.ndim == 5}
    return sum(found.values())


def multiply_adds(call):
    """Return those of a convolution's or unit's launch on real images."""
    kernel, fields = call.args[1], call.keywords
    if not kernel.startswith(("convolution_", "igc_")) or kernel.endswith("_pack"):
        return 0
    batch = fields["batch"]
    lanes = call.func.keywords["lanes"] if hasattr(call.func, "keywords") else 16
    images = (batch["blocks"] - 1) * lanes + batch["last"]
    pixels = images * fields["OH"] * fields["OW"]
    first = fields["D"] * fields["C"] // fields["G"] * fields["KH"] * fields["KW"] * pixels
    second = fields["D"] * fields["D"] // fields["S"] * pixels if "S" in fields else 0
    if kernel.endswith("_forward"):
        return first + second
    gradients = 2 * (first + second) if fields["gx"] is not None else first + 2 * second
    return gradients + (first if second else 0)  # p is computed again


def main():
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="resnet_igc L24M2", choices=CASES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--layers", action="store_true", help="every launch by itself")
    arguments = parser.parse_args()
    keep_memory()
    network, x, labels = make(arguments.case)
    plan = Plan(network, x.shape[1:], len(x), threads=arguments.cores)
    plan.prepare(igcnn.optim.SGD(network.parameters(), lr=0.0), HostImages)
    for _ in range(2):
        plan.update((x, labels))
    update = plan.passes["update"]
    rounds = [update.recording.seconds(arguments.cores) for _ in range(arguments.rounds)]
    rows = defaultdict(lambda: [0.0, 0, 0, 0])
    for k, (call, (kernel, _)) in enumerate(zip(update.calls, rounds[0], strict=True)):
        name = kernel
        if arguments.layers and "C" in call.keywords:
            fields = call.keywords
            name += " " + "x".join(str(fields[n]) for n in ("C", "D", "H", "W") if n in fields)
        row = rows[name]
        row[0] += median(seconds[k][1] for seconds in rounds)
        row[1] += multiply_adds(call)
        row[2] += activation_bytes(call)
        row[3] += 1
    total = sum(row[0] for row in rows.values())
    print(f"{arguments.case}: {1e3 * total:.1f} ms in {len(update.calls)} launches")
    for name, (seconds, macs, size, count) in sorted(rows.items(), key=lambda r: -r[1][0]):
        speed = f"{2e-9 * macs / seconds:6.0f} GFLOP/s" if macs else " " * 14
        print(
            f"  {1e3 * seconds:7.2f} ms  {count:3}  {speed} {1e-9 * size / seconds:6.1f} GB/s  {name}"
        )
    if arguments.case == "resnet_igc L24M2" and not arguments.layers:
        names = "seconds", "multiply_adds", "bytes", "launches"
        table = {name: dict(zip(names, row, strict=True)) for name, row in rows.items()}
        save("breakdown", {"case": arguments.case, "kernels": table})


if __name__ == "__main__":
    main()
