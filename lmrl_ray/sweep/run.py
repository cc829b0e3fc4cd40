"""From a sweep's file to its results; a sweep whose driver died goes on by name.

sweeps/NAME/plan.json        what was decided before the first trial
sweeps/NAME/                 Ray Tune's state, a folder for each trial
sweeps/NAME/best.yaml        the best trial's configuration, for `lmrl train --config`
sweeps/NAME/coordinates.png  parallel coordinates of all trials
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copy

from lmrl_ray.config import ConfigError
from lmrl_ray.report.coordinates import draw_coordinates
from lmrl_ray.sweep.config import SweepConfig, read_sweep
from lmrl_ray.sweep.results import SweepResult, axes_of, collect
from lmrl_ray.sweep.trial import Plan
from lmrl_ray.sweep.tuning import tune_plan
from lmrl_ray.tracking import Tracker
from lmrl_ray.train import Hooks, following_status, prepare, write_whole


def run_sweep(
    file: Path,
    out: Path,
    seed: int,
    hooks: Hooks,
    max_concurrent: int | None = None,
    resume_name: str | None = None,
    settings: Sequence[str] = (),
) -> SweepResult:
    """Run the sweep of a file, or go on with one by name. Raises ConfigError."""
    out = out.resolve()
    if resume_name is not None:
        if settings:
            raise ConfigError(f"--resume {resume_name}: what a sweep began with stays; leave out --set")
        name, plan = resume_name, _read_plan(out / "sweeps" / resume_name)
        tracker = Tracker(out, out / "sweeps" / name, required=True)
    else:
        name, plan, tracker = _begin(file, out, seed, hooks, max_concurrent, settings)
    folder, sweep = out / "sweeps" / name, SweepConfig.model_validate(plan.sweep)
    with following_status(tracker):
        results = tune_plan(plan, folder, out, max_concurrent, restore=resume_name is not None)
        result = collect(results, plan, folder, out)
        picture = draw_coordinates(axes_of(result, sweep), result.picture, sweep.mode)
        tracker.log_table([asdict(t) for t in result.trials], "trials.json")
        tracker.log_table([asdict(e) for e in result.exploits], "exploits.json")
        _log_files(tracker, [result.best_config, picture])
        tracker.close_children()
    return result


def _begin(
    file: Path, out: Path, seed: int, hooks: Hooks, max_concurrent: int | None, settings: Sequence[str]
) -> tuple[str, Plan, Tracker]:
    sweep, base = read_sweep(file, seed, settings)
    if max_concurrent is not None and sweep.scheduler == "pbt":
        raise ConfigError(
            f"--max-concurrent {max_concurrent}: scheduler pbt keeps its whole population of {sweep.trials} "
            f"trials going and lets them take turns on what the cluster has"
        )
    name = _free_name(out, file.stem)
    prepared = prepare(base, out, hooks, name)
    folder = out / "sweeps" / name
    tracker = Tracker(out, folder, required=True)
    values = sweep.model_dump(mode="json")
    tracker.log_config({"sweep": values}, {})
    plan = Plan(name, seed, values, prepared.dump(), tracker.run_id)
    write_whole(folder / "plan.json", json.dumps(asdict(plan)))
    return name, plan, tracker


def _read_plan(folder: Path) -> Plan:
    if not (folder / "plan.json").is_file():
        raise ConfigError(f"--resume {folder.name}: there is no sweep of that name in {folder.parent}")
    return Plan(**json.loads((folder / "plan.json").read_text()))


def _log_files(tracker: Tracker, files: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory() as beside:
        for file in files:
            copy(file, beside)
        tracker.log_folder(Path(beside), "summary")


def _free_name(out: Path, stem: str) -> str:
    taken = {p.name for p in (out / "sweeps").glob("*")}
    names = (stem if i == 0 else f"{stem}-{i + 1}" for i in range(len(taken) + 1))
    return next(n for n in names if n not in taken)
