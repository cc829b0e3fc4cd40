"""What survives a power cut: files that are on the disk, not only in the kernel's memory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def sync_tree(folder: Path) -> None:
    """Bring a folder and all that is below it to the disk. OSError where a file cannot be written."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def write_whole(path: Path, text: str) -> None:
    """Write beside and rename: the file is there whole, or as it was."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in `folder` survive, where the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
