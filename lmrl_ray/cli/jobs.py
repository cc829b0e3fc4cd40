"""`lmrl submit`, `lmrl status`, `lmrl stop`: commands as jobs of a Ray cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lmrl_ray.cli.options import Json

Address = Annotated[
    str | None,
    typer.Option(help="Of the cluster's dashboard; RAY_ADDRESS's, or http://127.0.0.1:8265, by default."),
]
Job = Annotated[str, typer.Argument(help="What `lmrl submit` called it.")]


def submit(
    command: Annotated[list[str], typer.Argument(help="-- and a command of lmrl, e.g. -- train ilql wordle")],
    address: Address = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(help="Folder sent to the nodes; the checkout of this lmrl by default."),
    ] = None,
    wheel: Annotated[Path | None, typer.Option(help="A wheel of lmrl-ray sent instead.")] = None,
    variables: Annotated[
        list[str] | None, typer.Option("--env", help="NAME=VALUE for the job; not for secrets (repeatable).")
    ] = None,
    detach: Annotated[bool, typer.Option(help="Print the job's name and return.")] = False,
) -> None:
    """Run a command of lmrl on a cluster: print its log, end with its exit code."""
    from lmrl_ray.jobs import connect, follow, runtime_environment, send

    environment = runtime_environment(working_dir, wheel, variables or [])
    client = connect(address)
    job = send(client, command, environment)
    if detach:
        typer.echo(job)
        return
    typer.echo(f"job: {job}", err=True)
    code = follow(client, job, sys.stdout)
    if code:
        raise typer.Exit(code)


def status(
    job: Annotated[str | None, typer.Argument(help="One job; all by default.")] = None,
    address: Address = None,
    log: Annotated[bool, typer.Option("--log", help="Print the job's log so far.")] = False,
    as_json: Json = False,
) -> None:
    """Say how the cluster's jobs stand."""
    from lmrl_ray.jobs import connect, find, job_rows

    if log and job is None:
        raise typer.BadParameter("--log needs the name of a job")
    client = connect(address)
    if job is not None and log:
        find(client, job)
        typer.echo(client.get_job_logs(job), nl=False)
        return
    rows = job_rows(client, job)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        typer.echo(f"{row['job']}  {row['status']:<9}  {row['started'] or '-':<19}  {row['command']}")
        if job is not None and row["message"]:
            typer.echo(row["message"])


def stop(job: Job, address: Address = None) -> None:
    """Stop a job of the cluster."""
    from lmrl_ray.jobs import connect, find

    client = connect(address)
    find(client, job)
    stopped = client.stop_job(job)
    typer.echo(f"{job}: {'is being stopped' if stopped else 'had ended already'}", err=True)
