"""Several ranks against one process: rank_programs.py says what each case asserts."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from igcnn.backend import gpu_count
from igcnn.datasets import Loader
from igcnn.datasets.dataset import Split
from igcnn.distributed import Communicator, connect, for_device, is_one_of_several
from igcnn.errors import ConfigError

pytest.importorskip("mpi4py", reason="needs MPI (pip install 'igcnn[mpi]')")

pytestmark = pytest.mark.xdist_group("processes")  # each has several, and limits of time
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
PROGRAMS = Path(__file__).with_name("rank_programs.py")


@pytest.fixture
def on_ranks(mpiexec):
    """Run a case of rank_programs.py; return the exit code and what was said."""

    def run(count, name, *arguments):
        line = [*mpiexec, "-n", str(count), sys.executable, str(PROGRAMS), name, *arguments]
        done = subprocess.run(line, capture_output=True, text=True, timeout=400)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(
    "name",
    [
        "messages_arrive",
        "gradients_of_synchronised_ranks_are_those_of_one",
        "gradients_by_a_plan_are_means_over_the_ranks",
    ],
)
def test_ranks(on_ranks, count, name):
    code, said = on_ranks(count, name)
    assert code == 0, said


@pytest.mark.parametrize("count", [2, 3])
def test_buckets_are_summed_while_backward_runs(on_ranks, count):
    code, said = on_ranks(count, "buckets_are_summed_while_backward_runs")
    assert code == 0, said


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "device",
    [
        pytest.param("emu", marks=needs_compiler),
        pytest.param("cuda:0", marks=pytest.mark.gpu),  # ranks may share it, as the host sums
    ],
)
def test_ranks_on_a_device(on_ranks, count, device):
    code, said = on_ranks(count, "updates_on_a_device_are_those_of_the_tape", device, "mpi")
    assert code == 0, said


@pytest.mark.gpu
@pytest.mark.skipif(gpu_count() < 2, reason="needs two GPUs")
def test_ranks_on_two_gpus_summed_by_nccl(on_ranks):
    code, said = on_ranks(2, "updates_on_a_device_are_those_of_the_tape", "cuda", "nccl")
    assert code == 0, said
    code, said = on_ranks(2, "a_silent_rank_is_lost_by_nccl")
    assert code == 7, said
    assert "Traceback" not in said


def test_a_silent_rank_is_lost(on_ranks):
    code, said = on_ranks(2, "a_silent_rank_is_lost")
    assert code == 7, said
    assert "Traceback" not in said


def test_a_process_alone(monkeypatch):
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert not is_one_of_several()
    alone = connect()
    array = np.arange(3.0)
    alone.sum(array)
    np.testing.assert_array_equal(array, [0, 1, 2])
    assert alone.gather(b"a") == [b"a"]
    assert alone.broadcast(b"b") == b"b"
    with pytest.raises(ConfigError, match="one of auto, nccl, mpi"):
        for_device(Communicator(), "cpu", "tcp")
    with pytest.raises(ConfigError, match="is for GPUs, not for cpu"):
        for_device(Communicator(), "cpu", "nccl")


@pytest.mark.parametrize(("images", "batch_size", "ranks"), [(20, 7, 3), (9, 4, 2), (9, 5, 4)])
def test_parts_of_the_ranks_are_the_batches(images, batch_size, ranks):
    split = Split(np.zeros((images, 3, 2, 2), np.uint8), np.arange(images))
    settings = {"batch_size": batch_size, "mean": (0, 0, 0), "std": (1, 1, 1), "seed": 5}
    whole = Loader(split, **settings)
    parts = [Loader(split, **settings, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert sum(part.local_batch_size for part in parts) == batch_size
    assert max(p.local_batch_size for p in parts) - min(p.local_batch_size for p in parts) <= 1
    for epoch in range(2):
        together = np.concatenate([part.parts(epoch) for part in parts], axis=1)
        np.testing.assert_array_equal(together, whole.parts(epoch))
        labels = [[y for _, y in part.epoch(epoch, 1)] for part in parts]
        np.testing.assert_array_equal(np.concatenate(labels, axis=1), whole.parts(epoch)[1:])
    with pytest.raises(ConfigError, match="fewer ranks"):
        Loader(split, **settings, ranks=batch_size + 1)
