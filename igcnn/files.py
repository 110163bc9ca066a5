"""Files that are either written as a whole or not at all, and locks between processes."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file with these bytes at `path`, or leave an existing file unchanged.

    The bytes go to a temporary file in the same folder, which is brought to the disk, renamed,
    and then the folder is brought to the disk: a kill or a loss of power at any moment leaves
    the old file or the new one. A temporary file that a kill left is written over next time.

    Raises:
        OSError: the folder cannot be written or is full.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context that admits one process at a time; others wait.

    Without file locks (Windows, some network file systems) nobody waits.

    Args:
        path: of the lock file, which is removed at the end.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


class FolderLock:
    """The right to write to a folder, which one process has at a time.

    It goes with the process, however that ends. Where there are no locks (Windows, some network
    file systems) it is always granted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        """Whether a lock is held through this object."""
        return self._handle is not None

    def acquire(self) -> bool:
        """Return whether the folder is ours now; the folder must exist."""
        if sys.platform == "win32" or self.held:
            return True
        import fcntl

        handle = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:  # a file system without locks
            os.close(handle)
            return True
        self._handle = handle
        return True

    def release(self) -> None:
        """Let others have the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
