"""The tasks by name: what each is, how it is scored, and what the paper measured on it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from envs.core import Episode, ScriptedPolicy, TextEnv, play_episode

if TYPE_CHECKING:
    from envs.answering import OtherSide

ANSWERS = "-answers"
"""`TASK-answers` is a dialogue task from its other side (`envs.answers`)."""


class UnknownTaskError(ValueError):
    """No task is registered under the name."""


class SpecError(ValueError):
    """A TaskSpec names what is not there."""


@dataclass(frozen=True)
class Scale:
    """Normalised score: 0 at `minimum`, 50 at `average` (the data's), 100 at `maximum`.

    Source: LMRL-Gym, appendix E. `average` and `maximum` are None where the paper defines no scale.
    """

    minimum: float
    average: float | None
    maximum: float | None

    def normalize(self, raw: float) -> float | None:
        """The normalised score (above 100 beyond the paper's best-known); None without a scale."""
        if self.average is None or self.maximum is None:
            return None
        if raw > self.average:
            return 50.0 + 50.0 * (raw - self.average) / (self.maximum - self.average)
        return 50.0 * (raw - self.minimum) / (self.average - self.minimum)


@dataclass(frozen=True)
class PaperRow:
    """A published result (LMRL-Gym tables 2 and 4): raw return, normalised score as printed."""

    raw: float | None
    reported: float | None


@dataclass(frozen=True)
class TaskSpec:
    """One task. Callables are named as "module:attribute" and imported when first needed."""

    id: str
    family: str
    description: str
    entry: str
    """The TextEnv class."""
    observation: Literal["full", "partial", "dialogue"]
    horizon: int
    """Most actions in one episode."""
    window: int | None
    """Segments of history in the prompt, the latest observation included; None for all of them."""
    scale: Scale
    max_action_tokens: int
    baselines: Mapping[str, str]
    """Scripted policies: `random`, `behaviour` and the best known (`optimal` or `expert`)."""
    best_baseline: str
    data_episodes: int
    """Size of the published data set (table 1)."""
    table1: Mapping[str, float]
    """mean_length, std_length, success_rate, mean_return, std_return of the published data set."""
    paper: Mapping[str, PaperRow] = field(default_factory=dict)
    """By algorithm id: bc, filtered-bc, mc, ilql, ppo, online-filtered-bc, gpt-4."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the environment; `make(**overrides)` adds to them."""
    instructions: str = ""
    """The rules for a player who has never seen the task (a prompted language model): what an observation
    tells, every legal action, what earns and costs, when it ends. With the default arguments."""
    actions: tuple[str, ...] | None = None
    """All legal actions, where they are always the same few."""
    data_entry: str | None = None
    """A function (spec, env, seed) -> Episode, where data are not simply `behaviour` at play."""
    reader_entry: str | None = None
    """A function (path) -> Iterator[Episode] over the published file format."""
    other_side: str | None = None
    """An `OtherSide`, where someone answers whom a language model can replace."""
    listed: bool = True
    """False for what is no game of its own: `TASK-answers`."""
    forget_on_invalid: bool = False
    """An unparseable action wipes the context window (maze)."""
    eval_tasks: tuple[int, ...] | None = None
    """Task ids that an evaluation walks through in turn; None draws them by seed."""
    world_arguments: tuple[str, ...] = ()
    """Arguments that replace the world which `eval_tasks` are of; an evaluation then walks through all."""
    quick_episodes: int = 100
    paper_episodes: int = 1000

    @property
    def simulator(self) -> str:
        """What answers by default: rule, kb, engine or lm."""
        kind: str = _load(self.entry).simulator
        return kind

    def make(self, **overrides: Any) -> TextEnv:
        """A new environment; `simulator="lm:PATH"` and the like: see `envs.answering.with_simulator`.

        TypeError for an argument that the environment does not have, ValueError for a wrong value.
        """
        arguments = {**self.kwargs, **overrides}
        if "simulator" in arguments or "base_url" in arguments:
            from envs.answering import with_simulator

            arguments = with_simulator(self, arguments)
        env: TextEnv = _load(self.entry)(**arguments)
        env.spec_horizon = None if overrides else self.horizon
        return env

    def side(self) -> OtherSide:
        """How a language model answers here; ValueError where nobody does."""
        if self.other_side is None:
            raise ValueError(f"{self.id}: nobody answers here whom a language model could replace")
        side: OtherSide = _load(self.other_side)
        return side

    def baseline(self, name: str) -> ScriptedPolicy:
        """A scripted policy by name; SpecError names those there are."""
        if name not in self.baselines:
            raise SpecError(f"{self.id} has no baseline {name!r}; it has {', '.join(self.baselines)}")
        policy: ScriptedPolicy = _load(self.baselines[name])()
        return policy

    def data_episode(self, env: TextEnv, seed: int) -> Episode:
        """One episode of the task's data set, determined by the seed."""
        if self.data_entry is not None:
            episode: Episode = _load(self.data_entry)(self, env, seed)
            return episode
        return self.play(env, self.baseline("behaviour"), seed)

    def play(self, env: TextEnv, policy: ScriptedPolicy, seed: int, task_id: int | None = None) -> Episode:
        return play_episode(env, policy, task=self.id, seed=seed, task_id=task_id)

    def reader(self) -> Callable[..., Any]:
        """The reader of the published files; ValueError where the task has none."""
        if self.reader_entry is None:
            raise ValueError(f"{self.id}: there is no reader for a published file format")
        reader: Callable[..., Any] = _load(self.reader_entry)
        return reader


_TASKS: dict[str, TaskSpec] = {}
_FAMILIES = (
    "envs.maze",
    "envs.text_nav",
    "envs.wordle",
    "envs.chess",
    "envs.twenty_questions",
    "envs.guess_my_city",
    "envs.car_dealer",
)
"""Packages whose import registers tasks."""


def register(spec: TaskSpec) -> TaskSpec:
    """Add a task. Raises ValueError when the id is taken by another one."""
    if _TASKS.get(spec.id, spec) != spec:
        raise ValueError(f"task id {spec.id!r} is registered already")
    _TASKS[spec.id] = spec
    return spec


def get_task(task: str) -> TaskSpec:
    """The spec of a task by id, e.g. "maze-fo". UnknownTaskError names the nearest known id."""
    known = task_ids()
    game = task.removesuffix(ANSWERS)
    if task not in _TASKS and game in known and game != task:
        from envs.answers import answers_task

        register(answers_task(game))
    if task not in _TASKS:
        near = difflib.get_close_matches(task, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownTaskError(
            f"task {task!r} is unknown.{hint} Known tasks: {', '.join(known)}; one of your own: "
            f"--plugin FILE.py, or `plugins` in a file"
        )
    return _TASKS[task]


def task_ids() -> list[str]:
    """All registered ids, in the order of the families; tasks of others come last."""
    for family in _FAMILIES:
        import_module(family)
    place = {family.rpartition(".")[2]: i for i, family in enumerate(_FAMILIES)}
    listed = [name for name, spec in _TASKS.items() if spec.listed]
    return sorted(listed, key=lambda name: place.get(_TASKS[name].family, len(place)))


def make(task: str, **overrides: Any) -> TextEnv:
    """A new environment of the task: `make("maze-fo")`."""
    return get_task(task).make(**overrides)


def _load(entry: str) -> Any:
    module, _, attribute = entry.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and not f"{module}.".startswith(f"{error.name}."):
            raise  # what is missing is something that the module needs
        raise SpecError(f"a TaskSpec names {entry!r}, which is not there ({error})") from error
