"""What every task is made of: a text environment, the episode it yields, and a scripted player.

A `TextEnv` is a `gymnasium.Env` of strings. `reset` and `step` return only the *new* text; the
prompt that a policy sees is the plain concatenation of the segments of its context window. An
action ends in exactly one newline. Everything random comes from the environment's own generator,
so a seed determines the episode.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import gymnasium
import numpy as np

State = dict[str, Any]
"""A JSON-able snapshot of an environment."""


class UnicodeText(gymnasium.Space[str]):
    """The space of all strings (gymnasium's `Text` is limited to a character set and a length)."""

    def __init__(self) -> None:
        super().__init__(shape=None, dtype=None)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        length = int(self.np_random.integers(0, 40))
        return "".join(chr(c) for c in self.np_random.integers(32, 0x2FF, size=length)) + "\n"

    @property
    def is_np_flattenable(self) -> bool:
        return False


class Outcome(NamedTuple):
    """What a task's `_step` decides; the base class adds the turn and the task id."""

    observation: str
    reward: float
    terminated: bool = False
    truncated: bool = False
    success: bool = False
    valid: bool = True
    """Whether the action was understood as one (an unparseable action is a turn all the same)."""


class TextEnv(gymnasium.Env[str, str], ABC):
    """A task as a text game for one agent.

    Subclasses implement `_reset`, `_step`, `privileged`, `_get_state` and `_set_state`, and draw
    every random number from `self.np_random`. A constructor needs no network and no key.
    """

    num_tasks: int = 1
    """Distinct tasks that `options={"task_id": i}` selects (starts, secret words, buyers ...)."""

    split_tasks: Sequence[int] | None = None
    """Task ids of the split (train, held-out) that it was made for and draws from; None where it has all."""

    spec_horizon: int | None = None
    """Most actions in one episode by the TaskSpec, where it was made with the default arguments."""

    simulator: str = "rule"
    """What answers: rule, kb (a knowledge base), engine, lm (a language model) or api (one behind an
    endpoint). Stands in every record."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own declaration)
    render_mode: str | None = None
    """"ansi" where there is a picture beside the text: then `metadata` says so, and `render` draws it."""

    def __init__(self) -> None:
        self.observation_space = UnicodeText()
        self.action_space = UnicodeText()
        self._running = False
        self._turn = 0
        self._task_id = 0

    @property
    def waits(self) -> bool:
        """Whether a step waits for a model: then many are stepped at a time, and it answers in batches."""
        return self.simulator in ("lm", "api")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an episode; with a seed it is determined by the seed (and the options) alone.

        `options` may hold `task_id`, an int in [0, num_tasks); ValueError for any other option.
        """
        self._running = False  # until all of it has succeeded
        super().reset(seed=seed)
        task_id = self._requested_task(options)
        self._turn = 0
        self._task_id = self._drawn_task() if task_id is None else task_id
        observation = self._reset(self._task_id)
        self._running = True
        return observation, self._info(success=False, valid=True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play one action. Returns (new text, reward, terminated, truncated, info).

        `info` has the keys `success, valid, turn, task_id`. A step that raises ends the episode.
        RuntimeError when no episode runs, or one goes on after the task's horizon, ValueError for a reward
        that is not finite.
        """
        if not self._running:
            raise RuntimeError("no episode is running: call reset() before step()")
        self._turn += 1
        self._running = False  # a step that raises has been played by half: nobody may go on from there
        observation, reward, terminated, truncated, success, valid = self._step(action)
        if not math.isfinite(reward):
            raise ValueError(
                f"{type(self).__name__}: the reward of {action!r} is {reward}, not a finite float"
            )
        goes_on = not (terminated or truncated)
        if goes_on and self.spec_horizon is not None and self._turn >= self.spec_horizon:
            raise RuntimeError(
                f"{type(self).__name__}: the episode goes on after {self.spec_horizon} actions, the horizon "
                f"in its TaskSpec; end it there (truncated=True), or give the spec a longer one"
            )
        self._running = goes_on
        return observation, reward, terminated, truncated, self._info(success, valid)

    def get_state(self) -> State:
        """A JSON-able snapshot, generator included; `set_state` continues from it identically."""
        return {
            "rng": self.np_random.bit_generator.state,
            "running": self._running,
            "turn": self._turn,
            "task_id": self._task_id,
            "task": self._get_state(),
        }

    def set_state(self, state: State) -> None:
        """Continue from a snapshot of an environment made with the same arguments."""
        self.np_random = np.random.Generator(np.random.PCG64())
        self.np_random.bit_generator.state = state["rng"]
        self._running = state["running"]
        self._turn = state["turn"]
        self._task_id = state["task_id"]
        self._set_state(state["task"])

    @abstractmethod
    def privileged(self) -> dict[str, Any]:
        """What the agent must not see (the secret word, the map): for critics and experts."""

    @abstractmethod
    def _reset(self, task_id: int) -> str:
        """Set up task `task_id` and return the first observation."""

    @abstractmethod
    def _step(self, action: str) -> Outcome:
        """Play `action`; any string at all must be accepted."""

    @abstractmethod
    def _get_state(self) -> State:
        """The task's own part of the snapshot, JSON-able."""

    @abstractmethod
    def _set_state(self, state: State) -> None:
        """Restore what `_get_state` returned."""

    def _requested_task(self, options: Mapping[str, Any] | None) -> int | None:
        unknown = set(options or ()) - {"task_id"}
        if unknown:
            raise ValueError(f"reset option {sorted(unknown)[0]!r} is unknown; the only option is 'task_id'")
        task_id = (options or {}).get("task_id")
        if task_id is None:
            return None
        whole = isinstance(task_id, Integral) and not isinstance(task_id, bool)
        if not whole or not 0 <= task_id < self.num_tasks:
            raise ValueError(f"task_id: {task_id!r} is not an int in [0, {self.num_tasks})")
        return int(task_id)

    def _drawn_task(self) -> int:
        tasks = range(self.num_tasks) if self.split_tasks is None else self.split_tasks
        return int(tasks[int(self.np_random.integers(len(tasks)))])

    def _info(self, success: bool, valid: bool) -> dict[str, Any]:
        return {"success": success, "valid": valid, "turn": self._turn, "task_id": self._task_id}


@dataclass(frozen=True, slots=True)
class Segment:
    """One observation or one action, as text. A reward belongs to an action."""

    text: str
    is_action: bool
    reward: float = 0.0
    valid: bool = True
    """False for an action that the environment could not parse."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One played episode: what was said, by whom, what it earned and how it ended.

    Neither `terminated` nor `truncated` means that the record stops while the game was still on.
    """

    task: str
    segments: tuple[Segment, ...]
    terminated: bool
    truncated: bool
    success: bool
    seed: int
    task_id: int
    simulator: str
    """What answered: rule, kb, engine, lm or api."""
    policy: str
    """Who acted."""
    error: str | None = None
    """Why it could not be played to its end (a crashed simulator); counted, never learnt from."""

    @property
    def total_return(self) -> float:
        """Undiscounted sum of rewards."""
        return float(sum(s.reward for s in self.segments))

    @property
    def length(self) -> int:
        """Number of actions."""
        return sum(s.is_action for s in self.segments)

    @property
    def text(self) -> str:
        return "".join(s.text for s in self.segments)


class ScriptedPolicy(ABC):
    """A player that needs no learning: a baseline, or the behaviour policy of a data set."""

    name: str

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        """Called after each reset. An expert may keep `env` to look at `env.privileged()`."""
        self.env = env
        self.rng = rng

    @abstractmethod
    def act(self, observation: str) -> str:
        """The next action, ending in one newline, after the latest observation."""

    def played(self, action: str) -> None:
        """Told after `act` that somebody else, whose game it follows, played `action` instead.

        A policy that reads the latest observation alone has nothing to do.
        """
        return


def play_episode(
    env: TextEnv,
    policy: ScriptedPolicy,
    *,
    task: str,
    seed: int,
    task_id: int | None = None,
) -> Episode:
    """Play one episode; `seed` determines both the environment's and the policy's randomness."""
    observation, info = env.reset(seed=seed, options=None if task_id is None else {"task_id": task_id})
    segments = [Segment(observation, is_action=False)]
    policy.begin(env, observation, np.random.default_rng([seed, 1]))
    terminated = truncated = False
    while not (terminated or truncated):
        action = policy.act(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        segments.append(Segment(action, is_action=True, reward=reward, valid=info["valid"]))
        segments.append(Segment(observation, is_action=False))
    return Episode(
        task=task,
        segments=tuple(segments),
        terminated=terminated,
        truncated=truncated,
        success=info["success"],
        seed=seed,
        task_id=info["task_id"],
        simulator=env.simulator,
        policy=policy.name,
    )
