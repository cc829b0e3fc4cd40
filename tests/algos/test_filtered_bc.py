"""Filtered BC: exactly so many episodes are kept, and imitating the best beats imitating all (T14)."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from small_games import LIGHTS, Lights, requests_of, returns
from support import fit, tiny_language_model
from test_ilql import game
from test_ppo import ALL, RANDOM, improve, random_player

from algos.base import WorkerGroup
from algos.batch import pack
from algos.filtered_bc import (
    FilteredBC,
    FilteredBCConfig,
    OnlineFilteredBC,
    OnlineFilteredBCConfig,
    best_episodes,
)
from algos.tokens import encode_episode

RETURNS = np.array([-4, -4, -4, -2, -2, -1, -1, -1, -1, 0], dtype=float)
NOBODY = np.zeros(10, dtype=bool)


def kept(seed=0, successes=NOBODY, **config):
    return best_episodes(RETURNS, successes, FilteredBCConfig(**config), np.random.default_rng(seed))


def test_exactly_the_asked_for_share_is_kept_where_returns_tie():  # T14: >= keeps 5, > keeps 1
    found = kept(fraction=0.3)
    assert found.sum() == 3
    assert found[9]
    assert RETURNS[found].tolist() == [-1, -1, 0]


@pytest.mark.parametrize(
    ("fraction", "n", "k"), [(0.07, 100, 7), (0.14, 50, 7), (0.55, 100, 55), (0.1, 11, 2)]
)
def test_a_share_that_rounding_makes_a_little_more_is_not_one_episode_more(fraction, n, k):
    found = best_episodes(
        np.arange(n), np.zeros(n), FilteredBCConfig(fraction=fraction), np.random.default_rng(0)
    )
    assert found.sum() == k


@pytest.mark.parametrize("cut", [0, 1, 4, 10])
def test_the_best_of_a_round_are_kept_however_the_workers_share_it(cut):
    algorithm = OnlineFilteredBC(OnlineFilteredBCConfig(fraction=0.3), tiny_language_model(["a"]))
    episodes = [game((0, [1], reward)) for reward in (3, -1, 7, 5, 2, -4, 6, 0, 1, 4)]
    shares, gathered, both = (episodes[:cut], episodes[cut:]), {}, Barrier(2)

    def prepare(rank):
        def gather(mine):
            gathered[rank] = mine
            both.wait(30)
            return torch.cat([gathered[0], gathered[1]])

        return algorithm.prepare(shares[rank], WorkerGroup(gather=gather)).episodes

    with ThreadPoolExecutor(2) as threads:
        kept = [e.reward.sum() for part in threads.map(prepare, range(2)) for e in part]
    assert kept == [7, 5, 6]


def test_ties_are_broken_by_the_seed():
    choices = {tuple(np.flatnonzero(kept(seed, fraction=0.3))) for seed in range(30)}
    assert len(choices) > 1
    assert tuple(np.flatnonzero(kept(3, fraction=0.3))) == tuple(np.flatnonzero(kept(3, fraction=0.3)))


def test_successes_alone_are_kept():
    won = np.arange(10) % 4 == 0
    np.testing.assert_array_equal(kept(successes=won, keep="successes"), won)


def test_an_episode_that_failed_is_never_among_the_best():
    def best(*values):
        nobody = np.zeros(len(values))
        config = FilteredBCConfig(fraction=0.5)
        return best_episodes(np.array(values), nobody, config, np.random.default_rng(0)).tolist()

    assert best(-np.inf, -3.0, -2.0) == [False, False, True]  # half of the two that did not fail
    assert best(-np.inf, -np.inf) == [False, False]


def scored(model):
    """All games of the data, with what each earned."""
    won = [
        (e.segments[0].text, e.segments[1].text) in (("red\n", "stop\n"), ("green\n", "go\n"))
        and e.segments[3].text == e.segments[0].text
        for e in RANDOM
    ]
    return [encode_episode(e, model.codec, ALL) for e in RANDOM], np.array(won)


@pytest.mark.slow
def test_imitating_the_best_wins_where_imitating_all_does_not():
    model = random_player()
    assert (
        np.mean(returns(LIGHTS, Lights, FilteredBC(FilteredBCConfig(), model).policy(), requests_of(100, 2)))
        < 0.5
    )
    algorithm = FilteredBC(FilteredBCConfig(fraction=0.25), model)
    tokens, won = scored(model)
    chosen = algorithm.select(won.astype(float), won, np.random.default_rng(0))
    fit(algorithm, pack([t for t, k in zip(tokens, chosen, strict=True) if k], 4000), steps=150, lr=1e-2)
    assert np.mean(returns(LIGHTS, Lights, algorithm.policy(), requests_of(100, 2))) > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best", "successes"])
def test_imitating_ones_own_best_games_learns_to_win(keep):
    algorithm = OnlineFilteredBC(OnlineFilteredBCConfig(keep=keep), random_player())
    improve(algorithm, rounds=20, lr=3e-3)
    assert np.mean(returns(LIGHTS, Lights, algorithm.policy(), requests_of(200, 2))) > 0.95


def test_all_actions_of_an_episode_that_is_kept_are_learnt():
    model = tiny_language_model(sorted({s.text for e in RANDOM for s in e.segments}))
    algorithm = OnlineFilteredBC(OnlineFilteredBCConfig(fraction=1.0), model)
    tokens, _ = scored(model)
    episodes = algorithm.prepare(tokens, WorkerGroup()).episodes
    assert sum(b.num_actions for b in pack(episodes, 4000)) == sum(int(t.is_action.sum()) for t in tokens)


@pytest.mark.parametrize("keep", ["best", "successes"])
def test_a_return_that_is_no_number_is_an_error(keep):
    returns = np.array([1.0, np.nan, np.nan])
    with pytest.raises(ValueError, match="2 episodes have a return that is no number"):
        best_episodes(returns, returns > 0, FilteredBCConfig(keep=keep), np.random.default_rng(0))
