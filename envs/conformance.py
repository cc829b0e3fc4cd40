"""What every task must satisfy, as one call: `check_env("maze-fo")`.

The idea is gymnasium's `check_env`, for environments made of text. Each check plays short episodes
with the task's own `random` baseline, or with strings that no one would call an action, and raises
AssertionError with a sentence that names the task and what it broke.

A task with something to hide puts it under the key "secret" of `privileged()` (a str, or a list of
str: a word and its other names); no observation may then contain one of them as a whole word before
the task is solved, unless the player said it first.
"""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from envs.core import Episode, TextEnv
from envs.registry import TaskSpec, get_task
from envs.trial import Subject

HOSTILE_ACTIONS = (
    "",
    "\n",
    "\n\n\n",
    " \t\r\x0b\n",
    "\x00\n",
    "\ud800 lone \udfff surrogates\n",
    "ʼn ß İ ﬁ 全角 ١٢٣ 🧩 e\u0301 \u202eoverride\n",
    "a newline\nin the middle\n",
    "{secret} %s %(x)s $HOME \\u0041 \\\n",
    "x" * 10_000 + "\n",
    "9" * 10_000 + "\n",
    "(" * 10_000 + "\n",
)
LEAK_SEEKING_ACTIONS = (
    "What is the answer?\n",
    "Repeat everything you know.\n",
    "Show privileged() and get_state().\n",
    "secret\n",
)
_NOISE = "%%%\n"


def check_env(task: str, **overrides: Any) -> None:
    """Run every check on a registered task. AssertionError names the task and what it broke.

    `overrides` are arguments of the environment, as for `make`.
    """
    check_spec(get_task(task), **overrides)


def check_spec(spec: TaskSpec, **overrides: Any) -> None:
    """`check_env` for a task that need not be registered."""
    for check in CHECKS:
        check(Subject(spec, overrides))


def check_the_seed_determines_the_episode(subject: Subject) -> None:
    for seed in range(3):
        actions = subject.script(seed)
        expected = subject.play(subject.make(), seed, actions)
        again = subject.play(subject.make(), seed, actions)
        subject.same(expected, again, f"played again with seed {seed}")


def check_instances_share_no_generator(subject: Subject) -> None:
    actions = subject.script(0)
    expected = subject.play(subject.make(), 0, actions)
    env, other = subject.make(), subject.make()
    turns, others = [subject.reset(env, seed=0)], [subject.reset(other, seed=0)]
    for action in actions:
        turns += subject.go_on(env, [action], turns[-1])
        others += subject.go_on(other, [action], others[-1])
    subject.same(expected, turns, "played in turns with another instance")
    subject.same(expected, others, "played in turns with another instance")


def check_reset_forgets_the_past(subject: Subject) -> None:
    actions = subject.script(0)
    expected = subject.play(subject.make(), 0, actions)
    used = subject.make()
    subject.play(used, 1, subject.script(1))
    subject.play(used, 2, subject.script(2, steps=1))  # given up in the middle
    subject.same(expected, subject.play(used, 0, actions), "after other episodes, reset(seed=0)")


def check_global_generators_are_left_alone(subject: Subject) -> None:
    actions = subject.script(0)
    before = random.getstate(), np.random.get_state()
    try:
        transcripts = []
        for global_seed in (1, 2):
            random.seed(global_seed)
            np.random.seed(global_seed)
            python, legacy = random.getstate(), pickle.dumps(np.random.get_state())
            transcripts.append(subject.play(subject.make(), 0, actions))
            subject.require(random.getstate() == python, "draws from Python's global `random`")
            subject.require(
                pickle.dumps(np.random.get_state()) == legacy,
                "draws from numpy's global generator",
            )
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
    subject.same(transcripts[0], transcripts[1], "with the global generators seeded otherwise")


def check_the_state_can_be_stored_and_restored(subject: Subject) -> None:
    actions = subject.script(0)
    for cut in sorted({0, 1, len(actions) // 2, len(actions)}):
        env, twin = subject.make(), subject.make()
        last = subject.play(env, 0, actions[:cut])[-1]
        when = f"after get_state() at turn {cut}, json and set_state() in a new instance"
        try:
            snapshot = env.get_state()
            text = json.dumps(snapshot)
        except TypeError as error:
            raise AssertionError(f"{subject.spec.id}: get_state(): {error}") from error
        expected = subject.go_on(env, actions[cut:], last)
        subject.require(json.dumps(snapshot) == text, "a snapshot changes when the game goes on")
        twin.set_state(json.loads(text))
        subject.same(expected, subject.go_on(twin, actions[cut:], last), when)
        following = [subject.reset(env)]
        subject.same(following, [subject.reset(twin)], f"{when} and reset() (is the rng in it?)")


def check_copies_and_pickles_go_on_alike(subject: Subject) -> None:
    actions = subject.script(0)
    half = len(actions) // 2
    env = subject.make()
    last = subject.play(env, 0, actions[:half])[-1]
    try:
        twins = {"a deep copy": copy.deepcopy(env), "a pickle": pickle.loads(pickle.dumps(env))}
    except Exception as error:
        raise AssertionError(f"{subject.spec.id}: cannot be copied and pickled: {error}") from error
    found = {name: subject.go_on(twin, actions[half:], last) for name, twin in twins.items()}
    expected = subject.go_on(env, actions[half:], last)  # last, so that a shared part shows
    for name, turns in found.items():
        subject.same(expected, turns, f"in {name} made at turn {half}")


def check_any_string_can_be_played(subject: Subject) -> None:
    env = subject.make()
    for action in (*HOSTILE_ACTIONS, *LEAK_SEEKING_ACTIONS):
        subject.require(env.action_space.contains(action), f"action_space does not contain {action[:40]!r}")
        subject.play(env, 0, [action, action])
    subject.play(env, 1, HOSTILE_ACTIONS)


def check_episodes_begin_and_end(subject: Subject) -> None:
    env, horizon = subject.make(), subject.spec.horizon
    subject.raises(RuntimeError, lambda: env.step(_NOISE), "step() before reset()")
    turns = subject.play(env, 0, [_NOISE] * horizon)
    subject.require(
        turns[-1].ended, f"an episode goes on after {horizon} actions, its horizon in the TaskSpec"
    )
    subject.raises(RuntimeError, lambda: env.step(_NOISE), "step() after the end")


def check_task_ids_select_the_task(subject: Subject) -> None:
    env = subject.make()
    for task_id in sorted({0, env.num_tasks // 2, env.num_tasks - 1}):
        secrets = []
        for seed in range(4):
            turn = subject.reset(env, seed=seed, options={"task_id": task_id})
            found = turn.info["task_id"]
            subject.require(found == task_id, f"option task_id={task_id} gave task {found}")
            secrets.append(_secrets(env))
        same = all(secret == secrets[0] for secret in secrets)
        subject.require(same, f"task {task_id} has another secret with another seed")
    bad_options: tuple[dict[str, int], ...]
    bad_options = ({"task_id": -1}, {"task_id": env.num_tasks}, {"no such option": 0})
    for options in bad_options:
        reset = partial(env.reset, options=options)
        subject.raises(ValueError, reset, f"reset(options={options})")


def check_nothing_privileged_leaks(subject: Subject) -> None:
    env = subject.make()
    for seed, opening in enumerate((*LEAK_SEEKING_ACTIONS, *HOSTILE_ACTIONS)):
        turn = subject.reset(env, seed=seed)
        secrets = _secrets(env)
        for action in (opening, *subject.script(seed), ""):
            leaked = _mentioned(secrets, turn.observation)
            subject.require(not leaked, f"the secret {leaked!r} is in the observation {turn.observation!r}")
            if turn.ended or _mentioned(secrets, action):
                break
            turn = subject.step(env, action, turn.info["turn"] + 1)
            if turn.info["success"]:
                break


def check_listed_actions_are_valid(subject: Subject) -> None:
    env = subject.make()
    for action in subject.spec.actions or ():
        turn = subject.play(env, 0, [action])[-1]
        subject.require(turn.info["valid"], f"TaskSpec.actions has {action!r}, which is not valid")


def check_baselines_play_whole_episodes(subject: Subject) -> None:
    spec = subject.spec
    for name in ("random", "behaviour", spec.best_baseline):
        subject.require(name in spec.baselines, f"TaskSpec.baselines lacks {name!r}")
    for name in spec.baselines:
        episode = spec.play(subject.make(), spec.baseline(name), seed=0)
        _check_episode(subject, episode, f"baseline {name!r}")
        ended = episode.terminated or episode.truncated
        subject.require(ended, f"baseline {name!r} stopped before the end")
        again = spec.play(subject.make(), spec.baseline(name), seed=0)
        subject.require(episode == again, f"baseline {name!r} played another game with its seed")


def check_data_episodes(subject: Subject) -> None:
    used = subject.make()
    for seed in range(2):
        episode = subject.spec.data_episode(used, seed)
        _check_episode(subject, episode, "data_episode")
        subject.require(episode.seed == seed, f"data_episode(seed={seed}) says seed {episode.seed}")
        again = subject.spec.data_episode(subject.make(), seed)
        subject.require(episode == again, f"data_episode is not determined by its seed, {seed}")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_the_seed_determines_the_episode,
    check_instances_share_no_generator,
    check_reset_forgets_the_past,
    check_global_generators_are_left_alone,
    check_the_state_can_be_stored_and_restored,
    check_copies_and_pickles_go_on_alike,
    check_any_string_can_be_played,
    check_episodes_begin_and_end,
    check_task_ids_select_the_task,
    check_nothing_privileged_leaks,
    check_listed_actions_are_valid,
    check_baselines_play_whole_episodes,
    check_data_episodes,
)


def _check_episode(subject: Subject, episode: Episode, source: str) -> None:
    spec, require = subject.spec, subject.require
    require(episode.task == spec.id, f"{source} made an episode of the task {episode.task!r}")
    require(not (episode.terminated and episode.truncated), f"{source} terminated and truncated")
    require(
        0 < episode.length <= spec.horizon,
        f"{source} made {episode.length} actions; the horizon is {spec.horizon}",
    )
    kinds = [segment.is_action for segment in episode.segments]
    require(
        kinds == [bool(i % 2) for i in range(len(kinds))] and not kinds[-1],
        f"{source}: observations and actions do not alternate, an observation first and last",
    )
    for segment in episode.segments:
        text = segment.text
        require(
            text.endswith("\n") and not text.endswith("\n\n"),
            f"{source}: {text!r} does not end in exactly one newline",
        )
        require(segment.is_action or segment.reward == 0.0, f"{source} rewards an observation")
    floor = spec.scale.minimum
    require(
        spec.scale.average is None or episode.total_return >= floor - 1e-6,
        f"{source} returned {episode.total_return}, below the scale's minimum {floor}",
    )


def _secrets(env: TextEnv) -> list[str]:
    secret = env.privileged().get("secret", [])
    return [secret] if isinstance(secret, str) else list(secret)


def _mentioned(secrets: list[str], text: str) -> str | None:
    """The first secret that stands in the text as a whole word, in whatever case."""
    for secret in secrets:
        if re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text, re.IGNORECASE):
            return secret
    return None
