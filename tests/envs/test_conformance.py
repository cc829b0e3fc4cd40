"""The conformance suite passes a sound task and catches each way of breaking one."""

import dataclasses
import math
import random

import gymnasium
import numpy as np
import pytest

from envs import Scale, ScriptedPolicy, Segment, TaskSpec, TextEnv, conformance
from envs.conformance import CHECKS, check_env, check_spec
from envs.core import Outcome, UnicodeText
from envs.registry import get_task, task_ids
from envs.trial import Subject

WORDS = ("apple", "plum", "pear")


class Sound(TextEnv):
    """Guess a word in at most five turns; the answer tells the weather."""

    num_tasks = len(WORDS)

    def privileged(self):
        return {"secret": WORDS[self._word]}

    def _reset(self, task_id):
        self._word = task_id
        return "Guess:\n"

    def _step(self, action):
        if action == WORDS[self._word] + "\n":
            return Outcome("Yes.\n", 0.0, terminated=True, success=True)
        weather = "sunny" if self.np_random.random() < 0.5 else "rainy"
        return Outcome(
            f"No. It is {weather}.\n",
            -1.0,
            truncated=self._turn >= 5,
            valid=action.strip() in WORDS,
        )

    def _get_state(self):
        return {"word": self._word}

    def _set_state(self, state):
        self._word = state["word"]


class Guesses(ScriptedPolicy):
    name = "guesses"

    def act(self, observation):
        return WORDS[int(self.rng.random() * 2)] + "\n"


SPEC = TaskSpec(
    id="tiny",
    family="tiny",
    description="",
    entry=f"{__name__}:Sound",
    observation="partial",
    horizon=5,
    window=None,
    scale=Scale(-5.0, -3.0, 0.0),
    max_action_tokens=4,
    baselines=dict.fromkeys(("random", "behaviour", "optimal"), f"{__name__}:Guesses"),
    best_baseline="optimal",
    data_episodes=1,
    table1={},
    actions=("apple\n", "plum\n"),
)


def spec_of(env: type, **changes) -> TaskSpec:
    return dataclasses.replace(SPEC, entry=f"{__name__}:{env.__name__}", **changes)


def test_a_sound_task_passes():
    check_spec(SPEC)


def test_a_registered_task_is_checked_by_name_with_arguments():
    check_env("maze-fo", layout="umaze")


def test_an_unregistered_task_is_named():
    with pytest.raises(ValueError, match="'no-such-task' is unknown"):
        check_env("no-such-task")


class DrawsElsewhere(Sound):
    def _step(self, action):
        outcome = super()._step(action)
        return outcome._replace(observation=f"{np.random.default_rng().integers(1 << 40)}\n")


class SharesAGenerator(Sound):
    shared = np.random.default_rng()

    def _reset(self, task_id):
        type(self).shared = np.random.default_rng(task_id)
        return super()._reset(task_id)

    def _step(self, action):
        return super()._step(action)._replace(observation=f"{self.shared.integers(1 << 40)}\n")


class Remembers(Sound):
    played = 0

    def _step(self, action):
        self.played += 1
        return super()._step(action)._replace(observation=f"{self.played}\n")


class DrawsFromPython(Sound):
    def _step(self, action):
        random.random()
        return super()._step(action)


class DrawsFromNumpy(Sound):
    def _step(self, action):
        np.random.random()
        return super()._step(action)


class ReadsTheGlobalState(Sound):
    def _reset(self, task_id):
        super()._reset(task_id)
        return f"{hash(random.getstate())}\n"


class StateIsNoJson(Sound):
    def _get_state(self):
        return {"word": np.int64(self._word)}


class StateLacksAPart(Sound):
    def _reset(self, task_id):
        self._wrong_guesses = 0
        return super()._reset(task_id)

    def _step(self, action):
        self._wrong_guesses = getattr(self, "_wrong_guesses", 0) + 1
        return super()._step(action)._replace(observation=f"{self._wrong_guesses}\n")


class StateIsAlive(Sound):
    def _reset(self, task_id):
        self._said = []
        return super()._reset(task_id)

    def _step(self, action):
        self._said.append(action)
        return super()._step(action)

    def _get_state(self):
        return super()._get_state() | {"said": self._said}

    def _set_state(self, state):
        super()._set_state(state)
        self._said = state["said"]


class StateLacksTheGenerator(Sound):
    def get_state(self):
        return super().get_state() | {"rng": None}

    def set_state(self, state):
        super().set_state(state | {"rng": self.np_random.bit_generator.state})


class Tally:
    """A count that copies share."""

    def __init__(self):
        self.count = 0

    def __deepcopy__(self, memo):
        return self


class CopiesShareAPart(Sound):
    def _reset(self, task_id):
        self._tally = Tally()
        return super()._reset(task_id)

    def _step(self, action):
        self._tally.count += 1
        return super()._step(action)._replace(observation=f"{self._tally.count}\n")


class PicklesLackAPart(StateLacksAPart):
    def __deepcopy__(self, memo):
        twin = type(self)()
        twin.set_state(self.get_state())
        twin._wrong_guesses = self._wrong_guesses
        return twin

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_wrong_guesses"}


class HoldsALambda(Sound):
    def __init__(self):
        super().__init__()
        self.hook = lambda: None


class KnowsAsciiOnly(Sound):
    def _step(self, action):
        action.encode("ascii")
        return super()._step(action)


class ActionSpaceIsSmall(Sound):
    def __init__(self):
        super().__init__()
        self.action_space = gymnasium.spaces.Text(8)


class ObservationSpaceIsSmall(Sound):
    def __init__(self):
        super().__init__()
        self.observation_space = gymnasium.spaces.Text(3)


class NeverEnds(Sound):
    def _step(self, action):
        return super()._step(action)._replace(truncated=False)


def test_an_episode_that_goes_on_is_stopped_at_the_horizon_unless_arguments_may_have_moved_it():
    env = spec_of(NeverEnds).make()
    env.reset(seed=0)
    for _ in range(4):
        env.step("fig\n")
    with pytest.raises(RuntimeError, match="NeverEnds: the episode goes on after 5 actions"):
        env.step("fig\n")
    with pytest.raises(RuntimeError, match="no episode is running"):
        env.step("fig\n")
    text_nav = get_task("text-nav-fo").make(horizon=20)
    text_nav.reset(seed=0)
    assert [text_nav.step("wait\n")[3] for _ in range(20)] == [False] * 19 + [True]


class PlaysBeforeReset(Sound):
    def step(self, action):
        if not self._running and not self._turn:
            self.reset()
        return super().step(action)


class PlaysAfterTheEnd(Sound):
    def step(self, action):
        if not self._running and self._turn:
            self.reset()
        return super().step(action)


class IgnoresTheTaskId(Sound):
    def _requested_task(self, options):
        return super()._requested_task(options) and None


class TakesAnyOption(Sound):
    def _requested_task(self, options):
        task_id = (options or {}).get("task_id")
        return task_id if task_id in range(len(WORDS)) else None


class TaskIdIsNotTheSecret(Sound):
    def _reset(self, task_id):
        super()._reset(task_id)
        self._word = int(self.np_random.random() * len(WORDS))
        return "Guess:\n"


class TellsTheSecret(Sound):
    def _step(self, action):
        outcome = super()._step(action)
        if action.isascii() or outcome.success:
            return outcome
        return outcome._replace(observation=f"Not {WORDS[self._word].upper()}, nor this.\n")


class TellsAnAlias(Sound):
    def privileged(self):
        return {"secret": [WORDS[self._word], "the fruit"]}

    def _reset(self, task_id):
        return super()._reset(task_id) + "Name the fruit.\n"


BROKEN = [
    (DrawsElsewhere, "check_the_seed_determines_the_episode", "played again with seed 0, turn 1"),
    (SharesAGenerator, "check_instances_share_no_generator", "in turns with another instance"),
    (Remembers, "check_reset_forgets_the_past", "after other episodes, reset"),
    (DrawsFromPython, "check_global_generators_are_left_alone", "Python's global `random`"),
    (DrawsFromNumpy, "check_global_generators_are_left_alone", "numpy's global generator"),
    (ReadsTheGlobalState, "check_global_generators_are_left_alone", "seeded otherwise, turn 0"),
    (StateIsNoJson, "check_the_state_can_be_stored_and_restored", "int64 is not JSON"),
    (StateLacksAPart, "check_the_state_can_be_stored_and_restored", r"after get_state\(\) at turn"),
    (StateIsAlive, "check_the_state_can_be_stored_and_restored", "a snapshot changes"),
    (StateLacksTheGenerator, "check_the_state_can_be_stored_and_restored", "after get_state"),
    (CopiesShareAPart, "check_copies_and_pickles_go_on_alike", "in a deep copy made at turn"),
    (PicklesLackAPart, "check_copies_and_pickles_go_on_alike", "in a pickle made at turn"),
    (HoldsALambda, "check_copies_and_pickles_go_on_alike", "cannot be copied and pickled"),
    (KnowsAsciiOnly, "check_any_string_can_be_played", "raised UnicodeEncodeError"),
    (ActionSpaceIsSmall, "check_any_string_can_be_played", "action_space does not contain"),
    (ObservationSpaceIsSmall, "check_any_string_can_be_played", "observation_space does not"),
    (NeverEnds, "check_episodes_begin_and_end", "goes on after 5 actions, its horizon"),
    (PlaysBeforeReset, "check_episodes_begin_and_end", r"before reset\(\) did not raise Runtime"),
    (PlaysAfterTheEnd, "check_episodes_begin_and_end", "after the end did not raise RuntimeError"),
    (IgnoresTheTaskId, "check_task_ids_select_the_task", "option task_id=. gave task"),
    (TakesAnyOption, "check_task_ids_select_the_task", r"task_id': -1}\) did not raise ValueError"),
    (TaskIdIsNotTheSecret, "check_task_ids_select_the_task", "another secret with another seed"),
    (TellsTheSecret, "check_nothing_privileged_leaks", "the secret '[a-z]+' is in the observation"),
    (TellsAnAlias, "check_nothing_privileged_leaks", "the secret 'the fruit' is in"),
]


@pytest.mark.parametrize(("env", "check", "sentence"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_a_broken_environment_is_caught(env, check, sentence):
    with pytest.raises(AssertionError, match=f"tiny: .*{sentence}"):
        getattr(conformance, check)(Subject(spec_of(env), {}))


class Returns(Sound):
    """Gives back an outcome of the test's choice after the first action."""

    outcome = Outcome("No.\n", -1.0)

    def _step(self, action):
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (Outcome("No.", -1.0), "not in exactly one newline"),
        (Outcome("", -1.0), "not in exactly one newline"),
        (Outcome("No.\n\n", -1.0), "not in exactly one newline"),
        (Outcome(b"No.\n", -1.0), "no str"),
        (Outcome("No.\n", -1), "not a finite float"),
        (Outcome("No.\n", math.nan), "not a finite float"),
        (Outcome("No.\n", -1.0, terminated=True, truncated=True), "both terminated and truncated"),
        (Outcome("No.\n", -1.0, truncated=1), "truncated after .* is 1, no bool"),
        (Outcome("No.\n", -1.0, success=1), r"info\['success'\] is 1, no bool"),
    ],
)
def test_each_thing_that_a_step_returns_is_checked(monkeypatch, outcome, sentence):
    monkeypatch.setattr(Returns, "outcome", outcome)
    with pytest.raises(AssertionError, match=sentence):
        check_spec(spec_of(Returns))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hint": 1}, "info after .* has the keys"),
        ({"turn": 7}, "is 7 after turn 0"),
        ({"task_id": 3}, r"not an int in \[0, 3\)"),
        ({"task_id": np.int64(1)}, r"not an int in \[0, 3\)"),
    ],
)
def test_info_is_checked(monkeypatch, change, sentence):
    info = Sound._info
    monkeypatch.setattr(Sound, "_info", lambda self, **k: info(self, **k) | change)
    with pytest.raises(AssertionError, match=sentence):
        check_spec(SPEC)


def test_a_listed_action_must_be_valid():
    with pytest.raises(AssertionError, match=r"TaskSpec.actions has 'kiwi\\n', which is not valid"):
        check_spec(spec_of(Sound, actions=("kiwi\n",)))


class TwoLines(Guesses):
    def act(self, observation):
        return "apple\n\n"


class Unsteady(Guesses):
    def act(self, observation):
        return f"{np.random.default_rng().integers(1 << 40)}\n"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"best_baseline": "expert"}, "TaskSpec.baselines lacks 'expert'"),
        ({"scale": Scale(0.0, 1.0, 2.0)}, "below the scale's minimum 0.0"),
        ({"baselines": SPEC.baselines | {"behaviour": "TwoLines"}}, "does not end in exactly one"),
        ({"baselines": SPEC.baselines | {"optimal": "Unsteady"}}, "another game with its seed"),
    ],
)
def test_baselines_are_checked(changes, sentence):
    for name, policy in changes.get("baselines", {}).items():
        changes["baselines"][name] = policy if ":" in policy else f"{__name__}:{policy}"
    with pytest.raises(AssertionError, match=sentence):
        conformance.check_baselines_play_whole_episodes(Subject(spec_of(Sound, **changes), {}))


def data_of_another_seed(spec, env, seed):
    return spec.play(env, Guesses(), seed + 1)


def data_of_the_moment(spec, env, seed):
    return dataclasses.replace(spec.play(env, Unsteady(), seed), seed=seed)


def data_without_a_last_observation(spec, env, seed):
    episode = spec.play(env, Guesses(), seed)
    return dataclasses.replace(episode, segments=episode.segments[:-1])


def data_that_rewards_an_observation(spec, env, seed):
    episode = spec.play(env, Guesses(), seed)
    rewarded = Segment("Well done.\n", is_action=False, reward=1.0)
    return dataclasses.replace(episode, segments=(*episode.segments[:-1], rewarded))


def data_that_is_too_long(spec, env, seed):
    episode = spec.play(env, Guesses(), seed)
    return dataclasses.replace(episode, segments=episode.segments[:-1] * 9 + episode.segments[-1:])


def data_of_another_task(spec, env, seed):
    return dataclasses.replace(spec.play(env, Guesses(), seed), task="huge")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (data_of_another_seed, r"data_episode\(seed=0\) says seed 1"),
        (data_of_the_moment, "not determined by its seed, 0"),
        (data_without_a_last_observation, "do not alternate"),
        (data_that_rewards_an_observation, "rewards an observation"),
        (data_that_is_too_long, "the horizon is 5"),
        (data_of_another_task, "an episode of the task 'huge'"),
    ],
)
def test_data_episodes_are_checked(data, sentence):
    spec = spec_of(Sound, data_entry=f"{__name__}:{data.__name__}")
    with pytest.raises(AssertionError, match=sentence):
        conformance.check_data_episodes(Subject(spec, {}))


def test_every_check_is_seen_to_fail():
    elsewhere = {"check_listed_actions_are_valid", "check_baselines_play_whole_episodes"}
    shown = {check for _, check, _ in BROKEN} | elsewhere | {"check_data_episodes"}
    assert shown == {check.__name__ for check in CHECKS}


def test_the_text_space_holds_every_string_and_samples_actions():
    space = UnicodeText()
    space.seed(0)
    assert all(space.contains(text) for text in ("", "\ud800", "x" * 10_000, space.sample()))
    assert not space.contains(b"bytes")


@pytest.mark.parametrize("task", task_ids())
def test_an_environment_draws_what_it_says_it_draws(task):
    env = get_task(task).make()
    env.reset(seed=0)
    draws = type(env).render is not TextEnv.render
    assert (env.render_mode == "ansi") == (env.metadata["render_modes"] == ["ansi"]) == draws
    if env.render_mode is not None:
        assert isinstance(env.render(), str)
