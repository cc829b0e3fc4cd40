"""`lmrl play`: a person at the keyboard, driven through stdin."""

import builtins
import json

import pytest
from typer.testing import CliRunner

from envs.registry import get_task, task_ids
from lmrl_ray.cli.app import app
from lmrl_ray.config import ConfigError


@pytest.fixture
def play():
    """Type these lines, then end the input."""

    def run(task, *lines, seed=3, options=()):
        typed = "".join(f"{line}\n" for line in lines)
        arguments = ["play", task, "--seed", str(seed), *map(str, options)]
        answer = CliRunner().invoke(app, arguments, input=typed, catch_exceptions=False)
        assert answer.exit_code == 0
        return answer

    return run


def own_game(task, name, seed=3):
    spec = get_task(task)
    return spec.play(spec.make(), spec.baseline(name), seed)


def actions_of(episode):
    return [s.text.removesuffix("\n") for s in episode.segments if s.is_action]


@pytest.mark.parametrize("task", task_ids())
def test_a_person_who_takes_every_hint_plays_the_best_game_there_is(play, task):
    spec = get_task(task)
    best = own_game(task, spec.best_baseline)
    typed = [line for action in actions_of(best) for line in (":hint", action)]
    answer = play(task, *typed, options=["--json"])
    played = json.loads(answer.stdout)
    assert [s["text"] for s in played["segments"]] == [s.text for s in best.segments]
    assert (played["success"], played["return"], played["length"]) == (True, best.total_return, best.length)
    assert played["policy"] == "person"
    for action in actions_of(best):
        assert f"{spec.best_baseline}: {action}" in answer.stderr
    for segment in best.segments:
        if not segment.is_action:
            assert segment.text in answer.stderr


@pytest.mark.parametrize(
    "task", ["maze-po", "wordle", "twenty-questions", "guess-my-city", "car-dealer", "text-nav-po"]
)
def test_hints_follow_the_game_that_the_person_plays(play, task):
    """After a few moves of its own a game that takes hints from there on is won."""
    spec, typed = get_task(task), ["no such move", *actions_of(own_game(task, "random"))[:2]]
    if task == "car-dealer":  # whom nonsense makes leave
        typed = ["Hello! I have a Ford truck.", "What is your budget?"]
    while True:
        answer = play(task, *typed, ":hint").stdout
        hints = [line for line in answer.splitlines() if line.startswith(f"> {spec.best_baseline}: ")]
        if not hints:
            break
        typed.append(hints[-1].removeprefix(f"> {spec.best_baseline}: "))
    assert "\nsuccess: " in answer
    assert len(typed) >= 3


def test_what_is_shown(play):
    shown = play("maze-fo", "move left", "jump", options=["--task-id", 0]).stdout
    assert "actions: move left, move right, move up, move down\n" in shown
    assert "\nThe goal is at position 8, 6. Your current position is at position 1, 1. " in shown
    assert "\nturn 1   reward -1   return -1\n" in shown
    assert "\nturn 2   reward -4   return -5   not understood\n" in shown
    assert shown.endswith("\nleft before the end: return -5 in 2 actions, seed 3\n")
    assert "Admissible commands: " in play("text-nav-fo").stdout


def test_quitting_stops_and_the_record_is_of_a_game_that_was_on(play):
    answer = play("wordle", "s h i r e", ":quit", "t h i r d", options=["--json"])
    played = json.loads(answer.stdout)
    assert played["length"] == 1
    assert not played["terminated"]
    assert not played["truncated"]
    assert played["seed"] == 3


def test_an_interrupt_ends_it_cleanly(play, monkeypatch):
    lines = iter(["move left"])

    def typed():
        for line in lines:
            return line
        raise KeyboardInterrupt

    monkeypatch.setattr(builtins, "input", typed)
    assert "left before the end: return -1 in 1 actions" in play("maze-fo").stdout


def test_any_text_may_be_typed(play):
    shown = play("car-dealer", "[bold]:smile: [/x] ひ", ":smile", "", "\x1b[0m", options=["--json"])
    said = [s["text"] for s in json.loads(shown.stdout)["segments"] if s["is_action"]]
    assert said == ["[bold]:smile: [/x] ひ\n", "\n", "\x1b[0m\n"]
    assert ":smile is no command" in shown.stderr


def test_the_simulator_and_the_task_can_be_chosen(play):
    shown = play("maze-fo", options=["--set", "env.layout=umaze", "--task-id", 0, "--json"])
    assert json.loads(shown.stdout)["task_id"] == 0
    for options, named in (
        (["--task-id", 1000], "--task-id 1000"),
        (["--set", "env.speed=3"], "speed"),
        (["--set", "training.steps=3"], "training"),
    ):
        with pytest.raises(ConfigError, match=named):
            play("maze-fo", options=options)


def test_without_a_seed_every_game_is_another_one():
    seeds = {
        json.loads(CliRunner().invoke(app, ["play", "wordle", "--json"], input="").stdout)["seed"]
        for _ in range(3)
    }
    assert len(seeds) == 3
