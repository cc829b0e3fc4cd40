"""The journal of a run: one JSON line of metrics for each logged step, on the run's own disk.

Rank 0 appends, the driver reads along (progress, MLflow, Tune). A restart cuts the journal back to
the checkpoint it starts from, so every step stands in it once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lmrl_ray.durable import write_whole


class Entry(NamedTuple):
    step: int
    time: float
    """Seconds since the epoch."""
    metrics: dict[str, float]


class Journal:
    """Appends to a run's journal."""

    def __init__(self, path: Path, start_step: int) -> None:
        self._path = path
        kept = [e for e in read(path) if e.step <= start_step] if path.exists() else []
        write_whole(path, "".join(_line(e) for e in kept))

    def append(self, entry: Entry) -> None:
        with self._path.open("a") as file:
            file.write(_line(entry))


def read(path: Path) -> list[Entry]:
    """All whole lines (the last one may be in the making)."""
    return _whole_lines(path.read_bytes())[0] if path.exists() else []


class JournalReader:
    """Reads what has been appended since the last call; starts over when the journal was cut back.

    It keeps the file open: the inode's number is not given to another file as long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._file: BinaryIO | None = None

    def new(self) -> list[Entry]:
        if not self._path.exists():
            return []
        if self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
            self.close()
            self._file, self._offset = self._path.open("rb"), 0
        self._file.seek(self._offset)
        entries, length = _whole_lines(self._file.read())
        self._offset += length
        return entries

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _whole_lines(content: bytes) -> tuple[list[Entry], int]:
    """The entries of all lines that are whole, and their length in bytes."""
    whole = content[: content.rfind(b"\n") + 1]
    return [_parse(line) for line in whole.decode().splitlines()], len(whole)


def _line(entry: Entry) -> str:
    return json.dumps({"step": entry.step, "time": entry.time, **entry.metrics}) + "\n"


def _parse(line: str) -> Entry:
    values: dict[str, Any] = json.loads(line)
    return Entry(int(values.pop("step")), float(values.pop("time")), values)
