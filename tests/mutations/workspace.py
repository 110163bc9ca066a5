"""A copy of the tree, in which faults are planted and tests run."""

import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from igcnn.compiler import cache_folder

ROOT = Path(__file__).parents[2]
FOLDERS = "igcnn", "cli", "tests", "docs", "examples", "benchmarks"
FILES = "conftest.py", "setup.cfg", "pyproject.toml", "README.md"
LIMIT = 600  # seconds, for a fault that makes a loop endless


class Workspace:
    """A copy of the tree.

    Args:
        folder: an empty one; receives the copy, and compiled kernels beside those of the user.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "igcnn"
        self._seconds = itertools.count()
        unwanted = shutil.ignore_patterns("__pycache__")
        for name in FOLDERS:
            shutil.copytree(ROOT / name, self.root / name, ignore=unwanted)
        for name in FILES:
            shutil.copy(ROOT / name, self.root)
        unfinished = shutil.ignore_patterns("tmp*")
        for name in ("compiled", "emulator"):
            copy = folder / "cache" / "igcnn" / name
            shutil.copytree(cache_folder(name), copy, ignore=unfinished)
        # an editable install would find the tree's own
        (self.root / "igcnn" / "cli").symlink_to(self.root / "cli")
        self.environment = os.environ | {
            "PYTHONPATH": str(self.root),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # takes longer than many a test
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    @contextmanager
    def planted(self, file: str, source: str) -> Iterator[None]:
        """Context in which a file has another content."""
        before = (self.root / file).read_text(encoding="utf-8")
        self._write(file, source)
        try:
            yield
        finally:
            self._write(file, before)

    def _write(self, file: str, source: str) -> None:
        (self.root / file).write_text(source, encoding="utf-8")
        # two contents of one size, written within a second, would share their bytecode
        os.utime(self.root / file, (next(self._seconds),) * 2)

    def passes(self, tests: str) -> bool:
        """Return whether tests pass within the time limit.

        Args:
            tests: what to select, as on the command line of pytest.
        """
        command = [sys.executable, "-m", "pytest", "-x", "-q", *shlex.split(tests)]
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(LIMIT) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:  # also of the processes that a test has started
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
