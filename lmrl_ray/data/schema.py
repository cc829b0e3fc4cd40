"""The Parquet form of an episode: one row, a versioned schema, a fingerprint of the content.

docs/data_format.md describes it for people who read such a file with other tools.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from envs.core import Episode, Segment

SCHEMA_VERSION = 1
METADATA_KEY = b"lmrl_ray"
"""Where the file's key-value metadata holds `Metadata`, as JSON."""

ROW_GROUP_SIZE = 256
"""Episodes that are held in memory at a time, by the writer and by a reader."""


def _list_of(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False))


SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("segments", _list_of(pa.string()), nullable=False),
        pa.field("is_action", _list_of(pa.bool_()), nullable=False),
        pa.field("rewards", _list_of(pa.float64()), nullable=False),
        pa.field("valid", _list_of(pa.bool_()), nullable=False),
        pa.field("terminated", pa.bool_(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("success", pa.bool_(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("task_id", pa.int64(), nullable=False),
        pa.field("simulator", pa.string(), nullable=False),
        pa.field("policy", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
"""The fields of `envs.Episode`; the four lists hold one entry a segment."""

SEGMENT_COLUMNS = ("segments", "is_action", "rewards", "valid")

Row = tuple[Any, ...]
"""The values of one episode, in the order of `SCHEMA`."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class DataError(ValueError):
    """A data set that cannot be read or written; the message names the file and what to do."""


@dataclass(frozen=True)
class Metadata:
    """What a data file says about itself."""

    task: str
    episodes: int
    fingerprint: str
    """sha256 over the episodes in order (see `Fingerprint`)."""
    build: Mapping[str, Any] = field(default_factory=dict)
    """How it was made: task, seed, episodes, env_kwargs, version; or the published source."""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes, path: Path) -> Metadata:
        """Parse the metadata of `path`. DataError for a newer version or a missing field."""
        try:
            values = dict(json.loads(text))
            version = values["schema_version"]
            if version > SCHEMA_VERSION:
                raise DataError(
                    f"{path}: schema_version is {version}, this lmrl_ray reads up to "
                    f"{SCHEMA_VERSION}: upgrade lmrl_ray"
                )
            return cls(**{name: values[name] for name in cls.__dataclass_fields__})
        except DataError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: its lmrl_ray metadata is damaged ({error!r})") from error


class Fingerprint:
    """sha256 of the episodes as JSON lines: arrays of the values in the order of `SCHEMA`.

    It depends on the content and its order alone, not on compression or row groups.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, row: Row) -> None:
        line = json.dumps(row, separators=(",", ":"))
        self._hash.update(line.encode("ascii") + b"\n")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def fingerprint(episodes: Iterable[Episode]) -> str:
    """The fingerprint that a file with these episodes has."""
    digest = Fingerprint()
    for episode in episodes:
        digest.update(to_row(episode))
    return digest.hexdigest()


def to_row(episode: Episode) -> Row:
    """The episode's values as plain Python, in the order of `SCHEMA`.

    A lone surrogate is no character and cannot be written as UTF-8: U+FFFD stands in its place.
    """
    segments = episode.segments
    return (
        episode.task,
        [_encodable(s.text) for s in segments],
        [bool(s.is_action) for s in segments],
        [float(s.reward) for s in segments],
        [bool(s.valid) for s in segments],
        bool(episode.terminated),
        bool(episode.truncated),
        bool(episode.success),
        int(episode.seed),
        int(episode.task_id),
        episode.simulator,
        _encodable(episode.policy),
        None if episode.error is None else _encodable(episode.error),
    )


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows in Arrow form. pyarrow's errors for values that the schema does not hold."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def to_episodes(table: pa.Table) -> list[Episode]:
    """The episodes of a table. DataError where a value is missing, or an episode's lists differ in length."""
    columns = {name: table.column(name).combine_chunks() for name in SCHEMA.names}
    for field_ in SCHEMA:
        if not field_.nullable:
            _check_complete(field_.name, columns[field_.name])
    stops = np.cumsum(segment_counts(table)).tolist()
    flat = (as_list(columns[name].flatten()) for name in SEGMENT_COLUMNS)
    segments = [Segment(*values) for values in zip(*flat, strict=True)]
    names = [name for name in SCHEMA.names if name not in SEGMENT_COLUMNS]
    rest = zip(*(as_list(columns[name]) for name in names), strict=True)
    episodes, start = [], 0
    for stop, values in zip(stops, rest, strict=True):
        fields = dict(zip(names, values, strict=True))
        episodes.append(Episode(segments=tuple(segments[start:stop]), **fields))
        start = stop
    return episodes


def _check_complete(name: str, column: pa.Array) -> None:
    """Files of other writers may say nothing about nulls."""
    if column.null_count or (name in SEGMENT_COLUMNS and column.flatten().null_count):
        raise DataError(f"column {name}: a value is missing")


def segment_counts(table: pa.Table) -> NDArray[np.int64]:
    """Segments of each episode, from whichever of the four list columns the table has."""
    names = [name for name in SEGMENT_COLUMNS if name in table.column_names]
    columns = [table.column(name).combine_chunks() for name in names]
    counts = [np.asarray(c.value_lengths().fill_null(-1), dtype=np.int64) for c in columns]
    for name, other in zip(names, counts, strict=True):
        if not np.array_equal(other, counts[0]):
            raise DataError(f"columns {names[0]} and {name} differ in length within an episode")
    return counts[0]


def as_list(array: pa.Array) -> list[Any]:
    """The values as plain Python (several times faster than `to_pylist`)."""
    values: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
    return values


def _encodable(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)
