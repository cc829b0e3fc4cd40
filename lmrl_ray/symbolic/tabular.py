"""Tabular Q-iteration on a data set: the offline optimum of what the data show, without a network.

    Q(s, a) <- mean over the data's (s, a, r, s') of r + gamma * max_{a' seen in s'} Q(s', a')

until nothing changes. Only actions that the data show in a cell have a value there, as in batch-constrained
Q-learning (Fujimoto et al. 2019): what was never tried is not hoped for. It stands where LMRL-Gym's
appendix H has CQL: RLlib's offline value-based methods (CQL, IQL) take continuous actions alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from envs.core import Episode
from envs.maze.env import FAILURE, SUCCESS, describe
from envs.maze.layout import ACTIONS
from envs.maze.symbolic import SymbolicMaze
from lmrl_ray.config import ConfigError
from lmrl_ray.symbolic.config import TabularQConfig

Transitions = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def learn(episodes: Iterable[Episode], env: SymbolicMaze, config: TabularQConfig) -> NDArray[np.float64]:
    """Q [cells, 4]; minus infinity for an action that the data do not show in the cell."""
    cells, actions, rewards, following = transitions(episodes, env)
    shape = (len(env.cells), len(ACTIONS))
    seen = np.zeros(shape)
    np.add.at(seen, (cells, actions), 1.0)
    q = np.where(seen > 0, 0.0, -np.inf)
    floor = rewards.min() / (1 - config.gamma)  # of a cell that the data reach but never leave
    while True:
        value = np.where(seen.any(1), q.max(1), floor)
        targets = rewards + config.gamma * np.where(following >= 0, value[following], 0.0)
        total = np.zeros(shape)
        np.add.at(total, (cells, actions), targets)
        new: NDArray[np.float64] = np.divide(total, seen, out=np.full(shape, -np.inf), where=seen > 0)
        if np.abs(new[seen > 0] - q[seen > 0]).max() < config.tolerance:
            return new
        q = new


def transitions(episodes: Iterable[Episode], env: SymbolicMaze) -> Transitions:
    """Cell, action, reward, next cell of each move; next is -1 after the goal.

    An action that is no move, and the one that finds the time up, tell nothing about the maze and are
    left out. ConfigError where an observation is none of this maze's, or no move is left.
    """
    numbers = {describe(env.maze.layout, cell, "full"): i for i, cell in enumerate(env.cells)}
    numbers[SUCCESS] = -1
    known = {action: i for i, action in enumerate(ACTIONS)}
    rows = []
    for episode in episodes:
        texts = episode.segments
        for before, action, after in zip(texts[::2], texts[1::2], texts[2::2], strict=False):
            if action.text not in known or after.text == FAILURE:
                continue
            try:
                rows.append((numbers[before.text], known[action.text], action.reward, numbers[after.text]))
            except KeyError as error:
                raise ConfigError(f"data: {error.args[0]!r} is no observation of this maze") from None
    if not rows:
        raise ConfigError("data: there is no move in it to learn from")
    cells, actions, rewards, following = (np.array(column) for column in zip(*rows, strict=True))
    return cells, actions, rewards.astype(np.float64), following
