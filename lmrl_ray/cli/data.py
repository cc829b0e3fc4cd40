"""`lmrl data`: build, describe and import data sets."""

from __future__ import annotations

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
    path = out or RUNS / "data" / f"{task}-{count}-s{seed}.parquet"
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
    return {"path": str(path), "fingerprint": dataset.fingerprint, **data.stats(dataset)}


def statistics(path: Path, plugins: list[str]) -> dict[str, Any]:
    """The statistics of a data file, and its task."""
    load_plugins(plugins)
    dataset = data.EpisodeDataset(path)
    return {"task": dataset.task, **data.stats(dataset)}


def print_stats(path: Path, found: dict[str, Any]) -> None:
    """Ours beside the paper's table 1."""
    from rich.table import Table

    from lmrl_ray.report.printing import print_table

    spec = get_task(found["task"])
    paper: dict[str, float] = {"episodes": spec.data_episodes, **spec.table1}
    table = Table(title=f"{path}  ({found['task']})", title_justify="left")
    for column in ("", "this file", "paper, table 1"):
        table.add_column(column, justify="right")
    for key, value in found.items():
        if key != "task":
            table.add_row(key, f"{value:.4g}", f"{paper[key]:.4g}" if key in paper else "")
    print_table(table)


def import_file(task: str, file: Path, out: Path | None) -> dict[str, Any]:
    """Import a published file and describe it."""
    path = out or RUNS / "data" / f"{task}-{file.stem}.parquet"
    dataset = data.import_published(task, file, path)
    return {"path": str(path), "fingerprint": dataset.fingerprint, **data.stats(dataset)}
