"""From a sweep's file to its results; a sweep whose driver died goes on by name.

sweeps/NAME/plan.json        what was decided before the first trial
sweeps/NAME/                 Ray Tune's state, a folder for each trial
sweeps/NAME/best.yaml        the best trial's configuration, for `lmrl train --config`
sweeps/NAME/coordinates.png  parallel coordinates of all trials
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

from lmrl_ray.config import ConfigError, parse
from lmrl_ray.plugins import absolute, load_plugins
from lmrl_ray.report.coordinates import draw_coordinates
from lmrl_ray.resolve import find_policy
from lmrl_ray.sweep.config import SweepConfig, load_sweep, read_sweep
from lmrl_ray.sweep.results import SweepResult, axes_of, collect, trials_of
from lmrl_ray.sweep.trial import Plan
from lmrl_ray.sweep.tuning import room_of, tune_plan
from lmrl_ray.tracking import Tracker
from lmrl_ray.train import Hooks, alone, claim, leading, prepare, write_whole


def run_sweep(
    file: Path,
    out: Path,
    seed: int | None,
    hooks: Hooks,
    max_concurrent: int | None = None,
    resume_name: str | None = None,
    settings: Sequence[str] = (),
) -> SweepResult:
    """Run the sweep of a file (seed 0 unless given), or go on with one by name. Raises ConfigError."""
    out = out.resolve()
    if resume_name is not None:
        given = {"--set": settings, "--max-concurrent": max_concurrent, "--seed": seed}
        if named := [option for option, value in given.items() if value not in (None, (), [])]:
            raise ConfigError(
                f"--resume {resume_name}: what a sweep began with stays; leave out {', '.join(named)}"
            )
        folder = out / "sweeps" / resume_name
        plan = _read_plan(folder, file)
    else:
        folder, plan = _begin(file, out, seed or 0, max_concurrent, settings)
    with alone(folder):
        try:
            load_plugins(plan.base["plugins"])
            at_once = room_of(plan)  # before hours go into a clone
            plan, tracker = _prepared(plan, folder, out, hooks)
        except Exception:
            if resume_name is None:
                # A sweep that could not begin leaves nothing behind.
                shutil.rmtree(folder)
            raise
        return _see_through(plan, tracker, folder, out, at_once)


def _see_through(plan: Plan, tracker: Tracker, folder: Path, out: Path, at_once: int | None) -> SweepResult:
    """Run the trials that are not finished, and sum all of them up."""
    sweep = SweepConfig.model_validate(plan.sweep)
    with leading(tracker):
        results = tune_plan(plan, folder, out, at_once)
        trials = trials_of(results, plan)
        tracker.close_children(failed=[t.name for t in trials if t.status == "error"])
        result = collect(trials, results.errors, plan, folder, out)
        picture = draw_coordinates(axes_of(result, sweep), result.picture, sweep.mode)
        tracker.log_table([asdict(t) for t in result.trials], "trials.json")
        tracker.log_table([asdict(e) for e in result.exploits], "exploits.json")
        _log_files(tracker, folder, [result.best_config, picture])
    return result


def _begin(
    file: Path, out: Path, seed: int, max_concurrent: int | None, settings: Sequence[str]
) -> tuple[Path, Plan]:
    sweep, base = read_sweep(file, seed, settings, out)
    if base.init is not None:
        find_policy(base.init, out)
    if max_concurrent is not None and sweep.scheduler == "pbt":
        raise ConfigError(
            f"--max-concurrent {max_concurrent}: scheduler pbt keeps its whole population of {sweep.trials} "
            f"trials going and lets them take turns on what the cluster has"
        )
    names = (file.stem if i == 1 else f"{file.stem}-{i}" for i in count(1))
    folder = next(out / "sweeps" / name for name in names if claim(out / "sweeps" / name))
    values = sweep.model_dump(mode="json")
    base = base.model_copy(update={"plugins": absolute(base.plugins)})
    plan = Plan(folder.name, seed, values, base.dump(), max_concurrent)
    _write_plan(plan, folder)
    return folder, plan


def _prepared(plan: Plan, folder: Path, out: Path, hooks: Hooks) -> tuple[Plan, Tracker]:
    """With the data and the clone that all trials share, and a run in MLflow; what an interrupted sweep
    has of these is gone on with."""
    if plan.parent_run:
        return plan, Tracker(out, folder, required=True)
    base = prepare(parse(plan.base, "sweep"), out, hooks, plan.name)
    tracker = Tracker(out, folder, required=True)
    tracker.log_config({"sweep": plan.sweep}, {})
    plan = replace(plan, base=base.dump(), parent_run=tracker.run_id)
    _write_plan(plan, folder)
    return plan, tracker


def _write_plan(plan: Plan, folder: Path) -> None:
    write_whole(folder / "plan.json", json.dumps(asdict(plan)))


def _read_plan(folder: Path, file: Path) -> Plan:
    if not (folder / "plan.json").is_file():
        raise ConfigError(f"--resume {folder.name}: there is no sweep of that name in {folder.parent}")
    plan = Plan(**json.loads((folder / "plan.json").read_text()))
    if load_sweep(file).model_dump(mode="json") != plan.sweep:
        raise ConfigError(
            f"--resume {folder.name}: {file} is not what that sweep began with, which stays; give the file "
            f"as it was, or leave out --resume"
        )
    return plan


def _log_files(tracker: Tracker, folder: Path, files: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as beside:
        for file in files:
            shutil.copy(file, beside)
        tracker.log_folder(Path(beside), "summary")
