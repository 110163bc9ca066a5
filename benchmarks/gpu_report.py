"""Test and measure igcnn on this computer's GPU within a time limit.

    python benchmarks/gpu_report.py --minutes 11 --wheels DIR --data DIR
    python benchmarks/gpu_report.py --minutes 11 --resume  # the missing parts; training continues

Runs from a checkout, installs nothing and downloads nothing. Pure-Python wheels of missing
packages are unpacked from --wheels; CIFAR-10 comes from --data: its official files, or those
written by `igcnn data pack cifar10`.

The parts run in order of importance, each in a process with a time limit, which is killed with all
its children at the limit. Results are in benchmarks/results/gpu/<part>.json as soon as they are
known, the output in <part>.txt, and docs/gpu_measured.md is rewritten after each part. The last
part, training with the recipe of the paper, gets the remaining time.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from gpu_page import page, summary, verdict
from harness import RESULTS, require_device, write_json
from limited import run_limited

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gpu_measured.md"
HERE = Path(__file__).parent
RESERVE = 10  # seconds for writing the page
SHORTEST = 5  # a part is not started with less


@dataclass(frozen=True)
class Part:
    """A command that measures or tests something.

    Attributes:
        name: name of its result files.
        command: arguments for Python.
        seconds: time limit.
        small: additional arguments for a test of this script.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    small: tuple[str, ...] = ()


SPEED = ("benchmarks/gpu.py", "--case", "resnet_igc L24M2", "--rounds", "5", "--seconds", "0.2")
# by name, so that no other file is imported, which may need a package that is not there
GPU_TESTS = tuple(
    str(path.relative_to(ROOT))
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
    if "mark.gpu" in path.read_text()
)
TESTS = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *GPU_TESTS)
SMALL_TESTS = ("-k", "relu")
PARTS = (
    Part("environment", ("benchmarks/gpu_parts.py", "environment"), 25),
    Part("kernels", ("benchmarks/gpu_parts.py", "kernels"), 90, ("--small",)),
    Part("updates", ("benchmarks/gpu_parts.py", "updates"), 75, ("--small",)),
    Part("speed", SPEED, 170, ("--small", "--mode", "fp32", "--rounds", "1", "--seconds", "0")),
    Part("profile", ("benchmarks/gpu_kernels.py",), 60, ("--small",)),
    Part("cuts", ("benchmarks/gpu_cuts.py",), 60, ("--small",)),
    Part("tests", TESTS, 120, SMALL_TESTS),
    Part("sanitizer", ("benchmarks/gpu_parts.py", "sanitizer"), 90, ("--small",)),
    Part("training", ("benchmarks/gpu_parts.py", "training"), 3600, ("--small",)),
)


def unpacked(wheels, folder):
    """Unpack all wheels into `folder` and return it."""
    for wheel in sorted(Path(wheels).glob("*.whl")):
        if not wheel.name.endswith("-none-any.whl"):
            raise SystemExit(f"gpu_report: {wheel.name} is not pure Python; leave it out")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)  # which leaves out .. and roots
    return folder


def is_done(results, name):
    """Return whether an earlier run completed this part."""
    path = results / f"{name}.json"
    return path.exists() and json.loads(path.read_text())["rc"] == 0


def run_part(part, results, seconds, environment, small):
    """Run a part, save how it ended, and return that."""
    results.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *part.command, *(part.small if small else ())]
    print(f"{part.name}: at most {seconds:.0f} s", flush=True)
    found = results / f"{part.name}.found.json"  # which the part writes itself, as it goes on
    variables = environment | {"GPU_REPORT_FOUND": str(found)}
    ended = run_limited(command, seconds, ROOT, variables)
    (results / f"{part.name}.txt").write_text(ended["output"])
    ended |= {"limit": seconds, "output": "\n".join(ended["output"].splitlines()[-30:])}
    write_json(results / f"{part.name}.json", ended)
    print(f"  {verdict(ended)}", flush=True)
    return ended


def end(*_):
    """Let `finally` blocks run on SIGTERM."""
    sys.exit(143)


def main():
    """Run the parts, write the page, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=11, help="time limit of all parts")
    parser.add_argument("--wheels", help="directory with pure-Python wheels of missing packages")
    parser.add_argument("--cubins", help="directory written by `make gpu-cubins`")
    parser.add_argument("--data", help="directory with CIFAR-10, for `training`")
    parser.add_argument("--only", action="append", choices=[part.name for part in PARTS])
    parser.add_argument("--resume", action="store_true", help="skip completed parts")
    parser.add_argument("--small", action="store_true", help="to test this script")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes - RESERVE
    signal.signal(signal.SIGTERM, end)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(ROOT), str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        if arguments.wheels:
            paths.append(unpacked(arguments.wheels, folder))
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        if arguments.cubins:
            environment["IGCNN_CUBINS"] = str(Path(arguments.cubins).resolve())
        if arguments.data:
            environment["GPU_REPORT_DATA"] = str(Path(arguments.data).resolve())
        sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
        require_device("cuda")  # else the page of a computer that has one would be overwritten
        for part in PARTS:
            left = deadline - time.monotonic()
            if arguments.only and part.name not in arguments.only:
                continue
            if (
                arguments.resume
                and part.name != "training"
                and is_done(arguments.results, part.name)
            ):
                print(f"{part.name}: completed before")
                continue
            if left < SHORTEST:
                print(f"{part.name}: no time left")
                continue
            limit = min(part.seconds, left)
            run_part(part, arguments.results, limit, environment, arguments.small)
            arguments.page.write_text(page(arguments.results))
    print(summary(arguments.results))


if __name__ == "__main__":
    main()
