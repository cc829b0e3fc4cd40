"""What a model is told."""

import json

import pytest

from envs import get_task, task_ids
from envs.core import Segment
from lmrl_ray import data
from lmrl_ray.config import ConfigError
from lmrl_ray.prompted.config import PromptedConfig
from lmrl_ray.prompted.prompt import ask_again, messages, system_text
from lmrl_ray.seeding import episode_seed

MAZE = get_task("maze-fo")


def told(*texts, invalid=()):
    """Segments, observation first; the indices in `invalid` were not understood."""
    return [Segment(f"{t}\n", is_action=i % 2 == 1, valid=i not in invalid) for i, t in enumerate(texts)]


def said(found):
    return [m["content"] for m in found[1:]]


@pytest.mark.parametrize("task", task_ids())
def test_rules_come_first_and_then_the_form_of_a_reply(task):
    spec = get_task(task)
    text = system_text(spec, PromptedConfig(examples=0), {}, 0)
    assert text.startswith(spec.instructions)
    assert '"action"' in text


def test_examples_are_the_first_episodes_of_the_data_set_of_that_seed():
    text = system_text(MAZE, PromptedConfig(examples=2, example_turns=3), {}, 5)
    for index in range(2):
        episode = MAZE.data_episode(MAZE.make(), episode_seed(5, index))
        observations = [s.text.strip() for s in episode.segments[:7:2]]
        actions = [json.dumps({"action": s.text.strip()}) for s in episode.segments[1:7:2]]
        assert all(o in text for o in observations)
        assert all(f"{a}   (earned -1)" in text or f"{a}   (earned 0)" in text for a in actions)
    assert text.count("Example ") == 2
    assert text == system_text(MAZE, PromptedConfig(), {}, 5)
    assert text != system_text(MAZE, PromptedConfig(), {}, 6)


def test_examples_may_be_drawn_from_a_file(tmp_path):
    file = tmp_path / "maze.parquet"
    written = [shown.segments[1].text.strip() for shown in data.build("maze-fo", 40, 3, file)]

    def drawn(seed, **settings):
        return system_text(MAZE, PromptedConfig(data=file, example_turns=1, **settings), {}, seed)

    assert drawn(0) == drawn(0) != drawn(1)
    assert drawn(0) != system_text(MAZE, PromptedConfig(example_turns=1), {}, 0)
    assert drawn(0, examples=40).count("Example ") == 40
    for move in set(written):
        assert drawn(0, examples=40).count(f'{{"action": "{move}"}}   (') == written.count(move)
    with pytest.raises(ConfigError, match=r"api\.examples: asks for 41, .* holds 40"):
        drawn(0, examples=41)
    with pytest.raises(ConfigError, match=r"api\.data: .* holds episodes of maze-fo, not of maze-po"):
        system_text(get_task("maze-po"), PromptedConfig(data=file), {}, 0)
    with pytest.raises(data.DataError, match="there is no such file"):
        system_text(MAZE, PromptedConfig(data=tmp_path / "none.parquet"), {}, 0)


@pytest.mark.slow
@pytest.mark.parametrize("task", task_ids())
def test_every_task_has_examples(task):
    text = system_text(get_task(task), PromptedConfig(examples=1), {}, 0)
    shown = text.partition("Example 1:\n")[2]
    assert shown.startswith("Observation: ")
    assert 1 <= shown.count('{"action": ') <= 3


def test_all_of_the_episode_is_shown_where_the_task_has_no_window():
    found = messages("rules", told("a", "left", "b", "up", "c"), None, False)
    assert found[0] == {"role": "system", "content": "rules"}
    assert [m["role"] for m in found[1:]] == ["user", "assistant", "user", "assistant", "user"]
    assert said(found) == ["a", '{"action": "left"}', "b", '{"action": "up"}', "c"]


@pytest.mark.parametrize(("window", "shown"), [(1, ["c"]), (2, ["c"]), (3, ["b", '{"action": "up"}', "c"])])
def test_a_window_begins_with_an_observation(window, shown):
    assert said(messages("rules", told("a", "left", "b", "up", "c"), window, False)) == shown


def test_an_action_that_was_not_understood_wipes_what_came_before_it():
    segments = told("a", "jump", "b", "up", "c", invalid=(1,))
    assert said(messages("rules", segments, None, True)) == ["b", '{"action": "up"}', "c"]
    assert len(said(messages("rules", segments, None, False))) == 5


def test_an_empty_observation_is_said_to_be_one():
    assert said(messages("rules", told(""), None, False)) == ["(an empty line)"]


def test_asking_again_names_every_legal_action():
    asked = messages("rules", told("a"), None, False)
    again = ask_again(asked, "hm", MAZE.actions)
    assert again[: len(asked)] == asked
    assert again[-2] == {"role": "assistant", "content": "hm"}
    assert all(a.strip() in again[-1]["content"] for a in MAZE.actions)


def test_rules_may_come_from_a_file(tmp_path):
    file = tmp_path / "rules.txt"
    file.write_text("Go down.\n")
    text = system_text(MAZE, PromptedConfig(instructions=file, examples=0), {}, 0)
    assert text.startswith("Go down.\n\n")
    with pytest.raises(ConfigError, match=r"nowhere\.txt cannot be read"):
        system_text(MAZE, PromptedConfig(instructions=tmp_path / "nowhere.txt"), {}, 0)
