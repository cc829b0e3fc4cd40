"""Every task goes all the way: data, BC, ILQL from the clone, a table with its baselines."""

from dataclasses import replace

import pytest
from support import shorten_mazes

from envs import registry
from envs.registry import get_task, task_ids

SHORT = {"chess": ["--set", "env.max_moves=5"], "chess-endgames": ["--set", "env.max_moves=5"]}
"""An untrained player makes 400 illegal moves."""
LONGEST = 8
"""Tokens of an action: an untrained player ends none."""


@pytest.mark.slow
@pytest.mark.parametrize("task", task_ids())
def test_data_bc_ilql_and_evaluation(lmrl, out, monkeypatch, task):
    spec = get_task(task)
    shorten_mazes(monkeypatch)
    spec = replace(spec, quick_episodes=2, max_action_tokens=min(spec.max_action_tokens, LONGEST))
    monkeypatch.setitem(registry._TASKS, task, spec)
    data, short = out / "data.parquet", SHORT.get(task, [])
    assert lmrl("data", "build", task, "--episodes", 8, "--out", data, *short).code == 0
    quick = ("training.steps=2", "training.batch_episodes=4", "optimizer.engine=torch")
    options = ["--data", data, "--out", out, "--json", *short, *(o for q in quick for o in ("--set", q))]
    clone = lmrl("train", "bc", task, "--name", "clone", *options)
    assert clone.code == 0, clone.stderr
    learnt = lmrl("train", "ilql", task, "--init", "clone", "--name", "learnt", *options)
    assert learnt.code == 0, learnt.stderr
    rows = lmrl("eval", "learnt", task, "--episodes", 2, "--out", out, "--json", *short).json
    assert [row["policy"] for row in rows] == [*spec.baselines, "ilql"]
    assert {row["episodes"] for row in rows} == {2}
