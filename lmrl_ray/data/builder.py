"""Make a data set: play a task's behaviour policy, or import the files that LMRL-Gym published."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from envs.core import Episode, TextEnv
from envs.registry import TaskSpec, get_task
from lmrl_ray.actors import ManagedActor, ManagedActors
from lmrl_ray.data.parts import Parts
from lmrl_ray.data.reader import EpisodeDataset
from lmrl_ray.data.schema import DataError
from lmrl_ray.data.writer import EpisodeWriter
from lmrl_ray.seeding import episode_seed
from lmrl_ray.simulators import asks_a_model, located

CHUNK = 64
"""Episodes that a worker plays before it hands them over; one, where each answer is a model's."""

Progress = Callable[[int], None]
"""Called now and then with the number of episodes written so far, at last with all of them."""


def build(
    task: str,
    episodes: int,
    seed: int,
    path: str | os.PathLike[str],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    workers: int = 1,
    plugins: Sequence[str] = (),
) -> EpisodeDataset:
    """Write `episodes` episodes of the task's data to `path` and return the data set.

    The same arguments give the same file, with any number of workers: one is this process, several are
    Ray actors. A build that was killed goes on where its finished parts end (see `Parts`); of two at a
    time, one plays and the other waits for it. `plugins` are those that the actors need to know the task,
    files by their absolute paths.
    """
    if episodes < 1 or workers < 1:
        raise ValueError(f"episodes: {episodes}, workers: {workers}; both must be at least 1")
    spec, kwargs = get_task(task), located(env_kwargs or {})
    record = {
        "task": task,
        "seed": seed,
        "episodes": episodes,
        "env_kwargs": kwargs,
        "version": _package_version(),
    }
    record = json.loads(json.dumps(record))  # as it is read back: a tuple is a list there
    size = 1 if asks_a_model(kwargs) else CHUNK
    with Parts(Path(path), task, record) as parts:
        if parts.is_built:
            return EpisodeDataset(path)
        chunks = [range(i, min(i + size, episodes)) for i in range(parts.episodes, episodes, size)]
        player = Player(spec, kwargs, seed, plugins)
        for played in _play(player, chunks) if workers == 1 else _play_on_actors(player, chunks, workers):
            parts.write(played)
            if progress is not None:
                progress(parts.episodes)
        parts.join()
    return EpisodeDataset(path)


def import_published(
    task: str,
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> EpisodeDataset:
    """Convert a file that LMRL-Gym published for `task` and return the data set.

    DataError names the line of the file that cannot be read, or says that it is another task's.
    """
    spec = get_task(task)
    try:
        read = spec.reader()
    except ValueError as error:
        raise DataError(str(error)) from error
    record = {"task": task, "published": Path(source).name, "version": _package_version()}
    with EpisodeWriter(path, task, build=record) as writer:
        for chunk in _chunks(_published(read, source), CHUNK):
            for episode in chunk:
                writer.write(episode)
            if progress is not None:
                progress(writer.episodes)
        if not writer.episodes:
            raise DataError(f"{source}: holds no episodes")
    return EpisodeDataset(path)


def _published(
    read: Callable[[Path], Iterator[Episode]], source: str | os.PathLike[str]
) -> Iterator[Episode]:
    try:
        for number, episode in enumerate(read(Path(source)), start=1):
            if not math.isfinite(episode.total_return):
                raise ValueError(f"record {number}: its rewards are not all finite")
            yield episode
    except (OSError, ValueError, OverflowError) as error:  # the last of an integer that no float holds
        raise DataError(f"cannot import {Path(source).name}: {error}") from error


def _chunks(episodes: Iterator[Episode], size: int) -> Iterator[list[Episode]]:
    while chunk := list(islice(episodes, size)):
        yield chunk


class Player(ManagedActor):
    """Plays a task's data, in process or as an actor; its environment, and an engine, serve all episodes."""

    def __init__(self, spec: TaskSpec, kwargs: dict[str, Any], seed: int, plugins: Sequence[str]) -> None:
        self.arguments = (spec, kwargs, seed, plugins)
        self._env: TextEnv | None = None

    def play(self, chunk: range) -> list[Episode]:
        spec, _, seed, _ = self.arguments
        # Not in the constructor: an actor that fails there is started over and over.
        env = self._env = self._env or self._make()
        episodes = []
        for index in chunk:
            try:
                episodes.append(spec.data_episode(env, episode_seed(seed, index)))
            except Exception as error:
                error.add_note(f"in episode {index} of task {spec.id}, data seed {seed}")
                raise
        return episodes

    def _make(self) -> TextEnv:
        spec, kwargs, _, plugins = self.arguments
        if plugins:  # imported when needed: it brings torch, which an actor that plays has no use for
            from lmrl_ray.plugins import load_plugins

            load_plugins(plugins)
        return spec.make(**kwargs)


def _play(player: Player, chunks: list[range]) -> Iterator[list[Episode]]:
    """The episodes of each chunk, in order."""
    for chunk in chunks:
        yield player.play(chunk)


def _play_on_actors(player: Player, chunks: list[range], workers: int) -> Iterator[list[Episode]]:
    """The same, by Ray actors. Few chunks are on their way, or wait for their turn, at a time."""
    from lmrl_ray.cluster import ensure_ray
    from lmrl_ray.config import ResourcesConfig
    from lmrl_ray.simulators.hosting import SimulatorActors

    resources = ResourcesConfig(rollout_actors=workers)
    ray = ensure_ray(resources)
    simulators = SimulatorActors(ray, resources)
    spec, kwargs, *rest = player.arguments
    actors = ManagedActors(
        ray,
        Player,
        workers,
        title="data actor",
        timeout_s=resources.timeout_s,
        arguments=(spec, simulators.hosted(kwargs), *rest),
    )
    waiting: dict[int, list[Episode]] = {}
    turn = 0
    try:
        for number, episodes in actors.play([{"chunk": chunk} for chunk in chunks], ahead=2 * workers + 1):
            waiting[number] = episodes
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1
    finally:
        actors.close()
        simulators.close()


def _package_version() -> str:
    try:
        return version("lmrl-ray")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
