"""`lmrl train` of the symbolic maze's algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.registry import get_task
from lmrl_ray.mlflow_store import look_at_it
from lmrl_ray.report.tables import print_scores
from lmrl_ray.symbolic.config import TEXT_TASK, resolve
from lmrl_ray.symbolic.run import SymbolicRun, train
from lmrl_ray.train import Hooks


def train_symbolic(
    algo: str,
    task: str,
    file: Path | None,
    settings: list[str],
    options: Mapping[str, Any],
    out: Path,
    hooks: Hooks,
    name: str | None,
) -> SymbolicRun:
    config = resolve(algo, task, file=file, settings=settings, options=options)
    return train(config, out, hooks, name)


def row(run: SymbolicRun) -> dict[str, Any]:
    return {"run": str(run.folder), "mlflow_run": run.mlflow_run, **run.evaluation.score.row()}


def print_run(run: SymbolicRun, out: Path) -> None:
    """The score beside the players of the same maze in words."""
    print_scores(get_task(TEXT_TASK), [*run.baselines, run.evaluation.score])
    print(f"run: {run.folder}   look at it: {look_at_it(out)}")
