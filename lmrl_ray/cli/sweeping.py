"""What `lmrl sweep` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from lmrl_ray.mlflow_store import look_at_it
from lmrl_ray.report.printing import print_table
from lmrl_ray.sweep import SweepResult


def print_sweep(result: SweepResult, out: Path) -> None:
    """The trials, best first, and where the best configuration was written."""
    table = Table(
        title=f"{result.name}: {len(result.trials)} trials by {result.metric}", title_justify="left"
    )
    keys = sorted({k for t in result.trials for k in t.parameters})
    for column in ("trial", *keys, "steps", result.metric, "status"):
        table.add_column(column, justify="right")
    for trial in result.trials:
        values = [_shown(trial.parameters.get(k, "")) for k in keys]
        score = "-" if trial.score is None else f"{trial.score:.2f}"
        table.add_row(trial.name, *values, str(trial.steps), score, trial.status)
    print_table(table)
    for reason in result.errors:
        print(f"a trial failed: {reason}")
    for exploit in result.exploits:
        print(f"{exploit.trial} went on from {exploit.donor} at step {exploit.step}")
    print(f"best configuration: {result.best_config}   (lmrl train --config {result.best_config} ...)")
    print(f"picture of all trials: {result.picture}")
    print(f"look at the runs: {look_at_it(out)}")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
