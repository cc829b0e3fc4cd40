"""The file of an evaluation's finished episodes: a second call with the same settings plays only the rest.

The first line holds the settings, each other one an episode, or what a call took for episodes that it did
not finish. Lines are only ever appended, whole, and
are on the disk before the next episode is counted; one that a crash has torn is cut off.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from algos.play import EpisodeRequest, PlayedEpisode
from envs.core import Episode, Segment
from lmrl_ray.config import ConfigError
from lmrl_ray.prompted.client import Usage


@dataclass(frozen=True)
class Finished:
    """An episode that was played to its end."""

    played: PlayedEpisode
    usage: Usage
    replies: tuple[str, ...]
    """What the model said to each observation, in full; of several replies the last."""


class EpisodeRecord:
    """Finished episodes by index; use it as a context. ConfigError when another process has it open."""

    def __init__(self, folder: Path, label: str, settings: Mapping[str, Any]) -> None:
        self._header = json.dumps({"settings": settings}, sort_keys=True)
        digest = hashlib.sha256(self._header.encode()).hexdigest()[:10]
        self.path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', label)[-80:]}-{digest}.jsonl"
        self.finished: dict[int, Finished] = {}
        self.unfinished = Usage()
        """What was spent on episodes that are not here."""

    def __enter__(self) -> EpisodeRecord:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be opened: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(f"{self.path}: another process is at this evaluation; wait for it") from None
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def of(self, requests: Sequence[EpisodeRequest]) -> list[Finished]:
        """Those of them that are finished, in their order."""
        return [self.finished[r.index] for r in requests if r.index in self.finished]

    def add(self, finished: Finished) -> None:
        played = finished.played
        self._append(
            json.dumps(
                {
                    "index": played.index,
                    "cut_actions": played.cut_actions,
                    "usage": asdict(finished.usage),
                    "replies": finished.replies,
                    "episode": asdict(played.episode),
                }
            )
        )
        self.finished[played.index] = finished

    def add_unfinished(self, usage: Usage) -> None:
        self._append(json.dumps({"unfinished": asdict(usage)}))
        self.unfinished += usage

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        lines = whole.decode().splitlines()
        if not lines:
            self._append(self._header)
        for number, line in enumerate(lines[1:], 2):
            try:
                values = json.loads(line)
                if "unfinished" in values:
                    self.unfinished += Usage(**values["unfinished"])
                    continue
                finished = _finished(values)
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{self.path}: line {number} is no episode ({error}); delete the line or the file"
                ) from error
            self.finished[finished.played.index] = finished

    def _append(self, line: str) -> None:
        self._file.write(f"{line}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())


def _finished(values: dict[str, Any]) -> Finished:
    episode = dict(values["episode"])
    segments = tuple(Segment(**s) for s in episode.pop("segments"))
    played = PlayedEpisode(
        values["index"], Episode(segments=segments, **episode), None, values["cut_actions"]
    )
    return Finished(played, Usage(**values["usage"]), tuple(values["replies"]))
