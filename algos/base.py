"""What an algorithm is: its configuration, its loss on a packed batch, its policy.

An algorithm is an `nn.Module` whose `forward(batch)` is the loss, so that whatever engine runs the
step (plain torch, DeepSpeed ZeRO 0-3) sees every parameter it uses.

To add one: subclass `Algorithm` in a file of its own and decorate it with `@register_algorithm`.
"""

from __future__ import annotations

import difflib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import nn

from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.policy import Policy
from algos.settings import Settings
from algos.tokens import TokenEpisode


class UnknownAlgorithmError(ValueError):
    """No algorithm is registered under the name."""


class AlgorithmConfig(Settings):
    """Base of every algorithm's configuration."""


class Loss(NamedTuple):
    """A loss and what to log beside it (a tuple, so that ZeRO-3 finds the tensors in it).

    Both are sums over the action tokens of the micro-batch divided by `batch.denominator`, so that
    adding them up over micro-batches and workers gives the mean over the whole step.
    """

    value: torch.Tensor
    metrics: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Prepared:
    """Episodes ready to be packed, and what to log of them (means over all workers)."""

    episodes: list[TokenEpisode]
    metrics: dict[str, float] = field(default_factory=dict)


def _alone(value: torch.Tensor) -> torch.Tensor:
    return value


@dataclass(frozen=True)
class WorkerGroup:
    """What is done together with the other learner workers; the defaults are for one alone.

    All workers must call the same functions in the same order.
    """

    micro_batch_tokens: int = 16_384
    sum: Callable[[torch.Tensor], torch.Tensor] = _alone
    """Over all workers, element by element."""
    max: Callable[[int], int] = int
    gather: Callable[[torch.Tensor], torch.Tensor] = _alone
    """[n, ...] of each worker, with an n of its own, one after the other."""
    device: torch.device | str = "cpu"
    """Where the algorithm computes (ZeRO may keep its parameters elsewhere)."""


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
    selects_episodes: ClassVar[bool] = False
    """Offline: whether it learns from some episodes of the data set alone (`select`)."""
    dropout: ClassVar[bool] = True
    """Whether its networks drop out while they learn, where the model has any."""
    starts_from_clone: ClassVar[bool] = False
    """Whether it needs a language model that imitates the data (and, unlike a pre-trained one, knows
    the task's actions) as its behaviour policy."""
    has_q: ClassVar[bool] = False
    """Whether its policy has Q values, for `decoding.mode: propose`."""
    Config: ClassVar[type[AlgorithmConfig]] = AlgorithmConfig

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        super().__init__()
        self.temperature = 1.0
        """Of the policy in the rounds (`online.temperature`): the softmax of the logits divided by it."""
        # In a list: what the loss does not use should not be a submodule, which every engine holds.
        self._start = [language_model]

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and self.dropout)

    def select(self, returns: np.ndarray, successes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Offline: which episodes of the data set are learnt from, bool [n]; from returns [n] (-inf for an
        episode that failed) and successes [n]."""
        raise NotImplementedError(f"{self.id} learns from all episodes")

    def prepare(self, episodes: list[TokenEpisode], group: WorkerGroup) -> Prepared:
        """What is done with whole episodes before they are packed: keep some, add returns or advantages.

        Offline: with the episodes of each step. Online: with those of each round, once.
        """
        return Prepared(episodes)

    @abstractmethod
    def forward(self, batch: PackedBatch) -> Loss:
        """The loss. Every trainable parameter must take part, in every micro-batch, even an empty one:
        ZeRO-3 applies the last gradient again to a parameter that gets none."""

    def after_step(self) -> None:
        """What follows an optimiser step (target networks)."""
        return

    def lr_scale(self, parameter: str) -> float:
        """What the learning rate is multiplied by for the parameter of this name."""
        return 1.0

    @property
    def uses_demonstrations(self) -> bool:
        """Online: whether each step also gets episodes of the data set, set `beside` its own."""
        return False

    def beside(
        self, own: list[TokenEpisode], demonstrations: list[TokenEpisode], group: WorkerGroup
    ) -> list[TokenEpisode]:
        """A step's episodes: prepared ones of the policy, and episodes of the data set."""
        raise NotImplementedError(f"{self.id} takes no demonstrations")

    def round_is_over(self, metrics: dict[str, float]) -> bool:
        """Online: whether a step with these metrics (of all workers) should be the last of its round."""
        return False

    def learnt_state(self) -> dict[str, torch.Tensor]:
        """`state_dict` without the frozen weights of the language model that it starts from."""
        frozen = {id(p) for p in self._start[0].model.parameters() if not p.requires_grad}
        whole: dict[str, torch.Tensor] = self.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in whole.items() if id(tensor) not in frozen}

    def load_learnt_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over `learnt_state()`. RuntimeError when it is of something else."""
        learnt = self.learnt_state()
        kept = {name: tensor for name, tensor in self.state_dict().items() if name not in learnt}
        self.load_state_dict({**kept, **state})

    @abstractmethod
    def policy(self) -> Policy:
        """The policy learnt so far; it shares this module's weights."""


_ALGORITHMS: dict[str, type[Algorithm]] = {}
_BUILT_IN = (
    "algos.bc",
    "algos.filtered_bc",
    "algos.mc",
    "algos.ilql",
    "algos.cql",
    "algos.ppo",
    "algos.archer",
)

AlgorithmT = TypeVar("AlgorithmT", bound=type[Algorithm])


def register_algorithm(cls: AlgorithmT) -> AlgorithmT:
    """Class decorator: make the algorithm known by its `id`. ValueError when the id is taken, TypeError
    when the class lacks something."""
    _check_complete(cls)
    if cls.__module__ not in _BUILT_IN:
        algorithm_ids()  # so that a copy of ours under our id is refused, and not replaced
    known = _ALGORITHMS.get(cls.id, cls)
    if _defined_at(known) != _defined_at(cls):
        raise ValueError(f"algorithm id {cls.id!r} is taken by {known.__module__}.{known.__qualname__}")
    _ALGORITHMS[cls.id] = cls
    return cls


def _check_complete(cls: type[Algorithm]) -> None:
    named = [name for name in ("id", "title", "source") if not isinstance(getattr(cls, name, None), str)]
    lacking = [*named, *sorted(cls.__abstractmethods__)]
    if lacking:
        raise TypeError(f"{cls.__name__} has no {', '.join(lacking)} (see algos.base.Algorithm)")
    if not issubclass(cls.Config, AlgorithmConfig):
        raise TypeError(f"{cls.__name__}.Config should be a subclass of algos.base.AlgorithmConfig")


def _defined_at(cls: type) -> tuple[str, str]:
    """File and name: a plugin that another one imports is one file under two names."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return file or cls.__module__, cls.__qualname__


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
