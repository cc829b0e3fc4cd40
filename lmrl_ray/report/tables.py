"""Result tables: a policy beside the task's baselines and the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from envs.registry import TaskSpec
from lmrl_ray.evaluate import Score
from lmrl_ray.report.printing import print_table

PAPER_NOTE = "paper rows: other data, other models (GPT-2); for orientation, not a comparison"


def print_scores(spec: TaskSpec, scores: Sequence[Score], paper: Sequence[str] = ()) -> None:
    """Print scores as a table on stdout; `paper` names published rows to show beneath, marked as such."""
    table = Table(title=f"{spec.id}   simulator: {scores[0].simulator}", title_justify="left")
    for column in ("policy", "raw return", "95% interval", "normalised", "success", "episodes"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for s in scores:
        table.add_row(
            s.policy,
            f"{s.raw_return:.2f}",
            f"[{s.ci95[0]:.2f}, {s.ci95[1]:.2f}]".replace("[", "\\["),
            _number(s.normalized_score),
            f"{s.success_rate:.2f}",
            str(s.episodes),
        )
    published = [name for name in paper if name in spec.paper]
    if published:
        table.add_section()
    for name in published:
        row = spec.paper[name]
        table.add_row(f"paper: {name}", _number(row.raw, 2), "", _number(row.reported), "", "", style="dim")
    print_table(table)
    console = Console()
    if published:
        console.print(PAPER_NOTE, style="dim")
    for s in scores:
        if max(s.invalid_rate, s.cut_rate) > 0.05:
            console.print(
                f"{s.policy}: {s.invalid_rate:.0%} of its actions were not understood, {s.cut_rate:.0%} were "
                f"cut at {spec.max_action_tokens} tokens",
                style="bold",
            )
    failed = sum(s.failed for s in scores)
    if failed:
        console.print(said_failed(failed), style="bold")


def said_failed(episodes: int) -> str:
    return f"{episodes} episodes failed in their simulator and are in no figure"


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
