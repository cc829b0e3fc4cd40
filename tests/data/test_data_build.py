"""Building a data set, importing a published one, and counting what is in it."""

import json
import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from episode_samples import TASK, any_episode, numbered
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_files import write

from envs.core import Segment
from envs.registry import UnknownTaskError, get_task
from lmrl_ray.data import (
    DataError,
    EpisodeDataset,
    ShardReader,
    build,
    check_own,
    import_published,
    outcomes,
    own_path,
    stats,
)
from lmrl_ray.data.builder import CHUNK
from lmrl_ray.seeding import episode_seed


def test_a_build_is_the_data_episodes_in_order(tmp_path, count_up):
    count = CHUNK + 10
    dataset = build(count_up, count, 3, tmp_path / "a.parquet")
    spec = get_task(count_up)
    expected = [spec.data_episode(spec.make(), episode_seed(3, i)) for i in range(count)]
    assert list(dataset) == expected
    assert dataset.metadata.build["seed"] == 3
    assert dataset.metadata.build["episodes"] == count
    dataset.verify()


def test_a_build_is_determined_by_its_arguments(tmp_path, count_up):
    def built(episodes=70, seed=0, **env_kwargs):
        path = tmp_path / "a.parquet"
        return build(count_up, episodes, seed, path, env_kwargs=env_kwargs).fingerprint

    assert built() == built()
    assert len({built(), built(seed=1), built(episodes=71), built(target=9)}) == 4


def test_the_data_of_a_task_have_a_file_for_each_size_seed_and_environment(tmp_path):
    plain = own_path(tmp_path, "chess", 5, 0, {})
    assert plain == tmp_path / "data" / "chess-5-s0.parquet"
    envs = [{"elo": 9}, {"elo": 8}, {"elo": 9, "nodes": 5}]
    assert len({plain, *(own_path(tmp_path, "chess", 5, 0, env) for env in envs)}) == 4
    other_order = {"nodes": 5, "elo": 9}
    assert own_path(tmp_path, "chess", 5, 0, other_order) == own_path(tmp_path, "chess", 5, 0, envs[2])


def test_a_task_of_one_s_own_has_other_data_when_its_rules_are_edited(tmp_path, count_up, monkeypatch):
    before = own_path(tmp_path, count_up, 5, 0, {})
    edited = tmp_path / "edited.py"
    edited.write_text(Path(sys.modules["episode_samples"].__file__).read_text() + "\nREWARD = -7\n")
    monkeypatch.setattr(sys.modules["episode_samples"], "__file__", str(edited))
    assert own_path(tmp_path, count_up, 5, 0, {}) != before


def test_data_that_were_built_with_other_arguments_are_noticed(tmp_path, count_up):
    dataset = build(count_up, 5, 3, tmp_path / "a.parquet", env_kwargs={"target": 9})
    check_own(dataset, count_up, 5, 3, {"target": 9})
    with pytest.raises(DataError, match=r"a\.parquet: .*\(env_kwargs: found {'target': 9}, expected {}\)"):
        check_own(dataset, count_up, 5, 3, {})
    with pytest.raises(DataError, match=r"\(seed: found 3, expected 0; episodes: found 5, expected 6\)"):
        check_own(dataset, count_up, 6, 0, {"target": 9})
    mine = EpisodeDataset(write(tmp_path / "mine.parquet", [numbered(0)]))
    with pytest.raises(DataError, match=r"seed: found None, expected 0.*--data"):
        check_own(mine, TASK, 1, 0, {})


def test_progress_ends_at_the_number_of_episodes(tmp_path, count_up):
    seen = []
    build(count_up, CHUNK + 6, 0, tmp_path / "a.parquet", progress=seen.append)
    assert seen == [CHUNK, CHUNK + 6]


def test_an_error_of_the_simulator_names_the_episode_and_leaves_nothing(tmp_path, count_up):
    with pytest.raises(ValueError, match="the simulator broke") as caught:
        build(count_up, 5, 0, tmp_path / "a.parquet", env_kwargs={"explode": True})
    assert caught.value.__notes__ == ["in episode 0 of task count-up, data seed 0"]
    assert os.listdir(tmp_path) == []


def test_a_build_refuses_what_makes_no_sense(tmp_path, count_up):
    with pytest.raises(UnknownTaskError, match="Did you mean 'count-up'"):
        build("count-upp", 5, 0, tmp_path / "a.parquet")
    for wrong in ({"episodes": 0}, {"workers": 0}):
        arguments = {"episodes": 1, "seed": 0, "path": tmp_path / "a.parquet", **wrong}
        with pytest.raises(ValueError, match="must be at least 1"):
            build(count_up, **arguments)
    with pytest.raises(TypeError):
        build(count_up, 1, 0, tmp_path / "a.parquet", env_kwargs={"no_such": 1})
    assert os.listdir(tmp_path) == []


# --- import ---


def test_a_published_file_is_imported(tmp_path, count_up):
    source = tmp_path / "numbers.txt"
    source.write_text("".join(f"{TASK} {i}\n" for i in range(150)))
    seen = []
    dataset = import_published(count_up, source, tmp_path / "a.parquet", progress=seen.append)
    assert list(dataset) == [numbered(i) for i in range(150)]
    assert dataset.metadata.build["published"] == "numbers.txt"
    assert seen[-1] == 150


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("count-up 1\ncount-up x\n", r"numbers\.txt, line 2: value is 'x', not a number"),
        ("count-up 1\nmaze-fo 2\n", "episode 1 is of task 'maze-fo', but .* 'count-up'"),
        ("", "holds no episodes"),
        (None, "No such file"),
    ],
)
def test_an_import_that_fails_says_why_and_leaves_nothing(tmp_path, count_up, content, message):
    source, target = tmp_path / "numbers.txt", tmp_path / "out" / "a.parquet"
    if content is not None:
        source.write_text(content)
    with pytest.raises(DataError, match=message):
        import_published(count_up, source, target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("reward", ["NaN", "1" + 400 * "0"])
def test_a_published_reward_that_is_no_finite_number_is_refused(tmp_path, reward):
    source, target = tmp_path / "steps.jsonl", tmp_path / "out" / "a.parquet"
    step = '{"from_state": "8/8/8/8/8/8/k1K5/1Q6 w - - 0 1", "action": "Qb3", "reward": '
    source.write_text(step + reward + "}\n")
    with pytest.raises(DataError, match=r"cannot import steps\.jsonl: .*(not all finite|too large)"):
        import_published("chess-endgames", source, target)
    assert list(target.parent.iterdir()) == []


# --- a task of the benchmark ---


def test_the_maze_goes_all_the_way(tmp_path):
    dataset = build("maze-fo", 300, 0, tmp_path / "a.parquet")
    dataset.verify()
    reader = ShardReader(dataset, dataset.plan(0), batch_size=300)
    assert sorted(e.seed for e in reader.batch(0)) == sorted(e.seed for e in dataset)
    found = stats(dataset)
    assert found["mean_length"] == np.mean([e.length for e in dataset])
    assert found["failed"] == found["invalid_rate"] == 0


START = "Your current position is at position 3, 1.\n"


def test_published_chess_is_no_maze(tmp_path):
    games = Path(__file__).parents[1] / "fixtures" / "chess" / "games.jsonl"
    with pytest.raises(DataError, match=r"line 1: step 0 state: expected a position in the maze"):
        import_published("maze-fo", games, tmp_path / "a.parquet")


def test_a_published_maze_file_is_imported_as_its_own_task_alone(tmp_path):
    source, target = tmp_path / "maze.jsonl", tmp_path / "a.parquet"
    steps = [
        {
            "state": "Your current position is at position 3, 1.\n",
            "action": "move up\n",
            "reward": -1,
            "done": False,
        },
        {"state": "there\n", "action": "move left\n", "reward": 0, "done": True},
    ]
    source.write_text(json.dumps(steps) + "\n")
    (episode,) = import_published("maze-fo", source, target)
    assert [s.text for s in episode.segments if s.is_action] == ["move up\n", "move left\n"]
    assert episode.total_return == -1
    with pytest.raises(DataError, match="of task 'maze-fo', but this data set is of 'maze-po'"):
        import_published("maze-po", source, tmp_path / "b.parquet")
    source.write_text(json.dumps(steps) + "\n{]\n")
    with pytest.raises(DataError, match=r"maze\.jsonl: line 2: not JSON"):
        import_published("maze-fo", source, target)
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "maze.jsonl"]
    assert list(EpisodeDataset(target)) == [episode]


# --- statistics ---


@settings(max_examples=60, deadline=None)
@given(
    episodes=st.lists(any_episode().filter(lambda e: abs(e.total_return) < 1e100), max_size=9),
    row_group_size=st.integers(1, 4),
)
def test_statistics_equal_those_of_the_episodes(tmp_path_factory, episodes, row_group_size):
    path = tmp_path_factory.getbasetemp() / "stats.parquet"
    write(path, episodes, row_group_size=row_group_size)
    found = stats(path)
    played = [e for e in episodes if e.error is None]
    actions = [s for e in played for s in e.segments if s.is_action]
    assert found["episodes"] == len(played)
    assert found["failed"] == len(episodes) - len(played)
    expected = {
        "mean_length": [e.length for e in played],
        "success_rate": [e.success for e in played],
        "mean_return": [e.total_return for e in played],
        "truncated_rate": [e.truncated for e in played],
        "invalid_rate": [not s.valid for s in actions],
    }
    for key, values in expected.items():
        mean = np.mean(values) if values else math.nan
        assert found[key] == pytest.approx(mean, rel=1e-9, nan_ok=True), key
    deviations = {"std_length": expected["mean_length"], "std_return": expected["mean_return"]}
    for key, values in deviations.items():
        std = np.std(values) if values else math.nan
        scale = max(map(abs, values), default=0)
        assert found[key] == pytest.approx(std, rel=1e-9, abs=1e-12 * scale, nan_ok=True), key


def test_statistics_of_a_large_offset_are_stable(tmp_path):
    rewards = 1e9 + np.arange(100) % 2
    episodes = [replace(numbered(0), segments=(Segment("a\n", True, float(r)),)) for r in rewards]
    found = stats(write(tmp_path / "a.parquet", episodes, row_group_size=7))
    assert found["std_return"] == pytest.approx(0.5, rel=1e-6)


def test_outcomes_are_aligned_with_the_episodes(tmp_path):
    episodes = [numbered(i, turns=i + 1, error="crashed" if i == 2 else None) for i in range(5)]
    dataset = EpisodeDataset(write(tmp_path / "a.parquet", episodes, row_group_size=2))
    total, success = outcomes(dataset)
    np.testing.assert_array_equal(total, [-1, -2, -np.inf, -4, -5])
    np.testing.assert_array_equal(success, [e.success and e.error is None for e in episodes])


def test_statistics_of_a_dataset_and_of_its_path_agree(tmp_path):
    path = write(tmp_path / "a.parquet", [numbered(i) for i in range(5)])
    assert stats(path) == stats(EpisodeDataset(path)) == stats(str(path))


# --- documentation ---


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[2] / "docs" / "data_format.md"
    examples = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for example in examples:
        exec(compile(example, page.name, "exec"), {})
    assert len(examples) == 4
    assert '"task": "maze-fo"' in capsys.readouterr().out.replace("'", '"')
