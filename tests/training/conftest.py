import dataclasses

import pytest

from igcnn import build_network, load_dataset
from igcnn.training import Recipe, RunDirectory, Trainer


@pytest.fixture(scope="session")
def dataset():
    """100 training and 60 test images of digits."""
    digits = load_dataset("digits")

    def first(split, n):
        return dataclasses.replace(split, images=split.images[:n], labels=split.labels[:n])

    return dataclasses.replace(digits, train=first(digits.train, 100), test=first(digits.test, 60))


@pytest.fixture
def small_network():
    return build_network("plain_igc", depth=8, L=2, M=2, num_classes=10, seed=1)


@pytest.fixture
def make_trainer(dataset, tmp_path):
    """Return a function that makes a trainer: 3 epochs of 4 updates, logging every third."""

    def make(folder="run", net="plain_igc", recipe=None, **arguments):
        network = build_network(net, depth=8, L=2, M=2, num_classes=10, seed=1)
        recipe = recipe or Recipe(epochs=3, batch_size=32, lr=0.05)
        run = RunDirectory(tmp_path / folder)
        run.create()
        return Trainer(network, dataset, recipe, run, **{"log_interval": 3, **arguments})

    return make
