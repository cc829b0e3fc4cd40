"""Players of the maze that learn nothing: uniformly random, and the two exact optima.

Fully observed, the optimum is a shortest way (mean return -6.84 over the paper's 25 starts).
Partially observed, it is the best plan over beliefs, the sets of cells where the player may be:
walls are seen and moves are certain, so that a belief is a plain set, and dynamic programming over
the few reachable ones is exact (-7.24; the paper's -25.75 for this task is not a bound).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from envs.core import ScriptedPolicy, TextEnv
from envs.maze.env import SUCCESS, MazeEnv, describe
from envs.maze.layout import ACTIONS, Cell, Layout

Belief = frozenset[Cell]
Plan = dict[Belief, str]


def maze_of(env: TextEnv) -> MazeEnv:
    """The environment as a maze; TypeError for another one."""
    if not isinstance(env, MazeEnv):
        raise TypeError(f"this policy plays MazeEnv, not {type(env).__name__}")
    return env


class RandomPolicy(ScriptedPolicy):
    """One of the four moves, all equally likely."""

    name = "random"

    def act(self, observation: str) -> str:
        return ACTIONS[int(self.rng.random() * len(ACTIONS))]


class OptimalFullPolicy(ScriptedPolicy):
    """A shortest way, from the observation alone."""

    name = "optimal"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        layout = maze_of(env).layout
        way = layout.way(layout.goal)
        self._action = {describe(layout, cell, "full"): move for cell, move in way.items()}

    def act(self, observation: str) -> str:
        return self._action[observation]


class OptimalPartialPolicy(ScriptedPolicy):
    """The best plan with memory, from the walls alone and a uniformly drawn start."""

    name = "optimal"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._layout = maze_of(env).layout
        self._plan, _ = solve_beliefs(self._layout)
        self._possible: Iterable[Cell] = self._layout.starts

    def act(self, observation: str) -> str:
        self._belief = sightings(self._layout, self._possible)[observation]
        action = self._plan[self._belief]
        self.played(action)
        return action

    def played(self, action: str) -> None:
        moves = action in ACTIONS
        self._possible = [self._layout.after(c, action) if moves else c for c in self._belief]


def sightings(layout: Layout, cells: Iterable[Cell]) -> dict[str, Belief]:
    """Cells where the player may be, by what is seen there (`SUCCESS` at the goal)."""
    seen: dict[str, set[Cell]] = {}
    for cell in cells:
        text = SUCCESS if cell == layout.goal else describe(layout, cell, "partial")
        seen.setdefault(text, set()).add(cell)
    return {text: frozenset(group) for text, group in seen.items()}


@lru_cache(maxsize=16)
def solve_beliefs(layout: Layout) -> tuple[Plan, dict[Belief, int]]:
    """The best action in each belief, and its cost: moves to the goal, summed over its cells.

    A belief never loses a cell to another: cells that look alike have the same walls, so that they
    all move or all stay. Costs are whole numbers that only grow, from 0, until they are right.
    """
    after = _reachable(layout)
    cost = dict.fromkeys(after, 0)

    def cost_of(belief: Belief, action: str) -> int:
        return len(belief) + sum(cost[new] for new in after[belief][action])

    changed = True
    while changed:
        new = {b: min(cost_of(b, action) for action in ACTIONS) for b in after}
        changed, cost = new != cost, new
    plan = {b: min(ACTIONS, key=lambda action: cost_of(b, action)) for b in after}
    return plan, cost


def _reachable(layout: Layout) -> dict[Belief, dict[str, list[Belief]]]:
    """Every belief that may come up, with those that follow it, by action (without the goal)."""
    todo = list(sightings(layout, layout.starts).values())
    after: dict[Belief, dict[str, list[Belief]]] = {}
    while todo:
        belief = todo.pop()
        if belief in after:
            continue
        after[belief] = {}
        for action in ACTIONS:
            seen = sightings(layout, (layout.after(cell, action) for cell in belief))
            following = [group for text, group in seen.items() if text != SUCCESS]
            after[belief][action] = following
            todo += following
    return after
