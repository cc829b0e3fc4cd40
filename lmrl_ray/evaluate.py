"""Evaluation: play a policy, score it with an interval, beside the task's baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from algos.play import EpisodeRequest, PlayedEpisode
from envs.core import Episode, ScriptedPolicy
from envs.registry import TaskSpec, get_task
from lmrl_ray.config import ConfigError, ResourcesConfig, RunConfig
from lmrl_ray.heartbeat import Tally, heartbeat
from lmrl_ray.rollout import LocalRollouts, Rollouts, Setting
from lmrl_ray.seeding import evaluation_seed

Protocol = Literal["quick", "paper"]
_DEFAULTS = ResourcesConfig()
_VLLM_SHARE = 0.9
"""Of the memory of an actor's part of a GPU; CUDA itself needs some."""


@dataclass(frozen=True)
class Score:
    """What a policy earns on a task.

    Attributes:
        ci95: 95 % interval of the mean return (normal approximation; where an evaluation walks
            through fixed tasks, the variance is taken within each of them).
        normalized_score: on the paper's scale of the task; None where there is none.
        failed: episodes that a simulator's fault ended; they are in no other figure.
    """

    policy: str
    episodes: int
    raw_return: float
    ci95: tuple[float, float]
    normalized_score: float | None
    success_rate: float
    mean_length: float
    invalid_rate: float
    cut_rate: float
    failed: int
    simulator: str

    def row(self) -> dict[str, Any]:
        """As plain values; `ci95` is None where a single episode gives no interval (JSON has no NaN)."""
        return {**asdict(self), "ci95": None if np.isnan(self.ci95[0]) else list(self.ci95)}

    def metrics(self) -> dict[str, float]:
        """The figures alone, as a tracker takes them."""
        plain = {k: v for k, v in self.row().items() if isinstance(v, int | float)}
        renamed = {"raw_return": "return"}
        return {renamed.get(k, k): float(v) for k, v in plain.items()}


@dataclass(frozen=True)
class Evaluation:
    score: Score
    episodes: list[Episode]


def requests_for(spec: TaskSpec, episodes: int, seed: int, env: Mapping[str, Any]) -> list[EpisodeRequest]:
    """The episodes of an evaluation: the task's fixed tasks in turn, or tasks drawn by seed.

    Fewer episodes than tasks are spread over them, since lists of tasks are often sorted: they are some of
    those of a longer evaluation, with its indices.

    Simulators made with other arguments may have other tasks: of held-out cities those that are there are
    walked through, of another maze all.
    """
    tasks: Sequence[int] | None = spec.eval_tasks
    if tasks is not None:
        simulator = spec.make(**env)
        there = simulator.split_tasks or range(simulator.num_tasks)
        another_world = not env.keys().isdisjoint(spec.world_arguments)
        tasks = there if another_world else tuple(t for t in tasks if t in there)
    if tasks is None:
        return [EpisodeRequest(i, evaluation_seed(seed, i)) for i in range(episodes)]
    indices = [i * max(len(tasks), episodes) // episodes for i in range(episodes)]
    return [EpisodeRequest(i, evaluation_seed(seed, i), tasks[i % len(tasks)]) for i in indices]


def episodes_of(spec: TaskSpec, protocol: Protocol, episodes: int | None) -> int:
    """How many episodes: as asked for, or what the protocol says."""
    if episodes is not None:
        if episodes < 1:
            raise ConfigError(f"episodes: {episodes}; expected at least 1")
        return episodes
    return spec.quick_episodes if protocol == "quick" else spec.paper_episodes


def evaluate(
    rollouts: Rollouts,
    setting: Setting,
    *,
    episodes: int,
    seed: int,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Play the rollouts' current policy and score it."""
    spec = get_task(setting.task)
    played = rollouts.play(setting, requests_for(spec, episodes, seed, setting.env), on_progress)
    return Evaluation(score(spec, setting.name, played), [p.episode for p in played])


def evaluate_policy_folder(config: RunConfig, folder: Path, episodes: int) -> Score:
    """Score the policy in a folder in this process, with our own sampler."""
    rollouts = LocalRollouts(config.resources)
    rollouts.set_policy(folder)
    setting = replace(setting_of(config), vllm_share=None)
    return evaluate(rollouts, setting, episodes=episodes, seed=config.seed).score


def evaluate_baseline(
    spec: TaskSpec,
    name: str,
    *,
    episodes: int,
    seed: int,
    env: dict[str, Any] | None = None,
    resources: ResourcesConfig = _DEFAULTS,
) -> Score:
    """Score one of the task's scripted policies on the same episodes."""
    policy = spec.baseline(name)
    return evaluate_scripted(
        spec, policy, name, episodes=episodes, seed=seed, env=env, resources=resources
    ).score


def evaluate_scripted(
    spec: TaskSpec,
    policy: ScriptedPolicy,
    name: str,
    *,
    episodes: int,
    seed: int,
    env: dict[str, Any] | None = None,
    resources: ResourcesConfig = _DEFAULTS,
) -> Evaluation:
    """Play a policy that needs no tokens, in this process, and score it.

    RolloutError when more than `resources.max_failed_share` of the episodes fail.
    """
    arguments = env or {}
    simulator = spec.make(**arguments)
    played = []
    tally = Tally(episodes, resources.max_failed_share)
    with heartbeat(resources.heartbeat_s, lambda: f"{spec.id}, {name}: {tally}"):
        for r in requests_for(spec, episodes, seed, arguments):
            try:
                episode = spec.play(simulator, policy, r.seed, r.task_id)
            except Exception as error:
                episode = failed_episode(spec, simulator.simulator, name, r, error)
            played.append(PlayedEpisode(r.index, episode, None, cut_actions=0))
            tally.add([episode])
    return Evaluation(score(spec, name, played), [p.episode for p in played])


def failed_episode(
    spec: TaskSpec, simulator: str, name: str, request: EpisodeRequest, error: Exception
) -> Episode:
    """The record of an episode whose simulator raised."""
    return Episode(
        task=spec.id,
        segments=(),
        terminated=False,
        truncated=False,
        success=False,
        seed=request.seed,
        task_id=request.task_id or 0,
        simulator=simulator,
        policy=name,
        error=f"{type(error).__name__}: {error}",
    )


def setting_of(config: RunConfig, name: str | None = None) -> Setting:
    """How a run's policy is played."""
    resources = config.resources
    share = _VLLM_SHARE * min(1.0, resources.gpus_per_actor) if resources.rollout_engine == "vllm" else None
    return Setting(config.task, dict(config.env), config.plugins, config.decoding, name or config.algo, share)


def score(spec: TaskSpec, name: str, played: Sequence[PlayedEpisode]) -> Score:
    """Statistics of played episodes. ConfigError when all of them failed."""
    whole = [p for p in played if p.episode.error is None]
    if not whole:
        reason = played[0].episode.error if played else "none was asked for"
        raise ConfigError(f"{spec.id}: no episode could be played: {reason}")
    returns = np.array([p.episode.total_return for p in whole])
    mean = float(returns.mean())
    half = 1.96 * standard_error(returns, [p.episode.task_id for p in whole], spec.eval_tasks is not None)
    actions = [s for p in whole for s in p.episode.segments if s.is_action]
    return Score(
        policy=name,
        episodes=len(whole),
        raw_return=mean,
        ci95=(mean - half, mean + half),
        normalized_score=spec.scale.normalize(mean),
        success_rate=float(np.mean([p.episode.success for p in whole])),
        mean_length=len(actions) / len(whole),
        invalid_rate=sum(not s.valid for s in actions) / max(len(actions), 1),
        cut_rate=sum(p.cut_actions for p in whole) / max(len(actions), 1),
        failed=len(played) - len(whole),
        simulator=whole[0].episode.simulator,
    )


def standard_error(values: np.ndarray, strata: Sequence[int], fixed_strata: bool) -> float:
    """Of the mean: sqrt(sum_h (n_h / n)^2 s_h^2 / n_h) over strata of at least two, else s / sqrt(n)."""
    count = len(values)
    if count < 2:
        return float("nan")
    labels = np.asarray(strata)
    groups = [values[labels == h] for h in np.unique(labels)]
    if not fixed_strata or min(len(g) for g in groups) < 2:
        groups = [values]
    variance = sum((len(g) / count) ** 2 * g.var(ddof=1) / len(g) for g in groups)
    return float(np.sqrt(variance))
