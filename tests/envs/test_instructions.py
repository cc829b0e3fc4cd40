"""The rules as they are told to a player who has never seen the task."""

import re

import pytest

from envs import get_task, task_ids
from envs.text_nav.house import COMMANDS, ROOMS, THINGS


@pytest.mark.parametrize("task", task_ids())
def test_every_task_tells_its_rules(task):
    rules = get_task(task).instructions
    assert len(rules) > 300
    assert "legal" in rules or "An action is" in rules or "The commands are" in rules


@pytest.mark.parametrize("task", [t for t in task_ids() if get_task(t).actions])
def test_rules_name_every_action_of_a_short_list(task):
    spec = get_task(task)
    assert all(f'"{action.strip()}"' in spec.instructions for action in spec.actions)


def test_rules_of_the_maze_name_four_actions_and_what_each_does_to_the_position():
    named = re.findall(r'"(move \w+)"', get_task("maze-fo").instructions)
    assert set(named) == {"move left", "move right", "move up", "move down"}
    assert all(named.count(action) == 2 for action in named)


@pytest.mark.parametrize("task", ["text-nav-fo", "text-nav-po"])
def test_rules_of_text_nav_name_every_command(task):
    rules = get_task(task).instructions
    told = set()
    for pattern in re.findall(r"(?:go|take|put|insert|drop|open|close|eat) [\w ]+", rules):
        told |= {pattern.strip().replace("THING", thing) for thing in THINGS}
    assert set(COMMANDS) <= told


def test_rules_name_no_room_where_rooms_are_hidden():
    assert not [room for room in ROOMS if room in get_task("text-nav-po").instructions]
    assert all(room in get_task("text-nav-fo").instructions for room in ROOMS)


def test_rules_of_wordle_list_every_word():
    listed = get_task("wordle").instructions.splitlines()[-1].split()
    assert tuple(listed) == get_task("wordle").make().words
