"""The other side of a dialogue, played by a language model instead of the built-in simulator.

A `TextModel` adds one line to a prompt; an `OtherSide` says how a task asks it. What a model says never
decides what the rules decide: whether a guess wins and what a sale is worth stay with the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from envs.core import Episode
from envs.registry import TaskSpec


class Request(NamedTuple):
    """One line that is wanted of a model."""

    instruction: str
    """The rules, for a model that was not trained on the task."""
    prompt: str
    """What is to be continued; ends in a newline."""
    max_tokens: int
    """The line is cut there."""
    seed: int | None = None
    """None asks for the likeliest line; otherwise it is drawn, by this seed."""


class TextModel(Protocol):
    """Anything that can add a line to a prompt. It is called from several threads at a time."""

    @property
    def kind(self) -> str:
        """lm (weights that we run) or api (an endpoint): stands in every record."""
        ...

    def complete(self, request: Request) -> str:
        """One line, without its newline."""
        ...


class Turn(NamedTuple):
    """One exchange as the other side sees it; all texts end in a newline."""

    said: str
    """What the agent said."""
    observation: str
    """What is new in the prompt, `said` included."""
    answer: str


@dataclass(frozen=True)
class OtherSide:
    """How a language model takes the other side of a task.

    Attributes:
        arguments: what the environment is made with to be answered by a model.
        turns: the exchanges of a recorded dialogue; none where it does not say what its secret was.
        window: 1 where a prompt is the latest observation alone, None where it is the whole dialogue.
        agrees: (task id, recorded exchange, answer) -> whether the built-in simulator could have said it.
        max_tokens: of an answer.
        greedy: whether the likeliest answer is given, or one is drawn.
    """

    arguments: Callable[[TextModel], dict[str, Any]]
    turns: Callable[[Episode], Iterator[Turn]]
    window: int | None
    agrees: Callable[[int, Turn, str], bool]
    max_tokens: int
    greedy: bool


Loader = Callable[[str, str | None], TextModel]
_loaders: list[Loader] = []


def use_loader(loader: Loader) -> None:
    """From now on `loader(name, base_url)` finds what "lm:PATH" and "api:MODEL" name."""
    _loaders[:] = [loader]


def with_simulator(spec: TaskSpec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """An environment's arguments, with `simulator` and `base_url` made into the object that answers.

    `simulator` is the built-in kind (kb, rule), "lm:PATH", "api:MODEL" or a `TextModel`. Raises ValueError
    for anything else, and for a task in which nobody answers.
    """
    rest = {k: v for k, v in arguments.items() if k not in ("simulator", "base_url")}
    simulator, base_url = arguments.get("simulator"), arguments.get("base_url")
    if base_url is not None and not str(simulator).startswith("api:"):
        raise ValueError(f"base_url: is for simulator=api:MODEL, but simulator is {simulator!r}")
    if simulator in (None, spec.simulator):
        return rest
    side = spec.side()
    model = _model(spec, simulator, base_url) if isinstance(simulator, str) else simulator
    return {**rest, **side.arguments(model)}


def _model(spec: TaskSpec, name: str, base_url: str | None) -> TextModel:
    source, _, what = name.partition(":")
    if source not in ("lm", "api") or not what:
        raise ValueError(f"simulator: found {name!r}; want {spec.simulator} (built in), lm:PATH or api:MODEL")
    if not _loaders:
        raise ValueError(f"simulator: {name!r} is for lmrl_ray to find; import lmrl_ray.simulators first")
    return _loaders[0](name, base_url)
