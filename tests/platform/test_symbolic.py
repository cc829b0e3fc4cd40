"""The symbolic maze, learnt: every method finds the best way from every start."""

import json

import numpy as np
import pytest
import yaml

from envs import get_task
from envs.core import Episode, Segment
from envs.maze.env import SUCCESS, describe
from envs.maze.symbolic import SymbolicMaze
from lmrl_ray import data
from lmrl_ray.cli.comparing import compare
from lmrl_ray.config import ConfigError
from lmrl_ray.evaluate import evaluate_baseline, evaluate_scripted
from lmrl_ray.journal import read
from lmrl_ray.mlflow_store import import_mlflow, tracking_uri
from lmrl_ray.report.progress import Display
from lmrl_ray.symbolic import dqn, offline_dqn, tabular
from lmrl_ray.symbolic.config import DQNConfig, OfflineDQNConfig, TabularQConfig, is_symbolic, resolve
from lmrl_ray.symbolic.greedy import GreedyTable
from lmrl_ray.symbolic.transitions import transitions
from lmrl_ray.train import Hooks, resume

MAZE = get_task("maze-fo")
OPTIMUM = -6.84
UMAZE = {"layout": "umaze"}


def greedy_return(q, **env):
    """Mean return of the greedy player over all starts of the symbolic maze."""
    maze = SymbolicMaze(**env)
    returns = []
    for start in range(maze.maze.num_tasks):
        cell, _ = maze.reset(options={"task_id": start})
        returns.append(0.0)
        over = False
        while not over:
            cell, reward, terminated, truncated, _ = maze.step(int(q[cell].argmax()))
            returns[-1] += reward
            over = terminated or truncated
    return float(np.mean(returns))


def walk(layout, *steps):
    """An episode through the maze: cells and the actions between them, ending where they end."""
    segments = []
    for i, step in enumerate(steps):
        if i % 2:
            reward = 0.0 if steps[i + 1] == layout.goal else -1.0
            segments.append(Segment(step, is_action=True, reward=reward))
        else:
            text = SUCCESS if step == layout.goal else describe(layout, step, "full")
            segments.append(Segment(text, is_action=False))
    done = steps[-1] == layout.goal
    return Episode("maze-fo", tuple(segments), done, not done, done, 0, 0, "rule", "test")


def test_a_table_learns_what_two_episodes_show_together_and_nothing_else():
    env = SymbolicMaze(layout=["000"], goal=(0, 2))
    layout, right, left = env.maze.layout, "move right\n", "move left\n"
    apart = [
        walk(layout, (0, 0), right, (0, 1)),  # stops before the goal
        walk(layout, (0, 1), left, (0, 0)),
        walk(layout, (0, 1), right, (0, 2)),
    ]
    q = tabular.learn(apart, env, TabularQConfig(gamma=0.5, tolerance=1e-12))
    # Actions are left, right, up, down. From the middle the goal is free, from the left it costs one move.
    expected = np.full((3, 4), -np.inf)
    expected[0, 1], expected[1, 0], expected[1, 1] = -1.0, -1.0 + 0.5 * -1.0, 0.0
    np.testing.assert_allclose(q, expected)


def test_a_cell_that_the_data_never_leave_is_not_hoped_for():
    env = SymbolicMaze(layout=["000"], goal=(0, 2))
    q = tabular.learn([walk(env.maze.layout, (0, 0), "move right\n", (0, 1))], env, TabularQConfig(gamma=0.5))
    assert q[0, 1] == pytest.approx(-1.0 + 0.5 * -2.0)


def test_a_move_that_ends_otherwise_at_times_has_the_mean():
    env = SymbolicMaze(layout=["000"], goal=(0, 2))
    layout = env.maze.layout
    good = walk(layout, (0, 1), "move right\n", (0, 2))
    slipped = walk(layout, (0, 1), "move right\n", (0, 1))
    q = tabular.learn([good, good, slipped], env, TabularQConfig(gamma=0.5, tolerance=1e-12))
    # Q = (0 + 0 - 1 + Q / 2) / 3
    assert q[1, 1] == pytest.approx(-1 / 2.5)


def test_data_of_another_maze_are_an_error():
    other = walk(SymbolicMaze(**UMAZE).maze.layout, (1, 1), "move down\n", (2, 1))
    with pytest.raises(ConfigError, match="is no observation of this maze"):
        tabular.learn([other], SymbolicMaze(), TabularQConfig())
    with pytest.raises(ConfigError, match="no move"):
        tabular.learn([], SymbolicMaze(), TabularQConfig())


def test_moves_that_are_none_are_left_out():
    env = SymbolicMaze()
    episode = MAZE.play(MAZE.make(), MAZE.baseline("random"), seed=0)
    spoilt = Episode(
        **{
            **{f: getattr(episode, f) for f in Episode.__slots__},
            "segments": (episode.segments[0], Segment("jump\n", True, -4.0, False), *episode.segments),
        }
    )
    cells, *_ = transitions([spoilt], env)
    failed = episode.segments[-1].text == "Failure\n"
    assert len(cells) == episode.length - failed


def test_our_data_set_of_the_maze_holds_the_best_way_from_every_start(tmp_path):
    dataset = data.build("maze-fo", 1_240, 0, tmp_path / "maze.parquet")
    q = tabular.learn(dataset, SymbolicMaze(), TabularQConfig())
    assert greedy_return(q) == pytest.approx(OPTIMUM)
    found = evaluate_scripted(MAZE, GreedyTable("table", q), "table", episodes=25, seed=0).score
    assert (found.raw_return, found.success_rate) == (pytest.approx(OPTIMUM), 1.0)
    # The players that made the data are far from it.
    assert np.mean([e.total_return for e in dataset]) < -15


def test_the_offline_command_keeps_its_table_and_its_score(lmrl, out):
    options = ("--out", out, "--name", "table", "--set", "data_episodes=1240")
    answer = lmrl("train", "tabular-q", "maze-symbolic", *options, "--json")
    assert answer.code == 0, answer.stderr
    found = answer.json
    folder = out / "table"
    assert found["raw_return"] == pytest.approx(OPTIMUM)
    assert json.loads((folder / "evaluation.json").read_text())["raw_return"] == found["raw_return"]
    table = json.loads((folder / "q_values.json").read_text())
    assert (len(table["q"]), len(table["cells"]), len(table["actions"])) == (26, 26, 4)
    (row,) = compare(["table"], out)
    assert (row["algorithm"], row["probability_of_improvement"]) == ("tabular-q", 0.5)
    with pytest.raises(ConfigError, match=r"table: cannot be gone on with, .* train it again"):
        resume("table", out, Hooks(Display(quiet=True)))
    (folder / "returns.json").unlink()
    with pytest.raises(ConfigError, match=r"table: has no evaluation .* train it again"):
        compare(["table"], out)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["algo"], config["algorithm"]["gamma"]) == ("tabular-q", 0.99)
    run = import_mlflow().MlflowClient(tracking_uri(out)).get_run(found["mlflow_run"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/return"] == pytest.approx(OPTIMUM)
    assert run.data.params["algorithm.gamma"] == "0.99"
    assert "data.fingerprint" in run.data.params
    printed = lmrl("train", "tabular-q", "maze-symbolic", *options[:2], "--set", "data_episodes=1240").stdout
    assert all(name in printed for name in ("random", "behaviour", "optimal", "tabular-q"))


def test_another_map_is_learnt_from_its_own_data(lmrl, out):
    options = ("--set", "env.layout=umaze", "--set", "data_episodes=200", "--json", "--out", out)
    found = lmrl("train", "tabular-q", "maze-symbolic", *options).json
    best = evaluate_baseline(MAZE, "optimal", episodes=MAZE.quick_episodes, seed=0, env=UMAZE)
    assert (found["raw_return"], found["success_rate"]) == (best.raw_return, 1.0)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("ilql", "maze-symbolic"), "rllib-dqn, rllib-offline-dqn, tabular-q learn maze-symbolic alone"),
        (("tabular-q", "maze-fo"), "rllib-dqn, rllib-offline-dqn, tabular-q learn maze-symbolic alone"),
        (("tabular-q", "maze-symbolic", "--set", "algorithm.gama=1"), "Did you mean algorithm.gamma"),
        (("tabular-q", "maze-symbolic", "--set", "algorithm.gamma=2"), "--set: algorithm.gamma: found 2"),
        (("tabular-q", "maze-symbolic", "--model", "tiny"), "model: unknown key"),
        (("tabular-q", "maze-symbolic", "--set", "algo=ilql"), "algo: is 'ilql', but 'tabular-q' was asked"),
        (("rllib-dqn", "maze-symbolic", "--data", "x.parquet"), "rllib-dqn plays the maze itself"),
        (
            ("tabular-q", "maze-symbolic", "--seed", 2**63),
            "seed: found 9223372036854775808, but it should be less",
        ),
        (("tabular-q", "maze-symbolic", "--data", "x.parquet"), "there is no such file"),
        (("rllib-offline-dqn", "maze-symbolic", "--data", "x.parquet"), "there is no such file"),
        (("rllib-offline-dqn", "maze-symbolic", "--set", "algorithm.env_steps=9"), "algorithm.env_steps"),
        (("tabular-q", "maze-symbolic", "--set", "env.layout=nowhere"), "layout"),
        (
            ("tabular-q", "maze-symbolic", "--set", "env.observe=partial"),
            "env.observe: maze-symbolic has layout",
        ),
    ],
)
def test_what_cannot_be_run_is_one_clear_line_and_leaves_nothing(lmrl, out, command, message):
    before = sorted(out.iterdir())
    answer = lmrl("train", *command, "--out", out)
    assert answer.code == 1
    assert message in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
    assert [p for p in sorted(out.iterdir()) if p not in before and p.name != ".mlflow.lock"] == []


def test_the_symbolic_algorithms_are_listed(lmrl):
    rows = {r["id"]: r for r in lmrl("algorithms", "--json").json}
    kinds = [rows[name]["kind"] for name in ("rllib-dqn", "rllib-offline-dqn", "tabular-q")]
    assert kinds == ["online", "offline", "offline"]
    assert is_symbolic("rllib-dqn", "x")
    assert is_symbolic("x", "maze-symbolic")
    assert not is_symbolic("ilql", "maze-fo")


@pytest.mark.slow
def test_dqn_of_rllib_finds_the_best_way_from_every_start(lmrl, out, ray_cluster):
    answer = lmrl("train", "rllib-dqn", "maze-symbolic", "--out", out, "--name", "dqn", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.json["raw_return"] == pytest.approx(OPTIMUM)
    q = np.array(json.loads((out / "dqn" / "q_values.json").read_text())["q"])
    assert greedy_return(q) == pytest.approx(OPTIMUM)
    steps = [entry.step for entry in read(out / "dqn" / "metrics.jsonl")]
    assert steps == sorted(steps)
    assert steps[-1] >= resolve("rllib-dqn", "maze-symbolic").algorithm.env_steps


@pytest.mark.slow
def test_dqn_of_rllib_learns_the_same_values_from_the_same_seed(ray_cluster, monkeypatch):
    monkeypatch.setattr(dqn, "_REPORT_EVERY", 100)  # it ends at one
    short = DQNConfig(env_steps=1_200)
    first, second = (
        dqn.learn(short, {}, seed=2**32 + 3, report=lambda step, metrics: None) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_dqn_of_rllib_learns_the_best_way_and_the_exact_values_from_the_data(lmrl, out, ray_cluster):
    options = ("--set", "data_episodes=1240", "--out", out, "--name")
    answer = lmrl("train", "rllib-offline-dqn", "maze-symbolic", *options, "dqn", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.json["raw_return"] == pytest.approx(OPTIMUM)
    assert lmrl("train", "tabular-q", "maze-symbolic", *options, "exact").code == 0
    learnt, exact = (json.loads((out / run / "q_values.json").read_text())["q"] for run in ("dqn", "exact"))
    goal = SymbolicMaze().cells.index(SymbolicMaze().maze.layout.goal)
    assert [row for row in exact if None in row] == [exact[goal]]  # the data show every move but the goal's
    learnt, exact = (np.delete(np.array(q, dtype=float), goal, axis=0) for q in (learnt, exact))
    assert np.abs(learnt - exact).max() < 0.2
    assert [entry.step for entry in read(out / "dqn" / "metrics.jsonl")] == list(range(200, 2_001, 200))


@pytest.mark.slow
def test_dqn_of_rllib_learns_the_same_values_from_the_same_data_and_seed(ray_cluster):
    moves = transitions([MAZE.data_episode(MAZE.make(), seed) for seed in range(20)], SymbolicMaze())
    short = OfflineDQNConfig(updates=30)

    def learn(seed):
        return offline_dqn.learn(moves, short, {}, seed=seed, report=lambda step, metrics: None)

    np.testing.assert_array_equal(learn(3), learn(3))
    assert not np.array_equal(learn(3), learn(4))
