"""Everything that is to be known of igcnn on this computer's GPU, as one page.

    make gpu-report DATA=DIR          # DIR has the files of CIFAR-10
    python benchmarks/gpu_report.py --only tests --only kernels

Each part runs by itself and is written down when it ends, in benchmarks/results/gpu/<part>.json,
what it printed beside it; docs/gpu_measured.md is made of all that is there. A part that fails is
told in the page with the last lines of what it said, and the others run all the same.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gpu_page import SECTIONS, page
from harness import RESULTS, require_device

ROOT = Path(__file__).parents[1]
PARTS = RESULTS / "gpu"
PAGE = ROOT / "docs" / "gpu_measured.md"
IGCNN = (sys.executable, "-m", "igcnn.cli.main")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
BITS = "--net resnet_igc --L 24 --M 2 --depth 8 --dataset digits --max-steps 200 --progress none"
# by the paper's recipe
TRAINED = {
    "resnet_igc L24M2, depth 20": "--net resnet_igc --L 24 --M 2 --depth 20",
    "resnet C=18, depth 20": "--net resnet --L 18 --M 1 --depth 20",
    "resnet_igc L24M2, depth 38": "--net resnet_igc --L 24 --M 2 --depth 38",
    "resnet C=18, depth 38": "--net resnet --L 18 --M 1 --depth 38",
}


def run(name, command, **environment):
    """Return exit code, seconds and output of a command; the output is also kept in a file."""
    print(f"{name}: {' '.join(map(str, command))}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    seconds = time.perf_counter() - start
    (PARTS / f"{name}.txt").write_text(done.stdout)
    return {"rc": done.returncode, "seconds": seconds, "output": done.stdout}


def doctor():
    """What of the computer works."""
    return run("doctor", [*IGCNN, "doctor"])


def tests():
    """All tests that are for a device."""
    return run("tests", [sys.executable, "-m", "pytest", "-m", "gpu"])


# every array from the driver, as one within CuPy's pool has neighbours and a past
UNPOOLED = "import cupy, pytest, sys; cupy.cuda.set_allocator(None); sys.exit(pytest.main())"


def sanitizer():
    """NVIDIA's checks of memory, races, uninitialised reads and barriers, on the tests' shapes."""
    test = [sys.executable, "-c", UNPOOLED, "-m", "gpu", "-k", "float32"]
    test.append("tests/kernels/test_cuda.py")
    found = {}
    for tool in SANITIZERS:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *test]
        found[tool] = run(f"sanitizer-{tool}", command) if shutil.which(command[0]) else None
    return found


def bits():
    """200 updates: twice by the plan, by the tape, and on the CPU."""
    ways = {
        "plan": "--device cuda",
        "plan again": "--device cuda",
        "tape": "--device cuda --eager",
        "cpu": "--device cpu --eager",
    }
    states, found = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in ways.items():
            out = Path(folder) / name.replace(" ", "-")
            words = f"train {BITS} {options} --out {out}".split()
            found[name] = run(f"bits-{out.name}", [*IGCNN, *words])
            if not found[name]["rc"]:
                states[name] = weights(out / "checkpoints" / "last.h5")
    if "plan" in states:
        for name, state in states.items():
            found[name] |= compared(state, states["plan"])
    return {"options": BITS, "ways": found}


def weights(path):
    """Return the arrays of a checkpoint by name."""
    from igcnn.training import load_checkpoint

    return load_checkpoint(path).state


def compared(state, expected):
    """Return whether two states are equal to the bit, and how far they are apart."""
    import numpy as np

    digests = [
        hashlib.sha256(b"".join(s[name].tobytes() for name in sorted(s))).hexdigest()
        for s in (state, expected)
    ]
    a, b = (np.concatenate([s[name].ravel() for name in sorted(s)]) for s in (state, expected))
    return {
        "equal bits": digests[0] == digests[1],
        "difference": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
    }


def cache():
    """Two starts of the program: what each compiles, and how long it takes."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in ("first", "second"):
            words = f"train {BITS} --max-steps 5 --device cuda --out {folder}/{number}".split()
            one = run(f"cache-{number}", [*IGCNN, *words], CUPY_CACHE_DIR=f"{folder}/cupy")
            found.append(one | {"files": len(list(Path(folder, "cupy").glob("*")))})
    return found


def speed():
    """Updates and evaluation beside PyTorch."""
    return run("speed", [sys.executable, "benchmarks/gpu.py"])


def kernels():
    """Every launch of an update."""
    script = [sys.executable, "benchmarks/gpu_kernels.py", "--precision"]
    return {p: run(f"kernels-{p}", [*script, p]) for p in ("fp32", "bf16")}


def training(data, seeds, epochs):
    """The paper's recipe on CIFAR-10."""
    found = {}
    for seed in range(seeds):
        for name, options in TRAINED.items():
            out = Path("runs") / "gpu-report" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            words = f"train {options} --dataset cifar10 --seed {seed} --device cuda --out {out}"
            words += f" --progress plain --epochs {epochs}"
            if (ROOT / out).exists():  # go on with what was cut short
                words = f"train --resume {out}"
            one = run(f"training-{out.name}", [*IGCNN, *words.split(), "--data-dir", data])
            rows = ROOT / out / "metrics.csv"
            if rows.exists():
                with rows.open() as file:
                    done = list(csv.DictReader(file))
                one |= {"last": done[-1], "epochs": len(done)}
            found[f"{name}, seed {seed}"] = one
            write("training", found)
    return found


def write(name, found):
    """Keep what a part found, without the long outputs, which are in files of their own."""
    path = PARTS / f"{name}.json"
    path.write_text(json.dumps(shortened(found), indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(PARTS))


def shortened(found):
    """Return the same with the last lines of each output."""
    if isinstance(found, dict):
        return {k: shortened(v) for k, v in found.items()}
    if isinstance(found, list):
        return [shortened(v) for v in found]
    return "\n".join(found.splitlines()[-30:]) if isinstance(found, str) else found


def main():
    """Run the parts, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SECTIONS)
    parser.add_argument("--data", help="folder with the files of CIFAR-10, for `training`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=400)
    arguments = parser.parse_args()
    require_device("cuda")  # else the page of a computer that has one would be overwritten
    PARTS.mkdir(parents=True, exist_ok=True)
    for part in (doctor, tests, sanitizer, bits, cache, speed, kernels):
        if not arguments.only or part.__name__ in arguments.only:
            write(part.__name__, part())
    if arguments.data and (not arguments.only or "training" in arguments.only):
        write("training", training(arguments.data, arguments.seeds, arguments.epochs))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
