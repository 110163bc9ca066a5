"""Several trainings at once, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from igcnn.errors import PreemptedError

from .choice import say
from .failure import INTERRUPTED
from .ranks import signals_reaching, start

POLL = 0.05  # seconds between looks at the processes
# the first SIGINT lets a training save; a second one to this process ends them
SIGNALS = {"SIGINT": "SIGINT"}


@dataclass(frozen=True)
class Task:
    """A training of a pool.

    Attributes:
        name: for the messages.
        arguments: of `igcnn`.
    """

    name: str
    arguments: Sequence[str]


def run_pool(tasks: Sequence[Task], slots: Sequence[Sequence[str]]) -> int:
    """Run trainings, as many at a time as there are slots; return 0 or the first bad exit code.

    After a training that failed, or a signal, no further one is started; those that run save and
    end. None outlives this process.

    Args:
        tasks: in the order of starting.
        slots: arguments that a training gets in each, such as its device. With one slot the
            trainings write to stdout; with several only to their run directories.
    """
    waiting = list(tasks)
    free = list(slots)
    running: dict[subprocess.Popen[bytes], tuple[Task, Sequence[str]]] = {}
    failed, interrupted = 0, False
    stdout = None if len(slots) == 1 else subprocess.DEVNULL
    with signals_reaching(running, SIGNALS) as received:
        while running or (waiting and not failed and not received):
            while waiting and free and not failed and not received:
                task, slot = waiting.pop(0), free.pop(0)
                say(f"igcnn: {len(tasks) - len(waiting)} of {len(tasks)}: {task.name}")
                line = [sys.executable, "-m", "igcnn", *task.arguments, *slot]
                process = start(line, None, True, stdout=stdout)
                running[process] = task, slot
                if received:  # while it was starting
                    process.terminate()
            time.sleep(POLL)
            for process in [each for each in running if each.poll() is not None]:
                task, slot = running.pop(process)
                free.append(slot)
                code = process.returncode
                if code and not received and not failed:
                    failed = code if code > 0 else 128 - code  # as a shell has it
                    say(f"igcnn: {task.name} ended with exit code {failed}; the others stop")
                    for other in running:
                        other.terminate()
                interrupted = interrupted or bool(code and received)
    if received and (interrupted or waiting):
        return INTERRUPTED if "SIGINT" in received else PreemptedError.exit_code
    return failed
