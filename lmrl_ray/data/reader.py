"""Read a data file: checked when it is opened, streamed one row group at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from envs.core import Episode
from lmrl_ray.data.order import SHUFFLE_BLOCK, EpisodeOrder
from lmrl_ray.data.schema import (
    METADATA_KEY,
    SCHEMA,
    DataError,
    Metadata,
    fingerprint,
    to_episodes,
)


class EpisodeDataset:
    """The episodes of one file, in the order in which they were written.

    Opening reads the footer alone. Raises DataError for a file that is missing, damaged, not ours
    or of a newer schema version, and with `require_nonempty` for one without episodes. Pickling
    keeps the path and opens the file again.
    """

    def __init__(self, path: str | os.PathLike[str], *, require_nonempty: bool = False) -> None:
        self.path = Path(path)
        self._require_nonempty = require_nonempty
        self._file = _open(self.path)
        self.metadata = _metadata(self._file, self.path)
        if require_nonempty and not len(self):
            raise DataError(f"{self.path}: the data set holds no episodes")

    @property
    def task(self) -> str:
        """Id of the task that all its episodes are of."""
        return self.metadata.task

    @property
    def fingerprint(self) -> str:
        """As recorded by the writer; `verify` computes it anew."""
        return self.metadata.fingerprint

    @property
    def num_row_groups(self) -> int:
        count: int = self._file.num_row_groups
        return count

    def __len__(self) -> int:
        return self.metadata.episodes

    def __iter__(self) -> Iterator[Episode]:
        for index in range(self.num_row_groups):
            yield from self.decode(self.read_row_group(index))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self._require_nonempty)

    def read_row_group(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One row group in Arrow form. DataError when it is damaged."""
        try:
            return self._file.read_row_group(index, columns=columns, use_threads=False)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(
                f"{self.path}: row group {index} is damaged ({error}); build the data set again"
            ) from error

    def decode(self, table: pa.Table) -> list[Episode]:
        """The episodes of a table that has all columns. DataError when they make no sense."""
        try:
            episodes = to_episodes(table)
        except (ValueError, pa.ArrowException) as error:
            raise DataError(f"{self.path}: {error}") from error
        others = {episode.task for episode in episodes} - {self.task}
        if others:
            raise DataError(
                f"{self.path}: has an episode of task {min(others)!r}, but its metadata say {self.task!r}"
            )
        return episodes

    def verify(self) -> None:
        """Read everything; DataError when the content is not what the fingerprint says."""
        found = fingerprint(self)
        if found != self.fingerprint:
            raise DataError(
                f"{self.path}: its episodes have the fingerprint {found}, but "
                f"{self.fingerprint} is recorded; it was changed after it was written"
            )

    def plan(
        self,
        seed: int,
        shuffle_block: int = SHUFFLE_BLOCK,
        keep: NDArray[np.bool_] | None = None,
    ) -> EpisodeOrder:
        """The endless, seeded order of training; failed episodes are left out of it.

        `keep`, one entry an episode, leaves out more (filtered BC). DataError when none is left.
        """
        if keep is not None and keep.shape != (len(self),):
            raise ValueError(f"keep: has shape {keep.shape}, it should be ({len(self)},)")
        keep = self.playable() if keep is None else self.playable() & keep
        if not keep.any():
            raise DataError(f"{self.path}: no episode to train on, of {len(self)}")
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(self.num_row_groups)]
        groups = np.split(keep, np.cumsum(sizes)[:-1])
        return EpisodeOrder([np.flatnonzero(group) for group in groups], seed, shuffle_block)

    def playable(self) -> NDArray[np.bool_]:
        """False for each episode that has an `error`: it is counted, never learnt from."""
        tables = (self.read_row_group(i, ["error"]) for i in range(self.num_row_groups))
        masks = [np.asarray(t.column("error").is_null(), dtype=bool) for t in tables]
        return np.concatenate(masks) if masks else np.zeros(0, dtype=bool)


def _open(path: Path) -> pq.ParquetFile:
    if not path.exists():
        raise DataError(f"{path}: there is no such file; build the data set first")
    if not path.is_file():
        raise DataError(f"{path}: is a folder; name the .parquet file in it")
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path}: is not a Parquet file, or it is damaged ({error})") from error


def _metadata(file: pq.ParquetFile, path: Path) -> Metadata:
    text = (file.metadata.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise DataError(
            f"{path}: is a Parquet file, but not one of lmrl_ray's; docs/data_format.md says how to write one"
        )
    metadata = Metadata.from_json(text, path)
    for field in SCHEMA:
        index = file.schema_arrow.get_field_index(field.name)
        found = file.schema_arrow.field(index).type if index >= 0 else "missing"
        if found != field.type:
            raise DataError(f"{path}: column {field.name} is {found}, it should be {field.type}")
    if metadata.episodes != file.metadata.num_rows:
        raise DataError(
            f"{path}: has {file.metadata.num_rows} episodes, but its metadata say "
            f"{metadata.episodes}; it was changed after it was written"
        )
    return metadata


def _reopen(path: Path, require_nonempty: bool) -> EpisodeDataset:
    return EpisodeDataset(path, require_nonempty=require_nonempty)
