"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
