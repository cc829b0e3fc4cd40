"""What an algorithm is: its configuration, its loss on a packed batch, its policy.

An algorithm is an `nn.Module` whose `forward(batch)` is the loss, so that whatever engine runs the
step (plain torch, DeepSpeed ZeRO 0-3) sees every parameter it uses.

To add one: subclass `Algorithm` in a file of its own and decorate it with `@register_algorithm`.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from importlib import import_module
from typing import ClassVar, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.policy import Policy
from algos.tokens import TokenEpisode


class UnknownAlgorithmError(ValueError):
    """No algorithm is registered under the name."""


class AlgorithmConfig(BaseModel):
    """Base of every algorithm's configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Loss(NamedTuple):
    """A loss and what to log beside it (a tuple, so that ZeRO-3 finds the tensors in it).

    Both are sums over the action tokens of the micro-batch divided by `batch.denominator`, so that
    adding them up over micro-batches and workers gives the mean over the whole step.
    """

    value: torch.Tensor
    metrics: dict[str, torch.Tensor]


class Algorithm(nn.Module, ABC):
    """A learner of token episodes.

    Args of the constructor: the configuration, and the language model that it starts from (for
    the value-based ones: the behaviour policy, which stays frozen).
    """

    id: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    """Paper and equation."""
    online: ClassVar[bool] = False
    """Whether its episodes come from its own policy rather than from a data set."""
    starts_from_clone: ClassVar[bool] = False
    """Whether it needs a language model that imitates the data (and, unlike a pre-trained one, knows
    the task's actions) as its behaviour policy."""
    Config: ClassVar[type[AlgorithmConfig]] = AlgorithmConfig

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        super().__init__()
        # In a list: what the loss does not use should not be a submodule, which every engine holds.
        self._start = [language_model]

    def prepare(self, episodes: list[TokenEpisode]) -> list[TokenEpisode]:
        """What is computed on whole episodes before they are packed (returns, advantages)."""
        return episodes

    @abstractmethod
    def forward(self, batch: PackedBatch) -> Loss:
        """The loss. Every trainable parameter must take part, in every micro-batch, even an empty one:
        ZeRO-3 applies the last gradient again to a parameter that gets none."""

    def after_step(self) -> None:
        """What follows an optimiser step (target networks)."""
        return

    @abstractmethod
    def policy(self) -> Policy:
        """The policy learnt so far; it shares this module's weights."""


_ALGORITHMS: dict[str, type[Algorithm]] = {}
_BUILT_IN = ("algos.bc", "algos.ilql")

AlgorithmT = TypeVar("AlgorithmT", bound=type[Algorithm])


def register_algorithm(cls: AlgorithmT) -> AlgorithmT:
    """Class decorator: make the algorithm known by its `id`. ValueError when the id is taken."""
    if _ALGORITHMS.get(cls.id, cls).__qualname__ != cls.__qualname__:
        raise ValueError(f"algorithm id {cls.id!r} is registered already")
    _ALGORITHMS[cls.id] = cls
    return cls


def algorithm_ids() -> list[str]:
    for module in _BUILT_IN:
        import_module(module)
    return list(_ALGORITHMS)


def get_algorithm(name: str) -> type[Algorithm]:
    """The algorithm by id. UnknownAlgorithmError names the nearest known one."""
    known = algorithm_ids()
    if name not in _ALGORITHMS:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownAlgorithmError(
            f"algorithm {name!r} is unknown.{hint} Known algorithms: {', '.join(known)}"
        )
    return _ALGORITHMS[name]
