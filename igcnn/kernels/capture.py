"""Passes that a device executes as a whole: a list of launches, captured once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .compiled import Recording, recording

Call = Callable[[], None]


class Pass:
    """A fixed list of launches; call it to execute them.

    The CPU executes a recording of them on its threads. A GPU launches one after another at first,
    which compiles the kernels, and replays a CUDA graph from the third time on. The emulator
    always launches one after another.

    Args:
        calls: the launches, with their arrays bound.
        device: "cpu", "emu" or "cuda:i".
        threads: of the CPU.
    """

    def __init__(self, calls: list[Call], device: str, threads: int) -> None:
        self.calls = calls
        self._device = device
        self._threads = threads
        self._recording: Recording | None = None
        self._graph: Any = None
        self._executed = False

    def __call__(self) -> None:
        """Execute the launches."""
        if self._device == "cpu":
            self.recording.run(self._threads)
        elif self._device == "emu" or not self._executed:
            self._launch_each()
        else:
            self._replay()
        self._executed = True

    @property
    def recording(self) -> Recording:
        """The launches as the CPU's runner takes them."""
        if self._recording is None:
            with recording() as self._recording:
                self._launch_each()
        return self._recording

    def _launch_each(self) -> None:
        for call in self.calls:
            call()

    def _replay(self) -> None:
        import cupy

        if self._graph is None:
            cupy.cuda.get_current_stream().synchronize()
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                stream.begin_capture()
                self._launch_each()
                self._graph = stream.end_capture()
        self._graph.launch(cupy.cuda.get_current_stream())
