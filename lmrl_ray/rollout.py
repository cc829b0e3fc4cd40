"""Rollouts: Ray actors that own a copy of the policy and many simulators.

Requests are dealt out in groups of as many episodes as an actor has slots, and whole groups come
back. What a group yields depends on its requests and the policy alone, as `actors` asks.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from algos.play import EpisodeRequest, PlayedEpisode, play
from algos.policy import Decoding, Policy, load_policy
from algos.vllm_sampler import VllmPolicy
from envs.registry import get_task
from lmrl_ray.actors import ManagedActor, ManagedActors
from lmrl_ray.cluster import ensure_ray, share_of
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.heartbeat import Tally, heartbeat, say
from lmrl_ray.plugins import load_plugins
from lmrl_ray.simulators.hosting import SimulatorActors

Group = list[EpisodeRequest]


@dataclass(frozen=True)
class Setting:
    """What is played, and how: the same for all groups of a call."""

    task: str
    env: dict[str, Any]
    plugins: tuple[str, ...]
    decoding: Decoding
    name: str
    """What the episodes call the policy."""
    vllm_share: float | None = None
    """Of a GPU's memory, for vLLM to decode; None: our own sampler does."""


@dataclass(frozen=True)
class PolicyFiles:
    """A policy's folder as one object that Ray stores once for all actors."""

    version: int
    files: dict[str, bytes]

    @classmethod
    def read(cls, folder: Path, version: int) -> PolicyFiles:
        paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and _belongs_to_policy(folder, p)]
        return cls(version, {str(p.relative_to(folder)): p.read_bytes() for p in paths})

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """The files, written to a folder for as long as it lasts."""
        with tempfile.TemporaryDirectory() as name:
            for relative, content in self.files.items():
                path = Path(name) / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            yield Path(name)

    def load(self) -> Policy:
        with self.folder() as folder:
            return load_policy(folder)


class RolloutWorker(ManagedActor):
    """Plays groups of episodes with the policy version it is given. Runs as an actor, or in process."""

    def __init__(self) -> None:
        self._policy: Policy | VllmPolicy | None = None
        self._version = -1

    def play(self, policy: PolicyFiles, setting: Setting, group: Group) -> list[PlayedEpisode]:
        load_plugins(setting.plugins)
        spec = get_task(setting.task)
        episodes = play(
            spec,
            lambda: spec.make(**setting.env),
            self._current(policy, setting.vllm_share),
            group,
            decoding=setting.decoding,
            slots=len(group),
            name=setting.name,
        )
        return list(episodes)

    def _current(self, files: PolicyFiles, vllm_share: float | None) -> Policy | VllmPolicy:
        if files.version != self._version or self._policy is None:
            if vllm_share is None:
                self._policy = files.load().to(_device())
            else:
                with files.folder() as folder:
                    if isinstance(self._policy, VllmPolicy):
                        self._policy.reload(folder)
                    else:
                        self._policy = VllmPolicy(folder, vllm_share)
            self._version = files.version
        return self._policy


class Rollouts(ABC):
    """Plays requested episodes with the current policy."""

    def __init__(self, resources: ResourcesConfig) -> None:
        self._slots = resources.slots
        self._max_failed_share = resources.max_failed_share
        self._heartbeat_s = resources.heartbeat_s
        self._versions = count()

    @abstractmethod
    def set_policy(self, folder: Path) -> None:
        """Play with the policy in `folder` from now on."""

    @abstractmethod
    def _results(self, setting: Setting, groups: Sequence[Group]) -> Iterator[list[PlayedEpisode]]:
        """The groups' episodes, in whatever order they come."""

    def play(
        self,
        setting: Setting,
        requests: Sequence[EpisodeRequest],
        on_progress: Callable[[int], None] | None = None,
    ) -> list[PlayedEpisode]:
        """Play all requests, each exactly once, and return the episodes in their order.

        An episode whose simulator failed comes back like the others, with `episode.error` set. On the way
        a line tells how they get on. `on_progress` is told the number of episodes that came back.
        RolloutError when a group fails over and over, or more than `resources.max_failed_share` of the
        episodes have failed.
        """
        groups = [list(requests[i : i + self._slots]) for i in range(0, len(requests), self._slots)]
        tally = Tally(len(requests), self._max_failed_share)
        played: dict[int, PlayedEpisode] = {}
        with heartbeat(self._heartbeat_s, lambda: f"{setting.task}: {tally}, {self._state(groups)}"):
            for episodes in self._results(setting, groups):
                played |= {e.index: e for e in episodes}
                tally.add(e.episode for e in episodes)
                if on_progress:
                    on_progress(len(episodes))
        if tally.failed:
            say(f"{setting.task}: {tally}; the first: {tally.first_failure}")
        return [played[r.index] for r in requests]

    @abstractmethod
    def _state(self, groups: Sequence[Group]) -> str:
        """Where the groups are, in words."""

    def close(self) -> None:
        return


class LocalRollouts(Rollouts):
    """In this process, one group after the other."""

    def __init__(self, resources: ResourcesConfig) -> None:
        super().__init__(resources)
        self._worker = RolloutWorker()
        self._in_flight = 0

    def set_policy(self, folder: Path) -> None:
        self._files = PolicyFiles.read(folder, next(self._versions))

    def _results(self, setting: Setting, groups: Sequence[Group]) -> Iterator[list[PlayedEpisode]]:
        for group in groups:
            self._in_flight = len(group)
            yield self._worker.play(self._files, setting, group)

    def _state(self, groups: Sequence[Group]) -> str:
        return f"{self._in_flight} in flight in this process"


class ActorRollouts(Rollouts):
    """Managed Ray actors: one that dies is replaced and loses nothing."""

    def __init__(self, resources: ResourcesConfig) -> None:
        super().__init__(resources)
        self._ray = ensure_ray(resources)
        self._simulators = SimulatorActors(self._ray, resources)
        self._actors = ManagedActors(
            self._ray,
            RolloutWorker,
            resources.rollout_actors,
            title="rollout actor",
            timeout_s=resources.timeout_s,
            cpus=resources.cpus_per_actor,
            gpus=resources.gpus_per_actor,
            custom=share_of(resources.actor_resource),
        )

    def set_policy(self, folder: Path) -> None:
        self._policy = self._ray.put(PolicyFiles.read(folder, next(self._versions)))

    def process_ids(self) -> list[int]:
        """Of the actors, as the operating system knows them."""
        return self._actors.process_ids()

    def close(self) -> None:
        self._actors.close()
        self._simulators.close()

    def _results(self, setting: Setting, groups: Sequence[Group]) -> Iterator[list[PlayedEpisode]]:
        setting = replace(setting, env=self._simulators.hosted(setting.env))
        calls = [{"policy": self._policy, "setting": setting, "group": group} for group in groups]
        for _, episodes in self._actors.play(calls):
            yield episodes

    def _state(self, groups: Sequence[Group]) -> str:
        in_flight = sum(len(groups[number]) for number in self._actors.dealt)
        return f"{in_flight} in flight; {self._actors}"


def make_rollouts(resources: ResourcesConfig) -> Rollouts:
    """Actors, or this process where `rollout_actors` is 0."""
    return ActorRollouts(resources) if resources.rollout_actors else LocalRollouts(resources)


def _belongs_to_policy(folder: Path, path: Path) -> bool:
    """A checkpoint's folder holds the optimiser too; actors need the policy and the heads."""
    top = path.relative_to(folder).parts[0]
    return top not in ("state", "manifest.json")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
