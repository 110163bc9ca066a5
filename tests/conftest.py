import os
from pathlib import Path

import pytest

from igcnn.cli import ranks
from igcnn.errors import DeviceError


@pytest.fixture
def mpiexec(monkeypatch):
    """The beginning of a command line that starts ranks; its variables are set."""
    try:
        program, variables = ranks.mpiexec()
    except DeviceError as error:
        pytest.skip(str(error))
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    for name, value in (*variables.items(), ("PYTHONPATH", paths)):
        monkeypatch.setenv(name, value)
    return [program]
