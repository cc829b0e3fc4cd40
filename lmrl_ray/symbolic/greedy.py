"""A table of Q values at play."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.core import ScriptedPolicy, TextEnv
from envs.maze.baselines import maze_of
from envs.maze.layout import ACTIONS, Cell


class GreedyTable(ScriptedPolicy):
    """The action of the greatest value in the player's cell, in the text maze too: it is the same game.

    It knows the cell from the environment, not from the text.
    """

    def __init__(self, name: str, q: NDArray[np.float64]) -> None:
        """`q`: [cells, 4], cells in reading order."""
        self.name = name
        self._best = [ACTIONS[int(i)] for i in q.argmax(1)]

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._maze = maze_of(env)
        self._numbers: dict[Cell, int] = {cell: i for i, cell in enumerate(self._maze.layout.cells)}

    def act(self, observation: str) -> str:
        return self._best[self._numbers[self._maze.cell]]
