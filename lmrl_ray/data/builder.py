"""Make a data set: play a task's behaviour policy, or import the files that LMRL-Gym published."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from envs.core import Episode, TextEnv
from envs.registry import TaskSpec, get_task
from lmrl_ray.data.reader import EpisodeDataset
from lmrl_ray.data.schema import DataError
from lmrl_ray.data.writer import EpisodeWriter
from lmrl_ray.seeding import episode_seed

CHUNK = 64
"""Episodes that a worker plays before it hands them over."""

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
) -> EpisodeDataset:
    """Write `episodes` episodes of the task's data to `path` and return the data set.

    The same arguments give the same fingerprint, with any number of worker processes (which
    are spawned: a script that asks for several needs the `if __name__ == "__main__"` guard).
    """
    if episodes < 1 or workers < 1:
        raise ValueError(f"episodes: {episodes}, workers: {workers}; both must be at least 1")
    spec, kwargs = get_task(task), dict(env_kwargs or {})
    record = {
        "task": task,
        "seed": seed,
        "episodes": episodes,
        "env_kwargs": kwargs,
        "version": _package_version(),
    }
    chunks = [range(i, min(i + CHUNK, episodes)) for i in range(0, episodes, CHUNK)]
    with EpisodeWriter(path, task, build=record) as writer:
        for played in _play(spec, kwargs, seed, chunks, workers):
            for episode in played:
                writer.write(episode)
            if progress is not None:
                progress(writer.episodes)
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
        yield from read(Path(source))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot import {Path(source).name}: {error}") from error


def _chunks(episodes: Iterator[Episode], size: int) -> Iterator[list[Episode]]:
    while chunk := list(islice(episodes, size)):
        yield chunk


def _play(
    spec: TaskSpec, kwargs: dict[str, Any], seed: int, chunks: list[range], workers: int
) -> Iterator[list[Episode]]:
    """The episodes of each chunk, in order."""
    if workers == 1:
        env = spec.make(**kwargs)
        for chunk in chunks:
            yield _play_chunk(spec, env, seed, chunk)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (spec, kwargs, seed)) as pool:
        # Few chunks are on their way at a time: memory stays bounded when writing is slower.
        waiting: deque[Future[list[Episode]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_work, chunk))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _play_chunk(spec: TaskSpec, env: TextEnv, seed: int, chunk: range) -> list[Episode]:
    episodes = []
    for index in chunk:
        try:
            episodes.append(spec.data_episode(env, episode_seed(seed, index)))
        except Exception as error:
            error.add_note(f"in episode {index} of task {spec.id}, data seed {seed}")
            raise
    return episodes


_worker: tuple[TaskSpec, TextEnv, int]
"""What a worker process keeps between chunks."""


def _start_worker(spec: TaskSpec, kwargs: dict[str, Any], seed: int) -> None:
    global _worker
    _worker = (spec, spec.make(**kwargs), seed)


def _work(chunk: range) -> list[Episode]:
    return _play_chunk(*_worker, chunk)


def _package_version() -> str:
    try:
        return version("lmrl-ray")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
