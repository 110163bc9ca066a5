import numpy as np
import pytest

from igcnn import build_network
from igcnn.inspection import Subject, make_report

MEAN, STD = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 70.0])


@pytest.fixture(scope="session")
def reported():
    """Return a function: subject and report of a network with a random image."""

    def make(devices=(), side=None, label=2, **settings):
        settings = {"num_classes": 3, **settings}
        network = build_network(**settings)
        side = side or (64 if "imgnet" in settings["net"] else 16)
        rng = np.random.default_rng(1)
        pixels = rng.integers(0, 256, (3, side, side), np.uint8)
        others = rng.integers(0, 256, (4, 3, side, side), np.uint8)
        classes = ("cat & dog", "<b>bird</b>", 'a "plane"')
        subject = Subject(network, pixels, MEAN, STD, "random", classes, label, others)
        return subject, make_report(subject, list(devices))

    return make
