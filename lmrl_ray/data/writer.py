"""Write episodes to a Parquet file: streamed, and all or nothing.

The file grows beside its place as `.NAME.tmp-PID` and is renamed when it is complete and on the
disk. Whatever goes wrong before that, a file that was there stays as it was.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from envs.core import Episode
from lmrl_ray.data.schema import (
    METADATA_KEY,
    ROW_GROUP_SIZE,
    SCHEMA,
    DataError,
    Fingerprint,
    Metadata,
    Row,
    to_row,
    to_table,
)
from lmrl_ray.durable import sync_folder


class EpisodeWriter:
    """A context manager with `write(episode)`; at most one row group is held in memory.

    with EpisodeWriter("maze.parquet", "maze-fo", build={"by": "me"}) as writer:
        writer.write(episode)

    `build` is any JSON-able record of how the episodes were made. Raises DataError for an episode
    of another task, for values out of range, and for a disk that is full or not writable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        task: str,
        *,
        build: Mapping[str, Any] | None = None,
        row_group_size: int = ROW_GROUP_SIZE,
    ) -> None:
        self.path = Path(path)
        self.task = task
        self.episodes = 0
        self._metadata = Metadata(task, 0, "", dict(build or {}))
        try:
            self._metadata.to_json()
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.path}: build must be JSON-able ({error})") from error
        self._row_group_size = row_group_size
        self._rows: list[Row] = []
        self._fingerprint = Fingerprint()
        self._temporary = self.path.parent / f".{self.path.name}.tmp-{os.getpid()}"
        self._parquet: pq.ParquetWriter | None = None

    @property
    def fingerprint(self) -> str:
        """Of the episodes written so far."""
        return self._fingerprint.hexdigest()

    def __enter__(self) -> EpisodeWriter:
        check_place(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._parquet = pq.ParquetWriter(
            self._file,
            SCHEMA,
            compression="zstd",
            write_page_checksum=True,
            write_statistics=False,  # the footer would hold the least and the greatest text
        )
        return self

    def write(self, episode: Episode) -> None:
        """Add one episode."""
        if self._parquet is None:
            raise DataError(f"{self.path}: the writer is not open")
        if episode.task != self.task:
            raise DataError(
                f"{self.path}: episode {self.episodes} is of task {episode.task!r}, "
                f"but this data set is of {self.task!r}"
            )
        row = to_row(episode)
        self._fingerprint.update(row)
        self._rows.append(row)
        self.episodes += 1
        if len(self._rows) >= self._row_group_size:
            self._flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._abandon()

    def _flush(self) -> None:
        if not self._rows or self._parquet is None:
            return
        try:
            self._parquet.write_table(to_table(self._rows))
        except OSError as error:
            self._abandon()
            raise cannot_write(self.path, error) from error
        except (pa.ArrowException, OverflowError, TypeError) as error:
            self._abandon()
            first = self.episodes - len(self._rows)
            raise DataError(
                f"{self.path}: a value in episodes {first} to {self.episodes - 1} does not fit "
                f"the schema ({error})"
            ) from error
        self._rows.clear()

    def _finish(self) -> None:
        self._flush()
        if self._parquet is None:  # and the caller went on after the error
            raise DataError(f"{self.path}: not written, because an earlier write failed")
        metadata = Metadata(self.task, self.episodes, self.fingerprint, self._metadata.build)
        try:
            self._parquet.add_key_value_metadata({METADATA_KEY: metadata.to_json()})
            self._parquet.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._parquet = None
        sync_folder(self.path.parent)

    def _abandon(self) -> None:
        """Leave nothing behind (after `_finish` there is nothing)."""
        if self._parquet is None:
            return
        for close in (self._parquet.close, self._file.close):
            with suppress(OSError, pa.ArrowException):
                close()
        self._parquet = None
        self._temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """DataError when a data file cannot have this path."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")


def cannot_write(path: Path, error: OSError) -> DataError:
    """The error for a disk that is full or not writable."""
    reason = error.strerror or str(error)
    return DataError(
        f"{path}: cannot write ({reason}); nothing was changed. "
        "Free some space or name a folder that is writable"
    )
