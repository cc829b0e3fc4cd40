"""Learning curves: the score on the way, mean over seeds with its interval, one picture a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmrl_ray.journal import read
from lmrl_ray.report.comparison import Cell, bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[np.ndarray, np.ndarray]
"""Steps [K] and returns [seeds, K]."""


def draw_curves(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """`folder/TASK.png` for each task of which a cell was evaluated on the way."""
    drawn = []
    for task in dict.fromkeys(c.task for c in cells):
        policies = dict.fromkeys(c.policy for c in cells if c.task == task)
        curves = {p: _curve([c for c in cells if (c.task, c.policy) == (task, p)]) for p in policies}
        found = {p: c for p, c in curves.items() if c is not None}
        if found:
            folder.mkdir(parents=True, exist_ok=True)
            drawn.append(folder / f"{task}.png")
            figure_of(task, found).savefig(drawn[-1])
    return drawn


def _curve(cells: Sequence[Cell]) -> Curve | None:
    """The steps at which all seeds were evaluated."""
    runs = []
    for cell in cells:
        entries = read(Path(cell.run) / "metrics.jsonl") if cell.run else []
        runs.append({e.step: e.metrics["eval/return"] for e in entries if "eval/return" in e.metrics})
    steps = sorted(set.intersection(*[set(r) for r in runs])) if runs else []
    if not steps:
        return None
    return np.array(steps), np.array([[r[s] for s in steps] for r in runs])


def figure_of(task: str, curves: dict[str, Curve]) -> Figure:
    """A line for each policy, through the means, and a band: their 95 % bootstrap interval over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for policy, (steps, returns) in curves.items():
        (line,) = axes.plot(steps, returns.mean(0), marker=".", label=f"{policy} ({len(returns)} seeds)")
        ends = np.array([bootstrap(column) for column in returns.T])
        axes.fill_between(steps, ends[:, 0], ends[:, 1], alpha=0.2, color=line.get_color())
    axes.set(title=task, xlabel="optimiser steps", ylabel="raw return")
    axes.legend()
    return figure
