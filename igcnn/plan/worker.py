"""A process that computes some shards of every batch: `python -m igcnn.plan.worker`.

It is started by plan/team.py with the size of the batch, descriptors of the shared memory and
of a socket to each other process, and the numbers of its shards; the graph comes by stdin.
"""

from __future__ import annotations

import os
import socket
import sys

import numpy as np

from ..backend import keep_memory, single_threaded_blas
from ..errors import WorkerError
from .graph import Graph
from .program import TrainingProgram
from .team import START, Meeting, map_memory


def main() -> None:
    """Compute until the process that trains ends."""
    batch = int(sys.argv[1])
    memory_file, *descriptors = map(int, sys.argv[2].split(","))
    shards = [int(number) for number in sys.argv[3].split(",") if number]
    graph = Graph.from_json(sys.stdin.read())
    keep_memory()
    memory = map_memory(graph, batch, memory_file)
    os.close(memory_file)
    program = TrainingProgram(graph, memory, shards)
    peers = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    meeting = Meeting(peers)
    overflow = np.errstate(over="ignore", invalid="ignore", divide="ignore")
    try:
        with single_threaded_blas(), overflow:
            while peers[0].recv(1) == START:
                program.run(meeting.meet)
    except (OSError, WorkerError):
        return  # another process ended: the one that trains says so


if __name__ == "__main__":
    main()
