"""The symbolic maze is the text maze, move for move."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import make
from envs.maze.baselines import OptimalFullPolicy
from envs.maze.env import describe
from envs.maze.layout import ACTIONS
from envs.maze.symbolic import SymbolicMaze

OTHER = {"layout": ["0001", "0100", "0010"], "goal": (2, 3)}


def both(env, text, seed, actions, task_id=None):
    """Play the same actions in both; yields (symbolic, text) results, the reset first."""
    options = None if task_id is None else {"task_id": task_id}
    yield env.reset(seed=seed, options=options), text.reset(seed=seed, options=options)
    for action in actions:
        symbolic, told = env.step(int(action)), text.step(ACTIONS[action])
        yield symbolic, told
        if told[2] or told[3]:
            return


@pytest.mark.parametrize("arguments", [{}, {"layout": "umaze"}, OTHER])
def test_same_actions_give_the_same_cells_rewards_and_end(arguments):
    env, text = SymbolicMaze(**arguments), make("maze-fo", **arguments)
    rng = np.random.default_rng(0)
    ends = set()
    for seed in range(60):
        # Half of the players know the way, so that games end at the goal and by the limit.
        policy = OptimalFullPolicy()
        observation, _ = text.reset(seed=seed)
        policy.begin(text, observation, rng)
        way = list(rng.integers(4, size=120))
        if seed % 2:
            way = []
            while observation != "Success\n":
                way.append(ACTIONS.index(policy.act(observation)))
                observation = text.step(ACTIONS[way[-1]])[0]
        turns = list(both(env, text, seed, way))
        for symbolic, told in turns:
            if told[0] == "Failure\n":  # where the text hides the cell, and so is no next state
                assert symbolic[1:] == (told[1], False, True, told[4])
                continue
            assert symbolic[1:] == told[1:]
            if told[0] != "Success\n":
                assert told[0] == describe(text.layout, env.cells[symbolic[0]], "full")
        ends.add(turns[-1][0][2:4])
    assert ends == {(True, False), (False, True)}


def test_every_move_from_every_start_is_the_same():
    env, text = SymbolicMaze(), make("maze-fo")
    for task_id in range(text.num_tasks):
        for action in range(4):
            _, (symbolic, told) = both(env, text, 0, [action], task_id)
            assert symbolic[1:] == told[1:]
            assert env.cells[symbolic[0]] == text.cell


def test_it_is_a_gymnasium_environment_of_cells_and_moves():
    env = SymbolicMaze()
    assert env.observation_space == gymnasium.spaces.Discrete(26)
    assert env.action_space == gymnasium.spaces.Discrete(4)
    check_env(env, skip_render_check=True)


def test_without_a_seed_the_starts_go_on_from_the_last_one():
    env = SymbolicMaze()
    runs = []
    for _ in range(2):
        runs.append([env.reset(seed=7)[0], *(env.reset()[0] for _ in range(20))])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 5
