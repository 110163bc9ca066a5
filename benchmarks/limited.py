"""Runs a command under a limit of time, and leaves nothing of it behind.

A command is marked by a variable of its environment, which its children inherit, so that those
that made themselves independent (a session of their own, a dead parent) are found and killed too.
Of what it prints the last 64 KiB are kept, however much it is.
"""

import os
import signal
import subprocess
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

KEPT_BYTES = 64 << 10
MARK = "GPU_REPORT_MARK"


def run_limited(command, seconds, cwd, environment):
    """Return exit code, seconds and the end of the output; the code is None where it was killed.

    Args:
        command: program and arguments.
        seconds: after which it is killed, with all its descendants.
        cwd: folder that it runs in.
        environment: variables beside those of this process.
    """
    mark = uuid.uuid4().hex
    start = time.monotonic()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | environment | {MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    output = bytearray()
    reader = threading.Thread(target=_read, args=(process.stdout, output), daemon=True)
    reader.start()
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:  # also where this program is told to end
        kill_marked(mark)
        process.wait()
        reader.join(5)
        if not reader.is_alive():  # else somebody hid from the mark, and is not waited for
            process.stdout.close()
    text = output.decode(errors="replace")
    return {"rc": code, "seconds": time.monotonic() - start, "output": text}


def _read(stream, output):
    """Keep the end of a stream."""
    while chunk := stream.read1(1 << 16):
        output += chunk
        del output[:-KEPT_BYTES]


def kill_marked(mark):
    """Kill every process that carries a mark, until there is none."""
    wanted = f"{MARK}={mark}".encode()
    for _ in range(100):
        found = [pid for pid in _processes() if wanted in _environment(pid)]
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _environment(pid):
    """Return the variables that a process began with; nothing of one that has ended."""
    try:
        if " Z " in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            return []
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
