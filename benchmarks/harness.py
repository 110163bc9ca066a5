"""Timing side by side: interleaved rounds, medians of ratios, results as JSON."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


def measure(
    candidates: dict[str, Callable[[], object]], rounds: int, *, calls: int = 1, rest: float = 0.0
) -> dict[str, list[float]]:
    """Return seconds per call for each candidate, run in turn A B C A B C … after one warm-up.

    Args:
        candidates: functions by name.
        rounds: how often each has its turn.
        calls: of a turn, whose mean is one value; with more than one, the first is not timed.
        rest: seconds between turns, in which idle threads of the last candidate fall asleep;
            libgomp's and TBB's spin for a few milliseconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for function in candidates.values():
        function()
    for _ in range(rounds):
        for name, function in candidates.items():
            time.sleep(rest)
            if calls > 1:
                function()
            start = time.perf_counter()
            for _ in range(calls):
                function()
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def ratios(seconds: dict[str, list[float]], base: str) -> dict[str, float]:
    """Return for each candidate the median over the rounds of its time divided by base's."""
    return {
        name: median(own / other for own, other in zip(values, seconds[base], strict=True))
        for name, values in seconds.items()
    }


def print_ratios(
    what: str, batch: int, seconds: dict[str, list[float]], base: str
) -> dict[str, float]:
    """Print one line an engine and return the ratios to the time of `base`."""
    relative = ratios(seconds, base)
    for name, values in seconds.items():
        rounds = sorted(a / b for a, b in zip(values, seconds[base], strict=True))
        rate = batch / median(values)
        print(
            f"  {what:8} {name:14} {1e3 * median(values):8.2f} ms {rate:8.1f} img/s   "
            f"time / {base} {relative[name]:5.2f} "
            f"({rounds[0]:.2f} to {rounds[-1]:.2f})",
            flush=True,
        )
    return relative


def check_equal(
    case: str, engines: dict[str, tuple[Callable[[], Any], ...]], base: str, tolerance: float
) -> dict[str, float]:
    """Raise unless all engines agree on loss, gradients and logits; return their differences.

    Rounding is amplified by depth, so the norm of all gradients together is what counts.

    Args:
        case: named in the error.
        engines: (training step that returns the loss, gradients, evaluation) by name.
        base: the engine that the others are held against.
        tolerance: of the norm of the gradients, and of the largest logit.
    """
    import numpy as np

    losses = {name: engine[0]() for name, engine in engines.items()}
    for name, loss in losses.items():
        allowed = tolerance / 25 * max(1, abs(losses[base]))
        assert abs(loss - losses[base]) < allowed, (case, name, losses)
    gradients = {name: engine[1]() for name, engine in engines.items()}
    flat = {name: np.concatenate([a.ravel() for a in g]) for name, g in gradients.items()}
    expected = flat[base]
    differences = {
        name: float(np.linalg.norm(array - expected) / np.linalg.norm(expected))
        for name, array in flat.items()
    }
    assert max(differences.values()) < tolerance, (case, differences)
    check_logits(case, {name: engine[2] for name, engine in engines.items()}, base, tolerance)
    return differences


def check_logits(
    case: str, engines: dict[str, Callable[[], Any]], base: str, tolerance: float
) -> None:
    """Raise unless all functions return the same logits as `base`."""
    import numpy as np

    logits = {name: evaluate() for name, evaluate in engines.items()}
    for name, values in logits.items():
        difference = np.abs(values - logits[base]).max() / np.abs(logits[base]).max()
        assert difference < tolerance, (case, name, difference)


def peak_memory() -> float:
    """Return the peak memory of this process in MB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024


def require_device(name: str) -> None:
    """End the program with one line and exit code 4 unless it can compute on a device."""
    from igcnn.backend import resolve_device
    from igcnn.errors import DeviceError

    try:
        resolve_device(name)
    except DeviceError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(4)


def machine() -> dict[str, Any]:
    """Return what a reader needs to know of the machine."""
    import numpy as np
    from threadpoolctl import threadpool_info

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":")[1].strip()
                break
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas kernels": [x["architecture"] for x in threadpool_info() if "architecture" in x],
        "command": " ".join(["python", *sys.argv]),
    }


def save(name: str, result: dict[str, Any]) -> None:
    """Write benchmarks/results/<name>.json, or the file that gpu_report.py wants."""
    path = result_path(name)
    path.parent.mkdir(exist_ok=True)
    write_json(path, machine() | result)
    print(f"written: {path}", flush=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a file is there whole or not at all."""
    from igcnn.files import write_atomically

    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())


def result_path(name: str) -> Path:
    """Return where `save` writes."""
    return Path(os.environ.get("GPU_REPORT_FOUND", RESULTS / f"{name}.json"))
