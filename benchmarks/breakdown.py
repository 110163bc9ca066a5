"""Where the time of a training step goes: every call of a plan timed, on one process.

    python benchmarks/breakdown.py
    python benchmarks/breakdown.py --case "plain C=16"

Matrix products are executed twice in a row: the second finds what it reads and writes in a cache,
which tells how long the first has waited for memory.
"""

import argparse
import time
from collections import defaultdict
from statistics import median

import numpy as np
from cpu import CASES, make
from harness import save

from igcnn.backend import keep_memory, single_threaded_blas
from igcnn.plan import Plan

PARTS = {
    "matrix products": ("matmul",),
    "multiplications, additions, comparisons": ("multiply", "add", "maximum", "greater", "equal"),
    "copies": ("copyto",),
    "sums": ("vecdot", "reduce"),
}


def part_of(call):
    """Return which part of the table a call belongs to."""
    name = getattr(getattr(call, "func", call), "__name__", "")
    if "statistics_call" in getattr(call, "__qualname__", ""):
        return "sums"
    return next((part for part, names in PARTS.items() if name in names), "the rest")


def multiply_adds(call):
    """Return how many a matrix product has."""
    left = call.args[0]
    return call.keywords["out"].size * left.shape[-1]


def time_step(program, seconds, again):
    """Execute a step; add the time of each call to its part, and that of a second execution."""
    for calls, merges in zip(
        [program.refresh, *program.segments], [[], *program.merges], strict=True
    ):
        for call in calls:
            part = part_of(call)
            start = time.perf_counter()
            call()
            middle = time.perf_counter()
            seconds[part] += middle - start
            if part == "matrix products":
                call()
                again[part] += time.perf_counter() - middle
        for call in merges:
            start = time.perf_counter()
            call()
            seconds["the rest"] += time.perf_counter() - start


def main():
    """Print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="resnet_igc L24M2", choices=CASES)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    keep_memory()
    network, x, labels = make(arguments.case)
    rounds, repeated, whole = defaultdict(list), [], []
    with Plan(network, x.shape[1:], len(x)) as plan, single_threaded_blas():
        program = plan.program
        calls = [call for segment in program.segments for call in segment]
        products = [call for call in calls if part_of(call) == "matrix products"]
        flops = 2 * sum(map(multiply_adds, products))
        for _ in range(2):
            plan.step(x, labels)
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            plan.step(x, labels)
            whole.append(time.perf_counter() - start)
            seconds, again = defaultdict(float), defaultdict(float)
            with np.errstate(all="ignore"):
                time_step(program, seconds, again)
            for part, value in seconds.items():
                rounds[part].append(value)
            repeated.append(again["matrix products"])
    print(f"{arguments.case}: a step takes {1e3 * median(whole):.0f} ms, {len(calls)} calls")
    for part, values in sorted(rounds.items(), key=lambda item: -median(item[1])):
        print(f"  {1e3 * median(values):7.1f} ms  {part}")
    speed, warm = (flops / median(v) / 1e9 for v in (rounds["matrix products"], repeated))
    print(
        f"  matrix products: {flops / 1e9:.1f} GFLOP at {speed:.0f} GFLOP/s, "
        f"and {warm:.0f} when repeated"
    )
    if arguments.case == "resnet_igc L24M2":
        result = {"case": arguments.case, "step": whole, "parts": rounds, "repeated": repeated}
        save("breakdown", result | {"GFLOP": flops / 1e9, "calls": len(calls)})


if __name__ == "__main__":
    main()
