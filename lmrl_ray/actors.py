"""Ray actors that play groups of episodes, under RLlib's FaultTolerantActorManager.

What a group yields depends on the group alone, so an actor that dies costs time but changes nothing:
it is replaced, and its group is played again, by it or by another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmrl_ray.cluster import ACTOR_ENVIRONMENT

_MAX_TRIES = 5
"""Times that a group is played before its failure is the caller's."""
_POLL_S = 0.05


class RolloutError(RuntimeError):
    """Episodes could not be played."""


class ManagedActor:
    """What an actor class inherits for FaultTolerantActorManager to look after it."""

    def ping(self) -> str:
        return "pong"

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return func(self, *args, **kwargs)

    def process_id(self) -> int:
        return os.getpid()


class ManagedActors:
    """`count` actors of one class; `title` is what error messages call one of them."""

    def __init__(
        self,
        ray: Any,
        kind: type[ManagedActor],
        count: int,
        *,
        title: str,
        timeout_s: float,
        gpus: float = 0.0,
        custom: Mapping[str, float] | None = None,
        arguments: Sequence[Any] = (),
    ) -> None:
        from ray.rllib.utils.actor_manager import FaultTolerantActorManager

        self.timeout_s = timeout_s
        self._ray = ray
        self._title = title
        actor = ray.remote(
            num_cpus=1,
            num_gpus=gpus,
            resources=dict(custom or {}),
            max_restarts=-1,
            max_task_retries=0,
            runtime_env=ACTOR_ENVIRONMENT,
        )(kind)
        self._actors = [actor.remote(*arguments) for _ in range(count)]
        self._manager = FaultTolerantActorManager(self._actors, max_remote_requests_in_flight_per_actor=1)

    def process_ids(self) -> list[int]:
        """Of the actors, as the operating system knows them."""
        ids: list[int] = self._ray.get([a.process_id.remote() for a in self._actors], timeout=self.timeout_s)
        return ids

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        self._manager.clear()

    def play(
        self, groups: Sequence[Mapping[str, Any]], *, ahead: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Call `play(**group)` for each group; yields (number of the group, answer) as they come.

        With `ahead`, no group is dealt out that many places beyond the first unanswered one, so that a
        caller who wants them in order keeps no more than that. RolloutError when a group fails over and
        over, or when no actor answers.
        """
        dealt: dict[int, _Dealt] = {}
        try:
            yield from self._fetched(groups, ahead or len(groups), dealt)
        finally:
            # Whoever is still at work on an abandoned call answers it to nobody.
            for actor in dealt:
                self._manager.set_actor_state(actor, healthy=False)

    def _fetched(
        self, groups: Sequence[Mapping[str, Any]], ahead: int, dealt: dict[int, _Dealt]
    ) -> Iterator[tuple[int, Any]]:
        hand = _Hand(len(groups), ahead)
        last_alive = time.monotonic()
        while hand.open:
            self._manager.probe_unhealthy_actors(timeout_seconds=_POLL_S, mark_healthy=True)
            for actor in self._manager.healthy_actor_ids():
                last_alive = time.monotonic()
                if actor not in dealt and (number := hand.deal()) is not None:
                    self._manager.foreach_actor_async("play", kwargs=groups[number], remote_actor_ids=[actor])
                    dealt[actor] = _Dealt(number, time.monotonic())
            if time.monotonic() - last_alive > self.timeout_s:
                raise RolloutError(
                    f"no {self._title} has answered for {self.timeout_s:g} s (resources.timeout_s); "
                    f"`ray status` says what the cluster lacks"
                )
            for result in self._manager.fetch_ready_async_reqs(timeout_seconds=_POLL_S):
                number = dealt.pop(result.actor_id).group
                if result.ok:
                    hand.done(number)
                    yield number, result.get()
                else:
                    self._again(hand, number, result.get())
            for actor in [a for a, d in dealt.items() if time.monotonic() - d.since > self.timeout_s]:
                self._ray.kill(self._manager.actors()[actor], no_restart=False)
                self._manager.set_actor_state(actor, healthy=False)
                late = TimeoutError(f"{self._title} {actor} gave no answer for {self.timeout_s:g} s")
                self._again(hand, dealt.pop(actor).group, late)

    def _again(self, hand: _Hand, group: int, error: Exception) -> None:
        """Play the group again, unless it is the group (not the actor) that fails."""
        from ray.exceptions import RayTaskError

        if isinstance(error, RayTaskError) or hand.tries[group] >= _MAX_TRIES:
            cause = getattr(error, "cause", None) or error
            reason = "; ".join([f"{type(cause).__name__}: {cause}", *getattr(cause, "__notes__", ())])
            raise RolloutError(f"a group of episodes failed {hand.tries[group]} times: {reason}") from error
        hand.take_back(group)


@dataclass(frozen=True)
class _Dealt:
    group: int
    since: float


class _Hand:
    """Which groups are still to be dealt out, the first ones first."""

    def __init__(self, count: int, ahead: int) -> None:
        self.tries = [0] * count
        self._waiting = list(range(count))[::-1]
        self._ahead = ahead
        self._first = 0
        """The first group without an answer."""
        self._answered: set[int] = set()
        """Groups beyond it that have one."""

    @property
    def open(self) -> bool:
        return self._first < len(self.tries)

    def deal(self) -> int | None:
        if not self._waiting or self._waiting[-1] >= self._first + self._ahead:
            return None
        number = self._waiting.pop()
        self.tries[number] += 1
        return number

    def done(self, number: int) -> None:
        self._answered.add(number)
        while self._first in self._answered:
            self._answered.remove(self._first)
            self._first += 1

    def take_back(self, number: int) -> None:
        self._waiting.append(number)
