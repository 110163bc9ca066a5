import shutil

import numpy as np
import pytest

from igcnn import build_network
from igcnn.inspection import Subject, make_report
from igcnn.inspection.live import make_live
from igcnn.inspection.page import render_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
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


@pytest.fixture(scope="session")
def rendered(reported):
    """Return a function: report, and the page as it is written."""

    def make(**settings):
        subject, report = reported(**settings)
        return report, render_page(report, make_live(subject))

    return make


@pytest.fixture(scope="session")
def browser():
    """A headless browser; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("needs a browser (Debian, Ubuntu: apt install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason='pip install "igcnn[test]"')
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()
