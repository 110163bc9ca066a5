"""Files that are either written as a whole or not at all."""

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file with these bytes at `path`, or leave what is there as it was.

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
