"""Ray actors that play groups of episodes, under RLlib's FaultTolerantActorManager.

What a group yields depends on the group alone, so an actor that dies costs time but changes nothing:
it is replaced, and its group is played again, by it or by another.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ACTOR_ENVIRONMENT = {"env_vars": {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}}
"""Of actors that share a machine's cores."""
_MAX_TRIES = 5
"""Times that a group is played before its failure is the caller's."""
_QUEUED = 2
"""Groups that an actor has: the one it plays, and one to go on with while the driver reads the answer."""
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
    """`count` actors of one class; `title` is what error messages call one of them.

    Args:
        cpus, gpus, custom: what each takes; fractions share a device.
        environment: their Ray runtime environment. With None they start sooner.

    Attributes:
        restarts: actors that were lost, died or hung, since the beginning; Ray starts each again.
    """

    def __init__(
        self,
        ray: Any,
        kind: type[ManagedActor],
        count: int,
        *,
        title: str,
        timeout_s: float,
        cpus: float = 1.0,
        gpus: float = 0.0,
        custom: Mapping[str, float] | None = None,
        environment: Mapping[str, Any] | None = ACTOR_ENVIRONMENT,
        arguments: Sequence[Any] = (),
    ) -> None:
        from ray.rllib.utils.actor_manager import FaultTolerantActorManager

        self.timeout_s = timeout_s
        self.restarts = 0
        self._ray = ray
        self._title = title
        actor = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            resources=dict(custom or {}),
            max_restarts=-1,
            max_task_retries=0,
            runtime_env=environment,
        )(kind)
        self._actors = [actor.remote(*arguments) for _ in range(count)]
        self._manager = FaultTolerantActorManager(
            self._actors, max_remote_requests_in_flight_per_actor=_QUEUED
        )
        self._queues: dict[int, _Queue] = {}

    def process_ids(self) -> list[int]:
        """Of the actors, as the operating system knows them.

        RolloutError names one that has not started when none has for `timeout_s`: many take their time.
        """
        calls = [a.process_id.remote() for a in self._actors]
        late = calls
        while late:
            started, late = self._ray.wait(late, timeout=self.timeout_s)
            if not started:
                actor = calls.index(late[0])
                raise RolloutError(f"{self._title} {actor} has not started in {self.timeout_s:g} s")
        ids: list[int] = self._ray.get(calls)
        return ids

    def __str__(self) -> str:
        """How many are not known to be down, and how often one was lost."""
        return f"{self._alive} of {len(self._actors)} {self._title}s alive, {self.restarts} restarts"

    @property
    def _alive(self) -> int:
        count: int = self._manager.num_healthy_actors()
        return count

    @property
    def dealt(self) -> list[int]:
        """The groups that actors have at present."""
        return [number for queue in list(self._queues.values()) for number in list(queue.groups)]

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
        self._queues = {actor: _Queue() for actor in self._manager.actor_ids()}
        try:
            yield from self._fetched(groups, _Hand(len(groups), ahead or len(groups)))
        finally:
            # Whoever is still at work on an abandoned call answers it to nobody.
            for actor, queue in self._queues.items():
                if queue.groups:
                    self._manager.set_actor_state(actor, healthy=False)
            self._queues = {}

    def _fetched(self, groups: Sequence[Mapping[str, Any]], hand: _Hand) -> Iterator[tuple[int, Any]]:
        last_alive = time.monotonic()
        while hand.open:
            self._manager.probe_unhealthy_actors(timeout_seconds=_POLL_S, mark_healthy=True)
            if self._alive:
                last_alive = time.monotonic()
            elif time.monotonic() - last_alive > self.timeout_s:
                raise RolloutError(
                    f"no {self._title} has answered for {self.timeout_s:g} s (resources.timeout_s); "
                    f"`ray status` says what the cluster lacks"
                )
            self._deal(groups, hand)
            results = self._manager.fetch_ready_async_reqs(timeout_seconds=_POLL_S)
            # What an actor answered before it died counts.
            for result in sorted(results, key=lambda r: not r.ok):
                number, queue = int(result.tag), self._queues[result.actor_id]
                if number not in queue.groups:  # taken back already
                    continue
                if result.ok:
                    queue.answered(number)
                    hand.done(number)
                    yield number, result.get()
                else:
                    self._lost(result.actor_id, result.get(), hand)
            self._replace_late(hand)

    def _deal(self, groups: Sequence[Mapping[str, Any]], hand: _Hand) -> None:
        """A group for everyone who has none; a second one only where enough for everyone are left."""
        for place in range(_QUEUED):
            for actor in self._manager.healthy_actor_ids():
                queue = self._queues[actor]
                if len(queue.groups) != place or (place and hand.waiting <= len(self._actors)):
                    continue
                if (number := hand.deal()) is None:
                    return
                queue.add(number)
                self._manager.foreach_actor_async(
                    "play", tag=str(number), kwargs=groups[number], remote_actor_ids=[actor]
                )

    def _replace_late(self, hand: _Hand) -> None:
        for actor, queue in self._queues.items():
            if not queue.groups or time.monotonic() - queue.since <= self.timeout_s:
                continue
            self._ray.kill(self._manager.actors()[actor], no_restart=False)
            self._manager.set_actor_state(actor, healthy=False)
            late = TimeoutError(f"{self._title} {actor} gave no answer for {self.timeout_s:g} s")
            self._lost(actor, late, hand)

    def _lost(self, actor: int, error: Exception, hand: _Hand) -> None:
        """Have its groups played again, unless it is the group (not the actor) that fails."""
        from ray.exceptions import RayTaskError

        groups = self._queues[actor].groups
        group = groups[0]  # what it was at; it had not begun with the next
        hand.tries[group] += 1
        if isinstance(error, RayTaskError) or hand.tries[group] >= _MAX_TRIES:
            cause = getattr(error, "cause", None) or error
            reason = "; ".join([f"{type(cause).__name__}: {cause}", *getattr(cause, "__notes__", ())])
            raise RolloutError(f"a group of episodes failed {hand.tries[group]} times: {reason}") from error
        self.restarts += 1
        hand.take_back(groups)
        self._queues[actor] = _Queue()


@dataclass
class _Queue:
    """The groups of one actor, in the order in which it plays them."""

    groups: list[int] = field(default_factory=list)
    since: float = 0.0
    """When it could begin with the first of them."""

    def add(self, number: int) -> None:
        if not self.groups:
            self.since = time.monotonic()
        self.groups.append(number)

    def answered(self, number: int) -> None:
        self.groups.remove(number)
        self.since = time.monotonic()


class _Hand:
    """Which groups are still to be dealt out, the first ones first."""

    def __init__(self, count: int, ahead: int) -> None:
        self.tries = [0] * count
        """How often each group has failed."""
        self._waiting = list(range(count))
        self._ahead = ahead
        self._first = 0
        """The first group without an answer."""
        self._answered: set[int] = set()
        """Groups beyond it that have one."""

    @property
    def open(self) -> bool:
        return self._first < len(self.tries)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def deal(self) -> int | None:
        if not self._waiting or self._waiting[0] >= self._first + self._ahead:
            return None
        return heapq.heappop(self._waiting)

    def done(self, number: int) -> None:
        self._answered.add(number)
        while self._first in self._answered:
            self._answered.remove(self._first)
            self._first += 1

    def take_back(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            heapq.heappush(self._waiting, number)
