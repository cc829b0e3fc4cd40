"""Ray: join the cluster that RAY_ADDRESS names, or start one on this machine."""

from __future__ import annotations

import logging
import os
from typing import Any

from lmrl_ray.config import ConfigError, ResourcesConfig


def ensure_ray(resources: ResourcesConfig) -> Any:
    """Connect (once) and return the `ray` module.

    A local cluster has as many logical CPUs as the run asks for, even on a smaller machine. On a
    cluster that exists, ConfigError when it is too small: Ray itself would wait for ever.
    """
    # Reports of the learner workers are polled at this interval; the default is two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # Ray starts workers at niceness 15: on a busy machine the actors, who do the work, would starve.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    wanted = cpus_wanted(resources)
    if not ray.is_initialized():
        local = "RAY_ADDRESS" not in os.environ
        ray.init(
            address="local" if local else None,
            num_cpus=max(os.cpu_count() or 1, wanted) if local else None,
            # The dashboard's state API is what ends the placement groups of a stopped trainer.
            include_dashboard=True if local else None,
            dashboard_host="127.0.0.1",
            logging_level=logging.ERROR,
            log_to_driver=os.environ.get("LMRL_RAY_LOGS") == "1",
        )
    available = ray.cluster_resources().get("CPU", 0)
    if available < wanted:
        raise ConfigError(
            f"resources: {resources.workers} workers and {resources.rollout_actors} rollout actors need "
            f"{wanted} CPUs, the cluster has {available:g}; ask for fewer, or add nodes"
        )
    return ray


def cpus_wanted(resources: ResourcesConfig) -> int:
    """Logical CPUs of learner workers and rollout actors together."""
    return int(resources.workers * resources.cpus_per_worker + resources.rollout_actors + 0.999)
