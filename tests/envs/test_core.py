"""The contract that every environment shares: episodes, seeds, errors, snapshots, the registry."""

import dataclasses
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import Episode, PaperRow, Scale, Segment, UnknownTaskError, get_task, make, task_ids
from envs.core import Outcome, TextEnv
from envs.registry import SpecError, register


def episode(*segments: Segment, **changes) -> Episode:
    record = Episode(
        task="maze-fo",
        segments=segments,
        terminated=False,
        truncated=True,
        success=False,
        seed=1,
        task_id=0,
        simulator="rule",
        policy="nobody",
    )
    return dataclasses.replace(record, **changes)


def test_length_counts_actions_and_the_return_sums_their_rewards():
    played = episode(
        Segment("Here.\n", False),
        Segment("go\n", True, reward=-1.0),
        Segment("There.\n", False),
        Segment("go on\n", True, reward=-4.0, valid=False),
        Segment("Nowhere.\n", False),
    )
    assert played.length == 2
    assert played.total_return == -5.0
    assert played.text == "Here.\ngo\nThere.\ngo on\nNowhere.\n"


def test_an_episode_without_actions_returns_nothing():
    assert episode(Segment("Here.\n", False)).total_return == 0.0


def test_a_step_before_reset_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        make("maze-fo").step("move up\n")


def test_a_step_after_the_end_is_an_error():
    env = make("maze-fo", layout="umaze")
    env.reset(options={"task_id": env.layout.starts.index((2, 3))})
    assert env.step("move down\n")[2]
    with pytest.raises(RuntimeError, match="no episode is running"):
        env.step("move down\n")


class Fragile(TextEnv):
    """Breaks at the action "break", or when it starts task 1; rewards the action "divide" with NaN."""

    num_tasks = 2

    def privileged(self):
        return {}

    def _reset(self, task_id):
        if task_id == 1:
            raise OSError("no engine")
        return "Here.\n"

    def _step(self, action):
        if action == "break\n":
            raise OSError("no engine")
        return Outcome("There.\n", float("nan") if action == "divide\n" else -1.0)

    def _get_state(self):
        return {}

    def _set_state(self, state):
        pass


def test_a_step_that_raised_ends_the_episode():
    env = Fragile()
    env.reset(seed=0, options={"task_id": 0})
    with pytest.raises(OSError, match="no engine"):
        env.step("break\n")
    assert not env.get_state()["running"]
    with pytest.raises(RuntimeError, match="no episode is running"):
        env.step("go\n")
    env.reset(options={"task_id": 0})
    assert env.step("go\n")[0] == "There.\n"


def test_a_reward_that_is_no_number_is_an_error_that_names_the_environment_and_the_action():
    env = Fragile()
    env.reset(seed=0, options={"task_id": 0})
    with pytest.raises(ValueError, match=r"Fragile: the reward of 'divide\\n' is nan, not a finite float"):
        env.step("divide\n")


@pytest.mark.parametrize(("task_id", "error"), [(1, OSError), (2, ValueError)])
def test_after_a_reset_that_raised_no_episode_runs(task_id, error):
    env = Fragile()
    for _ in range(2):  # the first time nothing runs, the second time an episode does
        with pytest.raises(error):
            env.reset(seed=0, options={"task_id": task_id})
        with pytest.raises(RuntimeError, match="no episode is running"):
            env.step("go\n")
        env.reset(seed=0, options={"task_id": 0})


def test_a_reset_draws_from_the_split():
    env = Fragile()
    env.num_tasks, env.split_tasks = 30, (0, 20, 29)
    assert {env.reset(seed=seed)[1]["task_id"] for seed in range(50)} == {0, 20, 29}
    assert env.reset(options={"task_id": 3})[1]["task_id"] == 3


def test_an_unknown_reset_option_is_named():
    with pytest.raises(ValueError, match="reset option 'start' is unknown"):
        make("maze-fo").reset(options={"start": 3})


@pytest.mark.parametrize("task_id", [-1, 25, True, 1.0])
def test_what_is_no_task_id_is_named(task_id):
    with pytest.raises(ValueError, match=rf"task_id: {task_id} is not an int in \[0, 25\)"):
        make("maze-fo").reset(options={"task_id": task_id})


def test_a_task_id_may_be_numpy_s():
    assert make("maze-fo").reset(options={"task_id": np.int64(3)})[1]["task_id"] == 3


def test_gymnasium_s_vector_environment_plays_several_at_a_time():
    games = gymnasium.vector.SyncVectorEnv([lambda: make("maze-fo")] * 2)
    here, _ = games.reset(seed=5)
    alone, _ = make("maze-fo").reset(seed=6)
    assert here[1] == alone
    assert games.step(["move up\n", "nonsense\n"])[1].tolist() == [-1.0, -4.0]


def test_resets_without_a_seed_go_on_drawing():
    env = make("maze-fo")
    env.reset(seed=0)
    starts = {env.reset()[1]["task_id"] for _ in range(100)}
    assert len(starts) > 15


def test_the_turn_counts_from_zero():
    env = make("maze-fo")
    _, info = env.reset(seed=0, options={"task_id": 0})
    assert info == {"success": False, "valid": True, "turn": 0, "task_id": 0}
    assert env.step("move up\n")[-1] == {"success": False, "valid": True, "turn": 1, "task_id": 0}
    assert env.reset(seed=0)[1]["turn"] == 0


@given(seed=st.integers(0, 2**63 - 1), cut=st.integers(0, 20))
def test_a_snapshot_goes_on_identically(seed, cut):
    env, twin = make("maze-po"), make("maze-po")
    policy = get_task("maze-po").baseline("random")
    observation, _ = env.reset(seed=seed)
    policy.begin(env, observation, np.random.default_rng(seed))
    actions = [policy.act("") for _ in range(20)]
    for action in actions[:cut]:
        if env.step(action)[2]:
            return
    twin.set_state(env.get_state())
    for action in actions[cut:]:
        turn = env.step(action)
        assert twin.step(action) == turn
        if turn[2]:
            break
    assert env.reset() == twin.reset()


def test_play_records_every_turn_of_a_whole_episode():
    spec = get_task("maze-fo")
    played = spec.play(spec.make(), spec.baseline("random"), seed=3, task_id=0)
    again = spec.play(spec.make(), spec.baseline("random"), seed=3, task_id=0)
    assert played == again
    assert played.terminated != played.truncated
    assert [s.is_action for s in played.segments] == [bool(i % 2) for i in range(2 * played.length + 1)]
    assert (played.task, played.task_id, played.seed) == ("maze-fo", 0, 3)
    assert (played.policy, played.simulator) == ("random", "rule")


def test_an_unknown_task_names_the_nearest_and_all_known_ones():
    with pytest.raises(UnknownTaskError, match=r"'maze-foo' is unknown\. Did you mean 'maze-fo'") as error:
        get_task("maze-foo")
    assert "maze-po" in str(error.value)


def test_a_name_like_no_task_gets_no_suggestion():
    with pytest.raises(UnknownTaskError, match=r"is unknown\. Known tasks: maze-fo, maze-po"):
        make("zzzzzz")


def test_an_unknown_baseline_names_those_there_are():
    with pytest.raises(ValueError, match="'clever'; it has random, behaviour, optimal"):
        get_task("maze-fo").baseline("clever")


@pytest.mark.parametrize("entry", ["envs.maze.env:MazeEnvy", "envs.maize.env:MazeEnv", "MazeEnv", ""])
def test_a_spec_that_names_what_is_not_there_is_said_to(entry):
    with pytest.raises(SpecError, match=f"a TaskSpec names '{entry}', which is not there"):
        dataclasses.replace(get_task("maze-fo"), entry=entry).make()


def test_an_unknown_environment_argument_is_an_error():
    with pytest.raises(TypeError, match="colour"):
        make("maze-fo", colour="red")


def test_registering_twice_is_harmless_but_a_taken_id_is_refused():
    spec = get_task("maze-fo")
    assert register(spec) is spec
    with pytest.raises(ValueError, match="'maze-fo' is registered already"):
        register(dataclasses.replace(spec, horizon=7))


def test_a_task_without_a_published_format_says_so():
    spec = dataclasses.replace(get_task("maze-fo"), reader_entry=None)
    with pytest.raises(ValueError, match="maze-fo: there is no reader"):
        spec.reader()


def test_without_a_generator_of_its_own_the_data_are_the_behaviour_at_play():
    spec = dataclasses.replace(get_task("maze-fo"), data_entry=None)
    assert spec.data_episode(spec.make(), 5) == spec.play(spec.make(), spec.baseline("behaviour"), seed=5)


@pytest.mark.parametrize(
    ("raw", "score"), [(-101, 0.0), (-83, 50.0), (-6.84, 100.0), (-92, 25.0), (0.0, 104.4906)]
)
def test_scores_are_normalised_piecewise(raw, score):
    assert get_task("maze-fo").scale.normalize(raw) == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize(
    ("algorithm", "score"),
    [("bc", 57.2), ("filtered-bc", 67.5), ("mc", 72.9), ("ilql", 99.9), ("ppo", 79.7)],
)
def test_the_formula_gives_the_known_scores_of_the_papers_raw_returns(algorithm, score):
    spec = get_task("maze-fo")
    assert spec.scale.normalize(spec.paper[algorithm].raw) == pytest.approx(score, abs=0.06)


def test_a_task_without_a_scale_has_no_score():
    assert Scale(0.0, None, None).normalize(44.5) is None


@pytest.mark.parametrize("task", task_ids())  # at collection, before other tests register their own
def test_every_task_is_described_completely(task):
    spec = get_task(task)
    assert spec.id == task
    assert {"random", "behaviour", spec.best_baseline} <= set(spec.baselines)
    assert all(isinstance(row, PaperRow) for row in spec.paper.values())
    assert set(spec.table1) == {
        "mean_length",
        "std_length",
        "success_rate",
        "mean_return",
        "std_return",
    }


def test_importing_the_tasks_imports_no_heavy_library():
    code = (
        "import sys, envs; envs.task_ids();"
        "print(sorted({'torch', 'transformers', 'ray', 'deepspeed', 'mlflow', 'chess'}"
        " & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
