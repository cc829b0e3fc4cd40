"""What a sweep found: its trials best first, and the winner's configuration as a file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lmrl_ray.config import ConfigError, merge
from lmrl_ray.report.coordinates import Axis
from lmrl_ray.sweep.config import Range, SweepConfig, nested
from lmrl_ray.sweep.exploit import Exploit, exploits_of
from lmrl_ray.sweep.trial import Plan
from lmrl_ray.train import write_whole


@dataclass(frozen=True)
class Trial:
    name: str
    parameters: dict[str, Any]
    """The values that it ended with."""
    steps: int
    score: float | None
    status: str
    """done, stopped (by the scheduler or a stop rule) or error."""

    @property
    def counts(self) -> bool:
        """Whether it may be the best: the last score of one that failed is from before it did, and one that
        diverged may have no number."""
        return self.score is not None and not math.isnan(self.score) and self.status != "error"


@dataclass(frozen=True)
class SweepResult:
    """Trials, best first."""

    name: str
    metric: str
    trials: list[Trial]
    exploits: list[Exploit]
    best_config: Path
    mlflow_run: str
    errors: list[str]
    """Why trials failed."""

    @property
    def picture(self) -> Path:
        return self.best_config.with_name("coordinates.png")

    def summary(self) -> dict[str, Any]:
        return {
            "sweep": self.name,
            "metric": self.metric,
            "best_config": str(self.best_config),
            "picture": str(self.picture),
            "mlflow_run": self.mlflow_run,
            "trials": [asdict(t) for t in self.trials],
            "errors": self.errors,
            "exploits": [asdict(e) for e in self.exploits],
        }


def trials_of(results: Any, plan: Plan) -> list[Trial]:
    """What Tune tells of each trial."""
    return [_trial(result, plan) for result in results]


def collect(trials: list[Trial], errors: list[Any], plan: Plan, folder: Path, out: Path) -> SweepResult:
    """Sort the trials and write `best.yaml`. ConfigError when none was scored, with the first of Tune's
    errors."""
    sweep = SweepConfig.model_validate(plan.sweep)
    scored = sorted((t for t in trials if t.counts), key=lambda t: -sweep.sign * (t.score or 0.0))
    reasons = [str(error).strip().splitlines()[-1] for error in errors]
    if not scored:
        reason = reasons[0] if reasons else f"none reported {sweep.metric}"
        raise ConfigError(f"sweep {plan.name}: no trial was scored: {reason}")
    # What a later run starts from and learns from is its own affair.
    best = {k: v for k, v in plan.base.items() if k not in ("init", "data", "seed")}
    path = folder / "best.yaml"
    write_whole(path, yaml.safe_dump(merge(best, nested(scored[0].parameters)), sort_keys=False))
    unscored = [t for t in trials if not t.counts]
    exploits = [e for t in trials for e in exploits_of(out / t.name)]
    return SweepResult(
        plan.name, sweep.metric, [*scored, *unscored], exploits, path, plan.parent_run, reasons
    )


def axes_of(result: SweepResult, sweep: SweepConfig) -> list[Axis]:
    """An axis for each searched value and one for the metric, over the trials that were scored."""
    scored = [t for t in result.trials if t.counts]
    axes = [_axis(k, [t.parameters[k] for t in scored], drawn) for k, drawn in sweep.space.items()]
    return [*axes, Axis(result.metric, [t.score for t in scored], "linear")]


def _axis(key: str, values: list[Any], drawn: Range) -> Axis:
    if drawn.choice is not None:
        return Axis(key, values, "choice", tuple(drawn.choice))
    return Axis(key, values, "log" if drawn.loguniform else "linear", drawn.loguniform or drawn.uniform)


def _trial(result: Any, plan: Plan) -> Trial:
    metrics = result.metrics or {}
    step = int(metrics.get("step", 0))
    status = "error" if result.error else "done"
    if not result.error and step < plan.base["training"]["steps"]:
        status = "stopped"
    # Tune's folder of a trial is named by its id, which its metrics tell only after the first report.
    name = plan.run_name(Path(result.path).name)
    return Trial(name, dict(result.config or {}), step, metrics.get(plan.metric), status)
