"""`lmrl play`: a person plays a task in the terminal."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console

from envs.core import Episode, ScriptedPolicy, Segment, TextEnv
from envs.registry import TaskSpec, get_task
from lmrl_ray.config import ConfigError
from lmrl_ray.plugins import load_plugins
from lmrl_ray.resolve import env_settings

_COMMANDS = ":rules, :hint for a good move, :quit to stop"


def play_in_terminal(
    task: str, seed: int | None, task_id: int | None, settings: list[str], plugins: list[str], *, aside: bool
) -> Episode:
    """Let a person play one episode; it may be left at any time. With `aside` all goes to stderr."""
    load_plugins(plugins)
    spec = get_task(task)
    env = spec.make(**env_settings(task, settings))
    game = _Game(spec, env, secrets.randbelow(2**31) if seed is None else seed, task_id)
    console = Console(stderr=aside, markup=False, emoji=False, highlight=False, soft_wrap=True)
    _introduce(game, console)
    try:
        _converse(game, console)
    except (EOFError, KeyboardInterrupt):
        console.print()
    outcome = "success" if game.success else "no success" if game.ended else "left before the end"
    console.print(f"{outcome}: return {game.total:g} in {game.turn} actions, seed {game.seed}")
    return game.episode()


def record(episode: Episode) -> dict[str, Any]:
    """The episode as JSON holds it."""
    return {**asdict(episode), "return": episode.total_return, "length": episode.length}


class _Game:
    """An episode in play, and the adviser who follows it."""

    def __init__(self, spec: TaskSpec, env: TextEnv, seed: int, task_id: int | None) -> None:
        self.spec, self.seed, self._env = spec, seed, env
        try:
            self.observation, self._info = env.reset(
                seed=seed, options=None if task_id is None else {"task_id": task_id}
            )
        except ValueError as error:
            raise ConfigError(f"--task-id {task_id}: {error}") from error
        self._segments = [Segment(self.observation, is_action=False)]
        self._adviser = _Adviser(spec, env, seed, self.observation)
        self._terminated = self._truncated = False

    @property
    def ended(self) -> bool:
        return self._terminated or self._truncated

    @property
    def success(self) -> bool:
        return bool(self._info["success"])

    @property
    def turn(self) -> int:
        return int(self._info["turn"])

    @property
    def total(self) -> float:
        return self.episode().total_return

    def hint(self) -> str:
        return self._adviser.hint(self.observation)

    def step(self, action: str) -> Segment:
        """Play an action; returns it with its reward."""
        self._adviser.played(self.observation, action)
        self.observation, reward, self._terminated, self._truncated, self._info = self._env.step(action)
        played = Segment(action, is_action=True, reward=reward, valid=self._info["valid"])
        self._segments += [played, Segment(self.observation, is_action=False)]
        return played

    def episode(self) -> Episode:
        return Episode(
            task=self.spec.id,
            segments=tuple(self._segments),
            terminated=self._terminated,
            truncated=self._truncated,
            success=self.success,
            seed=self.seed,
            task_id=self._info["task_id"],
            simulator=self._env.simulator,
            policy="person",
        )


class _Adviser:
    """The task's best policy at the person's shoulder. It thinks only when it is asked."""

    def __init__(self, spec: TaskSpec, env: TextEnv, seed: int, observation: str) -> None:
        self._spec, self._env, self._seed, self._opening = spec, env, seed, observation
        self._policy: ScriptedPolicy | None = None
        self._missed: list[tuple[str, str]] = []
        """Observations and actions that it has not been shown yet."""
        self._suggestion: str | None = None

    def hint(self, observation: str) -> str:
        """What it would play now."""
        if self._policy is None:
            self._policy = self._spec.baseline(self._spec.best_baseline)
            self._policy.begin(self._env, self._opening, np.random.default_rng([self._seed, 1]))
        for seen, action in self._missed:
            if self._policy.act(seen) != action:
                self._policy.played(action)
        self._missed.clear()
        if self._suggestion is None:
            self._suggestion = self._policy.act(observation)
        return self._suggestion

    def played(self, observation: str, action: str) -> None:
        if self._policy is None or self._suggestion is None:
            self._missed.append((observation, action))
        elif action != self._suggestion:
            self._policy.played(action)
        self._suggestion = None


def _introduce(game: _Game, console: Console) -> None:
    console.print(f"{game.spec.id}: {game.spec.description}", style="bold")
    if game.spec.actions is not None:
        console.print(f"actions: {', '.join(a.strip() for a in game.spec.actions)}", style="dim")
    console.print(f"at most {game.spec.horizon} actions; {_COMMANDS}", style="dim")
    console.print(game.observation, end="")


def _converse(game: _Game, console: Console) -> None:
    while not game.ended:
        console.print("> ", end="", style="bold")
        line = input()
        if line == ":quit":
            return
        if line == ":hint":
            console.print(f"{game.spec.best_baseline}: {game.hint().strip()}", style="dim")
        elif line == ":rules":
            console.print(game.spec.instructions or game.spec.description, style="dim")
        elif line.startswith(":"):
            console.print(f"{line} is no command; {_COMMANDS}", style="dim")
        else:
            played = game.step(f"{line}\n")
            console.print(game.observation, end="")
            understood = "" if played.valid else "   not understood"
            score = f"turn {game.turn}   reward {played.reward:g}   return {game.total:g}{understood}"
            console.print(score, style="dim")
