"""`lmrl eval api:MODEL TASK`: a prompted model and the task's baselines on the same episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from envs.registry import TaskSpec, get_task
from lmrl_ray.cli.evaluation import EvaluationRequest
from lmrl_ray.config import ConfigError, merge, validate
from lmrl_ray.evaluate import Score, episodes_of, evaluate_baseline
from lmrl_ray.plugins import load_plugins
from lmrl_ray.prompted.config import PromptedConfig
from lmrl_ray.prompted.evaluate import PromptedScore, evaluate_prompted
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import check_simulator, section_settings

PREFIX = "api:"


def evaluate_api(
    request: EvaluationRequest, options: Mapping[str, Any], seed: int, out: Path, display: Display
) -> tuple[TaskSpec, list[Score], PromptedScore]:
    """The scores, baselines first, and what the model's took. `options` are fields of PromptedConfig."""
    load_plugins(request.plugins)
    spec = get_task(request.task)
    model = request.policy.removeprefix(PREFIX)
    config, env = _settings(request, options)
    if not model or request.decoding or request.rollout_actors:
        raise ConfigError(
            f"{request.policy}: name a model as in api:NAME; --decoding and --rollout-actors are for "
            f"policies that run here (see --set api.temperature=... and --concurrency)"
        )
    count = episodes_of(spec, request.protocol, request.episodes)
    if env and spec.instructions and config.instructions is None:
        display.say(f"the rules that {model} is told are those of {spec.id} without --set env.*")
    with display.bar(f"asking {model}", count) as bar:
        found = evaluate_prompted(
            spec, model, config, env=env, episodes=count, seed=seed, out=out, on_progress=bar.advance
        )
    baselines = [evaluate_baseline(spec, b, episodes=count, seed=seed, env=env) for b in spec.baselines]
    return spec, [*baselines, found.score], found


def rows(scores: list[Score], found: PromptedScore) -> list[dict[str, Any]]:
    """As plain values; the model's row says what it took."""
    took = {"usage": asdict(found.usage), "cost": found.cost, "record": str(found.record)}
    return [*(s.row() for s in scores[:-1]), scores[-1].row() | took]


def print_usage(found: PromptedScore) -> None:
    """Beneath the table of scores: requests, tokens, cost, and where the episodes are."""
    usage, console = found.usage, Console(highlight=False, soft_wrap=True)
    tokens = f"{usage.prompt_tokens:,} prompt and {usage.completion_tokens:,} completion tokens"
    if usage.uncounted:
        tokens += f" (the server told none for {usage.uncounted} requests)"
    cost = "" if found.cost is None else f", cost {found.cost:.4f}"
    console.print(f"{usage.requests} requests, {usage.reasked} of them asked again; {tokens}{cost}")
    if usage.unanswered:
        console.print(f"{usage.unanswered} observations were answered without any action", style="bold")
    console.print(f"episodes: {found.record}")


def _settings(
    request: EvaluationRequest, options: Mapping[str, Any]
) -> tuple[PromptedConfig, dict[str, Any]]:
    values = section_settings(request.settings, "api", "env")
    check_simulator(request.task, values["env"])
    given = {k: v for k, v in options.items() if v is not None}
    return validate(PromptedConfig, merge(values["api"], given), "--set", "api."), values["env"]
