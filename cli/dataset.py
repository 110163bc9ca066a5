"""Data sets on the command line: missing files are downloaded, after saying so."""

from __future__ import annotations

import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from igcnn.settings import SETTINGS

if TYPE_CHECKING:
    from igcnn.datasets import Dataset
    from igcnn.datasets.sources import Source
    from igcnn.distributed import Communicator

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_UPDATES = 0.3


def open_dataset(
    name: str,
    data_dir: str | None,
    *,
    image_size: int | None = None,
    workers: int | None = None,
    on_bad_image: str | None = None,
    communicator: Communicator | None = None,
    download: bool = True,
) -> Dataset:
    """Return a data set, after fetching its files if they are not there and `download` is set.

    Several ranks share the cores of a computer, and fetch nothing: `igcnn data fetch` does.

    Raises:
        ConfigError: a setting is out of range.
        DataError: files are damaged, or missing and cannot be fetched.
    """
    from igcnn.datasets import load_dataset
    from igcnn.datasets.fetch import fetch
    from igcnn.datasets.sources import load_sources
    from igcnn.distributed import Communicator
    from igcnn.errors import MissingDataError
    from igcnn.training.cores import available_cores

    communicator = communicator or Communicator()
    cores = available_cores(communicator.local_size)

    def load() -> Dataset:
        return load_dataset(
            name,
            data_dir,
            image_size=image_size or None,  # 0: a checkpoint does not say
            workers=cores if workers is None else workers,
            skip_broken=on_bad_image == "skip",
            say=lambda text: click.echo(f"igcnn: {text}", err=True),
        )

    try:
        return load()
    except MissingDataError:
        source = load_sources().get(name)
        if source is None or not download or communicator.size > 1:
            raise
        if not all(file.urls for file in source.files):
            raise
        folder = folder_of(name, data_dir)
        size = sum(file.size for file in source.files)
        click.echo(f"igcnn: {name} not found; downloading {amount(size)} into {folder}", err=True)
        fetch(source, folder, Progress())
        return load()


def place_of_run(checkpoint: str) -> dict[str, str]:
    """Return data_dir and on_bad_image of the run that a checkpoint lies in, as far as known.

    Raises:
        ConfigError: its config.toml has another value for one of them.
    """
    path = Path(checkpoint)
    config = (path if path.is_dir() else path.parent.parent) / "config.toml"
    try:
        settings = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {
        name: SETTINGS[name].convert(settings[name], str(config))
        for name in ("data_dir", "on_bad_image")
        if name in settings
    }


def folder_of(name: str, data_dir: str | None) -> Path:
    """Return the folder for a data set's files."""
    from igcnn.datasets.sources import data_home

    return (data_home() if data_dir is None else Path(data_dir)) / name


def known_source(name: str) -> Source:
    """Return what is known of a data set's official files; case is ignored in its name.

    Raises:
        ConfigError: there is no such data set.
    """
    from igcnn.datasets.sources import load_sources
    from igcnn.errors import ConfigError

    sources = load_sources()
    known = {source.lower(): source for source in sources}
    if name.lower() not in known:
        raise ConfigError(f"no source is known for {name!r}; choose one of {', '.join(sources)}")
    return sources[known[name.lower()]]


def source_names() -> tuple[str, ...]:
    """Return the names that known_source takes."""
    from igcnn.datasets.sources import load_sources

    return tuple(load_sources())


def amount(size: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


class Progress:
    """Shows how far a long job is: one line that changes on a terminal, a line now and then else.

    Args:
        unit: words for a number of what is counted.
        at_once: begin at once, else only for what takes long.
    """

    def __init__(self, unit: str = "bytes", at_once: bool = True) -> None:
        self.unit = unit
        self.at_once = at_once
        self.terminal = sys.stderr.isatty()
        self.name = ""
        self.began = self.shown = 0.0
        self.first = 0

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show that so many of all are done."""
        now = time.monotonic()
        if name != self.name:
            self.name, self.began, self.first = name, now, done
            self.shown = now - SECONDS_BETWEEN_LINES * (self.at_once and not self.terminal)
        pause = SECONDS_BETWEEN_UPDATES if self.terminal else SECONDS_BETWEEN_LINES
        finished = done >= total
        if now - self.shown < pause and not (
            finished and (self.at_once or self.shown > self.began)
        ):
            return
        self.shown = now
        speed = (done - self.first) / (now - self.began) if now > self.began else 0.0
        line = f"{name}  {self._words(done)} of {self._words(total)}"
        if speed and not finished:
            left = round((total - done) / speed)
            line += f", {self._words(speed)}/s, left {left // 60}:{left % 60:02d}"
        if self.terminal:
            click.echo(f"\r{line:<78}", err=True, nl=finished)
        else:
            click.echo(line, err=True)

    def _words(self, number: float) -> str:
        return amount(number) if self.unit == "bytes" else f"{number:,.0f} {self.unit}"
