"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _told_in_words(task: str) -> str:
    """Refuse the task that `lmrl train` alone knows, with what to write instead."""
    from lmrl_ray.config import ConfigError
    from lmrl_ray.symbolic.config import ALGORITHMS, TASK, TEXT_TASK

    if task == TASK:
        raise ConfigError(
            f"{TASK}: is for `lmrl train {'|'.join(ALGORITHMS)} {TASK}` alone, which also scores it; "
            f"{TEXT_TASK} is the same maze in words"
        )
    return task


Task = Annotated[str, typer.Argument(callback=_told_in_words, help="See `lmrl tasks`.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.", min=0)]
Out = Annotated[
    Path, typer.Option(envvar="LMRL_OUT", help="Folder of runs, data sets and the tracking database.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="key=value, e.g. --set algorithm.tau=0.9 (repeatable).")
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="Python file that registers a task or an algorithm (repeatable)."),
]
RUNS = Path("runs")
