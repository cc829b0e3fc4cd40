"""Hundreds of rollout actors on one machine, a tenth of them killed: every episode comes back once."""

import os
import random
import signal
import time
from collections import Counter

import pytest
import stub_actor
from ray import cloudpickle
from stub_actor import StubActor, said
from support import FULL, episode_of

from algos.play import EpisodeRequest, PlayedEpisode
from algos.policy import Decoding
from lmrl_ray.actors import ManagedActors
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.rollout import Rollouts, Setting

ACTORS = 200 if FULL else 100
"""One that is idle takes about a hundredth of a slow core: Ray looks for signals a hundred times a second."""
KILLED = ACTORS // 10
EPISODES = 15 * ACTORS
RESOURCES = ResourcesConfig(
    rollout_actors=ACTORS, cpus_per_actor=0.001, slots=3, timeout_s=400, heartbeat_s=1
)


class StubRollouts(Rollouts):
    """Rollouts as they are, but for the network and the simulator in the actors."""

    def __init__(self, ray):
        super().__init__(RESOURCES)
        self.actors = ManagedActors(
            ray,
            StubActor,
            ACTORS,
            title="rollout actor",
            timeout_s=RESOURCES.timeout_s,
            cpus=RESOURCES.cpus_per_actor,
            environment=None,
        )
        self.delivered = Counter()

    def set_policy(self, folder):
        raise NotImplementedError

    def _results(self, setting, groups):
        for number, lines in self.actors.play([{"group": [(r.index, r.seed) for r in g]} for g in groups]):
            self.delivered[number] += 1
            yield [
                PlayedEpisode(i, episode_of((text, True, 0.0), seed=seed), None, 0) for i, seed, text in lines
            ]

    def _state(self, groups):
        return str(self.actors)


class Killer:
    """Told of episodes that came back, it kills an actor after each of some random numbers of them."""

    def __init__(self, processes):
        rng = random.Random(0)
        self.victims = rng.sample(processes, KILLED)
        self._moments = sorted(rng.sample(range(EPISODES * 3 // 4), KILLED))
        self.done = 0
        self.killed = 0

    def __call__(self, episodes):
        self.done += episodes
        while self.killed < KILLED and self.done > self._moments[self.killed]:
            os.kill(self.victims[self.killed], signal.SIGKILL)
            self.killed += 1


@pytest.fixture
def rollouts(ray_cluster):
    cloudpickle.register_pickle_by_value(stub_actor)  # the actors do not find the tests' modules
    rollouts = StubRollouts(ray_cluster)
    yield rollouts
    rollouts.actors.close()
    cloudpickle.unregister_pickle_by_value(stub_actor)


@pytest.mark.reliability
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_many_actors_a_tenth_is_killed_and_every_episode_delivered_exactly_once(
    rollouts, ray_cluster, capsys, record_property
):
    before = rollouts.actors.process_ids()
    assert len(set(before)) == ACTORS
    assert ray_cluster.get(rollouts.actors._actors[0].heavy.remote()) == []

    killer = Killer(before)
    requests = [EpisodeRequest(i, seed=10 * i) for i in range(EPISODES)]
    begin = time.monotonic()
    played = rollouts.play(Setting("stub", {}, (), Decoding(), "stub"), requests, killer)
    seconds = time.monotonic() - begin

    assert killer.killed == KILLED
    assert killer.done == EPISODES
    assert set(rollouts.delivered.values()) == {1}
    assert len(rollouts.delivered) == EPISODES // RESOURCES.slots
    assert [(p.index, p.episode.seed, p.episode.text) for p in played] == [
        (i, 10 * i, said(10 * i)) for i in range(EPISODES)
    ]
    assert 0 < rollouts.actors.restarts <= KILLED
    assert all(f"of {ACTORS} rollout actors alive" in line for line in capsys.readouterr().err.splitlines())
    record_property(
        "reliability",
        f"{ACTORS} rollout actors, {KILLED} killed in {seconds:.0f} s: {60 * KILLED / seconds:.0f} a minute; "
        f"each of {EPISODES} episodes once",
    )
