"""A task on trial: plays short episodes for `envs.conformance` and checks every single exchange."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from envs.core import TextEnv
from envs.registry import TaskSpec

INFO_KEYS = {"success", "valid", "turn", "task_id"}

_STEPS = 40
"""Actions an episode is followed for, where a check does not need its end."""


class Turn(NamedTuple):
    """What one reset or step gave back."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


@dataclass(frozen=True)
class Subject:
    """The task under test and the arguments to make it with."""

    spec: TaskSpec
    overrides: dict[str, Any]

    def make(self) -> TextEnv:
        """Without the limit that the TaskSpec's horizon is: that the task itself keeps it is checked."""
        env = self.spec.make(**self.overrides)
        env.spec_horizon = None
        return env

    def require(self, condition: bool, sentence: str) -> None:
        if not condition:
            raise AssertionError(f"{self.spec.id}: {sentence}")

    def raises(self, error: type[Exception], call: Callable[[], object], what: str) -> None:
        try:
            call()
        except error:
            return
        except Exception as found:
            message = f"{self.spec.id}: {what} raised {found!r}, not {error.__name__}"
            raise AssertionError(message) from found
        raise AssertionError(f"{self.spec.id}: {what} did not raise {error.__name__}")

    def reset(self, env: TextEnv, **arguments: Any) -> Turn:
        observation, info = env.reset(**arguments)
        turn = Turn(observation, 0.0, False, False, info)
        self._check_turn(env, turn, after="reset()", number=0)
        return turn

    def step(self, env: TextEnv, action: str, number: int) -> Turn:
        after = f"step({action[:40]!r})"
        try:
            turn = Turn(*env.step(action))
        except Exception as error:
            raise AssertionError(f"{self.spec.id}: {after} raised {error!r}") from error
        self._check_turn(env, turn, after, number)
        return turn

    def play(self, env: TextEnv, seed: int, actions: Iterable[str]) -> list[Turn]:
        """Reset and play the actions in order, up to the end of the episode."""
        turns = [self.reset(env, seed=seed)]
        return turns + self.go_on(env, actions, turns[0])

    def go_on(self, env: TextEnv, actions: Iterable[str], last: Turn) -> list[Turn]:
        turns: list[Turn] = []
        for action in actions:
            if last.ended:
                break
            last = self.step(env, action, last.info["turn"] + 1)
            turns.append(last)
        return turns

    def script(self, seed: int, steps: int = _STEPS) -> list[str]:
        """The first actions of the `random` baseline in the episode of `seed`."""
        env, policy = self.make(), self.spec.baseline("random")
        turn = self.reset(env, seed=seed)
        policy.begin(env, turn.observation, np.random.default_rng([seed, 1]))
        actions: list[str] = []
        while len(actions) < steps and not turn.ended:
            actions.append(policy.act(turn.observation))
            turn = self.step(env, actions[-1], len(actions))
        return actions

    def same(self, expected: list[Turn], found: list[Turn], when: str) -> None:
        for number, (old, new) in enumerate(zip(expected, found, strict=False)):
            self.require(old == new, f"{when}, turn {number} was {new!r} instead of {old!r}")
        lengths = f"{len(found)} turns instead of {len(expected)}"
        self.require(len(expected) == len(found), f"{when}, the episode had {lengths}")

    def _check_turn(self, env: TextEnv, turn: Turn, after: str, number: int) -> None:
        text, reward, terminated, truncated, info = turn
        self.require(isinstance(text, str), f"the observation after {after} is {text!r}, no str")
        self.require(
            text.endswith("\n") and not text.endswith("\n\n"),
            f"the observation after {after} ends in {text[-10:]!r}, not in exactly one newline",
        )
        self.require(env.observation_space.contains(text), f"observation_space does not contain {text!r}")
        self.require(
            isinstance(reward, float) and math.isfinite(reward),
            f"the reward after {after} is {reward!r}, not a finite float",
        )
        flags = {"terminated": terminated, "truncated": truncated}
        for name, flag in flags.items():
            self.require(isinstance(flag, bool), f"{name} after {after} is {flag!r}, no bool")
        self.require(not (terminated and truncated), f"{after} both terminated and truncated")
        self.require(
            set(info) == INFO_KEYS,
            f"info after {after} has the keys {sorted(info)}, not {sorted(INFO_KEYS)}",
        )
        self.require(info["turn"] == number, f"info['turn'] is {info['turn']} after turn {number}")
        for name in ("success", "valid"):
            found = info[name]
            self.require(isinstance(found, bool), f"info[{name!r}] is {found!r}, no bool")
        self.require(
            type(info["task_id"]) is int and 0 <= info["task_id"] < env.num_tasks,
            f"info['task_id'] is {info['task_id']!r}, not an int in [0, {env.num_tasks})",
        )
