"""The folder of one training run and the files in it.

runs/<dataset>/<net>-L24M2-d20/<YYYYMMDD-HHMMSS>/
    config.toml     the effective settings: `igcnn train --config` runs them again
    env.json        versions, device, cores
    train.log       what was printed, with the time
    metrics.jsonl   one object per log step
    metrics.csv     one row per epoch
    curves.svg      loss and accuracy
    summary.txt     the network, layer by layer
    result.json     how the run ended; absent as long as it has not
    checkpoints/    last.h5, previous.h5 (the one before) and best.h5
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import platform
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError
from ..files import FolderLock, write_atomically
from ..version import __version__
from .curves import draw_curves

# columns of metrics.csv: test_, or val_ in their place where there are validation images
EPOCH_KEYS = (
    "epoch",
    "step",
    "train_loss",
    "train_top1",
    "test_loss",
    "test_top1",
    "test_top5",
    "val_loss",
    "val_top1",
    "val_top5",
    "lr",
    "seconds",
)
LOG_KEYS = ("step", "epoch", "loss", "top1", "lr", "images_per_second", "seconds")


class RunDirectory:
    """The folder of a run. Making this object touches nothing on disk; see create.

    Args:
        path: of the folder.

    Attributes:
        silent: whether nothing is written; see silent_run.
    """

    silent = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._pending: dict[Path, str] = {}  # rows that a full disk did not take
        self._lock = FolderLock(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def last(self) -> Path:
        """Where the newest checkpoint is."""
        return self.path / "checkpoints" / "last.h5"

    @property
    def previous(self) -> Path:
        """Where the checkpoint before the newest is."""
        return self.path / "checkpoints" / "previous.h5"

    @property
    def best(self) -> Path:
        """Where the checkpoint with the best test accuracy is."""
        return self.path / "checkpoints" / "best.h5"

    @property
    def result(self) -> Path:
        """Where it is said how the run ended, if it has."""
        return self.path / "result.json"

    def keep_previous(self) -> None:
        """Let previous.h5 be what last.h5 is now; last.h5 stays.

        Raises:
            OSError: the folder cannot be written.
        """
        if not self.last.is_file():
            return
        name = self.previous.with_name(".previous.h5.part")
        name.unlink(missing_ok=True)
        try:
            os.link(self.last, name)
        except OSError:  # file systems without links
            shutil.copyfile(self.last, name)
        os.replace(name, self.previous)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Context in which no other process trains in this folder, which is made.

        Raises:
            ConfigError: another process does already, or the folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        if not self._lock.acquire():
            raise ConfigError(
                f"another process trains in {self.path}; wait for it, or choose another --out"
            )
        try:
            yield
        finally:
            self._lock.release()

    def is_running(self) -> bool:
        """Return whether a process trains in the folder."""
        if self._lock.held:
            return True
        free = self._lock.acquire()
        self._lock.release()
        return not free

    def is_run(self) -> bool:
        """Return whether a run was begun in the folder."""
        return (self.path / "config.toml").is_file()

    def refuse_if_used(self) -> None:
        """Raise unless the folder is empty or absent.

        Raises:
            ConfigError: it is not empty, or not a directory.
        """
        try:
            used = next(self.path.iterdir(), None) is not None
        except FileNotFoundError:
            return
        except OSError as error:
            raise _unwritable(self.path, error) from error
        if used:
            raise ConfigError(
                f"{self.path} is not empty; continue its run with --resume, delete its "
                "run with --overwrite, or choose another --out"
            )

    def create(self, overwrite: bool = False) -> None:
        """Make the folder and make sure that it can be written.

        Args:
            overwrite: delete the files of an earlier run in it; other files stay.

        Raises:
            ConfigError: it cannot be made or written.
        """
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / ".writable", b"")
            (self.path / ".writable").unlink()
            if overwrite:
                for path in self._files():
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def write_config(self, settings: Mapping[str, Any]) -> None:
        """Write config.toml; settings that are None are left out.

        Raises:
            ConfigError: the folder cannot be written, as for the other files of a run.
        """
        import tomli_w

        values = {key: value for key, value in settings.items() if value is not None}
        self._write("config.toml", tomli_w.dumps(values))

    def read_config(self) -> dict[str, Any]:
        """Return the settings in config.toml.

        Raises:
            ConfigError: it is missing or damaged.
        """
        path = self.path / "config.toml"
        try:
            return tomllib.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot read {path} ({error}), which --resume needs; give the folder of a run"
            ) from error

    def write_environment(self, device: str) -> None:
        """Write env.json."""
        text = json.dumps(environment(device), indent=2)
        self._write("env.json", f"{text}\n")

    def write_summary(self, text: str) -> None:
        """Write summary.txt."""
        self._write("summary.txt", f"{text}\n")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, which is there when the run has ended."""
        self._write(self.result.name, f"{json.dumps(result, indent=2)}\n")

    def _write(self, name: str, text: str) -> None:
        try:
            write_atomically(self.path / name, text.encode())
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def log(self, line: str) -> None:
        """Add a line to train.log; a full disk costs the line, not the run."""
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        with (
            contextlib.suppress(OSError),
            open(self.path / "train.log", "a", encoding="utf-8") as file,
        ):
            file.write(f"{now} {line}\n")

    def append_step(self, row: Mapping[str, float]) -> None:
        """Add a log step to metrics.jsonl."""
        text = json.dumps({key: row[key] for key in LOG_KEYS}) + "\n"
        self._append(self.path / "metrics.jsonl", text)

    def append_epoch(self, row: Mapping[str, float]) -> None:
        """Add an epoch to metrics.csv and draw the curves again."""
        path = self.path / "metrics.csv"
        columns = [key for key in EPOCH_KEYS if key in row]
        head = "" if path.exists() or path in self._pending else _csv_line(columns)
        self._append(path, head + _csv_line([row[key] for key in columns]))
        with contextlib.suppress(OSError):
            if epochs := self.read_epochs():  # none where the disk did not take the first
                curves = draw_curves(self.read_steps(), epochs)
                write_atomically(self.path / "curves.svg", curves.encode())

    def _append(self, path: Path, text: str) -> None:
        """Add rows to a file now, or with the next ones if the disk takes none."""
        self._pending[path] = self._pending.get(path, "") + text
        with contextlib.suppress(OSError):
            self.flush()

    def flush(self) -> None:
        """Bring all rows to the disk.

        Raises:
            OSError: it takes none; the rows are kept for the next time.
        """
        for path, text in list(self._pending.items()):
            _append(path, text)
            del self._pending[path]

    def read_steps(self) -> list[dict[str, float]]:
        """Return the rows of metrics.jsonl; a last line that a kill cut short is left out."""
        rows = []
        for line in _complete_lines(self.path / "metrics.jsonl"):
            rows.append(json.loads(line))
        return rows

    def read_epochs(self) -> list[dict[str, float]]:
        """Return the rows of metrics.csv; a last line that a kill cut short is left out."""
        lines = _complete_lines(self.path / "metrics.csv")
        return [{key: float(text) for key, text in row.items()} for row in csv.DictReader(lines)]

    def cut_after(self, step: int) -> None:
        """Remove the rows of later steps than `step` from metrics.jsonl and metrics.csv.

        They were written after the checkpoint that the run goes on from, and will be again, as
        will result.json.

        Raises:
            CheckpointError: a row in the middle of a file is damaged.
            ConfigError: the folder cannot be read or written.
        """
        try:
            steps = [row for row in self.read_steps() if row["step"] <= step]
            lines = _complete_lines(self.path / "metrics.csv")
            column = EPOCH_KEYS.index("step")
            epochs = lines[:1] + [x for x in lines[1:] if int(x.split(",")[column]) <= step]
            self.result.unlink(missing_ok=True)
            if not epochs:  # a kill may have left a part of the heading, or nothing
                (self.path / "metrics.csv").unlink(missing_ok=True)
        except (ValueError, KeyError, IndexError) as error:
            raise CheckpointError(
                f"the metrics in {self.path} are damaged ({error}); repair or remove "
                "metrics.jsonl and metrics.csv"
            ) from error
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in steps))
        if epochs:
            self._write("metrics.csv", "".join(epochs))

    def _files(self) -> list[Path]:
        names = (
            "config.toml",
            "env.json",
            "train.log",
            "metrics.jsonl",
            "metrics.csv",
            "curves.svg",
            "summary.txt",
            "result.json",
        )
        return [self.path / name for name in names] + [self.last, self.previous, self.best]


def environment(device: str) -> dict[str, Any]:
    """Return what a run's speed and bits depend on: versions, device, cores."""
    from threadpoolctl import threadpool_info

    versions = {"igcnn": __version__, "python": platform.python_version()}
    for package in ("numpy", "h5py", "click", "rich", "threadpoolctl"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    blas = [
        f"{library['internal_api']} {library['version']}"
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]
    return {
        "versions": versions,
        "blas": blas,
        "device": device,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "machine": platform.machine(),
    }


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot write to {path}: {error.strerror or error}; choose another folder with --out"
    )


def _csv_line(values: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _append(path: Path, text: str) -> None:
    """Add text to a file and bring it to the disk, or leave the file as it was.

    Raises:
        OSError: the text could not be written.
    """
    # without a buffer, which would write what it still holds when the file is closed
    with open(path, "ab", buffering=0) as file:
        size = file.tell()
        try:
            rest = text.encode()
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise


def _complete_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
