"""`lmrl compare`: finished runs side by side, each against the first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from lmrl_ray.config import ConfigError, load_yaml
from lmrl_ray.report.comparison import improvement_interval, probability_of_improvement
from lmrl_ray.report.printing import print_table
from lmrl_ray.resolve import find_run


def compare(names: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """A row for each run: its score, and how likely one of its episodes beats one of the first run's."""
    runs = [find_run(name, out) for name in names]
    found = [(run, _read(run)) for run in runs]
    first_task, first = found[0][1][0]["task"], found[0][1][1]
    rows = []
    for run, (about, returns) in found:
        if about["task"] != first_task:
            raise ConfigError(f"{run}: is a run on {about['task']}, {runs[0]} is one on {first_task}")
        low, high = improvement_interval(returns, first)
        rows.append(
            {
                "run": run.name,
                **about,
                "probability_of_improvement": probability_of_improvement(returns, first),
                "improvement_ci95": [low, high],
            }
        )
    return rows


def _read(run: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What a run is and came to, and the returns of its evaluation."""
    if not (run / "evaluation.json").is_file() or not (run / "returns.json").is_file():
        raise ConfigError(f"{run}: is not finished; go on with it: lmrl train --resume {run.name}")
    config, row = load_yaml(run / "config.yaml"), json.loads((run / "evaluation.json").read_text())
    about = {"task": config["task"], "algorithm": config["algo"], "seed": config["seed"]}
    keys = ("raw_return", "ci95", "normalized_score", "success_rate", "episodes", "simulator")
    return {**about, **{k: row[k] for k in keys}}, np.array(json.loads((run / "returns.json").read_text()))


def print_runs(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title=f"{rows[0]['task']}: against {rows[0]['run']}", title_justify="left")
    for column in ("run", "algorithm", "seed", "raw return", "normalised", "success", "P(better)", "95%"):
        table.add_column(column)
    for row in rows:
        score = row["normalized_score"]
        low, high = row["improvement_ci95"]
        table.add_row(
            row["run"],
            row["algorithm"],
            str(row["seed"]),
            f"{row['raw_return']:.2f}",
            "-" if score is None else f"{score:.1f}",
            f"{row['success_rate']:.2f}",
            f"{row['probability_of_improvement']:.2f}",
            f"{low:.2f} to {high:.2f}",
        )
    print_table(table)
