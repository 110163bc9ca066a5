"""How time and memory of a training step grow with batch, depth, width and image size.

    python benchmarks/growth.py

Each is measured over a range while the others stay, every point by a process of its own on one
thread, the ranges several times in turn. The exponent is the slope of a line through
(log size, log cost): size is the number of images, layers, multiply-adds or pixels. Memory is
the peak after five steps less that of a process that only imports the package; small sizes show
the constant part, so the exponents are fitted to the upper half of each range.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median

import numpy as np
from cpu import HostImages
from harness import peak_memory, save

import igcnn
from igcnn.backend import keep_memory
from igcnn.inspection import summarize
from igcnn.plan import Plan

BASE = {"net": "resnet_igc", "depth": 8, "L": 24, "M": 2, "batch": 16, "side": 32}
RANGES = {
    "batch": [{"batch": n} for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)],
    "depth": [{"depth": n} for n in (8, 14, 20, 38, 62, 98)],
    "width": [
        {"L": L, "M": M} for L, M in ((12, 2), (24, 2), (32, 4), (32, 8), (90, 5), (90, 10))
    ],
    "pixels": [{"side": n} for n in (8, 16, 32, 64, 128)],
}
SIZES = {
    "batch": lambda case: case["batch"],
    "depth": lambda case: case["depth"],
    "width": lambda case: summarize(network(case), (3, case["side"], case["side"])).macs,
    "pixels": lambda case: case["side"] ** 2,
}


def network(case):
    """Return the network of a case."""
    return igcnn.build_network(case["net"], depth=case["depth"], L=case["L"], M=case["M"])


def measure_here(case):
    """Print seconds of a step and MB, of this process."""
    keep_memory()
    before = peak_memory()
    rng = np.random.default_rng(0)
    side, batch = case["side"], case["batch"]
    x = rng.standard_normal((3, side, side, batch), np.float32).transpose(3, 0, 1, 2)
    labels = rng.integers(0, 10, batch)
    seconds = []
    model = network(case)
    plan = Plan(model, (3, side, side), batch)
    plan.prepare(igcnn.optim.SGD(model.parameters(), lr=0.0), HostImages)
    for _ in range(5):
        start = time.perf_counter()
        plan.update((x, labels))
        plan.collect(wait=True)
        seconds.append(time.perf_counter() - start)
    print(json.dumps([median(seconds[1:]), peak_memory() - before]))


def exponent(sizes, costs):
    """Return the slope of log cost over log size in the upper half of a range."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(costs[half:]), 1)[0])


def main():
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        measure_here(json.loads(arguments.case))
        return
    cases = [(what, BASE | changed) for what, values in RANGES.items() for changed in values]
    measured = {i: [] for i in range(len(cases))}
    for _ in range(arguments.rounds):
        for i, (_, case) in enumerate(cases):
            command = [sys.executable, __file__, "--case", json.dumps(case)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured[i].append(json.loads(done.stdout))
    result = {}
    for what in RANGES:
        own = [i for i, (name, _) in enumerate(cases) if name == what]
        sizes = [SIZES[what](cases[i][1]) for i in own]
        seconds = [median(s for s, _ in measured[i]) for i in own]
        memory = [median(m for _, m in measured[i]) for i in own]
        exponents = exponent(sizes, seconds), exponent(sizes, memory)
        print(f"\n{what}: time grows with exponent {exponents[0]:.2f}, memory {exponents[1]:.2f}")
        for size, s, m in zip(sizes, seconds, memory, strict=True):
            print(f"  {size:>13,} {1e3 * s:9.1f} ms {m:8.1f} MB")
        result[what] = {
            "size": sizes,
            "seconds": seconds,
            "MB": memory,
            "exponents": {"time": exponents[0], "memory": exponents[1]},
        }
    save("growth", {"base": BASE, "ranges": result})


if __name__ == "__main__":
    main()
