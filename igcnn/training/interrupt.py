"""Signals during training: the first asks to stop after the step, a second Ctrl-C stops at once.

Ctrl-C comes from a person; SIGTERM and SIGUSR1 from a batch system that wants its machine back;
SIGHUP from a terminal that is gone, unless nohup had it ignored.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

NOTICES = {
    "SIGINT": b"\nstopping after this step and saving; Ctrl-C again stops at once\n",
    "SIGTERM": b"\nSIGTERM: stopping after this step and saving\n",
    "SIGUSR1": b"\nSIGUSR1: stopping after this step and saving\n",
    "SIGHUP": b"\nSIGHUP: stopping after this step and saving\n",
}


class StopRequested(Exception):
    """Ends an evaluation, which may have other weights in the network than those to save."""


class Interrupt:
    """Context in which the first of these signals only sets `requested`.

    In a thread other than the main one signals cannot be handled, and nothing changes there.

    Args:
        silent: do not say so on the terminal.

    Attributes:
        requested: name of the signal that asks to stop, None for none.
    """

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent
        self.requested: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        self.requested = None
        if threading.current_thread() is threading.main_thread():
            for name in NOTICES:
                number = getattr(signal, name, None)  # not all are everywhere
                if number is None or (name == "SIGHUP" and is_ignored(number)):
                    continue
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested == name == "SIGINT":
            raise KeyboardInterrupt
        # a batch system may repeat itself; a person after it may still want to stop at once
        self.requested = "SIGINT" if name == "SIGINT" else self.requested or name
        if not self.silent:
            with suppress(OSError):  # of a terminal that is gone
                os.write(2, NOTICES[name])  # print may be what the signal interrupted


def is_ignored(number: int) -> bool:
    """Return whether a signal is ignored, as SIGHUP by what nohup has started."""
    return signal.getsignal(number) is signal.SIG_IGN
