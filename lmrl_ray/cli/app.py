"""All commands of `lmrl`, as they read on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lmrl_ray.cli import jobs
from lmrl_ray.cli.options import RUNS, Json, Out, Plugins, Seed, Settings, Task
from lmrl_ray.cli.simulators import app as simulator_app

if TYPE_CHECKING:
    from lmrl_ray.train import Hooks, TrainedRun

app = typer.Typer(
    help="Reinforcement learning of language models on multi-turn tasks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Data sets of episodes.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(simulator_app, name="simulator")
app.command()(jobs.submit)
app.command()(jobs.status)
app.command()(jobs.stop)


@app.command()
def tasks(as_json: Json = False, plugin: Plugins = None) -> None:
    """List the tasks."""
    from lmrl_ray.cli.listing import task_rows
    from lmrl_ray.plugins import load_plugins

    load_plugins(plugin or ())
    _print_rows(task_rows(), as_json)


@app.command()
def algorithms(as_json: Json = False, plugin: Plugins = None) -> None:
    """List the algorithms."""
    from lmrl_ray.cli.listing import algorithm_rows
    from lmrl_ray.plugins import load_plugins

    load_plugins(plugin or ())
    _print_rows(algorithm_rows(), as_json)


@app.command("config")
def print_config(
    algo: str,
    task: str,
    model: Annotated[str | None, typer.Option(help="tiny, small, a Hugging Face name or a folder.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file.")] = None,
    settings: Settings = None,
    plugin: Plugins = None,
) -> None:
    """Print the configuration that ALGO would train TASK with, with what its keys mean: a --config file."""
    from lmrl_ray.cli.configuring import described
    from lmrl_ray.cli.training import train_config, train_options
    from lmrl_ray.symbolic.config import is_symbolic, resolve

    options = train_options(None, None, model, None, None, None, plugin)
    resolved = (
        resolve(algo, task, file=config, settings=settings or [], options=options)
        if is_symbolic(algo, task)
        else train_config(algo, task, config, settings or [], options, RUNS)
    )
    typer.echo("\n".join(described(resolved)))


@data_app.command("build")
def data_build(
    task: Task,
    episodes: Annotated[int | None, typer.Option(help="How many; the published number by default.")] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="The file; in $LMRL_OUT/data by default.")] = None,
    workers: Annotated[int, typer.Option(help="Ray actors that play; 1 = this process.", min=1)] = 1,
    settings: Settings = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Play the task's behaviour policies and write the episodes to a Parquet file."""
    from lmrl_ray.cli.data import build

    _print_object(build(task, episodes, seed, out, workers, settings or [], plugin or []), as_json)


@data_app.command("stats")
def data_stats(
    path: Path,
    out: Annotated[Path | None, typer.Option(help="Also write the statistics to this JSON file.")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Statistics of a data file, beside the paper's."""
    from lmrl_ray.cli.data import print_stats, statistics

    found = statistics(path, plugin or [])
    if out is not None:
        out.write_text(json.dumps(found, indent=1))
    if as_json:
        _print_object(found, as_json)
    else:
        print_stats(path, found)


@data_app.command("import")
def data_import(
    task: str,
    file: Path,
    out: Annotated[Path | None, typer.Option(help="The file; in $LMRL_OUT/data by default.")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Read a file in the published format of the task and write it as ours."""
    from lmrl_ray.cli.data import import_file

    _print_object(import_file(task, file, out, plugin or []), as_json)


@app.command()
def train(
    algo: Annotated[str | None, typer.Argument(help="Algorithm, see `lmrl algorithms`.")] = None,
    task: Annotated[str | None, typer.Argument(help="Task, see `lmrl tasks`.")] = None,
    data: Annotated[Path | None, typer.Option(help="Parquet file; the task's own by default.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Run, folder or models:/NAME/VERSION whose policy it starts from.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="tiny, small, a Hugging Face name or a folder.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file.")] = None,
    settings: Settings = None,
    workers: Annotated[
        str | None,
        typer.Option(help="Learner workers; 0 = this process; 1-4: as many as fit."),
    ] = None,
    rollout_actors: Annotated[
        int | None, typer.Option(help="Actors that play episodes; 0 = this process.", min=0)
    ] = None,
    resume: Annotated[str | None, typer.Option(help="Run to go on with.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Everything random follows from it.", min=0)] = None,
    out: Out = RUNS,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Train ALGO on TASK, or go on with a run: lmrl train --resume RUN."""
    from lmrl_ray.cli.training import check_name, refuse_with_resume, train_config, train_options
    from lmrl_ray.symbolic.config import is_symbolic
    from lmrl_ray.train import resume as resume_run
    from lmrl_ray.train import train as train_run

    hooks = _hooks(as_json)
    options = train_options(data, init, model, workers, rollout_actors, seed, plugin)
    if resume is not None:
        refuse_with_resume(
            algo=algo, task=task, config=config, set=settings, seed=seed, data=data, init=init, model=model,
            name=name,
        )  # fmt: skip
        finished = resume_run(resume, out, hooks, options)
    else:
        if algo is None or task is None:
            raise typer.BadParameter("name an algorithm and a task, e.g. `lmrl train ilql maze-fo`")
        if name is not None:
            check_name(name, out, resumable=not is_symbolic(algo, task))
        if is_symbolic(algo, task):
            from lmrl_ray.cli.symbolic import print_run, row, train_symbolic

            run = train_symbolic(algo, task, config, settings or [], options, out, hooks, name)
            if as_json:
                _print_object(row(run), as_json)
            else:
                print_run(run, out)
            return
        resolved = train_config(algo, task, config, settings or [], options, out)
        finished = train_run(resolved, out, hooks, name)
    _print_run(finished, out, as_json)


@app.command("eval")
def evaluate(
    policy: Annotated[
        str, typer.Argument(help="Run, checkpoint, transformers folder, models:/NAME/VERSION, or api:MODEL.")
    ],
    task: Task,
    episodes: Annotated[int | None, typer.Option(help="How many; the protocol's by default.")] = None,
    protocol: Annotated[Literal["quick", "paper"], typer.Option(help="How many episodes.")] = "quick",
    decoding: Annotated[
        Literal["sample", "greedy", "rerank", "propose"] | None,
        typer.Option(help="The run's own by default."),
    ] = None,
    rollout_actors: Annotated[int, typer.Option(help="Actors; 0 = this process.", min=0)] = 0,
    base_url: Annotated[str | None, typer.Option(help="api:MODEL: the OpenAI-compatible endpoint.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="api:MODEL: episodes at a time.", min=1)] = None,
    input_price: Annotated[float | None, typer.Option(help="api:MODEL: of 1M prompt tokens.", min=0)] = None,
    output_price: Annotated[
        float | None, typer.Option(help="api:MODEL: of 1M completion tokens.", min=0)
    ] = None,
    register: Annotated[
        str | None, typer.Option(help="Name in MLflow's model registry that gets it as a new version.")
    ] = None,
    settings: Settings = None,
    seed: Seed = 0,
    out: Out = RUNS,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Score a policy on a task, beside the task's baselines."""
    from lmrl_ray.cli.evaluation import EvaluationRequest, evaluate_policy
    from lmrl_ray.report.tables import print_scores

    request = EvaluationRequest(
        policy, task, episodes, protocol, decoding, rollout_actors, settings or [], plugin or [], register
    )
    options = {
        "base_url": base_url,
        "concurrency": concurrency,
        "input_price": input_price,
        "output_price": output_price,
    }
    if policy.startswith("api:"):
        from lmrl_ray.cli.prompting import evaluate_api, print_usage, rows

        if register is not None:
            raise typer.BadParameter("--register: a policy api:MODEL has no weights to register")
        spec, scores, prompted = evaluate_api(request, options, seed, out, _hooks(as_json).display)
        if as_json:
            _print_object(rows(scores, prompted), as_json)
        else:
            print_scores(spec, scores)
            print_usage(prompted)
        return
    if any(value is not None for value in options.values()):
        raise typer.BadParameter("an endpoint, its prices and its concurrency are for a policy api:MODEL")
    found = evaluate_policy(request, seed, out, _hooks(as_json).display)
    if as_json:
        _print_object([s.row() for s in found.scores], as_json)
    else:
        print_scores(found.spec, found.scores)
    if register is not None:
        from lmrl_ray.registry import register as add

        version = add(register, found.folder, found.config, found.scores[-1], out)
        typer.echo(f"registered: {version}", err=as_json)


@app.command()
def play(
    task: Task,
    seed: Annotated[int | None, typer.Option(help="Of the episode; a new one by default.", min=0)] = None,
    task_id: Annotated[
        int | None, typer.Option(help="Which start, secret or buyer; drawn by default.")
    ] = None,
    settings: Settings = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Play TASK yourself; --json prints the episode at the end."""
    from lmrl_ray.cli.playing import play_in_terminal, record

    episode = play_in_terminal(task, seed, task_id, settings or [], plugin or [], aside=as_json)
    if as_json:
        _print_object(record(episode), as_json)


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="e.g. tune_configs/ilql_maze.yaml")],
    max_concurrent: Annotated[int | None, typer.Option(help="Trials at a time.", min=1)] = None,
    resume: Annotated[str | None, typer.Option(help="Name of the sweep to go on with.")] = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="Everything random follows from it; 0.", min=0)] = None,
    out: Out = RUNS,
    as_json: Json = False,
) -> None:
    """Search hyperparameters with Ray Tune."""
    from lmrl_ray.cli.sweeping import print_sweep
    from lmrl_ray.sweep import run_sweep

    result = run_sweep(file, out, seed, _hooks(as_json), max_concurrent, resume, settings or [])
    if as_json:
        _print_object(result.summary(), as_json)
    else:
        print_sweep(result, out)


@app.command()
def benchmark(
    file: Annotated[Path, typer.Argument(help="e.g. tune_configs/benchmark_smoke.yaml")],
    name: Annotated[str | None, typer.Option(help="Of its folder; the file's by default.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Cells at a time.", min=1)] = None,
    out: Out = RUNS,
    as_json: Json = False,
) -> None:
    """Train and score tasks x algorithms x seeds; called again, go on with what is not finished."""
    from dataclasses import asdict

    from lmrl_ray.benchmark import BenchmarkError, run_benchmark
    from lmrl_ray.report.comparison import print_comparison

    failure = None
    try:
        result = run_benchmark(file, out, _hooks(as_json), name=name, max_concurrent=max_concurrent)
    except BenchmarkError as error:
        result, failure = error.result, error
    if as_json:
        _print_object([asdict(r) for r in result.rows], as_json)
    else:
        print_comparison(result.rows)
        typer.echo(f"written to {result.file}")
    if failure is not None:
        raise failure


@app.command("compare")
def compare_runs(
    runs: Annotated[list[str], typer.Argument(help="Runs; each is compared with the first.")],
    out: Out = RUNS,
    as_json: Json = False,
) -> None:
    """Print finished runs side by side, with the probability of improvement."""
    from lmrl_ray.cli.comparing import compare, print_runs

    rows = compare(runs, out)
    if as_json:
        _print_object(rows, as_json)
    else:
        print_runs(rows)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Where it listens.", min=1, max=65535)] = 5000,
    host: Annotated[str, typer.Option(help="Address it listens at.")] = "127.0.0.1",
    expose: Annotated[bool, typer.Option("--expose", help="Allow a --host beyond this machine.")] = False,
    out: Out = RUNS,
) -> None:
    """Serve MLflow's pages of the runs, on this machine alone."""
    from lmrl_ray.ui import serve

    serve(out, host, port, expose, typer.echo)


@app.command()
def sync(
    run: Annotated[str, typer.Argument(help="Run, sweep or benchmark: its folder, or a run's name.")],
    out: Out = RUNS,
) -> None:
    """Send MLflow what it has not got of a run, because the server was away."""
    from lmrl_ray.resolve import find_tracked
    from lmrl_ray.tracking import send_rest

    typer.echo(send_rest(find_tracked(run, out), out))


@app.command()
def demo(
    seed: Seed = 0,
    out: Out = RUNS,
    rollout_actors: Annotated[int, typer.Option(help="Actors that play episodes.", min=0)] = 2,
    as_json: Json = False,
) -> None:
    """The whole ring on maze-fo: data, BC, ILQL, evaluation, a table (minutes on a laptop)."""
    from lmrl_ray.demo import run_demo
    from lmrl_ray.mlflow_store import look_at_it
    from lmrl_ray.report.tables import print_scores

    result = run_demo(seed, out, rollout_actors, _hooks(as_json))
    if as_json:
        _print_object([s.row() for s in result.scores], as_json)
        return
    print_scores(result.spec, result.scores, paper=("bc", "ilql"))
    typer.echo(f"seed {seed}, {result.minutes:.1f} minutes. Look at the runs: {look_at_it(out)}")


def _hooks(as_json: bool) -> Hooks:
    from lmrl_ray.report.progress import Display
    from lmrl_ray.train import Hooks

    return Hooks(Display(quiet=as_json and not sys.stderr.isatty()))


def _print_run(run: TrainedRun, out: Path, as_json: bool) -> None:
    from envs.registry import get_task
    from lmrl_ray.mlflow_store import look_at_it
    from lmrl_ray.report.tables import print_scores

    if as_json:
        _print_object(
            {"run": str(run.folder), "mlflow_run": run.mlflow_run, **run.evaluation.score.row()}, as_json
        )
        return
    print_scores(get_task(run.config.task), [run.evaluation.score])
    typer.echo(f"run: {run.folder}   look at it: {look_at_it(out)}")


def _print_object(value: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(value, indent=1))
        return
    for key, entry in value.items():
        typer.echo(f"{key}: {entry}")


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    from lmrl_ray.report.printing import print_table

    table = Table()
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(v) for v in row.values()))
    print_table(table)
