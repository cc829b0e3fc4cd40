"""Online algorithms on the one training loop: rounds of rollouts, what is logged of them, resuming."""

import pytest
from small_runs import STEPS, config_of, job_of, learn_here

from lmrl_ray.checkpoint import latest, read_manifest
from lmrl_ray.config import ConfigError
from lmrl_ray.journal import JournalReader

ONLINE = {"online": {"episodes": 6, "epochs": 2}, "training": {"batch_episodes": 3}}
"""Rounds of four steps."""


def journal(job):
    """The metrics of each step."""
    return {e.step: e.metrics for e in JournalReader(job.journal).new()}


@pytest.mark.slow
@pytest.mark.parametrize("engine", [{"engine": "torch"}, {"engine": "deepspeed", "zero_stage": 3}])
@pytest.mark.parametrize("algo", ["ppo", "online-filtered-bc", "archer"])
def test_rounds_are_played_and_learnt_from(algo, engine, material, tmp_path):
    config = config_of(material, algo, optimizer=engine, **ONLINE)
    job = job_of(material, config, tmp_path / "run")
    assert learn_here(job) == STEPS
    metrics = journal(job)
    for step in range(1, STEPS + 1):
        assert -404 <= metrics[step]["rollout/return"] <= 0
        assert metrics[step]["rollout/episodes"] == 6
    assert metrics[1]["rollout/return"] == metrics[2]["rollout/return"]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_the_learner_finds_the_probabilities_that_were_sampled_with(material, tmp_path, temperature):
    """Tokens in, tokens out: before the first step the recomputed log-probabilities are the sampled ones,
    but for the ids that a sampler never draws."""
    config = config_of(material, "ppo", **{**ONLINE, "online": {"episodes": 6, "temperature": temperature}})
    job = job_of(material, config, tmp_path / "run")
    learn_here(job)
    first = journal(job)[1]
    assert first["ppo/sampled_gap"] < 0.05
    assert first["ppo/kl_to_old"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.slow
def test_two_runs_of_one_seed_are_the_same(material, tmp_path):
    runs = []
    for name in ("a", "b"):
        job = job_of(material, config_of(material, "ppo", **ONLINE), tmp_path / name)
        learn_here(job)
        runs.append({k: v for k, v in journal(job)[STEPS].items() if k != "seconds_per_step"})
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_demonstrations_stand_beside_the_rollouts(material, tmp_path):
    config = config_of(material, "ppo", algorithm={"bc_weight": 1.0}, **ONLINE)
    job = job_of(material, config, tmp_path / "run")
    learn_here(job)
    assert journal(job)[1]["loss/bc"] > 0


@pytest.mark.slow
def test_a_run_that_stopped_in_a_round_goes_on_to_its_end(material, tmp_path):
    short = config_of(material, "ppo", **{**ONLINE, "training": {"batch_episodes": 3, "steps": 2}})
    learn_here(job_of(material, short, tmp_path / "run"))
    job = job_of(material, config_of(material, "ppo", **ONLINE), tmp_path / "run")
    assert learn_here(job) == STEPS
    assert read_manifest(latest(job.checkpoints)).step == STEPS


@pytest.mark.slow
def test_a_round_can_be_played_by_actors_while_the_last_one_is_learnt_from(material, tmp_path, ray_cluster):
    over = {**ONLINE, "online": {"episodes": 6, "max_staleness": 1}, "resources": {"rollout_actors": 1}}
    job = job_of(material, config_of(material, "ppo", **over), tmp_path / "run")
    assert learn_here(job) == STEPS
    assert journal(job)[STEPS]["rollout/episodes"] == 6


def test_rounds_ahead_without_actors_are_refused(material):
    with pytest.raises(ConfigError, match=r"online\.max_staleness: 1 .*rollout_actors"):
        config_of(material, "ppo", online={"max_staleness": 1})
