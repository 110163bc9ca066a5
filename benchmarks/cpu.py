"""Training and evaluation of whole networks on the CPU, against PyTorch and others.

    pip install -e ".[bench]" && python benchmarks/cpu.py

A training step is forward, loss, backward and the SGD update of one batch. ONNX Runtime and
OpenVINO only evaluate; they get the network from PyTorch as ONNX. `latency` is evaluation of one
image. Loss, gradients and logits of all engines are compared before anything is timed; rounds are
interleaved, with a rest between engines until their idle threads sleep, and every figure is the
median over the rounds of the ratio within a round. Peak memory is measured in processes of their
own (`--memory`); only those of PyTorch import it.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's; PyTorch has its own threads

import numpy as np
from harness import (
    check_equal,
    check_logits,
    machine,
    measure,
    peak_memory,
    print_ratios,
    save,
)

import igcnn
from igcnn.backend import keep_memory
from igcnn.kernels.compiled import unavailable
from igcnn.plan import Plan
from igcnn.training import TapeEngine

# name: network, settings, side of the image, batch
CASES = {
    "resnet_igc L24M2": ("resnet_igc", {"depth": 20, "L": 24, "M": 2}, 32, 64),
    "plain_igc L24M2": ("plain_igc", {"depth": 20, "L": 24, "M": 2}, 32, 64),
    "resnet C=16": ("resnet", {"depth": 20, "L": 16, "M": 1}, 32, 64),
    "plain C=16": ("plain", {"depth": 20, "L": 16, "M": 1}, 32, 64),
    "resnet C=64": ("resnet", {"depth": 20, "L": 64, "M": 1}, 32, 64),
    "igcv2 C=72": ("igcv2", {"depth": 8, "width": 72, "factors": "8,9"}, 32, 64),
    "igcv3, few blocks": ("igcv3", {"blocks": "1,2,2,2,2,2,1"}, 32, 64),
    "ResNet-18, 224": ("resnet_imgnet_d18", {"L": 64, "M": 1}, 224, 8),
    "IGC-L100M2, 224": ("resnet_igc_imgnet_d18", {"L": 100, "M": 2}, 224, 8),
}
TRAINING = ("tape", "plan", "eager", "channels-last", "compile")
EVALUATION = ("onnxruntime", "openvino")
ENGINES = TRAINING + EVALUATION
PACKAGES = {"tape": [], "plan": []} | {name: ["torch", "onnx", name] for name in EVALUATION}
PARTS = ("train", "eval", "latency", "memory")
RECIPE = {"lr": 0.0, "momentum": 0.9, "weight_decay": 1e-4}
REST = 0.05  # seconds between engines
TOLERANCE = 5e-2


def make(case, dtype="float32", batch=None):
    """Return a network and a batch, of its usual size or another; the same at every call."""
    net, settings, side, usual = CASES[case]
    batch = batch or usual
    rng = np.random.default_rng(0)
    x = np.empty((3, side, side, batch), dtype).transpose(3, 0, 1, 2)
    x[...] = rng.standard_normal(x.shape)
    classes = 1000 if side == 224 else 10
    labels = rng.integers(0, classes, batch)
    return igcnn.build_network(net, num_classes=classes, dtype=dtype, **settings), x, labels


def tape_engine(case, dtype, batch):
    """Return (training step, gradients, evaluation) of the tape."""
    network, x, labels = make(case, dtype, batch)
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


def plan_engine(case, cores, dtype, batch):
    """Return (training step, gradients, evaluation) of a plan."""
    network, x, labels = make(case, dtype, batch)
    training = batch is None  # else it is there to evaluate, as for `igcnn eval`
    plan = Plan(network, x.shape[1:], len(x), threads=cores, training=training)
    if training:
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
        found = {
            id(t): g
            for t, g in zip(plan.parameters.tensors, plan.parameters.gradients, strict=True)
        }
        return [found[id(t)].copy() for t in network.parameters()]

    return train, gradients, evaluate


def torch_engine(engine, case, cores, dtype, batch):
    """Return (training step, gradients, evaluation) of PyTorch, or of what evaluates for it."""
    import exported
    import torch  # not above: it takes memory, which is not to be counted for igcnn
    from torch_network import TorchNetwork, as_tensor, channels_last, gradients

    torch.set_num_threads(cores)
    network, x, labels = make(case, dtype, batch)
    model, x, labels = TorchNetwork(network, x.shape[1:]), as_tensor(x), torch.from_numpy(labels)
    if engine == "channels-last":
        model, x = channels_last(model, x)
    run = torch.compile(model, dynamic=False) if engine == "compile" else model
    optimizer = torch.optim.SGD(model.parameters(), nesterov=True, **RECIPE)
    session = None

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

    def evaluate_exported():
        nonlocal session
        if session is None:  # not before: the running statistics are those after a step
            session = getattr(exported, engine)(model, x, cores)
        return session()

    evaluation = evaluate_exported if engine in EVALUATION else evaluate
    return train, lambda: gradients(model, network), evaluation


def make_engine(engine, case, cores, dtype="float32", batch=None):
    """Return (training step, gradients, evaluation)."""
    if engine == "tape":
        return tape_engine(case, dtype, batch)
    if engine == "plan":
        return plan_engine(case, cores, dtype, batch)
    return torch_engine(engine, case, cores, dtype, batch)


def missing(engine):
    """Return why an engine cannot run on this machine, "" if it can."""
    if engine == "plan":
        return unavailable()
    absent = [p for p in PACKAGES.get(engine, ["torch"]) if importlib.util.find_spec(p) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def versions(names):
    """Return the versions of the packages that engines need."""
    packages = {package for name in names for package in PACKAGES.get(name, ["torch"])}
    return {package: version(package) for package in sorted(packages)}


def check_exactly(case, names, cores):
    """Raise unless every gradient of tape, plan and PyTorch is the same in float64."""
    names = [name for name in ("tape", "plan", "eager") if name in names]
    engines = {name: make_engine(name, case, cores, "float64") for name in names}
    losses = {name: train() for name, (train, _, _) in engines.items()}
    expected = engines[names[0]][1]()
    # of a β before a linear layer and a batch norm the gradient is zero: rounding is left
    least = 1e-6 * max(np.linalg.norm(g) for g in expected)
    for name in names[1:]:
        assert abs(losses[name] - losses[names[0]]) < 1e-10, (case, name, losses)
        for array, other in zip(engines[name][1](), expected, strict=True):
            error = np.linalg.norm(array - other) / max(np.linalg.norm(other), least)
            assert error < 1e-8, (case, name, array.shape, error)


def memory(engine, case, cores):
    """Return peak memory of five training steps in MB, by a process of its own."""
    command = [sys.executable, __file__, "--memory", engine, "--case", case, "--cores", str(cores)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure_memory(engine, case, cores):
    """Print the peak memory of this process after five training steps, in MB."""
    train, _, _ = make_engine(engine, case, cores)
    for _ in range(5):
        train()
    print(peak_memory())


def measure_batches(case, names, parts, cores, rounds):
    """Check, time and print training and evaluation of batches; return both as JSON."""
    batch = CASES[case][3]
    engines = {name: make_engine(name, case, cores) for name in names}
    check_exactly(case, names, cores)
    check_equal(case, engines, names[0], TOLERANCE)
    entry = {}
    for part, index, calls in (("train", 0, 2), ("eval", 2, 4)):
        if part not in parts:
            continue
        functions = {
            name: engine[index]
            for name, engine in engines.items()
            if part == "eval" or name in TRAINING
        }
        seconds = measure(functions, rounds, calls=calls, rest=REST)
        entry[part] = {
            "seconds": seconds,
            "time / plan": print_ratios(part, batch, seconds, "plan"),
        }
    return entry


def measure_latency(case, names, cores, rounds):
    """Check, time and print evaluation of one image after another; return JSON."""
    engines = {name: make_engine(name, case, cores, batch=1)[2] for name in names}
    check_logits(case, engines, names[0], TOLERANCE)
    seconds = measure(engines, rounds, calls=10, rest=REST)
    return {"seconds": seconds, "time / plan": print_ratios("latency", 1, seconds, "plan")}


def main():
    """Print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--engine", action="append", choices=ENGINES, help="beside the plan")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--memory", choices=TRAINING, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep_memory()
    cores, rounds = arguments.cores, arguments.rounds
    if arguments.memory:
        measure_memory(arguments.memory, arguments.case[0], cores)
        return
    chosen = [*(arguments.engine or ENGINES), "plan"]
    reasons = {name: missing(name) for name in ENGINES if name in chosen}
    names = [name for name, reason in reasons.items() if not reason]
    for name, reason in reasons.items():
        if reason:
            print(f"without {name}: {reason}")
    if reasons["plan"]:
        raise SystemExit(1)
    parts = arguments.part or PARTS
    result = {"versions": versions(names), "cores_used": cores, "cases": {}}
    for case in arguments.case or CASES:
        print(f"\n{case}, batch {CASES[case][3]}", flush=True)
        entry = result["cases"][case] = {}
        with np.errstate(over="ignore", invalid="ignore"):
            if "train" in parts or "eval" in parts:
                entry |= measure_batches(case, names, parts, cores, rounds)
            if "latency" in parts:
                entry["latency"] = measure_latency(case, names, cores, rounds)
        if "torch" in sys.modules:
            sys.modules["torch"].compiler.reset()
        if "memory" in parts:
            found = {name: memory(name, case, cores) for name in names if name in TRAINING}
            entry["memory_MB"] = found
            print("  memory", ", ".join(f"{name} {size:.0f} MB" for name, size in found.items()))
    if arguments.case is arguments.engine is arguments.part is None:
        save("cpu", result)
    else:
        print(json.dumps(machine()))


if __name__ == "__main__":
    main()
