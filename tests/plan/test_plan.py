"""Training steps and logits by a plan, on one process or several, against the tape."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from igcnn import build_network
from igcnn.errors import ShapeError, WorkerError
from igcnn.optim import SGD
from igcnn.plan import Plan
from igcnn.training import TapeEngine, make_engine

from .test_program import CASES, Squared

SHARED = Path("/dev/shm")


def batch(images, side=8, dtype="float32"):
    rng = np.random.default_rng(1)
    return rng.standard_normal((images, 3, side, side)).astype(dtype), rng.integers(0, 10, images)


def small_network(**settings):
    settings = {"depth": 8, "L": 4, "M": 2, "num_classes": 10} | settings
    return build_network("resnet_igc", **settings)


@pytest.mark.parametrize(("net", "settings", "side", "images"), CASES)
def test_logits_are_those_of_the_tape(net, settings, side, images):
    network = build_network(net, num_classes=10, dtype="float64", **settings)
    x, labels = batch(images, side, "float64")
    TapeEngine(network).step(x, labels)  # statistics other than 0 and 1
    rng = np.random.default_rng(2)
    for parameter in network.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.shape)
    with Plan(network, x.shape[1:], images, training=False) as plan:
        plan.refresh()
        for count in (images, max(1, images - 2)):
            expected = TapeEngine(network).logits(x[:count])
            scale = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(plan.logits(x[:count]), expected, atol=1e-12 * scale)


def trained(processes, images=37, steps=3):
    """Return all that three updates by a plan leave, as bytes."""
    network = small_network()
    optimizer = SGD(network.parameters(), lr=0.1)
    x, labels = batch(images)
    with Plan(network, x.shape[1:], images, processes) as plan:
        losses = []
        for _ in range(steps):
            losses.append(plan.step(x, labels))
            optimizer.step()
        plan.refresh()
        logits = plan.logits(x)
    state = {name: array.tobytes() for name, array in network.state_dict().items()}
    return losses, logits.tobytes(), state


def test_any_number_of_processes_gives_the_same_bits():
    results = [trained(processes) for processes in (1, 2, 4)]
    assert results[0] == results[1] == results[2]


def test_without_room_for_shared_memory_one_process_computes(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    x, labels = batch(8)
    with Plan(small_network(), x.shape[1:], 8, 2) as plan:
        assert str(plan) == "plan, 1 process"
        plan.step(x, labels)


def test_a_plan_leaves_the_network_whole():
    network = small_network()
    x, labels = batch(5)
    plan = Plan(network, x.shape[1:], 5, 2)
    plan.step(x, labels)
    before = network.state_dict()
    plan.close()
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    TapeEngine(network).step(x, labels)


def test_too_many_images():
    with Plan(small_network(), (3, 8, 8), 4, training=False) as plan:
        plan.refresh()
        with pytest.raises(ShapeError, match="5 images, but it was made for 4"):
            plan.logits(batch(5)[0])


def test_weights_set_between_steps_are_used():
    network = small_network()
    x, labels = batch(6)
    with Plan(network, x.shape[1:], 6) as plan:
        plan.step(x, labels)
        for parameter in network.parameters():
            parameter.data = np.zeros_like(parameter.data)
        loss, _ = plan.step(x, labels)
        assert loss == pytest.approx(np.log(10), abs=1e-6)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_ends_is_an_error_that_says_so(number):
    network = small_network()
    x, labels = batch(8)
    shared = files()
    with Plan(network, x.shape[1:], 8, 3) as plan:
        plan.step(x, labels)
        before = network.state_dict()
        os.kill(plan.team.workers[1].pid, number)
        plan.team.workers[1].wait()
        with pytest.raises(WorkerError, match=rf"{number.name}.*--cores 1"):
            plan.step(x, labels)
        for name, array in network.state_dict().items():
            if not name.endswith(("running_mean", "running_var")):
                np.testing.assert_array_equal(array, before[name])
        assert all(worker.poll() is not None for worker in plan.team.workers)
    assert files() == shared


def files():
    return sorted(path.name for path in SHARED.iterdir()) if SHARED.exists() else []


def test_what_has_no_plan_is_computed_on_the_tape():
    engine, words = make_engine(Squared(), (3, 8, 8), 4)
    assert isinstance(engine, TapeEngine)
    assert words.startswith("tape (no plan: the operation")


def test_eager_is_the_tape():
    engine, words = make_engine(small_network(), (3, 8, 8), 4, eager=True)
    assert isinstance(engine, TapeEngine)
    assert words == "tape (--eager)"
