"""`igcnn launch`: training that is brought back when it dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import click

# what trying again cannot mend: usage, data, device, divergence, checkpoint; and what a person
# or a batch system wanted
FINAL = (0, 2, 3, 4, 5, 6, 75, 130)
PAUSE = 2.0  # seconds, doubled with every restart


@click.command(
    "launch", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--max-restarts", type=click.IntRange(0), default=3, show_default=True)
@click.argument("arguments", nargs=-1, required=True, metavar="-- train …")
def launch_command(max_restarts: int, arguments: tuple[str, ...]) -> None:
    """Start a training, and go on with it when it was killed or a process of it died.

    \b
    igcnn launch --max-restarts 3 -- train --net resnet_igc --dataset cifar10 --out run

    It goes on from the last checkpoint, to the same weights as if nothing had been. What trying
    again cannot mend (exit codes 2 to 6) and what was wanted (75, 130) ends it with that code.
    """
    from igcnn.errors import ConfigError

    if arguments[0] != "train":
        raise ConfigError(f"igcnn launch starts train, not {arguments[0]}; write -- train …")
    line = [sys.executable, "-m", "igcnn.cli.main", *arguments]
    for restart in range(max_restarts + 1):
        code = _run(line)
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
            line = [sys.executable, "-m", "igcnn.cli.main", *arguments, "--resume=auto"]
    raise click.exceptions.Exit(code if code >= 0 else 128 - code)


def _run(line: list[str]) -> int:
    """Return how the command ended; signals that are meant to end it reach it first."""
    process = subprocess.Popen(line)
    before = {}

    def forward(number: int, frame: object) -> None:
        process.send_signal(number)

    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            number = getattr(signal, name)
            before[number] = signal.signal(number, forward)
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal told the training too: let it save
                continue
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
