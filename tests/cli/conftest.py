import os
import subprocess
import sys
from pathlib import Path

import pytest

from igcnn.cli.main import main
from igcnn.compiler import cache_folder

ROOT = Path(__file__).parents[2]
START = (
    "import sys; import igcnn; igcnn.__path__.append(sys.argv.pop(1)); "
    "from igcnn.cli.main import main; sys.exit(main())"
)

# a run of seconds: 23 updates an epoch
TINY = ("train", "--net", "plain_igc", "--depth", "8", "--L", "2", "--M", "2")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("IGCNN_"):
            monkeypatch.delenv(name)
    cache = tmp_path_factory.mktemp("cache") / "igcnn"
    cache.mkdir()
    for name in ("compiled", "emulator"):  # else each process of a test compiles all kernels
        (cache / name).symlink_to(cache_folder(name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    monkeypatch.setenv("IGCNN_OFFLINE", "1")


@pytest.fixture
def igcnn(capfd):
    """Run a command in this process; return (exit code, stdout, stderr)."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def refused(igcnn):
    """Run a command that must fail in one line; return that line."""

    def run(code, *arguments):
        result, _, err = igcnn(*arguments)
        assert result == code, err
        assert err.startswith("igcnn: error: ")
        assert err.count("\n") == 1
        return err

    return run


@pytest.fixture
def start(tmp_path):
    """Start a command in a process of its own."""
    processes = []

    def begin(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(ROOT), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
