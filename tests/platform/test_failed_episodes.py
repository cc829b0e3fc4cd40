"""Episodes that a simulator fails: counted in a round's metrics, in tables, in JSON, and no more than may."""

import pytest

from algos.base import Prepared, WorkerGroup
from algos.policy import Decoding
from envs.registry import get_task
from lmrl_ray.actors import RolloutError
from lmrl_ray.config import OnlineConfig, ResourcesConfig
from lmrl_ray.evaluate import evaluate_baseline
from lmrl_ray.rollout import LocalRollouts, Setting
from lmrl_ray.source import RolloutSource

EPISODES = 20


class Round:
    """An algorithm as far as a round needs one."""

    def prepare(self, episodes, group):
        return Prepared(episodes, {"prepared": float(len(episodes))})

    def round_is_over(self, metrics):
        return False


@pytest.fixture
def source(toy, toy_policy):
    from shutil import copytree

    made = []

    def make(max_failed_share, **env):
        made.append(
            RolloutSource(
                Round(),
                OnlineConfig(episodes=EPISODES),
                LocalRollouts(ResourcesConfig(slots=4, max_failed_share=max_failed_share)),
                Setting("toy", env, (toy,), Decoding(), "test"),
                WorkerGroup(),
                save_policy=lambda folder: copytree(toy_policy, folder, dirs_exist_ok=True),
                demonstrations=None,
                batch_episodes=EPISODES,
                seed=0,
                rank=0,
                world_size=1,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_round_counts_its_failed_episodes_and_is_learnt_from_without_them(source):
    prepared = source(0.5, raises_in=[2]).episodes(0)
    metrics = prepared.metrics
    assert metrics["rollout/failed"] > 0
    assert metrics["rollout/failed"] + metrics["rollout/episodes"] == EPISODES
    assert len(prepared.episodes) == metrics["prepared"] == metrics["rollout/episodes"]


def test_a_round_with_more_failed_episodes_than_may_be_stops_the_run_and_says_why(source):
    with pytest.raises(RolloutError, match=r"of 20 episodes failed, .*max_failed_share.*the simulator broke"):
        source(0.0, raises_in=[2]).episodes(0)


def test_a_baseline_stops_when_more_than_the_share_fail(toy):
    spec = get_task("toy")
    few = ResourcesConfig(max_failed_share=0.05)
    with pytest.raises(RolloutError, match=r"of 20 episodes failed.*the simulator broke"):
        evaluate_baseline(spec, "random", episodes=20, seed=0, env={"raises_in": (2,)}, resources=few)


def test_the_command_counts_them_in_json_and_says_how_many_and_why(lmrl, toy, toy_policy):
    arguments = ("eval", toy_policy, "toy", "--plugin", toy, "--set", "env.raises_in=[1]")
    rows = lmrl(*arguments, "--json").json
    assert rows[-1]["failed"] == 2
    assert rows[-1]["episodes"] == 8
    printed = lmrl(*arguments)
    assert f"{sum(r['failed'] for r in rows)} episodes failed in their simulator" in printed.stdout
    assert "10 of 10 episodes done, 2 failed; the first: seed " in printed.stderr
    assert "task 1: RuntimeError: the simulator broke" in printed.stderr


def test_the_command_ends_with_one_clear_line_when_too_many_fail(lmrl, toy, toy_policy):
    answer = lmrl("eval", toy_policy, "toy", "--plugin", toy, "--set", "env.raises_in=[0,1,2,3,4]")
    assert answer.code == 1
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert (
        "episodes failed, more than the share of 0.5 that may (resources.max_failed_share)" in answer.stderr
    )
    assert answer.stderr.count("\n") == 1
