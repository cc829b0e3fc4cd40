"""The comparison: tasks x algorithms x seeds, each cell a training run, as Ray tasks.

benchmarks/NAME/suite.json            what was asked for, and the parent run in MLflow
benchmarks/NAME/cells/TASK/ALGO-SEED.json   a finished cell; the same command goes on with the others
benchmarks/NAME/results.json          the table

For each task and seed BC is trained first, on a data set built with that seed; what starts from a
clone starts from it. An unfinished cell goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from algos.base import UnknownAlgorithmError
from algos.settings import Settings
from envs.registry import UnknownTaskError, get_task
from lmrl_ray.actors import RolloutError
from lmrl_ray.cells import Job, from_clone, make_room, run_cells, scored
from lmrl_ray.config import ConfigError, load_yaml, merge, validate
from lmrl_ray.evaluate import evaluate_baseline
from lmrl_ray.plugins import changed
from lmrl_ray.report.comparison import Cell, Row, summarize
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import resolve_config, resolve_layers
from lmrl_ray.tracking import Tracker, flatten
from lmrl_ray.train import (
    Hooks,
    alone,
    check_plain,
    check_same_data,
    leading,
    read_config,
    run_files,
    write_whole,
)


class Suite(Settings):
    """A suite's file."""

    tasks: tuple[str, ...] = Field(min_length=1)
    algorithms: tuple[str, ...] = Field(min_length=1)
    only: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="by task, its algorithms where these are not all of them"
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field((0, 1, 2), min_length=1)
    cpus_per_cell: float = Field(1.0, gt=0)
    gpus_per_cell: float = Field(0.0, ge=0)
    config: dict[str, Any] = Field(default_factory=dict, description="of every cell")
    overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="by task, algorithm or TASK/ALGORITHM, later ones win"
    )

    def algorithms_of(self, task: str) -> tuple[str, ...]:
        return self.only.get(task, self.algorithms)

    def cells_of(self, task: str) -> tuple[str, ...]:
        """The algorithms that are trained: bc always, whose clone the others start from."""
        return tuple(dict.fromkeys(("bc", *self.algorithms_of(task))))

    def places(self, task: str, algo: str) -> list[tuple[str, dict[str, Any]]]:
        """What the suite says of one cell and where, on top of the tuned defaults; later ones win."""
        keys = [key for key in (task, algo, f"{task}/{algo}") if key in self.overrides]
        return [("config", self.config), *((f"overrides.{key}", self.overrides[key]) for key in keys)]

    def settings(self, task: str, algo: str) -> dict[str, Any]:
        """What the suite says of one cell."""
        return reduce(merge, (values for _, values in self.places(task, algo)), {})


@dataclass(frozen=True)
class BenchmarkResult:
    name: str
    rows: list[Row]
    file: Path
    mlflow_run: str


class BenchmarkError(RuntimeError):
    """Cells failed; `result` is of the others."""

    def __init__(self, failed: Mapping[str, str], result: BenchmarkResult) -> None:
        self.result = result
        listed = "".join(f"\n  {name}: {why}" for name, why in failed.items())
        super().__init__(f"{len(failed)} failed; the same command tries again:{listed}")


def run_benchmark(
    file: Path, out: Path, hooks: Hooks, *, name: str | None = None, max_concurrent: int | None = None
) -> BenchmarkResult:
    """Run what is not finished of the suite's matrix. Raises ConfigError, and BenchmarkError at the end."""
    out = out.resolve()
    if name is not None:
        check_plain(name)
    suite = read_suite(file, out)
    folder = out / "benchmarks" / (name or file.stem)
    jobs = _jobs(suite, folder.name, out)
    _check_suite(folder, suite)
    for job in jobs:
        _check_cell(job, folder.name, hooks.display)
    at_once = make_room(jobs, max_concurrent)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        return _see_through(suite, folder, jobs, at_once, out, hooks)


def _see_through(
    suite: Suite, folder: Path, jobs: list[Job], at_once: int | None, out: Path, hooks: Hooks
) -> BenchmarkResult:
    """Run the cells that are not finished, and sum all of them up."""
    tracker = _tracker(folder, out, suite)
    with leading(tracker):
        failed = _run_all(suite, folder, jobs, tracker.run_id, at_once, hooks.display)
        tracker.close_children(failed=failed)
        cells = _finished(folder)
        rows = summarize(cells, _baselines(suite, failed))
        result = BenchmarkResult(folder.name, rows, folder / "results.json", tracker.run_id)
        report = {
            "suite": suite.model_dump(mode="json"),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "rows": [asdict(r) for r in rows],
            "failed": failed,
        }
        write_whole(result.file, json.dumps(report, indent=1))
        tracker.log_table([asdict(r) for r in rows], "results.json")
        _curves(cells, folder, tracker)
        if failed:
            raise BenchmarkError(failed, result)
    return result


def read_suite(file: Path, out: Path = Path("runs")) -> Suite:
    """A suite's file, every cell of it checked; `init` may be the name of a run below `out`. ConfigError and
    the errors of unknown names."""
    values = load_yaml(file)
    if "space" in values:
        raise ConfigError(f"{file}: is a sweep, not a suite; run it with `lmrl sweep {file}`")
    suite = validate(Suite, values, str(file), "")
    for task, some in suite.only.items():
        if task not in suite.tasks or not set(some) <= set(suite.algorithms):
            raise ConfigError(
                f"{file}: only.{task}: found {list(some)}; give a task of `tasks`, some of `algorithms`"
            )
    known = {*suite.tasks, *suite.algorithms, "bc"}
    known |= {f"{t}/{a}" for t in suite.tasks for a in suite.cells_of(t)}
    for key in suite.overrides:
        if key not in known:
            raise ConfigError(f"{file}: overrides.{key}: no cell of this suite is called so")
    _check_cells(suite, str(file), out)
    _check_have_effect(suite, str(file))
    return suite


def _check_cells(suite: Suite, where: str, out: Path) -> None:
    """ConfigError that says where in the file a cell is told what it cannot be trained with."""
    for task, algo in [(t, a) for t in suite.tasks for a in suite.cells_of(t)]:
        layers = [(f"{where}: {place} (of {task}/{algo})", said) for place, said in suite.places(task, algo)]
        try:
            resolve_layers(algo, task, layers, out)
        except UnknownTaskError as error:
            raise ConfigError(f"{where}: tasks: {error}") from None
        except UnknownAlgorithmError as error:
            raise ConfigError(f"{where}: algorithms: {error}") from None


def _check_have_effect(suite: Suite, where: str) -> None:
    """ConfigError for what a cell is told elsewhere, and would not listen to."""
    for field in ("tasks", "algorithms", "seeds"):
        found = list(getattr(suite, field))
        if len(set(found)) < len(found):
            raise ConfigError(f"{where}: {field}: found {found}; give each of them once")
    elsewhere = {"algo": "algorithms", "task": "tasks", "seed": "seeds"}
    for place, values in {"config": suite.config, **suite.overrides}.items():
        for key in elsewhere.keys() & values.keys():
            raise ConfigError(
                f"{where}: {place}: {key} has no effect here; it is a cell's, from `{elsewhere[key]}`"
            )
        if "env" in values and place not in ("config", *suite.tasks):
            raise ConfigError(
                f"{where}: overrides.{place}.env: the algorithms and baselines of a task are compared in one "
                f"world; give it to the task"
            )
        algo = place.split("/")[-1]
        if algo == "bc" or algo not in suite.algorithms:
            continue
        if "init" in from_clone(algo) and "name" in values.get("model", {}):
            raise ConfigError(
                f"{where}: overrides.{place}.model.name: {algo} has the model of its task's bc; give it to "
                f"the task, or to all in `config`"
            )
        for key in (*from_clone(algo), "data_episodes"):
            if key in values:
                raise ConfigError(
                    f"{where}: overrides.{place}.{key}: {algo} takes it from its task's bc; give it to "
                    f"the task, or to bc"
                )


def _jobs(suite: Suite, name: str, out: Path) -> list[Job]:
    """The clones first: the others wait for them."""
    process = {"CPU": suite.cpus_per_cell} | ({"GPU": suite.gpus_per_cell} if suite.gpus_per_cell else {})
    jobs = []
    for task, seed in product(suite.tasks, suite.seeds):
        for algo in suite.cells_of(task):
            run, clone = (f"{name}-{task}-{a}-s{seed}" for a in (algo, "bc"))
            jobs.append(Job(task, algo, seed, suite.settings(task, algo), process, str(out), run, clone))
    return sorted(jobs, key=lambda job: job.algo != "bc")


def _check_suite(folder: Path, suite: Suite) -> None:
    plan = folder / "suite.json"
    if plan.is_file() and validate(Suite, json.loads(plan.read_text())["suite"], str(plan), "") != suite:
        raise ConfigError(
            f"{folder}: holds the results of another suite of that name; give --name, or remove the folder "
            f"and its cells' runs, {folder.parent.parent / folder.name}-TASK-ALGO-sSEED"
        )


def _check_cell(job: Job, name: str, display: Display) -> None:
    """ConfigError when the run of the cell's name, finished or not, is of another configuration or of other
    data; a plugin that was changed since is told."""
    files = run_files(job.folder)
    if files is None:
        return
    if Path(files.data).is_file():  # or else what is finished stands, and the others say so
        check_same_data(job.folder, files)
    trained = read_config(job.folder)
    start = {"init": trained.init} if "init" in from_clone(job.algo) else {}  # whose model it has
    config = job.config(start)
    for plugin in changed(config.plugins, files.code):
        display.say(f"{job.name}: {plugin} has changed since it began; what is finished stands")
    wanted, found = flatten(config.dump()), flatten(trained.dump())
    # A run that starts from a policy has that one's model. Plugins are paths.
    left_out = {*from_clone(job.algo), "plugins", *(["model.name"] if found["init"] else [])}
    wrong = [
        f"{key} {found.get(key)!r}, not {wanted.get(key)!r}"
        for key in {**wanted, **found}
        if key not in left_out and found.get(key) != wanted.get(key)
    ]
    if wrong:
        raise ConfigError(
            f"{job.folder}: is of another configuration than this cell ({', '.join(wrong)}); give --name, or "
            f"remove it and the runs of that suite's other cells, {name}-TASK-ALGO-sSEED"
        )
    clone = replace(job, algo="bc", name=job.clone)
    if "init" in from_clone(job.algo) and not clone.has_begun:
        raise ConfigError(
            f"{job.folder}: started from {job.clone}, which is not there any more; remove it, too, or give "
            f"--name"
        )


def _tracker(folder: Path, out: Path, suite: Suite) -> Tracker:
    """The parent run: a new one, or that of the benchmark that is gone on with."""
    plan = folder / "suite.json"
    tracker = Tracker(out, folder, required=True)
    if not plan.is_file():
        asked = suite.model_dump(mode="json")
        tracker.log_config({"suite": asked}, {})
        (folder / "cells").mkdir(parents=True, exist_ok=True)
        write_whole(plan, json.dumps({"suite": asked}))
    return tracker


def _run_all(
    suite: Suite, folder: Path, jobs: list[Job], parent: str, at_once: int | None, display: Display
) -> dict[str, str]:
    """Run or read all cells and keep what they came to; why the others failed, by their names."""
    failed: dict[str, str] = {}
    with display.bar("cells", len(jobs)) as bar:

        def keep(job: Job, result: Cell | str) -> None:
            path = folder / "cells" / job.task / f"{job.algo}-{job.seed}.json"
            if isinstance(result, str):
                failed[job.name] = result
                path.unlink(missing_ok=True)  # what an earlier call came to, whose run is gone
            elif job.algo in suite.algorithms_of(job.task):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, json.dumps(asdict(result), indent=1))
            bar.advance(1)

        run_cells(jobs, parent, at_once, keep)
    return failed


def _finished(folder: Path) -> list[Cell]:
    return [Cell(**json.loads(p.read_text())) for p in sorted((folder / "cells").glob("*/*.json"))]


def _baselines(suite: Suite, failed: dict[str, str]) -> Iterator[Cell]:
    """The scripted policies of each task, on the episodes of the same seeds; `failed` is told of those whose
    simulator fails too often."""
    for task in suite.tasks:
        spec = get_task(task)
        config = resolve_config("bc", task, options=suite.settings(task, "bc"))
        how: dict[str, Any] = {"env": dict(config.env), "resources": config.resources}
        for name, seed in product(spec.baselines, suite.seeds):
            try:
                s = evaluate_baseline(spec, name, episodes=spec.quick_episodes, seed=seed, **how)
            except (RolloutError, ConfigError) as error:
                failed[f"{task}, {name}, seed {seed}"] = str(error)
            else:
                yield scored(task, name, seed, "", s.row())


def _curves(cells: list[Cell], folder: Path, tracker: Tracker) -> None:
    """Learning curves, where cells were evaluated on the way."""
    from lmrl_ray.report.curves import draw_curves

    drawn = draw_curves(cells, folder / "curves")
    if drawn:
        tracker.log_folder(folder / "curves", "curves")
