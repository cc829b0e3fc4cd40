"""The moves of a data set of `maze-fo`, as the symbolic maze has them: numbers in place of texts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from envs.core import Episode
from envs.maze.env import FAILURE, SUCCESS, describe
from envs.maze.layout import ACTIONS
from envs.maze.symbolic import SymbolicMaze
from lmrl_ray.config import ConfigError

Transitions = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


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
