"""Training and evaluation of whole networks on a GPU, against PyTorch on the same one.

    pip install -e ".[cuda12,bench]" && python benchmarks/gpu.py

An update is forward, loss, backward and SGD; igcnn's also draws, augments and normalises its
images from those resident on the device, while PyTorch is handed one batch that is already there.
Loss, gradients and logits are compared before anything is timed. Rounds are interleaved, every
figure is the median over the rounds of the ratio within a round; a round lasts as many updates as
fill `--seconds`. Each case is written down as soon as it is measured, so that a run cut short, or
several with `--case`, leave what they have; a batch that does not fit stays empty. What
torch.compile makes is measured last, as it takes half a minute each to make.

`--small` goes through all of it on a small network, on `--device emu` or the stand-in for CuPy
without a GPU, against PyTorch on the CPU if it is there: a test of this script.
"""

import argparse
import gc
import json
from functools import partial
from statistics import median

import numpy as np
from harness import check_equal, measure, print_ratios, require_device, result_path, save

import igcnn
from igcnn.backend import to_host
from igcnn.datasets import Loader, Split
from igcnn.datasets.dataset import Augmentation
from igcnn.errors import DeviceError
from igcnn.plan import Plan
from igcnn.training import make_engine

try:
    import torch
    from torch_network import TorchNetwork, gradients

    NO_MEMORY: tuple[type[BaseException], ...] = (DeviceError, torch.OutOfMemoryError)
except ImportError:  # then igcnn is measured by itself
    torch = None
    NO_MEMORY = (DeviceError,)

# name: network, settings, side of the image, images of the data set
CASES = {
    "resnet_igc L24M2": ("resnet_igc", {"depth": 20, "L": 24, "M": 2}, 32, 50_000),
    "resnet_igc L24M2, depth 38": ("resnet_igc", {"depth": 38, "L": 24, "M": 2}, 32, 50_000),
    "plain_igc L24M2": ("plain_igc", {"depth": 20, "L": 24, "M": 2}, 32, 50_000),
    "resnet C=16": ("resnet", {"depth": 20, "L": 16, "M": 1}, 32, 50_000),
    "plain_igc L16M32": ("plain_igc", {"depth": 20, "L": 16, "M": 32}, 32, 50_000),
    "IGC-L100M2, 224": ("resnet_igc_imgnet_d18", {"L": 100, "M": 2}, 224, 4096),
}
BATCHES = (64, 128, 1024)
SMALL = {"small": ("resnet_igc", {"depth": 8, "L": 6, "M": 2}, 8, 64)}
SMALL_BATCH = 16
RIVALS = ("eager", "channels-last", "CUDA graph")
COMPILED = ("compiled graph",)  # as mode="reduce-overhead"
# arithmetic: what the losses, gradients and logits of two engines may differ by, of their norm
MODES = {"fp32": 5e-2, "tf32": 0.1, "bf16": 0.5}
RECIPE = {"momentum": 0.9, "weight_decay": 1e-4}
# images per second of a training step of resnet_igc L24M2, depth 20, fused, fp32, on an H200 with
# 4.3 TB/s and 55 % of 67 TFLOP/s: eight and a half passes over each activation
LIMITED = "resnet_igc L24M2", "fp32"
FIRST = "resnet_igc L24M2", 64, "fp32"  # measured before all others, in case that time is short
LIMITS = {64: 107_000, 128: 136_000, 1024: 145_000}


def make(case, batch):
    """Return a network and the loader of a data set of random images; the same at every call."""
    net, settings, side, count = case
    rng = np.random.default_rng(0)
    classes = 1000 if side == 224 else 10
    images = rng.integers(0, 256, (count, 3, side, side), np.uint8)
    split = Split(images, rng.integers(0, classes, count))
    mean, std = (127.5,) * 3, (73.6,) * 3
    change = Augmentation(pad=4, mirror=True)
    loader = Loader(split, batch_size=batch, mean=mean, std=std, augmentation=change)
    return igcnn.build_network(net, num_classes=classes, **settings), loader


class Ours:
    """A network by igcnn: its tape, or its plan.

    Args:
        case: of CASES.
        batch: images of an update.
        device: "cuda:0" or "emu".
        eager: whether to take the tape.
        precision: "fp32" or "bf16".
        lr: learning rate.
    """

    def __init__(self, case, batch, device, eager, precision, lr=0.0):
        self.network, self.loader = make(case, batch)
        shape = self.loader.split.image_shape
        options = {"device": device, "eager": eager, "precision": precision}
        self.engine, self.name = make_engine(self.network, shape, batch, **options)
        self.optimizer = igcnn.optim.SGD(self.network.parameters(), lr=lr, **RECIPE)
        self.engine.prepare(self.optimizer, self.loader)
        self.device = device
        self.x = next(iter(self.loader.epoch(0)))[0]
        self.batches = self._batches()

    def _batches(self):
        epoch = 0
        while True:
            yield from self.engine.batches(epoch, 0)
            epoch += 1

    def update(self):
        """Submit one update."""
        self.engine.update(next(self.batches))

    def train(self):
        """Return the loss of the next update."""
        self.update()
        return self.engine.collect(wait=True)[-1][0]

    def gradients(self):
        """Return them as arrays."""
        tensors = self.network.parameters()
        if not isinstance(self.engine, Plan):
            return [to_host(tensor.grad) for tensor in tensors]
        own = self.engine.parameters
        found = {id(t): g for t, g in zip(own.tensors, own.gradients, strict=True)}
        return [to_host(found[id(tensor)]) for tensor in tensors]

    def evaluate(self):
        """Return logits of the first batch, from the host's memory to the host's memory."""
        return self.engine.logits(self.x)

    def wait(self):
        """Wait until the device has done everything."""
        if self.device.startswith("cuda"):
            import cupy

            cupy.cuda.Device(int(self.device.removeprefix("cuda:"))).synchronize()


class Theirs:
    """A network by PyTorch, by one of RIVALS, in one of MODES."""

    def __init__(self, case, batch, device, rival, mode):
        network, loader = make(case, batch)
        x, labels = next(iter(loader.epoch(0)))
        self.network, self.mode, self.device = network, mode, device
        self.model = TorchNetwork(network, loader.split.image_shape).to(device)
        self.host = torch.from_numpy(np.ascontiguousarray(x))
        self.x, self.labels = self.host.to(device), torch.from_numpy(labels).to(device)
        self.format = torch.contiguous_format
        compiled = rival in COMPILED
        if rival == "channels-last" or compiled:  # what compiles well is channels-last
            self.format = torch.channels_last
            self.model = self.model.to(memory_format=self.format)
            self.x = self.x.contiguous(memory_format=self.format)
        self.run = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0, nesterov=True, **RECIPE)
        self.loss = None
        self.update = self._update
        statistics = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        if rival.endswith("graph"):
            self.update = self._captured()
        elif compiled:
            self.update()  # what cannot be compiled fails here
        with torch.no_grad():
            for buffer, before in statistics:
                buffer.copy_(before)

    def _arithmetic(self):
        """Say what matrix units may do; return the context of a pass."""
        allowed = self.mode != "fp32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cudnn.benchmark = True
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.mode == "bf16")

    def _update(self):
        self.model.train()
        self.optimizer.zero_grad()
        with self._arithmetic():
            self.loss = torch.nn.functional.cross_entropy(self.run(self.x).float(), self.labels)
        self.loss.backward()
        self.optimizer.step()

    def _captured(self):
        """Return what replays an update that was captured."""
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._update()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._update()
        return graph.replay

    def train(self):
        """Return the loss of the next update."""
        self.update()
        return self.loss.item()

    def gradients(self):
        """Return them as arrays."""
        return gradients(self.model, self.network)

    def evaluate(self):
        """Return logits of the batch, from the host's memory to the host's memory."""
        self.model.eval()
        with torch.no_grad(), self._arithmetic():
            x = self.host.to(self.device).contiguous(memory_format=self.format)
            return self.run(x).float().cpu().numpy()

    def wait(self):
        """Wait until the device has done everything."""
        if self.device != "cpu":
            torch.cuda.synchronize()


def make_engines(case, batch, device, mode, rivals):
    """Return the engines of an arithmetic by name, "plan" first."""
    precision = "bf16" if mode == "bf16" else "fp32"
    engines = {"plan": Ours(case, batch, device, False, precision)}
    if mode == "fp32" and rivals is RIVALS:
        engines["tape"] = Ours(case, batch, device, True, precision)
    there = device if torch and torch.cuda.is_available() else "cpu"
    for rival in rivals if there != "cpu" else [r for r in RIVALS[:2] if torch and r in rivals]:
        try:
            engines[rival] = Theirs(case, batch, there, rival, mode)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # the others are measured all the same
            print(f"  {rival}: left out, as PyTorch says: {str(error).splitlines()[0]}")
    return engines


def burst(call, wait, count):
    """Do `count` calls, and wait for the last."""
    for _ in range(count):
        call()
    wait()


def measure_mode(name, case, batch, device, mode, rounds, seconds, rivals):
    """Return what was measured of an arithmetic: seconds of an update and of an evaluation."""
    engines = make_engines(case, batch, device, mode, rivals)
    if len(engines) == 1 and rivals is COMPILED:
        return None
    differences = check_equal(
        name,
        {k: (e.train, e.gradients, e.evaluate) for k, e in engines.items()},
        "plan",
        MODES[mode],
    )
    entry = {"differences": differences}
    for what in ("update", "evaluate"):
        calls = {k: partial(burst, getattr(e, what), e.wait) for k, e in engines.items()}
        once = measure({k: partial(call, 1) for k, call in calls.items()}, 3)
        counts = {k: max(1, int(seconds / min(times))) for k, times in once.items()}
        bursts = {k: partial(call, counts[k]) for k, call in calls.items()}
        times = measure(bursts, rounds)
        times = {k: [t / counts[k] for t in values] for k, values in times.items()}
        entry[what] = {"seconds": times, "time / plan": print_ratios(what, batch, times, "plan")}
    return entry


def main():
    """Print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a round, at least")
    parser.add_argument("--device", default="cuda:0", help="or emu")
    parser.add_argument("--small", action="store_true", help="to test this script")
    arguments = parser.parse_args()
    require_device(arguments.device)
    all_cases = SMALL if arguments.small else CASES
    path = result_path("gpu")
    cases = json.loads(path.read_text())["cases"] if path.exists() else {}
    what = [
        (rivals, name, batch, mode)
        for rivals in (RIVALS, COMPILED)
        for name in (SMALL if arguments.small else arguments.case or CASES)
        for batch in ([SMALL_BATCH] if arguments.small else arguments.batch or BATCHES)
        for mode in arguments.mode or MODES
    ]
    what.sort(key=lambda job: job[1:] != FIRST)
    for rivals, name, batch, mode in what:
        print(f"\n{name}, batch {batch}, {mode}", flush=True)
        here = arguments.device, mode, arguments.rounds, arguments.seconds, rivals
        try:
            entry = measure_mode(name, all_cases[name], batch, *here)
        except NO_MEMORY as error:
            print(f"  does not fit: {error}")
            entry = None
        if entry and (name, mode) == LIMITED and batch in LIMITS:
            rate = batch / median(entry["update"]["seconds"]["plan"])
            entry["of limit"] = rate / LIMITS[batch]
            print(f"  the plan's updates: {entry['of limit']:.0%} of an H200's limit")
        group = "compiled" if rivals is COMPILED else "rivals"
        found = cases.setdefault(name, {}).setdefault(str(batch), {}).setdefault(mode, {})
        found[group] = entry
        forget()
        save("gpu", device() | {"cases": cases})


def forget():
    """Give back the device's memory, and what was compiled."""
    gc.collect()
    if torch:
        torch.compiler.reset()
        torch.cuda.empty_cache()


def device():
    """Return what a reader needs to know of the GPU."""
    found = {"torch": torch.__version__ if torch else "not there"}
    try:
        import cupy
    except ImportError:  # --device emu
        return found
    if not cupy.cuda.is_available():
        return found
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return found | {
        "gpu": properties["name"].decode(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


if __name__ == "__main__":
    main()
