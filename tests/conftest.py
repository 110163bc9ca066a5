import os
import sys
from pathlib import Path

import pytest

from igcnn.cli import ranks
from igcnn.datasets import DATASETS
from igcnn.errors import DeviceError
from igcnn.networks import NETWORKS


@pytest.fixture
def largest_file():
    """Return a function that sets how large files of this process may become, in bytes."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


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


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a package in this test: modules and entry points.

    Afterwards its modules are forgotten, and what was registered.
    """
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    for registry in (NETWORKS, DATASETS):
        for name in registry:  # a module registers only when it is first imported
            assert registry[name]
        for state in ("_items", "_modules"):
            monkeypatch.setattr(registry, state, dict(getattr(registry, state)))
    installed = []

    def install(package, points, **modules):
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
        for name, source in modules.items():
            (site / f"{name}.py").write_text(source)
            installed.append(name)

    yield install
    for name in installed:
        sys.modules.pop(name, None)
