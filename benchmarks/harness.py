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


def measure(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return seconds per call for each candidate, run in turn A B C A B C … after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for function in candidates.values():
        function()
    for _ in range(rounds):
        for name, function in candidates.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: dict[str, list[float]], base: str) -> dict[str, float]:
    """Return for each candidate the median over the rounds of its time divided by base's."""
    return {
        name: median(own / other for own, other in zip(values, seconds[base], strict=True))
        for name, values in seconds.items()
    }


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
    """Write benchmarks/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(machine() | result, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {path}")
