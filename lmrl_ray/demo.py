"""The demonstration: the whole ring on the fully observed maze, on a laptop.

data set -> behaviour cloning -> ILQL from the clone -> rollouts by Ray actors from all 25 starts -> table
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from envs.registry import TaskSpec, get_task
from lmrl_ray.evaluate import Score, evaluate_baseline
from lmrl_ray.resolve import resolve_config
from lmrl_ray.train import Hooks, TrainedRun, train

TASK = "maze-fo"


@dataclass(frozen=True)
class Demo:
    spec: TaskSpec
    scores: list[Score]
    minutes: float


def run_demo(seed: int, out: Path, rollout_actors: int, hooks: Hooks) -> Demo:
    """Train BC and ILQL, and score them beside random, behaviour and optimal play."""
    began = time.monotonic()
    spec = get_task(TASK)
    options = {"seed": seed, "resources": {"rollout_actors": rollout_actors}}
    bc = train(resolve_config("bc", TASK, options=options), out, hooks)
    ilql = _train_ilql(bc, options, out, hooks)
    episodes = spec.quick_episodes
    baseline = {
        b: evaluate_baseline(spec, b, episodes=episodes, seed=seed)
        for b in ("random", "behaviour", spec.best_baseline)
    }
    scores = [
        baseline["random"],
        baseline["behaviour"],
        bc.evaluation.score,
        ilql.evaluation.score,
        baseline[spec.best_baseline],
    ]
    return Demo(spec, scores, (time.monotonic() - began) / 60)


def _train_ilql(bc: TrainedRun, options: dict[str, object], out: Path, hooks: Hooks) -> TrainedRun:
    config = resolve_config("ilql", TASK, options={**options, "init": str(bc.folder)})
    return train(config, out, hooks)
