"""Training and evaluation of whole networks on the CPU, against PyTorch.

    pip install -e ".[bench]" && python benchmarks/cpu.py

A training step is forward, loss, backward and the SGD update of one batch. Loss and gradients of
all engines are compared before anything is timed; rounds are interleaved, and every figure is the
median over the rounds of the ratio within a round. Peak memory is measured in processes of their
own (`--memory`), worker processes included; only those of PyTorch import it.

The limit for resnet_igc L24M2, depth 20, batch 64: 10.9 GFLOP and 1.85 GB of unavoidable traffic.
"""

import argparse
import json
import os
import subprocess
import sys

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's; PyTorch has its own threads

import numpy as np
from harness import check_equal, machine, measure, print_ratios, save

import igcnn
from igcnn.backend import keep_memory
from igcnn.plan import Plan
from igcnn.training import TapeEngine

# name: network, settings, side of the image, batch
CASES = {
    "resnet_igc L24M2": ("resnet_igc", {"depth": 20, "L": 24, "M": 2}, 32, 64),
    "plain_igc L24M2": ("plain_igc", {"depth": 20, "L": 24, "M": 2}, 32, 64),
    "resnet C=16": ("resnet", {"depth": 20, "L": 16, "M": 1}, 32, 64),
    "plain C=16": ("plain", {"depth": 20, "L": 16, "M": 1}, 32, 64),
    "resnet C=64": ("resnet", {"depth": 20, "L": 64, "M": 1}, 32, 64),
    "ResNet-18, 224": ("resnet_imgnet_d18", {"L": 64, "M": 1}, 224, 8),
    "IGC-L100M2, 224": ("resnet_igc_imgnet_d18", {"L": 100, "M": 2}, 224, 8),
}
ENGINES = ("tape", "plan", "eager", "channels-last", "compile")
RECIPE = {"lr": 0.0, "momentum": 0.9, "weight_decay": 1e-4}


def make(case, dtype="float32"):
    """Return a network and a batch; the same at every call."""
    net, settings, side, batch = CASES[case]
    rng = np.random.default_rng(0)
    x = np.empty((3, side, side, batch), dtype).transpose(3, 0, 1, 2)
    x[...] = rng.standard_normal(x.shape)
    classes = 1000 if side == 224 else 10
    labels = rng.integers(0, classes, batch)
    return igcnn.build_network(net, num_classes=classes, dtype=dtype, **settings), x, labels


def tape_engine(case, dtype):
    """Return (training step, gradients, evaluation) of the tape."""
    network, x, labels = make(case, dtype)
    optimizer = igcnn.optim.SGD(network.parameters(), **RECIPE)
    tape = TapeEngine(network)

    def train():
        loss, _ = tape.step(x, labels)
        optimizer.step()
        return loss

    return train, lambda: [t.grad.copy() for t in network.parameters()], lambda: tape.logits(x)


class HostImages:
    """A loader whose images come from the host: a batch is part of a step, as for PyTorch."""

    split = None


def plan_engine(case, cores, dtype):
    """Return (training step, gradients, evaluation) of a plan."""
    network, x, labels = make(case, dtype)
    plan = Plan(network, x.shape[1:], len(x), threads=cores)
    plan.prepare(igcnn.optim.SGD(network.parameters(), **RECIPE), HostImages)
    refreshed = False

    def evaluate():
        nonlocal refreshed
        if not refreshed:  # as `igcnn eval` does, once for all images
            plan.refresh()
            refreshed = True
        return plan.logits(x)

    def train():
        nonlocal refreshed
        refreshed = False
        plan.update((x, labels))
        ((loss, _),) = plan.collect(wait=True)
        return loss

    def gradients():
        found = {id(t): g for t, g in zip(plan.parameters.tensors, plan.parameters.gradients, strict=True)}
        return [found[id(t)].copy() for t in network.parameters()]

    return train, gradients, evaluate


def torch_engine(engine, case, cores, dtype):
    """Return (training step, gradients, evaluation) of PyTorch."""
    import torch  # not above: it takes memory, which is not to be counted for igcnn
    from torch_network import TorchNetwork, as_tensor, channels_last, gradients

    torch.set_num_threads(cores)
    network, x, labels = make(case, dtype)
    model, x, labels = TorchNetwork(network, x.shape[1:]), as_tensor(x), torch.from_numpy(labels)
    if engine == "channels-last":
        model, x = channels_last(model, x)
    run = torch.compile(model, dynamic=False) if engine == "compile" else model
    optimizer = torch.optim.SGD(model.parameters(), nesterov=True, **RECIPE)

    def train():
        model.train()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(x), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    def evaluate():
        model.eval()
        with torch.no_grad():
            return run(x).numpy()

    return train, lambda: gradients(model, network), evaluate


def make_engine(engine, case, cores, dtype="float32"):
    """Return (training step, gradients, evaluation)."""
    if engine == "tape":
        return tape_engine(case, dtype)
    if engine == "plan":
        return plan_engine(case, cores, dtype)
    return torch_engine(engine, case, cores, dtype)


def check_exactly(case, cores):
    """Raise unless every gradient of tape, plan and PyTorch is the same in float64."""
    engines = {n: make_engine(n, case, cores, "float64") for n in ("eager", "tape", "plan")}
    losses = {name: train() for name, (train, _, _) in engines.items()}
    expected = engines["eager"][1]()
    for name in ("tape", "plan"):
        assert abs(losses[name] - losses["eager"]) < 1e-10, (case, name, losses)
        for array, other in zip(engines[name][1](), expected, strict=True):
            error = np.linalg.norm(array - other) / np.linalg.norm(other)
            assert error < 1e-8, (case, name, array.shape, error)


def memory(engine, case, cores):
    """Return peak memory of five training steps in MB, by a process of its own."""
    command = [sys.executable, __file__, "--memory", engine, "--case", case, "--cores", str(cores)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure_memory(engine, case, cores):
    """Print the peak memory of this process and of its workers, in MB.

    What they share is counted for each of them.
    """
    train, _, _ = make_engine(engine, case, cores)
    for _ in range(5):
        train()
    pids = [str(os.getpid())]
    with open(f"/proc/self/task/{pids[0]}/children") as file:
        pids += file.read().split()
    peak = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as file:
            peak += next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    print(peak / 1024)


def main():
    """Print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--memory", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--engine", action="append", choices=ENGINES)
    arguments = parser.parse_args()
    keep_memory()
    if arguments.memory:
        measure_memory(arguments.memory, arguments.case[0], arguments.cores)
        return
    import torch

    result = {"torch": torch.__version__, "cores_used": arguments.cores, "cases": {}}
    for case in arguments.case or CASES:
        batch = CASES[case][3]
        print(f"\n{case}, batch {batch}", flush=True)
        names = arguments.engine or ENGINES
        engines = {name: make_engine(name, case, arguments.cores) for name in names}
        with np.errstate(over="ignore", invalid="ignore"):
            check_exactly(case, arguments.cores)
            check_equal(case, engines, "tape", 5e-2)
            entry = {}
            for what, part in (("train", 0), ("eval", 2)):
                seconds = measure({n: e[part] for n, e in engines.items()}, arguments.rounds)
                relative = print_ratios(what, batch, seconds, "plan")
                entry[what] = {"seconds": seconds, "time / plan": relative}
        del engines
        torch.compiler.reset()
        entry["memory_MB"] = {name: memory(name, case, arguments.cores) for name in names}
        print("  memory", ", ".join(f"{n} {m:.0f} MB" for n, m in entry["memory_MB"].items()))
        result["cases"][case] = entry
    if arguments.case is None:
        save("cpu", result)
    else:
        print(json.dumps(machine()))


if __name__ == "__main__":
    main()
