"""Plant faults and see whether the tests find them: `python -m mutations [--only NAME]`.

    python -m mutations --random 100 --file igcnn/optim/sgd.py --tests tests/optim

changes one file at random instead; what survives is either of no consequence or lacks a test.
Exits with 1 if a fault survives, or no longer applies to the source.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .faults import planted
from .sweep import sample
from .workspace import ROOT, Workspace

KILLED, SURVIVED, INAPPLICABLE = "killed", "survived", "did not apply"
USELESS = "tests fail without it"


def outcomes(only: list[str], workspace: Workspace) -> Iterator[tuple[str, str]]:
    """Yield (name, what came of it) for the planted faults whose names contain one of `only`."""
    passing: dict[str, bool] = {}
    for fault in planted():
        if not any(part in fault.name for part in only):
            continue
        source = fault.apply((ROOT / fault.file).read_text(encoding="utf-8"))
        if source is None:
            yield fault.name, INAPPLICABLE
            continue
        if fault.tests not in passing:
            passing[fault.tests] = workspace.passes(fault.tests)
        if not passing[fault.tests]:
            yield fault.name, USELESS
            continue
        yield fault.name, outcome(workspace, fault.file, source, fault.tests)


def swept(
    file: str, tests: str, count: int, seed: int, workspace: Workspace
) -> Iterator[tuple[str, str]]:
    """Yield (change, what came of it) for changes at random."""
    if not workspace.passes(tests):
        yield tests, USELESS
        return
    for line, words, source in sample((ROOT / file).read_text(encoding="utf-8"), count, seed):
        yield f"{file}:{line}: {words}", outcome(workspace, file, source, tests)


def outcome(workspace: Workspace, file: str, source: str, tests: str) -> str:
    """Return what came of a changed file."""
    with workspace.planted(file, source):
        return SURVIVED if workspace.passes(tests) else KILLED


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        help="Plant the faults whose names contain one of these.",
    )
    parser.add_argument("--random", type=int, metavar="N", help="Number of random changes.")
    parser.add_argument("--file", help="File to change at random.")
    parser.add_argument("--tests", help="Tests that must find it, as for pytest.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    options = parser.parse_args()
    if options.random and not (options.file and options.tests):
        parser.error("--random needs --file and --tests")
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        found = outcomes(options.only, workspace)
        if options.random:
            given = options.file, options.tests, options.random, options.seed
            found = swept(*given, workspace)
        began = time.monotonic()
        for name, result in found:
            print(f"{result:13} {time.monotonic() - began:6.1f} s  {name}", flush=True)
            counted[result] += 1
            began = time.monotonic()
    print(", ".join(f"{count} {result}" for result, count in counted.items()) or "no such fault")
    return 0 if set(counted) == {KILLED} else 1


sys.exit(main())
