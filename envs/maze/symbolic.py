"""The maze without words: the cell's number in, the number of a move out (LMRL-Gym, appendix H).

The same game as `maze-fo`, which it plays: same map, starts, moves, rewards and end. A method that
solves this one but not the text has its trouble with the text, not with the maze.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium

from envs.maze.env import MazeEnv
from envs.maze.layout import ACTIONS, Cell


class SymbolicMaze(gymnasium.Env[int, int]):
    """Observation i is the free cell i in reading order, the goal among them; action i is `ACTIONS[i]`.

    Args:
        layout, goal: as for `MazeEnv`. Every action is one of the four, so nothing is ever invalid.
    """

    def __init__(self, layout: str | Sequence[str] = "double_t", goal: Sequence[int] | None = None) -> None:
        self.maze = MazeEnv(observe="full", layout=layout, goal=goal)
        self.cells = self.maze.layout.cells
        self._numbers: dict[Cell, int] = {cell: i for i, cell in enumerate(self.cells)}
        self.observation_space = gymnasium.spaces.Discrete(len(self.cells))
        self.action_space = gymnasium.spaces.Discrete(len(ACTIONS))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Start where `maze-fo` starts with the same seed and options (`task_id`: the start's number)."""
        super().reset(seed=seed)
        _, info = self.maze.reset(seed=seed, options=options)
        return self._numbers[self.maze.cell], info

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """As `MazeEnv.step`, with the cell in place of the text; so a time-out, which hides no cell, is
        truncated."""
        _, reward, over, _, info = self.maze.step(ACTIONS[action])
        return self._numbers[self.maze.cell], reward, info["success"], over and not info["success"], info
