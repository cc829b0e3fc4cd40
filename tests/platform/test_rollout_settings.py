"""What rollout actors may be asked for, and what is refused before anything starts."""

import sys

import fake_vllm
import pytest
from support import tiny_language_model

from algos.play import EpisodeRequest
from algos.policy import Decoding, LanguagePolicy
from lmrl_ray.cluster import actor_bundle
from lmrl_ray.config import ConfigError, ResourcesConfig, parse
from lmrl_ray.evaluate import setting_of
from lmrl_ray.rollout import PolicyFiles, RolloutWorker, Setting


def config(algo="bc", **resources):
    return parse({"algo": algo, "task": "maze-fo", "resources": resources}, "run.yaml")


def test_actors_may_share_a_cpu_and_a_gpu():
    shared = config(rollout_actors=200, cpus_per_actor=0.001, gpus_per_actor=0.25).resources
    assert actor_bundle(shared) == {"CPU": 0.001, "GPU": 0.25}
    assert actor_bundle(ResourcesConfig()) == {"CPU": 1.0}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("cpus_per_actor", 0, "greater than or equal to 0.001"),
        ("cpus_per_actor", -1, "greater than or equal to 0.001"),
        ("gpus_per_actor", 1.5, "a part of one GPU"),
        ("gpus_per_actor", -0.5, "greater than or equal to 0"),
        ("gpus_per_simulator", 2.5, "a part of one GPU"),
        ("max_failed_share", 1, "less than 1"),
        ("heartbeat_s", -1, "greater than or equal to 0"),
        ("rollout_engine", "sglang", "'torch' or 'vllm'"),
    ],
)
def test_what_ray_or_a_run_cannot_use_is_refused_by_name(field, value, expected):
    with pytest.raises(ConfigError, match=rf"run\.yaml: resources\.{field}: found .*{expected}"):
        config(**{field: value})


def test_rounds_may_be_played_at_another_temperature_than_evaluations():
    decoding = {"temperature": 0.3, "top_k": 5}
    same = parse({"algo": "ppo", "task": "maze-fo", "decoding": decoding})
    hotter = parse({"algo": "ppo", "task": "maze-fo", "decoding": decoding, "online": {"temperature": 1.0}})
    assert same.rollout_decoding == same.decoding == setting_of(hotter).decoding
    assert hotter.rollout_decoding == Decoding(temperature=1.0, top_k=5)


@pytest.mark.parametrize("mode", ["greedy", "rerank"])
def test_rounds_are_drawn_from_the_policy_whatever_plays_the_evaluations(mode):
    config = parse({"algo": "ppo", "task": "maze-fo", "decoding": {"mode": mode}})
    assert (setting_of(config).decoding.mode, config.rollout_decoding.mode) == (mode, "sample")


VLLM = {"rollout_engine": "vllm", "rollout_actors": 1, "gpus_per_actor": 0.5}


def test_vllm_gets_its_actors_share_of_the_gpu():
    assert setting_of(config(**VLLM)).vllm_share == pytest.approx(0.45)
    assert setting_of(config(**{**VLLM, "gpus_per_actor": 2})).vllm_share == pytest.approx(0.9)
    assert setting_of(config()).vllm_share is None


@pytest.mark.parametrize(
    ("algo", "over", "decoding", "reason"),
    [
        ("ilql", {}, {}, "ilql is steered by Q"),
        ("bc", {"rollout_actors": 0}, {}, "set rollout_actors and gpus_per_actor"),
        ("bc", {"gpus_per_actor": 0}, {}, "set rollout_actors and gpus_per_actor"),
        ("bc", {}, {"mode": "rerank"}, "rerank needs hidden states"),
        ("ppo", {}, {"min_p": 0.1}, "min_p with a temperature"),
    ],
)
def test_vllm_is_refused_where_it_cannot_decode(algo, over, decoding, reason):
    with pytest.raises(ConfigError, match=rf"run\.yaml: resources\.rollout_engine: vllm: .*{reason}"):
        parse(
            {
                "algo": algo,
                "task": "maze-fo",
                "resources": {**VLLM, **over},
                "decoding": decoding,
                "online": {"temperature": 0.5},
            },
            "run.yaml",
        )


def test_a_worker_keeps_one_vllm_engine_and_gives_it_new_weights(monkeypatch, toy, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)
    monkeypatch.setattr(fake_vllm, "made", [])
    policies = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        LanguagePolicy(tiny_language_model(["Animal 3?\n", "ant\n"], seed=seed, spread=0.2)).save(folder)
        policies.append(PolicyFiles.read(folder, seed))
    requests = [EpisodeRequest(i, seed=i) for i in range(4)]
    ours = Setting("toy", {}, (toy,), Decoding(mode="greedy"), "test")
    theirs = Setting("toy", {}, (toy,), Decoding(mode="greedy"), "test", vllm_share=0.5)
    worker = RolloutWorker()
    for policy in policies:
        played = {p.index: p.episode for p in worker.play(policy, theirs, requests)}
        assert played == {p.index: p.episode for p in RolloutWorker().play(policy, ours, requests)}
    assert len(fake_vllm.made) == 1
