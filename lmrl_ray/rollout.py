"""Rollouts: Ray actors that own a copy of the policy and many simulators, and what manages them.

Requests are dealt out in groups of as many episodes as an actor has slots, and whole groups come
back. What a group yields depends on its requests and the policy alone, so an actor that dies costs
time but changes nothing: its group is played again, by it or by another.
"""

from __future__ import annotations

import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from algos.play import EpisodeRequest, PlayedEpisode, play
from algos.policy import Decoding, Policy, load_policy
from envs.registry import get_task
from lmrl_ray.cluster import ensure_ray
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.plugins import load_plugins

Group = list[EpisodeRequest]
_MAX_TRIES = 5
"""Times that a group is played before its failure is the run's."""


class RolloutError(RuntimeError):
    """Episodes could not be played."""


@dataclass(frozen=True)
class Setting:
    """What is played, and how: the same for all groups of a call."""

    task: str
    env: dict[str, Any]
    plugins: tuple[str, ...]
    decoding: Decoding
    name: str
    """What the episodes call the policy."""


@dataclass(frozen=True)
class PolicyFiles:
    """A policy's folder as one object that Ray stores once for all actors."""

    version: int
    files: dict[str, bytes]

    @classmethod
    def read(cls, folder: Path, version: int) -> PolicyFiles:
        paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and _belongs_to_policy(folder, p)]
        return cls(version, {str(p.relative_to(folder)): p.read_bytes() for p in paths})

    def load(self) -> Policy:
        with tempfile.TemporaryDirectory() as name:
            for relative, content in self.files.items():
                path = Path(name) / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return load_policy(Path(name))


class RolloutWorker:
    """Plays groups of episodes with the policy version it is given. Runs as an actor, or in process."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._version = -1

    def ping(self) -> str:
        return "pong"

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What FaultTolerantActorManager calls."""
        return func(self, *args, **kwargs)

    def process_id(self) -> int:
        return os.getpid()

    def play(self, policy: PolicyFiles, setting: Setting, group: Group) -> list[PlayedEpisode]:
        load_plugins(setting.plugins)
        spec = get_task(setting.task)
        if policy.version != self._version or self._policy is None:
            self._policy, self._version = policy.load().to(_device()), policy.version
        episodes = play(
            spec,
            lambda: spec.make(**setting.env),
            self._policy,
            group,
            decoding=setting.decoding,
            slots=len(group),
            name=setting.name,
        )
        return list(episodes)


class Rollouts(ABC):
    """Plays requested episodes with the current policy."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
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

        `on_progress` is told the number of episodes that came back. RolloutError when a group fails
        over and over.
        """
        groups = [list(requests[i : i + self._slots]) for i in range(0, len(requests), self._slots)]
        played: dict[int, PlayedEpisode] = {}
        for episodes in self._results(setting, groups):
            played |= {e.index: e for e in episodes}
            if on_progress:
                on_progress(len(episodes))
        return [played[r.index] for r in requests]

    def close(self) -> None:
        return


class LocalRollouts(Rollouts):
    """In this process, one group after the other."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self._worker = RolloutWorker()

    def set_policy(self, folder: Path) -> None:
        self._files = PolicyFiles.read(folder, next(self._versions))

    def _results(self, setting: Setting, groups: Sequence[Group]) -> Iterator[list[PlayedEpisode]]:
        for group in groups:
            yield self._worker.play(self._files, setting, group)


class ActorRollouts(Rollouts):
    """Ray actors under RLlib's FaultTolerantActorManager: one that dies is replaced and loses nothing."""

    def __init__(self, resources: ResourcesConfig) -> None:
        super().__init__(resources.slots)
        self._ray = ensure_ray(resources)
        from ray.rllib.utils.actor_manager import FaultTolerantActorManager

        self._timeout = resources.timeout_s
        actor = self._ray.remote(
            num_cpus=1,
            num_gpus=resources.gpus_per_actor,
            max_restarts=-1,
            max_task_retries=0,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}},
        )(RolloutWorker)
        self._actors = [actor.remote() for _ in range(resources.rollout_actors)]
        self._manager = FaultTolerantActorManager(self._actors, max_remote_requests_in_flight_per_actor=1)

    def set_policy(self, folder: Path) -> None:
        self._policy = self._ray.put(PolicyFiles.read(folder, next(self._versions)))

    def process_ids(self) -> list[int]:
        """Of the actors, as the operating system knows them."""
        ids: list[int] = self._ray.get([a.process_id.remote() for a in self._actors], timeout=self._timeout)
        return ids

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._manager.clear()

    def _results(self, setting: Setting, groups: Sequence[Group]) -> Iterator[list[PlayedEpisode]]:
        dealt: dict[int, _Dealt] = {}
        try:
            yield from self._fetched(setting, groups, dealt)
        finally:
            # Whoever is still at work on an abandoned call answers it to nobody.
            for actor in dealt:
                self._manager.set_actor_state(actor, healthy=False)

    def _fetched(
        self, setting: Setting, groups: Sequence[Group], dealt: dict[int, _Dealt]
    ) -> Iterator[list[PlayedEpisode]]:
        waiting = list(range(len(groups)))[::-1]
        tries = [0] * len(groups)
        done = 0
        last_alive = time.monotonic()
        while done < len(groups):
            self._manager.probe_unhealthy_actors(timeout_seconds=0.05, mark_healthy=True)
            for actor in self._manager.healthy_actor_ids():
                last_alive = time.monotonic()
                if waiting and actor not in dealt:
                    number = waiting.pop()
                    tries[number] += 1
                    self._deal(actor, setting, groups[number])
                    dealt[actor] = _Dealt(number, time.monotonic())
            if time.monotonic() - last_alive > self._timeout:
                raise RolloutError(
                    f"no rollout actor has answered for {self._timeout:g} s (resources.timeout_s); "
                    f"`ray status` says what the cluster lacks"
                )
            for result in self._manager.fetch_ready_async_reqs(timeout_seconds=0.05):
                finished = dealt.pop(result.actor_id).group
                if result.ok:
                    done += 1
                    yield result.get()
                else:
                    self._again(finished, tries, waiting, result.get())
            for actor in [a for a, d in dealt.items() if time.monotonic() - d.since > self._timeout]:
                self._ray.kill(self._manager.actors()[actor], no_restart=False)
                self._manager.set_actor_state(actor, healthy=False)
                late = TimeoutError(f"rollout actor {actor} gave no answer for {self._timeout:g} s")
                self._again(dealt.pop(actor).group, tries, waiting, late)

    def _deal(self, actor: int, setting: Setting, group: Group) -> None:
        self._manager.foreach_actor_async(
            "play",
            kwargs={"policy": self._policy, "setting": setting, "group": group},
            remote_actor_ids=[actor],
        )

    def _again(self, group: int, tries: list[int], waiting: list[int], error: Exception) -> None:
        """Play the group again, unless it is the group (not the actor) that fails."""
        from ray.exceptions import RayTaskError

        if isinstance(error, RayTaskError) or tries[group] >= _MAX_TRIES:
            cause = getattr(error, "cause", None) or error
            reason = f"{type(cause).__name__}: {cause}"
            raise RolloutError(f"a group of episodes failed {tries[group]} times: {reason}") from error
        waiting.append(group)


@dataclass(frozen=True)
class _Dealt:
    group: int
    since: float


def make_rollouts(resources: ResourcesConfig) -> Rollouts:
    """Actors, or this process where `rollout_actors` is 0."""
    return ActorRollouts(resources) if resources.rollout_actors else LocalRollouts(resources.slots)


def _belongs_to_policy(folder: Path, path: Path) -> bool:
    """A checkpoint's folder holds the optimiser too; actors need the policy and the heads."""
    top = path.relative_to(folder).parts[0]
    return top not in ("state", "manifest.json")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
