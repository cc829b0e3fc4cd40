"""`lmrl data`: build, describe and import data sets."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from envs.registry import get_task
from lmrl_ray import data
from lmrl_ray.cli.options import RUNS
from lmrl_ray.config import ConfigError
from lmrl_ray.plugins import absolute, load_plugins
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import env_settings


def build(
    task: str,
    episodes: int | None,
    seed: int,
    out: Path | None,
    workers: int,
    settings: list[str],
    plugins: list[str],
) -> dict[str, Any]:
    """Build a data set and describe it."""
    load_plugins(plugins)
    spec = get_task(task)
    count = spec.data_episodes if episodes is None else episodes
    if count < 1:
        raise ConfigError(f"--episodes {count}: expected at least 1")
    env = env_settings(task, settings)
    path = out or data.own_path(_runs(), task, count, seed, env)
    with Display().bar(f"building data of {task}", count) as bar:
        dataset = data.build(
            task,
            count,
            seed,
            path,
            env_kwargs=env,
            progress=bar.reach,
            workers=workers,
            plugins=absolute(plugins),
        )
    return {"path": str(path), "fingerprint": dataset.fingerprint, **_figures(dataset)}


def statistics(path: Path, plugins: list[str]) -> dict[str, Any]:
    """The statistics of a data file, and its task."""
    load_plugins(plugins)
    dataset = data.EpisodeDataset(path)
    return {"task": dataset.task, **_figures(dataset)}


def print_stats(path: Path, found: dict[str, Any]) -> None:
    """Ours beside the paper's table 1, which a task of one's own is not in."""
    from rich.table import Table

    from lmrl_ray.report.printing import print_table

    spec = get_task(found["task"])
    paper = {"episodes": spec.data_episodes, **spec.table1} if spec.table1 else {}
    table = Table(title=f"{path}  ({found['task']})", title_justify="left")
    for column in ("", "this file", "paper, table 1"):
        table.add_column(column, justify="right")
    for key, value in found.items():
        if key != "task":
            ours = "-" if value is None else f"{value:.4g}"
            table.add_row(key, ours, f"{paper[key]:.4g}" if key in paper else "")
    print_table(table)


def import_file(task: str, file: Path, out: Path | None, plugins: list[str]) -> dict[str, Any]:
    """Import a published file and describe it."""
    load_plugins(plugins)
    path = out or _runs() / "data" / f"{task}-{file.stem}.parquet"
    dataset = data.import_published(task, file, path)
    return {"path": str(path), "fingerprint": dataset.fingerprint, **_figures(dataset)}


def _figures(dataset: data.EpisodeDataset) -> dict[str, float | None]:
    """The statistics; None where there are no episodes to tell (JSON has no NaN)."""
    found: dict[str, Any] = dict(data.stats(dataset))
    return {key: value if math.isfinite(value) else None for key, value in found.items()}


def _runs() -> Path:
    """The folder that --out names in other commands; here --out is a file."""
    return Path(os.environ.get("LMRL_OUT") or RUNS)
