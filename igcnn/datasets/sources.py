"""Which official files a data set has, and where they are: sources.toml and the user's own."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import ConfigError

VARIABLE = "IGCNN_DATA_SOURCES"


@dataclass(frozen=True)
class RemoteFile:
    """An official file.

    Attributes:
        name: of the file.
        size: in bytes.
        sha256: in hexadecimal digits.
        urls: where to fetch it, best first; empty where it can only be had by hand.
    """

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A data set that can be fetched.

    Attributes:
        name: what `--dataset` calls it.
        about: in a line.
        files: what it consists of.
    """

    name: str
    about: str
    files: tuple[RemoteFile, ...]


def load_sources(environment: Mapping[str, str] = os.environ) -> dict[str, Source]:
    """Return the sources by name, those of the user's file first.

    Raises:
        ConfigError: the user's file cannot be read, or an entry is wrong.
    """
    text = resources.files(__package__).joinpath("sources.toml").read_text(encoding="utf-8")
    sources = _parse(text, "sources.toml")
    path = environment.get(VARIABLE)
    if not path:
        return sources
    try:
        own = _parse(Path(path).read_text(encoding="utf-8"), path)
    except OSError as error:
        raise ConfigError(
            f"{VARIABLE}={path} cannot be read: {error.strerror}; name a TOML file or unset it"
        ) from error
    for name, source in own.items():
        sources[name] = _merged(source, sources[name]) if name in sources else source
    return sources


def data_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for data sets where no --data-dir is given."""
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "igcnn" / "data"


def _merged(own: Source, known: Source) -> Source:
    """Return the known source with own urls tried first; files of other names are added."""
    files = {file.name: file for file in known.files}
    for file in own.files:
        before = files.get(file.name)
        urls = file.urls + (before.urls if before else ())
        files[file.name] = replace(before or file, urls=tuple(dict.fromkeys(urls)))
    return replace(known, files=tuple(files.values()))


def _parse(text: str, where: str) -> dict[str, Source]:
    try:
        content = tomllib.loads(text)
        return {
            name: Source(
                name, str(entry.get("about", "")), tuple(map(_file, entry.get("files", [])))
            )
            for name, entry in content.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{where} is not a list of sources ({error}); each file needs name, size, sha256 and "
            "urls"
        ) from error


def _file(entry: dict[str, Any]) -> RemoteFile:
    name, size, sha256, urls = (entry[key] for key in ("name", "size", "sha256", "urls"))
    if not re.fullmatch(r"[\w.\-]+", name) or name.startswith("."):
        raise ValueError(f"{name!r} is not a plain file name")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"the sha256 of {name} is not 64 hexadecimal digits")
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"the size of {name} is not a number of bytes")
    for url in urls:
        if not re.match(r"(https?|file)://", url):
            raise ValueError(f"{url!r} is not an HTTP address")
    return RemoteFile(name, size, sha256, tuple(urls))
