"""Who plays text-nav: at random, by the walkthrough, or half and half as in the published data.

The data of LMRL-Gym come from two policies. Each knows the best next command in one half of the
rooms and plays at random in the other half, so that good play has to be stitched together.
"""

from __future__ import annotations

import numpy as np

from envs.core import ScriptedPolicy, TextEnv
from envs.text_nav.env import ADMISSIBLE
from envs.text_nav.house import ROOMS

ON_THE_WAY = frozenset({"kitchen", "dining room", "living room", "bedroom"})
"""The rooms in which one of the two policies knows what to do; the other one, in the rest."""

ON_THE_WAY_SHARE = 0.26
"""How often it is that policy. LMRL-Gym's collector has 1/4, which gives a success rate of .25."""


def admissible_commands(observation: str) -> list[str]:
    """The commands listed at the end of an observation of a game that goes on."""
    return observation.rpartition(ADMISSIBLE)[2].strip().split(", ")


class RandomPlayer(ScriptedPolicy):
    """Draws from the admissible commands."""

    name = "random"

    def act(self, observation: str) -> str:
        commands = admissible_commands(observation)
        return f"{commands[int(self.rng.random() * len(commands))]}\n"


class OptimalPlayer(ScriptedPolicy):
    """Reads the walkthrough, which no agent sees (the room least of all in the partial task)."""

    name = "optimal"

    def act(self, observation: str) -> str:
        return f"{self.env.privileged()['walkthrough'][0]}\n"


class HalfOptimalPlayer(RandomPlayer):
    """Plays by the walkthrough in one half of the house and at random in the other."""

    name = "behaviour"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        on_the_way = rng.random() < ON_THE_WAY_SHARE
        self._known = ON_THE_WAY if on_the_way else frozenset(ROOMS) - ON_THE_WAY

    def act(self, observation: str) -> str:
        hidden = self.env.privileged()
        if hidden["room"] in self._known:
            return f"{hidden['walkthrough'][0]}\n"
        return super().act(observation)
