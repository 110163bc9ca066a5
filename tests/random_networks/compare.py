"""Computes a network by the tape, by a plan, on the emulator and by PyTorch, and compares."""

import importlib.util
import itertools

import numpy as np

from igcnn.backend import to_host
from igcnn.optim import SGD
from igcnn.training import TapeEngine, make_engine

from .network import CLASSES, RandomNetwork

TOLERANCE = 1e-10
UPDATES = 3
HAS_TORCH = importlib.util.find_spec("torch") is not None


class NoImages:
    """A loader of images that do not lie in memory: batches come from the host."""

    split = None


def batch(description):
    """Return images and labels."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((description.images, *description.shape))
    return images, rng.integers(0, CLASSES, description.images)


def states(engine, network, one):
    """Yield the loss, all gradients and then all parameters and statistics of each update."""
    optimizer = SGD(network.named_parameters(), lr=0.02, momentum=0.8, weight_decay=1e-3)
    engine.prepare(optimizer, NoImages)
    for _ in range(UPDATES):
        engine.update(one)
        ((loss, _),) = engine.collect(wait=True)
        yield loss, gradients(engine, network), network.state_dict()


def gradients(engine, network):
    """Return the gradient of each parameter by name."""
    names = {id(tensor): name for name, tensor in network.named_parameters()}
    if isinstance(engine, TapeEngine):
        return {names[id(p)]: to_host(p.grad) for p in network.parameters()}
    own = engine.parameters
    return {
        names[id(tensor)]: to_host(gradient).copy()
        for tensor, gradient in zip(own.tensors, own.gradients, strict=True)
    }


def assert_close(actual, expected, what):
    """Raise where numbers differ by more than the tolerance, relative to the largest."""
    assert sorted(actual) == sorted(expected), what
    for name, array in expected.items():
        scale = max(1.0, float(np.abs(array).max(initial=0)))
        error = float(np.abs(actual[name] - array).max(initial=0))
        assert error <= TOLERANCE * scale, f"{what}: {name} is off by {error:.2g} of {scale:.2g}"


def is_finite(update):
    """Return whether there is something to compare after an update."""
    loss, *arrays = update
    return bool(np.isfinite(loss)) and all(
        np.isfinite(array).all() for each in arrays for array in each.values()
    )


def compare(description, devices=("cpu",), torch=HAS_TORCH):
    """Raise AssertionError where two ways to compute a network differ.

    Returns:
        For each device how it was computed: "plan", or why not.
    """
    one = batch(description)
    network = RandomNetwork(description)
    before = network.state_dict()
    with np.errstate(over="ignore", invalid="ignore"):  # products of products may diverge
        updates = states(TapeEngine(network), network, one)
        expected = list(itertools.takewhile(is_finite, updates))
    assert expected, "the first update is not finite"
    if torch:
        from .pytorch import loss_and_gradients

        for k, (loss, grads, _) in enumerate(expected):
            state = before if k == 0 else expected[k - 1][2]
            other, others = loss_and_gradients(description, state, one)
            assert_close({"loss": other, **others}, {"loss": loss, **grads}, f"PyTorch, {k}")
    return {device: on_device(device, description, one, expected) for device in devices}


def on_device(device, description, one, expected):
    """Compare one device with what is expected; return how it computed."""
    network = RandomNetwork(description)
    engine, words = make_engine(network, description.shape, description.images, device=device)
    updates = zip(states(engine, network, one), expected, strict=False)
    for k, ((loss, grads, state), (wanted_loss, wanted_grads, wanted_state)) in enumerate(updates):
        what = f"{words}, update {k}"
        assert_close({"loss": loss, **grads}, {"loss": wanted_loss, **wanted_grads}, what)
        assert_close(
            {n: to_host(a) for n, a in state.items()}, wanted_state, f"{what}, afterwards"
        )
    engine.close()
    return words if isinstance(engine, TapeEngine) else "plan"
