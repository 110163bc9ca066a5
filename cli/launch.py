"""`igcnn launch`: restarts a training that died."""

from __future__ import annotations

import sys
import time

import click

from .options import GroupedCommand
from .ranks import run_signalled

# errors that a restart cannot fix: usage, data, device, divergence, checkpoint; and ends that a
# person or a batch system asked for
FINAL = (0, 2, 3, 4, 5, 6, 75, 130)
# what starts ranks kills them at SIGTERM before they have saved, but passes this on
STARTERS = {"mpiexec": "SIGUSR1", "mpirun": "SIGUSR1", "srun": "SIGTERM"}
PAUSE = 2.0  # seconds, doubled with every restart


@click.command(
    "launch",
    cls=GroupedCommand,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--max-restarts", type=click.IntRange(0), default=3, show_default=True)
@click.argument("arguments", nargs=-1, required=True, metavar="-- train …")
def launch_command(max_restarts: int, arguments: tuple[str, ...]) -> None:
    """Train, and restart after a crash.

    Resumes the training when it was killed or one of its processes died.

    \b
    igcnn launch -- train --dataset cifar10 --out run

    \b
    igcnn launch -- mpiexec -n 16 --hostfile hosts \\
        igcnn train --dataset cifar10 --out run

    It continues from the last checkpoint and reaches the same weights as an uninterrupted run.
    Errors that a restart cannot fix (exit codes 2 to 6) and requested ends (75, 130) end it with
    that code.
    """
    from igcnn.errors import ConfigError

    starter = STARTERS.get(arguments[0])
    if arguments[0] != "train" and not (starter and "train" in arguments):
        raise ConfigError(f"igcnn launch starts train, not {arguments[0]}; write -- train …")
    translation = dict.fromkeys(("SIGTERM", "SIGINT", "SIGHUP"), starter) if starter else {}
    first = list(arguments) if starter else [sys.executable, "-m", "igcnn", *arguments]
    line = first
    for restart in range(max_restarts + 1):
        code = run_signalled(line, None, translation)
        if code in FINAL or restart == max_restarts:
            break
        pause = PAUSE * 2**restart
        click.echo(
            f"igcnn: the training ended with code {code}; restart {restart + 1} of "
            f"{max_restarts} in {pause:g} s",
            err=True,
        )
        time.sleep(pause)
        if not any(a.partition("=")[0] == "--resume" for a in arguments):
            line = [*first, "--resume=auto"]
    raise click.exceptions.Exit(code if code >= 0 else 128 - code)
