import os
import shutil
import sys
from pathlib import Path

import pytest


@pytest.fixture
def mpiexec(monkeypatch):
    """The beginning of a command line that starts ranks, also as root and on few cores."""
    beside = Path(sys.executable).with_name("mpiexec")
    program = str(beside) if beside.is_file() else shutil.which("mpiexec")
    if program is None:
        pytest.skip("needs mpiexec (pip install 'igcnn[mpi]')")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    monkeypatch.setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
    monkeypatch.setenv("PRTE_MCA_hwloc_default_binding_policy", "none")
    root = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    return [program]
