"""A process that computes some shards of every batch: `python -m igcnn.plan.worker`.

It is started by plan/team.py with the size of the batch, whether it trains, the numbers of its
shards, and descriptors of the shared memory and of a socket to each other process; the graph
comes by stdin.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

import numpy as np

from ..backend import keep_memory, single_threaded_blas
from ..errors import WorkerError
from . import team
from .evaluation import EvaluationProgram
from .graph import Graph
from .program import TrainingProgram


def main() -> None:
    """Compute until the process that trains ends."""
    # a signal that is meant for the job: the process that trains decides, and ends this one
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    batch = int(sys.argv[1])
    training = sys.argv[2] == "1"
    shards = [int(number) for number in sys.argv[3].split(",")]
    memory_file, *descriptors = map(int, sys.argv[4].split(","))
    graph = Graph.from_json(sys.stdin.read())
    keep_memory()
    memory = team.map_memory(graph, batch, memory_file)
    os.close(memory_file)
    program = TrainingProgram(graph, memory, shards) if training else None
    evaluation = EvaluationProgram(graph, memory, shards)
    peers = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    meeting = team.Meeting(peers)
    overflow = np.errstate(over="ignore", invalid="ignore", divide="ignore")
    try:
        with single_threaded_blas(), overflow:
            while True:
                match peers[0].recv(1):
                    case team.STEP:
                        assert program is not None
                        program.run(meeting.meet, None)
                    case team.REFRESH:
                        for call in evaluation.refresh:
                            call()
                    case team.EVALUATE:
                        evaluation.run()
                        meeting.meet()
                    case _:
                        return
    except (OSError, WorkerError):
        return  # another process ended: the one that trains says so


if __name__ == "__main__":
    main()
