"""Parts of gpu_report.py without a script of their own: `python benchmarks/gpu_parts.py NAME`.

Each saves its results as it finds them, so a part that is stopped early keeps what it has.
"""

import argparse
import csv
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from harness import result_path, write_json

ROOT = Path(__file__).parents[1]
PACKAGES = ("cupy-cuda12x", "cupy-cuda13x", "torch", "numpy", "h5py", "pillow", "click", "rich")
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}
IGCNN = (sys.executable, "-m", "igcnn")


def note(found):
    """Save the results so far, atomically."""
    write_json(result_path("found"), found)


def environment(small):
    """GPU, driver, programs and packages."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(0)
    found = {
        "gpu": properties["name"].decode(),
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "memory_bytes": properties["totalGlobalMem"],
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "programs": [p for p in ("nvcc", "ncu", "compute-sanitizer") if shutil.which(p)],
        "packages": {},
    }
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found["packages"][name] = importlib.metadata.version(name)
    note(found)
    doctor = subprocess.run([*IGCNN, "doctor"], cwd=ROOT, text=True, capture_output=True)
    note(found | {"doctor": doctor.stdout})
    return 0


def kernels(small):
    """Compile and launch every kernel once, compare with NumPy, and time the first launch."""
    sys.path.insert(0, str(ROOT / "tests"))
    from cuda_cases import CASES, results

    def run(job):
        name, dtype = job
        start = time.perf_counter()
        try:
            actual = results(name, "cuda:0", dtype)
        except Exception as error:
            return {"seconds": time.perf_counter() - start, "error": f"{error}"[:300]}
        seconds = time.perf_counter() - start
        expected = results(name, "cpu", "float64")
        errors = [
            float(np.abs(a.astype(float) - e).max() / max(1.0, np.abs(e).max()))
            for a, e in zip(actual, expected, strict=True)
        ]
        # images are prepared in float32, and the fused unit exists only for float32
        single = any(word in name for word in ("images", "augmentation", "fused"))
        limit = 1e-5 if single else TOLERANCES[dtype]
        return {"seconds": seconds, "error": max(errors), "correct": max(errors) <= limit}

    names = ["relu", "add", "linear"] if small else list(CASES)
    jobs = [(name, dtype) for name in names for dtype in TOLERANCES]
    start = time.perf_counter()
    found = {"cases": {}}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (name, dtype), one in zip(jobs, pool.map(run, jobs), strict=True):
            found["cases"][f"{name}, {dtype}"] = one
            note(found | {"seconds": time.perf_counter() - start, "threads": os.cpu_count()})
    return int(not all(one.get("correct") for one in found["cases"].values()))


def updates(small):
    """Run six updates twice with the plan, then with the tape and on the CPU."""
    from gpu import CASES as NETWORKS
    from gpu import SMALL, SMALL_BATCH, Ours

    case = SMALL["small"] if small else NETWORKS["resnet_igc L24M2"]
    batch = SMALL_BATCH if small else 64
    ways = {
        "plan": ("cuda:0", False),
        "plan again": ("cuda:0", False),
        "tape": ("cuda:0", True),
        "cpu": ("cpu", False),
    }
    found, weights = {}, {}
    for name, (device, eager) in ways.items():
        start = time.perf_counter()
        ours = Ours(case, batch, device, eager, "fp32", lr=0.1)
        # the plan captures the second and replays the rest
        losses = [ours.train() for _ in range(3 if small else 6)]
        state = ours.network.state_dict()
        weights[name] = np.concatenate([state[k].ravel() for k in sorted(state)])
        reference = weights["plan"]
        difference = np.linalg.norm(weights[name] - reference) / np.linalg.norm(reference)
        found[name] = {
            "losses": losses,
            "equal bits": weights[name].tobytes() == reference.tobytes(),
            "difference": float(difference),
            "seconds": time.perf_counter() - start,
        }
        note(found)
    return int(not found["plan again"]["equal bits"])


# every array from the driver, as one within CuPy's pool has neighbours and a past
UNPOOLED = "import cupy, pytest, sys; cupy.cuda.set_allocator(None); sys.exit(pytest.main())"


def sanitizer(small):
    """Check memory, races, uninitialized reads and barriers with compute-sanitizer."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        note({"missing": "compute-sanitizer is not on the PATH"})
        return 0
    chosen = "float32 and relu" if small else "float32"
    test = [sys.executable, "-c", UNPOOLED, "-q", "-m", "gpu", "-k", chosen]
    test += ["-p", "no:cacheprovider", "tests/kernels/test_cuda.py"]
    found = {}
    for check in ("memcheck", "racecheck", "synccheck", "initcheck"):
        start = time.perf_counter()
        done = subprocess.run(
            [tool, "--tool", check, "--error-exitcode", "9", *test],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        lines = done.stdout.splitlines()
        seconds = time.perf_counter() - start
        found[check] = {"rc": done.returncode, "seconds": seconds, "output": lines[-8:]}
        note(found)
    return int(any(one["rc"] for one in found.values()))


def training(small):
    """Train on CIFAR-10 with the recipe of the paper, resuming an earlier run."""
    out = Path(os.environ["GPU_REPORT_FOUND"]).parent / "run"
    words = ["--net", "resnet_igc", "--device", "cuda", "--progress", "plain", "--out", str(out)]
    if small:
        words += "--depth 8 --L 4 --M 2 --dataset digits --max-steps 4 --batch-size 8".split()
    elif data := os.environ.get("GPU_REPORT_DATA"):
        words += [*"--depth 20 --L 24 --M 2 --dataset cifar10 --data-dir".split(), data]
    else:
        note({"missing": "no --data"})
        return 0
    if (out / "checkpoints" / "last.h5").exists():
        words = ["--resume", str(out), *(["--max-steps", "8"] if small else [])]
    elif out.exists():
        words.append("--overwrite")
    process = subprocess.Popen([*IGCNN, "train", *words], cwd=ROOT)
    code = None
    while code is None:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(2)
        done = []
        if (out / "metrics.csv").exists():
            with (out / "metrics.csv").open() as file:
                done = list(csv.DictReader(file))
        note({"epochs": len(done), "last": done[-1] if done else None, "rc": code})
    return code


def main():
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {f.__name__: f for f in (environment, kernels, updates, sanitizer, training)}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--small", action="store_true", help="to test gpu_report.py")
    arguments = parser.parse_args()
    return parts[arguments.part](arguments.small)


if __name__ == "__main__":
    sys.exit(main())
