"""Ctrl-C during training: the first one asks to stop after the step, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

NOTICE = b"\nstopping after this step and saving; Ctrl-C again stops at once\n"


class Interrupt:
    """Context in which the first SIGINT only sets `requested`.

    In a thread other than the main one signals cannot be handled, and nothing changes there.

    Attributes:
        requested: whether to stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        self.requested = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, NOTICE)  # print may be what the signal interrupted
