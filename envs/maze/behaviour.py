"""The policy that makes the maze's data set: wandering, with a weak pull towards a waypoint.

Source: LMRL-Gym, appendix C.1: the maze falls into three T-shaped sub-mazes, each trajectory stays
in one, 15 % of the actions come from a suboptimal solver and 85 % are random, there are at most
100 moves, and only trajectories in the sub-maze of the goal reach it. The Ts meet in two cells, so
that a learner has to stitch trajectories. What the text leaves open is chosen here such that the
statistics are those of the paper's table 1 (docs/tasks/maze.md has them side by side).
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from envs.core import Episode, ScriptedPolicy, Segment, TextEnv
from envs.maze.baselines import maze_of
from envs.maze.env import MAX_MOVES, MazeEnv, describe
from envs.maze.layout import ACTIONS, DOUBLE_T, Cell, Layout
from envs.registry import TaskSpec, get_task

SOLVER_SHARE = 0.15
RUN_ON_SHARE = 0.055
"""Trajectories that do not stop at their waypoint but get another one, until the moves are up."""


class SubMaze(NamedTuple):
    """A part of the map that a trajectory keeps to, and its share of the trajectories."""

    cells: frozenset[Cell]
    share: float


LEFT_T = frozenset({(1, c) for c in range(1, 6)} | {(r, 3) for r in range(2, 6)})
RIGHT_T = frozenset({(1, c) for c in range(7, 12)} | {(r, 9) for r in range(2, 6)})
LOWER_T = frozenset({(5, c) for c in range(3, 10)} | {(r, 6) for r in range(6, 9)})
SUB_MAZES = (SubMaze(LEFT_T, 0.285), SubMaze(RIGHT_T, 0.285), SubMaze(LOWER_T, 0.43))


class BehaviourPolicy(ScriptedPolicy):
    """In each cell, the actions as often as the data set has them there, in the whole maze.

    This is what the paper calls the return of the data (-83), as opposed to the mean return of the
    trajectories. It knows the cell, which a player of the partially observed maze does not.
    """

    name = "behaviour"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._maze = maze_of(env)
        self._counts = action_counts(self._maze.layout)

    def act(self, observation: str) -> str:
        up_to = self._counts[self._maze.cell]
        return ACTIONS[bisect_right(up_to, self.rng.random() * up_to[-1])]


class Walk:
    """A walk inside `cells`, 85 % random and 15 % on the shortest way to a waypoint."""

    def __init__(self, maze: MazeEnv, cells: frozenset[Cell], rng: np.random.Generator) -> None:
        self._maze, self._rng = maze, rng
        self._ways, self._inside = _ways(maze.layout, cells), _inside(maze.layout, cells)
        self.choose_waypoint()

    @property
    def arrived(self) -> bool:
        return self._maze.cell == self._waypoint

    def choose_waypoint(self) -> None:
        """Another cell than the present one, all equally likely."""
        others = [cell for cell in self._ways if cell != self._maze.cell]
        self._waypoint = others[int(self._rng.random() * len(others))]

    def action(self) -> str:
        cell = self._maze.cell
        if self._rng.random() < SOLVER_SHARE:
            return self._ways[self._waypoint][cell]
        actions = self._inside[cell]
        return actions[int(self._rng.random() * len(actions))]


def data_episode(spec: TaskSpec, env: TextEnv, seed: int) -> Episode:
    """One trajectory of the data set, determined by the seed.

    One that stops at its waypoint, or after 100 moves, is `truncated`: nothing but the collector
    ended it, and its last observation is the true next one.
    """
    maze, rng = maze_of(env), np.random.default_rng([seed, 1])
    area = _draw_area(maze.layout, rng)
    starts = [i for i, cell in enumerate(maze.layout.starts) if cell in area]
    observation, info = maze.reset(seed=seed, options={"task_id": starts[int(rng.random() * len(starts))]})
    walk, runs_on = Walk(maze, area, rng), rng.random() < RUN_ON_SHARE
    segments = [Segment(observation, is_action=False)]
    success = False
    while info["turn"] < MAX_MOVES and not success and (runs_on or not walk.arrived):
        if walk.arrived:
            walk.choose_waypoint()
        action = walk.action()
        observation, reward, success, _, info = maze.step(action)
        segments.append(Segment(action, is_action=True, reward=reward))
        segments.append(Segment(observation, is_action=False))
    return Episode(
        task=spec.id,
        segments=tuple(segments),
        terminated=success,
        truncated=not success,
        success=success,
        seed=seed,
        task_id=info["task_id"],
        simulator=env.simulator,
        policy="behaviour",
    )


@lru_cache(maxsize=16)
def action_counts(layout: Layout) -> dict[Cell, list[int]]:
    """By cell, how often the data set has each of `ACTIONS` or one before it (cumulated).

    Counted in the 1,240 trajectories of the seeds from 0 on; each action starts at one, so that a
    cell that they never visit is played at random.
    """
    maze, spec = MazeEnv(layout=layout.rows, goal=layout.goal), get_task("maze-fo")
    counts = {describe(layout, cell, "full"): [1] * len(ACTIONS) for cell in layout.starts}
    for seed in range(spec.data_episodes):
        segments = data_episode(spec, maze, seed).segments
        for seen, done in zip(segments[::2], segments[1::2], strict=False):
            counts[seen.text][ACTIONS.index(done.text)] += 1
    return dict(zip(layout.starts, (list(accumulate(c)) for c in counts.values()), strict=True))


def _draw_area(layout: Layout, rng: np.random.Generator) -> frozenset[Cell]:
    """A sub-maze by its share; another map than the paper's is one area."""
    if layout.rows != DOUBLE_T.rows:
        return frozenset(layout.cells)
    draw = rng.random()
    for cells, share in SUB_MAZES[:-1]:
        if draw < share:
            return cells
        draw -= share
    return SUB_MAZES[-1].cells


@lru_cache(maxsize=64)
def _ways(layout: Layout, cells: frozenset[Cell]) -> dict[Cell, dict[Cell, str]]:
    """The first move of a shortest way inside `cells`, by waypoint and cell."""
    return {target: layout.way(target, cells) for target in sorted(cells)}


@lru_cache(maxsize=64)
def _inside(layout: Layout, cells: frozenset[Cell]) -> dict[Cell, list[str]]:
    """The actions that do not leave `cells` (bumping into a wall does not), by cell."""
    return {cell: [action for action in ACTIONS if layout.after(cell, action) in cells] for cell in cells}
