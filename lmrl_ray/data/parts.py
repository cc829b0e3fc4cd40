"""A data set in the making: finished parts beside its place, from which a stopped build goes on.

The parts of `NAME` lie in the folder `.NAME.parts`, each a data file of its own that is named after
its first episode. They are joined when all episodes are there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from envs.core import Episode
from lmrl_ray.data.reader import EpisodeDataset
from lmrl_ray.data.schema import DataError
from lmrl_ray.data.writer import EpisodeWriter, cannot_write, check_place
from lmrl_ray.durable import sync_folder

PART_SECONDS = 30.0
"""A part is finished after this time: what a build that is killed loses at most."""


class Parts:
    """A context manager with `write(episodes)` and, after the last of them, `join()`.

    Parts of another `record` (see `EpisodeWriter`'s `build`) are thrown away. A second build of the
    same file waits for the first to end.
    """

    def __init__(self, path: Path, task: str, record: Mapping[str, Any]) -> None:
        self.path = path
        self.episodes = 0
        """Written so far, those of an earlier build included."""
        self.is_built = False
        """Whether another build made the file while this one waited for it."""
        self._task = task
        self._record = dict(record)
        self._folder = path.parent / f".{path.name}.parts"
        self._finished: list[Path] = []
        self._writer: EpisodeWriter | None = None
        self._since = 0.0

    def __enter__(self) -> Parts:
        check_place(self.path)
        was_there = self.path.exists()
        try:
            self._lock = self._locked()
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.is_built = not was_there and self._of_this_build(self.path) is not None
        while (found := self._part(self.episodes)) is not None:
            self._finished.append(found.path)
            self.episodes += len(found)
        return self

    def write(self, episodes: Iterable[Episode]) -> None:
        """Add the next episodes: all of them are in one part."""
        if self._writer is None:
            self._since = time.monotonic()
            self._writer = EpisodeWriter(self._name(self.episodes), self._task, build=self._record)
            self._writer.__enter__()
        for episode in episodes:
            self._writer.write(episode)
            self.episodes += 1
        if time.monotonic() - self._since >= PART_SECONDS:
            self._finish_part()

    def join(self) -> None:
        """Put the whole data set in its place."""
        self._finish_part()
        if len(self._finished) == 1:
            os.replace(self._finished.pop(), self.path)
            sync_folder(self.path.parent)
            return
        with EpisodeWriter(self.path, self._task, build=self._record) as writer:
            for part in self._finished:
                try:
                    for episode in EpisodeDataset(part):
                        writer.write(episode)
                except DataError:
                    part.unlink()  # the next build plays it anew
                    raise
        self._finished.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.__exit__(kind, error, traceback)
            if not self._finished:
                shutil.rmtree(self._folder, ignore_errors=True)
        finally:
            os.close(self._lock)

    def _locked(self) -> int:
        """Make the folder and hold its lock; whoever had it may have removed the folder meanwhile."""
        place = self._folder / "lock"
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = os.open(place, os.O_CREAT | os.O_RDWR)
            except FileNotFoundError:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return lock
            os.close(lock)

    def _finish_part(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.__exit__(None, None, None)
            self._finished.append(writer.path)

    def _part(self, first: int) -> EpisodeDataset | None:
        """The finished part that begins with this episode."""
        return self._of_this_build(self._name(first))

    def _of_this_build(self, path: Path) -> EpisodeDataset | None:
        """The file, where it is there, whole, and of the same record."""
        try:
            found = EpisodeDataset(path)
        except DataError:
            return None
        return found if found.metadata.build == self._record else None

    def _name(self, first: int) -> Path:
        return self._folder / f"{first:012}.parquet"
