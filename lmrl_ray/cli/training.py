"""The options of `lmrl train` as configuration values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from algos.base import UnknownAlgorithmError
from lmrl_ray.cli.listing import UNTRAINED
from lmrl_ray.config import ConfigError, RunConfig
from lmrl_ray.plugins import absolute
from lmrl_ray.resolve import resolve_config
from lmrl_ray.train import check_plain


def train_options(
    data: Path | None,
    init: str | None,
    model: str | None,
    workers: str | None,
    rollout_actors: int | None,
    seed: int | None,
    plugins: list[str] | None,
) -> dict[str, Any]:
    """Only what was given: the rest keeps its value from files and defaults."""
    counts = None if workers is None else parse_workers(workers)
    resources = {"workers": counts, "rollout_actors": rollout_actors}
    given: dict[str, Any] = {
        "data": None if data is None else str(data),
        "init": init,
        "model": None if model is None else {"name": model},
        "resources": {k: v for k, v in resources.items() if v is not None} or None,
        "seed": seed,
        "plugins": absolute(plugins or []) or None,
    }
    return {k: v for k, v in given.items() if v is not None}


def train_config(
    algo: str, task: str, file: Path | None, settings: list[str], options: dict[str, Any], out: Path
) -> RunConfig:
    """`resolve_config`, which says of what is listed but not trained how it is run."""
    try:
        return resolve_config(algo, task, file=file, settings=settings, options=options, out=out)
    except UnknownAlgorithmError:
        # Whatever the MODEL; docs/prompted_llm.md has it as llm.
        how = UNTRAINED.get("api:MODEL" if algo.startswith("api:") or algo == "llm" else algo)
        if how is None:
            raise
        raise ConfigError(f"{algo}: is not trained. {how['name']}") from None


def check_name(name: str, out: Path, resumable: bool) -> None:
    """ConfigError for a --name that is no plain one, or taken: --init NAME would find the older run."""
    check_plain(name)
    if not (out / name).exists():
        return
    if not (out / name / "config.yaml").is_file():
        raise ConfigError(f"--name {name}: {out / name} is there, and no run: choose another --name")
    instead = f", or go on with --resume {name}" if resumable else ""
    raise ConfigError(f"run {name!r} exists in {out}/: choose another --name{instead}")


def parse_workers(text: str) -> int | list[int]:
    """`2`, or `1-4` for elastic workers."""
    try:
        counts = [int(part) for part in text.split("-")]
    except ValueError:
        counts = []
    if len(counts) not in (1, 2):
        raise typer.BadParameter(f"--workers {text}: expected a number, or LEAST-MOST as in 1-4")
    return counts[0] if len(counts) == 1 else counts


def refuse_with_resume(**given: object) -> None:
    """A resumed run goes on as it began; only where it runs may change (workers, actors)."""
    named = [name for name, value in given.items() if value]
    if named or given.get("seed") is not None:
        raise typer.BadParameter(
            f"{', '.join(named) or 'seed'}: a resumed run keeps its own; only --workers, --rollout-actors "
            f"and --plugin may be given with --resume"
        )
