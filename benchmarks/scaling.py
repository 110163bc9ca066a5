"""Two ranks against one process on this computer, and what more GPUs would do, on paper.

    pip install -e ".[mpi]" && python benchmarks/scaling.py
    python benchmarks/scaling.py --simulate

Measured is the time of an update of resnet_igc L24M2, depth 20, on as many cores: one process
with one thread, one process with two threads (the plan's own way), and two ranks of one thread
each, with 64 images together and with 64 each. Rounds are interleaved; a figure is the median
over the rounds of the ratio within a round.

--simulate computes the time of an update on N GPUs from a step time, bytes of gradients and links:

    T(N) = t + max(0, s(N) − o·t)        s(N) = 2·(N−1)/N · bytes/bandwidth + 2·log2(N) · latency

t is the time of a step on one GPU, s that of the sum (as much as a ring has to move, with the hops
of a tree), o the share of the step during which backward has gradients to send.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time

import numpy as np
from harness import machine, ratios, save

import igcnn
from igcnn.backend import keep_memory
from igcnn.cli.ranks import mpiexec
from igcnn.datasets import Loader
from igcnn.datasets.dataset import Split
from igcnn.distributed import connect
from igcnn.distributed.agreement import compare_ranks
from igcnn.training import make_engine

CASES = {
    "one process, one thread": (1, 1, 64),
    "one process, two threads": (1, 2, 64),
    "two ranks, 64 images together": (2, 1, 64),
    "two ranks, 64 images each": (2, 1, 128),
}
BASE = "one process, one thread"
SUM = "sum of the gradients alone"

# GPUs, and GB/s and seconds of latency of their links; see docs/scaling.md
LINKS = {
    "NVLink, 8 a computer, 8×400 Gb/s between": (300e9, 25e-6),
    "8 a computer, 100 Gb/s between": (10e9, 30e-6),
    "25 Gb/s Ethernet": (2.5e9, 60e-6),
}
OVERLAP = 0.5


def step(cores, batch, updates):
    """Print the median seconds of an update on this rank, and of a sum of all gradients."""
    keep_memory()
    communicator = connect()
    rng = np.random.default_rng(0)
    split = Split(
        rng.integers(0, 256, (4 * batch, 3, 32, 32), dtype=np.uint8),
        rng.integers(0, 10, 4 * batch),
    )
    parts = {"rank": communicator.rank, "ranks": communicator.size}
    constants = {"mean": (120.0,) * 3, "std": (60.0,) * 3}
    loader = Loader(split, batch_size=batch, **constants, **parts)
    network = igcnn.build_network("resnet_igc", num_classes=10, depth=20, L=24, M=2)
    engine, how = make_engine(
        network, (3, 32, 32), loader.local_batch_size, cores=cores, communicator=communicator
    )
    assert how.startswith("compiled plan"), how
    optimizer = igcnn.optim.SGD(network.named_parameters(), lr=0.01)
    seconds, losses = [], []
    with communicator.patience():
        engine.prepare(optimizer, loader)
        while len(seconds) < updates + 2:
            for one in engine.batches(len(seconds) // len(loader), 0):
                communicator.sum(np.zeros(1))  # all begin at once
                began = time.perf_counter()
                engine.update(one)
                seconds.append(time.perf_counter() - began)
        losses = [loss for loss, _ in engine.collect(wait=True)]
        compare_ranks(communicator, network.state_dict(), "in the benchmark")
        flat = np.zeros(sum(tensor.size for tensor in network.parameters()), np.float32)
        sums = []
        for _ in range(50):
            began = time.perf_counter()
            communicator.sum(flat)
            sums.append(time.perf_counter() - began)
    engine.close()
    assert np.isfinite(losses).all()
    if communicator.rank == 0:
        result = {
            "seconds": statistics.median(seconds[2:]),
            "sum": statistics.median(sums),
            "bytes": flat.nbytes,
            "first losses": losses[:3],
        }
        print(json.dumps(result), flush=True)


def run(name, updates):
    """Return what `step` printed for a case, in processes of its own."""
    ranks, cores, batch = CASES[name]
    program, variables = mpiexec()
    line = [sys.executable, __file__, "--step", str(cores), str(batch), str(updates)]
    if ranks > 1:
        line = [program, "-n", str(ranks), *line]
    done = subprocess.run(
        line, check=True, capture_output=True, text=True, env=os.environ | variables
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(rounds, updates):
    """Measure all cases in turn and write benchmarks/results/scaling.json."""
    found = {name: [] for name in CASES}
    for _ in range(rounds):
        for name in CASES:
            found[name].append(run(name, updates))
    seconds = {name: [one["seconds"] for one in ones] for name, ones in found.items()}
    times = ratios(seconds, BASE)
    print(f"{'':32}{'ms a step':>10}{'img/s':>8}{'speed':>7}{'efficiency':>12}")
    summary = {}
    for name, (ranks, cores, batch) in CASES.items():
        middle = statistics.median(seconds[name])
        speed = batch / CASES[BASE][2] / times[name]
        efficiency = speed / (ranks * cores)
        summary[name] = {"speed": speed, "efficiency": efficiency}
        print(
            f"{name:32}{1e3 * middle:10.1f}{batch / middle:8.0f}{speed:6.2f}×"
            f"{100 * efficiency:10.0f} %"
        )
    two = found["two ranks, 64 images together"]
    alone = statistics.median(one["sum"] for one in two)
    print(f"{SUM}: {1e3 * alone:.2f} ms for {two[0]['bytes']:,} bytes")
    save("scaling", {"rounds": found, "summary": summary, SUM: alone} | machine())


def simulated(step_seconds, size, count, bandwidth, latency):
    """Return seconds of an update on so many GPUs (formula: above)."""
    summed = 2 * (count - 1) / count * size / bandwidth + 2 * math.log2(count) * latency
    return step_seconds + max(0.0, summed - OVERLAP * step_seconds)


def simulate(steps, size):
    """Print efficiencies for 8 to 1,024 GPUs, each with its whole batch of 64."""
    counts = [2**k for k in range(3, 11)]
    for name, (bandwidth, latency) in LINKS.items():
        print(f"\n{name}: {bandwidth / 1e9:g} GB/s, {1e6 * latency:g} µs a hop")
        print(f"{'step on one GPU':>16}" + "".join(f"{count:>7}" for count in counts))
        for seconds in steps:
            shares = [
                seconds / simulated(seconds, size, count, bandwidth, latency) for count in counts
            ]
            print(f"{1e3 * seconds:13.2f} ms" + "".join(f"{100 * x:5.0f} %" for x in shares))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--ms", type=float, nargs="+", default=[0.64, 4.3, 290.0])
    parser.add_argument("--bytes", type=int, default=4 * 164_410)
    parser.add_argument("--step", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(*options.step)
    elif options.simulate:
        simulate([1e-3 * ms for ms in options.ms], options.bytes)
    else:
        compare(options.rounds, options.updates)


if __name__ == "__main__":
    main()
