import numpy as np
import pytest
from vectors import Case


@pytest.fixture(autouse=True)
def random_numbers(monkeypatch):
    """The same in every order of the tests."""
    monkeypatch.setattr(Case, "rng", np.random.default_rng(0))
