"""Comparisons: what several seeds come to, and how likely one run is better than another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from envs.registry import get_task
from lmrl_ray.report.printing import print_table
from lmrl_ray.report.tables import PAPER_NOTE, said_failed

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Cell:
    """One training run of a comparison, or one scripted policy (`run` is empty)."""

    task: str
    policy: str
    seed: int
    run: str
    raw_return: float
    normalized_score: float | None
    success_rate: float
    simulator: str
    failed: int = 0
    """Episodes that a simulator's fault ended, which are in no figure."""


@dataclass(frozen=True)
class Row:
    """A policy on a task over seeds; the intervals are 95 % bootstraps of the mean over seeds."""

    task: str
    policy: str
    seeds: list[int]
    raw_returns: list[float]
    raw_return: float
    ci95: tuple[float, float]
    normalized_score: float | None
    normalized_ci95: tuple[float, float] | None
    success_rate: float
    simulator: str
    paper_raw: float | None
    paper_normalized: float | None
    scripted: bool
    failed: int


def summarize(cells: Iterable[Cell], baselines: Iterable[Cell]) -> list[Row]:
    """One row for each task and policy, in the order in which they come; scripted policies first."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in [*baselines, *cells]:
        groups.setdefault((cell.task, cell.policy), []).append(cell)
    return [_row(sorted(group, key=lambda c: c.seed)) for group in groups.values()]


def _row(cells: Sequence[Cell]) -> Row:
    task, policy = cells[0].task, cells[0].policy
    returns = np.array([c.raw_return for c in cells])
    low, high = bootstrap(returns)
    scale, paper = get_task(task).scale, get_task(task).paper.get(policy)
    ends = scale.normalize(low), scale.normalize(high)
    return Row(
        task=task,
        policy=policy,
        seeds=[c.seed for c in cells],
        raw_returns=returns.tolist(),
        raw_return=float(returns.mean()),
        ci95=(low, high),
        normalized_score=scale.normalize(float(returns.mean())),
        normalized_ci95=None if ends[0] is None or ends[1] is None else (ends[0], ends[1]),
        success_rate=float(np.mean([c.success_rate for c in cells])),
        simulator=cells[0].simulator,
        paper_raw=paper.raw if paper else None,
        paper_normalized=paper.reported if paper else None,
        scripted=not cells[0].run,
        failed=sum(c.failed for c in cells),
    )


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean (Efron 1979). One value gives itself."""
    drawn = np.random.default_rng(seed).choice(values, (_RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """P(X > Y) + P(X = Y) / 2 for an episode of each (Agarwal et al. 2021, section 4.3)."""
    order = np.sort(theirs)
    below, upto = np.searchsorted(order, ours, "left"), np.searchsorted(order, ours, "right")
    return float((below + upto).mean() / (2 * len(theirs)))


def improvement_interval(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Its 95 % bootstrap interval over episodes."""
    rng = np.random.default_rng(seed)
    drawn = [
        probability_of_improvement(rng.choice(ours, len(ours)), rng.choice(theirs, len(theirs)))
        for _ in range(1000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def print_comparison(rows: Sequence[Row]) -> None:
    """Tasks down, policies across: normalised score over raw return; the paper's figure dim beneath."""
    policies = list(dict.fromkeys(r.policy for r in rows))
    table = Table(title="normalised score, raw return [95% bootstrap over seeds], paper", show_lines=True)
    table.add_column("task")
    for policy in policies:
        table.add_column(policy, justify="right")
    for task in dict.fromkeys(r.task for r in rows):
        here = {r.policy: r for r in rows if r.task == task}
        best = max((r.raw_return for r in here.values() if not r.scripted), default=None)
        simulator = next(iter(here.values())).simulator
        cells = [_cell_text(here[p], _is_best(here[p], best)) if p in here else "" for p in policies]
        table.add_row(f"{task}\n[dim]simulator: {simulator}[/]", *cells)
    print_table(table)
    for row in rows:
        if row.failed:
            Console().print(f"{row.task}, {row.policy}: {said_failed(row.failed)}", style="bold")
    Console().print(PAPER_NOTE, style="dim")


def _is_best(row: Row, best: float | None) -> bool:
    """Whether a learnt policy has the best return, as it is printed."""
    return best is not None and not row.scripted and f"{row.raw_return:.2f}" == f"{best:.2f}"


def _cell_text(row: Row, best: bool) -> str:
    score = "-" if row.normalized_score is None else f"{row.normalized_score:.1f}"
    lines = [f"[bold]{score}[/]" if best else score]
    lines.append(f"{row.raw_return:.2f} \\[{row.ci95[0]:.2f}, {row.ci95[1]:.2f}]")
    if row.paper_normalized is not None:
        raw = "" if row.paper_raw is None else f" ({row.paper_raw:g})"
        lines.append(f"[dim]paper {row.paper_normalized:g}{raw}[/]")
    return "\n".join(lines)
