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
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from algos.base import get_algorithm
from algos.settings import Settings
from envs.registry import get_task
from lmrl_ray.cluster import ensure_ray
from lmrl_ray.config import ConfigError, ResourcesConfig, RunConfig, load_yaml, merge, validate
from lmrl_ray.evaluate import evaluate_baseline
from lmrl_ray.plugins import load_plugins
from lmrl_ray.report.comparison import Cell, Row, summarize
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import resolve_config
from lmrl_ray.tracking import Tracker, flatten
from lmrl_ray.train import Hooks, TrainedRun, following_status, read_config, resume, train, write_whole


class Suite(Settings):
    """A suite's file."""

    tasks: tuple[str, ...] = Field(min_length=1)
    algorithms: tuple[str, ...] = Field(min_length=1)
    only: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="by task, its algorithms where these are not all of them"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    cpus_per_cell: float = Field(1.0, gt=0)
    gpus_per_cell: float = Field(0.0, ge=0)
    config: dict[str, Any] = Field(default_factory=dict, description="of every cell")
    overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="by task, algorithm or TASK/ALGORITHM, later ones win"
    )

    def algorithms_of(self, task: str) -> tuple[str, ...]:
        return self.only.get(task, self.algorithms)

    def settings(self, task: str, algo: str) -> dict[str, Any]:
        """What the suite says of one cell, on top of the tuned defaults."""
        values: dict[str, Any] = dict(self.config)
        for key in (task, algo, f"{task}/{algo}"):
            values = merge(values, self.overrides.get(key, {}))
        return values


@dataclass(frozen=True)
class BenchmarkResult:
    name: str
    rows: list[Row]
    file: Path
    mlflow_run: str


@dataclass(frozen=True)
class _Job:
    """One cell, as it travels to a worker."""

    task: str
    algo: str
    seed: int
    settings: dict[str, Any]
    out: str
    name: str

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    @property
    def from_clone(self) -> tuple[str, ...]:
        """What the clone's run says, whatever the suite does."""
        if self.algo == "bc":
            return ()
        return ("data", "init") if get_algorithm(self.algo).starts_from_clone else ("data",)


def run_benchmark(
    file: Path, out: Path, hooks: Hooks, *, name: str | None = None, max_concurrent: int | None = None
) -> BenchmarkResult:
    """Run what is not finished of the suite's matrix. Raises ConfigError."""
    out = out.resolve()
    suite = read_suite(file)
    folder = out / "benchmarks" / (name or file.stem)
    jobs = _jobs(suite, folder.name, out)
    _check_suite(folder, suite)
    for job in jobs:
        _check_cell(job, folder.name)
    tracker = _tracker(folder, out, suite)
    with following_status(tracker):
        _run_cells(suite, folder, jobs, tracker.run_id, max_concurrent, hooks.display)
        cells = _finished(folder)
        rows = summarize(cells, _baselines(suite))
        result = folder / "results.json"
        report = {
            "suite": suite.model_dump(mode="json"),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "rows": [asdict(r) for r in rows],
        }
        write_whole(result, json.dumps(report, indent=1))
        tracker.log_table([asdict(r) for r in rows], "results.json")
        _curves(cells, folder, tracker)
    return BenchmarkResult(folder.name, rows, result, tracker.run_id)


def read_suite(file: Path) -> Suite:
    """A suite's file, every cell of it checked. ConfigError and the errors of unknown names."""
    suite = validate(Suite, load_yaml(file), str(file), "")
    for task, some in suite.only.items():
        if task not in suite.tasks or not set(some) <= set(suite.algorithms):
            raise ConfigError(
                f"{file}: only.{task}: found {list(some)}; give a task of `tasks`, some of `algorithms`"
            )
    known = {*suite.tasks, *suite.algorithms, "bc"}
    known |= {f"{t}/{a}" for t in suite.tasks for a in ("bc", *suite.algorithms_of(t))}
    for key in suite.overrides:
        if key not in known:
            raise ConfigError(f"{file}: overrides.{key}: no cell of this suite is called so")
    for task in suite.tasks:
        for algo in suite.algorithms_of(task):
            _config(suite.settings(task, algo), task, algo, suite.seeds[0])
    return suite


def _config(settings: Mapping[str, Any], task: str, algo: str, seed: int) -> RunConfig:
    return resolve_config(algo, task, options=merge(settings, {"seed": seed}))


def _jobs(suite: Suite, name: str, out: Path) -> list[_Job]:
    """The clones first: what starts from one that is not there yet would hold a place and wait."""
    jobs = [
        _Job(task, algo, seed, suite.settings(task, algo), str(out), f"{name}-{task}-{algo}-s{seed}")
        for task in suite.tasks
        for seed in suite.seeds
        for algo in dict.fromkeys(("bc", *suite.algorithms_of(task)))
    ]
    return sorted(jobs, key=lambda job: job.algo != "bc")


def _check_suite(folder: Path, suite: Suite) -> None:
    plan = folder / "suite.json"
    if plan.is_file() and validate(Suite, json.loads(plan.read_text())["suite"], str(plan), "") != suite:
        raise ConfigError(
            f"{folder}: holds the results of another suite of that name; give --name, or remove the folder "
            f"and its cells' runs, {folder.parent.parent / folder.name}-TASK-ALGO-sSEED"
        )


def _check_cell(job: _Job, name: str) -> None:
    """ConfigError when the run of the cell's name, finished or not, is of another configuration."""
    if not _has_begun(job.folder):
        return
    asked = _config(job.settings, job.task, job.algo, job.seed)
    wanted, found = (flatten(config.dump()) for config in (asked, read_config(job.folder)))
    # A run that starts from a policy has that one's model. Plugins are paths.
    left_out = {*job.from_clone, "plugins", *(["model.name"] if found["init"] else [])}
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
    clone = job.folder.with_name(f"{name}-{job.task}-bc-s{job.seed}")
    if "init" in job.from_clone and not _has_begun(clone):
        raise ConfigError(
            f"{job.folder}: started from {clone.name}, which is not there any more; remove it, too, or give "
            f"--name"
        )


def _has_begun(run: Path) -> bool:
    """Whether there is anything to go on with: `run.json` is what a set-up writes last."""
    return (run / "run.json").is_file()


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


def _run_cells(
    suite: Suite, folder: Path, jobs: list[_Job], parent: str, max_concurrent: int | None, display: Display
) -> None:
    ray = ensure_ray(ResourcesConfig(rollout_actors=max_concurrent or 0))
    cell = ray.remote(num_cpus=suite.cpus_per_cell, num_gpus=suite.gpus_per_cell, max_retries=3)(_cell)
    clones: dict[tuple[str, int], Any] = {}
    running: dict[Any, tuple[str, str, int]] = {}

    def finish_one() -> None:
        done, _ = ray.wait(list(running))
        task, algo, seed = running.pop(done[0])
        result = ray.get(done[0])
        if algo in suite.algorithms_of(task):
            path = folder / "cells" / task / f"{algo}-{seed}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(asdict(result), indent=1))
        bar.advance(1)

    with display.bar("cells", len(jobs)) as bar:
        for job in jobs:
            if len(running) == max_concurrent:
                finish_one()
            started = cell.remote(job, clones.get((job.task, job.seed)), parent)
            running[started] = (job.task, job.algo, job.seed)
            if job.algo == "bc":
                clones[job.task, job.seed] = started
        while running:
            finish_one()


def _cell(job: _Job, clone: Cell | None, parent_run: str) -> Cell:
    """Train and score one cell, or read what it came to. Runs as a Ray task."""
    if not _has_begun(job.folder):
        # What a cell that was killed while setting up may have left.
        shutil.rmtree(job.folder, ignore_errors=True)
    if not (job.folder / "evaluation.json").is_file():
        run = _trained(job, clone, parent_run)
        assert run.folder == job.folder
    row = json.loads((job.folder / "evaluation.json").read_text())
    return _scored(job.task, job.algo, job.seed, str(job.folder), row)


def _scored(task: str, policy: str, seed: int, run: str, row: Mapping[str, Any]) -> Cell:
    """A cell from what `Score.row` says."""
    figures = ("raw_return", "normalized_score", "success_rate", "simulator")
    return Cell(task, policy, seed, run, **{name: row[name] for name in figures})


def _trained(job: _Job, clone: Cell | None, parent_run: str) -> TrainedRun:
    hooks = Hooks(Display(quiet=True), parent_run=parent_run)
    load_plugins(job.settings.get("plugins") or ())
    if _has_begun(job.folder):
        return resume(job.name, Path(job.out), hooks)
    given: dict[str, Any] = {}
    if clone is not None:
        files = json.loads((Path(clone.run) / "run.json").read_text())
        values = {"data": files["data"], "init": clone.run}
        given = {key: values[key] for key in job.from_clone}
    config = _config(merge(job.settings, given), job.task, job.algo, job.seed)
    return train(config, Path(job.out), hooks, job.name)


def _finished(folder: Path) -> list[Cell]:
    return [Cell(**json.loads(p.read_text())) for p in sorted((folder / "cells").glob("*/*.json"))]


def _baselines(suite: Suite) -> Iterator[Cell]:
    """The scripted policies of each task, on the episodes of the same seeds."""
    for task in suite.tasks:
        spec = get_task(task)
        env = suite.settings(task, "").get("env", {})
        for name in spec.baselines:
            for seed in suite.seeds:
                s = evaluate_baseline(spec, name, episodes=spec.quick_episodes, seed=seed, env=env)
                yield _scored(task, name, seed, "", s.row())


def _curves(cells: list[Cell], folder: Path, tracker: Tracker) -> None:
    """Learning curves, where cells were evaluated on the way."""
    from lmrl_ray.report.curves import draw_curves

    drawn = draw_curves(cells, folder / "curves")
    if drawn:
        tracker.log_folder(folder / "curves", "curves")
