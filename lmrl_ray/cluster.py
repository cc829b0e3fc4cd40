"""Ray: join the cluster that RAY_ADDRESS names, or start one on this machine."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from lmrl_ray.config import ConfigError, ResourcesConfig

_SHARE = 0.01
"""Of a custom resource, for each actor: enough to keep it to the nodes that have any."""
_POLL_S = 1.0


Bundle = dict[str, float]
"""Amounts of resources that are needed on one node, by name."""


def ensure_ray(resources: ResourcesConfig) -> Any:
    """Connect (once) to a cluster that has room for a run, and return the `ray` module; see `ensure_room`."""
    return ensure_room(
        _bundles(resources),
        f"{resources.min_workers} workers and {resources.rollout_actors} rollout actors need",
        resources.wait_for_nodes_s,
    )


def ensure_room(bundles: list[Bundle], who_needs: str, wait_for_nodes_s: float = 0.0, times: int = 1) -> Any:
    """Connect (once) and return the `ray` module.

    A local cluster has the logical CPUs for `times` as much, even on a smaller machine; elsewhere the
    autoscaler is given `wait_for_nodes_s` to add what is missing for that. ConfigError ("WHO NEEDS 3 GPUs,
    ...") when there is not even room for once: Ray itself would wait for ever.
    """
    # Reports of the learner workers are polled at this interval; the default is two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # Ray starts workers at niceness 15: on a busy machine the actors, who do the work, would starve.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    wanted = math.ceil(times * total_of(bundles).get("CPU", 0.0) - 1e-6)
    if not ray.is_initialized():
        local = "RAY_ADDRESS" not in os.environ
        with _on_loopback() if local else nullcontext():
            ray.init(
                address="local" if local else None,
                num_cpus=max(os.cpu_count() or 1, wanted) if local else None,
                # The dashboard's state API is what ends the placement groups of a stopped trainer.
                include_dashboard=True if local else None,
                dashboard_host="127.0.0.1",
                # Not Ray's own 8265, where `lmrl submit` looks for the tunnel to a cluster.
                dashboard_port=_free_port() if local else None,
                logging_level=logging.ERROR,
                log_to_driver=os.environ.get("LMRL_RAY_LOGS") == "1",
            )
    if wait_for_nodes_s:
        _wait_for_nodes(ray, bundles * times, wait_for_nodes_s)
    if missing := _missing(ray, bundles):
        raise ConfigError(f"resources: {who_needs} {missing}; ask for fewer, or add nodes")
    return ray


def room_for(
    needs: Mapping[str, tuple[list[Bundle], ResourcesConfig]], max_concurrent: int | None
) -> int | None:
    """Connect to a cluster that holds each of them, and how many at a time; None: as many as Ray places.

    Ray counts what a job has reserved, which its learner workers are not. Raises ConfigError.

    Args:
        needs: by the job's name all that it takes, and the configuration that this follows from.
    """
    limits = [max_concurrent] if max_concurrent else []
    seen = []
    # The first sizes a cluster that is started on this machine. Most need the same: it is looked for once.
    for name in sorted(needs, key=lambda name: -total_of(needs[name][0]).get("CPU", 0.0)):
        if needs[name] in seen:
            continue
        seen.append(needs[name])
        bundles, resources = needs[name]
        ray = ensure_room(bundles, f"{name} needs", resources.wait_for_nodes_s, max_concurrent or 1)
        if resources.workers:
            limits.append(fitting(ray, bundles))
    return min(limits, default=None)


def total_of(bundles: list[Bundle]) -> Bundle:
    total: defaultdict[str, float] = defaultdict(float)
    for bundle in bundles:
        for name, amount in bundle.items():
            total[name] += amount
    return dict(total)


def fitting(ray: Any, bundles: list[Bundle]) -> int:
    """How many times the cluster holds all of the bundles, by their sum."""
    has = ray.cluster_resources()
    return min(int((has.get(name, 0.0) + 1e-6) / amount) for name, amount in total_of(bundles).items())


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray that is started inside listens at 127.0.0.1 alone; by default it listens at every address.

    Its option for that is meant for other systems (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0), and is read
    when Ray is imported, which it may have been; in the environment it would keep `ray start` from working.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def share_of(resource: str | None) -> dict[str, float]:
    """What an actor asks for to be put on a node that has the custom resource; None: any node."""
    return {} if resource is None else {resource: _SHARE}


def learner_bundle(resources: ResourcesConfig) -> Bundle:
    """What one learner worker takes."""
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return _without_zeros(bundle) | share_of(resources.learner_resource)


def actor_bundle(resources: ResourcesConfig) -> Bundle:
    """What one rollout actor takes."""
    bundle = {"CPU": resources.cpus_per_actor, "GPU": resources.gpus_per_actor}
    return _without_zeros(bundle) | share_of(resources.actor_resource)


def player_bundles(resources: ResourcesConfig) -> list[Bundle]:
    """What a run's rollout actors take, and the simulator of theirs that has a GPU."""
    simulator = [{"GPU": resources.gpus_per_simulator}] if resources.gpus_per_simulator else []
    return [actor_bundle(resources)] * resources.rollout_actors + simulator


def outside_bundles(resources: ResourcesConfig) -> list[Bundle]:
    """What a run with learner workers takes beside what its driver has reserved: they, and the actors that
    they start."""
    return _bundles(resources) if resources.workers else []


def _bundles(resources: ResourcesConfig) -> list[Bundle]:
    learners = [learner_bundle(resources)] * resources.min_workers
    return learners + [actor_bundle(resources)] * resources.rollout_actors


def _without_zeros(bundle: dict[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in bundle.items() if amount}


def _missing(ray: Any, bundles: list[Bundle]) -> str:
    """What the cluster has too little of, in words; empty when it has enough."""
    wanted, has = total_of(bundles), ray.cluster_resources()
    short = [name for name, amount in wanted.items() if amount > has.get(name, 0) + 1e-6]
    units = {"CPU": "CPUs", "GPU": "GPUs"}
    return ", ".join(
        f"{wanted[name]:g} {units.get(name, name)}, the cluster has {has.get(name, 0):g}" for name in short
    )


def _wait_for_nodes(ray: Any, bundles: list[Bundle], seconds: float) -> None:
    """Ask the autoscaler for what is missing, if anything, and wait for it."""
    if not _missing(ray, bundles):
        return
    from ray.autoscaler.sdk import request_resources

    deadline = time.monotonic() + seconds
    request_resources(bundles=bundles)
    try:
        while _missing(ray, bundles) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    finally:
        # The request would keep its nodes up after the run.
        request_resources(bundles=[])
