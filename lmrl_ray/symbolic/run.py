"""A symbolic run: learn a table, keep it, score it in the text maze, record it in MLflow.

runs/NAME/config.yaml      the whole configuration
runs/NAME/metrics.jsonl    the journal
runs/NAME/q_values.json    cells (row, column) and their Q values, in the order of `actions`
runs/NAME/returns.json     of the episodes of the evaluation
runs/NAME/evaluation.json  the score
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from envs.maze.layout import ACTIONS
from envs.maze.symbolic import SymbolicMaze
from envs.registry import get_task
from lmrl_ray.config import RunConfig
from lmrl_ray.data import EpisodeDataset
from lmrl_ray.evaluate import Evaluation, Score, evaluate_baseline, evaluate_scripted
from lmrl_ray.journal import Entry, Journal
from lmrl_ray.symbolic import dqn, offline_dqn, tabular
from lmrl_ray.symbolic.config import (
    ALGORITHMS,
    TEXT_TASK,
    DQNConfig,
    OfflineDQNConfig,
    SymbolicConfig,
    TabularQConfig,
)
from lmrl_ray.symbolic.greedy import GreedyTable
from lmrl_ray.symbolic.transitions import transitions
from lmrl_ray.tracking import Tracker
from lmrl_ray.train import Hooks, following_status, new_folder, task_dataset, write_whole

QTable = NDArray[np.float64]


@dataclass(frozen=True)
class SymbolicRun:
    folder: Path
    config: SymbolicConfig
    mlflow_run: str
    evaluation: Evaluation
    baselines: list[Score]
    """The scores of the maze's scripted players on the same episodes."""


def train(config: SymbolicConfig, out: Path, hooks: Hooks, name: str | None = None) -> SymbolicRun:
    """Learn, score and record. A run that fails is marked so; there is nothing to resume, it is short."""
    folder = new_folder(out, name or f"{config.task}-{config.algo}-s{config.seed}")
    try:
        write_whole(folder / "config.yaml", yaml.safe_dump(config.dump(), sort_keys=False))
        dataset = _dataset(config, out, hooks)
        tracker = Tracker(out, folder, parent_id=hooks.parent_run)
    except BaseException:
        # A run that could not begin leaves nothing behind.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    with following_status(tracker):
        tracker.log_config(config.dump(), {"data.fingerprint": dataset.fingerprint} if dataset else {})
        tracker.set_tags({"task": config.task, "algo": config.algo, "run_folder": str(folder)})
        q = _learn(config, folder, dataset, tracker, hooks)
        write_whole(folder / "q_values.json", json.dumps(_table(q, config.env)))
        spec = get_task(TEXT_TASK)
        how: dict[str, Any] = {"episodes": spec.quick_episodes, "seed": config.seed, "env": config.env}
        evaluation = evaluate_scripted(spec, GreedyTable(config.algo, q), config.algo, **how)
        tracker.log_scores({f"final/{k}": v for k, v in evaluation.score.metrics().items()})
        tracker.log_table([evaluation.score.row()], "evaluation.json")
        tracker.log_text((folder / "q_values.json").read_text(), "q_values.json")
        returns = [e.total_return for e in evaluation.episodes if e.error is None]
        write_whole(folder / "returns.json", json.dumps(returns))
        write_whole(folder / "evaluation.json", json.dumps(evaluation.score.row(), indent=1))
    baselines = [evaluate_baseline(spec, b, **how) for b in spec.baselines]
    return SymbolicRun(folder, config, tracker.run_id, evaluation, baselines)


def _dataset(config: SymbolicConfig, out: Path, hooks: Hooks) -> EpisodeDataset | None:
    """What an offline run learns from: the data of the maze in words, as any run gets it."""
    if ALGORITHMS[config.algo].online:
        return None
    values = config.model_dump(include={"algo", "seed", "data", "data_episodes", "env"})
    return task_dataset(RunConfig(task=TEXT_TASK, **values), out, hooks.display)


def _learn(
    config: SymbolicConfig, folder: Path, dataset: EpisodeDataset | None, tracker: Tracker, hooks: Hooks
) -> QTable:
    settings = config.algorithm
    if isinstance(settings, TabularQConfig):
        assert dataset is not None
        return tabular.learn(dataset, SymbolicMaze(**config.env), settings)
    journal = Journal(folder / "metrics.jsonl", 0)
    assert isinstance(settings, DQNConfig | OfflineDQNConfig)
    steps = settings.env_steps if isinstance(settings, DQNConfig) else settings.updates
    with hooks.display.bar(f"training {config.algo}", steps) as bar:

        def report(step: int, metrics: dict[str, float]) -> None:
            entry = Entry(step, time.time(), metrics)
            journal.append(entry)
            tracker.log([entry])
            bar.at(step, metrics)

        if isinstance(settings, DQNConfig):
            return dqn.learn(settings, config.env, config.seed, report)
        assert dataset is not None
        moves = transitions(dataset, SymbolicMaze(**config.env))
        return offline_dqn.learn(moves, settings, config.env, config.seed, report)


def _table(q: QTable, env: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON, which has no infinity: None for an action that the data do not show."""
    values = [[v if np.isfinite(v) else None for v in row] for row in q.tolist()]
    cells = [list(cell) for cell in SymbolicMaze(**env).cells]
    return {"actions": [a.strip() for a in ACTIONS], "cells": cells, "q": values}
