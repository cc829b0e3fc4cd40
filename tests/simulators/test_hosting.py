"""A simulator in a Ray actor of its own: shared, batched, late, dead."""

import os
import signal
import time

import pytest
from support import tiny_language_model

from algos.policy import Decoding
from envs.answering import Request
from envs.registry import get_task
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.evaluate import evaluate, requests_for
from lmrl_ray.rollout import ActorRollouts, LocalRollouts, Setting
from lmrl_ray.simulators import SimulatorError
from lmrl_ray.simulators.hosting import HostedModel, SimulatorActors

TEXTS = ["Is it alive?\nYes.\n", "Questions:\n", "Does it have wheels?\nNo.\n", "I can't answer that.\n"]
TASK = "twenty-questions"
EPISODES = 10

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A policy and a simulator, both untrained."""
    folder = tmp_path_factory.mktemp("models")
    tiny_language_model(TEXTS, positions=1024).save(folder / "policy")
    tiny_language_model(TEXTS, seed=1).save(folder / "simulator")
    return folder


@pytest.fixture
def setting(folders):
    return Setting(TASK, {"simulator": f"lm:{folders / 'simulator'}"}, (), Decoding(), "test")


@pytest.fixture(scope="module")
def rollouts(ray_cluster, folders):
    rollouts = ActorRollouts(ResourcesConfig(rollout_actors=2, slots=5, timeout_s=240))
    rollouts.set_policy(folders / "policy")
    yield rollouts
    rollouts.close()


def test_rollout_actors_share_one_simulator_that_answers_in_batches(rollouts, setting, folders, ray_cluster):
    requests = requests_for(get_task(TASK), EPISODES, 0, {})
    played = rollouts.play(setting, requests)
    (hosted,) = rollouts._simulators._hosted.values()
    assert ray_cluster.get(hosted.actor.largest_batch.remote()) > 1
    assert {p.episode.simulator for p in played} == {"lm"}
    assert [p.episode.error for p in played] == [None] * EPISODES

    here = LocalRollouts(ResourcesConfig(slots=5))
    here.set_policy(folders / "policy")
    assert [p.episode for p in played] == [p.episode for p in here.play(setting, requests)]


def test_a_simulator_that_dies_is_started_again(rollouts, setting, ray_cluster):
    hosted = SimulatorActors(ray_cluster, ResourcesConfig(timeout_s=120))
    try:
        model = hosted.hosted(setting.env)["simulator"]
        request = Request("", "Is it alive?\n", 8)
        line = model.complete(request)
        os.kill(ray_cluster.get(model.actor.process_id.remote()), signal.SIGKILL)
        assert model.complete(request) == line
    finally:
        hosted.close()


def test_a_simulator_that_cannot_be_loaded_is_an_error_that_says_why(rollouts, setting, tmp_path):
    hosted = SimulatorActors(rollouts._ray, ResourcesConfig(timeout_s=120))
    try:
        model = hosted.hosted({"simulator": f"lm:{tmp_path}/none"})["simulator"]
        with pytest.raises(
            SimulatorError, match=r"simulator actor 'lm:.*none' died.*there is no such folder"
        ):
            model.complete(Request("", "a\n", 8))
    finally:
        hosted.close()


def test_a_simulator_that_is_late_is_an_error_that_names_the_actor(rollouts, setting, ray_cluster):
    class Slow:
        def complete(self, request):
            time.sleep(60)

    actor = ray_cluster.remote(num_cpus=0, max_concurrency=4)(Slow).remote()
    slow = HostedModel("lm:slow", actor, timeout_s=1.0)
    try:
        start = time.monotonic()
        with pytest.raises(
            SimulatorError,
            match=r"simulator actor 'lm:slow' gave no answer within 1 s .*resources\.timeout_s",
        ):
            slow.complete(Request("", "a\n", 8))
        assert time.monotonic() - start < 20
        with pytest.raises(Exception, match="simulator actor 'lm:slow' gave no answer"):
            evaluate(rollouts, Setting(TASK, {"simulator": slow}, (), Decoding(), "test"), episodes=2, seed=0)
    finally:
        ray_cluster.kill(actor)


def test_what_is_no_lm_needs_no_actor(ray_cluster):
    hosted = SimulatorActors(ray_cluster, ResourcesConfig())
    for env in ({}, {"simulator": "kb"}, {"simulator": "api:m", "base_url": "http://here/v1"}):
        assert hosted.hosted(env) == env
    assert not hosted._hosted
