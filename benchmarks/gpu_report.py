"""Everything that is to be known of igcnn on this computer's GPU, within a limit of time.

    python benchmarks/gpu_report.py --minutes 11 --wheels DIR --data DIR
    python benchmarks/gpu_report.py --minutes 11 --resume            # what is missing, training on

From a plain checkout: nothing is installed and nothing fetched. Pure-Python wheels of what this
computer lacks are unpacked from --wheels; CIFAR-10 comes from --data, its official files or what
`igcnn data pack cifar10` made of them.

The parts run in the order of their worth, each a process with a limit of its own, killed with all
its children when that is over. What a part has found is in benchmarks/results/gpu/<part>.json as
soon as it is known, what it printed in <part>.txt, and docs/gpu_measured.md is made anew after
each. The last part, training by the paper's recipe, gets all the time that is left.
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
RESERVE = 10  # seconds for writing down
SHORTEST = 5  # a part that has less is not begun


@dataclass(frozen=True)
class Part:
    """A command that finds something out.

    Attributes:
        name: of its results.
        command: arguments of Python.
        seconds: that it may take.
        small: arguments more where only this script is tested.
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
    """Return the folder that has the content of all wheels in one."""
    for wheel in sorted(Path(wheels).glob("*.whl")):
        if not wheel.name.endswith("-none-any.whl"):
            raise SystemExit(f"gpu_report: {wheel.name} is not pure Python; leave it out")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)  # which leaves out .. and roots
    return folder


def is_done(results, name):
    """Return whether an earlier run has ended this part."""
    path = results / f"{name}.json"
    return path.exists() and json.loads(path.read_text())["rc"] == 0


def run_part(part, results, seconds, environment, small):
    """Run a part, write down how it ended, and return that."""
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
    parser.add_argument("--minutes", type=float, default=11, help="that all of it may take")
    parser.add_argument("--wheels", help="folder with pure-Python wheels of what is missing")
    parser.add_argument("--cubins", help="folder that `make gpu-cubins` has filled")
    parser.add_argument("--data", help="folder with CIFAR-10, for `training`")
    parser.add_argument("--only", action="append", choices=[part.name for part in PARTS])
    parser.add_argument("--resume", action="store_true", help="leave out what is done")
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
                print(f"{part.name}: done before")
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
