"""Where actors and learners run: on nodes that have the resource they ask for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmrl_ray.cluster import actor_bundle, learner_bundle
from lmrl_ray.config import ResourcesConfig


def test_without_a_custom_resource_any_node_will_do():
    resources = ResourcesConfig(workers=1, rollout_actors=1, gpus_per_worker=0.5)
    assert learner_bundle(resources) == {"CPU": 1.0, "GPU": 0.5}
    assert actor_bundle(resources) == {"CPU": 1.0}


def test_learners_and_actors_ask_for_a_share_of_their_own_resource():
    resources = ResourcesConfig(learner_resource="learner", actor_resource="simulator", gpus_per_actor=0.25)
    assert learner_bundle(resources) == {"CPU": 1.0, "learner": 0.01}
    assert actor_bundle(resources) == {"CPU": 1.0, "GPU": 0.25, "simulator": 0.01}


def test_a_workers_interface_is_the_one_with_the_nodes_address():
    from lmrl_ray.interfaces import interface_of

    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None


@pytest.mark.slow
def test_actors_land_on_the_nodes_of_their_kind_and_a_late_node_is_waited_for():
    script = Path(__file__).with_name("two_kinds_of_nodes.py")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=240, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    assert "0.02 simulator, the cluster has 0" in found.pop("refused")
    assert found == {
        "waits": True,
        "waited": True,
        "actors": ["simulator"] * 6,
        "learner": "learner",
    }
