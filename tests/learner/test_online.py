"""Online algorithms on the one training loop: rounds of rollouts, what is logged of them, resuming."""

import time
from dataclasses import replace
from itertools import chain
from threading import Event

import pytest
import torch
from small_runs import STEPS, TASK, config_of, job_of, learn_here
from support import episode_of

from algos.base import WorkerGroup
from algos.play import PlayedEpisode, context_rule
from algos.policy import load_policy
from algos.ppo import PPO
from algos.tokens import encode_episode
from envs.registry import get_task
from lmrl_ray import learner
from lmrl_ray.checkpoint import latest, read_manifest
from lmrl_ray.config import ConfigError, OnlineConfig, ResourcesConfig
from lmrl_ray.data import EpisodeDataset
from lmrl_ray.engine import TorchEngine
from lmrl_ray.journal import JournalReader
from lmrl_ray.learner import LocalContext
from lmrl_ray.rollout import LocalRollouts, Rollouts
from lmrl_ray.source import RolloutSource

ONLINE = {"online": {"episodes": 6, "epochs": 2}, "training": {"batch_episodes": 3}}
"""Rounds of four steps."""


def journal(job):
    """The metrics of each step."""
    return {e.step: e.metrics for e in JournalReader(job.journal).new()}


class RecordedRollouts(Rollouts):
    """Rounds of the first episodes of the data set, which take no time; counted."""

    def __init__(self, material, resources):
        super().__init__(resources)
        self._recorded = list(EpisodeDataset(material.data))
        self.rounds = 0

    def set_policy(self, folder):
        self._codec = load_policy(folder).codec

    def play(self, *args, **kwargs):
        self.rounds += 1
        return super().play(*args, **kwargs)

    def _results(self, setting, groups):
        rule = context_rule(get_task(TASK), 256)
        for group in groups:
            played = [(r.index, self._recorded[r.index]) for r in group]
            yield [PlayedEpisode(i, e, encode_episode(e, self._codec, rule), 0) for i, e in played]

    def _state(self, groups):
        return "recorded"


class SecondRoundWaits(RecordedRollouts):
    """The second round ends only when something was learnt from the first."""

    def __init__(self, material, resources):
        super().__init__(material, resources)
        self.began, self.learnt = Event(), Event()

    def play(self, *args, **kwargs):
        if self.rounds == 1:
            self.began.set()
            assert self.learnt.wait(30), "no step was taken while the second round was played"
        return super().play(*args, **kwargs)


@pytest.fixture
def recorded(material, monkeypatch):
    """Have the learner learn from recorded rounds; the rollouts that it made."""

    def use(cls=RecordedRollouts):
        made = []
        monkeypatch.setattr(learner, "make_rollouts", lambda r: made.append(cls(material, r)) or made[-1])
        return made

    return use


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
    metrics = journal(job)
    assert metrics[1]["ppo/kl_to_old"] == pytest.approx(0.0, abs=1e-5)
    # The second round, from step 5 on, is of the policy that the first one made, and that one has moved.
    assert [metrics[step]["ppo/sampled_gap"] < 0.01 for step in (1, 5)] == [True, True]
    assert metrics[5]["ppo/kl_to_start"] > 0.001


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


def stopped_and_resumed(material, folder, algo, **over):
    """A run that ended after two steps and went on to its end."""
    short = config_of(material, algo, **{**ONLINE, "training": {"batch_episodes": 3, "steps": 2}, **over})
    assert learn_here(job_of(material, short, folder)) == 2
    job = job_of(material, config_of(material, algo, **ONLINE, **over), folder)
    assert learn_here(job) == STEPS
    assert read_manifest(latest(job.checkpoints)).step == STEPS
    return journal(job)


@pytest.mark.slow
def test_a_run_that_stopped_in_a_round_goes_on_to_its_end(material, tmp_path):
    stopped_and_resumed(material, tmp_path / "run", "ppo")


def test_filtered_cloning_of_its_own_episodes_goes_on_to_its_end(material, tmp_path, recorded, monkeypatch):
    made, asked = recorded(), []
    monkeypatch.setattr(TorchEngine, "gather", lambda _, values: asked.append(values) or values)
    over = {"algorithm": {"fraction": 1.0}}
    metrics = stopped_and_resumed(material, tmp_path / "run", "online-filtered-bc", **over)
    assert list(metrics) == list(range(1, STEPS + 1))
    assert [r.rounds for r in made] == [1, 2], "a resumed run begins with a new round"
    assert [len(a) for a in asked] == [6, 6, 6], "the best of all workers' episodes are kept"


def test_archer_resumed_counts_its_rounds_on_and_fills_its_replay_buffer_anew(material, tmp_path, recorded):
    recorded()
    over = {"algorithm": {"actor_after": 1, "replayed": 0}}
    metrics = stopped_and_resumed(material, tmp_path / "run", "archer", **over).values()
    assert [m["archer/actor_learns"] for m in metrics] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert [m["archer/replay"] for m in metrics] == [6, 6, 6, 6, 6, 6, 12, 12]


def test_an_algorithm_that_ends_its_round_gets_a_new_one(material, tmp_path, recorded, monkeypatch):
    made = recorded()
    monkeypatch.setattr(PPO, "round_is_over", lambda self, metrics: "ppo/kl_to_old" in metrics)
    learn_here(job_of(material, config_of(material, "ppo", **ONLINE), tmp_path / "run"))
    assert [r.rounds for r in made] == [STEPS]


@pytest.mark.slow
def test_a_round_can_be_played_by_actors_while_the_last_one_is_learnt_from(material, tmp_path, ray_cluster):
    over = {**ONLINE, "online": {"episodes": 6, "max_staleness": 1}, "resources": {"rollout_actors": 1}}
    job = job_of(material, config_of(material, "ppo", **over), tmp_path / "run")
    assert learn_here(job) == STEPS
    assert journal(job)[STEPS]["rollout/episodes"] == 6


def test_the_next_round_is_played_while_the_last_one_is_learnt_from(material, tmp_path, recorded):
    made = recorded(SecondRoundWaits)

    def after_step(step, metrics):
        assert made[0].began.wait(30), "the second round was not asked for ahead"
        made[0].learnt.set()

    over = {**ONLINE, "online": {**ONLINE["online"], "max_staleness": 1}, "resources": {"rollout_actors": 1}}
    job = job_of(material, config_of(material, "ppo", **over), tmp_path / "run")
    assert learn_here(job, LocalContext(job.checkpoints, keep=10, on_metrics=after_step)) == STEPS


def test_no_policy_of_a_round_that_was_not_played_is_left_behind(material, tmp_path, recorded, monkeypatch):
    recorded()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    over = {**ONLINE, "online": {**ONLINE["online"], "max_staleness": 3}, "resources": {"rollout_actors": 1}}
    job = job_of(material, config_of(material, "ppo", **over), tmp_path / "run")
    assert learn_here(job) == STEPS
    assert list(temporary.iterdir()) == []


def test_rounds_ahead_without_actors_are_refused(material):
    with pytest.raises(ConfigError, match=r"online\.max_staleness: 1 .*rollout_actors"):
        config_of(material, "ppo", online={"max_staleness": 1})


@pytest.mark.parametrize(("episodes", "batch"), [(128, 64), (128, 32), (8, 8), (9, 8)])
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
def test_a_round_has_as_many_steps_on_any_number_of_workers(episodes, batch, workers):
    shares = [list(range(rank, episodes, workers)) for rank in range(workers)]
    group = WorkerGroup(sum=lambda mine: torch.tensor(sum(map(len, shares))))
    for rank, share in enumerate(shares):
        source = source_of(LocalRollouts(ResourcesConfig()), batch, group, rank, workers)
        source._deal(share)
        assert len(source._portions) == -(-episodes // batch)
        assert sorted(chain.from_iterable(source._portions)) == share
        source.close()


def test_a_round_tells_how_its_episodes_went():
    said, good, bad = ("?\n", False), ("left\n", True, -1.0), ("up\n", True, -4.0)
    cut_off = episode_of(said, good, said, bad, said, terminated=False)
    segments = tuple(replace(s, valid=s.text != "up\n") for s in cut_off.segments)
    episodes = (
        replace(cut_off, segments=segments),
        episode_of(said, good),
        episode_of(said, error="fell over"),
    )
    source = source_of(LocalRollouts(ResourcesConfig()), 1, WorkerGroup())
    found = source._statistics([PlayedEpisode(i, e, None, int(i == 0)) for i, e in enumerate(episodes)])
    source.close()
    assert found == {
        "rollout/return": -3.0,
        "rollout/success_rate": 0.5,
        "rollout/truncated_rate": 0.5,
        "rollout/length": 1.5,
        "rollout/invalid_rate": pytest.approx(1 / 3),
        "rollout/cut_rate": pytest.approx(1 / 3),
        "rollout/episodes": 2.0,
        "rollout/failed": 1.0,
    }


def source_of(rollouts, batch_episodes, group=None, rank=0, workers=1):
    nothing = {"save_policy": lambda _: None, "demonstrations": None, "batch_episodes": batch_episodes}
    return RolloutSource(
        None, OnlineConfig(epochs=1), rollouts, None, group, **nothing, seed=0, rank=rank, world_size=workers
    )


def test_nobody_waits_for_the_rest_of_a_round_when_the_training_is_over():
    class Slow:
        groups = 0
        begun = Event()

        def set_policy(self, folder):
            pass

        def play(self, setting, requests, on_progress):
            for _ in range(1000):
                self.groups += 1
                self.begun.set()
                time.sleep(0.05)
                on_progress(1)

        def close(self):
            self.closed_after = self.groups

    rollouts = Slow()
    source = source_of(rollouts, batch_episodes=1)
    source._ask(0)
    rollouts.begun.wait()
    source.close()
    assert rollouts.closed_after < 100
