"""Run scenarios with a fault at every system call: `python -m faults NAME…`, with the shim loaded.

Prints a JSON object: for each scenario its calls by name, how many trials there were, which exit
codes they had, and what was lost. Each trial is a process of its own, forked when everything is
imported.
"""

import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from igcnn.training import run_directory

from .scenarios import CODES, SCENARIOS

SHORT, KILL_BEFORE, KILL_AFTER = -1, -2, -3
KINDS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EACCES", "EINTR")}
KINDS |= {"short": SHORT, "killed before": KILL_BEFORE, "killed after": KILL_AFTER}
TRANSFERS = "write", "pwrite", "read", "pread"  # which can be cut short
KILLED = -signal.SIGKILL
MEMORY = "/dev/shm"  # where fsync takes no time

shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
shim.fault_name.restype = ctypes.c_char_p
shim.fault_arm.argtypes = ctypes.c_char_p, ctypes.c_long, ctypes.c_int


def in_a_process(action):
    """Return the exit code of an action, negative for a signal."""
    sys.stdout.flush()
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(action())
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def calls_of(scenario, folder):
    """Return the names of the system calls of a scenario."""
    scenario.prepare(folder)
    names = folder.with_suffix(".calls")

    def count():
        shim.fault_arm(bytes(folder), -1, 0)
        code = scenario.do(folder)
        calls = [shim.fault_name(k).decode() for k in range(shim.fault_seen())]
        shim.fault_arm(b"", -1, 0)
        names.write_text(json.dumps(calls))
        return code

    assert in_a_process(count) == 0
    return json.loads(names.read_text())


def trial(scenario, folder, number, kind):
    """Return the exit code with a fault at one call, and what was lost."""
    scenario.prepare(folder)

    def disturbed():
        shim.fault_arm(bytes(folder), number, KINDS[kind])
        return scenario.do(folder)

    code = in_a_process(disturbed)
    problems = []
    expected = {KILLED} if kind.startswith("killed") else CODES[scenario.name]
    if code not in expected:
        problems.append(f"exit code {code}")
    try:
        problems += scenario.lost(folder, code)
    except Exception as error:
        problems.append(f"{type(error).__name__}: {error}")
    return code, problems


def run(name, folder):
    """Return what came of a scenario."""
    scenario = SCENARIOS[name](folder)
    calls = calls_of(scenario, folder / "counted")
    codes, lost, trials = Counter(), [], 0
    for number, call in enumerate(calls):
        for kind in KINDS:
            if kind == "short" and call not in TRANSFERS:
                continue
            own = folder / "trial"
            code, problems = trial(scenario, own, number, kind)
            shutil.rmtree(own)
            trials += 1
            codes[code] += 1
            if problems:
                lost.append(f"call {number}, {call}, {kind}: {'; '.join(problems)}")
    return {"calls": Counter(calls), "trials": trials, "codes": codes, "lost": lost}


if os.environ.get("FAULTS_CARELESS"):  # to see that losses are noticed
    run_directory.write_atomically = Path.write_bytes
results = {}
for name in sys.argv[1:] or SCENARIOS:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        results[name] = run(name, Path(folder).resolve())
print(json.dumps(results))
