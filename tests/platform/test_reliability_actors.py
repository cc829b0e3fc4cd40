"""Rollout actors that are killed again and again, and an object store that is too small for all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import tiny_language_model

from algos.policy import Decoding
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.evaluate import evaluate
from lmrl_ray.rollout import ActorRollouts, LocalRollouts, Setting

pytestmark = [pytest.mark.slow, pytest.mark.reliability]
EPISODES, SLOTS = 240, 3
KILLS, BETWEEN_S = 4, 1.5


class Killer:
    """Told of episodes that came back, it kills the actor that was last seen at work, every so often.

    It dawdles, so that the episodes, of a millisecond each, last longer than an actor's start.
    """

    def __init__(self, log: Path) -> None:
        self.killed: list[int] = []
        self._log = log
        self._last = time.monotonic()

    def __call__(self, episodes: int) -> None:
        time.sleep(0.15)
        at_work = int(self._log.read_text().split()[-1])
        late = time.monotonic() - self._last > BETWEEN_S
        if late and len(self.killed) < KILLS and at_work not in self.killed:
            os.kill(at_work, signal.SIGKILL)
            self.killed.append(at_work)
            self._last = time.monotonic()


def test_an_evaluation_whose_actors_are_killed_again_and_again_scores_as_if_undisturbed(
    ray_cluster, toy, toy_policy, tmp_path, record_property
):
    def setting(**env):
        return Setting("toy", env, (toy,), Decoding(), "test")

    here = LocalRollouts(ResourcesConfig(slots=SLOTS))
    here.set_policy(toy_policy)
    undisturbed = evaluate(here, setting(), episodes=EPISODES, seed=5)

    killer = Killer(tmp_path / "log")
    rollouts = ActorRollouts(ResourcesConfig(rollout_actors=2, slots=SLOTS, timeout_s=120))
    try:
        rollouts.set_policy(toy_policy)
        rollouts.process_ids()
        begin = time.monotonic()
        result = evaluate(
            rollouts, setting(log=str(tmp_path / "log")), episodes=EPISODES, seed=5, on_progress=killer
        )
        minutes = (time.monotonic() - begin) / 60
    finally:
        rollouts.close()
    assert result == undisturbed
    assert len(killer.killed) == KILLS
    record_property(
        "reliability",
        f"2 rollout actors, {KILLS} kills in {60 * minutes:.0f} s: {KILLS / minutes:.0f} a minute; "
        f"all {EPISODES} episodes as undisturbed",
    )


@pytest.fixture
def large_policies(tmp_path):
    folders = [tmp_path / f"policy-{seed}" for seed in range(3)]
    for seed, folder in enumerate(folders):
        texts = ["Animal 3?\nNo, 71.\nYes.\n", "ant\n", "bee\n", "cat\n"]
        tiny_language_model(texts, width=512, layers=3, seed=seed).save(folder)
    return folders


def test_an_object_store_that_policies_and_episodes_exceed_loses_none(large_policies, record_property):
    """In a process of its own: the tests' cluster has another store."""
    script = Path(__file__).with_name("small_object_store.py")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    ended = subprocess.run(
        [sys.executable, script, *large_policies], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["held"] > 2 * found["store"]
    assert found["spilled"] > 0, "the store was not under pressure"
    assert found["delivered"] == found["asked"]
    assert found["same"]
    record_property(
        "reliability",
        f"object store of {found['store'] / 1e6:.0f} MB, episodes of {found['held'] / 1e6:.0f} MB held, "
        f"{found['spilled'] / 1e6:.0f} MB spilled to disk; "
        f"each of {found['asked']} episodes once, as undisturbed",
    )
