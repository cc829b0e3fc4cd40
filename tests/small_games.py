"""Two games of two turns whose best play is known, and how to play them."""

from __future__ import annotations

from support import episode_of

from algos.play import EpisodeRequest, play
from algos.policy import Decoding
from envs.core import Outcome, TextEnv
from envs.registry import Scale, TaskSpec


def two_turns(name, **fields):
    """The spec of a game of two actions, of which the tests ask little."""
    return TaskSpec(
        id=name,
        family=name,
        description="",
        entry="",
        observation="dialogue",
        horizon=2,
        scale=Scale(0.0, None, None),
        max_action_tokens=8,
        baselines={},
        best_baseline="",
        data_episodes=0,
        table1={},
        **fields,
    )


class Stitch(TextEnv):
    """T4 as a game: first a (0) or b (-.5), then c (0) or d (1)."""

    def privileged(self):
        return {}

    def _reset(self, task_id):
        return "first\n"

    def _step(self, action):
        reward = {(1, "b\n"): -0.5, (2, "d\n"): 1.0}.get((self._turn, action), 0.0)
        legal = action in (("a\n", "b\n"), ("c\n", "d\n"))[self._turn - 1]
        over = self._turn == 2 or not legal
        return Outcome("over\n" if over else "second\n", reward, terminated=over, valid=legal)

    def _get_state(self):
        return {}

    def _set_state(self, state):
        raise NotImplementedError


STITCH = two_turns("stitch", window=1, actions=("a\n", "b\n", "c\n", "d\n"))
SEEN = tuple(
    episode_of(("first\n", False), (x, True, r), ("second\n", False), (y, True, s), ("over\n", False))
    for x, r, y, s in (("a\n", 0.0, "c\n", 0.0), ("b\n", -0.5, "d\n", 1.0))
)


class Lights(TextEnv):
    """Two turns: what the light asks for, then its colour again."""

    num_tasks = 2

    def privileged(self):
        return {}

    def _reset(self, task_id):
        self._right = [["stop\n", "red\n"], ["go\n", "green\n"]][task_id]
        return ["red\n", "green\n"][task_id]

    def _step(self, action):
        if action != self._right[self._turn - 1]:
            return Outcome("end\n", 0.0, terminated=True)
        if self._turn == 1:
            return Outcome("again\n", 0.0)
        return Outcome("end\n", 1.0, terminated=True, success=True)

    def _get_state(self):
        return {}

    def _set_state(self, state):
        raise NotImplementedError


LIGHTS = two_turns("lights", window=None)


def returns(spec, make_env, policy, requests, **decoding):
    """What each requested episode earns."""
    played = play(
        spec, make_env, policy.eval(), requests, decoding=Decoding(**decoding), slots=32, name="test"
    )
    return [p.episode.total_return for p in played]


def requests_of(count, num_tasks=1):
    return [EpisodeRequest(i, i, task_id=i % num_tasks) for i in range(count)]
