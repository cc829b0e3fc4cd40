"""Play long episodes of several large policies, all at hand, through an object store that holds two of them.

    small_object_store.py POLICY...

One line of JSON: the bytes of the store, those it spilled to disk, those of the episodes that are held, how
many episodes were asked for and delivered, and whether they are those that this process plays.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import ray
from ray._private.internal_api import memory_summary

from algos.play import PlayedEpisode
from algos.policy import Decoding
from envs.registry import get_task
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.evaluate import requests_for
from lmrl_ray.plugins import load_plugins
from lmrl_ray.rollout import ActorRollouts, LocalRollouts, Setting

STORE = 80 * 10**6
EPISODES, SLOTS = 40, 4
PLUGIN = str(Path(__file__).with_name("long_endings.py"))
ROUNDS = 2
ARRAYS = ("ids", "is_action", "reward", "logprob")
"""Of an episode's tokens; from an actor they come in the store's own memory."""


def main() -> None:
    load_plugins([PLUGIN])
    setting = Setting("long-endings", {}, (PLUGIN,), Decoding(), "test")
    requests = requests_for(get_task("long-endings"), EPISODES, 5, {})
    policies = [Path(p) for p in sys.argv[1:]]
    ray.init(
        address="local",
        num_cpus=len(policies),
        object_store_memory=STORE,
        include_dashboard=False,
        logging_level="ERROR",
        log_to_driver=False,
    )
    pools = [ActorRollouts(ResourcesConfig(rollout_actors=1, slots=SLOTS)) for _ in policies]
    for pool, policy in zip(pools, policies, strict=True):
        pool.set_policy(policy)
    counts: list[int] = []
    # All is kept, as a learner keeps its round; the second time, the policies come back from the disk.
    played = [e for _ in range(ROUNDS) for pool in pools for e in pool.play(setting, requests, counts.append)]
    here = [e for policy in policies for e in play_here(policy, setting, requests)]
    found = {
        "store": STORE,
        "spilled": spilled(),
        "held": sum(getattr(e.tokens, name).nbytes for e in played for name in ARRAYS),
        "asked": ROUNDS * len(policies) * EPISODES,
        "delivered": sum(counts),
        "same": len(played) == ROUNDS * len(here) and all(map(same, played, here * ROUNDS)),
    }
    print(json.dumps(found))


def spilled() -> int:
    """Bytes that this session's store has written to disk."""
    said = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    found = re.search(r"Spilled (\d+) MiB", said)
    return int(found[1]) * 2**20 if found else 0


def play_here(policy: Path, setting: Setting, requests: list) -> list[PlayedEpisode]:
    here = LocalRollouts(ResourcesConfig(slots=SLOTS))
    here.set_policy(policy)
    return here.play(setting, requests)


def same(a: PlayedEpisode, b: PlayedEpisode) -> bool:
    """Element by element, in which a damaged array would differ."""
    return (
        a.index == b.index
        and a.episode == b.episode
        and all(np.array_equal(getattr(a.tokens, name), getattr(b.tokens, name)) for name in ARRAYS)
    )


if __name__ == "__main__":
    main()
