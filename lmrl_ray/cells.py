"""A comparison's cells as Ray tasks: each where there is room for it, after the clone that it starts from.

A cell without learner workers reserves its process and its rollout actors together. With them, Ray Train
finds a place for the workers itself, so only as many cells run at a time as the cluster holds whole. A cell
that fails is reported, and the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algos.base import get_algorithm
from lmrl_ray.cluster import Bundle, outside_bundles, player_bundles, room_for
from lmrl_ray.config import ConfigError, ResourcesConfig, RunConfig, merge
from lmrl_ray.plugins import load_plugins
from lmrl_ray.report.comparison import Cell
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import resolve_config
from lmrl_ray.train import Hooks, TrainedRun, remove_unbegun, resume, run_files, train


@dataclass(frozen=True)
class Job:
    """One cell, as it travels to a worker."""

    task: str
    algo: str
    seed: int
    settings: dict[str, Any]
    process: Bundle
    """What its process takes."""
    out: str
    name: str
    clone: str
    """The name of the `bc` cell of its task and seed."""

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to go on with: `run.json` is what a set-up writes last."""
        return (self.folder / "run.json").is_file()

    @property
    def has_ended(self) -> bool:
        return (self.folder / "evaluation.json").is_file()

    def config(self, given: Mapping[str, Any] | None = None) -> RunConfig:
        options = merge(merge(self.settings, given or {}), {"seed": self.seed})
        return resolve_config(self.algo, self.task, options=options, out=Path(self.out))


def from_clone(algo: str) -> tuple[str, ...]:
    """What a cell has from its clone's run, whatever the suite says."""
    if algo == "bc":
        return ()
    return ("data", "init") if get_algorithm(algo).starts_from_clone else ("data",)


Done = Callable[[Job, Cell | str], None]
"""Told of each cell: what it came to, or why it failed."""


def make_room(jobs: Sequence[Job], max_concurrent: int | None) -> int | None:
    """Connect to a cluster that holds every job, and how many at a time; None: as many as Ray finds room
    for. Raises ConfigError."""
    needs = {}
    for job in jobs:
        resources = job.config().resources
        needs[job.name] = _reserved(job, resources) + outside_bundles(resources), resources
    return room_for(needs, max_concurrent)


def run_cells(jobs: Sequence[Job], parent_run: str, at_once: int | None, done: Done) -> None:
    """Run or read all jobs, of which each task and seed has one of `bc`."""
    ended: dict[str, bool] = {}
    waiting, running = list(jobs), _Running(parent_run)

    def end(job: Job, result: Cell | str) -> None:
        ended[job.name] = isinstance(result, Cell)
        done(job, result)

    try:
        while waiting or running:
            for job in [j for j in waiting if j.algo == "bc" or j.clone in ended]:
                if len(running) == at_once:
                    break
                waiting.remove(job)
                if job.has_ended or "init" not in from_clone(job.algo) or ended[job.clone]:
                    running.start(job)
                else:
                    end(job, f"{job.clone}, which it starts from, failed")
            if running:
                end(*running.wait())
    finally:
        running.stop()


def _reserved(job: Job, resources: ResourcesConfig) -> list[Bundle]:
    return [job.process, *player_bundles(resources)]


class _Running:
    """The cells that have been handed to Ray."""

    def __init__(self, parent_run: str) -> None:
        self._parent_run = parent_run
        self._cells: dict[Any, tuple[Job, Any]] = {}
        """By what Ray will answer: the cell and its placement group, where it has one."""

    def __len__(self) -> int:
        return len(self._cells)

    def start(self, job: Job) -> None:
        import ray
        from ray.util import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        cpus, gpus = (job.process.get(name, 0.0) for name in ("CPU", "GPU"))
        cell = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(run_cell)
        group = None
        if len(bundles := _reserved(job, job.config().resources)) > 1:
            group = placement_group(bundles)
            place = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
            cell = cell.options(scheduling_strategy=place)
        self._cells[cell.remote(job, self._parent_run)] = job, group

    def wait(self) -> tuple[Job, Cell | str]:
        """The next that ends, and how."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        (ended, *_), _ = ray.wait(list(self._cells))
        result: Cell | str
        try:
            result = ray.get(ended)
        except RayTaskError as error:
            result = f"{type(error.cause).__name__}: {error.cause}"
        except RayError as error:
            result = str(error)
        return self._forget(ended), result

    def stop(self) -> None:
        """End those that run still: the driver has been interrupted."""
        import ray

        for started in list(self._cells):
            ray.cancel(started, force=True)
            self._forget(started)

    def _forget(self, started: Any) -> Job:
        from ray.util import remove_placement_group

        job, group = self._cells.pop(started)
        if group is not None:
            remove_placement_group(group)
        return job


def run_cell(job: Job, parent_run: str) -> Cell:
    """Train and score one cell, or read what it came to. Runs as a Ray task."""
    remove_unbegun(job.folder)
    if not job.has_ended:
        run = _trained(job, parent_run)
        assert run.folder == job.folder
    row = json.loads((job.folder / "evaluation.json").read_text())
    return scored(job.task, job.algo, job.seed, str(job.folder), row)


def scored(task: str, policy: str, seed: int, run: str, row: Mapping[str, Any]) -> Cell:
    """A cell from what `Score.row` says."""
    figures = ("raw_return", "normalized_score", "success_rate", "simulator", "failed")
    return Cell(task, policy, seed, run, **{name: row[name] for name in figures})


def _trained(job: Job, parent_run: str) -> TrainedRun:
    hooks = Hooks(Display(quiet=True), parent_run=parent_run)
    load_plugins(job.settings.get("plugins") or ())
    if job.has_begun:
        return resume(str(job.folder), Path(job.out), hooks)
    given: dict[str, Any] = {}
    clone = Path(job.out) / job.clone
    if job.algo != "bc":
        if (files := run_files(clone)) is None:
            raise ConfigError(f"{job.clone}, whose data it has, has not begun")
        values = {"data": files.data, "init": str(clone)}
        given = {key: values[key] for key in from_clone(job.algo)}
    return train(job.config(given), Path(job.out), hooks, job.name)
