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
from lmrl_ray.symbolic.config import is_symbolic


def compare(names: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """A row for each run: its score, and how likely one of its episodes beats one of the first run's."""
    runs = [find_run(name, out) for name in names]
    found = [(run, _read(run)) for run in runs]
    first_about, first = found[0][1]
    rows = []
    for run, (about, returns) in found:
        _check_same_game(run, about, runs[0], first_about)
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


def _check_same_game(run: Path, about: dict[str, Any], first: Path, expected: dict[str, Any]) -> None:
    """ConfigError when the returns of two runs are of two games."""
    if about["task"] != expected["task"]:
        raise ConfigError(f"{run}: is a run on {about['task']}, {first} is one on {expected['task']}")
    env, other = about["env"], expected["env"]
    for key in {**env, **other}:
        if env.get(key) != other.get(key):
            raise ConfigError(
                f"{run}: env.{key}: is {_said(env, key)}, but {_said(other, key)} in {first}; compare "
                f"runs in the same environment"
            )
    if about["simulator"] != expected["simulator"]:
        raise ConfigError(
            f"{run}: simulator: is {about['simulator']!r}, but {expected['simulator']!r} in {first}; compare "
            f"runs with the same simulator"
        )


def _said(env: dict[str, Any], key: str) -> str:
    return repr(env[key]) if key in env else "not given"


def _read(run: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What a run is and came to, and the returns of its evaluation."""
    config = load_yaml(run / "config.yaml")
    if not (run / "evaluation.json").is_file() or not (run / "returns.json").is_file():
        again = f"go on with it: lmrl train --resume {run.name}"
        if is_symbolic(config["algo"], config["task"]):
            again = "it cannot be gone on with, it is short: train it again"
        raise ConfigError(f"{run}: has no evaluation that can be compared; {again}")
    row = json.loads((run / "evaluation.json").read_text())
    about = {"task": config["task"], "algorithm": config["algo"], "seed": config["seed"]}
    about["env"] = config.get("env") or {}
    keys = ("raw_return", "ci95", "normalized_score", "success_rate", "episodes", "simulator")
    return {**about, **{k: row[k] for k in keys}}, np.array(json.loads((run / "returns.json").read_text()))


def print_runs(rows: Sequence[dict[str, Any]]) -> None:
    first = rows[0]
    title = f"{first['task']}: against {first['run']}   simulator: {first['simulator']}"
    table = Table(title=title, title_justify="left")
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
