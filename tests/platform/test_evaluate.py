"""Scores against numbers worked out by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from support import episode_of

from algos.play import PlayedEpisode
from envs.registry import get_task
from lmrl_ray.config import ConfigError
from lmrl_ray.evaluate import (
    episodes_of,
    evaluate_baseline,
    requests_for,
    score,
    standard_error,
)
from lmrl_ray.seeding import episode_seed, evaluation_seed


def played(index, task_id, *rewards, success=False, cut=0, invalid=0, error=None):
    """An episode of one action a reward; the first `invalid` of them are not understood."""
    parts = [("?\n", False)]
    for reward in rewards:
        parts += [("x\n", True, reward), ("no\n", False)]
    episode = episode_of(*parts, task="toy", success=success, task_id=task_id, error=error)
    actions = [i for i, s in enumerate(episode.segments) if s.is_action][:invalid]
    segments = [replace(s, valid=i not in actions) for i, s in enumerate(episode.segments)]
    return PlayedEpisode(index, replace(episode, segments=tuple(segments)), None, cut)


def test_a_score_is_what_it_is_by_hand(toy):
    spec = replace(get_task("toy"), eval_tasks=None)
    found = score(
        spec,
        "me",
        [
            played(0, 0, -1.0, 0.0, success=True),
            played(1, 1, -1.0, -1.0, -1.0, invalid=2, cut=1),
            played(2, 0, 0.0, success=True),
            played(3, 1, -1.0, -1.0, -1.0, -1.0, cut=2),
        ],
    )
    assert (found.policy, found.episodes, found.failed, found.simulator) == ("me", 4, 0, "rule")
    assert found.raw_return == -2.0
    # Returns -1, -3, 0, -4: squares about -2 are 1, 1, 4, 4; s^2 = 10 / 3, standard error sqrt(10 / 12).
    half = 1.96 * math.sqrt(10 / 12)
    assert found.ci95 == pytest.approx((-2 - half, -2 + half))
    assert found.normalized_score == 50.0
    assert found.success_rate == 0.5
    assert found.mean_length == 2.5
    assert found.invalid_rate == 0.2
    assert found.cut_rate == 0.3


def test_failed_episodes_are_counted_and_in_no_other_figure(toy):
    spec = get_task("toy")
    sound = [played(0, 0, -1.0), played(1, 1, -3.0, success=True)]
    broken = [played(2, 2, -50.0, invalid=1, cut=7, error="it broke")]
    assert score(spec, "me", sound + broken) == replace(score(spec, "me", sound), failed=1)


def test_no_score_of_nothing(toy):
    spec = get_task("toy")
    with pytest.raises(ConfigError, match="it broke"):
        score(spec, "me", [played(0, 0, error="it broke")])
    with pytest.raises(ConfigError, match="none was asked for"):
        score(spec, "me", [])


def test_the_standard_error_of_a_plain_sample():
    assert standard_error(np.array([1.0, 2.0, 3.0, 4.0]), [0, 0, 1, 1], False) == pytest.approx(
        math.sqrt(5 / 3 / 4)
    )


def test_with_fixed_tasks_only_the_spread_within_them_counts():
    values = np.array([1.0, 3.0, 100.0, 100.0, 102.0, 104.0])
    # Weights 1/3 and 2/3; s^2 are 2 and 11/3: (1/9)(2/2) + (4/9)(11/3)/4 = 14/27.
    assert standard_error(values, [7, 7, 3, 3, 3, 3], True) == pytest.approx(math.sqrt(14 / 27))
    assert standard_error(np.array([5.0, 5.0, 9.0, 9.0]), [0, 0, 1, 1], True) == 0.0


def test_a_task_that_was_played_once_says_nothing_of_the_spread_within_it():
    values = np.array([1.0, 2.0, 6.0])
    assert standard_error(values, [0, 0, 1], True) == standard_error(values, [0, 0, 1], False)


def test_one_episode_has_no_interval_and_its_row_is_json_all_the_same(toy):
    found = score(get_task("toy"), "me", [played(0, 0, -1.0)])
    assert all(math.isnan(x) for x in found.ci95)
    row = json.loads(json.dumps(found.row(), allow_nan=False))
    assert row["ci95"] is None
    assert row["raw_return"] == -1.0


def test_the_metrics_of_a_score_are_numbers_alone(toy):
    found = score(get_task("toy"), "me", [played(0, 0, -1.0), played(1, 1, -2.0)])
    metrics = found.metrics()
    assert metrics["return"] == -1.5
    assert metrics["normalized_score"] == found.normalized_score
    assert all(isinstance(v, float) for v in metrics.values())
    assert not {"policy", "ci95", "simulator"} & set(metrics)


@pytest.mark.parametrize(
    ("raw", "normalized"), [(-4.0, 0.0), (-3.0, 25.0), (-2.0, 50.0), (-1.0, 75.0), (0.0, 100.0)]
)
def test_the_normalised_score_is_0_50_100(toy, raw, normalized):
    assert score(get_task("toy"), "me", [played(0, 0, raw)]).normalized_score == normalized


def test_an_evaluation_walks_through_the_fixed_tasks_in_turn(toy):
    requests = requests_for(get_task("toy"), 12, 3, {})
    assert [r.index for r in requests] == list(range(12))
    assert [r.task_id for r in requests] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert [r.seed for r in requests] == [evaluation_seed(3, i) for i in range(12)]
    assert len({r.seed for r in requests}) == 12


@pytest.mark.parametrize("task", ["twenty-questions", "guess-my-city"])
def test_a_short_evaluation_is_spread_over_all_tasks(task):
    """They are sorted, by kind and by continent."""
    spec = get_task(task)
    some, all_of_them = (requests_for(spec, n, 3, {}) for n in (25, len(spec.eval_tasks)))
    assert set(some) < set(all_of_them)
    gaps = np.diff([r.task_id for r in some])
    assert gaps.max() - gaps.min() <= 1


def test_no_game_of_the_data_set_scores_what_was_learnt_from_it(toy):
    data = {episode_seed(3, i) for i in range(1000)}
    assert not data & {r.seed for r in requests_for(get_task("toy"), 1000, 3, {})}


def test_without_fixed_tasks_the_seed_draws_them(toy):
    assert {r.task_id for r in requests_for(get_task("toy-free"), 5, 0, {})} == {None}


def test_an_evaluation_asks_for_no_task_that_a_smaller_simulator_lacks():
    requests = requests_for(get_task("maze-fo"), 10, 0, {"layout": ["000", "101"], "goal": [0, 0]})
    assert [r.task_id for r in requests] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("task", ["maze-fo", "maze-po"])
def test_an_evaluation_walks_through_all_starts_of_a_bigger_maze(task):
    room = {"layout": ["0" * 8] * 5, "goal": [2, 2]}
    requests = requests_for(get_task(task), 78, 0, room)
    assert [r.task_id for r in requests] == [*range(39), *range(39)]


def test_naming_the_default_maze_changes_no_evaluation():
    spec = get_task("maze-fo")
    assert requests_for(spec, 60, 0, {"layout": "double_t", "goal": [8, 6]}) == requests_for(spec, 60, 0, {})


def test_another_seed_asks_for_other_episodes(toy):
    first, second = (requests_for(get_task("toy"), 50, seed, {}) for seed in (0, 1))
    assert not {r.seed for r in first} & {r.seed for r in second}


def test_how_many_episodes_a_protocol_asks_for(toy):
    spec = get_task("toy")
    assert episodes_of(spec, "quick", None) == 10
    assert episodes_of(spec, "paper", None) == 20
    assert episodes_of(spec, "paper", 3) == 3
    with pytest.raises(ConfigError, match="episodes: 0; expected at least 1"):
        episodes_of(spec, "quick", 0)


def test_the_best_baseline_of_the_toy_wins_and_the_random_one_does_not(toy):
    spec = get_task("toy")
    best = evaluate_baseline(spec, "optimal", episodes=20, seed=0)
    chance = evaluate_baseline(spec, "random", episodes=20, seed=0)
    assert (best.raw_return, best.normalized_score, best.success_rate) == (0.0, 100.0, 1.0)
    assert (best.mean_length, best.invalid_rate, best.cut_rate) == (1.0, 0.0, 0.0)
    assert chance.raw_return < 0.0
    assert chance == evaluate_baseline(spec, "random", episodes=20, seed=0)
    assert chance != evaluate_baseline(spec, "random", episodes=20, seed=1)


def test_a_simulator_that_raises_fails_a_baselines_episode_too(toy):
    spec = get_task("toy")
    found = evaluate_baseline(spec, "random", episodes=20, seed=0, env={"raises_in": (2,)})
    assert found.failed > 0
    assert found.failed + found.episodes == 20
