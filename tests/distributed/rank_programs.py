"""What several ranks do in the tests: mpiexec -n N python rank_programs.py NAME."""

import os
import signal
import sys
import time

import numpy as np
import pytest

from igcnn import build_network
from igcnn.backend import on_device, resolve_device, to_device, to_host
from igcnn.datasets import Loader
from igcnn.datasets.dataset import Augmentation, Split
from igcnn.distributed import Agreement, connect, for_device
from igcnn.distributed.agreement import compare_ranks, first_choice, spread
from igcnn.distributed.mpi import MPICommunicator
from igcnn.errors import DataError, RankError, RankMismatchError
from igcnn.layers.batch_norm import synchronise
from igcnn.optim import SGD
from igcnn.plan import Plan, parameters
from igcnn.training import TapeEngine, make_engine

NETWORKS = [
    ("plain", {"depth": 8, "L": 3}, 8),
    ("resnet", {"depth": 8, "L": 3}, 8),
    ("plain_igc", {"depth": 8, "L": 3, "M": 2}, 8),
    ("resnet_igc", {"depth": 8, "L": 2, "M": 3}, 8),
    ("resnet_imgnet_d18", {"L": 2}, 33),
    ("resnet_igc_imgnet_d18", {"L": 4, "M": 2}, 33),
]
BATCH = 7  # no number of ranks but 7 divides it


def make(net, settings, dtype="float64"):
    return build_network(net, num_classes=5, dtype=dtype, seed=3, **settings)


def random_batch(side, dtype="float64"):
    rng = np.random.default_rng(0)
    return rng.normal(size=(BATCH, 3, side, side)).astype(dtype), rng.integers(0, 5, BATCH)


def part(communicator, rank=None):
    rank = communicator.rank if rank is None else rank
    return slice(BATCH * rank // communicator.size, BATCH * (rank + 1) // communicator.size)


class Cut:
    """A loader as far as an engine asks for it: so many images of a batch are this rank's."""

    batch_size = BATCH
    split = None

    def __init__(self, communicator):
        own = part(communicator)
        self.local_batch_size = own.stop - own.start


def results(network):
    """Return gradients and statistics by name."""
    found = {name: tensor.grad for name, tensor in network.named_parameters()}
    return found | {name: array.copy() for name, array in network.named_buffers()}


def assert_equal(actual, expected, tolerance=1e-12):
    assert list(actual) == list(expected)
    for name in expected:
        scale = max(1.0, np.abs(expected[name]).max())
        difference = np.abs(to_host(actual[name]) - expected[name]).max() / scale
        assert difference <= tolerance, (name, difference)


def gradients_of_synchronised_ranks_are_those_of_one(communicator):
    for net, settings, side in NETWORKS:
        x, labels = random_batch(side)
        alone, together = make(net, settings), make(net, settings)
        expected = TapeEngine(alone).step(x, labels)
        synchronise(together, communicator)
        engine, how = make_engine(
            together, x.shape[1:], Cut(communicator).local_batch_size, communicator=communicator
        )
        assert "no plan: the operation sync_batch_norm" in how, how
        optimizer = SGD(together.named_parameters(), lr=0.0)
        engine.prepare(optimizer, Cut(communicator))
        own = part(communicator)
        engine.update((x[own], labels[own]))
        ((loss, correct),) = engine.collect(wait=True)
        assert abs(loss - expected[0]) <= 1e-12
        assert correct == expected[1]
        assert_equal(results(together), results(alone))
        compare_ranks(communicator, results(together), "here")


def mean_over_parts(communicator, net, settings, side):
    """Return what ranks with statistics of their own must have, one part after the other."""
    x, labels = random_batch(side)
    total, losses, hits = {}, 0.0, 0
    for rank in range(communicator.size):
        network = make(net, settings)
        own = part(communicator, rank)
        loss, correct = TapeEngine(network).step(x[own], labels[own])
        share = (own.stop - own.start) / BATCH
        losses, hits = losses + share * loss, hits + correct
        for name, array in results(network).items():
            total[name] = total.get(name, 0.0) + share * array
    return total, losses, hits


def planned(communicator, net, settings, side):
    """Return a network and its plan for this rank's part of the batch, in many buckets."""
    network = make(net, settings)
    own = part(communicator)
    shape = 3, side, side
    engine, how = make_engine(
        network, shape, own.stop - own.start, cores=1, communicator=communicator
    )
    assert how.startswith("compiled plan"), how
    parameters.BUCKET_BYTES = 1024
    engine.prepare(SGD(network.named_parameters(), lr=0.0), Cut(communicator))
    assert len(engine.buckets) > 1
    return network, engine


def gradients_by_a_plan_are_means_over_the_ranks(communicator):
    for net, settings, side in NETWORKS:
        x, labels = random_batch(side)
        network, engine = planned(communicator, net, settings, side)
        own = part(communicator)
        engine.update((x[own], labels[own]))
        ((loss, correct),) = engine.collect(wait=True)
        expected, expected_loss, expected_hits = mean_over_parts(communicator, net, settings, side)
        for tensor, gradient in zip(
            engine.parameters.tensors, engine.parameters.gradients, strict=True
        ):
            tensor.grad = gradient
        assert_equal(results(network), expected)
        assert abs(loss - expected_loss) <= 1e-12
        assert correct == expected_hits
        engine.close()


def buckets_are_summed_while_backward_runs(communicator):
    """Seen by the order of what happens: all sums but the last begin before backward ends."""
    net, settings, side = NETWORKS[3]
    x, labels = random_batch(side)
    own = part(communicator)
    network = make(net, settings)
    engine = TapeEngine(network, communicator)
    engine.prepare(SGD(network.named_parameters(), lr=0.0), Cut(communicator))
    reducer = engine._reducer
    reducer.__init__(communicator, network.parameters(), reducer.buffers, reducer.share, 1024)
    begun = []
    first, ready = network.parameters()[0], reducer.ready

    def note(tensor):
        if tensor is first:
            begun.append(reducer._begun)
        ready(tensor)

    reducer.ready = note
    engine.update((x[own], labels[own]))
    assert begun == [len(reducer.buckets) - 1], (begun, len(reducer.buckets))

    network, engine = planned(communicator, net, settings, side)
    order = []
    start = communicator.start_mean
    communicator.start_mean = lambda *both: order.append("sum") or start(*both)
    engine._backward = [
        lambda run=run: order.append("backward") or run() for run in engine._backward
    ]
    engine.update((x[own], labels[own]))
    # the last of these sums is that of the statistics
    assert order == ["backward", "sum"] * len(engine.buckets) + ["sum"], order


def updates_on_a_device_are_those_of_the_tape(communicator):
    device = resolve_device(sys.argv[2], communicator.local_rank)
    summing = for_device(communicator, device, sys.argv[3])
    summing.timeout = communicator.timeout
    # an image that is brought from the host is normalised in float32
    for resident, dtype, tolerance in ((False, "float64", 1e-9), (True, "float32", 1e-4)):
        net, settings = "resnet_igc", {"depth": 8, "L": 2, "M": 3}
        rng = np.random.default_rng(1)
        images = rng.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
        split = Split(images, rng.integers(0, 5, 20))
        constants = {
            "batch_size": BATCH,
            "mean": (120.0, 110.0, 100.0),
            "std": (60.0, 61.0, 62.0),
            "augmentation": Augmentation(1, True),
            "rank": summing.rank,
            "ranks": summing.size,
        }
        loader = Loader(split, **constants)
        if not resident:
            loader.split = FromTheHost(split)
        finals = []
        for by_plan in (False, True):
            network = make(net, settings, dtype)
            shape = 3, 8, 8
            if by_plan:
                engine = Plan(
                    network, shape, loader.local_batch_size, device, communicator=summing
                )
            else:
                engine = TapeEngine(network, communicator)
            optimizer = SGD(network.named_parameters(), lr=0.02)
            engine.prepare(optimizer, loader)
            for epoch in range(2):
                for batch in engine.batches(epoch, 0):
                    engine.update(batch and (batch[0].astype(dtype), batch[1]))
            logged = engine.collect(wait=True)
            finals.append((network.state_dict(), logged))
            engine.close()
        (expected, rows), (actual, others) = finals
        assert len(rows) == 6
        np.testing.assert_allclose(others, rows, rtol=tolerance)
        assert_equal(actual, expected, tolerance)  # six updates amplify rounding
        compare_ranks(summing, actual, "here")


class FromTheHost:
    """Images that cannot be brought to the device."""

    def __init__(self, split):
        self.batches = split.batches
        self.labels = split.labels

    def __len__(self):
        return len(self.labels)


def messages_arrive(communicator):
    rank, size = communicator.rank, communicator.size
    assert communicator.gather(b"x" * rank) == [b"x" * r for r in range(size)]
    assert communicator.broadcast(f"from {rank}".encode()) == b"from 0"
    array = np.arange(5.0) + rank
    wait = communicator.start_sum(array)
    wait()
    np.testing.assert_array_equal(array, size * np.arange(5.0) + size * (size - 1) / 2)
    assert first_choice(communicator, "abc", None) is None
    assert first_choice(communicator, "abc", "c" if rank == size - 1 else None) == "c"
    assert first_choice(communicator, "abc", "c" if rank == 0 else "b") == "b"
    arrays = {"a": np.full((2, 3), rank, np.float32), "b": np.array([rank])}
    received = spread(communicator, arrays)
    assert not any(values.any() for values in received.values())
    assert received["a"].shape == (2, 3)
    own = {"same": np.zeros(3), "weight": np.full(2, float(rank == 1)), "bias": np.full(1, rank)}
    with pytest.raises(RankMismatchError, match=r"weight of rank 1 differs from .* after epoch 3"):
        compare_ranks(communicator, own, "after epoch 3")


def a_silent_rank_is_lost(communicator):
    communicator.timeout = 0.5
    if communicator.rank == 1:
        time.sleep(1.5)
        communicator.abort(7)
    began = time.monotonic()
    for _ in range(2):  # and stays so
        with pytest.raises(RankError):
            communicator.sum(np.ones(3))
    assert communicator.broken
    assert time.monotonic() - began < 1.4
    time.sleep(5)


def a_silent_rank_is_lost_by_nccl(communicator):
    device = resolve_device("cuda", communicator.local_rank)
    summing = for_device(communicator, device, "nccl")
    array = to_device(np.arange(3.0), device)
    with on_device(device):
        summing.sum(array)
        assert to_host(array).tolist() == [0, 2, 4]
        summing.timeout = 0.5
        if summing.rank == 1:
            time.sleep(1.5)
            summing.abort(7)
        with pytest.raises(RankError):
            summing.sum(array)
        assert summing.broken
        to_host(array)  # the GPU does not wait for what will not come
    time.sleep(5)


def an_error_on_rank_0(communicator, rank=0, error=RuntimeError):
    """The program itself, whose plan fails on one rank."""
    from igcnn.cli.main import main

    update, calls = Plan.update, []

    def fail(*arguments):
        calls.append(1)
        if communicator.rank == rank and len(calls) == 20:
            raise error("out of luck")
        return update(*arguments)

    Plan.update = fail
    sys.exit(main(sys.argv[2:]))


def an_error_on_rank_1(communicator):
    an_error_on_rank_0(communicator, rank=1)


def a_lost_image_on_rank_0(communicator):
    an_error_on_rank_0(communicator, error=DataError)


def a_lost_image_on_rank_1(communicator):
    an_error_on_rank_0(communicator, rank=1, error=DataError)


def a_rank_that_stops_between_its_update_and_the_next_sum(communicator):
    """The program itself; what rank 0 then saves has the weights of that update."""
    from igcnn.cli.main import main

    signal_of, calls = Agreement.signal, []

    def stop(*arguments):
        calls.append(1)
        if communicator.rank == 1 and len(calls) == 20:
            os.kill(os.getpid(), signal.SIGSTOP)
        return signal_of(*arguments)

    Agreement.signal = stop
    sys.exit(main(sys.argv[2:]))


if __name__ == "__main__":
    ranks = connect()
    assert isinstance(ranks, MPICommunicator)
    ranks.timeout = 300  # a first update compiles
    try:
        globals()[sys.argv[1]](ranks)
    except Exception:
        import traceback

        traceback.print_exc()
        ranks.abort(1)
