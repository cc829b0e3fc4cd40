"""`lmrl simulator`: language models that answer in the dialogue tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lmrl_ray.cli.options import RUNS, Json, Out, Seed, Settings

app = typer.Typer(help="Language models as simulators of the dialogue tasks.", no_args_is_help=True)


@app.callback()
def simulators() -> None:
    """Language models as simulators of the dialogue tasks."""


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="twenty-questions, guess-my-city or car-dealer")],
    data: Annotated[Path, typer.Option(help="Parquet file of dialogues; its answers are learnt.")],
    model: Annotated[
        str | None, typer.Option(help="tiny (default), small, or a causal Hugging Face model to fine-tune.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.", min=1)] = None,
    settings: Settings = None,
    seed: Seed = 0,
    out: Out = RUNS,
    as_json: Json = False,
) -> None:
    """Train a model to answer as it is answered in DATA; use it with --set env.simulator=lm:RUN."""
    from lmrl_ray.report.progress import Display
    from lmrl_ray.simulators.training import train_simulator
    from lmrl_ray.train import Hooks

    hooks = Hooks(Display(quiet=as_json and not sys.stderr.isatty()))
    trained = train_simulator(
        task, data, out, hooks, model=model, steps=steps, seed=seed, settings=settings or []
    )
    score, folder = trained.run.evaluation.score, trained.run.folder
    if as_json:
        summary = {"run": str(folder), "dialogues": trained.dialogues, "skipped": trained.skipped}
        typer.echo(json.dumps({**summary, "agreement": score.raw_return, "ci95": score.ci95}, indent=1))
        return
    low, high = score.ci95
    typer.echo(f"learnt the answers of {trained.dialogues} dialogues ({trained.skipped} left out)")
    typer.echo(
        f"agrees with the built-in simulator in {score.raw_return:.1%} of {score.episodes} exchanges "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )
    typer.echo(f"use it: lmrl eval POLICY {task} --set env.simulator=lm:{folder}")
