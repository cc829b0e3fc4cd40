"""A sweep's file: what every trial shares, what is searched, and how. Checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from algos.base import get_algorithm
from algos.settings import Settings
from envs.registry import get_task
from lmrl_ray.config import ConfigError, RunConfig, load_yaml, merge, parse, parse_settings, validate
from lmrl_ray.evaluate import Score
from lmrl_ray.resolve import resolve_layers
from lmrl_ray.symbolic.config import is_symbolic

_ELSEWHERE = {"seed": "give --seed", "algo": "edit algo of the file", "task": "edit task of the file"}
"""Where a sweep is told what it would not listen to in `config`, `space` and `--set`."""
_SHARED = (*_ELSEWHERE, "data", "data_episodes", "init", "env", "plugins", "resources")
"""What is there before a trial draws its values: the game, its data, what all start from, their place."""


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

    def between(self) -> list[float]:
        """A value between its ends that is no whole number, though both ends may be some."""
        ends = self.uniform or self.loguniform
        return [ends[0] + (ends[1] - ends[0]) / math.e] if ends else []

    @property
    def is_numeric(self) -> bool:
        return all(isinstance(v, int | float) and not isinstance(v, bool) for v in self.examples())

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


class Optuna(Settings):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011)."""

    random_trials: int = Field(5, ge=1, description="drawn at random before the estimator proposes any")
    multivariate: bool = Field(False, description="whether values are proposed jointly, not one by one")


class Asha(Settings):
    """Asynchronous successive halving (Li et al. 2020), in optimiser steps."""

    grace_steps: int = Field(50, ge=1, description="no trial is stopped before")
    reduction_factor: int = Field(2, ge=2, description="one in so many goes on at each rung")


class Pbt(Settings):
    """Population-based training (Jaderberg et al. 2017): the worst go on from copies of the best."""

    interval_steps: int = Field(50, ge=1, description="optimiser steps between comparisons of a trial")
    quantile: float = Field(0.25, gt=0, le=0.5, description="share that copies, and share that is copied")
    resample: float = Field(0.25, ge=0, le=1, description="chance that a value is drawn anew, not perturbed")
    factors: tuple[float, float] = Field((0.8, 1.2), description="one of which multiplies a perturbed value")


class Plateau(Settings):
    """A trial ends when its last `reports` values of the metric have a standard deviation below `std`."""

    std: float = Field(gt=0)
    reports: int = Field(4, ge=2)


class Stop(Settings):
    """When a trial ends early, whatever the scheduler says."""

    target: float | None = Field(None, description="a trial whose metric gets there ends")
    plateau: Plateau | None = None


class SweepConfig(Settings):
    """A sweep's file."""

    algo: str
    task: str
    trials: int = Field(8, ge=1, description="for pbt: the size of the population")
    max_concurrent: int | None = Field(None, ge=1, description="trials at a time; None: as many as fit")
    metric: str = Field("eval/normalized_score", description="reported by training.eval_every")
    mode: Literal["max", "min"] = "max"
    config: dict[str, Any] = Field(default_factory=dict, description="of every trial")
    space: dict[str, Range] = Field(description="by key: where its value is drawn from")
    search: Literal["random", "optuna"] = "random"
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    optuna: Optuna = Optuna()
    asha: Asha = Asha()
    pbt: Pbt = Pbt()
    stop: Stop = Stop()

    @property
    def sign(self) -> int:
        """What makes a higher metric the better one."""
        return 1 if self.mode == "max" else -1

    @field_validator("space")
    @classmethod
    def _searches_something(cls, space: dict[str, Range]) -> dict[str, Range]:
        if not space:
            raise ValueError("should search something, e.g. `optimizer.lr: {loguniform: [1.0e-4, 1.0e-2]}`")
        return space


def load_sweep(file: Path) -> SweepConfig:
    """A sweep's file, checked by itself. Raises ConfigError."""
    values = load_yaml(file)
    if {"tasks", "algorithms"} <= values.keys():
        raise ConfigError(f"{file}: is a suite, not a sweep; run it with `lmrl benchmark {file}`")
    return validate(SweepConfig, values, str(file), "")


def read_sweep(
    file: Path, seed: int, settings: Sequence[str] = (), out: Path = Path("runs")
) -> tuple[SweepConfig, RunConfig]:
    """A sweep's file and the configuration its trials share, both checked; `init` may be the name of a run
    below `out`. Raises ConfigError."""
    sweep = load_sweep(file)
    if is_symbolic(sweep.algo, sweep.task):
        raise ConfigError(
            f"{file}: {sweep.algo} {sweep.task}: is for `lmrl train` alone; it is short, and not swept"
        )
    changed = parse_settings(settings)
    _check_has_effect(sweep.config, f"{file}: config.")
    _check_has_effect(changed, "--set ")
    layers = [(f"{file}: config", sweep.config), ("--set", changed), ("--seed", {"seed": seed})]
    base = resolve_layers(sweep.algo, sweep.task, layers, out)
    _check_may_differ(sweep, base, str(file))
    _check_metric(sweep, base, str(file))
    _check_draws(sweep, base, str(file))
    _check_settings_are_used(sweep, str(file))
    _check_plateau(sweep, base, str(file))
    if sweep.scheduler == "pbt":
        _check_population(sweep, base, str(file))
    return sweep, base


def trial_config(base: Mapping[str, Any], parameters: Mapping[str, Any], where: str) -> RunConfig:
    """The configuration of one trial."""
    return parse(merge(base, nested(parameters)), where)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": c}` as `{"a": {"b": c}}`."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        inner: Any = value
        for part in reversed(key.split(".")):
            inner = {part: inner}
        result = merge(result, inner)
    return result


def _check_has_effect(values: Mapping[str, Any], where: str) -> None:
    """ConfigError for what a sweep is told elsewhere, and would not listen to here."""
    for key, instead in _ELSEWHERE.items():
        if key in values:
            raise ConfigError(f"{where}{key}: found {values[key]!r}, but it has no effect here; {instead}")


def _check_may_differ(sweep: SweepConfig, base: RunConfig, where: str) -> None:
    """ConfigError when the space has what is the same for all trials."""
    for key in sweep.space:
        if key in ("training.steps", "training.eval_every"):
            raise ConfigError(
                f"{where}: space.{key}: trials are compared after as many steps; give it in `config` (ASHA "
                f"ends trials early)"
            )
        section = key.split(".")[0]
        if section in _SHARED:
            instead = _ELSEWHERE.get(section, "give it in `config`")
            raise ConfigError(f"{where}: space.{key}: all trials share their {section}; {instead}")
        start = base.init or ("one clone" if get_algorithm(base.algo).starts_from_clone else None)
        if start and key in ("model", "model.name"):
            raise ConfigError(
                f"{where}: space.{key}: all trials start from {start}, and have its model; give it in "
                f"`config`, in a sweep for each model"
            )


def _check_metric(sweep: SweepConfig, base: RunConfig, where: str) -> None:
    """ConfigError for a score that no trial will ever have."""
    if not sweep.metric.startswith("eval/"):
        return  # a training metric, of which only the algorithm knows
    if not base.training.eval_every:
        raise ConfigError(f"{where}: config.training.eval_every: is 0, so {sweep.metric} is never measured")
    known = [f"eval/{name}" for name in _scored(base.task)]
    if sweep.metric not in known:
        raise ConfigError(
            f"{where}: metric: found {sweep.metric!r}, but a score on {base.task} has no such figure; use "
            f"one of {', '.join(known)}"
        )


def _scored(task: str) -> list[str]:
    """The figures that a score on the task has, as they are logged."""
    normalized = get_task(task).scale.normalize(0.0)
    return list(Score("", 0, 0.0, (0.0, 0.0), normalized, 0.0, 0.0, 0.0, 0.0, 0, "").metrics())


def _check_draws(sweep: SweepConfig, base: RunConfig, where: str) -> None:
    """ConfigError when some draw is no configuration."""
    for key, drawn in sweep.space.items():
        for value in drawn.examples():
            trial_config(base.dump(), {key: value}, where)
        for value in drawn.between():
            try:
                trial_config(base.dump(), {key: value}, where)
            except ConfigError as error:
                raise ConfigError(f"{error} (space.{key} draws such values; give it a `choice`)") from None


def _check_plateau(sweep: SweepConfig, base: RunConfig, where: str) -> None:
    """ConfigError for a plateau that is seen when a trial is over, or never."""
    plateau, training = sweep.stop.plateau, base.training
    every = training.eval_every if sweep.metric.startswith("eval/") else training.log_every
    before_the_end = (training.steps - 1) // every
    if plateau is not None and plateau.reports > before_the_end:
        raise ConfigError(
            f"{where}: stop.plateau.reports: found {plateau.reports}, but {sweep.metric} is reported "
            f"{before_the_end} times before a trial ends (every {every} of {training.steps} steps)"
        )


def _check_settings_are_used(sweep: SweepConfig, where: str) -> None:
    for section, used_by, chosen in (
        ("optuna", "search", sweep.search),
        ("asha", "scheduler", sweep.scheduler),
        ("pbt", "scheduler", sweep.scheduler),
    ):
        if section in sweep.model_fields_set and chosen != section:
            raise ConfigError(
                f"{where}: {section}: has settings, but {used_by} is {chosen}; "
                f"write `{used_by}: {section}` or take them out"
            )


def _check_population(sweep: SweepConfig, base: RunConfig, where: str) -> None:
    """What population-based training asks of a file. Raises ConfigError."""
    if sweep.search != "random":
        raise ConfigError(
            f"{where}: search: found {sweep.search!r}, but scheduler pbt changes values while trials run, so "
            f"no finished trial tells a searcher what its values were worth; use `search: random`"
        )
    if sweep.trials < 2:
        raise ConfigError(f"{where}: trials: found {sweep.trials}, but a population has at least 2")
    if sweep.max_concurrent is not None:
        raise ConfigError(
            f"{where}: max_concurrent: found {sweep.max_concurrent}, but scheduler pbt keeps its whole "
            f"population of {sweep.trials} trials going and lets them take turns on what the cluster has"
        )
    if base.resources.workers:
        raise ConfigError(
            f"{where}: config.resources.workers: found {base.resources.workers}, but under scheduler pbt "
            f"a trial learns in its own process, which is stopped and started again; use 0"
        )
    _check_rhythm(sweep, base, where)
    for key, drawn in sweep.space.items():
        _check_may_change(key, drawn, base, where)


def _check_rhythm(sweep: SweepConfig, base: RunConfig, where: str) -> None:
    """A trial is compared where it is scored, and scored where it has a checkpoint to copy."""
    training, every = base.training, sweep.pbt.interval_steps
    # What is evaluated is logged, too.
    both = math.gcd(training.log_every, training.eval_every)
    reports = training.eval_every if sweep.metric.startswith("eval/") else both
    if reports % training.save_every:
        raise ConfigError(
            f"{where}: config.training.save_every: is {training.save_every}, but {sweep.metric} is reported "
            f"every {reports} steps and scheduler pbt needs a checkpoint at each; use {reports}"
        )
    if every % reports:
        raise ConfigError(
            f"{where}: pbt.interval_steps: found {every}, but {sweep.metric} is reported every {reports} "
            f"steps; use a multiple of that"
        )
    if every >= training.steps:
        raise ConfigError(
            f"{where}: pbt.interval_steps: found {every}, but training ends after {training.steps} steps, so "
            f"no trial would ever copy another"
        )


def _check_may_change(key: str, drawn: Range, base: RunConfig, where: str) -> None:
    section, _, name = key.partition(".")
    reason = ""
    if section not in ("algorithm", "optimizer", "decoding", "online"):
        reason = "only algorithm, optimizer, decoding and online may change in the middle of a run"
    elif not drawn.is_numeric:
        reason = "only numbers can be perturbed"
    elif section == "algorithm":
        annotation = type(base.algorithm).model_fields[name].annotation
        if float not in (annotation, *get_args(annotation)) or name.startswith("initial"):
            reason = "it shapes what a trial starts from, which a copied checkpoint brings along"
    if reason:
        raise ConfigError(f"{where}: space.{key}: cannot be searched by scheduler pbt: {reason}")
