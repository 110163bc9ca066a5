"""Ranks on the command line: starting them, and that they end together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from igcnn.errors import ConfigError, DeviceError, DivergedError, PreemptedError

from .failure import INTERRUPTED, report

if TYPE_CHECKING:
    from igcnn.distributed import Communicator

# what all ranks end with at the same step, rank 0 having saved
AGREED = (KeyboardInterrupt, DivergedError, PreemptedError)
SECONDS_FOR_RANK_0 = 1.5  # to save, or to say what is wrong on all ranks


@contextlib.contextmanager
def ending_together(communicator: Communicator) -> Iterator[None]:
    """Context in which an error on one rank ends them all, with its exit code."""
    try:
        yield
    except BaseException as error:
        if communicator.size == 1:
            raise
        if isinstance(error, AGREED) and not communicator.broken:
            if communicator.rank == 0:
                raise
            raise click.exceptions.Exit(_code(error)) from None
        if communicator.rank:
            time.sleep(SECONDS_FOR_RANK_0)
        sys.stdout.flush()
        communicator.abort(report(error))


def _code(error: BaseException) -> int:
    return getattr(error, "exit_code", INTERRUPTED)


def parse_gpus(text: str) -> list[int]:
    """Return the numbers in "0,1,2".

    Raises:
        ConfigError: these are not numbers of GPUs, each once.
    """
    try:
        gpus = [int(part) for part in text.split(",")]
    except ValueError:
        gpus = []
    if not gpus or min(gpus) < 0 or len(set(gpus)) < len(gpus):
        raise ConfigError(f"--gpus takes numbers of GPUs such as 0,1,2,3, not {text!r}")
    return gpus


def mpiexec() -> tuple[str, dict[str, str]]:
    """Return the program that starts ranks, and environment variables for it.

    Raises:
        DeviceError: it is not there.
    """
    beside = Path(sys.executable).with_name("mpiexec")
    program = str(beside) if beside.is_file() else shutil.which("mpiexec")
    if program is None:
        raise DeviceError(
            "several ranks need MPI, but mpiexec was not found; pip install 'igcnn[mpi]'"
        )
    # of Open MPI: more ranks than cores are allowed, and none is tied to one core
    variables = {
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
    }
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container
        variables |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return program, variables


def start_ranks(count: int, arguments: Sequence[str], gpus: Sequence[int] = ()) -> int:
    """Run this command on several ranks on this computer; return its exit code.

    A signal that asks to end reaches the ranks as SIGUSR1, which mpiexec passes on: at SIGTERM
    it would kill them before they have saved.

    Args:
        count: how many.
        arguments: of the command line.
        gpus: numbers of the GPUs that they see, one each; empty for no choice.

    Raises:
        DeviceError: mpiexec is not there.
    """
    program, variables = mpiexec()
    environment = os.environ | variables
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    line = [program, "-n", str(count), sys.executable, "-m", "igcnn", *arguments]
    translation = dict.fromkeys(("SIGTERM", "SIGINT", "SIGHUP"), "SIGUSR1")
    return run_signalled(line, environment, translation)


def end_with_parent() -> None:
    """Let this process, about to start a program, be ended when the one that started it is."""
    set_parent_death_signal = 1  # sys/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def start(
    line: Sequence[str],
    environment: dict[str, str] | None,
    apart: bool,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command.

    Args:
        line: the command.
        environment: its variables; None for those of this process.
        apart: keep it out of the terminal's reach, and end it with this process (Linux).
        stdout: as for Popen.
    """
    return subprocess.Popen(
        line,
        env=environment,
        start_new_session=apart,
        preexec_fn=end_with_parent if apart and sys.platform == "linux" else None,
        stdout=stdout,
    )


@contextlib.contextmanager
def signals_reaching(
    processes: Collection[subprocess.Popen[bytes]], translation: Mapping[str, str]
) -> Iterator[list[str]]:
    """Context in which signals that are meant to end this process reach others.

    Args:
        processes: the others, which may change.
        translation: name of a signal → name of the one that they get for it. If that holds
            SIGINT they are out of the terminal's reach, and a second SIGINT ends them.

    Yields:
        The names of the signals so far.
    """
    from igcnn.training.interrupt import is_ignored

    before = {}
    received: list[str] = []

    def forward(number: int, frame: object) -> None:
        name = signal.Signals(number).name
        again = name == "SIGINT" and "SIGINT" in received
        received.append(name)
        for process in processes:
            process.send_signal(
                signal.SIGTERM if again else signal.Signals[translation.get(name, name)]
            )

    names = ["SIGTERM", "SIGUSR1", "SIGHUP", *(["SIGINT"] if "SIGINT" in translation else [])]
    for name in names:
        number = getattr(signal, name, None)
        if number is not None and not (name == "SIGHUP" and is_ignored(number)):
            before[number] = signal.signal(number, forward)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_signalled(
    line: Sequence[str], environment: dict[str, str] | None, translation: dict[str, str]
) -> int:
    """Return how a command ended; signals that are meant to end it reach it first.

    Args:
        line: the command.
        environment: its variables; None for those of this process.
        translation: see signals_reaching.
    """
    process = start(line, environment, "SIGINT" in translation)
    with signals_reaching([process], translation) as received:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:  # the terminal told the training too: let it save
                continue
    return INTERRUPTED if "SIGINT" in received and code else code
