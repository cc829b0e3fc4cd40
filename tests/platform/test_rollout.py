"""Rollouts: the same episodes in this process, by one actor or by two, whatever happens to the actors."""

import os
import re
import shutil
import signal
import time

import numpy as np
import pytest

from algos.policy import Decoding
from envs.registry import get_task
from lmrl_ray import actors as actors_module
from lmrl_ray.actors import ManagedActors, RolloutError
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.evaluate import evaluate, requests_for
from lmrl_ray.rollout import ActorRollouts, LocalRollouts, PolicyFiles, RolloutWorker, Setting

EPISODES = 23
SLOTS = 3
PATIENCE_S = 8.0
HERE = ResourcesConfig(slots=SLOTS)


@pytest.fixture
def setting(toy):
    def make(task="toy", **env):
        return Setting(task, env, (toy,), Decoding(), "test")

    return make


@pytest.fixture
def requests(toy):
    return requests_for(get_task("toy"), EPISODES, 5, {})


@pytest.fixture(scope="module")
def undisturbed(toy, toy_policy):
    """The episodes of `requests`, played in this process."""
    rollouts = LocalRollouts(HERE)
    rollouts.set_policy(toy_policy)
    setting = Setting("toy", {}, (toy,), Decoding(), "test")
    return rollouts.play(setting, requests_for(get_task("toy"), EPISODES, 5, {}))


@pytest.fixture(scope="module")
def two_actors(ray_cluster):
    rollouts = ActorRollouts(ResourcesConfig(rollout_actors=2, slots=SLOTS, timeout_s=120))
    rollouts.process_ids()
    yield rollouts
    rollouts.close()


@pytest.fixture
def actors(two_actors, toy_policy):
    two_actors.set_policy(toy_policy)
    return two_actors


def pids(actors):
    """Process ids once all actors are up (a call to one that restarts fails)."""
    from ray.exceptions import RayActorError

    for _ in range(1000):
        try:
            return actors.process_ids()
        except RayActorError:
            continue
    raise AssertionError("the actors do not come back")


def same(played, expected):
    assert [p.index for p in played] == [e.index for e in expected]
    for mine, theirs in zip(played, expected, strict=True):
        assert mine.episode == theirs.episode
        assert mine.cut_actions == theirs.cut_actions
        for name in ("ids", "is_action", "reward", "logprob"):
            np.testing.assert_array_equal(getattr(mine.tokens, name), getattr(theirs.tokens, name))
    return True


def test_requests_come_back_in_their_order_with_their_seeds_and_tasks(undisturbed, requests):
    assert [p.index for p in undisturbed] == list(range(EPISODES))
    assert [p.episode.seed for p in undisturbed] == [r.seed for r in requests]
    assert [p.episode.task_id for p in undisturbed] == [i % 5 for i in range(EPISODES)]
    assert len({p.episode.text for p in undisturbed}) == EPISODES


def test_the_number_of_slots_changes_no_episode(toy_policy, setting, requests, undisturbed):
    for slots in (1, 7, 64):
        rollouts = LocalRollouts(ResourcesConfig(slots=slots))
        rollouts.set_policy(toy_policy)
        assert [p.episode for p in rollouts.play(setting(), requests)] == [p.episode for p in undisturbed]


def test_progress_counts_every_episode_once(toy_policy, setting, requests):
    rollouts = LocalRollouts(HERE)
    rollouts.set_policy(toy_policy)
    counts = []
    rollouts.play(setting(), requests, counts.append)
    assert counts == [3] * 7 + [2]


def test_a_simulator_that_raises_costs_its_own_episode_only(toy_policy, setting, requests, undisturbed):
    rollouts = LocalRollouts(HERE)
    rollouts.set_policy(toy_policy)
    played = rollouts.play(setting(raises_in=(1, 3)), requests)
    failed = {i for i in range(EPISODES) if i % 5 in (1, 3)}
    for mine, theirs in zip(played, undisturbed, strict=True):
        if mine.index in failed:
            assert mine.episode.error == "RuntimeError: the simulator broke"
            assert mine.tokens is None
        else:
            assert mine.episode == theirs.episode
    score = evaluate(rollouts, setting(raises_in=(1, 3)), episodes=EPISODES, seed=5).score
    assert (score.failed, score.episodes) == (len(failed), EPISODES - len(failed))


def test_a_simulator_that_always_raises_stops_the_play_early_and_says_why(toy_policy, setting):
    rollouts = LocalRollouts(HERE)
    rollouts.set_policy(toy_policy)
    counts = []
    with pytest.raises(RolloutError, match=r"of 50 episodes failed.*the simulator broke"):
        evaluate(rollouts, setting(raises_in=(0, 1, 2, 3, 4)), episodes=50, seed=0, on_progress=counts.append)
    assert sum(counts) < 30


def test_a_long_play_tells_how_its_episodes_get_on(toy_policy, setting, requests, capsys):
    rollouts = LocalRollouts(ResourcesConfig(slots=SLOTS, heartbeat_s=0.05))
    rollouts.set_policy(toy_policy)
    rollouts.play(setting(raises_in=(1,)), requests, lambda _: time.sleep(0.1))
    line = r"\d\d:\d\d:\d\d toy: \d+ of 23 episodes done, \d failed, [23] in flight in this process"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert all(re.fullmatch(line, text) for text in lines[:-1])
    assert "23 of 23 episodes done, 5 failed; the first: seed " in lines[-1]


def test_a_short_play_says_nothing(toy_policy, setting, requests, capsys):
    rollouts = LocalRollouts(HERE)
    rollouts.set_policy(toy_policy)
    rollouts.play(setting(), requests)
    assert capsys.readouterr().err == ""


def test_a_worker_loads_the_policy_only_when_its_version_changes(toy_policy, setting, requests, monkeypatch):
    loaded = []
    load = PolicyFiles.load
    monkeypatch.setattr(PolicyFiles, "load", lambda self: loaded.append(self.version) or load(self))
    worker = RolloutWorker()
    for version in (0, 0, 1, 1, 0):
        worker.play(PolicyFiles.read(toy_policy, version), setting(), requests[:1])
    assert loaded == [0, 1, 0]


def test_a_new_policy_is_played_from_then_on(toy_policy, other_policy, setting, requests, undisturbed):
    rollouts = LocalRollouts(HERE)
    rollouts.set_policy(other_policy)
    other = rollouts.play(setting(), requests)
    assert all(a.episode.text != b.episode.text for a, b in zip(other, undisturbed, strict=True))
    rollouts.set_policy(toy_policy)
    assert same(rollouts.play(setting(), requests), undisturbed)


def test_the_optimiser_state_is_not_sent_to_actors(toy_policy, tmp_path):
    shutil.copytree(toy_policy, tmp_path / "policy")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "optimizer.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "heads.json").write_text("{}")
    files = PolicyFiles.read(tmp_path, 0).files
    assert {name.split("/")[0] for name in files} == {"policy", "heads.json"}


class SlowStarts:
    """A Ray whose actors start one after the other, as many do on few cores; of those after `last`, none."""

    def __init__(self, seconds, last):
        self._seconds = seconds
        self._last = last

    def wait(self, calls, *, timeout):
        started = 0 if calls[0] > self._last else min(1, int(timeout // self._seconds))
        return calls[:started], calls[started:]

    def get(self, calls):
        return calls


class Starting:
    def __init__(self, number):
        self.process_id = self
        self._number = number

    def remote(self):
        return self._number


def started_slowly(ray, count, timeout_s):
    actors = object.__new__(ManagedActors)
    actors._ray, actors._actors = ray, [Starting(i) for i in range(count)]
    actors._title, actors.timeout_s = "rollout actor", timeout_s
    return actors.process_ids()


def test_actors_may_together_take_longer_to_start_than_one_may():
    assert started_slowly(SlowStarts(3.0, last=99), 100, 10.0) == list(range(100))


def test_the_actor_is_named_after_which_none_starts():
    with pytest.raises(RolloutError, match=r"rollout actor 4 has not started in 10 s"):
        started_slowly(SlowStarts(3.0, last=3), 9, 10.0)


@pytest.mark.slow
def test_two_actors_play_what_this_process_plays(actors, setting, requests, undisturbed):
    counts = []
    assert same(actors.play(setting(), requests, counts.append), undisturbed)
    assert sum(counts) == EPISODES
    assert len(set(pids(actors)) - {os.getpid()}) == 2


@pytest.mark.slow
def test_one_actor_plays_what_this_process_plays(ray_cluster, toy_policy, setting, requests, undisturbed):
    rollouts = ActorRollouts(ResourcesConfig(rollout_actors=1, slots=SLOTS, timeout_s=120))
    rollouts.set_policy(toy_policy)
    assert same(rollouts.play(setting(), requests), undisturbed)
    rollouts.close()


@pytest.mark.slow
def test_the_policy_is_put_once_for_all_actors_and_calls(
    actors, toy_policy, other_policy, setting, requests, undisturbed, ray_cluster, monkeypatch
):
    put, stored = ray_cluster.put, []
    monkeypatch.setattr(ray_cluster, "put", lambda value: stored.append(value) or put(value))
    actors.set_policy(other_policy)
    first = actors.play(setting(), requests)
    assert same(actors.play(setting(), requests), first)
    assert len(stored) == 1
    actors.set_policy(toy_policy)
    assert same(actors.play(setting(), requests), undisturbed)
    assert [type(s) for s in stored] == [PolicyFiles, PolicyFiles]
    assert stored[0].version < stored[1].version


@pytest.mark.reliability
@pytest.mark.slow
def test_an_actor_killed_in_the_middle_of_an_episode_changes_nothing(
    actors, setting, requests, undisturbed, tmp_path
):
    before, restarts = pids(actors), actors._actors.restarts
    counts, mark = [], tmp_path / "killed"
    played = actors.play(setting(kill_once=str(mark)), requests, counts.append)
    assert mark.exists()
    assert same(played, undisturbed)
    assert actors._actors.restarts == restarts + 1
    assert sum(counts) == EPISODES
    assert len(set(before) & set(pids(actors))) == 1


@pytest.mark.slow
def test_the_line_of_actors_tells_what_is_in_flight_who_is_alive_and_restarts(
    actors, setting, requests, capsys, monkeypatch
):
    pids(actors)
    actors._actors._manager.probe_unhealthy_actors(timeout_seconds=60, mark_healthy=True)
    monkeypatch.setattr(actors, "_heartbeat_s", 0.05)
    actors.play(setting(), requests, lambda _: time.sleep(0.1))
    counts = r"(\d+) of 23 episodes done, 0 failed, (\d+) in flight"
    line = rf".* toy: {counts}; 2 of 2 rollout actors alive, \d+ restarts"
    # Ray writes to stderr as well.
    told = [text for text in capsys.readouterr().err.splitlines() if " toy: " in text]
    found = [re.fullmatch(line, text) for text in told]
    assert len(found) >= 3
    assert all(found), told
    # At most the group that is played and the next one of each actor; all that is not done at most.
    assert all(int(f[2]) <= min(2 * 2 * SLOTS, EPISODES - int(f[1]) + SLOTS) for f in found)
    assert any(int(f[2]) for f in found)


@pytest.mark.slow
def test_actors_killed_from_outside_during_an_evaluation_change_nothing(
    actors, setting, requests, undisturbed
):
    victims = pids(actors)

    def kill(_):
        while victims:
            os.kill(victims.pop(), signal.SIGKILL)

    assert same(actors.play(setting(), requests, kill), undisturbed)


@pytest.mark.reliability
@pytest.mark.slow
def test_an_actor_that_hangs_is_replaced_after_the_deadline(
    actors, setting, requests, undisturbed, tmp_path, monkeypatch
):
    before = pids(actors)
    actors.play(setting(), requests)
    monkeypatch.setattr(actors._actors, "timeout_s", PATIENCE_S)
    mark = tmp_path / "stopped"
    assert same(actors.play(setting(stop_once=str(mark)), requests), undisturbed)
    assert mark.exists()
    monkeypatch.undo()
    hung = set(before) - set(pids(actors))
    assert len(hung) == 1
    assert not _runs(hung.pop())


@pytest.mark.slow
def test_an_actor_that_hangs_is_named_in_the_error(actors, setting, requests, tmp_path, monkeypatch):
    actors.play(setting(), requests)
    monkeypatch.setattr(actors._actors, "timeout_s", PATIENCE_S)
    monkeypatch.setattr(actors_module, "_MAX_TRIES", 1)
    with pytest.raises(RolloutError, match=r"rollout actor \d+ gave no answer for 8 s"):
        actors.play(setting(stop_once=str(tmp_path / "stopped")), requests)


@pytest.mark.slow
def test_a_policy_that_cannot_be_loaded_is_an_error_and_the_actors_stay_usable(
    actors, toy_policy, setting, requests, undisturbed, tmp_path
):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("not JSON")
    actors.set_policy(tmp_path)
    with pytest.raises(RolloutError, match="failed 1 times: ModelError: model") as error:
        actors.play(setting(), requests)
    assert "\n" not in str(error.value)
    # What the other actor was still busy with is not taken for an answer to what is asked next.
    actors.set_policy(toy_policy)
    for _ in range(3):
        with pytest.raises(RolloutError):
            actors.play(setting(no_such_argument=1), requests)
        assert same(actors.play(setting(), requests), undisturbed)


@pytest.mark.slow
def test_actors_that_never_come_back_are_an_error_not_a_hang(ray_cluster, toy_policy, setting, requests):
    rollouts = ActorRollouts(ResourcesConfig(rollout_actors=1, slots=SLOTS, timeout_s=2))
    rollouts.set_policy(toy_policy)
    rollouts.close()
    with pytest.raises(RolloutError, match="no rollout actor has answered for 2 s"):
        rollouts.play(setting(), requests)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
