"""A comparison's cells as Ray tasks: each where there is room for it, after the clone that it starts from.

A cell without learner workers reserves its process and its rollout actors together. With them, Ray Train
finds a place for the workers itself, so only as many cells run at a time as the cluster holds whole. A cell
that fails is reported, and the others go on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algos.base import get_algorithm
from lmrl_ray.cluster import Bundle, actor_bundle, ensure_room, fitting, outside_bundles, total_of
from lmrl_ray.config import ConfigError, RunConfig, merge
from lmrl_ray.plugins import load_plugins
from lmrl_ray.report.comparison import Cell
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import resolve_config
from lmrl_ray.train import Hooks, TrainedRun, resume, train


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

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to go on with: `run.json` is what a set-up writes last."""
        return (self.folder / "run.json").is_file()

    def config(self, given: Mapping[str, Any] | None = None) -> RunConfig:
        options = merge(merge(self.settings, given or {}), {"seed": self.seed})
        return resolve_config(self.algo, self.task, options=options)


def from_clone(algo: str) -> tuple[str, ...]:
    """What a cell has from its clone's run, whatever the suite says."""
    if algo == "bc":
        return ()
    return ("data", "init") if get_algorithm(algo).starts_from_clone else ("data",)


Done = Callable[[Job, Cell | str], None]
"""Told of each cell: what it came to, or why it failed."""


def run_cells(jobs: Sequence[Job], parent_run: str, max_concurrent: int | None, done: Done) -> None:
    """Run or read all jobs; each task and seed has one of `bc`. ConfigError where one could never run."""
    ray, at_once = _room(jobs, max_concurrent)
    clones: dict[tuple[str, int], Cell | str] = {}
    waiting, running = list(jobs), _Running(ray, parent_run)

    def finished(job: Job, result: Cell | str) -> None:
        if job.algo == "bc":
            clones[job.task, job.seed] = result
        done(job, result)

    while waiting or running.jobs:
        for job in [j for j in waiting if j.algo == "bc" or (j.task, j.seed) in clones]:
            if len(running.jobs) == at_once:
                break
            waiting.remove(job)
            clone = None if job.algo == "bc" else clones[job.task, job.seed]
            if isinstance(clone, str):
                finished(job, "the bc cell that it starts from failed")
            else:
                running.start(job, clone)
        if running.jobs:
            finished(*running.wait())


def _room(jobs: Sequence[Job], max_concurrent: int | None) -> tuple[Any, int | None]:
    """A cluster that holds every job, and how many at a time; None: as many as Ray finds room for."""
    needed = [_reserved(job) + outside_bundles(job.config().resources) for job in jobs]
    largest = max(needed, key=lambda n: (total_of(n).get("GPU", 0.0), total_of(n).get("CPU", 0.0)))
    wait_s = max(job.config().resources.wait_for_nodes_s for job in jobs)
    who = f"cells ({max_concurrent or 1} at a time)"
    ray = ensure_room(largest * (max_concurrent or 1), who, wait_s)
    for job, bundles in zip(jobs, needed, strict=True):
        if not fitting(ray, bundles):
            raise ConfigError(
                f"resources: {job.name} needs {total_of(bundles)}, the cluster has {ray.cluster_resources()}"
            )
    limits = [max_concurrent] if max_concurrent else []
    limits += [fitting(ray, n) for n, job in zip(needed, jobs, strict=True) if job.config().resources.workers]
    return ray, min(limits, default=None)


def _reserved(job: Job) -> list[Bundle]:
    resources = job.config().resources
    return [job.process, *[actor_bundle(resources)] * resources.rollout_actors]


class _Running:
    """The cells that have been handed to Ray."""

    def __init__(self, ray: Any, parent_run: str) -> None:
        self._ray, self._parent_run = ray, parent_run
        self.jobs: dict[Any, Job] = {}
        self._groups: dict[Any, Any] = {}

    def start(self, job: Job, clone: Cell | None) -> None:
        from ray.util import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        cpus, gpus = (job.process.get(name, 0.0) for name in ("CPU", "GPU"))
        cell = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(run_cell)
        group = None
        if len(bundles := _reserved(job)) > 1:
            group = placement_group(bundles)
            place = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
            cell = cell.options(scheduling_strategy=place)
        started = cell.remote(job, clone, self._parent_run)
        self.jobs[started], self._groups[started] = job, group

    def wait(self) -> tuple[Job, Cell | str]:
        """The next that ends, and how."""
        from ray.exceptions import RayError, RayTaskError
        from ray.util import remove_placement_group

        (ended, *_), _ = self._ray.wait(list(self.jobs))
        result: Cell | str
        try:
            result = self._ray.get(ended)
        except RayTaskError as error:
            result = f"{type(error.cause).__name__}: {error.cause}"
        except RayError as error:
            result = str(error)
        group = self._groups.pop(ended)
        if group is not None:
            remove_placement_group(group)
        return self.jobs.pop(ended), result


def run_cell(job: Job, clone: Cell | None, parent_run: str) -> Cell:
    """Train and score one cell, or read what it came to. Runs as a Ray task."""
    if not job.has_begun:
        # What a cell that was killed while setting up may have left.
        shutil.rmtree(job.folder, ignore_errors=True)
    if not (job.folder / "evaluation.json").is_file():
        run = _trained(job, clone, parent_run)
        assert run.folder == job.folder
    row = json.loads((job.folder / "evaluation.json").read_text())
    return scored(job.task, job.algo, job.seed, str(job.folder), row)


def scored(task: str, policy: str, seed: int, run: str, row: Mapping[str, Any]) -> Cell:
    """A cell from what `Score.row` says."""
    figures = ("raw_return", "normalized_score", "success_rate", "simulator")
    return Cell(task, policy, seed, run, **{name: row[name] for name in figures})


def _trained(job: Job, clone: Cell | None, parent_run: str) -> TrainedRun:
    hooks = Hooks(Display(quiet=True), parent_run=parent_run)
    load_plugins(job.settings.get("plugins") or ())
    if job.has_begun:
        return resume(job.name, Path(job.out), hooks)
    given: dict[str, Any] = {}
    if clone is not None:
        files = json.loads((Path(clone.run) / "run.json").read_text())
        values = {"data": files["data"], "init": clone.run}
        given = {key: values[key] for key in from_clone(job.algo)}
    return train(job.config(given), Path(job.out), hooks, job.name)
