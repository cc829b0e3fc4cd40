"""A simulator's weights in a Ray actor of their own, which all rollout actors of a run share.

The driver owns the actor and hands its rollout actors a `HostedModel`; without one, each would load the
weights again. Back-pressure: every environment waits for its own answer, and requests that the actor does
not yet work on wait in a queue of limited length.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envs.answering import Request
from lmrl_ray.actors import ACTOR_ENVIRONMENT
from lmrl_ray.cluster import share_of
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.simulators import LM, SimulatorError, located
from lmrl_ray.simulators.batching import BatchedModel

_AT_A_TIME = 256
"""Requests that are inside the actor; others wait in Ray's queue of it."""
_TRIES = 3
"""Times that a lost actor is started, and a request to it sent, again (which changes no answer)."""


class SimulatorActor:
    """Holds the weights; Ray runs its methods in threads, so that requests meet in one batch."""

    def __init__(self, name: str, timeout_s: float) -> None:
        from lmrl_ray.simulators.loading import load_batched

        self._model: BatchedModel = load_batched(name, timeout_s)

    def complete(self, request: Request) -> str:
        return self._model.complete(request)

    def process_id(self) -> int:
        return os.getpid()

    def largest_batch(self) -> int:
        return self._model.largest_batch


@dataclass(frozen=True)
class HostedModel:
    """A `TextModel` that asks a `SimulatorActor`; it travels to other processes of the cluster."""

    name: str
    actor: Any
    timeout_s: float
    kind: str = "lm"

    def complete(self, request: Request) -> str:
        """One line. SimulatorError names the actor when it is late, dead, or its model failed."""
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

        try:
            line: str = ray.get(self.actor.complete.remote(request), timeout=self.timeout_s)
        except GetTimeoutError:
            raise SimulatorError(
                f"simulator actor {self.name!r} gave no answer within {self.timeout_s:g} s (half of "
                f"resources.timeout_s); a model this slow needs a GPU (resources.gpus_per_simulator), "
                f"fewer rollout actors or more time"
            ) from None
        except RayTaskError as error:
            raise SimulatorError(f"simulator actor {self.name!r}: {error.cause or error}") from error
        except RayActorError as error:
            # Ray's text holds the actor's own traceback, whose last line is the reason.
            reason = str(error).strip().splitlines()[-1]
            raise SimulatorError(f"simulator actor {self.name!r} died: {reason}") from error
        return line


class SimulatorActors:
    """The simulator actors of one run, started when they are first needed."""

    def __init__(self, ray: Any, resources: ResourcesConfig) -> None:
        self._ray = ray
        self._resources = resources
        self._hosted: dict[str, HostedModel] = {}

    def hosted(self, env: Mapping[str, Any]) -> dict[str, Any]:
        """An environment's arguments, with the model that "lm:PATH" names replaced by one in an actor."""
        name = located(env).get("simulator")
        if not isinstance(name, str) or not name.startswith(LM):
            return dict(env)
        if name not in self._hosted:
            self._hosted[name] = self._start(name)
        return {**env, "simulator": self._hosted[name]}

    def close(self) -> None:
        for model in self._hosted.values():
            self._ray.kill(model.actor)
        self._hosted.clear()

    def _start(self, name: str) -> HostedModel:
        # Half of what a rollout actor may take for all of its episodes: the error is heard in time.
        timeout = self._resources.timeout_s / 2
        actor = self._ray.remote(
            num_cpus=0,  # no rollout actor has to make way for it
            num_gpus=self._resources.gpus_per_simulator,
            resources={} if self._resources.gpus_per_simulator else share_of(self._resources.actor_resource),
            max_restarts=_TRIES,
            max_task_retries=_TRIES,
            max_concurrency=_AT_A_TIME,
            runtime_env=ACTOR_ENVIRONMENT,
        )(SimulatorActor)
        return HostedModel(name, actor.remote(name, timeout), timeout)
