"""Download of official files: resumed, verified, from the source that works.

What has arrived lies beside its place as NAME.part until size and checksum agree; a file of the
right name is a whole one.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..errors import DataError
from ..files import FolderLock
from .sources import RemoteFile, Source

OFFLINE = "IGCNN_OFFLINE"
TIMEOUT = 4.0  # seconds without an answer or a byte
TRIES = 4  # at one source without a byte of progress between them
CHUNK = 1 << 18
SLOW_BYTES_PER_SECOND = 100_000  # below this another source is tried, if there is one
SLOW_SECONDS = 10.0

Report = Callable[[str, int, int], None]


class SourceError(Exception):
    """A source that does not give the file; another may."""


class ConnectionLost(SourceError):
    """A source that may give the rest when asked again."""


def fetch(
    source: Source,
    folder: Path,
    report: Report | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[Path]:
    """Bring all files of a source into a folder; those that are whole stay as they are.

    Args:
        source: what to fetch.
        folder: made if it is not there.
        report: called with name, bytes so far and bytes in all.
        environment: IGCNN_OFFLINE=1 forbids the network.

    Raises:
        DataError: a file could not be had; the message names file, size and folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot create {folder}: {error.strerror}; choose another --data-dir"
        ) from error
    paths = []
    for file in source.files:
        path = folder / file.name
        if not (path.is_file() and path.stat().st_size == file.size):
            _fetch_file(source, file, path, report or (lambda *_: None), environment)
        paths.append(path)
    return paths


def verify(source: Source, folder: Path) -> dict[str, str]:
    """Return for each file of a source "ok", or what is wrong with it."""
    return {file.name: _state(file, folder / file.name) for file in source.files}


def _state(file: RemoteFile, path: Path) -> str:
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size != file.size:
        return f"has {size:,} bytes instead of {file.size:,}"
    digest = _digest(path)
    return "ok" if digest == file.sha256 else f"sha256 is {digest} instead of {file.sha256}"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch_file(
    source: Source, file: RemoteFile, path: Path, report: Report, environment: Mapping[str, str]
) -> None:
    what = f"{file.name} ({file.size:,} bytes) into {path.parent}"
    if environment.get(OFFLINE, "0") not in ("", "0"):
        raise DataError(
            f"{source.name}: {OFFLINE} is set, so nothing is downloaded; put {_list(source)} into "
            f"{path.parent}"
        )
    if not file.urls:
        raise DataError(
            f"{source.name}: {file.name} cannot be downloaded automatically ({source.about}); put "
            f"{what}"
        )
    part = path.with_name(path.name + ".part")
    lock = FolderLock(path.parent)
    if not lock.acquire():
        raise DataError(f"another process is downloading into {path.parent}; wait until it ends")
    try:
        _from_any_source(source, file, part, report)
        os.replace(part, path)
    finally:
        lock.release()


def _from_any_source(source: Source, file: RemoteFile, part: Path, report: Report) -> None:
    """Complete the part from the first source that gives the file.

    Raises:
        DataError: none does.
    """
    reasons = []
    for index, url in enumerate(file.urls):
        try:
            _from_source(url, file, part, report, last=index + 1 == len(file.urls))
        except SourceError as error:
            reasons.append(f"{url}: {error}")
            continue
        except OSError as error:  # of this disk, not of the network
            raise DataError(f"cannot write {part}: {error.strerror}; make room") from error
        return
    raise DataError(
        f"{source.name}: {'; '.join(reasons)}; put {_list(source)} into {part.parent}, or name "
        "another source (IGCNN_DATA_SOURCES)"
    )


def _list(source: Source) -> str:
    return ", ".join(f"{file.name} ({file.size:,} bytes)" for file in source.files)


def _from_source(url: str, file: RemoteFile, part: Path, report: Report, last: bool) -> None:
    """Complete the part from one source and verify it.

    Raises:
        SourceError: the source does not give the file.
    """
    tries = 0
    while _size(part) < file.size:
        before = _size(part)
        try:
            _append(url, file, part, report, last)
        except ConnectionLost as error:
            # a source that has never answered is not asked again: offline shows within seconds
            tries = 1 if _size(part) > before else tries + 1
            if tries >= TRIES or (tries and not before and not _size(part)):
                raise SourceError(str(error)) from error
            time.sleep(0.2 * tries)
    if _size(part) > file.size or _digest(part) != file.sha256:
        part.unlink()
        raise SourceError("the checksum does not match")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _append(url: str, file: RemoteFile, part: Path, report: Report, last: bool) -> None:
    """Add to the part what a source sends from there on."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "igcnn"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            start = _check(response, file, start)
            with part.open("r+b" if start else "wb") as stream:
                stream.seek(start)
                _copy(_chunks(response), stream.write, file, start, report, last)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
            raise ConnectionLost("does not send the rest of the file") from error
        if error.code >= 500:
            raise ConnectionLost(f"answers {error.code} {error.reason}") from error
        raise SourceError(f"answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ConnectionLost(str(error.reason)) from error
    except (http.client.HTTPException, ValueError) as error:
        raise ConnectionLost(f"does not answer in valid HTTP ({type(error).__name__})") from error


def _check(response: http.client.HTTPResponse, file: RemoteFile, start: int) -> int:
    """Return where the body begins in the file, after a look at the head of the answer."""
    kind = response.headers.get("Content-Type", "")
    if "html" in kind:
        raise SourceError("answers with a web page instead of the file")
    length = response.headers.get("Content-Length")
    if response.status == http.client.PARTIAL_CONTENT:
        expected = f"bytes {start}-{file.size - 1}/{file.size}"
        found = response.headers.get("Content-Range", "")
        if found != expected:
            raise SourceError(f"gives {found!r} where {expected!r} was wanted")
    else:
        start = 0
    if length is not None and (not length.isdigit() or int(length) != file.size - start):
        raise SourceError(f"says the file has {length} bytes, not {file.size - start:,}")
    return start


def _chunks(response: http.client.HTTPResponse) -> Iterable[bytes]:
    """Yield what comes.

    Raises:
        ConnectionLost: nothing came for a while, or the connection broke.
    """
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise ConnectionLost(f"breaks off ({reason})") from error
        if not chunk:
            return
        yield chunk


def _copy(
    chunks: Iterable[bytes],
    write: Callable[[bytes], object],
    file: RemoteFile,
    start: int,
    report: Report,
    last: bool,
) -> None:
    done, mark, began = start, start, time.monotonic()
    for chunk in chunks:
        if done == 0 and chunk.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
            raise SourceError("answers with a web page instead of the file")
        done += len(chunk)
        if done > file.size:
            raise SourceError(f"sends more than the {file.size:,} bytes of the file")
        write(chunk)
        report(file.name, done, file.size)
        elapsed = time.monotonic() - began
        if elapsed >= SLOW_SECONDS:
            if not last and (done - mark) / elapsed < SLOW_BYTES_PER_SECOND:
                raise SourceError(f"is slow, {(done - mark) / elapsed / 1000:.0f} kB/s")
            mark, began = done, time.monotonic()
    if done < file.size:
        raise ConnectionLost(f"ends after {done:,} of {file.size:,} bytes")
