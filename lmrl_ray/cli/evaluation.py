"""`lmrl eval`: a policy and the task's baselines on the same episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algos.policy import Decoding
from envs.registry import TaskSpec, get_task
from lmrl_ray import registry
from lmrl_ray.config import ConfigError, RunConfig, merge, parse, parse_settings
from lmrl_ray.evaluate import Protocol, Score, episodes_of, evaluate, evaluate_baseline, setting_of
from lmrl_ray.plugins import absolute, load_plugins
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import check_env_arguments, find_policy, run_config_of, tuned_defaults
from lmrl_ray.rollout import make_rollouts
from lmrl_ray.trust import check_endpoint


@dataclass(frozen=True)
class EvaluationRequest:
    policy: str
    task: str
    episodes: int | None
    protocol: Protocol
    decoding: str | None
    rollout_actors: int
    settings: list[str]
    plugins: list[str]
    register: str | None = None
    """The name under which the policy goes into the model registry."""


@dataclass(frozen=True)
class Evaluated:
    spec: TaskSpec
    scores: list[Score]
    """Of the baselines, and last of the policy."""
    folder: Path
    config: RunConfig


def evaluate_policy(request: EvaluationRequest, seed: int, out: Path, display: Display) -> Evaluated:
    """Play the baselines and the policy. ConfigError and TrackingError before anything is played."""
    if request.register is not None:
        registry.check(request.register, out)
    load_plugins(request.plugins)
    spec = get_task(request.task)
    folder = find_policy(request.policy, out)
    config = _config(request, folder, seed)
    count = episodes_of(spec, request.protocol, request.episodes)
    env, resources = dict(config.env), config.resources
    scores = [
        evaluate_baseline(spec, b, episodes=count, seed=seed, env=env, resources=resources)
        for b in spec.baselines
    ]
    rollouts = make_rollouts(resources)
    try:
        rollouts.set_policy(folder)
        with display.bar(f"evaluating {config.algo}", count) as bar:
            found = evaluate(rollouts, setting_of(config), episodes=count, seed=seed, on_progress=bar.advance)
    finally:
        rollouts.close()
    return Evaluated(spec, [*scores, found.score], folder, config)


def _config(request: EvaluationRequest, folder: Path, seed: int) -> RunConfig:
    """How the policy was trained to be played, where its folder says, with what was asked for on top."""
    trained = run_config_of(folder)
    if trained is not None and trained.task != request.task:
        raise ConfigError(f"{request.policy}: was trained on {trained.task}, not on {request.task}")
    values: dict[str, Any] = trained.dump() if trained else {"algo": "bc", "task": request.task}
    # A bare model is sampled as a clone of this task would be.
    usual = tuned_defaults("bc", request.task).get("decoding", {})
    decoding = Decoding(**values.get("decoding", usual)).model_dump()
    if request.decoding is not None:
        decoding["mode"] = request.decoding
    given = parse_settings(request.settings)
    for key in given.keys() - {"decoding", "env", "resources"}:
        instead = "give --seed" if key == "seed" else "here it is decoding.NAME, env.NAME or resources.NAME"
        raise ConfigError(f"--set {key}: has no effect on an evaluation; {instead}")
    asked = merge(
        {
            "decoding": decoding,
            "seed": seed,
            "plugins": [*dict.fromkeys([*values.get("plugins", ()), *absolute(request.plugins)])],
            # No rounds are played here, and in this process our own sampler decodes.
            "online": {"max_staleness": 0, "temperature": None},
            "resources": {"workers": 0, "rollout_actors": request.rollout_actors}
            | ({} if request.rollout_actors else {"rollout_engine": "torch"}),
        },
        given,
    )
    config = parse(merge(values, asked), f"{request.policy} with --set")
    check_endpoint(config.env, folder, asked.get("env", {}).get("base_url"))
    check_env_arguments(config)
    return config
