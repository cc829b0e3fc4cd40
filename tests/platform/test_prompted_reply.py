"""What is taken for an action, of all that models say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import get_task
from lmrl_ray.prompted.reply import parse_action

MOVES = get_task("maze-fo").actions


@pytest.mark.parametrize(
    "reply",
    [
        '{"action": "move up"}',
        '{"thought": "the wall is left, {so} up", "action": "move up"}',
        'Let me think. {"action": "move down"} would be wrong, so:\n```json\n{"action": "move up"}\n```',
        '<think>{"action": "move down"}?</think>{"action": "move up"}',
        '{"action": "move up"}<think>or {"action": "move down"}?',
        "{'action': 'move up'}",
        '{"thought": "unclosed", "action": "move up"',
        '{"thought": "two\nlines", "action": "move up\\n"}',
        '{"thought": "a "quoted" word", "action": "move up"}',
        'action: "move up"',
    ],
)
@pytest.mark.parametrize("actions", [None, MOVES])
def test_the_action_of_the_last_object_is_taken(reply, actions):
    assert parse_action(reply, actions) == "move up\n"


@pytest.mark.parametrize("reply", ['{"action": "Move  UP"}', "move up", "`Move up.`", ' "move up" '])
def test_where_the_legal_actions_are_known_other_letters_are_forgiven(reply):
    assert parse_action(reply, MOVES) == "move up\n"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I would go up.",
        "{}",
        '{"action": null}',
        '{"action": ""}',
        '{"action": ["up"]}',
        "{" * 10_000,
        '<think>With {"action": "move up"} I would hit the wall, so',
        '<think>Up?</think><think>With {"action": "move up"} I would hit the wall, so',
    ],
)
@pytest.mark.parametrize("actions", [None, MOVES])
def test_a_reply_without_an_action_has_none(reply, actions):
    assert parse_action(reply, actions) is None


def test_an_illegal_action_is_what_was_said():
    assert parse_action('{"action": "jump"}', MOVES) == "jump\n"


def test_a_number_is_an_action():
    assert parse_action('{"action": 7}') == "7\n"


@given(st.text())
def test_any_reply_is_one_line_or_none(reply):
    action = parse_action(reply)
    assert action is None or (action.count("\n") == 1 and action.endswith("\n") and action.strip())


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_any_action_survives_json(text):
    assert parse_action(json.dumps({"action": text})) == " ".join(text.split()) + "\n"
