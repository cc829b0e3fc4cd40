"""Tabular Q-iteration on a data set: the offline optimum of what the data show, without a network.

    Q(s, a) <- mean over the data's (s, a, r, s') of r + gamma * max_{a' seen in s'} Q(s', a')

until nothing changes. Only actions that the data show in a cell have a value there, as in batch-constrained
Q-learning (Fujimoto et al. 2019): what was never tried is not hoped for.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from envs.core import Episode
from envs.maze.layout import ACTIONS
from envs.maze.symbolic import SymbolicMaze
from lmrl_ray.symbolic.config import TabularQConfig
from lmrl_ray.symbolic.transitions import transitions


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
