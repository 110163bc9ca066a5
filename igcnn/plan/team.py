"""Processes that compute the shards of a batch together, on memory that all of them see.

The process that trains is number 0 and computes its part like the others, which are programs
of their own (igcnn.plan.worker) and end when it does. Shared memory is a file without a name,
so nothing is left behind however they end. They meet by a byte over a socket: a process that
died is noticed at the next meeting.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import WorkerError
from .graph import Graph
from .planes import Array
from .shard import Memory, shard_sizes

ALIGNMENT = 64
STEP, REFRESH, EVALUATE, MEET = b"s", b"r", b"e", b"m"


def share_out(shards: int, processes: int) -> list[list[int]]:
    """Return which shards each process computes: as many each as possible, side by side."""
    bounds = [shards * rank // processes for rank in range(processes + 1)]
    return [list(range(a, b)) for a, b in pairwise(bounds)]


def memory_layout(graph: Graph, batch: int) -> dict[str, list[tuple[tuple[int, ...], str]]]:
    """Return shape and type of every shared array, by its name in Memory."""
    shards = len(shard_sizes(batch))
    gradients = [shape if wanted else () for shape, wanted in _slots(graph)]
    return {
        "images": [((*graph.shapes[0], batch), graph.dtype)],
        "labels": [((batch,), "int64")],
        "weights": [(shape, graph.dtype) for shape in graph.weights],
        "gradients": [(shape, graph.dtype) for _ in range(shards) for shape in gradients],
        "statistics": [((2, shards, 2, *graph.weights[n.gamma]), "float64") for n in graph.norms],
        "losses": [((shards,), "float64")],
        "hits": [((shards,), "int64")],
        "running": [((2, *graph.weights[n.gamma]), graph.dtype) for n in graph.norms],
        "logits": [((*graph.shapes[graph.logits], batch), graph.dtype)],
    }


def _slots(graph: Graph) -> list[tuple[tuple[int, ...], bool]]:
    """Return for each weight its shape and whether every shard has a gradient of it."""
    normed = {i for norm in graph.norms for i in (norm.gamma, norm.beta)}
    return [
        (shape, trained and i not in normed)
        for i, (shape, trained) in enumerate(zip(graph.weights, graph.trained, strict=True))
    ]


def map_memory(graph: Graph, batch: int, descriptor: int) -> Memory:
    """Return the shared arrays that lie in the file of a descriptor, −1 for memory of our own."""
    layout = memory_layout(graph, batch)
    buffer = mmap.mmap(descriptor, memory_bytes(graph, batch))
    arrays: dict[str, list[Array]] = {}
    offset = 0
    for name, items in layout.items():
        arrays[name] = []
        for shape, dtype in items:
            array = np.ndarray(shape, dtype, buffer, offset)
            arrays[name].append(array)
            offset += _aligned(array.nbytes)
    weights, shards = len(graph.weights), len(shard_sizes(batch))
    slots = arrays["gradients"]
    return Memory(
        images=arrays["images"][0],
        labels=arrays["labels"][0],
        weights=arrays["weights"],
        gradients=[slots[s * weights : (s + 1) * weights] for s in range(shards)],
        statistics=arrays["statistics"],
        losses=arrays["losses"][0],
        hits=arrays["hits"][0],
        running=arrays["running"],
        logits=arrays["logits"][0],
    )


def memory_bytes(graph: Graph, batch: int) -> int:
    """Return the size of the shared memory."""
    items = [item for items in memory_layout(graph, batch).values() for item in items]
    return sum(_aligned(np.dtype(t).itemsize * int(np.prod(s))) for s, t in items)


def shared_file(size: int) -> IO[bytes] | None:
    """Return a file without a name that has room for so many bytes, None if no folder has it.

    The room is taken now: a file that only claims its size kills the process that writes to it
    when the disk is full, and /dev/shm is small in containers.
    """
    for folder in ("/dev/shm", tempfile.gettempdir()):
        if not os.access(folder, os.W_OK):
            continue
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 – the caller closes it
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError:
            file.close()
            continue
        return file
    return None


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


class Meeting:
    """Where processes wait for each other.

    Args:
        peers: a socket to each of the other processes.
    """

    def __init__(self, peers: list[socket.socket]) -> None:
        self.peers = peers

    def meet(self) -> None:
        """Return when all processes have called this.

        Raises:
            WorkerError: one of them has ended.
        """
        try:
            for peer in self.peers:
                peer.send(MEET)
            for peer in self.peers:
                if peer.recv(1) != MEET:
                    raise ConnectionError
        except OSError as error:
            raise WorkerError("a worker process has ended in the middle of a step") from error


class Team:
    """The other processes of a plan.

    Args:
        graph: what they compute.
        batch: images of a step.
        processes: how many there are together with this one.
        training: whether they compute steps; logits they compute always.

    Attributes:
        memory: what all of them see.
        processes: how many there are; one if there is no room for memory that others see.
        local: numbers of the shards that this process computes.
        meeting: where it waits for the others.
    """

    def __init__(self, graph: Graph, batch: int, processes: int, training: bool) -> None:
        self.workers: list[subprocess.Popen[bytes]] = []
        self.meeting = Meeting([])
        file = shared_file(memory_bytes(graph, batch)) if processes > 1 else None
        self.processes = 1 if file is None else processes
        shares = share_out(len(shard_sizes(batch)), self.processes)
        self.local = shares[0]
        if file is None:
            self.memory = map_memory(graph, batch, -1)
            return
        with file:
            self.memory = map_memory(graph, batch, file.fileno())
            pairs = {}
            for a in range(processes):
                for b in range(a + 1, processes):
                    pairs[a, b], pairs[b, a] = socket.socketpair()
            specification = graph.to_json().encode()
            for rank in range(1, processes):
                sockets = [pairs[rank, other] for other in range(processes) if other != rank]
                settings = [str(batch), str(int(training)), ",".join(map(str, shares[rank]))]
                self.workers.append(_start(file.fileno(), sockets, settings))
            mine = [pairs[0, other] for other in range(1, processes)]
            for (a, _), end in pairs.items():
                if a:
                    end.close()
        self.meeting = Meeting(mine)
        for worker in self.workers:
            assert worker.stdin is not None
            with contextlib.suppress(BrokenPipeError), worker.stdin:
                worker.stdin.write(specification)

    def send(self, what: bytes) -> None:
        """Let the workers begin to STEP, REFRESH or EVALUATE.

        Raises:
            WorkerError: one of them has ended.
        """
        try:
            for peer in self.meeting.peers:
                peer.send(what)
        except OSError as error:
            raise self.explain() from error

    def explain(self) -> WorkerError:
        """Return the error of a worker that has ended, and end the others."""
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(1)
        reasons = [_reason(w) for w in self.workers if w.returncode not in (None, 0)]
        self.close()
        return WorkerError(
            f"a worker process ended in the middle of a step ({', '.join(reasons) or 'closed'}); "
            "--cores 1 works without"
        )

    def close(self) -> None:
        """End the workers: they see that their sockets close."""
        for peer in self.meeting.peers:
            peer.close()
        for worker in self.workers:
            try:
                worker.wait(5)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def _start(
    memory: int, sockets: list[socket.socket], settings: list[str]
) -> subprocess.Popen[bytes]:
    descriptors = [memory, *(end.fileno() for end in sockets)]
    package = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([package, *filter(None, sys.path)]),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "igcnn.plan.worker", *settings, ",".join(map(str, descriptors))],
        stdin=subprocess.PIPE,
        pass_fds=descriptors,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the process that trains
    )


def _reason(worker: subprocess.Popen[bytes]) -> str:
    code = worker.returncode
    if code < 0:
        return f"process {worker.pid} by {signal.Signals(-code).name}"
    return f"process {worker.pid} with exit code {code}"
