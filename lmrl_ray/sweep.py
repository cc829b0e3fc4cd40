"""Sweeps: Ray Tune over the configuration of a training run.

A trial is one run of `lmrl train`, so what wins here is a file that `lmrl train --config` takes. Each
trial holds its learners and rollout actors in one placement group, is a child run in MLflow, and
continues from its own checkpoint when the sweep is resumed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from algos.settings import Settings
from lmrl_ray.cluster import actor_bundle, ensure_ray, share_of
from lmrl_ray.config import (
    ConfigError,
    ResourcesConfig,
    RunConfig,
    load_yaml,
    merge,
    parse,
    parse_settings,
    validate,
)
from lmrl_ray.journal import read as read_journal
from lmrl_ray.plugins import load_plugins
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import resolve_config
from lmrl_ray.tracking import Tracker
from lmrl_ray.train import Hooks, following_status, prepare, resume, train


class Range(Settings):
    """Where a value is drawn from: exactly one of these."""

    uniform: tuple[float, float] | None = None
    loguniform: tuple[float, float] | None = None
    choice: list[Any] | None = None

    def domain(self) -> Any:
        """As Ray Tune takes it."""
        from ray import tune

        if self.choice is not None:
            return tune.choice(self.choice)
        if self.loguniform is not None:
            return tune.loguniform(*self.loguniform)
        assert self.uniform is not None
        return tune.uniform(*self.uniform)

    def examples(self) -> list[Any]:
        """Its ends, or all that may be chosen."""
        return list(self.choice or self.uniform or self.loguniform or ())

    @model_validator(mode="after")
    def _check(self) -> Range:
        given = [d for d in (self.uniform, self.loguniform, self.choice) if d is not None]
        if len(given) != 1:
            raise ValueError("should have exactly one of uniform, loguniform, choice")
        if self.choice is not None:
            if not self.choice:
                raise ValueError("should have something to choose from")
            return self
        low, high = given[0]
        if not low < high:
            raise ValueError("should begin below its end")
        if self.loguniform and low <= 0:
            raise ValueError("should begin above 0, being logarithmic")
        return self


class Asha(Settings):
    """Asynchronous successive halving (Li et al. 2020), in optimiser steps."""

    grace_steps: int = Field(50, ge=1, description="no trial is stopped before")
    reduction_factor: int = Field(2, ge=2, description="one in so many goes on at each rung")


class SweepConfig(Settings):
    """A sweep's file."""

    algo: str
    task: str
    trials: int = Field(8, ge=1)
    metric: str = Field("eval/normalized_score", description="reported by training.eval_every")
    mode: Literal["max", "min"] = "max"
    config: dict[str, Any] = Field(default_factory=dict, description="of every trial")
    space: dict[str, Range] = Field(description="by key: where its value is drawn from")
    asha: Asha | None = Asha()


@dataclass(frozen=True)
class Trial:
    name: str
    parameters: dict[str, Any]
    steps: int
    score: float | None
    status: str


@dataclass(frozen=True)
class SweepResult:
    """Trials, best first."""

    name: str
    metric: str
    trials: list[Trial]
    best_config: Path
    mlflow_run: str

    def summary(self) -> dict[str, Any]:
        return {
            "sweep": self.name,
            "metric": self.metric,
            "best_config": str(self.best_config),
            "mlflow_run": self.mlflow_run,
            "trials": [vars(t) for t in self.trials],
        }


@dataclass(frozen=True)
class _Plan:
    """What a sweep decided before its first trial, kept for a resume."""

    sweep: dict[str, Any]
    base: dict[str, Any]
    parent_run: str


def run_sweep(
    file: Path,
    out: Path,
    seed: int,
    hooks: Hooks,
    max_concurrent: int | None = None,
    resume_name: str | None = None,
    settings: Sequence[str] = (),
) -> SweepResult:
    """Run the sweep of a file, or go on with one by name. Raises ConfigError."""
    out = out.resolve()
    sweep, base = read_sweep(file, seed, settings)
    name = resume_name or _free_name(out, file.stem)
    folder = out / "sweeps" / name
    if resume_name is not None:
        if not (folder / "plan.json").is_file():
            raise ConfigError(f"--resume {resume_name}: there is no sweep of that name in {folder.parent}")
        plan = _Plan(**json.loads((folder / "plan.json").read_text()))
        tracker = Tracker(out, folder, required=True)
    else:
        prepared = prepare(base, out, hooks, name)
        tracker = Tracker(out, folder, required=True)
        tracker.log_config({"sweep": sweep.model_dump(mode="json")}, {})
        plan = _Plan(sweep.model_dump(mode="json"), prepared.dump(), tracker.run_id)
        (folder / "plan.json").write_text(json.dumps(plan.__dict__))
    with following_status(tracker):
        results = _tune(plan, folder, out, seed, max_concurrent, resume_name is not None)
        result = _collect(results, plan, folder, name)
        tracker.log_table([vars(t) for t in result.trials], "trials.json")
        tracker.close_children()
    return result


def read_sweep(file: Path, seed: int, settings: Sequence[str] = ()) -> tuple[SweepConfig, RunConfig]:
    """A sweep's file and the configuration its trials share, both checked. Raises ConfigError."""
    sweep = validate(SweepConfig, load_yaml(file), str(file), "")
    base_values = merge(sweep.config, parse_settings(settings))
    base = resolve_config(sweep.algo, sweep.task, options=merge(base_values, {"seed": seed}))
    if not base.training.eval_every and sweep.metric.startswith("eval/"):
        raise ConfigError(f"{file}: config.training.eval_every: is 0, so {sweep.metric} is never measured")
    for key, drawn in sweep.space.items():
        for value in drawn.examples():
            trial_config(base.dump(), {key: value}, str(file))
    return sweep, base


def trial_config(base: Mapping[str, Any], parameters: Mapping[str, Any], where: str) -> RunConfig:
    """The configuration of one trial."""
    return parse(merge(base, nested(parameters)), where)


def _tune(plan: _Plan, folder: Path, out: Path, seed: int, max_concurrent: int | None, restore: bool) -> Any:
    base = parse(plan.base, "sweep")
    sweep = SweepConfig.model_validate(plan.sweep)
    ensure_ray(_resources_of_sweep(base.resources, max_concurrent))
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
    from ray.tune.search import BasicVariantGenerator

    learner = {"CPU": 1.0, **share_of(base.resources.learner_resource)}
    bundles = [learner, *[actor_bundle(base.resources)] * base.resources.rollout_actors]
    trainable = tune.with_resources(
        tune.with_parameters(_trial, plan=plan, out=str(out), sweep_name=folder.name),
        tune.PlacementGroupFactory(bundles),
    )
    space = {key: drawn.domain() for key, drawn in sweep.space.items()}
    if restore:
        tuner = tune.Tuner.restore(
            str(folder), trainable=trainable, param_space=space, resume_unfinished=True, restart_errored=True
        )
        return _fit(tuner)
    scheduler = FIFOScheduler()
    if sweep.asha is not None:
        scheduler = ASHAScheduler(
            time_attr="step",
            max_t=base.training.steps,
            grace_period=min(sweep.asha.grace_steps, base.training.steps),
            reduction_factor=sweep.asha.reduction_factor,
        )
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            num_samples=sweep.trials,
            max_concurrent_trials=max_concurrent,
            scheduler=scheduler,
            search_alg=BasicVariantGenerator(random_state=seed, max_concurrent=max_concurrent or 0),
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            # A lost node ends its trials: they go on elsewhere from their checkpoints.
            failure_config=tune.FailureConfig(max_failures=base.resources.max_failures),
        ),
    )
    return _fit(tuner)


def _fit(tuner: Any) -> Any:
    """What Ray prints is not the command's result."""
    with redirect_stdout(sys.stderr):
        return tuner.fit()


def _trial(parameters: dict[str, Any], plan: _Plan, out: str, sweep_name: str) -> None:
    """One trial: a run of its own, which a restarted trial goes on with."""
    from ray import tune

    load_plugins(plan.base["plugins"])
    name = f"{sweep_name}-{tune.get_context().get_trial_id()}"
    metric = plan.sweep["metric"]

    def report(step: int, metrics: dict[str, float]) -> None:
        if metric in metrics:
            tune.report({**metrics, "step": step})

    hooks = Hooks(Display(quiet=True), on_metrics=report, parent_run=plan.parent_run)
    if (Path(out) / name / "run.json").is_file():
        # Tune may not have seen the last score before the driver died.
        journal = read_journal(Path(out) / name / "metrics.jsonl")
        scored = [e for e in journal if metric in e.metrics]
        if scored:
            report(scored[-1].step, scored[-1].metrics)
        if not (Path(out) / name / "evaluation.json").is_file():
            resume(name, Path(out), hooks)
    else:
        train(trial_config(plan.base, parameters, "trial"), Path(out), hooks, name)


def _collect(results: Any, plan: _Plan, folder: Path, name: str) -> SweepResult:
    """Trials best first; the winner's configuration as a file. ConfigError when no trial was scored."""
    metric, sign = plan.sweep["metric"], 1 if plan.sweep["mode"] == "max" else -1
    trials = []
    for result in results:
        metrics = result.metrics or {}
        status = "error" if result.error else "done"
        step = int(metrics.get("step", 0))
        if not result.error and step < plan.base["training"]["steps"]:
            status = "stopped"
        trial_name = f"{name}-{metrics.get('trial_id', '?')}"
        trials.append(Trial(trial_name, dict(result.config or {}), step, metrics.get(metric), status))
    scored = sorted((t for t in trials if t.score is not None), key=lambda t: -sign * (t.score or 0.0))
    if not scored:
        errors = [str(e).strip().splitlines()[-1] for e in results.errors]
        raise ConfigError(f"sweep {name}: no trial was scored: {errors[0] if errors else 'none ran'}")
    best = {k: v for k, v in plan.base.items() if k not in ("init", "data", "seed")}
    path = folder / "best.yaml"
    path.write_text(yaml.safe_dump(merge(best, nested(scored[0].parameters)), sort_keys=False))
    unscored = [t for t in trials if t.score is None]
    return SweepResult(name, metric, [*scored, *unscored], path, plan.parent_run)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": c}` as `{"a": {"b": c}}`."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        inner: Any = value
        for part in reversed(key.split(".")):
            inner = {part: inner}
        result = merge(result, inner)
    return result


def _resources_of_sweep(resources: ResourcesConfig, max_concurrent: int | None) -> ResourcesConfig:
    """What must fit at once: `max_concurrent` trials (one where it is not given)."""
    trials = max_concurrent or 1
    return resources.model_copy(
        update={
            "workers": trials,
            "cpus_per_worker": 1.0,
            "gpus_per_worker": 0.0,
            "rollout_actors": trials * resources.rollout_actors,
        }
    )


def _free_name(out: Path, stem: str) -> str:
    taken = {p.name for p in (out / "sweeps").glob("*")}
    names = (stem if i == 0 else f"{stem}-{i + 1}" for i in range(len(taken) + 1))
    return next(n for n in names if n not in taken)
